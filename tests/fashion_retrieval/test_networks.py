"""Networks: conditional representations, pictures and vectors against one image at a time."""

import numpy as np
import pytest
import torch
import toy_vlm
from torch import nn
from torch.nn import functional as F
from toy_network import Toy, literal, pixels_of, write_data

from crl.run.errors import UserError
from fashion_retrieval.heads import Heads
from fashion_retrieval.networks import (
    ConditionalNetwork,
    Pixels,
    read_batches,
    represent_tables,
)

# --- the conditional representation ---------------------------------------------------------------


def conditional(attributes=3, out=6):
    """A ConditionalNetwork over a small tower, its heads anything but fresh, and 9 images of it."""
    torch.manual_seed(0)
    text = F.normalize(torch.randn(attributes, 4, 5), dim=2)
    heads = Heads(attributes, 4, out)
    for tensor in heads.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) + 0.2)  # a variance is positive
            tensor.mul_(torch.rand_like(tensor).sub(0.3).sign() if tensor.ndim == 2 else 1)
    tower = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.Tanh(), nn.Dropout(0.5))
    return ConditionalNetwork(tower, lambda image: image, text, heads), torch.randn(9, 3, 2, 2)


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
    assert torch.allclose(full, half, atol=0.05) and torch.equal(half, half.bfloat16().float())
    assert not torch.equal(full, half)


# --- images ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_in_order(tmp_path, workers):
    data = write_data(tmp_path)
    pixels = Pixels(data.files, toy_vlm.ToyVLM().preprocess)
    batches = [np.array([3, 3, 30]), np.array([1]), np.array([34, 0])]
    found = list(read_batches(pixels, batches, workers, torch.device("cpu")))
    for batch, images in zip(found, batches, strict=True):
        assert torch.equal(batch, torch.cat([pixels_of(data, n) for n in images]))
    assert not list(read_batches(pixels, [], workers, torch.device("cpu")))


# --- use ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 4, 100])  # 4: the last one is smaller
def test_tables_one_image_at_a_time(tmp_path, batch_size):
    data, network = write_data(tmp_path), Toy()
    tables = [data.sampler.labels, data.query]
    represent = represent_tables(network, data.files, tables, "fp32", 0, batch_size)
    images = set(tables[0][:, 0]) | set(tables[1][:, 0])
    assert network.tower.images == len(images)  # each once, for both attributes
    assert not network.training
    for table in tables:
        for attribute in (0, 1):
            asked = np.random.default_rng(0).permutation(table[table[:, 1] == attribute, 0])
            vectors = represent(asked, attribute)
            assert vectors.shape == (len(asked), 7) and vectors.dtype == np.float32
            for vector, image in zip(vectors, asked, strict=True):
                with torch.inference_mode():
                    features = network.tower(pixels_of(data, image))
                    expected = network.embed(features, torch.tensor([attribute]))[0]
                assert np.allclose(vector, expected, atol=1e-6)


def test_vectors_that_are_not_finite(tmp_path):
    data, network = write_data(tmp_path), Toy()
    for parameter in network.parameters():
        parameter.data.fill_(torch.nan)
    with pytest.raises(UserError, match="NaN or infinite vectors; try precision=fp32"):
        represent_tables(network, data.files, [data.query], "fp32", 0)
