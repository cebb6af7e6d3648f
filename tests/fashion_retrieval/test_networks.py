"""Training from images: towers, conditional representations and validation against one image, one
triplet at a time; worker processes and several processes against one; every message."""

import json
import os
import socket
from typing import ClassVar

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
import toy_vlm
from PIL import Image
from torch import nn
from torch.nn import functional as F

from crl import distributed
from crl.run.errors import UserError
from fashion_retrieval import networks as module
from fashion_retrieval.heads import Heads
from fashion_retrieval.networks import Conditional, Network, NetworkConfig
from fashion_retrieval.scoring import mean_scores
from fashion_retrieval.training import Job, TrainingData, Triplets

CPU = torch.device("cpu")
PIXELS = 3 * toy_vlm.SIDE**2


# --- a small network, and pictures for it ---------------------------------------------------------


class Tower(nn.Module):
    """Linear, in float64; counts its images."""

    def __init__(self, width=7):
        super().__init__()
        self.linear = nn.Linear(PIXELS, width, dtype=torch.float64)
        self.images = 0

    def forward(self, pixels):
        self.images += len(pixels)
        return self.linear(pixels.flatten(1).double() / 255)


class Toy(Network):
    """A mask an attribute over a shared embedding, and a penalty: the mean over what it is given,
    as CSN has it. In float64, so that sums in another order agree to 1e-10."""

    width = 7

    def __init__(self, attributes=2):
        super().__init__()
        torch.manual_seed(3)
        self.tower, self.preprocess = Tower(self.width), toy_vlm.ToyVLM().preprocess
        self.mask = nn.Parameter(torch.rand(attributes, self.width, dtype=torch.float64))
        self.spare = nn.Parameter(torch.ones(3), requires_grad=False)

    def features(self, pixels, precision):
        return self.tower(pixels)

    def embed(self, features, attribute):
        embedded = F.normalize(features * self.mask[attribute], dim=1)
        return embedded if torch.is_grad_enabled() else embedded.float()  # in use: float32

    def penalty(self, features, attribute):
        assert features.shape[0] == 3 and features.shape[1] == len(attribute)
        return 0.01 * features.square().mean() + 0.1 * self.mask[attribute].abs().mean()


def write_data(folder):
    """24 pictures to train on and 11 to validate with; two attributes of three values."""
    files = toy_vlm.make_images(folder / "images", 35)
    rng = np.random.default_rng(0)

    def rows(images):
        return np.array([(n, a, v) for n in images for a, v in enumerate(rng.integers(3, size=2))])

    valid = rows(range(24, 35))
    return TrainingData(["hue", "cut"], Triplets(rows(range(24))), valid[:9], valid[9:], files)


def settings(folder, **more):
    keys = {"name": "toy", "outputs": folder / "outputs", "epochs": 2, "triplets": 22}
    keys |= {"batch_size": 6, "lr": 1e-2, "eval_batch": 4, "workers": 0, "device": "cpu"}
    return NetworkConfig(**{**keys, **more})


def train(folder, data, network=None, **more):
    config = settings(folder, **more)
    network = network or Toy()
    module.train_network(Job.of("toys", config), {}, network, data, lambda: None)
    return network, json.loads((folder / "outputs/toys" / config.name / "results.json").read_text())


def pixels_of(data, image):
    with Image.open(data.files[image]) as picture:
        return toy_vlm.ToyVLM().preprocess(picture)[None]


# --- the conditional representation ---------------------------------------------------------------


def conditional(attributes=3, out=6):
    """A Conditional over a small tower, its heads anything but fresh, and 9 images of it."""
    torch.manual_seed(0)
    text = F.normalize(torch.randn(attributes, 4, 5), dim=2)
    heads = Heads(attributes, 4, out)
    for tensor in heads.state_dict().values():
        tensor.copy_(torch.rand_like(tensor) + 0.2)  # a variance is positive
        tensor.mul_(torch.rand_like(tensor).sub(0.3).sign() if tensor.ndim == 3 else 1)
    tower = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.Tanh(), nn.Dropout(0.5))
    return Conditional(tower, lambda image: image, text, heads), torch.randn(9, 3, 2, 2)


