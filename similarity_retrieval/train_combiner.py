"""Train a Combiner on mined triplets as GeneCIS does (Vaze et al., CVPR 2023).

    python similarity_retrieval/train_combiner.py --config configs/demo/combiner.yaml
    torchrun --nproc_per_node 8 similarity_retrieval/train_combiner.py --config ...

A triplet is a reference image, a condition and a target image (JSONL, by mine_triplets.py). The
Combiner's query from reference and condition is to find its target among those of the whole batch:
cross entropy of 100 times the cosines, queries -> targets only, as published. The mined text
distractor has no part in the published loss, nor here: `distractor` is not read.

  train_vlm: false   the VLM stays as it is: images and conditions are embedded once, and training
                     is lookups, minutes on a CPU.
  train_vlm: true    an open_clip VLM is trained too (GeneCIS: both towers), from pixels.

Writes <outputs>/combiner/<name>/: combiner.safetensors, with the VLM that it belongs to in its
header (and that VLM in vlm/, if it was trained), from the epoch with the best held-out recall@1;
results.json; config.yaml; and state.pt, from which a killed run goes on. Everything random is drawn
from the seed and the step, so on a CPU the loss curve of a killed run is that of an undisturbed
one, bit for bit.

Where this differs from the published code: the rate falls by the step, not by the epoch, since
with six epochs the last would still run at a fifteenth of the first rate; bf16, which needs no loss
scaling, not fp16; gradients of the VLM are clipped as they are, not when scaled for fp16; the VLM
runs in eval mode, which for a ViT is the same and leaves the running means of a ResNet alone.
"""

import json
import math
import time
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from pydantic import Field
from torch import Tensor, nn
from tqdm import tqdm

from crl.run.config import Config, load_config
from crl.run.distributed import process_group, rank, sum_gradients, tell, world
from crl.run.errors import UserError, command
from crl.run.files import write_text
from crl.run.results import environment
from crl.run.loop import read_state, write_state
from crl.run.weights import save_tensors
from crl.vlm.open_clip import save_vlm, trained_name
from crl.vlm import LoadedVLM, load_vlm
from similarity_retrieval.combiner import Combiner
from similarity_retrieval.training import DROPOUT, INITIAL, ORDER, Lookup, Trained, backward, draw
from similarity_retrieval.triplets import Triplets, read_triplets

CLIP_NORM = 1.0  # of the VLM's gradients
VALIDATED = 2000  # held-out triplets that are measured, at most
LAST_RATE = 1e-3  # the rate at the end, as a share of `lr`


class TrainConfig(Config):
    """Keys of train_combiner.py; defaults are GeneCIS's where it has the key."""

    name: str = Field("run", description="results go to <outputs>/combiner/<name>")
    triplets: Path = Field(Path("triplets.jsonl"), description="JSONL of mine_triplets.py")
    images: Path = Field(Path("data"), description="folder that image names are relative to")
    vlm: str = Field("clip-b16", description="the VLM, by name")
    train_vlm: bool = Field(False, description="train the VLM too (open_clip only)")
    projection: int = Field(2560, gt=0, description="width of the Combiner's projections")
    hidden: int = Field(5120, gt=0, description="width of the Combiner's hidden layers")
    dropout: float = Field(0.5, ge=0, lt=1, description="in the Combiner")
    batch_size: int = Field(256, gt=1, description="triplets a step, of all processes together")
    accumulate: int = Field(1, gt=0, description="parts that a process's share is computed in")
    epochs: int = Field(6, gt=0, description="passes over the triplets")
    lr: float = Field(1e-6, gt=0, description="highest learning rate (AdamW)")
    weight_decay: float = Field(0.0, ge=0, description="of AdamW")
    warmup: int = Field(0, ge=0, description="steps in which the rate rises to lr")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="of the forward pass")
    device: str | None = Field(None, description="e.g. cpu, cuda; none takes the best")
    seed: int = Field(0, ge=0, description="of everything random")
    validation: float = Field(0.1, ge=0, lt=1, description="share of triplets held out: the first")
    workers: int = Field(4, ge=0, description="threads (train_vlm: processes) that decode images")
    checkpoint_every: int = Field(500, gt=0, description="steps between checkpoints")
    cache: Path = Field(Path("cache/embeddings"), description="where embeddings are kept")
    outputs: Path = Field(Path("outputs"), description="where results go")


