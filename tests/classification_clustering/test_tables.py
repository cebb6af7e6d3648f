"""The tables made from results, and the paper's numbers beside ours."""

import json
import re

import pytest
from commands import REPOSITORY

from classification_clustering.tables import comparison, notes, report, table
from crl.run.errors import UserError
from crl.run.results import summary

PAPER = json.loads((REPOSITORY / "configs/paper_tables.json").read_text())
TABLE_1, TABLE_2 = PAPER["table1_few_shot_accuracy"], PAPER["table2_clustering"]


def cell(vlm="clip", criterion="color", universal=None, conditional=None, **changes):
    """One result; `universal` and `conditional` are {metric: mean}."""
    scores = {
        which: {metric: summary([mean - 1, mean + 1]) for metric, mean in (means or {}).items()}
        for which, means in (("universal", universal), ("conditional", conditional or universal))
    }
    about = {"data": "clevr4", "criterion": criterion, "vlm": vlm, "images": 10531}
    about |= {"representation": "paper"}
    return {**about, "basis": "mine", "texts": 9, "scores": scores, **changes}


def rows(printed):
    return [re.split(r"\s{2,}", line.strip()) for line in printed.splitlines()]


def test_a_row_for_each_result_and_two_columns_for_each_metric():
    first = cell("clip", "suits", {"a": 5, "b": 61}, {"a": 99, "b": 7}, data="cards", names="3/4")
    first["scores"]["zero-shot"] = {"acc": summary([33.3333])}
    # of another run, without b, and with a file's embeddings, whose class names a basis cannot name
    second = cell("open_clip:x/y", "color", {"a": 1}, {"a": 3}, representation="posterior (1.4)")
    lines = table([first, second], "A title").splitlines()
    assert lines[0] == "A title" and set(lines[1]) == {"-"} == set(lines[3]) == set(lines[6])
    assert len({len(line) for line in lines[1:]}) == 1  # aligned
    header, one, two = rows("\n".join([lines[2], *lines[4:6]]))
    assert header[:5] == ["VLM", "criterion", "basis", "names", "R is"]
    assert header[5:] == ["a I", "a R", "b I", "b R", "0-shot"]
    assert one[:5] == ["clip", "cards suits", "mine (9)", "3/4", "paper"]
    assert one[5:] == ["5.0 ± 1.4", "99.0 ± 1.4", "61.0 ± 1.4", "7.0 ± 1.4", "33.3"]
    assert two[:5] == ["open_clip:x/y", "clevr4 color", "mine (9)", "-", "posterior (1.4)"]
    assert two[5:] == ["1.0 ± 1.4", "3.0 ± 1.4", "-", "-", "-"]
    with pytest.raises(UserError, match="no results"):
        table([], "A title")


def test_results_of_two_bases_and_of_two_image_vectors_are_told_apart():
    cells = [
        cell("blip2", universal={"nmi": 1}, basis=basis, image_vector=rule)
        for basis, rule in (("clevr4_color", "mean"), ("official_bases/clevr4_color", "max"))
    ]
    for printed in (table(cells, "A title"), report(cells, TABLE_2)):
        assert "blip2 [mean]" in printed and "blip2 [max]" in printed
        assert "  clevr4_color (9)" in printed and "  official_bases/clevr4_color (9)" in printed
    assert len({tuple(row[:4]) for row in comparison(TABLE_2, cells)}) == 4


def test_images_that_were_left_out_are_noted():
    cells = [cell(left_out=0), cell(criterion="shape", left_out=3)]
    [note] = notes(cells)
    assert note == "note: clip, clevr4 shape: 3 unreadable image(s) left out"


@pytest.mark.parametrize(
    ("paper", "found", "expected"),
    [
        (  # CLIP and CLIP+CRL of Table 2
            TABLE_2,
            cell(criterion="color", universal={"nmi": 10.83}),
            [["0.83", "10.83", "+10.00"], ["88.67", "10.83", "-77.84"]],
        ),
        (  # count stands beside Cards there
            TABLE_2,
            cell(criterion="count", universal={"ari": 5.7}),
            [["5.70", "5.70", "+0.00"], ["12.54", "5.70", "-6.84"]],
        ),
        (  # Table 1
            TABLE_1,
            cell(criterion="number", universal={"5-shot": 40.0}, data="cards", images=8029),
            [["33.73", "40.00", "+6.27"], ["44.52", "40.00", "-4.52"]],
        ),
        (TABLE_2, cell(universal={"nmi": 1}, images=3000), []),  # drawn, or not whole
        (TABLE_2, cell(universal={"nmi": 1}, data="folder"), []),
        (TABLE_2, cell("demo", universal={"nmi": 1}), []),  # not a VLM of the paper
        (TABLE_2, cell(universal={"nmi": 1}, representation="posterior"), []),
        (TABLE_1, cell(universal={"1-shot": 1}, representation="paper, null space of 1"), []),
        (TABLE_1, cell(universal={"2-shot": 1}), []),  # not in the paper
    ],
)
def test_the_papers_numbers_beside_ours(paper, found, expected):
    compared = comparison(paper, [found])
    assert [row[-3:] for row in compared] == expected
    assert [row[0] for row in compared] == ["CLIP", "CLIP+CRL"][: len(expected)]
    printed = report([found], paper)
    task = "clustering" if paper is TABLE_2 else "few_shot"
    assert printed.startswith(f"{task}, percent: mean ± standard deviation over seeds\n")
    assert ("The paper's numbers beside ours" in printed) == bool(expected)
