"""What every training of fashion retrieval shares: triplets, their loss, and a loop that a killed
run goes on with.

Triplets are ASEN's (Ma et al., AAAI 2020) as the authors of CRL draw them (paper, Table 4).
Everything random depends on the seed and the epoch alone, and the rate on the epoch, so that on a
CPU a resumed training is the undisturbed one, bit for bit.
"""

import json
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from pydantic import Field
from torch import Tensor, nn
from tqdm import tqdm

from crl.run.config import Config
from crl.run.distributed import rank, tell
from crl.run.errors import UserError
from crl.run.files import write_text
from crl.run.results import array_digest, digest
from crl.run.loop import read_state, write_state
from fashion_retrieval.datasets import check_images, load

DECAY, DECAY_EPOCHS = 0.9, 3  # the rate falls to 0.9 of itself every three epochs


class FitConfig(Config):
    """Keys of every training here; defaults are those of the authors' code."""

    name: str = Field("run", description="results go to <outputs>/<task>/<name>")
    root: Path = Field(Path("data/deepfashion"), description="folder of ASEN's split files")
    dataset: str = Field("DeepFashion", description="its name in meta.json")
    images: Path | None = Field(None, description="folder of the images; none: root")
    epochs: int = Field(50, gt=0, description="of `triplets` triplets each")
    triplets: int = Field(100_000, gt=0, description="triplets an epoch")
    batch_size: int = Field(256, gt=0, description="triplets a step")
    margin: float = Field(0.3, ge=0, description="of the loss, in cosine similarity")
    lr: float = Field(1e-4, gt=0, description="first learning rate (Adam)")
    seed: int = Field(0, ge=0, description="of everything random")
    validate_every: int = Field(1, gt=0, description="epochs from one validation to the next")
    patience: int | None = Field(
        None, gt=0, description="validations without a better mAP after which to stop; none: never"
    )
    checkpoint_every: int = Field(2000, gt=0, description="steps between checkpoints in an epoch")
    device: str | None = Field(None, description="e.g. cpu, cuda; none takes the best")
    cache: Path = Field(Path("cache/embeddings"), description="where embeddings are kept")
    outputs: Path = Field(Path("outputs"), description="where results go")


# --- triplets -------------------------------------------------------------------------------------


class Triplets:
    """Draws triplets: the attribute uniformly; two of its values, uniformly among the pairs that
    make a triplet; two distinct images of the first value, and one of the second.

    The first value needs two images and the second one. The authors' code draws among all pairs and
    stops with an error at one that makes none, so where no value has fewer than two images this is
    their distribution, and else theirs with such pairs drawn again. As theirs, it does not look at
    other values of the negative: where images have several values of an attribute, a negative can
    have the first value too. A label that stands twice in the data counts once, lest an image be
    its own positive.

    Args:
        labels: (L, 3) int64; rows: index of an image, attribute, value.

    Attributes:
        labels: (L', 3), the distinct rows, by attribute, value and image.

    Raises:
        UserError: an attribute below the largest one makes no triplet.
    """

    def __init__(self, labels: np.ndarray) -> None:
        self.labels = np.unique(labels[:, [1, 2, 0]], axis=0)[:, [2, 0, 1]]
        # A group is one value of one attribute: `_size` rows of labels from `_start`.
        groups, self._start, self._size = np.unique(
            self.labels[:, 1:], axis=0, return_index=True, return_counts=True
        )
        self._firsts = np.flatnonzero(self._size > 1)  # groups that can be the first value
        attributes = np.arange(groups[:, 0].max() + 2)
        # Attribute a has the groups from _group[a] to _group[a + 1], and likewise of `_firsts`.
        self._group = np.searchsorted(groups[:, 0], attributes)
        self._first = np.searchsorted(groups[self._firsts, 0], attributes)
        bad = np.flatnonzero((np.diff(self._group) < 2) | (np.diff(self._first) < 1))
        if len(bad):
            raise UserError(
                f"attribute {bad[0]} makes no triplet: it needs a value with two images and "
                "another value with one"
            )

    def draw(self, count: int, *key: int) -> np.ndarray:
        """(count, 3) rows of `labels`: anchor, positive, negative.

        Args:
            key: seed, epoch, ...; the triplets depend on nothing else.
        """
        rng = np.random.default_rng(key)
        attribute = rng.integers(len(self._group) - 1, size=count)
        first = self._firsts[rng.integers(self._first[attribute], self._first[attribute + 1])]
        # Of n others draw one of n - 1 and step over the one that is taken.
        second = rng.integers(self._group[attribute], self._group[attribute + 1] - 1)
        second += second >= first
        anchor = rng.integers(self._size[first])
        positive = rng.integers(self._size[first] - 1)
        positive += positive >= anchor
        negative = self._start[second] + rng.integers(self._size[second])
        start = self._start[first]
        return np.column_stack([start + anchor, start + positive, negative])


