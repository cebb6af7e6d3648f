"""ASEN++: ASEN's two attentions, on the whole picture and on a crop."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crl.backends.torchvision_fix import import_torchvision
from fashion_retrieval.rivals.asen import attention_map, pooled
from fashion_retrieval.rivals.two_stage import WIDTH, Both, TwoStage
from fashion_retrieval.towers import Tower, load_published


class Attention(nn.Module):
    """Attention in space, then over channels (`attnnet` in the authors' code): (B, C, h, w) and
    embedded attributes (B, 512) -> (B, width), and the map (B, h, w); M: width of the scores."""

    def __init__(self, C: int, M: int, width: int) -> None:
        super().__init__()
        self.position = nn.Sequential(nn.Conv2d(C, M, 1), nn.Tanh())
        self.where = nn.Sequential(nn.Linear(WIDTH, M), nn.Tanh())
        self.which = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU())
        layers = nn.Linear(C + WIDTH, C // 2), nn.ReLU(), nn.Linear(C // 2, C), nn.Sigmoid()
        self.channel = nn.Sequential(*layers)
        self.embedding = nn.Linear(C, width)

    def forward(self, features: Tensor, asked: Tensor) -> tuple[Tensor, Tensor]:
        attention = attention_map(self.position(features), self.where(asked))
        x = pooled(features, attention)
        x = x * self.channel(torch.cat([x, self.which(asked)], 1))  # (B, C)
        return self.embedding(x), attention


class Closer(nn.Module):
    """The local branch: a network that gives a map (B, C, h, w), and its attention."""

    def __init__(self, tower: nn.Module, C: int, size: int, width: int) -> None:
        super().__init__()
        self.tower, self.size, self.attention = tower, size, Attention(C, 256, width)

    def forward(self, crops: Tensor, asked: Tensor) -> Tensor:
        return self.attention(self.tower(crops), asked)[0]


class ASENpp(TwoStage):
    """ASEN++ (Dong et al., TIP 2021). Without an augmentation, as published. Differences from the
    authors' code: the crop's source (crop.py); stage 2 goes on from stage 1's best weights, not its
    last ones; the tower's batch normalisation keeps its statistics, that of the local network does
    not. The local branch is as wide as the global one (published: both 1024)."""

    share, decay = 0.6, 1

    def __init__(self, tower: Tower, attributes: int, width: int) -> None:
        super().__init__(tower, attributes, width)
        self.attention = Attention(tower.channels, 512, width)

    @staticmethod
    def closer(source: str, width: int, weights: bool = True) -> nn.Module:
        """ResNet-34 to its third stage at 112 pixels, 256 x 7 x 7; `small`: 64 x 4 x 4 at 32."""
        if source == "small":
            convolutions = [_convolution(3, 16), _convolution(16, 32), _convolution(32, 64)]
            return Closer(nn.Sequential(*convolutions), 64, 32, width)
        import_torchvision()
        from torchvision.models import ResNet34_Weights, resnet34

        resnet = resnet34(weights=None)
        if weights:
            load_published(resnet, ResNet34_Weights.IMAGENET1K_V1, source, "local=FILE")
        return Closer(nn.Sequential(*list(resnet.children())[:7]), 256, 112, width)

    def whole(self, features: Tensor, attribute: Tensor) -> tuple[Tensor, Tensor]:
        return self.attention(features, self.attribute(attribute))

    def tie(self, both: Both, attribute: Tensor, value: Tensor) -> Tensor:
        return 0.1 * alignment(both.whole, both.local)


def alignment(whole: Tensor, local: Tensor) -> Tensor:
    """Brings an image's two representations (3b, width), unit rows, together: the sum over
    anchors, positives and negatives of mean(max(0, 1 - cosine))."""
    return 3 * F.relu(1 - (whole * local).sum(1)).mean()


def _convolution(C: int, out: int) -> nn.Module:
    layers = nn.Conv2d(C, out, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()
    return nn.Sequential(*layers)
