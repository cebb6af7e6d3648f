"""What CC and SCAN share: pictures in memory, a network from random weights, a contrastive loss."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from classification_clustering.datasets import Labelled
from classification_clustering.rivals.config import RivalConfig
from classification_clustering.rivals.method import Method
from crl.backends.torchvision_fix import import_torchvision
from crl.images import UnreadableImage, open_image
from crl.run.errors import UserError
from crl.run.results import digest
from crl.run.store import content_digest, digest_array

import_torchvision()
from torchvision import models  # noqa: E402
from torchvision.models.resnet import BasicBlock  # noqa: E402


def read_pictures(files: list[Path], size: int, workers: int | None) -> tuple[Tensor, str]:
    """Pictures, stretched to a square as published: (N, 3, size, size) uint8; and what
    `crl.embed.ImageEmbeddings` calls their content. A UserError if one cannot be read."""

    def read(file: Path) -> tuple[Tensor, bytes]:
        try:
            content = file.read_bytes()
            picture = open_image(file, content)
        except (OSError, UnreadableImage) as error:
            raise UserError(
                f"cannot read the image {file}: {error}; repair or remove it"
            ) from error
        pixels = np.array(picture.resize((size, size), Image.Resampling.BILINEAR))
        return torch.from_numpy(pixels).permute(2, 0, 1), content_digest(content)

    with ThreadPoolExecutor(workers) as pool:
        pixels, digests = zip(*pool.map(read, files), strict=True)
    return torch.stack(pixels), digest(digest_array(digests).view(np.uint8))


def backbone(name: str) -> tuple[nn.Module, int]:
    """A network without its classifier, pixels (B, 3, H, W) -> (B, R), and R."""
    if name != "tiny":
        resnet = getattr(models, name)(weights=None)
        width = resnet.fc.in_features
        resnet.fc = nn.Identity()
        return resnet, width
    layers = [nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    layers.append(BasicBlock(16, 16))
    for width in (32, 64, 128):
        short = nn.Sequential(nn.Conv2d(width // 2, width, 1, 2, bias=False), nn.BatchNorm2d(width))
        layers.append(BasicBlock(width // 2, width, 2, short))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), width


def mlp(width: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, out))


class Network(nn.Module):
    """A backbone with two heads: of vectors to contrast (B, 128), of clusters (B, K)."""

    def __init__(self, name: str, clusters: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.backbone, width = backbone(name)
        self.projector, self.clusters = mlp(width, 128), clusters(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.clusters(self.backbone(x))


class FromPixels(Method):
    """A method that trains a `Network`."""

    supervision, form = "images, number of clusters", "probabilities"

    def __init__(self, config: RivalConfig, data: Labelled, device: torch.device) -> None:
        self.config, self.data = config, data
        pixels, self.content = read_pictures(data.paths, config.size, config.workers)
        self.pixels = pixels.to(device)  # (N, 3, H, W) uint8
        network = Network(config.network, self.head).to(device)
        self.network = network.to(memory_format=torch.channels_last)  # faster, also on CPUs
        self.models = {"rival": self.network}

    def head(self, width: int) -> nn.Module:
        """Features (B, width) -> scores of the clusters (B, K)"""
        return nn.Linear(width, len(self.data.classes))


def contrastive(a: Tensor, b: Tensor, temperature: float, anchors: int) -> Tensor:
    """NT-Xent: how well the first `anchors` rows of a and b (n, d), one below the other, find their
    partner among all rows but themselves, by cosine."""
    x, n = F.normalize(torch.cat([a, b]), dim=1), len(a)
    scores = (x @ x.T / temperature).fill_diagonal_(-torch.inf)  # (2n, 2n)
    partner = torch.arange(2 * n, device=x.device).roll(n)
    return F.cross_entropy(scores[:anchors], partner[:anchors])


def sameness(p: Tensor) -> Tensor:
    """Minus the entropy of the sizes of clusters, from probabilities (B, K). Clamped, since the
    logarithm of an empty cluster makes the gradient NaN."""
    share = p.mean(0).clamp(min=1e-8)  # (K,)
    return (share * share.log()).sum()
