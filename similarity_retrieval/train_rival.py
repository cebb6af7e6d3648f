"""Train a rival of CRL on GeneCIS (paper, Table 3): LinCIR, Pic2Word or SEARLE; see rivals/.

    python similarity_retrieval/train_rival.py --config configs/demo/lincir.yaml

A small network learns to turn an image's embedding into a word for the VLM's text tower; the VLM is
frozen. LinCIR learns from captions alone, the others from images.

Writes <outputs>/genecis_rivals/<name>/ (see crl/run/training.py) with rival.safetensors, the
network from the epoch with the best held-out recall@1: how often `a photo of $`, with the word of a
held-out caption or image, is nearest to it of all held out. Measure it with
evaluate.py "rivals=[<outputs>/genecis_rivals/<name>]".
"""

from crl.run.command import command

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from crl.backends.pseudo_words import PseudoWords
from crl.backends.weights import save_tensors
from crl.images import image_files
from crl.run.config import load_config
from crl.run.distributed import process_group, world
from crl.run.errors import UserError
from crl.run.results import digest
from crl.run.training import Trainer, derived_seed, warmup_cosine
from crl.vlm import load_vlm
from similarity_retrieval.mining.captions import caption_files, read_captions
from similarity_retrieval.rivals import METHODS
from similarity_retrieval.rivals.config import RivalConfig
from similarity_retrieval.rivals.lincir import clean

ORDER, STEP, INITIAL = range(3)  # uses of randomness; one random stream per use
NEUTRAL = {"name", "outputs", "device", "workers", "cache", "checkpoint_every"}
MEASURED = 2000  # of the held-out captions or images, at most


class RivalTrainer(Trainer):
    """The training of a rival's network."""

    config: RivalConfig
    metric = "recall@1"

    def __init__(self, config: RivalConfig, device: str | None) -> None:
        if world() > 1:
            raise UserError("rivals need one process, since a batch's losses go together")
        self.config, self.items = config, items(config)
        self.folder = config.outputs / "genecis_rivals" / config.name
        self.weights = self.folder / "rival.safetensors"
        self.held = max(2, int(config.validation * len(self.items)))
        rest = len(self.items) - self.held
        self.steps = rest // config.batch_size
        if not self.steps:
            what = "captions" if config.method == "lincir" else "images"
            counts = f"{max(rest, 0)} {what} to train on (and {self.held} held out)"
            raise UserError(
                f"{counts} do not fill a batch of {config.batch_size}; lower batch_size"
            )
        self.words = PseudoWords(load_vlm(config.vlm, device, config.precision))
        self.settings = config.model_dump(mode="json", exclude=NEUTRAL)
        self.settings |= {"items": digest(*map(str, self.items))}
        self.settings |= {"vlm": self.words.vlm.fingerprint}

    def prepare(self) -> None:
        config, vlm, kind = self.config, self.words.vlm, METHODS[self.config.method]
        vlm.model.requires_grad_(False)
        place = self.folder / f"inverted-{digest(self.settings)[:8]}"
        self.data = kind(config, self.words, self.items, self.held, place)
        torch.manual_seed(derived_seed(config.seed, INITIAL))
        self.network = kind.network(vlm.dim, self.words.width).to(vlm.device)
        self.models = {"rival": self.network}
        self.optimizer = kind.optimizer(self.network, config.lr, config.weight_decay)
        counts = {"training": len(self.items) - self.held, "held_out": self.held}
        self.record = {"method": config.method, "supervision": kind.supervision, "vlm": config.vlm}
        self.record |= {"vlm_fingerprint": vlm.fingerprint, "precision": config.precision}
        self.record |= {"device": str(vlm.device), "items": counts, "steps_per_epoch": self.steps}
        self.record["mean_length"] = self.data.inputs.norm(dim=1).mean().item()  # of embeddings

    def batches(self, epoch: int, done: int) -> Iterator[np.ndarray]:
        """Yield the rows (B,) of each batch; the last ones of an epoch may fill none."""
        rng, size = np.random.default_rng([self.config.seed, ORDER, epoch]), self.config.batch_size
        order = self.held + rng.permutation(len(self.items) - self.held)
        yield from order[: self.steps * size].reshape(self.steps, size)[done:]

    def step(self, batch: np.ndarray) -> float:
        key = self.config.seed, STEP, self.progress.step
        torch.manual_seed(derived_seed(*key))
        self.network.train()
        with self._autocast():
            loss = self.data.loss(self.network, batch, np.random.default_rng(key))
        loss.backward()
        return loss.item()

    def _autocast(self) -> torch.autocast:
        bf16 = self.config.precision == "bf16"
        return torch.autocast(self.words.vlm.device.type, torch.bfloat16, enabled=bf16)

    @torch.no_grad()
    def validate(self) -> dict[str, Any]:
        self.network.eval()
        held_out = self.data.inputs[: min(self.held, MEASURED)].to(self.words.vlm.device)  # (n, D)
        parts = [
            self.words.encode(["a photo of $"] * len(some), self.network(some))
            for some in held_out.split(256)
        ]
        scores = F.normalize(torch.cat(parts), dim=1) @ F.normalize(held_out, dim=1).T  # (n, n)
        # Ties and NaN count against the right one, so that constant scores find nothing.
        places = (~(scores < scores.diagonal()[:, None])).sum(dim=1)
        shares = {f"recall@{k}": 100 * (places <= k).double().mean().item() for k in (1, 5, 10)}
        return {**shares, "candidates": len(scores)}

    def keep(self) -> None:
        save_tensors(self.weights, self.network)

    def rate(self, step: int) -> float:
        steps, config = self.steps * self.config.epochs, self.config
        lowest = 1.0 if config.schedule == "constant" else 0.0
        return warmup_cosine(step, steps, config.lr, config.warmup, lowest)


def items(config: RivalConfig) -> list[Any]:
    """The distinct captions, cleaned, or the image files."""
    if config.method != "lincir":
        return image_files(config.images)[: config.limit]
    pairs = read_captions(caption_files(config.captions))
    return list(dict.fromkeys(clean(pair.caption) for pair in pairs))[: config.limit]


def train(config: RivalConfig) -> None:
    with process_group(config.device) as device:
        RivalTrainer(config, device).run()


@command
def main(argv: list[str]) -> None:
    train(load_config(RivalConfig, argv, __doc__))


if __name__ == "__main__":
    main()
