"""The tables made from results files, and the paper's tables made from a plan."""

import csv
import json
import re
import shutil
from pathlib import Path

import make_data
import numpy as np
import pytest
import reproduce_tables
import yaml
from paper_tables.grids import published
from paper_tables.plan import CONFIGS, Plan, Settings, resolve
from PIL import Image

from crl.basis import TextBasis
from crl.run.results import read_cells, summary


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
    code, printed, errors = run(reproduce_tables.main, "--runs", *runs)
    assert code == 0, errors
    shots, clusters = printed.split("\n\nClustering, percent")
    assert shots.startswith("Few-shot classification, percent")
    assert "clevr4 color" in clusters and "clevr4 shape" in clusters
    assert "The paper" not in clusters
    assert "clevr4 shape" not in shots
    [row] = [line.split() for line in shots.splitlines() if line.startswith("CLIP ")]
    assert row[-3:] == ["26.85", "2.00", "-24.85"]


def test_mistakes_are_one_line(tmp_path, refusal):
    cell = classification_cell("clevr4", 3000, "clip", "color", nmi=1.0)
    folder = write(tmp_path / "clustering/a", cell)
    missing, other = tmp_path / "clustering/none", tmp_path / "other/x"
    assert "run the task first" in refusal(reproduce_tables.main, "--runs", missing)
    assert "other/x is no run of clustering or" in refusal(
        reproduce_tables.main, "--runs", folder, other
    )
    empty = write(tmp_path / "clustering/empty")
    assert "there are no results" in refusal(reproduce_tables.main, "--runs", empty)


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
    code, printed, errors = run(reproduce_tables.main, "--runs", folder)
    assert code == 0, errors
    table, beside = printed.split("The paper's numbers beside ours")
    rows = {tuple(row[:2]): row[-7:] for row in columns(table)}
    assert rows["clip-b16", "image"] == "9.5 17.0 25.0 9.5 17.0 25.0 17.2".split()
    assert rows["clip-b16*", "combiner"] == "16.0 28.0 37.0 - - - -".split()
    found = [" ".join([row[0], *row[-4:]]) for row in columns(beside)]  # without the basis
    assert "CLIP image focus/R@1 9.40 9.50 +0.10" in found
    assert "CLIP+CRL focus/R@1 15.40 15.40 +0.00" in found
    assert "Combiner* focus/R@2 27.70 28.00 +0.30" in found
    assert "CLIP+CRL* focus/R@3 41.30 41.00 -0.30" in found
    assert "change/" not in beside
    other = similarity_cell("clip-b16", "focus_object", 1960, scores, weight=3)
    folder = write(tmp_path / "similarity_retrieval/y", other)
    assert "beside" not in run(reproduce_tables.main, "--runs", folder)[1]


def test_fashion_retrieval_beside_table_4(tmp_path, run):
    """The comparison itself is tested in fashion_retrieval/test_tables.py."""
    scores = dict.fromkeys(("texture", "fabric", "shape", "part", "style", "overall", "mean"), 9.0)
    about = {"data": "DeepFashion", "values": [156, 218, 180, 216, 230], "images": 27050}
    about |= {"method": "universal", "label": "clip-b16", "variant": "x", "vlm": "clip-b16"}
    about |= {"vlm_fingerprint": "f", "queries": 9, "without_relevant": 0}
    folder = write(tmp_path / "fashion_retrieval/x", {**about, "scores": {"universal": scores}})
    code, printed, errors = run(reproduce_tables.main, "--runs", folder)
    assert code == 0, errors
    assert ["CLIP", "-", "texture", "9.14", "9.00", "-0.14"] in columns(printed)


# --- tables of the paper --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    """Drawn data as the demo has it, but 60 images."""
    data = tmp_path_factory.mktemp("data")
    for world in ("clevr4", "cards"):
        make_data.make(world, data, images=60, seed=0, workers=1)
    return data


@pytest.fixture
def plan(tmp_path) -> Path:
    """Tables 2, 6 (10 and 300 texts), 8 and 13 (two prompts), small."""
    whole = yaml.safe_load((CONFIGS / "tables.yaml").read_text())
    clusters = {name: whole["runs"][f"clustering-{name}"] for name in ("clevr4", "cards")}
    for run in clusters.values():
        run["demo"] |= {"images": 60, "seeds": 3, "figures": False}
    whole["runs"] = {f"clustering-{name}": run for name, run in clusters.items()}
    whole["tables"] = {number: whole["tables"][number] for number in (2, 6, 8, 13)}
    whole["tables"][6]["texts"] = [10, 300]
    whole["tables"][13]["rows"].pop("2")
    for table in whole["tables"].values():
        table |= {"set": {**table.get("set", {}), "representation": "paper"}, "demo": {}}
        table["runs"] = [run for run in table.get("runs", []) if run in whole["runs"]]
    file = tmp_path / "plan.yaml"
    file.write_text(json.dumps(whole))
    return file


