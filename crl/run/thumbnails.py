"""Small pictures of image files, made once and kept as Parquet files, one folder per collection.

They are told by the content of the image, so copies, renamed and moved files share one.
"""

import hashlib
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import ExifTags, Image, ImageOps

from crl.images import UnreadableImage, readable, shown, to_rgb
from crl.run.cache import THUMBNAILS
from crl.run.errors import UserError
from crl.run.files import atomic_path
from crl.run.progress import progress

PART = 2_000  # the most that a kill can cost
VERSION = 2
TURNED = (5, 6, 7, 8)  # EXIF orientations that exchange width and height


class Thumbnail(NamedTuple):
    """A small WebP picture, and the width and height of the image that it shows, in pixels."""

    webp: bytes
    width: int
    height: int


def thumbnail(
    file: Path, content: bytes | None = None, side: int = 96, quality: int = 70
) -> Thumbnail:
    """A picture of an image file whose longer side is `side` pixels or less; about 2 KB.

    Args:
        content: the bytes of the file, if they have been read already.
        quality: of WebP, 0 to 100.

    Raises:
        UnreadableImage: as in `crl.images.open_image`.
    """
    with readable(file, content) as opened:
        width, height = opened.size
        reduced = opened.draft("RGB", (2 * side, 2 * side))  # a JPEG is not decoded in full
        picture = to_rgb(ImageOps.exif_transpose(opened))
        if not reduced:  # a TIFF is turned while it is decoded, so its size counts afterwards
            width, height = picture.size
        elif opened.getexif().get(ExifTags.Base.Orientation) in TURNED:
            width, height = height, width
        picture.thumbnail((side, side))
        webp = io.BytesIO()
        picture.save(webp, "WEBP", quality=quality)
    return Thumbnail(webp.getvalue(), width, height)


def thumbnails(
    files: Sequence[Path],
    digests: Sequence[bytes],
    collection: Path,
    cache: Path | None = THUMBNAILS,
) -> list[Thumbnail]:
    """The small picture, the width and the height of each file, in the order given.

    Args:
        files: N image files that can be read; digests: of their contents.
        collection: the folder that they belong to; it names the part of the cache.
        cache: None keeps nothing.

    Raises:
        UserError: a file changed since it was embedded, and is no image now.
    """
    place = hashlib.blake2b(str(collection.resolve()).encode(), digest_size=8).hexdigest()
    folder = cache and cache / f"{place}-{VERSION}"
    found = _kept(folder) if folder else {}
    missing = {d: f for f, d in zip(files, digests, strict=True) if d not in found}
    new = iter(progress(missing.items(), label="thumbnails", unit="images", total=len(missing)))
    with ThreadPoolExecutor() as pool:
        while part := list(islice(new, PART)):
            made = pool.map(lambda item: _thumbnail(item[1]), part)
            fresh = {digest: small for (digest, _), small in zip(part, made, strict=True)}
            found |= fresh
            if folder:
                _keep(folder, fresh)
    return [found[digest] for digest in digests]


def gray(width: int, height: int) -> Thumbnail:
    """What stands for a picture of this size in pixels whose file is not here."""
    scale = 96 / max(width, height, 96)
    small = (round(width * scale) or 1, round(height * scale) or 1)
    webp = io.BytesIO()
    Image.new("RGB", small, "lightgray").save(webp, "WEBP")
    return Thumbnail(webp.getvalue(), width, height)


def _thumbnail(file: Path) -> Thumbnail:
    try:
        return thumbnail(file)
    except UnreadableImage as error:
        raise UserError(f"{shown(file)} has changed meanwhile: {error}; try again") from error


def _kept(folder: Path) -> dict[bytes, Thumbnail]:
    found = {}
    for file in sorted(folder.glob("*.parquet")):
        try:
            columns = pq.read_table(file).to_pydict()
        except (OSError, pa.ArrowException):  # damaged: made again
            file.unlink(missing_ok=True)
            continue
        small = map(Thumbnail, columns["webp"], columns["width"], columns["height"])
        found |= dict(zip(columns["digest"], small, strict=True))
    return found


def _keep(folder: Path, fresh: dict[bytes, Thumbnail]) -> None:
    webp, width, height = zip(*fresh.values(), strict=True)
    table = pa.table(
        {"digest": list(fresh), "webp": list(webp), "width": list(width), "height": list(height)}
    )
    name = hashlib.blake2b(b"".join(fresh), digest_size=16).hexdigest()
    with atomic_path(folder / f"{name}.parquet") as temporary:
        pq.write_table(table, temporary)