def learning_rate(step: int, steps: int, config: TrainConfig) -> float:
    """Linear over the first `warmup` steps, then half a cosine from lr to lr / 1000."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    progress = (step - config.warmup) / max(1, steps - config.warmup)
    share = 0.5 + 0.5 * math.cos(math.pi * progress)
    return config.lr * (LAST_RATE + (1 - LAST_RATE) * share)


# --- training -------------------------------------------------------------------------------------


def plan(count: int, first: int, epoch: int, config: TrainConfig) -> np.ndarray:
    """Rows (steps, processes, parts, b) of an epoch over triplets `first`, ..., `count` - 1.

    What is left over after the last whole batch waits for another epoch's order.
    """
    generator = np.random.default_rng([config.seed, ORDER, epoch])
    order = first + generator.permutation(count - first)
    steps = len(order) // config.batch_size
    part = config.batch_size // (world() * config.accumulate)
    return order[: steps * config.batch_size].reshape(steps, world(), config.accumulate, part)


@torch.no_grad()
def recalls(combiner: Combiner, data: Triplets, image: Tensor, text: Tensor) -> dict[str, float]:
    """Recall@1, 5, 10 in percent of the targets of `data` among all its distinct targets.

    Args:
        image, text: (M, D), (C, D), raw embeddings of `data.images` and `data.conditions`.
    """
    device = next(combiner.parameters()).device
    targets, column = np.unique(data.target, return_inverse=True)
    candidates = F.normalize(image[targets].to(device), dim=1)  # (G, D)
    ranks = []
    for rows in np.array_split(np.arange(len(data)), math.ceil(len(data) / 512)):
        query = combiner(
            image[data.reference[rows]].to(device), text[data.condition[rows]].to(device)
        )
        scores = query @ candidates.T  # (b, G)
        own = scores[torch.arange(len(rows)), column[rows]]
        # Ties count against the target, so that equal scores find nothing; NaN too.
        ranks.append((~(scores < own[:, None])).sum(1))
    rank = torch.cat(ranks)
    found = {f"recall@{k}": 100 * (rank <= k).double().mean().item() for k in (1, 5, 10)}
    return {**found, "triplets": len(data), "candidates": len(targets)}


@dataclass
class Progress:
    """How far a training is: finished steps, the loss of each, a validation each epoch."""

    step: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    validation: list[dict[str, float]] = field(default_factory=list)

    @property
    def best(self) -> int:
        """The epoch with the best recall@1, the first of equals; without validation the last."""
        recall = [epoch.get("recall@1", index) for index, epoch in enumerate(self.validation)]
        return int(np.argmax(recall))


def train(config: TrainConfig, device: str | None) -> None:
    """Train, or go on with, the Combiner of `config`; see the top of the file.

    Raises:
        UserError: bad triplets or images, too few triplets, another training in the folder, a
            VLM that cannot be trained, a loss that is not finite.
    """
    slices = world() * config.accumulate
    if config.batch_size % slices:
        raise UserError(
            f"batch_size {config.batch_size} does not divide into {slices} equal parts "
            f"({world()} processes x accumulate {config.accumulate})"
        )
    folder = config.outputs / "combiner" / config.name
    trained = trained_name(folder, config.vlm) if config.train_vlm else None
    data = read_triplets(config.triplets, config.images)
    held = int(config.validation * len(data))  # the first, as published: a position, not an image
    if len(data) - held < config.batch_size:
        raise UserError(
            f"{len(data) - held} triplets to train on (and {held} held out) do not fill a batch of "
            f"{config.batch_size}; mine more or set batch_size"
        )
    vlm = load_vlm(config.vlm, device, config.precision)
    settings = identity(config, vlm, slices)
    state = read_state(folder / "state.pt", settings)
    per_epoch = (len(data) - held) // config.batch_size
    steps = per_epoch * config.epochs
    progress = Progress(**state["progress"]) if state else Progress()
    if not state and (folder / "combiner.safetensors").exists():
        raise UserError(
            f"{folder} holds a Combiner but not the state.pt of its training; choose another name= "
            "or remove it"
        )
    if progress.step == steps:
        if not (folder / "combiner.safetensors").exists():
            raise UserError(f"{folder} has lost its Combiner; remove the folder to train it again")
        tell(f"{folder}: this training is finished; nothing to do")
        return

    torch.manual_seed(draw(config.seed, INITIAL))
    combiner = Combiner(vlm.dim, config.projection, config.hidden, config.dropout).to(vlm.device)
    models = {"combiner": combiner, **({"vlm": vlm.model} if config.train_vlm else {})}
    source = (Trained if config.train_vlm else Lookup)(vlm, data, config)
    parameters = [parameter for model in models.values() for parameter in model.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay)
    if state:
        for name, model in models.items():
            model.load_state_dict(state[name])
        optimizer.load_state_dict(state["optimizer"])
        tell(f"{folder}: going on after step {progress.step} of {steps}")
        del state
    started = time.perf_counter() - progress.seconds

    def forward(part: Any) -> Tensor:
        """-> (b, 2, D): the Combiner's queries and their targets, unit rows."""
        with torch.autocast(vlm.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            reference, text, target = source.features(part)
            combined = combiner(reference, text)
        return torch.stack([combined.float(), F.normalize(target.float(), dim=1)], dim=1)

    def checkpoint() -> None:
        if rank() == 0:
            weights = {name: model.state_dict() for name, model in models.items()}
            rest = {"settings": settings, "progress": asdict(progress)}
            content = {**weights, **rest, "optimizer": optimizer.state_dict()}
            write_state(folder / "state.pt", content)

    about = {
        "config": config.model_dump(mode="json"),
        "environment": environment(),
        "device": str(vlm.device),
        "processes": world(),
        "vlm_fingerprint": settings["vlm"],
        "trained_vlm": trained,
        "triplets": {"training": len(data) - held, "held_out": held},
        "images": len(data.images),
        "conditions": len(data.conditions),
        "steps": steps,
    }
    if rank() == 0:
        write_text(folder / "config.yaml", yaml.safe_dump(about["config"], sort_keys=False))
    for epoch in range(progress.step // per_epoch, config.epochs):
        combiner.train()
        rows = plan(len(data), held, epoch, config)[progress.step % per_epoch :, rank()]
        parts = source.parts(epoch, rows.reshape(-1, rows.shape[-1]))
        hidden = None if rank() == 0 else True  # None: hidden if there is no terminal
        for _ in tqdm(rows, f"epoch {epoch + 1}/{config.epochs}", unit="step", disable=hidden):
            step = progress.step
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, steps, config)
            optimizer.zero_grad()
            numbers = rank() * config.accumulate + np.arange(config.accumulate)
            seeds = [draw(config.seed, DROPOUT, step, int(number)) for number in numbers]
            loss = backward(forward, list(islice(parts, config.accumulate)), seeds)
            if not math.isfinite(loss):
                raise UserError(
                    f"the loss of step {step + 1} is not finite; the last checkpoint is kept: "
                    "remove it and try a lower lr, or precision=fp32"
                )
            sum_gradients(parameters)
            if config.train_vlm:
                nn.utils.clip_grad_norm_(vlm.model.parameters(), CLIP_NORM)
            optimizer.step()
            progress.losses.append(loss)
            progress.step += 1
            progress.seconds = time.perf_counter() - started
            if progress.step % config.checkpoint_every == 0 and progress.step % per_epoch:
                checkpoint()
        found: dict[str, float] = {}
        if held and rank() == 0:
            combiner.eval()
            held_out = data.first(min(held, VALIDATED))
            found = recalls(combiner, held_out, *source.validation(held_out))
        progress.validation.append(found)
        if rank() == 0:
            if progress.best == epoch:
                save_tensors(
                    folder / "combiner.safetensors",
                    combiner,
                    vlm=trained or config.vlm,  # as it is now, where it is trained too
                    vlm_fingerprint=vlm.fingerprint,
                    precision=config.precision,
                )
                if config.train_vlm:
                    save_vlm(folder, vlm)
            results = {**about, "best_epoch": progress.best + 1, **asdict(progress)}
            write_text(folder / "results.json", json.dumps(results, indent=1) + "\n")
        mean = np.mean(progress.losses[-per_epoch:])
        shown = ", ".join(f"{name} {value:.1f}" for name, value in found.items() if "@" in name)
        tell(
            f"epoch {epoch + 1}/{config.epochs}: loss {mean:.3f}; held-out triplets (of images "
            f"that are seen in training): {shown or 'none'}"
        )
        checkpoint()
    tell(f"Combiner and results: {folder}")


def identity(config: TrainConfig, vlm: LoadedVLM, slices: int) -> dict[str, Any]:
    """All that shapes a training, as plain data: a checkpoint of another one is not gone on with.

    Parts on one process or on several are the same training.
    """
    others = {"name", "device", "workers", "checkpoint_every", "cache", "outputs", "accumulate"}
    settings = config.model_dump(mode="json", exclude=others)
    content = sha256(config.triplets.read_bytes()).hexdigest()[:16]
    return {**settings, "triplets": content, "vlm": vlm.fingerprint, "parts": slices}


@command
def main(argv: list[str]) -> None:
    config = load_config(TrainConfig, argv, __doc__)
    with process_group(config.device) as device:
        train(config, device)


if __name__ == "__main__":
    main()
