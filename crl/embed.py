"""Images or texts -> embeddings: batched, resumable, and each distinct one encoded once, ever.

Embeddings live under `<cache>/<VLM fingerprint>/{image,text}/` in shards of safetensors. A shard
holds the digests of what it embeds (content, not names: copies, renamed files and several data
sets share entries) beside the embeddings, and appears by renaming a finished temporary file. So a
killed run goes on from its last shard, and a growing folder costs only its new images. A crop is
an image like any other: its content is that of its file, and the box.
"""

import hashlib
import os
import tempfile
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from PIL.Image import DecompressionBombError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from tqdm import tqdm

from crl.errors import UserError
from crl.files import atomic_path
from crl.vlm import VLM, to_rgb

DEFAULT_CACHE = Path("cache/embeddings")
# What a kill can cost. A fixed number of whole batches, so that a resumed run batches alike and
# gives the very same numbers (but for skipped unreadable images: tried again, they shift it).
BATCHES_A_SHARD = 8
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
FORMAT = "crl-embeddings-1"
# What Pillow raises over files that it cannot decode.
UNDECODABLE = (OSError, ValueError, SyntaxError, RuntimeError, DecompressionBombError)


@dataclass(frozen=True)
class Crop:
    """A part of an image file, padded to a square with black: an image of its own.

    Attributes:
        path: the image file.
        box: left, top, right, bottom in pixels; right and bottom just outside the part.
    """

    path: Path
    box: tuple[int, int, int, int]


@dataclass(frozen=True)
class ImageEmbeddings:
    """What `embed_images` gives.

    Attributes:
        image: (N, D) float32, or (N, Q, D) for a VLM with Q query vectors; not normalised; a
            memory map, so that only the rows in use take memory.
        kept: (N,) which of the given images the rows belong to: all of them, unless unreadable
            ones were skipped.
    """

    image: np.ndarray
    kept: np.ndarray


def image_files(folder: Path | str) -> list[Path]:
    """All image files below `folder`, by their endings, sorted.

    Raises:
        UserError: there are none.
    """
    folder = Path(folder).expanduser()
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS)
    if not files:
        raise UserError(f"there are no images in {folder}")
    return files


