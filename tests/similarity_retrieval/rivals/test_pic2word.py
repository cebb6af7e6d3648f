"""Pic2Word: network, loss and schedule, against RIVALS' numbers."""

import numpy as np
import pytest
import torch
from torch import nn

from crl.run.training import warmup_cosine
from similarity_retrieval.rivals.config import RivalConfig
from similarity_retrieval.rivals.pic2word import Im2Text, Pic2Word, contrast


def test_the_loss_is_the_mean_of_both_directions():
    image = torch.tensor([[1, 0], [0, 1], [0.6, 0.8]])
    text = torch.tensor([[0.8, 0.6], [0, 1], [1, 0]])
    assert contrast(image, text, 2).item() == pytest.approx(0.988534, abs=1e-6)
    rng = np.random.default_rng(0)
    image, text = (torch.from_numpy(rng.standard_normal((3, 4))) for _ in range(2))
    assert contrast(image, 7 * text, 10).item() == pytest.approx(6.426717, abs=1e-6)


@pytest.mark.parametrize(
    ("sizes", "count"), [((768, 768), 1_050_368), ((512, 512), 787_968), ((128, 128), 394_368)]
)
def test_the_network(sizes, count):
    network = Im2Text(*sizes)
    assert sum(p.numel() for p in network.parameters()) == count
    layers = ("layers.0.0", "layers.1.0", "fc_out")
    assert list(network.state_dict()) == [f"{x}.{y}" for x in layers for y in ("weight", "bias")]
    assert [type(layer) for layer in network.layers[0]] == [nn.Linear, nn.Dropout, nn.ReLU]
    assert {m.p for m in network.modules() if isinstance(m, nn.Dropout)} == {0.1}


def test_warmup_and_cosine():
    steps = (0, 9999, 10_000, 155_000, 300_000)
    rates = [warmup_cosine(step, 300_000, 1e-4, 10_000, lowest=0) for step in steps]
    assert rates == pytest.approx([1e-8, 1e-4, 1e-4, 5e-5, 0], abs=1e-12)
    assert warmup_cosine(7, 9, 3e-4, 0, lowest=1) == 3e-4  # of the others


def test_biases_do_not_decay():
    optimizer = Pic2Word.optimizer(Im2Text(4, 6), 1e-4, 0.1)
    weights, biases = optimizer.param_groups
    assert (weights["weight_decay"], biases["weight_decay"]) == (0.1, 0)
    assert {p.ndim for p in weights["params"]} == {2} and {p.ndim for p in biases["params"]} == {1}
    assert (weights["betas"], weights["eps"]) == ((0.9, 0.98), 1e-6)


def test_the_batch_is_compared_with_its_own_sentences(keys, words, tmp_path):
    images = sorted((tmp_path / "images").iterdir())
    data, network = Pic2Word(RivalConfig(**keys), words, images, 6, tmp_path), Im2Text(16, 32)
    assert data.scale == pytest.approx(words.vlm.model.logit_scale.exp().item())
    rows = np.array([9, 7])
    vectors = network.eval()(data.inputs[rows])  # raw embeddings
    text = torch.cat([words.encode(["a photo of $"], vector[None]) for vector in vectors])
    expected = contrast(data.inputs[rows], text, data.scale)
    assert data.loss(network, rows, None).item() == pytest.approx(expected.item(), abs=1e-5)
