"""RPF: maps, contrast, branches and sizes, against numbers worked by hand and slow versions."""

import math

import pytest
import torch
from torch import nn

from fashion_retrieval.rivals.asen import attention_map, pooled
from fashion_retrieval.rivals.rpf import RPF, background, e_infonce
from fashion_retrieval.towers import Tower

REGION = torch.tensor([[1, 0], [0.8, 0.6], [0, 1]])
PATCH = torch.tensor([[0.6, 0.8], [1, 0], [-0.6, 0.8]])
REST = torch.tensor([[0.0, 1], [-1, 0], [0, -1]])


def test_background_map_and_pooled_values():
    features = torch.tensor([[[[1, 0, 0.5]], [[0, 2, 0.5]]]])
    rest = background(attention_map(features.tanh(), torch.tensor([[1, 0.5]]).tanh()))
    assert rest.flatten().tolist() == pytest.approx([0.327529, 0.343180, 0.329292], abs=1e-6)
    assert pooled(features, rest)[0].tolist() == pytest.approx([0.492175, 0.851005], abs=1e-6)


def test_contrast_by_hand():
    one, value = torch.zeros(3, dtype=torch.long), torch.tensor([0, 0, 1])
    loss = e_infonce(REGION, PATCH, REST, one, value, temperature=0.5)
    assert loss.item() == pytest.approx(1.988256, abs=1e-6)


def test_contrast_of_several_attributes_one_by_one():
    torch.manual_seed(0)
    rows = [nn.functional.normalize(torch.randn(9, 4).double(), dim=1) for _ in range(3)]
    attribute, value = torch.tensor([0, 1, 2] * 3), torch.tensor([0, 0, 0, 0, 0, 0, 1, 0, 0])
    region, patch, rest = rows
    expected = 0.0
    for i in range(9):
        near, far, behind = 0.0, 0.0, 0.0
        for j in range(9):
            term = math.exp(region[i] @ patch[j] / 0.07)
            if attribute[i] == attribute[j] and value[i] == value[j]:
                near += term
            else:
                far += term
            if attribute[i] == attribute[j]:
                behind += math.exp(region[i] @ rest[j] / 0.07)
        expected += (math.log(near + far + 12 * behind) - math.log(near)) / 9
    assert e_infonce(*rows, attribute, value).item() == pytest.approx(expected, abs=1e-9)


def test_sizes_are_the_published_ones():
    network = RPF(Tower("none", nn.Identity(), None, 1024, ""), 5, 1024)
    with torch.device("meta"):
        local = RPF.closer("", 1024, weights=False)
    count = sum(p.numel() for p in network.parameters())
    assert count == 2_892_288 + 5 * 512
    count = sum(p.numel() for p in local.parameters())
    assert count == 85_054_464 + 742_656 + 4_203_520 + 397_568 and local.size == 224


def norm(x):
    return (x - x.mean()) / torch.sqrt(x.var(correction=0) + 1e-6)


@torch.no_grad()
def test_branches_row_by_row():
    torch.manual_seed(0)
    network = RPF(Tower("none", nn.Identity(), None, 6, ""), 2, 5).double().eval()
    features, attribute = torch.randn(3, 6, 2, 2).double(), torch.tensor([0, 1, 1])
    vectors, maps = network.whole(features, attribute)
    for x, a, vector, attention in zip(features, attribute, vectors, maps, strict=True):
        query = network.where(norm(network.attribute.weight[a]))
        conv, columns = network.position[0], x.flatten(1).T
        scores = [torch.tanh(conv.weight[:, :, 0, 0] @ norm(c) + conv.bias) for c in columns]
        weights = torch.stack([s @ query / 512**0.5 for s in scores]).softmax(0)
        assert torch.allclose(attention.flatten(), weights)
        h = network.embedding(sum(w * c for w, c in zip(weights, columns, strict=True)))
        assert torch.allclose(vector, norm(h + network.mlp(norm(h))))
    local = RPF.closer("small", 5).double().eval()
    assert local.vit.class_token.abs().max() == 0
    crops, asked = torch.randn(2, 3, 32, 32).double(), torch.randn(2, 512).double()
    tokens = local.tokens(crops)
    assert tokens.shape == (2, 16, 64)
    W, b = local.cross.in_proj_weight.split(64), local.cross.in_proj_bias.split(64)
    for x, a, vector in zip(tokens, asked, local(crops, asked), strict=True):
        x = torch.stack([norm(token + local.kind[1]) for token in x])
        q = W[0] @ norm(local.query(a) + local.kind[0]) + b[0]
        k, v, heads = x @ W[1].T + b[1], x @ W[2].T + b[2], []
        for head in range(4):
            part = slice(16 * head, 16 * head + 16)
            heads.append((k[:, part] @ q[part] / 4).softmax(0) @ v[:, part])
        h = local.fc(local.cross.out_proj(torch.cat(heads)))
        assert torch.allclose(vector, norm(h + local.ffn[1:](norm(h))))
