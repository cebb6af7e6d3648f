"""Results files: what is in them, that no finished row is lost, and which row replaces another."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from crl.run.results import Results, digest, read_rows, summary


def about(vlm: str = "clip", criterion: str = "color", **more) -> dict:
    return {"data": "toy", "vlm": vlm, "criterion": criterion, "method": "paper", **more}


def on_disk(folder: Path) -> list[dict]:
    return [row["about"] for row in read_rows(folder / "results.json")]


def test_summary_by_hand():
    deviation = pytest.approx(7**0.5)  # (4 + 1 + 9) / 2
    assert summary([1.0, 2.0, 6.0]) == {"mean": 3.0, "std": deviation, "seeds": [1.0, 2.0, 6.0]}
    assert summary([5]) == {"mean": 5.0, "std": None, "seeds": [5.0]}
    assert json.loads(json.dumps(summary(np.ones(2, np.float32))))["seeds"] == [1.0, 1.0]


def test_digest_changes_with_every_part():
    parts = [(), (1,), (1.5,), ("1",), (None,), (1, 2), (2, 1), ((1, 2),), ("a", "bc"), ("ab", "c")]
    parts += [({"a": 1},), ({"a": 2},), ({"b": 1},), (Path("a"),), (True,)]
    assert len({digest(*part) for part in parts}) == len(parts)
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert len(digest(1)) == 16 and int(digest(1), 16) >= 0


@given(arrays(np.float32, array_shapes(max_dims=3, max_side=4), elements=st.floats(width=32)))
def test_digest_of_arrays(array):
    assert digest(array.copy()) == digest(array) == digest(np.asfortranarray(array))
    doubled = np.repeat(array, 2, axis=0)
    assert digest(doubled[::2]) == digest(array)  # the same numbers, other strides
    changed = array.copy()
    changed.flat[-1] = 1 if array.flat[-1] != 1 else 2
    others = [digest(x) for x in (changed, array[None], array.view(np.int32), doubled)]
    assert digest(array) not in [*others, digest(array, array), digest(array.tolist())]


def test_interrupted_run_goes_on(tmp_path):
    first = Results(tmp_path, {})
    assert first.find(about()) is None
    first.add(about(), {"nmi": 1.0})

    second = Results(tmp_path, {})  # the first was killed here
    assert second.rows == []
    assert second.find(about())["scores"] == {"nmi": 1.0}
    assert second.find(about("align")) is None
    second.add(about("align", shots=(1, 5)), {"nmi": 2.0})
    assert second.find(about("align", shots=(1, 5)))  # as the file holds it: [1, 5]
    assert [row["about"]["vlm"] for row in second.rows] == ["clip", "align"]
    assert len(on_disk(tmp_path)) == 2


@pytest.mark.parametrize("change", [{"seeds": 5}, {"vlm_fingerprint": "g"}, {"content": "new"}, {}])
def test_a_row_that_says_anything_else_is_not_the_same(tmp_path, change):
    full = about(seeds=20, vlm_fingerprint="f", content="c")
    Results(tmp_path, {}).add(full, {})
    fewer = {key: value for key, value in full.items() if key != "content"}
    assert Results(tmp_path, {}).find({**full, **change} if change else fewer) is None


def test_other_rows_stay_and_those_that_a_table_cannot_tell_apart_are_replaced(tmp_path):
    results = Results(tmp_path, {"seeds": 20})
    for vlm in ("clip", "align"):
        for criterion in ("color", "shape"):
            results.add(about(vlm, criterion, seeds=20), {})
    results = Results(tmp_path, {"seeds": 5})
    assert results.find(about("clip", "color", seeds=5)) is None
    results.add(about("clip", "color", seeds=5), {})
    assert [row["about"]["seeds"] for row in results.rows] == [5]  # the table shows what was asked
    assert sorted(row["seeds"] for row in on_disk(tmp_path)) == [5, 20, 20, 20]
    for key, value in {"basis": "theirs", "method": "posterior", "label": "clip*"}.items():
        results.add(about("clip", "color", seeds=5) | {key: value}, {})
    assert len(on_disk(tmp_path)) == 7


def test_two_runs_side_by_side_keep_each_others_rows(tmp_path):
    one, other = Results(tmp_path, {}), Results(tmp_path, {})
    one.add(about("a"), {})
    other.add(about("b"), {})
    one.add(about("c"), {})
    assert {row["vlm"] for row in on_disk(tmp_path)} == {"a", "b", "c"}
