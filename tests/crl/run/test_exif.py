"""What cameras write into pictures, read from files that Pillow wrote."""

import io
from contextlib import suppress

import pytest
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IFDRational

from crl.images import UnreadableImage, decoded
from crl.run.exif import Metadata

BASE, GPS, IFD = ExifTags.Base, ExifTags.GPS, ExifTags.IFD
SYDNEY = {GPS.GPSLatitude: (33.0, 51.0, 30.0), GPS.GPSLatitudeRef: "S",
          GPS.GPSLongitude: (151.0, 12.0, 36.0), GPS.GPSLongitudeRef: "E"}  # fmt: skip


def photo(base=None, taken=None, gps=None, words=()) -> bytes:
    """A JPEG with these entries."""
    exif = Image.Exif()
    exif.update(base or {})
    if taken:
        exif.get_ifd(IFD.Exif)[BASE.DateTimeOriginal] = taken
    if gps:
        exif[IFD.GPSInfo] = gps
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "JPEG", exif=exif)
    entries = b"".join(b"\x1c\x02\x19" + len(w).to_bytes(2, "big") + w for w in words)
    block = b"Photoshop 3.0\x008BIM\x04\x04\0\0" + len(entries).to_bytes(4, "big") + entries
    segment = b"\xff\xed" + (len(block) + 2).to_bytes(2, "big") + block if words else b""
    return stream.getvalue()[:2] + segment + stream.getvalue()[2:]


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ({}, {}),
        ({"taken": "2024:05:01 12:30:00", "base": {BASE.DateTime: "2025:01:01 00:00:00"}},
         {"date": "2024-05-01T12:30:00"}),
        ({"base": {BASE.DateTime: "2025:01:01 00:00:00"}}, {"date": "2025-01-01T00:00:00"}),
        ({"taken": "0000:00:00 00:00:00"}, {}),
        ({"base": {BASE.Make: "Canon", BASE.Model: "Canon EOS 5D"}}, {"camera": "Canon EOS 5D"}),
        ({"base": {BASE.Make: "FUJIFILM ", BASE.Model: "X-T5"}}, {"camera": "FUJIFILM X-T5"}),
        ({"gps": SYDNEY}, {"latitude": -33.858333, "longitude": 151.21}),
        ({"gps": SYDNEY | {GPS.GPSLatitude: (IFDRational(33), IFDRational(0, 0), 0.0)}}, {}),
        ({"gps": SYDNEY | {GPS.GPSLatitude: (91.0, 0.0, 0.0)}}, {}),
        ({"words": [b"sea", "Küste".encode(), "Café".encode("latin-1")]},
         {"keywords": "sea; Küste; Café"}),
        ({"words": [b"=a\n b\0"]}, {"keywords": "=a b"}),
    ],
)  # fmt: skip
def test_metadata(entries, expected, tmp_path):
    picture = decoded(tmp_path / "a.jpg", photo(**entries))
    expected = Metadata(**expected)
    assert picture.metadata == expected._replace(
        latitude=expected.latitude and pytest.approx(expected.latitude),
        longitude=expected.longitude and pytest.approx(expected.longitude),
    )


def test_damaged_entries_are_none(tmp_path):
    good = photo({BASE.Make: "Canon"}, "2024:05:01 12:30:00", SYDNEY, [b"sea"])
    seen = set()
    for place in range(20, 330):
        damaged = good[:place] + bytes([good[place] ^ 0x55]) + good[place + 1 :]
        with suppress(UnreadableImage):  # never another error
            seen.add(decoded(tmp_path / "a.jpg", damaged).metadata)
    assert len(seen) > 10
