"""Images or texts -> embeddings: batched, resumable; each distinct image or text is encoded once.

Embeddings are kept in a store (`crl.run.store`), identified by the VLM's fingerprint and the
content of the image or text. The content of a crop is that of its file, and the box.
"""

import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from textwrap import shorten
from threading import Semaphore
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from crl.backends.instructed import Stores, Told, open_stores
from crl.backends.loaded import LoadedVLM
from crl.basis import TextBasis
from crl.images import Crop, File, Picture, UnreadableImage, decoded, file_of, open_image
from crl.projection import l2, parts
from crl.run.ahead import ahead
from crl.run.errors import UserError, lacks_memory
from crl.run.progress import progress
from crl.run.results import digest
from crl.run.store import EMBEDDINGS, Store, content_digest, digest_array, open_store
from crl.vlm import VLM, encoded

Embeddable = File | Crop
NO_DIGEST = bytes(16)
# More threads wait for files, but to decode in more of them takes memory and saves no time.
DECODING = Semaphore(os.cpu_count() or 1)


class NoneReadable(UserError):
    """None of the images can be read; `unreadable`: image -> reason."""

    def __init__(self, unreadable: dict[Embeddable, str], images: int) -> None:
        image, reason = next(iter(unreadable.items()))
        first = f"{file_of(image)}: {reason}"
        super().__init__(f"none of {images} images can be read, the first: {first}")
        self.unreadable = unreadable


class ImageEmbeddings(NamedTuple):
    """The result of `embed_images`: N rows, in the order of the images."""

    # I, (N, D) float32, or (N, Q, D) for Q query vectors, or criteria; a memory map
    image: np.ndarray
    kept: np.ndarray  # (N,) index of each row's image: all, unless unreadable ones were skipped
    digests: np.ndarray  # (N,) of the contents, dtype V16
    unreadable: dict[Embeddable, str]  # skipped image -> reason
    seconds: float | None  # to encode 1,000 images; None: all were in the cache

    @property
    def content(self) -> str:
        """16 hex digits that change whenever an image or their order does."""
        return digest(self.digests.view(np.uint8))


def embed_images(
    vlm: VLM | Told, images: Sequence[Embeddable | str] | Path | str,
    cache: Path | None = EMBEDDINGS, batch_size: int = 64, workers: int | None = None,
    unreadable: Literal["error", "skip"] = "error", single: bool = False, raw: bool = False,
    known: Mapping[str, bytes] | None = None,
    seen: Callable[[bytes, Picture], None] | None = None,
) -> ImageEmbeddings:  # fmt: skip
    """Embed image files and crops. An image that is named twice, or copied, is encoded once. A
    UserError for no images, a missing file, an unreadable image, or too many vectors.

    Args:
        images: N image files, local or remote, or crops; or one file.
        cache: folder of the embedding cache; None keeps nothing.
        batch_size: images at once; halved, with a note, when memory does not suffice.
        workers: threads that read and decode images; None: one per core, at most 8; more, at most
            64, if the first 32 files show that reading waits, for a network or a disk.
        unreadable: `error` stops at an image that cannot be decoded and names it; `skip` leaves
            such images out, with a warning.
        single: refuse a VLM that gives several vectors per image, after the first batch.
        raw: rows as the VLM gives them, where a method needs their lengths.
        known: name of an image -> digest of its content, if that is known without reading it; then
            it is read only if it must be encoded. See `crl.run.stamps`.
        seen: called in those threads with the digest of each file that is decoded, and its picture.
    """
    images = [images] if isinstance(images, (str, Path)) else images  # else letter by letter
    if len(images) == 0:
        raise UserError("there are no images to embed")
    wrong = (i for i in images if not (isinstance(i, (str, Crop)) or hasattr(i, "read_bytes")))
    if kinds := {type(image).__name__ for image in wrong}:
        pictures = (
            "for pictures in memory: vlm.encode_images(torch.stack([vlm.preprocess(picture)]))"
        )
        raise UserError(f"embed_images takes files and crops, not {kinds.pop()}; {pictures}")
    # An image is identified by its place in `images`. So a million take a few arrays.
    digests = np.zeros(len(images), "V16")
    reasons = np.array([_no_file(image) for image in images], object)  # why it cannot be read

    def skipped() -> dict[Embeddable, str]:
        """Image -> why it cannot be read; an error if it may not be left out."""
        failures = {_image(images[int(i)]): reasons[i] for i in np.flatnonzero(reasons)}
        if failures and unreadable == "error":
            raise _unreadable(failures)
        if reasons.all():
            raise NoneReadable(failures, len(images))
        return failures

    def check(rows: np.ndarray) -> None:
        if single and rows.ndim != 2:
            number = f"{rows.shape[1]} vectors per image and one is needed"
            raise UserError(f"{vlm.name} gives {number}; use a VLM of the CLIP kind")

    skipped()
    opened = open_stores(vlm, cache) if isinstance(vlm, Told) else open_store(vlm, "image", cache)
    times: list[tuple[int, float]] = []  # images that were encoded, and seconds
    with opened as store:
        encoder = _Encoder(vlm, "encode_images", batch_size)

        def encode(batch: dict[bytes, Any]) -> None:
            pixels, start = list(batch.values()), time.perf_counter()
            rows = encoder(pixels if isinstance(vlm, Told) else torch.stack(pixels))
            times.append((len(rows), time.perf_counter() - start))
            check(rows)  # (B, D) or (B, Q, D)
            store.append(list(batch), rows)
            batch.clear()

        def rows() -> np.ndarray | None:
            unread = reasons == ""
            if known:
                digests[:] = [known.get(str(image), NO_DIGEST) for image in images]
                unread &= [digest not in store for digest in digests.tolist()]
            places = np.flatnonzero(unread)
            read, groups = partial(_read, vlm, store, seen, images), _by_file(images, places)
            batch: dict[bytes, Any] = {}  # digest -> pixels
            label, total = f"images, {vlm.name}", len(places)
            with progress(label=label, unit="images", total=total, batch=batch_size) as bar:
                for place, digest, pixels, reason in ahead(read, groups, workers):
                    bar.update()
                    digests[place], reasons[place] = digest, reason
                    if reason and unreadable == "error":
                        skipped()
                    if pixels is not None and digest not in store:
                        batch[digest] = pixels
                    if len(batch) >= encoder.size:
                        encode(batch)
            if batch:
                encode(batch)
            skipped()
            return store.gather(digests[reasons == ""])

        image = _complete(rows)
    check(image)
    kept = np.flatnonzero(reasons == "")
    if failures := skipped():
        count = f"{len(images) - len(kept)} of {len(images)} images"
        first = f"the first: {file_of(next(iter(failures)))}"
        warnings.warn(f"{count} could not be read and were left out, {first}", stacklevel=2)
    # The first batch loads the weights: it counts only if it is the only one.
    number, seconds = np.sum(times[1:] or times or [(0, np.nan)], axis=0)
    per_1000 = float(1000 * seconds / number) if times else None
    return ImageEmbeddings(_unit(image, raw), kept, digests[kept], failures, per_1000)


