"""One loop for every training: it resumes, validates, keeps the best weights, and writes safely.

The folder of a training holds

    config.yaml     the configuration, every key of it
    (weights)       of the best validation so far
    results.json    what was trained on which data, the losses and validations
    state.pt        the checkpoint, from which a killed run continues

They are written in this order, so every file that `state.pt` relies on exists. All randomness
depends on seed and step alone: on a CPU a resumed training equals an uninterrupted one, to the bit.
"""

import io
import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import yaml
from pydantic import BaseModel, Field, ValidationError
from torch import nn

from crl.run.config import RunConfig
from crl.run.distributed import from_rank0, print_rank0, rank
from crl.run.errors import UserError, explain
from crl.run.files import alone_in, atomic_path, write_text
from crl.run.progress import progress as progress_bar
from crl.run.results import environment
from crl.run.store import content_digest

Record = TypeVar("Record", bound=BaseModel)


class TrainingConfig(RunConfig):
    """Keys of every training."""

    epochs: int = Field(50, gt=0, description="passes over the data")
    batch_size: int = Field(256, gt=0, description="items per step, of all processes together")
    lr: float = Field(1e-4, gt=0, description="highest learning rate")
    seed: int = Field(0, ge=0, description="seed of everything random")
    validate_every: int = Field(1, gt=0, description="epochs from one validation to the next")
    patience: int | None = Field(
        None, gt=0, description="stop after N validations without a better one; none: never"
    )
    checkpoint_every: int = Field(500, gt=0, description="steps between checkpoints in an epoch")


@dataclass
class Progress:
    """How far a training is."""

    step: int = 0  # number of finished steps
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)  # mean over the steps of each finished epoch
    unfinished: list[float] = field(default_factory=list)  # of each step of the unfinished epoch
    # the epoch (from 1) and the scores of each validation, see `Trainer.validate`
    validation: list[dict[str, Any]] = field(default_factory=list)

    def best(self, metric: str) -> int:
        """Index of the validation with the highest `metric`, the first one if several are equal;
        the last validation if there is no held-out data."""
        return int(np.argmax([scores.get(metric, i) for i, scores in enumerate(self.validation)]))

    @property
    def validated(self) -> bool:
        return bool(self.validation) and self.validation[-1]["epoch"] == len(self.losses)


