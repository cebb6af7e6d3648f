import io

import pytest
from PIL import Image
from toy_vlm import make_images

from crl.explore import thumbnails as module
from crl.run.errors import UserError
from crl.explore.thumbnails import thumbnails


def test_each_content_is_made_once_and_kept(tmp_path, monkeypatch):
    files = make_images(tmp_path / "a", 5)
    digests = [bytes([n]) * 16 for n in (0, 1, 2, 3, 0)]  # the last one is a copy
    monkeypatch.setattr(module, "PART", 3)
    found = thumbnails(files, digests, tmp_path / "a", tmp_path / "cache")
    assert found[4] == found[0] and found[0][1:] == (7, 6)
    assert Image.open(io.BytesIO(found[1].webp)).size == (7, 6)
    assert len(list(tmp_path.glob("cache/*/*.parquet"))) == 2  # parts of 3 and 1
    monkeypatch.setattr(module, "thumbnail", lambda *_: pytest.fail("made again"))
    assert thumbnails(files, digests, tmp_path / "a", tmp_path / "cache") == found


def test_what_is_damaged_is_made_again(tmp_path):
    files, digests = make_images(tmp_path / "a", 2), [b"0" * 16, b"1" * 16]
    found = thumbnails(files, digests, tmp_path / "a", tmp_path / "cache")
    (part,) = tmp_path.glob("cache/*/*.parquet")
    part.write_bytes(part.read_bytes()[:50])
    assert thumbnails(files, digests, tmp_path / "a", tmp_path / "cache") == found
    assert thumbnails(files, digests, tmp_path / "a", None) == found


def test_a_file_that_changed_meanwhile_is_named(tmp_path):
    files = make_images(tmp_path, 1)
    files[0].write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"000\.png has changed meanwhile: not an image.*try again"):
        thumbnails(files, [b"0" * 16], tmp_path, None)
