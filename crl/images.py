"""Image files and parts of them -> pictures. What is embedded, by one rule for all:

- formats: JPEG, JPEG 2000, PNG, PPM, BMP, TIFF, WebP, GIF, AVIF, and HEIC if pillow-heif is
  installed; identified by content, not by name, but for TGA; of an animation the first frame;
- regular and complete files, since half a picture would mislead; but metadata that no pixel needs
  may be damaged or large, and a JPEG may lack its end mark, see `crl.run.mend`;
- at most 178,956,970 pixels, Pillow's limit, or as many as the environment variable CRL_MAX_PIXELS
  says; a larger JPEG is decoded at 1/2, 1/4 or 1/8 of its sides;
- orientation: as the camera's EXIF entry says. Not so a crop: its box counts stored pixels;
- transparency: on white;
- 16 bits per value: 0 is black; white is what a TIFF says (SMaxSampleValue), else the least of 255,
  511 ... 65,535 that no value exceeds, such as 4,095 for the 12 bits of a camera; 32-bit integers
  likewise, others are refused;
- floats: 0 is black, 1 white; if a value is above 1, 255 is white; others are refused;
- CMYK: by Pillow's formula; color profiles are not applied.

Which files of a folder are images is identified by the endings of their names, without an ending by
the content, see `list_images`.
"""

import io
import math
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError, features
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.JpegImagePlugin import JpegImageFile

from crl.run.errors import UserError
from crl.run.exif import Metadata, metadata
from crl.run.files import OURS
from crl.run.mend import JPEG, mended

# Not all that Pillow reads: for EPS it would start Ghostscript. JPEG covers the MPO of some phones.
FORMATS = ["JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF"]
FORMATS += [f for f, part in [("AVIF", "avif"), ("JPEG2000", "jpg_2000")] if features.check(part)]
EXTENSIONS = (
    ".jpg .jpeg .jpe .jfif .mpo .png .apng .ppm .pgm .pbm .pnm .bmp .tif .tiff .webp .gif .avif "
    ".jp2 .j2k .jpf .jpx .tga"
).split()
HEIF, NEED = [".heic", ".heif", ".hif"], {}  # NEED: ending -> package that would read such files
try:
    import pillow_heif
except ImportError:
    NEED = dict.fromkeys(HEIF, "pillow-heif")
else:
    pillow_heif.register_heif_opener()
    FORMATS, EXTENSIONS = [*FORMATS, "HEIF"], EXTENSIONS + HEIF
SIGNS = {  # format -> how its files begin, and the package that reads them
    "HEIF": (rb"....ftyp(he[iv]|mif1|msf1)", "pillow-heif"),
    "AVIF": (rb"....ftypavi", "pillow"),
    "JPEG2000": (rb"....jP  |\xff\x4f\xff\x51", "pillow"),
}
if os.environ.get("CRL_MAX_PIXELS", "").isdecimal():
    Image.MAX_IMAGE_PIXELS = int(os.environ["CRL_MAX_PIXELS"]) // 2  # Pillow refuses above twice it
MOST_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 0)
# Pillow's warnings name no file; what matters becomes an `UnreadableImage`.
warnings.filterwarnings("ignore", module=r"PIL\.")
TURNED = (5, 6, 7, 8)  # EXIF orientations that exchange width and height
TURNS = dict(zip((2, 4, 8, 3, 6, 5, 7), Image.Transpose, strict=True))  # by EXIF orientation
S_MAX_SAMPLE_VALUE = 341  # tag of a TIFF


NO_ENDING = "without an ending"
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


class Picture(NamedTuple):
    """What a file shows."""

    rgb: Image.Image  # upright, RGB; may be smaller than the file's
    size: tuple[int, int]  # width and height of the file's, upright
    format: str | None  # in Pillow's words
    metadata: Metadata = Metadata()


