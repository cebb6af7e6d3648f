"""DeepFashion, FashionAI or DARN in the files that ASEN (Ma et al., AAAI 2020) published.

An image has values of several attributes: texture 12, fabric 3, ... A query asks for the images
that share its value of one attribute. All files are text, one record per line, numbers from 0:

    filenames_{train,valid,test}.txt      relative path of an image
    label_train.txt                       file_index attribute value [attribute value ...]
    {query,candidate}_{valid,test}.txt    file_index attribute value
    meta.json                             {dataset: {"ATTRIBUTES": ..., "ATTRIBUTES_NUM": ...}}
"""

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, model_validator

from crl.run.errors import Missing, UserError, explain, nearest
from crl.run.files import read_text

SPLITS = ("train", "valid", "test")
SPLIT_PAGE = "https://github.com/Maryeon/asen"
IMAGE_PAGE = "http://mmlab.ie.cuhk.edu.hk/projects/DeepFashion/AttributePrediction.html"
# ASEN's split of DeepFashion
OFFICIAL_IMAGES = {"train": "221k", "valid": "27k", "test": "27k"}
OFFICIAL_VALUES = [156, 218, 180, 216, 230]


class Training(NamedTuple):
    """Images to draw triplets from."""

    files: list[Path]
    labels: np.ndarray  # (L, 3) int64: index of an image, attribute, value


class Retrieval(NamedTuple):
    """Images to rank. A query is compared with the candidates of its attribute."""

    files: list[Path]
    query: np.ndarray  # (Q, 3) int64: index of an image, attribute, value
    candidate: np.ndarray  # (C, 3) int64, the same


class Fashion(NamedTuple):
    """A data set; splits that were not requested are None."""

    attributes: list[str]  # short names, e.g. texture
    values: list[int]  # how many each attribute has
    train: Training | None = None
    valid: Retrieval | None = None
    test: Retrieval | None = None


def load(
    root: Path, dataset: str = "DeepFashion", images: Path | None = None,
    splits: Collection[str] = SPLITS,
) -> Fashion:  # fmt: skip
    """Read and validate the text files of `splits`; `check_images` checks the images. The paths in
    filenames_*.txt are relative to `images`, None: to `root`. A UserError names a missing file, a
    wrong line, an attribute without triplets, queries or candidates."""
    meta = root / "meta.json"
    if not meta.is_file() and (root.parent / meta.name).is_file():  # as ASEN's archive has it
        meta = root.parent / meta.name
    data = _meta(meta, dataset)
    attributes, values = [name.removesuffix("-related") for name in data.names], data.numbers
    loaded: dict[str, Any] = {}
    for split in splits:
        files = [(images or root) / name for name in _names(root / f"filenames_{split}.txt")]
        kinds = ["label"] if split == "train" else ["query", "candidate"]
        tables = [root / f"{kind}_{split}.txt" for kind in kinds]
        rows = [_rows(table, len(files), attributes, values) for table in tables]
        loaded[split] = (Training if split == "train" else Retrieval)(files, *rows)
        if split == "train":
            _check_triplets(tables[0], rows[0], attributes)
    return Fashion(attributes, values, **loaded)


def check_images(files: Sequence[Path]) -> None:
    """Raise a UserError if images are missing; no image is opened."""
    missing = [file for file in files if not file.is_file()]
    if missing:
        there = next(folder for folder in missing[0].absolute().parents if folder.is_dir())
        name = missing[0].absolute().relative_to(there).parts[0]  # of a folder or of the file
        alike = [e.name for e in there.iterdir() if e.name.casefold() == name.casefold() != e.name]
        if alike and name not in alike:
            raise UserError(f"{len(missing)} of {len(files)} images are missing: {there} holds "
                            f"{alike[0]}, not {name}; rename it")  # fmt: skip
        few = ", ".join(map(str, missing[:3])) + (", ..." if len(missing) > 3 else "")
        raise (UserError if len(missing) < len(files) else Missing)(
            f"{len(missing)} of {len(files)} images are missing ({few}); get DeepFashion's from "
            f"{IMAGE_PAGE}, the others as {SPLIT_PAGE} says, or set images to their folder"
        )


