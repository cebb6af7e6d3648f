"""Mining as a whole: the rules against a literal check, kills and resumes, bad input."""

import json
import os
import signal
import sys
from functools import partial

import numpy as np
import pytest
from mining_files import graph, read_jsonl, toy_spacy, world, write_jsonl

from similarity_retrieval import mine_triplets


@pytest.fixture
def mine(output, tmp_path):
    """What mine_triplets.py prints."""
    return partial(output, mine_triplets.main, outputs=tmp_path / "out")


@pytest.fixture
def mine_refused(refusal, tmp_path):
    """The one line of a mining that must fail."""
    return partial(refusal, mine_triplets.main, outputs=tmp_path / "out")


def keeps_the_rules(triplet, records, ratings):
    """Whether some choice of records gives this triplet; the images may say several things."""
    return any(
        target[3] != reference[3]
        and triplet["condition"] == f"{target[2]} {target[3]}"
        and np.mean([ratings.get(r[i], -1) for r in (reference, target, other) for i in (1, 3)])
        > 4.5
        for reference in records
        if reference[:2] == (triplet["reference"], triplet["subject"])
        for target in records
        if target[:2] == (triplet["target"], triplet["subject"])
        for other in records
        if (other[0], other[3]) == (triplet["distractor"], target[3])
    )


def test_every_triplet_keeps_every_rule(mine, tmp_path):
    graphs = world()
    file = write_jsonl(tmp_path / "graphs.jsonl", graphs)
    ratings = {f"w{i}": round(5 - 0.05 * i, 2) for i in range(40) if i % 7 != 3}
    lines = ["Word\tBigram\tConc.M", *(f"{word}\t0\t{value}" for word, value in ratings.items())]
    (tmp_path / "ratings.txt").write_text("\n".join(lines))
    settings = {"graphs": file, "ratings": tmp_path / "ratings.txt", "concreteness": 4.5}
    printed = mine(**settings, samples=2000, min_images=8, min_objects=3)
    folder = tmp_path / "out/triplets/run"
    triplets = read_jsonl(folder / "triplets.jsonl")
    assert len(triplets) > 1900

    records = [(g["image"], *r.values()) for g in graphs for r in g["relations"]]
    images, objects = {}, {}
    for image, subject, _, obj in records:
        images.setdefault(subject, set()).add(image)
        objects.setdefault(subject, set()).add(obj)
    for triplet in triplets:
        assert list(triplet) == ["reference", "target", "condition", "distractor", "subject"]
        assert len(images[triplet["subject"]]) >= 8 and len(objects[triplet["subject"]]) >= 3
        assert len({triplet["reference"], triplet["target"], triplet["distractor"]}) == 3
        assert keeps_the_rules(triplet, records, ratings), triplet

    counts = json.loads((folder / "summary.json").read_text())["counts"]
    kept = [s for s in images if len(images[s]) >= 8 and len(objects[s]) >= 3]
    assert counts["subjects"] == {"all": len(images), "kept": len(kept)}
    assert counts["captions"] == 400 and counts["relations"] == len(records)
    assert counts["images"] == len({record[0] for record in records})
    assert counts["mined"] == len(triplets) and counts["dropped"] == 2000 - len(triplets)
    assert counts["failed tries"]["not concrete"] > 0 and f"mined: {len(triplets)}\n" in printed


