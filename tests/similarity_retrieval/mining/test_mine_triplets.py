"""Mining: the rules against a literal check, kills and resumes, formats, parsers, bad input."""

import csv
import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import tarfile
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from crl.run.config import load_config
from crl.run.errors import UserError
from similarity_retrieval import mine_triplets, scene_graphs
from similarity_retrieval.captions import caption_files, read_captions
from similarity_retrieval.mine_triplets import (
    MineConfig,
    Miner,
    concreteness,
    read_graphs,
    read_ratings,
)
from similarity_retrieval.scene_graphs import read_answer, spacy_relations

SCRIPT = Path(mine_triplets.__file__)
REPOSITORY = SCRIPT.parent.parent


def graph(image, *relations, caption="said"):
    keys = ("subject", "relation", "object")
    return {
        "image": image,
        "caption": caption,
        "relations": [dict(zip(keys, relation, strict=True)) for relation in relations],
    }


def write_jsonl(file, items):
    file.write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    return file


def read_jsonl(file):
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def world(n=400, seed=0):
    """Captions of a world with rare and frequent words, several relations and captions an image."""
    draw = random.Random(seed)
    words = [f"w{i}" for i in range(40)]
    weights = [1 / (i + 1) for i in range(40)]
    return [
        graph(
            f"{draw.randrange(n * 3 // 4)}.jpg",
            *(
                (
                    draw.choices(words, weights)[0],
                    draw.choice(["on", "in front of"]),
                    draw.choices(words, weights)[0],
                )
                for _ in range(draw.randrange(4))
            ),
        )
        for _ in range(n)
    ]


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run the command on `key=value` settings; returns exit code, output and errors."""

    def run(**settings):
        argv = [f"{key}={'null' if v is None else v}" for key, v in settings.items()]
        monkeypatch.setattr(sys, "argv", ["mine_triplets.py", f"outputs={tmp_path / 'out'}", *argv])
        code = 0
        try:
            mine_triplets.main()
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return run


def failure(run, **settings):
    """The one line of a run that must fail."""
    code, _, errors = run(**settings)
    assert code == 2 and errors.startswith("error: ") and errors.count("\n") == 1, errors
    return errors


# ---- the rules ----------------------------------------------------------------------------------


@pytest.mark.parametrize("rated", [False, True])
def test_every_triplet_keeps_every_rule(run, tmp_path, rated):
    graphs = world()
    file = write_jsonl(tmp_path / "graphs.jsonl", graphs)
    ratings = {f"w{i}": round(5 - 0.05 * i, 2) for i in range(40) if i % 7 != 3}
    settings = {}
    if rated:
        lines = [f"{word}\t0\t{value}" for word, value in ratings.items()]
        (tmp_path / "ratings.txt").write_text("\n".join(["Word\tBigram\tConc.M", *lines]))
        settings = {"ratings": tmp_path / "ratings.txt", "concreteness": 4.5}
    code, printed, _ = run(graphs=file, samples=3000, min_images=8, min_objects=3, **settings)
    assert code == 0
    folder = tmp_path / "out/triplets" / "run"
    triplets = read_jsonl(folder / "triplets.jsonl")
    assert len(triplets) > 2900

    records = [(g["image"], *r.values()) for g in graphs for r in g["relations"]]
    images, objects = {}, {}
    for image, subject, _, obj in records:
        images.setdefault(subject, set()).add(image)
        objects.setdefault(subject, set()).add(obj)
    for triplet in triplets:
        assert list(triplet) == ["reference", "target", "condition", "distractor", "subject"]
        subject = triplet["subject"]
        assert len(images[subject]) >= 8 and len(objects[subject]) >= 3
        assert len({triplet["reference"], triplet["target"], triplet["distractor"]}) == 3
        # The images may say several things: one choice of records must keep all rules.
        assert any(
            target[3] != reference[3]
            and triplet["condition"] == f"{target[2]} {target[3]}"
            and (
                not rated
                or np.mean(
                    [ratings.get(r[i], -1) for r in (reference, target, distractor) for i in (1, 3)]
                )
                > 4.5
            )
            for reference in records
            if reference[:2] == (triplet["reference"], subject)
            for target in records
            if target[:2] == (triplet["target"], subject)
            for distractor in records
            if (distractor[0], distractor[3]) == (triplet["distractor"], target[3])
        ), triplet

    summary = json.loads((folder / "summary.json").read_text())
    kept = [s for s in images if len(images[s]) >= 8 and len(objects[s]) >= 3]
    few = [s for s in images if len(images[s]) < 8]
    assert few and kept
    assert summary["subjects"] == {
        "all": len(images),
        "too_few_images": len(few),
        "too_few_objects": len(images) - len(few) - len(kept),
        "kept": len(kept),
    }
    assert summary["captions"] == 400 and summary["relations"] == len(records)
    assert summary["images"] == len({g["image"] for g in graphs})
    assert summary["mined"] == len(triplets) and summary["dropped"] == 3000 - len(triplets)
    assert (summary["failed_tries"]["concreteness"] > 0) == rated
    conditions = [triplet["condition"] for triplet in triplets]
    for condition, count in summary["most_common"]["condition"].items():
        assert conditions.count(condition) == count
    assert f"{len(triplets)} triplets of 3000 samples asked for" in printed


def exact_chances(records, min_images, min_objects):
    """The chance of every (reference, target, distractor), by going through all that can happen."""
    chances = {}
    subjects = {}
    for i, (image, subject, _, obj) in enumerate(records):
        subjects.setdefault(subject, []).append((i, image, obj))
    for mine in subjects.values():
        images, objects = {image for _, image, _ in mine}, [obj for _, _, obj in mine]
        if len(images) < min_images or len(set(objects)) < min_objects:
            continue
        for i, image, obj in mine:
            # A target's weight: one of the objects, then one of its records.
            targets = {
                j: (1 / objects.count(o), picture, o)
                for j, picture, o in mine
                if o != obj and picture != image
            }
            whole = sum(weight for weight, _, _ in targets.values())
            for j, (weight, picture, o) in targets.items():
                distractors = [
                    k
                    for k, (other, _, _, shown) in enumerate(records)
                    if shown == o and other not in {image, picture}
                ]
                for k in distractors:
                    chance = len(images) / len(mine) * weight / whole / len(distractors)
                    chances[i, j, k] = chance
    whole = sum(chances.values())  # tries that fail are made again
    return {triplet: chance / whole for triplet, chance in chances.items()}


def test_each_triplet_comes_as_often_as_the_rules_say(tmp_path):
    graphs = [
        graph("a", ("dog", "on", "sofa"), ("dog", "by", "lamp"), ("cat", "on", "sofa")),
        graph("b", ("dog", "on", "sofa"), ("cat", "on", "bed")),
        graph("c", ("dog", "on", "sofa"), ("dog", "near", "bed")),
        graph("d", ("dog", "on", "bed"), ("dog", "in", "car")),
        graph("e", ("cat", "by", "lamp"), ("fox", "in", "car"), ("cat", "on", "bed")),
        graph("f", ("fox", "on", "sofa")),
        graph("a", ("dog", "under", "lamp")),
        *(graph(f"g{i}", ("dog", "on", "rug")) for i in range(2)),  # a dog's rug is the only one
    ]
    found = read_graphs(write_jsonl(tmp_path / "g.jsonl", graphs))
    miner = Miner(found, None, 0, 3, 2)
    failed = Counter()
    n = 40_000
    drawn = Counter(miner.sample(0, i, failed) for i in range(n))
    records = [(g["image"], *r.values()) for g in graphs for r in g["relations"]]
    chances = exact_chances(records, 3, 2)
    assert set(drawn) <= set(chances)
    for triplet, chance in chances.items():
        assert abs(drawn[triplet] / n - chance) < 5 * (chance / n) ** 0.5, triplet
    # Of two lamps, the distractor's is in the image of the reference, or of the target.
    assert failed["no_distractor"] > 0 and failed["no_target"] == 0


def test_a_distractor_is_found_even_if_it_is_one_of_thousands(tmp_path):
    graphs = [graph("b", ("cat", "on", "car")) for _ in range(3000)]
    graphs += [graph("a", ("dog", "on", "car")), graph("b", ("dog", "on", "bed"))]
    graphs += [graph("c", ("cat", "on", "car"))]
    records = read_graphs(write_jsonl(tmp_path / "g.jsonl", graphs))
    miner = Miner(records, None, 0, 2, 2)
    assert [miner.sample(1, i, Counter()) for i in range(3)] == [(3001, 3000, 3002)] * 3


def test_a_mean_equal_to_the_threshold_is_not_above_it(tmp_path, monkeypatch):
    monkeypatch.setattr(mine_triplets, "TRIES", 3)
    graphs = [graph(f"a{i}", ("dog", "on", ["bed", "car"][i % 2])) for i in range(8)]
    records = read_graphs(write_jsonl(tmp_path / "g.jsonl", graphs))

    def mined(value, threshold):
        miner = Miner(records, np.full(3, value), threshold, 5, 2)
        return miner.sample(0, 0, Counter()) is not None

    for value in np.round(np.arange(1, 5.01, 0.01), 2):
        assert not mined(value, value)
    assert mined(4.81, 4.8) and not mined(4.79, 4.8)


def test_words_are_rated_by_their_singular_too():
    ratings = {"dog": 4.9, "bus": 4.8, "glass": 4.7}
    assert [concreteness(w, ratings) for w in ("dog", "dogs", "bus", "buses", "glasses")] == [
        4.9,
        4.9,
        4.8,
        4.8,
        4.7,
    ]
    assert concreteness("sky", ratings) == -1


def test_no_candidates_says_the_thresholds(run, tmp_path):
    file = write_jsonl(tmp_path / "g.jsonl", [graph(str(i), ("dog", "on", "bed")) for i in "abcde"])
    said = failure(run, graphs=file, min_images=5)
    assert "5 images or more and with 2 objects or more (1 subjects)" in said


def test_nothing_mined_is_an_error_and_fewer_is_said(run, tmp_path):
    graphs = [graph(f"a{i}", ("dog", "on", ["bed", "car"][i % 2])) for i in range(8)]
    file = write_jsonl(tmp_path / "g.jsonl", graphs)
    (tmp_path / "r.txt").write_text("Word\tConc.M\ndog\t4.9\nbed\t4.9\n")
    said = failure(run, graphs=file, ratings=tmp_path / "r.txt", samples=3)
    assert "not one of 3 samples" in said and "3000 not concrete enough" in said
    graphs = [graph("x", ("dog", "on", "bed"), ("dog", "on", "car")) for _ in range(9)]
    file = write_jsonl(tmp_path / "h.jsonl", graphs)
    said = failure(run, graphs=file, name="h", samples=2, min_images=1)
    assert "not one of 2" in said and "2000 no target" in said
    assert json.loads((tmp_path / "out/triplets" / "h" / "summary.json").read_text())["mined"] == 0


def test_dropped_samples_are_counted(run, tmp_path, monkeypatch):
    monkeypatch.setattr(mine_triplets, "TRIES", 1)
    graphs = [graph(f"a{i}", ("dog", "on", "bed" if i else "car")) for i in range(9)]
    file = write_jsonl(tmp_path / "g.jsonl", graphs)
    code, printed, _ = run(graphs=file, samples=5000)
    assert code == 0
    # A target in the only car has no distractor; the car is the reference once in nine tries.
    mined = len(read_jsonl(tmp_path / "out/triplets" / "run" / "triplets.jsonl"))
    assert 450 < mined < 660
    assert f"{mined} triplets of 5000 samples asked for, {5000 - mined} dropped" in printed
    assert f"0 no target, {5000 - mined} no distractor, 0 not concrete" in printed


# ---- the same bytes -----------------------------------------------------------------------------


def outputs(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_same_seed_same_bytes_and_a_finished_run_is_left_alone(run, tmp_path):
    file = write_jsonl(tmp_path / "g.jsonl", world())
    for name in ("a", "b"):
        assert run(graphs=file, samples=500, name=name)[0] == 0
    triplets = [(tmp_path / "out/triplets" / name / "triplets.jsonl") for name in ("a", "b")]
    assert triplets[0].read_bytes() == triplets[1].read_bytes()
    assert run(graphs=file, samples=500, name="c", seed=1)[0] == 0
    assert (tmp_path / "out/triplets" / "c" / "triplets.jsonl").read_bytes() != triplets[
        0
    ].read_bytes()
    # Samples do not depend on each other: fewer are the beginning of more.
    assert run(graphs=file, samples=200, name="d")[0] == 0
    beginning = (tmp_path / "out/triplets" / "d" / "triplets.jsonl").read_bytes()
    assert triplets[0].read_bytes().startswith(beginning)
    before = outputs(tmp_path / "out/triplets" / "a"), triplets[0].stat().st_mtime_ns
    assert run(graphs=file, samples=500, name="a")[0] == 0
    assert (outputs(tmp_path / "out/triplets" / "a"), triplets[0].stat().st_mtime_ns) == before


@pytest.mark.parametrize("change", [{"seed": 3}, {"samples": 300}, {"min_images": 4}])
def test_other_settings_lose_nothing(run, tmp_path, change):
    file = write_jsonl(tmp_path / "g.jsonl", world())
    assert run(graphs=file, samples=200)[0] == 0
    before = outputs(tmp_path / "out/triplets" / "run")
    said = failure(run, **{"graphs": file, "samples": 200, **change})
    assert "other inputs or settings; take another name=, or delete it" in said
    assert outputs(tmp_path / "out/triplets" / "run") == before
    write_jsonl(file, world(seed=5))
    assert "other inputs" in failure(run, graphs=file, samples=200)
    assert outputs(tmp_path / "out/triplets" / "run") == before


def test_foreign_damaged_and_shortened_files_are_refused(run, tmp_path):
    file = write_jsonl(tmp_path / "g.jsonl", world())
    mined = tmp_path / "out/triplets" / "run" / "triplets.jsonl"
    mined.parent.mkdir(parents=True)
    mined.write_text("mine")
    assert "was not made by this command" in failure(run, graphs=file, samples=200)
    assert mined.read_text() == "mine"
    mined.unlink()
    assert run(graphs=file, samples=200)[0] == 0
    mined.write_bytes(mined.read_bytes()[:-1])
    assert "has lost its end" in failure(run, graphs=file, samples=200)
    mined.with_suffix(".progress.json").write_text("{")
    assert "progress.json is damaged" in failure(run, graphs=file, samples=200)


def start(tmp_path, *settings, before=""):
    """The command as a process of its own; it runs the statements `before` first."""
    code = f"from similarity_retrieval import mine_triplets\n{before}\nmine_triplets.main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, f"outputs={tmp_path / 'out'}", *settings],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


# Kills its process in the middle of a line of the fifth batch.
KILL = """
import os, signal
add = mine_triplets.Journal.add
def add_or_die(self, lines, items, counts):
    if self.done == 2000:
        self.stream.write("\\n".join(lines).encode()[:-20])
        self.stream.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    add(self, lines, items, counts)
