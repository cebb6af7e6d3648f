"""Networks over images: a visual tower, and layers that turn its features into the representation
for an attribute. trainers.py trains them; stage 2 of CRL and the rivals are such networks."""

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from crl.backends.loaded import PRECISIONS
from crl.images import UnreadableImage, open_image
from crl.run.distributed import rank, world
from crl.run.errors import UserError
from fashion_retrieval.heads import Heads
from fashion_retrieval.method import Represent


class Network(nn.Module, ABC):
    """Images -> features, once per image; features and an attribute -> a representation.

    The tower stays in eval mode while it is trained. For a ViT this makes no difference. A ResNet
    keeps its running means, which small batches of 32 triplets would only make worse.

    Attributes:
        tower: pixels (B, 3, H, W) -> features (B, ...).
        preprocess: PIL image -> (3, H, W).
        width: width of the representation.
    """

    tower: nn.Module
    preprocess: Callable[[Image.Image], Tensor]
    width: int

    def features(self, pixels: Tensor, precision: str) -> Tensor:
        """(B, 3, H, W) -> (B, ...) float32; `precision` is that of the tower only."""
        mixed = precision != "fp32"
        with torch.autocast(pixels.device.type, PRECISIONS[precision], enabled=mixed):
            return self.tower(pixels).float()

    @abstractmethod
    def embed(self, features: Tensor, attribute: Tensor) -> Tensor:
        """(B, ...) and (B,) int64 -> (B, width), unit rows."""

    def penalty(self, features: Tensor, attribute: Tensor) -> Tensor | float:
        """A term that is added to the triplet loss; features (3, b, ...), attribute (b,)."""
        return 0.0

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


# --- images ---------------------------------------------------------------------------------------


class Pixels(Dataset):
    """Item n -> image n as (3, H, W); or an error message if it cannot be read."""

    def __init__(self, files: list[Path], preprocess: Callable[[Image.Image], Tensor]) -> None:
        self.files, self.preprocess = files, preprocess

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, n: int) -> Tensor | str:
        try:
            picture = open_image(self.files[n])
        except UnreadableImage as error:
            return f"cannot read the image {self.files[n]}: {error}; mend it or leave it out"
        return self.preprocess(picture)


def read_batches(
    pixels: Pixels, batches: list[np.ndarray], workers: int, device: torch.device
) -> Iterator[Tensor]:
    """Each batch (b,) of image numbers as (b, 3, H, W), decoded in advance by worker processes.

    Raises:
        UserError: an image cannot be read.
    """
    loader = DataLoader(
        pixels,
        batch_sampler=[batch.tolist() for batch in batches],
        num_workers=min(workers, len(batches), os.cpu_count() or 1),
        collate_fn=_collate,
        pin_memory=device.type == "cuda",
    )
    for batch in loader:
        if isinstance(batch, str):
            raise UserError(batch)
        yield batch.to(device, non_blocking=True)


def _collate(items: list[Tensor | str]) -> Tensor | str:
    return next((item for item in items if isinstance(item, str)), None) or torch.stack(items)


# --- use ------------------------------------------------------------------------------------------


@torch.inference_mode()
def represent_tables(
    network: Network,
    files: list[Path],
    tables: list[np.ndarray],
    precision: str,
    workers: int,
    batch_size: int = 64,
) -> Represent:
    """The representations of all rows (image, attribute, value) of `tables`, as a `Represent`.

    Each image goes through the tower once for all its attributes. Several processes share the
    images, and all of them get all rows.

    Args:
        precision: precision of the tower.
        workers: processes that decode images; 0: no extra processes.
        batch_size: images per batch.

    Raises:
        UserError: an image cannot be read; a representation is not finite.
    """
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
