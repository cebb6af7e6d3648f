"""Image files and parts of them -> pictures. What is embedded, by one rule for all:

- formats: JPEG, PNG, PPM, BMP, TIFF, WebP and GIF (the first frame), told by content, not by name;
  regular files of at most 178,956,970 pixels, which is Pillow's limit;
- orientation: as the camera's EXIF entry says. Not so a crop: its box counts stored pixels;
- transparency: on white;
- 16 bits per pixel: 0 is black, 65,535 white; 32-bit integers likewise, others are refused;
- floats: 0 is black, 1 white; if a value is above 1, 255 is white; others are refused.
"""

import io
import os
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from crl.run.errors import UserError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
# Not all that Pillow knows: for EPS it would start Ghostscript. JPEG covers the MPO of some phones.
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF")


class UnreadableImage(Exception):
    """Says why a file shows no picture."""


@dataclass(frozen=True)
class Crop:
    """A part of an image file, padded to a square with black, and used as an image.

    Attributes:
        path: the image file.
        box: left, top, right, bottom in pixels; right and bottom just outside the part.
    """

    path: Path
    box: tuple[int, int, int, int]


def image_files(folder: Path | str) -> list[Path]:
    """All image files below `folder`, by their endings, sorted by folder, then by name.

    Links to folders are followed, but none that leads back to a folder above it. Other files are
    left out, with a warning that counts their endings; hidden ones without.

    Raises:
        UserError: there is no such folder, or no image in it.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}")
    found: list[Path] = []
    others: Counter[str] = Counter()
    pending: list[tuple[Path, frozenset]] = [(folder, frozenset())]
    while pending:
        directory, above = pending.pop()
        status = directory.stat()
        here = (status.st_dev, status.st_ino)
        if here in above:
            continue
        for entry in os.scandir(directory):
            path = directory / entry.name
            if entry.is_dir():
                pending.append((path, above | {here}))
            elif path.suffix.lower() in EXTENSIONS:
                found.append(path)
            elif not entry.name.startswith("."):
                others[path.suffix.lower() or "without an ending"] += 1
    if others:
        counts = ", ".join(f"{n} {ending}" for ending, n in others.most_common(5))
        warnings.warn(f"left out in {folder}, since they are no images: {counts}", stacklevel=2)
    if not found:
        raise UserError(f"there are no images in {folder}")
    return sorted(found, key=lambda file: (str(file.parent), file.name))


def file_of(image: Path | Crop) -> Path:
    """The file that an image comes from."""
    return image.path if isinstance(image, Crop) else image


def open_image(image: Path | Crop, content: bytes | None = None) -> Image.Image:
    """The picture that is embedded: RGB; a crop is cut out and padded to a square.

    Padding is as in GeneCIS: centred; an odd row or column of black comes last.

    Args:
        content: the bytes of the file, if they have been read already.

    Raises:
        UnreadableImage: no such file, or none that shows a picture; or the box is empty or leaves
            the picture.
    """
    with readable(file_of(image), content) as opened:
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
    if content is None and file.exists() and not file.is_file():  # a pipe would wait for ever
        raise UnreadableImage("not a regular file")
    source = file if content is None else io.BytesIO(content)
    try:
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
        raise UnreadableImage(str(error) or type(error).__name__) from error


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