mine_triplets.Journal.add = add_or_die
mine_triplets.MINE_BATCH = 500
"""


def test_killed_while_mining_it_goes_on_with_the_same_bytes(run, tmp_path):
    file = write_jsonl(tmp_path / "g.jsonl", world())
    samples = 6000
    process = start(tmp_path, f"graphs={file}", f"samples={samples}", "name=killed", before=KILL)
    assert process.wait(100) == -signal.SIGKILL
    killed = tmp_path / "out/triplets" / "killed" / "triplets.jsonl"
    state = json.loads(killed.with_suffix(".progress.json").read_text())
    assert state["done"] == 2000 and not state["finished"]
    assert killed.stat().st_size > state["bytes"] and killed.read_bytes()[-1:] != b"\n"
    for name in ("killed", "whole"):
        assert run(graphs=file, samples=samples, name=name)[0] == 0
    assert killed.read_bytes() == (killed.parent.parent / "whole" / killed.name).read_bytes()
    summaries = [
        json.loads((tmp_path / "out/triplets" / name / "summary.json").read_text())
        for name in ("killed", "whole")
    ]
    for summary in summaries:
        del summary["config"]
    assert summaries[0] == summaries[1]


# ---- reading captions ---------------------------------------------------------------------------

PAIRS = [("1.jpg", "a dog, on a bed"), ("2.jpg", 'a "red" café\tby a tree'), ("1.jpg", "a dog")]


def write_table(file, delimiter):
    with file.open("w", newline="", encoding="utf-8-sig") as stream:
        writer = csv.writer(stream, delimiter=delimiter)
        writer.writerow(["id", "Caption", "image"])
        writer.writerows([i, caption, image] for i, (image, caption) in enumerate(PAIRS))
    return file


def write_coco(file):
    images = [{"id": 7, "file_name": "1.jpg"}, {"id": 5, "file_name": "2.jpg"}]
    ids = {image["file_name"]: image["id"] for image in images}
    said = [{"image_id": ids[image], "caption": caption} for image, caption in PAIRS]
    file.write_text(json.dumps({"images": images, "annotations": said, "info": {}}))
    return file


def write_tar(file, members):
    with tarfile.open(file, "w") as shard:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            shard.addfile(entry, io.BytesIO(content))
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
        assert pairs_of(file, "train/") == [(f"train/{image}", said) for image, said in PAIRS]


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
        "4.jpeg": b"",
        "4.json": b'{"caption": null}',
    }
    write_tar(tmp_path / "00008.tar", members)
    write_tar(tmp_path / "00010.tar", {"0001.json": b'{"caption": "x"}', "0001.jpg": b""})
    wanted = [
        ("00008/0001.jpg", PAIRS[0][1]),
        ("00008/in/2.png", PAIRS[1][1]),
        ("00008/3.webp", ""),
        ("00008/4.jpeg", ""),
    ]
    assert pairs_of(tmp_path / "00008.tar") == wanted
    wanted.append(("00010/0001.jpg", "x"))
    for pattern in ("", "{00008,00010}.tar", "*.tar", "000[01]?.tar", "000{08..08}.tar"):
        whole = pattern != "000{08..08}.tar"
        assert pairs_of(tmp_path / pattern) == wanted[: 5 if whole else 4]
    with pytest.raises(UserError, match=r"00009\.tar does not exist"):
        pairs_of(tmp_path / "{00008..00010}.tar")
    (tmp_path / "b").mkdir()
    write_tar(tmp_path / "b" / "00008.tar", members)
    with pytest.raises(UserError, match=r"two shards are called 00008\.tar"):
        pairs_of(str(tmp_path / "{,b/}00008.tar"))
    cut = tmp_path / "cut.tar"
    cut.write_bytes((tmp_path / "00008.tar").read_bytes()[:1800])
    with pytest.raises(UserError, match=r"cut\.tar is damaged"):
        pairs_of(cut)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.jsonl", '{"image": "a", "caption": "x"}\n\n{"image": "a"}\n', "c.jsonl:3: not {"),
        ("c.jsonl", '{"image": "a", "caption": "x"}\n{"image": "a", "ca', "c.jsonl:2: not {"),
        ("c.jsonl", "[1]\n", "c.jsonl:1: not {"),
        ("c.jsonl", '{"image": "a", "caption": 1}\n', "c.jsonl:1: caption: "),
        ("c.jsonl", '{"image": "", "caption": "x"}\n', "c.jsonl:1: image: "),
        ("c.jsonl", '{"image": "\\ud800", "caption": "x"}\n', "c.jsonl:1: image: "),
        ("c.jsonl", b'{"image": "a", "caption": "x"}\n\xff\n', "c.jsonl:2: not UTF-8"),
        ("c.jsonl", "\n", "holds no captions"),
        ("c.csv", "", "c.csv:1: the first line must name .* not nothing"),
        ("c.csv", "caption,url\n", "c.csv:1: the first line must name .* not caption, url"),
        ("c.csv", "caption,image\n", "holds no captions"),
        ("c.csv", "caption,image\nx,y\n\nx\n", "c.csv:4: 1 columns, but the header has 2"),
        ("c.csv", 'caption,image\nx,y\n"x" z,y\n', "c.csv:3: "),
        ("c.tsv", "caption\timage\nx\t\n", "c.tsv:2: image: "),
        ("c.json", "{}", "c.json is not a COCO captions file"),
        ("c.json", '{"images": [], "annotations": [', "c.json is not a COCO captions file"),
        ("c.json", '{"images": [], "annotations": [{"image_id": 3}]}', "annotation 0: .*no im.* 3"),
        ("c.tar", "hello", "c.tar is damaged or no .tar"),
        ("c.tar", "", "c.tar is damaged or no .tar|holds no captions"),
        ("c.parquet", "x", "c.parquet: captions come as .jsonl, .csv, .* not '.parquet'"),
    ],
)
def test_malformed_captions_are_named(run, tmp_path, name, content, message):
    content = content.encode() if isinstance(content, str) else content
    (tmp_path / name).write_bytes(content)
    said = failure(run, captions=tmp_path / name, parser="llm", base_url="http://127.0.0.1:9/v1")
    assert re.search(message, said), said


def test_missing_files_and_sources(run, tmp_path):
    assert "none.jsonl does not exist" in failure(run, captions=tmp_path / "none.jsonl")
    assert "names no file" in failure(run, captions=tmp_path / "*.jsonl")
    assert "names no file" in failure(run, captions=tmp_path)
    assert "none.jsonl does not exist" in failure(run, graphs=tmp_path / "none.jsonl")
    assert "set either captions or graphs" in failure(run)
    assert "set either captions or graphs" in failure(run, captions="a", graphs="b")
    assert "min_objects" in failure(run, graphs="b", min_objects=1)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", "g.jsonl: there is nothing to mine, it is empty"),
        ('{"image": "a", "relations": []}\n', "none of its 1 captions has a relation"),
        ('{"image": "a", "relations": []}\n{"image"', "g.jsonl:2: "),
        ('{"image": "a"}\n', "g.jsonl:1: relations: Field required"),
        ('{"image": "a", "relations": [{"subject": "x", "object": "y"}]}', "relations.0.relation"),
        (json.dumps(graph("a", ("x", "on", " "))), "g.jsonl:1: relations.0.object"),
        (json.dumps(graph("a", ("x", "on", "y" * 61))), "g.jsonl:1: relations.0.object"),
        (json.dumps(graph("a", ("x", 3, "y"))), "g.jsonl:1: relations.0.relation"),
    ],
)
def test_malformed_graphs_are_named(run, tmp_path, lines, message):
    (tmp_path / "g.jsonl").write_text(lines)
    assert message in failure(run, graphs=tmp_path / "g.jsonl")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no ratings"),
        ("Word\tConc.M\n", "holds no ratings"),
        ("Word,Conc.M\nx,1\n", "r.txt:1: .*tab-separated"),
        ("Word\tConc.M\nx\t4\n\ny\tmuch\n", "r.txt:4: not 2 columns with a number"),
        ("Word\tConc.M\nx\n", "r.txt:2: not 2 columns"),
        ("Word\tConc.M\nx\t6\n", "r.txt:2: a concreteness is from 1 to 5, not 6"),
        ("Word\tConc.M\nx\tnan\n", "r.txt:2: a concreteness is from 1 to 5, not nan"),
    ],
)
def test_malformed_ratings_are_named(tmp_path, text, message):
    (tmp_path / "r.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        read_ratings(tmp_path / "r.txt")


def test_words_are_folded(tmp_path):
    graphs = [graph("a", ("Dog ", "On", "BED")), graph("b", ("dog", "on", "bed"))]
    records = read_graphs(write_jsonl(tmp_path / "g.jsonl", graphs))
    assert (records.words, records.relations) == (["dog", "bed"], ["on"])
    assert records.subject.tolist() == [0, 0] and records.image.tolist() == [0, 1]


# ---- the LLM parser -----------------------------------------------------------------------------


class Server(ThreadingHTTPServer):
    """An LLM that reads `a SUBJECT RELATION a OBJECT`; `spoil(captions, answer)` may change it."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked, self.formats = [], []
        self.spoil = lambda captions, answer: answer
        self.url = f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request, client_address):
        """Quiet: a client that was killed is part of a test."""


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        lines = request["messages"][0]["content"].splitlines()
        captions = [line.partition(". ")[2] for line in lines if line[0].isdigit()]
        self.server.asked.append(captions)
        self.server.formats.append(request.get("response_format"))
        entries = [
            {"number": i, "relations": [relation(said)] if " a " in said else []}
            for i, said in enumerate(captions, start=1)
        ]
        answer = self.server.spoil(captions, json.dumps({"captions": entries}))
        body = json.dumps({"choices": [{"message": {"role": "assistant", "content": answer}}]})
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *args):
        pass


