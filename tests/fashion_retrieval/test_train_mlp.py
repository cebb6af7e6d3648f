"""Stage 1: a step against a literal one, a problem that it learns, interrupted and resumed against
undisturbed; every message."""

import numpy as np
import pytest
import torch
from authors_heads import AuthorsHeads
from clothes import ATTRIBUTES, Clothes, bases_of, write_clothes
from disturbed import finished, interrupted
from PIL import Image

from crl.projection import l2
from crl.run.errors import UserError
from fashion_retrieval import train_mlp as module
from fashion_retrieval.train_mlp import MlpConfig, MlpTrainer
from fashion_retrieval.trained import Bases, aligned, read_training


@pytest.fixture
def vlm(monkeypatch):
    vlm = Clothes("clothes-1")
    monkeypatch.setattr(module, "load_vlm", lambda *_: vlm)
    return vlm


@pytest.fixture
def keys(tmp_path):
    keys = {**write_clothes(tmp_path), "bases": bases_of(tmp_path), "vlm": "demo", "out": 16}
    keys |= {"cache": str(tmp_path / "cache"), "workers": 1}
    return {**keys, "epochs": 4, "triplets": 500, "batch_size": 64, "lr": 3e-3}


def train(keys, **more):
    return finished(MlpTrainer(MlpConfig(**{**keys, **more})))


def test_one_step_against_a_literal_one(keys, vlm):
    """Separate modules; anchors, positives and negatives are batches of their own."""
    trainer = MlpTrainer(MlpConfig(**keys | {"out": 9, "triplets": 30, "batch_size": 30}))
    trainer.prepare()
    model = AuthorsHeads(2, 6, 9)
    model.load_state_dict(trainer.heads.state_dict())
    (batch,) = trainer.batches(0, 0)
    loss = trainer.step(batch)
    data = trainer.data
    text = aligned(Bases.load("Clothes", list(ATTRIBUTES), keys["bases"], None).embed(vlm, None))
    drawn = data.sampler.labels[data.sampler.draw(30, 0, 0)]  # (30, 3, 3)
    pixels = torch.stack([vlm.preprocess(Image.open(file)) for file in data.files])
    image = l2(vlm.encode_images(pixels).numpy())
    attribute = torch.from_numpy(drawn[:, 0, 1])
    parts = []
    for column in range(3):
        r = [text[a] @ image[n] for n, a, _ in drawn[:, column]]
        parts.append(model(torch.from_numpy(l2(np.stack(r))), attribute))
    a, p, n = parts
    expected = torch.clamp(0.3 - (a * p).sum(1) + (a * n).sum(1), min=0).mean()
    expected.backward()
    assert loss == pytest.approx(expected.item(), abs=1e-6) and loss > 0.1
    for actual, wanted in zip(trainer.heads.parameters(), model.parameters(), strict=True):
        assert torch.allclose(actual.grad, wanted.grad, atol=1e-5)
    for key, tensor in model.state_dict().items():  # the running statistics: three updates
        assert torch.allclose(trainer.heads.state_dict()[key], tensor, atol=1e-5), key


def test_learns_and_keeps_the_best(tmp_path, keys, vlm):
    folder, results = train(keys, epochs=10, triplets=1000, lr=1e-2)
    assert len(results["losses"]) == 10 and results["step"] == 160
    assert results["losses"][-1] < 0.75 * results["losses"][0]
    curve = [scores["overall"] for scores in results["validation"]]
    assert max(curve) > curve[0] + 3 and results["best"]["overall"] == max(curve)
    assert vlm.images == 180 and len(vlm.texts) == 15  # each once
    stage = read_training(folder, list(ATTRIBUTES))
    assert (stage.vlm, stage.fingerprint, stage.precision) == ("demo", "clothes-1", "fp32")
    assert (stage.method, stage.source) == ("crl-mlp", "demo")
    assert stage.bases == Bases.load("Clothes", list(ATTRIBUTES), keys["bases"], None)


def test_seed_decides_and_interruptions_do_not(keys, vlm):
    keys |= {"checkpoint_every": 3}  # 8 steps an epoch
    with interrupted(module, "triplet_loss", 15):  # the checkpoint is of step 12
        train(keys, name="parts")
    folder, parts = train(keys, name="parts")
    whole_folder, whole = train(keys, name="whole")
    _, other = train(keys, name="other", seed=1)
    for key in ("losses", "validation"):
        assert parts[key] == whole[key] != other[key]
    heads = [(place / "heads.safetensors").read_bytes() for place in (folder, whole_folder)]
    assert heads[0] == heads[1]


def test_rate_falls_every_three_epochs(keys, vlm):
    trainer = MlpTrainer(MlpConfig(**{**keys, "lr": 1.0, "triplets": 65}))
    rates = [trainer.rate(step) for step in range(14)]  # two steps per epoch
    assert rates == pytest.approx([1.0] * 6 + [0.9] * 6 + [0.81] * 2)


def test_another_training_in_the_folder(tmp_path, keys, vlm):
    folder, _ = train(keys, epochs=1)
    before = {file: file.read_bytes() for file in folder.iterdir()}

    def refused(match, **more):
        with pytest.raises(UserError, match=match):
            train(keys, **more)
        assert {file: file.read_bytes() for file in folder.iterdir()} == before

    refused(r"holds another training \(lr 0.003, not 0.5\)", lr=0.5)
    refused(r"holds another training \(basis '\w+', not '\w+'\)", texts=5)
    picture = tmp_path / "img/000.png"
    pixels = picture.read_bytes()
    Image.open(picture).resize((2, 2)).save(picture)
    refused("another training .data ")
    picture.write_bytes(pixels)
    vlm.fingerprint = "clothes-2"
    refused("another training .vlm 'clothes-1', not 'clothes-2'")
