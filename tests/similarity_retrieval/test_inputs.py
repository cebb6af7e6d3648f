"""What evaluate.py is given: embeddings made elsewhere, folders of trainings, and bad settings."""

import json

import numpy as np
import pytest
import torch
from checkpoints import save_clip
from mining_files import write_triplets
from safetensors.torch import load_file, save_file
from toy_vlm import ToyVLM, direct

from crl.backends.weights import save_tensors, weights_digest
from crl.basis import TextBasis
from crl.projection import l2
from similarity_retrieval import inputs, train_combiner
from similarity_retrieval.combiner import Combiner
from similarity_retrieval.inputs import ON_PLACES

IMAGES, CANDIDATES = 24, 5


def features_of(root, constant=False):
    """The toy's embeddings of the object tasks as a features file."""
    vlm = ToyVLM()
    image = direct(vlm, [root / "coco/val2017" / f"{i:012d}.jpg" for i in range(IMAGES)])
    conditions = ["cat", "dog", "red"]
    basis = TextBasis.load("genecis_scene")
    five = [[p.replace("{condition}", c) for p in ON_PLACES] for c in conditions]
    return {
        "ids": np.arange(IMAGES),
        "image": np.ones_like(image) if constant else image,
        "scene_text": l2(vlm.encode_texts(basis.prompts).numpy()),
        "conditions": np.array(conditions),
        "caption_plain": vlm.encode_texts(conditions).numpy(),
        "captions5": np.stack([vlm.encode_texts(prompts).numpy() for prompts in five]),
    }


def test_a_constant_scorer_has_chance_and_the_tie_is_reported(cells, genecis, evaluated):
    file = genecis / "same.npz"
    np.savez(file, **features_of(genecis, constant=True))
    code, printed, errors = evaluated(f"features={file}")
    assert code == 0, errors
    cell = cells()["same.npz", "focus_object"]
    for method in ("image", "text", "image+text", "crl"):
        assert cell["scores"][method] == pytest.approx(cell["scores"]["chance"])
        assert cell["other_tie_policy"][method]["R@1"] == 100
    assert "ties; tie_policy=paper gives R@1 100.0" in printed


def test_the_papers_tie_policy_puts_the_target_first(cells, genecis, evaluated):
    file = genecis / "same.npz"
    np.savez(file, **features_of(genecis, constant=True))
    code, printed, _ = evaluated(f"features={file}", "tie_policy=paper")
    cell = cells()["same.npz", "focus_object"]
    assert code == 0 and cell["scores"]["crl"]["R@1"] == 100
    assert cell["other_tie_policy"]["crl"]["R@1"] == pytest.approx(100 / CANDIDATES)
    assert "ties; tie_policy=fair gives R@1 20.0" in printed


def test_embeddings_made_elsewhere_give_the_same_numbers(cells, genecis, toy, evaluated):
    assert evaluated()[0] == 0
    file = genecis / "mine.npz"
    np.savez(file, **features_of(genecis))
    assert evaluated(f"features={file}")[0] == 0
    found = cells()
    for task in ("focus_object", "change_object"):
        assert found["mine.npz", task]["scores"] == found["clip-b16", task]["scores"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"ids": np.arange(IMAGES) // 2}, "twice"),
        ({"ids": np.arange(IMAGES) / 2}, "whole numbers or texts"),
        ({"ids": np.arange(3)}, "not ids (3,), image (24, 5)"),
        ({"image": np.full((IMAGES, 5), np.nan)}, "holds NaN or infinity"),
        ({"scene_text": np.zeros((0, 5))}, "scene_text is empty"),
        ({"captions5": np.ones((3, 5, 4))}, "captions5 (3, 5, 4)"),
        ({"conditions": np.array(["cat", "cow", "red"])}, "lacks 1 of 3 conditions"),
        ({"ids": np.arange(IMAGES) + 2}, "lacks 2 of"),
        ({"caption_plain": np.zeros((3, 5))}, "row of zeros"),
    ],
)
def test_bad_features_are_one_line_and_nothing_is_written(
    genecis, change, says, evaluation_refused
):
    file = genecis / "bad.npz"
    np.savez(file, **{**features_of(genecis), **change})
    errors = evaluation_refused(f"features={file}")
    assert says in errors
    assert not (genecis.parent / "out").exists()


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["weight=.inf"], "finite"),
        (["bases={focus_objekt: genecis_scene}"], "did you mean 'focus_object'"),
        (["weigth=3"], "did you mean 'weight'"),
        (["tasks=[focus_objects]"], "focus_object"),
        (["finetuned_combiner=x.pt"], "needs finetuned"),
        (["prompts={focus_object: [a dog], change_object: []}"], "has no {condition}"),
        (["bases={focus_object: genecis_scene}"], "nothing about change_object"),
        (["bases={focus_object: genecis_scne, change_object: genecis_scene}"], "genecis_scene"),
        (["combiner=nowhere.pt"], "nowhere.pt"),
        (["embeddings=nowhere"], "nowhere holds no embeddings"),
    ],
)
def test_bad_settings_are_one_line(genecis, toy, overrides, says, evaluation_refused):
    errors = evaluation_refused(*overrides)
    assert says in errors
    assert not (genecis.parent / "out").exists()


