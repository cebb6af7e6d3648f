"""Image files and parts of them -> pictures. What is embedded, by one rule for all:

- formats: JPEG, PNG, PPM, BMP, TIFF, WebP, GIF, AVIF, and HEIC if pillow-heif is installed; told by
  content, not by name; of an animation the first frame; regular files of at most 178,956,970
  pixels, which is Pillow's limit; complete files, since half a picture would mislead;
- orientation: as the camera's EXIF entry says. Not so a crop: its box counts stored pixels;
- transparency: on white;
- 16 bits per value: 0 is black, 65,535 white; 32-bit integers likewise, others are refused;
- floats: 0 is black, 1 white; if a value is above 1, 255 is white; others are refused;
- CMYK: by Pillow's formula; color profiles are not applied.

Which files of a folder are images is told by the endings of their names, see `list_images`.
"""

import errno
import io
import os
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError, features

from crl.run.errors import UserError

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

# Not all that Pillow knows: for EPS it would start Ghostscript. JPEG covers the MPO of some phones.
FORMATS = ["JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF"]
EXTENSIONS = ".jpg .jpeg .jfif .png .apng .ppm .pgm .bmp .tif .tiff .webp .gif".split()
NEED = {}  # ending -> the package that would read such files


def _more_formats() -> None:
    """What phones and the web write, where a package for it is installed."""
    try:
        import pillow_heif
    except ImportError:
        heif = False
    else:
        pillow_heif.register_heif_opener()
        heif = True
    avif = "avif" in features.modules and features.check("avif")  # older ones warn if asked
    formats = [
        ("HEIF", (".heic", ".heif"), heif, "pillow-heif"),
        ("AVIF", (".avif",), avif, "pillow>=11.3"),
    ]
    for name, endings, readable, package in formats:
        if readable:
            FORMATS.append(name)
            EXTENSIONS.extend(endings)
        else:
            NEED.update(dict.fromkeys(endings, package))


_more_formats()


class UnreadableImage(Exception):
    """Says why a file shows no picture."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of an object store.

    Attributes:
        path: bucket/key.
        store: reads it.
    """

    path: str
    store: "FileSystem" = field(compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.store.type_name}://{self.path}"

    def read_bytes(self) -> bytes:
        """Its content.

        Raises:
            FileNotFoundError: there is no such file.
            UserError: the store does not answer or refuses; that says nothing about the image.
        """
        try:
            with self.store.open_input_stream(self.path) as stream:
                return stream.read()
        except FileNotFoundError:
            raise FileNotFoundError(errno.ENOENT, "No such file", str(self)) from None
        except OSError as error:
            raise UserError(
                f"cannot read {self}: {shorten(str(error), 300)}; when the store answers again, "
                "run the command again"
            ) from error


@dataclass(frozen=True)
class Crop:
    """A part of an image file, padded to a square with black, and used as an image.

    Attributes:
        path: the image file.
        box: left, top, right, bottom in pixels; right and bottom just outside the part.
    """

    path: Path
    box: tuple[int, int, int, int]


@dataclass(frozen=True)
class Listing:
    """The result of `list_images`.

    Attributes:
        folder: where the images are.
        files: images, by their endings, sorted by folder, then by name.
        unsupported: ending -> number of images that need another package, see `NEED`.
        others: ending, or "without an ending" -> number of files that are no images.
        hidden: number of files and folders whose name begins with a dot.
        closed: folders that could not be read.
    """

    folder: Path
    files: list[Path]
    unsupported: Counter[str]
    others: Counter[str]
    hidden: int
    closed: list[Path]

    def remarks(self) -> list[str]:
        """What is left out and why, one text each; hidden files are not worth a word."""
        found = [
            f"{count} {ending} left out: pip install '{NEED[ending]}' to read them"
            for ending, count in self.unsupported.most_common()
        ]
        if self.closed:
            first = ", ".join(shown(folder) for folder in self.closed[:3])
            more = " ..." if len(self.closed) > 3 else ""
            found.append(f"{len(self.closed)} folder(s) could not be read: {first}{more}")
        if self.others:
            counts = ", ".join(f"{n} {ending}" for ending, n in self.others.most_common(5))
            found.append(f"left out, since they are no images: {counts}")
        return found


