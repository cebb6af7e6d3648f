"""Our numbers beside the paper's: places, means, tolerances and verdicts."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paper_tables.grids import Found, grids, published
from paper_tables.plan import TablePlan, Tolerance

from crl.run.tables import Score

TOLERANCE = Tolerance(standard_errors=2, fixed=0.3, training=1.0)
PAPER = {
    "group": {"CLIP": {"color/nmi": 80.0, "mean": 80.0}, "CC": {"color/nmi": 5.0, "mean": 5.0}}
}
TABLE = TablePlan(title="t", quoted=["CC"])


def found(values, row="CLIP", column="color/nmi", task="clustering", comparable=True):
    return Found(row, task, Score(row, column, values, "-", comparable))


def numbers(table, paper, scores, **more):
    """{(row, column): its number} of the only grid."""
    [grid] = grids(table, paper, scores, TOLERANCE, **more)
    return {
        (row.name, column): number
        for row in grid.rows
        for column, number in zip(grid.columns, row.numbers, strict=True)
    }


def test_the_tolerance_comes_from_the_spread_over_seeds():
    # mean 83, standard deviation 2: sqrt((4 + 4) / 3) = 1.6330; twice that, and half a digit.
    number = numbers(TABLE, PAPER, [found([81.0, 83.0, 85.0])])["CLIP", "color/nmi"]
    assert (number.ours, number.std, number.seeds, number.difference) == (83, 2, 3, 3)
    assert number.tolerance == pytest.approx(3.2710, abs=1e-4)
    assert number.verdict == "reproduced"
    number = numbers(TABLE, PAPER, [found([82.0, 84.0, 86.0])])["CLIP", "color/nmi"]
    assert number.verdict == "differs"  # 4 away


def test_the_papers_own_spread_counts_where_it_is_printed():
    paper = {"clustering": {"1": {"mean": 80.0, "std": 3.0}}}
    table = TablePlan(title="t", varied="temperature", method="CLIP+CRL", rows={"1": {}})
    number = numbers(table, paper, [found([80.0, 82.0, 84.0], row="1")])["1", "mean"]
    assert number.tolerance == pytest.approx(2 * math.sqrt((4 + 9) / 3) + 0.005)
    assert number.verdict == "reproduced"


@pytest.mark.parametrize(
    ("trained", "ours", "verdict"),
    [
        ([], 80.3, "reproduced"),
        ([], 80.4, "differs"),
        (["CLIP"], 80.9, "reproduced"),
        (["CLIP"], 78.9, "differs"),
    ],
)
def test_without_seeds_the_tolerance_is_the_plans(trained, ours, verdict):
    table = TablePlan(title="t", trained=trained)
    number = numbers(table, PAPER, [found([ours])])["CLIP", "color/nmi"]
    assert (number.std, number.verdict) == (None, verdict)


def test_rows_quoted_missing_and_beyond_the_paper():
    scores = [found([9.0], row="CLIP+CRL, posterior")]
    got = numbers(TABLE, PAPER, scores)
    assert got["CC", "color/nmi"].verdict == "quoted" and got["CC", "color/nmi"].paper == 5
    assert got["CLIP", "color/nmi"].verdict == "not run"
    beyond = got["CLIP+CRL, posterior", "color/nmi"]
    assert (beyond.verdict, beyond.paper, beyond.ours) == ("measured", None, 9)
    [grid] = grids(TABLE, PAPER, scores, TOLERANCE)
    assert [row.kind for row in grid.rows] == ["paper", "quoted", "ours"]


def test_what_cannot_be_compared_has_no_verdict():
    far = [found([1.0, 2.0, 3.0])]
    assert numbers(TABLE, PAPER, far)["CLIP", "color/nmi"].verdict == "differs"
    assert numbers(TABLE, PAPER, far, quick=True)["CLIP", "color/nmi"].verdict == "not compared"
    other = [found([1.0, 2.0, 3.0], comparable=False)]
    assert numbers(TABLE, PAPER, other)["CLIP", "color/nmi"].verdict == "not compared"


def test_a_demo_has_only_its_own_rows():
    got = numbers(TABLE, PAPER, [found([9.0], row="demo")], demo=True)
    assert got.keys() == {("demo", "color/nmi"), ("demo", "mean")}
    assert got["demo", "color/nmi"].paper is None and got["demo", "color/nmi"].verdict == "measured"
    ablation = TablePlan(title="t", varied="texts", method="CLIP+CRL", texts=[10, 20])
    got = numbers(ablation, {"g": {"10": {"color/nmi": 1.0}}}, [found([9.0], row="20")], demo=True)
    assert got["10", "color/nmi"].verdict == "not run"
    assert got["20", "color/nmi"].verdict == "measured"


@given(st.lists(st.lists(st.floats(0, 100), min_size=3, max_size=3), min_size=2, max_size=5))
def test_mean_is_over_columns_for_each_seed(values):
    columns = [f"c{i}/nmi" for i in range(len(values))]
    paper = {"group": {"CLIP": {**dict.fromkeys(columns, 1.0), "mean": 1.0}}}
    scores = [found(v, column=c) for v, c in zip(values, columns, strict=True)]
    mean = numbers(TablePlan(title="t"), paper, scores)["CLIP", "mean"]
    by_seed = np.array(values).mean(axis=0)
    assert mean.ours == pytest.approx(by_seed.mean(), abs=1e-9)
    assert mean.std == pytest.approx(by_seed.std(ddof=1), abs=1e-9)
    unfinished = numbers(TablePlan(title="t"), paper, scores[1:])["CLIP", "mean"]
    assert unfinished.verdict == "not run"


def test_tables_10_to_13_average_over_a_task():
    paper = {"clustering": {"1": {"mean": 50.0}}, "few_shot": {"1": {"mean": 60.0}}}
    table = TablePlan(title="t", varied="LLM", method="CLIP+CRL", rows={"1": {}})
    scores = [
        found([40.0, 50.0], "1", "color/nmi"),
        found([60.0, 70.0], "1", "suits/nmi"),
        found([1.0, 2.0], "1", "color/1", task="few_shot"),
    ]
    clusters, shots = grids(table, paper, scores, TOLERANCE)
    assert clusters.rows[0].numbers[0].ours == 55 and shots.rows[0].numbers[0].ours == 1.5


def test_the_means_of_the_papers_tables_are_those_of_its_columns():
    """Tables 10 and 12 hold the settings of Tables 1 and 2 too, so this checks how we average."""
    for name, task in (
        ("table2_clustering", "clustering"),
        ("table1_few_shot_accuracy", "few_shot"),
    ):
        rows = [group["CLIP+CRL"] for group in published(name).values()]
        values = [v for row in rows for column, v in row.items() if column != "mean"]
        assert np.mean(values) == pytest.approx(
            published("table10_llm")[task]["GPT-4o"]["mean"], abs=0.02
        )


def test_columns_do_not_name_the_data_set():
    columns = published("table2_clustering")["count_and_cards"]["CLIP"]
    assert {"count/nmi", "number/acc", "suits/ari"} <= columns.keys()
