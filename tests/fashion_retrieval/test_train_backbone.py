"""Stage 2 of fashion retrieval: one step against a literal one; what is trained and what is not;
the trained VLM in use. (Several processes: test_trainers.py.)"""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from clothes import ATTRIBUTES, bases_of, write_clothes, write_noise, write_training
from disturbed import finished
from PIL import Image
from safetensors.torch import load_file
from toy_network import literal

from crl.vlm import load_vlm
from fashion_retrieval import evaluate
from fashion_retrieval.networks import Heads, load_heads
from fashion_retrieval.train_backbone import BackboneConfig, BackboneTrainer
from fashion_retrieval.train_mlp import MlpConfig, MlpTrainer
from fashion_retrieval.trained import Bases, aligned, read_training
from fashion_retrieval.trainers import TrainingData

WIDTH = 6  # texts of the smallest basis


@pytest.fixture
def keys(tmp_path, clip):
    """Heads for the tiny CLIP, and pictures of noise; -> keys of the configuration."""
    keys = write_clothes(tmp_path)
    write_noise(tmp_path)
    torch.manual_seed(1)
    heads = Heads(2, WIDTH, 8)
    for head in heads.projection_heads:
        head.fc[1].running_mean.normal_(0, 0.1)
        head.fc[1].running_var.uniform_(0.5, 2)
    bases = Bases.load("Clothes", list(ATTRIBUTES), bases_of(tmp_path), None)
    record = {"vlm": str(clip), "vlm_fingerprint": load_vlm(str(clip), "cpu").fingerprint}
    keys["heads"] = str(write_training(tmp_path / "mlp", heads, bases, **record))
    return {**keys, "epochs": 2, "triplets": 26, "batch_size": 8, "lr": 1e-4, "workers": 0}


def train(keys, **more):
    return finished(BackboneTrainer(BackboneConfig(**{**keys, **more}), "cpu"))


def weights(folder):
    """Of a VLM."""
    return load_file(Path(folder) / "open_clip_model.safetensors")


def aligned_texts(keys, vlm):
    bases = Bases.load("Clothes", list(ATTRIBUTES), bases_of(Path(keys["root"])), None)
    return torch.from_numpy(aligned(bases.embed(vlm, None)))


def test_one_step_triplet_by_triplet(keys, clip, monkeypatch):
    """By the whole CLIP as open_clip computes it, and heads of torch's own layers."""
    gradients = []

    class Recorded(torch.optim.Adam):
        def step(self):
            gradients.extend(p.grad.clone() for p in self.param_groups[0]["params"])
            super().step()

    monkeypatch.setattr(torch.optim, "Adam", Recorded)
    _, results = train(keys, epochs=1, triplets=7)
    vlm = load_vlm(str(clip), device="cpu")
    data = TrainingData.load(BackboneConfig(**keys))
    network = SimpleNamespace(
        tower=vlm.model.encode_image,
        text=aligned_texts(keys, vlm),
        heads=load_heads(Path(keys["heads"]) / "heads.safetensors", 2, WIDTH),
    )
    loss = 0.0
    for triplet in data.sampler.draw(7, 0, 0):
        rows = data.sampler.labels[triplet]
        pixels = [vlm.preprocess(Image.open(data.files[n])) for n in rows[:, 0]]
        a, p, n = (literal(network, image, int(rows[0, 1])) for image in pixels)
        loss += torch.clamp(0.3 - a @ p + a @ n, min=0) / 7
    loss.backward()
    assert results["losses"] == [pytest.approx(loss.item(), abs=1e-6)] and loss > 0.1
    expected = [parameter.grad for parameter in vlm.model.visual.parameters()]
    assert len(gradients) == len(expected)
    for actual, wanted in zip(gradients, expected, strict=True):
        assert torch.allclose(actual, wanted, rtol=0, atol=1e-4 * wanted.abs().max())
        assert wanted.abs().max() > 0


def test_stage_1_leaves_the_vlm_and_stage_2_all_but_its_tower(keys, clip, tmp_path):
    before, fingerprint = weights(clip), load_vlm(str(clip), "cpu").fingerprint
    stage1 = {key: value for key, value in keys.items() if key not in ("heads", "workers")}
    stage1 |= {"vlm": str(clip), "bases": bases_of(tmp_path), "out": 8}
    first = MlpTrainer(MlpConfig(**stage1, cache=tmp_path / "cache"))
    first.run()
    vlm, heads = first.vlm, first.weights
    assert vlm.fingerprint == fingerprint == load_vlm(str(clip), "cpu").fingerprint
    assert all(torch.equal(before[key], t) for key, t in vlm.model.state_dict().items())

    fresh, stored = aligned_texts(keys, vlm), heads.read_bytes()
    second = BackboneTrainer(BackboneConfig(**keys | {"heads": first.folder}), "cpu")
    folder, results = finished(second)
    after, state = weights(folder / "vlm"), second.network.state_dict()
    for key, tensor in before.items():
        visual = key.startswith("visual.")
        assert torch.equal(after[key], tensor) != visual, key
        assert not visual or torch.equal(after[key], state[f"tower.{key.removeprefix('visual.')}"])
    for key, tensor in load_file(heads).items():
        assert torch.equal(state[f"heads.{key}"], tensor)
    assert heads.read_bytes() == stored == (folder / "heads.safetensors").read_bytes()
    assert torch.equal(state["text"], fresh)
    assert results["vlm_fingerprint"] == fingerprint and results["texts"] == WIDTH
    # The folder has all that evaluate.py needs, wherever it is.
    shutil.rmtree(first.folder)
    shutil.move(folder, tmp_path / "elsewhere")
    stage = read_training(tmp_path / "elsewhere", list(ATTRIBUTES))
    assert stage.source == f"{tmp_path}/elsewhere/vlm" and load_vlm(stage.source).fingerprint
    assert torch.equal(torch.from_numpy(aligned(stage.bases.embed(vlm, None))), fresh)


def test_trained_vlm_is_evaluated(keys, clip, tmp_path, output):
    folder, results = train(keys, epochs=1, lr=1e-2)
    values = {key: keys[key] for key in ("root", "dataset", "device")}
    values |= {"vlm": str(clip), "bases": bases_of(tmp_path), "cache": f"{tmp_path}/cache"}
    values |= {"trained": [keys["heads"], str(folder)], "outputs": f"{tmp_path}/evaluated"}
    output(evaluate.main, "figures=no", **values)
    rows = json.loads((tmp_path / "evaluated/fashion_retrieval/run/results.json").read_text())
    scores = {row["about"]["method"]: row["scores"] for row in rows["rows"]}
    best = {key: value for key, value in results["best"].items() if key != "epoch"}
    assert scores["crl"] == pytest.approx(best, abs=0.5)  # near ties
    assert scores["crl-mlp"] != scores["crl"]


def test_checkpointing_gives_the_same(keys, monkeypatch):
    recompute = mock.Mock(side_effect=torch.utils.checkpoint.checkpoint)
    monkeypatch.setattr("open_clip.transformer.checkpoint", recompute)
    plain, one = train(keys, name="plain")
    assert not recompute.called
    spare, other = train(keys, name="spare", checkpointing=True)
    assert recompute.called
    assert one["losses"] == pytest.approx(other["losses"], abs=1e-6)
    first, second = weights(plain / "vlm"), weights(spare / "vlm")
    for name in first:
        assert torch.allclose(first[name], second[name], atol=1e-5), name
