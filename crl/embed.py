"""Images or texts -> embeddings: batched, resumable; each distinct image or text is encoded once.

    I = embed_images(vlm, paths).image    # (N, D)
    T = embed_texts(vlm, basis.prompts)   # (K, D)

Embeddings are not L2-normalised. They are kept in a cache (`crl.run.cache`). The key is the VLM's
fingerprint and the content of the image or text. The content of a crop is that of its file, and the
box.
"""

import os
import warnings
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from crl.basis import TextBasis
from crl.images import Crop, RemoteFile, UnreadableImage, file_of, open_image
from crl.projection import l2
from crl.run.cache import EMBEDDINGS, Store, content_digest, digest_array, open_store
from crl.run.digests import DIGEST
from crl.run.errors import UserError
from crl.run.progress import progress
from crl.vlm import VLM

Embeddable = Path | RemoteFile | Crop
AHEAD = 128  # images that are read and decoded in advance


class NoneReadable(UserError):
    """None of the images can be read; `unreadable`: image -> why."""

    def __init__(self, unreadable: dict[Embeddable, str], images: int) -> None:
        first, why = next(iter(unreadable.items()))
        super().__init__(f"none of {images} images can be read, the first: {file_of(first)}: {why}")
        self.unreadable = unreadable


@dataclass(frozen=True)
class ImageEmbeddings:
    """The result of `embed_images`.

    Attributes:
        image: (N, D) float32, or (N, Q, D) for a VLM with Q query vectors; not normalised; a
            memory map, so that only the rows in use take memory.
        kept: (N,) index of the given image of each row: all images, unless unreadable ones were
            skipped.
        digests: (N,) digests of the contents, dtype V16; copies of an image have the same one.
        unreadable: skipped image -> why it cannot be read.
    """

    image: np.ndarray
    kept: np.ndarray
    digests: np.ndarray
    unreadable: dict[Embeddable, str]


def embed_images(
    vlm: VLM,
    images: Sequence[Embeddable | str],
    cache: Path | None = EMBEDDINGS,
    batch_size: int = 64,
    workers: int | None = None,
    unreadable: Literal["error", "skip"] = "error",
    single: bool = False,
    embeddings: Path | None = None,
) -> ImageEmbeddings:
    """Embed image files and crops. An image that is named twice, or copied, is encoded once.

    Args:
        images: N image files, local or remote, or crops.
        cache: folder of the embedding cache; None keeps nothing.
        workers: threads that decode images; None: one per core, at most 8.
        unreadable: `error` stops at an image that cannot be decoded and names it; `skip` leaves
            such images out, with a warning that says how many.
        single: refuse a VLM that gives several vectors per image, after the first batch.
        embeddings: folder of Parquet files, see `crl.run.parquet`; what they hold is not computed.

    Raises:
        UserError: no images, a missing file, an unreadable image, or too many vectors; embeddings
            of another VLM, or damaged ones.
    """
    if len(images) == 0:
        raise UserError("there are no images to embed")
    # An image is told by its place in `images`, the first one if it is named twice. So a million
    # images take a few arrays, not a million objects.
    first = _first_places(lambda i: _name(images[i]), len(images))
    distinct = np.flatnonzero(first == np.arange(len(images)))
    readable = np.ones(len(images), bool)
    failures: dict[Embeddable, str] = {}
    for i in map(int, distinct):
        if why := _no_file(file_of(_image(images[i]))):
            failures[_image(images[i])], readable[i] = why, False
    if failures and unreadable == "error":
        raise _unreadable(failures)
    digests = np.zeros(len(images), DIGEST)

    with open_store(vlm.fingerprint, "image", cache, embeddings) as store:

        def new_pixels(waiting: set[bytes]) -> Iterator[tuple[bytes, Tensor]]:
            """Digest and pixels (3, H, W) of each image that is neither stored nor waiting."""
            todo = distinct[readable[distinct]]
            bar = progress(label=f"images, {vlm.name}", unit="images", total=len(todo))
            with bar:
                for i, digest, found in _read_ahead(vlm, images, todo, store, workers):
                    bar.update()
                    if isinstance(found, str):
                        failures[_image(images[i])], readable[i] = found, False
                        if unreadable == "error":
                            raise _unreadable(failures)
                        continue
                    digests[i] = digest
                    if found is not None and digest not in waiting and digest not in store:
                        waiting.add(digest)
                        yield digest, found

        def encoded() -> Iterator[tuple[list[bytes], np.ndarray]]:
            waiting: set[bytes] = set()  # for the shard that is being filled
            new = new_pixels(waiting)
            while batch := list(islice(new, batch_size)):
                pixels = torch.stack([pixels for _, pixels in batch])  # (B, 3, H, W)
                embedded = vlm.encode_images(pixels).float().cpu().numpy()
                yield [digest for digest, _ in batch], checked(embedded)
                waiting.difference_update([digest for digest in waiting if digest in store])

        def checked(embeddings: np.ndarray) -> np.ndarray:
            if single and embeddings.ndim != 2:
                raise UserError(
                    f"{vlm.name} gives {embeddings.shape[1]} vectors per image and one is needed; "
                    "use a VLM of the CLIP kind"
                )
            return embeddings

        found = None
        while found is None:  # again if a shard is damaged
            store.add_all(encoded())
            kept = np.flatnonzero(readable[first])
            if len(kept) == 0:
                raise NoneReadable(failures, len(images))
            of_rows = digests[first[kept]]
            found = store.gather(of_rows)
        if len(kept) < len(images):
            warnings.warn(
                f"{len(images) - len(kept)} of {len(images)} images could not be read and were "
                f"left out, the first: {file_of(next(iter(failures)))}",
                stacklevel=2,
            )
        return ImageEmbeddings(checked(found), kept, of_rows, failures)


