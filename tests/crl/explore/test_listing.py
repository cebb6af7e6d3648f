import pytest

from crl.explore.listing import is_listing, read_listing, write_listing
from crl.run.errors import UserError
from crl.run.store import content_digest

ABOUT = {"fingerprint": "f-1", "vlm": "clip", "precision": "fp16", "root": "/a", "shape": [5],
         "decode": "fast"}  # fmt: skip
PATHS = ["a.jpg", "grün 🌵.png", "s3://bucket/c"]
DIGESTS = [content_digest(b"a"), b"\0" * 16, b"b" + b"\0" * 15]


def test_what_is_written_is_read(tmp_path):
    file = tmp_path / "images.parquet"
    write_listing(file, PATHS, DIGESTS, ABOUT)
    paths, digests, about = read_listing(file)
    assert paths == PATHS and digests.tobytes() == b"".join(DIGESTS)
    assert about.model_dump() == {key: ABOUT[key] for key in about.model_dump()}
    assert is_listing(file) and list(tmp_path.iterdir()) == [file]


def test_no_damage_goes_unnoticed(tmp_path):
    file = tmp_path / "images.parquet"
    write_listing(file, PATHS, DIGESTS, ABOUT)
    content, expected = file.read_bytes(), read_listing(file)
    for place in range(0, len(content), 7):
        damaged = bytearray(content)
        damaged[place] ^= 4
        file.write_bytes(damaged)
        try:
            paths, digests, _ = read_listing(file)
        except UserError as error:
            assert "\n" not in str(error)
            assert is_listing(file)
        else:  # a byte that says nothing of the images
            assert paths == expected[0] and digests.tobytes() == expected[1].tobytes()
    file.write_bytes(content[:-9])
    with pytest.raises(UserError, match="run `crl embed` again"):
        read_listing(file)
