"""Vision-language models (VLMs) with one interface, loaded by name. How the models of open_clip and
transformers are loaded is in `crl.backends`."""

import re
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from crl.backends import open_clip, transformers
from crl.backends.loaded import DECODES, FINGERPRINTS, LoadedVLM, Parts
from crl.backends.precision import PRECISIONS
from crl.backends.torchvision_fix import import_torchvision
from crl.projection import l2
from crl.run.distributed import available_device
from crl.run.errors import UserError, nearest
from crl.run.files import write_text
from crl.run.results import digest

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
    from_file: bool = False, decode: str = "full",
) -> VLM:  # fmt: skip
    """Load a VLM in eval mode.

    Args:
        name: `clip`, `clip-b16`, `metaclip`, `align`, `blip2` (the paper's); `siglip2`,
            `siglip2-l`, `pe`, `pe-l`, `dfn`, `dfn-l` (newer; `-l`: larger and slower); `demo`;
            `open_clip:<model>/<tag>` with any model and tag of open_clip;
            `open_clip:<model>/<file>` with a checkpoint file (absolute path: two slashes);
            a folder: open_clip's (open_clip_config.json), or transformers' (config.json): ALIGN,
            AltCLIP, BLIP-2, Chinese-CLIP, CLIP, MetaCLIP 2, SigLIP or SigLIP 2;
            or `<module>:<class>`, a VLM of your own: see crl/README.md.
        device: e.g. `cpu`, `cuda:1`, `mps`; None: CUDA if there is a GPU that works, else the CPU.
        precision: `fp32`, `bf16` or `fp16`: of the weights and the forward pass, see
            `crl.backends.precision`; or `auto`: bf16 where the processor or GPU computes in it and
            the embeddings stay the same (cosine above 0.999, measured once), else fp32.
        from_file: the name comes from a file, not from the person: `<module>:<class>` is refused,
            since code from a file is never run.
        decode: how `embed_images` decodes files: `full`; or `fast`, large ones at a reduced size,
            no less than twice what the model takes. A VLM of your own decodes in full.

    Raises:
        UserError: unknown name, or one of code from a file; no weights; weights, preprocessing and
            model that do not match; a damaged checkpoint or one that holds code; no such device.
    """
    for key, value, values in (("precision", precision, [*PRECISIONS, "auto"]),
                               ("decode", decode, DECODES)):  # fmt: skip
        if value not in values:
            raise UserError(f"unknown {key} {value!r}; {nearest(str(value), values)}")
    source = find_vlm(name, from_file)
    device = available_device(device)
    if _is_code(source):
        return _import_vlm(source, device, "fp32" if precision == "auto" else precision)
    return LoadedVLM(name, source, partial(_load, name, source), device, precision, decode)


def encoded(vlm: Any, member: str, batch: Any) -> np.ndarray:
    """What `encode_images` or `encode_texts`, the `member`, gives for a batch of B: (B, D), or
    (B, Q, D) for images, float32. A UserError that names the member if it gives anything else."""
    rows = getattr(vlm, member)(batch)
    right = f"torch.Tensor ({len(batch)}, {vlm.dim}), float32"
    if not isinstance(rows, Tensor):
        raise UserError(f"{vlm.name}: {member} must give a {right}, not a {type(rows).__name__}")
    queries = rows.shape[1:-1] if member == "encode_images" and rows.ndim == 3 else ()
    if rows.shape != (len(batch), *queries, vlm.dim) or not rows.is_floating_point():
        form = f"{tuple(rows.shape)}, {str(rows.dtype).removeprefix('torch.')}"
        raise UserError(f"{vlm.name}: {member} must give a {right}, not {form}")
    if not rows.isfinite().all():
        advice = "try precision fp32, or check the weights"
        model = vlm.name
        if isinstance(vlm, LoadedVLM):
            model += f" ({type(vlm.model).__name__} in {vlm.precision})"
        raise UserError(f"{model}: {member} gave NaN or infinite embeddings; {advice}")
    return rows.detach().float().cpu().numpy()


