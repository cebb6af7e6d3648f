"""What ASEN++ and RPF share: stage 1 looks at the whole picture, stage 2 also at a crop of it.

Stage 1 trains the global branch, by triplets. Stage 2 goes on with its weights, and adds a local
branch, which sees the part of the picture to which the attribute's attention map points.
"""

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fashion_retrieval.method import stacked_triplet_loss
from fashion_retrieval.networks import Rival
from fashion_retrieval.rivals.crop import Doubled, crops, joined, squares
from fashion_retrieval.towers import Tower

WIDTH = 512  # of an attribute's embedding


@dataclass
class Seen:
    """Features of B images in stage 2."""

    map: Tensor  # (B, C, h, w)
    picture: Tensor  # (B, 3, 2 S, 2 S)

    def __getitem__(self, rows: Tensor) -> "Seen":
        return Seen(self.map[rows], self.picture[rows])


class Both(NamedTuple):
    """What stage 2 makes of B images, each for an attribute."""

    whole: Tensor  # (B, width), unit rows, of the global branch
    local: Tensor  # (B, width), unit rows, of the local one
    attention: Tensor  # (B, h, w)
    map: Tensor  # (B, C, h, w)


class TwoStage(Rival):
    """A rival with a global branch, and in stage 2 a local one."""

    spatial = True
    share: float  # b: the global branch's part of the cosine similarity in stage 2
    decay: int  # stage 2: epochs until the learning rate is multiplied by 0.9
    flips = False  # stage 1: is every second picture mirrored in training?

    def __init__(self, tower: Tower, attributes: int, width: int) -> None:
        super().__init__(tower, attributes, width)
        self.attribute = nn.Embedding(attributes, WIDTH)
        self.local: nn.Module | None = None

    @staticmethod
    @abstractmethod
    def closer(source: str, width: int, weights: bool = True) -> nn.Module:
        """A local branch: crops (B, 3, size, size) and embedded attributes (B, 512) -> (B, width),
        with its `size`. `source`: `imagenet`, the authors' network with torchvision's weights; a
        file of these; or `small`, a little network from scratch. `weights=False`: without them.
        UserError: bad or missing weights."""

    def look_closer(self, local: nn.Module) -> None:
        """Stage 2 begins."""
        self.local, self.width = local, 2 * self.width
        self.preprocess = Doubled(self.preprocess)

    @abstractmethod
    def whole(self, features: Tensor, attribute: Tensor) -> tuple[Tensor, Tensor]:
        """The global branch: (B, C, h, w) and (B,) -> (B, width) and an attention map (B, h, w)."""

    def features(self, pixels: Tensor, precision: str) -> Any:
        """Stage 1: as any network; stage 2: (B, 5, 3, S, S) of `Doubled` -> `Seen`."""
        if self.local is None:
            return super().features(pixels, precision)
        return Seen(super().features(pixels[:, 0], precision), joined(pixels[:, 1:]))

    def both(self, seen: Seen, attribute: Tensor) -> Both:
        vector, attention = self.whole(seen.map, attribute)
        side = seen.picture.shape[-1] // 2
        where = 2 * squares(attention.detach(), side)
        local = self.local(crops(seen.picture, where, self.local.size), self.attribute(attribute))
        return Both(F.normalize(vector, dim=1), F.normalize(local, dim=1), attention, seen.map)

    def embed(self, features: Any, attribute: Tensor) -> Tensor:
        if self.local is None:
            return F.normalize(self.whole(features, attribute)[0], dim=1)
        both, b = self.both(features, attribute), self.share
        return torch.cat([math.sqrt(b) * both.whole, math.sqrt(1 - b) * both.local], 1)

    def loss(self, features: Any, attribute: Tensor, value: Tensor, margin: float) -> Tensor:
        if self.local is None:
            return super().loss(features, attribute, value, margin)
        attribute = attribute.repeat(3)
        both = self.both(features, attribute)
        loss = stacked_triplet_loss(both.whole, margin)
        loss = loss + 0.1 * stacked_triplet_loss(both.local, margin)
        return loss + self.tie(both, attribute, value)

    @abstractmethod
    def tie(self, both: Both, attribute: Tensor, value: Tensor) -> Tensor:
        """The term of the loss that ties both branches together; of 3b images: anchors, positives,
        negatives; attribute, value: (3b,)."""
