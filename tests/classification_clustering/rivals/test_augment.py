"""Augmentations of batches against torchvision's and Pillow's of one image."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from classification_clustering.rivals import augment
from classification_clustering.rivals.augment import CHANGES, TV, blended, cut_out, gray, turned


@pytest.fixture(scope="module")
def x():
    return torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_changes_of_colors_are_torchvisions(x):
    strengths = torch.tensor([0.3, 1.0, 1.6])[:, None, None, None]
    turns = torch.tensor([-0.4, 0.05, 0.3])[:, None, None, None]
    changed = {
        "brightness": blended(x, 0.0, strengths),
        "contrast": blended(x, gray(x).mean((2, 3), keepdim=True), strengths),
        "saturation": blended(x, gray(x), strengths),
        "hue": turned(x, turns),
    }
    for name, images in changed.items():
        change = getattr(TV, f"adjust_{name}")
        for image, result, v in zip(x, images, turns if name == "hue" else strengths, strict=True):
            assert torch.allclose(result, change(image, v.item()), atol=1e-4), name
    flat = torch.full((1, 3, 2, 2), 0.5)  # gray has no hue
    assert torch.equal(turned(flat, turns[:1]), flat)


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_crop_is_torchvisions_inside_its_border(x, monkeypatch, mirrored):
    """A box of 8 x 8 pixels whose left upper corner is (6, 4)."""
    drawn = iter([0.25, 0, 0.5, 0.0, 0.0 if mirrored else 0.9])  # area, ratio, left, top, mirror
    monkeypatch.setattr(
        augment, "uniform", lambda x, *_: torch.full((len(x), 1, 1, 1), next(drawn))
    )
    crop = augment.cropped(x, 0.2)
    expected = TV.resized_crop(x, top=4, left=6, height=8, width=8, size=[16, 16])
    expected = expected.flip(3) if mirrored else expected
    assert torch.allclose(crop[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1], atol=1e-5)


@given(seed=st.integers(0, 2**32 - 1), smallest=st.sampled_from([0.08, 0.2, 1.0]))
def test_a_view_has_no_other_values(seed, smallest):
    torch.manual_seed(seed)
    x = 0.2 + 0.5 * torch.rand(2, 3, 16, 16)
    crop = augment.cropped(x, smallest)
    assert crop.min() >= x.min() - 1e-6 and crop.max() <= x.max() + 1e-6
    view = augment.changed_colors(crop, 0.8, 0.8, 0.8, 0.2)
    assert view.shape == x.shape and view.min() >= -1e-5 and view.max() <= 1 + 1e-5


def test_images_of_a_batch_are_changed_each_in_its_own_way():
    torch.manual_seed(0)
    same = torch.rand(1, 3, 16, 16).repeat(6, 1, 1, 1)
    for change in (
        lambda: augment.cropped(same, 0.08),
        lambda: augment.changed_colors(same, 0.8, 0.8, 0.8, 0.2),
        lambda: augment.strongly_changed((255 * same).byte()),
    ):
        assert len(change().flatten(1).unique(dim=0)) > 3


def test_shears_and_moves_are_pillows(x):
    image = (255 * x[0]).byte()
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    assert len(CHANGES) == 14
    forms = {9: (1, 0.1, 0, 0, 1, 0), 10: (1, 0, 0, 0.1, 1, 0),
             11: (1, 0, -1.6, 0, 1, 0), 12: (1, 0, 0, 0, 1, -1.6)}  # fmt: skip
    for number, matrix in forms.items():
        change, low, high = CHANGES[number]
        assert (low, high) == (-0.1, 0.1)
        expected = np.asarray(picture.transform(picture.size, Image.Transform.AFFINE, matrix))
        results = [change(image, v).permute(1, 2, 0).numpy() for v in (-0.1, 0.1)]
        assert max((expected == result).mean() for result in results) > 0.95, number
    turned = [CHANGES[3][0](image, v).permute(1, 2, 0).numpy() for v in (30, 30)]
    assert (np.asarray(picture.rotate(30)) == turned[0]).mean() > 0.95


def test_all_operations_run_at_both_ends(x):
    image = (255 * x[0]).byte()
    for change, low, high in CHANGES:
        assert change(image, low).shape == change(image, high).shape == image.shape


def test_what_is_cut_out_is_a_rectangle_of_a_third_at_most():
    torch.manual_seed(1)
    holes = (cut_out(torch.ones(40, 3, 24, 24)) == 0).all(1)  # (40, 24, 24)
    assert math.isclose(holes.any((1, 2)).double().mean(), 1, abs_tol=0.1)
    for hole in holes:
        rows, columns = hole.any(1), hole.any(0)
        assert rows.sum() <= 8 and columns.sum() <= 8
        assert torch.equal(hole, rows[:, None] & columns)