def test_nothing_is_encoded_when_an_image_is_missing(genecis, toy, evaluation_refused):
    for number in (3, 7):
        (genecis / f"coco/val2017/{number:012d}.jpg").unlink()
    errors = evaluation_refused()
    assert not toy
    assert "2 of" in errors and "000000000003.jpg" in errors and "cocodataset.org" in errors


def test_a_damaged_image_is_named_and_no_results_are_written(genecis, toy, evaluation_refused):
    file = genecis / "coco/val2017/000000000005.jpg"
    file.write_bytes(file.read_bytes()[:60])
    errors = evaluation_refused()
    assert file.name in errors
    assert not list((genecis.parent / "out").rglob("*.*"))


def test_a_combiner_of_another_width_is_refused_before_anything_is_encoded(
    genecis, toy, evaluation_refused
):
    torch.save(Combiner(8, 4, 6).state_dict(), genecis / "wide.pt")
    errors = evaluation_refused(f"combiner={genecis}/wide.pt")
    assert "8" in errors and "5" in errors
    assert toy["clip-b16"].images == 0


def test_the_bases_of_all_tasks_are_checked_before_the_first(genecis, toy, evaluation_refused):
    TextBasis(criterion="x", vlm_prompt="{text}", texts=["a"]).save(genecis / "one.yaml")
    bases = f"bases={{focus_object: genecis_scene, change_object: {genecis}/one.yaml}}"
    assert "the basis for 'x' needs 2 texts or more" in evaluation_refused(bases)
    assert not list((genecis.parent / "out").rglob("*.json"))


# --- folders of train_combiner.py -----------------------------------------------------------------


def training(folder, vlm="clip-b16", seed=0, **record):
    """A folder as train_combiner.py leaves it, for the toy; gives `folder` and the Combiner."""
    torch.manual_seed(seed)
    combiner = Combiner(5, 4, 6).eval()
    save_tensors(folder / "combiner.safetensors", combiner)
    record = {"vlm": vlm, "vlm_trained": False, "precision": "fp32", **record}
    record = {"vlm_fingerprint": f"toy-{vlm}", **record}
    (folder / "results.json").write_text(json.dumps(record))
    return folder, combiner


SMALL = ("tasks=focus_object", "figures=no")


def test_a_frozen_vlm_gets_its_combiner_and_a_trained_one_rows_of_its_own(
    tmp_path, cells, evaluated, toy
):
    frozen, one = training(tmp_path / "frozen")
    vlm = str(tmp_path / "tuned/vlm")
    tuned, two = training(
        tmp_path / "tuned", seed=1, vlm_trained=True, vlm_fingerprint=f"toy-{vlm}"
    )
    code, printed, errors = evaluated(f"trained=[{frozen}, {tuned}]", *SMALL)
    assert code == 0, errors
    found = cells()
    assert set(found) == {("clip-b16", "focus_object"), ("clip-b16*", "focus_object")}
    assert found["clip-b16", "focus_object"]["combiner_hash"] == weights_digest(one)
    assert found["clip-b16*", "focus_object"]["combiner_hash"] == weights_digest(two)
    assert found["clip-b16*", "focus_object"]["vlm"] == vlm
    assert printed.count("combiner") == 2


