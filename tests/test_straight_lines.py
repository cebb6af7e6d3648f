"""The way of a configuration through the house: few calls, few files, and scripts that are short.

A profiler hook counts the functions of ours that the configuration, or a value of it, is handed to.
"""

import sys
import threading
from pathlib import Path

import make_data
import pytest
from commands import REPOSITORY

import fashion_retrieval.evaluate as fashion
import similarity_retrieval.evaluate as genecis
from classification_clustering import clustering, few_shot, retrieval

BASES = {a: f"deepfashion_{a}" for a in ("texture", "fabric", "shape", "part", "style")}
CLEVR4 = {"data": "clevr4", "criteria": ["color"], "vlm": ["demo"], "seeds": 2, "shots": [1]}
# Each script, and its configuration: as in configs/demo.
RUNS = [
    (clustering, CLEVR4),
    (few_shot, CLEVR4),
    (retrieval, CLEVR4),
    (genecis, {"root": "genecis", "vlm": "demo", "balance": ["paper", "standard"]}),
    (fashion, {"root": "garments", "dataset": "Garments", "bases": BASES, "vlm": "demo"}),
]
SCRIPTS = [
    "classification_clustering/clustering.py",
    "classification_clustering/few_shot.py",
    "classification_clustering/retrieval.py",
    "similarity_retrieval/evaluate.py",
    "fashion_retrieval/evaluate.py",
]


class Followed:
    """The functions that a configuration or one of its values passes through while this is on."""

    def __init__(self, config) -> None:
        values = [config, *config.__dict__.values()]
        values += [one for value in values if isinstance(value, list) for one in value]
        # Told apart by identity; numbers, short texts and None are shared by everyone.
        values = [value for value in values if not isinstance(value, int | float | None)]
        constants = ("", "paper", "fp32", "error")  # of the code, too
        self.values = {id(value): value for value in values if value not in constants}
        self.functions: set[tuple[str, str]] = set()

    def __call__(self, frame, event, _) -> None:
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(str(REPOSITORY)):
            return
        if "/tests/" in code.co_filename or "/.venv/" in code.co_filename:
            return
        if code.co_name.startswith("<"):
            return
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        if any(id(frame.f_locals.get(name)) in self.values for name in names):
            self.functions.add((code.co_filename, code.co_qualname))

    def __enter__(self) -> "Followed":
        threading.setprofile(self)  # of those that begin from now on
        sys.setprofile(self)
        return self

    def __exit__(self, *_) -> None:
        sys.setprofile(None)
        threading.setprofile(None)

    @property
    def files(self) -> set[str]:
        return {file for file, _ in self.functions}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    for world, images in (("clevr4", 60), ("scenes", 60), ("garments", 200)):
        make_data.make(world, folder, images, seed=0, workers=0)
    return folder


@pytest.mark.parametrize(("script", "keys"), RUNS, ids=[script.__name__ for script, _ in RUNS])
def test_a_configuration_passes_through_few_calls(drawn, tmp_path, script, keys):
    keys = {"representation": ["paper", "posterior"], "outputs": tmp_path, **keys}
    keys |= {"root": drawn / keys.get("root", ""), "cache": tmp_path / "cache"}
    config = script.EvaluateConfig(**keys)
    with Followed(config) as followed:
        script.evaluate(config)
    print(len(followed.functions), len(followed.files), sorted(followed.functions))
    assert len(followed.functions) <= 20 and len(followed.files) <= 10


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_evaluation_script_is_short_and_shows_the_formula(script):
    source = (REPOSITORY / script).read_text(encoding="utf-8")
    assert len(source.splitlines()) < 150
    assert "# R = I Tᵀ" in source or "# R = I T_aᵀ" in source


def test_what_a_reader_of_the_paper_opens_is_small():
    lines = sum(len(file.read_text().splitlines()) for file in (REPOSITORY / "crl").glob("*.py"))
    assert lines <= 1400
