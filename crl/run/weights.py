"""Weights on disk: read without running code, written completely or not at all."""

import textwrap
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from crl.run.errors import UserError
from crl.run.files import atomic_path
from crl.run.results import digest


def stored_shapes(checkpoint: Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape of each tensor in a checkpoint. A file that is damaged or holds code is refused
    before any other library opens it."""
    try:
        if checkpoint.suffix == ".safetensors":
            with safe_open(checkpoint, "pt") as file:
                return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
        state = _without_wrapping(torch.load(checkpoint, map_location="cpu", weights_only=True))
        return {key: tuple(tensor.shape) for key, tensor in state.items()}
    except Exception as error:  # for a broken file the readers can raise almost any error
        if "TorchScript" in str(error):
            why = "is a TorchScript archive, that is code; OpenAI's weights come by the tag openai"
        elif "GLOBAL" in str(error):
            why = "is refused: it holds Python objects beside tensors, and loading runs their code"
        elif "Weights only load failed" in str(error):
            why = (
                "is damaged, incomplete or no checkpoint; or it holds Python objects beside "
                "tensors, which are never loaded, since that runs their code"
            )
        else:
            why = f"is damaged, incomplete or no checkpoint ({_brief(error)}); fetch it again"
        raise UserError(f"{checkpoint} {why}") from error


def load_tensors(checkpoint: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint (.safetensors, or torch.save's .pt, .pth), on the CPU.

    The state dict may be the entry `state_dict` or `model`. The prefix `module.`, which a
    distributed model adds to each key, is removed.

    Raises:
        UserError: no such file; a file that is damaged, holds code, or is not a checkpoint; NaN or
            infinity.
    """
    if not checkpoint.is_file():
        raise UserError(f"there is no file {checkpoint}")
    stored_shapes(checkpoint)  # says in one line what is wrong with a file
    if checkpoint.suffix == ".safetensors":
        tensors = _without_wrapping(load_file(checkpoint))
    else:
        content = torch.load(checkpoint, map_location="cpu", weights_only=True)
        tensors = _without_wrapping(content)
    for key, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise UserError(f"{checkpoint} is of no use: {key} holds NaN or infinity; train again")
    return tensors


def save_tensors(file: Path, model: nn.Module) -> None:
    """Write the state of `model` as safetensors, atomically."""
    state = {key: tensor.cpu().contiguous() for key, tensor in model.state_dict().items()}
    with atomic_path(file) as temporary:
        temporary.write_bytes(save(state))


def weights_digest(model: nn.Module) -> str:
    """Changes whenever a weight of `model` does."""
    return digest(*(tensor.cpu().numpy() for tensor in model.state_dict().values()))


def _without_wrapping(state: dict) -> dict[str, Tensor]:
    for key in ("state_dict", "model"):
        if isinstance(state.get(key), dict):
            state = state[key]
    return {str(key).removeprefix("module."): tensor for key, tensor in state.items()}


def _brief(error: Exception) -> str:
    return textwrap.shorten(str(error) or type(error).__name__, 160)
