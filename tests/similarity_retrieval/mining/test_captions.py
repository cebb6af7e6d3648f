"""Captions, graphs, ratings and triplets in every format, and how they can be wrong."""

import json
import tarfile

import pytest
from commands import REPOSITORY
from mining_files import graph, write_jsonl, write_tar, write_triplets

from crl.run.errors import UserError
from similarity_retrieval.mining.captions import caption_files, read_captions
from similarity_retrieval.mining.records import concreteness, read_graphs, read_ratings
from similarity_retrieval.mining.triplets import read_triplets

PAIRS = [("1.jpg", "a dog, on a bed"), ("2.jpg", '"red" & blue: a café; 40"'), ("1.jpg", "a dog")]
RAW = [(image, caption.replace("&", "&amp;amp;")) for image, caption in PAIRS]
FORMATS = {
    "csv": 'id,Caption,image\n0,"a dog, on a bed",1.jpg\n'
    '1,"""red"" &amp; blue: a café; 40""",2.jpg\n\n2,a dog,1.jpg\n',
    "csv with ;": '"Caption";"image"\na dog, on a bed;1.jpg\n'
    '"""red"" & blue: a café; 40""";2.jpg\na dog;1.jpg\n',
    "tsv": 'caption\timage\na dog, on a bed\t1.jpg\n"red" &amp; blue: a café; 40&quot;\t2.jpg\n'
    "a dog\t1.jpg\n",
    "jsonl": "\n\n".join(
        json.dumps({"image": i, "caption": c, "more": 1}, ensure_ascii=False) for i, c in RAW
    ),
    "json": json.dumps(
        {
            "images": [{"id": n, "file_name": f"{n}.jpg"} for n in (1, 2)],
            "annotations": [{"image_id": int(i[0]), "caption": caption} for i, caption in RAW],
        }
    ),
}


def pairs_of(captions, prefix=""):
    return [(p.image, p.caption) for p in read_captions(caption_files(str(captions)), prefix)]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("form", FORMATS)
def test_each_format_gives_the_same_pairs(tmp_path, form, encoding, newline):
    file = tmp_path / f"c.{form.split()[0]}"
    file.write_text(FORMATS[form], encoding=encoding, newline=newline)
    assert pairs_of(file) == PAIRS
    assert pairs_of(file, "train/")[1] == ("train/2.jpg", PAIRS[1][1])


def test_a_quote_in_tsv_is_a_letter(tmp_path):
    captions = ['"5 foot long sofa', "a cat", 'a tv of 40"', '"hello" says a sign', 'a "b" c', '"']
    lines = [f"{number}.jpg\t{caption}\n" for number, caption in enumerate(captions)]
    (tmp_path / "c.tsv").write_text("image\tcaption\n" + "".join(lines))
    assert [caption for _, caption in pairs_of(tmp_path / "c.tsv")] == captions


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


GOOD = {"1.jpg": b"not opened", "1.txt": b"a dog &amp; a cat"}
BAD = {
    "no image": ({"0.txt": b"a dog", "0.json": b"{}"}, "0: no image beside it"),
    "Latin-1": ({"0.jpg": b"", "0.txt": "a café".encode("latin-1")}, "0 is not UTF-8"),
    "a list": ({"0.jpg": b"", "0.json": b'["a dog"]'}, "0: must hold `key: value` lines"),
    "captions": ({"0.jpg": b"", "0.json": b'{"caption": ["a", "b"]}'}, "0: caption: must be a te"),
    "no JSON": ({"0.jpg": b"", "0.json": b"{"}, "0: "),
    "large": ({"0.jpg": b"", "0.txt": b" " * (2**20 + 1)}, "0: its text has 1,048,577 bytes"),
}


@pytest.mark.parametrize(("members", "reason"), BAD.values(), ids=BAD)
def test_a_bad_sample_is_counted(tmp_path, members, reason):
    others = {name.replace("0", "2", 1): content for name, content in members.items()}
    write_tar(tmp_path / "s.tar", members | GOOD | others)
    with pytest.warns(UserWarning) as notes:
        assert pairs_of(tmp_path / "s.tar") == [("s/1.jpg", "a dog & a cat")]
    [note] = map(str, (note.message for note in notes))
    assert note.startswith("2 bad samples are left out, the first: ") and f"s.tar: {reason}" in note


@pytest.mark.parametrize("folder", ["", "./", "a/b/", "__MACOSX/"])
@pytest.mark.parametrize("name", ["._1.jpg", "._1.txt", ".DS_Store", ".1.json", "._.txt"])
def test_hidden_members_are_passed_over(tmp_path, folder, name, recwarn):
    write_tar(tmp_path / "s.tar", {folder + name: b"\0\xff"} | GOOD | {f"x/{name}": b"\0\xff"})
    assert pairs_of(tmp_path / "s.tar") == [("s/1.jpg", "a dog & a cat")] and not recwarn.list


def test_a_shard_that_is_cut_or_damaged_anywhere_is_noticed(tmp_path):
    whole = write_tar(tmp_path / "s.tar", GOOD | {"2.jpg": b"x" * 700, "2.txt": b"a"}).read_bytes()
    end = whole.rindex(b"a\0") + 512 - whole.rindex(b"a\0") % 512  # of the last member
    cut = tmp_path / "cut.tar"
    for size in range(0, end + 1024, 64):
        cut.write_bytes(whole[:size])
        if size >= end + 512:
            assert len(pairs_of(cut)) == 2
            continue
        with pytest.raises(UserError, match=r"cut\.tar is damaged or no \.tar: .*; get it again"):
            pairs_of(cut)
    with tarfile.open(tmp_path / "s.tar") as shard:
        headers = [member.offset for member in shard]
    for header in headers:
        cut.write_bytes(whole[: header + 3] + b"?" + whole[header + 4 :])  # its checksum is wrong
        with pytest.raises(UserError, match=r"cut\.tar is damaged"):
            pairs_of(cut)


CASES = REPOSITORY.parent / "shared" / "cases"
REAL = {  # file -> its number of pairs; None: it must be refused
    "04-tsv-quotes/captions.tsv": 4,
    "04-tsv-quotes/two.tsv": 2,
    "10-shard-cut-in-a-header/00000.tar": None,
    "10-shard-cut-in-a-header/end.tar": None,
    "15-html-entities/captions.csv": 1,
    "33-appledouble-in-shard/00000.tar": 1,
    "35-one-bad-sample-ends-all/latin1.tar": 1,
    "35-one-bad-sample-ends-all/list.tar": 0,
    "35-one-bad-sample-ends-all/no_image.tar": 1,
}


@pytest.mark.skipif(not CASES.exists(), reason="files of others are beside the project")
@pytest.mark.filterwarnings("ignore:1 bad samples")
@pytest.mark.parametrize(("name", "count"), REAL.items())
def test_files_of_others(name, count):
    if count is None:
        with pytest.raises(UserError, match="is damaged"):
            pairs_of(CASES / name)
    else:
        pairs = pairs_of(CASES / name)
        assert len(pairs) == count and not any("&amp;" in caption for _, caption in pairs)


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
