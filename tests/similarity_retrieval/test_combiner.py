"""The Combiner against its published description, and files that are or are not its weights."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from crl.run.errors import UserError
from similarity_retrieval.combiner import Combiner, load_combiner

DIM, PROJECTION, HIDDEN = 7, 5, 11
# Names and shapes in the published head for CLIP ViT-B/16.
RELEASED = {
    "text_projection_layer.weight": (2560, 512),
    "text_projection_layer.bias": (2560,),
    "image_projection_layer.weight": (2560, 512),
    "image_projection_layer.bias": (2560,),
    "combiner_layer.weight": (5120, 5120),
    "combiner_layer.bias": (5120,),
    "output_layer.weight": (512, 5120),
    "output_layer.bias": (512,),
    "dynamic_scalar.0.weight": (5120, 5120),
    "dynamic_scalar.0.bias": (5120,),
    "dynamic_scalar.3.weight": (1, 5120),
    "dynamic_scalar.3.bias": (1,),
}


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
        return np.array(
            [
                sum(w * v for w, v in zip(row, x, strict=True)) + bias
                for row, bias in zip(state[f"{name}.weight"], state[f"{name}.bias"], strict=True)
            ]
        )

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


def test_drops_half_of_each_hidden_layer_in_training_only():
    combiner = random_combiner()
    image, text = torch.ones(2, 50, DIM, dtype=torch.float64)
    dropped = []  # shares of zeros that dropout makes: text, image, hidden layer, inside the scalar

    def count(module, inputs, output):
        dropped.append(float((output[inputs[0] > 0] == 0).double().mean()))

    for module in combiner.modules():
        if isinstance(module, torch.nn.Dropout):
            module.register_forward_hook(count)
    # Rounded: a product of matrices may differ from row to row in its last bit.
    assert len(combiner(image, text).round(decimals=9).unique(dim=0)) == 1
    assert dropped == [0, 0, 0, 0]
    assert len(combiner.train()(image, text).unique(dim=0)) > 25
    assert dropped[4:] == pytest.approx([0.5] * 4, abs=0.2)


# --- files ----------------------------------------------------------------------------------------


def save(state: dict[str, torch.Tensor], path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file({key: tensor.contiguous() for key, tensor in state.items()}, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_the_released_heads_names_and_sizes_load(tmp_path, suffix, prefix):
    # All rows alike and half precision, to keep the file small.
    state = {
        prefix + key: torch.randn(shape[-1]).mul(0.02).half().expand(shape)
        for key, shape in RELEASED.items()
    }
    path = save(state, tmp_path / f"vitb16_combiner_head{suffix}")
    combiner = load_combiner(path, dim=512)
    path.unlink()
    assert not combiner.training
    for key, weight in combiner.state_dict().items():
        assert weight.dtype == torch.float32
        assert weight.equal(state[prefix + key].float())
    with torch.inference_mode():
        query = combiner(*torch.randn(2, 3, 512))
    torch.testing.assert_close(query.norm(dim=1), torch.ones(3))


def refused(path: Path, dim: int = DIM) -> str:
    with pytest.raises(UserError) as error:
        load_combiner(path, dim)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_files_that_hold_no_combiner_are_refused(tmp_path, suffix):
    state, path = random_combiner().state_dict(), tmp_path / f"a{suffix}"
    assert "there is no" in refused(path)
    assert f"width {DIM}" in refused(save(state, path), dim=DIM + 1)
    assert "logit_scale" in refused(save({**state, "logit_scale": torch.ones(1)}, path))
    for key in RELEASED:
        refused(save({name: tensor for name, tensor in state.items() if name != key}, path))
        for shape in [(), (3,), (3, 2), (2, 3, 4), (0,)]:
            refused(save({**state, key: torch.zeros(shape)}, path))
    content = save(state, path).read_bytes()
    for kept in (0, 10, len(content) // 2, len(content) - 9):
        path.write_bytes(content[:kept])
        assert "damaged" in refused(path)


class Code:
    """Unpickling this runs a command."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_with_code_is_refused_and_does_not_run(tmp_path, legacy):
    path, trace = tmp_path / "a.pt", tmp_path / "it_ran"
    state = {**random_combiner().state_dict(), "note": Code(trace)}
    torch.save(state, path, _use_new_zipfile_serialization=not legacy)
    assert "refused" in refused(path)
    assert not trace.exists()
