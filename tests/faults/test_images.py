"""Pictures and folders of pictures that are none."""

import struct
import zlib

import numpy as np
import pytest
from mistakes import FIFO, GARBAGE, LOOP, cuts
from PIL import Image


def png(width: int, height: int) -> bytes:
    """A PNG whose header promises more pixels than it has."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 10)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


def negative(file: str) -> None:
    Image.fromarray(np.full((4, 4), -1, np.int32)).save(file, "tiff")


NONE = ": not an image that Pillow knows; mend or remove it, or set unreadable=skip"
PICTURES = [
    ("b.png", b"", NONE),
    ("b.png", GARBAGE, NONE),
    ("b.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", NONE),
    ("b.png", png(60_000, 60_000), ": "),
    ("b.png", png(50, 50), ": "),
    ("b.tif", negative, ": its values are -1 to -1; known are 0 to 65535"),
    ("b.png", LOOP, ": "),
    ("b.png", FIFO, ": not a regular file"),
]


@pytest.mark.parametrize(("name", "content", "words"), PICTURES, ids=range(len(PICTURES)))
def test_a_picture(refused, name, content, words):
    file = f"pictures/mood/wild/{name}"
    refused("clustering", f"cannot read the image {file}{words}", {file: content})


@pytest.mark.parametrize(
    ("command", "file"),
    [
        ("clustering", "pictures/mood/wild/119.png"),
        ("clustering data=clevr4 root=. criteria=color bases={}", "clevr_4_10k_v1/images/000.png"),
        ("similarity", "genecis/coco/val2017/000000000000.jpg"),
        ("fashion", "clothes/img/120.png"),
        ("train_mlp name=new vlm=color_vlm:ColorVLM", "clothes/img/000.png"),
    ],
)
@pytest.mark.parametrize("part", range(6))
def test_a_picture_that_is_cut_off(refused, data, command, file, part):
    content = cuts((data / file).read_bytes(), 8)[part]
    refused(command, f"cannot read the image {file}: ", {file: content})
