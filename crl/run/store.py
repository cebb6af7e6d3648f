"""The one on-disk format of embeddings: cache, what many machines write, and what search reads.

A store is a folder, `<cache>/<fingerprint of the VLM>/<image or text>-4/`, with

    meta.json        which VLM, the shape of one embedding and its dtype
    NAME.rows        raw rows, float32 (float16 if that is the VLM's precision)
    NAME.entries     for each row 20 bytes: digest of what it embeds, and a checksum of the VLM's
                     fingerprint, that digest and the row: rows of other VLMs do not fit

Any number of processes write at once, each to two files of its own. Rows reach the disk before
their entries, so what a kill leaves at the end is cut off. A row whose checksum is wrong counts as
missing and is computed again. Digests are of the content: copies and renamed files share rows.
"""

import hashlib
import json
import os
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO
from zlib import crc32

import numpy as np
from filelock import FileLock, Timeout

from crl.run.errors import UserError
from crl.run.files import CACHE, HOST, no_link, remove_leftovers, write_text

EMBEDDINGS = CACHE / "embeddings"
VERSION = 4  # of the format, and of the rule for images (crl/images.py); others are not seen
DIGEST = "S16"  # can be sorted, as V16 cannot; an array keeps zeros at the end, an element does not
ENTRY = np.dtype([("digest", DIGEST), ("checksum", "<u4")])
BATCHES, SECONDS = 8, 2  # wait for the disk together: waiting is what costs; a kill loses no more
ROWS_AT_ONCE = 4096
FILE = 2**32  # a place is file number * FILE + row


def content_digest(content: bytes) -> bytes:
    """16 bytes that change whenever `content` does."""
    return hashlib.blake2b(content, digest_size=16).digest()


def digest_array(digests: Iterable[bytes]) -> np.ndarray:
    """N digests as an array (N,), dtype S16."""
    return np.frombuffer(b"".join(digests), DIGEST)


def memory_map(shape: tuple[int, ...], folder: Path) -> np.ndarray:
    """A float32 array of zeros in an unnamed temporary file, in `folder` if that is writable."""
    with tempfile.TemporaryFile(dir=folder if os.access(folder, os.W_OK) else None) as file:
        if hasattr(os, "posix_fallocate"):  # a full disk is noticed now, not as a crash later
            os.posix_fallocate(file.fileno(), 0, int(np.prod(shape)) * 4)
        return np.memmap(file, np.float32, "w+", shape=shape)


