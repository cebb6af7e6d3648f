"""What Pillow refuses though no pixel is missing: a PNG with damaged or large metadata, and a JPEG
without its end mark."""

import io
import re
from zlib import crc32

import numpy as np
from PIL import Image

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"


def _way_on(first: int, step: int) -> bytes:
    """How a JPEG that ends too early might go on: codes of pixels, and each mark at which a decoder
    starts anew after a loss, with such codes."""
    noise = bytes(n * step % 255 for n in range(1, 255))
    marks = [bytes([0xFF, 0xD0 + (first + n) % 8]) for n in range(8)]
    return noise + b"".join(mark + noise for mark in marks) + b"\xff\xd9"


WAYS_ON = [_way_on(first, step) for first, step in ((0, 151), (2, 254), (4, 86), (6, 43))]


def mended(content: bytes) -> bytes:
    """The content of a file that Pillow refuses, without what no pixel needs. If pixels are missing
    it is refused again, or here with a ValueError."""
    if content.startswith(PNG):
        return _needed_chunks(content)
    return _ended(content) if content.startswith(JPEG) else content


def _needed_chunks(png: bytes) -> bytes:
    """Without ancillary chunks (small first letter), but transparency and undamaged EXIF."""
    kept, start = [PNG], len(PNG)
    while start < len(png):
        length, name = int.from_bytes(png[start : start + 4], "big"), png[start + 4 : start + 8]
        chunk = png[start : start + 12 + length]
        whole = crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")
        if not name[:1].islower() or name == b"tRNS" or (name == b"eXIf" and whole):
            kept.append(chunk)
        start += 12 + length
    return b"".join(kept)


def _ended(jpeg: bytes) -> bytes:
    """With an end mark. A ValueError if a pixel depends on what would stand before it."""
    jpeg += b"\0" if jpeg.endswith(b"\xff") else b""  # no mark, with what follows
    ways = [Image.open(io.BytesIO(jpeg + more), formats=["JPEG"]) for more in WAYS_ON]
    # Of a progressive JPEG a whole scan may be missing: do all coefficients have their last bit?
    complete = np.zeros((256, 64), bool)  # by component and coefficient
    for scan in re.finditer(b"\xff\xda", jpeg):
        names = jpeg[scan.end() + 3 :][: 2 * jpeg[scan.end() + 2]]
        start, stop, bits = jpeg[scan.end() + 3 + len(names) :][:3]
        complete[list(names[::2]), start : stop + 1] = bits & 15 == 0
    bands = len(ways[0].getbands())
    if complete.all(axis=1).sum() < bands or len({picture.tobytes() for picture in ways}) > 1:
        raise ValueError("pixels are missing")
    return jpeg + WAYS_ON[0]
