"""Results files: what is in them, that no finished cell is lost, and the table made from them."""

import json
import os
import subprocess
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from crl.run import results
from crl.run.errors import UserError
from crl.run.results import Run, array_digest, digest, environment, read_cells, summary


def cell(vlm: str, criterion: str, mean: float = 50.0) -> dict:
    return {"vlm": vlm, "criterion": criterion, "scores": mean}


def plain(kept: dict) -> dict:
    """A recorded cell without what it was measured with."""
    return {name: value for name, value in kept.items() if name not in {"config", "environment"}}


def on_disk(folder: Path) -> set[str]:
    return {cell["key"] for cell in read_cells(folder / "results.json")}


# --- numbers --------------------------------------------------------------------------------------


def test_summary_by_hand():
    assert summary([1.0, 2.0, 6.0]) == {
        "mean": 3.0,
        "std": pytest.approx(7**0.5),  # (4 + 1 + 9) / 2
        "seeds": [1.0, 2.0, 6.0],
    }
    assert summary([5]) == {"mean": 5.0, "std": None, "seeds": [5.0]}
    assert json.loads(json.dumps(summary(np.array([1, 1], np.float32)))) == {
        "mean": 1.0, "std": 0.0, "seeds": [1.0, 1.0]
    }  # fmt: skip


def test_digest_changes_with_every_part():
    parts = [
        (), (1,), (1.5,), ("1",), (None,), (1, 2), (2, 1), ((1, 2),), ("a", "bc"), ("ab", "c"),
        ({"a": 1},), ({"a": 2},), ({"b": 1},), (Path("a"),), (True,),
    ]  # fmt: skip
    assert len({digest(*part) for part in parts}) == len(parts)
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert len(digest(1)) == 16 and int(digest(1), 16) >= 0


@given(arrays(np.float32, array_shapes(max_dims=3, max_side=4), elements=st.floats(width=32)))
def test_array_digest(array):
    assert array_digest(array.copy()) == array_digest(array)
    assert array_digest(np.asfortranarray(array)) == array_digest(array)
    doubled = np.repeat(array, 2, axis=0)
    assert array_digest(doubled[::2]) == array_digest(array)  # the same numbers, other strides
    changed = array.copy()
    changed.flat[-1] = 1 if array.flat[-1] != 1 else 2
    others = [array_digest(x) for x in (changed, array[None], array.view(np.int32), doubled)]
    assert array_digest(array) not in others


# --- runs -----------------------------------------------------------------------------------------


def test_file_says_what_was_measured_and_with_what(tmp_path):
    Run(tmp_path / "new", {"seeds": 3}).add("k", **cell("clip", "color"), seconds=1.5)
    [kept] = json.loads((tmp_path / "new" / "results.json").read_text())["cells"]
    assert kept["config"] == {"seeds": 3}
    assert plain(kept) == {"key": "k", **cell("clip", "color"), "seconds": 1.5}
    found = kept["environment"]
    assert found.keys() == {"python", "packages", "commit", "dirty", "gpu", "machine"}
    for name in ("torch", "scikit-learn", "numpy", "open_clip_torch", "transformers"):
        assert found["packages"][name] == metadata.version(name)
    assert os.listdir(tmp_path / "new") == ["results.json"]


def test_commit_and_dirty_flag(tmp_path, monkeypatch):
    def git(*arguments: str) -> str:
        command = ["git", "-c", "user.name=x", "-c", "user.email=x@y", *arguments]
        return subprocess.run(
            command, cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout.strip()

    (tmp_path / "crl/run").mkdir(parents=True)
    module = tmp_path / "crl" / "run" / "results.py"
    module.write_text("")
    monkeypatch.setattr(results, "__file__", str(module))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert (environment()["commit"], environment()["dirty"]) == (None, None)
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "x")
    assert (environment()["commit"], environment()["dirty"]) == (git("rev-parse", "HEAD"), False)
    module.write_text("edited")
    assert (environment()["commit"], environment()["dirty"]) == (git("rev-parse", "HEAD"), True)


def test_interrupted_run_goes_on(tmp_path):
    first = Run(tmp_path, {})
    assert not first.finished("a")
    first.add("a", **cell("clip", "color", 1))

    second = Run(tmp_path, {})  # the first was killed here
    assert second.finished("a") and not second.finished("b")
    assert [plain(c) for c in second.cells] == [{"key": "a", **cell("clip", "color", 1)}]
    second.add("b", **cell("clip", "shape", 2))
    assert [c["key"] for c in second.cells] == ["a", "b"]
    assert on_disk(tmp_path) == {"a", "b"}


def test_other_cells_stay_and_replaced_ones_go(tmp_path):
    run = Run(tmp_path, {"seeds": 20})
    for vlm in ("clip", "align"):
        for criterion in ("color", "shape"):
            run.add(f"{vlm} {criterion} 20", **cell(vlm, criterion))

    run = Run(tmp_path, {"seeds": 5})  # other settings: other keys
    assert not run.finished("clip color 5")
    run.add("clip color 5", **cell("clip", "color"))
    assert on_disk(tmp_path) == {
        "clip color 5", "clip shape 20", "align color 20", "align shape 20",
    }  # fmt: skip
    assert [c["key"] for c in run.cells] == ["clip color 5"]  # the table shows what was asked
    run.add("clip shape 5", **cell("clip", "shape"))
    assert on_disk(tmp_path) == {
        "clip color 5", "clip shape 5", "align color 20", "align shape 20",
    }  # fmt: skip
    seeds = {c["key"]: c["config"]["seeds"] for c in read_cells(run.file)}
    assert seeds == {key: int(key.split()[-1]) for key in seeds}  # each with its own configuration


def test_two_runs_side_by_side_keep_each_others_cells(tmp_path):
    one, other = Run(tmp_path, {}), Run(tmp_path, {})
    one.add("a", **cell("clip", "color"))
    other.add("b", **cell("align", "color"))
    one.add("c", **cell("clip", "shape"))
    assert on_disk(tmp_path) == {"a", "b", "c"}


def test_another_basis_is_another_result(tmp_path):
    run = Run(tmp_path, {})
    run.add("a", **cell("clip", "color"), basis_hash="ours")
    run.add("b", **cell("clip", "color"), basis_hash="theirs")
    assert on_disk(tmp_path) == {"a", "b"}


@pytest.mark.parametrize("content", ["", '{"cells": [', "[]", "{}", "3", "\x00\xff"])
def test_damaged_file_is_refused_and_left_alone(tmp_path, content):
    file = tmp_path / "results.json"
    file.write_bytes(content.encode("latin-1"))
    for call in (lambda: Run(tmp_path, {}), lambda: read_cells(file)):
        with pytest.raises(UserError, match=r"results\.json is not a results file"):
            call()
    assert file.read_bytes() == content.encode("latin-1")


def test_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"there is no .*none\.json; run the task first"):
        read_cells(tmp_path / "none.json")


def test_failed_write_keeps_the_former_file(tmp_path, monkeypatch):
    Run(tmp_path, {}).add("a", **cell("clip", "color"))
    before = (tmp_path / "results.json").read_bytes()
    run = Run(tmp_path, {})

    def full(self, text, encoding):
        self.write_bytes(text.encode()[:10])
        raise OSError("full")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="full"):
        run.add("b", **cell("clip", "shape"))
    assert os.listdir(tmp_path) == ["results.json"]
    assert (tmp_path / "results.json").read_bytes() == before


# --- table ----------------------------------------------------------------------------------------
