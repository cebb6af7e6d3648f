"""The loss of the Combiner's training, over the whole batch, however it is split up."""

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
    """The loss over all parts of all processes as one batch, and its gradients.

    Each target is a negative of all other queries, so the losses of the parts do not add up to
    that of the batch. Instead: the features of all parts; the loss and its gradient with respect
    to the features; then each part once more, to carry that gradient on to the parameters. Each
    part draws the same dropout both times. Only the graph of one part is in memory at a time.

    Args:
        forward: part -> (b, 2, D), combined and target, unit rows.
        parts: this process's share of the batch, in order, all of one size.
        seeds: of each part's dropout.

    Returns:
        The loss, the same in all processes. Gradients of this process's share are added to
        `.grad`, so their sum over all processes is the whole gradient.
    """
    once = len(parts) == 1  # its graph is kept, so that it need not be computed again
    features = []
    for part, seed in zip(parts, seeds, strict=True):
        torch.manual_seed(seed)
        with torch.set_grad_enabled(once):
            features.append(forward(part))
    mine = torch.cat(features).detach()  # (b * parts, 2, D)
    whole = gather(mine).requires_grad_()  # (B, 2, D)
    loss = contrastive_loss(*whole.unbind(1))
    (gradient,) = torch.autograd.grad(loss, whole)
    gradients = gradient[rank() * len(mine) :][: len(mine)].split(len(features[0]))
    for part, seed, feature, gradient in zip(parts, seeds, features, gradients, strict=True):
        torch.manual_seed(seed)
        (feature if once else forward(part)).backward(gradient)
    return loss.item()
