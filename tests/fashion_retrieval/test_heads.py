"""The heads: against separate torch modules, single rows, and the authors' checkpoints."""

import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from crl.run.errors import UserError
from crl.run.weights import save_tensors
from fashion_retrieval.heads import AUTHORS, Heads, load_heads

A, K, OUT = 3, 5, 9
BUFFERS = {"mean", "variance"}


def separate(width=K, out=OUT, heads=A):
    """Heads as separate modules, with statistics that are not those of the beginning."""
    torch.manual_seed(0)
    hidden = (width + out) // 2
    model = nn.Module()
    model.projection_heads = nn.ModuleList()
    for _ in range(heads):
        head = nn.Module()
        head.fc = nn.Sequential(
            nn.Linear(width, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, out)
        )
        for tensor in (*head.fc[1].parameters(), head.fc[1].running_mean):
            nn.init.uniform_(tensor, 0.2, 1.0)
        nn.init.uniform_(head.fc[1].running_var, 0.2, 1.0)
        model.projection_heads.append(head)
    return model


def stacked(model, attribute="data"):
    """A tensor (or gradient) of each head by our names."""
    heads = [dict(head.fc.named_parameters()) for head in model.projection_heads]
    for state, head in zip(heads, model.projection_heads, strict=True):
        state |= dict(head.fc.named_buffers())
    return {
        ours: torch.stack([getattr(state[theirs], attribute) for state in heads])
        for theirs, ours in AUTHORS.items()
        if attribute == "data" or ours not in BUFFERS
    }


def both():
    model = separate().double()
    heads = Heads(A, K, OUT).double()
    heads.load_state_dict(stacked(model))
    return heads, model


def literally(model, x, attribute):
    """Attribute by attribute, each with a batch of its own."""
    result = torch.zeros(len(x), OUT, dtype=x.dtype)
    for a, head in enumerate(model.projection_heads):
        if (attribute == a).any():
            result[attribute == a] = head.fc(x[attribute == a])
    return result / result.norm(dim=1, keepdim=True)


ATTRIBUTES = [
    [0, 1, 2, 2, 1, 0, 2, 2, 2, 0, 1, 2],
    [1, 1, 1],  # one attribute only
    [2, 0, 0, 2, 2],  # one is absent
]


@pytest.mark.parametrize("attribute", ATTRIBUTES)
@pytest.mark.parametrize("batches", [None, 3])
@pytest.mark.parametrize("training", [True, False])
def test_equal_to_separate_modules(attribute, batches, training):
    heads, model = both()
    heads.train(training), model.train(training)
    attribute = torch.tensor(attribute)
    shape = (len(attribute), K) if batches is None else (batches, len(attribute), K)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    for _ in range(2):
        found = heads(x, attribute)
        rows = [y] if batches is None else y
        wanted = torch.stack([literally(model, part, attribute) for part in rows])
        wanted = wanted[0] if batches is None else wanted
        assert torch.allclose(found, wanted, atol=1e-12)
        assert torch.allclose(found.norm(dim=-1), torch.ones(shape[:-1]).double())
        target = torch.randn_like(found)
        (found * target).sum().backward()
        (wanted * target).sum().backward()
    assert torch.allclose(x.grad, y.grad, atol=1e-11)
    state = heads.state_dict()
    for key, tensor in stacked(model).items():
        assert torch.allclose(state[key], tensor, atol=1e-12), key
    for head in model.projection_heads:  # absent ones have no gradient, ours zero
        for parameter in head.parameters():
            parameter.grad = (
                torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            )
    for key, gradient in stacked(model, "grad").items():
        assert torch.allclose(getattr(heads, key).grad, gradient, atol=1e-11), key
    assert heads.weight2.grad.abs().max() > 1e-2


def test_frozen_heads_pass_the_gradient_on():
    heads, model = both()
    heads.eval().requires_grad_(False), model.eval()
    attribute = torch.tensor(ATTRIBUTES[0])
    x = torch.randn(len(attribute), K, dtype=torch.float64, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    target = torch.randn(len(attribute), OUT, dtype=torch.float64)
    (heads(x, attribute) * target).sum().backward()
    (literally(model, y, attribute) * target).sum().backward()
    assert torch.allclose(x.grad, y.grad, atol=1e-11) and x.grad.abs().max() > 1e-2
    assert all(parameter.grad is None for parameter in heads.parameters())


def test_the_beginning_is_that_of_torch():
    torch.manual_seed(0)
    heads = Heads(2, 97)
    assert heads.weight1.shape == (2, 560, 97) and heads.weight2.shape == (2, 1024, 560)
    for tensor, inputs in ((heads.weight1, 97), (heads.bias1, 97), (heads.weight2, 560)):
        assert tensor.abs().max() <= inputs**-0.5 < 1.02 * tensor.abs().max()


def test_a_single_row_gets_what_evaluation_gives_and_leaves_the_statistics():
    heads, _ = both()
    attribute = torch.tensor([0, 1, 0])
    x = torch.randn(3, K, dtype=torch.float64)
    before = {key: tensor.clone() for key, tensor in heads.state_dict().items()}
    expected = heads.eval()(x, attribute)
    found = heads.train()(x, attribute)
    assert torch.allclose(found[1], expected[1], atol=1e-12)
    assert not torch.allclose(found[0], expected[0], atol=1e-3)
    for key in BUFFERS:
        assert torch.equal(heads.state_dict()[key][1:], before[key][1:])
        assert not torch.equal(heads.state_dict()[key][0], before[key][0])
    found.square().sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in heads.parameters())
    alone = heads(x[:1], attribute[:1])
    assert torch.allclose(alone, heads.eval()(x[:1], attribute[:1]), atol=1e-12)


