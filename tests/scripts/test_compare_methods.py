"""The arithmetic of the tables on scores by hand; the parts of R; the command on small worlds."""

import csv
import importlib

import compare_methods as script
import numpy as np
import pytest
from worlds import WORLDS

from crl import basis
from crl import representations as module
from crl.basis import BASES, TextBasis
from crl.projection import l2
from crl.run.results import summary


def score(*seeds):
    return summary([*map(float, seeds)])


@pytest.fixture
def scores():
    """{criterion: {method: score}} over two seeds."""
    return {
        "a color": {"paper": score(50, 52), "new": score(60, 64), "old": score(49, 51)},
        "a shape": {"paper": score(80, 82), "new": score(79, 85), "old": score(70, 72)},
        "b suits": {"paper": score(10, 10), "new": score(10, 10), "old": score(11, 11)},
    }


def test_a_method_is_compared_with_the_paper_seed_by_seed(scores):
    # gains 11, 1, 0; their standard error: sqrt(37 / 3) = 3.5; of the means: sqrt(4 + 9 + 0) / 3
    # color: differences 10 and 12, 11 ± 1, won; shape: -1 and 3, 1 ± 2, tied; suits: 0 ± 0, tied
    assert script.compared(scores, "new") == ["51.3 ± 1.2", "+4.0 ± 3.5", "1/2/0", "+0.0 b suits"]
    # -1 ± 0 and -10 ± 0 are lost, though the seeds of each differ by more; +1 ± 0 is won
    assert script.compared(scores, "old") == ["44.0 ± 0.5", "-3.3 ± 3.4", "1/0/2", "-10.0 a shape"]
    assert script.compared(scores, "paper") == ["47.3 ± 0.5", "-", "-", "-"]


def test_one_seed_says_nothing_of_chance():
    single = {"a": {"paper": score(50), "new": score(90)}}
    assert script.compared(single, "new") == ["90.0", "+40.0", "0/1/0", "+40.0 a"]


def test_a_table_keeps_the_criteria_of_its_task(scores):
    cost = {"columns": 3, "ms": 1.5}
    rows = {name: {m: {"scores": {"NMI": s}, **cost} for m, s in each.items() if m != "old"}
            for name, each in scores.items()}  # fmt: skip
    rows["b suits"]["new"]["columns"] = 7
    rows["other"] = {"paper": {"scores": {"mAP": score(1, 2)}, **cost}}
    rows = {name: {m.replace("new", "posterior"): row for m, row in each.items()}
            for name, each in rows.items()}  # fmt: skip
    table = script.table(rows, "NMI", "own")
    assert table.title == "NMI, own bases, 3 criteria, percent"
    paper, posterior = table.rows
    assert paper == ["paper", "47.3 ± 0.5", "-", "-", "-", "3", "1.50", "texts"]
    assert posterior[-3:] == ["3-7", "1.50", "texts"] and posterior[3] == "1/2/0"


@pytest.mark.parametrize("queries", [7, 1003])
def test_the_error_over_queries_is_that_of_their_mean(queries):
    hits = np.random.default_rng(0).random(queries)
    found = script.of_queries(hits)
    assert found["mean"] == pytest.approx(100 * hits.mean())
    error = 100 * hits.std(ddof=1) / np.sqrt(queries)
    assert script.standard_error(found["seeds"]) == pytest.approx(error, rel=0.5)


def test_axes_with_the_weight_s_are_r_and_without_it_are_not():
    rng = np.random.default_rng(0)
    image, text = l2(rng.normal(size=(30, 8))), l2(rng.normal(size=(5, 8)))
    text = l2(text + 3 * text[0])  # one direction is much longer than the others
    cell = script.Cell("a", {}, image, text, None, None, False, lambda *_: {})
    cell = cell._replace(directions=np.eye(1, 8))
    rows = script.taken_apart(cell)
    cosines = {part: x @ x.T for part, x in rows.items()}
    r = l2(image @ text.T)
    np.testing.assert_allclose(cosines["axes of T, weights s^1"], r @ r.T, atol=1e-10)
    assert abs(cosines["axes of T, weights s^0"] - r @ r.T).max() > 0.1
    basis = np.linalg.svd(text, full_matrices=False)[2]
    equal = l2(image @ basis.T)
    np.testing.assert_allclose(cosines["axes of T, weights s^0"], equal @ equal.T, atol=1e-10)
    centred = l2(image @ (text - text.mean(axis=0)).T)
    same = cosines["axes of centred T, weights s^1"]
    np.testing.assert_allclose(same, centred @ centred.T, atol=1e-10)


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Small worlds, in a folder, and bases of few texts in place of those of this repository."""
    for world in WORLDS:
        importlib.import_module(f"worlds.{world}").write(tmp_path, images=60, seed=3, workers=0)
    for file in BASES.glob("*.yaml"):
        whole = TextBasis.load(file)
        texts = whole.texts[:: len(whole.texts) // 12]
        whole.model_copy(update={"texts": texts}).save(tmp_path / "bases" / file.name)
    monkeypatch.setattr(basis, "BASES", tmp_path / "bases")
    return tmp_path


def test_the_command(drawn, monkeypatch, output, refusal):
    (drawn / "same.py").write_text(
        "from crl.projection import ConditionalProjection as Representation\n"
    )
    monkeypatch.setattr(module, "__path__", [*module.__path__, str(drawn)])
    few = ["paper", "posterior", "od_crl", "probe", "same"]
    assert {*few} < {*module.names()}  # a new method is one file, and it is there
    monkeypatch.setattr(script, "names", lambda: few)  # the others: in their own tests
    monkeypatch.setattr(script, "SHOTS", [1])
    monkeypatch.setattr(script, "CRITERIA", {"cards": ["number", "suits"]})
    out = drawn / "out"
    arguments = ["--root", drawn, "--out", out, "--seeds", "2"]
    printed = output(script.main, *arguments)
    with open(out / "methods.csv") as stream:
        rows = list(csv.DictReader(stream))
    tasks = ["k-means NMI", "retrieval mAP", "1-shot", "GeneCIS R@1", "fashion mAP"]
    assert [*dict.fromkeys(row["task"] for row in rows)] == tasks
    for task in tasks:
        part = {r["R is"]: r for r in rows if r["task"] == task}
        assert ("probe" in part) == (task in tasks[:3])
        if task != "1-shot":  # which takes the paper's R before its rows have unit length
            assert part["same"]["mean"] == part["paper"]["mean"]
            assert part["same"]["won/tied/lost"] == f"0/{5 if 'fashion' in task else 2}/0"
        assert part["posterior, null space"]["learns from"] == "other criteria"
    assert "garments style" in printed and "Access audit" in printed
    assert (out / "methods.png").stat().st_size > 10_000
    assert (out / "methods.md").read_text().count("| R is") == len(tasks)
    monkeypatch.setattr(script, "draw", lambda *_: None)
    before = (out / "results.json").read_bytes()
    assert output(script.main, *arguments) == printed
    assert (out / "results.json").read_bytes() == before
    printed = output(script.main, *arguments, "--why", "--official", drawn / "bases")
    assert "R of turned I (Householder)" in printed and "authors' bases" in printed
    wrong = refusal(script.main, *arguments, "--official", drawn / "out")
    assert "holds no bases: scripts/import_official_bases.py" in wrong
