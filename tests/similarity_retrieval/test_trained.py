"""Folders of trainings: which rows they give, and that their VLM must be that of the training."""

import json

import pytest
import torch
from checkpoints import save_clip
from mining_files import write_triplets
from safetensors.torch import load_file, save_file

from crl.backends.weights import save_tensors, weights_digest
from similarity_retrieval import train_combiner, trained
from similarity_retrieval.combiner import Combiner

SMALL = ("tasks=focus_object", "figures=no")


def training(folder, vlm="clip-b16", seed=0, **record):
    """A folder as train_combiner.py leaves it, for the toy; gives `folder` and the Combiner."""
    torch.manual_seed(seed)
    combiner = Combiner(5, 4, 6).eval()
    folder.mkdir(exist_ok=True)
    save_tensors(folder / "combiner.safetensors", combiner)
    record = {"vlm": vlm, "vlm_trained": False, "precision": "fp32", **record}
    record = {"vlm_fingerprint": f"toy-{vlm}", **record}
    (folder / "results.json").write_text(json.dumps(record))
    return folder, combiner


def test_a_frozen_vlm_gets_its_combiner_and_a_trained_one_rows_of_its_own(
    tmp_path, row_of, evaluated, toy
):
    frozen, one = training(tmp_path / "frozen")
    vlm = str(tmp_path / "tuned/vlm")
    tuned, two = training(
        tmp_path / "tuned", seed=1, vlm_trained=True, vlm_fingerprint=f"toy-{vlm}"
    )
    code, printed, errors = evaluated(f"trained=[{frozen}, {tuned}]", *SMALL)
    assert code == 0, errors
    assert row_of("combiner")["about"]["combiner"] == weights_digest(one)
    starred = row_of("combiner", label="clip-b16*")["about"]
    assert starred["combiner"] == weights_digest(two) and starred["vlm"] == vlm
    assert printed.count("combiner") == 2


def test_trainings_of_one_vlm_are_rows_of_their_own(tmp_path, row_of, evaluated, toy):
    folders = [training(tmp_path / str(seed), seed=seed)[0] for seed in (0, 1)]
    other, _ = training(tmp_path / "other", vlm="another", seed=2)
    code, printed, errors = evaluated(f"trained=[{folders[0]}, {folders[1]}, {other}]", *SMALL)
    assert code == 0, errors
    labels = [line.split("  ")[0] for line in printed.splitlines() if " combiner " in line]
    assert labels == ["clip-b16", f"clip-b16 ({folders[1]})", "another"]
    combiners = [row_of("combiner", label=label)["about"]["combiner"] for label in labels]
    assert len(set(combiners)) == 3


@pytest.mark.parametrize("trained_at", ["fp32", "bf16"])
@pytest.mark.parametrize("measured_at", ["fp32", "bf16"])
@pytest.mark.parametrize("same", [True, False])
def test_the_vlm_must_be_the_one_of_the_training_at_any_precision(
    tmp_path, monkeypatch, toy, evaluated, evaluation_refused, trained_at, measured_at, same
):
    plain = trained.load_vlm

    def load(name, device, precision, from_file):
        vlm = plain(name, device, precision)
        vlm.fingerprint = f"{precision}-{name}"  # as of the VLMs of crl, the precision is part
        return vlm

    monkeypatch.setattr(trained, "load_vlm", load)
    fingerprint = f"{trained_at}-clip-b16" if same else f"{trained_at}-clip-b16 of old"
    folder, _ = training(tmp_path / "mine", precision=trained_at, vlm_fingerprint=fingerprint)
    settings = (f"trained=[{folder}]", f"precision={measured_at}", *SMALL)
    if same:
        assert "combiner" in evaluated(*settings)[1]
        return
    error = evaluation_refused(*settings)
    assert error.startswith(f"{folder} was trained with another VLM than 'clip-b16' is now")
    assert toy["clip-b16"].images == 0 and not (tmp_path / "out").exists()


def test_folders_that_are_no_training_and_files_that_belong_to_one(
    tmp_path, toy, evaluation_refused
):
    folder, _ = training(tmp_path / "mine")
    error = evaluation_refused(f"combiner={folder}/combiner.safetensors")
    assert error.endswith(f"belongs to a training; give its folder: trained=[{folder}]")
    error = evaluation_refused(f"trained=[{folder}/combiner.safetensors]")
    assert "holds no training of train_combiner.py (results.json: Not a directory), nor" in error
    assert error.endswith("GeneCIS's vitb16_backbone.pt and vitb16_combiner_head.pt")
    for content in ("{", "[]", '{"rows": []}'):
        (folder / "results.json").write_text(content)
        assert "is not of train_combiner.py" in evaluation_refused(f"trained=[{folder}]")
    training(folder)
    (folder / "combiner.safetensors").unlink()
    assert "there is no file" in evaluation_refused(f"trained=[{folder}]")
    assert not toy["clip-b16"].images and not (tmp_path / "out").exists()


def test_real_trainings_are_evaluated(tmp_path, run, evaluated, evaluation_refused, row_of):
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
    for label in (str(vlm), f"{vlm}*"):
        assert row_of("combiner", label=label)["precision"] == "bf16"
    save_file(weights, vlm / "open_clip_model.safetensors")
    error = evaluation_refused(*settings)
    assert error.startswith(f"{frozen} was trained with another VLM than '{vlm}' is now")
    save_file(weights, tuned / "vlm/open_clip_model.safetensors")
    error = evaluation_refused(f"vlm={vlm}", f"trained=[{tuned}]", *SMALL)
    assert error.startswith(f"{tuned} was trained with another VLM than '{tuned}/vlm' is now")
