"""The rivals of the paper's Table 4 that are trained here: Triplet, CSN and ASEN.

Each is put on the visual tower of any open_clip VLM, or on torchvision's ResNet-50, and trained by
train_rival.py with the sampler and the loss of CRL, in cosine similarity. That is not what their
authors did. CSN: Euclidean distance, margin 0.2, width 64, on a ResNet-18. ASEN: margin 0.2,
batches of 16, 200 epochs, each of which takes the rate to 0.985 of itself. Both flip images at
random and train the tower's batch normalisation, which stays as it is here. ASEN++ and RPF are not
implemented: their numbers are quoted from the paper.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from crl.run.distributed import available_device
from crl.run.weights import explained, stored_shapes
from crl.run.torchvision_fix import import_torchvision
from crl.run.errors import UserError
from crl.run.results import array_digest, digest
from crl.run.weights import read_about
from crl.vlm.open_clip import trained_name
from crl.vlm import Preprocess, load_vlm
from fashion_retrieval.networks import Network

RESNET = "resnet50"

# --- towers ---------------------------------------------------------------------------------------


class Tower(NamedTuple):
    """What a rival is put on.

    Attributes:
        name: as the rival's file says it; `resnet50` wherever its weights came from.
        module: pixels (B, 3, H, W) -> one vector (B, C), or a feature map (B, C, h, w).
        channels: C.
        fingerprint: changes whenever the features do.
    """

    name: str
    module: nn.Module
    preprocess: Callable[[Image.Image], Tensor]
    channels: int
    fingerprint: str


class Visual(nn.Module):
    """The visual tower of an open_clip model: its image vector, or its last feature map."""

    def __init__(self, visual: nn.Module, spatial: bool) -> None:
        super().__init__()
        self.visual, self.spatial = visual, spatial

    def forward(self, pixels: Tensor) -> Tensor:
        if not self.spatial:
            vector = self.visual(pixels)
            return vector[0] if isinstance(vector, tuple) else vector  # CoCa adds its tokens
        found = self.visual.forward_intermediates(
            pixels,
            indices=1,  # the last
            intermediates_only=True,
            output_fmt="NCHW",
            # A ViT's last norm evens out its tokens; CoCa's comes after pooling, in its width.
            normalize_intermediates=getattr(self.visual, "attn_pool", None) is None,
        )
        return found["image_intermediates"][-1]


def check_tower(name: str) -> None:
    """Is there such a tower? Nothing is loaded to find that out.

    Raises:
        UserError: no such VLM or file; a VLM of another library than open_clip.
    """
    kind, separator, file = name.partition(":")
    if kind != RESNET:
        try:
            trained_name(Path(), name)
        except UserError as error:
            raise UserError(f"{error}; or take {RESNET}") from error
    elif separator and not Path(file).expanduser().is_file():
        raise UserError(f"there is no file {file!r} with the weights of a ResNet-50")


def open_tower(
    name: str, spatial: bool, device: str | torch.device | None, weights: bool = True
) -> Tower:
    """Load a tower in eval mode.

    Args:
        name: `resnet50`: torchvision's, with the ImageNet weights that ASEN starts from, fetched by
            torchvision; `resnet50:FILE`: with the weights in a file, a whole state dict of it; or
            an open_clip VLM as `load_vlm` takes it.
        spatial: for its feature map, not its vector. That of a ResNet-50 is of its third stage,
            1024 x 14 x 14, as in ASEN.
        weights: False for a ResNet-50 without its weights.

    Raises:
        UserError: as `check_tower` and `load_vlm`; weights that cannot be fetched, are damaged or
            do not fit; a tower without a feature map.
    """
    check_tower(name)
    device = available_device(device)
    kind, _, file = name.partition(":")
    if kind == RESNET:
        name = RESNET
        module, preprocess = _resnet(file, spatial, weights)
        state = module.state_dict().values()
        fingerprint = digest(repr(preprocess), *(array_digest(tensor.numpy()) for tensor in state))
    else:
        vlm = load_vlm(name, device)
        preprocess, fingerprint = vlm.preprocess, vlm.fingerprint
        module = Visual(vlm.model.visual, spatial)
    module.to(device).eval()
    blank = preprocess(Image.new("RGB", (64, 64)))[None].to(device)
    try:
        with torch.no_grad():
            channels = module(blank).shape[1]
    except (AttributeError, NotImplementedError) as error:
        if not spatial:
            raise
        raise UserError(f"the visual tower of {name} has no feature map; try {RESNET}") from error
    return Tower(name, module, preprocess, channels, fingerprint)


def _resnet(file: str, spatial: bool, weights: bool) -> tuple[nn.Module, Preprocess]:
    import_torchvision()
    from torchvision.models import ResNet50_Weights, resnet50

    published = ResNet50_Weights.IMAGENET1K_V1
    transforms = published.transforms(resize_size=224)  # as ASEN's: nothing is cut off but a border
    state = None
    if weights:
        state = _weights(Path(file).expanduser()) if file else _fetch(published)
    resnet = resnet50(weights=None)
    if state is not None:
        with explained(f"a ResNet-50: {file or published}", remote=False):
            resnet.load_state_dict(state)
    parts = list(resnet.children())  # 4 of the stem, 4 stages, mean, classifier
    module = nn.Sequential(*parts[:7]) if spatial else nn.Sequential(*parts[:9], nn.Flatten())
    return module, Preprocess(transforms)


def _weights(file: Path) -> dict[str, Tensor]:
    stored_shapes(file)  # refuses a damaged file, and one that holds code
    if file.suffix == ".safetensors":
        return load_file(file)
    return torch.load(file, map_location="cpu", weights_only=True)


def _fetch(published) -> dict[str, Tensor]:
    try:
        with explained("torchvision's weights of ResNet-50", remote=False):
            return published.get_state_dict(check_hash=True, weights_only=True, map_location="cpu")
    except UserError as error:
        raise UserError(f"{error}. Without a network use tower={RESNET}:FILE") from error


# --- methods --------------------------------------------------------------------------------------


class Rival(Network):
    """A network with the contract of `Network`; `spatial` ones take a tower's feature map."""

    method: str
    spatial = False

    def __init__(self, tower: Tower, attributes: int, width: int) -> None:
        super().__init__()
        self.tower, self.tower_name = tower.module, tower.name
        self.preprocess, self.width = tower.preprocess, width


