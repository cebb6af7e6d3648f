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


def test_cluster_sheet_puts_each_cluster_in_its_row(tmp_path):
    paths = []
    for i, color in enumerate([RED, RED, GREEN, GREEN]):
        paths.append(tmp_path / f"{i}.png")
        Image.new("RGB", (9, 5), color).save(paths[-1])
    # of I, cluster 1 is empty
    clusters = {"universal": np.array([0, 0, 2, 2]), "paper": np.array([1, 1, 0, 0])}
    file = tmp_path / "figures/clusters.png"
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


def test_tsne_shows_the_same_images_in_all_maps(tmp_path, monkeypatch):
    shown = []

    class FirstColumns:
        def __init__(self, random_state, **settings):
            assert random_state == 0

        def fit_transform(self, x):
            shown.append(x[:, 0])
            return x

    monkeypatch.setattr(figures, "TSNE", FirstColumns)
    monkeypatch.setattr(figures, "MOST_POINTS", 20)
    x, labels = np.arange(100.0)[:, None] * [1, 1], np.arange(100) % 3
    for _ in range(2):
        file = tmp_path / "f" / "tsne.png"
        tsne_maps({"universal": x, "paper": -x}, labels, list("abc"), "title", file)
        opened(file)
    assert len(shown) == 4 and len(set(shown[0])) == 20
    assert all(np.array_equal(np.abs(column), shown[0]) for column in shown)