def relation(said):
    _, subject, words, _, obj = said.split(" ")
    return {"subject": subject.upper(), "relation": words, "object": obj}


@pytest.fixture(autouse=True)
def surroundings(monkeypatch):
    """A known environment, and no waiting between the client's own retries."""
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.001)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture
def server():
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def said(n):
    things = ["bed", "car", "log"]
    return [{"image": f"{i}.jpg", "caption": f"a dog on{i} a {things[i % 3]}"} for i in range(n)]


def test_captions_become_graphs_and_triplets(server, run, tmp_path):
    lines = said(45)
    lines[3]["caption"] = "nothing"
    lines[4]["caption"] = " "
    lines[5]["caption"] = "word " * 1000
    file = write_jsonl(tmp_path / "c.jsonl", lines)
    settings = {"captions": file, "parser": "llm", "base_url": server.url, "samples": 20}
    settings |= {"cache": tmp_path / "cache", "prefix": "train/"}
    url = server.url.replace("http://", "http://ann:hunter2@")
    code, printed, _ = run(**{**settings, "base_url": url})
    assert code == 0 and "45 captions (2 not parsed) of 45 images: 42 relations" in printed
    folder = tmp_path / "out/triplets" / "run"
    graphs = read_jsonl(folder / "graphs.jsonl")
    assert graphs[0] == graph("train/0.jpg", ("dog", "on0", "bed"), caption="a dog on0 a bed")
    assert [g["caption"] for g in graphs] == [line["caption"] for line in lines]
    assert [g["relations"] for g in graphs[3:6]] == [[]] * 3
    assert [len(captions) for captions in server.asked] == [18, 20, 5]
    assert server.formats[0] == scene_graphs.SCHEMA
    assert len(read_jsonl(folder / "triplets.jsonl")) == 20
    assert json.loads((folder / "summary.json").read_text())["unparsed_captions"] == 2
    assert not any(b"hunter2" in content for content in outputs(folder).values())
    # The same captions under another name: nobody is asked again.
    assert run(**settings, name="again")[0] == 0
    assert len(server.asked) == 3
    again = tmp_path / "out/triplets" / "again" / "graphs.jsonl"
    assert again.read_bytes() == (folder / "graphs.jsonl").read_bytes()
    # Other captions under this name: refused.
    write_jsonl(file, said(44))
    assert "graphs.jsonl comes from other inputs" in failure(run, **settings)


