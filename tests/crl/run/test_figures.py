"""Pictures: real PNGs that show the right things, also of awkward data."""

import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from crl.run import figures
from crl.run.figures import cluster_sheet, tsne_maps

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def opened(file: Path) -> np.ndarray:
    """The pixels of a PNG that is alone in its folder, and not blank."""
    assert os.listdir(file.parent) == [file.name]
    assert plt.get_fignums() == []  # closed
    with Image.open(file) as image:
        assert image.format == "PNG" and min(image.size) >= 80
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert pixels.std() > 1
    return pixels


def where(pixels: np.ndarray, color: tuple[int, ...]) -> np.ndarray:
    """(n, 2) rows and columns of the pixels of about this color."""
    return np.argwhere(np.abs(pixels - np.array(color)).max(-1) < 30)


class FakeTSNE:
    """Takes the first two columns, and notes what it was asked."""

    calls: list = []  # noqa: RUF012

    def __init__(self, **settings):
        self.settings = settings

    def fit_transform(self, x):
        self.calls.append((self.settings, x))
        return x[:, :2]


@pytest.fixture
def fake_tsne(monkeypatch) -> list:
    monkeypatch.setattr(figures, "TSNE", FakeTSNE)
    monkeypatch.setattr(FakeTSNE, "calls", [])
    return FakeTSNE.calls


@pytest.fixture
def saved(monkeypatch) -> list:
    """The figures that were written."""
    saved, save = [], figures._save
    monkeypatch.setattr(figures, "_save", lambda *args: saved.append(args[0]) or save(*args))
    return saved


SHOWN = ["universal", "paper", "posterior (2)"]
HEADINGS = ["universal: I", "conditional: R = I Tᵀ", "R, posterior (2)"]


def test_a_map_for_each_representation(tmp_path, fake_tsne, saved):
    shown = {name: np.arange(6.0)[:, None] * [n, 1] for n, name in enumerate(SHOWN)}
    tsne_maps(shown, np.arange(6) % 2, ["a", "b"], "title", tmp_path / "f" / "tsne.png")
    assert [axis.get_title() for axis in saved[0].axes] == HEADINGS
    for (_, x), (axis, given) in zip(
        fake_tsne, zip(saved[0].axes, shown.values(), strict=True), strict=True
    ):
        assert np.array_equal(x, given)
        drawn = np.concatenate([dots.get_offsets() for dots in axis.collections])
        assert np.array_equal(drawn, np.concatenate([given[::2], given[1::2]]))


def test_tsne_shows_the_same_images_in_all_maps(tmp_path, fake_tsne, monkeypatch):
    monkeypatch.setattr(figures, "MOST_POINTS", 20)
    x = np.arange(100.0)[:, None] * [1, 1]
    for _ in range(2):
        shown, file = {"universal": x, "paper": -x}, tmp_path / "f" / "tsne.png"
        tsne_maps(shown, np.arange(100) % 3, list("abc"), "title", file)
    shown = [x[:, 0] for _, x in fake_tsne]
    assert len(shown) == 4 and len(set(shown[0])) == 20
    assert all(np.array_equal(np.abs(s), shown[0]) for s in shown)
    for settings, x in fake_tsne:
        assert settings["random_state"] == 0 and 0 < settings["perplexity"] < len(x)


def test_cluster_sheet_puts_each_cluster_in_its_row(tmp_path):
    paths = []
    for i, color in enumerate([RED, RED, GREEN, GREEN]):
        paths.append(tmp_path / f"{i}.png")
        Image.new("RGB", (9, 5), color).save(paths[-1])
    # of I, cluster 1 is empty
    clusters = {"universal": np.array([0, 0, 2, 2]), "paper": np.array([1, 1, 0, 0])}
    file = tmp_path / "figures" / "clusters.png"
    cluster_sheet(paths, clusters, "title", file, columns=3)
    pixels = opened(file)
    middle = pixels.shape[1] / 2
    row = {}
    for name, color in (("red", RED), ("green", GREEN)):
        spots = where(pixels, color)
        left, right = spots[spots[:, 1] < middle], spots[spots[:, 1] > middle]
        row[name] = left[:, 0].mean(), right[:, 0].mean()
    third = row["green"][0] - row["red"][0]  # rows 0 and 2 on the left
    assert third > 0
    assert row["red"][1] - row["green"][1] == pytest.approx(third / 2, rel=0.1)  # 1 and 0, right
    assert row["green"][1] == pytest.approx(row["red"][0], abs=3)
