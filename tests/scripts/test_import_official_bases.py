"""Importing the authors' lists, from small made-up files of the same structure as theirs."""

from pathlib import Path

import import_official_bases as importer
import pytest
import yaml

from crl.basis import TextBasis

LABELS = """
import os

def data_ablation(args):
    dataset_trueLabel_dict = {{"cards": {{"number": ["not", "this"]}}}}
    # "count0": ["nor this"],
    dataset_gptLabel_dict = {{
        "cards": {{
{cards}
        }},
        "clevr4": {{
{clevr4}
        }},
        "stanford-cars": {{"color": []}},
    }}
    return dataset_gptLabel_dict[args.dataset][args.criterion]

open(os.environ["CANARY"], "w")  # so that executing this file would show
"""

MORE_CARDS = """\
            # --------gpt无温度系数--------第一行为2000个text
            # "number2000": ['uno', 'dos', 'tres'],
            "number": ["uno", "dos"],
            "suits2000": ['oros', "copas"],
            "suits": ["oros"],

            # gpt温度系数：0，0.5，1.5
            # "number0": ["uno zero"],
            # "number0.5": ["uno half"],
            # "number": ["uno hot"]
"""
MORE_CLEVR4 = """\
            "texture": ["bark", "silt", "Bark", "fog", "", "bark"],
            "shape": [
                "blob", "slab",
                "wedge",
            ], "color": ["puce"],
            "count": ["nil"],
            # "color0.5": ["teal", "ecru"],
            #
            # "color": ["ecru"],
"""
PROMPTS_CLEVR4 = """\
            # llm_prompt1
            # "color": ["p1"],
            # llm_prompt2
            # # "color": ["replaced"],
            # "color": ["p2"],
            #
            # "count": ["p2 count"],
            # llm_prompt5
            "color": ["p5"],
"""
OTHER_CLEVR4 = """\
            # deepseek
            # "color": ["d"],

            # claude
            "color": ["c"],
"""
SCENES = """
scenes = ["an early try"]
if True:
    prompt = 'a photo with a scene of '
    # scenes = ["a pier", "a quay", "a mole"]
    scenes = ["a pier", "a quay"]
"""
FASHION = """
def load_text(args):
    if args.dataset == 'DeepFashion':
        true_label = [['no'], ['no']]
        prompt = ['a fashion with a texture of ', 'a fashion with a fabric of ', 'a fashion with a shape of ',
                  'a fashion with a part of ', 'a fashion with a style of ']
        gpt_labels = [["t1", "t2"], ["f1"], ["s1"], ["p1"], ["y1"]]
    return true_label, prompt, gpt_labels
"""  # noqa: E501 - as long as theirs


@pytest.fixture
def clone(tmp_path, monkeypatch):
    monkeypatch.setenv("CANARY", str(tmp_path / "executed"))
    root = tmp_path / "clone"
    files = {
        importer.MORE_DATA: LABELS.format(cards=MORE_CARDS, clevr4=MORE_CLEVR4),
        importer.LLM_PROMPT: LABELS.format(cards="", clevr4=PROMPTS_CLEVR4),
        importer.OTHER_LLM: LABELS.format(cards="", clevr4=OTHER_CLEVR4),
        importer.SCENES: SCENES,
        importer.FASHION: FASHION,
    }
    for file, source in files.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(source, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return root


def test_every_list_becomes_a_basis(clone, run, tmp_path):
    code, printed, _ = run(importer.main, clone, "--out", "bases")
    assert code == 0
    bases = {file.stem: list(TextBasis.load(file).texts) for file in Path("bases").iterdir()}
    assert bases == {
        "cards_number": ["uno", "dos"], "cards_number_long": ["uno", "dos", "tres"],
        "cards_number_temperature0": ["uno zero"], "cards_number_temperature0.5": ["uno half"],
        "cards_number_temperature1.5": ["uno hot"],
        "cards_suits": ["oros"], "cards_suits_long": ["oros", "copas"],
        "clevr4_texture": ["bark", "silt", "Bark", "fog", "bark"],
        "clevr4_shape": ["blob", "slab", "wedge"], "clevr4_count": ["nil"],
        "clevr4_color": ["puce"], "clevr4_color_temperature0.5": ["teal", "ecru"],
        "clevr4_color_temperature1.5": ["ecru"],
        "clevr4_color_llm_prompt1": ["p1"], "clevr4_color_llm_prompt2": ["p2"],
        "clevr4_count_llm_prompt2": ["p2 count"], "clevr4_color_llm_prompt5": ["p5"],
        "clevr4_color_deepseek": ["d"], "clevr4_color_claude": ["c"],
        "genecis_scene": ["a pier", "a quay"], "genecis_scene_long": ["a pier", "a quay", "a mole"],
        "deepfashion_texture": ["t1", "t2"], "deepfashion_fabric": ["f1"],
        "deepfashion_shape": ["s1"], "deepfashion_part": ["p1"], "deepfashion_style": ["y1"],
    }  # fmt: skip
    assert "26 bases written to bases" in printed
    assert not (tmp_path / "executed").exists()
    # Repeated texts stay: the paper's numbers include them.
    [row] = [line.split() for line in printed.splitlines() if line.startswith("clevr4_texture ")]
    assert row[1:4] == ["5", "3", "80"]
    assert yaml.safe_load((tmp_path / "bases/cards_suits.yaml").read_text()) == {
        "criterion": "suits",
        "vlm_prompt": "a poker card with the card suits of {text}",
        "allow_repeats": True,
        "provenance": {"repository": importer.REPOSITORY, "file": importer.MORE_DATA, "line": 13},
        "texts": ["oros"],
    }


@pytest.mark.parametrize(
    ("file", "old", "new", "reason"),
    [
        (importer.MORE_DATA, "def data_ablation", "def data ablation", "line 4"),
        (importer.SCENES, "scenes =", "scenery =", "assigns no scenes"),
        (importer.FASHION, '"f1"', "compute()", "line 7"),
        (importer.MORE_DATA, '# "number0": ["uno zero"],', '# "number0": ["uno', "unterminated"),
    ],
)
def test_a_damaged_clone_is_one_line_and_nothing_is_written(
    clone, refusal, tmp_path, file, old, new, reason
):
    source = (clone / file).read_text(encoding="utf-8")
    (clone / file).write_text(source.replace(old, new), encoding="utf-8")
    line = refusal(importer.main, clone, "--out", "bases")
    assert reason in line and f"restore it with: git checkout -- '{file}'" in line
    assert not (tmp_path / "bases").exists()