def test_each_format_gives_the_same_graphs(server, run, tmp_path):
    lines = [(line["image"], line["caption"]) for line in said(12)]
    write_jsonl(tmp_path / "c.jsonl", said(12))
    rows = "".join(f"{image},{caption}\n" for image, caption in lines)
    (tmp_path / "c.csv").write_text("image,caption\n" + rows)
    (tmp_path / "c.tsv").write_text(("image,caption\n" + rows).replace(",", "\t"))
    images = [{"id": i, "file_name": image} for i, (image, _) in enumerate(lines)]
    told = [{"image_id": i, "caption": caption} for i, (_, caption) in enumerate(lines)]
    (tmp_path / "c.json").write_text(json.dumps({"images": images, "annotations": told}))
    members = {}
    for image, caption in lines:
        members |= {image: b"", image.replace("jpg", "txt"): caption.encode()}
    write_tar(tmp_path / "c.tar", members)
    found = []
    for kind in ("jsonl", "csv", "tsv", "json", "tar"):
        settings = {"captions": tmp_path / f"c.{kind}", "parser": "llm", "base_url": server.url}
        settings |= {"cache": tmp_path / "cache", "name": kind, "samples": 9}
        if kind != "tar":
            settings["prefix"] = "c/"
        assert run(**settings)[0] == 0
        found.append((tmp_path / "out/triplets" / kind / "graphs.jsonl").read_bytes())
    assert len(found[0].splitlines()) == 12 and len(set(found)) == 1


