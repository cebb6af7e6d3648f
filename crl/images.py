"""Image files and crops of them -> RGB pictures."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.Image import DecompressionBombError

from crl.run.errors import UserError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
# The errors that Pillow raises for files that it cannot decode.
UNDECODABLE = (OSError, ValueError, SyntaxError, RuntimeError, DecompressionBombError)


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
    """All image files in `folder` and its subfolders (see `EXTENSIONS`), sorted.

    Raises:
        UserError: there are no image files.
    """
    folder = Path(folder).expanduser()
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS)
    if not files:
        raise UserError(f"there are no images in {folder}")
    return files


def file_of(image: Path | Crop) -> Path:
    """The file that an image comes from."""
    return image.path if isinstance(image, Crop) else image


def open_image(image: Path | Crop, content: bytes | None = None) -> Image.Image:
    """The picture that is embedded: RGB; a crop is cut out and padded to a square.

    Padding is as in GeneCIS: centred; an odd row or column of black comes last.

    Args:
        content: the bytes of the file, if they have been read already.

    Raises:
        OSError, ValueError, ...: `UNDECODABLE`, or a box that is empty or exceeds the picture.
    """
    with Image.open(file_of(image) if content is None else io.BytesIO(content)) as opened:
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


def to_rgb(image: Image.Image) -> Image.Image:
    """Any mode to RGB. Transparency is dropped, as CLIP's own preprocessing does."""
    if image.mode.startswith("I"):  # 16 bits per pixel; PIL would clip at 255 instead of scaling
        eight_bits = np.clip(np.asarray(image) / 257, 0, 255).round().astype(np.uint8)
        image = Image.fromarray(eight_bits)
    return image.convert("RGB")
