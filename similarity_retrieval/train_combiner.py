"""Train a Combiner on mined triplets as in GeneCIS (Vaze et al., CVPR 2023).

    python similarity_retrieval/train_combiner.py --config configs/demo/combiner.yaml
    torchrun --nproc_per_node 8 similarity_retrieval/train_combiner.py --config ...

The Combiner turns the reference and condition of a triplet into a query, which must find the
triplet's target among the targets of the whole batch. With train_vlm=false, images and conditions
are embedded once and then looked up; with train_vlm=true an open_clip VLM is trained too, from
pixels (as in GeneCIS: both towers).

Writes <outputs>/combiner/<name>/: combiner.safetensors, and vlm/ if the VLM was trained, both from
the epoch with the best held-out recall@1; and the files that crl/run/training.py names. Measure it
with evaluate.py trained=[<outputs>/combiner/<name>].
"""

from crl.run.command import command

import math
from collections.abc import Iterator
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from crl.backends.open_clip import save_vlm
from crl.backends.weights import save_tensors
from crl.run.config import EmbeddingConfig, Width, load_config
from crl.run.distributed import process_group, rank, sum_gradients, world
from crl.run.errors import UserError
from crl.run.training import Trainer, TrainingConfig, derived_seed, warmup_cosine
from crl.vlm import load_trainable, load_vlm
from similarity_retrieval import combiner_features as features
from similarity_retrieval.combiner import Combiner, backward
from similarity_retrieval.mining.triplets import MinedTriplets, read_triplets

NEUTRAL = {"name", "outputs", "device", "workers", "cache", "checkpoint_every"}


class TrainConfig(TrainingConfig, EmbeddingConfig):
    """Keys of train_combiner.py; defaults are GeneCIS's if it has the key."""

    triplets: Path = Field(Path("triplets.jsonl"), description="JSONL of mine_triplets.py")
    images: Path = Field(Path("data"), description="folder that image names are relative to")
    vlm: str = Field("clip-b16", description="the VLM, by name")
    train_vlm: bool = Field(False, description="train the VLM too (open_clip only)")
    projection: Width = Field(2560, description="width of the Combiner's projections")
    hidden: Width = Field(5120, description="width of the Combiner's hidden layers")
    dropout: float = Field(0.5, ge=0, lt=1, description="dropout of the Combiner")
    batch_size: int = Field(256, gt=1, description="triplets per step, of all processes together")
    accumulate: int = Field(1, gt=0, description="parts that a process's share is computed in")
    epochs: int = Field(6, gt=0, description="passes over the triplets")
    lr: float = Field(1e-6, gt=0, allow_inf_nan=False, description="highest learning rate (AdamW)")
    weight_decay: float = Field(0.0, ge=0, description="weight decay of AdamW")
    warmup: int = Field(0, ge=0, description="steps in which the rate rises to lr")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="precision of the forward pass")
    validation: float = Field(0.1, ge=0, lt=1, description="share of triplets held out: the first")
    workers: int = Field(4, ge=0, description="threads (train_vlm: processes) that decode images")