def literal(network, pixels, attribute):
    """One image: tower, l2, T_a, l2, the head of a as torch's own layers, l2."""
    heads = network.heads
    K, h, out = heads.width, heads.bias1.shape[1], heads.bias2.shape[1]
    mlp = nn.Sequential(nn.Linear(K, h), nn.BatchNorm1d(h), nn.ReLU(), nn.Linear(h, out)).eval()
    names = ["0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var"]
    names += ["3.weight", "3.bias"]
    ours = ["weight1", "bias1", "scale", "shift", "mean", "variance", "weight2", "bias2"]
    state = {a: getattr(heads, b)[attribute] for a, b in zip(names, ours, strict=True)}
    mlp.load_state_dict(state, strict=False)
    image = network.tower(pixels[None])[0]
    image = image / image.norm()
    x = torch.stack([(image * t).sum() for t in network.text[attribute]])
    z = mlp((x / x.norm())[None])[0]
    return z / z.norm()


def test_conditional_image_by_image():
    network, pixels = conditional()
    attribute = torch.tensor([0, 1, 1, 2, 2, 2, 0, 1, 2])
    network.train()  # its tower and heads stay as in use
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    found = network.embed(network.features(pixels, "fp32"), attribute)
    assert found.dtype == torch.float32 and found.shape == (9, network.width) == (9, 6)
    weight = torch.randn(9, 6)
    (found * weight).sum().backward()
    gradient = network.tower[1].weight.grad.clone()
    network.zero_grad()
    expected = torch.stack(
        [literal(network, *pair) for pair in zip(pixels, attribute, strict=True)]
    )
    (expected * weight).sum().backward()
    assert torch.allclose(found, expected, atol=1e-6)
    assert gradient.abs().max() > 1e-2
    assert torch.allclose(gradient, network.tower[1].weight.grad, atol=1e-6)
    assert all(parameter.grad is None for parameter in network.heads.parameters())
    assert all(torch.equal(before[key], t) for key, t in network.state_dict().items())
    assert [p for p in network.parameters() if p.requires_grad] == [*network.tower.parameters()]


def test_precision_is_that_of_the_tower_alone():
    network, pixels = conditional()
    full, half = (network.eval().features(pixels, p) for p in ("fp32", "bf16"))
    assert full.dtype == half.dtype == torch.float32
    assert torch.allclose(full, half, atol=0.05) and not torch.equal(full, half)
    assert torch.equal(full, network.tower(pixels))
    assert torch.equal(half, half.bfloat16().float())
    x = network.embed(half, torch.zeros(9, dtype=torch.int64))
    assert not torch.equal(x, x.bfloat16().float())


# --- images ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_in_order(tmp_path, workers):
    data = write_data(tmp_path)
    pixels = module.Pixels(data.files, toy_vlm.ToyVLM().preprocess)
    batches = [np.array([3, 3, 30]), np.array([1]), np.array([34, 0])]
    found = list(module.read_batches(pixels, batches, workers, CPU))
    for batch, images in zip(found, batches, strict=True):
        assert torch.equal(batch, torch.cat([pixels_of(data, n) for n in images]))
    assert not list(module.read_batches(pixels, [], workers, CPU))


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_image_is_named(tmp_path, workers):
    data = write_data(tmp_path)
    data.files[30].write_bytes(b"no picture")
    message = r"cannot read the image .*030.png: cannot identify.*; mend it or leave it out"
    with pytest.raises(UserError, match=message) as caught:
        train(tmp_path, data, workers=workers, epochs=1)  # it is one of the validation
    assert "\n" not in str(caught.value)
    for file in data.files[:24]:
        file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(UserError, match=r"cannot read the image .*0(0|1|2)\d.png: .*truncated"):
        train(tmp_path, data, workers=workers)


# --- use ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("eval_batch", [1, 4, 100])  # 4: the last one is smaller
def test_rows_one_image_at_a_time(tmp_path, eval_batch):
    data = write_data(tmp_path)
    network = Toy()
    rng = np.random.default_rng(1)
    rows = np.column_stack([rng.integers(20, 33, size=50), rng.integers(2, size=50)])  # in no order
    config = settings(tmp_path, eval_batch=eval_batch)
    found = module.represent_rows(network, data.files, rows, config, CPU)
    assert network.tower.images == len(set(rows[:, 0])) < len(rows)  # each image once
    assert found.shape == (50, 7) and found.dtype == np.float32
    assert not network.training
    with torch.inference_mode():
        for vector, (image, attribute) in zip(found, rows, strict=True):
            features = network.tower(pixels_of(data, image))
            expected = network.embed(features, torch.tensor([attribute]))[0]
            assert np.allclose(vector, expected, atol=1e-6)


