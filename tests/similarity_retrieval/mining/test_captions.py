"""Captions in every format, and every way in which a file of them can be wrong."""

import csv
import json
import re

import pytest
from mining_files import write_jsonl, write_tar

from crl.run.errors import UserError
from similarity_retrieval.mining.captions import caption_files, read_captions

PAIRS = [("1.jpg", "a dog, on a bed"), ("2.jpg", 'a "red" café\tby a tree'), ("1.jpg", "a dog")]


COCO = '{"images": [{"id": 1, "file_name": "a"}], "annotations": [{%s}]}'


def write_table(file, delimiter):
    with file.open("w", newline="", encoding="utf-8-sig") as stream:
        writer = csv.writer(stream, delimiter=delimiter)
        writer.writerow(["id", "Caption", "image"])
        writer.writerows([i, caption, image] for i, (image, caption) in enumerate(PAIRS))
    return file


def write_coco(file):
    images = [{"id": 7, "file_name": "1.jpg"}, {"id": 5, "file_name": "2.jpg"}]
    ids = {image["file_name"]: image["id"] for image in images}
    annotations = [{"image_id": ids[image], "caption": caption} for image, caption in PAIRS]
    file.write_text(json.dumps({"images": images, "annotations": annotations, "info": {}}))
    return file


def pairs_of(captions, prefix=""):
    return [(p.image, p.caption) for p in read_captions(caption_files(str(captions)), prefix)]


def test_each_format_gives_the_same_pairs(tmp_path):
    lines = [{"image": image, "caption": caption, "more": 1} for image, caption in PAIRS]
    files = [
        write_jsonl(tmp_path / "c.jsonl", lines),
        write_table(tmp_path / "c.csv", ","),
        write_table(tmp_path / "c.tsv", "\t"),
        write_coco(tmp_path / "captions_train2017.json"),
    ]
    for file in files:
        assert pairs_of(file) == PAIRS, file
        assert pairs_of(file, "train/") == [(f"train/{image}", caption) for image, caption in PAIRS]


def test_webdataset_shards(tmp_path):
    members = {
        "0001.jpg": b"not opened",
        "0001.txt": PAIRS[0][1].encode() + b"\n",
        "0001.json": b'{"caption": "not this"}',
        "in/0.2.cls": b"7",
        "in/0.2.PNG": b"",
    }
    write_tar(tmp_path / "00008.tar", members)
    with pytest.raises(UserError, match=r"00008.tar: in/0: no image beside it"):
        pairs_of(tmp_path)
    del members["in/0.2.cls"], members["in/0.2.PNG"]
    members |= {
        "./in/2.png": b"",
        "./in/2.json": json.dumps({"caption": PAIRS[1][1], "url": "x"}).encode(),
        "3.webp": b"",
        "3.txt": b"\xef\xbb\xbf a cat\n",
        "4.jpeg": b"",
        "4.json": b'{"caption": null}',
    }
    write_tar(tmp_path / "00008.tar", members)
    write_tar(tmp_path / "00010.tar", {"0001.json": b'{"caption": "x"}', "0001.jpg": b""})
    wanted = [
        ("00008/0001.jpg", PAIRS[0][1]),
        ("00008/in/2.png", PAIRS[1][1]),
        ("00008/3.webp", "a cat"),
        ("00008/4.jpeg", ""),
    ]
    assert pairs_of(tmp_path / "00008.tar") == wanted
    wanted.append(("00010/0001.jpg", "x"))
    for pattern in ("", "{00008,00010}.tar", "*.tar", "000[01]?.tar", "000{08..08}.tar"):
        whole = pattern != "000{08..08}.tar"
        assert pairs_of(tmp_path / pattern) == wanted[: 5 if whole else 4]
    with pytest.raises(UserError, match=r"00009\.tar names no file"):
        pairs_of(tmp_path / "{00008..00010}.tar")
    for many in ("{0..99999999999}.tar", "{9..8}.tar"):
        with pytest.raises(UserError, match="names no file"):
            pairs_of(tmp_path / many)
    (tmp_path / "b").mkdir()
    write_tar(tmp_path / "b" / "00008.tar", members)
    with pytest.raises(UserError, match=r"two shards have the same name"):
        pairs_of(str(tmp_path / "{,b/}00008.tar"))
    write_tar(tmp_path / "latin.tar", {"1.jpg": b"", "1.txt": b"\xff"})
    with pytest.raises(UserError, match=r"latin\.tar: 1: caption: .* not valid Unicode"):
        pairs_of(tmp_path / "latin.tar")
    cut = tmp_path / "cut.tar"
    cut.write_bytes((tmp_path / "00008.tar").read_bytes()[:1800])
    with pytest.raises(UserError, match=r"cut\.tar is damaged"):
        pairs_of(cut)


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
