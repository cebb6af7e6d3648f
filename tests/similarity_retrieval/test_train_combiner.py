"""Training the Combiner: processes against one, killed and resumed against undisturbed; what is
saved; every message."""

import io
import json

import numpy as np
import pytest
import torch
import toy_vlm
from checkpoints import CLIP, MEAN, STD, save_clip
from commands import REPOSITORY, run_python
from mining_files import write_triplets
from PIL import Image
from safetensors.torch import load_file
from torch.nn import functional as F

from crl.embed import embed_images
from crl.run.config import load_config
from crl.run.errors import UserError
from crl.vlm import load_vlm
from similarity_retrieval import train_combiner as module
from similarity_retrieval.combiner import Combiner, load_combiner
from similarity_retrieval.combiner_features import embed
from similarity_retrieval.mining.triplets import MinedTriplets, read_triplets
from similarity_retrieval.train_combiner import (
    CombinerTrainer,
    TrainConfig,
    learning_rate,
    plan,
    recalls,
)


def train(keys, **more):
    config = TrainConfig(**{**keys, **more})
    trainer = CombinerTrainer(config, config.device)
    trainer.run()
    return trainer.folder, json.loads((trainer.folder / "results.json").read_text())


def read_state(folder):
    content = (folder / "state.pt").read_bytes()[16:]  # a checksum, then torch's format
    return torch.load(io.BytesIO(content), weights_only=True)


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
    keys = {**write_triplets(tmp_path), "batch_size": 26, "epochs": 9}
    (tmp_path / "toy.py").write_text(TOY)
    settings = [f"{key}={value}" for key, value in {**keys, "name": "two"}.items()]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = run_python(*launcher, tmp_path / "toy.py", REPOSITORY / "tests/helpers", *settings)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch 1/9") == 1  # one of them speaks
    two = json.loads((tmp_path / "outputs/combiner/two/results.json").read_text())
    _, one = train(keys, accumulate=2, name="one")
    assert (one["processes"], two["processes"]) == (1, 2)
    assert np.allclose(one["losses"], two["losses"], rtol=0, atol=1e-5)
    assert len(one["losses"]) == 9 and len(set(one["losses"])) == 9


def test_learning_rate():
    config = TrainConfig(lr=2.0, warmup=4)
    rates = [learning_rate(step, 104, config) for step in range(104)]
    assert rates[:5] == [0.5, 1.0, 1.5, 2.0, 2.0]
    assert rates[54] == pytest.approx(2 * (0.001 + 0.999 / 2))
    assert rates == rates[:4] + sorted(rates[4:], reverse=True)
    assert learning_rate(104, 104, config) == pytest.approx(2e-3)
    assert learning_rate(0, 10, TrainConfig(lr=2.0)) == 2.0


def test_every_epoch_visits_each_training_triplet_once_in_another_order():
    config = TrainConfig(batch_size=8, accumulate=2)
    plans = [plan(47, 6, epoch, config) for epoch in range(3)]
    for rows in plans:
        assert rows.shape == (5, 1, 2, 4)
        assert len(set(rows.flatten())) == 40 and rows.min() >= 6 and rows.max() < 47
    assert not np.array_equal(plans[0], plans[1])
    assert np.array_equal(plans[1], plan(47, 6, 1, config))


def test_recalls_against_a_loop():
    rng = torch.Generator().manual_seed(0)
    image, text = (torch.randn(30, 4, generator=rng) for _ in range(2))
    index = np.random.default_rng(0).integers(0, 25, (3, 1100))  # more than one chunk
    data = MinedTriplets([""] * 30, [""] * 30, *index)
    combiner = Combiner(4, 8, 8).eval()
    shares = recalls(combiner, data, image, text)
    gallery = sorted({int(i) for i in data.target})
    hits = {1: 0, 5: 0, 10: 0}
    for reference, target, condition in index.T:
        with torch.no_grad():
            query = combiner(image[None, reference], text[None, condition])[0]
        scores = {g: float(query @ (image[g] / image[g].norm())) for g in gallery}
        best = sorted(gallery, key=lambda g: -scores[g])
        for k in hits:
            hits[k] += int(target in best[:k])
    for k, count in hits.items():
        assert shares[f"recall@{k}"] == pytest.approx(100 * count / 1100)
    assert shares["triplets"] == 1100 and shares["candidates"] == len(gallery)


@pytest.mark.parametrize("image", [torch.ones(30, 4), torch.full((30, 4), torch.nan)])
def test_equal_or_nan_scores_find_nothing(image):
    index = np.random.default_rng(0).integers(0, 25, (3, 100))
    data = MinedTriplets([""] * 30, [""] * 30, *index)
    assert recalls(Combiner(4, 8, 8).eval(), data, image, image)["recall@10"] == 0


