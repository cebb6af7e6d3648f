"""DeepFashion, FashionAI or DARN in the files that ASEN (Ma et al., AAAI 2020) published.

    python fashion_retrieval/datasets.py --root data/deepfashion

counts the files that are there, and names those that are missing.

An image has values of several attributes: texture 12, fabric 3, ... A query asks for the images
that share its value of one attribute. All files are text, one record per line, numbers from 0:

    filenames_{train,valid,test}.txt      relative path of an image
    label_train.txt                       file_index attribute value [attribute value ...]
    {query,candidate}_{valid,test}.txt    file_index attribute value
    meta.json                             {dataset: {"ATTRIBUTES": ..., "ATTRIBUTES_NUM": ...}}
"""

from crl.run.command import command

import argparse
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from crl.run.errors import ArgumentParser, Missing, UserError, nearest

SPLITS = ("train", "valid", "test")
SPLIT_PAGE = "https://github.com/Maryeon/asen"
IMAGE_PAGE = "http://mmlab.ie.cuhk.edu.hk/projects/DeepFashion/AttributePrediction.html"
TREE = (
    "meta.json, filenames_{train,valid,test}.txt, label_train.txt, "
    "{query,candidate}_{valid,test}.txt, and the images that filenames_*.txt name"
)
# For comparison by the check command: ASEN's split of DeepFashion.
OFFICIAL_IMAGES = {"train": "221k", "valid": "27k", "test": "27k"}
OFFICIAL_VALUES = [156, 218, 180, 216, 230]


@dataclass(frozen=True)
class Training:
    """The labels from which triplets are drawn.

    Attributes:
        files: N image files.
        labels: (L, 3) int64, one row per label: index into `files`, attribute, value.
    """

    files: list[Path]
    labels: np.ndarray


@dataclass(frozen=True)
class Retrieval:
    """Queries, and candidates; a query is compared with the candidates of its attribute.

    Attributes:
        files: N image files.
        query, candidate: (Q, 3) and (C, 3) int64; rows: index into `files`, attribute, value.
    """

    files: list[Path]
    query: np.ndarray
    candidate: np.ndarray


@dataclass(frozen=True)
class Fashion:
    """A data set; splits that were not requested are None.

    Attributes:
        attributes: A short names, e.g. texture.
        values: how many values each attribute has.
        value_names: their names; None if meta.json does not have them (ASEN's own file does not).
    """

    attributes: list[str]
    values: list[int]
    value_names: list[list[str]] | None = None
    train: Training | None = None
    valid: Retrieval | None = None
    test: Retrieval | None = None


def load(
    root: Path | str,
    dataset: str = "DeepFashion",
    images: Path | str | None = None,
    splits: Collection[str] = SPLITS,
) -> Fashion:
    """Read and validate the text files of `splits`; `check_images` checks the images.

    Args:
        root: folder of the text files; meta.json may also be in the folder above it.
        dataset: its name in meta.json.
        images: folder that the paths in filenames_*.txt are relative to; None: `root`.

    Raises:
        UserError: a missing file (the message says where to get it); a wrong line (the message has
            its number, from 1): not whole numbers, a wrong number of fields, a file index,
            attribute or value out of range; an attribute without triplets, queries or candidates.
    """
    root = Path(root)
    images = root if images is None else Path(images)
    meta = root / "meta.json"
    if not meta.is_file() and (root.parent / meta.name).is_file():  # as ASEN's archive has it
        meta = root.parent / meta.name
    attributes, values, value_names = _meta(meta, dataset)
    loaded: dict[str, Any] = {}
    for split in splits:
        files = _files(root / f"filenames_{split}.txt", images)

        def rows(name: str, files: list[Path] = files) -> np.ndarray:
            return _rows(root / name, len(files), attributes, values)

        if split == "train":
            loaded[split] = Training(files, rows("label_train.txt"))
            _check_triplets(root / "label_train.txt", loaded[split].labels, attributes)
        else:
            kinds = ("query", "candidate")
            loaded[split] = Retrieval(files, *(rows(f"{kind}_{split}.txt") for kind in kinds))
    return Fashion(attributes, values, value_names, **loaded)


