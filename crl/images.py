"""Image files and parts of them -> pictures. What is embedded, by one rule for all:

- formats: JPEG, PNG, PPM, BMP, TIFF, WebP, GIF, AVIF, and HEIC if pillow-heif is installed;
  identified by content, not by name; of an animation the first frame; regular files of at most
  178,956,970 pixels, which is Pillow's limit; complete files, since half a picture would mislead;
- orientation: as the camera's EXIF entry says. Not so a crop: its box counts stored pixels;
- transparency: on white;
- 16 bits per value: 0 is black, 65,535 white; 32-bit integers likewise, others are refused;
- floats: 0 is black, 1 white; if a value is above 1, 255 is white; others are refused;
- CMYK: by Pillow's formula; color profiles are not applied.

Which files of a folder are images is identified by the endings of their names, see `list_images`.
"""

import io
import os
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Protocol

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from crl.run.errors import UserError
from crl.run.files import OURS

# Not all that Pillow reads: for EPS it would start Ghostscript. JPEG covers the MPO of some phones.
FORMATS = ["JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF", "AVIF"]
EXTENSIONS = ".jpg .jpeg .jfif .png .apng .ppm .pgm .bmp .tif .tiff .webp .gif .avif".split()
HEIF, NEED = [".heic", ".heif"], {}  # NEED: ending -> the package that would read such files
try:
    import pillow_heif
except ImportError:
    NEED = dict.fromkeys(HEIF, "pillow-heif")
else:
    pillow_heif.register_heif_opener()
    FORMATS, EXTENSIONS = [*FORMATS, "HEIF"], EXTENSIONS + HEIF


# Folders of file servers, bins and archives: smaller or deleted copies of pictures
NOT_THE_USERS = set("@eadir @recycle @recently-snapshot #recycle #snapshot $recycle.bin recycler "
                    "__macosx lost+found".split()) | {"system volume information"}  # fmt: skip


class UnreadableImage(Exception):
    """Says why a file shows no picture."""


class File(Protocol):
    """An image file: a `Path`, or one of an object store (`crl.explore.listing.RemoteFile`)."""

    def read_bytes(self) -> bytes: ...


@dataclass(frozen=True)
class Crop:
    """A part of an image file, padded to a square with black, and used as an image."""

    path: Path
    box: tuple[int, int, int, int]  # left, top, right, bottom in pixels; the last two just outside


def file_of(image: File | Crop) -> File:
    """The file that an image comes from."""
    return image.path if isinstance(image, Crop) else image


def open_image(image: File | Crop, content: bytes | None = None) -> Image.Image:
    """The picture that is embedded: RGB; a crop is cut out and padded to a square as in GeneCIS:
    centred; an odd row or column of black comes last. `content` is that of the file, if it has been
    read; that of a remote file must be. An `UnreadableImage` if there is no such file, or none that
    shows a picture; or if the box is empty or leaves the picture."""
    with readable(Path(str(file_of(image))), content) as opened:
        if not isinstance(image, Crop):
            return to_rgb(ImageOps.exif_transpose(opened))
        picture = to_rgb(opened)
        left, top, right, bottom = image.box
        if not (0 <= left < right <= picture.width and 0 <= top < bottom <= picture.height):
            size = f"{picture.width} x {picture.height} pixels"
            raise UnreadableImage(f"there is no box {image.box} in {size}")
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
    except UnidentifiedImageError as error:  # its own text may name bytes in memory
        raise UnreadableImage("not an image that Pillow knows") from error
    except MemoryError as error:
        raise UnreadableImage("not enough memory for its pixels") from error
    except Exception as error:  # a damaged file makes Pillow raise nearly anything
        reason = getattr(error, "strerror", None) or str(error)
        raise UnreadableImage(" ".join(reason.split()) or type(error).__name__) from error


