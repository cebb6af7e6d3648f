"""Augmentations of whole batches x (B, 3, H, W), floats from 0 to 1, on any device. Each image has
its own strengths, from torch's generator; each operation is torchvision's of the same name."""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from crl.backends.torchvision_fix import import_torchvision

import_torchvision()
from torchvision.transforms.v2 import functional as TV  # noqa: E402

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, with which SCAN normalises


def normalised(x: Tensor) -> Tensor:
    """(B, 3, H, W) uint8, or floats from 0 to 1, as SCAN's networks take them."""
    mean, std = (torch.tensor(v, device=x.device)[:, None, None] for v in (MEAN, STD))
    return ((x / 255 if x.dtype == torch.uint8 else x) - mean) / std


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
    """ColorJitter of 4 images in 5, in an order that a batch shares; then 1 in 5 becomes gray."""

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


# SCAN's 14 operations on one image (3, H, W) uint8, with the range of the strength v
CHANGES: list[tuple[Callable[[Tensor, float], Tensor], float, float]] = [
    (lambda x, v: x, 0, 0),
    (lambda x, v: TV.autocontrast(x), 0, 0),
    (lambda x, v: TV.equalize(x), 0, 0),
    (lambda x, v: TV.rotate(x, v), -30, 30),
    (lambda x, v: TV.solarize(x, v), 0, 255),
    (lambda x, v: TV.adjust_saturation(x, v), 0.05, 0.95),
    (lambda x, v: TV.adjust_contrast(x, v), 0.05, 0.95),
    (lambda x, v: TV.adjust_brightness(x, v), 0.05, 0.95),
    (lambda x, v: TV.adjust_sharpness(x, v), 0.05, 0.95),
    (lambda x, v: moved(x, shear=[v, 0]), -0.1, 0.1),
    (lambda x, v: moved(x, shear=[0, v]), -0.1, 0.1),
    (lambda x, v: moved(x, translate=[v, 0]), -0.1, 0.1),
    (lambda x, v: moved(x, translate=[0, v]), -0.1, 0.1),
    (lambda x, v: TV.posterize(x, int(v)), 4, 8),
]


def moved(
    x: Tensor, shear: Sequence[float] = (0, 0), translate: Sequence[float] = (0, 0)
) -> Tensor:
    """Sheared about the upper left corner, or moved by parts of a side."""
    degrees = [math.degrees(math.atan(v)) for v in shear]
    pixels = [round(v * x.shape[-1]) for v in translate]
    return TV.affine(x, 0, pixels, 1, degrees, center=[0, 0])


def strongly_changed(pixels: Tensor) -> Tensor:
    """SCAN's strong augmentation of (B, 3, H, W) uint8: mirrored, four operations; normalised."""
    images = []
    for image in pixels:
        x = image.flip(2) if torch.rand(()) < 0.5 else image
        for number in torch.randint(len(CHANGES), (4,)).tolist():
            change, low, high = CHANGES[number]
            x = change(x, low + (high - low) * torch.rand(()).item())
        images.append(x)
    return cut_out(normalised(torch.stack(images)))


def cut_out(x: Tensor) -> Tensor:
    """A square of up to a third of a side (published: 32 of 96, 75 of 224) becomes 0."""
    side = x.shape[-1]
    half, place = uniform(x, 1, side // 3) / 2, torch.arange(side, device=x.device) + 0.5
    across, along = (
        (place - uniform(x, 0, side)).abs() < half for _ in range(2)
    )  # (B, 1, 1, side)
    return x.masked_fill(across & along.mT, 0)
