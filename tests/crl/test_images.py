"""Which files are images, and what they show: one rule for orientation, transparency, depth."""

import base64
import json
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from classification_clustering.datasets import _clevr4, load
from crl import images
from crl.explore.listing import find_images
from crl.images import Crop, UnreadableImage, image_files, list_images, open_image, shown, to_rgb
from crl.run.files import alone_in

RAMP = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10


def save(image, file, **settings):
    """Write a test picture; skip the test where a package for its format is missing."""
    if file.suffix in images.NEED:
        pytest.skip(f"needs {images.NEED[file.suffix]}")
    image.save(file, **settings)


# --- what a file shows ----------------------------------------------------------------------------


@pytest.mark.parametrize("ending", "jpg png webp tif avif heic".split())
@pytest.mark.parametrize("orientation", [*range(1, 9), 99])
def test_all_orientations_are_applied_once(tmp_path, orientation, ending):
    """Some formats are turned while they are decoded (TIFF, HEIC); the others are not."""
    file = tmp_path / f"a.{ending}"
    stored = Image.fromarray(np.kron(RAMP, np.ones((30, 30), np.uint8))).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = orientation
    save(stored, file, exif=exif.tobytes(), quality=95)
    flips = [(0, 0), (1, 0), (0, 2), (1, 2), (1, 1), (0, -1), (1, -1), (0, 1)]
    flip, turns = flips[orientation - 1] if orientation < 9 else (0, 0)
    expected = np.rot90(np.asarray(stored.convert("L"))[:, :: -1 if flip else 1], turns)
    picture = np.asarray(open_image(file).convert("L"), int)
    assert np.abs(picture - expected).mean() < 3


def test_a_crop_counts_stored_pixels(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    Image.fromarray(RAMP).convert("RGB").save(tmp_path / "a.png", exif=exif)
    part = open_image(Crop(tmp_path / "a.png", (0, 0, 2, 2)))
    assert np.array_equal(np.asarray(part)[..., 0], RAMP[:2, :2])


def test_every_mode_becomes_rgb():
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    grey = Image.fromarray(ramp)
    colour = Image.fromarray(np.stack([ramp, ramp.T, 255 - ramp], axis=-1))
    opaque = colour.copy()
    opaque.putalpha(Image.fromarray(ramp))
    share = ramp[..., None] / 255
    on_white = (np.asarray(colour) * share + 255 * (1 - share)).round().astype(np.uint8)
    cases = {
        "L": (grey, grey.convert("RGB")),
        "LA": (grey.convert("LA"), grey.convert("RGB")),
        "P": (palette := colour.quantize(7), palette.convert("RGB")),
        "RGBA": (opaque, on_white),
        "CMYK": (colour.convert("CMYK"), colour),
        "I;16": (Image.fromarray(ramp.astype(np.uint16) * 257), grey.convert("RGB")),
        "I": (Image.fromarray(ramp.astype(np.int32) * 257), grey.convert("RGB")),
        "F": (Image.fromarray(ramp.astype(np.float32)), grey.convert("RGB")),
    }
    for mode, (image, expected) in cases.items():
        assert image.mode == mode
        difference = np.asarray(to_rgb(image), int) - np.asarray(expected, int)
        assert np.abs(difference).max() <= (mode == "RGBA"), mode  # Pillow rounds its own way


def test_transparency_shows_white_not_what_lies_under_it(tmp_path):
    picture = Image.new("RGBA", (2, 1), (200, 0, 0, 0))
    picture.putpixel((1, 0), (200, 0, 0, 255))
    picture.save(tmp_path / "a.png")
    assert np.asarray(open_image(tmp_path / "a.png")).tolist() == [[[255] * 3, [200, 0, 0]]]
    Image.new("P", (1, 1)).save(tmp_path / "p.png", transparency=0)
    Image.new("LA", (1, 1), (0, 0)).save(tmp_path / "la.png")
    for name in ("p.png", "la.png"):
        assert np.asarray(open_image(tmp_path / name)).tolist() == [[[255] * 3]]


@pytest.mark.parametrize(
    ("file", "values", "expected"),
    [
        ("a.tiff", np.float32([[0, 0.5, 1]]), [0, 128, 255]),
        ("a.tiff", np.float32([[0, 51, 255]]), [0, 51, 255]),
        ("a.tiff", np.uint16([[0, 257, 65535]]), [0, 1, 255]),
        ("a.tiff", np.int32([[0, 257 * 7, 65535]]), [0, 7, 255]),
        ("a.png", np.uint16([[0, 257, 65535]]), [0, 1, 255]),
    ],
)
def test_depth(tmp_path, file, values, expected):
    Image.fromarray(values).save(tmp_path / file)
    assert np.asarray(open_image(tmp_path / file))[0, :, 0].tolist() == expected


# A PNG of 16 bits RGB, which Pillow does not write: grey of 0, 7 * 257 and 65,535.
RGB_16 = (
    "iVBORw0KGgoAAAANSUhEUgAAAAMAAAABEAIAAADEEl+gAAAAEElEQVR4nGNgAAN2MPgPBgAWjQYl1sGM3gAAAABJRU5ErkJg"
    "gg=="
)


def test_png_of_16_bits(tmp_path):
    (tmp_path / "deep.png").write_bytes(base64.b64decode(RGB_16))
    assert np.asarray(open_image(tmp_path / "deep.png")).tolist() == [[[0] * 3, [7] * 3, [255] * 3]]


@pytest.mark.parametrize(
    "values", [*np.float32([[-1, 0.5], [0, 256], [0, np.nan]]), *np.int32([[0, 70000], [-1, 3]])]
)
def test_values_that_no_rule_covers_are_refused(values):
    with pytest.raises(ValueError, match=r"its values are .*; known are 0 to "):
        to_rgb(Image.fromarray(values[None]))


@pytest.mark.parametrize("ending", ["gif", "png", "webp", "avif"])
def test_of_an_animation_the_first_frame(tmp_path, ending):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    save(frames[0], tmp_path / f"a.{ending}", save_all=True, append_images=frames[1:])
    assert image_files(tmp_path)
    red, _, blue = np.asarray(open_image(tmp_path / f"a.{ending}"))[4, 4]
    assert red > 200 and blue < 50


@pytest.mark.parametrize("ending", "jpg png webp gif tif bmp ppm avif heic".split())
@pytest.mark.parametrize("share", [0, 0.5, 0.95])
def test_empty_and_truncated_files(tmp_path, ending, share):
    file = tmp_path / f"a.{ending}"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    save(Image.fromarray(noise), file)
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UnreadableImage) as error:
        open_image(file)
    assert str(error.value) and "\n" not in str(error.value)