def test_nothing_mined_is_an_error_and_leaves_nothing(mine_refused, tmp_path):
    graphs = [graph(f"a{i}", ("dog", "on", ["bed", "car"][i % 2])) for i in range(8)]
    file = write_jsonl(tmp_path / "g.jsonl", graphs)
    (tmp_path / "r.txt").write_text("Word\tConc.M\ndog\t4.9\nbed\t4.9\n")
    message = mine_refused(graphs=file, ratings=tmp_path / "r.txt", samples=3)
    assert "not one of 3 samples" in message and "not concrete 3000" in message
    write_jsonl(file, [graph("x", ("dog", "on", "bed"), ("dog", "on", "car")) for _ in range(9)])
    assert "no target 2000" in mine_refused(graphs=file, samples=2, min_images=1)
    assert "5 images or more and with 2 objects or more (1)" in mine_refused(graphs=file)
    assert not (tmp_path / "out/triplets/run").exists()


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_same_seed_same_bytes_and_a_finished_run_is_left_alone(mine, mine_refused, tmp_path):
    file = write_jsonl(tmp_path / "g.jsonl", world())
    outputs = tmp_path / "out/triplets"
    for name, seed, samples in (("a", 0, 500), ("b", 0, 500), ("c", 1, 500), ("d", 0, 200)):
        mine(graphs=file, samples=samples, name=name, seed=seed)
    a, b, c, d = ((outputs / name / "triplets.jsonl").read_bytes() for name in "abcd")
    assert a == b != c
    assert a.startswith(d)  # Samples do not depend on each other: fewer are the beginning of more.

    settings = {"graphs": file, "samples": 500, "name": "a"}
    triplets, before = outputs / "a/triplets.jsonl", contents(outputs / "a")
    written = triplets.stat().st_mtime_ns
    assert "mined: 500\n" in mine(**settings) and triplets.stat().st_mtime_ns == written
    triplets.write_bytes(a[:-100])  # damage is noticed
    mine(**settings)
    assert contents(outputs / "a") == before
    (outputs / "a/summary.json").unlink()  # what a kill leaves
    mine(**settings)
    assert contents(outputs / "a") == before

    for change in ({"seed": 3}, {"samples": 300}, {"min_images": 4}):
        message = mine_refused(**{**settings, **change})
        assert "other inputs or settings; take another name=, or delete it" in message
    write_jsonl(file, world(seed=5))
    assert "other inputs" in mine_refused(**settings)
    assert contents(outputs / "a") == before


def captions(n):
    words = [("bed", "car", "log")[i % 3] for i in range(n)]
    return [{"image": f"{i}.jpg", "caption": f"Dog on{i} {w}"} for i, w in enumerate(words)]


def parsed(folder):
    [file] = folder.glob("graphs-*")
    return file


def test_captions_become_graphs_and_triplets(mine, tmp_path, monkeypatch):
    texts = []
    toy_spacy(monkeypatch, texts.append)
    lines = captions(45)
    for number, caption in ((3, "nothing"), (4, " "), (5, "word " * 1000)):
        lines[number]["caption"] = caption
    file = write_jsonl(tmp_path / "c.jsonl", lines)
    settings = {"captions": file, "samples": 20, "prefix": "train/"}
    assert "captions: 45\nimages: 42\nrelations: 42\n" in mine(**settings)
    folder = tmp_path / "out/triplets/run"
    graphs = read_jsonl(parsed(folder))
    assert graphs[0] == graph("train/0.jpg", ("dog", "on0", "bed"), caption="Dog on0 bed")
    assert [g["caption"] for g in graphs] == [line["caption"] for line in lines]
    assert [g["relations"] for g in graphs[3:6]] == [[]] * 3
    assert len(read_jsonl(folder / "triplets.jsonl")) == 20
    (folder / "summary.json").unlink()
    mine(**settings)
    assert len(texts) == 45  # nothing is parsed twice


def test_killed_while_parsing_it_goes_on_with_the_same_bytes(mine, tmp_path, monkeypatch):
    settings = {"captions": write_jsonl(tmp_path / "c.jsonl", captions(700)), "samples": 50}

    def kill(text):
        if text.startswith("Dog on650 "):
            os.kill(os.getpid(), signal.SIGKILL)

    toy_spacy(monkeypatch, kill)
    if not (child := os.fork()):
        mine(**settings, name="killed")
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    part = parsed(tmp_path / "out/triplets/killed")
    assert part.suffix == ".part" and 512 < len(part.read_bytes().splitlines()) < 650
    part.write_bytes(part.read_bytes()[:-20])  # in the middle of a line
    texts = []
    toy_spacy(monkeypatch, texts.append)
    mine(**settings, name="killed")
    assert texts[0].startswith("Dog on512 ")  # the first two batches were kept
    mine(**settings, name="whole")
    for name in (parsed(tmp_path / "out/triplets/killed").name, "triplets.jsonl"):
        killed, whole = (tmp_path / "out/triplets" / run / name for run in ("killed", "whole"))
        assert killed.read_bytes() == whole.read_bytes()


def test_what_is_missing_is_named(mine_refused, tmp_path, monkeypatch):
    for source in (tmp_path / "none.jsonl", tmp_path / "*.jsonl", tmp_path):
        assert "names no file" in mine_refused(captions=source)
    assert "none.jsonl does not exist" in mine_refused(graphs=tmp_path / "none.jsonl")
    assert "set either captions or graphs" in mine_refused(captions="a", graphs="b")
    monkeypatch.setitem(sys.modules, "spacy", None)
    message = mine_refused(captions=write_jsonl(tmp_path / "c.jsonl", captions(9)))
    assert "spaCy or its model" in message and "graphs=FILE.jsonl" in message
