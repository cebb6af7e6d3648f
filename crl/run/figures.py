"""Figures of representations, side by side: t-SNE maps and cluster sheets; retrieval sheets."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # files, not windows
import matplotlib.pyplot as plt
import numpy as np
from PIL import ImageOps
from sklearn.manifold import TSNE

from crl.images import Crop, open_image
from crl.run.files import atomic_path

matplotlib.rcParams["text.parse_math"] = False  # a $ in a class name is a $
HEADINGS = {"universal": "universal: I", "paper": "conditional: R = I Tᵀ"}
MOST_POINTS = 1000  # t-SNE of more costs minutes and shows no more


def tsne_maps(
    representations: dict[str, np.ndarray], labels: np.ndarray, names: list[str], title: str,
    file: Path,
) -> None:  # fmt: skip
    """Write a PNG: t-SNE of each representation (N, any width), points colored by label (N,). At
    most `MOST_POINTS` images, the same in all maps, drawn with a fixed seed."""
    some = np.sort(np.random.default_rng(0).permutation(len(labels))[:MOST_POINTS])
    width = 4.5 * len(representations) + 1
    figure, axes = plt.subplots(1, len(representations), figsize=(width, 4.6), layout="constrained")
    colors = plt.get_cmap("tab10" if len(names) <= 10 else "tab20")
    for axis, (name, x) in zip(axes, representations.items(), strict=True):
        perplexity = min(30, (len(some) - 1) / 3)
        points = TSNE(random_state=0, init="pca", perplexity=perplexity).fit_transform(x[some])
        for label, class_name in enumerate(names):
            color, dots = colors(label % colors.N), points[labels[some] == label]
            axis.scatter(*dots.T, color=color, s=7, linewidths=0, label=class_name)
        axis.set(title=HEADINGS.get(name, f"R, {name}"), xticks=[], yticks=[])
    if len(names) <= colors.N:
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right", markerscale=3)
    figure.suptitle(title)
    _save(figure, file)


def cluster_sheet(
    paths: list[Path], clusters: dict[str, np.ndarray], title: str, file: Path, columns: int = 7
) -> None:
    """Write a PNG: one row per cluster, with random members; the representations side by side, from
    N image files and the (N,) cluster numbers of each representation."""
    rows = int(max(labels.max() for labels in clusters.values())) + 1
    across = len(clusters) * (columns + 1) - 1
    figure, axes = _grid(rows, across, 0.5 * across, 0.5 * rows + 0.5)
    rng = np.random.default_rng(0)
    for place, labels in enumerate(clusters.values()):
        for row in range(rows):
            members = rng.permutation(np.flatnonzero(labels == row))[:columns]
            for axis, member in zip(axes[row, place * (columns + 1) :], members, strict=False):
                axis.imshow(open_image(paths[member]).resize((96, 96)))
    figure.subplots_adjust(0.01, 0.01, 0.99, 1 - 0.45 / figure.get_figheight(), 0.04, 0.04)
    headings = [HEADINGS.get(name, f"R, {name}") for name in clusters]
    figure.suptitle(f"{title}, one row per cluster:  {'  |  '.join(headings)}")
    _save(figure, file)


def retrieval_sheet(
    rows: list[tuple[Path | Crop, str, list[Path | Crop], list[bool]]], title: str, file: Path
) -> None:
    """Write a PNG: one row per query. `rows` are its image, a text above it, the images found, best
    first, and which of them are right (green frame; the others red)."""
    columns = max(len(images) for _, _, images, _ in rows) + 1
    figure, axes = _grid(len(rows), columns, 1.7 * columns, 2.0 * len(rows) + 0.4)
    for line, (query, text, images, right) in zip(axes, rows, strict=True):
        for axis, image in zip(line, [query, *images], strict=False):
            axis.imshow(ImageOps.pad(open_image(image), (192, 192), color="white"))
            axis.set(xticks=[], yticks=[])
        line[0].set_title(text, fontsize=9)
        for axis, good in zip(line[1:], right, strict=False):
            axis.axis("on")
            for spine in axis.spines.values():
                spine.set(color="tab:green" if good else "tab:red", linewidth=4)
    figure.suptitle(title)
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.1 / len(rows)))
    _save(figure, file)


def _grid(rows: int, columns: int, width: float, height: float) -> tuple[plt.Figure, np.ndarray]:
    figure, axes = plt.subplots(rows, columns, figsize=(width, height), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    return figure, axes


def _save(figure: plt.Figure, file: Path) -> None:
    try:
        with atomic_path(file) as temporary:
            figure.savefig(temporary, format="png", dpi=110)
    finally:
        plt.close(figure)
