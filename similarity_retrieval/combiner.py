"""The Combiner, one query vector from a reference image and a condition; and its loss.

Baldrati et al., Effective Conditioned and Composed Image Retrieval Combining CLIP-Based Features
(CVPR 2022). GeneCIS trains it on mined triplets and publishes one for CLIP ViT-B/16.
"""

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crl.backends.weights import load_tensors
from crl.run.distributed import gather, rank
from crl.run.errors import UserError


class Combiner(nn.Module):
    """Raw embeddings of an image and a text, both (B, D) -> unit rows (B, D).

    The result is a learned mixture of the two embeddings plus a learned correction. The layers have
    the names of the published weights. `dim` is D; each of the two is projected to `projection`.
    """

    def __init__(
        self, dim: int, projection: int = 2560, hidden: int = 5120, dropout: float = 0.5
    ) -> None:
        super().__init__()
        self.dim = dim
        self.text_projection_layer = nn.Linear(dim, projection)
        self.image_projection_layer = nn.Linear(dim, projection)
        self.combiner_layer = nn.Linear(2 * projection, hidden)
        self.output_layer = nn.Linear(hidden, dim)
        self.dropout = nn.Dropout(dropout)
        self.dynamic_scalar = nn.Sequential(
            nn.Linear(2 * projection, hidden), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(hidden, 1), nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        projected_text = self.dropout(F.relu(self.text_projection_layer(text)))  # (B, projection)
        projected_image = self.dropout(F.relu(self.image_projection_layer(image)))
        both = torch.cat([projected_text, projected_image], dim=1)  # (B, 2 projection)
        correction = self.output_layer(self.dropout(F.relu(self.combiner_layer(both))))  # (B, D)
        share = self.dynamic_scalar(both)  # (B, 1), of the text
        return F.normalize(correction + share * text + (1 - share) * image, dim=1)


def load_combiner(path: Path, dim: int) -> Combiner:
    """A Combiner from .safetensors or a file of torch.save, in eval mode, on the CPU, in float32.
    The sizes of its layers are read from the file. A UserError if it is none for width D."""
    state = {key: tensor.float() for key, tensor in load_tensors(path).items()}
    try:
        projection, width = state["text_projection_layer.weight"].shape
        hidden = len(state["combiner_layer.bias"])
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"{path} holds no Combiner") from error
    if width != dim:
        raise UserError(f"the Combiner in {path} takes embeddings of width {width}, not {dim}")
    with torch.device("meta"):  # shapes only: the weights come from the file
        combiner = Combiner(dim, projection, hidden)
    try:
        combiner.load_state_dict(state, assign=True)
    except RuntimeError as error:  # names the layers
        reason = textwrap.shorten(str(error).partition(":")[2], 200)
        raise UserError(f"{path} does not fit the Combiner: {reason}") from error
    return combiner.eval()


def contrastive_loss(combined: Tensor, target: Tensor) -> Tensor:
    """Mean over the rows i of -log softmax_j(100 combined_i · target_j) at j = i; both are (B, D),
    unit rows. From queries to targets only, as published."""
    logits = 100.0 * combined @ target.T  # (B, B)
    return F.cross_entropy(logits, torch.arange(len(logits), device=logits.device))


def backward(forward: Callable[[Any], Tensor], parts: list, seeds: list[int]) -> float:
    """The loss of all parts of all processes as one batch, the same in all processes; and its
    gradients, `.grad`, which must be summed over the processes.

    Each target is a negative for all other queries, so the loss of the batch is not the sum of the
    losses of its parts. Therefore: compute the features of all parts; then the loss and its
    gradient with respect to the features; then each part again, to propagate this gradient to the
    parameters. Only the graph of one part is in memory at a time.

    `forward`: part -> (b, 2, D), combined and target, unit rows; `parts`: this process's share, in
    order, all of one size; `seeds`: the dropout seed of each part, the same both times.
    """
    once = len(parts) == 1  # then its graph is kept and the part is not computed again
    features = []
    for part, seed in zip(parts, seeds, strict=True):
        torch.manual_seed(seed)
        with torch.set_grad_enabled(once):
            features.append(forward(part))
    share = torch.cat(features).detach()  # (b * parts, 2, D)
    whole = gather(share).requires_grad_()  # (B, 2, D)
    loss = contrastive_loss(*whole.unbind(1))
    (gradient,) = torch.autograd.grad(loss, whole)
    gradients = gradient[rank() * len(share) :][: len(share)].split(len(features[0]))
    for part, seed, feature, gradient in zip(parts, seeds, features, gradients, strict=True):
        torch.manual_seed(seed)
        (feature if once else forward(part)).backward(gradient)
    return loss.item()
