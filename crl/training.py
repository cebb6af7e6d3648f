"""What trainings share: the checkpoint that a killed run goes on from, and weights for others."""

import io
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from crl.errors import UserError
from crl.files import atomic_path
from crl.vlm import WEIGHTS, LoadedVLM, find_vlm


def read_state(file: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """The checkpoint of a former run with these settings; None if there is none.

    Args:
        settings: all that shapes the training, as plain data; `write_state` stores it.

    Raises:
        UserError: it is damaged, or of a training with other settings.
    """
    if not file.exists():
        return None
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        former = state["settings"]
    except Exception as error:  # a broken file makes torch raise nearly anything
        raise UserError(f"{file} is damaged; remove it to start again") from error
    if former != settings:
        what = ", ".join(
            f"{key} {former.get(key)!r}, not {settings.get(key)!r}"
            for key in former | settings
            if former.get(key) != settings.get(key)
        )
        raise UserError(
            f"{file.parent} holds another training ({what}); choose another name= or remove it"
        )
    return state


def write_state(file: Path, content: dict[str, Any]) -> None:
    """torch.save, atomically. In memory first: then a full disk shows as the OSError that it is."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with atomic_path(file) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def save_tensors(file: Path, model: nn.Module, **about: str) -> None:
    """The state of `model` as safetensors, atomically; `about` goes into the file's header."""
    state = {key: tensor.cpu().contiguous() for key, tensor in model.state_dict().items()}
    with atomic_path(file) as temporary:
        temporary.write_bytes(save(state, about))


def trained_name(folder: Path, vlm: str) -> str:
    """The name by which `load_vlm` finds the VLM `vlm` once it is trained and saved in `folder`.

    Raises:
        UserError: it is of another library than open_clip.
    """
    source = find_vlm(vlm)
    if source.startswith("open_clip:"):
        return f"{source.partition('/')[0]}/{folder / 'vlm.safetensors'}"
    if (Path(source) / "open_clip_config.json").is_file():
        return str(folder / "vlm")
    raise UserError(f"only an open_clip VLM can be trained here, and {vlm!r} is none")


def save_vlm(folder: Path, vlm: LoadedVLM) -> None:
    """The weights in `folder`, where `load_vlm(trained_name(...))` reads them."""
    source = Path(find_vlm(vlm.name))
    if not source.is_dir():
        save_tensors(folder / "vlm.safetensors", vlm.model)
        return
    for file in source.iterdir():  # configuration and tokenizer; not the weights, nor a model card
        if file.is_file() and file.name not in WEIGHTS and file.suffix != ".md":
            with atomic_path(folder / "vlm" / file.name) as temporary:
                temporary.write_bytes(file.read_bytes())
    save_tensors(folder / "vlm" / WEIGHTS[0], vlm.model)
