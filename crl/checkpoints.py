"""What can go wrong while weights, libraries and devices are loaded, as one line of advice each."""

import errno
import importlib.metadata
import logging
import pickle
import re
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from crl.errors import UserError


def stored_shapes(checkpoint: Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape of each tensor in a checkpoint. Refuses a file that is damaged or holds code,
    before any other library opens it."""
    try:
        if checkpoint.suffix == ".safetensors":
            with safe_open(checkpoint, "pt") as file:
                return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        state = state.get("state_dict", state)
        return {key.removeprefix("module."): tuple(tensor.shape) for key, tensor in state.items()}
    except Exception as error:  # a broken file makes the readers raise nearly anything
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


@contextmanager
def explained(source: str, remote: bool) -> Iterator[None]:
    """Turn what the libraries raise while they fetch or load `source` into one line of advice."""
    # Without a network the hub's client logs a dozen retries; the line below says it all.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        yield
    except (SafetensorError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(f"{source}: a file is damaged ({_brief(error)}); fetch it again") from error
    except (OSError, RuntimeError, ValueError, TypeError, AttributeError, LookupError) as error:
        if "loading state_dict" in str(error):
            lines = [textwrap.shorten(line, 120) for line in str(error).splitlines()[1:4]]
            raise UserError(f"the weights do not fit {source}: {'; '.join(lines)}") from error
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise  # a full disk has a message of its own
        if remote and isinstance(error, OSError):
            raise UserError(
                f"cannot fetch {source} ({_brief(error)}). Without a network use vlm=demo, a "
                "local folder, or fill the Hugging Face cache (HF_HOME) on a machine that has one"
            ) from error
        raise UserError(f"cannot load {source}: {_brief(error)}") from error


def _brief(error: Exception) -> str:
    return textwrap.shorten(str(error) or type(error).__name__, 160)


def available_device(device: str | torch.device | None) -> torch.device:
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(
            f"no device {str(device)!r} here ({_brief(error)}); use device=cpu"
        ) from error
    return device


def import_torchvision() -> None:
    """Import torchvision, or say which torch it wants.

    Only its pure Python part (transforms) is used, through open_clip. PyPI's wheel is compiled for
    CUDA: beside a CPU-only torch of the very version it wants, its compiled operators do not load
    and the import dies over the missing `nms`. Declaring that operator lets the Python part in.
    """
    requirements = importlib.metadata.requires("torchvision") or []
    pins = [re.match(r"torch *\(?== *([^)+;]+)", requirement) for requirement in requirements]
    wanted = next((pin[1].strip() for pin in pins if pin), None)
    if wanted and wanted != torch.__version__.split("+")[0]:
        raise UserError(
            f"torchvision {importlib.metadata.version('torchvision')} wants torch {wanted} but "
            f"{torch.__version__} is installed; install the pair in constraints.txt"
        )
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        for module in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[module]  # half imported
        for operator in ("nms", "qnms"):
            signature = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            torch.library.define(f"torchvision::{operator}", signature)
        import torchvision  # noqa: F401