def test_one_strange_caption_costs_only_itself(server, run, tmp_path):
    lines = said(40)
    lines[27]["caption"] = "a dog breaks a llm"

    def spoil(captions, answer):
        return "I cannot do that." if "a dog breaks a llm" in captions else answer

    server.spoil = spoil
    file = write_jsonl(tmp_path / "c.jsonl", lines)
    settings = {"captions": file, "parser": "llm", "base_url": server.url, "samples": 5}
    code, printed, _ = run(**settings, cache=tmp_path / "cache")
    assert code == 0 and "40 captions (1 not parsed) of 40 images: 39 relations" in printed
    graphs = read_jsonl(tmp_path / "out/triplets" / "run" / "graphs.jsonl")
    assert [g["image"] for g in graphs if not g["relations"]] == ["27.jpg"]


def test_an_llm_that_cannot_do_it_is_an_error(server, run, tmp_path):
    server.spoil = lambda captions, answer: "Here you are: dogs."
    file = write_jsonl(tmp_path / "c.jsonl", said(8))
    settings = {"captions": file, "parser": "llm", "base_url": server.url, "samples": 5}
    settings["cache"] = tmp_path / "cache"
    said_ = failure(run, **settings)
    assert "gave no relations that can be read for any of 8 captions, the first 'a dog" in said_
    assert "parser=spacy" in said_ and "graphs=FILE.jsonl" in said_
    assert not (tmp_path / "cache").exists()  # bad answers are not kept
    server.spoil = lambda captions, answer: answer
    assert run(**settings, model="better")[0] == 0  # and do not stand in the way of another