def test_the_demos_tables_end_to_end(tmp_path, run, plan, drawn):
    usual = ["--demo", "--plan", plan, "--data", drawn, "--outputs", tmp_path, "--table"]
    code, printed, errors = run(reproduce_tables.main, *usual, "all", "--dry-run")
    assert code == 0, errors
    assert "clustering-clevr4                to do: 3,000 images" in printed
    assert not (tmp_path / "tables").exists()

    code, printed, errors = run(reproduce_tables.main, *usual, "all")
    assert code == 0, errors
    assert printed.splitlines()[-2:] == [
        f"tables: {tmp_path / 'tables'}",
        f"page: {tmp_path / 'index.html'}",
    ]
    assert "cards_number has 210 texts and cards_suits has 237 texts, not 300" in printed

    cells = read_cells(tmp_path / "clustering/demo-clevr4/results.json")
    [color] = [cell for cell in cells if cell["criterion"] == "color"]
    seeds = color["scores"]["conditional"]["nmi"]["seeds"]
    with (tmp_path / "tables/table2.csv").open() as file:
        lines = {(line["row"], line["column"]): line for line in csv.DictReader(file)}
    found = lines["demo+CRL", "color/nmi"]
    assert float(found["ours"]) == pytest.approx(np.mean(seeds), abs=1e-4)
    assert float(found["std"]) == pytest.approx(np.std(seeds, ddof=1), abs=1e-4)
    assert (found["paper"], found["verdict"]) == ("", "measured")
    text = (tmp_path / "tables/table2.md").read_text()
    assert f"{np.mean(seeds):.2f} ± {np.std(seeds, ddof=1):.2f}" in text
    assert "Drawn data and the demo VLM" in text
    basis = TextBasis.load("clevr4_color")
    assert f"clevr4_color ({len(basis.texts)} texts, {basis.hash}" in text
    assert "Date of the table: " in text and "Commit: " in text

    with (tmp_path / "tables/table6.csv").open() as file:
        rows = {(line["row"], line["column"]): line["verdict"] for line in csv.DictReader(file)}
    assert rows["10", "suits/nmi"] == "measured" and rows["300", "suits/nmi"] == "not run"
    assert rows["300", "color/nmi"] == "measured"
    assert Image.open(tmp_path / "tables/table6.png").width > 500
    assert "cards_suits" in (tmp_path / "tables/table8.md").read_text()
    assert "\\begin{table}" in (tmp_path / "tables/table13.tex").read_text()

    before = (tmp_path / "clustering/demo-clevr4/results.json").read_bytes()
    assert "has results" in run(reproduce_tables.main, *usual, "2", "--dry-run")[1]
    assert run(reproduce_tables.main, *usual, "2")[0] == 0
    assert (tmp_path / "clustering/demo-clevr4/results.json").read_bytes() == before


def test_half_a_data_set_does_not_stop_the_rest(tmp_path, run, plan, drawn):
    data = tmp_path / "data"
    shutil.copytree(drawn, data)
    next((data / "clevr_4_10k_v1/images").glob("*.png")).unlink()
    usual = ["--demo", "--plan", plan, "--data", data, "--outputs", tmp_path, "--table"]
    code, printed, errors = run(reproduce_tables.main, *usual, "2", "--dry-run")
    assert code == 2 and "wrong [1]" in printed and "has 59 images, not 60" in printed
    code, printed, errors = run(reproduce_tables.main, *usual, "2")
    assert code == 2
    assert errors.count("\n") == 1 and "has 59 images, not 60" in errors
    text = (tmp_path / "tables/table2.md").read_text()
    assert "- Not run: clevr4 in " in text and "(clustering-clevr4)" in text
    with (tmp_path / "tables/table2.csv").open() as file:
        verdicts = {line["column"]: line["verdict"] for line in csv.DictReader(file)}
    assert verdicts["suits/nmi"] == "measured" and "not run" in verdicts["count/nmi"]


