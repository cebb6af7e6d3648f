"""Whatever stands in a file: a value or a UserError, soon.

The answers of an LLM that are lists of texts have their tests in `crl/test_llm.py`.
"""

import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from crl.run.npz import checked, read_npz
from hypothesis import example, given, settings
from hypothesis import strategies as st

from crl.basis import TextBasis
from crl.run.errors import UserError
from crl.run.files import parse_yaml, read_yaml
from crl.run.results import read_cells
from fashion_retrieval import datasets as fashion
from similarity_retrieval.datasets import load as load_templates
from similarity_retrieval.mining.captions import caption_files, read_captions
from similarity_retrieval.mining.concreteness import read_ratings
from similarity_retrieval.mining.records import read_graphs
from similarity_retrieval.mining.triplets import read_triplets

SECONDS = 5  # a second, on a machine that does other things too


def reads(read: Callable[[], Any], *refusals: type[Exception]) -> None:
    """`read` gives a value or refuses in one line that can be shown, within `SECONDS`."""
    began = time.perf_counter()
    try:
        read()
    except (UserError, *refusals) as error:
        assert str(error).strip()
    assert time.perf_counter() - began < SECONDS


def changed(valid: bytes) -> st.SearchStrategy[bytes]:
    """`valid` with a part replaced by a few other bytes, or cut off; or any bytes."""
    place, end = st.integers(0, len(valid)), st.integers(0, 40)
    part = st.binary(max_size=20) | st.sampled_from([b"null", b"[", b'"', b"\0", b"9" * 30, b"-1"])
    mutated = st.builds(lambda at, n, new: valid[:at] + new + valid[at + n :], place, end, part)
    return mutated | place.map(lambda at: valid[:at]) | st.binary(max_size=200)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("parsers")


BASIS = {"criterion": "color", "vlm_prompt": "a {text}", "texts": ["red", "dark blue", "é"]}
YAML = yaml.safe_dump({**BASIS, "seeds": 3, "when": "2020-01-01", "shots": [1, 5], "x": None})


@given(st.text(max_size=300) | st.text("[]{}&*a:!-? \n\t'\"#|>%@`,1.", max_size=300))
@example("&a [*a, *a]")
@example("a: " + "[" * 3000)
@example("2020-13-45")
@example("? {a: b}\n: c")
@example("9" * 5000)
@example("1:99:99.9")
@example("!!binary x")
@example("!!timestamp x")
@example("!!int x")
@example("!!float x")
@example("!!set [a]")
@example("!!omap {a: b}")
@example("!!pairs [a]")
@example("<<: [1]")
@example("= : 1")
@example("0x")
@example("0b_")
@example("._")
@example("\ud800")
def test_any_yaml_text_is_a_value_or_a_value_error(text):
    reads(lambda: parse_yaml(text), ValueError)


@settings(max_examples=100)
@given(changed(YAML.encode()))
def test_any_yaml_file_and_basis(folder, content):
    file = folder / "any.yaml"
    file.write_bytes(content)
    reads(lambda: read_yaml(file))
    reads(lambda: TextBasis.load(file).prompts)


@st.composite
def archives(draw) -> bytes:
    """An NPZ, perhaps with other arrays, perhaps with changed bytes."""
    arrays: dict[str, Any] = {
        "image": np.eye(4, 3),
        "text": np.ones((2, 3)),
        "labels": np.arange(4),
    }
    key = draw(st.sampled_from([*arrays, "other"]))
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=3)))
    kind = draw(st.sampled_from("? i1 u8 f2 f8 c16 U3 S2 M8[s] m8[s] V3".split()))
    if draw(st.booleans()):
        arrays[key] = np.zeros(shape, kind)
    buffer = io.BytesIO()
    draw(st.sampled_from([np.savez, np.savez_compressed]))(buffer, **arrays)
    return draw(st.just(buffer.getvalue()) | changed(buffer.getvalue()))


@settings(max_examples=100)
@given(archives())
def test_any_npz(folder, content):
    file = folder / "any.npz"
    file.write_bytes(content)
    shapes = {"image": "N D|N Q D", "text": "K D", "labels": "N"}
    reads(lambda: checked(file, read_npz(file), **shapes))


