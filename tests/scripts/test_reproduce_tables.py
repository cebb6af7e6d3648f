"""The tables made from results files, and the paper's numbers beside ours."""

import json
import re

import reproduce_tables


def write(folder, *cells):
    """A run with these results."""
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps({"cells": cells}))
    return folder


def columns(printed):
    """The columns of each line."""
    return [re.split(r"\s{2,}", line.strip()) for line in printed.splitlines()]


def classification_cell(data, images, vlm, criterion, **metrics):
    score = {name: {"mean": mean, "std": 0.5, "seeds": [mean]} for name, mean in metrics.items()}
    about = {"data": data, "images": images, "vlm": vlm, "criterion": criterion}
    about |= {"representation": "paper"}
    scores = {"universal": score, "conditional": score}
    return {**about, "basis": "mine", "texts": 9, "scores": scores}


def test_runs_of_several_tasks_are_a_table_each(tmp_path, run):
    shots = classification_cell("clevr4", 10531, "clip", "color", **{"1-shot": 2.0})
    runs = [write(tmp_path / "few_shot/a", shots)]
    for criterion in ("color", "shape"):
        cell = classification_cell("clevr4", 3000, "demo", criterion, nmi=1.0)
        runs.append(write(tmp_path / "clustering" / criterion, cell))
    code, printed, errors = run(reproduce_tables.main, *runs)
    assert code == 0, errors
    clusters, rest = printed.split("\n\nfew_shot, percent")
    assert clusters.startswith("clustering, percent")
    assert "clevr4 color" in clusters and "clevr4 shape" in clusters
    assert "The paper" not in clusters
    assert "clevr4 shape" not in rest
    [row] = [line.split() for line in rest.splitlines() if line.startswith("CLIP ")]
    assert row[-3:] == ["26.85", "2.00", "-24.85"]


def test_mistakes_are_one_line(tmp_path, refusal):
    cell = classification_cell("clevr4", 3000, "clip", "color", nmi=1.0)
    folder = write(tmp_path / "clustering/a", cell)
    missing, other = tmp_path / "clustering/none", tmp_path / "other/x"
    assert "run the task first" in refusal(reproduce_tables.main, missing)
    assert "other/x is no run of clustering or" in refusal(reproduce_tables.main, folder, other)
    empty = write(tmp_path / "clustering/empty")
    assert "there are no results" in refusal(reproduce_tables.main, empty)


def similarity_cell(label, task, templates, scores, weight=10):
    metrics = {m: dict(zip(("R@1", "R@2", "R@3"), row, strict=True)) for m, row in scores.items()}
    images = {"focus_object": 2198, "change_object": 2739}[task]
    about = {"data": task, "label": label, "templates": templates, "images": images}
    about |= {"weight": weight, "variant": str(weight), "tie_policy": "fair", "left_out": 0}
    about |= {"target_also_in_gallery": 0, "other_tie_policy": {}, "scores": metrics}
    about |= {"basis": "genecis_scene", "texts": 9}
    return {**about, "combiner_hash": None, "vlm_fingerprint": "f"}


def test_similarity_retrieval_beside_table_3(tmp_path, run):
    scores = {"chance": (6.7, 13.3, 20.0), "image": (9.5, 17, 25), "crl": (15.4, 26, 36)}
    starred = {"chance": (6.7, 13.3, 20.0), "combiner": (16, 28, 37), "crl": (19, 32, 41)}
    cells = [
        similarity_cell("clip-b16", "focus_object", 1960, scores),
        similarity_cell("clip-b16*", "focus_object", 1960, starred),
        similarity_cell("clip-b16", "change_object", 1959, scores),  # not the whole task
        similarity_cell("demo", "focus_object", 1960, scores),  # not the paper's VLM
        {**similarity_cell("clip-b16", "change_object", 1960, scores), "images": 3000},  # drawn
    ]
    folder = write(tmp_path / "similarity_retrieval/x", *cells)
    code, printed, errors = run(reproduce_tables.main, folder)
    assert code == 0, errors
    table, beside = printed.split("The paper's numbers beside ours")
    rows = {tuple(row[:2]): row[-7:] for row in columns(table)}
    assert rows["clip-b16", "image"] == "9.5 17.0 25.0 9.5 17.0 25.0 17.2".split()
    assert rows["clip-b16*", "combiner"] == "16.0 28.0 37.0 - - - -".split()
    found = [" ".join([row[0], *row[-5:]]) for row in columns(beside)]  # without the basis
    assert "CLIP image focus_object R@1 9.40 9.50 +0.10" in found
    assert "CLIP+CRL focus_object R@1 15.40 15.40 +0.00" in found
    assert "Combiner* focus_object R@2 27.70 28.00 +0.30" in found
    assert "CLIP+CRL* focus_object R@3 41.30 41.00 -0.30" in found
    assert "change_object" not in beside
    other = similarity_cell("clip-b16", "focus_object", 1960, scores, weight=3)
    folder = write(tmp_path / "similarity_retrieval/y", other)
    assert "beside" not in run(reproduce_tables.main, folder)[1]


def test_fashion_retrieval_beside_table_4(tmp_path, run):
    """The comparison itself is tested in fashion_retrieval/test_tables.py."""
    scores = dict.fromkeys(("texture", "fabric", "shape", "part", "style", "overall", "mean"), 9.0)
    about = {"data": "DeepFashion", "values": [156, 218, 180, 216, 230], "images": 27050}
    about |= {"method": "universal", "label": "clip-b16", "variant": "x", "vlm": "clip-b16"}
    about |= {"vlm_fingerprint": "f", "queries": 9, "without_relevant": 0}
    folder = write(tmp_path / "fashion_retrieval/x", {**about, "scores": {"universal": scores}})
    code, printed, errors = run(reproduce_tables.main, folder)
    assert code == 0, errors
    assert ["CLIP", "-", "texture", "mAP", "9.14", "9.00", "-0.14"] in columns(printed)