class Triplet(Rival):
    """One linear embedding of the tower's vector, the same for all attributes."""

    method = "triplet"

    def __init__(self, tower: Tower, attributes: int, width: int) -> None:
        super().__init__(tower, attributes, width)
        self.embedding = nn.Linear(tower.channels, width)

    def embed(self, features: Tensor, attribute: Tensor) -> Tensor:
        return F.normalize(self.embedding(features), dim=1)


class CSN(Rival):
    """Conditional similarity network (Veit, Belongie, Karaletsos, CVPR 2017): one linear embedding,
    of which each attribute weighs the dimensions by a learned mask that is never negative.

    Masks begin at N(0.9, 0.7) and the two norms below are added to the loss, with weights and
    normalisation as in the authors' code. In cosine similarity scale costs nothing, so both norms
    fall until a mask is left with few dimensions.
    """

    method = "csn"
    MASK_NORM, EMBEDDING_NORM = 5e-4, 5e-3

    def __init__(self, tower: Tower, attributes: int, width: int) -> None:
        super().__init__(tower, attributes, width)
        self.embedding = nn.Linear(tower.channels, width)
        self.mask = nn.Parameter(torch.empty(attributes, width).normal_(0.9, 0.7))

    def masks(self, attribute: Tensor) -> Tensor:
        """(B,) -> (B, width), not negative."""
        return F.relu(self.mask[attribute])

    def embed(self, features: Tensor, attribute: Tensor) -> Tensor:
        return F.normalize(self.embedding(features) * self.masks(attribute), dim=1)

    def penalty(self, features: Tensor, attribute: Tensor) -> Tensor:
        """5e-4 times the mean L1 norm of the triplets' masks, plus 5e-3 times the L2 norm of all b
        embeddings before the mask, over sqrt(b), mean of anchors, positives and negatives.

        The second is the norm of a whole batch: parts of a batch do not add up to it.
        """
        b = len(attribute)
        mask_norm = self.masks(attribute).sum() / b
        embeddings = self.embedding(features).flatten(1)  # (3, b * width)
        embedding_norm = embeddings.norm(dim=1).mean() / math.sqrt(b)
        return self.MASK_NORM * mask_norm + self.EMBEDDING_NORM * embedding_norm


