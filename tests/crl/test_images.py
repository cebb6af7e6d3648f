"""Which files are images, and what they show: one rule for orientation, transparency, depth."""

import base64
import io
import json
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from commands import REPOSITORY
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
        *(
            (file, np.uint16([[0, top // 3, top]]), [0, 85, 255])
            for file in ("a.png", "a.tiff", "a.pgm")
            for top in (255, 1023, 4095, 16383, 65535)
        ),
    ],
)
def test_depth(tmp_path, file, values, expected):
    Image.fromarray(values).save(tmp_path / file)
    assert np.asarray(open_image(tmp_path / file))[0, :, 0].tolist() == expected


def test_a_tiff_may_say_what_is_white(tmp_path):
    values = Image.fromarray(np.uint16([[0, 600, 900]]))
    values.save(tmp_path / "a.tif", tiffinfo={images.S_MAX_SAMPLE_VALUE: 3000})
    assert np.asarray(open_image(tmp_path / "a.tif"))[0, :, 0].tolist() == [0, 51, 76]


@pytest.mark.parametrize("unseen", [0, 300, 65535])
def test_16_bits_with_a_transparent_value(tmp_path, unseen):
    content = encoded(Image.fromarray(np.uint16([[unseen, 819, 4095]])), "PNG")
    transparent = png_chunk(b"tRNS", struct.pack(">H", unseen))
    (tmp_path / "a.png").write_bytes(content[:33] + transparent + content[33:])
    assert np.asarray(open_image(tmp_path / "a.png"))[0, :, 0].tolist() == [255, 51, 255]


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


@pytest.mark.parametrize("ending", "jpg png webp gif tif bmp ppm avif heic jp2 tga".split())
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


# --- what does not matter for the pixels ----------------------------------------------------------

BLOCKS = np.kron(RAMP, np.ones((8, 8), np.uint8))
COLORS = Image.fromarray(np.stack([BLOCKS, BLOCKS.T.reshape(BLOCKS.shape), 255 - BLOCKS], axis=-1))
LARGE = zlib.compress(bytes(3_000_000))


def encoded(image, kind, **settings):
    image.save(stream := io.BytesIO(), kind, **settings)
    return stream.getvalue()


def png_chunk(name, content, damage=0):
    checksum = zlib.crc32(name + content) ^ damage
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


UNNEEDED = {
    "large zTXt": png_chunk(b"zTXt", b"k\0\0" + LARGE),
    "large iTXt": png_chunk(b"iTXt", b"k\0\1\0\0\0" + LARGE),
    "large iCCP": png_chunk(b"iCCP", b"k\0\0" + LARGE),
    "much tEXt": png_chunk(b"tEXt", b"k\0" + bytes(70_000_000)),
    "short pHYs": png_chunk(b"pHYs", b"\1"),
    "odd iCCP": png_chunk(b"iCCP", b"k\0\5abc"),
    "odd acTL": png_chunk(b"acTL", b"\0"),
    **{
        f"checksum of {name}": png_chunk(name.encode(), b"k\0\0\0\0\0\0\0\0", damage=1)
        for name in "tEXt zTXt iTXt iCCP eXIf gAMA cHRM pHYs tIME sBIT abCd".split()
    },
}


@pytest.mark.parametrize("name", UNNEEDED)
@pytest.mark.parametrize("place", [33, -12])  # behind the header, before the end
def test_ancillary_chunks_of_a_png_never_decide(tmp_path, name, place):
    content = encoded(COLORS, "PNG")
    (tmp_path / "a.png").write_bytes(content[:place] + UNNEEDED[name] + content[place:])
    assert open_image(tmp_path / "a.png").tobytes() == COLORS.tobytes()


def test_pixels_and_transparency_of_a_png_must_be_whole(tmp_path):
    content = bytearray(encoded(COLORS, "PNG"))
    damaged = png_chunk(b"tRNS", bytes(6), damage=1)
    (tmp_path / "a.png").write_bytes(content[:33] + damaged + content[33:])
    content[content.index(b"IDAT") + 30] ^= 1
    (tmp_path / "b.png").write_bytes(content)
    for name in ("a.png", "b.png"):
        with pytest.raises(UnreadableImage):
            open_image(tmp_path / name)


def damaged_exif():
    """Orientation 6 and a text, cut or bent at several places."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    whole = exif.tobytes()
    bent = whole[:10] + b"\xff\xff\xff\x7f" + whole[14:]
    return [whole[:-4], whole[:20], whole[:8], bent, b"Exif\0\0garbage", b"Exif\0\0"]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "HEIF"])
@pytest.mark.parametrize("exif", damaged_exif())
def test_damaged_exif_never_decides_and_nothing_is_noted(tmp_path, kind, exif):
    if kind not in images.FORMATS:
        pytest.skip("needs pillow-heif")
    file = tmp_path / "a.jpg"
    file.write_bytes(encoded(COLORS, kind, exif=exif))
    code = "import sys; from pathlib import Path; from crl.images import open_image as o; "
    code += "print(*o(Path(sys.argv[1])).size)"
    if exif is damaged_exif()[0] or kind == "JPEG":  # a fresh process, with Python's own filters
        command = [sys.executable, "-c", code, file]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        assert run.stderr == "" and run.stdout.split() in (["48", "32"], ["32", "48"])
    assert sorted(open_image(file).size) == [32, 48]


@pytest.mark.parametrize(
    "settings",
    [
        {"quality": 90},
        {"quality": 90, "progressive": True},
        {"quality": 60, "restart_marker_blocks": 3},
        {"quality": 30, "optimize": True, "subsampling": 0},
    ],
)
@pytest.mark.parametrize("picture", [COLORS, COLORS.convert("L"), Image.new("RGB", (48, 32))])
def test_of_a_jpeg_only_the_end_mark_may_be_missing(tmp_path, settings, picture):
    file, content = tmp_path / "a.jpg", encoded(picture, "JPEG", **settings)
    file.write_bytes(content)
    expected = open_image(file).tobytes()
    for missing in (1, 2):
        file.write_bytes(content[:-missing])
        assert open_image(file).tobytes() == expected
    refused = 0
    for end in range(content.index(b"\xff\xda") + 12, len(content) - 2, 5):
        file.write_bytes(content[:end])
        try:
            assert open_image(file).tobytes() == expected  # if no pixel depends on what is missing
        except UnreadableImage:
            refused += 1
    assert refused > 2


def test_a_progressive_jpeg_needs_its_last_scan(tmp_path):
    content = encoded(COLORS, "JPEG", progressive=True)
    (tmp_path / "a.jpg").write_bytes(content[: content.rindex(b"\xff\xda")])
    with pytest.raises(UnreadableImage):
        open_image(tmp_path / "a.jpg")


def test_too_many_pixels(tmp_path, monkeypatch):
    """A JPEG is decoded smaller, and shows the same; others are refused, and what to do is said."""
    smooth = COLORS.resize((800, 600), Image.Resampling.BICUBIC)
    for name in ("a.jpg", "a.png"):
        smooth.save(tmp_path / name)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100_000)
    monkeypatch.setattr(images, "MOST_PIXELS", 200_000)
    small = open_image(tmp_path / "a.jpg")
    assert small.size == (400, 300)
    difference = np.asarray(small.resize((800, 600)), int) - np.asarray(smooth, int)
    assert np.abs(difference).mean() < 4
    for image in (tmp_path / "a.png", Crop(tmp_path / "a.jpg", (0, 0, 9, 9))):
        with pytest.raises(UnreadableImage, match=r"200,000 pixels; set CRL_MAX_PIXELS"):
            open_image(image)
    code = "from crl import images; print(images.MOST_PIXELS, images.Image.MAX_IMAGE_PIXELS)"
    run = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "CRL_MAX_PIXELS": "500"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert run.stdout.split() == ["500", "250"]


@pytest.mark.parametrize(
    ("kind", "package"), [("HEIF", "pillow-heif"), ("AVIF", "pillow"), ("JPEG2000", "pillow")]
)
def test_a_format_in_disguise_names_its_package(tmp_path, monkeypatch, kind, package):
    if kind not in images.FORMATS:
        pytest.skip(f"needs {package}")
    (tmp_path / "a.jpg").write_bytes(encoded(COLORS, kind))
    assert open_image(tmp_path / "a.jpg").size == COLORS.size
    monkeypatch.setattr(images, "FORMATS", ["JPEG", "PNG"])
    with pytest.raises(UnreadableImage, match=f"{kind}: pip install -U '{package}'"):
        open_image(tmp_path / "a.jpg")


CASES = REPOSITORY.parent / "shared" / "cases"


@pytest.mark.skipif(not CASES.exists(), reason="real files are beside the project")
def test_real_files():
    for pattern in ("14*/*.tif", "20*/*.png", "2[145]*/*g", "43*/*", "44*/*"):
        for file in set(CASES.glob(pattern)) - set(CASES.glob("*/README")):
            if file.name == "half.jpg" or (file.suffix == ".JPG" and ".heic" in images.NEED):
                with pytest.raises(UnreadableImage):
                    open_image(file)
            else:
                assert np.asarray(open_image(file)).mean() > 20


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


def test_without_an_ending_the_content_counts(tmp_path):
    kinds = {"jpe": "JPEG", "jp2": "JPEG2000", "mpo": "MPO", "png": "PNG", "tga": "TGA"}
    for ending, kind in kinds.items():
        (tmp_path / f"a.{ending}").write_bytes(encoded(COLORS, kind))
    for name, content in {
        "IMG_1": encoded(COLORS, "JPEG"),
        "notes": b"text",
        "nothing": b"",
    }.items():
        (tmp_path / name).write_bytes(content)
    os.mkfifo(tmp_path / "pipe")
    files = list_images(tmp_path).files
    assert [file.name for file in files] == ["IMG_1", *(f"a.{ending}" for ending in sorted(kinds))]
    assert {open_image(file).size for file in files} == {COLORS.size}


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
