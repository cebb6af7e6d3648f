"""What the trainings of fashion retrieval share: data, triplets, schedule, validation; and the
training of a network from pixels, which stage 2 of CRL and the rivals share."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.distributed as dist
from pydantic import Field
from torch import Tensor

from crl.run.distributed import print_rank0, rank, sum_gradients, world
from crl.run.errors import UserError
from crl.run.results import digest
from crl.run.training import Trainer, TrainingConfig
from fashion_retrieval.datasets import check_images, keep_used, load
from fashion_retrieval.method import (
    Represent,
    TripletSampler,
    mean_scores,
    retrieval_precision,
    triplet_loss,
)
from fashion_retrieval.networks import Network, Pixels, read_batches, represent_tables

DECAY, DECAY_EPOCHS = 0.9, 3  # every three epochs the learning rate is multiplied by 0.9
# Keys that change no number, or whose content is in the settings as a digest.
NO_SETTINGS = {"name", "outputs", "device", "root", "images", "epochs", "patience", "workers"}
NO_SETTINGS |= {"checkpoint_every", "cache", "checkpointing"}
NO_SETTINGS |= {"vlm", "bases", "texts", "heads", "tower"}


class FashionTrainingConfig(TrainingConfig):
    """Keys of every training here; defaults are those of the authors' code."""

    root: Path = Field(Path("data/deepfashion"), description="folder of ASEN's split files")
    dataset: str = Field("DeepFashion", description="its name in meta.json")
    images: Path | None = Field(None, description="folder of the images; none: root")
    epochs: int = Field(50, gt=0, description="passes of `triplets` triplets each")
    triplets: int = Field(100_000, gt=0, description="triplets per epoch")
    batch_size: int = Field(256, gt=0, description="triplets per step, of all processes together")
    margin: float = Field(0.3, ge=0, description="margin of the loss, in cosine similarity")


@dataclass(frozen=True)
class TrainingData:
    """The training and validation data.

    Attributes:
        attributes: A names.
        sampler: draws triplets from labels (L, 3).
        query, candidate: (Q, 3) and (C, 3), of the validation.
        files: N image files; the first columns of labels, query and candidate are indices into it.
    """

    attributes: list[str]
    sampler: TripletSampler
    query: np.ndarray
    candidate: np.ndarray
    files: list[Path]

    @classmethod
    def load(cls, config: FashionTrainingConfig) -> "TrainingData":
        """Load the training and validation splits; `files` are only the images that they use.

        Raises:
            UserError: wrong files or missing images.
        """
        data = load(config.root, config.dataset, config.images, ["train", "valid"])
        train, valid = data.train, data.valid
        files, (labels,) = keep_used(train.files, train.labels)
        more, tables = keep_used(valid.files, valid.query, valid.candidate)
        after = np.array([len(files), 0, 0])
        query, candidate = (table + after for table in tables)
        check_images(files + more)
        return cls(data.attributes, TripletSampler(labels), query, candidate, files + more)

    @property
    def digest(self) -> str:
        tables = self.sampler.labels, self.query, self.candidate
        # File sizes distinguish pictures of the same name, and no file is read.
        files = [(file.name, file.stat().st_size) for file in self.files]
        return digest(files, *tables)


