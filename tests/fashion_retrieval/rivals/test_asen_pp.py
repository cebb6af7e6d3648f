"""ASEN++: attention, losses and sizes, against numbers worked by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from crl.run.ranking import average_precision
from fashion_retrieval.method import stacked_triplet_loss
from fashion_retrieval.rivals.asen import attention_map, pooled
from fashion_retrieval.rivals.asen_pp import ASENpp, Attention, alignment
from fashion_retrieval.towers import Tower

FEATURES = torch.tensor([[[[1, 0, 0.5]], [[0, 2, 0.5]]]])  # one image, two channels, 1 x 3
ASKED = torch.tensor([[1, 0.5]])


def near(*values):
    return pytest.approx(values, abs=1e-6)


def test_map_and_pooled_values():
    attention = attention_map(FEATURES.tanh(), ASKED.tanh())
    assert attention.flatten().tolist() == near(0.344942, 0.313641, 0.341417)
    assert pooled(FEATURES, attention).flatten().tolist() == near(0.515651, 0.797990)


def test_attention_position_by_position():
    torch.manual_seed(0)
    part = Attention(6, 4, 5).double()
    features, asked = torch.randn(2, 6, 2, 3).double(), torch.randn(2, 512).double()
    vectors, maps = part(features, asked)
    conv, where, which = part.position[0], part.where[0], part.which[0]
    for x, a, vector, attention in zip(features, asked, vectors, maps, strict=True):
        query = torch.tanh(where.weight @ a + where.bias)
        columns = x.flatten(1).T  # (6 positions, 6 channels)
        scores = [torch.tanh(conv.weight[:, :, 0, 0] @ c + conv.bias) @ query / 2 for c in columns]
        weights = torch.stack(scores).exp() / torch.stack(scores).exp().sum()
        assert torch.allclose(attention.flatten(), weights)
        x = sum(w * c for w, c in zip(weights, columns, strict=True))
        other = torch.clamp(which.weight @ a + which.bias, min=0)
        hidden = part.channel[0].weight @ torch.cat([x, other]) + part.channel[0].bias
        gate = part.channel[2].weight @ torch.clamp(hidden, min=0) + part.channel[2].bias
        x = x / (1 + torch.exp(-gate))
        assert torch.allclose(vector, part.embedding.weight @ x + part.embedding.bias)


def test_losses_and_precision():
    triplet = torch.tensor([[1, 0], [0.8, 0.6], [0.96, 0.28]])
    assert stacked_triplet_loss(triplet, 0.2).item() == pytest.approx(0.36, abs=1e-6)
    whole = torch.tensor([[1, 0], [0, 1], [0.6, 0.8]])
    local = torch.tensor([[0.8, 0.6], [0, 1], [-0.6, 0.8]])
    assert alignment(whole, local).item() == pytest.approx(0.92, abs=1e-6)
    for relevant, expected in (((1, 0, 1, 0), 0.833333), ((0, 1, 1, 0), 0.583333)):
        ranked = torch.tensor([[4.0, 3.0, 2.0, 1.0]]).numpy(), torch.tensor([1]).numpy()
        assert average_precision(*ranked, torch.tensor(relevant).numpy()) == near(expected)


def test_sizes_are_the_published_ones():
    tower = Tower("none", nn.Identity(), None, 1024, "")
    network = ASENpp(tower, 5, 1024)
    local = ASENpp.closer("", 1024, weights=False)
    counts = [sum(p.numel() for p in part.parameters()) for part in (network, local.attention)]
    assert counts == [3_411_968 + 5 * 512, 854_400]
    with torch.no_grad():
        features = local.tower(torch.randn(1, 3, local.size, local.size))
    assert (local.size, *features.shape) == (112, 1, 256, 7, 7)


def test_stage_2_is_a_weighted_mean_of_cosines():
    torch.manual_seed(0)
    tower = Tower("conv", nn.Conv2d(3, 6, 4, 4), lambda image: torch.zeros(3, 32, 32), 6, "")
    network = ASENpp(tower, 2, 5)
    network.look_closer(ASENpp.closer("small", 5))
    pixels, attribute = torch.randn(6, 5, 3, 32, 32), torch.tensor([0, 1])
    with torch.no_grad():
        seen, asked = network.eval().features(pixels, "fp32"), attribute.repeat(3)
        assert torch.equal(seen.map, tower.module(pixels[:, 0]))
        both = network.both(seen, asked)
        rows = network.embed(seen, asked)
        loss = network.loss(seen, attribute, torch.arange(6), 0.2)
    assert rows.shape == (6, 10) == (6, network.width)
    cosines = [rows @ rows.T for rows in (rows, both.whole, both.local)]
    assert torch.allclose(cosines[0], 0.6 * cosines[1] + 0.4 * cosines[2], atol=1e-6)
    expected = 0.0
    for n in range(2):
        for weight, each in ((1, both.whole), (0.1, both.local)):
            a, p, z = each[n], each[2 + n], each[4 + n]
            expected += weight * F.relu(0.2 - a @ p + a @ z) / 2
        for part in (n, 2 + n, 4 + n):
            expected += 0.1 * F.relu(1 - both.whole[part] @ both.local[part]) / 2
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
