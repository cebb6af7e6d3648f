"""The crop of a picture to where an attribute's attention map is high (ASEN++, RPF).

The authors crop the original picture. Here it is the middle of the picture at twice the side S of
the tower's input: the same where the picture's shorter side is at most 2 S, else less sharp. Both
assume a tower that crops its input from the middle, as ResNet-50 and CLIP do.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from crl.images import to_rgb

THRESHOLD = 0.1  # of the map's highest value


class Doubled:
    """A picture -> (5, 3, S, S): the tower's input, then the quarters of the picture's square
    middle, scaled to 2 S x 2 S. Each goes through the tower's own preprocessing."""

    def __init__(self, preprocess: Callable[[Image.Image], Tensor]) -> None:
        self.preprocess = preprocess
        self.side = preprocess(Image.new("RGB", (64, 64))).shape[-1]

    def __call__(self, image: Image.Image) -> Tensor:
        S = self.side
        square = ImageOps.fit(to_rgb(image), (2 * S, 2 * S), Image.Resampling.BILINEAR)
        quarters = [square.crop((x, y, x + S, y + S)) for y in (0, S) for x in (0, S)]
        return torch.stack([self.preprocess(each) for each in (image, *quarters)])


def joined(quarters: Tensor) -> Tensor:
    """(B, 4, 3, S, S) -> (B, 3, 2 S, 2 S)."""
    rows = quarters.unflatten(1, (2, 2)).permute(0, 3, 1, 4, 2, 5)  # (B, 3, 2, S, 2, S)
    return rows.flatten(4, 5).flatten(2, 3)


def squares(attention: Tensor, side: int) -> Tensor:
    """Attention maps (B, h, w) -> x, y and length (B, 3) int64 of a square in an input of `side`
    pixels: the box around all that is above the threshold, made square. A constant map, where the
    authors divide by zero, gives the whole input."""
    scaled = F.interpolate(attention[:, None], (side, side), mode="bilinear")[:, 0]
    low, high = scaled.amin((1, 2), keepdim=True), scaled.amax((1, 2), keepdim=True)
    grey = ((scaled - low) / (high - low) * 255).nan_to_num(255).to(torch.uint8)
    return made_square(boxes(grey > 255 * THRESHOLD), side)


def boxes(mask: Tensor) -> Tensor:
    """(B, H, W) bool, each with a true value -> x, y, w, h (B, 4) of the box around them."""
    ends = []
    for line in (mask.any(1), mask.any(2)):  # columns (B, W), rows (B, H)
        first, last = line.int().argmax(1), line.shape[1] - line.flip(1).int().argmax(1)
        ends.append((first, last - first))
    (x, w), (y, h) = ends
    return torch.stack([x, y, w, h], 1)


def made_square(box: Tensor, side: int) -> Tensor:
    """x, y, w, h (B, 4) -> x, y, d (B, 3): as long as the longer side, moved into the input."""
    corner, size = box[:, :2], box[:, 2:]
    d = size.amax(1, keepdim=True)
    center = corner + size // 2
    moved = torch.where(center + d // 2 > side, side - d, (center - d // 2).clamp(min=0))
    return torch.cat([moved, d], 1)


def crops(pictures: Tensor, where: Tensor, size: int) -> Tensor:
    """The squares `where` (B, 3) of the pictures (B, 3, H, W), scaled to (B, 3, size, size)."""
    parts = []
    for picture, (x, y, d) in zip(pictures, where.tolist(), strict=True):
        part = picture[None, :, y : y + d, x : x + d]
        parts.append(F.interpolate(part, (size, size), mode="bilinear", antialias=True))
    return torch.cat(parts)