SPLIT = {
    "meta.json": b'{"D": {"ATTRIBUTES": ["a", "b-related"], "ATTRIBUTES_NUM": [2, 3]}}',
    "filenames_train.txt": b"0.png\n1.png\n2.png\n",
    "label_train.txt": b"0 0 1 1 2\n1 0 1 1 2\n2 0 0 1 0\n",
    "filenames_valid.txt": b"0.png\n1.png\n2.png\n",
    "query_valid.txt": b"0 0 1\n1 1 2\n",
    "candidate_valid.txt": b"0 0 1\n1 1 2\n2 0 0\n",
}


@pytest.mark.parametrize("name", SPLIT)
@settings(max_examples=30)
@given(data=st.data())
def test_any_split_file(folder, name, data):
    for other, content in SPLIT.items():
        (folder / other).write_bytes(content)
    (folder / name).write_bytes(data.draw(changed(SPLIT[name])))
    reads(lambda: fashion.load(folder, "D", None, ["train", "valid"]))


IMAGE, REGION = {"val_image_id": 139}, {"image_id": 7, "instance_bbox": [1, 2.5, 30, 40]}
TEMPLATES = {
    f"{name}_{kind}": json.dumps(
        [{"reference": image, "target": image, "gallery": [image] * 2, "condition": "a dog"}] * 2
    ).encode()
    for name in ("focus", "change")
    for kind, image in (("object", IMAGE), ("attribute", REGION))
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@pytest.mark.parametrize("task", TEMPLATES)
@settings(max_examples=30)
@given(data=st.data())
def test_any_templates(folder, task, data):
    [template, _] = json.loads(TEMPLATES[task])
    key, value = data.draw(st.sampled_from([*template])), data.draw(JSON)
    odd = json.dumps([{**template, key: value}]).encode()
    (folder / f"{task}.json").write_bytes(data.draw(changed(TEMPLATES[task]) | st.just(odd)))
    reads(lambda: load_templates([task], folder))


CAPTIONS = {
    "jsonl": b'{"image": "a.jpg", "caption": "a dog"}\n{"image": "b.jpg", "caption": ""}\n',
    "csv": b'image,caption\na.jpg,"a ""big"", dog"\n',
    "tsv": b"caption\timage\na dog\ta.jpg\n",
    "json": b'{"images": [{"id": 1, "file_name": "a"}],'
    b' "annotations": [{"image_id": 1, "caption": "b"}]}',
    "tar": b"",
}
GRAPH = b'{"image": "a", "relations": [{"subject": "dog", "relation": "on", "object": "sofa"}]}\n'
TRIPLET = b'{"reference": "a.jpg", "target": "b.jpg", "condition": "on sofa"}\n'
RATINGS = b"Word\tBigram\tConc.M\ndog\t0\t4.85\nidea\t0\t1.61\n"
CELLS = b'{"cells": [{"key": "k", "scores": {}}]}'


@pytest.mark.parametrize("suffix", CAPTIONS)
@settings(max_examples=30)
@given(data=st.data())
def test_any_captions(folder, suffix, data):
    file = folder / f"captions.{suffix}"
    file.write_bytes(data.draw(changed(CAPTIONS[suffix])))
    reads(lambda: list(read_captions([file])))


@settings(max_examples=100)
@given(st.text("ab{}.,0189*?[]/~\0", max_size=40))
@example("{0..99999999999999999999}.tar")
@example("{0..999}" * 20 + ".tar")
@example("{,}" * 60 + ".tar")
def test_any_pattern_of_captions(folder, pattern):
    reads(lambda: caption_files(f"{folder}/{pattern.lstrip('~/')}"))


@pytest.mark.parametrize(
    ("valid", "read"),
    [
        (GRAPH, read_graphs),
        (TRIPLET, lambda file: read_triplets(file, file.parent)),
        (RATINGS, read_ratings),
        (CELLS, read_cells),
    ],
    ids=["graphs", "triplets", "ratings", "cells"],
)
@settings(max_examples=30)
@given(data=st.data())
def test_any_lines(folder, valid, read, data):
    file = folder / "any.txt"
    file.write_bytes(data.draw(changed(valid)))
    reads(lambda: read(file))