def triplet_loss(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float) -> Tensor:
    """Mean of max(0, margin - anchor · positive + anchor · negative); (B, D) each, unit rows."""
    return F.relu(margin + (anchor * (negative - positive)).sum(1)).mean()


@dataclass(frozen=True)
class TrainingData:
    """What a training is trained and validated on.

    Attributes:
        attributes: A names.
        triplets: draws from labels (L, 3).
        query, candidate: (Q, 3) and (C, 3), of the validation.
        files: N image files, which the first columns of these tables index into.
    """

    attributes: list[str]
    triplets: Triplets
    query: np.ndarray
    candidate: np.ndarray
    files: list[Path]

    @property
    def digest(self) -> str:
        tables = self.triplets.labels, self.query, self.candidate
        # Sizes tell pictures of the same names apart, and cost no reading.
        files = [(file.name, file.stat().st_size) for file in self.files]
        return digest(files, *map(array_digest, tables))

    @property
    def about(self) -> dict[str, Any]:
        """Counts, for results.json."""
        counts = {"images": len(self.files), "labels": len(self.triplets.labels)}
        counts |= {"queries": len(self.query), "candidates": len(self.candidate)}
        return {"attributes": self.attributes, **counts}


def training_data(config: FitConfig) -> TrainingData:
    """The training and validation splits, and those of their images that are used.

    Raises:
        UserError: wrong files or missing images.
    """
    fashion = load(config.root, config.dataset, config.images, ["train", "valid"])
    train, valid = fashion.train, fashion.valid
    files, tables = [], []
    for part, given in ((train, [train.labels]), (valid, [valid.query, valid.candidate])):
        used, place = np.unique(np.concatenate([t[:, 0] for t in given]), return_inverse=True)
        places = np.split(len(files) + place, np.cumsum([len(t) for t in given])[:-1])
        tables += [np.column_stack([p, t[:, 1:]]) for p, t in zip(places, given, strict=True)]
        files += [part.files[n] for n in used]
    check_images(files)
    labels, query, candidate = tables
    return TrainingData(fashion.attributes, Triplets(labels), query, candidate, files)


# --- the loop -------------------------------------------------------------------------------------


@dataclass
class Progress:
    """How far a training is.

    Attributes:
        step: finished steps.
        losses: the mean over its steps, of each finished epoch.
        unfinished: the loss of each step of the epoch that is not finished.
        validation: epoch (from 1) and mAP in percent, of each validation.
    """

    step: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    unfinished: list[float] = field(default_factory=list)
    validation: list[dict[str, float]] = field(default_factory=list)

    @property
    def best(self) -> int:
        """Which validation has the best overall mAP, the first of equals."""
        return int(np.argmax([found["overall"] for found in self.validation]))

    @property
    def validated(self) -> bool:
        """Has the last finished epoch been validated?"""
        return bool(self.validation) and self.validation[-1]["epoch"] == len(self.losses)

    def over(self, config: FitConfig) -> bool:
        """Is the training at its last epoch, or has mAP not risen for `patience` validations?"""
        waited = len(self.validation) - 1 - self.best if self.validation else 0
        stopped = config.patience is not None and waited >= config.patience
        return len(self.losses) >= config.epochs or (stopped and not self.unfinished)


@dataclass
class Job:
    """A training on disk.

    Attributes:
        folder: where its checkpoint, weights and results are.
        settings: all that shapes it; a checkpoint of another one is not gone on with.
        state: the checkpoint of a former run, or None.
    """

    config: FitConfig
    folder: Path
    settings: dict[str, Any]
    state: dict[str, Any] | None

    @classmethod
    def of(cls, task: str, config: FitConfig, **contents: Any) -> "Job":
        """The job <outputs>/<task>/<name>.

        Args:
            contents: what stands for the content of files: fingerprints and digests.

        Raises:
            UserError: the folder holds another training, or a damaged checkpoint.
        """
        folder = config.outputs / task / config.name
        settings = identity(config, **contents)
        return cls(config, folder, settings, read_state(folder / "state.pt", settings))

    @property
    def finished(self) -> bool:
        if not self.state:
            return False
        progress = Progress(**self.state["progress"])
        return progress.over(self.config) and progress.validated


