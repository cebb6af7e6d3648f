import io

import numpy as np
import pytest
from PIL import Image
from toy_vlm import make_images

from crl.explore import thumbnails as module
from crl.explore.thumbnails import thumbnail, thumbnails
from crl.images import open_image


def test_each_content_is_made_once_and_kept(tmp_path, monkeypatch):
    files = make_images(tmp_path / "a", 5)
    digests = [bytes([n]) * 16 for n in (0, 1, 2, 3, 0)]  # the last one is a copy
    monkeypatch.setattr(module, "PART", 3)
    small = thumbnails(files, digests, tmp_path / "a", tmp_path / "cache")
    assert small[4] == small[0] and small[0][1:4] == (7, 6, True)
    assert Image.open(io.BytesIO(small[1].webp)).size == (7, 6)
    assert len(list(tmp_path.glob("cache/*/*.parquet"))) == 2  # parts of 3 and 1
    monkeypatch.setattr(module, "thumbnail", lambda *_: pytest.fail("made again"))
    assert thumbnails(files, digests, tmp_path / "a", tmp_path / "cache") == small


@pytest.mark.parametrize("place", [None, 200])  # cut, or a bit turned there
def test_what_is_damaged_is_made_again(tmp_path, place):
    files, digests = make_images(tmp_path / "a", 2), [b"0" * 16, b"1" * 16]
    small = thumbnails(files, digests, tmp_path / "a", tmp_path / "cache")
    (part,) = tmp_path.glob("cache/*/*.parquet")
    content = bytearray(part.read_bytes())
    content[place or 0] ^= 1
    part.write_bytes(content if place else content[:50])
    assert thumbnails(files, digests, tmp_path / "a", tmp_path / "cache") == small


IN_BROWSERS = {"JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF"}


@pytest.mark.parametrize("kind", [*sorted(IN_BROWSERS), "TIFF", "PPM", "HEIF"])
@pytest.mark.parametrize("name", ["a", "a.jpg"])  # its content counts
def test_what_browsers_do_not_show(tmp_path, kind, name):
    if kind == "HEIF":
        pytest.importorskip("pillow_heif")
    picture = Image.new("RGB", (800, 400), "red")
    picture.save(tmp_path / name, kind)
    assert thumbnail(tmp_path / name)[1:4] == (800, 400, kind in IN_BROWSERS)
    (large,) = thumbnails([tmp_path / name], [b"0" * 16], tmp_path, tmp_path / "cache", side=512)
    assert Image.open(io.BytesIO(large.webp)).size == (512, 256)


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", [1, 6, 99])
def test_a_thumbnail_shows_the_picture_and_its_size(tmp_path, orientation, ending):
    file = tmp_path / f"a.{ending}"
    ramp = np.kron(np.arange(24).reshape(4, 6) * 10, np.ones((100, 100))).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(ramp).convert("RGB").save(file, exif=exif.tobytes(), quality=95)
    small, picture = thumbnail(file), open_image(file)
    assert (small.width, small.height) == picture.size
    webp = Image.open(io.BytesIO(small.webp))
    assert max(webp.size) == 96 and webp.width * picture.height == picture.width * webp.height
    difference = np.asarray(webp.convert("L"), int) - picture.convert("L").resize(webp.size)
    assert np.abs(difference).mean() < 8
