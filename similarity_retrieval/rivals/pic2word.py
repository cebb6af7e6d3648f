"""Pic2Word: a network turns an image into a word, trained by contrast on images alone.

Saito et al., Pic2Word: Mapping Pictures to Words for Zero-shot Composed Image Retrieval, CVPR 2023,
arXiv 2302.03084; google-research/composed_image_retrieval (Apache-2.0). Written from its
description; no code is copied.

Differs: each image is embedded once, so there is no crop augmentation; the weights are those of the
best held-out recall, not of the last epoch. Not found: a GeneCIS evaluation by its authors
(LinCIR's code has one); weights for other VLMs than CLIP ViT-L/14.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crl.backends.pseudo_words import PseudoWords
from crl.embed import embed_images
from similarity_retrieval.rivals.config import RivalConfig

HIDDEN = 512  # for every VLM


class Im2Text(nn.Module):
    """Raw image embeddings (B, D) -> vectors of tokens (B, Dt); layers named as published."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        sizes = ((dim, HIDDEN), (HIDDEN, HIDDEN))
        self.layers = nn.Sequential(
            *(nn.Sequential(nn.Linear(*size), nn.Dropout(0.1), nn.ReLU()) for size in sizes)
        )
        self.fc_out = nn.Linear(HIDDEN, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc_out(self.layers(x))


class Pic2Word:
    """Training data and loss. `inputs` (N, D) are what the network is given."""

    supervision, entry, network = "images", "state_dict_img2text", Im2Text

    def __init__(
        self, config: RivalConfig, words: PseudoWords, images: list[Path], held: int, folder: Path
    ) -> None:
        self.words, self.device = words, words.vlm.device
        self.inputs = image_inputs(config, words, images)
        # OpenAI's CLIP has 100; a model without one is given that.
        scale = getattr(words.vlm.model, "logit_scale", None)
        self.scale = 100.0 if scale is None else scale.detach().exp().item()

    def loss(self, network: nn.Module, rows: np.ndarray, rng: np.random.Generator) -> Tensor:
        image = self.inputs[rows].to(self.device)  # (B, D)
        text = self.words.encode(["a photo of $"] * len(rows), network(image))  # (B, D)
        return contrast(image, text, self.scale)

    @staticmethod
    def optimizer(network: nn.Module, lr: float, weight_decay: float) -> torch.optim.Optimizer:
        weights = [p for p in network.parameters() if p.ndim > 1]
        biases = [p for p in network.parameters() if p.ndim == 1]
        groups = [{"params": weights}, {"params": biases, "weight_decay": 0.0}]
        how: dict[str, Any] = {"betas": (0.9, 0.98), "eps": 1e-6}
        return torch.optim.AdamW(groups, lr, weight_decay=weight_decay, **how)


def image_inputs(config: RivalConfig, words: PseudoWords, images: list[Path]) -> Tensor:
    """The raw embeddings (N, D) of `images`."""
    how: dict[str, Any] = {"single": True, "raw": True, "workers": config.workers}
    return torch.from_numpy(embed_images(words.vlm, images, config.cache, **how).image)


def contrast(image: Tensor, text: Tensor, scale: float) -> Tensor:
    """Mean cross entropy of images among texts and of texts among images, both (B, D)."""
    logits = scale * F.normalize(image, dim=1) @ F.normalize(text, dim=1).T  # (B, B)
    right = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2