def list_images(folder: Path | str) -> Listing:
    """What there is below `folder`, told by the endings of names.

    Links to folders are followed, but none that leads back to a folder above it. A link to nothing
    counts as a file; to open it fails. Hidden files and folders are passed over (macOS puts a
    `._a.jpg` beside `a.jpg`).

    Raises:
        UserError: there is no such folder.
    """
    folder = Path(os.path.expanduser(folder))
    if not os.path.isdir(folder):  # Path.is_dir raises for names that are too long
        if os.path.exists(folder):
            raise UserError(f"{shown(folder)} is a file, not a folder")
        raise UserError(f"there is no folder {shown(folder)}")
    found = Listing(folder, [], Counter(), Counter(), 0, [])
    files, hidden = found.files, 0
    pending: list[tuple[Path, frozenset]] = [(folder, frozenset())]
    while pending:
        directory, above = pending.pop()
        try:
            status, entries = directory.stat(), list(os.scandir(directory))
        except OSError:
            found.closed.append(directory)
            continue
        here = (status.st_dev, status.st_ino)
        if here in above:
            continue
        for entry in entries:
            path, ending = directory / entry.name, shown(Path(entry.name).suffix.lower())
            if entry.name.startswith("."):
                hidden += 1
            elif _is_folder(entry):
                pending.append((path, above | {here}))
            elif ending in EXTENSIONS:
                files.append(path)
            elif ending in NEED:
                found.unsupported[ending] += 1
            else:
                found.others[ending or "without an ending"] += 1
    files.sort(key=lambda file: (str(file.parent), file.name))
    return replace(found, hidden=hidden)


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def image_files(folder: Path | str) -> list[Path]:
    """The images of `list_images`, with a warning that says what is left out.

    Raises:
        UserError: there is no such folder, or no image in it.
    """
    found = list_images(folder)
    where, remarks = shown(found.folder), found.remarks()
    if not found.files:
        raise UserError("; ".join([f"there are no images in {where}", *remarks]))
    if remarks:
        warnings.warn(f"{where}: {'; '.join(remarks)}", stacklevel=2)
    return found.files


def shown(path: Path | str) -> str:
    r"""The name of a file as text for files and terminals; bytes that are not UTF-8 as \xNN."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def file_of(image: Path | RemoteFile | Crop) -> Path | RemoteFile:
    """The file that an image comes from."""
    return image.path if isinstance(image, Crop) else image


def open_image(image: Path | RemoteFile | Crop, content: bytes | None = None) -> Image.Image:
    """The picture that is embedded: RGB; a crop is cut out and padded to a square.

    Padding is as in GeneCIS: centred; an odd row or column of black comes last.

    Args:
        content: the bytes of the file, if they have been read already, as those of a remote file
            must be.

    Raises:
        UnreadableImage: no such file, or none that shows a picture; or the box is empty or leaves
            the picture.
    """
    name = Path(str(file_of(image)))  # of a remote file nothing but its content is used
    with readable(name, content) as opened:
        if not isinstance(image, Crop):
            return to_rgb(ImageOps.exif_transpose(opened))
        picture = to_rgb(opened)
        left, top, right, bottom = image.box
        if not (0 <= left < right <= picture.width and 0 <= top < bottom <= picture.height):
            raise UnreadableImage(
                f"there is no box {image.box} in {picture.width} x {picture.height} pixels"
            )
    part = picture.crop(image.box)
    side = max(part.size)
    square = Image.new("RGB", (side, side))  # black
    square.paste(part, ((side - part.width) // 2, (side - part.height) // 2))
    return square


@contextmanager
def readable(file: Path, content: bytes | None = None) -> Iterator[Image.Image]:
    """The opened file, or its `content`; whatever goes wrong with it is an `UnreadableImage`."""
    source = file if content is None else io.BytesIO(content)
    try:
        if content is None and file.exists() and not file.is_file():  # a pipe would wait for ever
            raise UnreadableImage("not a regular file")
        with Image.open(source, formats=FORMATS) as opened:
            yield opened
    except UnreadableImage:
        raise
    except UnidentifiedImageError as error:  # its own text may name bytes in memory
        raise UnreadableImage("not an image that Pillow knows") from error
    except OSError as error:
        raise UnreadableImage(error.strerror or str(error)) from error
    except MemoryError as error:
        raise UnreadableImage("not enough memory for its pixels") from error
    except Exception as error:  # a damaged file makes Pillow raise nearly anything
        raise UnreadableImage(" ".join(str(error).split()) or type(error).__name__) from error


def to_rgb(image: Image.Image) -> Image.Image:
    """A picture of any mode -> RGB, by the rule at the top of this module.

    Raises:
        ValueError: values that no rule covers.
    """
    if image.mode == "F" or image.mode.startswith("I"):
        values = np.asarray(image, np.float64)
        return Image.fromarray(_eight_bits(values, deep=image.mode != "F")).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _eight_bits(values: np.ndarray, deep: bool) -> np.ndarray:
    """Black to white as 0 to 255; Pillow would cut off at 255 instead of scaling."""
    white = 65535 if deep else 1 if values.max() <= 1 else 255
    if not (values.min() >= 0 and values.max() <= white):
        raise ValueError(
            f"its values are {values.min():g} to {values.max():g}; known are 0 to "
            f"{65535 if deep else '1, or 0 to 255'}"
        )
    return (values * (255 / white)).round().astype(np.uint8)
