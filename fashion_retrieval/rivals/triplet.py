"""Triplet, the simplest rival."""

import torch.nn.functional as F
from torch import Tensor, nn

from fashion_retrieval.networks import Rival
from fashion_retrieval.towers import Tower


class Triplet(Rival):
    """One linear embedding of the tower's vector, the same for all attributes."""

    def __init__(self, tower: Tower, attributes: int, width: int) -> None:
        super().__init__(tower, attributes, width)
        self.embedding = nn.Linear(tower.channels, width)

    def embed(self, features: Tensor, attribute: Tensor) -> Tensor:
        return F.normalize(self.embedding(features), dim=1)
