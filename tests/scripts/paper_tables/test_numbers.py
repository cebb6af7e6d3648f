"""Our numbers beside the paper's: places, means, tolerances and verdicts."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paper_tables.numbers import TASKS, Score, classification, compare, neighbours, published
from paper_tables.plan import PaperTable
from paper_tables.runs import CONFIGS, Settings

PAPER = {"part": {"CLIP": {"color/nmi": 80.0, "mean": 80.0}, "CC": {"color/nmi": 5.0, "mean": 5.0}}}
TABLE = PaperTable("title", {"": []}, quoted=("CC",))


def placed(values, row="CLIP", column="color/nmi", task="clustering", comparable=True):
    return row, task, Score(row, column, values, "-", comparable)


def numbers(scores, table=TABLE, paper=PAPER, demo=False, quick=False):
    """{(row, column): its number} of the only part."""
    settings = Settings(Path(), Path(), Path(), [], demo, quick)
    [rows] = compare(table, paper, scores, settings).values()
    return {(row, column): number for row in rows for column, number in rows[row].items()}


def test_the_tolerance_comes_from_the_spread_over_seeds():
    # mean 83, standard deviation 2: sqrt((4 + 4) / 3) = 1.6330; twice that, and half a digit.
    number = numbers([placed([81.0, 83.0, 85.0])])["CLIP", "color/nmi"]
    assert (number.ours, number.std, number.seeds, number.difference) == (83, 2, 3, 3)
    assert number.tolerance == pytest.approx(3.2710, abs=1e-4)
    assert number.verdict == "reproduced"
    assert numbers([placed([82.0, 84.0, 86.0])])["CLIP", "color/nmi"].verdict == "differs"  # by 4


def test_the_papers_own_spread_counts_where_it_is_printed():
    table = PaperTable("title", {"1": []}, varied="temperature")
    paper = {"clustering": {"1": {"mean": 80.0, "std": 3.0}}}
    number = numbers([placed([80.0, 82.0, 84.0], row="1")], table, paper)["1", "mean"]
    assert number.tolerance == pytest.approx(2 * math.sqrt((4 + 9) / 3) + 0.005)
    assert number.verdict == "reproduced"


@pytest.mark.parametrize(
    ("trained", "ours", "verdict"),
    [
        ((), 80.3, "reproduced"),
        ((), 80.4, "differs"),
        (("CLIP",), 80.9, "reproduced"),
        (("CLIP",), 78.9, "differs"),
        (("CLIP+CRL",), 80.9, "differs"),  # another row
    ],
)
def test_without_seeds_the_tolerance_is_fixed(trained, ours, verdict):
    number = numbers([placed([ours])], TABLE._replace(trained=trained))["CLIP", "color/nmi"]
    assert (number.std, number.verdict) == (None, verdict)
    ablation = PaperTable("title", {"10": []}, varied="texts", trained=("CLIP+CRL",))
    paper = {"part": {"10": {"style": 80.0}}}  # of a training: it has the tolerance of trainings
    number = numbers([placed([80.9], "10", "style")], ablation, paper)["10", "style"]
    assert (number.tolerance, number.verdict) == (1.0, "reproduced")


def test_rows_quoted_missing_and_beyond_the_paper():
    rows = numbers([placed([9.0], row="CLIP+CRL, posterior")])
    for row, expected in {
        "CLIP": ("paper", "not run", 80, None),
        "CC": ("quoted", "quoted", 5, None),
        "CLIP+CRL, posterior": ("ours", "measured", None, 9),
    }.items():
        number = rows[row, "color/nmi"]
        assert (number.kind, number.verdict, number.paper, number.ours) == expected


def test_what_cannot_be_compared_has_no_verdict():
    far = placed([1.0, 2.0, 3.0])
    assert numbers([far])["CLIP", "color/nmi"].verdict == "differs"
    assert numbers([far], quick=True)["CLIP", "color/nmi"].verdict == "not compared"
    far = placed([1.0, 2.0, 3.0], comparable=False)
    assert numbers([far])["CLIP", "color/nmi"].verdict == "not compared"


def test_a_demo_has_only_its_own_rows():
    rows = numbers([placed([9.0], row="demo")], demo=True)
    assert rows.keys() == {("demo", "color/nmi"), ("demo", "mean")}
    assert rows["demo", "color/nmi"].paper is None
    assert rows["demo", "color/nmi"].verdict == "measured"
    table = PaperTable("title", {"10": [], "20": []}, varied="texts")
    rows = numbers([placed([9.0], row="20")], table, {"g": {"10": {"color/nmi": 1.0}}}, demo=True)
    assert rows["10", "color/nmi"].verdict == "not run"
    assert rows["20", "color/nmi"].verdict == "measured"


@given(st.lists(st.lists(st.floats(0, 100), min_size=3, max_size=3), min_size=2, max_size=5))
def test_mean_is_over_columns_for_each_seed(values):
    columns = [f"c{i}/nmi" for i in range(len(values))]
    paper = {"part": {"CLIP": {**dict.fromkeys(columns, 1.0), "mean": 1.0}}}
    scores = [placed(v, column=c) for v, c in zip(values, columns, strict=True)]
    mean, by_seed = numbers(scores, paper=paper)["CLIP", "mean"], np.array(values).mean(axis=0)
    assert mean.ours == pytest.approx(by_seed.mean(), abs=1e-9)
    assert mean.std == pytest.approx(by_seed.std(ddof=1), abs=1e-9)
    assert numbers(scores[1:], paper=paper)["CLIP", "mean"].verdict == "not run"


def test_tables_10_to_13_average_over_a_task():
    paper = {"clustering": {"1": {"mean": 50.0}}, "few_shot": {"1": {"mean": 60.0}}}
    scores = [
        placed([40.0, 50.0], "1", "color/nmi"),
        placed([60.0, 70.0], "1", "suits/nmi"),
        placed([1.0, 2.0], "1", "color/1", task="few_shot"),
    ]
    settings = Settings(Path(), Path(), Path(), [], demo=False, quick=False)
    parts = compare(PaperTable("title", {"1": []}, varied="LLM"), paper, scores, settings)
    assert [rows["1"]["mean"].ours for rows in parts.values()] == [55, 1.5]


@pytest.mark.parametrize(("number", "task"), [(2, "clustering"), (1, "few_shot")])
def test_the_means_of_the_papers_tables_are_those_of_its_columns(number, task):
    """Tables 10 and 12 hold the settings of Tables 1 and 2 too, so this checks how we average."""
    rows = [part["CLIP+CRL"] for part in published(number).values()]
    values = [value for row in rows for column, value in row.items() if column != "mean"]
    printed = published(10)[task]["GPT-4o"]["mean"]
    assert np.mean(values) == pytest.approx(printed, abs=0.02)


def test_only_the_papers_metrics_are_part_of_its_means():
    about = {"data": "clevr4", "criterion": "color", "vlm": "clip", "method": "universal"}
    scores = {metric: {"seeds": [50.0]} for metric in ("nmi", "acc", "ari", "ri", "ami")}
    rows = [{"about": about, "images": 10531, "scores": scores}]
    columns = [score.column for score in classification(rows)]
    assert columns == ["color/nmi", "color/acc", "color/ari"]


def test_numbers_of_others_say_whose_they_are():
    content = json.loads((CONFIGS / "neighbours.json").read_text())
    assert content.keys() == {"_about", *TASKS}
    for task in TASKS:
        for table, group in zip(neighbours(task), content[task], strict=True):
            assert table.title.startswith("Quoted from others, not measured here: ")
            for row, shown in zip(group["rows"], table.rows, strict=True):
                assert row.keys() == {"method", "backbone", "read in", "numbers"}
                assert shown[0] == f"{row['method']}; {row['backbone']}; from {row['read in']}"
                numbers = {
                    c: float(v) for c, v in zip(table.header[1:], shown[1:], strict=True) if v
                }
                assert numbers == row["numbers"] and all(0 < n < 100 for n in numbers.values())
