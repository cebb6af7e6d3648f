"""Mining as a whole: the rules against a literal check, kills and resumes, an LLM, bad input."""

import json
import os
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from commands import REPOSITORY
from mining_files import graph, read_jsonl, world, write_jsonl, write_tar

from crl.run.config import load_config
from similarity_retrieval.mine_triplets import MineConfig
from similarity_retrieval.mining import scene_graphs


@pytest.mark.parametrize("rated", [False, True])
def test_every_triplet_keeps_every_rule(mine, tmp_path, rated):
    graphs = world()
    file = write_jsonl(tmp_path / "graphs.jsonl", graphs)
    ratings = {f"w{i}": round(5 - 0.05 * i, 2) for i in range(40) if i % 7 != 3}
    settings = {}
    if rated:
        lines = [f"{word}\t0\t{value}" for word, value in ratings.items()]
        (tmp_path / "ratings.txt").write_text("\n".join(["Word\tBigram\tConc.M", *lines]))
        settings = {"ratings": tmp_path / "ratings.txt", "concreteness": 4.5}
    code, printed, _ = mine(graphs=file, samples=3000, min_images=8, min_objects=3, **settings)
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


def test_nothing_mined_is_an_error_and_fewer_is_said(mine_refused, tmp_path):
    graphs = [graph(f"a{i}", ("dog", "on", ["bed", "car"][i % 2])) for i in range(8)]
    file = write_jsonl(tmp_path / "g.jsonl", graphs)
    (tmp_path / "r.txt").write_text("Word\tConc.M\ndog\t4.9\nbed\t4.9\n")
    said = mine_refused(graphs=file, ratings=tmp_path / "r.txt", samples=3)
    assert "not one of 3 samples" in said and "3000 not concrete enough" in said
    graphs = [graph("x", ("dog", "on", "bed"), ("dog", "on", "car")) for _ in range(9)]
    file = write_jsonl(tmp_path / "h.jsonl", graphs)
    said = mine_refused(graphs=file, name="h", samples=2, min_images=1)
    assert "not one of 2" in said and "2000 no target" in said
    assert json.loads((tmp_path / "out/triplets" / "h" / "summary.json").read_text())["mined"] == 0


def test_dropped_samples_are_counted(mine, tmp_path, monkeypatch):
    monkeypatch.setattr("similarity_retrieval.mining.miner.TRIES", 1)
    graphs = [graph(f"a{i}", ("dog", "on", "bed" if i else "car")) for i in range(9)]
    file = write_jsonl(tmp_path / "g.jsonl", graphs)
    code, printed, _ = mine(graphs=file, samples=5000)
    assert code == 0
    # A target in the only car has no distractor; the car is the reference once in nine tries.
    mined = len(read_jsonl(tmp_path / "out/triplets" / "run" / "triplets.jsonl"))
    assert 450 < mined < 660
    assert f"{mined} triplets of 5000 samples asked for, {5000 - mined} dropped" in printed
    assert f"0 no target, {5000 - mined} no distractor, 0 not concrete" in printed


