"""Training the Combiner: the loss against a loop; parts and processes against one batch; killed and
resumed against undisturbed; what is saved; every message."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
import toy_vlm
from commands import REPOSITORY
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from crl import distributed
from crl.embed import embed_images
from crl.run.errors import UserError
from crl.vlm import Preprocess, load_vlm
from similarity_retrieval import train_combiner as module
from similarity_retrieval import training
from similarity_retrieval.combiner import Combiner, load_combiner
from similarity_retrieval.train_combiner import TrainConfig

SMALL = {"projection": 8, "hidden": 8, "device": "cpu", "workers": 0, "vlm": "toy", "lr": 1e-3}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def toy(monkeypatch):
    """The toy VLM in place of the one asked for."""
    vlm = toy_vlm.ToyVLM()
    monkeypatch.setattr(module, "load_vlm", lambda *_: vlm)
    return vlm


def write_triplets(folder, count=60, images=12):
    """`count` triplets over `images` small pictures; -> keys of the configuration."""
    toy_vlm.make_images(folder / "images", images)
    rng = np.random.default_rng(0)
    with open(folder / "triplets.jsonl", "w") as file:
        for _ in range(count):
            reference, target, distractor = rng.choice(images, 3, replace=False)
            triplet = {
                "reference": f"{reference:03}.png",
                "target": f"{target:03}.png",
                "condition": f"on thing {rng.integers(5)}",
                "distractor": f"{distractor:03}.png",
                "subject": "dog",
            }
            file.write(json.dumps(triplet) + "\n")
    return {
        **SMALL,
        "triplets": folder / "triplets.jsonl",
        "images": folder / "images",
        "cache": folder / "cache",
        "outputs": folder / "outputs",
        "batch_size": 8,
        "epochs": 3,
    }


def train(keys, **more):
    config = TrainConfig(**{**keys, **more})
    module.train(config, config.device)
    folder = config.outputs / "combiner" / config.name
    return folder, json.loads((folder / "results.json").read_text())


# --- loss and gradients ---------------------------------------------------------------------------


def test_loss_is_cross_entropy_row_by_row():
    combined, target = F.normalize(torch.randn(2, 7, 5, dtype=torch.float64), dim=2)
    expected = 0.0
    for i in range(7):
        scores = [100 * sum(combined[i, d] * target[j, d] for d in range(5)) for j in range(7)]
        expected -= torch.log(torch.exp(scores[i]) / sum(torch.exp(s) for s in scores)) / 7
    assert torch.isclose(training.contrastive_loss(combined, target), expected, rtol=1e-12)
    # One direction only: the other one differs.
    assert not torch.isclose(training.contrastive_loss(target, combined), expected)


def problem(dropout):
    """A Combiner and an image tower, trained together, and 16 triplets' worth of inputs."""
    torch.manual_seed(1)
    combiner, tower = Combiner(6, 8, 8, dropout), nn.Linear(10, 6)
    model = nn.ModuleList([combiner, tower]).double()
    inputs = torch.randn(16, 3, 10, dtype=torch.float64)

    def forward(part):
        reference, text, target = tower(part).unbind(1)
        return torch.stack([combiner(reference, text), F.normalize(target, dim=1)], 1)

    return model, inputs, forward


def gradients(model):
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


@pytest.mark.parametrize(("dropout", "parts"), [(0.0, 1), (0.0, 4), (0.5, 1), (0.5, 4), (0.5, 16)])
def test_parts_give_loss_and_gradients_of_the_whole_batch(dropout, parts):
    model, inputs, forward = problem(dropout)
    seeds = list(range(10, 10 + parts))
    features = []
    for part, seed in zip(inputs.chunk(parts), seeds, strict=True):
        torch.manual_seed(seed)
        features.append(forward(part))
    expected = training.contrastive_loss(*torch.cat(features).unbind(1))
    expected.backward()
    wanted = gradients(model)
    model.zero_grad()
    loss = module.backward(forward, list(inputs.chunk(parts)), seeds)
    assert loss == pytest.approx(expected.item(), abs=1e-12)
    assert torch.allclose(gradients(model), wanted, rtol=0, atol=1e-10 * wanted.abs().max())
    assert wanted.abs().max() > 1e-3
    if dropout == 0:  # and so the number of parts makes no difference at all
        one, _, forward = problem(dropout)
        assert loss == pytest.approx(module.backward(forward, [inputs], [0]), abs=1e-12)
        assert torch.allclose(gradients(one), wanted, rtol=0, atol=1e-10 * wanted.abs().max())