def embed_texts(
    vlm: VLM, texts: Sequence[str] | str, cache: Path | None = EMBEDDINGS, batch_size: int = 256,
    raw: bool = False,
) -> np.ndarray:  # fmt: skip
    """T (K, D) float32, a row per sentence, in the order given; arguments as of `embed_images`."""
    texts = [texts] if isinstance(texts, str) else texts
    if len(texts) == 0:
        raise UserError("there are no texts to embed")
    digests = [content_digest(text.encode()) for text in texts]
    sentence = dict(zip(digests, texts, strict=True))
    if isinstance(vlm, LoadedVLM):
        _note_long_texts(vlm, list(sentence.values()))
    with open_store(vlm, "text", cache) as store:
        encoder = _Encoder(vlm, "encode_texts", batch_size)

        def rows() -> np.ndarray | None:
            todo = store.missing(digests)
            batches = [todo[i : i + batch_size] for i in range(0, len(todo), batch_size)]
            for batch in progress(batches, label=f"texts, {vlm.name}", unit="batches"):
                some = [sentence[content] for content in batch]
                store.append(batch, encoder(some))
            return store.gather(digest_array(digests))

        return np.asarray(_unit(_complete(rows), raw))


def embed_basis(vlm: VLM, basis: TextBasis, cache: Path | None = EMBEDDINGS) -> np.ndarray:
    """T of a basis: (K, D) float32, unit rows; a UserError as in `checked_basis`."""
    text = embed_texts(vlm, basis.prompts, cache)
    return checked_basis(f"the basis for {basis.criterion!r}", text)


def checked_basis(where: str, text: np.ndarray) -> np.ndarray:
    """T (K, D), unit rows. A UserError, which begins with `where`, if its texts cannot tell images
    apart: fewer than two, or all have the same embedding."""
    if len(text) < 2:  # a row of one number has no standard deviation
        raise UserError(f"{where} needs 2 texts or more")
    if np.ptp(text, axis=0).max() < 1e-6:  # nor has a row of equal numbers
        raise UserError(f"{where}: its texts all look the same to the VLM; use other texts")
    return text


