"""The mined triplets as a data set: triplets.jsonl, read for training."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, StringConstraints

from crl.run.errors import UserError
from similarity_retrieval.mining.files import read_jsonl

Text = Annotated[str, StringConstraints(pattern=r"\S")]


class _Triplet(BaseModel):
    reference: Text
    target: Text
    condition: Text


@dataclass(frozen=True)
class MinedTriplets:
    """N triplets over M distinct images and C distinct conditions, in order of first appearance."""

    images: list[Path]
    conditions: list[str]
    reference: np.ndarray  # (N,) int64, index into images
    target: np.ndarray  # (N,) int64, index into images
    condition: np.ndarray  # (N,) int64, index into conditions

    def __len__(self) -> int:
        return len(self.reference)

    def first(self, count: int) -> "MinedTriplets":
        """The first `count` triplets, with the images and conditions that they name. These come
        first in `images` and `conditions`, so the indices do not change."""
        rows = (self.reference, self.target, self.condition)
        reference, target, condition = (x[:count] for x in rows)
        images = self.images[: max(reference.max(), target.max()) + 1]
        conditions = self.conditions[: condition.max() + 1]
        return MinedTriplets(images, conditions, reference, target, condition)


def read_triplets(file: Path, root: Path) -> MinedTriplets:
    """Read the triplets.jsonl of mine_triplets.py, whose image names are relative to `root`. A
    UserError names a malformed line, and images that are not there."""
    images: dict[str, int] = {}
    conditions: dict[str, int] = {}
    rows = []
    if not file.is_file():  # a pipe would wait for ever
        raise UserError(f"{file} is not a regular file; make it with mine_triplets.py")
    for triplet in read_jsonl(_Triplet, file):
        reference = images.setdefault(triplet.reference, len(images))
        target = images.setdefault(triplet.target, len(images))
        rows.append((reference, target, conditions.setdefault(triplet.condition, len(conditions))))
    if not rows:
        raise UserError(f"there are no triplets in {file}")
    if missing := [name for name in images if not (root / name).is_file()]:
        count = f"{len(missing)} of the {len(images)} images of {file}"
        raise UserError(f"{count} are not in {root}, the first: {missing[0]}; set images=")
    files = [root / name for name in images]
    return MinedTriplets(files, list(conditions), *np.array(rows).T)