class ASEN(Rival):
    """Attribute-specific embedding network (Ma et al., AAAI 2020): attribute-aware spatial, then
    channel attention over a feature map. Layers are those of the authors' released second version
    (ASENet_V2), which scores a position by a scaled dot product.

    Ours differs where it must: C, published as 1024, is the tower's, and the map's batch
    normalisation takes a batch's anchors, positives and negatives together, not one by one, since
    they go through the tower together.
    """

    method = "asen"
    spatial = True
    HIDDEN = 512

    def __init__(self, tower: Tower, attributes: int, width: int) -> None:
        super().__init__(tower, attributes, width)
        C, h = tower.channels, self.HIDDEN
        self.attribute = nn.Embedding(attributes, h)
        self.position = nn.Sequential(nn.Conv2d(C, h, 1), nn.BatchNorm2d(h), nn.Tanh())
        self.where = nn.Sequential(nn.Linear(h, h), nn.Tanh())  # the attribute's view of positions
        self.which = nn.Sequential(nn.Linear(h, h), nn.ReLU())  # and of channels
        self.channel = nn.Sequential(nn.Linear(C + h, h), nn.ReLU(), nn.Linear(h, C), nn.Sigmoid())
        self.embedding = nn.Linear(C, width)

    def attention(self, features: Tensor, attribute: Tensor) -> Tensor:
        """(B, C, h, w) and (B,) -> weights of the positions (B, h, w), which sum to 1."""
        asked = self.where(self.attribute(attribute))  # (B, 512)
        score = torch.einsum("bchw,bc->bhw", self.position(features), asked)
        return (score / math.sqrt(self.HIDDEN)).flatten(1).softmax(1).view_as(score)

    def embed(self, features: Tensor, attribute: Tensor) -> Tensor:
        x = torch.einsum("bchw,bhw->bc", features, self.attention(features, attribute))
        asked = self.which(self.attribute(attribute))  # (B, 512)
        x = x * self.channel(torch.cat([x, asked], 1))  # (B, C)
        return F.normalize(self.embedding(x), dim=1)


METHODS: dict[str, type[Rival]] = {kind.method: kind for kind in (Triplet, CSN, ASEN)}


# --- files ----------------------------------------------------------------------------------------


def load_rival(path: Path, attributes: int, device: str | torch.device | None) -> Rival:
    """A trained rival, in eval mode.

    Args:
        path: rival.safetensors of train_rival.py. It holds the trained tower too: that of a VLM is
            loaded for its layers and preprocessing alone.
        attributes: as many as it must have.

    Raises:
        UserError: no such file; a damaged one; no rival; one for another number of attributes; a
            tower that is not here; weights that do not fit it.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no rival {path}; train it with train_rival.py")
    try:
        about = read_about(path)
        kind, tower = METHODS[about["method"]], about["tower"]
        width, known = int(about["width"]), int(about["attributes"])
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"{path} is no rival that train_rival.py has saved") from error
    if known != attributes:
        raise UserError(
            f"{path} is a rival for {known} attributes, the data has {attributes}; use one trained "
            "on this data set"
        )
    try:
        check_tower(tower)
    except UserError as error:
        raise UserError(f"the tower of {path} is not here: {error}") from error
    rival = kind(open_tower(tower, kind.spatial, device, weights=False), attributes, width)
    with explained(f"{kind.method} on {tower}: {path}", remote=False):
        rival.load_state_dict(load_file(path))
    return rival.to(available_device(device)).eval()
