"""The loss of the Combiner's training over the whole batch, which may be split into parts."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from crl.run.distributed import gather, rank

SCALE = 100.0  # of the logits: 1 / temperature


def contrastive_loss(combined: Tensor, target: Tensor) -> Tensor:
    """Mean over the rows i of -log softmax_j(100 combined_i · target_j) at j = i.

    Args:
        combined, target: (B, D), unit rows; row i of one belongs to row i of the other.
    """
    logits = SCALE * combined @ target.T  # (B, B)
    return F.cross_entropy(logits, torch.arange(len(logits), device=logits.device))


def backward(forward: Callable[[Any], Tensor], parts: list, seeds: list[int]) -> float:
    """Compute the loss of all parts of all processes as one batch, and its gradients.

    Each target is a negative for all other queries, so the loss of the batch is not the sum of the
    losses of its parts. Therefore: compute the features of all parts; then the loss and its
    gradient with respect to the features; then each part again, to propagate this gradient to the
    parameters. Each part has the same dropout both times. Only the graph of one part is in memory
    at a time.

    Args:
        forward: part -> (b, 2, D), combined and target, unit rows.
        parts: this process's share of the batch, in order, all of one size.
        seeds: the dropout seed of each part.

    Returns:
        The loss, the same in all processes. The gradients of this process's share are added to
        `.grad`; their sum over all processes is the gradient of the loss.
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
