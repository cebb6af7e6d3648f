"""The rivals against literal ones, sample by sample."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from fashion_retrieval.rivals.asen import ASEN
from fashion_retrieval.rivals.csn import CSN
from fashion_retrieval.towers import Tower


class Small(nn.Module):
    """Pixels (B, 3, h, w) -> a map (B, 6, h, w), or its mean."""

    def __init__(self, spatial):
        super().__init__()
        self.layer, self.spatial = nn.Conv2d(3, 6, 1), spatial
        self.norm = nn.BatchNorm2d(6)

    def forward(self, pixels):
        features = self.norm(self.layer(pixels))
        return features if self.spatial else features.mean((2, 3))


def small(kind, attributes=3, width=5):
    torch.manual_seed(1)
    tower = Tower("small", Small(kind.spatial), None, 6, "small-1")
    rival = kind(tower, attributes, width)
    for parameter in rival.parameters():  # none of them idle
        parameter.data += 0.3 * torch.randn_like(parameter)
    return rival.double()


ATTRIBUTE = torch.tensor([2, 0, 0, 1])


def test_csn_row_by_row():
    rival = small(CSN)
    rival.mask.data = rival.mask.data - 0.9  # some of them below zero
    features = torch.randn(4, 6, dtype=torch.float64)
    masks = rival.mask[ATTRIBUTE].relu()
    assert (masks >= 0).all() and (masks == 0).any() and (masks > 0).any(1).all()
    W, b, mask = rival.embedding.weight, rival.embedding.bias, rival.mask.tolist()
    for n, actual in enumerate(rival.embed(features, ATTRIBUTE)):
        rows = [sum(W[i, j] * features[n, j] for j in range(6)) + b[i] for i in range(5)]
        weights = [max(0.0, weight) for weight in mask[ATTRIBUTE[n]]]
        e = torch.stack([row * weight for row, weight in zip(rows, weights, strict=True)])
        assert torch.allclose(actual, e / e.square().sum().sqrt(), atol=1e-12)


def test_csn_penalty_is_the_published_one():
    rival = small(CSN)
    features = torch.randn(3, 4, 6, dtype=torch.float64)
    mask_norm = embedding_norm = 0.0
    for part in range(3):  # as published: a mean over anchors, positives and negatives
        squares = 0.0
        for n in range(4):
            mask_norm += sum(max(0.0, w) for w in rival.mask[ATTRIBUTE[n]].tolist()) / 4 / 3
            e = rival.embedding.weight @ features[part, n] + rival.embedding.bias
            squares += sum(value**2 for value in e.tolist())
        embedding_norm += math.sqrt(squares) / math.sqrt(4) / 3
    expected = 5e-4 * mask_norm + 5e-3 * embedding_norm
    assert min(mask_norm, embedding_norm) > 0.5
    penalty = rival.penalty(features, ATTRIBUTE)
    assert penalty.item() == pytest.approx(expected, abs=1e-12)
    penalty.backward()
    assert rival.mask.grad.abs().sum() > 0 and rival.embedding.weight.grad.abs().sum() > 0


def literal_asen(rival, features, attribute, mean, variance):
    """Sample by sample, position by position; -> rows (B, width), weights (B, h, w)."""
    conv, norm = rival.position[0], rival.position[1]
    rows, weights = [], []
    for x, a in zip(features, attribute, strict=True):
        asked = rival.attribute.weight[a]
        where = torch.tanh(rival.where[0].weight @ asked + rival.where[0].bias)
        score = torch.zeros(x.shape[1:], dtype=torch.float64)
        for y, z in np.ndindex(*score.shape):
            p = conv.weight[:, :, 0, 0] @ x[:, y, z] + conv.bias
            p = (p - mean) / torch.sqrt(variance + norm.eps) * norm.weight + norm.bias
            score[y, z] = torch.dot(torch.tanh(p), where) / 512**0.5
        weight = torch.exp(score) / torch.exp(score).sum()
        vector = sum(weight[y, z] * x[:, y, z] for y, z in np.ndindex(*score.shape))
        which = torch.clamp(rival.which[0].weight @ asked + rival.which[0].bias, min=0)
        squeeze, excite = rival.channel[0], rival.channel[2]
        hidden = squeeze.weight @ torch.cat([vector, which]) + squeeze.bias
        gate = excite.weight @ torch.clamp(hidden, min=0) + excite.bias
        row = rival.embedding.weight @ (vector / (1 + torch.exp(-gate))) + rival.embedding.bias
        rows.append(row / row.square().sum().sqrt())
        weights.append(weight)
    return torch.stack(rows), torch.stack(weights)


@torch.no_grad()
def test_asen_position_by_position():
    rival = small(ASEN)
    features = torch.randn(4, 6, 2, 3, dtype=torch.float64)
    # In training mode the map is normalised by the batch, and the running statistics follow.
    mapped = rival.position[0](features).transpose(0, 1).flatten(1)  # (512, all positions)
    rows, weights = literal_asen(
        rival, features, ATTRIBUTE, mapped.mean(1), mapped.var(1, correction=0)
    )
    assert torch.allclose(rival.train().embed(features, ATTRIBUTE), rows, atol=1e-10)
    assert not rival.tower.norm.training and rival.position[1].training
    norm = rival.eval().position[1]
    assert torch.allclose(norm.running_mean, 0.1 * mapped.mean(1))
    rows, weights = literal_asen(rival, features, ATTRIBUTE, norm.running_mean, norm.running_var)
    assert torch.allclose(rival.embed(features, ATTRIBUTE), rows, atol=1e-10)
    actual = rival.attention(features, ATTRIBUTE)
    assert torch.allclose(actual, weights, atol=1e-10)
    assert torch.allclose(actual.sum((1, 2)), torch.ones(4, dtype=torch.float64))
    assert actual.std() > 1e-3  # and they are not all the same
