"""Contrastive Clustering (CC): two views of an image have the same vector and the same cluster.

Li et al., Contrastive Clustering, AAAI 2021, arXiv 2009.09687; Yunfan-Li/Contrastive-Clustering
(MIT). Written from its description; no code is copied.

A network from random weights has two heads. Rows of the first are vectors of images, columns of the
second are vectors of clusters; both are contrasted between two views. The entropy of the clusters'
sizes keeps them from being empty. Blind to any criterion: its partition is the same for all.

Differs: pictures are scaled to `size` once, and views are cropped from that. Not found: the network,
batch size, epochs and augmentations of the CRL paper's row.
"""

import math

import torch
from torch import Tensor, nn

from classification_clustering.datasets import Labelled
from classification_clustering.rivals.augment import changed_colors, blurred, cropped
from classification_clustering.rivals.config import RivalConfig
from classification_clustering.rivals.method import Method
from classification_clustering.rivals.pixels import (
    backbone,
    contrastive,
    in_parts,
    mlp,
    read_pictures,
)

MEASURED = 2000  # images of which two views are compared, at most


class Network(nn.Module):
    def __init__(self, config: RivalConfig, clusters: int) -> None:
        super().__init__()
        self.resnet, width = backbone(config)
        self.instance_projector = mlp(width, 128)
        self.cluster_projector = nn.Sequential(*mlp(width, clusters), nn.Softmax(dim=1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> probabilities of the clusters (B, K)"""
        return self.cluster_projector(self.resnet(x))


class CC(Method):
    supervision, form = "images, number of clusters", "probabilities"

    def __init__(self, config: RivalConfig, data: Labelled, device: torch.device) -> None:
        self.config, self.data = config, data
        pixels, self.content = read_pictures(data.paths, config.size, config.workers)
        self.pixels = pixels.to(device)
        self.network = Network(config, len(data.classes)).to(device)
        self.models = {"rival": self.network}

    def optimizer(self, stage: int) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.network.parameters(), self.config.lr)

    def view(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) uint8 -> an augmented view of each, 0 to 1; not normalised."""
        s = self.config.jitter
        x = cropped(pixels.float() / 255, smallest=0.08)
        x = changed_colors(x, 0.8 * s, 0.8 * s, 0.8 * s, 0.2 * s)
        return blurred(x) if self.config.blur else x

    def loss(self, rows: Tensor, stage: int) -> Tensor:
        network, pixels = self.network.train(), self.pixels[rows]
        a, b = (network.resnet(self.view(pixels)) for _ in range(2))  # (B, R) each
        vectors = network.instance_projector(a), network.instance_projector(b)
        instances = contrastive(*vectors, temperature=0.5, anchors=2 * len(rows))
        p, q = network.cluster_projector(a), network.cluster_projector(b)  # (B, K) each
        weight = self.config.entropy_weight
        return instances + cluster_loss(p, q, 1.0 if weight is None else weight)

    def scores(self, stage: int) -> dict[str, float]:
        some = self.pixels[:: math.ceil(len(self.pixels) / MEASURED)]
        self.network.eval()
        views = [
            torch.cat([self.network(self.view(part)).argmax(1) for part in some.split(256)])
            for _ in range(2)
        ]
        agreement = (views[0] == views[1]).double().mean().item()
        return {"agreement": 100 * agreement, "clusters": len(views[0].unique())}

    def clusters(self) -> Tensor:
        return in_parts(self.network, self.pixels)


def cluster_loss(p: Tensor, q: Tensor, entropy_weight: float = 1.0) -> Tensor:
    """Of probabilities p and q (B, K) of two views. The weight is the published code's; the paper's
    formula differs. `xlogy`, since an empty cluster gives NaN there."""
    clusters = p.shape[1]
    loss = contrastive(p.T, q.T, temperature=1.0, anchors=2 * clusters)
    for probabilities in (p, q):
        share = probabilities.sum(0) / probabilities.sum()  # (K,)
        loss = loss + entropy_weight * (math.log(clusters) + torch.xlogy(share, share).sum())
    return loss