class Worlds(toy_vlm.ToyVLM):
    """Pictures of a subject beside an object, identified by two pixels; the text names an object.
    Their embeddings are one-hot, so a mixture of picture and text cannot tell the old object from
    the subject, and a trained Combiner can."""

    dim = 24

    def preprocess(self, image):
        return torch.from_numpy(np.asarray(image.convert("RGB"), np.float32)).permute(2, 0, 1)

    def encode_images(self, batch):
        subject, thing = batch[:, 0, 0, 0].long(), batch[:, 0, 0, 1].long()
        return F.one_hot(subject, 24).float() + 2 * F.one_hot(12 + thing, 24)

    def encode_texts(self, texts):
        return F.one_hot(torch.tensor([12 + int(t.split()[-1]) for t in texts]), 24).float()


def write_worlds(folder):
    (folder / "images").mkdir()
    for subject in range(12):
        for thing in range(12):
            pixels = np.zeros((1, 2, 3), np.uint8)
            pixels[0, :, 0] = subject, thing
            Image.fromarray(pixels).save(folder / f"images/{subject}-{thing}.png")
    rng = np.random.default_rng(0)
    with open(folder / "triplets.jsonl", "w") as file:
        for _ in range(2000):
            subject, (old, new) = rng.integers(12), rng.choice(12, 2, replace=False)
            names = {"reference": f"{subject}-{old}.png", "target": f"{subject}-{new}.png"}
            file.write(json.dumps({**names, "condition": f"beside {new}"}) + "\n")


def test_loss_falls_and_recall_rises_far_above_chance(tmp_path, monkeypatch):
    write_worlds(tmp_path)
    vlm = Worlds()
    monkeypatch.setattr(module, "load_vlm", lambda *_: vlm)
    keys = {"triplets": tmp_path / "triplets.jsonl", "images": tmp_path / "images"}
    keys |= {"cache": tmp_path / "cache", "outputs": tmp_path / "outputs", "device": "cpu"}
    keys |= {"batch_size": 64, "projection": 64, "hidden": 64, "epochs": 8, "lr": 3e-3}
    keys |= {"dropout": 0.1, "vlm": "toy"}
    folder, results = train(keys)
    assert results["losses"][-1] < 0.5 * results["losses"][0]
    assert results["validation"][-1]["recall@1"] > 80  # chance: 0.7
    assert results["triplets"] == {"training": 1800, "held_out": 200}
    assert results["step"] == 8 * results["steps_per_epoch"] == 8 * 28
    # The weights on disk are those of the best epoch.
    recall = [epoch["recall@1"] for epoch in results["validation"]]
    assert results["best"] == results["validation"][recall.index(max(recall))]
    combiner = load_combiner(folder / "combiner.safetensors", dim=24)
    data = read_triplets(keys["triplets"], keys["images"])
    image, text = embed(vlm, data, keys["cache"])
    assert recalls(combiner, data.first(200), image, text)["recall@1"] == max(recall)


def test_what_is_embedded_and_recorded_without_validation(tmp_path, toy):
    folder, results = train(write_triplets(tmp_path), validation=0)
    assert toy.images == 12 and sorted(toy.texts) == [f"on thing {i}" for i in range(5)]
    assert results["vlm_fingerprint"] == "toy-1" and not results["vlm_trained"]
    assert "batch_size: 8" in (folder / "config.yaml").read_text()
    assert results["best"] == {"epoch": 3}  # the last one
    kept, state = load_file(folder / "combiner.safetensors"), read_state(folder)
    assert all(torch.equal(kept[key], state["models"]["combiner"][key]) for key in kept)


@pytest.fixture
def clip(tmp_path):
    """A tiny CLIP in a folder, and keys to train with it."""

    keys = write_triplets(tmp_path, count=30)
    keys |= {"vlm": str(save_clip(tmp_path / "clip")), "train_vlm": True, "epochs": 2}
    (tmp_path / "clip/README.md").write_text("not about the trained one")
    return keys


def fingerprint(folder):
    return load_vlm(str(folder / "vlm"), device="cpu").fingerprint


def test_frozen_training_leaves_the_vlm_alone(clip, monkeypatch):
    vlm = load_vlm(clip["vlm"], device="cpu")
    before = {key: tensor.clone() for key, tensor in vlm.model.state_dict().items()}
    monkeypatch.setattr(module, "load_vlm", lambda *_: vlm)
    folder, _ = train(clip, train_vlm=False)
    for key, tensor in vlm.model.state_dict().items():
        assert torch.equal(tensor, before[key])
    files = ["combiner.safetensors", "config.yaml", "results.json", "state.pt"]
    assert sorted(file.name for file in folder.iterdir()) == files


