"""Stage 2 of CRL's fashion retrieval (paper, Table 4): the VLM's visual tower, heads frozen.

    python fashion_retrieval/train_backbone.py --config configs/deepfashion_backbone.yaml
    torchrun --nproc_per_node 8 fashion_retrieval/train_backbone.py --config ...

Images go through the tower, x = l2(I @ T_a.T), and the frozen heads of stage 1. VLM, text bases and
heads come from the folder that train_mlp.py wrote. The text tower is frozen, so the text embeddings
do not change. Any open_clip VLM can be trained.

Writes <outputs>/fashion_backbone/<name>/ (see crl/run/training.py) with vlm/, the VLM of the
validation with the best overall mAP, and the heads of stage 1. evaluate.py takes the folder.
"""

from crl.run.command import command

from pathlib import Path

import torch
from pydantic import Field

from crl.backends.open_clip import WEIGHTS, save_vlm
from crl.backends.weights import save_tensors, weights_digest
from crl.run.config import load_config
from crl.run.distributed import process_group
from crl.run.errors import UserError
from crl.vlm import load_trainable
from fashion_retrieval.networks import ConditionalNetwork
from fashion_retrieval.trained import CRL, aligned, read_training
from fashion_retrieval.trainers import NetworkConfig, NetworkTrainer, TrainingData


class BackboneConfig(NetworkConfig):
    """Keys of train_backbone.py; defaults are those of the authors' code."""

    heads: Path = Field(
        Path("outputs/fashion_mlp/deepfashion"), description="folder of train_mlp.py: stage 1"
    )
    lr: float = Field(1e-6, gt=0, allow_inf_nan=False, description="first learning rate (Adam)")
    checkpointing: bool = Field(
        False, description="recompute activations instead of keeping them: less memory, more time"
    )


class BackboneTrainer(NetworkTrainer):
    """The visual tower under T_a and frozen heads."""

    config: BackboneConfig
    task, file = "fashion_backbone", f"vlm/{WEIGHTS[0]}"

    def __init__(self, config: BackboneConfig, device: str | None) -> None:
        # Files, images and heads are checked before the VLM is loaded.
        data = TrainingData.load(config)
        stage1 = read_training(config.heads, data.attributes)
        if not isinstance(stage1, CRL) or stage1.method != "crl-mlp":
            raise UserError(f"{config.heads} is no folder of train_mlp.py; heads must be one")
        self.stage1 = stage1
        self.vlm = load_trainable(stage1.vlm, device, stage1.precision)
        stage1.check(self.vlm)
        basis, heads = stage1.bases.about["basis_digest"], weights_digest(stage1.heads)
        super().__init__(config, data, "crl", vlm=self.vlm.fingerprint, basis=basis, heads=heads)
        self.record |= {"vlm": stage1.vlm, "vlm_fingerprint": self.vlm.fingerprint}
        self.record |= {"precision": stage1.precision, **stage1.bases.record}

    def prepare(self) -> None:
        text = aligned(self.stage1.bases.embed(self.vlm, None))  # T_a, (A, K, D)
        tower = self.vlm.model.visual  # pixels (B, 3, H, W) -> I (B, D)
        tower.output_tokens = False  # else CoCa's tower gives the patches too
        if self.config.checkpointing:
            tower.set_grad_checkpointing(True)  # no error if a tower does not support it
            if not any(getattr(part, "grad_checkpointing", False) for part in tower.modules()):
                raise UserError(f"the visual tower of {self.vlm.name} has no gradient "
                                "checkpointing; set checkpointing=false")  # fmt: skip
        preprocess, heads = self.vlm.preprocess, self.stage1.heads
        network = ConditionalNetwork(tower, preprocess, torch.from_numpy(text), heads)
        self.train_network(network.to(self.vlm.device))

    def keep(self) -> None:
        save_tensors(self.folder / "heads.safetensors", self.stage1.heads)
        save_vlm(self.folder / "vlm", self.vlm)


def train(config: BackboneConfig) -> None:
    with process_group(config.device) as device:
        BackboneTrainer(config, device).run()


@command
def main(argv: list[str]) -> None:
    train(load_config(BackboneConfig, argv, __doc__))


if __name__ == "__main__":
    main()
