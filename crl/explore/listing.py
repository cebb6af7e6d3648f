"""images.parquet: the images whose embeddings a folder holds, as scripts/embed_ray.py writes it.

A row per image, in order: path, and digest (16 bytes of the content). The metadata names the VLM
and holds a checksum of all. The embeddings lie beside the file, in a store (`crl.run.store`),
identified by the digests.
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
COLUMNS = ("path", "digest")


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
    """N paths, digests (N,) dtype S16, and what the file says of them."""

    paths: list[str]
    digests: np.ndarray
    about: About


def write_listing(
    file: Path, paths: Sequence[str], digests: Sequence[bytes], about: dict[str, Any]
) -> None:
    """Write a listing, atomically.

    Args:
        digests: N digests of 16 bytes.
        about: the fields of `About`; others are kept but not read.
    """
    columns = [pa.array(paths, pa.string()), pa.array(digests, pa.binary(16))]
    checksum = digest(list(paths), b"".join(digests).hex(), about)
    metadata = {"crl": json.dumps(about), "checksum": checksum}
    with atomic_path(file) as temporary:
        pq.write_table(pa.table(columns, COLUMNS, metadata=metadata), temporary)


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
        paths, digests = table["path"].to_pylist(), table["digest"].to_pylist()
        checksum = digest(paths, b"".join(digests).hex(), about)
        if not paths or table.schema.metadata[b"checksum"] != checksum.encode():
            raise ValueError("it is empty, or its checksum is wrong")
        return ListedImages(paths, digest_array(digests), About.model_validate(about))
    except FileNotFoundError:
        raise UserError(f"there is no {file}; scripts/embed_ray.py writes it") from None
    except Exception as error:  # of a damaged file the reader raises nearly anything
        reason = shorten(str(error), 200)
        raise UserError(f"{file} is no complete listing of images ({reason}); remove it and run "
                        "scripts/embed_ray.py again") from error  # fmt: skip
