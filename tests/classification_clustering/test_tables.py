"""The tables made from results, and their places in the paper's."""

import re

import pytest

from classification_clustering.tables import notes, scores, table
from crl.run.errors import UserError
from crl.run.results import summary


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
    lines = table([first, second], "A title").text().splitlines()
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
    printed = table(cells, "A title").text()
    assert "blip2 [mean]" in printed and "blip2 [max]" in printed
    assert "  clevr4_color (9)" in printed and "  official_bases/clevr4_color (9)" in printed
    bases = {score.basis for score in scores(cells)}
    assert bases == {"-", "clevr4_color (9)", "official_bases/clevr4_color (9)"}


def test_images_that_were_left_out_are_noted():
    cells = [cell(left_out=0), cell(criterion="shape", left_out=3)]
    [note] = notes(cells)
    assert note == "clip, clevr4 shape: 3 unreadable image(s) left out"


@pytest.mark.parametrize(
    ("found", "column", "comparable"),
    [
        (cell(universal={"nmi": 10.83}), "color/nmi", True),
        (cell(criterion="count", universal={"ari": 5.7}), "count/ari", True),
        (
            cell(criterion="number", universal={"5-shot": 40.0}, data="cards", images=8029),
            "number/5",
            True,
        ),
        (cell(universal={"nmi": 1}, images=3000), "color/nmi", False),  # drawn, or not whole
        (cell(universal={"nmi": 1}, data="folder"), "color/nmi", False),
        (cell("demo", universal={"nmi": 1}), "color/nmi", False),  # not a VLM of the paper
    ],
)
def test_the_places_of_scores_in_the_papers_tables(found, column, comparable):
    universal, conditional = scores([found])
    vlm = "demo" if found["vlm"] == "demo" else "CLIP"
    assert (universal.row, universal.basis) == (vlm, "-")
    assert (conditional.row, conditional.basis) == (f"{vlm}+CRL", "mine (9)")
    [(_, of_cell)] = found["scores"]["universal"].items()
    for score in (universal, conditional):
        assert (score.column, score.comparable) == (column, comparable)
        assert score.values == of_cell["seeds"]


@pytest.mark.parametrize("representation", ["posterior", "paper, null space of 1"])
def test_what_is_not_the_papers_representation_is_a_row_of_its_own(representation):
    found = list(scores([cell(universal={"nmi": 1}, representation=representation)]))
    assert [score.row for score in found] == ["CLIP", f"CLIP+CRL, {representation}"]
