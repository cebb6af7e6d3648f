"""ask.py against a stand-in of a multimodal model that sees colors, and misbehaves as told."""

import base64
import io
import json
import re

import numpy as np
import pytest
from color_vlm import COLORS, draw
from llm_server import fails, says
from PIL import Image

from classification_clustering import ask, clustering
from crl.run.chat import Server


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """16 pictures, by color and, in Chinese, again."""
    monkeypatch.chdir(tmp_path)
    for file in draw(tmp_path / "pictures", each=2):
        for criterion in ("color", "颜色"):
            copy = tmp_path / "tree" / criterion / file.stem.split("-")[0] / file.name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
    return {"data": "folder", "root": "tree", "criteria": "color", "model": "eye", "name": "asked",
            "answers": "kept"}  # fmt: skip


def color(picture):
    pixels = np.asarray(picture.convert("RGB"), float).reshape(-1, 3)
    mean = pixels[pixels.sum(1) > 100].mean(0)
    return min(COLORS, key=lambda name: np.abs(mean - COLORS[name]).sum())


def eye(request):
    """Describes a picture, and does with words what it is asked to."""
    content = request["messages"][0]["content"]
    if not isinstance(content, str):
        url = content[1]["image_url"]["url"].removeprefix("data:image/jpeg;base64,")
        return says(f"A {color(Image.open(io.BytesIO(base64.b64decode(url))))} thing.")
    if "with the number of images" in content:
        return says("".join(f"Answer {i}: {name.title()}\n" for i, name in enumerate(COLORS)))
    (name,) = re.findall(r"A (\w+) thing", content)
    return says(f"Answer: {name}")


def rows(folder):
    return json.loads((folder / "results.json").read_text())


def test_ictc_is_a_row_of_clustering_and_asks_once(tree, server, output, tmp_path):
    server.replies = [eye]
    tree |= {"criteria": "[color, 颜色]"}
    printed = output(ask.main, base_url=server.url, **tree)
    assert "at most 98 requests to eye, 32 with a picture; about" in printed
    assert "0 of 16 answers are none of these" in printed
    assert len(server.requests) == 2 * (16 + 4 + 1 + 4)  # there are 4 descriptions
    folder = tmp_path / "outputs/clustering_rivals/asked"
    rivals = f"rivals=[{folder / 'color'}, {folder / '颜色'}]"
    bases = "{color: b.yaml, 颜色: b.yaml}"
    (tmp_path / "b.yaml").write_text("criterion: color\nvlm_prompt: 'a {text}'\ntexts: [red, blue]")
    shown = output(clustering.main, rivals, data="folder", root="tree", criteria=tree["criteria"],
                   vlm="color_vlm:ColorVLM", bases=bases, seeds=2, cache="cache")  # fmt: skip
    lines = [line for line in shown.splitlines() if "ictc" in line]
    assert len(lines) == 2 and all(line.startswith("eye") for line in lines)
    assert all("100.0" in line for line in lines)
    said = json.loads((folder / "颜色/answers.json").read_text())
    assert said["tree/颜色/blue/blue-left-0.png"] == "A blue thing."
    again = output(ask.main, base_url=server.url, **tree)
    assert again == printed and len(server.requests) == 50


def test_nothing_leaves_the_machine_without_send(tree, server, output, tmp_path, monkeypatch):
    monkeypatch.setattr(Server, "is_local", property(lambda self: False))
    server.replies = [eye]
    printed = output(ask.main, base_url=server.url, **tree)
    assert "49 requests" in printed and "add send=yes" in printed
    assert not server.requests and not (tmp_path / "outputs").exists()
    output(ask.main, "send=yes", base_url=server.url, **tree)
    assert len(server.requests) == 25


def test_captions_are_features_of_the_text_encoder(tree, server, output, tmp_path):
    server.replies = [eye]
    output(ask.main, "method=captions", "vlm=color_vlm:ColorVLM", base_url=server.url,
           cache="cache", **tree)  # fmt: skip
    assert len(server.requests) == 16
    folder = tmp_path / "outputs/clustering_rivals/asked/color"
    assert rows(folder)["form"] == "features" and rows(folder)["text_encoder"] == "colors"
    (tmp_path / "b.yaml").write_text("criterion: color\nvlm_prompt: 'a {text}'\ntexts: [red, blue]")
    shown = output(clustering.main, f"rivals={folder}", data="folder", root="tree",
                   criteria="color", vlm="color_vlm:ColorVLM", bases="{color: b.yaml}", seeds=2,
                   cache="cache")  # fmt: skip
    (line,) = [line for line in shown.splitlines() if "captions" in line]
    assert "100.0" in line


@pytest.mark.parametrize("refusal_of", ["status", "end", "error"])
def test_refused_pictures_are_counted_and_named(refusal_of, tree, server, output, tmp_path):
    filtered = {
        "status": fails(400, "blocked by the content management policy"),
        "end": (200, json.dumps({"choices": [{"message": {"content": None},
                                              "finish_reason": "content_filter"}]})),
        "error": (200, json.dumps({"error": {"message": "flagged: content_filter"}})),
    }[refusal_of]  # fmt: skip

    def squeamish(request):
        reply = eye(request)
        is_picture = not isinstance(request["messages"][0]["content"], str)
        return filtered if is_picture and "yellow" in reply[1] else reply

    server.replies = [squeamish]
    printed = output(ask.main, "unlisted=wrong", base_url=server.url, **tree)
    assert "a safety filter refused 4 requests, the first: tree/color/yellow/" in printed
    assert "4 of 16 answers are none of these: wrong" in printed
    record = rows(tmp_path / "outputs/clustering_rivals/asked/color")
    assert record["unlisted"] == 4 and len(record["refused"]) == 4
    assert all("seed" in request for request in server.requests)  # a refusal is not about it


def test_a_run_that_broke_off_goes_on_where_it_was(tree, server, refusal, output, monkeypatch):
    monkeypatch.setattr(ask, "Server", lambda *a: Server(*a, max_retries=0))
    answered = []

    def tired(request):
        if len(answered) == enough:
            return fails(500, "out of order")
        answered.append(request)
        return eye(request)

    server.replies, enough = [tired], 10
    assert "out of order" in refusal(ask.main, "at_once=1", base_url=server.url, **tree)
    enough = 1000
    output(ask.main, "at_once=3", base_url=server.url, **tree)
    assert len(answered) in (25, 26)  # none twice, but for one that was on its way


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"data": "foldr"}, "did you mean 'folder'"),
        ({"base_url": "here"}, "must look like http"),
        ({"base_url": "http://localhost:9/v1"}, "cannot be reached"),
        ({"criteria": "mood"}, "mood"),
        ({"unlisted": "right"}, "unlisted"),
    ],
)
def test_mistakes_are_one_line(change, reason, tree, server, refusal, monkeypatch):
    monkeypatch.setattr(ask, "Server", lambda *a: Server(*a, max_retries=0))
    assert reason in refusal(ask.main, **{"base_url": server.url, **tree, **change})


def test_a_damaged_picture_is_named(tree, server, refusal, tmp_path):
    server.replies = [eye]
    (tmp_path / "tree/color/red/red-left-0.png").write_bytes(b"\x89PNG")
    assert "red-left-0.png: " in refusal(ask.main, base_url=server.url, **tree)