# --- files ----------------------------------------------------------------------------------------


def write_authors(path, model, **more):
    torch.save({"epoch": 7, "model": model.state_dict(), "mAP": 0.15, **more}, path)
    return path


def test_checkpoint_of_the_authors(tmp_path):
    model = separate().eval()
    heads = load_heads(write_authors(tmp_path / "best_model.pth", model), A, K)
    attribute = torch.tensor(ATTRIBUTES[0])
    x = F.normalize(torch.rand(len(attribute), K), dim=1)
    assert not heads.training
    assert torch.allclose(heads(x, attribute), literally(model, x, attribute), atol=1e-6)
    torch.save({f"module.{k}": v for k, v in model.state_dict().items()}, tmp_path / "plain.pth")
    plain = load_heads(tmp_path / "plain.pth", A, K)
    assert torch.equal(plain(x, attribute), heads(x, attribute))


def test_own_file_comes_back(tmp_path):
    heads = Heads(A, K, OUT).eval()
    save_tensors(tmp_path / "heads.safetensors", heads)
    found = load_heads(tmp_path / "heads.safetensors", A, K)
    assert all(torch.equal(found.state_dict()[k], v) for k, v in heads.state_dict().items())
    x, attribute = torch.randn(4, K), torch.tensor([0, 2, 1, 2])
    assert torch.equal(found(x, attribute), heads(x, attribute)) and not found.training


def test_heads_of_other_bases(tmp_path):
    file = tmp_path / "heads.safetensors"
    save_tensors(file, Heads(A, K, OUT), basis_hash="ours")
    refused("heads.safetensors were trained with other text bases", file, basis="others")
    load_heads(file, A, K, "ours")
    load_heads(file, A, K)  # bases without a digest
    load_heads(write_authors(tmp_path / "best_model.pth", separate()), A, K, "ours")


def refused(match, path, attributes=A, width=K, basis=None):
    with pytest.raises(UserError, match=match) as caught:
        load_heads(path, attributes, width, basis)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_heads_of_another_kind(tmp_path, suffix):
    path = tmp_path / f"heads.{suffix}"
    if suffix == "pth":
        write_authors(path, separate())
    else:
        save_tensors(path, Heads(A, K, OUT))
    refused("holds heads for 3 attributes, the data has 5", path, attributes=5)
    refused("take representations of width 5, these are 97 wide", path, width=97)


def test_what_is_no_file_of_heads(tmp_path):
    path = tmp_path / "heads.pth"
    refused("there are no heads .*heads.pth; train them", path)
    deep = separate()
    for head in deep.projection_heads:
        head.fc.append(nn.Linear(OUT, OUT))  # another layer
    refused(r"holds no heads of this kind: 4.bias is no part of them", write_authors(path, deep))
    short = separate()
    del short.projection_heads[0].fc[1]  # heads of different layers
    refused("holds no heads", write_authors(path, short))
    state = separate().state_dict()
    wrong = {**state, "projection_heads.0.fc.3.bias": torch.ones(2)}
    torch.save({"model": wrong}, path)
    refused("3.bias differs from head to head|bias2 differs from head to head", path)
    torch.save({"model": {"projection_heads.0.fc.0.weight": 3}}, path)
    refused("holds no heads", path)
    torch.save(torch.ones(3), path)
    refused("holds no heads, but a Tensor", path)
    path.write_bytes(b"\x80\x02")  # a pickle that breaks off
    refused("is damaged, incomplete or no checkpoint", path)
    own = tmp_path / "heads.safetensors"
    own.write_bytes(b"nonsense")
    refused("is damaged, incomplete or no checkpoint", own)
    good = {key: tensor.contiguous() for key, tensor in Heads(A, K, OUT).state_dict().items()}
    save_file({**good, "shift": torch.ones(A, 2)}, own)
    refused(r"does not fit: shift is \(3, 2\), expected \(3, 7\)", own)
    good.pop("mean")
    save_file(good, own)
    refused("mean is missing", own)


def test_code_in_a_checkpoint_never_runs(tmp_path):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    write_authors(tmp_path / "bad.pth", separate(), mAP=Payload())
    refused("is refused: it holds Python objects", tmp_path / "bad.pth")
    (tmp_path / "worse.pth").write_bytes(pickle.dumps(Payload(), 2))
    refused("is refused|is damaged", tmp_path / "worse.pth")
    assert not (tmp_path / "ran").exists()
