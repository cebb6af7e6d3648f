"""Train a rival of CRL's clustering (paper, Table 2): Contrastive Clustering, SCAN or Multi-MaP;
see rivals/.

    python classification_clustering/train_rival.py --config configs/demo/cc.yaml

A rival learns from the images that it clusters, without labels, and knows the number of clusters.

Writes <outputs>/clustering_rivals/<name>/ (see crl/run/training.py) with rival.safetensors, the
weights after the last epoch, as the authors take them; and clusters.safetensors, what the rival
says of each image. Measure it with clustering.py "rivals=[<outputs>/clustering_rivals/<name>]".
"""

from crl.run.command import command

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from classification_clustering.datasets import Labelled, load
from classification_clustering.rivals import METHODS
from classification_clustering.rivals.config import RivalConfig
from crl.backends.weights import save_tensors
from crl.run.config import load_config
from crl.run.distributed import available_device, print_rank0, process_group, world
from crl.run.errors import UserError
from crl.run.files import atomic_path
from crl.run.results import digest
from crl.run.training import Trainer, derived_seed

ORDER, STEP, INITIAL, VALIDATION = range(4)  # uses of randomness; one random stream per use
NEUTRAL = {"name", "outputs", "device", "workers", "root", "images", "cache", "checkpoint_every"}
NEUTRAL.add("confidence")  # which must be lowered if the last stage finds no image that is sure


class RivalTrainer(Trainer):
    """The training of a rival, stage after stage."""

    config: RivalConfig
    metric = ""  # none: the last weights are kept

    def __init__(self, config: RivalConfig, device: str | None) -> None:
        if world() > 1:
            raise UserError("rivals need one process, since a batch's losses go together")
        self.config, self.device = config, available_device(device)
        self.data = images(config)
        count, size = len(self.data.paths), max(stage.batch_size for stage in config.all_stages)
        if count < size:
            raise UserError(f"{count} images do not fill a batch of {size}; lower batch_size")
        self.folder = config.outputs / "clustering_rivals" / config.name
        self.weights = self.folder / "rival.safetensors"
        self.settings = config.model_dump(mode="json", exclude=NEUTRAL)
        # File sizes distinguish pictures of the same name, and no file is read.
        files = [(path.name, path.stat().st_size) for path in self.data.paths]
        self.settings |= {"files": digest(files), "clusters": len(self.data.classes)}
        self.beside = METHODS[config.method].settings(config, self.device)
        self.settings |= self.beside

    def prepare(self) -> None:
        torch.manual_seed(derived_seed(self.config.seed, INITIAL))
        self.method = METHODS[self.config.method](self.config, self.data, self.device)
        self.models = self.method.models
        last = len(self.progress.losses) - (not self.progress.unfinished)  # epoch of the last step
        self.optimizer = self.method.optimizer(self._stage(max(0, last))[0])
        self.record = self.config.model_dump(mode="json", include={"method", "data", "criteria"})
        self.record |= {"supervision": self.method.supervision, "form": self.method.form}
        self.record |= {"content": self.method.content, "images": len(self.data.paths)}
        self.record |= {"clusters": len(self.data.classes), **self.beside}
        self.record["device"] = str(self.device)

    def _stage(self, epoch: int) -> tuple[int, int]:
        """The stage of an epoch (from 0), and how many epochs of the stage are before it."""
        for number, stage in enumerate(self.config.all_stages):
            if epoch < stage.epochs:
                return number, epoch
            epoch -= stage.epochs
        raise IndexError(epoch)

    def batches(self, epoch: int, done: int) -> Iterator[np.ndarray]:
        stage, before = self._stage(epoch)
        if before == done == 0:
            self.method.begin(stage)
            self.optimizer = self.method.optimizer(stage)
        rng = np.random.default_rng([self.config.seed, ORDER, epoch])
        batches = self.method.batches(stage, rng)
        self.steps = len(batches)  # the stages have batches of their own size
        return iter(batches[done:])

    def step(self, batch: np.ndarray) -> float:
        torch.manual_seed(derived_seed(self.config.seed, STEP, self.progress.step))
        stage, _ = self._stage(len(self.progress.losses))
        loss = self.method.loss(torch.from_numpy(batch).to(self.device), stage)
        loss.backward()
        return loss.item()

    def rate(self, step: int) -> float:
        return self.method.rate(*self._stage(len(self.progress.losses)))

    @torch.no_grad()
    def validate(self) -> dict[str, Any]:
        epochs = len(self.progress.losses)
        torch.manual_seed(derived_seed(self.config.seed, VALIDATION, epochs))
        scores = self.method.scores(self._stage(epochs - 1)[0])
        if scores:
            print_rank0(", ".join(f"{name} {value:.4g}" for name, value in scores.items()))
        return scores

    @torch.no_grad()
    def keep(self) -> None:
        save_tensors(self.weights, self.models["rival"])
        if len(self.progress.losses) == self.config.epochs:
            start = time.perf_counter()
            clusters = self.method.clusters().cpu().contiguous()
            self.record["inference_seconds"] = time.perf_counter() - start  # of all images, read
            with atomic_path(self.folder / "clusters.safetensors") as temporary:
                temporary.write_bytes(save({self.method.form: clusters}))


def images(config: RivalConfig) -> Labelled:
    """The images of the criteria, and as many classes. A UserError if the criteria differ in them:
    then each needs a training of its own."""
    each = [load(config.data, config.root, c, config.images) for c in config.criteria]
    for other in each[1:]:
        if other.paths != each[0].paths or len(other.classes) != len(each[0].classes):
            names = ", ".join(config.criteria)
            raise UserError(f"the criteria {names} differ in images or number of classes; train "
                            "once for each, with criteria=... name=...")  # fmt: skip
    return each[0]


def train(config: RivalConfig) -> None:
    with process_group(config.device) as device:
        RivalTrainer(config, device).run()


@command
def main(argv: list[str]) -> None:
    train(load_config(RivalConfig, argv, __doc__))


if __name__ == "__main__":
    main()
