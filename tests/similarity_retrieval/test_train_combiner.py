"""Training the Combiner: processes against one, killed and resumed against undisturbed, what is
saved, and how pictures are augmented."""

import json

import numpy as np
import pytest
import torch
import toy_vlm
from checkpoints import save_clip
from commands import REPOSITORY, run_python
from disturbed import interrupted
from mining_files import write_triplets
from PIL import Image
from safetensors.torch import load_file

from crl.backends.loaded import Preprocess
from crl.run.errors import UserError
from crl.run.training import warmup_cosine
from crl.vlm import load_vlm
from similarity_retrieval import train_combiner as module
from similarity_retrieval.combiner import Combiner
from similarity_retrieval.combiner_features import Pixels, augmentation
from similarity_retrieval.mining.triplets import MinedTriplets, read_triplets
from similarity_retrieval.train_combiner import TrainConfig, plan, recalls


def train(keys, **more):
    config = TrainConfig(**{**keys, **more})
    module.train(config)
    folder = config.outputs / "combiner" / config.name
    return folder, json.loads((folder / "results.json").read_text())


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def toy(monkeypatch):
    """The toy VLM in place of the one asked for."""
    vlm = toy_vlm.ToyVLM()
    monkeypatch.setattr(module, "load_vlm", lambda *_: vlm)
    return vlm


TOY = """
import sys
sys.path.append(sys.argv.pop(1))
import torch, toy_vlm
from similarity_retrieval import train_combiner as module
torch.set_num_threads(1)
module.load_vlm = lambda *_: toy_vlm.ToyVLM()
module.main()
"""


def test_torchrun_trains_as_one_process_does(tmp_path, toy):
    keys = {**write_triplets(tmp_path), "batch_size": 26, "epochs": 5}
    (tmp_path / "toy.py").write_text(TOY)
    settings = [f"{key}={value}" for key, value in {**keys, "name": "two"}.items()]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = run_python(*launcher, tmp_path / "toy.py", REPOSITORY / "tests/helpers", *settings)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch 1/5") == 1  # one of them speaks
    two = json.loads((tmp_path / "outputs/combiner/two/results.json").read_text())
    _, one = train(keys, accumulate=2, name="one")
    assert (one["processes"], two["processes"]) == (1, 2)
    assert np.allclose(one["losses"], two["losses"], rtol=0, atol=1e-5)
    assert len(one["losses"]) == 5 and len(set(one["losses"])) == 5


def test_learning_rate():
    rates = [warmup_cosine(step, 104, 2.0, 4, lowest=1e-3) for step in range(105)]
    assert rates[:5] == [0.5, 1.0, 1.5, 2.0, 2.0]
    assert rates[54] == pytest.approx(2 * (0.001 + 0.999 / 2))
    assert rates == rates[:4] + sorted(rates[4:], reverse=True)
    assert rates[104] == pytest.approx(2e-3)


def test_every_epoch_visits_each_training_triplet_once_in_another_order():
    config = TrainConfig(batch_size=8, accumulate=2)
    plans = [plan(47, 6, epoch, config) for epoch in range(2)]
    for rows in plans:
        assert rows.shape == (5, 1, 2, 4)
        assert len(set(rows.flatten())) == 40 and rows.min() >= 6 and rows.max() < 47
    assert not np.array_equal(*plans)
    assert np.array_equal(plans[1], plan(47, 6, 1, config))


def test_recalls_against_a_loop():
    rng = torch.Generator().manual_seed(0)
    image, text = (torch.randn(30, 4, generator=rng) for _ in range(2))
    index = np.random.default_rng(0).integers(0, 25, (3, 1100))  # more than one chunk
    data = MinedTriplets([""] * 30, [""] * 30, *index)
    combiner = Combiner(4, 8, 8).eval()
    shares = recalls(combiner, data, image, text)
    gallery = sorted({int(i) for i in data.target})
    places = []  # of the targets among the candidates, from 0
    for reference, target, condition in index.T:
        with torch.no_grad():
            query = combiner(image[None, reference], text[None, condition])[0]
        scores = {g: float(query @ (image[g] / image[g].norm())) for g in gallery}
        places.append(sorted(gallery, key=lambda g: -scores[g]).index(target))
    assert shares["triplets"] == 1100 and shares["candidates"] == len(gallery)
    for k in (1, 5, 10):
        assert shares[f"recall@{k}"] == pytest.approx(100 * np.mean(np.array(places) < k))
    for useless in (torch.ones(30, 4), torch.full((30, 4), torch.nan)):  # finds nothing
        assert recalls(combiner, data, useless, useless)["recall@10"] == 0


def test_each_image_and_text_is_embedded_once_and_the_loss_falls(tmp_path, toy):
    _, results = train(write_triplets(tmp_path), validation=0, epochs=9, dropout=0, lr=0.01)
    assert toy.images == 12 and sorted(toy.texts) == [f"on thing {i}" for i in range(5)]
    assert results["best"] == {"epoch": 9}  # the last one
    assert results["losses"][-1] < results["losses"][0]


