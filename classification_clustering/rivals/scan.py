"""SCAN: learns to tell images apart, then that neighbours share a cluster, then from itself.

Van Gansbeke et al., SCAN: Learning to Classify Images without Labels, ECCV 2020, arXiv 2005.12320;
wvangansbeke/Unsupervised-Classification (CC BY-NC 4.0). Written from its description; no code is
copied.

1. SimCLR: of two views of an image one finds the other one.
2. SCAN: an image and one of its nearest neighbours have the same cluster; clusters are balanced.
   The weights of the lowest validation loss go on to the next stage.
3. Self-labelling: an image of which the network is sure teaches its changed copy its cluster.
Blind to any criterion: its partition is the same for all.

Differs: pictures are scaled to `size` once, and views are cropped from that; all images are trained
on and validated, since all are clustered; torchvision's stem; one cluster head. Not found: the
settings behind the CRL paper's row; whether validation pairs an image with itself (here: yes).
"""

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classification_clustering.datasets import Labelled
from classification_clustering.rivals.augment import (
    changed_colors,
    cropped,
    normalised,
    strongly_changed,
)
from classification_clustering.rivals.config import RivalConfig
from classification_clustering.rivals.pixels import FromPixels, Network, contrastive, sameness
from crl.run.errors import UserError

SIMCLR, SCANNING, SELF_LABELLING = range(3)
VALIDATED = 5  # neighbours of an image in validation


class Between(nn.Module):
    """What the first two stages leave to the next one, so that a checkpoint has it."""

    def __init__(self, network: Network, images: int, neighbours: int) -> None:
        super().__init__()
        self.best = copy.deepcopy(network)  # of the second stage
        self.register_buffer("lowest", torch.tensor(torch.inf))  # its validation loss
        self.register_buffer("near", torch.zeros(images, 1 + neighbours, dtype=torch.long))


class SCAN(FromPixels):
    def __init__(self, config: RivalConfig, data: Labelled, device: torch.device) -> None:
        if (images := len(data.paths)) <= config.neighbours:
            raise UserError(f"{images} images have fewer than {config.neighbours} neighbours each; "
                            "lower neighbours")  # fmt: skip
        super().__init__(config, data, device)
        self.between = Between(self.network, images, config.neighbours).to(device)
        self.models["between"] = self.between

    @torch.no_grad()
    def begin(self, stage: int) -> None:
        network, between = self.network.eval(), self.between
        if stage == SCANNING:
            parts = self.pixels.split(256)
            vectors = [network.projector(network.backbone(normalised(x))) for x in parts]
            between.near.copy_(nearest(torch.cat(vectors), self.config.neighbours))
        if stage == SELF_LABELLING and between.lowest.isfinite():
            network.load_state_dict(between.best.state_dict())

    def optimizer(self, stage: int) -> torch.optim.Optimizer:
        parameters, lr = self.network.parameters(), self.config.stages[stage].lr
        if stage == SIMCLR:
            return torch.optim.SGD(parameters, lr, momentum=0.9, weight_decay=1e-4)
        return torch.optim.Adam(parameters, lr, weight_decay=1e-4)

    def rate(self, stage: int, epoch: int) -> float:
        one = self.config.stages[stage]
        if stage != SIMCLR:
            return one.lr
        return one.lr * (0.001 + 0.999 * (0.5 + 0.5 * math.cos(math.pi * epoch / one.epochs)))

    def loss(self, rows: Tensor, stage: int) -> Tensor:
        network, x, near = self.network.train(), self.pixels[rows], self.between.near
        if stage == SIMCLR:
            views = torch.cat([view(x), view(x)])
            a, b = network.projector(network.backbone(views)).chunk(2)  # (B, 128) each
            return contrastive(a, b, temperature=0.1, anchors=len(rows))
        if stage == SCANNING:
            column = torch.randint(near.shape[1], (len(rows),)).to(rows.device)
            pairs = x, self.pixels[near[rows, column]]
            p, q = (network(strongly_changed(images)).softmax(1) for images in pairs)  # (B, K) each
            weight = self.config.entropy_weight
            return scan_loss(p, q, 5.0 if weight is None else weight)
        with torch.no_grad():
            probabilities = network(normalised(x)).softmax(1)  # in train mode, as published
        return self_label_loss(network(strongly_changed(x)), probabilities, self.config.confidence)

    def scores(self, stage: int) -> dict[str, float]:
        if stage == SIMCLR:
            return {}  # there are no clusters yet
        p, near = self.clusters(), self.between.near[:, : 1 + VALIDATED]
        pairs = p.repeat_interleave(near.shape[1], 0), p[near].flatten(0, 1)
        loss = scan_loss(*pairs, entropy_weight=1.0)
        if stage == SCANNING and loss < self.between.lowest:
            self.between.lowest.copy_(loss)
            self.between.best.load_state_dict(self.network.state_dict())
        sure, cluster = p.max(1)
        agree = (cluster[near[:, 1:]] == cluster[:, None]).double().mean().item()
        confident = (sure > self.config.confidence).double().mean().item()
        return {"validation_loss": loss.item(), "neighbours_agree": 100 * agree,
                "confident": 100 * confident, "clusters": len(cluster.unique())}  # fmt: skip

    def clusters(self) -> Tensor:
        network = self.network.eval()
        return torch.cat([network(normalised(x)) for x in self.pixels.split(256)]).softmax(1)


def view(pixels: Tensor) -> Tensor:
    """SimCLR's augmentation of pixels (B, 3, H, W) uint8."""
    return normalised(changed_colors(cropped(pixels.float() / 255, 0.2), 0.4, 0.4, 0.4, 0.1))


def nearest(vectors: Tensor, count: int) -> Tensor:
    """Each row and its nearest other ones by cosine: (N, D) -> (N, 1 + count), itself first."""
    x = F.normalize(vectors, dim=1)
    parts = []
    for start in range(0, len(x), 1024):
        scores = x[start : start + 1024] @ x.T
        scores.diagonal(start).fill_(torch.inf)
        parts.append(scores.topk(1 + count).indices)
    return torch.cat(parts)


def scan_loss(p: Tensor, q: Tensor, entropy_weight: float = 5.0) -> Tensor:
    """Of probabilities p of images, q of their neighbours, (B, K) each."""
    consistency = -(p * q).sum(1).clamp(min=1e-30).log().mean()
    return consistency + entropy_weight * sameness(p)


def self_label_loss(logits: Tensor, probabilities: Tensor, confidence: float) -> Tensor:
    """Logits of changed images (B, K), probabilities of the images themselves (B, K). Clusters have
    the same weight, whatever their sizes. A UserError if no image is sure."""
    sure, target = probabilities.max(1)
    kept = sure > confidence
    if not kept.any():
        few = f"none of {len(kept)} images is surer than {confidence:g} (at most {sure.max():.3f})"
        raise UserError(f"self-labelling: {few}; start again with a lower confidence=, and the "
                        "first stages stay; or train them longer, under another name")  # fmt: skip
    counts = target[kept].bincount(minlength=logits.shape[1])
    weight = torch.where(counts > 0, kept.sum() / counts.clamp(min=1), 1.0)
    return F.cross_entropy(logits[kept], target[kept], weight)