def decoded(file: File, content: bytes | None = None, side: int = 0) -> Picture:
    """The picture of a file; with `side` it may be scaled by one over a whole number, but no side
    below that. `content` and errors as in `open_image`."""
    path = Path(str(file))
    with explained(path, content):
        stored, size = load(path, content, side)
        turned = orientation(stored) in TURNED
        whole: Image.Image = stored
        times = round(max(size) / max(stored.size))
        if side and isinstance(stored, JpegImageFile) and any(n % times for n in size):
            # The last pixels stand for less than the others do: such a part is no pixel more.
            box = (0, 0, size[0] / times, size[1] / times)
            whole = stored.resize(stored.size, Image.Resampling.BILINEAR, box)
        rgb = to_rgb(upright(whole))
        if side:  # means of whole squares of pixels: a part of one would move the others
            most = max(1, min(rgb.size) // side)
            rgb = rgb.reduce(max(n for n in range(1, most + 1) if math.gcd(*rgb.size) % n == 0))
        return Picture(rgb, size[::-1] if turned else size, stored.format, metadata(stored))


def open_image(image: File | Crop, content: bytes | None = None) -> Image.Image:
    """The picture that is embedded: RGB; a crop is cut out and padded to a square as in GeneCIS:
    centred; an odd row or column of black comes last. `content` is that of the file, if it has been
    read; that of a remote file must be. An `UnreadableImage` if there is no such file, or none that
    shows a picture; or if the box is empty or leaves the picture."""
    if not isinstance(image, Crop):
        return decoded(image, content).rgb
    with explained(image.path, content):
        picture, size = load(image.path, content)
        left, top, right, bottom = image.box
        if not (0 <= left < right <= size[0] and 0 <= top < bottom <= size[1]):
            raise UnreadableImage(f"there is no box {image.box} in {size[0]} x {size[1]} pixels")
        if picture.size != size:
            raise Image.DecompressionBombError
        part = to_rgb(picture).crop(image.box)
        side = max(part.size)
        square = Image.new("RGB", (side, side))  # black
        square.paste(part, ((side - part.width) // 2, (side - part.height) // 2))
        return square


@contextmanager
def readable(file: Path) -> Iterator[Image.Image]:
    """The opened file, for its header; errors as in `explained`."""
    with explained(file), Image.open(file, formats=FORMATS) as opened:
        yield opened


@contextmanager
def explained(file: Path, content: bytes | None = None) -> Iterator[None]:
    """Whatever goes wrong with a file, or with its `content`, is an `UnreadableImage`."""
    try:
        if content is None and file.exists() and not file.is_file():  # a pipe would wait for ever
            raise UnreadableImage("not a regular file")
        yield
    except UnreadableImage:
        raise
    except UnidentifiedImageError as error:  # its own text may name bytes in memory
        with io.BytesIO(content) if content is not None else file.open("rb") as stream:
            start = stream.read(16)
        for kind, (sign, package) in SIGNS.items():
            if kind not in FORMATS and re.match(sign, start, re.DOTALL):
                reason = f"it is {kind}: pip install -U '{package}' to read it"
                raise UnreadableImage(reason) from error
        raise UnreadableImage("not an image that Pillow knows, or damaged") from error
    except Image.DecompressionBombError as error:
        reason = f"more than {MOST_PIXELS:,} pixels; set CRL_MAX_PIXELS to allow more"
        raise UnreadableImage(reason) from error
    except MemoryError as error:
        raise UnreadableImage("not enough memory for its pixels") from error
    except Exception as error:  # a damaged file makes Pillow raise nearly anything
        reason = getattr(error, "strerror", None) or str(error)
        raise UnreadableImage(" ".join(reason.split()) or type(error).__name__) from error


def load(
    file: Path, content: bytes | None = None, side: int = 0
) -> tuple[ImageFile.ImageFile, tuple[int, int]]:
    """The picture of any mode, as it is stored, and its full size. With `side` a JPEG or JPEG 2000
    may come smaller, but no side below that; without, only a JPEG of too many pixels does. Raises
    what Pillow does, see `explained`."""
    formats = [*FORMATS, "TGA"] if file.suffix.lower() == ".tga" else FORMATS  # TGA has no sign
    content = file.read_bytes() if content is None else content
    try:
        return _decode(content, formats, side)
    except Exception:
        with suppress(Exception):  # in full: of a JPEG 2000 Pillow cannot reduce every size
            return _decode(mended(content), formats, 0)
        raise


def _decode(
    content: bytes, formats: list[str], side: int
) -> tuple[ImageFile.ImageFile, tuple[int, int]]:
    try:
        opened = Image.open(io.BytesIO(content), formats=formats)
    except Image.DecompressionBombError:
        if not content.startswith(JPEG):
            raise
        opened = JpegImageFile(io.BytesIO(content))
        times = math.prod(opened.size) / MOST_PIXELS
        most = min(opened.size) // next((s for s in (2, 4) if times <= s * s), 8)
        side = min(side or most, most)
    size = opened.size
    reduced: Any = side and opened.draft("RGB", (side, side))
    if side and isinstance(opened, Jpeg2KImageFile):
        # Its halves are sharper than means of pixels, so they stay twice as large.
        reduced = opened.reduce = max(1, min(size) // (2 * side)).bit_length() - 1
    opened.load()  # a TIFF is turned while it is decoded, so its size counts afterwards
    return opened, size if reduced else opened.size


def orientation(image: Image.Image) -> int:
    """As EXIF counts, 1 to 8; also 1 (upright) if there is none, or it is damaged."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged EXIF makes Pillow raise nearly anything
        return 1
    return value if value in TURNS else 1


def upright(image: Image.Image) -> Image.Image:
    turn = TURNS.get(orientation(image))
    return image if turn is None else image.transpose(turn)


def to_rgb(image: Image.Image) -> Image.Image:
    """A picture of any mode -> RGB, by the rule at the top; a ValueError if none covers it."""
    if image.mode == "F" or image.mode.startswith("I"):  # Pillow would cut off at 255
        values = np.array(image, np.float64)
        unseen = values == image.info.get("transparency")  # a PNG names one value
        values[unseen] = 0
        white = _white(image, values.max())
        if not (values.min() >= 0 and values.max() <= white):
            known = "1, or 0 to 255" if image.mode == "F" else 65535
            span = f"{values.min():g} to {values.max():g}"
            raise ValueError(f"its values are {span}; known are 0 to {known}")
        values[unseen] = white
        return Image.fromarray((values * (255 / white)).round().astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _white(image: Image.Image, most: float) -> int:
    """The value that is white, in a picture of one channel whose largest value is `most`."""
    if image.mode == "F":
        return 1 if most <= 1 else 255
    declared = getattr(image, "tag_v2", {}).get(S_MAX_SAMPLE_VALUE, ())
    bits = max(8, int(most).bit_length())
    return next((d for d in declared if most <= d < 65535), min(2**bits - 1, 65535))


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
                kind = left_out(PurePath(file.name))
                if not kind or (kind == NO_ENDING and _is_image(file)):
                    listing.files.append(file)
                else:
                    listing.others[kind] += 1
    listing.files.sort(key=lambda file: (str(file.parent), file.name))
    if not listing.files:
        raise UserError("; ".join([f"there are no images in {shown(folder)}", *listing.remarks()]))
    return listing


def _is_image(file: Path) -> bool:
    try:
        with readable(file):
            return True
    except UnreadableImage:
        return False


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
    return "" if ending in EXTENSIONS else ending or NO_ENDING


def image_files(folder: Path | str) -> list[Path]:
    """The images of `list_images`, with a warning that says what is left out."""
    listing = list_images(folder)
    if remarks := listing.remarks():
        warnings.warn(f"{shown(listing.folder)}: {'; '.join(remarks)}", stacklevel=2)
    return listing.files


def shown(path: Path | str) -> str:
    r"""The name of a file as text for files and terminals; bytes that are not UTF-8 as \xNN."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