@pytest.fixture
def clip(tmp_path):
    """A tiny CLIP in a folder, and keys to train with it."""
    keys = write_triplets(tmp_path, count=30)
    return keys | {"vlm": str(save_clip(tmp_path / "clip")), "train_vlm": True, "epochs": 2}


def fingerprint(folder):
    return load_vlm(str(folder / "vlm"), device="cpu").fingerprint


def test_trained_vlm_is_saved_as_a_vlm(clip):
    before = load_vlm(clip["vlm"], device="cpu").model.state_dict()
    folder, results = train(clip, validation=0)
    assert results["vlm_trained"] and results["vlm_fingerprint"] == fingerprint(folder)
    weights = load_vlm(str(folder / "vlm"), device="cpu").model.state_dict()
    changed = {key for key, tensor in weights.items() if not torch.equal(tensor, before[key])}
    assert changed > {"visual.proj", "text_projection", "visual.conv1.weight"}
    assert changed > {"token_embedding.weight"}


def interrupt(keys):
    with interrupted(module, "backward", 5):
        train(keys)


@pytest.mark.parametrize("train_vlm", [False, True])
def test_a_resumed_training_equals_an_undisturbed_one(clip, train_vlm):
    keys = {**clip, "checkpoint_every": 2, "accumulate": 2, "train_vlm": train_vlm}
    one, undisturbed = train(keys, name="undisturbed", workers=2)
    interrupt(keys)
    other, resumed = train(keys)  # without worker processes
    for key in ("losses", "validation", "vlm_fingerprint"):
        assert resumed[key] == undisturbed[key]
    former, weights = (load_file(folder / "combiner.safetensors") for folder in (one, other))
    assert all(torch.equal(weights[key], former[key]) for key in former)


def test_record_is_of_the_best_vlm_after_a_resumption_too(tmp_path, clip, monkeypatch):
    recall = iter([9, 3, 2, 1])
    monkeypatch.setattr(module, "recalls", lambda *_: {"recall@1": next(recall)})
    interrupt(clip)  # in the second epoch
    best = fingerprint(tmp_path / "outputs/combiner/run")
    folder, results = train(clip)
    assert results["best"]["epoch"] == 1 and len(results["losses"]) == 2
    assert results["vlm_fingerprint"] == best == fingerprint(folder)


def test_gradients_of_the_vlm_are_clipped_and_reach_both_towers(clip, monkeypatch):
    norms = []

    class Recorded(torch.optim.AdamW):
        def step(self):
            vlm_parameters = self.param_groups[0]["params"][combiner_parameters:]
            given = [p.grad.norm() for p in vlm_parameters if p.grad is not None]
            norms.append(torch.stack(given).norm().item())
            super().step()

    combiner_parameters = len(list(Combiner(16).parameters()))
    monkeypatch.setattr(torch.optim, "AdamW", Recorded)
    train(clip)
    assert norms and max(norms) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"batch_size": 55}, "54 triplets to train on .* do not fill a batch of 5"),
        ({"accumulate": 3}, "8 does not divide into 3 equal parts"),
        ({"vlm": "align", "train_vlm": True}, "only an open_clip VLM can be trained here"),
        ({"lr": 0.1}, r"run holds another training \(lr 0.001, not 0.1\); choose another name"),
    ],
)
def test_what_cannot_be_trained_is_refused(tmp_path, toy, more, message):
    keys = {**write_triplets(tmp_path), "epochs": 1}
    state = train(keys)[0] / "state.pt"
    before = state.read_bytes()
    with pytest.raises(UserError, match=message):
        train(keys, **more)
    assert state.read_bytes() == before


def test_unreadable_image_while_the_vlm_trains(clip):
    (clip["images"] / "004.png").write_bytes(b"no picture")
    for workers in (0, 2):
        with pytest.raises(UserError, match=r"cannot read the image .*004.png: not an image"):
            train(clip, workers=workers)


def test_augmentation(clip):
    preprocess = load_vlm(clip["vlm"], device="cpu").preprocess
    augment = augmentation(preprocess)
    flat = Image.new("L", (90, 70), 128)  # no RGB; a crop of one colour shows mean and std alone
    assert torch.allclose(augment(flat), preprocess(flat), atol=1e-5)
    other = Preprocess(preprocess.transform.transforms[0])  # nothing known to crop
    assert augmentation(other) is other
    data = read_triplets(clip["triplets"], clip["images"])
    pixels = Pixels(data, augment, seed=0)  # depends on epoch and place alone
    assert pixels[1, 7][0].shape == (2, 3, 32, 32)
    assert torch.equal(pixels[1, 7][0], pixels[1, 7][0])
    assert not torch.equal(pixels[1, 7][0], pixels[2, 7][0])
