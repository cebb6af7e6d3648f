"""Embeddings on disk: shards of safetensors below `<cache>/<fingerprint>/<kind>-<version>/`.

A shard holds the digests of what it embeds (content, not names: copies, renamed files and several
data sets share entries) beside the embeddings, and appears by renaming a finished temporary file.
So a killed run goes on from its last shard, and a growing folder costs only its new images. Each
shard has a checksum, which is compared when it is read: a damaged one is set aside, and what it
held is computed again. A complete cache can be used where nothing can be written.

Many small shards are merged into few large ones. In memory are the digests and their places, 24
bytes per row (`crl.run.digests`), a few megabytes of the shard that is being read, and a whole one
only while it is written.
"""

import hashlib
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import islice
from pathlib import Path

import numpy as np
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from crl.run.digests import DIGEST, DigestIndex
from crl.run.errors import UserError
from crl.run.files import atomic_path, remove_leftovers

# The most that a kill can cost. A fixed number of whole batches, so that a resumed run makes the
# same batches and gives exactly the same numbers.
BATCHES_PER_SHARD = 8
SHARD = ".safetensors"
MERGED = 64_000_000  # bytes, the most that a merged shard has; a small one has less than half
MANY = 64  # small shards: then they are merged
CHUNK = 4_000_000  # bytes of embeddings that are read at a time
VERSION = 2  # of the shards, and of the rule for images (crl/images.py); others are not seen
FORMAT = f"crl-embeddings-{VERSION}"
# In the user's cache folder, so that all working directories share it.
CACHE = Path(
    os.environ.get("CRL_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "crl")
).expanduser()
EMBEDDINGS, LLM_ANSWERS = CACHE / "embeddings", CACHE / "llm"
COMPUTED, THUMBNAILS = CACHE / "computed", CACHE / "thumbnails"


def content_digest(content: bytes) -> bytes:
    """16 bytes that change whenever `content` does."""
    return hashlib.blake2b(content, digest_size=16).digest()


def digest_array(digests: Iterable[bytes]) -> np.ndarray:
    """N digests as an array (N,), dtype V16."""
    return np.frombuffer(b"".join(digests), DIGEST)


def kept_array(
    what: str, points: np.ndarray, make: Callable[[], np.ndarray], cache: Path | None
) -> np.ndarray:
    """What `make` computes from `points`, which takes long: computed once, and kept on disk.

    Args:
        what: names the computation, and its version: other settings need another name.
        points: all that the result depends on.
        cache: the folder; None keeps nothing.
    """
    if cache is None:
        return make()
    key = hashlib.blake2b(np.ascontiguousarray(points), digest_size=16)
    key.update(f"{points.shape} {points.dtype}".encode())
    file = cache / f"{what}-{key.hexdigest()}.npy"
    with suppress(OSError, ValueError, EOFError):  # missing or damaged: computed again
        return np.load(file, allow_pickle=False)
    found = make()
    with atomic_path(file) as temporary, open(temporary, "wb") as opened:
        np.save(opened, found, allow_pickle=False)
    return found


class Store:
    """One folder of shards, and perhaps one of Parquet files, which is only read.

    Other threads may ask `digest in store` while one adds.

    Args:
        embeddings: folder of Parquet files, see `crl.run.parquet`; None: there is none.

    Raises:
        UserError: the Parquet files are of another VLM, or damaged.
    """

    def __init__(self, folder: Path, fingerprint: str, embeddings: Path | None = None) -> None:
        self.folder, self.fingerprint, self.embeddings = folder, fingerprint, embeddings
        self.files, self.index = self._without_shards()
        remove_leftovers(folder)
        self._read_folder()
        self._merge_small()

    def __contains__(self, digest: bytes) -> bool:
        return digest in self.index

    def missing(self, digests: Iterable[bytes]) -> list[bytes]:
        """The digests that are not stored yet, each once, in order of first appearance."""
        return [digest for digest in dict.fromkeys(digests) if digest not in self]

    def add_all(self, batches: Iterable[tuple[list[bytes], np.ndarray]]) -> None:
        """Store (digests, embeddings) batches, one shard at a time."""
        batches = iter(batches)
        while shard := list(islice(batches, BATCHES_PER_SHARD)):
            embeddings = np.concatenate([part for _, part in shard])
            if not np.isfinite(embeddings).all():
                raise UserError(
                    "the VLM gave NaN or infinite embeddings; try precision=fp32 or check the "
                    "checkpoint"
                )
            self._write(digest_array(digest for part, _ in shard for digest in part), embeddings)
            self._merge_small()

    def gather(self, digests: np.ndarray) -> np.ndarray | None:
        """The embeddings of digests (N,), dtype V16, in order, as a memory map of an unnamed
        temporary file: (N, D) or (N, Q, D) float32.

        None if one is missing. A damaged shard is set aside, so what it held is missing then.
        """
        places = self.index.find(digests)
        if (places < 0).any():
            return None
        order = np.lexsort((places[:, 1], places[:, 0]))  # by file, then by row
        numbers, starts = np.unique(places[order, 0], return_index=True)
        result = None
        for number, mine in zip(numbers.tolist(), np.split(order, starts[1:]), strict=True):
            file, rows, first = self.files[number], places[mine, 1], 0
            try:
                for chunk in self._chunks(file):
                    if result is None:
                        result = memory_map((len(digests), *chunk.shape[1:]), self.folder)
                    if chunk.shape[1:] != result.shape[1:]:
                        raise UserError(
                            f"the embeddings in {file} have the shape {chunk.shape[1:]}, others of "
                            f"this VLM {result.shape[1:]}; remove those that are wrong"
                        )
                    some = slice(*np.searchsorted(rows, [first, first + len(chunk)]))
                    result[mine[some]] = chunk[rows[some] - first]
                    first += len(chunk)
            except FileNotFoundError:  # another command has merged it
                self._read_folder()
                return self.gather(digests)
            except (SafetensorError, ValueError) as error:
                self._discard(number, str(error))
                return None
        assert result is not None  # `digests` is not empty
        return result

    # ---- the index: which file, by its number, and which row ----

    def _without_shards(self) -> tuple[dict[int, Path], DigestIndex]:
        files: dict[int, Path] = {}
        index = DigestIndex()
        if self.embeddings:
            from crl.run.parquet import read_digests, read_manifest  # takes a while to import

            self.manifest = read_manifest(self.embeddings, self.fingerprint)
            _enter(files, index, {file: read_digests(file) for file in self.manifest.files})
        return files, index

    def _read_folder(self) -> None:
        """Enter the shards that have come since.

        If one has gone, another command has merged it: then all are read again.
        """
        there = {file for file in self.folder.glob("*.safetensors") if file.is_file()}
        files, index = self.files, self.index
        if {file for file in files.values() if file.suffix == SHARD} - there:
            files, index = self._without_shards()
        found = {}
        try:
            # The largest come last, so that of rows which are in two shards theirs count: after a
            # kill these are a merged shard and the small ones that it was made of.
            new = sorted((file.stat().st_size, file) for file in there - set(files.values()))
            for _, file in new:
                try:
                    found[file] = self._read_digests(file)
                except (SafetensorError, ValueError, KeyError) as error:
                    _set_aside(file, str(error))
        except FileNotFoundError:
            return self._read_folder()
        _enter(files, index, found)
        self.files, self.index = files, index

    def _discard(self, number: int, why: str) -> None:
        _set_aside(self.files.pop(number), why)
        self.index.forget(number)

    # ---- shards ----

    def _write(self, digests: np.ndarray, embeddings: np.ndarray) -> None:
        ids = digests.view(np.uint8).reshape(-1, 16)
        checksum = hashlib.blake2b(ids, digest_size=16)
        checksum.update(np.ascontiguousarray(embeddings))
        manifest = {
            "format": FORMAT,
            "fingerprint": self.fingerprint,
            "count": str(len(ids)),
            "dtype": str(embeddings.dtype),
            "checksum": checksum.hexdigest(),
        }
        name = hashlib.blake2b(ids, digest_size=16).hexdigest()
        target = self.folder / f"{name}{SHARD}"
        with atomic_path(target) as temporary:
            # not save_file, which would hide that a full disk is an OSError
            temporary.write_bytes(save({"ids": ids, "embeddings": embeddings}, manifest))
        _enter(self.files, self.index, {target: digests})

    def _read_digests(self, file: Path) -> np.ndarray:
        """(N,), dtype V16."""
        with safe_open(file, "np") as opened:
            manifest = opened.metadata() or {}
            ids = opened.get_tensor("ids")
            shape = opened.get_slice("embeddings").get_shape()
        expected = {"format": FORMAT, "fingerprint": self.fingerprint, "count": str(shape[0])}
        found = {key: manifest.get(key) for key in expected}
        if found != expected or "checksum" not in manifest or ids.shape != (shape[0], 16):
            raise ValueError("its manifest does not fit")
        return ids.view(DIGEST)[:, 0]

    def _chunks(self, file: Path) -> Iterator[np.ndarray]:
        """The embeddings in a file, some rows at a time; of a shard with a wrong checksum a
        ValueError comes last."""
        if file.suffix != SHARD:
            from crl.run.parquet import read_rows

            for _, embeddings in read_rows(file):
                yield embeddings.reshape(-1, *self.manifest.shape)
            return
        with safe_open(file, "np") as opened:
            checksum = hashlib.blake2b(opened.get_tensor("ids"), digest_size=16)
            embeddings = opened.get_slice("embeddings")
            count, *shape = embeddings.get_shape()
            rows = CHUNK // int(4 * np.prod(shape)) + 1
            for first in range(0, count, rows):
                chunk = embeddings[first : min(first + rows, count)]
                checksum.update(chunk)
                yield chunk
            if checksum.hexdigest() != opened.metadata()["checksum"]:
                raise ValueError("its checksum is wrong")

    # ---- small shards become large ones ----

    def _merge_small(self) -> None:
        """If there are many small shards, rewrite them as few large ones.

        The large ones appear before the small ones go, so that a kill loses nothing; what is in
        both afterwards is dropped the next time. One command merges at a time.
        """
        # Where nothing can be written, or another command merges, the shards stay as they are.
        with suppress(OSError, NotImplementedError):
            if len(self._small()) < MANY:
                return
            with FileLock(self.folder.with_suffix(".lock"), timeout=0):
                self._read_folder()
                if len(small := self._small()) >= MANY:
                    self._merge(small)

    def _small(self) -> list[int]:
        """The small shards, and those that are gone."""
        sizes = {entry.path: entry.stat().st_size for entry in os.scandir(self.folder)}
        shards = [(number, file) for number, file in self.files.items() if file.suffix == SHARD]
        return [number for number, file in shards if sizes.get(str(file), 0) < MERGED // 2]

    def _merge(self, numbers: list[int]) -> None:
        group: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        size, shape = 0, None
        for number in numbers:
            try:
                digests, embeddings = self._own_rows(number)
            except (SafetensorError, ValueError) as error:
                self._discard(number, str(error))
                continue
            more = digests.nbytes + embeddings.nbytes
            if group and (size + more > MERGED or embeddings.shape[1:] != shape):
                self._replace(group)
                group, size = {}, 0
            group[number] = digests, embeddings
            size, shape = size + more, embeddings.shape[1:]
        if group:
            self._replace(group)

    def _own_rows(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """The digests and embeddings of a shard that the index finds here, not in another one."""
        file = self.files[number]
        digests, embeddings = self._read_digests(file), np.concatenate([*self._chunks(file)])
        places = self.index.find(digests)
        own = (places[:, 0] == number) & (places[:, 1] == np.arange(len(places)))
        return digests[own], embeddings[own]

    def _replace(self, group: dict[int, tuple[np.ndarray, np.ndarray]]) -> None:
        """Write the rows of several shards as one shard, then remove those."""
        digests, embeddings = map(np.concatenate, zip(*group.values(), strict=True))
        if len(digests):
            self._write(digests, embeddings)
        for number in group:
            file = self.files.pop(number)
            if file not in self.files.values():  # of equal digests a shard has the same name
                file.unlink(missing_ok=True)


def _enter(files: dict[int, Path], index: DigestIndex, digests: dict[Path, np.ndarray]) -> None:
    """Give each file a number, and its digests (N,) their places."""
    places = []
    for number, (file, rows) in enumerate(digests.items(), start=max(files, default=-1) + 1):
        files[number] = file
        here = np.full((len(rows), 2), number, np.int32)
        here[:, 1] = np.arange(len(rows))
        places.append(here)
    if places:
        index.add(np.concatenate([*digests.values()]), np.concatenate(places))


def memory_map(shape: tuple[int, ...], folder: Path) -> np.ndarray:
    """A float32 array of zeros in an unnamed temporary file, in `folder` if that is writable."""
    size = int(np.prod(shape)) * 4
    with tempfile.TemporaryFile(dir=folder if os.access(folder, os.W_OK) else None) as file:
        if hasattr(os, "posix_fallocate"):  # a full disk shows here, not as a crash later
            os.posix_fallocate(file.fileno(), 0, size)
        return np.memmap(file, np.float32, "w+", shape=shape)


def _set_aside(shard: Path, why: str) -> None:
    warnings.warn(
        f"the cache file {shard} is damaged ({why}); what it held is computed again", stacklevel=4
    )
    with suppress(OSError):  # where nothing can be written it is left out in each run
        shard.replace(shard.with_suffix(".damaged"))


@contextmanager
def open_store(
    fingerprint: str, kind: str, cache: Path | None, embeddings: Path | None = None
) -> Iterator[Store]:
    """The embeddings of one VLM and kind (`image`, `text`); with `cache=None` they are deleted
    after the block.

    Args:
        embeddings: folder of Parquet files with more of them, see `crl.run.parquet`.

    Raises:
        UserError: the Parquet files are of another VLM, or damaged.
    """
    with ExitStack() as stack:
        root = cache or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder = Path(root) / fingerprint / f"{kind}-{VERSION}"
        folder.mkdir(parents=True, exist_ok=True)
        yield Store(folder, fingerprint, embeddings)
