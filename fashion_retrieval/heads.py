"""The heads of CRL's fashion retrieval: one small MLP per attribute, over x = l2(I @ T_a.T).

Stage 1 trains them on frozen embeddings (paper, Table 4); stage 2 freezes them and trains the VLM.
Their weights have the names of the authors' checkpoints: `projection_heads.<a>.fc.*`.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fashion_retrieval.method import IMAGES_AT_ONCE, Represent


class Head(nn.Module):
    """(B, K) -> (B, out): Linear, BatchNorm1d, ReLU, Linear."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        hidden = (width + out) // 2
        self.fc = nn.Sequential(
            nn.Linear(width, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, out)
        )

    def forward(self, x: Tensor) -> Tensor:
        # A single row has no variance. So in training it is normalised with the running statistics
        # and does not change them. (The authors' code returns zeros, which have no direction, and
        # nn.BatchNorm1d raises an error.)
        self.fc[1].train(self.training and len(x) > 1)
        return self.fc(x)


class Heads(nn.Module):
    """One head for each attribute.

    Args:
        attributes: A.
        width: K, the width of the (aligned) text bases.
        out: width of the result.
    """

    def __init__(self, attributes: int, width: int, out: int = 1024) -> None:
        super().__init__()
        self.width, self.out = width, out
        self.projection_heads = nn.ModuleList(Head(width, out) for _ in range(attributes))

    def forward(self, x: Tensor, attribute: Tensor) -> Tensor:
        """Each row through the head of its attribute.

        Args:
            x: (B, K) float32, each row by the basis of its attribute. In training, the rows of one
                attribute in one call are normalised together: pass anchors, positives and
                negatives in separate calls, as the authors do.
            attribute: (B,) int64, 0 to A - 1.

        Returns:
            (B, out), unit rows.
        """
        result = x.new_empty(len(x), self.out)
        for a in attribute.unique().tolist():
            mine = attribute == a
            result[mine] = self.projection_heads[a](x[mine])
        return F.normalize(result, dim=1)


def through(heads: Heads, represent: Represent) -> Represent:
    """Each representation (n, K) through the head of its attribute: (n, out), unit rows."""
    device = next(heads.parameters()).device

    @torch.inference_mode()
    def represent_further(images: np.ndarray, attribute: int) -> np.ndarray:
        results = []
        for part in np.array_split(images, len(images) // IMAGES_AT_ONCE + 1):
            x = torch.from_numpy(represent(part, attribute)).to(device)
            result = heads(x, torch.full((len(x),), attribute, device=device))
            results.append(result.cpu().numpy())
        return np.concatenate(results)

    return represent_further
