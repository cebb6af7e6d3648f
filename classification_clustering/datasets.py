"""Labelled data sets: image files, and a label for each criterion, in the official layouts.

A label is the name of a folder (Cards, Fruit, ... and any tree of your own), a value in a file
(Clevr4, Stanford40) or a part of the file's name (CMUface).

A data set of your own: write a function (root, criterion) -> Labelled and add it to `LOADERS`.

The order follows the paper's protocol, because few-shot splits depend on it: Clevr4's images by
file name, its classes as in its taxonomies; folders as in torchvision's ImageFolder.
"""

import json
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from crl.images import image_files, is_hidden, is_users
from crl.run.errors import Missing, UserError, nearest
from crl.run.files import read_text

CLEVR4_PAGE = "https://www.robots.ox.ac.uk/~vgg/data/clevr4/"
CARDS_PAGE = "http://faculty.washington.edu/juhuah/images/AugDMC_datasets.zip"
STANFORD40_PAGE = "http://vision.stanford.edu/Datasets/40actions.html"
STANFORD40_LABELS = "https://github.com/Wayne2Wang/OAK"
CMUFACE_PAGE = "http://archive.ics.uci.edu/ml/datasets/cmu+face+images"
CARS_FLOWERS_PAGE = "https://github.com/JCSTARS/Embedding-Selective-Multiple-Clustering"
DRAWN = "; a drawn stand-in comes from scripts/demo/make_data.py"

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
STANFORD40_CLASSES = {  # in OAK's order
    "action": """applauding blowing_bubbles brushing_teeth cleaning_the_floor climbing cooking
        cutting_trees cutting_vegetables drinking feeding_a_horse fishing fixing_a_bike fixing_a_car
        gardening holding_an_umbrella jumping looking_through_a_microscope
        looking_through_a_telescope phoning playing_guitar playing_violin pouring_liquid
        pushing_a_cart reading riding_a_bike riding_a_horse rowing_a_boat running shooting_an_arrow
        smoking taking_photos texting_message throwing_frisby using_a_computer walking_the_dog
        washing_dishes watching_TV waving_hands writing_on_a_board writing_on_a_book""".split(),
    "location": """educational_institution natural_environment office_or_workplace
        public_event_or_gathering residential_area restaurant_or_dining_area sports_facility
        store_or_market transportation_hub urban_area_or_city_street""".split(),
    "mood": "adventurous focused joyful relaxed".split(),
}
# In the order of the parts of a file's name, `an2i_left_angry_open.pgm`
CMUFACE_CLASSES = {
    "identity": """an2i at33 boland bpm ch4f cheyer choon danieln glickman karyadi kawamura kk49
        megak mitchell night phoebe saavik steffi sz24 tammo""".split(),
    "pose": "straight left right up".split(),
    "emotion": "neutral happy sad angry".split(),
    "glass": "open sunglasses".split(),
}
# With a folder per class. Cards has these criteria too, but we know the names of its classes.
TREES = {  # data set, and its folder: criteria, and where to get it
    "fruit": (["species", "color"], CARDS_PAGE),
    "fruit360": (["species", "color"], CARDS_PAGE),
    "stanfordcars": (["color", "type"], CARS_FLOWERS_PAGE),
    "flowers": (["color", "species"], CARS_FLOWERS_PAGE),
}
CRITERIA = {
    "clevr4": list(CLEVR4_CLASSES),
    "cards": list(CARDS_CLASSES),
    "stanford40": list(STANFORD40_CLASSES),
    "cmuface": list(CMUFACE_CLASSES),
    **{data: criteria for data, (criteria, _) in TREES.items()},
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
    its folder (`clevr_4_10k_v1`, `cards`, ...), or the folders of the criteria. `expected`: how
    many images there should be, None: any number; `at_least`: how many of each class. UserError:
    missing data, an unknown criterion or label, a wrong number of images."""
    known = CRITERIA.get(data, [criterion])
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
        raise _missing("Clevr4", root, CLEVR4_PAGE, tree, DRAWN)
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
    values = [facts[path.stem] for path in paths]
    return _labelled(f"{annotations_file}, {criterion}", paths, values, classes)


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
        raise _missing("Cards", root, CARDS_PAGE, tree, DRAWN)
    return _tree(folder, CARDS_CLASSES[criterion])


def _known_tree(data: str, root: Path, criterion: str) -> Labelled:
    if not (folder := root / data / criterion).is_dir():
        criteria, page = TREES[data]
        raise _missing(data, root, page, f"{data}/{{{','.join(criteria)}}}/<class>/<image files>")
    return _tree(folder)


def _stanford40(root: Path, criterion: str) -> Labelled:
    """`<criterion>.txt` has a line `<image> <class>` for each image, as OAK wrote down the labels
    of IC|TC. As in OAK's code, a line with a class that is not in its list is left out."""
    folder, official = root / "Stanford40", STANFORD40_CLASSES[criterion]
    file, images = folder / f"{criterion}.txt", folder / "JPEGImages"
    if not file.is_file() or not images.is_dir():
        pages = f"{STANFORD40_PAGE}, and its labels from {STANFORD40_LABELS}"
        tree = "Stanford40/{JPEGImages/*.jpg, action.txt, location.txt, mood.txt}"
        raise _missing("Stanford40", root, pages, tree)
    facts: dict[str, str] = {}
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        name, _, value = line.partition(" ")
        if not value or name in facts:
            wrong = "names an image again" if value else "is not of the form `<image> <class>`"
            raise UserError(f"{file}, line {number}: {line[:60]!r} {wrong}")
        facts[name] = value.strip()
    paths = [images / name for name in sorted(facts) if facts[name] in official]
    if absent := [path for path in paths if not path.is_file()]:
        raise UserError(f"{file} names {len(absent)} images that are not there, first {absent[0]}")
    if left_out := len(facts) - len(paths):
        without = f"{left_out} of {len(facts)} images have no {criterion} of OAK's list"
        warnings.warn(f"{file}: {without}; they are left out", stacklevel=2)
    classes = [name.replace("_", " ") for name in official]  # as a VLM reads them
    values = [facts[path.name].replace("_", " ") for path in paths]
    return _labelled(f"{file}", paths, values, classes)


def _cmuface(root: Path, criterion: str) -> Labelled:
    """Labels are parts of a file's name; `_2` and `_4` at its end mark smaller copies, `.bad` what
    is spoiled."""
    folder = root / "faces"
    if not folder.is_dir():
        tree = "faces/<person>/<person>_<pose>_<expression>_<eyes>.pgm"
        raise _missing("CMUface", root, CMUFACE_PAGE, tree)
    files = [path for path in sorted(folder.glob("*/*.pgm")) if not is_hidden(path.name)]
    paths = [path for path in files if not path.stem.endswith(("_2", "_4"))]
    if odd := [path for path in paths if path.stem.count("_") != 3]:
        raise UserError(f"{odd[0]} is not named <person>_<pose>_<expression>_<eyes>.pgm")
    place = list(CMUFACE_CLASSES).index(criterion)
    values = [path.stem.split("_")[place] for path in paths]
    return _labelled(f"{folder}, {criterion}", paths, values, CMUFACE_CLASSES[criterion])


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


def _labelled(where: str, paths: list[Path], values: list[str], classes: list[str]) -> Labelled:
    """The images with the class names `values`, which come from `where`."""
    for path, value in zip(paths, values, strict=True):
        if value not in classes:
            raise UserError(f"{where}: {path.stem} is {value!r}; {nearest(value, classes)}")
    return Labelled(paths, np.array([classes.index(value) for value in values], int), classes)


def _missing(name: str, root: Path, page: str, tree: str, more: str = "") -> Missing:
    where = f"unpack it to {root}/{tree}, or set root="
    return Missing(f"{name} is not in {root.resolve()}; get it from {page} and {where}{more}")


# The values of the key `data`.
LOADERS: dict[str, Callable[[Path, str], Labelled]]
LOADERS = {"clevr4": _clevr4, "cards": _cards, "folder": _folder}
LOADERS |= {"stanford40": _stanford40, "cmuface": _cmuface}
LOADERS |= {data: partial(_known_tree, data) for data in TREES}
