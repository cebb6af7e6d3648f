"""Train a rival of CRL's fashion retrieval (paper, Table 4), see rivals/.

    python fashion_retrieval/train_rival.py --config configs/deepfashion_rival.yaml

Images go through the tower, which is trained too, and the rival's layers; the triplets and the
schedule are those of CRL (train_mlp.py). ASEN++ and RPF have two stages: stage 2 takes the folder
of stage 1 as `stage1`, and with it the tower and the width.

Writes <outputs>/fashion_rivals/<name>/ (see crl/run/training.py) with rival.safetensors: the rival
and its tower at the validation with the best overall mAP. evaluate.py takes the folder.
"""

from crl.run.command import command

from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from crl.backends.weights import save_tensors, weights_digest
from crl.run.config import Width, load_config
from crl.run.distributed import process_group, world
from crl.run.errors import UserError
from fashion_retrieval.networks import Rival
from fashion_retrieval.rivals import RIVALS, load_rival
from fashion_retrieval.rivals.two_stage import TwoStage
from fashion_retrieval.towers import IMAGENET, open_tower
from fashion_retrieval.trained import STAGE1, TrainedRival, read_training
from fashion_retrieval.trainers import NetworkConfig, NetworkTrainer, TrainingData


class RivalConfig(NetworkConfig):
    """Keys of train_rival.py; lr and width are those of ASEN's authors."""

    method: Literal["triplet", "csn", "asen", "asen_pp", "rpf"] = Field(
        "asen", description="which rival"
    )
    tower: str = Field(
        "resnet50",
        description="torchvision's resnet50, resnet50:FILE of its weights, or an open_clip VLM",
    )
    width: Width = Field(1024, description="width of a representation")
    stage1: Path | None = Field(
        None, description="asen_pp, rpf: the folder of their stage 1; none: this is stage 1"
    )
    local: str = Field(
        IMAGENET,
        description="stage 2's network for the crop: imagenet (asen_pp: ResNet-34, rpf: ViT-B/16, "
        "torchvision's), FILE of these weights, or small (a little one, untrained)",
    )
    global_lr: float = Field(
        1e-5, gt=0, description="stage 2: first learning rate of all that stage 1 has trained"
    )


class RivalTrainer(NetworkTrainer):
    """A rival, with its tower."""

    config: RivalConfig
    task, file = "fashion_rivals", "rival.safetensors"

    def __init__(self, config: RivalConfig, device: str | None) -> None:
        if world() > 1:
            raise UserError("rivals need one process, since some of their losses are of whole "
                            "batches")  # fmt: skip
        data, kind = TrainingData.load(config), RIVALS[config.method]
        self.flips = False
        if config.stage1:
            self._second_stage(config, data, device)
            return
        tower, method = open_tower(config.tower, kind.spatial, device), str(config.method)
        if issubclass(kind, TwoStage):
            method, self.flips = method + STAGE1, kind.flips
        super().__init__(config, data, method, tower=tower.fingerprint)
        self.record |= {"tower": tower.name, "tower_fingerprint": tower.fingerprint}
        self.record |= {"width": config.width}
        torch.manual_seed(config.seed)
        self.rival: Rival = kind(tower, len(data.attributes), config.width)

    def _second_stage(self, config: RivalConfig, data: TrainingData, device: str | None) -> None:
        stage1 = read_training(config.stage1, data.attributes)
        if not isinstance(stage1, TrainedRival) or stage1.method != config.method + STAGE1:
            raise UserError(f"{config.stage1} holds {stage1.method}, not stage 1 of "
                            f"{config.method}; only asen_pp and rpf have a stage 2")  # fmt: skip
        rival = cast(TwoStage, load_rival(stage1, device))
        torch.manual_seed(config.seed)
        local = rival.closer(config.local, stage1.width)
        contents = {"stage1": weights_digest(rival), "local": weights_digest(local)}
        super().__init__(config, data, config.method, global_lr=f"{config.global_lr}", **contents)
        self.record |= {"tower": stage1.tower, "width": stage1.width}
        self.record |= {"local": "small" if config.local == "small" else IMAGENET}
        rival.look_closer(local)
        self.rival, self.decay = rival, rival.decay

    def prepare(self) -> None:
        self.train_network(self.rival.to(next(self.rival.tower.parameters()).device))
        if self.config.stage1:
            local = list(self.rival.local.parameters())
            others = [p for n, p in self.rival.named_parameters() if not n.startswith("local.")]
            slower = {"params": others, "slower": self.config.global_lr / self.config.lr}
            self.optimizer = torch.optim.Adam([{"params": local, "slower": 1.0}, slower])

    def step(self, batch: tuple[Tensor, Tensor, Tensor, float]) -> float:
        image, *rest = batch
        key = np.random.SeedSequence([self.config.seed, self.progress.step])
        torch.manual_seed(int(key.generate_state(1)[0]))  # of flips and dropout
        if self.flips:
            mirrored = torch.rand(len(image), 1, 1, 1) < 0.5
            image = torch.where(mirrored.to(image.device), image.flip(-1), image)
        for group in self.optimizer.param_groups:  # `rate` has just set them alike
            group["lr"] *= group.get("slower", 1.0)
        return super().step((image, *rest))

    def keep(self) -> None:
        save_tensors(self.weights, self.network)


def train(config: RivalConfig) -> None:
    with process_group(config.device) as device:
        RivalTrainer(config, device).run()


@command
def main(argv: list[str]) -> None:
    train(load_config(RivalConfig, argv, __doc__))


if __name__ == "__main__":
    main()