ENTRY = '{"number": 1, "relations": [{"subject": "a", "relation": "b", "object": "c"}]}'


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "none",
        "{",
        "[]",
        '{"captions": []}',
        '{"captions": [[]]}',
        f'{{"captions": [{ENTRY}, {ENTRY}]}}',
        f'{{"captions": [{ENTRY.replace("1", "2")}]}}',
        f'{{"captions": [{ENTRY.replace(chr(34) + "c" + chr(34), "null")}]}}',
        f'{{"captions": [{ENTRY.replace("c", " ", 1)}]}}',
        '{"captions": [{"number": 1, "relations": [{"subject": "a", "relation": "b"}]}]}',
        f'{{"captions": [{ENTRY.replace("b", "b" * 61, 2)}]}}',
        f'{{"captions": [{ENTRY}',
        "[" * 100_000,
    ],
)
def test_bad_answers(answer):
    with pytest.raises(UserError, match="the LLM"):
        read_answer(answer, 1)


def test_good_answers():
    for answer in (
        f'{{"captions": [{ENTRY}]}}',
        f'<think>{{"no": 1}}</think>Sure:\n```json\n{{"captions": [{ENTRY}]}}\n```\nBye.',
    ):
        [[found]] = read_answer(answer, 1)
        assert (found.subject, found.relation, found.object) == ("a", "b", "c")


