"""decode=fast: large pictures are decoded smaller, and give the same within stated bounds."""

import io

import numpy as np
import pytest
import torch
from checkpoints import SAVE, TOWERS, save_towers
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from crl import images, load_vlm
from crl.backends.loaded import Preprocess
from crl.embed import embed_images
from crl.explore.collection import Collection
from crl.explore.listing import NAME, read_listing, write_listing
from crl.explore.thumbnails import thumbnail
from crl.images import Crop, UnreadableImage, decoded
from crl.run.errors import UserError

FULL, FAST = load_vlm("demo", "cpu"), load_vlm("demo", "cpu", decode="fast")
ENOUGH = FAST.preprocess.enough  # 192: the demo takes 96 x 96 pixels
DEVIATIONS = torch.tensor(FULL.preprocess.transform.transforms[-1].std)[:, None, None] * 255
KINDS = {
    "JPEG": {"quality": 90},
    "progressive": {"format": "JPEG", "quality": 90, "progressive": True},
    "JPEG2000": {"num_resolutions": 4},
    "PNG": {},
    "WEBP": {"quality": 90},
}


def photo(width, height, seed=0):
    """Spots of every size, the smaller the fainter, as in photographs."""
    rng, picture = np.random.default_rng(seed), np.full((height, width, 3), 128, np.float32)
    for cell in (320, 80, 20, 5, 1):
        spots = rng.integers(0, 256, (height // cell + 1, width // cell + 1, 3), np.uint8)
        layer = Image.fromarray(spots).resize((width, height), Image.Resampling.BICUBIC)
        picture += (np.asarray(layer) - np.float32(128)) * 0.5 * (cell / 640) ** 0.3
    return Image.fromarray(picture.clip(0, 255).astype(np.uint8))


def content(picture, kind="JPEG", **more):
    picture.save(stream := io.BytesIO(), **{"format": kind, **KINDS[kind], **more})
    return stream.getvalue()


def pixels(vlm, file, content):
    """What the model is given, (3, 96, 96), in levels of 0 to 255."""
    picture = decoded(file, content, vlm.preprocess.enough)
    return vlm.preprocess(picture.rgb, picture.size) * DEVIATIONS


@settings(max_examples=30)
@given(
    st.integers(20, 220) | st.integers(384, 500), st.integers(384, 500), st.integers(1, 8),
    st.sampled_from([*KINDS]), st.sampled_from(["RGB", "L", "CMYK", "RGBA"]),
)  # fmt: skip
def test_fast_and_full_agree(tmp_path_factory, width, height, orientation, kind, mode):
    allowed = {"JPEG": "RGB L CMYK", "progressive": "RGB L CMYK", "WEBP": "RGB RGBA"}
    mode = mode if mode in allowed.get(kind, "RGB L RGBA").split() else "RGB"
    exif = Image.Exif()
    exif[0x0112] = orientation
    more = {} if kind == "JPEG2000" else {"exif": exif.tobytes()}
    file = tmp_path_factory.getbasetemp() / "picture"
    data = content(photo(width, height).convert(mode), kind, **more)
    difference = (pixels(FULL, file, data) - pixels(FAST, file, data)).abs()
    assert difference.shape == (3, 96, 96)
    if min(width, height) < ENOUGH:
        assert difference.max() == 0
    assert difference.mean() < 6 and difference.max() < 45  # worst: 2.0 times, all fine detail
    full, fast = decoded(file, data), decoded(file, data, ENOUGH)
    assert full[1:] == fast[1:] and full.size == full.rgb.size
    assert min(fast.rgb.size) >= min(ENOUGH, width, height)


@pytest.mark.parametrize("orientation", [1, 2, 3, 6, 8])
@pytest.mark.parametrize("size", [(800, 533), (853, 1280), (1203, 901)])
def test_a_jpeg_of_an_odd_size_is_cut_where_it_is_in_full(tmp_path, size, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = content(photo(*size), exif=exif.tobytes())
    difference = (pixels(FULL, tmp_path / "a", data) - pixels(FAST, tmp_path / "a", data)).abs()
    assert decoded(tmp_path / "a", data, ENOUGH).rgb.size != size
    assert difference.mean() < 1.5


@pytest.mark.parametrize(
    ("kind", "side"), [("JPEG", 300), ("progressive", 300), ("JPEG2000", 300), ("PNG", 240)]
)
def test_a_large_picture_is_made_smaller_and_its_embedding_stays(tmp_path, kind, side):
    file = tmp_path / "a"
    file.write_bytes(content(photo(1600, 1200), kind))
    assert min(decoded(file, side=ENOUGH).rgb.size) == side
    full, fast = (embed_images(vlm, file, None).image for vlm in (FULL, FAST))
    assert (full * fast).sum() > 0.999


@pytest.mark.parametrize(("size", "levels"), [((801, 801), 6), ((800, 800), 1)])
def test_a_jpeg_2000_that_pillow_cannot_reduce_is_decoded_in_full(tmp_path, size, levels):
    picture = photo(*size)
    data = content(picture, "JPEG2000", num_resolutions=levels)
    assert images.load(tmp_path / "a", data, 100)[0].tobytes() == picture.tobytes()


def test_what_is_cut_or_lies_about_its_size_is_said_in_one_line(tmp_path):
    data = content(photo(800, 600))
    size = data.index(b"\xff\xc0") + 5
    for wrong in (data[: len(data) // 2], data[:size] + b"\x7f\xff\x7f" + data[size + 3 :]):
        try:
            assert min(decoded(tmp_path / "a", wrong, ENOUGH).rgb.size) >= ENOUGH
        except UnreadableImage as error:
            assert str(error) and "\n" not in str(error)
    assert decoded(tmp_path / "a", data[:-2], ENOUGH).size == (800, 600)  # no pixel is missing


def test_a_box_counts_the_pixels_of_the_full_size(tmp_path):
    (tmp_path / "a.jpg").write_bytes(content(photo(800, 600)))
    crops = [Crop(tmp_path / "a.jpg", (100, 100, 700, 600))]
    rows = [embed_images(vlm, crops, None).image for vlm in (FULL, FAST)]
    assert (rows[0] * rows[1]).sum() > 0.9999


# --- which VLM ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*SAVE, *TOWERS])
def test_each_family_says_how_large_it_scales(tmp_path, kind):
    folder = SAVE[kind](tmp_path) if kind in SAVE else save_towers(kind, tmp_path)
    fast = load_vlm(str(folder), "cpu", decode="fast")
    assert fast.preprocess.enough == {"align": 80}.get(kind, 64)  # twice 40, or 32
    full = load_vlm(str(folder), "cpu")
    assert full.preprocess.enough == 0 and full.fingerprint != fast.fingerprint
    assert full.decode == "full"
    assert Preprocess(torch.zeros_like, fast=True).enough == 0  # not known


def test_a_decode_that_there_is_not():
    with pytest.raises(UserError, match=r"unknown decode 'fats'; did you mean 'fast'"):
        load_vlm("demo", decode="fats")


# --- a collection ---------------------------------------------------------------------------------


def test_each_picture_is_decoded_once_and_thumbnails_come_from_that(tmp_path, monkeypatch):
    for n, (kind, ending) in enumerate([("JPEG", "jpg"), ("progressive", "jpg"), ("PNG", "png")]):
        (tmp_path / f"{n}.{ending}").write_bytes(content(photo(700 - n, 500, n), kind))
    decodings, decode = [], images._decode
    monkeypatch.setattr(images, "_decode", lambda *all: decodings.append(1) or decode(*all))
    photos = Collection.embed(tmp_path, "demo", "cpu", cache=None)
    assert photos.vlm.decode == "fast" and len(decodings) == 3
    small = photos.thumbnails
    assert len(decodings) == 3
    for one, file in zip(small, photos.files, strict=True):
        alone = thumbnail(file)
        assert one[1:] == alone[1:]
        both = [np.asarray(Image.open(io.BytesIO(t.webp)).convert("L"), int) for t in (one, alone)]
        assert np.abs(both[0] - both[1]).mean() < 4
    Collection.embed(tmp_path, "demo", "cpu", decode="full", cache=None)  # thumbnails are kept
    assert Collection.embed(tmp_path, "demo", "cpu", cache=None).thumbnails == small


def test_a_listing_says_how_its_pictures_were_decoded(tmp_path):
    (tmp_path / "a.jpg").write_bytes(content(photo(700, 500)))
    for vlm, about in ((FAST, {"decode": "fast"}), (FULL, {})):  # {}: an old one
        out = tmp_path / vlm.decode
        digests = embed_images(vlm, tmp_path / "a.jpg", out).digests.tolist()
        about = {"fingerprint": vlm.fingerprint, "vlm": "demo", "root": str(tmp_path), **about}
        write_listing(out / NAME, ["a.jpg"], digests, about)
        assert read_listing(out / NAME)[2].decode == vlm.decode
        assert Collection.load(out).vlm.decode == Collection.load(out, "demo").vlm.decode
        assert Collection.load(out).vlm.decode == vlm.decode
