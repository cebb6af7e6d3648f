"""Training a rival: it learns, and comes back from its folder; interruptions."""

import json
import shutil
from unittest import mock

import numpy as np
import pytest
import torch
from clothes import ATTRIBUTES, write_clothes, write_noise
from disturbed import finished, interrupted
from PIL import Image
from safetensors.torch import load_file

from crl.run.errors import UserError
from crl.vlm import load_vlm
from fashion_retrieval import networks
from fashion_retrieval.method import mean_scores, retrieval_precision
from fashion_retrieval.networks import represent_tables
from fashion_retrieval.rivals import RIVALS, load_rival, two_stage
from fashion_retrieval.train_rival import RivalConfig, RivalTrainer
from fashion_retrieval.trained import read_training
from fashion_retrieval.trainers import TrainingData


@pytest.fixture(scope="module")
def clothes(tmp_path_factory):
    """Pictures whose red is the texture and whose green is the shape; keys of the data."""
    folder = tmp_path_factory.mktemp("clothes")
    keys = write_clothes(folder)
    for file in (folder / "img").iterdir():
        texture, shape, number = Image.open(file).getpixel((0, 0))
        Image.new("RGB", (20, 20), (80 * texture, 80 * shape, number)).save(file)
    return keys


@pytest.fixture
def keys(clothes, tmp_path, clip):
    sizes = {"width": 16, "epochs": 2, "triplets": 32, "batch_size": 8, "lr": 1e-3}
    return {
        **clothes,
        "outputs": str(tmp_path / "outputs"),
        **sizes,
        "method": "csn",
        "tower": str(clip),
        "workers": 0,
        "local": "small",
    }


NAMES = {  # of the weights that former versions have written, beside the tower's
    "triplet": "embedding.bias embedding.weight",
    "csn": "embedding.bias embedding.weight mask",
    "asen": "attribute.weight channel.0.bias channel.0.weight channel.2.bias channel.2.weight "
    "embedding.bias embedding.weight position.0.bias position.0.weight position.1.bias "
    "position.1.num_batches_tracked position.1.running_mean position.1.running_var "
    "position.1.weight where.0.bias where.0.weight which.0.bias which.0.weight",
}


def train(keys, **more):
    return finished(RivalTrainer(RivalConfig(**{**keys, **more}), "cpu"))


@pytest.mark.parametrize("method", RIVALS)
def test_trains_and_can_be_read_back(keys, method):
    folder, results = train(keys, method=method, epochs=2, triplets=160, validate_every=2)
    # One embedding cannot serve both attributes; to RPF they only say where to look.
    if method not in ("triplet", "rpf"):
        assert results["losses"][-1] < 0.9 * results["losses"][0]
    assert results["best"]["overall"] > 50 and results["step"] == 40  # by chance: about 30
    rival = load_rival(read_training(folder, list(ATTRIBUTES)), "cpu")
    assert type(rival) is RIVALS[method] and not any(m.training for m in rival.modules())
    data = TrainingData.load(RivalConfig(**keys))
    tables = [data.query, data.candidate]
    represent = represent_tables(rival, data.files, tables, "fp32", 0)
    scores = mean_scores(retrieval_precision(represent, *tables), data.query, data.attributes)
    assert scores["overall"] == pytest.approx(results["best"]["overall"], abs=1e-9)
    # The tower was trained too, and stands in the file as it is now.
    before = load_vlm(keys["tower"], "cpu").model.visual.conv1.weight
    weights = load_file(folder / "rival.safetensors")
    stored = weights["tower.visual.conv1.weight"]
    assert torch.equal(stored, rival.tower.visual.conv1.weight)
    assert not torch.allclose(stored, before, atol=1e-4)
    if method in NAMES:
        assert " ".join(sorted(k for k in weights if not k.startswith("tower."))) == NAMES[method]


@pytest.mark.parametrize("method", ["asen", "rpf"])  # with running statistics; with random numbers
def test_seed_decides_and_interruptions_do_not(keys, method):
    keys |= {"method": method, "checkpoint_every": 3}  # 4 steps an epoch
    train(keys, epochs=1, name="parts")
    with interrupted(networks, "stacked_triplet_loss", 4):  # step 8; the checkpoint is of step 6
        train(keys, name="parts")
    folder, parts = train(keys, name="parts")
    whole_folder, whole = train(keys, name="whole")
    assert parts["losses"] == whole["losses"] and len(whole["losses"]) == 2
    assert parts["validation"] == whole["validation"]
    one, two = (load_file(place / "rival.safetensors") for place in (folder, whole_folder))
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    other = train(keys, name="other", seed=1, epochs=1)[1]
    assert other["losses"][0] != whole["losses"][0]


