"""Clevr4, Cards and any tree with a folder per class: image files, and a label for each criterion.

A data set of your own: write a function (root, criterion) -> Labelled and add it to `LOADERS`.

The order follows the paper's protocol, because few-shot splits depend on it: Clevr4's images by
file name, its classes as in its taxonomies; folders as in torchvision's ImageFolder.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from crl.images import image_files, is_hidden, is_users
from crl.run.errors import Missing, UserError, nearest
from crl.run.files import read_text

CLEVR4_PAGE = "https://www.robots.ox.ac.uk/~vgg/data/clevr4/"
CARDS_PAGE = "http://faculty.washington.edu/juhuah/images/AugDMC_datasets.zip"

# A class's number is its position here, in Clevr4's taxonomies, as in the authors' code.
CLEVR4_CLASSES = {
    "texture": "rubber metal checkered emojis wave brick star circles zigzag chessboard".split(),
    "shape": "cube sphere monkey cone torus star teapot diamond gear cylinder".split(),
    "color": "gray red blue green brown purple cyan yellow pink orange".split(),
    "count": [str(n) for n in range(1, 11)],
}
CARDS_CLASSES = {
    "number": "ace two three four five six seven eight nine ten jack queen king".split(),
    "suits": "clubs diamonds hearts spades".split(),
}


class Labelled(NamedTuple):
    """Images of one data set under one criterion."""

    paths: list[Path]  # N image files
    labels: np.ndarray  # (N,) int64, index into `classes`
    classes: list[str]  # C class names, in the protocol's order

    def some(self, places: np.ndarray) -> "Labelled":
        """The images at some places."""
        return Labelled([self.paths[i] for i in places], self.labels[places], self.classes)


def load(
    data: str, root: Path, criterion: str, expected: int | None = None, at_least: int = 1
) -> Labelled:
    """Images and labels of the data set `data`, one of `LOADERS`, under `criterion`. `root` holds
    `clevr_4_10k_v1`, `cards`, or the folders of the criteria. `expected`: how many images there
    should be, None: any number; `at_least`: how many of each class. UserError: missing data, an
    unknown criterion or label, a wrong number of images."""
    known = {"clevr4": CLEVR4_CLASSES, "cards": CARDS_CLASSES}.get(data, [criterion])
    if criterion not in known:
        raise UserError(f"unknown criterion {criterion!r}; {nearest(criterion, known)}")
    labelled = LOADERS[data](Path(root), criterion)
    if not labelled.paths:
        raise UserError(f"there are no images in {root} for data={data}, {criterion}")
    if expected is not None and len(labelled.paths) != expected:
        count = f"{len(labelled.paths)} images, not {expected}"
        raise UserError(f"{data} in {root} has {count}; is the download complete? (images=null "
                        "accepts any number)")  # fmt: skip
    check_classes(f"{root}, {criterion}", labelled, at_least)
    return labelled


def check_classes(where: str, data: Labelled, at_least: int) -> None:
    """Refuse fewer than two classes, and a class with fewer images than `at_least`."""
    classes, counts = data.classes, np.bincount(data.labels, minlength=len(data.classes))
    if len(classes) < 2:
        raise UserError(f"{where}: there is one class only, {classes[0]}; two or more are needed")
    for name, count in zip(classes, counts, strict=True):
        if count < at_least:
            wrong = f"class {name} has {count} images; it needs {at_least} or more"
            raise UserError(f"{where}: {wrong}")


def _clevr4(root: Path, criterion: str) -> Labelled:
    folder = root / "clevr_4_10k_v1"
    annotations_file = folder / "clevr_4_annots.json"
    if not annotations_file.is_file() or not (folder / "images").is_dir():
        tree = "clevr_4_10k_v1/{images/*.png, clevr_4_annots.json}"
        raise _missing("Clevr4", root, CLEVR4_PAGE, tree)
    try:
        annotations = json.loads(read_text(annotations_file))
        facts = {name: str(values[criterion]) for name, values in annotations.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        form = "{name: {texture, shape, color, count}}"
        raise UserError(f"{annotations_file} is not {form}: {error!r}") from error
    paths = [p for p in sorted((folder / "images").glob("*.png")) if not is_hidden(p.name)]
    classes = CLEVR4_CLASSES[criterion]
    for path in paths:
        if path.stem not in facts:
            raise UserError(f"{path} has no entry in {annotations_file}")
        if (value := facts[path.stem]) not in classes:
            what = f"{path.stem} has the {criterion} {value!r}"
            raise UserError(f"{annotations_file}: {what}; {nearest(value, classes)}")
    labels = np.array([classes.index(facts[path.stem]) for path in paths], int)
    return Labelled(paths, labels, classes)


def _cards(root: Path, criterion: str) -> Labelled:
    folder = root / "cards" / criterion
    if not folder.is_dir():
        if kaggle := [*root.glob("train/* of *"), *root.glob("cards/train/* of *")]:
            raise UserError(
                f"{kaggle[0].parent} has the layout of Kaggle's cards, a folder per card; copy the "
                f"images of train, valid and test to {folder.parent}, an ace of clubs to number/ace"
                " and to suits/clubs, with 'ace of clubs' before its name; leave joker out"
            )
        tree = "cards/{number/<13 classes>/*, suits/<4 classes>/*}"
        raise _missing("Cards", root, CARDS_PAGE, tree)
    return _tree(folder, CARDS_CLASSES[criterion])


def _folder(root: Path, criterion: str) -> Labelled:
    folder = root / criterion
    if not folder.is_dir():
        tree = f"{root}/<criterion>/<class>/<image files>"
        raise UserError(f"there is no folder {folder}; expected: {tree}")
    return _tree(folder)


def _tree(folder: Path, expected: list[str] | None = None) -> Labelled:
    """Class folders in the order of torchvision's ImageFolder."""
    classes = sorted(e.name for e in folder.iterdir() if e.is_dir() and is_users(str(e)))
    if expected and (odd := sorted({*classes} ^ {*expected})):
        names = ", ".join(sorted(expected))
        raise UserError(f"{folder} must hold the folders {names}; look at: {odd}")
    files = [file for file in image_files(folder) if file.parent != folder]
    labels = np.array([classes.index(file.relative_to(folder).parts[0]) for file in files], int)
    order = np.argsort(labels, kind="stable")
    return Labelled([files[i] for i in order], labels[order], classes)


def _missing(name: str, root: Path, page: str, tree: str) -> Missing:
    return Missing(
        f"{name} is not in {root.resolve()}; get it from {page} and unpack it to "
        f"{root}/{tree}, or set root=; a drawn stand-in comes from scripts/demo/make_data.py"
    )


# The values of the key `data`.
LOADERS: dict[str, Callable[[Path, str], Labelled]]
LOADERS = {"clevr4": _clevr4, "cards": _cards, "folder": _folder}
