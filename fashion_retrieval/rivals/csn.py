"""CSN: a learned mask for each attribute."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fashion_retrieval.rivals.rival import Rival
from fashion_retrieval.rivals.towers import Tower


class CSN(Rival):
    """Conditional similarity network (Veit, Belongie, Karaletsos, CVPR 2017): one linear embedding;
    each attribute weights its dimensions with a learned mask that is never negative.

    Masks are initialised from N(0.9, 0.7). The two norms below are added to the loss, with weights
    and normalisation as in the authors' code. Cosine similarity does not depend on scale, so both
    norms shrink until a mask has few dimensions left.
    """

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
        embeddings before the mask, divided by sqrt(b); mean over anchors, positives and negatives.

        The second norm is over a whole batch: it is not the sum over parts of the batch.
        """
        b = len(attribute)
        mask_norm = self.masks(attribute).sum() / b
        embeddings = self.embedding(features).flatten(1)  # (3, b * width)
        embedding_norm = embeddings.norm(dim=1).mean() / math.sqrt(b)
        return self.MASK_NORM * mask_norm + self.EMBEDDING_NORM * embedding_norm
