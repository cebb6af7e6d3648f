"""Augmentations of whole batches x (B, 3, H, W), floats from 0 to 1, on any device. Each image has
its own strengths, from torch's generator; each operation is torchvision's of the same name."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def uniform(x: Tensor, low: float, high: float) -> Tensor:
    """A number for each image, (B, 1, 1, 1)."""
    return torch.empty(len(x), 1, 1, 1, device=x.device).uniform_(low, high)


def some(x: Tensor, share: float) -> Tensor:
    """Which images an operation is for, (B, 1, 1, 1)."""
    return uniform(x, 0, 1) < share


def cropped(x: Tensor, smallest: float) -> Tensor:
    """RandomResizedCrop from `smallest` of the area, of sides 3:4 to 4:3; half are mirrored. Boxes
    have no whole pixels; one that is too long is cut, where torchvision draws again."""
    area, ratio = uniform(x, smallest, 1), uniform(x, -1, 1).mul(math.log(4 / 3)).exp()
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    left, top = uniform(x, -1, 1) * (1 - width), uniform(x, -1, 1) * (1 - height)
    mirrored = torch.where(some(x, 0.5), -width, width)
    zero = torch.zeros_like(width)
    rows = [torch.cat([mirrored, zero, left], 3), torch.cat([zero, height, top], 3)]
    theta = torch.cat(rows, 2).squeeze(1)  # (B, 2, 3)
    grid = F.affine_grid(theta, x.shape, align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def gray(x: Tensor) -> Tensor:
    """(B, 1, H, W)"""
    weights = torch.tensor([0.2989, 0.587, 0.114], device=x.device)
    return (x * weights[:, None, None]).sum(1, keepdim=True)


def blended(x: Tensor, other: Tensor | float, factor: Tensor) -> Tensor:
    return (factor * x + (1 - factor) * other).clamp(0, 1)


def turned(x: Tensor, turn: Tensor) -> Tensor:
    """Hues turned by a share of the circle, through hue, saturation and value."""
    value, lowest = x.amax(1), x.amin(1)  # (B, H, W)
    chroma = value - lowest
    r, g, b = x.unbind(1)
    safe = chroma.where(chroma > 0, torch.ones_like(chroma))
    hue = torch.where(value == r, (g - b) / safe, torch.where(
        value == g, 2 + (b - r) / safe, 4 + (r - g) / safe))  # fmt: skip
    hue = hue + 6 * turn.squeeze(1)
    shifts = torch.tensor([5.0, 3.0, 1.0], device=x.device)[:, None, None]
    k = (hue[:, None] + shifts) % 6  # (B, 3, H, W)
    return value[:, None] - chroma[:, None] * torch.minimum(k, 4 - k).clamp(0, 1)


def changed_colors(
    x: Tensor, brightness: float, contrast: float, saturation: float, hue: float
) -> Tensor:
    """ColorJitter of four images in five, in an order that a batch shares; then a fifth are gray."""
    def factor(strength: float) -> Tensor:
        return uniform(x, max(0, 1 - strength), 1 + strength)

    changes = [
        lambda y: blended(y, 0.0, factor(brightness)),
        lambda y: blended(y, gray(y).mean((2, 3), keepdim=True), factor(contrast)),
        lambda y: blended(y, gray(y), factor(saturation)),
        lambda y: turned(y, uniform(y, -hue, hue)),
    ]
    changed = x
    for number in torch.randperm(4).tolist():
        changed = changes[number](changed)
    x = torch.where(some(x, 0.8), changed, x)
    return torch.where(some(x, 0.2), gray(x), x)


def blurred(x: Tensor) -> Tensor:
    """Half of the images with GaussianBlur: 23 pixels of 224, sigma 0.1 to 2."""
    reach = x.shape[-1] // 20
    place = torch.arange(-reach, reach + 1, device=x.device)
    weights = (-0.5 * (place / uniform(x, 0.1, 2)) ** 2).exp()  # (B, 1, 1, n)
    weights = (weights / weights.sum(3, keepdim=True)).repeat_interleave(3, 0)  # (3B, 1, 1, n)
    y = F.pad(x, [reach] * 4, mode="reflect").flatten(0, 1)[None]  # (1, 3B, ...)
    y = F.conv2d(F.conv2d(y, weights, groups=len(weights)), weights.mT, groups=len(weights))
    return torch.where(some(x, 0.5), y.view_as(x), x)