class _Encoder:
    """`encode_images` or `encode_texts`, the `member`, of a VLM for B images or texts: (B, ...),
    float32. At most `size` at once; if memory does not suffice, half of that from then on."""

    def __init__(self, vlm: VLM | Told, member: str, size: int) -> None:
        self.encode, self.what, self.size = partial(encoded, vlm, member), member[7:], size

    def __call__(self, batch: Any) -> np.ndarray:
        first = size = min(self.size, len(batch))
        while True:
            portions = (batch[i : i + size] for i in range(0, len(batch), size))
            try:
                rows = np.concatenate([self.encode(p) for p in portions])
            except (RuntimeError, MemoryError) as error:
                if size == 1 or not lacks_memory(error):
                    raise
                size //= 2
                continue
            if size < first:
                self.size = size
                note = f"not enough memory for {first} {self.what} at once; going on with {size}"
                warnings.warn(note, stacklevel=3)
            return rows


def _note_long_texts(vlm: LoadedVLM, texts: list[str]) -> None:
    if long := vlm.cut_off(texts):
        number = f"{len(long)} of {len(texts)} texts are longer than the {vlm.context} tokens"
        first = shorten(long[0], 60)
        note = f"{number} that {vlm.name} reads; what follows is cut off. The first: {first}"
        warnings.warn(note, stacklevel=3)


def _complete(rows: Callable[[], np.ndarray | None]) -> np.ndarray:
    """The rows; computed again, once, if some were damaged."""
    for _ in range(2):
        if (complete := rows()) is not None:
            return complete
    raise UserError("embeddings that were just written cannot be read back; check the disk")


def _unit(rows: np.ndarray, raw: bool) -> np.ndarray:
    """The rows scaled to unit length, in place."""
    for some in () if raw else parts(len(rows)):
        rows[some] = l2(rows[some])
    return rows


def _image(image: Embeddable | str) -> Embeddable:
    return Path(image) if isinstance(image, str) else image


def _no_file(image: Embeddable | str) -> str:
    """Why there is nothing to read, or ""; a remote file is asked when it is read."""
    file = file_of(_image(image))
    if not isinstance(file, Path) or file.is_file():
        return ""
    return "not a regular file" if file.exists() else "No such file"


def _unreadable(failures: dict[Embeddable, str]) -> UserError:
    (image, reason), *others = failures.items()
    more = f" ({len(others)} more like it)" if others else ""
    advice = "mend or remove it, or set unreadable=skip"
    return UserError(f"cannot read the image {file_of(image)}: {reason}{more}; {advice}")


def _by_file(images: Sequence[Embeddable | str], places: np.ndarray) -> Iterator[list[int]]:
    """`places` grouped by file, files in order of first appearance."""

    def file_at(place: int) -> File:
        return file_of(_image(images[place]))

    # A dict from files to places would take 100 bytes per file.
    hashes = np.fromiter((hash(file_at(place)) for place in places), np.int64, len(places))
    _, first, number = np.unique(hashes, return_index=True, return_inverse=True)
    order = places[np.argsort(first[number], kind="stable")]
    for _, group in groupby(map(int, order), file_at):  # two files may have the same hash
        yield list(group)


# Place of an image, digest of its content, its pixels (3, H, W), for `Told` a picture, unless they
# are stored already, and why it cannot be read, or "".
Read = tuple[int, bytes, Any, str]


def _read(
    vlm: VLM | Told, store: Store | Stores, seen: Callable | None, images: Sequence,
    seconds: list[tuple[float, float]], group: list[int],
) -> list[Read]:  # fmt: skip
    """Read the images at the places `group`, which share a file; `seconds` as in `ahead`."""
    start = time.perf_counter()
    try:
        content = file_of(_image(images[group[0]])).read_bytes()
    except OSError as error:
        return [(place, b"", None, str(error.strerror or error)) for place in group]
    waited, start = time.perf_counter() - start, time.thread_time()
    results: list[Read] = []
    file_digest = content_digest(content)
    known: dict[bytes, tuple[Any, str]] = {}  # once, if an image is named twice
    for place in group:
        image, digest = _image(images[place]), file_digest
        if isinstance(image, Crop):
            digest = content_digest(digest + np.array(image.box, "<i8").tobytes())
        if digest not in known:
            try:
                with DECODING:
                    stored = digest in store
                    pixels = None if stored else _pixels(vlm, seen, image, content, digest)
                known[digest] = pixels, ""
            except UnreadableImage as error:
                known[digest] = None, str(error)
        results.append((place, digest, *known[digest]))
    seconds.append((waited, time.thread_time() - start))
    return results


def _pixels(
    vlm: VLM | Told, seen: Callable | None, image: Embeddable, content: bytes, digest: bytes
) -> Any:
    """What the model is given of an image: (3, H, W), or a picture."""
    if isinstance(image, Crop):  # its box counts the pixels of the full size
        return vlm.preprocess(open_image(image, content))
    preprocess: Any = vlm.preprocess
    enough = preprocess.enough if isinstance(vlm, LoadedVLM) else 0
    picture = decoded(image, content, enough)
    if seen:
        seen(digest, picture)
    return preprocess(picture.rgb, picture.size) if enough else preprocess(picture.rgb)
