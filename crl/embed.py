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
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from crl.basis import TextBasis
from crl.images import Crop, RemoteFile, UnreadableImage, file_of, open_image
from crl.projection import l2
from crl.run.cache import EMBEDDINGS, content_digest, open_store
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
        digests: N digests of the contents; copies of an image have the same one.
        unreadable: skipped image -> why it cannot be read.
    """

    image: np.ndarray
    kept: np.ndarray
    digests: list[bytes]
    unreadable: dict[Embeddable, str]


def embed_images(
    vlm: VLM,
    images: Sequence[Embeddable | str],
    cache: Path | None = EMBEDDINGS,
    batch_size: int = 64,
    workers: int | None = None,
    unreadable: Literal["error", "skip"] = "error",
    single: bool = False,
) -> ImageEmbeddings:
    """Embed image files and crops. An image that is named twice, or copied, is encoded once.

    Args:
        images: N image files, local or remote, or crops.
        cache: folder of the embedding cache; None keeps nothing.
        workers: threads that decode images; None: one per core, at most 8.
        unreadable: `error` stops at an image that cannot be decoded and names it; `skip` leaves
            such images out, with a warning that says how many.
        single: refuse a VLM that gives several vectors per image, after the first batch.

    Raises:
        UserError: no images, a missing file, an unreadable image, or too many vectors.
    """
    if len(images) == 0:
        raise UserError("there are no images to embed")
    wanted = [Path(image) if isinstance(image, str) else image for image in images]
    distinct = list(dict.fromkeys(wanted))
    failures = {image: why for image in distinct if (why := _no_file(file_of(image)))}
    if failures and unreadable == "error":
        raise _unreadable(failures)
    digests: dict[Embeddable, bytes] = {}

    with open_store(vlm.fingerprint, "image", cache) as store:

        def new_pixels() -> Iterator[tuple[bytes, Tensor]]:
            """Digest and pixels (3, H, W) of each image that is not stored yet."""
            seen = set()
            todo = [image for image in distinct if image not in failures]
            bar = progress(label=f"images, {vlm.name}", unit="images", total=len(todo))
            with bar:
                for image, digest, found in _read_ahead(vlm, todo, store.places, workers):
                    bar.update()
                    if isinstance(found, str):
                        failures[image] = found
                        if unreadable == "error":
                            raise _unreadable(failures)
                        continue
                    digests[image] = digest
                    if found is not None and digest not in seen:
                        seen.add(digest)
                        yield digest, found

        def encoded() -> Iterator[tuple[list[bytes], np.ndarray]]:
            new = new_pixels()
            while batch := list(islice(new, batch_size)):
                pixels = torch.stack([pixels for _, pixels in batch])  # (B, 3, H, W)
                embedded = vlm.encode_images(pixels).float().cpu().numpy()
                yield [digest for digest, _ in batch], checked(embedded)

        def checked(embeddings: np.ndarray) -> np.ndarray:
            if single and embeddings.ndim != 2:
                raise UserError(
                    f"{vlm.name} gives {embeddings.shape[1]} vectors per image and one is needed; "
                    "use a VLM of the CLIP kind"
                )
            return embeddings

        store.add_all(encoded())
        kept = np.array([i for i, image in enumerate(wanted) if image in digests], int)
        if len(kept) == 0:
            raise NoneReadable(failures, len(wanted))
        if len(kept) < len(wanted):
            warnings.warn(
                f"{len(wanted) - len(kept)} of {len(wanted)} images could not be read and were "
                f"left out, the first: {file_of(next(iter(failures)))}",
                stacklevel=2,
            )
        of_rows = [digests[wanted[i]] for i in kept]
        while (found := store.gather(of_rows)) is None:
            store.add_all(encoded())  # what a damaged shard held
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
            found = store.gather(digests)
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


Found = tuple[Embeddable, bytes, Tensor | str | None]  # image, digest, what was found


def _read_ahead(
    vlm: VLM, images: list[Embeddable], known: dict, workers: int | None
) -> Iterator[Found]:
    """Yield each image with its digest and one of: its pixels (3, H, W); None if `known` has the
    digest; a text that says why it cannot be read. Each file is read once for all its crops.

    Uses threads, because Pillow releases Python's lock while it decodes and resizes. Processes
    would start more slowly and need several times the memory.
    """
    by_file: dict[Path | RemoteFile, list[Embeddable]] = {}
    for image in images:
        by_file.setdefault(file_of(image), []).append(image)
    workers = workers or min(8, os.cpu_count() or 1)
    threads = torch.get_num_threads()
    pending: deque[Future[list[Found]]] = deque()
    waiting = 0  # images in `pending`
    # Each decoding thread uses one core. Torch's setting is per thread, but later threads inherit
    # it; so it is restored.
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            for file, parts in by_file.items():
                pending.append(pool.submit(_read, vlm, file, parts, known))
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


def _read(vlm: VLM, file: Path | RemoteFile, images: list[Embeddable], known: dict) -> list[Found]:
    try:
        content = file.read_bytes()
    except OSError as error:
        return [(image, b"", str(error.strerror or error)) for image in images]
    found: list[Found] = []
    for image in images:
        digest = content_digest(content)
        if isinstance(image, Crop):
            digest = content_digest(digest + np.array(image.box, "<i8").tobytes())
        if digest in known:
            found.append((image, digest, None))
            continue
        try:
            picture = open_image(image, content)
        except UnreadableImage as error:
            found.append((image, digest, str(error)))
        else:
            found.append((image, digest, vlm.preprocess(picture)))
    return found