def test_trainings_of_one_vlm_are_rows_of_their_own(tmp_path, evaluated, toy):
    folders = [training(tmp_path / str(seed), seed=seed)[0] for seed in (0, 1)]
    other, _ = training(tmp_path / "other", vlm="another")
    code, printed, errors = evaluated(f"trained=[{folders[0]}, {folders[1]}, {other}]", *SMALL)
    assert code == 0, errors
    rows = [line.split()[0] for line in printed.splitlines() if " combiner " in line]
    assert rows == ["clip-b16", "clip-b16", "another"] and printed.count("note: clip-b16 [") == 2


@pytest.mark.parametrize("trained", ["fp32", "bf16"])
@pytest.mark.parametrize("measured", ["fp32", "bf16"])
@pytest.mark.parametrize("same", [True, False])
def test_the_vlm_must_be_the_one_of_the_training_at_any_precision(
    tmp_path, monkeypatch, toy, evaluated, evaluation_refused, trained, measured, same
):
    plain = inputs.load_vlm

    def load(name, device, precision, from_file):
        vlm = plain(name, device, precision)
        vlm.fingerprint = f"{precision}-{name}"  # as of the VLMs of crl, the precision is part
        return vlm

    monkeypatch.setattr(inputs, "load_vlm", load)
    fingerprint = f"{trained}-clip-b16" if same else f"{trained}-clip-b16 of old"
    folder, _ = training(tmp_path / "mine", precision=trained, vlm_fingerprint=fingerprint)
    settings = (f"trained=[{folder}]", f"precision={measured}", *SMALL)
    if same:
        assert "combiner" in evaluated(*settings)[1]
        return
    said = evaluation_refused(*settings)
    assert said.startswith(f"{folder} was trained with another VLM than 'clip-b16' is now")
    assert toy["clip-b16"].images == 0 and not (tmp_path / "out").exists()


def test_folders_that_are_no_training_and_files_that_belong_to_one(
    tmp_path, toy, evaluated, evaluation_refused
):
    folder, _ = training(tmp_path / "mine")
    for key in ("combiner", "finetuned_combiner"):
        said = evaluation_refused(f"{key}={folder}/combiner.safetensors", "finetuned=tuned")
        assert said.endswith(f"belongs to a training; give its folder: trained=[{folder}]")
    said = evaluation_refused(f"trained=[{tmp_path}/none]")
    assert "none holds no training of train_combiner.py" in said
    said = evaluation_refused(f"trained=[{folder}/combiner.safetensors]")
    assert "holds no training of train_combiner.py (results.json: Not a directory)" in said
    for content in ("{", "[]", '{"cells": []}'):
        (folder / "results.json").write_text(content)
        assert "is not of train_combiner.py" in evaluation_refused(f"trained=[{folder}]")
    training(folder)
    (folder / "combiner.safetensors").unlink()
    assert "there is no file" in evaluation_refused(f"trained=[{folder}]")
    assert not toy["clip-b16"].images and not (tmp_path / "out").exists()


def test_real_trainings_are_evaluated(tmp_path, run, evaluated, evaluation_refused, cells):
    vlm, other = save_clip(tmp_path / "clip"), save_clip(tmp_path / "other")
    weights = load_file(other / "open_clip_model.safetensors")
    weights["visual.proj"][0, 0] += 1
    keys = {**write_triplets(tmp_path, count=20), "vlm": vlm, "epochs": 1}

    def train(**more):
        settings = [f"{key}={value}" for key, value in {**keys, **more}.items()]
        assert run(train_combiner.main, *settings)[0] == 0
        return tmp_path / "outputs/combiner" / more["name"]

    frozen = train(name="frozen")
    tuned = train(name="tuned", train_vlm=True, precision="bf16")
    settings = (f"vlm={vlm}", f"trained=[{frozen}, {tuned}]", "device=cpu", *SMALL)
    for precision in ("precision=fp32", "precision=bf16"):
        assert evaluated(*settings, precision)[0] == 0
    found = cells()
    assert {label for label, _ in found} == {str(vlm), f"{vlm}*"}
    assert all("combiner" in cell["scores"] for cell in found.values())
    save_file(weights, vlm / "open_clip_model.safetensors")
    said = evaluation_refused(*settings)
    assert said.startswith(f"{frozen} was trained with another VLM than '{vlm}' is now")
    save_file(weights, tuned / "vlm/open_clip_model.safetensors")
    said = evaluation_refused(f"vlm={vlm}", f"trained=[{tuned}]", *SMALL)
    assert said.startswith(f"{tuned} was trained with another VLM than '{tuned}/vlm' is now")
