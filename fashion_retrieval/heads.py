"""The heads of CRL's fashion retrieval: one small MLP per attribute, over x = l2(I @ T_a.T).

Stage 1 trains them on frozen embeddings (paper, Table 4); stage 2 freezes them and trains the VLM.
Their weights have the names of the authors' checkpoints: `projection_heads.<a>.fc.*`.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crl.backends.hub import explained
from crl.backends.weights import load_tensors
from crl.run.errors import UserError
from fashion_retrieval.method import Represent

IMAGES_AT_ONCE = 4096


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
            rows = attribute == a
            result[rows] = self.projection_heads[a](x[rows])
        return F.normalize(result, dim=1)


def load_heads(file: Path, attributes: int, width: int) -> Heads:
    """Heads from a file, in eval mode, on the CPU, in float32.

    Args:
        file: heads.safetensors of train_mlp.py, or a .pth of the authors' code.
        attributes: A, the number of heads that the file must have.
        width: K, the width of the text bases that the heads must take.

    Raises:
        UserError: no such file; a damaged file or one that holds code; no heads, or heads of other
            sizes.
    """
    state = load_tensors(file)
    last = state.get("projection_heads.0.fc.3.weight")
    if last is None or last.ndim != 2:
        raise UserError(f"{file} holds no heads: it has no projection_heads.0.fc.3.weight (2-D)")
    heads = Heads(attributes, width, len(last))
    with explained(f"heads of {attributes} attributes over {width} texts: {file}", remote=False):
        heads.load_state_dict(state)
    return heads.eval()


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
