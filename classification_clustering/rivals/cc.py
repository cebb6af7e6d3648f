"""Contrastive Clustering (CC): two views of an image have the same vector and the same cluster.

Li et al., Contrastive Clustering, AAAI 2021, arXiv 2009.09687; Yunfan-Li/Contrastive-Clustering
(MIT). Written from its description; no code is copied.

Rows of the first head are vectors of images, columns of the second vectors of clusters; both are
contrasted between two views. The entropy of the clusters' sizes keeps them from being empty. Blind
to any criterion: its partition is the same for all.

Differs: pictures are scaled to `size` once, and views are cropped from that; no blur, as published
for all but ImageNet's pictures. Not found: the network, batch size, epochs and augmentation behind
the CRL paper's row.
"""

import math

import torch
from torch import Tensor, nn

from classification_clustering.rivals.augment import changed_colors, cropped
from classification_clustering.rivals.pixels import FromPixels, contrastive, mlp, sameness

MEASURED = 2000  # images of which two views are compared, at most


class CC(FromPixels):
    def head(self, width: int) -> nn.Module:
        return nn.Sequential(*mlp(width, len(self.data.classes)), nn.Softmax(dim=1))

    def optimizer(self, stage: int) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.network.parameters(), self.config.lr)

    def view(self, pixels: Tensor) -> Tensor:
        """An augmented view of each (B, 3, H, W), 0 to 1; not normalised, as published."""
        strong, hue = 0.8 * self.config.jitter, 0.2 * self.config.jitter
        return changed_colors(cropped(pixels.float() / 255, 0.08), strong, strong, strong, hue)

    def loss(self, rows: Tensor, stage: int) -> Tensor:
        network, weight = self.network.train(), self.config.entropy_weight
        a, b = (network.backbone(self.view(self.pixels[rows])) for _ in range(2))  # (B, R) each
        vectors = network.projector(a), network.projector(b)  # (B, 128) each
        instances = contrastive(*vectors, temperature=0.5, anchors=2 * len(rows))
        p, q = network.clusters(a), network.clusters(b)  # (B, K) each
        return instances + cluster_loss(p, q, 1.0 if weight is None else weight)

    def scores(self, stage: int) -> dict[str, float]:
        network = self.network.eval()
        some = self.pixels[:: math.ceil(len(self.pixels) / MEASURED)].split(256)
        a, b = (torch.cat([network(self.view(x)).argmax(1) for x in some]) for _ in range(2))
        agree = (a == b).double().mean().item()
        return {"views_agree": 100 * agree, "clusters": len(a.unique())}

    def clusters(self) -> Tensor:
        network = self.network.eval()
        return torch.cat([network(x.float() / 255) for x in self.pixels.split(256)])


def cluster_loss(p: Tensor, q: Tensor, entropy_weight: float = 1.0) -> Tensor:
    """Of probabilities p and q (B, K) of two views. The entropy's weight is that of the published
    code; the paper's formula differs."""
    clusters = p.shape[1]
    contrast = contrastive(p.T, q.T, temperature=1.0, anchors=2 * clusters)
    balance = 2 * math.log(clusters) + sameness(p) + sameness(q)
    return contrast + entropy_weight * balance
