"""Reads and checks NPZ files with embeddings made elsewhere (`features=FILE.npz`)."""

import re
import zlib
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from crl.run.errors import UserError


def read_npz(file: Path) -> dict[str, np.ndarray]:
    """All arrays of an NPZ file; pickled arrays are refused.

    Raises:
        UserError: no such file, a damaged file, or a file of another format.
    """
    if file.exists() and not file.is_file():
        raise UserError(f"{file} is not a regular file")
    try:
        stored = np.load(file, allow_pickle=False)
        if not isinstance(stored, np.lib.npyio.NpzFile):
            raise UserError(f"{file} must be an NPZ archive of named arrays, see numpy.savez")
        with stored:
            return {key: stored[key] for key in stored.files}
    except FileNotFoundError as error:
        raise UserError(f"there is no file {file}") from error
    except (OSError, ValueError, TypeError, EOFError, LookupError, NotImplementedError) as error:
        if "pickle" in str(error):
            raise UserError(
                f"{file} is no NPZ file, or holds Python objects, which are never loaded, since "
                "that runs their code; save plain arrays with numpy.savez"
            ) from error
        raise UserError(f"cannot read {file} as NPZ: {error}") from error
    except MemoryError as error:
        raise UserError(f"{file} does not fit into the memory, or is damaged") from error
    except (BadZipFile, zlib.error, SyntaxError, RuntimeError) as error:
        raise UserError(f"{file} is damaged: {error}; make it again") from error


def checked(file: Path, arrays: dict[str, np.ndarray], **shapes: str) -> dict[str, np.ndarray]:
    """The arrays named in `shapes`, with their shapes checked; other arrays are ignored.

    >>> found = checked(Path("mine.npz"), {"image": np.eye(3)}, image="N D")
    >>> found["image"].dtype
    dtype('float32')

    Args:
        shapes: axes of each array, e.g. image="N D", labels="N", query="Q 3". The same letter means
            the same length everywhere; a number is that length; `|` separates two allowed shapes.
            Arrays whose last axis is D are embeddings.

    Returns:
        Embeddings as float32, not normalised; the other arrays as they are.

    Raises:
        UserError: a missing array; a wrong shape; embeddings that are not finite, have a row of
            zeros, or are so large or small that float32 cannot hold their length.
    """
    missing = [key for key in shapes if key not in arrays]
    if missing:
        raise UserError(f"{file} must hold {_listed(shapes)}; {', '.join(missing)} is missing")
    lengths: dict[str, int] = {}
    for key, shape in shapes.items():
        if not any(_fits(arrays[key].shape, axes.split(), lengths) for axes in shape.split("|")):
            found = ", ".join(f"{name} {arrays[name].shape}" for name in shapes)
            raise UserError(f"{file} must hold {_listed(shapes)}, not {found}")
    return {
        key: _embeddings(file, key, arrays[key]) if shape.endswith("D") else arrays[key]
        for key, shape in shapes.items()
    }


def _listed(shapes: dict[str, str]) -> str:
    """`{"image": "N D"}` -> `image (N, D)`."""
    return ", ".join(
        f"{key} " + " or ".join(f"({', '.join(a.split())})" for a in re.split(r" *\| *", shape))
        for key, shape in shapes.items()
    )


def _fits(shape: tuple[int, ...], axes: list[str], lengths: dict[str, int]) -> bool:
    """Does `shape` agree with `axes` and with `lengths`? If so, new lengths are added to them."""
    if len(shape) != len(axes):
        return False
    wanted = {a: int(a) if a.isdecimal() else lengths.get(a, n) for a, n in zip(axes, shape)}  # noqa: B905
    if any(wanted[axis] != length for axis, length in zip(axes, shape, strict=True)):
        return False
    lengths.update({axis: n for axis, n in wanted.items() if not axis.isdecimal()})
    return True


def _embeddings(file: Path, key: str, x: np.ndarray) -> np.ndarray:
    if x.dtype.kind not in "fiu":
        raise UserError(f"{file}: {key} holds {x.dtype} values, not real numbers")
    if not np.isfinite(x).all():
        raise UserError(f"{file}: {key} holds NaN or infinity")
    with np.errstate(over="ignore"):
        x = x.astype(np.float32)
        length = np.linalg.norm(x, axis=-1)
    if not x.size or not (length > 0).all():
        raise UserError(f"{file}: {key} is empty or has a row of zeros (in float32)")
    if not np.isfinite(length).all():
        raise UserError(f"{file}: {key} has rows too long for float32; scale the embeddings")
    return x
