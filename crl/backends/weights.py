"""Weights on disk: read without running code, written completely or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from textwrap import shorten

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from crl.run.errors import UserError
from crl.run.files import atomic_path

ENTRIES = ("state_dict", "model")  # in which trainings keep the weights


def stored_shapes(checkpoint: Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape of each tensor. Damage and code are refused before a library opens the file."""
    with _refusing(checkpoint):
        if checkpoint.suffix == ".safetensors":
            with safe_open(checkpoint, "pt") as file:
                return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
        return {key: tuple(tensor.shape) for key, tensor in _read(checkpoint).items()}


def load_tensors(checkpoint: Path, *entries: str) -> dict[str, Tensor]:
    """The tensors of a checkpoint (.safetensors, or torch.save's .pt, .pth), on the CPU; of a state
    dict in one of the `entries` (none given: `state_dict`, `model`); without a distributed model's
    prefix `module.`. A UserError: no such file; one that is damaged, holds code or no checkpoint;
    NaN or infinity."""
    if not checkpoint.is_file():
        raise UserError(f"there is no file {checkpoint}")
    with _refusing(checkpoint):
        tensors = _read(checkpoint, *entries)
        broken = [key for key, tensor in tensors.items() if not tensor.isfinite().all()]
    if broken:
        raise UserError(f"{checkpoint} is of no use: {broken[0]} holds NaN or infinity")
    return tensors


def save_tensors(file: Path, model: nn.Module) -> None:
    with atomic_path(file) as temporary:
        temporary.write_bytes(_as_bytes(model))


def weights_digest(model: nn.Module) -> str:
    """Changes whenever a weight of `model` does."""
    return sha256(_as_bytes(model)).hexdigest()[:16]


def _as_bytes(model: nn.Module) -> bytes:
    return save({key: tensor.cpu().contiguous() for key, tensor in model.state_dict().items()})


def _read(checkpoint: Path, *entries: str) -> dict[str, Tensor]:
    if checkpoint.suffix == ".safetensors":
        state = load_file(checkpoint)
    else:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    for key in entries or ENTRIES:
        if isinstance(state.get(key), dict):
            state = state[key]
            break
    if not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise ValueError(f"no tensors in its entry {' or '.join(entries or ENTRIES)}")
    return {str(key).removeprefix("module."): tensor for key, tensor in state.items()}


@contextmanager
def _refusing(checkpoint: Path) -> Iterator[None]:
    """Say in one line what is wrong with a file."""
    try:
        yield
    except Exception as error:  # for a broken file the readers can raise almost any error
        message = str(error)
        if "TorchScript" in message:
            reason = "is a TorchScript archive, that is code; take OpenAI's weights by their tag"
        elif "GLOBAL" in message:
            reason = "is refused: it holds Python objects beside tensors, which may run code"
        else:
            brief = shorten(message, 160) or type(error).__name__
            if "Weights only load failed" in message:  # torch's advice is to switch the check off
                brief = "no file of plain tensors"
            reason = f"is damaged, incomplete or no checkpoint ({brief}); fetch it again"
        raise UserError(f"{checkpoint} {reason}") from error
