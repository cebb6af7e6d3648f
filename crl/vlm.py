"""Vision-language models (VLMs) with one interface, loaded by name. How the models of open_clip and
transformers are loaded is in `crl.backends`."""

import re
import sys
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor

from crl.backends import open_clip, transformers
from crl.backends.loaded import PRECISIONS, LoadedVLM, Parts
from crl.backends.torchvision_fix import import_torchvision
from crl.run.distributed import available_device
from crl.run.errors import UserError, nearest

DEMO = Path(__file__).resolve().parent / "assets" / "demo_vlm"
ALIASES = {  # OpenAI's, MetaCLIP's and these DFN weights were trained with QuickGELU
    # the paper's
    "clip": "open_clip:ViT-B-32-quickgelu/openai",
    "clip-b16": "open_clip:ViT-B-16-quickgelu/openai",
    "metaclip": "open_clip:ViT-B-32-quickgelu/metaclip_400m",
    # newer and stronger ones
    "siglip2": "open_clip:ViT-B-16-SigLIP2/webli",
    "siglip2-l": "open_clip:ViT-L-16-SigLIP2-256/webli",
    "pe": "open_clip:PE-Core-B-16/meta",
    "pe-l": "open_clip:PE-Core-L-14-336/meta",
    "dfn": "open_clip:ViT-B-16-quickgelu/dfn2b",
    "dfn-l": "open_clip:ViT-L-14-quickgelu/dfn2b",
}
HUB = {"align": "kakaobrain/align-base", "blip2": "Salesforce/blip2-itm-vit-g"}


class VLM(Protocol):
    """A vision-language model. Its embeddings are not L2-normalised; `crl.embed` does that."""

    name: str  # that it was loaded by
    device: torch.device  # where it computes and where embeddings stay; callers move them

    @property
    def dim(self) -> int:
        """D, the width of image and text embeddings."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever weights, architecture, preprocessing, tokenizer or precision change an
        embedding. It is the key of the embedding cache."""

    def preprocess(self, image: Image.Image) -> Tensor:
        """An image of any mode -> (3, H, W) float32. Called from several threads at once."""

    def encode_images(self, batch: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, D), or (B, Q, D) for Q vectors per image. float32, not normalised."""

    def encode_texts(self, texts: list[str]) -> Tensor:
        """K texts -> (K, D), float32, not normalised. The row of a text does not depend on the
        other texts; texts longer than the model's context length are cut off."""


def load_vlm(
    name: str, device: str | torch.device | None = None, precision: str = "fp32",
    from_file: bool = False,
) -> VLM:  # fmt: skip
    """Load a VLM in eval mode.

    Args:
        name: `clip`, `clip-b16`, `metaclip`, `align`, `blip2` (the paper's); `siglip2`,
            `siglip2-l`, `pe`, `pe-l`, `dfn`, `dfn-l` (newer; `-l`: larger and slower); `demo`;
            `open_clip:<model>/<tag>` with any model and tag of open_clip;
            `open_clip:<model>/<file>` with a checkpoint file (absolute path: two slashes);
            a folder: open_clip's (open_clip_config.json) or transformers' ALIGN or BLIP-2;
            or `<module>:<class>`, a VLM of your own: see crl/README.md.
        device: None: CUDA if there is a GPU, else the CPU.
        precision: precision of the forward pass: `fp32`, or `bf16` or `fp16` by autocast; the
            weights stay float32.
        from_file: the name comes from a file, not from the person: `<module>:<class>` is refused,
            since code from a file is never run.

    Raises:
        UserError: unknown name, or one of code from a file; no weights; weights, preprocessing and
            model that do not match; a damaged checkpoint or one that holds code; no such device.
    """
    if precision not in PRECISIONS:
        raise UserError(f"unknown precision {precision!r}; {nearest(precision, PRECISIONS)}")
    source = find_vlm(name, from_file)
    device = available_device(device)
    if _is_code(source):
        return _import_vlm(source, device, precision)
    return LoadedVLM(name, source, partial(_load, name, source), device, precision)


def find_vlm(name: str, from_file: bool = False) -> str:
    """Where the VLM `name` comes from: `open_clip:...`, a Hugging Face name or a folder. Loads
    nothing. A UserError for no such name or folder, or `<module>:<class>` from a file."""
    if from_file and _is_code(name):
        advice = f"give the VLM yourself: vlm={name} (explore.py: --vlm {name})"
        reason = "comes from a file, and code from a file is never run"
        raise UserError(f"the VLM {name!r} {reason}; {advice}")
    if name == "demo" and not DEMO.is_dir():
        raise UserError(f"the demo VLM is missing from {DEMO}; restore it from the repository")
    source = {"demo": str(DEMO), **ALIASES, **HUB}.get(name, name)
    if source.startswith("open_clip:") or name in HUB or _is_code(source) or Path(source).is_dir():
        return source
    advice = "or write open_clip:<model>/<tag or file>, a folder that exists, or <module>:<class>"
    raise UserError(f"unknown VLM {name!r}; {nearest(name, ['demo', *ALIASES, *HUB])}; {advice}")


def load_trainable(
    name: str, device: str | torch.device | None, precision: str = "fp32"
) -> LoadedVLM:
    """Load an open_clip VLM for training; `crl.backends.open_clip.save_vlm` saves it. A UserError
    as in `load_vlm`, or for a VLM of another library."""
    source = find_vlm(name)
    is_folder = Path(source, open_clip.CONFIG).is_file() and not _is_code(source)
    if not (source.startswith("open_clip:") or is_folder):
        raise UserError(f"only an open_clip VLM can be trained here, and {name!r} is none")
    vlm = load_vlm(name, device, precision)
    assert isinstance(vlm, LoadedVLM)
    return vlm


def _load(name: str, source: str) -> Parts:
    import_torchvision()
    if source.startswith("open_clip:"):
        return open_clip.load_tag_or_file(source.removeprefix("open_clip:"))
    if name in HUB:
        return {"align": transformers.load_align, "blip2": transformers.load_blip2}[name](source)
    if Path(source, open_clip.CONFIG).is_file():
        return open_clip.load_folder(Path(source))
    return transformers.load_folder(Path(source))


def _is_code(source: str) -> bool:
    return re.fullmatch(r"(?!open_clip:)[\w.]+:\w+", source) is not None


def _import_vlm(source: str, device: torch.device, precision: str) -> VLM:
    """A user's VLM, `<module>:<class>`, from the working directory or an installed package."""
    module, _, name = source.partition(":")
    if "" not in sys.path:  # a script's own folder is there, the working directory is not
        sys.path.append("")
    package = module.partition(".")[0]
    try:
        spec = find_spec(package)
        if spec and spec.origin is None:  # outputs.evil would be outputs/evil.py: a data folder
            raise ImportError(f"{package} is a folder without __init__.py, not a package")
        kind = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        advice = f"start in the folder that holds {module}.py, or set PYTHONPATH"
        raise UserError(f"cannot import the VLM {source}: {error}; {advice}") from error
    vlm = kind(device=device, precision=precision)
    members = "name dim device fingerprint preprocess encode_images encode_texts".split()
    if missing := [member for member in members if not hasattr(vlm, member)]:
        raise UserError(f"{source} is no VLM, it has no {', '.join(missing)}; see crl/README.md")
    return vlm