def test_data_that_are_not_there_are_no_mistake(tmp_path, run, plan):
    usual = ["--demo", "--plan", plan, "--data", tmp_path / "no", "--outputs", tmp_path]
    code, printed, errors = run(reproduce_tables.main, *usual, "--table", "2")
    assert (code, errors) == (0, "")
    assert "not run [1]: Clevr4 is not in " in printed and "table 2: 4" not in printed
    code, *_ = run(reproduce_tables.main, *usual, "--table", "2", "--strict")
    assert code == 0  # a demo has no rows that must be there


def as_the_paper(folder: Path, **changes: float) -> None:
    """Results of clustering-clevr4 with CLIP, as a machine that has the data leaves them there:
    the paper's numbers, but for `changes`."""
    settings = Settings(Path("data"), folder, Path("none"), ["clip"], demo=False, quick=False)
    [run] = [
        r
        for r in resolve(Plan.load(CONFIGS / "tables.yaml"), 2, settings)[""]
        if "clevr4" in r.name
    ]
    cells = []
    for criterion in ("texture", "shape", "color", "count"):
        scores: dict = {"universal": {}, "conditional": {}}
        for which, row in (("universal", "CLIP"), ("conditional", "CLIP+CRL")):
            for metric in ("nmi", "acc", "ari"):
                column = f"{criterion}/{metric}"
                numbers = {
                    k: v
                    for group in published("table2_clustering").values()
                    for k, v in group[row].items()
                }
                mean = numbers[column] + changes.get(f"{row} {column}", 0.0)
                scores[which][metric] = summary([mean - 1, mean, mean + 1])
        about = {"data": "clevr4", "images": 10531, "vlm": "clip", "vlm_fingerprint": "f"}
        about |= {"criterion": criterion, "representation": "paper", "basis": f"clevr4_{criterion}"}
        about |= {"texts": 9, "basis_hash": criterion, "environment": {"commit": "c0ffee"}}
        cells.append({**about, "scores": scores, "config": run.config.model_dump(mode="json")})
    write(run.folder, *cells)


def test_verdicts_on_results_of_another_machine(tmp_path, run):
    usual = [
        "--table",
        "2",
        "--vlm",
        "clip",
        "--data",
        tmp_path / "no",
        "--official",
        tmp_path / "no",
    ]
    good, bad = tmp_path / "good", tmp_path / "bad"
    as_the_paper(good)
    code, printed, errors = run(reproduce_tables.main, *usual, "--outputs", good)
    assert (code, errors) == (0, "")
    assert "table 2: 26 reproduced" in printed and "differs" not in printed
    text = (good / "tables/table2.md").read_text()
    assert "| CLIP+CRL |" in text and "88.67 / 88.67 ± 1.00 (+0.00) ✓" in text
    assert "| SCAN (quoted) |" in text
    code, *_ = run(reproduce_tables.main, *usual, "--outputs", good, "--strict")
    assert code == 1  # Cards is missing

    as_the_paper(bad, **{"CLIP+CRL color/nmi": -1.7})  # two standard errors are 1.63
    code, printed, _ = run(reproduce_tables.main, *usual, "--outputs", bad)
    assert code == 1 and "table 2: 25 reproduced, 1 differs" in printed
    assert "88.67 / 86.97 ± 1.00 (-1.70) ≠" in (bad / "tables/table2.md").read_text()
    code, printed, _ = run(reproduce_tables.main, *usual, "--outputs", bad, "--quick")
    assert code == 0 and "not compared" not in printed  # other seeds: these results are not taken


def test_a_damaged_file_is_named_and_the_rest_goes_on(tmp_path, run):
    as_the_paper(tmp_path)
    (tmp_path / "few_shot/odd").mkdir(parents=True)
    (tmp_path / "few_shot/odd/results.json").write_text("{")
    usual = ["--table", "1", "2", "--vlm", "clip", "--data", tmp_path / "no", "--outputs", tmp_path]
    code, printed, errors = run(reproduce_tables.main, *usual)
    assert code == 2 and errors.count("\n") == 1
    assert "few_shot/odd/results.json is not a results file, or is damaged" in errors
    assert "table 2: 26 reproduced" in printed
    assert "Table 2." in (tmp_path / "index.html").read_text()
    (tmp_path / "few_shot/odd/results.json").unlink()
    (tmp_path / "clustering/clevr4/results.json").write_text("[]")
    code, printed, errors = run(reproduce_tables.main, *usual)
    assert code == 2 and "clustering/clevr4/results.json is not a results file" in errors
    assert "table 1:" in printed
