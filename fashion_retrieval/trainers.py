"""What the trainings of fashion retrieval share: data, triplets, schedule, validation; and the
training of a network from pixels, which stage 2 of CRL and the rivals share."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

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
)
from fashion_retrieval.networks import Network, Pixels, read_batches, represent_tables

# Keys that change no number, or whose content is in the settings as a digest.
NO_SETTINGS = {"name", "outputs", "device", "root", "images", "epochs", "patience", "workers"}
NO_SETTINGS |= {"checkpoint_every", "cache", "vlm", "bases", "texts", "heads", "tower"}
NO_SETTINGS |= {"checkpointing", "stage1", "local", "global_lr"}


class FashionTrainingConfig(TrainingConfig):
    """Keys of every training here; defaults are those of the authors' code."""

    root: Path = Field(Path("data/deepfashion"), description="folder of ASEN's split files")
    dataset: str = Field("DeepFashion", description="its name in meta.json")
    images: Path | None = Field(None, description="folder of the images; none: root")
    epochs: int = Field(50, gt=0, description="passes of `triplets` triplets each")
    triplets: int = Field(100_000, gt=0, description="triplets per epoch")
    batch_size: int = Field(256, gt=0, description="triplets per step, of all processes together")
    margin: float = Field(0.3, ge=0, description="margin of the loss, in cosine similarity")


class TrainingData(NamedTuple):
    """The training and validation data."""

    attributes: list[str]  # A names
    sampler: TripletSampler  # of labels (L, 3): index of an image, attribute, value
    query: np.ndarray  # (Q, 3), and
    candidate: np.ndarray  # (C, 3), of the validation
    files: list[Path]  # N images, of all tables

    @classmethod
    def load(cls, config: FashionTrainingConfig) -> "TrainingData":
        """Load both splits with the images that they use. UserError: wrong or missing files."""
        data = load(config.root, config.dataset, config.images, ["train", "valid"])
        train, valid = data.train, data.valid
        files, (labels,) = keep_used(train.files, train.labels)
        more, tables = keep_used(valid.files, valid.query, valid.candidate)
        after = np.array([len(files), 0, 0])
        query, candidate = (table + after for table in tables)
        check_images(files + more)
        return cls(data.attributes, TripletSampler(labels), query, candidate, files + more)


class FashionTrainer(Trainer):
    """Triplets, learning rate and validation of every training here."""

    config: FashionTrainingConfig
    metric = "overall"
    task: str  # of the folder <outputs>/<task>/<name>
    file: str  # in that folder; its existence shows that there are weights
    decay = 3  # epochs until the learning rate is multiplied by 0.9

    def __init__(self, config: Any, data: TrainingData, method: str, **contents: str) -> None:
        """`method`: a key of `trained.KINDS`; `contents`: fingerprints and digests of files."""
        self.config, self.data = config, data
        self.folder = config.outputs / self.task / config.name
        self.weights = self.folder / self.file
        self.steps = math.ceil(config.triplets / config.batch_size)
        plain = config.model_dump(mode="json", exclude=NO_SETTINGS)
        # File sizes distinguish pictures of the same name, and no file is read.
        files = [(file.name, file.stat().st_size) for file in data.files]
        content = digest(files, data.sampler.labels, data.query, data.candidate)
        self.settings = {**plain, "data": content, **contents}
        self.record = {"method": method, "weights": self.file, "attributes": data.attributes}
        self.record["supervision"] = "labels (triplets)"
        self.record |= {"images": len(data.files), "labels": len(data.sampler.labels)}
        self.record |= {"queries": len(data.query), "candidates": len(data.candidate)}

    def run(self) -> None:
        super().run()
        print_rank0(f"evaluate.py takes it as trained=[{self.folder}]")

    def triplets(self, epoch: int) -> np.ndarray:
        """(n, 3) rows of the labels; they depend only on seed and epoch."""
        return self.data.sampler.draw(self.config.triplets, self.config.seed, epoch)

    def rate(self, step: int) -> float:
        return self.config.lr * 0.9 ** (step // self.steps // self.decay)

    def mean_precision(self, represent: Represent) -> dict[str, float]:
        """mAP of the validation split in percent."""
        query, candidate = self.data.query, self.data.candidate
        precision = retrieval_precision(represent, query, candidate)
        return mean_scores(precision, query, self.data.attributes)


class NetworkConfig(FashionTrainingConfig):
    """Keys of train_backbone.py and train_rival.py."""

    batch_size: int = Field(32, gt=0, description="triplets per step, of all processes together")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="precision of the forward pass")
    workers: int = Field(4, ge=0, description="processes that decode images; 0: no extra ones")


class NetworkTrainer(FashionTrainer):
    """Trains the parameters of `network` that require gradients, with Adam. Several processes get
    the gradients of one process: each takes its share of the triplets, and they are summed."""

    config: NetworkConfig
    network: Network  # set by `train_network`, which `prepare` of the subclasses calls

    def __init__(self, config: Any, data: TrainingData, method: str, **contents: str) -> None:
        super().__init__(config, data, method, **contents)
        last = config.triplets % config.batch_size or config.batch_size
        if last < world():
            batches = f"{config.triplets} triplets in batches of {config.batch_size}"
            raise UserError(f"{batches} leave a last one of {last}, fewer than the {world()} "
                            "processes; choose triplets that fill the batches")  # fmt: skip

    def train_network(self, network: Network) -> None:
        """Set network, device and optimizer; subclasses call it at the end of `prepare`."""
        self.network = network
        self.models = {"network": network}
        self.device = next(network.parameters()).device
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(self.parameters, lr=self.config.lr)
        self.record |= {"device": str(self.device), "processes": world()}

    def batches(self, epoch: int, done: int) -> Iterator[tuple[Tensor, Tensor, Tensor, float]]:
        """Yield pixels (3b, 3, H, W), attributes (b,), values (3b,), and this process's share of
        the batch as a fraction; b: number of triplets of this process."""
        drawn, size, labels = self.triplets(epoch), self.config.batch_size, self.data.sampler.labels
        whole = [drawn[start : start + size] for start in range(0, len(drawn), size)][done:]
        shares = [batch[rank() :: world()] for batch in whole]  # (b, 3) each
        images = [labels[share.T.ravel(), 0] for share in shares]  # (3b,) each
        pixels = Pixels(self.data.files, self.network.preprocess)
        decoded = read_batches(pixels, images, self.config.workers, self.device)
        for batch, share, image in zip(whole, shares, decoded, strict=True):
            attribute = torch.from_numpy(labels[share[:, 0], 1]).to(self.device)
            value = torch.from_numpy(labels[share.T.ravel(), 2]).to(self.device)
            yield image, attribute, value, len(share) / len(batch)

    def step(self, batch: tuple[Tensor, Tensor, Tensor, float]) -> float:
        image, attribute, value, share = batch
        network = self.network.train()
        features = network.features(image, self.config.precision)  # (3b, ...)
        loss = share * network.loss(features, attribute, value, self.config.margin)
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
