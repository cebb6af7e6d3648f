"""What a camera or a program wrote into a picture: when, with what, where, and keywords."""

import math
from contextlib import suppress
from datetime import datetime
from typing import Any, NamedTuple

from PIL import ExifTags, ImageFile, IptcImagePlugin

KEYWORDS = (2, 25)  # number of IPTC's record, and of its entry
GPS = ExifTags.GPS


class Metadata(NamedTuple):
    """None or "" where the picture does not say."""

    date: str | None = None  # when it was taken, local time: 2026-11-30T12:00:00
    camera: str | None = None  # maker and model
    latitude: float | None = None  # degrees, north is positive
    longitude: float | None = None  # degrees, east is positive
    keywords: str = ""  # of IPTC, "; " between them


def metadata(image: ImageFile.ImageFile) -> Metadata:
    """Of an opened image. Damaged entries, of which Pillow raises nearly anything, are none."""
    values: dict[str, Any] = {}
    with suppress(Exception):
        exif = image.getexif()
        with suppress(Exception):
            taken = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.DateTimeOriginal)
            when = datetime.strptime(
                _text(taken or exif[ExifTags.Base.DateTime]), "%Y:%m:%d %H:%M:%S"
            )
            values["date"] = when.isoformat()
        with suppress(Exception):
            maker, model = _text(exif.get(ExifTags.Base.Make)), _text(exif.get(ExifTags.Base.Model))
            both = model if model.lower().startswith(maker.lower()) else f"{maker} {model}"
            values["camera"] = both.strip() or None
        with suppress(Exception):
            gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
            north = _degrees(gps[GPS.GPSLatitude], gps[GPS.GPSLatitudeRef], "S", 90)
            east = _degrees(gps[GPS.GPSLongitude], gps[GPS.GPSLongitudeRef], "W", 180)
            values |= {"latitude": north, "longitude": east}
    with suppress(Exception):
        words = (IptcImagePlugin.getiptcinfo(image) or {}).get(KEYWORDS, [])
        words = words if isinstance(words, list) else [words]
        values["keywords"] = "; ".join(filter(None, map(_text, words)))
    return Metadata(**values)


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            value = value.decode("latin-1")
    text = "".join(c if c.isprintable() else " " for c in value or "")
    return " ".join(text.split())


def _degrees(parts: Any, reference: str, negative: str, most: int) -> float:
    """Degrees, minutes and seconds as one number. A ValueError if there is no such place."""
    degrees = sum(float(part) / 60**place for place, part in enumerate(parts))
    if not (math.isfinite(degrees) and abs(degrees) <= most):
        raise ValueError
    return -degrees if reference.strip("\0 ").upper() == negative else degrees
