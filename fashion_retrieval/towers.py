"""The tower below a rival: the visual tower of any open_clip VLM, or torchvision's ResNet-50."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from crl.backends.hub import explained
from crl.backends.loaded import Preprocess
from crl.backends.torchvision_fix import import_torchvision
from crl.backends.weights import load_tensors
from crl.run.distributed import available_device
from crl.run.errors import UserError
from crl.run.results import digest
from crl.vlm import load_trainable

RESNET, IMAGENET = "resnet50", "imagenet"


class Tower(NamedTuple):
    """The image network below a rival."""

    name: str  # in results.json; always `resnet50` for a ResNet-50, also with a FILE
    module: nn.Module  # pixels (B, 3, H, W) -> one vector (B, C), or a feature map (B, C, h, w)
    preprocess: Callable[[Image.Image], Tensor]
    channels: int  # C
    fingerprint: str  # changes whenever the features do


class Visual(nn.Module):
    """The visual tower of an open_clip model: its image vector, or its last feature map."""

    def __init__(self, visual: nn.Module, spatial: bool) -> None:
        super().__init__()
        self.visual, self.spatial = visual, spatial

    def forward(self, pixels: Tensor) -> Tensor:
        if not self.spatial:
            vector = self.visual(pixels)
            return vector[0] if isinstance(vector, tuple) else vector  # CoCa also returns tokens
        # A ViT's last norm balances its tokens; CoCa's comes after pooling and has its width.
        norm = getattr(self.visual, "attn_pool", None) is None
        maps = self.visual.forward_intermediates(
            pixels, indices=1, intermediates_only=True, output_fmt="NCHW",
            normalize_intermediates=norm,
        )  # fmt: skip
        return maps["image_intermediates"][-1]


def open_tower(
    name: str, spatial: bool, device: str | torch.device | None, weights: bool = True
) -> Tower:
    """Load a tower in eval mode; with `spatial` for its feature map, else for its vector.

    `name`: `resnet50`, torchvision's with the ImageNet weights that ASEN starts from (its map comes
    from the third stage, 1024 x 14 x 14, as in ASEN); `resnet50:FILE`, with the weights in a file;
    or an open_clip VLM. `weights=False`: a ResNet-50 without them. UserError: no such VLM, bad or
    missing weights, a tower without a feature map."""
    device = available_device(device)
    kind, _, file = name.partition(":")
    if kind == RESNET:
        name = RESNET
        module, preprocess = _resnet(file, spatial, weights)
        state = (tensor.numpy() for tensor in module.state_dict().values())
        fingerprint = digest(repr(preprocess), *state)
    else:
        vlm = load_trainable(name, device)
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
    transforms = published.transforms(resize_size=224)  # as in ASEN: only a border is cut off
    resnet = resnet50(weights=None)
    if weights:
        load_published(resnet, published, file or IMAGENET, f"tower={RESNET}:FILE")
    parts = list(resnet.children())  # 4 of the stem, 4 stages, mean, classifier
    module = nn.Sequential(*parts[:7]) if spatial else nn.Sequential(*parts[:9], nn.Flatten())
    return module, Preprocess(transforms, 224, Image.Resampling.BILINEAR)


def load_published(module: nn.Module, published: Any, source: str, instead: str) -> None:
    """Give a network torchvision's weights, or those in a file; `source`: `imagenet`, or the file;
    `instead`: the advice for who has no network. UserError: bad or missing weights."""
    network = type(published).__name__.removesuffix("_Weights")
    if source == IMAGENET:
        state, source = _fetch(published, network, instead), str(published)
    else:
        state = load_tensors(Path(source).expanduser())
    with explained(f"a {network}: {source}", remote=False):
        module.load_state_dict(state)


def _fetch(published: Any, network: str, instead: str) -> dict[str, Tensor]:
    try:
        with explained(f"torchvision's weights of {network}", remote=False):
            return published.get_state_dict(check_hash=True, weights_only=True, map_location="cpu")
    except UserError as error:
        raise UserError(f"{error}. Without a network use {instead}") from error
