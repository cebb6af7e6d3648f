"""Embeddings on disk: shards of safetensors below `<cache>/<fingerprint>/<kind>-<version>/`.

A shard holds the digests of what it embeds (content, not names: copies, renamed files and several
data sets share entries) beside the embeddings, and appears by renaming a finished temporary file.
So a killed run goes on from its last shard, and a growing folder costs only its new images. Each
shard has a checksum, which is compared when it is read: a damaged one is set aside, and what it
held is computed again. A complete cache can be used where nothing can be written.
"""

import hashlib
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import islice
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from crl.run.errors import UserError
from crl.run.files import atomic_path, remove_leftovers

# The most that a kill can cost. A fixed number of whole batches, so that a resumed run makes the
# same batches and gives exactly the same numbers.
BATCHES_PER_SHARD = 8
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
    """One folder of shards; `places` says which shard and row holds each digest."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.folder, self.fingerprint = folder, fingerprint
        self.shards: list[Path] = []
        self.places: dict[bytes, tuple[int, int]] = {}
        remove_leftovers(folder)
        for shard in sorted(folder.glob("*.safetensors")):
            try:
                digests = self._read_digests(shard)
            except (SafetensorError, ValueError, KeyError) as error:
                _set_aside(shard, str(error))
                continue
            self._enter(shard, digests)

    def missing(self, digests: Iterable[bytes]) -> list[bytes]:
        """The digests that are not stored yet, each once, in order of first appearance."""
        return [digest for digest in dict.fromkeys(digests) if digest not in self.places]

    def add_all(self, batches: Iterable[tuple[list[bytes], np.ndarray]]) -> None:
        """Store (digests, embeddings) batches, one shard at a time."""
        batches = iter(batches)
        while shard := list(islice(batches, BATCHES_PER_SHARD)):
            digests = [digest for part, _ in shard for digest in part]
            embeddings = np.concatenate([part for _, part in shard])
            if not np.isfinite(embeddings).all():
                raise UserError(
                    "the VLM gave NaN or infinite embeddings; try precision=fp32 or check the "
                    "checkpoint"
                )
            name = hashlib.blake2b(b"".join(digests), digest_size=16).hexdigest()
            ids = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 16)
            manifest = {
                "format": FORMAT,
                "fingerprint": self.fingerprint,
                "count": str(len(digests)),
                "dtype": str(embeddings.dtype),
                "checksum": _checksum(ids, embeddings),
            }
            target = self.folder / f"{name}.safetensors"
            with atomic_path(target) as temporary:
                # not save_file, which would hide that a full disk is an OSError
                temporary.write_bytes(save({"ids": ids, "embeddings": embeddings}, manifest))
            self._enter(target, digests)

    def gather(self, digests: Sequence[bytes]) -> np.ndarray | None:
        """The embeddings of `digests` in order, as a memory map of an unnamed temporary file.

        None if a shard is damaged: it was set aside, and what it held is missing now.
        """
        places = np.array([self.places[digest] for digest in digests])  # (N, 2): shard, row
        result = None
        for number in np.unique(places[:, 0]):
            mine = np.flatnonzero(places[:, 0] == number)
            with safe_open(self.shards[number], "np") as file:
                ids, embeddings = file.get_tensor("ids"), file.get_tensor("embeddings")
                checksum = file.metadata()["checksum"]
            if checksum != _checksum(ids, embeddings):
                _set_aside(self.shards[number], "its checksum is wrong")
                self.places = {d: place for d, place in self.places.items() if place[0] != number}
                return None
            if result is None:
                result = self._memory_map((len(digests), *embeddings.shape[1:]))
            result[mine] = embeddings[places[mine, 1]]
        assert result is not None  # `digests` is not empty
        return result

    def _memory_map(self, shape: tuple[int, ...]) -> np.ndarray:
        size = int(np.prod(shape)) * 4
        writable = os.access(self.folder, os.W_OK)
        with tempfile.TemporaryFile(dir=self.folder if writable else None) as file:
            if hasattr(os, "posix_fallocate"):  # a full disk shows here, not as a crash later
                os.posix_fallocate(file.fileno(), 0, size)
            return np.memmap(file, np.float32, "w+", shape=shape)

    def _enter(self, shard: Path, digests: list[bytes]) -> None:
        number = len(self.shards)
        self.shards.append(shard)
        self.places.update({digest: (number, row) for row, digest in enumerate(digests)})

    def _read_digests(self, shard: Path) -> list[bytes]:
        with safe_open(shard, "np") as file:
            manifest = file.metadata() or {}
            ids = file.get_tensor("ids")
            shape = file.get_slice("embeddings").get_shape()
        expected = {"format": FORMAT, "fingerprint": self.fingerprint, "count": str(shape[0])}
        found = {key: manifest.get(key) for key in expected}
        if found != expected or "checksum" not in manifest or ids.shape != (shape[0], 16):
            raise ValueError("its manifest does not fit")
        return [row.tobytes() for row in ids]


def _checksum(ids: np.ndarray, embeddings: np.ndarray) -> str:
    hasher = hashlib.blake2b(np.ascontiguousarray(ids), digest_size=16)
    hasher.update(np.ascontiguousarray(embeddings))
    return hasher.hexdigest()


def _set_aside(shard: Path, why: str) -> None:
    warnings.warn(
        f"the cache file {shard} is damaged ({why}); what it held is computed again", stacklevel=4
    )
    with suppress(OSError):  # where nothing can be written it is left out in each run
        shard.replace(shard.with_suffix(".damaged"))


@contextmanager
def open_store(fingerprint: str, kind: str, cache: Path | None) -> Iterator[Store]:
    """The embeddings of one VLM and kind (`image`, `text`); with `cache=None` they are deleted
    after the block."""
    with ExitStack() as stack:
        root = cache or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder = Path(root) / fingerprint / f"{kind}-{VERSION}"
        folder.mkdir(parents=True, exist_ok=True)
        yield Store(folder, fingerprint)