def outputs(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_same_seed_same_bytes_and_a_finished_run_is_left_alone(mine, tmp_path):
    file = write_jsonl(tmp_path / "g.jsonl", world())
    for name in ("a", "b"):
        assert mine(graphs=file, samples=500, name=name)[0] == 0
    triplets = [(tmp_path / "out/triplets" / name / "triplets.jsonl") for name in ("a", "b")]
    assert triplets[0].read_bytes() == triplets[1].read_bytes()
    assert mine(graphs=file, samples=500, name="c", seed=1)[0] == 0
    assert (tmp_path / "out/triplets" / "c" / "triplets.jsonl").read_bytes() != triplets[
        0
    ].read_bytes()
    # Samples do not depend on each other: fewer are the beginning of more.
    assert mine(graphs=file, samples=200, name="d")[0] == 0
    beginning = (tmp_path / "out/triplets" / "d" / "triplets.jsonl").read_bytes()
    assert triplets[0].read_bytes().startswith(beginning)
    before = outputs(tmp_path / "out/triplets" / "a"), triplets[0].stat().st_mtime_ns
    assert mine(graphs=file, samples=500, name="a")[0] == 0
    assert (outputs(tmp_path / "out/triplets" / "a"), triplets[0].stat().st_mtime_ns) == before


@pytest.mark.parametrize("change", [{"seed": 3}, {"samples": 300}, {"min_images": 4}])
def test_other_settings_lose_nothing(mine, mine_refused, tmp_path, change):
    file = write_jsonl(tmp_path / "g.jsonl", world())
    assert mine(graphs=file, samples=200)[0] == 0
    before = outputs(tmp_path / "out/triplets" / "run")
    said = mine_refused(**{"graphs": file, "samples": 200, **change})
    assert "other inputs or settings; take another name=, or delete it" in said
    assert outputs(tmp_path / "out/triplets" / "run") == before
    write_jsonl(file, world(seed=5))
    assert "other inputs" in mine_refused(graphs=file, samples=200)
    assert outputs(tmp_path / "out/triplets" / "run") == before


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


def test_killed_while_mining_it_goes_on_with_the_same_bytes(mine, tmp_path):
    file = write_jsonl(tmp_path / "g.jsonl", world())
    samples = 6000
    process = start(tmp_path, f"graphs={file}", f"samples={samples}", "name=killed", before=KILL)
    assert process.wait(100) == -signal.SIGKILL
    killed = tmp_path / "out/triplets" / "killed" / "triplets.jsonl"
    state = json.loads(killed.with_suffix(".progress.json").read_text())
    assert state["done"] == 2000 and not state["finished"]
    assert killed.stat().st_size > state["bytes"] and killed.read_bytes()[-1:] != b"\n"
    for name in ("killed", "whole"):
        assert mine(graphs=file, samples=samples, name=name)[0] == 0
    assert killed.read_bytes() == (killed.parent.parent / "whole" / killed.name).read_bytes()
    summaries = [
        json.loads((tmp_path / "out/triplets" / name / "summary.json").read_text())
        for name in ("killed", "whole")
    ]
    for summary in summaries:
        del summary["config"]
    assert summaries[0] == summaries[1]


def test_missing_files_and_sources(mine_refused, tmp_path):
    assert "none.jsonl does not exist" in mine_refused(captions=tmp_path / "none.jsonl")
    assert "names no file" in mine_refused(captions=tmp_path / "*.jsonl")
    assert "names no file" in mine_refused(captions=tmp_path)
    assert "none.jsonl does not exist" in mine_refused(graphs=tmp_path / "none.jsonl")
    assert "set either captions or graphs" in mine_refused()
    assert "set either captions or graphs" in mine_refused(captions="a", graphs="b")
    assert "min_objects" in mine_refused(graphs="b", min_objects=1)


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


def test_captions_become_graphs_and_triplets(server, mine, mine_refused, tmp_path):
    lines = said(45)
    lines[3]["caption"] = "nothing"
    lines[4]["caption"] = " "
    lines[5]["caption"] = "word " * 1000
    file = write_jsonl(tmp_path / "c.jsonl", lines)
    settings = {"captions": file, "parser": "llm", "base_url": server.url, "samples": 20}
    settings |= {"cache": tmp_path / "cache", "prefix": "train/"}
    url = server.url.replace("http://", "http://ann:hunter2@")
    code, printed, _ = mine(**{**settings, "base_url": url})
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
    assert mine(**settings, name="again")[0] == 0
    assert len(server.asked) == 3
    again = tmp_path / "out/triplets" / "again" / "graphs.jsonl"
    assert again.read_bytes() == (folder / "graphs.jsonl").read_bytes()
    # Other captions under this name: refused.
    write_jsonl(file, said(44))
    assert "graphs.jsonl comes from other inputs" in mine_refused(**settings)


def test_each_format_gives_the_same_graphs(server, mine, tmp_path):
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
        assert mine(**settings)[0] == 0
        found.append((tmp_path / "out/triplets" / kind / "graphs.jsonl").read_bytes())
    assert len(found[0].splitlines()) == 12 and len(set(found)) == 1


def test_one_strange_caption_costs_only_itself(server, mine, tmp_path):
    lines = said(40)
    lines[27]["caption"] = "a dog breaks a llm"

    def spoil(captions, answer):
        return "I cannot do that." if "a dog breaks a llm" in captions else answer

    server.spoil = spoil
    file = write_jsonl(tmp_path / "c.jsonl", lines)
    settings = {"captions": file, "parser": "llm", "base_url": server.url, "samples": 5}
    code, printed, _ = mine(**settings, cache=tmp_path / "cache")
    assert code == 0 and "40 captions (1 not parsed) of 40 images: 39 relations" in printed
    graphs = read_jsonl(tmp_path / "out/triplets" / "run" / "graphs.jsonl")
    assert [g["image"] for g in graphs if not g["relations"]] == ["27.jpg"]


def test_an_llm_that_cannot_do_it_is_an_error(server, mine, mine_refused, tmp_path):
    server.spoil = lambda captions, answer: "Here you are: dogs."
    file = write_jsonl(tmp_path / "c.jsonl", said(8))
    settings = {"captions": file, "parser": "llm", "base_url": server.url, "samples": 5}
    settings["cache"] = tmp_path / "cache"
    said_ = mine_refused(**settings)
    assert "gave no relations that can be read for any of 8 captions, the first 'a dog" in said_
    assert "parser=spacy" in said_ and "graphs=FILE.jsonl" in said_
    assert not (tmp_path / "cache").exists()  # bad answers are not kept
    server.spoil = lambda captions, answer: answer
    assert mine(**settings, model="better")[0] == 0  # and do not stand in the way of another


def test_killed_while_parsing_it_goes_on_with_the_same_bytes(server, mine, tmp_path):
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
    assert mine(**settings, name="killed", cache=tmp_path / "cache")[0] == 0
    # None of the first 60 was asked again.
    assert [len(captions) for captions in server.asked] == [20, 20, 10]
    assert mine(**settings, name="whole", cache=tmp_path / "other")[0] == 0
    for name in ("graphs.jsonl", "triplets.jsonl", "graphs.progress.json"):
        whole = (tmp_path / "out/triplets" / "whole" / name).read_bytes()
        assert (killed.parent / name).read_bytes() == whole


def test_what_is_missing_names_the_alternatives(mine_refused, tmp_path, monkeypatch):
    file = write_jsonl(tmp_path / "c.jsonl", said(9))
    for parser, missing in (("llm", "OPENAI_API_KEY is not set"), ("spacy", "spaCy or its model")):
        monkeypatch.setitem(sys.modules, "spacy", None)
        told = mine_refused(captions=file, parser=parser)
        assert missing in told
        for choice in ("pip install -e '.[mining]'", "parser=llm", "graphs=FILE.jsonl"):
            assert choice in told
    told = mine_refused(captions=file, parser="llm", base_url="http://127.0.0.1:9/v1")
    assert "cannot reach http://127.0.0.1:9/v1" in told and "parser=spacy" in told
    assert "must look like http" in mine_refused(captions=file, parser="llm", base_url="here")


def test_configurations_load():
    demo, cc3m = (
        load_config(MineConfig, ["--config", str(REPOSITORY / "configs" / name)], "")
        for name in ("demo/mine.yaml", "mine_cc3m.yaml")
    )
    assert (demo.name, demo.ratings, demo.samples) == ("demo", None, 20_000)
    assert demo.graphs.name == "relations_train2017.jsonl"
    assert (cc3m.name, cc3m.samples, cc3m.concreteness) == ("cc3m", 1_600_000, 4.8)
    assert cc3m.ratings and (cc3m.min_images, cc3m.min_objects) == (5, 2)
