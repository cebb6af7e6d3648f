"""Training a rival: it learns, and comes back from its folder; interruptions; every message."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from clothes import ATTRIBUTES, write_clothes
from commands import REPOSITORY
from PIL import Image
from safetensors.torch import load_file

from crl.backends.weights import save_tensors
from crl.run.config import load_config
from crl.run.errors import UserError
from crl.vlm import load_vlm
from fashion_retrieval import train_rival as module
from fashion_retrieval import trainers
from fashion_retrieval.method import mean_scores, retrieval_precision, triplet_loss
from fashion_retrieval.networks import represent_tables
from fashion_retrieval.rivals import ASEN, CSN, RIVALS, load_rival
from fashion_retrieval.rivals.towers import open_tower
from fashion_retrieval.train_rival import RivalConfig, RivalTrainer
from fashion_retrieval.trained import TrainedRival, read_training
from fashion_retrieval.trainers import TrainingData


@pytest.fixture
def keys(tmp_path, clip):
    """Pictures whose red is the texture and whose green is the shape; the configuration."""
    keys = write_clothes(tmp_path)
    for file in (tmp_path / "img").iterdir():
        texture, shape, number = Image.open(file).getpixel((0, 0))
        Image.new("RGB", (20, 20), (80 * texture, 80 * shape, number)).save(file)
    sizes = {"width": 16, "epochs": 2, "triplets": 64, "batch_size": 16, "lr": 1e-3}
    return {**keys, **sizes, "method": "csn", "tower": str(clip), "workers": 0}


def train(keys, **more):
    config = RivalConfig(**{**keys, **more})
    trainer = RivalTrainer(config, config.device)
    trainer.run()
    return trainer.folder, json.loads((trainer.folder / "results.json").read_text())


def read_back(folder):
    return load_rival(read_training(folder, list(ATTRIBUTES)), "cpu")


@pytest.mark.parametrize("method", RIVALS)
def test_trains_and_can_be_read_back(keys, method):
    folder, results = train(keys, method=method, epochs=3, triplets=160)
    if method != "triplet":  # one embedding cannot serve both attributes
        assert results["losses"][-1] < 0.9 * results["losses"][0]
    assert results["best"]["overall"] > 50 and results["step"] == 30  # by chance: about 30
    assert results["method"] == method and results["tower"] == keys["tower"]
    assert results["tower_fingerprint"] == load_vlm(keys["tower"], "cpu").fingerprint
    files = {file.name for file in folder.iterdir()}
    assert files == {"config.yaml", "rival.safetensors", "results.json", "state.pt"}

    rival = read_back(folder)
    assert (
        rival.width == 16
        and type(rival) is RIVALS[method]
        and not any(m.training for m in rival.modules())
    )
    data = TrainingData.load(RivalConfig(**keys))
    tables = [data.query, data.candidate]
    represent = represent_tables(rival, data.files, tables, "fp32", 0)
    scores = mean_scores(retrieval_precision(represent, *tables), data.query, data.attributes)
    assert scores["overall"] == pytest.approx(results["best"]["overall"], abs=1e-9)
    # The tower was trained too, and stands in the file as it is now.
    before = load_vlm(keys["tower"], "cpu").model.visual.conv1.weight
    stored = load_file(folder / "rival.safetensors")["tower.visual.conv1.weight"]
    assert torch.equal(stored, rival.tower.visual.conv1.weight)
    assert not torch.allclose(stored, before, atol=1e-4)


def test_step_of_a_resnet_and_its_file(resnet, tmp_path):
    tower = open_tower(f"resnet50:{resnet[1]}", True, "cpu")
    rival = ASEN(tower, 2, 8).train()
    former = {key: tensor.clone() for key, tensor in rival.state_dict().items()}
    optimizer = torch.optim.Adam(rival.parameters(), 1e-3)
    pixels, attribute = torch.randn(6, 3, 64, 64), torch.tensor([0, 1])
    embedded = rival.embed(rival.features(pixels, "fp32"), attribute.repeat(3))
    triplet_loss(*embedded.unflatten(0, (3, -1)), 0.9).backward()
    optimizer.step()
    state = rival.state_dict()
    changed = {key for key in state if not torch.equal(state[key], former[key])}
    assert {"tower.0.weight", "tower.6.5.conv3.weight", "embedding.weight"} <= changed
    assert not any("running" in key for key in changed if key.startswith("tower."))  # in eval mode
    save_tensors(tmp_path / "rival.safetensors", rival)
    record = {"method": "asen", "tower": tower.name, "width": 8, "attributes": ["a", "b"]}
    training = TrainedRival(folder=tmp_path, weights="rival.safetensors", **record)
    with torch.no_grad():
        features = rival.eval().features(pixels, "fp32")
        read = load_rival(training, "cpu")  # no file of the tower, and no network
        again = read.features(pixels, "fp32")
        actual = read.embed(again, attribute.repeat(3))
        assert torch.equal(actual, rival.embed(features, attribute.repeat(3)))


@pytest.mark.parametrize("method", RIVALS)
def test_seed_decides_and_interruptions_do_not(keys, method, monkeypatch, capsys):
    keys |= {"method": method, "checkpoint_every": 3}  # 4 steps an epoch
    train(keys, epochs=1, name="parts")
    loss, calls = trainers.triplet_loss, []

    def interrupted(*given):
        calls.append(None)
        if len(calls) == 4:  # step 8; the checkpoint is of step 6
            raise KeyboardInterrupt
        return loss(*given)

    monkeypatch.setattr(trainers, "triplet_loss", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(keys, name="parts")
    monkeypatch.setattr(trainers, "triplet_loss", loss)
    folder, parts = train(keys, name="parts")
    assert "going on after step 6" in capsys.readouterr().out
    whole_folder, whole = train(keys, name="whole")
    assert parts["losses"] == whole["losses"] and len(whole["losses"]) == 2
    assert parts["validation"] == whole["validation"]
    one, two = (load_file(place / "rival.safetensors") for place in (folder, whole_folder))
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    other = train(keys, name="other", seed=1, epochs=1)[1]
    assert other["losses"][0] != whole["losses"][0]


def test_identity_does_not_depend_on_places(keys, tmp_path, capsys):
    train(keys, epochs=1)
    shutil.copytree(keys["tower"], tmp_path / "elsewhere")
    train(keys, epochs=1, tower=str(tmp_path / "elsewhere"))
    assert "this training is finished; nothing to do" in capsys.readouterr().out
    refused(r"holds another training \(width 16, not 8\)", keys, width=8)
    refused(r"holds another training \(tower '\w{16}', not '\w{16}'\)", keys, tower="demo")


# --- messages ------------------------------------------------------------------------------------


def refused(match, keys, **more):
    with pytest.raises(UserError, match=match) as caught:
        train(keys, **more)
    assert "\n" not in str(caught.value)


def test_wrong_input(keys, monkeypatch):
    refused("unknown VLM 'nothing'", keys, tower="nothing")
    refused("only an open_clip VLM .* 'align' is none", keys, tower="align")
    refused("there is no file a/b.pth", keys, tower="resnet50:a/b.pth")
    refused("no data set 'Cloths'", keys, dataset="Cloths")
    monkeypatch.setattr(module, "world", lambda: 2)
    refused("rivals are trained by one process", keys)
    assert not Path(keys["outputs"]).exists()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"method": "rpf"}, "is no folder of train_mlp.py, train_backbone.py or train_rival.py"),
        (
            {"attributes": ["a"]},
            "was trained on the attributes a, the data has texture, shape; use",
        ),
        ({"tower": "gone"}, "the tower of .*run is not here: unknown VLM 'gone'"),
        ({"width": 17}, "weights do not fit csn on .*size mismatch for mask"),
        ({"method": "asen"}, "weights do not fit asen on .*Missing key"),
        ({"weights": "x"}, "has no x; train to the first validation"),
    ],
)
def test_folders_that_are_no_rival(tmp_path, keys, clip, wrong, says):
    record = {"method": "csn", "attributes": list(ATTRIBUTES), "weights": "rival.safetensors"}
    record |= {"tower": str(clip), "width": 16}
    folder = tmp_path / "run"
    save_tensors(folder / "rival.safetensors", CSN(open_tower(str(clip), False, "cpu"), 2, 16))
    (folder / "results.json").write_text(json.dumps(record))
    assert read_back(folder).width == 16
    (folder / "results.json").write_text(json.dumps({**record, **wrong}))
    with pytest.raises(UserError, match=says) as caught:
        read_back(folder)
    assert "\n" not in str(caught.value)


def test_configurations_of_the_repository():
    for name in ("deepfashion_rival", "demo/garments_csn"):
        config = load_config(RivalConfig, ["--config", f"{REPOSITORY}/configs/{name}.yaml"], "")
        assert config.margin == 0.3
    assert (config.method, config.tower, config.width) == ("csn", "demo", 256)
