"""Captions, graphs, ratings and triplets in every format, and how they can be wrong."""

import json

import pytest
from mining_files import graph, write_jsonl, write_tar, write_triplets

from crl.run.errors import UserError
from similarity_retrieval.mining.captions import caption_files, read_captions
from similarity_retrieval.mining.records import concreteness, read_graphs, read_ratings
from similarity_retrieval.mining.triplets import read_triplets

PAIRS = [("1.jpg", "a dog, on a bed"), ("2.jpg", 'a "red" café by a tree'), ("1.jpg", "a dog")]
FORMATS = {
    "csv": '\ufeffid,Caption,image\n0,"a dog, on a bed",1.jpg\n'
    '1,"a ""red"" café by a tree",2.jpg\n\n2,a dog,1.jpg\n',
    "tsv": 'caption\timage\na dog, on a bed\t1.jpg\n"a ""red"" café by a tree"\t2.jpg\n'
    "a dog\t1.jpg\n",
    "jsonl": "\n\n".join(json.dumps({"image": i, "caption": c, "more": 1}) for i, c in PAIRS),
    "json": json.dumps(
        {
            "images": [{"id": n, "file_name": f"{n}.jpg"} for n in (1, 2)],
            "annotations": [{"image_id": int(i[0]), "caption": caption} for i, caption in PAIRS],
        }
    ),
}


def pairs_of(captions, prefix=""):
    return [(p.image, p.caption) for p in read_captions(caption_files(str(captions)), prefix)]


@pytest.mark.parametrize("suffix", FORMATS)
def test_each_format_gives_the_same_pairs(tmp_path, suffix):
    file = tmp_path / f"c.{suffix}"
    file.write_text(FORMATS[suffix], encoding="utf-8")
    assert pairs_of(file) == PAIRS
    assert pairs_of(file, "train/")[1] == ("train/2.jpg", PAIRS[1][1])


def test_webdataset_shards(tmp_path):
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
    names = {"0001.jpg": "a dog", "in/2.PNG": "a cat", "3.webp": "", "4.jpeg": ""}
    first = [(f"00008/{name}", caption) for name, caption in names.items()]
    assert pairs_of(tmp_path / "00008.tar") == first
    for pattern in ("", "*.tar", "000[01]?.tar"):
        assert pairs_of(tmp_path / pattern) == [*first, ("00010/0001.jpg", "x")]
    (tmp_path / "b").mkdir()
    write_tar(tmp_path / "b/00008.tar", {})
    with pytest.raises(UserError, match="two shards have the same name"):
        pairs_of(tmp_path / "**/*.tar")
    write_tar(tmp_path / "alone.tar", {"in/0.txt": b"a dog"})
    with pytest.raises(UserError, match=r"alone\.tar: in/0: no image beside it"):
        pairs_of(tmp_path / "alone.tar")
    (tmp_path / "cut.tar").write_bytes((tmp_path / "00008.tar").read_bytes()[:1800])
    with pytest.raises(UserError, match=r"cut\.tar is damaged"):
        pairs_of(tmp_path / "cut.tar")


GRAPH = '{"image": "a", "relations": [{"subject": "x", "object": "y"}]}'
COCO = '{"images": [{"id": 1, "file_name": "a"}], "annotations": [{"image_id": 3, "caption": "x"}]}'
TRIPLET = '{"reference": "a", "target": "b", "condition": "on bed"}\n'


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.jsonl", b'{"image": "a", "caption": ""}\n\n{"image": "a"}', "l:3: caption: is missing"),
        ("c.jsonl", b'{"image": "a", "caption": "x"}\n\xff\n', "c.jsonl is not UTF-8"),
        ("c.csv", b"caption,image\nx,y\n\nx\n", "c.csv:4: not 2 columns as in the first line"),
        ("c.csv", b'caption,image\nx,y\n"x" z,y\n', "c.csv:3: "),
        ("c.json", COCO.encode(), "annotations.0: no image 3"),
        ("g.jsonl", b'{"image": "a", "relations": []}\n', "not one of its 1 captions has a relat"),
        ("g.jsonl", GRAPH.encode(), r"g.jsonl:1: relations.0.relation"),
        ("r.txt", b"Word\tConc.M\nx\t4\n\ny\tmuch\n", "r.txt:4: conc.m: must be a number"),
        ("r.txt", b"Word\tConc.M\nx\tnan\n", "r.txt:2: conc.m: must be at most 5.0, not 'nan'"),
        ("t.jsonl", b"", "there are no triplets in "),
        ("t.jsonl", TRIPLET.encode(), r"2 of the 2 images of .* are not in .*, the first: a;"),
    ],
)
def test_what_is_malformed_is_named(tmp_path, name, content, message):
    file = tmp_path / name
    file.write_bytes(content)
    readers = {"g": read_graphs, "r": read_ratings, "t": lambda file: read_triplets(file, tmp_path)}
    with pytest.raises(UserError, match=message):
        readers.get(name[0], pairs_of)(file)


def test_words_are_folded_and_rated_by_their_singular_too(tmp_path):
    graphs = [graph("a", ("Dog ", "On", "BED")), graph("b"), graph("c", ("dog", "on", "bed"))]
    records, captions = read_graphs(write_jsonl(tmp_path / "g.jsonl", graphs))
    assert records == [("a", "dog", "on", "bed"), ("c", "dog", "on", "bed")] and captions == 3
    (tmp_path / "r.txt").write_text("Word\tConc.M\ndog\t4.9\nBus \t4.8\nglass\t4.7\n")
    ratings = read_ratings(tmp_path / "r.txt")
    words = {"dog": 4.9, "dogs": 4.9, "bus": 4.8, "buses": 4.8, "glasses": 4.7, "sky": -1}
    assert {word: concreteness(word, ratings) for word in words} == words


def test_read_triplets_and_the_first_of_them(tmp_path):
    keys = write_triplets(tmp_path)
    data = read_triplets(keys["triplets"], keys["images"])
    lines = [json.loads(line) for line in keys["triplets"].read_text().splitlines()]
    for part in (data, data.first(3)):
        for i, line in enumerate(lines[: len(part)]):
            reference, target = (part.images[x[i]].name for x in (part.reference, part.target))
            assert (reference, target) == (line["reference"], line["target"])
            assert part.conditions[part.condition[i]] == line["condition"]
    assert len(data) == 60 and len(data.images) == 12 and len(data.conditions) == 5
    assert len(data.first(3).images) <= 6