# --- which files of a folder are images -----------------------------------------------------------


def test_each_folder_is_visited_once(tmp_path):
    """Links that lead back, to each other, and to a folder that is visited anyway."""
    folder = tmp_path / "pictures"
    (folder / "deep").mkdir(parents=True)
    for name in ("b.png", "a.JPG", "deep/c.webp", "../elsewhere/d.gif"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    for place in (folder, folder / "deep", tmp_path / "elsewhere"):
        for number, target in enumerate([folder, folder / "deep", tmp_path / "elsewhere"] * 5):
            (place / f"0 to {number:02}").symlink_to(target)
    names = [str(file.relative_to(folder)) for file in image_files(folder)]
    assert names == ["a.JPG", "b.png", "0 to 02/d.gif", "deep/c.webp"]


THEIRS = [".thumbnails", "@eaDir", "#recycle", "$RECYCLE.BIN", "$Recycle.Bin", "__MACOSX", "ours"]


def make_tree(folder):
    """Two pictures of the user, and what others put beside them."""
    with alone_in(folder / "ours"):
        (folder / "ours/query.jpg").touch()
    for place in (folder, folder / "#trip", *(folder / name for name in THEIRS)):
        place.mkdir(exist_ok=True)
        for name in ("a.png", "._a.png", ".DS_Store", "b.txt"):
            (place / name).touch()


def test_only_the_users_pictures_are_found_and_the_rest_is_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "EXTENSIONS", [".png", ".jpg"])
    monkeypatch.setattr(images, "NEED", {".heic": "pillow-heif"})
    make_tree(tmp_path)
    names = ["d.HEIC", "e.heic", *(f"f.{ending}" for ending in ("mp4", "mov", "xmp", "raw"))]
    for name in ["notes", *names]:
        (tmp_path / name).touch()
    with pytest.warns(UserWarning, match=r"pillow-heif"):
        files = image_files(tmp_path)
    assert files == [tmp_path / "a.png", tmp_path / "#trip/a.png"]
    needed, others, folders = list_images(tmp_path).remarks()
    assert needed == "2 .heic left out: pip install 'pillow-heif' to read them"
    counted = "5 hidden, 2 .txt, 1 without an ending, 1 .mp4, 1 .mov, 1 .xmp, 1 .raw"
    assert sorted(others.removeprefix("left out: ").split(", ")) == sorted(counted.split(", "))
    assert all(f"1 {name}" in folders for name in THEIRS)
    assert len(list_images(tmp_path / "ours").files) == 2  # if one asks for it


def test_all_who_read_folders_follow_that_rule(tmp_path, recwarn):
    make_tree(tmp_path / "pictures")
    assert find_images(str(tmp_path / "pictures"))[0] == ["a.png", "#trip/a.png"]
    assert find_images(f"file://{tmp_path}/pictures")[0] == [
        f"local://{tmp_path}/pictures/{name}"
        for name in ("#trip/a.png", "a.png", "ours/a.png", "ours/query.jpg")  # by names only
    ]
    for kind in ("calm", "tense"):
        make_tree(tmp_path / "mood" / kind)
    make_tree(tmp_path / "mood")
    tree = load("folder", tmp_path, "mood")
    assert tree.classes == ["#trip", "calm", "tense"] and tree.labels.tolist() == [0, 1, 1, 2, 2]
    clevr4 = tmp_path / "clevr_4_10k_v1"
    make_tree(clevr4 / "images")
    (clevr4 / "images/b.png").touch()
    (clevr4 / "clevr_4_annots.json").write_text(
        json.dumps({name: {"color": color} for name, color in (("a", "red"), ("b", "blue"))})
    )
    assert [file.name for file in _clevr4(tmp_path, "color").paths] == ["a.png", "b.png"]


@given(st.binary())
def test_every_name_can_be_shown_and_text_stays_as_it_is(name):
    text = shown(os.fsdecode(name))
    text.encode()  # fails if it cannot be written
    try:
        assert text == name.decode()
    except UnicodeDecodeError:
        assert r"\x" in text
