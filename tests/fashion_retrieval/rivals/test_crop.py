"""The crop against the authors' steps: boxes and squares by hand, pixels against PIL."""

import numpy as np
import pytest
import torch
from PIL import Image

from fashion_retrieval.rivals.crop import Doubled, boxes, crops, joined, made_square, squares


def preprocess(image, side=224):
    """As a ResNet's, without its normalisation."""
    short = min(image.size)
    image = image.resize([round(side * length / short) for length in image.size])
    left, top = ((length - side) // 2 for length in image.size)
    image = image.crop((left, top, left + side, top + side))
    return torch.from_numpy(np.array(image, np.float32)).permute(2, 0, 1)


PUBLISHED = [  # size of the original; box; square; left, top, right, bottom of the crop
    ((300, 400), (40, 150, 60, 100), (20, 124, 100), (26, 216, 159, 349)),
    ((400, 300), (180, 10, 40, 80), (144, 10, 80), (242, 13, 349, 120)),
]


@pytest.mark.parametrize(("size", "box", "square", "crop"), PUBLISHED)
def test_square_and_crop_are_the_published_ones(size, box, square, crop):
    where = made_square(torch.tensor([box]), 224)
    assert where.tolist() == [list(square)]
    across, down = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    picture = Image.fromarray(np.uint8(np.stack([across // 2, down // 2, across * 0], 2)))
    actual = crops(joined(Doubled(preprocess)(picture)[None, 1:]), 2 * where, 112)
    expected = np.array(picture.crop(crop).resize((112, 112), Image.Resampling.BILINEAR))
    differences = actual[0] - torch.from_numpy(expected).permute(2, 0, 1)
    assert differences.abs().max() < 1.6  # of half a pixel of the original each


def test_boxes_and_their_squares_one_by_one():
    rng = np.random.default_rng(0)
    mask = torch.zeros(200, 80, 80, dtype=torch.bool)
    corner, size = rng.integers(0, 40, (200, 2)), rng.integers(1, 41, (200, 2))
    for one, (x, y), (w, h) in zip(mask, corner, size, strict=True):
        one[y, x : x + w] = one[y : y + h, x] = True  # the box's upper and left edge
    box = boxes(mask)
    assert box.tolist() == np.hstack([corner, size]).tolist()
    for (x, y, w, h), actual in zip(box.tolist(), made_square(box, 80).tolist(), strict=True):
        d, expected = max(w, h), []
        for start, length in ((x, w), (y, h)):
            center = start + length // 2
            expected.append(80 - d if center + d // 2 > 80 else max(0, center - d // 2))
        assert actual == [*expected, d] and all(0 <= s <= 80 - d for s in expected)


def test_squares_of_maps():
    maps = torch.full((3, 4, 4), 1 / 16)  # the first is constant: all of the input
    maps[1] = torch.eye(16)[6].view(4, 4)  # one position: the second row, the third column
    maps[2, 0, 0] = 0.5  # a corner
    actual = squares(maps, 64)
    assert actual[0].tolist() == [0, 0, 64]
    for one, square in zip(maps[1:], actual[1:], strict=True):
        scaled = np.array(Image.fromarray(one.numpy()).resize((64, 64), Image.Resampling.BILINEAR))
        grey = np.uint8(255 * (scaled - scaled.min()) / (scaled.max() - scaled.min()))
        down, across = np.nonzero(grey > 25.5)
        x, y, d = square.tolist()
        assert (x, y, d) == (across.min(), down.min(), np.ptp(across) + 1)
        assert d == np.ptp(down) + 1 < 32


def test_first_of_the_doubled_picture_is_the_tower_s_input():
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 44, 3), np.uint8))
    pixels = Doubled(lambda image: preprocess(image, 22))(picture)
    assert torch.equal(pixels[0], preprocess(picture, 22))
    middle = np.array(picture)[8:52]  # 44 x 44: nothing is scaled
    assert torch.equal(joined(pixels[None, 1:])[0], torch.from_numpy(middle).permute(2, 0, 1))