def one_of_two(rank, folder):
    torch.set_num_threads(1)
    where = {"WORLD_SIZE": "2", "RANK": str(rank), "MASTER_ADDR": "127.0.0.1"}
    os.environ.update(where, MASTER_PORT=(folder / "port").read_text())
    with distributed.process_group("cpu") as device:
        assert device == "cpu" and distributed.world() == 2 and distributed.rank() == rank
        for dropout in (0.0, 0.5):
            model, inputs, forward = problem(dropout)
            parts = list(inputs.chunk(4))[2 * rank : 2 * rank + 2]
            loss = module.backward(forward, parts, [10 + 2 * rank, 11 + 2 * rank])
            distributed.sum_gradients(list(model.parameters()))
            found = {"loss": loss, "gradients": gradients(model)}
            torch.save(found, folder / f"{dropout}-{rank}.pt")


def test_two_processes_give_loss_and_gradients_of_one(tmp_path):
    write_port(tmp_path / "port")
    mp.spawn(one_of_two, (tmp_path,), nprocs=2)
    for dropout in (0.0, 0.5):
        model, inputs, forward = problem(dropout)
        parts = list(inputs.chunk(4)) if dropout else [inputs]  # the same dropout in equal parts
        loss = module.backward(forward, parts, list(range(10, 10 + len(parts))))
        wanted = gradients(model)
        for rank in range(2):
            found = torch.load(tmp_path / f"{dropout}-{rank}.pt", weights_only=True)
            assert found["loss"] == pytest.approx(loss, abs=1e-12)
            error = (found["gradients"] - wanted).abs().max()
            assert error < 1e-10 * wanted.abs().max()


def write_port(file):
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        file.write_text(str(free.getsockname()[1]))


TOY = """
import os, signal, sys
import torch, toy_vlm
from similarity_retrieval import train_combiner as module
torch.set_num_threads(1)
module.load_vlm = lambda *_: toy_vlm.ToyVLM()
kill_at, backward, calls = int(sys.argv.pop(1)), module.backward, []
def counted(*arguments):
    calls.append(None)
    if len(calls) == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
    return backward(*arguments)
module.backward = counted
module.main()
"""