def open_image(image: Path | Crop) -> Image.Image:
    """The picture that is embedded: RGB, whole, or cut out and padded to a square.

    Padding is GeneCIS's: centred, an odd row or column of black comes last.

    Raises:
        OSError, ValueError, ...: `UNDECODABLE`, or a box that is empty or leaves the picture.
    """
    with Image.open(_file(image)) as opened:
        picture = to_rgb(opened)
    if not isinstance(image, Crop):
        return picture
    left, top, right, bottom = image.box
    if not (0 <= left < right <= picture.width and 0 <= top < bottom <= picture.height):
        raise ValueError(
            f"there is no box {image.box} in {picture.width} x {picture.height} pixels"
        )
    part = picture.crop(image.box)
    side = max(part.size)
    square = Image.new("RGB", (side, side))  # black
    square.paste(part, ((side - part.width) // 2, (side - part.height) // 2))
    return square


def embed_images(
    vlm: VLM,
    images: Sequence[Path | str | Crop],
    cache: Path | None = DEFAULT_CACHE,
    batch_size: int = 64,
    workers: int | None = None,
    unreadable: Literal["error", "skip"] = "error",
    single: bool = False,
) -> ImageEmbeddings:
    """Embed image files and crops; one named several times, or copied, is encoded once.

    Args:
        images: N image files, whole or a part of them.
        cache: folder of the embedding cache; None uses a temporary one.
        workers: threads that decode images; default one a core, at most 8.
        unreadable: `error` stops at an image that cannot be decoded and names it; `skip` leaves
            such images out and warns how many there were.
        single: refuse a VLM that gives several vectors an image, after its first batch.

    Raises:
        UserError: no images, a missing file, an unreadable image, or too many vectors.
    """
    if len(images) == 0:
        raise UserError("there are no images to embed")
    images = [image if isinstance(image, Crop) else Path(image) for image in images]
    digests, failures = _image_digests(images)
    if failures and unreadable == "error":
        raise _unreadable(failures)
    with _store(vlm, "image", cache) as store:
        first = {digest: image for digest, image in zip(digests[::-1], images[::-1], strict=True)}
        todo = [(digest, first[digest]) for digest in store.missing(digests) if digest]
        bar = _bar(len(todo), f"images, {vlm.name}", "image")

        def encoded() -> Iterator[tuple[list[bytes], np.ndarray]]:
            for good, pixels, failed in _decoded(vlm, todo, batch_size, workers):
                failures.update(failed)
                if failed and unreadable == "error":
                    raise _unreadable(failures)
                bar.update(len(good) + len(failed))
                if good:
                    yield good, checked(vlm.encode_images(pixels).float().cpu().numpy())

        def checked(embeddings: np.ndarray) -> np.ndarray:
            if single and embeddings.ndim != 2:
                raise UserError(
                    f"{vlm.name} gives {embeddings.shape[1]} vectors an image and one is needed; "
                    "use a VLM of the CLIP kind"
                )
            return embeddings

        with bar:
            store.add_all(encoded())
        kept = np.array([i for i, digest in enumerate(digests) if digest in store.places], int)
        if len(kept) < len(images):
            warnings.warn(
                f"{len(images) - len(kept)} of {len(images)} images could not be read and were "
                f"left out, the first: {_file(next(iter(failures)))}",
                stacklevel=2,
            )
        if len(kept) == 0:
            raise _unreadable(failures)
        return ImageEmbeddings(checked(store.gather([digests[i] for i in kept])), kept)


def embed_texts(
    vlm: VLM, texts: Sequence[str], cache: Path | None = DEFAULT_CACHE, batch_size: int = 256
) -> np.ndarray:
    """Embed sentences: (K, D) float32, not normalised, in the order given."""
    if len(texts) == 0:
        raise UserError("there are no texts to embed")
    digests = [_digest(text.encode()) for text in texts]
    sentence = dict(zip(digests, texts, strict=True))
    with _store(vlm, "text", cache) as store:
        todo = store.missing(digests)
        bar = _bar(len(todo), f"texts, {vlm.name}", "text")

        def encoded() -> Iterator[tuple[list[bytes], np.ndarray]]:
            for start in range(0, len(todo), batch_size):
                part = todo[start : start + batch_size]
                yield part, vlm.encode_texts([sentence[d] for d in part]).float().cpu().numpy()
                bar.update(len(part))

        with bar:
            store.add_all(encoded())
        return store.gather(digests)


def _bar(total: int, label: str, unit: str) -> tqdm:
    """A progress bar, if there is something to do and a terminal to show it on."""
    return tqdm(total=total, desc=label, unit=unit, disable=None if total else True)


class _Store:
    """One folder of shards; `places` says which shard and row holds each digest."""

    def __init__(self, folder: Path, fingerprint: str):
        self.folder, self.fingerprint = folder, fingerprint
        self.shards: list[Path] = []
        self.places: dict[bytes, tuple[int, int]] = {}
        for shard in sorted(folder.glob("*.safetensors")):
            try:
                digests = self._read_digests(shard)
            except (SafetensorError, ValueError, KeyError) as error:
                warnings.warn(f"ignoring the damaged cache file {shard}: {error}", stacklevel=4)
                continue
            self._enter(shard, digests)

    def missing(self, digests: Iterable[bytes]) -> list[bytes]:
        """Those not stored yet, each once, in order of first appearance."""
        return [digest for digest in dict.fromkeys(digests) if digest not in self.places]

    def add_all(self, batches: Iterable[tuple[list[bytes], np.ndarray]]) -> None:
        """Store (digests, embeddings) batches, a shard at a time."""
        batches = iter(batches)
        while shard := list(islice(batches, BATCHES_A_SHARD)):
            digests = [digest for part, _ in shard for digest in part]
            embeddings = np.concatenate([part for _, part in shard])
            if not np.isfinite(embeddings).all():
                raise UserError(
                    "the VLM gave NaN or infinite embeddings; try precision=fp32 or check the "
                    "checkpoint"
                )
            name = hashlib.blake2b(b"".join(digests), digest_size=16).hexdigest()
            manifest = {
                "format": FORMAT,
                "fingerprint": self.fingerprint,
                "count": str(len(digests)),
                "dtype": str(embeddings.dtype),
            }
            ids = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 16)
            target = self.folder / f"{name}.safetensors"
            with atomic_path(target) as temporary:
                # not save_file: a full disk must show as the OSError that it is
                temporary.write_bytes(save({"ids": ids, "embeddings": embeddings}, manifest))
            self._enter(target, digests)

    def gather(self, digests: Sequence[bytes]) -> np.ndarray:
        """The embeddings of `digests` in order, as a memory map of an unnamed temporary file."""
        places = np.array([self.places[digest] for digest in digests])  # (N, 2): shard, row
        result = None
        for number in np.unique(places[:, 0]):
            mine = np.flatnonzero(places[:, 0] == number)
            with safe_open(self.shards[number], "np") as file:
                embeddings = file.get_tensor("embeddings")
            if result is None:
                result = self._memory_map((len(digests), *embeddings.shape[1:]))
            result[mine] = embeddings[places[mine, 1]]
        return result

    def _memory_map(self, shape: tuple[int, ...]) -> np.ndarray:
        size = int(np.prod(shape)) * 4
        with tempfile.TemporaryFile(dir=self.folder) as file:
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
        if {key: manifest.get(key) for key in expected} != expected or len(ids) != shape[0]:
            raise ValueError("its manifest does not fit")
        return [row.tobytes() for row in ids]


@contextmanager
def _store(vlm: VLM, kind: str, cache: Path | None) -> Iterator[_Store]:
    """The store of one VLM and kind; with `cache=None` it is gone after the block."""
    with ExitStack() as stack:
        root = cache or stack.enter_context(tempfile.TemporaryDirectory())
        folder = Path(root) / vlm.fingerprint / kind
        folder.mkdir(parents=True, exist_ok=True)
        yield _Store(folder, vlm.fingerprint)


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


def _file(image: Path | Crop) -> Path:
    return image.path if isinstance(image, Crop) else image


def _image_digests(images: list[Path | Crop]) -> tuple[list[bytes], dict[Path | Crop, str]]:
    """A digest of each image's content (empty where it cannot be read), and why not."""

    def digest(path: Path) -> bytes | OSError:
        try:
            with open(path, "rb") as file:
                return _digest(file.read())
        except OSError as error:
            return error

    files = list(dict.fromkeys(map(_file, images)))  # each read once, however many its crops
    results: dict[Path, bytes | OSError] = {}
    bar = tqdm(total=len(files), desc="reading", unit="file", disable=None, leave=False)
    with bar, ThreadPoolExecutor(8) as pool:
        for start in range(0, len(files), 4096):
            part = files[start : start + 4096]
            results.update(zip(part, pool.map(digest, part), strict=True))
            bar.update(len(part))
    failures: dict[Path | Crop, str] = {
        path: str(result.strerror or result)
        for path, result in results.items()
        if isinstance(result, OSError)
    }
    digests = []
    for image in images:
        content = b"" if _file(image) in failures else results[_file(image)]
        if content and isinstance(image, Crop):
            content = _digest(content + np.array(image.box, "<i8").tobytes())
        digests.append(content)
    return digests, failures


def _unreadable(failures: dict[Path | Crop, str]) -> UserError:
    (image, why), *others = failures.items()
    more = f" ({len(others)} more like it)" if others else ""
    return UserError(
        f"cannot read the image {_file(image)}: {why}{more}; mend or remove it, or set "
        "unreadable=skip"
    )


def _decoded(
    vlm: VLM, todo: list[tuple[bytes, Path | Crop]], batch_size: int, workers: int | None
) -> Iterator[tuple[list[bytes], torch.Tensor, dict[Path | Crop, str]]]:
    """Batches of digests (B'), pixels (B', 3, H, W) and {image: why it failed}, one batch ahead.

    By threads, for Pillow releases Python's lock while it decodes and resizes; processes would be
    slower to start and hold several times the memory.
    """
    workers = workers or min(8, os.cpu_count() or 1)
    threads = torch.get_num_threads()
    pending: deque[tuple[list[tuple[bytes, Path | Crop]], list[Future]]] = deque()
    # A decoding thread is one core's work. Torch keeps the setting a thread, but hands it on to
    # later threads too; so it is put back.
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            for start in range(0, len(todo), batch_size):
                part = todo[start : start + batch_size]
                pending.append((part, [pool.submit(_pixels, vlm, image) for _, image in part]))
                torch.set_num_threads(threads)
                if len(pending) > 1:
                    yield _batch(*pending.popleft())
            while pending:
                yield _batch(*pending.popleft())
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)


def _pixels(vlm: VLM, image: Path | Crop) -> torch.Tensor | str:
    """The preprocessed image (3, H, W), or why it cannot be decoded."""
    try:
        return vlm.preprocess(open_image(image))
    except UNDECODABLE as error:
        return str(error) or type(error).__name__


def _batch(
    part: list[tuple[bytes, Path | Crop]], futures: list[Future]
) -> tuple[list[bytes], torch.Tensor, dict[Path | Crop, str]]:
    items = [future.result() for future in futures]
    good = [item for item in items if not isinstance(item, str)]
    failed = {
        image: item for (_, image), item in zip(part, items, strict=True) if isinstance(item, str)
    }
    digests = [digest for digest, image in part if image not in failed]
    return digests, torch.stack(good) if good else torch.empty(0), failed
