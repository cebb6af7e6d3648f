"""Training from pixels against one triplet at a time; worker processes and several processes
against one."""

import json
from typing import ClassVar
from unittest import mock

import numpy as np
import pytest
import torch
from disturbed import finished, in_two_processes, interrupted
from toy_network import Toy, ToyTrainer, pixels_of, settings, write_data

from crl.run.errors import UserError
from fashion_retrieval.networks import represent_tables


def train(folder, data, network=None, **more):
    trainer = ToyTrainer(settings(folder, **more), data, network)
    _, results = finished(trainer)
    return trainer.network, results


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_image_is_named(tmp_path, workers):
    data = write_data(tmp_path)
    data.files[30].write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"cannot read the image .*030.png: not an image"):
        train(tmp_path, data, workers=workers, epochs=1)  # it is one of the validation


def literal_training(config, data):
    """The same training, triplet by triplet."""
    network, losses = Toy(), []
    adam = torch.optim.Adam([network.tower.linear.weight, network.tower.linear.bias, network.mask])
    for epoch in range(config.epochs):
        drawn = data.sampler.draw(config.triplets, config.seed, epoch).tolist()
        losses.append([])
        while drawn:
            batch, drawn = drawn[: config.batch_size], drawn[config.batch_size :]
            loss = 0.0
            for triplet in batch:
                images, attribute, _ = data.sampler.labels[triplet].T
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
    for key, tensor in one.items():
        assert torch.allclose(tensor, other[key], rtol=0, atol=atol), key


def test_training_triplet_by_triplet(tmp_path):
    data = write_data(tmp_path)
    network, results = train(tmp_path, data)
    expected, losses = literal_training(settings(tmp_path), data)
    assert results["losses"] == pytest.approx(losses, abs=1e-12)
    assert_same(network.state_dict(), expected.state_dict())
    assert not torch.allclose(network.mask, Toy().mask, atol=1e-3)
    assert torch.equal(network.spare, torch.ones(3))


def test_worker_processes_change_no_number(tmp_path):
    data = write_data(tmp_path)
    one, two = (train(tmp_path, data, name=f"{n}", workers=n) for n in (0, 2))
    for key in ("losses", "validation"):
        assert one[1][key] == two[1][key]
    assert_same(one[0].state_dict(), two[0].state_dict(), atol=0)


def test_rest_of_an_epoch_decodes_only_what_it_needs(tmp_path):
    """Goes on after an interrupt in the middle of the second epoch."""
    data = write_data(tmp_path)
    _, whole = train(tmp_path, data, name="whole")
    with interrupted(torch.Tensor, "backward", 7):
        train(tmp_path, data, checkpoint_every=3)
    network = Toy()
    network.preprocess = mock.Mock(side_effect=network.preprocess)
    _, resumed = train(tmp_path, data, network, checkpoint_every=3)
    decoded = 3 * (22 - 2 * 6) + 11  # two of four steps were done; the validation
    assert network.preprocess.call_count == decoded
    assert resumed["losses"] == whole["losses"] and resumed["validation"] == whole["validation"]


# --- several processes ----------------------------------------------------------------------------


class Recorded(torch.optim.Adam):
    """Adam that keeps the gradients of every step in `given`."""

    given: ClassVar = []

    def step(self):
        self.given.append(torch.cat([p.grad.flatten() for p in self.param_groups[0]["params"]]))
        super().step()


def one_of_two(rank, folder):
    torch.optim.Adam = Recorded
    data = write_data(folder / f"{rank}")
    trainer = ToyTrainer(settings(folder), data)
    trainer.run()
    network = trainer.network
    vectors = vectors_of(network, data, 100)  # one batch, for one process
    actual = {"network": network.state_dict(), "gradients": torch.stack(Recorded.given)}
    actual |= {"vectors": torch.from_numpy(vectors), "kept": trainer.kept}
    torch.save(actual, folder / f"{rank}.pt")


def vectors_of(network, data, batch_size):
    rows = data.sampler.labels[:5]  # of one attribute, 0
    represent = represent_tables(network, data.files, [rows], "fp32", 0, batch_size)
    return represent(rows[:, 0], 0)


def test_two_processes_are_one(tmp_path, monkeypatch):
    in_two_processes(one_of_two, tmp_path)
    two = json.loads((tmp_path / "outputs/toys/toy/results.json").read_text())
    monkeypatch.setattr(torch.optim, "Adam", Recorded)
    monkeypatch.setattr(Recorded, "given", [])
    data = write_data(tmp_path)
    network, one = train(tmp_path, data, name="one")
    assert two["losses"] == pytest.approx(one["losses"], abs=1e-12)
    assert two["validation"] == [pytest.approx(actual, abs=1e-6) for actual in one["validation"]]
    expected = vectors_of(network, data, 4)
    for rank in (0, 1):
        actual = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        gradients = torch.stack(Recorded.given)
        assert len(gradients) == 8  # steps
        assert torch.allclose(actual["gradients"], gradients, rtol=0, atol=1e-12)
        assert_same(network.state_dict(), actual["network"], atol=1e-9)
        assert np.allclose(actual["vectors"], expected, atol=1e-6)
        assert bool(actual["kept"]) == (rank == 0)  # one of them writes
