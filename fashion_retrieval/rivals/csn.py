"""CSN: a mask for each attribute."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fashion_retrieval.networks import Rival
from fashion_retrieval.towers import Tower


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