def check_images(files: Sequence[Path]) -> None:
    """Check that all images exist; no image is opened.

    Raises:
        UserError: images are missing; says how many, the first ones, and where to get them.
    """
    missing = [file for file in files if not file.is_file()]
    if missing:
        few = ", ".join(map(str, missing[:3])) + (", ..." if len(missing) > 3 else "")
        raise (UserError if len(missing) < len(files) else Missing)(
            f"{len(missing)} of {len(files)} images are missing ({few}); get DeepFashion's from "
            f"{IMAGE_PAGE}, the others as {SPLIT_PAGE} says, or set images to their folder"
        )


def keep_used(files: list[Path], *tables: np.ndarray) -> tuple[list[Path], list[np.ndarray]]:
    """The files that the tables use, and the tables with indices into these files.

    Args:
        tables: (n, 3) each, the first column an index into `files`.
    """
    used, place = np.unique(np.concatenate([t[:, 0] for t in tables]), return_inverse=True)
    places = np.split(place, np.cumsum([len(t) for t in tables])[:-1])
    renumbered = [np.column_stack([p, t[:, 1:]]) for p, t in zip(places, tables, strict=True)]
    return [files[n] for n in used], renumbered


# --- files ----------------------------------------------------------------------------------------


def _read(file: Path) -> bytes:
    if not file.is_file():
        raise Missing(
            f"{file.name} is not in {file.parent.resolve()}; get ASEN's split files from "
            f"{SPLIT_PAGE}; expected there: {TREE}"
        )
    return file.read_bytes()


def _meta(file: Path, dataset: str) -> tuple[list[str], list[int], list[list[str]] | None]:
    """Short names of the attributes, how many values each has, and the names of these."""
    try:
        known = json.loads(_read(file))
        if not isinstance(known, dict):
            raise ValueError("it holds no names of data sets")
        if dataset not in known:
            raise UserError(f"{file} has no data set {dataset!r}; {nearest(dataset, known)}")
        names, numbers = known[dataset]["ATTRIBUTES"], known[dataset]["ATTRIBUTES_NUM"]
        if isinstance(numbers, dict):  # {name: number}, in ASEN's own file
            numbers = [numbers[name] for name in names]
        good = len(names) == len(numbers) == len(set(names)) > 0
        good = good and all(type(name) is str and name for name in names)
        if not good or not all(type(number) is int and number > 0 for number in numbers):
            raise ValueError("not one positive number for each of some different names")
        value_names = known[dataset].get("VALUE_NAMES")
        if value_names is not None:
            lists = type(value_names) is list and all(type(v) is list for v in value_names)
            if not lists or list(map(len, value_names)) != numbers:
                raise ValueError("VALUE_NAMES must hold a list of names for each attribute")
            if not all(type(name) is str for names in value_names for name in names):
                raise ValueError("VALUE_NAMES must hold names, no numbers")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UserError(
            f"{file} must hold {{{dataset}: {{ATTRIBUTES: [names], ATTRIBUTES_NUM: [numbers]}}}}: "
            f"{type(error).__name__} {error}"
        ) from error
    return [name.removesuffix("-related") for name in names], numbers, value_names


def _files(file: Path, images: Path) -> list[Path]:
    try:
        names = _read(file).rstrip().decode().split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not text in UTF-8: {error}; get it again") from error
    names = [name.strip() for name in names]
    for line, name in enumerate(names, 1):
        if not name or name.startswith("/") or ".." in name.split("/"):
            raise UserError(f"{file}, line {line}: {name!r} is not a relative path of an image")
    return [images / name for name in names]


