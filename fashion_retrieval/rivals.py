"""The rivals of the paper's Table 4 that are trained here: Triplet, CSN and ASEN.

Each is built on a tower (towers.py) and trained by train_rival.py with the sampler and the loss of
CRL, in cosine similarity. The README lists the differences from the authors' trainings. ASEN++ and
RPF are not implemented: their numbers are quoted from the paper.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crl.backends.hub import explained
from crl.backends.weights import load_tensors
from crl.run.errors import UserError
from fashion_retrieval.networks import Network
from fashion_retrieval.towers import Tower, open_tower
from fashion_retrieval.trained import TrainedRival


class Rival(Network):
    """A network on a tower: on its feature map if `spatial`, else on its vector."""

    spatial = False

    def __init__(self, tower: Tower, attributes: int, width: int) -> None:
        super().__init__()
        self.tower, self.preprocess, self.width = tower.module, tower.preprocess, width


class Triplet(Rival):
    """One linear embedding of the tower's vector, the same for all attributes."""

    def __init__(self, tower: Tower, attributes: int, width: int) -> None:
        super().__init__(tower, attributes, width)
        self.embedding = nn.Linear(tower.channels, width)

    def embed(self, features: Tensor, attribute: Tensor) -> Tensor:
        return F.normalize(self.embedding(features), dim=1)


class CSN(Rival):
    """Conditional similarity network (Veit, Belongie, Karaletsos, CVPR 2017): one linear embedding;
    each attribute weights its dimensions with a learned mask that is never negative.

    Masks begin as N(0.9, 0.7). Two norms are added to the loss, weighted and normalised as in the
    authors' code. Cosine similarity ignores scale, so they shrink until a mask is nearly empty.
    """

    def __init__(self, tower: Tower, attributes: int, width: int) -> None:
        super().__init__(tower, attributes, width)
        self.embedding = nn.Linear(tower.channels, width)
        self.mask = nn.Parameter(torch.empty(attributes, width).normal_(0.9, 0.7))

    def embed(self, features: Tensor, attribute: Tensor) -> Tensor:
        return F.normalize(self.embedding(features) * F.relu(self.mask[attribute]), dim=1)

    def penalty(self, features: Tensor, attribute: Tensor) -> Tensor:
        """5e-4 times the mean L1 norm of the triplets' masks, plus 5e-3 times the L2 norm of all b
        embeddings before the mask (of a whole batch, not a sum over parts of it), divided by
        sqrt(b); mean over anchors, positives and negatives."""
        b = len(attribute)
        mask_norm = F.relu(self.mask[attribute]).sum() / b
        embeddings = self.embedding(features).flatten(1)  # (3, b * width)
        embedding_norm = embeddings.norm(dim=1).mean() / math.sqrt(b)
        return 5e-4 * mask_norm + 5e-3 * embedding_norm


class ASEN(Rival):
    """Attribute-specific embedding network (Ma et al., AAAI 2020): attribute-aware spatial
    attention, then channel attention, over a feature map. The layers are those of the authors'
    second version (ASENet_V2), which scores a position by a scaled dot product. Two differences: C
    is the tower's number of channels (published: 1024); the map's batch normalisation is over
    anchors, positives and negatives together, as they go through the tower together."""

    spatial = True
    HIDDEN = 512

    def __init__(self, tower: Tower, attributes: int, width: int) -> None:
        super().__init__(tower, attributes, width)
        C, h = tower.channels, self.HIDDEN
        self.attribute = nn.Embedding(attributes, h)
        self.position = nn.Sequential(nn.Conv2d(C, h, 1), nn.BatchNorm2d(h), nn.Tanh())
        self.where = nn.Sequential(nn.Linear(h, h), nn.Tanh())  # attribute, for spatial attention
        self.which = nn.Sequential(nn.Linear(h, h), nn.ReLU())  # attribute, for channel attention
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


RIVALS: dict[str, type[Rival]] = {"triplet": Triplet, "csn": CSN, "asen": ASEN}


def load_rival(training: TrainedRival, device: str | torch.device | None) -> Rival:
    """The rival of a training, in eval mode. Its weights include the trained tower: a VLM is loaded
    only for the tower's layers and the preprocessing. UserError: no such tower; bad weights."""
    kind, name = RIVALS[training.method], training.tower
    try:
        tower = open_tower(name, kind.spatial, device, weights=False)
    except UserError as error:
        raise UserError(f"the tower of {training.folder} is not here: {error}") from error
    rival = kind(tower, len(training.attributes), training.width)
    file = training.folder / training.weights
    with explained(f"{training.method} on {name}: {file}", remote=False):
        rival.load_state_dict(load_tensors(file))
    return rival.to(next(tower.module.parameters()).device).eval()