class Trainer(ABC):
    """A training. `run` starts or resumes it. `__init__` checks and sets the attributes that are
    cheap, from `config` to `metric`; `prepare` the other ones, unless the training is finished."""

    config: TrainingConfig
    folder: Path  # where the files are, see the top of this module
    settings: dict[str, Any]  # all that affects the training; with other ones it is not resumed
    steps: int  # per epoch
    weights: Path  # the file that `keep` writes, or the main one of several
    metric: str  # the score of a validation that should be high
    models: dict[str, nn.Module]  # whose weights a checkpoint holds
    optimizer: torch.optim.Optimizer  # of the parameters that are trained
    record: dict[str, Any]  # for results.json, beside the configuration and the progress

    @abstractmethod
    def prepare(self) -> None:
        """Load the data and build the models and the optimizer."""

    @abstractmethod
    def batches(self, epoch: int, done: int) -> Iterable[Any]:
        """The batches of an epoch (from 0), without the first `done` ones."""

    @abstractmethod
    def step(self, batch: Any) -> float:
        """Compute the gradients of a batch, in the parameters' `.grad`; return its loss."""

    @abstractmethod
    def validate(self) -> dict[str, float]:
        """Scores on held-out data; {} without such data. The first process's scores are used."""

    @abstractmethod
    def keep(self) -> None:
        """Write the weights, which are the best so far. Called in the first process only."""

    def rate(self, step: int) -> float:
        return self.config.lr  # of a step (from 0)

    def run(self) -> None:
        """Train to the end. A UserError if the folder holds another training, a damaged checkpoint
        or a finished training without its weights; if a loss or weights are not finite."""
        with alone_in(self.folder) if rank() == 0 else nullcontext():
            self._run()

    def _run(self) -> None:
        state = self._read_state()
        self.progress = Progress(**state["progress"]) if state else Progress()
        if self._over and self.progress.validated:
            for file in (self.weights, self.folder / "results.json"):
                if not file.exists():
                    raise UserError(f"{self.folder} holds a finished training but {file.name} is "
                                    "gone; remove the folder to train again")  # fmt: skip
            print_rank0(f"{self.folder}: this training is finished; nothing to do")
            return
        start = time.perf_counter()
        self.prepare()
        self._prepared = time.perf_counter() - start  # in this run: reading, embedding, inversion
        if state:
            for name, model in self.models.items():
                model.load_state_dict(state["models"][name])
            self.optimizer.load_state_dict(state["optimizer"])
            print_rank0(f"{self.folder}: going on after step {self.progress.step}")
        del state
        self._started = time.perf_counter() - self.progress.seconds
        if rank() == 0:
            plain = self.config.model_dump(mode="json")
            write_text(self.folder / "config.yaml", yaml.safe_dump(plain, sort_keys=False))
        while not self._over:
            self._epoch()
        if not self.progress.validated:  # `epochs` was reduced before this run
            self._validate()
            self._store()
        print_rank0(f"weights and results: {self.folder}")

    @property
    def _over(self) -> bool:
        """Has the last epoch ended, or has the metric not risen for `patience` validations?"""
        progress, patience = self.progress, self.config.patience
        if len(progress.losses) >= self.config.epochs:
            return True
        if patience is None or not progress.validation or progress.unfinished:
            return False
        return len(progress.validation) - 1 - progress.best(self.metric) >= patience

    def _epoch(self) -> None:
        progress, config = self.progress, self.config
        number, done = len(progress.losses), len(progress.unfinished)
        label = f"epoch {number + 1}/{config.epochs}"
        bar = progress_bar(self.batches(number, done), label=label, unit="steps", done=done,
                           total=self.steps, shown=rank() == 0)  # fmt: skip
        for batch in bar:
            for group in self.optimizer.param_groups:
                group["lr"] = self.rate(progress.step)
            self.optimizer.zero_grad()
            loss = self.step(batch)
            self._stop_unless(math.isfinite(loss), f"the loss of step {progress.step + 1} is")
            self.optimizer.step()
            progress.step += 1
            progress.unfinished.append(loss)
            epoch_ends = len(progress.unfinished) == self.steps  # it is stored after validation
            if progress.step % config.checkpoint_every == 0 and not epoch_ends:
                self._check_weights()
                self._store(results=False)
        self._check_weights()
        progress.losses.append(float(np.mean(progress.unfinished)))
        progress.unfinished = []
        line = f"{label}: loss {progress.losses[-1]:.4f}"
        if (number + 1) % config.validate_every == 0 or number + 1 == config.epochs:
            scores = self._validate()
            if self.metric in scores:
                line += f", validation {self.metric} {scores[self.metric]:.2f}"
        self._store()
        print_rank0(line)

    def _validate(self) -> dict[str, Any]:
        scores = {"epoch": len(self.progress.losses), **from_rank0(self.validate())}
        self.progress.validation.append(scores)
        if rank() == 0 and self.progress.best(self.metric) == len(self.progress.validation) - 1:
            self.keep()
        return scores

    def _store(self, results: bool = True) -> None:
        """Write results.json, and then the checkpoint; the weights are written before."""
        self.progress.seconds = time.perf_counter() - self._started
        if rank() > 0:
            return
        progress, validation = asdict(self.progress), self.progress.validation
        if results:
            best = validation[self.progress.best(self.metric)] if validation else None
            config = self.config.model_dump(mode="json")
            record: dict[str, Any] = {"config": config, "environment": environment()}
            trained = [p for group in self.optimizer.param_groups for p in group["params"]]
            record["parameters"] = sum(parameter.numel() for parameter in trained)
            record["preparation_seconds"] = self._prepared
            record |= {**self.record, "best": best, **progress}
            write_text(self.folder / "results.json", json.dumps(record, indent=1) + "\n")
        models = {name: model.state_dict() for name, model in self.models.items()}
        state = {"models": models, "optimizer": self.optimizer.state_dict()}
        state |= {"settings": self.settings, "progress": progress}
        buffer = io.BytesIO()  # in memory first: torch.save would hide the OSError of a full disk
        torch.save(state, buffer)
        content = buffer.getvalue()
        with atomic_path(self.folder / "state.pt") as temporary:
            temporary.write_bytes(content_digest(content) + content)  # torch compares no checksum

    def _read_state(self) -> dict[str, Any] | None:
        file = self.folder / "state.pt"
        if not file.exists():
            return None
        content = file.read_bytes()
        if content.startswith(b"PK"):  # torch's own format
            raise UserError(f"{file} is of a former version; remove {self.folder} to train again")
        if content_digest(content[16:]) != content[:16]:
            raise UserError(f"{file} is damaged; remove it to start again")
        state = torch.load(io.BytesIO(content[16:]), map_location="cpu", weights_only=True)
        former, new = state["settings"], self.settings
        changes = [key for key in former | new if former.get(key) != new.get(key)]
        if changes:
            changed = ", ".join(f"{k} {former.get(k)!r}, not {new.get(k)!r}" for k in changes)
            raise UserError(f"{self.folder} holds another training ({changed}); choose another "
                            "name= or remove it")  # fmt: skip
        return state

    def _check_weights(self) -> None:  # a finite loss can have gradients that are not finite
        parameters = (p for model in self.models.values() for p in model.parameters())
        finite = all(bool(parameter.isfinite().all()) for parameter in parameters)
        self._stop_unless(finite, f"the weights after step {self.progress.step} are")

    def _stop_unless(self, finite: bool, what: str) -> None:
        if not finite:
            raise UserError(f"{what} not finite; the best weights and the last checkpoint are "
                            f"kept: remove {self.folder} and try a lower lr, or fp32")  # fmt: skip


def derived_seed(*key: int) -> int:
    """A seed that depends on nothing but `key`: (seed, use, ...)."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])


def warmup_cosine(step: int, steps: int, lr: float, warmup: int, lowest: float) -> float:
    """A learning rate: linear over the first `warmup` steps, then half a cosine from lr to `lowest`
    times lr."""
    if step < warmup:
        return lr * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return lr * (lowest + (1 - lowest) * (0.5 + 0.5 * math.cos(math.pi * done)))


def read_record(folder: Path, kind: type[Record], script: str, advice: str = "") -> Record:
    """What `kind` needs of the results.json of a training. A UserError: it is missing, or is not of
    that script."""
    file = folder / "results.json"
    try:
        return kind.model_validate_json(file.read_bytes())
    except OSError as error:
        reason = f"holds no training of {script} ({file.name}: {error.strerror}){advice}"
        raise UserError(f"{folder} {reason}") from error
    except ValidationError as error:
        raise UserError(f"{file} is not of {script}: {explain(error)}") from error