def _rows(file: Path, files: int, attributes: list[str], values: list[int]) -> np.ndarray:
    """Records -> (L, 3) int64: file index, attribute, value; a training record may hold several
    pairs of attribute and value."""
    several = file.name.startswith("label")
    lines = _read(file).rstrip().split(b"\n")
    fields = [line.split() for line in lines]
    count = np.array([len(f) for f in fields])  # (lines,)
    wrong = (count % 2 == 0) | (count < 3) if several else count != 3
    if wrong.any():
        first = int(wrong.argmax())
        form = "file_index attribute value" + " [attribute value ...]" * several
        raise UserError(f"{file}, line {first + 1}: {count[first]} fields; expected: {form}")
    try:
        numbers = np.array([int(field) for record in fields for field in record], np.int64)
    except (ValueError, OverflowError) as error:
        raise UserError(f"{file}, line {_first_odd(fields)}: not whole numbers") from error
    pairs = (count - 1) // 2  # (lines,)
    line = np.repeat(np.arange(len(lines)), pairs)  # (L,) the line of each row
    start = np.cumsum(count) - count  # (lines,) where a line's numbers start
    within = np.arange(len(line)) - np.repeat(np.cumsum(pairs) - pairs, pairs)
    place = start[line] + 1 + 2 * within
    rows = np.stack([numbers[start[line]], numbers[place], numbers[place + 1]], axis=1)
    limits = [("file index", files), ("attribute", len(attributes))]
    for column, (what, limit) in enumerate(limits):
        _check_range(file, what, rows[:, column], np.full(len(rows), limit), line)
    _check_range(file, "value", rows[:, 2], np.array(values)[rows[:, 1]], line)
    for attribute in np.flatnonzero(np.bincount(rows[:, 1], minlength=len(attributes)) == 0):
        raise UserError(f"{file} says nothing about attribute {attributes[attribute]}")
    return rows


def _first_odd(fields: list[list[bytes]]) -> int:
    """The first line, from 1, with a field that is not a whole number that fits int64."""
    for line, record in enumerate(fields, 1):
        try:
            np.array([int(field) for field in record], np.int64)
        except (ValueError, OverflowError):
            return line
    raise AssertionError("all fields are whole numbers")


def _check_range(
    file: Path, what: str, given: np.ndarray, limit: np.ndarray, line: np.ndarray
) -> None:
    outside = (given < 0) | (given >= limit)
    if outside.any():
        row = int(outside.argmax())
        raise UserError(
            f"{file}, line {line[row] + 1}: {what} {given[row]} is not in 0..{limit[row] - 1}"
        )


def _check_triplets(file: Path, labels: np.ndarray, attributes: list[str]) -> None:
    """Check that each attribute has triplets: two images of one value and one of another value."""
    files, values = labels[:, 0].max() + 1, labels[:, 2].max() + 1
    kind = labels[:, 1] * values + labels[:, 2]
    kind = np.unique(kind * files + labels[:, 0]) // files  # each image of each kind once
    images = np.bincount(kind, minlength=len(attributes) * values).reshape(-1, values)
    for name, count in zip(attributes, images, strict=True):
        if (count > 0).sum() < 2 or count.max() < 2:
            raise UserError(
                f"{file}: attribute {name} makes no triplet: it needs a value with two images and "
                "another value with one"
            )


# --- the check command ----------------------------------------------------------------------------


def _checked(split: str, arguments: argparse.Namespace) -> bool:
    """Print which files of one split are there; return whether all of them are."""
    try:
        data = load(arguments.root, arguments.dataset, arguments.images, [split])
    except UserError as error:
        print(f"{split}: {error}")
        return False
    official = arguments.dataset == "DeepFashion"
    part = getattr(data, split)
    about = f" (official: {OFFICIAL_IMAGES[split]})" if official else ""
    print(f"{split}: {len(part.files)} images{about}")
    tables = {"labels": part.labels} if split == "train" else {}
    tables = tables or {"queries": part.query, "candidates": part.candidate}
    for attribute, name in enumerate(data.attributes):
        counts = ", ".join(f"{(t[:, 1] == attribute).sum()} {k}" for k, t in tables.items())
        known = f" (official: {OFFICIAL_VALUES[attribute]})" if official and attribute < 5 else ""
        print(f"  {name}: {data.values[attribute]} values{known}, {counts}")
    try:
        check_images(part.files)
    except UserError as error:
        print(f"  {error}")
        return False
    return True


@command
def main(argv: list[str]) -> None:
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, default=Path("data/deepfashion"), help=f"holds {TREE}")
    parser.add_argument("--images", type=Path, help="folder of the images (default: the root)")
    parser.add_argument("--dataset", default="DeepFashion", help="its name in meta.json")
    arguments = parser.parse_args(argv)
    if not all([_checked(split, arguments) for split in SPLITS]):
        raise UserError(f"{arguments.dataset} is not complete in {arguments.root}; see above")


if __name__ == "__main__":
    main()
