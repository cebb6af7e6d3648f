"""The tables made from results files, and the paper's tables."""

import csv
import json
import shutil
from pathlib import Path

import make_data
import numpy as np
import pytest
import reproduce_tables
from paper_tables import plan
from paper_tables.numbers import published
from paper_tables.runs import Settings
from PIL import Image

from crl.run.results import read_rows, summary


def write(folder: Path, *rows: dict) -> None:
    """A run with these results."""
    folder.mkdir(parents=True)
    content = {"format": "crl-results-2", "rows": rows}
    (folder / "results.json").write_text(json.dumps(content))


def row(data: str, images: int, vlm: str, criterion: str, method="paper", **metrics) -> dict:
    about = {"data": data, "criterion": criterion, "vlm": vlm, "method": method, "basis": "-"}
    about["vlm_fingerprint"] = "f"
    if method != "universal":
        about |= {"basis": "mine", "texts": 9, "basis_digest": "d"}
    scores = {metric: summary(list(values)) for metric, values in metrics.items()}
    return {"about": about, "scores": scores, "images": images}


def test_runs_of_several_tasks_are_a_table_each(tmp_path, run):
    folders = [tmp_path / name for name in ("few_shot/a", "clustering/b", "clustering/c")]
    write(folders[0], row("clevr4", 10531, "clip", "color", **{"1-shot": [65]}))
    for folder, criterion in zip(folders[1:], ("color", "shape"), strict=True):
        write(folder, row("clevr4", 3000, "demo", criterion, nmi=[1.0]))
    code, printed, errors = run(reproduce_tables.main, "--runs", *folders)
    assert code == 0, errors
    shots, clusters = printed.split("\n\nClustering, percent")
    assert shots.startswith("Few-shot classification, percent")
    assert "clevr4 color" in clusters and "clevr4 shape" in clusters
    assert "The paper" not in clusters and "clevr4 shape" not in shots
    theirs = "Quoted from others, not measured here: "
    assert f"{theirs}accuracy" in shots and theirs not in clusters  # not beside drawn data
    [line] = [line.split() for line in shots.splitlines() if line.startswith("CLIP+CRL")]
    assert line[-3:] == ["65.28", "65.00", "-0.28"]


# --- tables of the paper --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    """Drawn data as the demo has it, but 60 images."""
    data = tmp_path_factory.mktemp("data")
    for world in ("clevr4", "cards"):
        make_data.make(world, data, images=60, seed=0, workers=1)
    return data


@pytest.fixture
def small(monkeypatch) -> None:
    monkeypatch.setattr(plan, "QUICK_IMAGES", 60)
    monkeypatch.setattr(plan, "NUMBERS", [10, 300])


def verdicts(file: Path) -> dict[tuple[str, str], dict[str, str]]:
    """{(row, column): the line of the CSV}"""
    with file.open() as stream:
        return {(line["row"], line["column"]): line for line in csv.DictReader(stream)}


def test_the_demos_tables_end_to_end(tmp_path, run, small, drawn):
    usual = ["--demo", "--quick", "--data", drawn, "--outputs", tmp_path, "--table"]
    assert run(reproduce_tables.main, *usual, *"268", "--dry-run")[0] == 0
    assert not list(tmp_path.iterdir())
    code, printed, errors = run(reproduce_tables.main, *usual, *"268")
    assert code == 0, errors
    assert "cards_number has 210 texts and cards_suits has 237 texts, not 300" in printed

    rows = read_rows(tmp_path / "clustering/demo-clevr4/results.json")
    by_name = {(row["about"]["criterion"], row["about"]["method"]): row for row in rows}
    seeds = by_name["color", "paper"]["scores"]["nmi"]["seeds"]
    line = verdicts(tmp_path / "tables/table2.csv")["demo+CRL", "color/nmi"]
    assert float(line["ours"]) == pytest.approx(np.mean(seeds), abs=1e-4)
    assert float(line["std"]) == pytest.approx(np.std(seeds, ddof=1), abs=1e-4)
    assert (line["paper"], line["verdict"]) == ("", "measured")

    lines = verdicts(tmp_path / "tables/table6.csv")
    assert lines["10", "suits/nmi"]["verdict"] == lines["300", "color/nmi"]["verdict"] == "measured"
    assert lines["300", "suits/nmi"]["verdict"] == "not run"
    assert Image.open(tmp_path / "tables/table6.png").width > 500
    assert "cards_suits" in (tmp_path / "tables/table8.md").read_text()

    before = (tmp_path / "clustering/demo-clevr4/results.json").read_bytes()
    assert "has results" in run(reproduce_tables.main, *usual, "2", "--dry-run")[1]
    assert run(reproduce_tables.main, *usual, "2")[0] == 0
    assert (tmp_path / "clustering/demo-clevr4/results.json").read_bytes() == before