TWO_STAGES = ["asen_pp", "rpf"]


@pytest.fixture
def first(keys):
    """A function that trains stage 1 of a method; -> the keys of stage 2."""

    def train_first(method):
        folder, results = train(keys, method=method, epochs=1, name="first")
        assert results["method"] == f"{method}-stage1"
        return {**keys, "method": method, "stage1": str(folder), "name": "second"}

    return train_first


@pytest.mark.parametrize("method", TWO_STAGES)
def test_stage_2_goes_on_from_stage_1_and_interruptions_change_nothing(first, method):
    stage2, attributes = first(method), list(ATTRIBUTES)
    trainer = RivalTrainer(RivalConfig(**stage2), "cpu")
    stage1 = load_rival(read_training(trainer.config.stage1, attributes), "cpu").state_dict()
    begin = trainer.rival.state_dict()
    assert all(torch.equal(begin[key], stage1[key]) for key in stage1)
    folder, results = finished(trainer)
    rates = [group["lr"] for group in trainer.optimizer.param_groups]
    decay = 0.9 if method == "asen_pp" else 1.0  # in the second epoch
    assert rates == pytest.approx([1e-3 * decay, 1e-5 * decay])
    rival = load_rival(read_training(folder, attributes), "cpu")
    weights = rival.state_dict()
    local = {key for key in weights if key.startswith("local.")}
    assert weights.keys() - local == stage1.keys() and local
    assert not torch.equal(weights["attribute.weight"], stage1["attribute.weight"])
    data = TrainingData.load(trainer.config)
    represent = represent_tables(rival, data.files, [data.query, data.candidate], "fp32", 0)
    scores = retrieval_precision(represent, data.query, data.candidate)
    assert 100 * scores.mean() == pytest.approx(results["best"]["overall"], abs=1e-9)
    assert represent(data.query[:1, 0], 0).shape == (1, 32)  # twice the width
    stage2 |= {"checkpoint_every": 3, "name": "parts"}
    with interrupted(two_stage, "stacked_triplet_loss", 13):  # two a step: step 7
        train(stage2)
    parts_folder, parts = train(stage2)
    for key in ("losses", "validation"):
        assert parts[key] == results[key] and len(parts[key]) == 2
    again = load_file(parts_folder / "rival.safetensors")
    assert again.keys() == weights.keys() and all(torch.equal(again[k], weights[k]) for k in again)


def test_stage_1_of_rpf_mirrors_pictures_in_training_only(keys, tmp_path):
    root = shutil.copytree(keys["root"], tmp_path / "noise")
    write_noise(root)
    keys |= {"root": root, "method": "rpf", "epochs": 1}
    trainer = RivalTrainer(RivalConfig(**keys), "cpu")
    given = []
    with mock.patch.object(networks.Network, "features", autospec=True) as features:
        features.side_effect = lambda self, pixels, _: given.append(pixels) or self.tower(pixels)
        finished(trainer)
    for step, (image, *_) in enumerate(trainer.batches(0, 0)):
        changed = (given[step] != image).flatten(1).any(1)
        assert 0.2 < changed.float().mean() < 0.8
        mirrored = torch.where(changed[:, None, None, None], image.flip(-1), image)
        assert torch.equal(given[step], mirrored)
    data, preprocess = trainer.data, trainer.network.preprocess
    images = np.unique(np.concatenate([data.query, data.candidate])[:, 0])
    assert torch.equal(torch.cat(given[4:]), networks.Pixels(data.files, preprocess)[images])


def test_what_stage_2_refuses(keys, first, tmp_path):
    def refusal(**more):
        with pytest.raises(UserError) as error:
            train(stage2, **{"name": "refused", **more})
        assert not (tmp_path / "outputs/fashion_rivals/refused").exists()
        return str(error.value)

    stage2 = first("asen_pp")
    assert "nowhere is no folder of train_mlp.py" in refusal(stage1="nowhere")
    of_another = "first holds asen_pp-stage1, not stage 1 of rpf; only asen_pp and rpf have"
    assert of_another in refusal(method="rpf")
    assert "not stage 1 of csn" in refusal(method="csn")
    assert "there is no file lost.pt" in refusal(local="lost.pt")
    other = tmp_path / "resnet.pt"
    torch.save(torch.nn.Linear(2, 2).state_dict(), other)
    assert f"the weights do not fit a ResNet34: {other}" in refusal(local=str(other))
    record = tmp_path / "outputs/fashion_rivals/first/results.json"
    content = json.loads(record.read_text())
    record.write_text(json.dumps({**content, "width": 7}))
    assert "the weights do not fit asen_pp-stage1 on " in refusal()