def embed_texts(
    vlm: VLM, texts: Sequence[str], cache: Path | None = EMBEDDINGS, batch_size: int = 256
) -> np.ndarray:
    """Embed sentences: (K, D) float32, not normalised, in the order given.

    Args:
        cache: as for `embed_images`.
    """
    if len(texts) == 0:
        raise UserError("there are no texts to embed")
    digests = [content_digest(text.encode()) for text in texts]
    sentence = dict(zip(digests, texts, strict=True))
    with open_store(vlm.fingerprint, "text", cache) as store:
        found = None
        while found is None:  # again if a shard is damaged
            todo = store.missing(digests)
            batches = [todo[i : i + batch_size] for i in range(0, len(todo), batch_size)]
            bar = progress(batches, label=f"texts, {vlm.name}", unit="batches")
            store.add_all(
                (batch, vlm.encode_texts([sentence[d] for d in batch]).float().cpu().numpy())
                for batch in bar
            )
            found = store.gather(digest_array(digests))
        return found


def embed_basis(vlm: VLM, basis: TextBasis, cache: Path | None = EMBEDDINGS) -> np.ndarray:
    """T of a basis: (K, D) float32, not normalised.

    Raises:
        UserError: as in `checked_basis`.
    """
    text = embed_texts(vlm, basis.prompts, cache)
    return checked_basis(f"the basis for {basis.criterion!r}", text)


def checked_basis(where: str, text: np.ndarray) -> np.ndarray:
    """T (K, D), if its texts can tell images apart; `where` begins the message if not.

    Raises:
        UserError: fewer than two texts, or all have the same embedding.
    """
    if len(text) < 2:  # a row of one number has no standard deviation
        raise UserError(f"{where} needs 2 texts or more")
    if np.ptp(l2(np.asarray(text)), axis=0).max() < 1e-6:  # nor has a row of equal numbers
        raise UserError(f"{where}: its texts all look the same to the VLM; use other texts")
    return text