class Store:
    """A folder of embeddings of one VLM. One thread appends; others may ask `digest in store`.
    `about` is what meta.json says of the VLM: fingerprint, vlm (its name), precision."""

    def __init__(self, folder: Path, about: dict[str, str]) -> None:
        self.folder, self.about = Path(folder), about
        self.dtype = np.dtype("<f4" if about["precision"] == "fp32" else "<f2")
        self.shape: tuple[int, ...] | None = None  # of one embedding, (D,) or (Q, D)
        self._files: dict[Path, int] = {}  # .rows -> how many of its rows are in the index
        self._digests, self._places = np.empty(0, DIGEST), np.empty(0, int)  # the index, sorted
        self._waiting: dict[bytes, np.ndarray] = {}  # digest -> row
        self._batches, self._flushed = 0, time.monotonic()  # in `_waiting`, and since when
        self._output: list[BinaryIO] = []  # .rows and .entries that this process writes
        self._complete = 0  # rows in them
        self._stack = ExitStack()
        self.refresh()

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._waiting or self._find(digest_array([digest]))[0] >= 0

    def missing(self, digests: Iterable[bytes]) -> list[bytes]:
        """The digests that are not stored yet, each once, in order of first appearance."""
        return [digest for digest in dict.fromkeys(digests) if digest not in self]

    # ---- reading ----

    def refresh(self) -> None:
        """Enter the rows that this and other processes have written since into the index."""
        self.shape = self.shape or self._read_meta()
        digests, places = [self._digests], [self._places]
        for file in sorted(self.folder.glob("*.rows")) if self.shape else []:
            before, after = self._files.setdefault(file, 0), self._complete_rows(file)
            if after > before:
                entries = np.memmap(file.with_suffix(".entries"), ENTRY, "r", shape=after)
                digests.append(entries["digest"][before:])
                first = list(self._files).index(file) * FILE
                places.append(np.arange(first + before, first + after))
                self._files[file] = after
        if len(digests) > 1:
            keys = np.concatenate(digests)
            del digests, entries  # of many rows, no more than necessary is in memory at once
            order = np.argsort(keys, kind="stable")
            self._digests = keys[order]
            del keys
            self._places = np.concatenate(places)[order]

    def gather(self, digests: np.ndarray) -> np.ndarray | None:
        """The embeddings of digests (N,), dtype S16 or V16, in order: (N, D) or (N, Q, D) float32,
        a memory map; None if one is missing. A damaged row counts as missing, with a warning."""
        self.flush()
        digests = digests.view(DIGEST)
        if (self._find(digests) < 0).any():
            self.refresh()
        at = self._find(digests)
        if (at < 0).any():
            return None
        result = memory_map((len(digests), *self.shape), self.folder)
        numbers, places = np.divmod(self._places[at], FILE)
        damaged = []
        for number, file in enumerate(self._files):
            wanted = np.flatnonzero(numbers == number)
            wanted = wanted[np.argsort(places[wanted], kind="stable")]  # in the file's order
            for start in range(0, len(wanted), ROWS_AT_ONCE):
                some = wanted[start : start + ROWS_AT_ONCE]
                rows = places[some]
                stored = np.memmap(file, self.dtype, "r", shape=(rows[-1] + 1, *self.shape))[rows]
                entries = np.memmap(file.with_suffix(".entries"), ENTRY, "r")[rows]
                good = self._checksums(entries["digest"], stored) == entries["checksum"]
                result[some] = stored
                damaged.append(at[some[~good]])
        if not (lost := np.unique(np.concatenate(damaged))).size:
            return result
        lost_digests = self._digests[lost]
        self._digests, self._places = (np.delete(x, lost) for x in (self._digests, self._places))
        if gone := int((self._find(lost_digests) < 0).sum()):  # no other copy was written since
            warning = f"{gone} damaged row(s) in {self.folder}; what they held is computed again"
            warnings.warn(warning, stacklevel=3)
        return self.gather(digests)

    def _find(self, digests: np.ndarray) -> np.ndarray:
        """Where in the index digests (N,) are; -1: nowhere."""
        keys = self._digests
        at = np.searchsorted(keys, digests)
        inside = at < len(keys)
        inside[inside] = keys[at[inside]] == digests[inside]
        return np.where(inside, at, -1)

    def _complete_rows(self, file: Path) -> int:
        """How many rows in a .rows file have an entry."""
        try:
            entries = file.with_suffix(".entries").stat().st_size // ENTRY.itemsize
        except FileNotFoundError:
            return 0
        return min(entries, file.stat().st_size // (int(np.prod(self.shape)) * self.dtype.itemsize))

    # ---- writing ----

    def append(self, digests: list[bytes], rows: np.ndarray) -> None:
        """Store the embeddings of one batch, (B, D) or (B, Q, D). A UserError if they are not
        finite, if a row is zeros, or if the VLM's others have another shape."""
        with np.errstate(over="ignore"):  # to infinity in float16, which is refused
            stored = rows.astype(self.dtype)
        if not np.isfinite(stored).all():
            advice = "try precision fp32, or check the weights"
            model = f"{self.about['vlm']} in {self.about['precision']}"
            raise UserError(f"{model} gave NaN or infinite embeddings; {advice}")
        if not stored.any(axis=-1).all():
            raise UserError(f"{self.about['vlm']} gave an embedding of zeros; check its weights")
        if self.shape is None:
            self.shape = rows.shape[1:]
            remove_leftovers(self.folder)
            meta = json.dumps(self._meta(self.shape, self.about["vlm"]), indent=1)
            write_text(self.folder / "meta.json", meta + "\n")
            self.refresh()  # rows of before, if meta.json was lost
        if rows.shape[1:] != self.shape:
            raise UserError(f"{self.about['vlm']} gave embeddings of shape {rows.shape[1:]}; those "
                            f"in {self.folder} have {self.shape}")  # fmt: skip
        self._waiting.update(zip(digests, stored, strict=True))
        self._batches += 1
        if self._batches == BATCHES or time.monotonic() - self._flushed > SECONDS:
            self.flush()

    def flush(self) -> None:
        if not self._waiting:
            return
        if not self._output:
            self._open()
        rows, entries = np.stack(list(self._waiting.values())), np.empty(len(self._waiting), ENTRY)
        entries["digest"] = digest_array(self._waiting)
        entries["checksum"] = self._checksums(entries["digest"], rows)
        for file, content in zip(self._output, (rows, entries), strict=True):
            file.seek(self._complete * content[:1].nbytes)
            file.truncate()  # what a killed process or a full disk left
            file.write(content.tobytes())
            file.flush()
            os.fsync(file.fileno())
        self._complete += len(rows)
        self._waiting, self._batches, self._flushed = {}, 0, time.monotonic()
        self.refresh()

    def _open(self) -> None:
        """Open two files that no other process writes; those of ended processes are continued."""
        for number in count():
            file = self.folder / f"{HOST}-{number}.rows"
            try:
                self._stack.enter_context(FileLock(self.folder / f".{file.stem}.lock", timeout=0))
                break
            except Timeout:
                continue
            except NotImplementedError:  # a disk without locks
                file = self.folder / f"{HOST}-{os.getpid()}.rows"
                break
        for path in (file, file.with_suffix(".entries")):
            path.touch()
            stream = open(path, "r+b", opener=no_link)  # noqa: SIM115
            self._output.append(self._stack.enter_context(stream))
        self._complete = self._complete_rows(file)

    def close(self) -> None:
        """Write what waits, and let other processes continue the files."""
        try:
            with self._stack:
                self.flush()
        finally:
            self._output = []

    # ---- meta.json ----

    def _read_meta(self) -> tuple[int, ...] | None:
        """The shape of one embedding; None if there is no meta.json yet, or a damaged one."""
        with suppress(FileNotFoundError, ValueError, KeyError, TypeError):
            meta = json.loads((self.folder / "meta.json").read_text(encoding="utf-8"))
            shape = tuple(meta["shape"])
            return shape if meta == self._meta(shape, meta["vlm"]) else None
        return None  # `append` writes it anew

    def _meta(self, shape: tuple[int, ...], vlm: str) -> dict[str, Any]:
        """What meta.json holds. One VLM may have several names: that of the first is kept."""
        meta = {"format": f"crl-embeddings-{VERSION}", "dtype": self.dtype.name,
                "shape": list(shape), **self.about, "vlm": vlm}  # fmt: skip
        return {**meta, "checksum": crc32(json.dumps(meta).encode())}

    def _checksums(self, digests: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """(n,) uint32: CRC-32 of the fingerprint, each digest and its row."""
        names = np.ascontiguousarray(digests).view(np.uint8).reshape(-1, 16)
        content = np.ascontiguousarray(rows).reshape(len(rows), -1).view(np.uint8)
        start, pairs = crc32(self.about["fingerprint"].encode()), zip(names, content, strict=True)
        sums = (crc32(row, crc32(name, start)) for name, row in pairs)
        return np.fromiter(sums, np.uint32, len(rows))


@contextmanager
def open_store(vlm: Any, kind: str, cache: Path | None) -> Iterator[Store]:
    """The embeddings of one VLM and kind (`image`, `text`); with `cache=None` they are deleted
    after the block. What was appended before an error or an interrupt is kept."""
    precision = getattr(vlm, "precision", "fp32")
    about = {"fingerprint": vlm.fingerprint, "vlm": vlm.name, "precision": precision}
    with ExitStack() as stack:
        root = cache or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        store = Store(Path(root).expanduser() / vlm.fingerprint / f"{kind}-{VERSION}", about)
        stack.callback(store.close)
        store.folder.mkdir(parents=True, exist_ok=True)
        yield store
