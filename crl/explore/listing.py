"""images.parquet: the images whose embeddings a folder holds, as scripts/embed_ray.py writes it.

A row per image, in order: path, digest (16 bytes of the content), width and height in pixels. The
metadata names the VLM and holds a checksum of all. The embeddings lie beside the file, in a store
(`crl.run.store`), identified by the digests.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, Field

from crl.run.errors import UserError
from crl.run.files import atomic_path
from crl.run.results import digest
from crl.run.store import digest_array

NAME = "images.parquet"
COLUMNS = ("path", "digest", "width", "height")


class About(BaseModel):
    """What a listing says of its embeddings.

    Attributes:
        fingerprint: of the VLM, whose name is `vlm`, in that precision.
        root: folder that relative paths start from; "": the working directory.
    """

    fingerprint: Annotated[str, Field(pattern=r"^[\w-]+$")]  # names a folder
    vlm: str
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    root: str = ""


class ListedImages(NamedTuple):
    """N paths, digests (N,) dtype S16, sizes (N, 2) in pixels, and what the file says of them."""

    paths: list[str]
    digests: np.ndarray
    sizes: np.ndarray
    about: About


def write_listing(
    file: Path, paths: Sequence[str], digests: np.ndarray, sizes: np.ndarray, about: dict[str, Any]
) -> None:
    """Write a listing, atomically.

    Args:
        digests: (N,) dtype S16 or V16, of `embed_images`.
        sizes: (N, 2) widths and heights in pixels.
        about: the fields of `About`; others are kept but not read.
    """
    digests, sizes = np.asarray(digests).view("V16"), np.asarray(sizes, np.int64).reshape(-1, 2)
    content = pa.array(digests.tolist(), pa.binary(16))
    columns = [pa.array(paths, pa.string()), content, *map(pa.array, sizes.T)]
    metadata = {"crl": json.dumps(about), "checksum": _checksum(paths, digests, sizes, about)}
    with atomic_path(file) as temporary:
        pq.write_table(pa.table(columns, COLUMNS, metadata=metadata), temporary)


def _checksum(paths: Sequence[str], digests: np.ndarray, sizes: np.ndarray, about: Any) -> str:
    return digest(list(paths), digests.view(np.uint8), sizes, about)


def is_listing(file: Path) -> bool:
    """Is it a listing, maybe a damaged one? The images.parquet of explore.py is none."""
    try:
        return file.is_file() and b"pandas" not in (pq.read_schema(file).metadata or {})
    except (OSError, pa.ArrowException):
        return True


def read_listing(file: Path) -> ListedImages:
    """
    Raises:
        UserError: no such file, a damaged one, or no listing.
    """
    try:
        table = pq.read_table(file, columns=list(COLUMNS))
        about = json.loads(table.schema.metadata[b"crl"])
        paths, digests = table["path"].to_pylist(), digest_array(table["digest"].to_pylist())
        sizes = np.column_stack([table["width"].to_numpy(), table["height"].to_numpy()])
        checksum = _checksum(paths, digests, sizes, about)
        if not paths or table.schema.metadata[b"checksum"] != checksum.encode():
            raise ValueError("it is empty, or its checksum is wrong")
        return ListedImages(paths, digests, sizes, About.model_validate(about))
    except FileNotFoundError:
        raise UserError(f"there is no {file}; scripts/embed_ray.py writes it") from None
    except Exception as error:  # of a damaged file the reader raises nearly anything
        reason = shorten(str(error), 200)
        raise UserError(f"{file} is no complete listing of images ({reason}); remove it and run "
                        "scripts/embed_ray.py again") from error  # fmt: skip
