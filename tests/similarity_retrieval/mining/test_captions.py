"""Captions in every format, and every way in which a file of them can be wrong."""

import re

import pytest
from mining_files import write_tar

from crl.run.errors import UserError
from similarity_retrieval.mining.captions import caption_files, read_captions

PAIRS = [("1.jpg", "a dog, on a bed"), ("2.jpg", 'a "red" café by a tree'), ("1.jpg", "a dog")]
TABLE = """\ufeffid,Caption,image
0,"a dog, on a bed",1.jpg
1,"a ""red"" café by a tree",2.jpg

2,a dog,1.jpg
"""
TABS = """caption\timage
a dog, on a bed\t1.jpg
"a ""red"" café by a tree"\t2.jpg
a dog\t1.jpg
"""
LINES = """{"image": "1.jpg", "caption": "a dog, on a bed", "more": 1}
{"image": "2.jpg", "caption": "a \\"red\\" café by a tree"}

{"image": "1.jpg", "caption": "a dog"}
"""
ANNOTATIONS = """{"info": {},
"images": [{"id": 7, "file_name": "1.jpg"}, {"id": 5, "file_name": "2.jpg"}],
"annotations": [{"image_id": 7, "caption": "a dog, on a bed"},
{"image_id": 5, "caption": "a \\"red\\" café by a tree"}, {"image_id": 7, "caption": "a dog"}]}
"""
COCO = '{"images": [{"id": 1, "file_name": "a"}], "annotations": [{%s}]}'


def pairs_of(captions, prefix=""):
    return [(p.image, p.caption) for p in read_captions(caption_files(str(captions)), prefix)]


@pytest.mark.parametrize(
    ("suffix", "text"), [("jsonl", LINES), ("csv", TABLE), ("tsv", TABS), ("json", ANNOTATIONS)]
)
def test_each_format_gives_the_same_pairs(tmp_path, suffix, text):
    file = tmp_path / f"c.{suffix}"
    file.write_text(text, encoding="utf-8")
    assert pairs_of(file) == PAIRS
    assert pairs_of(file, "train/")[1] == ("train/2.jpg", PAIRS[1][1])


@pytest.fixture
def shards(tmp_path):
    """Two shards with five samples."""
    members = {
        "0001.jpg": b"not opened",
        "0001.txt": b"\xef\xbb\xbf a dog\n",
        "0001.json": b'{"caption": "not this"}',
        "./in/2.x.cls": b"7",
        "./in/2.PNG": b"",
        "./in/2.json": b'{"caption": "a cat", "url": "x"}',
        "3.webp": b"",
        "4.jpeg": b"",
        "4.json": b'{"caption": null}',
    }
    write_tar(tmp_path / "00008.tar", members)
    write_tar(tmp_path / "00010.tar", {"0001.json": b'{"caption": "x"}', "0001.jpg": b""})
    return tmp_path


def test_webdataset_shards(shards):
    first = [
        ("00008/0001.jpg", "a dog"),
        ("00008/in/2.PNG", "a cat"),
        ("00008/3.webp", ""),
        ("00008/4.jpeg", ""),
    ]
    for pattern in ("00008.tar", "000{08..08}.tar"):
        assert pairs_of(shards / pattern) == first
    for pattern in ("", "{00008,00010}.tar", "*.tar", "000[01]?.tar"):
        assert pairs_of(shards / pattern) == [*first, ("00010/0001.jpg", "x")]


def test_bad_shards(shards):
    (shards / "b").mkdir()
    write_tar(shards / "b" / "00008.tar", {})
    write_tar(shards / "alone.tar", {"in/0.txt": b"a dog"})
    write_tar(shards / "latin.tar", {"1.jpg": b"", "1.txt": b"\xff"})
    (shards / "cut.tar").write_bytes((shards / "00008.tar").read_bytes()[:1800])
    for pattern, message in (
        ("{00008..00010}.tar", r"00009\.tar names no file"),
        ("{0..99999999999}.tar", r"0\.tar names no file"),
        ("{9..8}.tar", r"9\.tar names no file"),
        ("{,b/}00008.tar", "two shards have the same name"),
        ("alone.tar", r"alone\.tar: in/0: no image beside it"),
        ("latin.tar", r"latin\.tar: 1: caption: .* not valid Unicode"),
        ("cut.tar", r"cut\.tar is damaged"),
    ):
        with pytest.raises(UserError, match=message):
            pairs_of(shards / pattern)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.jsonl", '{"image": "a", "caption": "x"}\n\n{"image": "a"}', "l:3: caption: is missing"),
        ("c.jsonl", '{"image": "a", "caption": "x"}\n{"image": "a", "ca', "l:2: is not valid JSON"),
        ("c.jsonl", "[1]\n", "c.jsonl:1: must hold"),
        ("c.jsonl", '{"image": "a", "caption": 1}\n', "c.jsonl:1: caption: "),
        ("c.jsonl", '{"image": "", "caption": "x"}\n', "c.jsonl:1: image: "),
        ("c.jsonl", '{"image": "\\ud800", "caption": "x"}\n', "c.jsonl:1: "),
        ("c.jsonl", b'{"image": "a", "caption": "x"}\n\xff\n', "c.jsonl:2: not UTF-8"),
        ("c.jsonl", "\n", "holds no captions"),
        ("c.csv", "", "holds no captions"),
        ("c.csv", "caption,url\nx,y\n", "c.csv:2: image: is missing"),
        ("c.csv", "caption,image\nx,y\n\nx\n", "c.csv:4: not 2 columns as in the first line"),
        ("c.csv", "caption,image\nx,y,z\n", "c.csv:2: not 2 columns as in the first line"),
        ("c.csv", 'caption,image\nx,y\n"x" z,y\n', "c.csv:3: "),
        ("c.tsv", "caption\timage\nx\t\n", "c.tsv:2: image: "),
        ("c.json", "{}", "c.json is not a COCO captions file: images: is missing"),
        ("c.json", '{"images": [], "annotations": [', "c.json is not a COCO captions file"),
        ("c.json", COCO % ('"image_id": 3, "caption": "x"'), "annotations.0: no image 3"),
        ("c.json", COCO % ('"image_id": 1'), "annotations.0.caption: is missing"),
        ("c.tar", "hello", "c.tar is damaged or no .tar"),
        ("c.tar", "", "c.tar is damaged or no .tar"),
        ("c.parquet", "x", "c.parquet: captions are regular files that end with .jsonl, .csv"),
    ],
)
def test_malformed_captions_are_named(mine_refused, tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    line = mine_refused(captions=tmp_path / name)
    assert re.search(message, line), line