def test_killed_while_parsing_it_goes_on_with_the_same_bytes(server, run, tmp_path):
    file = write_jsonl(tmp_path / "c.jsonl", said(110))
    settings = {"captions": file, "parser": "llm", "base_url": server.url, "samples": 5}

    def kill(captions, answer):
        if len(server.asked) == 4:
            process.send_signal(signal.SIGKILL)
            process.wait()
        return answer

    server.spoil = kill
    argv = [f"{key}={value}" for key, value in settings.items()]
    process = start(tmp_path, *argv, "name=killed", f"cache={tmp_path / 'cache'}")
    assert process.wait(100) == -signal.SIGKILL
    killed = tmp_path / "out/triplets" / "killed" / "graphs.jsonl"
    assert len(killed.read_bytes().splitlines()) == 60
    with killed.open("ab") as stream:
        stream.write(b'{"image": "ha')
    server.asked.clear()
    server.spoil = lambda captions, answer: answer
    assert run(**settings, name="killed", cache=tmp_path / "cache")[0] == 0
    # None of the first 60 was asked again.
    assert [len(captions) for captions in server.asked] == [20, 20, 10]
    assert run(**settings, name="whole", cache=tmp_path / "other")[0] == 0
    for name in ("graphs.jsonl", "triplets.jsonl", "graphs.progress.json"):
        whole = (tmp_path / "out/triplets" / "whole" / name).read_bytes()
        assert (killed.parent / name).read_bytes() == whole


def test_what_is_missing_names_the_alternatives(run, tmp_path, monkeypatch):
    file = write_jsonl(tmp_path / "c.jsonl", said(9))
    for parser, missing in (("llm", "OPENAI_API_KEY is not set"), ("spacy", "spaCy or its model")):
        monkeypatch.setitem(sys.modules, "spacy", None)
        told = failure(run, captions=file, parser=parser)
        assert missing in told
        for choice in ("requirements-mining.txt", "parser=llm", "graphs=FILE.jsonl"):
            assert choice in told
    told = failure(run, captions=file, parser="llm", base_url="http://127.0.0.1:9/v1")
    assert "cannot reach http://127.0.0.1:9/v1" in told and "parser=spacy" in told
    assert "must look like http" in failure(run, captions=file, parser="llm", base_url="here")


# ---- the spaCy parser ---------------------------------------------------------------------------

# word/lemma? /part of speech/dependency/head's position
SENTENCES = [
    (
        "a/DET/det/1 dog/NOUN/ROOT/1 sitting/VERB/acl/1 on/ADP/prep/2 a/DET/det/6 "
        "wooden/ADJ/amod/6 bench/NOUN/pobj/3 next/ADV/advmod/2 to/ADP/prep/7 a/DET/det/10 "
        "tree/NOUN/pobj/8",
        ["dog | sitting on | bench", "dog | sitting next to | tree"],
    ),
    (  # next belongs to the bench
        "Dogs:dog/NOUN/nsubj/1 Sit/VERB/ROOT/1 on/ADP/prep/1 benches:bench/NOUN/pobj/2 "
        "next/ADV/advmod/3 to/ADP/prep/4 trees:tree/NOUN/pobj/5",
        ["dog | sit on | bench", "bench | next to | tree"],
    ),
    (
        "a/DET/det/1 man/NOUN/nsubj/5 and/CCONJ/cc/1 woman/NOUN/conj/1 are:be/AUX/aux/5 "
        "riding/VERB/ROOT/5 a/DET/det/7 horse/NOUN/dobj/5 on/ADP/prep/5 the/DET/det/10 "
        "beach/NOUN/pobj/8",
        [
            "man | riding | horse",
            "woman | riding | horse",
            "man | on | beach",
            "woman | on | beach",
        ],
    ),
    (
        "A/DET/det/1 cat/NOUN/nsubj/2 is:be/AUX/ROOT/2 in/ADP/prep/2 front/NOUN/pobj/3 "
        "of/ADP/prep/4 a/DET/det/7 house/NOUN/pobj/5",
        ["cat | in front of | house"],
    ),
    (
        "a/DET/det/1 ball/NOUN/ROOT/1 held/VERB/acl/1 by/ADP/agent/2 a/DET/det/5 "
        "boy/NOUN/pobj/3 with/ADP/prep/5 a/DET/det/8 hat/NOUN/pobj/6 and/CCONJ/cc/8 "
        "bag/NOUN/conj/8",
        ["ball | held by | boy", "boy | with | hat", "boy | with | bag"],
    ),
    (
        "a/DET/det/1 girl/NOUN/ROOT/1 who/PRON/nsubj/3 puts/VERB/relcl/1 on/ADP/prt/3 "
        "a/DET/det/6 coat/NOUN/dobj/3 and/CCONJ/cc/3 opens/VERB/conj/3 it/PRON/dobj/8 "
        "near/ADP/prep/8 doors:door/NOUN/pobj/10",
        ["girl | puts on | coat", "girl | near | door"],
    ),
    ("on/ADP/ROOT/0 the/DET/det/2 road/NOUN/pobj/0", []),
    ("it/PRON/nsubj/1 eats/VERB/ROOT/1 grass/NOUN/dobj/1", []),
    ("red/ADJ/amod/1 sky/NOUN/ROOT/1", []),
]