class CombinerTrainer(Trainer):
    """The training of a Combiner, and of its VLM with `train_vlm`."""

    config: TrainConfig
    metric = "recall@1"

    def __init__(self, config: TrainConfig, device: str | None) -> None:
        slices = world() * config.accumulate
        if config.batch_size % slices:
            parts = f"{slices} equal parts ({world()} processes x accumulate {config.accumulate})"
            raise UserError(f"batch_size {config.batch_size} does not divide into {parts}")
        self.config = config
        self.folder = config.outputs / "combiner" / config.name
        self.weights = self.folder / "combiner.safetensors"
        self.vlm_folder = self.folder / "vlm"
        self.data = read_triplets(config.triplets, config.images)
        # The first triplets, as published. Other triplets with their images are used in training.
        self.held = int(config.validation * len(self.data))
        rest = len(self.data) - self.held
        self.steps = rest // config.batch_size
        if not self.steps:
            count = f"{rest} triplets to train on (and {self.held} held out)"
            raise UserError(f"{count} do not fill a batch of {config.batch_size}; mine more")
        load = load_trainable if config.train_vlm else load_vlm
        self.vlm: Any = load(config.vlm, device, config.precision)  # trained: a LoadedVLM
        self.settings = config.model_dump(mode="json", exclude=NEUTRAL | {"accumulate"}) | {
            "triplets": sha256(config.triplets.read_bytes()).hexdigest()[:16],
            "vlm": self.vlm.fingerprint,
            "parts": slices,  # the same training in one process or in several
        }

    def prepare(self) -> None:
        config, vlm = self.config, self.vlm
        torch.manual_seed(derived_seed(config.seed, features.INITIAL))
        self.combiner = Combiner(vlm.dim, config.projection, config.hidden, config.dropout)
        self.models = {"combiner": self.combiner.to(vlm.device)}
        fingerprint = vlm.fingerprint
        if config.train_vlm:
            self.models["vlm"] = vlm.model
            pixels = features.FineTunedFeatures(vlm, self.data, config.seed, config.workers)
            self.features: Any = pixels
            if self.vlm_folder.is_dir():  # a resumed training: the best VLM so far
                fingerprint = self.saved_fingerprint()
        else:
            self.features = features.FrozenFeatures(vlm, self.data, config.cache, config.workers)
        self.parameters = [p for model in self.models.values() for p in model.parameters()]
        rates = {"lr": config.lr, "weight_decay": config.weight_decay}
        self.optimizer = torch.optim.AdamW(self.parameters, **rates)
        counts = {"training": len(self.data) - self.held, "held_out": self.held}
        self.record = {"supervision": "captions (triplets)", "vlm": config.vlm}
        self.record["vlm_trained"] = config.train_vlm
        self.record["vlm_fingerprint"] = fingerprint  # that the Combiner in the folder belongs to
        self.record |= {"precision": config.precision, "device": str(vlm.device)}
        self.record |= {"processes": world(), "triplets": counts, "steps_per_epoch": self.steps}

    def batches(self, epoch: int, done: int) -> Iterator[list]:
        """Yield this process's parts of each batch, see `combiner_features`."""
        rows = plan(len(self.data), self.held, epoch, self.config)[done:, rank()]
        parts = self.features.parts(epoch, rows.reshape(-1, rows.shape[-1]))
        for _ in rows:
            yield list(islice(parts, self.config.accumulate))

    def step(self, batch: list) -> float:
        config = self.config
        self.combiner.train()
        numbers = range(rank() * config.accumulate, (rank() + 1) * config.accumulate)
        stream = config.seed, features.DROPOUT, self.progress.step
        seeds = [derived_seed(*stream, number) for number in numbers]
        loss = backward(self.query_and_target, batch, seeds)
        sum_gradients(self.parameters)
        if config.train_vlm:
            nn.utils.clip_grad_norm_(self.vlm.model.parameters(), 1.0)
        return loss

    def query_and_target(self, part: Any) -> Tensor:
        """A part -> (b, 2, D): the Combiner's queries and their targets, unit rows."""
        bf16 = self.config.precision == "bf16"
        with torch.autocast(self.vlm.device.type, torch.bfloat16, enabled=bf16):
            reference, condition, target = self.features.features(part)
            query = self.combiner(reference, condition)
        return torch.stack([query.float(), F.normalize(target.float(), dim=1)], dim=1)

    def validate(self) -> dict[str, float]:
        if not self.held or rank():
            return {}
        self.combiner.eval()
        held_out = self.data.first(min(self.held, 2000))  # the most that are measured
        return recalls(self.combiner, held_out, *self.features.validation(held_out))

    def keep(self) -> None:
        if self.config.train_vlm:
            save_vlm(self.vlm_folder, self.vlm)
            self.record["vlm_fingerprint"] = self.saved_fingerprint()
        save_tensors(self.weights, self.combiner)

    def saved_fingerprint(self) -> str:
        """As an evaluation will see it: in bf16 it says if these weights may be cast."""
        return load_vlm(str(self.vlm_folder), self.vlm.device, self.config.precision).fingerprint

    def rate(self, step: int) -> float:
        steps, config = self.steps * self.config.epochs, self.config
        return warmup_cosine(step, steps, config.lr, config.warmup, lowest=1e-3)


def plan(count: int, first: int, epoch: int, config: TrainConfig) -> np.ndarray:
    """Rows (steps, processes, parts, b) of an epoch over the triplets `first`, ..., `count` - 1, in
    an order of its own. Triplets at the end that do not fill a batch are left out."""
    generator = np.random.default_rng([config.seed, features.ORDER, epoch])
    order = first + generator.permutation(count - first)
    steps = len(order) // config.batch_size
    part = config.batch_size // (world() * config.accumulate)
    return order[: steps * config.batch_size].reshape(steps, world(), config.accumulate, part)


@torch.no_grad()
def recalls(combiner: Combiner, data: MinedTriplets, image: Tensor, text: Tensor) -> dict:
    """Recall@1, 5, 10 in percent of the targets of `data` among all its distinct targets, from the
    raw embeddings of its images (M, D) and conditions (C, D)."""
    device = next(combiner.parameters()).device
    targets, column = np.unique(data.target, return_inverse=True)
    candidates = F.normalize(image[targets].to(device), dim=1)  # (G, D)
    not_below = []  # candidates that do not score below the target; itself among them
    for rows in np.array_split(np.arange(len(data)), math.ceil(len(data) / 512)):
        pair = image[data.reference[rows]], text[data.condition[rows]]
        scores = combiner(*(x.to(device) for x in pair)) @ candidates.T  # (b, G)
        target = scores[torch.arange(len(rows)), column[rows]]
        # Ties and NaN count against the target, so that constant scores find nothing.
        not_below.append((~(scores < target[:, None])).sum(1))
    place = torch.cat(not_below)
    shares = {f"recall@{k}": 100 * (place <= k).double().mean().item() for k in (1, 5, 10)}
    return {**shares, "triplets": len(data), "candidates": len(targets)}


def train(config: TrainConfig) -> None:
    with process_group(config.device) as device:
        CombinerTrainer(config, device).run()


@command
def main(argv: list[str]) -> None:
    train(load_config(TrainConfig, argv, __doc__))


if __name__ == "__main__":
    main()
