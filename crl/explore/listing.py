"""Lists of images: what is in a folder, a text file or an object store, and images.parquet, which
`crl embed` writes beside a store: a row per image, its path and digest; the metadata name
the VLM and hold a checksum of all."""

import errno
import json
import os
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from textwrap import shorten
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import FileSelector, FileSystem, FileType
from pydantic import BaseModel, Field

from crl.images import Listing, image_files, left_out, shown
from crl.run.errors import UserError
from crl.run.files import atomic_path, portable, read_text
from crl.run.results import digest
from crl.run.store import digest_array

NAME = "images.parquet"


class About(BaseModel):
    """What images.parquet says of the embeddings."""

    fingerprint: Annotated[str, Field(pattern=r"^[\w-][\w.-]*$")]  # of the VLM; names a folder
    vlm: str  # its name
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    decode: Literal["full", "fast"] = "full"
    root: str = ""  # folder that relative paths start from; "": the working directory


def write_listing(
    file: Path, paths: Sequence[str], digests: Sequence[bytes], about: dict[str, Any]
) -> None:
    """Write N paths and N digests of 16 bytes, atomically; `about` has the fields of `About`."""
    columns = [pa.array(paths, pa.string()), pa.array(digests, pa.binary(16))]
    checksum = digest(list(paths), b"".join(digests).hex(), about)
    metadata = {"crl": json.dumps(about), "checksum": checksum}
    with atomic_path(file) as temporary:
        pq.write_table(pa.table(columns, ["path", "digest"], metadata=metadata), temporary)


def is_listing(file: Path) -> bool:
    """Is it a listing, maybe a damaged one? The images.parquet of `crl explore` is none."""
    try:
        return file.is_file() and b"pandas" not in (pq.read_schema(file).metadata or {})
    except (OSError, pa.ArrowException):
        return True


def read_listing(file: Path) -> tuple[list[str], np.ndarray, About]:
    """N paths, digests (N,) dtype S16, and what the file says of them."""
    try:
        table = pq.read_table(file, columns=["path", "digest"])
        about = json.loads(table.schema.metadata[b"crl"])
        paths, digests = table["path"].to_pylist(), table["digest"].to_pylist()
        checksum = digest(paths, b"".join(digests).hex(), about)
        if not paths or table.schema.metadata[b"checksum"] != checksum.encode():
            raise ValueError("it is empty, or its checksum is wrong")
        return paths, digest_array(digests), About.model_validate(about)
    except FileNotFoundError:
        raise UserError(f"there is no {file}; `crl embed` writes it") from None
    except Exception as error:  # of a damaged file the reader raises nearly anything
        reason = f"is no complete listing of images ({shorten(str(error), 200)})"
        raise UserError(f"{file} {reason}; remove it and run `crl embed` again") from error


@dataclass(frozen=True)
class RemoteFile:
    """A file of an object store."""

    path: str  # bucket/key
    store: FileSystem = field(compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.store.type_name}://{self.path}"

    def read_bytes(self) -> bytes:
        """Its content. A UserError if the store does not answer: no fault of the image."""
        try:
            with self.store.open_input_stream(self.path) as stream:
                return stream.read()
        except FileNotFoundError:
            raise FileNotFoundError(errno.ENOENT, "No such file", str(self)) from None
        except OSError as error:
            reason = shorten(str(error), 300)
            raise UserError(f"cannot read {self}: {reason}; run the command again") from error


def find_images(where: str) -> tuple[list[str], str]:
    """Names of images, sorted, and the folder that they are relative to: those in a folder, in a
    list with a name per line, or below an object store's prefix."""
    if "://" in where:
        return remote_names(where), ""
    place = Path(where).expanduser().resolve()
    if not place.is_file():
        return [str(file.relative_to(place)) for file in image_files(place)], str(place)
    lines = read_text(place, "surrogateescape").splitlines()
    if not (names := sorted({_named_here(line) for line in lines if line})):
        raise UserError(f"{place} names no images; write one on each line")
    missing = [shown(n) for n in names if "://" not in n and not os.path.isfile(n)]
    if missing:
        raise UserError(f"{place}: {len(missing):,} files are missing, the first: {missing[0]}")
    return names, str(Path.cwd())


def _named_here(name: str) -> str:
    """The name that a file of a list has on this machine; the list may come from another system."""
    forms = [name, portable(name), unicodedata.normalize("NFD", portable(name))]
    return next(filter(os.path.isfile, forms), name)


def remote_names(uri: str) -> list[str]:
    """`s3://bucket/key` of each image below `s3://bucket/prefix`, by the ending of its name."""
    try:
        store, prefix = FileSystem.from_uri(uri)
        files = store.get_file_info(FileSelector(prefix, recursive=True, allow_not_found=True))
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise UserError(f"cannot list {without_keys(uri)}: {shorten(str(error), 300)}") from error
    names, others = [], Counter[str]()
    for path in [info.path for info in files if info.type == FileType.File]:
        if kind := left_out(PurePosixPath(path.removeprefix(prefix))):
            others[kind] += 1
        else:
            names.append(f"{store.type_name}://{path}")
    remarks = Listing(Path(), others=others).remarks()
    if not names:
        raise UserError("; ".join([f"there are no images in {without_keys(uri)}", *remarks]))
    if remarks:
        warnings.warn(f"{without_keys(uri)}: {'; '.join(remarks)}", stacklevel=2)
    return sorted(names)


def without_keys(uri: str) -> str:
    """A URI to show, without the keys and options that it may hold; a path as it is."""
    return re.sub("//[^/]*@", "//", uri.partition("?")[0]) if "://" in uri else uri


def open_file(name: str, root: str, uri: str = "") -> Path | RemoteFile:
    """The file of a name of `find_images`; the options in `uri` say how to reach the store."""
    scheme, remote, path = name.partition("://")
    if not remote:
        return Path(root, name)
    store = uri if "://" in uri else f"{scheme}://{path.partition('/')[0]}"
    return RemoteFile(path, FileSystem.from_uri(store)[0])
