"""Vision-language models (VLMs) with one interface, loaded by name.

    vlm = load_vlm("clip")
    I = vlm.encode_images(batch)    # (B, D), or (B, Q, D) if an image has Q vectors
    T = vlm.encode_texts(prompts)   # (K, D)

The embeddings are not L2-normalised; the caller does that.
"""

import json
import re
import sys
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import torch

from crl.run.distributed import available_device
from crl.run.errors import UserError, nearest
from crl.run.hub import explained
from crl.run.torchvision_fix import import_torchvision
from crl.vlm import open_clip, transformers
from crl.vlm.contract import PRECISIONS, VLM, LoadedVLM, Parts, Preprocess

__all__ = [
    "VLM",
    "LoadedVLM",
    "Preprocess",
    "find_vlm",
    "load_trainable",
    "load_vlm",
    "weights_here",
]

DEMO = Path(__file__).resolve().parent.parent / "assets" / "demo_vlm"
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
MEMBERS = ("name", "dim", "device", "fingerprint", "preprocess", "encode_images", "encode_texts")


def load_vlm(
    name: str,
    device: str | torch.device | None = None,
    precision: str = "fp32",
    from_file: bool = False,
) -> VLM:
    """Load a VLM in eval mode.

    Args:
        name: `clip`, `clip-b16`, `metaclip`, `align`, `blip2` (the paper's); `siglip2`,
            `siglip2-l`, `pe`, `pe-l`, `dfn`, `dfn-l` (newer; `-l`: larger and slower); `demo`;
            `open_clip:<model>/<tag>` with any model and tag of open_clip;
            `open_clip:<model>/<file>` with a checkpoint file (absolute path: two slashes);
            a folder: open_clip's (open_clip_config.json) or transformers' ALIGN or BLIP-2;
            or `<module>:<class>`, a VLM of your own: see crl/README.md.
        device: None: CUDA if there is a GPU, else the CPU.
        precision: of the forward pass. `bf16` and `fp16` use autocast; the weights stay float32.
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
    if _is_own(source):
        return _own(source, device, precision)
    return LoadedVLM(name, source, partial(_load, name, source), device, precision)


def _load(name: str, source: str) -> Parts:
    import_torchvision()
    if source.startswith("open_clip:"):
        return open_clip.load_tag_or_file(source.removeprefix("open_clip:"))
    kind = name if name in HUB else _kind_of_folder(Path(source))
    if kind == "open_clip":
        return open_clip.load_folder(Path(source))
    return transformers.load_align(source) if kind == "align" else transformers.load_blip2(source)


def _kind_of_folder(folder: Path) -> str:
    """The library or model that a local folder belongs to."""
    if (folder / open_clip.CONFIG).is_file():
        return "open_clip"
    with explained(f"{folder}: it has no {open_clip.CONFIG}, and as to config.json", remote=False):
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    if kind not in {"align", "blip-2"}:
        raise UserError(
            f"{folder} holds a {kind!r} model; transformers folders can be 'align' or 'blip-2', "
            "all others come through open_clip"
        )
    # transformers 5 writes either file.
    files = [folder / "preprocessor_config.json", folder / "processor_config.json"]
    if not any(file.is_file() for file in files):
        raise UserError(f"{files[0]} is missing: nothing says how images are prepared")
    return kind


def _is_own(source: str) -> bool:
    """Is it `<module>:<class>`?"""
    return re.fullmatch(r"(?!open_clip:)[\w.]+:\w+", source) is not None


def _own(source: str, device: torch.device, precision: str) -> VLM:
    """A user's VLM, `<module>:<class>`, from the working directory or an installed package."""
    module, _, name = source.partition(":")
    if "" not in sys.path:  # a script's own folder is there, the working directory is not
        sys.path.append("")
    package = module.partition(".")[0]
    try:
        found = find_spec(package)
        if found and found.origin is None:  # outputs.evil would be outputs/evil.py: a data folder
            raise ImportError(f"{package} is a folder without __init__.py, not a package")
        kind = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"cannot import the VLM {source}: {error}; start in the folder that holds {module}.py, "
            "or set PYTHONPATH"
        ) from error
    vlm = kind(device=device, precision=precision)
    missing = [member for member in MEMBERS if not hasattr(vlm, member)]
    if missing:
        raise UserError(f"{source} is no VLM, it has no {', '.join(missing)}; see crl/README.md")
    return vlm


def find_vlm(name: str, from_file: bool = False) -> str:
    """Where the VLM `name` comes from: `open_clip:...`, a Hugging Face name or a folder.

    Loads nothing.

    Args:
        from_file: as in `load_vlm`.

    Raises:
        UserError: no such name or folder; `<module>:<class>` from a file.
    """
    if from_file and _is_own(name):
        raise UserError(
            f"the VLM {name!r} comes from a file, and code from a file is never run; give the VLM "
            f"yourself: vlm={name} (explore.py: --vlm {name})"
        )
    if name == "demo" and not DEMO.is_dir():
        raise UserError(
            f"the demo VLM is missing: it should be in {DEMO}; restore it from the repository "
            "or train it with scripts/train_demo_vlm.py"
        )
    source = {"demo": str(DEMO), **ALIASES, **HUB}.get(name, name)
    known = source.startswith("open_clip:") or name in HUB or Path(source).is_dir()
    if known or _is_own(source):
        return source
    raise UserError(
        f"unknown VLM {name!r}; {nearest(name, ['demo', *ALIASES, *HUB])}; "
        "or write open_clip:<model>/<tag or file>, a folder that exists, or <module>:<class>"
    )


def weights_here(name: str) -> bool:
    """Are the weights of `name` on this machine? If not, `load_vlm` downloads them.

    Raises:
        UserError: no such name or folder.
    """
    source = find_vlm(name)
    repository = source if name in HUB else ""
    if source.startswith("open_clip:"):
        import_torchvision()
        import open_clip

        model, _, tag = source.removeprefix("open_clip:").partition("/")
        if open_clip.is_pretrained_cfg(model, tag):
            repository = open_clip.get_pretrained_cfg(model, tag).get("hf_hub", "")
    if not repository:
        return True  # a file, a folder or a VLM of one's own
    from huggingface_hub import constants

    folder = "models--" + repository.strip("/").replace("/", "--")
    files = Path(constants.HF_HUB_CACHE, folder, "snapshots").glob("*/*")
    return any(file.suffix in (".safetensors", ".bin", ".pt") for file in files)


def load_trainable(
    name: str, device: str | torch.device | None, precision: str = "fp32"
) -> LoadedVLM:
    """Load an open_clip VLM for training; `open_clip.save_vlm` saves it.

    Raises:
        UserError: as in `load_vlm`; a VLM of another library.
    """
    check_trainable(name)
    vlm = load_vlm(name, device, precision)
    assert isinstance(vlm, LoadedVLM)
    return vlm


def check_trainable(name: str) -> None:
    """Check that a VLM can be trained here. Loads nothing.

    Raises:
        UserError: no such VLM, or a VLM of another library than open_clip.
    """
    source = find_vlm(name)
    if _is_own(source) or not (
        source.startswith("open_clip:") or (Path(source) / open_clip.CONFIG).is_file()
    ):
        raise UserError(f"only an open_clip VLM can be trained here, and {name!r} is none")
