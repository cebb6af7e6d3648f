"""What CC and SCAN share: pictures in memory, the network, and the contrastive loss."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from classification_clustering.rivals.config import RivalConfig
from crl.backends.torchvision_fix import import_torchvision
from crl.images import UnreadableImage, open_image
from crl.run.errors import UserError
from crl.run.results import digest
from crl.run.store import content_digest, digest_array

import_torchvision()
from torchvision import models  # noqa: E402
from torchvision.models.resnet import BasicBlock  # noqa: E402


def read_pictures(
    files: list[Path], size: int, workers: int | None = None
) -> tuple[Tensor, str]:
    """Pictures, stretched to a square as published: (N, 3, size, size) uint8; and what
    `crl.embed.ImageEmbeddings` calls their content. A UserError if one cannot be read."""

    def read(file: Path) -> tuple[Tensor, bytes]:
        try:
            content = file.read_bytes()
            picture = open_image(file, content)
        except (OSError, UnreadableImage) as error:
            raise UserError(f"cannot read the image {file}: {error}; repair or remove it") from error
        pixels = np.array(picture.resize((size, size), Image.Resampling.BILINEAR))
        return torch.from_numpy(pixels).permute(2, 0, 1), content_digest(content)

    with ThreadPoolExecutor(workers) as pool:
        pixels, digests = zip(*pool.map(read, files), strict=True)
    return torch.stack(pixels), digest(digest_array(digests).view(np.uint8))


def backbone(config: RivalConfig) -> tuple[nn.Module, int]:
    """A network without its classifier, from random weights, and the width of its vectors."""
    if config.network != "tiny":
        resnet = getattr(models, config.network)(weights=None)
        width = resnet.fc.in_features
        resnet.fc = nn.Identity()
        return resnet, width
    layers = [nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    layers.append(BasicBlock(16, 16))
    for width in (32, 64, 128):
        smaller = nn.Conv2d(width // 2, width, 1, 2, bias=False)
        halved = nn.Sequential(smaller, nn.BatchNorm2d(width))
        layers.append(BasicBlock(width // 2, width, 2, halved))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), width


def mlp(width: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, out))


def contrastive(a: Tensor, b: Tensor, temperature: float, anchors: int) -> Tensor:
    """NT-Xent: how well the first `anchors` rows of a, b (n, d) one after another find their
    partner in the other one among all rows but themselves, by cosine."""
    x, n = F.normalize(torch.cat([a, b]), dim=1), len(a)
    scores = (x @ x.T / temperature).fill_diagonal_(-torch.inf)  # (2n, 2n)
    partner = torch.arange(2 * n, device=x.device).roll(n)
    return F.cross_entropy(scores[:anchors], partner[:anchors])


def in_parts(network: nn.Module, pixels: Tensor, size: int = 256) -> Tensor:
    """The network in eval mode on pixels (N, 3, H, W), as floats from 0 to 1."""
    network.eval()
    return torch.cat([network(part.float() / 255) for part in pixels.split(size)])
