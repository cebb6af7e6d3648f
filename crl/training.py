"""What trainings share: the checkpoint that a killed run goes on from, and weights for others."""

import io
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import nn

from crl.checkpoints import stored_shapes
from crl.errors import UserError
from crl.files import atomic_path, write_text
from crl.results import array_digest, digest
from crl.vlm import VLM, WEIGHTS, LoadedVLM, find_vlm, load_vlm

CONFIG = "open_clip_config.json"
ABOUT = "about"  # the entry of a weights file's header that says what they are


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
        former = dict(state["settings"])
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


def save_tensors(file: Path, model: nn.Module, /, **about: str | int) -> None:
    """The state of `model` as safetensors, atomically; `read_about` finds `about` in its header."""
    state = {key: tensor.cpu().contiguous() for key, tensor in model.state_dict().items()}
    with atomic_path(file) as temporary:
        # One entry: safetensors would write several in another order each time.
        temporary.write_bytes(save(state, {ABOUT: json.dumps(about)} if about else None))


def weights_digest(model: nn.Module) -> str:
    """Changes whenever a weight of `model` does."""
    return digest(*(array_digest(tensor.cpu().numpy()) for tensor in model.state_dict().values()))


def read_about(file: Path) -> dict[str, Any]:
    """What `save_tensors` was told about the model in `file`; {} for a file of other origin."""
    if Path(file).suffix != ".safetensors":
        return {}
    stored_shapes(file)  # refuses a damaged file
    with safe_open(file, "pt") as stored:
        header = stored.metadata() or {}
    try:
        return dict(json.loads(header.get(ABOUT, "{}")))
    except (ValueError, TypeError):
        return {}


def check_made_for(file: Path, what: str, vlm: VLM, precision: str) -> None:
    """Refuse weights whose header names another VLM than `vlm` at `precision`.

    Files of other origin, without such a header, pass.

    Args:
        what: the weights, e.g. "a Combiner".

    Raises:
        UserError: embeddings of another VLM, or of other weights of it.
    """
    own = read_about(file)
    if "vlm_fingerprint" not in own:
        return
    # A fingerprint depends on the precision, and what is trained in bf16 may be measured in fp32.
    same = own["precision"] == precision
    twin = vlm if same else load_vlm(vlm.name, "cpu", own["precision"])
    if twin.fingerprint != own["vlm_fingerprint"]:
        raise UserError(
            f"{file} was trained on the VLM {own['vlm']!r} ({own['vlm_fingerprint'][:6]}), whose "
            f"embeddings are not those of {vlm.name!r} ({twin.fingerprint[:6]}); use that VLM, or "
            f"train {what} on this one"
        )


def trained_name(folder: Path, vlm: str) -> str:
    """The name by which `load_vlm` finds the VLM `vlm` once it is trained and saved in `folder`.

    Raises:
        UserError: it is of another library than open_clip.
    """
    source = find_vlm(vlm)
    if source.startswith("open_clip:") or (Path(source) / CONFIG).is_file():
        return str(folder / "vlm")
    raise UserError(f"only an open_clip VLM can be trained here, and {vlm!r} is none")


def save_vlm(folder: Path, vlm: LoadedVLM, /, **about: str | int) -> None:
    """An open_clip folder in `folder`, where `load_vlm(trained_name(...))` reads it.

    A folder, since a bare file of weights does not say how images are to be prepared.

    Args:
        about: for the header of the weights; see `save_tensors`.
    """
    target, source = folder / "vlm", Path(find_vlm(vlm.name))
    if source.is_dir():  # configuration and tokenizer; not the weights, nor a model card
        for file in source.iterdir():
            if file.is_file() and file.name not in WEIGHTS and file.suffix != ".md":
                with atomic_path(target / file.name) as temporary:
                    temporary.write_bytes(file.read_bytes())
    else:
        config = {"model_cfg": vlm.recipe["model"], "preprocess_cfg": vlm.recipe["preprocess"]}
        write_text(target / CONFIG, json.dumps(config, indent=2) + "\n")
    save_tensors(target / WEIGHTS[0], vlm.model, **about)
