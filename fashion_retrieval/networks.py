"""Networks that are trained from images: a visual tower, and what makes an attribute's
representation of its features. Stage 2 of CRL and the rivals share their training and use."""

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from PIL import Image
from pydantic import Field
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from crl.run.distributed import rank, sum_gradients, world
from crl.images import UNDECODABLE, open_image
from crl.run.errors import UserError
from crl.vlm import PRECISIONS
from fashion_retrieval.heads import Heads
from fashion_retrieval.scoring import Represent, mean_scores, retrieval_precision
from fashion_retrieval.training import FitConfig, Job, TrainingData, fit, triplet_loss


class NetworkConfig(FitConfig):
    """Keys of train_backbone.py and train_rival.py."""

    batch_size: int = Field(32, gt=0, description="triplets a step, of all processes together")
    checkpoint_every: int = Field(500, gt=0, description="steps between checkpoints in an epoch")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="of the forward pass")
    workers: int = Field(4, ge=0, description="processes that decode images; 0: none of their own")
    eval_batch: int = Field(64, gt=0, description="images a batch in validation")


class Network(nn.Module, ABC):
    """Images -> features, once an image; features and an attribute -> a representation.

    The tower stays in eval mode while it is trained: for a ViT that is the same, and it leaves the
    running means of a ResNet alone, which batches of 32 triplets would only disturb.

    Attributes:
        tower: pixels (B, 3, H, W) -> features (B, ...).
        preprocess: PIL image -> (3, H, W).
        width: of the representation.
    """

    tower: nn.Module
    preprocess: Callable[[Image.Image], Tensor]
    width: int

    def features(self, pixels: Tensor, precision: str) -> Tensor:
        """(B, 3, H, W) -> (B, ...) float32; `precision` is that of the tower alone."""
        mixed = precision != "fp32"
        with torch.autocast(pixels.device.type, PRECISIONS[precision], enabled=mixed):
            return self.tower(pixels).float()

    @abstractmethod
    def embed(self, features: Tensor, attribute: Tensor) -> Tensor:
        """(B, ...) and (B,) int64 -> (B, width), unit rows."""

    def penalty(self, features: Tensor, attribute: Tensor) -> Tensor | float:
        """What is added to the triplet loss; features (3, b, ...), attribute (b,)."""
        return 0.0

    def train(self, mode: bool = True) -> "Network":
        super().train(mode)
        self.tower.eval()
        return self


class Conditional(Network):
    """x = l2(I @ T_a.T), I = tower(image), through the frozen head of a (paper, Table 4)."""

    def __init__(self, tower: nn.Module, preprocess: Callable, text: Tensor, heads: Heads) -> None:
        """text: T_a of each attribute, aligned, (A, K, D); heads: of stage 1."""
        super().__init__()
        self.tower, self.preprocess = tower, preprocess
        self.register_buffer("text", text)
        self.heads = heads.requires_grad_(False)
        self.width = heads.bias2.shape[-1]

    def embed(self, features: Tensor, attribute: Tensor) -> Tensor:
        image = F.normalize(features, dim=1)  # I, (B, D)
        x = torch.einsum("bd,bkd->bk", image, self.text[attribute])  # R = I Tᵀ, (B, K)
        return self.heads(F.normalize(x, dim=1), attribute)

    def train(self, mode: bool = True) -> "Conditional":
        super().train(mode)
        self.heads.eval()  # frozen, its running statistics too
        return self


# --- images ---------------------------------------------------------------------------------------


class Pixels(Dataset):
    """Item n -> image n as (3, H, W); or, if it cannot be read, a text that says so."""

    def __init__(self, files: list[Path], preprocess: Callable[[Image.Image], Tensor]) -> None:
        self.files, self.preprocess = files, preprocess

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, n: int) -> Tensor | str:
        try:
            return self.preprocess(open_image(self.files[n]))
        except UNDECODABLE as error:
            return f"cannot read the image {self.files[n]}: {error}; mend it or leave it out"


