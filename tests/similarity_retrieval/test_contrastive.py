"""The loss against a loop; its gradients in parts and in two processes against one batch."""

import os

import pytest
import torch
import torch.multiprocessing as mp
from torch import nn
from torch.nn import functional as F

from crl.run.distributed import process_group, rank, sum_gradients, world
from similarity_retrieval.combiner import Combiner
from similarity_retrieval.contrastive import backward, contrastive_loss


def test_loss_is_cross_entropy_row_by_row():
    torch.manual_seed(0)
    combined, target = F.normalize(torch.randn(2, 7, 5, dtype=torch.float64), dim=2)
    expected = 0.0
    for i in range(7):
        scores = [100 * sum(combined[i, d] * target[j, d] for d in range(5)) for j in range(7)]
        expected -= torch.log(torch.exp(scores[i]) / sum(torch.exp(s) for s in scores)) / 7
    assert torch.isclose(contrastive_loss(combined, target), expected, rtol=1e-12)
    # One direction only: the other one differs.
    assert not torch.isclose(contrastive_loss(target, combined), expected)


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
    expected = contrastive_loss(*torch.cat(features).unbind(1))
    expected.backward()
    wanted = gradients(model)
    model.zero_grad()
    loss = backward(forward, list(inputs.chunk(parts)), seeds)
    assert loss == pytest.approx(expected.item(), abs=1e-12)
    assert torch.allclose(gradients(model), wanted, rtol=0, atol=1e-10 * wanted.abs().max())
    assert wanted.abs().max() > 1e-3
    if dropout == 0:  # and so the number of parts makes no difference at all
        one, _, forward = problem(dropout)
        assert loss == pytest.approx(backward(forward, [inputs], [0]), abs=1e-12)
        assert torch.allclose(gradients(one), wanted, rtol=0, atol=1e-10 * wanted.abs().max())


def one_of_two(number, folder):
    torch.set_num_threads(1)
    where = {"WORLD_SIZE": "2", "RANK": str(number), "MASTER_ADDR": "127.0.0.1"}
    os.environ.update(where, MASTER_PORT=(folder / "port").read_text())
    with process_group("cpu") as device:
        assert device == "cpu" and world() == 2 and rank() == number
        for dropout in (0.0, 0.5):
            model, inputs, forward = problem(dropout)
            parts = list(inputs.chunk(4))[2 * number : 2 * number + 2]
            loss = backward(forward, parts, [10 + 2 * number, 11 + 2 * number])
            sum_gradients(list(model.parameters()))
            found = {"loss": loss, "gradients": gradients(model)}
            torch.save(found, folder / f"{dropout}-{number}.pt")


def test_two_processes_give_loss_and_gradients_of_one(tmp_path):
    write_port(tmp_path / "port")
    mp.spawn(one_of_two, (tmp_path,), nprocs=2)
    for dropout in (0.0, 0.5):
        model, inputs, forward = problem(dropout)
        parts = list(inputs.chunk(4)) if dropout else [inputs]  # the same dropout in equal parts
        loss = backward(forward, parts, list(range(10, 10 + len(parts))))
        wanted = gradients(model)
        for number in range(2):
            found = torch.load(tmp_path / f"{dropout}-{number}.pt", weights_only=True)
            assert found["loss"] == pytest.approx(loss, abs=1e-12)
            error = (found["gradients"] - wanted).abs().max()
            assert error < 1e-10 * wanted.abs().max()


def write_port(file):
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        file.write_text(str(free.getsockname()[1]))
