"""I on disk: one index serves every criterion."""

import hashlib
import math
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from pyarrow import parquet
from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError

from crl.projection import l2
from crl.run.errors import UserError, explain
from crl.run.files import alone_in, atomic_path, write_text

ROWS_AT_ONCE = 2**12
NAMES_AT_ONCE = 2**16  # a row group of names.parquet


class Manifest(BaseModel):
    """index.json."""

    model_config = ConfigDict(extra="forbid")
    format: Literal["crl-index-1"] = "crl-index-1"
    fingerprint: str  # of the VLM
    rows: PositiveInt  # N
    width: PositiveInt  # D
    dtype: Literal["float16", "float32"]
    checksum: str  # of the rows, see `Index.check`
    names: str  # checksum of names.parquet

    @property
    def rows_file(self) -> str:
        return f"rows.f{np.dtype(self.dtype).itemsize * 8}"


@dataclass(frozen=True, eq=False)
class Index:
    """I on disk: a folder with rows.f16, names.parquet and index.json.

    Attributes:
        folder: where it is.
        image: I, (N, D) float16 or float32, unit rows (up to rounding), a memory map.
        manifest: what index.json holds.
    """

    folder: Path
    image: np.ndarray = field(repr=False)
    manifest: Manifest

    @classmethod
    def open(cls, folder: Path | str, fingerprint: str | None = None) -> "Index":
        """Open an index; the rows are not read yet.

        Args:
            fingerprint: of the VLM that the index must be of; None: any.

        Raises:
            UserError: no complete index, a damaged one, or one of another VLM.
        """
        folder = Path(folder)
        try:
            manifest = Manifest.model_validate_json((folder / "index.json").read_bytes())
            size = (folder / manifest.rows_file).stat().st_size
            names = file_digest(folder / "names.parquet")
        except FileNotFoundError:
            raise UserError(f"there is no complete index in {folder}; build it") from None
        except ValidationError as error:
            raise damaged(folder, f"index.json: {explain(error)}") from None
        if fingerprint not in (None, manifest.fingerprint):
            raise UserError(f"the index {folder} is of another VLM; build one of this VLM")
        shape, dtype = (manifest.rows, manifest.width), np.dtype(manifest.dtype)
        if size != (expected := math.prod(shape) * dtype.itemsize):
            raise damaged(folder, f"{manifest.rows_file} has {size} bytes, not {expected}")
        if names != manifest.names:
            raise damaged(folder, "names.parquet has another checksum")
        # "c": nothing is ever written to the file; torch warns of arrays that are read-only
        image = np.memmap(folder / manifest.rows_file, dtype, "c", shape=shape)
        return cls(folder, image, manifest)

    def __len__(self) -> int:
        return len(self.image)

    def names(self, rows: Iterable[int]) -> list[str]:
        """The file names of some rows; only the parts of the file that hold them are read."""
        rows, found = np.fromiter(rows, int), {}
        with parquet.ParquetFile(self.folder / "names.parquet") as file:
            for group in np.unique(rows // NAMES_AT_ONCE):
                names = file.read_row_group(int(group))["name"]
                mine = rows[rows // NAMES_AT_ONCE == group]
                found |= {row: names[row % NAMES_AT_ONCE].as_py() for row in mine.tolist()}
        return [found[row] for row in rows.tolist()]

    def check(self) -> None:
        """Read all rows (a second or two per gigabyte) and compare their checksum.

        Raises:
            UserError: they have changed since they were written.
        """
        hasher = hashlib.blake2b(digest_size=16)
        for start in range(0, len(self), ROWS_AT_ONCE):
            hasher.update(self.image[start : start + ROWS_AT_ONCE])
        if hasher.hexdigest() != self.manifest.checksum:
            raise damaged(self.folder, f"{self.manifest.rows_file} has another checksum")


def file_digest(file: Path) -> str:
    hasher = hashlib.blake2b(digest_size=16)
    with open(file, "rb") as opened:
        while block := opened.read(2**20):
            hasher.update(block)
    return hasher.hexdigest()


def damaged(folder: Path, why: str) -> UserError:
    return UserError(f"the index {folder} is damaged ({' '.join(why.split())}); build it again")


def build_index(
    folder: Path | str,
    parts: Iterable[tuple[Sequence[str], np.ndarray]],
    fingerprint: str,
    dtype: Literal["float16", "float32"] = "float16",
) -> Index:
    """Write an index part by part. An older index in `folder` stays until the new one is complete.

    Args:
        parts: (file names, image embeddings (n, D) of any length), e.g. 1,000 at once.
        fingerprint: of the VLM that made the embeddings.
        dtype: of the stored rows; float16 changes a cosine by less than 0.001.

    Raises:
        UserError: no images; parts that do not fit each other; (n, Q, D) embeddings (BLIP-2);
            embeddings that are not finite or zero; a name that is not Unicode; or another command
            is at work in `folder`.
    """
    folder, count, width, names = Path(folder), 0, 0, []
    hasher = hashlib.blake2b(digest_size=16)
    schema = pa.schema([("name", pa.string())])
    rows_file = f"rows.f{np.dtype(dtype).itemsize * 8}"
    with alone_in(folder):
        with ExitStack() as stack:
            rows = stack.enter_context(atomic_path(folder / rows_file)).open("wb")
            table = stack.enter_context(atomic_path(folder / "names.parquet"))
            stack.enter_context(rows)
            writer = stack.enter_context(parquet.ParquetWriter(table, schema))
            for part, image in parts:
                x = _checked(part, np.asarray(image), width).astype(dtype)
                rows.write(np.ascontiguousarray(x))
                hasher.update(np.ascontiguousarray(x))
                count, width = count + len(x), x.shape[1]
                names += part
                while len(names) >= NAMES_AT_ONCE:
                    _write_names(writer, names[:NAMES_AT_ONCE])
                    names = names[NAMES_AT_ONCE:]
            if not count:
                raise UserError("an index needs one image or more")
            _write_names(writer, names)
            writer.close()
            names_checksum = file_digest(table)
            # New rows never have an old manifest.
            for old in ("index.json", "rows.f16", "rows.f32"):
                (folder / old).unlink(missing_ok=True)
        manifest = Manifest(
            fingerprint=fingerprint,
            rows=count,
            width=width,
            dtype=dtype,
            checksum=hasher.hexdigest(),
            names=names_checksum,
        )
        write_text(folder / "index.json", manifest.model_dump_json(indent=2))
    return Index.open(folder)


def _checked(names: Sequence[str], image: np.ndarray, width: int) -> np.ndarray:
    """Unit rows of a part, float32; see `build_index` for what is refused."""
    if image.ndim == 3:
        raise UserError(
            "an index holds one vector per image, and this VLM gives several; choose another VLM"
        )
    if image.ndim != 2 or len(image) != len(names) or image.shape[1] != (width or image.shape[1]):
        raise UserError(
            f"{len(names)} names and embeddings {image.shape} do not fit an index of width "
            f"{width or 'D'}"
        )
    image = image.astype(np.float32)
    if not (np.isfinite(image).all() and image.any(axis=1).all()):
        raise UserError("an embedding is not finite, or all zeros; check the VLM")
    return l2(image)


def _write_names(writer: parquet.ParquetWriter, names: list[str]) -> None:
    try:
        writer.write_table(pa.table({"name": pa.array(names, pa.string())}))
    except UnicodeEncodeError as error:
        raise UserError(f"the file name {error.object!r} is not valid Unicode; rename it") from None
