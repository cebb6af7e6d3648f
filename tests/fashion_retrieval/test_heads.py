"""The heads: each attribute on its own, single rows, the authors' names and files."""

import pytest
import torch
from authors_heads import AuthorsHeads
from torch.nn import functional as F

from fashion_retrieval.networks import Heads, load_heads

A, K, OUT = 3, 5, 9


def both():
    model = AuthorsHeads(A, K, OUT).double()
    heads = Heads(A, K, OUT).double()
    heads.load_state_dict(model.state_dict())
    return heads, model


ATTRIBUTES = [
    [0, 1, 2, 2, 1, 0, 2, 2, 2, 0, 1, 2],
    [1, 1, 1],  # one attribute only
    [2, 0, 0, 2, 2],  # one is absent
]


@pytest.mark.parametrize("attribute", ATTRIBUTES)
@pytest.mark.parametrize("training", [True, False])
def test_equal_to_the_authors(attribute, training):
    heads, model = both()
    heads.train(training), model.train(training)
    attribute = torch.tensor(attribute)
    x = torch.randn((len(attribute), K), dtype=torch.float64, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    for _ in range(2):
        actual, wanted = heads(x, attribute), model(y, attribute)
        assert torch.allclose(actual, wanted, atol=1e-12)
        assert torch.allclose(actual.norm(dim=-1), torch.ones(len(x)).double())
        target = torch.randn_like(actual)
        (actual * target).sum().backward()
        (wanted * target).sum().backward()
    assert torch.allclose(x.grad, y.grad, atol=1e-11)
    state = heads.state_dict()
    for key, tensor in model.state_dict().items():
        assert torch.allclose(state[key], tensor, atol=1e-12), key
    for one, other in zip(heads.parameters(), model.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None)
        assert one.grad is None or torch.allclose(one.grad, other.grad, atol=1e-11)
    assert heads.projection_heads[2 if 2 in attribute else 1].fc[3].weight.grad.abs().max() > 1e-2


def test_a_single_row_gets_what_evaluation_gives_and_leaves_the_statistics():
    heads, _ = both()
    attribute = torch.tensor([0, 1, 0])
    x = torch.randn(3, K, dtype=torch.float64)
    before = {key: tensor.clone() for key, tensor in heads.state_dict().items()}
    expected = heads.eval()(x, attribute)
    actual = heads.train()(x, attribute)
    assert torch.allclose(actual[1], expected[1], atol=1e-12)
    assert not torch.allclose(actual[0], expected[0], atol=1e-3)
    for key in ("running_mean", "running_var", "num_batches_tracked"):
        for a, same in ((0, False), (1, True), (2, True)):
            name = f"projection_heads.{a}.fc.1.{key}"
            assert torch.equal(heads.state_dict()[name], before[name]) == same
    actual.square().sum().backward()
    gradients = [p.grad for p in heads.parameters() if p.grad is not None]
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    alone = heads.train()(x[:1], attribute[:1])
    assert torch.allclose(alone, heads.eval()(x[:1], attribute[:1]), atol=1e-12)


def test_checkpoint_of_the_authors(tmp_path):
    model = AuthorsHeads(A, K, OUT).eval()
    content = {"epoch": 7, "model": model.state_dict(), "mAP": 0.15}
    torch.save(content, tmp_path / "best_model.pth")
    heads = load_heads(tmp_path / "best_model.pth", A, K)
    attribute = torch.tensor(ATTRIBUTES[0])
    x = F.normalize(torch.rand(len(attribute), K), dim=1)
    assert not heads.training
    assert torch.allclose(heads(x, attribute), model(x, attribute), atol=1e-6)
    torch.save({f"module.{k}": v for k, v in model.state_dict().items()}, tmp_path / "plain.pth")
    plain = load_heads(tmp_path / "plain.pth", A, K)
    assert torch.equal(plain(x, attribute), heads(x, attribute))