def find_vlm(name: str, from_file: bool = False) -> str:
    """Where the VLM `name` comes from: `open_clip:...`, a Hugging Face name or a folder. Loads
    nothing. A UserError for no such name or folder, or `<module>:<class>` from a file."""
    if from_file and _is_code(name):
        advice = f"give the VLM yourself: vlm={name} (crl explore: --vlm {name})"
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
    """Load an open_clip VLM for training; `crl.backends.open_clip.save_vlm` saves it. Its weights
    are float32 in each precision. A UserError as in `load_vlm`, or for a VLM of another library."""
    source = find_vlm(name)
    is_folder = Path(source, open_clip.CONFIG).is_file() and not _is_code(source)
    if not (source.startswith("open_clip:") or is_folder):
        raise UserError(f"only an open_clip VLM can be trained here, and {name!r} is none")
    device = available_device(device)
    return LoadedVLM(name, source, partial(_load, name, source), device, precision, trained=True)


def _load(name: str, source: str) -> Parts:
    import_torchvision()
    if source.startswith("open_clip:"):
        return open_clip.load_tag_or_file(source.removeprefix("open_clip:"))
    if name in HUB:
        return transformers.load({"align": "align", "blip2": "blip-2"}[name], source)
    if Path(source, open_clip.CONFIG).is_file():
        return open_clip.load_folder(Path(source))
    return transformers.load_folder(Path(source))


def _is_code(source: str) -> bool:
    return re.fullmatch(r"(?!open_clip:)[\w.]+:\w+", source) is not None


def _import_vlm(source: str, device: torch.device, precision: str) -> VLM:
    """A user's VLM, `<module>:<class>`, from the working directory or an installed package."""
    module, _, name = source.partition(":")
    advice = f"start in the folder that holds {module}.py, or set PYTHONPATH"
    if "" not in sys.path:  # a script's own folder is there, the working directory is not
        sys.path.append("")
    package = module.partition(".")[0]
    try:
        spec = find_spec(package)
        if spec and spec.origin is None:  # outputs.evil would be outputs/evil.py: a data folder
            raise ImportError(f"{package} is a folder without __init__.py, not a package")
        kind = getattr(import_module(module), name)
    except Exception as error:  # the module's own code can raise anything
        raise UserError(f"cannot import the VLM {source}: {error}; {advice}") from error
    vlm = _tried(f"{source}: __init__", kind, device=device, precision=precision)
    members = "name dim device fingerprint preprocess encode_images encode_texts".split()
    missing = [member for member in members if not hasattr(vlm, member)]
    if missing:
        raise UserError(f"{source} is no VLM, it has no {', '.join(missing)}; see crl/README.md")
    if not isinstance(vlm.name, str):
        raise UserError(f"{source}: name must be a text, not {vlm.name!r}")
    fingerprint = vlm.fingerprint
    if not (isinstance(fingerprint, str) and re.fullmatch(r"[\w-][\w.-]*", fingerprint)):
        advice = "a text of letters, digits, dots and dashes, since it names a folder"
        raise UserError(f"{source}: fingerprint must be {advice}, not {fingerprint!r}")
    record = FINGERPRINTS / f"{digest(source, fingerprint)}.probed"
    if not record.is_file():
        _probe(source, vlm)
        with suppress(OSError):  # without the record the next run probes it again
            write_text(record, "")
    return vlm


def _probe(source: str, vlm: VLM) -> None:
    """Encode one image and one text, and two of each, before a run takes hours. A UserError that
    names the member that is wrong."""
    image = Image.linear_gradient("L").convert("RGB")
    images = [image.resize(size) for size in ((64, 48), (48, 64))]
    pixels = _tried(f"{source}: preprocess", lambda: torch.stack([*map(vlm.preprocess, images)]))
    batches = {"encode_images": pixels, "encode_texts": ["a photo", "a photo of two red cubes"]}
    for member, batch in batches.items():
        one, two = (_tried(f"{source}: {member}", encoded, vlm, member, batch[:n]) for n in (1, 2))
        if not np.allclose(l2(one[0]), l2(two[0]), atol=0.05):
            advice = "another row beside others; is the model in eval mode?"
            raise UserError(f"{source}: {member} gives the same input {advice}")


def _tried(member: str, work: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    try:
        return work(*arguments, **options)
    except UserError:
        raise
    except Exception as error:  # a user's code can raise anything
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{member} fails with {reason}; see crl/README.md") from error
