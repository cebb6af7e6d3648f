"""The networks of fashion retrieval: CRL's heads, and networks over images.

A head is a small MLP over x = l2(I @ T_a.T), one per attribute. Stage 1 trains them on frozen
embeddings (paper, Table 4); stage 2 freezes them and trains the VLM. Their weights have the names
of the authors' checkpoints: `projection_heads.<a>.fc.*`.

A network over images is a visual tower, and layers that turn its features into the representation
for an attribute. trainers.py trains them; stage 2 of CRL and the rivals are such networks.
"""

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from crl.backends.hub import explained
from crl.backends.precision import PRECISIONS
from crl.backends.weights import load_tensors
from crl.images import UnreadableImage, open_image
from crl.run.distributed import rank, world
from crl.run.errors import UserError
from fashion_retrieval.method import Represent, stacked_triplet_loss
from fashion_retrieval.towers import Tower


class Head(nn.Module):
    """(B, K) -> (B, out): Linear, BatchNorm1d, ReLU, Linear."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        hidden = (width + out) // 2
        self.fc = nn.Sequential(
            nn.Linear(width, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, out)
        )

    def forward(self, x: Tensor) -> Tensor:
        # A single row has no variance: in training it is normalised with the running statistics,
        # which stay. (The authors' code returns zeros, which have no direction.)
        self.fc[1].train(self.training and len(x) > 1)
        return self.fc(x)


class Heads(nn.Module):
    """One head for each of A attributes; `width`: K, that of the (aligned) text bases."""

    def __init__(self, attributes: int, width: int, out: int = 1024) -> None:
        super().__init__()
        self.width, self.out = width, out
        self.projection_heads = nn.ModuleList(Head(width, out) for _ in range(attributes))

    def forward(self, x: Tensor, attribute: Tensor) -> Tensor:
        """Each row x (B, K) through the head of its attribute (B,) -> (B, out), unit rows. The rows
        of one attribute in one call are normalised together in training: pass anchors, positives
        and negatives in separate calls, as the authors do."""
        result = x.new_empty(len(x), self.out)
        for a in attribute.unique().tolist():
            rows = attribute == a
            result[rows] = self.projection_heads[a](x[rows])
        return F.normalize(result, dim=1)


def load_heads(file: Path, attributes: int, width: int) -> Heads:
    """Heads from heads.safetensors of train_mlp.py, or from a .pth of the authors' code; in eval
    mode, on the CPU, in float32. UserError: a bad file, no heads, or heads of other sizes."""
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
        for part in np.array_split(images, len(images) // 4096 + 1):
            x = torch.from_numpy(represent(part, attribute)).to(device)
            result = heads(x, torch.full((len(x),), attribute, device=device))
            results.append(result.cpu().numpy())
        return np.concatenate(results)

    return represent_further


class Network(nn.Module, ABC):
    """Images -> features, once per image; features and an attribute -> a representation. The tower
    stays in eval mode while it is trained: a ResNet keeps its running means, which small batches of
    32 triplets would only make worse. For a ViT this makes no difference."""

    tower: nn.Module  # pixels (B, 3, H, W) -> features (B, ...)
    preprocess: Callable[[Image.Image], Tensor]  # -> (3, H, W)
    width: int  # of the representation

    def features(self, pixels: Tensor, precision: str) -> Any:
        """(B, 3, H, W) -> (B, ...) float32; `precision` is that of the tower only."""
        mixed = precision != "fp32"
        with torch.autocast(pixels.device.type, PRECISIONS[precision], enabled=mixed):
            return self.tower(pixels).float()

    @abstractmethod
    def embed(self, features: Any, attribute: Tensor) -> Tensor:
        """(B, ...) and (B,) int64 -> (B, width), unit rows."""

    def penalty(self, features: Tensor, attribute: Tensor) -> Tensor | float:
        """A term that is added to the triplet loss; features (3, b, ...), attribute (b,)."""
        return 0.0

    def loss(self, features: Any, attribute: Tensor, value: Tensor, margin: float) -> Tensor:
        """Of b triplets; features (3b, ...): anchors, positives, negatives; attribute (b,), value
        (3b,) int64."""
        loss = stacked_triplet_loss(self.embed(features, attribute.repeat(3)), margin)
        return loss + self.penalty(features.unflatten(0, (3, -1)), attribute)

    def train(self, mode: bool = True) -> "Network":
        super().train(mode)
        self.tower.eval()
        return self


class ConditionalNetwork(Network):
    """x = l2(I @ T_a.T), I = tower(image), through the frozen head of a (paper, Table 4)."""

    def __init__(self, tower: nn.Module, preprocess: Callable, text: Tensor, heads: Heads) -> None:
        """text: T_a of each attribute, aligned, (A, K, D); heads: of stage 1."""
        super().__init__()
        self.tower, self.preprocess = tower, preprocess
        self.register_buffer("text", text)
        self.heads = heads.requires_grad_(False)
        self.width = heads.out

    def embed(self, features: Tensor, attribute: Tensor) -> Tensor:
        image = F.normalize(features, dim=1)  # I, (B, D)
        r = torch.einsum("bd,bkd->bk", image, self.text[attribute])  # R = I Tᵀ, (B, K)
        return self.heads(F.normalize(r, dim=1), attribute)

    def train(self, mode: bool = True) -> "ConditionalNetwork":
        super().train(mode)
        self.heads.eval()  # frozen, their running statistics too
        return self


class Rival(Network):
    """A network on a tower: on its feature map if `spatial`, else on its vector."""

    spatial = False

    def __init__(self, tower: Tower, attributes: int, width: int) -> None:
        super().__init__()
        self.tower, self.preprocess, self.width = tower.module, tower.preprocess, width


class Pixels(Dataset):
    """Numbers of images (b,) -> (b, 3, H, W); or an error message if one cannot be read."""

    def __init__(self, files: list[Path], preprocess: Callable[[Image.Image], Tensor]) -> None:
        self.files, self.preprocess = files, preprocess

    def __getitem__(self, batch: np.ndarray) -> Tensor | str:
        pixels = []
        for file in (self.files[n] for n in batch):
            try:
                pixels.append(self.preprocess(open_image(file)))
            except UnreadableImage as error:
                return f"cannot read the image {file}: {error}; mend it or leave it out"
        return torch.stack(pixels)


def read_batches(
    pixels: Pixels, batches: list[np.ndarray], workers: int, device: torch.device
) -> Iterator[Tensor]:
    """Each batch (b,) of image numbers as (b, 3, H, W), decoded in advance by worker processes.
    UserError: an image cannot be read."""
    workers = min(workers, len(batches), os.cpu_count() or 1)
    how = {"num_workers": workers, "pin_memory": device.type == "cuda"}
    for batch in DataLoader(pixels, batch_size=None, sampler=batches, **how):
        if isinstance(batch, str):
            raise UserError(batch)
        yield batch.to(device, non_blocking=True)


@torch.inference_mode()
def represent_tables(
    network: Network, files: list[Path], tables: list[np.ndarray], precision: str, workers: int,
    batch_size: int = 64,
) -> Represent:  # fmt: skip
    """The representations of all rows (image, attribute, value) of `tables`, as a `Represent`. Each
    image goes through the tower (in `precision`) once for all its attributes. Several processes
    share the images, and all of them get all rows. UserError: an image cannot be read; a
    representation is not finite."""
    network.eval()
    device = next(network.parameters()).device
    rows = np.unique(np.concatenate([table[:, :2] for table in tables]), axis=0)  # (n, 2)
    images = np.unique(rows[:, 0])
    batches = np.array_split(images, math.ceil(len(images) / batch_size))[rank() :: world()]
    attribute = torch.from_numpy(rows[:, 1]).to(device)
    vectors = torch.zeros(len(rows), network.width, device=device)
    decoded = read_batches(Pixels(files, network.preprocess), batches, workers, device)
    for batch, pixels in zip(batches, decoded, strict=True):
        of_batch = np.flatnonzero(np.isin(rows[:, 0], batch))
        place = torch.from_numpy(np.searchsorted(batch, rows[of_batch, 0])).to(device)
        n = torch.from_numpy(of_batch).to(device)
        vectors[n] = network.embed(network.features(pixels, precision)[place], attribute[n])
    if world() > 1:
        dist.all_reduce(vectors)  # each process has zeros in the rows of the other processes
    if not vectors.isfinite().all():
        raise UserError("the network gave NaN or infinite vectors; try precision=fp32")
    result, attributes = vectors.cpu().numpy(), rows[:, 1].max() + 1
    key = rows[:, 0] * attributes + rows[:, 1]  # ascending
    return lambda images, attribute: result[np.searchsorted(key, images * attributes + attribute)]
