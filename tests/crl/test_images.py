"""What an image file shows: one rule for orientation, transparency, depth; regular files only."""

import os

import numpy as np
import pytest
from PIL import Image

from crl.images import Crop, UnreadableImage, image_files, open_image, to_rgb

RAMP = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10


def test_orientation_is_honoured_but_a_crop_counts_stored_pixels(tmp_path):
    stored = Image.fromarray(np.stack([RAMP] * 3, axis=-1))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    stored.save(tmp_path / "turned.png", exif=exif)
    shown = np.asarray(open_image(tmp_path / "turned.png"))[..., 0]
    assert np.array_equal(shown, np.rot90(RAMP, -1))
    part = open_image(Crop(tmp_path / "turned.png", (0, 0, 2, 2)))
    assert np.array_equal(np.asarray(part)[..., 0], RAMP[:2, :2])


def test_transparency_shows_white_not_what_lies_under_it(tmp_path):
    picture = Image.new("RGBA", (2, 1), (200, 0, 0, 0))
    picture.putpixel((1, 0), (200, 0, 0, 255))
    picture.save(tmp_path / "a.png")
    assert np.asarray(open_image(tmp_path / "a.png")).tolist() == [[[255] * 3, [200, 0, 0]]]
    palette = Image.new("P", (1, 1))
    palette.putpalette([10, 20, 30])
    palette.save(tmp_path / "p.png", transparency=0)
    assert np.asarray(open_image(tmp_path / "p.png")).tolist() == [[[255] * 3]]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.float32([[0, 0.5, 1]]), [0, 128, 255]),
        (np.float32([[0, 51, 255]]), [0, 51, 255]),
        (np.uint16([[0, 257, 65535]]), [0, 1, 255]),
        (np.int32([[0, 257 * 7, 65535]]), [0, 7, 255]),
    ],
)
def test_depth(tmp_path, values, expected):
    Image.fromarray(values).save(tmp_path / "deep.tiff")
    assert np.asarray(open_image(tmp_path / "deep.tiff"))[0, :, 0].tolist() == expected


@pytest.mark.parametrize(
    "values",
    [
        np.float32([[-1, 0.5]]),
        np.float32([[0, 256]]),
        np.float32([[0, np.nan]]),
        np.int32([[0, 70000]]),
        np.int32([[-1, 3]]),
    ],
)
def test_values_that_no_rule_covers_are_refused(values):
    with pytest.raises(ValueError, match=r"its values are .*; known are 0 to "):
        to_rgb(Image.fromarray(values))


def test_a_pipe_and_a_postscript_file_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(UnreadableImage, match="not a regular file"):
        open_image(tmp_path / "pipe.png")
    (tmp_path / "z.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    with pytest.raises(UnreadableImage, match="not an image that Pillow knows"):
        open_image(tmp_path / "z.jpg")


def test_a_bomb_is_an_unreadable_image(tmp_path):
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    with pytest.raises(UnreadableImage, match="exceeds limit"):
        open_image(tmp_path / "bomb.png")


def test_a_link_that_leads_back_is_not_followed(tmp_path):
    folder = tmp_path / "pictures"
    (folder / "deep").mkdir(parents=True)
    for name in ("b.png", "a.JPG", "deep/c.webp"):
        (folder / name).touch()
    (folder / "deep/back").symlink_to(folder)
    (folder / "again").symlink_to(folder / "deep")  # no cycle: the same file by another path
    names = [str(file.relative_to(folder)) for file in image_files(folder)]
    assert names == ["a.JPG", "b.png", "again/c.webp", "deep/c.webp"]


def test_what_is_left_out_is_counted(tmp_path):
    for name in ("a.png", "b.gif", "c.gif", "d.HEIC", "notes", ".hidden"):
        (tmp_path / name).touch()
    with pytest.warns(UserWarning, match=r"2 \.gif, 1 \.heic, 1 without an ending$"):
        assert len(image_files(tmp_path)) == 1
