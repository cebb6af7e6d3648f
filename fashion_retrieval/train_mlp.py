"""Stage 1 of CRL's fashion retrieval (paper, Table 4): heads on frozen embeddings.

    python fashion_retrieval/train_mlp.py --config configs/deepfashion_mlp.yaml

Every image is embedded once. Its representation for an attribute, x = l2(I @ T_a.T), goes through
the attribute's small MLP (head), which learns to bring images of the same value together.

Writes <outputs>/fashion_mlp/<name>/ (see crl/run/training.py) with heads.safetensors, those of the
validation with the best overall mAP. evaluate.py and train_backbone.py take the folder.
"""

from crl.run.command import command

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from crl.backends.weights import save_tensors
from crl.embed import embed_images
from crl.projection import l2, project
from crl.run.config import EmbeddingConfig, Width, load_config
from crl.vlm import load_vlm
from fashion_retrieval.method import triplet_loss
from fashion_retrieval.networks import Heads, through
from fashion_retrieval.trained import Bases, aligned
from fashion_retrieval.trainers import FashionTrainer, FashionTrainingConfig, TrainingData


class MlpConfig(FashionTrainingConfig, EmbeddingConfig):
    """Keys of train_mlp.py."""

    vlm: str = Field("clip-b16", description="the VLM, by name")
    bases: dict[str, str] = Field(
        {}, description="attribute: text basis (name or YAML file); none: <dataset>_<attribute>"
    )
    texts: int | None = Field(None, gt=1, description="use the first N texts of each basis")
    epochs: int = Field(1000, gt=0, description="passes of `triplets` triplets each")
    out: Width = Field(1024, description="width of the heads' results")


class MlpTrainer(FashionTrainer):
    """Heads over x = l2(I @ T_a.T)."""

    config: MlpConfig
    task, file = "fashion_mlp", "heads.safetensors"

    def __init__(self, config: MlpConfig) -> None:
        # Files, images, bases and names are checked before the VLM is loaded.
        data = TrainingData.load(config)
        self.bases = Bases.load(config.dataset, data.attributes, config.bases, config.texts)
        self.vlm = load_vlm(config.vlm, config.device, config.precision)
        contents = {"vlm": self.vlm.fingerprint, "basis": self.bases.about["basis_digest"]}
        super().__init__(config, data, "crl-mlp", **contents)
        self.record |= {"vlm": config.vlm, "vlm_fingerprint": self.vlm.fingerprint}
        self.record |= {"precision": config.precision, "device": str(self.vlm.device)}
        self.record |= self.bases.record

    def prepare(self) -> None:
        config, data, device = self.config, self.data, self.vlm.device
        image = embed_images(
            self.vlm, data.files, config.cache, workers=config.workers, single=True
        ).image  # I, (N, D)
        text = aligned(self.bases.embed(self.vlm, config.cache))  # T_a, (A, K, D)

        def represent(images: np.ndarray, attribute: int) -> np.ndarray:
            return l2(project(image[images], text[attribute]))  # x = l2(R), R = I T_aᵀ, (n, K)

        self.represent = represent
        labels = data.sampler.labels
        x = np.empty((len(labels), text.shape[1]), np.float32)  # (L, K)
        for attribute in range(len(text)):
            rows = labels[:, 1] == attribute
            x[rows] = represent(labels[rows, 0], attribute)
        self.x = torch.from_numpy(x).to(device)
        self.attribute = torch.from_numpy(labels[:, 1]).to(device)  # (L,)
        torch.manual_seed(config.seed)
        self.heads = Heads(len(text), text.shape[1], config.out).to(device)
        self.models = {"heads": self.heads}
        self.optimizer = torch.optim.Adam(self.heads.parameters(), lr=config.lr, fused=True)

    def batches(self, epoch: int, done: int) -> tuple[Tensor, ...]:
        """Batches (b, 3) of rows of `x`: anchor, positive, negative."""
        rows = torch.from_numpy(self.triplets(epoch)).to(self.vlm.device)
        return rows.split(self.config.batch_size)[done:]

    def step(self, batch: Tensor) -> float:
        self.heads.train()
        attribute = self.attribute[batch[:, 0]]
        # Separate calls: anchors, positives and negatives are normalised separately.
        anchor, positive, negative = (self.heads(self.x[rows], attribute) for rows in batch.T)
        loss = triplet_loss(anchor, positive, negative, self.config.margin)  # of (b, out) each
        loss.backward()
        return loss.item()

    def validate(self) -> dict[str, float]:
        return self.mean_precision(through(self.heads.eval(), self.represent))

    def keep(self) -> None:
        save_tensors(self.weights, self.heads)


def train(config: MlpConfig) -> None:
    MlpTrainer(config).run()


@command
def main(argv: list[str]) -> None:
    train(load_config(MlpConfig, argv, __doc__))


if __name__ == "__main__":
    main()