def fields(sentence):
    """words, lemmas, parts of speech, dependencies, heads"""
    rows = [cell.split("/") for cell in sentence.split(" ")]
    words = [row[0].partition(":")[0] for row in rows]
    lemmas = [row[0].partition(":")[2] or row[0].lower() for row in rows]
    return words, lemmas, *([row[i] for row in rows] for i in (1, 2)), [int(r[3]) for r in rows]


class Token:
    """The part of spaCy's Token that is used."""

    def __init__(self, i, text, lemma, pos, dep):
        self.i, self.text, self.lemma_, self.pos_, self.dep_ = i, text, lemma, pos, dep
        self.children = []


class FakeDoc(list):
    """A stand-in for spaCy's Doc: a list of tokens, with noun_chunks of single nouns."""

    @property
    def noun_chunks(self):
        for token in self:
            if token.pos_ in {"NOUN", "PROPN", "PRON"}:
                yield type("Span", (), {"root": token})


def fake_doc(sentence):
    words, lemmas, parts, dependencies, heads = fields(sentence)
    rows = zip(words, lemmas, parts, dependencies, strict=True)
    doc = FakeDoc(Token(i, *row) for i, row in enumerate(rows))
    for token, head in zip(doc, heads, strict=True):
        token.head = doc[head]
        if head != token.i:
            doc[head].children.append(token)
    return doc


def spacy_doc(sentence):
    spacy = pytest.importorskip("spacy")
    words, lemmas, parts, dependencies, heads = fields(sentence)
    vocabulary = spacy.blank("en").vocab
    return spacy.tokens.Doc(
        vocabulary, words=words, lemmas=lemmas, pos=parts, deps=dependencies, heads=heads
    )


@pytest.mark.parametrize("make", [fake_doc, spacy_doc])
@pytest.mark.parametrize(("sentence", "wanted"), SENTENCES)
def test_relations_are_read_off_the_tree(make, sentence, wanted):
    found = spacy_relations(make(sentence))
    assert [f"{r.subject} | {r.relation} | {r.object}" for r in found] == wanted


def test_the_spacy_parser_as_a_whole(run, tmp_path, monkeypatch):
    """Captions go through `spacy.load(...).pipe` and come back in their order."""
    by_text = {"a dog sits": SENTENCES[1][0], "a cat sits": SENTENCES[3][0], "sky": SENTENCES[8][0]}

    class Pipeline:
        def pipe(self, captions):
            return (fake_doc(by_text[caption]) for caption in captions)

    loaded = []
    module = type("spacy", (), {"load": lambda name, **more: loaded.append(name) or Pipeline()})
    monkeypatch.setitem(sys.modules, "spacy", module)
    texts = ["a dog sits", "sky", "", "a cat sits"] * 100
    lines = [{"image": f"{i}.jpg", "caption": text} for i, text in enumerate(texts)]
    file = write_jsonl(tmp_path / "c.jsonl", lines)
    told = failure(run, captions=file, samples=5)
    assert "no subject" in told and loaded == ["en_core_web_sm"]
    graphs = read_jsonl(tmp_path / "out/triplets" / "run" / "graphs.jsonl")
    assert [g["image"] for g in graphs] == [line["image"] for line in lines]
    assert [len(g["relations"]) for g in graphs] == [2, 0, 0, 1] * 100
    progress = json.loads((tmp_path / "out/triplets" / "run" / "graphs.progress.json").read_text())
    assert progress["counts"] == {"captions": 400, "unparsed": 100}
    module.load = None  # a finished file is not parsed again
    assert "no subject" in failure(run, captions=file, samples=5)


# ---- the shipped configurations -----------------------------------------------------------------


def test_configurations_load():
    demo, cc3m = (
        load_config(MineConfig, ["--config", str(REPOSITORY / "configs" / name)], "")
        for name in ("demo/mine.yaml", "mine_cc3m.yaml")
    )
    assert (demo.name, demo.ratings, demo.samples) == ("demo", None, 20_000)
    assert demo.graphs.name == "relations_train2017.jsonl"
    assert (cc3m.name, cc3m.samples, cc3m.concreteness) == ("mine_cc3m", 1_600_000, 4.8)
    assert cc3m.ratings and (cc3m.min_images, cc3m.min_objects) == (5, 2)