def start(folder, keys, kill_at=0, launcher=()):
    (folder / "toy.py").write_text(TOY)
    search = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])
    settings = [f"{key}={value}" for key, value in keys.items()]
    return subprocess.run(
        [sys.executable, *launcher, str(folder / "toy.py"), str(kill_at), *settings],
        env={**os.environ, "PYTHONPATH": search, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_torchrun_trains_as_one_process_does(tmp_path, toy):
    keys = write_triplets(tmp_path)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = start(tmp_path, {**keys, "name": "two"}, launcher=launcher)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch 1/3") == 1  # one of them speaks
    two = json.loads((tmp_path / "outputs/combiner/two/results.json").read_text())
    _, one = train(keys, accumulate=2, name="one")
    assert (one["processes"], two["processes"]) == (1, 2)
    assert np.allclose(one["losses"], two["losses"], rtol=0, atol=1e-5)
    assert len(one["losses"]) == 18 and len(set(one["losses"])) == 18


def test_learning_rate():
    config = TrainConfig(lr=2.0, warmup=4)
    rates = [module.learning_rate(step, 104, config) for step in range(104)]
    assert rates[:5] == [0.5, 1.0, 1.5, 2.0, 2.0]
    assert rates[54] == pytest.approx(2 * (0.001 + 0.999 / 2))
    assert rates == rates[:4] + sorted(rates[4:], reverse=True)
    assert module.learning_rate(104, 104, config) == pytest.approx(2e-3)
    assert module.learning_rate(0, 10, TrainConfig(lr=2.0)) == 2.0


# --- triplets and order ---------------------------------------------------------------------------


def test_read_triplets_and_the_first_of_them(tmp_path):
    keys = write_triplets(tmp_path)
    data = module.read_triplets(keys["triplets"], keys["images"])
    lines = [json.loads(line) for line in keys["triplets"].read_text().splitlines()]
    for part in (data, data.first(60), data.first(3), data.first(1)):
        for i, line in enumerate(lines[: len(part)]):
            named = (
                part.images[part.reference[i]],
                part.images[part.target[i]],
                part.conditions[part.condition[i]],
            )
            assert named == (line["reference"], line["target"], line["condition"])
    assert len(data) == 60 and len(data.images) == 12 and len(data.conditions) == 5
    few = {name for line in lines[:3] for name in (line["reference"], line["target"])}
    assert set(data.first(3).images) == few


def test_every_epoch_visits_each_training_triplet_once_in_another_order():
    config = TrainConfig(batch_size=8, accumulate=2)
    plans = [module.plan(47, 6, epoch, config) for epoch in range(3)]
    for rows in plans:
        assert rows.shape == (5, 1, 2, 4)
        assert len(set(rows.flatten())) == 40 and rows.min() >= 6 and rows.max() < 47
    assert not np.array_equal(plans[0], plans[1])
    assert np.array_equal(plans[1], module.plan(47, 6, 1, config))
    assert not np.array_equal(
        plans[1], module.plan(47, 6, 1, config.model_copy(update={"seed": 1}))
    )
    assert set(np.concatenate([rows.flatten() for rows in plans])) == set(range(6, 47))


def test_recalls_against_a_loop():
    rng = torch.Generator().manual_seed(0)
    image, text = (torch.randn(30, 4, generator=rng) for _ in range(2))
    index = np.random.default_rng(0).integers(0, 25, (3, 1100))  # more than one chunk
    data = module.Triplets([""] * 30, [""] * 30, *index)
    combiner = Combiner(4, 8, 8).eval()
    found = module.recalls(combiner, data, image, text)
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
        assert found[f"recall@{k}"] == pytest.approx(100 * count / 1100)
    assert found["triplets"] == 1100 and found["candidates"] == len(gallery)


@pytest.mark.parametrize("image", [torch.ones(30, 4), torch.full((30, 4), torch.nan)])
def test_equal_or_nan_scores_find_nothing(image):
    index = np.random.default_rng(0).integers(0, 25, (3, 100))
    data = module.Triplets([""] * 30, [""] * 30, *index)
    found = module.recalls(Combiner(4, 8, 8).eval(), data, image, image)
    assert found["recall@10"] == 0


# --- frozen VLM -----------------------------------------------------------------------------------


class Worlds(toy_vlm.ToyVLM):
    """Pictures of a subject beside an object, told by two pixels; the text names an object.
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
    keys = {**SMALL, "triplets": tmp_path / "triplets.jsonl", "images": tmp_path / "images"}
    keys |= {"cache": tmp_path / "cache", "outputs": tmp_path / "outputs", "batch_size": 64}
    keys |= {"projection": 64, "hidden": 64, "epochs": 8, "lr": 3e-3, "dropout": 0.1}
    folder, results = train(keys)
    assert np.mean(results["losses"][-10:]) < 0.3 * np.mean(results["losses"][:10])
    assert results["validation"][-1]["recall@1"] > 80  # chance: 0.7
    assert results["triplets"] == {"training": 1800, "held_out": 200}
    assert results["validation"][-1]["triplets"] == 200
    assert results["step"] == results["steps"] == len(results["losses"]) == 8 * 28
    # The weights on disk are those of the best epoch.
    recall = [epoch["recall@1"] for epoch in results["validation"]]
    assert results["best_epoch"] == 1 + recall.index(max(recall))
    combiner = load_combiner(folder / "combiner.safetensors", dim=24)
    data = module.read_triplets(keys["triplets"], keys["images"])
    image, text = training.embed(vlm, data, TrainConfig(**keys), keys["cache"])
    assert module.recalls(combiner, data.first(200), image, text)["recall@1"] == max(recall)


def test_each_image_and_condition_is_embedded_once(tmp_path, toy):
    keys = write_triplets(tmp_path)
    _, results = train(keys)
    assert toy.images == 12 and sorted(toy.texts) == [f"on thing {i}" for i in range(5)]
    assert results["vlm_fingerprint"] == "toy-1" and results["trained_vlm"] is None
    assert results["config"]["batch_size"] == 8 and results["environment"]["python"]
    assert "batch_size: 8" in (tmp_path / "outputs/combiner/run/config.yaml").read_text()


def test_without_validation_the_last_epoch_is_kept(tmp_path, toy):
    folder, results = train(write_triplets(tmp_path), validation=0)
    state = torch.load(folder / "state.pt", weights_only=True)
    kept = load_file(folder / "combiner.safetensors")
    assert all(torch.equal(kept[key], state["combiner"][key]) for key in kept)
    assert results["best_epoch"] == 3 and results["validation"] == [{}, {}, {}]


def test_finished_training_is_not_done_again(tmp_path, toy, capsys, monkeypatch):
    keys = write_triplets(tmp_path)
    folder, _ = train(keys)
    before = {file: file.read_bytes() for file in folder.iterdir()}
    capsys.readouterr()
    monkeypatch.setattr(module, "backward", None)
    train(keys, workers=1, checkpoint_every=7)  # keys that change no number
    assert "this training is finished; nothing to do" in capsys.readouterr().out
    assert {file: file.read_bytes() for file in folder.iterdir()} == before


def test_killed_and_resumed_is_the_undisturbed_training(tmp_path):
    keys = {**write_triplets(tmp_path), "checkpoint_every": 4, "accumulate": 2}
    folder = tmp_path / "outputs/combiner"
    line = ""  # an epoch has 6 steps: checkpoints after 4, 6, 8, 12, 16 and 18
    for kill_at, kept in ((5, 4), (7, 8), (5, 12)):  # in the first epoch, the second, the third
        killed = start(tmp_path, {**keys, "name": "killed"}, kill_at=kill_at)
        assert killed.returncode == -signal.SIGKILL and line in killed.stdout
        progress = torch.load(folder / "killed/state.pt", weights_only=True)["progress"]
        assert progress["step"] == len(progress["losses"]) == kept
        line = f"going on after step {kept} of 18"
    assert line in start(tmp_path, {**keys, "name": "killed"}).stdout
    assert start(tmp_path, {**keys, "name": "undisturbed"}).returncode == 0
    killed, undisturbed = folder / "killed", folder / "undisturbed"
    one, other = (json.loads((f / "results.json").read_text()) for f in (killed, undisturbed))
    assert one["losses"] == other["losses"] and len(one["losses"]) == 18
    assert one["validation"] == other["validation"] and len(one["validation"]) == 3
    one, other = (torch.load(f / "state.pt", weights_only=True) for f in (killed, undisturbed))
    assert all(torch.equal(one["combiner"][key], other["combiner"][key]) for key in one["combiner"])
    one, other = (load_file(f / "combiner.safetensors") for f in (killed, undisturbed))
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


# --- the VLM itself -------------------------------------------------------------------------------


@pytest.fixture
def clip(tmp_path):
    """A tiny CLIP in a folder, and keys to train with it."""
    from test_vlm import save_clip  # here, for it imports all of transformers

    keys = write_triplets(tmp_path, count=30)
    keys |= {"vlm": str(save_clip(tmp_path / "clip")), "train_vlm": True, "epochs": 2}
    (tmp_path / "clip/README.md").write_text("not about the trained one")
    return keys


def weights(folder):
    return load_file(folder / "open_clip_model.safetensors")


def test_frozen_training_leaves_the_vlm_alone(tmp_path, clip, monkeypatch):
    vlm = load_vlm(clip["vlm"], device="cpu")
    before = {key: tensor.clone() for key, tensor in vlm.model.state_dict().items()}
    monkeypatch.setattr(module, "load_vlm", lambda *_: vlm)
    folder, _ = train(clip, train_vlm=False)
    for key, tensor in vlm.model.state_dict().items():
        assert torch.equal(tensor, before[key])
    assert sorted(file.name for file in folder.iterdir()) == [
        "combiner.safetensors",
        "config.yaml",
        "results.json",
        "state.pt",
    ]


def test_trained_vlm_is_saved_as_a_vlm(tmp_path, clip):
    folder, results = train(clip, validation=0)
    assert results["trained_vlm"] == str(folder / "vlm")
    trained, former = (load_vlm(name, device="cpu") for name in (str(folder / "vlm"), clip["vlm"]))
    state = torch.load(folder / "state.pt", weights_only=True)
    for key, tensor in trained.model.state_dict().items():
        assert torch.equal(tensor, state["vlm"][key])
    changed = {
        key
        for key, tensor in trained.model.state_dict().items()
        if not torch.equal(tensor, former.model.state_dict()[key])
    }
    assert {"visual.proj", "text_projection", "visual.conv1.weight", "token_embedding.weight"} < (
        changed
    )
    assert not (folder / "vlm/README.md").exists()
    picture = [clip["images"] / "000.png"]
    assert not np.allclose(*(embed_images(vlm, picture, None).image for vlm in (trained, former)))


def test_trained_vlm_by_open_clip_name(tmp_path, clip, monkeypatch):
    import open_clip
    from test_vlm import CLIP, MEAN, STD

    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", {"tiny-quickgelu": CLIP})
    first = str(tmp_path / "clip/open_clip_model.safetensors")
    tag = open_clip.pretrained._pcfg(file=first, quick_gelu=True, mean=MEAN, std=STD)
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny-quickgelu", {"shiny": tag})
    folder, results = train(clip, vlm="open_clip:tiny-quickgelu/shiny", validation=0)
    assert results["trained_vlm"] == str(folder / "vlm")
    trained = load_vlm(results["trained_vlm"], device="cpu")
    state = torch.load(folder / "state.pt", weights_only=True)
    for key, tensor in trained.model.state_dict().items():
        assert torch.equal(tensor, state["vlm"][key])


def test_vlm_in_training_resumes_and_decodes_in_processes(tmp_path, clip, monkeypatch):
    backward, calls = module.backward, []

    def interrupted(*arguments):
        calls.append(None)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return backward(*arguments)

    keys = {**clip, "checkpoint_every": 2, "accumulate": 2}
    _, undisturbed = train(keys, name="undisturbed", workers=2)
    monkeypatch.setattr(module, "backward", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(keys)
    monkeypatch.setattr(module, "backward", backward)
    _, resumed = train(keys)  # without worker processes
    assert resumed["losses"] == undisturbed["losses"] and len(resumed["losses"]) == 6
    assert resumed["validation"] == undisturbed["validation"]


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


def test_augmentation_keeps_size_and_normalisation(clip):
    vlm = load_vlm(clip["vlm"], device="cpu")
    augment = training.augmentation(vlm.preprocess)
    flat = Image.new("L", (90, 70), 128)  # no RGB; a crop of one colour shows mean and std alone
    assert torch.allclose(augment(flat), vlm.preprocess(flat), atol=1e-5)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8))
    torch.manual_seed(0)
    first, second = augment(noise), augment(noise)
    torch.manual_seed(0)
    assert first.shape == (3, 32, 32) and torch.equal(augment(noise), first)
    assert not torch.equal(first, second)
    other = Preprocess(vlm.preprocess.transform.transforms[0])  # nothing known to crop
    assert training.augmentation(other) is other


def test_augmentation_of_a_triplet_depends_on_epoch_and_place_alone(clip):
    vlm = load_vlm(clip["vlm"], device="cpu")
    data = module.read_triplets(clip["triplets"], clip["images"])
    pixels = training.Pixels(data, TrainConfig(**clip), training.augmentation(vlm.preprocess))
    assert torch.equal(pixels[1, 7][0], pixels[1, 7][0])
    assert not torch.equal(pixels[1, 7][0], pixels[2, 7][0])


# --- messages -------------------------------------------------------------------------------------


def refused(match, keys, **more):
    outputs = sorted(keys["outputs"].rglob("*"))
    with pytest.raises(UserError, match=match) as caught:
        train(keys, **more)
    assert "\n" not in str(caught.value)
    assert sorted(keys["outputs"].rglob("*")) == outputs  # nothing half written


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("{", r"triplets.jsonl, line 61: not a JSON object with reference, target, condition"),
        ("", r"line 61: not a JSON object"),
        ("[1]", r"line 61: not a JSON object"),
        ('{"reference": "a", "target": "b"}', r"line 61: not a JSON object"),
        ('{"reference": "a", "target": 3, "condition": "c"}', r"line 61: target must be a text"),
        ('{"reference": "a", "target": "b", "condition": " "}', r"61: condition must be a text"),
    ],
)
def test_malformed_triplets(tmp_path, toy, line, match):
    keys = write_triplets(tmp_path)
    with open(keys["triplets"], "a") as file:
        file.write(line + "\n")
    refused(match, keys)
    assert toy.images == 0


def test_bad_triplet_files(tmp_path, toy):
    keys = write_triplets(tmp_path)
    refused(r"cannot read .*nothing.jsonl: No such file", keys, triplets=tmp_path / "nothing.jsonl")
    (tmp_path / "empty.jsonl").touch()
    refused(r"there are no triplets in .*empty", keys, triplets=tmp_path / "empty.jsonl")
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\x00")
    refused(r"binary.jsonl is no triplet file", keys, triplets=tmp_path / "binary.jsonl")


def test_missing_images_are_counted_before_anything_is_embedded(tmp_path, toy):
    keys = write_triplets(tmp_path)
    for number in (3, 4, 5, 6):
        (keys["images"] / f"{number:03}.png").unlink()
    refused(
        r"4 of the 12 images of .* are not in .*images, the first: (00[3-6].png(, |;)){3}", keys
    )
    assert toy.images == 0


def test_too_few_triplets_and_uneven_parts(tmp_path, toy):
    keys = write_triplets(tmp_path)
    refused(
        r"54 triplets to train on \(and 6 held out\) do not fill a batch of 55", keys, batch_size=55
    )
    refused(
        r"8 does not divide into 3 equal parts \(1 processes x accumulate 3", keys, accumulate=3
    )
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


def test_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(tmp_path, toy, monkeypatch):
    keys = {**write_triplets(tmp_path), "checkpoint_every": 2}
    loss, calls = training.contrastive_loss, []

    def broken(*features):
        calls.append(None)
        return loss(*features) * (np.nan if len(calls) == 4 else 1)

    monkeypatch.setattr(training, "contrastive_loss", broken)
    with pytest.raises(
        UserError, match=r"loss of step 4 is not finite; the last checkpoint is kept"
    ):
        train(keys)
    state = torch.load(tmp_path / "outputs/combiner/run/state.pt", weights_only=True)
    assert state["progress"]["step"] == 2
    assert all(tensor.isfinite().all() for tensor in state["combiner"].values())


def test_embeddings_that_do_not_fit(tmp_path, monkeypatch):
    keys = write_triplets(tmp_path)
    monkeypatch.setattr(module, "load_vlm", lambda *_: toy_vlm.ToyVLM(queries=3))
    refused(r"toy gives 3 vectors an image and one is needed", keys)
    broken = toy_vlm.ToyVLM("toy-3")
    broken.encode_images = lambda batch: torch.full((len(batch), 5), torch.nan)
    monkeypatch.setattr(module, "load_vlm", lambda *_: broken)
    refused(r"NaN or infinite embeddings", keys)


def test_only_open_clip_is_trained(tmp_path, clip):
    refused(r"only an open_clip VLM can be trained here, and .align. is none", clip, vlm="align")
    refused(r"unknown VLM 'clipp'", clip, vlm="clipp")


def test_unreadable_image_while_the_vlm_trains(tmp_path, clip):
    (clip["images"] / "004.png").write_bytes(b"no picture")
    for workers in (0, 2):
        with pytest.raises(UserError, match=r"cannot read the image .*004.png: cannot identify"):
            train(clip, workers=workers)


def test_command_says_it_in_one_line(tmp_path):
    keys = write_triplets(tmp_path)
    done = start(tmp_path, {**keys, "accumulate": 3})
    assert done.returncode == 2 and done.stderr.startswith("error: batch_size 8 does not divide")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["combiner_cc3m", "demo/combiner"])
def test_configurations_are_valid(name):
    config = module.load_config(TrainConfig, ["--config", f"{REPOSITORY}/configs/{name}.yaml"], "")
    assert config.batch_size in (256, 4096)