def fit(
    job: Job,
    about: dict[str, Any],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Callable[[int, int], Iterable[Any]],
    backward: Callable[[Any], float],
    validate: Callable[[], dict[str, float]],
    keep: Callable[[], None],
) -> None:
    """Train `model`, or go on with it; results.json, config.yaml and state.pt go to the job's
    folder.

    Args:
        about: for results.json.
        batches: epoch, number of batches to leave out -> the other batches of that epoch, of
            ceil(triplets / batch_size) in all.
        backward: batch -> its loss; leaves the gradients in the parameters.
        validate: -> mAP in percent; `overall` chooses the best.
        keep: writes the weights, called when they are the best so far.

    Raises:
        UserError: a loss that is not finite, or weights, before they are kept or stored.
    """
    config, folder, state = job.config, job.folder, job.state
    progress = Progress()
    if state:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        progress = Progress(**state["progress"])
        tell(f"{folder}: going on after step {progress.step}")
    started = time.perf_counter() - progress.seconds
    about = {"config": config.model_dump(mode="json"), **about}
    if rank() == 0:
        write_text(folder / "config.yaml", yaml.safe_dump(about["config"], sort_keys=False))

    def stop_unless(finite: bool, what: str) -> None:
        if not finite:
            raise UserError(
                f"{what} not finite; the best weights and the last checkpoint are kept: remove "
                f"{folder} and try a lower lr"
            )

    def check_weights() -> None:  # a finite loss can have gradients that are not
        finite = all(bool(parameter.isfinite().all()) for parameter in model.parameters())
        stop_unless(finite, f"the weights after step {progress.step} are")

    def checkpoint() -> None:
        progress.seconds = time.perf_counter() - started
        if rank() == 0:
            content = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            content |= {"settings": job.settings, "progress": asdict(progress)}
            write_state(folder / "state.pt", content)

    def measure() -> None:
        progress.validation.append({"epoch": len(progress.losses), **validate()})
        if progress.best == len(progress.validation) - 1 and rank() == 0:
            keep()

    def store() -> None:
        checkpoint()
        if rank() == 0:
            best = progress.validation[progress.best] if progress.validation else None
            results = {**about, "best": best, **asdict(progress)}
            write_text(folder / "results.json", json.dumps(results, indent=1) + "\n")

    steps = math.ceil(config.triplets / config.batch_size)
    while not progress.over(config):
        epoch = len(progress.losses)
        for group in optimizer.param_groups:
            group["lr"] = config.lr * DECAY ** (epoch // DECAY_EPOCHS)
        done = len(progress.unfinished)
        bar = tqdm(total=steps, initial=done, unit="step", disable=None if rank() == 0 else True)
        with bar:
            bar.set_description(f"epoch {epoch + 1}/{config.epochs}")
            for batch in batches(epoch, done):
                optimizer.zero_grad()
                loss = backward(batch)
                stop_unless(math.isfinite(loss), f"the loss of step {progress.step + 1} is")
                optimizer.step()
                progress.step += 1
                progress.unfinished.append(loss)
                bar.update()
                if progress.step % config.checkpoint_every == 0:
                    check_weights()
                    checkpoint()
        check_weights()
        progress.losses.append(float(np.mean(progress.unfinished)))
        progress.unfinished = []
        shown = f"epoch {epoch + 1}/{config.epochs}: loss {progress.losses[-1]:.4f}"
        if (epoch + 1) % config.validate_every == 0 or epoch + 1 == config.epochs:
            measure()
            shown += f", validation mAP {progress.validation[-1]['overall']:.2f}"
        store()
        tell(shown)
    if not progress.validated:  # `epochs` has become smaller
        measure()
        store()
    tell(f"weights and results: {folder}")


def identity(config: FitConfig, **others: Any) -> dict[str, Any]:
    """All that shapes a training, as plain data: a checkpoint of another one is not gone on with.

    Where files are, and when to stop, are no part of it: a finished training can be prolonged.

    Args:
        others: what stands for the content of files: fingerprints and digests.
    """
    free = {"name", "root", "images", "epochs", "patience", "checkpoint_every", "device"}
    free |= {"cache", "outputs", "bases", "workers", "embed_batch", "eval_batch", "vlm"}
    free |= {"heads", "checkpointing"}
    return {**config.model_dump(mode="json", exclude=free), **others}
