"""The tables made from results files, and the paper's numbers beside ours."""

import json
import sys

import pytest
import reproduce_tables


def write(folder, data, images, vlm, criterion, metrics):
    score = {
        metric: {"mean": mean, "std": 0.5, "seeds": [mean]} for metric, mean in metrics.items()
    }
    cell = {
        "key": "k",
        "data": data,
        "images": images,
        "vlm": vlm,
        "criterion": criterion,
        "texts": 9,
    }
    cell["scores"] = {"universal": score, "conditional": score}
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps({"cells": [cell]}))
    return folder


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["reproduce_tables.py", *map(str, arguments)])
    code = 0
    try:
        reproduce_tables.main()
    except SystemExit as stop:
        code = stop.code
    return code, *capsys.readouterr()


@pytest.mark.parametrize(
    ("task", "data", "images", "criterion", "metrics", "expected"),
    [
        # CLIP and CLIP+CRL of Table 2: color 0.83 and 88.67 NMI
        (
            "clustering",
            "clevr4",
            10531,
            "color",
            {"nmi": 10.83},
            [("0.83", "+10.00"), ("88.67", "-77.84")],
        ),
        (
            "clustering",
            "clevr4",
            10531,
            "count",
            {"ari": 5.7},
            [("5.70", "+0.00"), ("12.54", "-6.84")],
        ),
        # Table 1: Cards number, 5 shots
        (
            "few_shot",
            "cards",
            8029,
            "number",
            {"5-shot": 40.0},
            [("33.73", "+6.27"), ("44.52", "-4.52")],
        ),
    ],
)
def test_papers_numbers_stand_beside_ours(
    tmp_path, monkeypatch, capsys, task, data, images, criterion, metrics, expected
):
    folder = write(tmp_path / task / "x", data, images, "clip", criterion, metrics)
    code, printed, _ = run(monkeypatch, capsys, folder)
    rows = [line.split() for line in printed.splitlines() if line.startswith("CLIP")]
    assert code == 0
    assert [(row[4], row[6]) for row in rows] == expected


def test_demo_data_and_other_vlms_are_not_compared_with_the_paper(tmp_path, monkeypatch, capsys):
    demo = write(tmp_path / "clustering/a", "clevr4", 3000, "clip", "color", {"nmi": 1.0})
    other = write(tmp_path / "clustering/b", "clevr4", 10531, "demo", "color", {"nmi": 1.0})
    code, printed, _ = run(monkeypatch, capsys, demo, other)
    assert code == 0 and "paper" not in printed and printed.count("clevr4 color") == 2


def test_mistakes_are_one_line(tmp_path, monkeypatch, capsys):
    folder = write(tmp_path / "clustering/a", "clevr4", 3000, "clip", "color", {"nmi": 1.0})
    for arguments, says in (
        ([tmp_path / "clustering" / "none"], "not a results file"),
        ([folder, tmp_path / "few_shot" / "x"], "must be of one task"),
    ):
        code, _, errors = run(monkeypatch, capsys, *arguments)
        assert code == 2 and errors.count("\n") == 1 and says in errors


def similarity_cell(label, task, templates, scores, weight=10):
    metrics = {m: dict(zip(("R@1", "R@2", "R@3"), row, strict=True)) for m, row in scores.items()}
    images = {"focus_object": 2198, "change_object": 2739}[task]
    about = {"data": task, "label": label, "templates": templates, "images": images}
    about |= {"weight": weight, "variant": str(weight), "tie_policy": "fair", "left_out": 0}
    about |= {"target_also_in_gallery": 0, "other_tie_policy": {}, "scores": metrics, "texts": 9}
    return {**about, "combiner_hash": None, "vlm_fingerprint": "f"}


def test_similarity_retrieval_beside_table_3(tmp_path, monkeypatch, capsys):
    scores = {"chance": (6.7, 13.3, 20.0), "image": (9.5, 17, 25), "crl": (15.4, 26, 36)}
    starred = {"chance": (6.7, 13.3, 20.0), "combiner": (16, 28, 37), "crl": (19, 32, 41)}
    cells = [
        similarity_cell("clip-b16", "focus_object", 1960, scores),
        similarity_cell("clip-b16*", "focus_object", 1960, starred),
        similarity_cell("clip-b16", "change_object", 1959, scores),  # not the whole task
        similarity_cell("demo", "focus_object", 1960, scores),  # not the paper's VLM
        {**similarity_cell("clip-b16", "change_object", 1960, scores), "images": 3000},  # drawn
    ]
    folder = tmp_path / "similarity_retrieval" / "x"
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps({"cells": cells}))
    code, printed, errors = run(monkeypatch, capsys, folder)
    assert code == 0, errors
    table, beside = printed.split("The paper's numbers beside ours")
    rows = {tuple(line.split()[:2]): line.split()[2:] for line in table.splitlines()}
    assert rows["clip-b16", "image"] == "9.5 17.0 25.0 9.5 17.0 25.0 17.2".split()
    assert rows["clip-b16*", "combiner"] == "16.0 28.0 37.0 - - - -".split()
    found = [" ".join(line.split()) for line in beside.splitlines()]
    assert "CLIP image focus_object R@1 9.40 9.50 +0.10" in found
    assert "CLIP+CRL focus_object R@1 15.40 15.40 +0.00" in found
    assert "Combiner* focus_object R@2 27.70 28.00 +0.30" in found
    assert "CLIP+CRL* focus_object R@3 41.30 41.00 -0.30" in found
    assert not any("change_object" in line for line in found)
    other = similarity_cell("clip-b16", "focus_object", 1960, scores, weight=3)
    (folder / "results.json").write_text(json.dumps({"cells": [other]}))
    assert "beside" not in run(monkeypatch, capsys, folder)[1]
