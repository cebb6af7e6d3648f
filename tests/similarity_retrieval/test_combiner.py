"""The Combiner against its published description; files of its weights; its loss against a loop,
and the gradients in parts and in two processes against one batch."""

import numpy as np
import pytest
import torch
from disturbed import in_two_processes
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from crl.run.distributed import rank, sum_gradients, world
from crl.run.errors import UserError
from similarity_retrieval.combiner import Combiner, backward, contrastive_loss, load_combiner

DIM, PROJECTION, HIDDEN = 7, 5, 11
# Names and shapes in the published head for CLIP ViT-B/16.
LAYERS = {
    "text_projection_layer": (2560, 512),
    "image_projection_layer": (2560, 512),
    "combiner_layer": (5120, 5120),
    "output_layer": (512, 5120),
    "dynamic_scalar.0": (5120, 5120),
    "dynamic_scalar.3": (1, 5120),
}
RELEASED = {f"{layer}.weight": shape for layer, shape in LAYERS.items()}
RELEASED |= {f"{layer}.bias": shape[:1] for layer, shape in LAYERS.items()}


def random_combiner(seed: int = 0, dim: int = DIM) -> Combiner:
    """With weights so large that each of its parts matters to the result."""
    torch.manual_seed(seed)
    combiner = Combiner(dim, PROJECTION, HIDDEN).double().eval()
    with torch.no_grad():
        for weight in combiner.parameters():
            weight.normal_(std=0.6)
    return combiner


def by_hand(state: dict[str, np.ndarray], image: np.ndarray, text: np.ndarray) -> np.ndarray:
    """One query, from the description: image (D,) and text (D,) -> (D,)."""

    def linear(name, x):
        rows = zip(state[f"{name}.weight"], state[f"{name}.bias"], strict=True)
        return np.array([sum(w * v for w, v in zip(row, x, strict=True)) + b for row, b in rows])

    def relu(x):
        return np.where(x > 0, x, 0)

    text_part = relu(linear("text_projection_layer", text))
    image_part = relu(linear("image_projection_layer", image))
    both = [*text_part, *image_part]
    output = linear("output_layer", relu(linear("combiner_layer", both)))
    s = 1 / (1 + np.exp(-linear("dynamic_scalar.3", relu(linear("dynamic_scalar.0", both)))[0]))
    output = output + s * text + (1 - s) * image
    return output / np.sqrt(sum(v * v for v in output))


@pytest.mark.parametrize("seed", range(5))
def test_equals_the_published_description(seed):
    combiner = random_combiner(seed)
    state = {key: tensor.numpy() for key, tensor in combiner.state_dict().items()}
    image, text = np.random.default_rng(seed).normal(size=(2, 6, DIM)) * [[[3]], [[1]]]  # raw
    with torch.no_grad():
        got = combiner(torch.from_numpy(image), torch.from_numpy(text)).numpy()
    expected = [by_hand(state, i, t) for i, t in zip(image, text, strict=True)]
    np.testing.assert_allclose(got, expected, rtol=1e-10)


def test_default_sizes_and_names_are_the_published_ones():
    with torch.device("meta"):
        state = Combiner(512).state_dict()
    assert {key: tuple(tensor.shape) for key, tensor in state.items()} == RELEASED


def save(state, path):
    if path.suffix == ".safetensors":
        save_file({key: tensor.contiguous() for key, tensor in state.items()}, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_the_released_heads_names_and_sizes_load(tmp_path, suffix, prefix):
    # All rows alike and half precision, to keep the file small.
    rows = {key: torch.randn(shape[-1]).mul(0.02).half() for key, shape in RELEASED.items()}
    state = {prefix + key: row.expand(RELEASED[key]) for key, row in rows.items()}
    path = save(state, tmp_path / f"vitb16_combiner_head{suffix}")
    combiner = load_combiner(path, dim=512)
    path.unlink()
    assert not combiner.training
    for key, weight in combiner.state_dict().items():
        assert weight.dtype == torch.float32 and weight.equal(state[prefix + key].float())


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_files_that_hold_no_combiner_are_refused(tmp_path):
    state, path = random_combiner().state_dict(), tmp_path / "a.safetensors"

    def refused(state, message=None, dim=DIM):
        with pytest.raises(UserError, match=message):
            load_combiner(save(state, path), dim)

    refused(state, f"width {DIM}", dim=DIM + 1)
    refused({**state, "logit_scale": torch.ones(1)}, "logit_scale")
    for key in RELEASED:
        refused({name: tensor for name, tensor in state.items() if name != key})
        for shape in [(), (3,), (3, 2), (2, 3, 4), (0,)]:
            refused({**state, key: torch.zeros(shape)})


# --- the loss -------------------------------------------------------------------------------------


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


def one_of_two(number, folder):
    assert world() == 2 and rank() == number
    model, inputs, forward = problem(0.5)
    parts = list(inputs.chunk(4))[2 * number : 2 * number + 2]
    loss = backward(forward, parts, [10 + 2 * number, 11 + 2 * number])
    sum_gradients(list(model.parameters()))
    torch.save({"loss": loss, "gradients": gradients(model)}, folder / f"{number}.pt")


def test_two_processes_give_loss_and_gradients_of_one(tmp_path):
    in_two_processes(one_of_two, tmp_path)
    model, inputs, forward = problem(0.5)
    loss = backward(forward, list(inputs.chunk(4)), [10, 11, 12, 13])
    wanted = gradients(model)
    for number in range(2):
        result = torch.load(tmp_path / f"{number}.pt", weights_only=True)
        assert result["loss"] == pytest.approx(loss, abs=1e-12)
        assert (result["gradients"] - wanted).abs().max() < 1e-10 * wanted.abs().max()
