"""Small pictures of image files, made once and kept as Parquet files, one folder per collection.
They are identified by content, so copies, renamed and moved files share one."""

import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import islice, repeat
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from crl.images import Picture, UnreadableImage, decoded, shown
from crl.run.errors import UserError
from crl.run.exif import Metadata
from crl.run.files import CACHE, atomic_path
from crl.run.progress import progress
from crl.run.results import digest
from crl.run.store import content_digest

VERSION = 5
PART = 2_000  # the most that a kill can cost
SIDE, QUALITY = 96, 70  # longer side in pixels, and WebP's quality: about 2 KB
IN_BROWSERS = ("JPEG", "MPO", "PNG", "GIF", "WEBP", "AVIF", "BMP")  # all show these


class Thumbnail(NamedTuple):
    webp: bytes  # the small picture
    width: int  # of the image, in pixels; 0: unknown
    height: int
    in_browsers: bool = True  # does a browser show the file itself?
    metadata: Metadata = Metadata()


def thumbnail(file: Path, side: int = SIDE) -> Thumbnail:
    try:
        return _small(decoded(file, side=2 * side), side)  # a JPEG is not decoded in full
    except UnreadableImage as error:
        raise UserError(f"{shown(file)} has changed meanwhile: {error}; try again") from error


def _small(picture: Picture, side: int = SIDE) -> Thumbnail:
    small = picture.rgb.copy()
    small.thumbnail((side, side))
    shows = picture.format in IN_BROWSERS
    return Thumbnail(_webp(small), *picture.size, shows, picture.metadata)


def gray() -> Thumbnail:
    """What stands for an image whose file is not here."""
    return Thumbnail(_webp(Image.new("RGB", (SIDE, SIDE), "lightgray")), 0, 0)


def thumbnails(
    files: Sequence[Path], digests: Sequence[bytes], collection: Path,
    cache: Path = CACHE / "thumbnails", side: int = SIDE,
) -> list[Thumbnail]:  # fmt: skip
    """The thumbnail of each of N files, `side` pixels long or high; the folder `collection` names
    the part of the cache."""
    folder = _folder(collection, cache, side)
    small = _read(folder)
    missing = {d: file for file, d in zip(files, digests, strict=True) if d not in small}
    todo = iter(progress(missing.items(), label="thumbnails", unit="images", total=len(missing)))
    with ThreadPoolExecutor() as pool:
        while part := dict(islice(todo, PART)):
            new = dict(zip(part, pool.map(thumbnail, part.values(), repeat(side)), strict=True))
            _write(folder, new)
            small |= new
    return [small[key] for key in digests]


@contextmanager
def made_meanwhile(
    collection: Path, cache: Path = CACHE / "thumbnails"
) -> Iterator[Callable[[bytes, Picture], None]]:
    """What takes a digest and a picture that was decoded for something else, from any thread, and
    keeps the thumbnail where `thumbnails` looks for it."""
    folder, lock = _folder(collection, cache, SIDE), Lock()
    kept, new = set(_read(folder)), dict[bytes, Thumbnail]()

    def write() -> None:
        with suppress(OSError):  # without them they are made when they are needed
            _write(folder, new)
        new.clear()

    def make(digest: bytes, picture: Picture) -> None:
        if digest in kept:
            return
        small = _small(picture)
        with lock:
            kept.add(digest)
            new[digest] = small
            if len(new) >= PART:
                write()

    try:
        yield make
    finally:
        if new:
            write()


def _webp(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "WEBP", quality=QUALITY)
    return stream.getvalue()


def _folder(collection: Path, cache: Path, side: int) -> Path:
    return cache / f"{digest(str(collection.resolve()))}-{VERSION}-{side}"


def _write(folder: Path, small: dict[bytes, Thumbnail]) -> None:
    nested = {d: {**s._asdict(), "metadata": s.metadata._asdict()} for d, s in small.items()}
    table = pa.Table.from_pylist([{"digest": d, **values} for d, values in nested.items()])
    name = content_digest(b"".join(small)).hex()
    with atomic_path(folder / f"{name}.parquet") as temporary:
        pq.write_table(table, temporary, write_page_checksum=True)


def _read(folder: Path) -> dict[bytes, Thumbnail]:
    small: dict[bytes, Thumbnail] = {}
    for file in sorted(folder.glob("*.parquet")):
        try:
            columns = pq.read_table(file, page_checksum_verification=True).to_pydict()
        except (OSError, pa.ArrowException):  # damaged: made again
            file.unlink(missing_ok=True)
            continue
        digests = columns.pop("digest")
        columns["metadata"] = [Metadata(**values) for values in columns["metadata"]]
        pictures = [Thumbnail(*row) for row in zip(*columns.values(), strict=True)]
        small |= dict(zip(digests, pictures, strict=True))
    return small
