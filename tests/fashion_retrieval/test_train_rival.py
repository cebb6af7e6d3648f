"""Training a rival: it learns, and comes back from its folder; interruptions."""

import pytest
import torch
from clothes import ATTRIBUTES, write_clothes
from disturbed import finished, interrupted
from PIL import Image
from safetensors.torch import load_file

from crl.vlm import load_vlm
from fashion_retrieval import networks
from fashion_retrieval.method import mean_scores, retrieval_precision
from fashion_retrieval.networks import represent_tables
from fashion_retrieval.rivals import RIVALS, load_rival
from fashion_retrieval.train_rival import RivalConfig, RivalTrainer
from fashion_retrieval.trained import read_training
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
    return finished(RivalTrainer(RivalConfig(**{**keys, **more}), "cpu"))


@pytest.mark.parametrize("method", RIVALS)
def test_trains_and_can_be_read_back(keys, method):
    folder, results = train(keys, method=method, epochs=3, triplets=160)
    if method != "triplet":  # one embedding cannot serve both attributes
        assert results["losses"][-1] < 0.9 * results["losses"][0]
    assert results["best"]["overall"] > 50 and results["step"] == 30  # by chance: about 30
    rival = load_rival(read_training(folder, list(ATTRIBUTES)), "cpu")
    assert type(rival) is RIVALS[method] and not any(m.training for m in rival.modules())
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


@pytest.mark.parametrize("method", RIVALS)
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