def test_vectors_that_are_not_finite(tmp_path):
    data, network = write_data(tmp_path), Toy()
    rows = np.array([[20, 0], [21, 1]])
    for parameter in network.parameters():
        parameter.data.fill_(torch.nan)
    with pytest.raises(UserError, match="NaN or infinite vectors; try precision=fp32"):
        module.represent_rows(network, data.files, rows, settings(tmp_path), CPU)


def test_tables_one_row_at_a_time(tmp_path):
    data = write_data(tmp_path)
    network, config = Toy(), settings(tmp_path)
    labels = data.triplets.labels
    represent = module.represent_tables(network, data.files, [labels, data.query], config, CPU)
    images = len(set(labels[:, 0]) | set(data.query[:, 0]))
    assert network.tower.images == images
    for table in (labels, data.query):
        for attribute in (0, 1):
            asked = np.random.default_rng(0).permutation(table[table[:, 1] == attribute, 0])
            rows = np.column_stack([asked, np.full_like(asked, attribute)])
            expected = module.represent_rows(network, data.files, rows, config, CPU)
            assert np.allclose(represent(asked, attribute), expected, atol=1e-6)


def test_validation_query_by_query(tmp_path):
    data = write_data(tmp_path)
    network, results = train(tmp_path, data, epochs=1)
    precision = []
    with torch.inference_mode():

        def embed(row):
            return network.embed(network.tower(pixels_of(data, row[0])), torch.tensor([row[1]]))[0]

        for query in data.query:
            own = [c for c in data.candidate if c[1] == query[1]]
            own.sort(key=lambda c: -float(embed(query) @ embed(c)))
            ranks = [rank for rank, c in enumerate(own, 1) if c[2] == query[2]]
            precision.append(np.mean([(n + 1) / r for n, r in enumerate(ranks)] or [0.0]))
    expected = mean_scores(np.array(precision), data.query, data.attributes)
    assert results["validation"] == [pytest.approx({"epoch": 1, **expected})]
    assert 0 < expected["overall"] < 100


# --- training -------------------------------------------------------------------------------------


def literal_training(config, data):
    """The same training, triplet by triplet."""
    network, losses = Toy(), []
    adam = torch.optim.Adam([network.tower.linear.weight, network.tower.linear.bias, network.mask])
    for epoch in range(config.epochs):
        drawn = data.triplets.draw(config.triplets, config.seed, epoch).tolist()
        losses.append([])
        while drawn:
            batch, drawn = drawn[: config.batch_size], drawn[config.batch_size :]
            loss = 0.0
            for triplet in batch:
                images, attribute = (
                    data.triplets.labels[triplet, 0],
                    data.triplets.labels[triplet, 1],
                )
                features = torch.cat([network.tower(pixels_of(data, n)) for n in images])
                a, p, n = network.embed(features, torch.from_numpy(attribute))
                loss += torch.clamp(config.margin - a @ p + a @ n, min=0) / len(batch)
                one = network.penalty(features[:, None], torch.from_numpy(attribute[:1]))
                loss += one / len(batch)
            adam.param_groups[0]["lr"] = config.lr
            adam.zero_grad()
            loss.backward()
            adam.step()
            losses[-1].append(loss.item())
    return network, [np.mean(each) for each in losses]


def assert_same(one, other, atol=1e-10):
    for key, tensor in one.state_dict().items():
        assert torch.allclose(tensor, other.state_dict()[key], rtol=0, atol=atol), key


def test_training_triplet_by_triplet(tmp_path):
    data = write_data(tmp_path)
    network, results = train(tmp_path, data)
    expected, losses = literal_training(settings(tmp_path), data)
    assert results["losses"] == pytest.approx(losses, abs=1e-12)
    assert_same(network, expected)
    assert not torch.allclose(network.mask, Toy().mask, atol=1e-3)
    assert torch.equal(network.spare, torch.ones(3))