def read_batches(pixels: Pixels, batches: list[np.ndarray], workers: int, device: torch.device):
    """Yield each batch (b,) of image numbers as (b, 3, H, W), decoded ahead in processes.

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
def represent_rows(
    network: Network, files: list[Path], rows: np.ndarray, config: Any, device: torch.device
) -> np.ndarray:
    """The representation of each (image, attribute) in rows (n, 2): (n, width) float32, unit rows.

    Each image goes through the tower once, whatever number of its attributes is asked for. Several
    processes share the images, and all of them get all rows.

    Args:
        config: has precision, workers and eval_batch.

    Raises:
        UserError: an image cannot be read; a representation is not finite.
    """
    network.eval()
    images = np.unique(rows[:, 0])
    batches = np.array_split(images, math.ceil(len(images) / config.eval_batch))[rank() :: world()]
    attribute = torch.from_numpy(rows[:, 1]).to(device)
    result = torch.zeros(len(rows), network.width, device=device)
    decoded = read_batches(Pixels(files, network.preprocess), batches, config.workers, device)
    for part, pixels in zip(batches, decoded, strict=True):
        here = np.flatnonzero(np.isin(rows[:, 0], part))
        place = torch.from_numpy(np.searchsorted(part, rows[here, 0])).to(device)
        mine = torch.from_numpy(here).to(device)
        features = network.features(pixels, config.precision)
        result[mine] = network.embed(features[place], attribute[mine])
    if world() > 1:
        dist.all_reduce(result)  # the others' rows are zeros here
    if not result.isfinite().all():
        raise UserError("the network gave NaN or infinite vectors; try precision=fp32")
    return result.cpu().numpy()


def represent_tables(
    network: Network, files: list[Path], tables: list[np.ndarray], config: Any, device: torch.device
) -> Represent:
    """What `retrieval_precision` asks for, of all rows (image, attribute, value) of the tables."""
    rows = np.unique(np.concatenate([table[:, :2] for table in tables]), axis=0)
    vectors = represent_rows(network, files, rows, config, device)
    attributes = rows[:, 1].max() + 1
    key = rows[:, 0] * attributes + rows[:, 1]  # ascending
    return lambda images, attribute: vectors[np.searchsorted(key, images * attributes + attribute)]


# --- training -------------------------------------------------------------------------------------


def train_network(
    job: Job, about: dict[str, Any], network: Network, data: TrainingData, keep: Callable[[], None]
) -> None:
    """Train those parameters of `network` that require gradients, with Adam; see `fit`.

    A step of several processes has the gradients that one process would have: each takes its share
    of the triplets, and gradients are added up. `check_shares` says whether there are enough.
    """
    config, triplets = job.config, data.triplets
    device = next(network.parameters()).device
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=config.lr)
    pixels = Pixels(data.files, network.preprocess)

    def batches(epoch: int, done: int) -> Iterator[tuple[Tensor, Tensor, float]]:
        drawn = triplets.draw(config.triplets, config.seed, epoch)  # (n, 3) rows of labels
        whole = [drawn[i : i + config.batch_size] for i in range(0, len(drawn), config.batch_size)]
        shares = [batch[rank() :: world()] for batch in whole[done:]]  # (b, 3) each
        images = [triplets.labels[share.T.ravel(), 0] for share in shares]  # (3b,) each
        decoded = read_batches(pixels, images, config.workers, device)
        for batch, share, image in zip(whole[done:], shares, decoded, strict=True):
            attribute = torch.from_numpy(triplets.labels[share[:, 0], 1]).to(device)
            yield image, attribute, len(share) / len(batch)

    def backward(batch: tuple[Tensor, Tensor, float]) -> float:
        image, attribute, share = batch  # (3b, 3, H, W), (b,), of the whole batch
        network.train()
        features = network.features(image, config.precision)  # (3b, ...)
        embedded = network.embed(features, attribute.repeat(3))  # (3b, width)
        loss = triplet_loss(*embedded.unflatten(0, (3, -1)), config.margin)
        loss = share * (loss + network.penalty(features.unflatten(0, (3, -1)), attribute))
        loss.backward()
        sum_gradients(parameters)
        return _summed(loss.detach()).item()

    def validate() -> dict[str, float]:
        represent = represent_tables(
            network, data.files, [data.query, data.candidate], config, device
        )
        precision = retrieval_precision(represent, data.query, data.candidate)
        return mean_scores(precision, data.query, data.attributes)

    fit(job, about, network, optimizer, batches, backward, validate, keep)


def check_shares(config: NetworkConfig) -> None:
    """Every process must have a triplet in every batch."""
    last = config.triplets % config.batch_size or config.batch_size
    if min(last, config.batch_size) < world():
        raise UserError(
            f"{config.triplets} triplets in batches of {config.batch_size} leave a last one of "
            f"{last}, fewer than the {world()} processes; choose triplets that fill the batches"
        )


def _summed(loss: Tensor) -> Tensor:
    if world() > 1:
        dist.all_reduce(loss)
    return loss
