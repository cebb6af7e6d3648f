"""Result rows and their places in the paper's Tables 1 to 4."""

import pytest
from paper_tables.numbers import published
from paper_tables.places import TASKS, classification, fashion, similarity

from crl.run.results import summary

TEXTS = {"basis": "b", "texts": 9}


def names(scores) -> str:
    return "; ".join(score.row for score in scores)


def test_classification():
    def row(vlm, method, images=10531, **texts):
        about = {"data": "clevr4", "criterion": "color", "vlm": vlm, "method": method, **texts}
        scores = {"acc": summary([1.0])} if method == "zero-shot" else {"5-shot": summary([2.0, 4])}
        return {"about": about, "images": images, "scores": scores}

    rows = [
        row("clip", "universal", basis="-"),
        row("metaclip", "paper", **TEXTS),
        row("clip", "posterior", 3000, **TEXTS),
        row("demo", "paper, null space of 2", **TEXTS),
        row("clip", "zero-shot"),
    ]
    scores = list(classification(rows))
    assert names(scores) == ("CLIP; MetaCLIP+CRL; CLIP+CRL, posterior; demo+CRL, null space of 2")
    assert [score.comparable for score in scores] == [True, True, False, False]
    assert scores[1][1:4] == ("color/5", [2.0, 4], "b (9)") and scores[0].basis == "-"


def test_similarity():
    def row(label, method, task="focus_object", images=2198, templates=1960, **texts):
        about = {"data": task, "vlm": "v", "label": label, "method": method, **texts}
        return {"about": about, "scores": {"R@1": 15.4}, "images": images, "templates": templates}

    rows = [
        row("clip-b16", "chance"),
        row("clip-b16", "image+text"),
        row("clip-b16", "paper", weight=10, **TEXTS),
        row("clip-b16*", "combiner"),
        row("clip-b16*", "posterior, standard", **TEXTS),
        row("demo", "combiner"),
        row("clip-b16", "paper", weight=3, **TEXTS),
        row("clip-b16", "image", templates=1959),  # not the whole task
        row("clip-b16", "image", "change_object"),  # drawn: other images
    ]
    scores = list(similarity(rows))
    assert names(scores) == (
        "chance; CLIP image+text; CLIP+CRL; Combiner*; CLIP+CRL*, posterior, standard; "
        "demo combiner; CLIP+CRL; CLIP image; CLIP image"
    )
    assert [score.comparable for score in scores] == [True] * 5 + [False] * 4
    assert scores[2][1:4] == ("focus/R@1", [15.4], "b (9)")
    assert scores[-1].column == "change/R@1"


def test_fashion():
    def row(vlm, method, images=27050, values=(156, 218, 180, 216, 230), **texts):
        about = {"data": "DeepFashion", "vlm": vlm, "method": method, **texts}
        scores = {"texture": 9.0, "overall": 1.0, "mean": 1.0}
        return {"about": about, "scores": scores, "images": images, "values": list(values)}

    rows = [
        row("-", "random"),
        row("clip-b16", "universal"),
        row("clip-b16", "paper", **TEXTS),
        row("clip-b16", "posterior", **TEXTS),
        row("clip-b16", "crl-mlp", **TEXTS),
        row("clip-b16", "crl", **TEXTS),
        row("resnet50", "asen"),
        row("demo", "csn"),
        row("demo", "crl", **TEXTS),
        row("clip-b16", "universal", images=300),
        row("clip-b16", "universal", values=[13, 13]),
    ]
    scores = list(fashion(rows))
    assert names(scores) == (
        "Random; CLIP; CLIP+CRL (no training); CLIP+CRL (no training), posterior; "
        "CLIP+CRL, heads only; CLIP+CRL; ASEN; CSN (demo); demo+CRL; CLIP; CLIP"
    )
    assert [score.comparable for score in scores] == [True] * 7 + [False] * 4
    assert {score.column for score in scores} == {"texture"}


@pytest.mark.parametrize("task", TASKS)
def test_the_paper_has_these_rows(task):
    rows = {row for part in published(TASKS[task].number).values() for row in part}
    wanted = {
        "similarity_retrieval": {"CLIP image", "CLIP image+text", "CLIP+CRL*", "Combiner*"},
        "fashion_retrieval": {"Random", "ASEN", "CLIP", "CLIP+CRL (no training)", "CLIP+CRL"},
    }
    assert wanted.get(task, {"CLIP", "MetaCLIP+CRL"}) <= rows
