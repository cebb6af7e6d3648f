"""What an image file shows: one rule for orientation, transparency, depth; regular files only."""

import io
import os

import numpy as np
import pytest
from commands import run_python
from PIL import Image

from crl import images
from crl.images import (
    Crop,
    UnreadableImage,
    image_files,
    list_images,
    open_image,
    shown,
    thumbnail,
    to_rgb,
)
from crl.run.errors import UserError

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


def test_what_is_left_out_is_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "EXTENSIONS", [".png"])
    monkeypatch.setattr(images, "NEED", {".heic": "pillow-heif"})
    for name in ("a.png", "b.txt", "c.TXT", "d.HEIC", "e.heic", "notes", ".hidden", "._a.png"):
        (tmp_path / name).touch()
    (tmp_path / ".thumbnails").mkdir()
    (tmp_path / ".thumbnails/a.png").touch()
    found = list_images(tmp_path)
    assert [file.name for file in found.files] == ["a.png"]
    assert found.hidden == 3
    assert found.remarks() == [
        "2 .heic left out: pip install 'pillow-heif' to read them",
        "left out, since they are no images: 2 .txt, 1 without an ending",
    ]
    with pytest.warns(UserWarning, match=r"pillow-heif.*2 \.txt, 1 without an ending$"):
        assert image_files(tmp_path) == found.files


def test_no_folder_a_file_and_a_folder_without_images(tmp_path):
    with pytest.raises(UserError, match="there is no folder"):
        list_images(tmp_path / "none")
    (tmp_path / "a.txt").touch()
    with pytest.raises(UserError, match=r"a\.txt is a file, not a folder"):
        list_images(tmp_path / "a.txt")
    with pytest.raises(UserError, match=r"there are no images in .*; left out.*1 \.txt"):
        image_files(tmp_path)


def test_a_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    (tmp_path / "closed").mkdir()
    (tmp_path / "a.png").touch()
    scan = os.scandir

    def refuse(folder):  # the tests may run as root, who may read all
        if folder.name == "closed":
            raise PermissionError(13, "Permission denied")
        return scan(folder)

    monkeypatch.setattr(images.os, "scandir", refuse)
    found = list_images(tmp_path)
    assert len(found.files) == 1
    assert found.remarks() == [f"the folder {tmp_path / 'closed'} may not be read"]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_eight_orientations_and_the_size_of_their_thumbnails(tmp_path, orientation):
    stored = Image.fromarray(np.kron(RAMP, np.ones((40, 40), np.uint8))).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.jpg", exif=exif, quality=95)
    shown = open_image(tmp_path / "a.jpg")
    flip, turns = [(0, 0), (1, 0), (0, 2), (1, 2), (1, 1), (0, -1), (1, -1), (0, 1)][
        orientation - 1
    ]
    expected = np.rot90(np.fliplr(stored.convert("L")) if flip else stored.convert("L"), turns)
    assert np.abs(np.asarray(shown.convert("L"), int) - expected).mean() < 3
    small = thumbnail(tmp_path / "a.jpg")
    assert (small.width, small.height) == shown.size
    picture = Image.open(io.BytesIO(small.webp))
    assert max(picture.size) == 96 and picture.width * shown.height == picture.height * shown.width
    difference = np.asarray(picture.convert("L"), int) - shown.convert("L").resize(picture.size)
    assert np.abs(difference).mean() < 8


@pytest.mark.parametrize("ending", ["gif", "png", "webp", "avif"])
def test_of_an_animation_the_first_frame(tmp_path, ending):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / f"a.{ending}", save_all=True, append_images=frames[1:])
    assert image_files(tmp_path)
    red, _, blue = np.asarray(open_image(tmp_path / f"a.{ending}"))[4, 4]
    assert red > 200 and blue < 50


def test_heic_of_a_phone(tmp_path):
    pytest.importorskip("pillow_heif")
    stored = Image.fromarray(np.kron(RAMP, np.ones((16, 16), np.uint8))).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    stored.save(tmp_path / "a.heic", exif=exif, quality=95)
    assert image_files(tmp_path)
    once = Image.open(tmp_path / "a.heic").convert("L")  # pillow-heif turns it, and says so in EXIF
    assert np.abs(np.asarray(open_image(tmp_path / "a.heic").convert("L"), int) - once).max() == 0


def test_without_pillow_heif(tmp_path):
    code = (
        "import sys; sys.modules['pillow_heif'] = None\n"
        "from crl.images import FORMATS, NEED, image_files\n"
        "assert NEED['.heic'] == 'pillow-heif' and 'HEIF' not in FORMATS\n"
        f"image_files({str(tmp_path)!r})\n"
    )
    (tmp_path / "a.png").touch()
    (tmp_path / "b.heic").touch()
    done = run_python("-W", "always", "-c", code)
    assert done.returncode == 0 and "1 .heic left out: pip install 'pillow-heif'" in done.stderr


def test_cmyk_as_photo_programs_write_it(tmp_path):
    color = (200, 100, 50)
    Image.new("RGB", (16, 16), color).convert("CMYK").save(tmp_path / "a.jpg", quality=100)
    assert np.abs(np.asarray(open_image(tmp_path / "a.jpg"))[8, 8].astype(int) - color).max() < 6


def test_gray_with_transparency_is_put_on_white(tmp_path):
    Image.new("LA", (1, 1), (0, 0)).save(tmp_path / "a.png")
    assert np.asarray(open_image(tmp_path / "a.png")).tolist() == [[[255] * 3]]


NAMES = ["a b.png", 'it\'s "it".png', "a\nb.png", "<script>alert(1)</script>.png", "\N{CAT}.png"]


@pytest.mark.parametrize("name", [*NAMES, "x" * 246 + ".png", os.fsdecode(b"\xff.png")])
def test_names_of_all_kinds(tmp_path, name):
    file = tmp_path / name.replace("/", "_")
    Image.new("RGB", (4, 2)).save(file)
    assert image_files(tmp_path) == [file]
    assert open_image(file).size == (4, 2)
    shown(file).encode()  # can be written


def test_bytes_that_are_no_text_are_shown_as_numbers():
    assert shown(os.fsdecode(b"\xff.png")) == r"\xff.png"
    assert shown("\N{CAT}.png") == "\N{CAT}.png"


def test_a_thumbnail_shows_the_picture_and_is_never_larger(tmp_path):
    Image.new("RGBA", (30, 10), (0, 0, 0, 0)).save(tmp_path / "a.png")
    small = thumbnail(tmp_path / "a.png")
    picture = Image.open(io.BytesIO(small.webp))
    assert picture.size == (30, 10) == small[1:]
    assert picture.convert("RGB").getpixel((5, 5)) == (255, 255, 255)
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    with pytest.raises(UnreadableImage):
        thumbnail(tmp_path / "b.png")
