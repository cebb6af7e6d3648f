"""Stage 2 of fashion retrieval: one step against a literal one; what is trained and what is not;
the trained VLM in use. (Several processes: test_trainers.py.)"""

import io
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from checkpoints import save_clip
from clothes import ATTRIBUTES, bases_of, write_clothes, write_noise, write_training
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
def keys(tmp_path):
    """A tiny CLIP, heads, and pictures of noise; -> keys of the configuration."""
    keys = write_clothes(tmp_path)
    write_noise(tmp_path)
    vlm = save_clip(tmp_path / "clip")
    torch.manual_seed(1)
    heads = Heads(2, WIDTH, 8)
    for head in heads.projection_heads:
        head.fc[1].running_mean.normal_(0, 0.1)
        head.fc[1].running_var.uniform_(0.5, 2)
    bases = Bases.load("Clothes", list(ATTRIBUTES), bases_of(tmp_path), None)
    record = {"vlm": str(vlm), "vlm_fingerprint": load_vlm(str(vlm), "cpu").fingerprint}
    keys["heads"] = str(write_training(tmp_path / "mlp", heads, bases, **record))
    return {**keys, "epochs": 2, "triplets": 26, "batch_size": 8, "lr": 1e-4, "workers": 0}


def train(keys, **more):
    config = BackboneConfig(**{**keys, **more})
    trainer = BackboneTrainer(config, config.device)
    trainer.run()
    return trainer.folder, json.loads((trainer.folder / "results.json").read_text())


def weights(folder):
    """Of a VLM."""
    return load_file(Path(folder) / "open_clip_model.safetensors")


def network_of(folder):
    """The weights in the checkpoint, which begins with a digest of 16 bytes."""
    content = io.BytesIO((folder / "state.pt").read_bytes()[16:])
    return torch.load(content, weights_only=True)["models"]["network"]


def clip_of(keys):
    return f"{keys['root']}/clip"


def aligned_texts(keys, vlm):
    bases = Bases.load("Clothes", list(ATTRIBUTES), bases_of(Path(keys["root"])), None)
    return torch.from_numpy(aligned(bases.embed(vlm, None)))


def test_one_step_triplet_by_triplet(keys, monkeypatch):
    """By the whole CLIP as open_clip computes it, and heads of torch's own layers."""
    gradients = []

    class Recorded(torch.optim.Adam):
        def step(self):
            gradients.extend(p.grad.clone() for p in self.param_groups[0]["params"])
            super().step()

    monkeypatch.setattr(torch.optim, "Adam", Recorded)
    _, results = train(keys, epochs=1, triplets=7)
    vlm = load_vlm(clip_of(keys), device="cpu")
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


def test_stage_1_leaves_the_vlm_and_stage_2_all_but_its_tower(keys, tmp_path):
    before, fingerprint = weights(clip_of(keys)), load_vlm(clip_of(keys), "cpu").fingerprint
    stage1 = {key: value for key, value in keys.items() if key not in ("heads", "workers")}
    stage1 |= {"vlm": clip_of(keys), "bases": bases_of(tmp_path), "out": 8}
    trainer = MlpTrainer(MlpConfig(**stage1, cache=tmp_path / "cache"))
    trainer.run()
    vlm = trainer.vlm
    assert vlm.fingerprint == fingerprint == load_vlm(clip_of(keys), "cpu").fingerprint
    assert all(torch.equal(before[key], t) for key, t in vlm.model.state_dict().items())

    heads = trainer.weights
    fresh, stored = aligned_texts(keys, vlm), heads.read_bytes()
    folder, results = train(keys, heads=trainer.folder)
    after, state = weights(folder / "vlm"), network_of(folder)
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
    shutil.rmtree(trainer.folder)
    shutil.move(folder, tmp_path / "elsewhere")
    stage = read_training(tmp_path / "elsewhere", list(ATTRIBUTES))
    assert stage.source == f"{tmp_path}/elsewhere/vlm" and load_vlm(stage.source).fingerprint
    assert torch.equal(torch.from_numpy(aligned(stage.bases.embed(vlm, None))), fresh)


def test_trained_vlm_is_evaluated(keys, tmp_path, run):
    former = clip_of(keys)
    folder, results = train(keys, epochs=1, lr=1e-2)
    values = {key: keys[key] for key in ("root", "dataset", "device")}
    values |= {"vlm": former, "bases": bases_of(tmp_path), "trained": [keys["heads"], str(folder)]}
    values |= {"outputs": f"{tmp_path}/evaluated", "figures": False, "cache": f"{tmp_path}/cache"}
    code, _, errors = run(evaluate.main, *(f"{k}={json.dumps(v)}" for k, v in values.items()))
    assert code == 0, errors
    rows = json.loads((tmp_path / "evaluated/fashion_retrieval/run/results.json").read_text())
    scores = {row["about"]["method"]: row["scores"] for row in rows["rows"]}
    best = {key: value for key, value in results["best"].items() if key != "epoch"}
    assert scores["crl"] == pytest.approx(best, abs=0.5)  # near ties
    assert scores["crl-mlp"] != scores["crl"]


def test_checkpointing_gives_the_same(keys, monkeypatch):
    again = []
    recompute = torch.utils.checkpoint.checkpoint

    def recorded(*arguments, **options):
        again.append(None)
        return recompute(*arguments, **options)

    monkeypatch.setattr("open_clip.transformer.checkpoint", recorded)
    plain, one = train(keys, name="plain")
    assert not again
    spare, other = train(keys, name="spare", checkpointing=True)
    assert again
    assert one["losses"] == pytest.approx(other["losses"], abs=1e-6)
    first, second = weights(plain / "vlm"), weights(spare / "vlm")
    for name in first:
        assert torch.allclose(first[name], second[name], atol=1e-5), name