def test_worker_processes_change_no_number(tmp_path):
    data = write_data(tmp_path)
    one, two = (train(tmp_path, data, name=f"{n}", workers=n) for n in (0, 2))
    for key in ("losses", "validation"):
        assert one[1][key] == two[1][key]
    assert_same(one[0], two[0], atol=0)


def test_rest_of_an_epoch_decodes_only_what_it_needs(tmp_path, monkeypatch):
    """Goes on after an interrupt in the middle of the second epoch."""
    data = write_data(tmp_path)
    _, whole = train(tmp_path, data, name="whole")
    backward, calls = torch.Tensor.backward, []

    def interrupted(*arguments):
        calls.append(None)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return backward(*arguments)

    monkeypatch.setattr(torch.Tensor, "backward", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, data, checkpoint_every=3)
    network, decoded = Toy(), []
    preprocess = network.preprocess
    network.preprocess = lambda image: decoded.append(None) or preprocess(image)
    _, resumed = train(tmp_path, data, network, checkpoint_every=3)
    assert len(decoded) == 3 * (22 - 2 * 6) + 11  # two of four steps were done; the validation
    assert resumed["losses"] == whole["losses"] and resumed["validation"] == whole["validation"]


# --- several processes ----------------------------------------------------------------------------


class Recorded(torch.optim.Adam):
    """Adam that keeps the gradients of every step in `given`."""

    given: ClassVar = []

    def step(self):
        self.given.append(torch.cat([p.grad.flatten() for p in self.param_groups[0]["params"]]))
        super().step()


def one_of_two(rank, folder):
    torch.set_num_threads(1)
    where = {"WORLD_SIZE": "2", "RANK": str(rank), "MASTER_ADDR": "127.0.0.1"}
    os.environ.update(where, MASTER_PORT=(folder / "port").read_text())
    torch.optim.Adam = Recorded
    data = write_data(folder / f"{rank}")
    with distributed.process_group("cpu"):
        kept = []
        config = settings(folder)
        network = Toy()
        module.train_network(Job.of("toys", config), {}, network, data, lambda: kept.append(rank))
        rows = data.triplets.labels[:5, :2]  # 5 rows, of few images: one batch for one process
        config = settings(folder, eval_batch=100)
        vectors = module.represent_rows(network, data.files, rows, config, CPU)
    found = {"network": network.state_dict(), "gradients": torch.stack(Recorded.given)}
    found |= {"vectors": torch.from_numpy(vectors), "kept": kept}
    torch.save(found, folder / f"{rank}.pt")


def test_two_processes_are_one(tmp_path, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        (tmp_path / "port").write_text(str(free.getsockname()[1]))
    mp.spawn(one_of_two, (tmp_path,), nprocs=2)
    two = json.loads((tmp_path / "outputs/toys/toy/results.json").read_text())
    monkeypatch.setattr(torch.optim, "Adam", Recorded)
    monkeypatch.setattr(Recorded, "given", [])
    data = write_data(tmp_path)
    network, one = train(tmp_path, data, name="one")
    assert two["losses"] == pytest.approx(one["losses"], abs=1e-12)
    assert two["validation"] == [pytest.approx(found, abs=1e-6) for found in one["validation"]]
    rows = data.triplets.labels[:5, :2]
    expected = module.represent_rows(network, data.files, rows, settings(tmp_path), CPU)
    for rank in (0, 1):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        gradients = torch.stack(Recorded.given)
        assert len(gradients) == 8  # steps
        assert torch.allclose(found["gradients"], gradients, rtol=0, atol=1e-12)
        for key, tensor in network.state_dict().items():
            assert torch.allclose(found["network"][key], tensor, rtol=0, atol=1e-9)
        assert np.allclose(found["vectors"], expected, atol=1e-6)
        assert bool(found["kept"]) == (rank == 0)  # one of them writes


def test_every_process_needs_a_triplet_in_every_batch(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "world", lambda: 3)
    with pytest.raises(UserError, match="22 triplets in batches of 5 leave a last one of 2, fewer"):
        module.check_shares(settings(tmp_path, batch_size=5))
    with pytest.raises(UserError, match="batches of 2 leave a last one of 2, fewer than the 3 pro"):
        module.check_shares(settings(tmp_path, batch_size=2))
    module.check_shares(settings(tmp_path, triplets=21, batch_size=6))  # a last one of 3
    module.check_shares(settings(tmp_path, triplets=24, batch_size=6))