@pytest.mark.parametrize("by_name", [False, True])
def test_trained_vlm_is_saved_as_a_vlm(tmp_path, clip, monkeypatch, by_name):
    former = load_vlm(clip["vlm"], device="cpu")
    if by_name:  # by a name of open_clip, not as a folder
        import open_clip

        monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", {"tiny-quickgelu": CLIP})
        weights = str(tmp_path / "clip/open_clip_model.safetensors")
        tag = open_clip.pretrained._pcfg(file=weights, quick_gelu=True, mean=MEAN, std=STD)
        monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny-quickgelu", {"shiny": tag})
        clip["vlm"] = "open_clip:tiny-quickgelu/shiny"
    folder, results = train(clip, validation=0)
    assert results["vlm_trained"] and results["vlm_fingerprint"] == fingerprint(folder)
    trained = load_vlm(str(folder / "vlm"), device="cpu")
    weights, before = trained.model.state_dict(), former.model.state_dict()
    state = read_state(folder)["models"]["vlm"]
    assert all(torch.equal(tensor, state[key]) for key, tensor in weights.items())
    changed = {key for key, tensor in weights.items() if not torch.equal(tensor, before[key])}
    assert changed > {"visual.proj", "text_projection", "visual.conv1.weight"}
    assert changed > {"token_embedding.weight"}
    assert not (folder / "vlm/README.md").exists()
    picture = [clip["images"] / "000.png"]
    assert not np.allclose(*(embed_images(vlm, picture, None).image for vlm in (trained, former)))


def interrupt(monkeypatch, keys, **more):
    """The training stops in its fifth step, as at a kill."""
    backward, calls = module.backward, []

    def interrupted(*arguments):
        calls.append(None)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return backward(*arguments)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(module, "backward", interrupted)
        train(keys, **more)


@pytest.mark.parametrize("train_vlm", [False, True])
def test_a_resumed_training_equals_an_undisturbed_one(clip, monkeypatch, train_vlm):
    keys = {**clip, "checkpoint_every": 2, "accumulate": 2, "train_vlm": train_vlm}
    one, undisturbed = train(keys, name="undisturbed", workers=2)
    interrupt(monkeypatch, keys)
    other, resumed = train(keys)  # without worker processes
    for key in ("losses", "validation", "vlm_fingerprint"):
        assert resumed[key] == undisturbed[key]
    former, weights = (load_file(folder / "combiner.safetensors") for folder in (one, other))
    assert all(torch.equal(weights[key], former[key]) for key in former)


def test_record_is_of_the_best_vlm_after_a_resumption_too(tmp_path, clip, monkeypatch):
    recall = iter([9, 3, 2, 1])
    monkeypatch.setattr(module, "recalls", lambda *_: {"recall@1": next(recall)})
    interrupt(monkeypatch, clip)  # in the second epoch
    best = fingerprint(tmp_path / "outputs/combiner/run")
    folder, results = train(clip)
    assert results["best"]["epoch"] == 1 and len(results["losses"]) == 2
    assert results["vlm_fingerprint"] == best == fingerprint(folder)


def test_gradients_of_the_vlm_are_clipped_and_reach_both_towers(tmp_path, clip, monkeypatch):
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


def refused(match, keys, **more):
    outputs = sorted(keys["outputs"].rglob("*"))
    with pytest.raises(UserError, match=match) as caught:
        train(keys, **more)
    assert "\n" not in str(caught.value)
    assert sorted(keys["outputs"].rglob("*")) == outputs  # nothing half written


def test_what_cannot_be_trained_is_refused_before_anything_is_embedded(tmp_path, toy):
    keys = write_triplets(tmp_path)
    message = r"54 triplets to train on \(and 6 held out\) do not fill a batch of 55"
    refused(message, keys, batch_size=55)
    message = r"8 does not divide into 3 equal parts \(1 processes x accumulate 3"
    refused(message, keys, accumulate=3)
    refused(
        r"only an open_clip VLM can be trained here, and .align", keys, vlm="align", train_vlm=True
    )
    for number in (3, 4, 5, 6):
        (keys["images"] / f"{number:03}.png").unlink()
    refused(r"4 of the 12 images of .* are not in .*images, the first: ", keys)
    assert toy.images == 0


def test_another_training_in_the_folder_is_refused_and_kept(tmp_path, toy):
    keys = write_triplets(tmp_path)
    folder, _ = train(keys)
    before = (folder / "state.pt").read_bytes()
    refused(r"run holds another training \(lr 0.001, not 0.1\); choose another name", keys, lr=0.1)
    toy.fingerprint = "toy-2"
    refused(r"another training \(vlm 'toy-1', not 'toy-2'\)", keys)
    toy.fingerprint = "toy-1"
    with open(keys["triplets"], "a") as file:
        file.write('{"reference": "000.png", "target": "001.png", "condition": "new"}\n')
    refused(r"another training \(triplets '", keys)
    assert (folder / "state.pt").read_bytes() == before


def test_unreadable_image_while_the_vlm_trains(tmp_path, clip):
    (clip["images"] / "004.png").write_bytes(b"no picture")
    for workers in (0, 2):
        with pytest.raises(UserError, match=r"cannot read the image .*004.png: not an image"):
            train(clip, workers=workers)


@pytest.mark.parametrize("name", ["combiner_cc3m", "demo/combiner"])
def test_configurations_are_valid(name):
    config = load_config(TrainConfig, ["--config", f"{REPOSITORY}/configs/{name}.yaml"], "")
    assert config.batch_size in (256, 4096)
