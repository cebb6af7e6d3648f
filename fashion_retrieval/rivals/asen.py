"""ASEN: attention over positions and channels, which depends on the attribute."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fashion_retrieval.rivals.rival import Rival
from fashion_retrieval.rivals.towers import Tower


class ASEN(Rival):
    """Attribute-specific embedding network (Ma et al., AAAI 2020): attribute-aware spatial
    attention, then channel attention, over a feature map. The layers are those of the authors'
    released second version (ASENet_V2), which scores a position by a scaled dot product.

    Two differences: C is the tower's number of channels (published: 1024). The batch normalisation
    of the map is over anchors, positives and negatives together, not separately, since they go
    through the tower together.
    """

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
