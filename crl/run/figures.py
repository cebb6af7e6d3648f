"""Figures of representations: t-SNE maps and cluster sheets, universal next to conditional;
retrieval sheets."""

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
MOST_POINTS = 1000  # t-SNE of more costs minutes and shows no more


def tsne_pair(
    universal: np.ndarray,
    conditional: np.ndarray,
    labels: np.ndarray,
    names: list[str],
    title: str,
    file: Path,
) -> None:
    """Write a PNG: t-SNE of I (N, D) and of R (N, K), points colored by label (N,).

    At most `MOST_POINTS` images, the same in both maps, drawn with a fixed seed.
    """
    rng = np.random.default_rng(0)
    shown = np.sort(rng.permutation(len(labels))[:MOST_POINTS])
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.6), layout="constrained")
    colors = plt.get_cmap("tab10" if len(names) <= 10 else "tab20")
    for axis, x, name in zip(
        axes, (universal, conditional), ("universal: I", "conditional: R = I Tᵀ"), strict=True
    ):
        perplexity = min(30, (len(shown) - 1) / 3)
        points = TSNE(random_state=0, init="pca", perplexity=perplexity).fit_transform(x[shown])
        for label, class_name in enumerate(names):
            mine = points[labels[shown] == label]
            axis.scatter(
                *mine.T, color=colors(label % colors.N), s=7, linewidths=0, label=class_name
            )
        axis.set(title=name, xticks=[], yticks=[])
    if len(names) <= colors.N:
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right", markerscale=3)
    figure.suptitle(title)
    _save(figure, file)


def cluster_sheet(
    paths: list[Path],
    universal: np.ndarray,
    conditional: np.ndarray,
    title: str,
    file: Path,
    columns: int = 7,
) -> None:
    """Write a PNG: one row per cluster, with random members; universal left, conditional right.

    Args:
        paths: N image files. universal, conditional: (N,) cluster numbers.
    """
    rows = int(max(universal.max(), conditional.max())) + 1
    figure, axes = plt.subplots(
        rows, 2 * columns + 1, figsize=(1.0 * columns + 0.5, 0.5 * rows + 0.5), squeeze=False
    )
    rng = np.random.default_rng(0)
    for axis in axes.flat:
        axis.axis("off")
    for left, clusters in ((0, universal), (columns + 1, conditional)):
        for row in range(rows):
            members = rng.permutation(np.flatnonzero(clusters == row))[:columns]
            for column, member in enumerate(members):
                axes[row, left + column].imshow(open_image(paths[member]).resize((96, 96)))
    figure.subplots_adjust(0.01, 0.01, 0.99, 1 - 0.45 / figure.get_figheight(), 0.04, 0.04)
    figure.suptitle(f"{title}: clusters of I (left) and of R = I Tᵀ (right), one row each")
    _save(figure, file)


def retrieval_sheet(
    rows: list[tuple[Path | Crop, str, list[Path | Crop], list[bool]]], title: str, file: Path
) -> None:
    """Write a PNG: one row per query, with its image, a text, and the images found, best first.

    Args:
        rows: query image, text above it, images found, and which of them are right (green frame;
            the others red). Pictures that are not square are padded, not cut.
    """
    columns = max(len(found) for _, _, found, _ in rows)
    figure, axes = plt.subplots(
        len(rows), columns + 1, figsize=(1.7 * (columns + 1), 2.0 * len(rows) + 0.4), squeeze=False
    )
    for axis in axes.flat:
        axis.axis("off")
    for line, (query, text, found, right) in zip(axes, rows, strict=True):
        for axis, image in zip(line, [query, *found], strict=False):
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


def _save(figure: plt.Figure, file: Path) -> None:
    try:
        with atomic_path(file) as temporary:
            figure.savefig(temporary, format="png", dpi=110)
    finally:
        plt.close(figure)