def to_rgb(image: Image.Image) -> Image.Image:
    """A picture of any mode -> RGB, by the rule at the top; a ValueError if none covers it."""
    if image.mode == "F" or image.mode.startswith("I"):  # Pillow would cut off at 255
        values = np.asarray(image, np.float64)
        white = 65535 if image.mode != "F" else 1 if values.max() <= 1 else 255
        if not (values.min() >= 0 and values.max() <= white):
            known = "1, or 0 to 255" if image.mode == "F" else white
            span = f"{values.min():g} to {values.max():g}"
            raise ValueError(f"its values are {span}; known are 0 to {known}")
        return Image.fromarray((values * (255 / white)).round().astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


@dataclass(frozen=True)
class Listing:
    """The result of `list_images`."""

    folder: Path
    files: list[Path] = field(default_factory=list)  # sorted by folder, then by name
    others: Counter[str] = field(default_factory=Counter)  # ending -> files that are left out
    passed: Counter[str] = field(default_factory=Counter)  # name -> folders that are passed over
    closed: list[Path] = field(default_factory=list)  # folders that could not be read

    def remarks(self) -> list[str]:
        """What is left out and why, one text each."""
        remarks, no_images = [], []
        for ending, count in self.others.most_common():
            if ending in NEED:
                remarks.append(
                    f"{count} {ending} left out: pip install '{NEED[ending]}' to read them"
                )
            else:
                no_images.append(f"{count} {ending}")
        if self.closed:
            first = ", ".join(map(shown, self.closed[:3])) + " ..." * (len(self.closed) > 3)
            remarks.append(f"{len(self.closed)} folder(s) could not be read: {first}")
        if no_images:
            remarks.append(f"left out: {', '.join(no_images)}")
        if self.passed:
            folders = ", ".join(f"{count} {name}" for name, count in self.passed.most_common())
            remarks.append(f"folders left out: {folders}")
        return remarks


def list_images(folder: Path | str) -> Listing:
    """What there is below `folder`, identified by the endings of names. A folder is visited once,
    links to folders after all others. A link to nothing counts as a file; to open it
    fails. What is not the user's is left out. A UserError if there is no such folder, or no image
    in it."""
    folder = Path(os.path.expanduser(folder))
    if not os.path.isdir(folder):  # Path.is_dir raises for names that are too long
        raise UserError(f"there is no folder {shown(folder)}")
    listing = Listing(folder)
    seen: set[tuple[int, int]] = set()
    starts = [str(folder)]
    for start in starts:
        for directory, subfolders, names in os.walk(
            start, onerror=lambda error: listing.closed.append(Path(error.filename))
        ):
            status = os.stat(directory)
            if (place := (status.st_dev, status.st_ino)) in seen:
                subfolders.clear()
                continue
            seen.add(place)
            paths = [os.path.join(directory, name) for name in sorted(subfolders)]
            listing.passed.update(shown(Path(path).name) for path in paths if not is_users(path))
            paths = [path for path in paths if is_users(path)]
            subfolders[:] = [os.path.basename(path) for path in paths]
            starts += filter(os.path.islink, paths)
            for file in (Path(directory, name) for name in names):
                if kind := left_out(PurePath(file.name)):
                    listing.others[kind] += 1
                else:
                    listing.files.append(file)
    listing.files.sort(key=lambda file: (str(file.parent), file.name))
    if not listing.files:
        raise UserError("; ".join([f"there are no images in {shown(folder)}", *listing.remarks()]))
    return listing


def is_hidden(name: str) -> bool:
    """Is this the name of a file or folder that is not the user's? It begins with a dot (macOS puts
    a `._a.jpg` beside `a.jpg`), or belongs to a file server, a bin or an archive."""
    return name.startswith(".") or name.lower() in NOT_THE_USERS


def is_users(folder: str) -> bool:
    """Are the pictures in it the user's? Not those in `is_hidden` folders and in our outputs."""
    return not is_hidden(os.path.basename(folder)) and not os.path.exists(f"{folder}/{OURS}")


def left_out(file: PurePath) -> str:
    """How a file, relative to the folder that is listed, is counted; "" for an image."""
    if any(map(is_hidden, file.parts)):
        return "hidden"
    ending = shown(file.suffix.lower())
    return "" if ending in EXTENSIONS else ending or "without an ending"


def image_files(folder: Path | str) -> list[Path]:
    """The images of `list_images`, with a warning that says what is left out."""
    listing = list_images(folder)
    if remarks := listing.remarks():
        warnings.warn(f"{shown(listing.folder)}: {'; '.join(remarks)}", stacklevel=2)
    return listing.files


def shown(path: Path | str) -> str:
    r"""The name of a file as text for files and terminals; bytes that are not UTF-8 as \xNN."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