def _image(image: Embeddable | str) -> Embeddable:
    return Path(image) if isinstance(image, str) else image


def _name(image: Embeddable | str) -> Hashable:
    """Equal for equal images."""
    image = _image(image)
    return (str(image.path), image.box) if isinstance(image, Crop) else str(image)


def _first_places(name: Callable[[int], Hashable], count: int) -> np.ndarray:
    """(count,): the first number whose name is that of each number.

    Like a dict from names to numbers, which would take 100 bytes per name; this takes 24.
    """
    first = np.arange(count)
    hashes = np.fromiter((hash(name(i)) for i in range(count)), np.int64, count)
    order = np.argsort(hashes, kind="stable")
    same = np.diff(hashes[order]) == 0
    shared = np.zeros(count, bool)
    shared[1:] |= same
    shared[:-1] |= same
    for _, numbers in groupby(order[shared], hashes.__getitem__):
        found: dict[Hashable, int] = {}  # different names may have the same hash
        for i in numbers:
            first[i] = found.setdefault(name(i), i)
    return first


def _no_file(file: Path | RemoteFile) -> str:
    """Why there is nothing to read, or nothing; a remote file is asked when it is read."""
    if isinstance(file, RemoteFile) or file.is_file():
        return ""
    return "not a regular file" if file.exists() else "No such file"


def _unreadable(failures: dict[Embeddable, str]) -> UserError:
    (image, why), *others = failures.items()
    more = f" ({len(others)} more like it)" if others else ""
    return UserError(
        f"cannot read the image {file_of(image)}: {why}{more}; mend or remove it, or set "
        "unreadable=skip"
    )


Found = tuple[int, bytes, Tensor | str | None]  # place of the image, digest, what was found


def _read_ahead(
    vlm: VLM,
    images: Sequence[Embeddable | str],
    todo: np.ndarray,
    store: Store,
    workers: int | None,
) -> Iterator[Found]:
    """Yield the place in `images` of each image `todo`, its digest and one of: its pixels
    (3, H, W); None if it is stored; a text that says why it cannot be read.

    Each file is read once for all its crops. Files come in order of first appearance.

    Uses threads, because Pillow releases Python's lock while it decodes and resizes. Processes
    would start more slowly and need several times the memory.
    """
    first = _first_places(lambda i: str(file_of(_image(images[todo[i]]))), len(todo))
    workers = workers or min(8, os.cpu_count() or 1)
    threads = torch.get_num_threads()
    pending: deque[Future[list[Found]]] = deque()
    waiting = 0  # images in `pending`
    # Each decoding thread uses one core. Torch's setting is per thread, but later threads inherit
    # it; so it is restored.
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            for _, of_file in groupby(np.argsort(first, kind="stable"), first.__getitem__):
                parts = [(int(i), _image(images[i])) for i in todo[list(of_file)]]
                pending.append(pool.submit(_read, vlm, parts, store))
                torch.set_num_threads(threads)
                waiting += len(parts)
                while waiting > AHEAD:
                    found = pending.popleft().result()
                    waiting -= len(found)
                    yield from found
            while pending:
                yield from pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)


def _read(vlm: VLM, parts: list[tuple[int, Embeddable]], store: Store) -> list[Found]:
    """For places and images of one file."""
    try:
        content = file_of(parts[0][1]).read_bytes()
    except OSError as error:
        return [(i, b"", str(error.strerror or error)) for i, _ in parts]
    found: list[Found] = []
    for i, image in parts:
        digest = content_digest(content)
        if isinstance(image, Crop):
            digest = content_digest(digest + np.array(image.box, "<i8").tobytes())
        if digest in store:
            found.append((i, digest, None))
            continue
        try:
            picture = open_image(image, content)
        except UnreadableImage as error:
            found.append((i, digest, str(error)))
        else:
            found.append((i, digest, vlm.preprocess(picture)))
    return found