class FashionTrainer(Trainer):
    """Triplets, learning rate and validation of every training here.

    Attributes:
        task: the <task> of the folder <outputs>/<task>/<name>.
        file: the file in that folder whose existence shows that there are weights.
    """

    config: FashionTrainingConfig
    metric = "overall"
    task: str
    file: str

    def __init__(
        self, config: FashionTrainingConfig, data: TrainingData, method: str, **contents: str
    ) -> None:
        """
        Args:
            method: a key of `trained.KINDS`.
            contents: fingerprints and digests of the content of files.
        """
        self.config, self.data = config, data
        self.folder = config.outputs / self.task / config.name
        self.weights = self.folder / self.file
        self.steps = math.ceil(config.triplets / config.batch_size)
        plain = config.model_dump(mode="json", exclude=NO_SETTINGS)
        self.settings = {**plain, "data": data.digest, **contents}
        self.record = {
            "method": method,
            "weights": self.file,
            "attributes": data.attributes,
            "images": len(data.files),
            "labels": len(data.sampler.labels),
            "queries": len(data.query),
            "candidates": len(data.candidate),
        }

    def run(self) -> None:
        super().run()
        print_rank0(f"evaluate.py takes it as trained=[{self.folder}]")

    def triplets(self, epoch: int) -> np.ndarray:
        """(n, 3) rows of the labels; they depend only on seed and epoch."""
        return self.data.sampler.draw(self.config.triplets, self.config.seed, epoch)

    def rate(self, step: int) -> float:
        return self.config.lr * DECAY ** (step // self.steps // DECAY_EPOCHS)

    def mean_precision(self, represent: Represent) -> dict[str, float]:
        """mAP of the validation split in percent."""
        query, candidate = self.data.query, self.data.candidate
        precision = retrieval_precision(represent, query, candidate)
        return mean_scores(precision, query, self.data.attributes)


# --- from pixels ----------------------------------------------------------------------------------


class NetworkConfig(FashionTrainingConfig):
    """Keys of train_backbone.py and train_rival.py."""

    batch_size: int = Field(32, gt=0, description="triplets per step, of all processes together")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="precision of the forward pass")
    workers: int = Field(4, ge=0, description="processes that decode images; 0: no extra ones")


class NetworkTrainer(FashionTrainer):
    """Trains the parameters of `network` that require gradients, with Adam.

    Several processes get the same gradients as one process: each takes its share of the triplets,
    and the gradients are summed.

    Attributes:
        network: set by `train_network`, which `prepare` of the subclasses calls.
    """

    config: NetworkConfig
    network: Network

    def __init__(
        self, config: NetworkConfig, data: TrainingData, method: str, **contents: str
    ) -> None:
        super().__init__(config, data, method, **contents)
        last = config.triplets % config.batch_size or config.batch_size
        if min(last, config.batch_size) < world():
            raise UserError(
                f"{config.triplets} triplets in batches of {config.batch_size} leave a last one of "
                f"{last}, fewer than the {world()} processes; choose triplets that fill the batches"
            )

    def train_network(self, network: Network) -> None:
        """Set network, device and optimizer; subclasses call it at the end of `prepare`."""
        self.network = network
        self.models = {"network": network}
        self.device = next(network.parameters()).device
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(self.parameters, lr=self.config.lr)
        self.record |= {"device": str(self.device), "processes": world()}

    def batches(self, epoch: int, done: int) -> Iterator[tuple[Tensor, Tensor, float]]:
        """Yield pixels (3b, 3, H, W), attributes (b,), and this process's share of the batch as a
        fraction; b: number of triplets of this process."""
        drawn, size, labels = self.triplets(epoch), self.config.batch_size, self.data.sampler.labels
        whole = [drawn[start : start + size] for start in range(0, len(drawn), size)][done:]
        shares = [batch[rank() :: world()] for batch in whole]  # (b, 3) each
        images = [labels[share.T.ravel(), 0] for share in shares]  # (3b,) each
        pixels = Pixels(self.data.files, self.network.preprocess)
        decoded = read_batches(pixels, images, self.config.workers, self.device)
        for batch, share, image in zip(whole, shares, decoded, strict=True):
            attribute = torch.from_numpy(labels[share[:, 0], 1]).to(self.device)
            yield image, attribute, len(share) / len(batch)

    def step(self, batch: tuple[Tensor, Tensor, float]) -> float:
        image, attribute, share = batch
        network = self.network.train()
        features = network.features(image, self.config.precision)  # (3b, ...)
        embedded = network.embed(features, attribute.repeat(3))  # (3b, width)
        anchor, positive, negative = embedded.unflatten(0, (3, -1))  # (b, width) each
        loss = triplet_loss(anchor, positive, negative, self.config.margin)
        loss = share * (loss + network.penalty(features.unflatten(0, (3, -1)), attribute))
        loss.backward()
        sum_gradients(self.parameters)
        loss = loss.detach()
        if world() > 1:
            dist.all_reduce(loss)
        return loss.item()

    def validate(self) -> dict[str, float]:
        data, config = self.data, self.config
        tables, how = [data.query, data.candidate], (config.precision, config.workers)
        return self.mean_precision(represent_tables(self.network, data.files, tables, *how))
