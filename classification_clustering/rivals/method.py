"""What train_rival.py asks of a method."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from classification_clustering.datasets import Labelled
from classification_clustering.rivals.config import RivalConfig


class Method(ABC):
    """A method that learns from the N images that it clusters. It has stages, numbered from 0: most
    have one, the configuration's epochs, batch_size and lr. Each subclass is in `METHODS`."""

    supervision: ClassVar[str]  # what it learns from, in words
    # What `clusters` gives: probabilities (N, K), whose largest is the cluster; or features (N, D),
    # which clustering.py gives to k-means.
    form: ClassVar[Literal["probabilities", "features"]]
    content: str  # of the images, as in `crl.embed.ImageEmbeddings`
    config: RivalConfig
    data: Labelled
    models: dict[str, nn.Module]  # "rival" has the weights that are kept; all are in checkpoints

    @classmethod
    def settings(cls, config: RivalConfig, device: torch.device) -> dict[str, Any]:
        """What affects the training beside configuration and images, and can be had at once."""
        return {}

    @abstractmethod
    def __init__(self, config: RivalConfig, data: Labelled, device: torch.device) -> None:
        """Read the images of `data`, and build the models. A UserError if an image cannot be read.
        The labels are for the number of classes only, K = len(data.classes)."""

    def begin(self, stage: int) -> None:  # noqa: B027
        """Called before the first step of a stage; after a kill there, again."""

    @abstractmethod
    def optimizer(self, stage: int) -> torch.optim.Optimizer:
        """A new one, of the models' parameters."""

    def rate(self, stage: int, epoch: int) -> float:
        """Learning rate in an epoch (from 0) of a stage."""
        return self.config.all_stages[stage].lr

    def batches(self, stage: int, rng: np.random.Generator) -> list[np.ndarray]:
        """The batches of an epoch, as rows (B,) of images; here the last ones may fill none."""
        size, count = self.config.all_stages[stage].batch_size, len(self.data.paths)
        return list(rng.permutation(count)[: count // size * size].reshape(-1, size))

    @abstractmethod
    def loss(self, rows: Tensor, stage: int) -> Tensor:
        """The loss of a batch of images (B,), with gradients; torch's generators are seeded."""

    @abstractmethod
    def scores(self, stage: int) -> dict[str, float]:
        """After an epoch: values that say whether it learned, in percent unless named otherwise."""

    @abstractmethod
    def clusters(self) -> Tensor:
        """Probabilities (N, K) or features (N, D) of all images, see `form`."""
