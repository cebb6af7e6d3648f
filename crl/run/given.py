"""Embeddings made elsewhere: `features=FILE`, or a list of files, in every task and `crl explore`.

A file holds named arrays; which, is in the README of the task. Nothing in a file is run.

    .npz            numpy.savez(file, image=I, text=T, labels=labels)
    .safetensors    tensors by name; lists of texts as JSON in the metadata
    .parquet        a row per image: each column is an array; the texts in a second file
"""

import json
from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten

import numpy as np

from crl.run.errors import UserError


def read_given(files: Sequence[Path]) -> dict[str, np.ndarray]:
    """All arrays of the files, by name. A UserError if a file is missing, damaged or of another
    format, or if a name stands in two files."""
    arrays: dict[str, np.ndarray] = {}
    for file in files:
        if not file.is_file():
            raise UserError(f"there is no file {file}")
        if file.suffix not in READERS:
            raise UserError(f"{file} must end with {', '.join(READERS)}; see crl/run/given.py")
        try:
            content = READERS[file.suffix](file)
        except Exception as error:  # for a damaged file the readers raise nearly anything
            if "allow_pickle" in str(error):
                raise UserError(f"{file} is no NPZ file, or holds Python objects, which are "
                                "never loaded, since that runs code") from error  # fmt: skip
            raise UserError(f"cannot read {file}: {shorten(str(error), 160)}") from error
        if twice := arrays.keys() & content.keys():
            raise UserError(f"{file} holds {min(twice)}, which another file holds too")
        arrays |= content
    return arrays


def _npz(file: Path) -> dict[str, np.ndarray]:
    stored = np.load(file, allow_pickle=False)
    if not isinstance(stored, np.lib.npyio.NpzFile):
        raise ValueError("it must be an archive of named arrays, see numpy.savez")
    with stored:
        return {key: stored[key] for key in stored.files}


def _safetensors(file: Path) -> dict[str, np.ndarray]:
    from safetensors import safe_open

    with safe_open(file, "np") as stored:
        arrays = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118
        texts = stored.metadata() or {}
    return arrays | {k: np.array(json.loads(v)) for k, v in texts.items() if v.startswith("[")}


def _parquet(file: Path) -> dict[str, np.ndarray]:
    from pyarrow import parquet

    table = parquet.read_table(file, page_checksum_verification=True)
    return {name: _column(table[name].combine_chunks()) for name in table.column_names}


def _column(column) -> np.ndarray:
    """A column of numbers, texts, or lists of one length -> (rows,), (rows, D) or (rows, Q, D)."""
    import pyarrow as pa
    import pyarrow.compute as pc

    shape = [len(column)]
    while pa.types.is_nested(column.type):
        lengths = pc.unique(pc.list_value_length(column)).to_pylist()
        if len(lengths) != 1 or lengths[0] is None:
            raise ValueError("a column holds lists of different lengths")
        shape.append(lengths[0])
        column = column.flatten()
    if column.null_count:
        raise ValueError("a column has gaps")
    values = column.to_numpy(zero_copy_only=False)
    return (values.astype(str) if values.dtype == object else values).reshape(shape)


READERS = {".npz": _npz, ".safetensors": _safetensors, ".parquet": _parquet}


def checked(
    files: Sequence[Path], arrays: dict[str, np.ndarray], **shapes: str
) -> dict[str, np.ndarray]:
    """The arrays named in `shapes`; embeddings as float32 of any length, the others as they are.

    `shapes` are the axes of each array, e.g. image="N D|N Q D", labels="N", query="Q 3". The same
    letter means the same length everywhere; a number is that length; `|` separates two allowed
    shapes. Arrays whose last axis is D are embeddings: a UserError if they are not finite, have a
    row of zeros, or if float32 cannot hold their length."""
    place = ", ".join(map(str, files))
    forms = {k: [f"({', '.join(a.split())})" for a in s.split("|")] for k, s in shapes.items()}
    wanted = ", ".join(f"{key} {' or '.join(form)}" for key, form in forms.items())
    if missing := [key for key in shapes if key not in arrays]:
        raise UserError(f"{place} must hold {wanted}; {', '.join(missing)} is missing")
    lengths: dict[str, int] = {}
    for key, shape in shapes.items():
        if not any(_fits(arrays[key].shape, axes.split(), lengths) for axes in shape.split("|")):
            shown = ", ".join(f"{name} {arrays[name].shape}" for name in shapes)
            raise UserError(f"{place} must hold {wanted}, not {shown}")
    kept = {key: arrays[key] for key in shapes}
    embedded = [key for key, shape in shapes.items() if shape.endswith("D")]
    return kept | {key: _embeddings(f"{place}: {key}", arrays[key]) for key in embedded}


def _fits(shape: tuple[int, ...], axes: list[str], lengths: dict[str, int]) -> bool:
    """Does `shape` agree with `axes` and `lengths`? If so, new lengths are added to `lengths`."""
    sizes = lengths | {axis: int(axis) for axis in axes if axis.isdecimal()}
    pairs = zip(axes, shape, strict=False)
    if len(shape) != len(axes) or any(sizes.setdefault(axis, n) != n for axis, n in pairs):
        return False
    lengths |= sizes
    return True


def _embeddings(place: str, x: np.ndarray) -> np.ndarray:
    if x.dtype.kind not in "fiu":
        raise UserError(f"{place} holds {x.dtype} values, not real numbers")
    if not np.isfinite(x).all():
        raise UserError(f"{place} holds NaN or infinity")
    with np.errstate(over="ignore"):
        x = x.astype(np.float32)
        length = np.linalg.norm(x, axis=-1)
    if not x.size or not (length > 0).all():
        raise UserError(f"{place} is empty or has a row of zeros (in float32)")
    if not np.isfinite(length).all():
        raise UserError(f"{place} has rows too long for float32; scale the embeddings")
    return x
