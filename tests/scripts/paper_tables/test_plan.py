"""The thirteen tables and the runs that they stand for."""

import json
import shlex
import shutil
from pathlib import Path

import pytest
from commands import REPOSITORY
from paper_tables.numbers import published
from paper_tables.plan import paper_tables
from paper_tables.runs import Run, Settings, script_of

from crl.basis import BASES
from crl.run.config import load_config


def tables(outputs: Path, vlm=(), demo=False):
    settings = Settings(Path("data"), outputs, outputs / "official", list(vlm), demo, quick=False)
    return paper_tables(settings)


def runs(table) -> list[Run]:
    return [one for row in table.runs.values() for run in row for one in [*run.before, run]]


@pytest.mark.parametrize("demo", [False, True], ids=["paper", "demo"])
def test_every_command_gives_its_configuration(tmp_path, monkeypatch, demo):
    monkeypatch.chdir(REPOSITORY)
    by_number = tables(tmp_path, demo=demo)
    assert list(by_number) == list(range(1, 14))
    for number, table in by_number.items():
        assert bool(runs(table)) == (number != 8)
        for run in runs(table):
            _, script, *arguments = shlex.split(run.command)
            assert (REPOSITORY / script).is_file()
            assert load_config(script_of(run.task)[2], arguments, "") == run.config


def test_the_rows_are_those_of_the_paper(tmp_path):
    for number, table in tables(tmp_path).items():
        if table.varied:
            for part in published(number).values():
                assert list(part) == list(table.runs)
        elif number != 8:
            rows = {row for part in published(number).values() for row in part}
            assert {*table.quoted, *table.trained} <= rows


def test_a_training_has_the_name_that_its_evaluation_asks_for(tmp_path):
    for vlms, name in (([], "deepfashion"), (["align"], "deepfashion-align")):
        by_name = {run.name: run for run in runs(tables(tmp_path, vlms)[4])}
        [backbone] = [run for run in by_name.values() if run.task == "fashion_backbone"]
        [evaluation] = [r for n, r in by_name.items() if "after fashion_backbone" in n]
        assert backbone.config.name == name
        assert backbone.config.heads == tmp_path / "fashion_mlp" / name
        assert evaluation.config.trained == [tmp_path / "fashion_backbone" / name]


def test_the_authors_lists_are_used_if_all_are_there(tmp_path):
    official = tmp_path / "official"
    official.mkdir()
    for name in ("texture", "shape", "color", "count"):
        shutil.copy(BASES / f"clevr4_{name}.yaml", official)
    clevr4, *_, cards = tables(tmp_path)[2].runs[""]
    assert clevr4.config.bases["color"] == str(official / "clevr4_color.yaml")
    assert cards.config.bases == {} and cards.bases["suits"] == "cards_suits"  # ours
    (official / "clevr4_color.yaml").unlink()
    assert tables(tmp_path)[2].runs[""][0].config.bases == {}


def test_lists_of_other_llms_and_bases_that_are_too_short_are_left_out_and_named(tmp_path):
    lacking = runs(tables(tmp_path)[10])
    assert len(lacking) == 16
    assert all("import_official_bases.py" in run.lacking for run in lacking)
    color, cards = tables(tmp_path, demo=True)[6].runs["500"]
    assert set(color.config.criteria) == {"shape", "color", "count"} and color.config.texts == 500
    assert "clevr4_texture has 479 texts, not 500" in color.partly and not color.lacking
    assert "cards_suits has 237 texts, not 500" in cards.lacking  # so none is left


def test_rivals_start_only_if_asked_but_what_has_ended_is_taken(tmp_path):
    def reasons(**rivals) -> dict[str, str]:
        settings = Settings(tmp_path, tmp_path, tmp_path, [], True, quick=False, **rivals)
        every = runs(paper_tables(settings)[2])
        for run in every:
            run.do(dry=True)
        return {run.config.name: run.reason for run in every if run.task == "clustering_rivals"}

    assert reasons()["demo_cc"] == "--rivals was not given"
    assert "Clevr4 is not in" in reasons(rivals=True)["demo_cc"]
    cc = tmp_path / "clustering_rivals/demo_cc"
    cc.mkdir(parents=True)
    (cc / "results.json").write_text(json.dumps({"losses": [1.0] * 13}))
    assert reasons()["demo_cc"] == "--rivals was not given"
    (cc / "results.json").write_text(json.dumps({"losses": [1.0] * 14}))  # all epochs
    assert "Clevr4 is not in" in reasons()["demo_cc"]


def test_rows_of_a_rival_are_those_of_its_training(tmp_path):
    every = [run for run in runs(tables(tmp_path, demo=True)[3]) if run.measures]
    evaluation = next(run for run in every if run.config.rivals)
    config = evaluation.config.model_dump(mode="json")
    rows = [
        {"about": {"method": "image", "basis": "-"}, "config": config},
        {"about": {"method": "pic2word, that", "rival": "d"}, "config": config},
        {"about": {"method": "x, that", "rival": "d"}, "config": config | {"rivals": ["x"]}},
    ]
    content = {"format": "crl-results-2", "rows": [row | {"scores": {}} for row in rows]}
    evaluation.folder.mkdir(parents=True)
    (evaluation.folder / "results.json").write_text(json.dumps(content))
    assert [row["about"]["method"] for row in evaluation.kept()] == ["pic2word, that"]
