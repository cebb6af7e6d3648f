"""Whatever stands in a file: a value or a `UserError`, soon.

The answers of an LLM have such a test in crl/test_llm.py, embeddings in crl/run/test_given.py.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mistakes import replaced

from crl.basis import TextBasis
from crl.run.errors import UserError
from crl.run.files import parse_yaml
from crl.run.results import read_rows
from fashion_retrieval.datasets import load as load_clothes
from similarity_retrieval.datasets import load as load_templates
from similarity_retrieval.mining.captions import read_captions
from similarity_retrieval.mining.records import read_graphs, read_ratings
from similarity_retrieval.mining.triplets import read_triplets

SECONDS = 5  # of this process, on a slow machine


def reads(read: Callable[[], Any], *refusals: type[Exception]) -> None:
    """`read` gives a value or refuses in one line that can be shown, within `SECONDS`."""
    began = time.process_time()
    try:
        read()
    except (UserError, *refusals) as error:
        assert str(error).strip()
    assert time.process_time() - began < SECONDS


def changed(valid: bytes) -> st.SearchStrategy[bytes]:
    """`valid` with a part replaced by a few other bytes, or cut off; or any bytes."""
    place, end = st.integers(0, len(valid)), st.integers(0, 40)
    part = st.binary(max_size=20) | st.sampled_from([b"null", b"[", b'"', b"\0", b"9" * 30, b"-1"])
    mutated = st.builds(lambda at, n, new: valid[:at] + new + valid[at + n :], place, end, part)
    return mutated | place.map(lambda at: valid[:at]) | st.binary(max_size=200)


@given(st.text(max_size=300) | st.text("[]{}&*a:!-? \n\t'\"#|>%@`,1.", max_size=300))
@example("&a [*a, *a]")
@example("a: " + "[" * 3000)
@example("? {a: b}\n: c")
@example("9" * 5000)
@example("!!int x")
@example("<<: [1]")
@example("\ud800")
def test_any_yaml_text_is_a_value_or_a_value_error(text):
    reads(lambda: parse_yaml(text), ValueError)


def captions(file: Path) -> list:
    return list(read_captions([file]))


def clothes(file: Path) -> Any:
    return load_clothes(file.parent, "Clothes", None, ["train", "valid"])


READERS: dict[str, Callable[[Path], Any]] = {
    "texts.yaml": TextBasis.load,
    "captions.jsonl": captions,
    "captions.csv": captions,
    "captions.tar": captions,
    "graphs.jsonl": read_graphs,
    "triplets.jsonl": lambda file: read_triplets(file, file.parent),
    "ratings.txt": read_ratings,
    "results.json": read_rows,
    "genecis/focus_object.json": lambda file: load_templates(["focus_object"], file.parent),
    "clothes/meta.json": clothes,
    "clothes/label_train.txt": clothes,
    "clothes/query_valid.txt": clothes,
}
MADE = {  # what is not in `data`
    "captions.csv": b'image,caption\na.jpg,"a ""big"", dog"\n',
    "captions.tar": b"",
    "results.json": b'{"format": "crl-results-2", "rows": [{"about": {}, "scores": {}}]}',
}


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=30)
@given(drawn=st.data())
def test_any_bytes(data, name, drawn):
    whole = MADE[name] if name in MADE else (data / name).read_bytes()
    with replaced({str(data / name): drawn.draw(changed(whole))}):
        reads(lambda: READERS[name](data / name))
