"""The plan of the tables: its mistakes, and the runs that it stands for."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml
from commands import REPOSITORY
from paper_tables.plan import CONFIGS, Plan, Settings, resolve
from paper_tables.tasks import SCRIPTS

from crl.basis import BASES, TextBasis
from crl.run.config import load_config
from crl.run.errors import UserError

PLAN = Plan.load(CONFIGS / "tables.yaml")


def settings(tmp_path: Path, **more) -> Settings:
    usual = {"vlm": [], "demo": False, "quick": False}
    places = {"data": Path("data"), "outputs": tmp_path, "official": tmp_path / "official"}
    return Settings(**places | usual | more)


def runs(number: int, chosen: Settings) -> dict[str, list]:
    """The runs of each row, those that come first too."""
    return {
        row: [one for run in found for one in run.in_order]
        for row, found in resolve(PLAN, number, chosen).items()
    }


@pytest.mark.parametrize("demo", [False, True], ids=["paper", "demo"])
@pytest.mark.parametrize("number", PLAN.tables)
def test_every_table_has_runs_whose_commands_give_their_configuration(
    tmp_path, monkeypatch, number, demo
):
    monkeypatch.chdir(REPOSITORY)
    for of_row in runs(number, settings(tmp_path, demo=demo)).values():
        for run in of_row:
            _, script, *arguments = shlex.split(run.command)
            assert (REPOSITORY / script).is_file()
            assert load_config(SCRIPTS[script].config, arguments, "") == run.config
    assert number == 8 or of_row


def test_a_training_has_the_name_that_its_evaluation_asks_for(tmp_path):
    for more, name in (
        ({}, "deepfashion"),
        ({"vlm": ["align"]}, "deepfashion-align"),
    ):
        found = {run.name.split()[0]: run for run in runs(4, settings(tmp_path, **more))[""]}
        assert found["heads"].config.name == name == found["backbone"].config.name
        assert found["backbone"].config.heads == tmp_path / "fashion_mlp" / name
        trained = found["deepfashion-backbone"].config.trained
        assert [str(path) for path in trained] == [str(tmp_path / "fashion_backbone" / name)]
    by_texts = runs(9, settings(tmp_path))
    assert {row: of[0].config.name for row, of in by_texts.items()} == {
        str(n): f"deepfashion-texts{n}" for n in PLAN.tables[9].texts
    }


def test_the_authors_lists_are_used_if_all_are_there(tmp_path):
    official = tmp_path / "official"
    official.mkdir()
    for name in ("texture", "shape", "color", "count"):
        shutil.copy(BASES / f"clevr4_{name}.yaml", official)
    clevr4, *_, cards = runs(2, settings(tmp_path))[""]
    assert clevr4.config.bases["color"] == str(official / "clevr4_color.yaml")
    assert cards.config.bases["suits"] == "cards_suits"
    (official / "clevr4_color.yaml").unlink()
    assert runs(2, settings(tmp_path))[""][0].config.bases["color"] == "clevr4_color"


def test_lists_of_other_llms_cannot_be_replaced_by_ours(tmp_path):
    rows = runs(10, settings(tmp_path))
    assert list(rows) == ["GPT-4o", "Deepseek-v3", "Gemini 2.5", "Claude 4"]
    lacking = [run.lacking for of_row in rows.values() for run in of_row]
    assert len(lacking) == 16 and all("import_official_bases.py" in why for why in lacking)


def test_a_basis_that_is_too_short_is_left_out_and_said(tmp_path):
    cards = runs(6, settings(tmp_path, demo=True))["300"][-1]
    assert (
        "cards_number" in cards.partly + cards.lacking and "not 300" in cards.partly + cards.lacking
    )
    suits = len(TextBasis.load("cards_suits").texts)
    assert suits < 300  # so none is left
    color = runs(6, settings(tmp_path, demo=True))["500"][0]
    assert "color" in color.config.criteria and "texture" not in color.config.criteria
    assert color.config.texts == 500


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (
            ("tables", 14),
            {"title": "t", "paper": "table14"},
            "unknown table of the paper 'table14'",
        ),
        (("tables", 1, "runs"), ["few-shot-clevr5"], "did you mean 'few-shot-clevr4'?"),
        (("tables", 1, "vlm"), ["clpi"], "unknown VLM 'clpi'; did you mean 'clip'?"),
        (("tables", 1, "titel"), "t", "tables.1.titel: is not a known key"),
        (("tables", "x"), {"title": "t"}, "tables.x: must be a whole number, not 'x'"),
        (("runs", "mine", "script"), "similarity_retrieval/mine.py", "unknown script"),
        (("runs", "mine", "first"), ["minr"], "unknown run 'minr'"),
        (("runs", "genecis", "bases"), {"focus_object": "scnes"}, "unknown text basis 'scnes'"),
        (("tolerance", "fixed"), "much", "tolerance.fixed: must be a number, not 'much'"),
        (("runs",), [], "runs: must hold `key: value` lines, not []"),
    ],
)
def test_mistakes_in_a_plan(tmp_path, place, value, said):
    plan = yaml.safe_load((CONFIGS / "tables.yaml").read_text())
    part = plan
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    file = tmp_path / "plan.yaml"
    file.write_text(json.dumps(plan))
    with pytest.raises(UserError) as error:
        Plan.load(file)
    assert said in str(error.value) and str(file) in str(error.value)


def test_a_wrong_key_of_a_run_is_named_when_the_table_is_made(tmp_path):
    plan = PLAN.model_copy(deep=True)
    plan.tables[2].set["seed"] = 3
    with pytest.raises(UserError, match=re.escape("unknown key 'seed'; did you mean 'seeds'?")):
        resolve(plan, 2, settings(tmp_path))
    plan.tables[2].set.pop("seed")
    plan.runs["clustering-clevr4"].bases["colour"] = "clevr4_color"
    with pytest.raises(UserError, match="colour"):
        resolve(plan, 2, settings(tmp_path))