def test_half_a_data_set_does_not_stop_the_rest(tmp_path, run, small, drawn):
    data = tmp_path / "data"
    shutil.copytree(drawn, data)
    next((data / "clevr_4_10k_v1/images").glob("*.png")).unlink()
    usual = ["--demo", "--quick", "--data", data, "--outputs", tmp_path, "--table", "2"]
    code, printed, errors = run(reproduce_tables.main, *usual, "--dry-run")
    assert code == 2 and "wrong" in printed and "has 59 images, not 60" in printed
    code, printed, errors = run(reproduce_tables.main, *usual)
    assert code == 2 and errors.count("\n") == 1 and "has 59 images, not 60" in errors
    lines = verdicts(tmp_path / "tables/table2.csv")
    assert lines["demo+CRL", "suits/nmi"]["verdict"] == "measured"
    assert lines["demo+CRL", "count/nmi"]["verdict"] == "not run"


def as_the_paper(folder: Path, **changes: float) -> None:
    """Results of clustering with CLIP on Clevr4, as a machine that has the data leaves them there:
    the paper's numbers, but for `changes`. I was measured in a run with other bases."""
    settings = Settings(Path("data"), folder, Path("none"), ["clip"], demo=False, quick=False)
    clevr4 = plan.paper_tables(settings)[2].runs[""][0]
    rows = []
    for name, method in (("CLIP", "universal"), ("CLIP+CRL", "paper")):
        numbers = {column: x for part in published(2).values() for column, x in part[name].items()}
        for criterion in ("texture", "shape", "color", "count"):
            scores = {}
            for metric in ("nmi", "acc", "ari"):
                column = f"{criterion}/{metric}"
                mean = numbers[column] + changes.get(f"{name} {column}", 0.0)
                scores[metric] = [mean - 1, mean, mean + 1]
            config = clevr4.config.model_dump(mode="json") | {"root": "/elsewhere"}
            config |= {"texts": 10, "vlm": ["clip", "align"]} if method == "universal" else {}
            made = {"config": config, "environment": {"commit": "c0ffee"}}
            rows.append(row("clevr4", 10531, "clip", criterion, method, **scores) | made)
    write(clevr4.folder, *rows)


def test_verdicts_on_results_of_another_machine(tmp_path, run):
    missing, good, bad = (tmp_path / name for name in ("missing", "good", "bad"))
    usual = ["--table", 2, "--vlm", "clip", "--data", missing, "--official", missing, "--outputs"]
    as_the_paper(good)
    code, printed, errors = run(reproduce_tables.main, *usual, good)
    assert (code, errors) == (0, "")
    assert "table 2: 26 reproduced" in printed and "differs" not in printed
    text = (good / "tables/table2.md").read_text()
    assert (
        "Quoted from others" in text
        and "IC\\|TC" in text
        and "IC|TC" in (good / "index.html").read_text()
    )
    assert "IC|TC" not in (good / "tables/table2.csv").read_text()
    assert run(reproduce_tables.main, *usual, good, "--strict")[0] == 1  # Cards is missing

    as_the_paper(bad, **{"CLIP+CRL color/nmi": -1.7})  # two standard errors are 1.63
    code, printed, _ = run(reproduce_tables.main, *usual, bad)
    assert code == 1 and "table 2: 25 reproduced, 1 differs" in printed
    assert "88.67 / 86.97 ± 1.00 (-1.70) ≠" in (bad / "tables/table2.md").read_text()
    code, printed, _ = run(reproduce_tables.main, *usual, bad, "--quick")
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


def test_rivals_alone_are_those_of_three_tables(tmp_path, run):
    usual = ["--demo", "--rivals", "--dry-run", "--data", tmp_path, "--outputs", tmp_path]
    code, printed, errors = run(reproduce_tables.main, *usual)
    assert code == 0, errors
    for name in ("cc", "scan", "multi_map_color", "lincir", "pic2word", "searle", "triplet",
                 "asen", "asen_pp_stage1", "asen_pp", "rpf_stage1", "rpf"):  # fmt: skip
        assert f"_rivals demo_{name} " in printed
    assert f"{tmp_path}/oracle is not there" in printed and "--rivals was" not in printed
    assert "Table 1." not in printed and not list(tmp_path.iterdir())


def test_the_table_of_rivals_takes_what_other_machines_left(tmp_path, run):
    as_the_paper(tmp_path)
    usual = ["--rivals", "--table", "2", "--vlm", "clip", "--data", tmp_path / "no"]
    code, _, errors = run(reproduce_tables.main, *usual, "--outputs", tmp_path)
    assert code == 0, errors
    text = (tmp_path / "tables/table2-rivals.md").read_text()
    assert "CLIP+CRL" in text and "k-means is told the number" in text
    assert "Seconds by the clock" in text and (tmp_path / "tables/table2-rivals.png").exists()
