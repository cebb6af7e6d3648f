"""ASEN: attention in space, then over channels."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fashion_retrieval.networks import Rival
from fashion_retrieval.towers import Tower


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
        return attention_map(self.position(features), asked)

    def embed(self, features: Tensor, attribute: Tensor) -> Tensor:
        x = pooled(features, self.attention(features, attribute))
        asked = self.which(self.attribute(attribute))  # (B, 512)
        x = x * self.channel(torch.cat([x, asked], 1))  # (B, C)
        return F.normalize(self.embedding(x), dim=1)


def attention_map(position: Tensor, asked: Tensor) -> Tensor:
    """Scaled dot products of positions (B, M, h, w) and attributes (B, M) -> softmax (B, h, w)."""
    score = torch.einsum("bchw,bc->bhw", position, asked)
    return (score / math.sqrt(asked.shape[1])).flatten(1).softmax(1).view_as(score)


def pooled(features: Tensor, attention: Tensor) -> Tensor:
    """(B, C, h, w) weighted with (B, h, w) -> (B, C)."""
    return torch.einsum("bchw,bhw->bc", features, attention)
