"""Reads embeddings in Parquet files, as several machines make them (scripts/embed_ray.py).

A folder holds manifest.json, see `Manifest`, and part-*.parquet with one row per image: path,
digest (16 bytes, see `crl.run.cache.content_digest`), width, height, and embedding, D or Q*D
numbers. The metadata of each file has the fingerprint of the VLM. Files are read by row groups,
never as a whole.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, Field, PositiveInt, ValidationError

from crl.run.digests import DIGEST
from crl.run.errors import UserError, explain

FORMAT = "crl-parquet-1"


class Manifest(BaseModel):
    """What a folder of embeddings says of itself.

    Attributes:
        fingerprint: of the VLM, whose name is `vlm`, in that precision.
        shape: of one embedding: [D], or [Q, D].
        root: folder that relative paths start from; "": the working directory.
        files: the Parquet files, in the order of their names.
    """

    format: Literal["crl-parquet-1"]
    fingerprint: str
    vlm: str
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    dtype: Literal["float32", "float16"]
    shape: Annotated[list[PositiveInt], Field(min_length=1, max_length=2)]
    root: str = ""
    files: list[Path] = []

    def must_be_of(self, fingerprint: str, folder: Path) -> None:
        """
        Raises:
            UserError: the embeddings in `folder` are of another VLM than that of `fingerprint`.
        """
        if fingerprint != self.fingerprint:
            raise UserError(
                f"the embeddings in {folder} are of {self.vlm} in {self.precision}, fingerprint "
                f"{self.fingerprint}; the VLM in use has {fingerprint}: use the same VLM and "
                "precision"
            )


def is_embeddings(folder: Path) -> bool:
    """Whether `folder` holds such files: it has a manifest.json that names the format."""
    try:
        return FORMAT in (folder / "manifest.json").read_text(encoding="utf-8")
    except (OSError, UnicodeError):
        return False


def read_manifest(folder: Path, fingerprint: str | None = None) -> Manifest:
    """The manifest of a folder, once it is clear that all its files are complete and fit it.

    Args:
        fingerprint: of the VLM in use; None: any.

    Raises:
        UserError: no such folder, no manifest or another one, embeddings of another VLM, no Parquet
            files, or one that is cut short or does not fit.
    """
    file = folder / "manifest.json"
    try:
        manifest = Manifest.model_validate_json(file.read_bytes())
    except OSError as error:
        raise UserError(f"{folder} holds no embeddings: {file}: {error.strerror}") from error
    except ValidationError as error:
        raise UserError(f"{file} is not the manifest of embeddings: {explain(error)}") from error
    if fingerprint is not None:
        manifest.must_be_of(fingerprint, folder)
    manifest.files = sorted(folder.glob("part-*.parquet"))
    if not manifest.files:
        raise UserError(f"{folder} holds no part-*.parquet with embeddings")
    for file in manifest.files:
        _check(file, manifest)
    return manifest


def read_digests(file: Path) -> np.ndarray:
    """The digests of a file: (N,), dtype V16.

    Raises:
        UserError: the file is damaged.
    """
    with _opened(file) as opened:
        groups = range(opened.num_row_groups)
        columns = [opened.read_row_group(i, ["digest"]).column(0) for i in groups]
        chunks = [chunk for column in columns for chunk in column.chunks]
        parts = [np.frombuffer(c.buffers()[1], DIGEST)[c.offset :][: len(c)] for c in chunks]
        return np.concatenate([np.empty(0, DIGEST), *parts])


def read_sizes(file: Path) -> np.ndarray:
    """Width and height in pixels of the images of a file: (N, 2) int32.

    Raises:
        UserError: the file is damaged.
    """
    with _opened(file) as opened:
        table = opened.read(["width", "height"])
        return np.column_stack([table["width"].to_numpy(), table["height"].to_numpy()])


def read_rows(file: Path) -> Iterator[tuple[pa.ChunkedArray, np.ndarray]]:
    """Paths (n,) and embeddings (n, D) or (n, Q*D), float32, of each row group of a file.

    Raises:
        UserError: the file is damaged, or holds numbers that are not finite.
    """
    with _opened(file) as opened:
        for i in range(opened.num_row_groups):
            rows = opened.read_row_group(i, ["path", "embedding"])
            column = rows["embedding"].combine_chunks()
            flat = column.flatten().to_numpy()
            embeddings = flat.reshape(len(rows), column.type.list_size).astype(np.float32)
            if not np.isfinite(embeddings).all():
                raise UserError(f"{file} holds NaN or infinite embeddings; make it again")
            yield rows["path"], embeddings


@contextmanager
def _opened(file: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(file) as opened:
            yield opened
    except (OSError, pa.ArrowException, ValueError, LookupError) as error:
        why = " ".join(str(error).split())[:200]
        raise UserError(
            f"{file} is no complete file of embeddings ({why}); remove it and make it again"
        ) from error


def _check(file: Path, manifest: Manifest) -> None:
    with _opened(file) as opened:
        schema = opened.schema_arrow
        kind = {"float16": pa.float16(), "float32": pa.float32()}[manifest.dtype]
        width = int(np.prod(manifest.shape))
        found = schema.field("embedding").type
        if schema.field("digest").type != pa.binary(16):
            raise UserError(f"{file}: its digests are not of 16 bytes; make it again")
        if not (pa.types.is_fixed_size_list(found) and found.list_size == width):
            raise UserError(
                f"{file}: its embeddings are {found}, the manifest says {width} numbers; make it "
                "again"
            )
        if found.value_type != kind:
            raise UserError(f"{file} holds {found.value_type}, the manifest says {kind}")
        if (schema.metadata or {}).get(b"fingerprint") != manifest.fingerprint.encode():
            raise UserError(f"{file} is of another VLM than its manifest; remove it")
