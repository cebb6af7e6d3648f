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


def test_which_rows_the_trainings_of_a_vlm_give(tmp_path, row_of, evaluated, toy):
    frozen, one = training(tmp_path / "frozen")
    again, three = training(tmp_path / "again", seed=2)
    vlm = str(tmp_path / "tuned/vlm")
    record = {"vlm_trained": True, "vlm_fingerprint": f"toy-{vlm}"}
    tuned, two = training(tmp_path / "tuned", seed=1, **record)
    printed = evaluated(f"trained=[{frozen}, {again}, {tuned}]", *SMALL)
    assert row_of("combiner")["about"]["combiner"] == weights_digest(one)
    starred = row_of("combiner", label="clip-b16*")["about"]
    assert starred["combiner"] == weights_digest(two) and starred["vlm"] == vlm
    about = row_of("combiner", label=f"clip-b16 ({again})")["about"]
    assert about["combiner"] == weights_digest(three)
    assert printed.count("combiner") == 3


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
        assert "combiner" in evaluated(*settings)
    else:
        says = f"{folder} was trained with another VLM than 'clip-b16' is now"
        assert evaluation_refused(*settings).startswith(says)
        assert toy["clip-b16"].images == 0 and not (tmp_path / "out").exists()


def test_real_trainings_are_evaluated(tmp_path, output, evaluated, evaluation_refused, row_of):
    vlm, other = save_clip(tmp_path / "clip"), save_clip(tmp_path / "other")
    weights = load_file(other / "open_clip_model.safetensors")
    weights["visual.proj"][0, 0] += 1
    keys = {**write_triplets(tmp_path, count=20), "vlm": vlm, "epochs": 1}

    def train(**more):
        output(train_combiner.main, **keys, **more)
        return tmp_path / "outputs/combiner" / more["name"]

    frozen = train(name="frozen")
    tuned = train(name="tuned", train_vlm=True, precision="bf16")
    settings = (f"vlm={vlm}", f"trained=[{frozen}, {tuned}]", "device=cpu", *SMALL)
    for precision in ("precision=fp32", "precision=bf16"):
        evaluated(*settings, precision)
    for label in (str(vlm), f"{vlm}*"):
        assert row_of("combiner", label=label)["precision"] == "bf16"
    save_file(weights, vlm / "open_clip_model.safetensors")
    error = evaluation_refused(*settings)
    assert error.startswith(f"{frozen} was trained with another VLM than '{vlm}' is now")
    save_file(weights, tuned / "vlm/open_clip_model.safetensors")
    error = evaluation_refused(f"vlm={vlm}", f"trained=[{tuned}]", *SMALL)
    assert error.startswith(f"{tuned} was trained with another VLM than '{tuned}/vlm' is now")
