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
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, model_validator

from crl.run.errors import ArgumentParser, Missing, UserError, explain, nearest

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


class Training(NamedTuple):
    """N image files; and labels (L, 3) int64, one row per label: index of an image, attribute,
    value. Triplets are drawn from them."""

    files: list[Path]
    labels: np.ndarray


class Retrieval(NamedTuple):
    """N image files; queries (Q, 3) and candidates (C, 3) int64, rows: index of an image,
    attribute, value. A query is compared with the candidates of its attribute."""

    files: list[Path]
    query: np.ndarray
    candidate: np.ndarray


class Fashion(NamedTuple):
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
    data = _meta(meta, dataset)
    attributes, values = [name.removesuffix("-related") for name in data.names], data.numbers
    loaded: dict[str, Any] = {}
    for split in splits:
        files = _files(root / f"filenames_{split}.txt", images)
        kinds = ["label"] if split == "train" else ["query", "candidate"]
        tables = [root / f"{kind}_{split}.txt" for kind in kinds]
        rows = [_rows(table, len(files), attributes, values) for table in tables]
        if split == "train":
            _check_triplets(tables[0], rows[0], attributes)
        loaded[split] = (Training if split == "train" else Retrieval)(files, *rows)
    return Fashion(attributes, values, data.value_names, **loaded)


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


class _DataSet(BaseModel):
    """An entry of meta.json; `numbers`: how many values each attribute has."""

    model_config = ConfigDict(strict=True)

    names: list[Annotated[str, Field(min_length=1)]] = Field(alias="ATTRIBUTES", min_length=1)
    numbers: list[PositiveInt] = Field(alias="ATTRIBUTES_NUM")
    value_names: list[list[str]] | None = Field(None, alias="VALUE_NAMES")

    @model_validator(mode="before")
    @classmethod
    def _number_of_each(cls, entry: Any) -> Any:
        numbers = entry["ATTRIBUTES_NUM"]
        if isinstance(numbers, dict):  # {name: number}, in ASEN's own file
            numbers = [numbers[name] for name in entry["ATTRIBUTES"]]
        return {**entry, "ATTRIBUTES_NUM": numbers}

    @model_validator(mode="after")
    def _fits(self) -> "_DataSet":
        if not len(set(self.names)) == len(self.names) == len(self.numbers):
            raise ValueError("needs one number for each of some different names")
        if self.value_names is not None and list(map(len, self.value_names)) != self.numbers:
            raise ValueError("VALUE_NAMES must hold the names of the values of each attribute")
        return self


def _meta(file: Path, dataset: str) -> _DataSet:
    """Raises:
    UserError: the file is not of this form, or has no such data set.
    """
    try:
        content = json.loads(_read(file))
        if isinstance(content, dict) and dataset not in content:
            raise UserError(f"{file} has no data set {dataset!r}; {nearest(dataset, content)}")
        return _DataSet.model_validate(content[dataset])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        reason = explain(error) if isinstance(error, ValidationError) else type(error).__name__
        raise UserError(
            f"{file} must hold {{{dataset}: {{ATTRIBUTES: [names], ATTRIBUTES_NUM: [numbers]}}}}: "
            f"{reason}"
        ) from error


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
    form = "file_index attribute value" + " [attribute value ...]" * several
    rows: list[tuple[int, int, int]] = []
    for number, line in enumerate(_read(file).rstrip().split(b"\n"), 1):
        where, fields = f"{file}, line {number}", line.split()
        if len(fields) < 3 or len(fields) % 2 == 0 or (len(fields) > 3 and not several):
            raise UserError(f"{where}: {len(fields)} fields; expected: {form}")
        try:
            index, *pairs = map(int, fields)
        except ValueError as error:
            raise UserError(f"{where}: not whole numbers") from error
        for attribute, value in zip(pairs[::2], pairs[1::2], strict=True):
            _check_range(where, "file index", index, files)
            _check_range(where, "attribute", attribute, len(attributes))
            _check_range(where, "value", value, values[attribute])
            rows.append((index, attribute, value))
    for attribute in set(range(len(attributes))) - {attribute for _, attribute, _ in rows}:
        raise UserError(f"{file} says nothing about attribute {attributes[attribute]}")
    return np.array(rows, np.int64)


def _check_range(where: str, what: str, number: int, limit: int) -> None:
    if not 0 <= number < limit:
        raise UserError(f"{where}: {what} {number} is not in 0..{limit - 1}")


def _check_triplets(file: Path, labels: np.ndarray, attributes: list[str]) -> None:
    """Check that each attribute has triplets: two images of one value and one of another value."""
    for attribute, name in enumerate(attributes):
        of_attribute = labels[labels[:, 1] == attribute]
        distinct = np.unique(of_attribute[:, [0, 2]], axis=0)  # an image with a value, once
        _, images = np.unique(distinct[:, 1], return_counts=True)  # of each value
        if len(images) < 2 or images.max() < 2:
            raise UserError(
                f"{file}: attribute {name} makes no triplet: it needs a value with two images and "
                "another value with one"
            )


# --- the check command ----------------------------------------------------------------------------


def _is_complete(split: str, root: Path, dataset: str, images: Path | None) -> bool:
    """Print what one split holds; are its files and images all there?"""
    official = dataset == "DeepFashion"
    try:
        data = load(root, dataset, images, [split])
        part = getattr(data, split)
        note = f" (official: {OFFICIAL_IMAGES[split]})" if official else ""
        print(f"{split}: {len(part.files)} images{note}")
        kinds = ["labels"] if split == "train" else ["queries", "candidates"]
        tables = list(zip(kinds, part[1:], strict=True))
        for attribute, name in enumerate(data.attributes):
            counts = ", ".join(f"{(t[:, 1] == attribute).sum()} {kind}" for kind, t in tables)
            note = (
                f" (official: {OFFICIAL_VALUES[attribute]})" if official and attribute < 5 else ""
            )
            print(f"  {name}: {data.values[attribute]} values{note}, {counts}")
        check_images(part.files)
    except UserError as error:
        print(f"{split}: {error}")
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
    given = parser.parse_args(argv)
    complete = [_is_complete(split, given.root, given.dataset, given.images) for split in SPLITS]
    if not all(complete):
        raise UserError(f"{given.dataset} is not complete in {given.root}; see above")


if __name__ == "__main__":
    main()
