"""Train a rival of CRL's fashion retrieval (paper, Table 4): Triplet, CSN or ASEN; see rivals.py.

    python fashion_retrieval/train_rival.py --config configs/deepfashion_rival.yaml

Images go through the tower, which is trained too, and the rival's layers; the triplets, the loss
and the schedule are those of CRL (train_mlp.py).

Writes <outputs>/fashion_rivals/<name>/ (see crl/run/training.py) with rival.safetensors: the rival
and its tower at the validation with the best overall mAP. evaluate.py takes the folder.
"""

from crl.run.command import command

from typing import Literal

import torch
from pydantic import Field

from crl.backends.weights import save_tensors
from crl.run.config import Width, load_config
from crl.run.distributed import process_group, world
from crl.run.errors import UserError
from fashion_retrieval.rivals import RIVALS
from fashion_retrieval.towers import open_tower
from fashion_retrieval.trainers import NetworkConfig, NetworkTrainer, TrainingData


class RivalConfig(NetworkConfig):
    """Keys of train_rival.py; lr and width are those of ASEN's authors."""

    method: Literal["triplet", "csn", "asen"] = Field("asen", description="which rival")
    tower: str = Field(
        "resnet50",
        description="torchvision's resnet50, resnet50:FILE of its weights, or an open_clip VLM",
    )
    width: Width = Field(1024, description="width of a representation")


class RivalTrainer(NetworkTrainer):
    """A rival, with its tower."""

    config: RivalConfig
    task, file = "fashion_rivals", "rival.safetensors"

    def __init__(self, config: RivalConfig, device: str | None) -> None:
        if world() > 1:
            raise UserError("rivals need one process, since CSN's norms are of whole batches")
        data = TrainingData.load(config)
        self.tower = open_tower(config.tower, RIVALS[config.method].spatial, device)
        super().__init__(config, data, config.method, tower=self.tower.fingerprint)
        tower = {"tower": self.tower.name, "tower_fingerprint": self.tower.fingerprint}
        self.record |= {**tower, "width": config.width}

    def prepare(self) -> None:
        torch.manual_seed(self.config.seed)
        kind, device = RIVALS[self.config.method], next(self.tower.module.parameters()).device
        rival = kind(self.tower, len(self.data.attributes), self.config.width)
        self.train_network(rival.to(device))

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
