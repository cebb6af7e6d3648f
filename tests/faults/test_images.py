"""Pictures that are none. (More of them: crl/test_images.py.)"""

import pytest
from mistakes import FIFO, GARBAGE, LOOP, cuts

NONE = ": not an image that Pillow knows, or damaged; mend or remove it, or set unreadable=skip"
PICTURES = [
    ("b.png", b"", NONE),
    ("b.png", GARBAGE, NONE),
    ("b.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", NONE),
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