def keep_used(files: list[Path], *tables: np.ndarray) -> tuple[list[Path], list[np.ndarray]]:
    """The files that the tables (n, 3) use, and the tables with indices into these files."""
    used, place = np.unique(np.concatenate([t[:, 0] for t in tables]), return_inverse=True)
    places = np.split(place, np.cumsum([len(t) for t in tables])[:-1])
    renumbered = [np.column_stack([p, t[:, 1:]]) for p, t in zip(places, tables, strict=True)]
    return [files[n] for n in used], renumbered


def _read(file: Path) -> str:
    if not file.is_file():
        raise Missing(
            f"{file.name} is not in {file.parent.resolve()}; get ASEN's split files from "
            f"{SPLIT_PAGE}; expected there: meta.json, filenames_{{train,valid,test}}.txt, "
            "label_train.txt, {query,candidate}_{valid,test}.txt, and the images that they name"
        )
    return read_text(file)


class _DataSet(BaseModel):
    """An entry of meta.json; `numbers`: how many values each attribute has."""

    model_config = ConfigDict(strict=True)

    names: list[Annotated[str, Field(min_length=1)]] = Field(alias="ATTRIBUTES", min_length=1)
    numbers: list[PositiveInt] = Field(alias="ATTRIBUTES_NUM")

    @model_validator(mode="after")
    def _fits(self) -> "_DataSet":
        if not len(set(self.names)) == len(self.names) == len(self.numbers):
            raise ValueError("needs one number for each of some different names")
        return self


def _meta(file: Path, dataset: str) -> _DataSet:
    try:
        content = json.loads(_read(file))
        if isinstance(content, dict) and dataset not in content:
            raise UserError(f"{file} has no data set {dataset!r}; {nearest(dataset, content)}")
        entry = content[dataset]
        if isinstance(numbers := entry["ATTRIBUTES_NUM"], dict):  # in ASEN's own file
            entry["ATTRIBUTES_NUM"] = [numbers[name] for name in entry["ATTRIBUTES"]]
        return _DataSet.model_validate(entry)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        reason = explain(error) if isinstance(error, ValidationError) else type(error).__name__
        form = f"{{{dataset}: {{ATTRIBUTES: [names], ATTRIBUTES_NUM: [numbers]}}}}"
        raise UserError(f"{file} must hold {form}: {reason}") from error


def _names(file: Path) -> list[str]:
    lines = _read(file).rstrip().split("\n")
    names = [name.strip().replace("\\", "/") for name in lines]  # as Windows writes them
    for line, name in enumerate(names, 1):
        if not name or name.startswith("/") or ".." in name.split("/"):
            raise UserError(f"{file}, line {line}: {name!r} is not a relative path of an image")
    return names


def _rows(file: Path, files: int, attributes: list[str], values: list[int]) -> np.ndarray:
    """Records -> (L, 3) int64: file index, attribute, value; a training record may hold several
    pairs of attribute and value."""
    several = file.name.startswith("label")
    form = "file_index attribute value" + " [attribute value ...]" * several
    rows: list[tuple[int, int, int]] = []
    for number, line in enumerate(_read(file).rstrip().split("\n"), 1):
        where, fields = f"{file}, line {number}", line.split()
        if len(fields) < 3 or len(fields) % 2 == 0 or (len(fields) > 3 and not several):
            raise UserError(f"{where}: {len(fields)} fields; expected: {form}")
        try:
            index, *pairs = map(int, fields)
        except ValueError as error:
            raise UserError(f"{where}: not whole numbers") from error
        _check_range(where, "file index", index, files)
        for attribute, value in zip(pairs[::2], pairs[1::2], strict=True):
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
    """Check that each attribute has two images of one value and one of another value."""
    for attribute, name in enumerate(attributes):
        pairs = np.unique(labels[labels[:, 1] == attribute][:, [0, 2]], axis=0)  # image and value
        _, images = np.unique(pairs[:, 1], return_counts=True)  # of each value
        if len(images) < 2 or images.max() < 2:
            raise UserError(f"{file}: attribute {name} makes no triplet: it needs a value with two "
                            "images and another value with one")  # fmt: skip
