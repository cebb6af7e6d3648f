"""What was done to clusters by hand: named, merged, split. It is kept beside the texts of a
criterion, and applied to its clusters in every run.

An edit knows a cluster by its pictures, not by its number: by the `SKETCH` smallest digests of
their contents. It is applied to the cluster that shares at least half of both with it (Jaccard
index, Broder 1997); where no cluster does, it is left out, and the note of the clusters says so.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from crl.run.errors import UserError, explain
from crl.run.files import read_text, slug, write_text

EDITED = "edited"  # in the provenance of texts that were changed in a served page: when
SKETCH = 256
LONGEST_NAME = 100  # letters
Group = tuple[str, ...]  # the smallest digests of its pictures, 16 hex digits each


class Edit(BaseModel, extra="forbid", frozen=True):
    do: Literal["name", "merge", "split"]
    groups: tuple[Group, ...] = Field(min_length=1)  # merge: into the first
    name: str = Field("", max_length=LONGEST_NAME)  # what it is called; "" takes a name back


class Edits(BaseModel, extra="forbid", frozen=True):
    """All edits of one criterion's clusters, in order, and how many clusters there were."""

    number: int | None = Field(None, ge=1, le=100)  # before the edits; None: by silhouette
    none: bool = False  # are pictures that no word fits a group of their own?
    done: tuple[Edit, ...] = ()

    @staticmethod
    def file(out: Path, criterion: str) -> Path:
        return out / "clusters" / f"{slug(criterion)}.json"

    @classmethod
    def load(cls, out: Path, criterion: str) -> "Edits":
        """Those in the folder of outputs: none, without a file. A UserError if it is broken."""
        file = cls.file(out, criterion)
        try:
            return cls.model_validate_json(read_text(file)) if file.is_file() else cls()
        except ValidationError as error:
            raise UserError(f"{file}: {explain(error)}; mend or remove it") from error

    def save(self, out: Path, criterion: str) -> None:
        write_text(self.file(out, criterion), self.model_dump_json(exclude_defaults=True))


def sketch(digests: np.ndarray) -> Group:
    """Of digests (n,), dtype V16: the `SKETCH` smallest, the first 8 bytes of each."""
    keys = np.unique(digests.view(">u8")[::2])[:SKETCH]
    return tuple(f"{key:016x}" for key in keys.tolist())


def overlap(a: Group, b: Group) -> float:
    """The Jaccard index of two groups of images; exact up to `SKETCH` images in both together."""
    smallest = sorted({*a, *b})[:SKETCH]
    return len({*smallest} & {*a} & {*b}) / max(1, len(smallest))


def apply(
    edits: tuple[Edit, ...], label: np.ndarray, digests: np.ndarray,
    divide: Callable[[np.ndarray], np.ndarray],
) -> tuple[np.ndarray, dict[int, str], int]:  # fmt: skip
    """The clusters label (N,) of images with these digests (N,) after `edits`, numbered anew, the
    largest first; the names given by hand, by cluster; and the number of edits that were left out.
    `divide` gives the part, 0 or 1, of each of some images (n,)."""
    label, names, lost = label.copy(), dict[int, str](), 0
    for edit in edits:
        sketches = {int(c): sketch(digests[label == c]) for c in np.unique(label)}
        shares = [{c: overlap(group, s) for c, s in sketches.items()} for group in edit.groups]
        places = [max(share, key=share.__getitem__) for share in shares]
        if min(share[c] for share, c in zip(shares, places, strict=True)) < 0.5:
            lost += 1
            continue
        first, *others = places
        if edit.do == "name":
            names[first] = edit.name
        elif edit.do == "merge":
            label[np.isin(label, others)] = first
            names = {c: name for c, name in names.items() if c == first or c not in others}
        else:
            members, free = np.flatnonzero(label == first), label.max() + 1
            part = divide(members)
            label[members[part > 0]] = free
            names.pop(first, None)  # the name of a whole is none of a part
    used, sizes = np.unique(label, return_counts=True)
    order = used[np.argsort(-sizes, kind="stable")]  # the largest first
    rank = {int(c): place for place, c in enumerate(order)}
    names = {rank[c]: name for c, name in names.items() if name}
    return np.array([rank[c] for c in label.tolist()], int), names, lost
