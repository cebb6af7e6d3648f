"""The VLM of a library, loaded when it is needed; its fingerprint is remembered for later runs."""

import hashlib
import json
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from crl.backends.precision import PRECISIONS, SAME, cast, computes_bf16, cosine_of_cast, in_dtype
from crl.images import to_rgb
from crl.run.files import CACHE
from crl.run.results import digest
from crl.run.stamps import Stamps, read_record, stamps, write_record
from crl.run.store import EMBEDDINGS

CAST = " weights"  # after the precision in a fingerprint
FINGERPRINTS = CACHE / "fingerprints"
MOST_PIXELS = 2**24  # of a scaled image; of a longer strip only the middle is scaled
DECODES = ("full", "fast")
LIBRARIES = ("torch", "open_clip_torch", "transformers")  # other versions may embed differently


@dataclass(frozen=True)
class Preprocess:
    """A PIL image of any mode -> RGB -> a library's `transform` -> (3, H, W) float32. If that first
    scales the shorter side to `side` and then crops the middle, say so: a strip of 1 x 20,000
    pixels would take gigabytes. `most` says how long the transform makes a picture's shorter side;
    0: nobody knows. If `fast`, pictures that are `enough` are scaled, or cut, on the way there."""

    transform: Callable[[Image.Image], Tensor]
    side: int | None = field(default=None, repr=False)
    resample: Image.Resampling = field(default=Image.Resampling.BICUBIC, repr=False)
    most: int = field(default=0, repr=False)
    fast: bool = field(default=False, repr=False)

    @property
    def enough(self) -> int:
        """To the shorter side of a picture more pixels make no difference; 0: they do."""
        return 2 * self.most if self.fast else 0

    def __call__(self, image: Image.Image, size: tuple[int, int] | None = None) -> Tensor:
        """`size` is that in full of a picture that was decoded at a reduced size."""
        image = to_rgb(image)
        if self.side and self.side**2 * max(image.size) > MOST_PIXELS * min(image.size):
            image = _middle(image, image.size, self.side, self.resample, 2 * self.side)
        elif self.side and self.enough and min(image.size) >= self.enough:
            image = _middle(image, size or image.size, self.side, self.resample, self.side)
        return self.transform(image)


def _middle(
    image: Image.Image, size: tuple[int, int], side: int, resample: Image.Resampling, least: int
) -> Image.Image:
    """A picture scaled to `side`, but only the middle, `least` or a little more, from which the
    library crops its own. An even number of pixels is cut off, so that halves are rounded as ever;
    it ends where an old and a new pixel begin together, if that is near: then what is left is the
    same to the bit. A reduced picture is scaled as that of the full `size`."""
    short, long = sorted(size)
    scaled = int(side * long / short)
    step = 2 * scaled // math.gcd(scaled, long)
    step = step if step <= 8 * (least - side) else 2
    cut = (scaled - least) // 2 // step * step
    short, long = sorted(image.size)
    length, begin, end = scaled - 2 * cut, cut * long / scaled, long - cut * long / scaled
    if image.width > image.height:  # Pillow scales the width first
        image = image.resize((length, short), resample, (begin, 0, end, short))
        return image.resize((length, side), resample)
    image = image.resize((side, long), resample)
    return image.resize((side, length), resample, (0, begin, side, end))


class Parts(NamedTuple):
    """The parts of a VLM that differ between libraries."""

    model: nn.Module
    dim: int
    preprocess: Preprocess
    tokenize: Callable[..., Any]  # texts, context=context -> something with .to(device)
    context: int  # tokens of a text; the others are cut off
    image_features: Callable[[Tensor], Tensor]
    text_features: Callable[[Any], Tensor]
    recipe: dict[str, Any]  # everything except the weights that affects an embedding, as plain data
    files: list[Path]  # all files that it was loaded from


class LoadedVLM:
    """The interface `crl.vlm.VLM` over `Parts`. If an earlier run has computed the fingerprint of
    the same files, the model is loaded only when it must encode: in a repeated run, never.

    In bf16 or fp16 the weights are cast, unless that moves embeddings too far: then they stay in
    float32 under autocast. A VLM that is `trained` always does so."""

    def __init__(self, name: str, source: str, load: Callable[[], Parts], device: torch.device,
                 precision: str, decode: str = "full", trained: bool = False) -> None:  # fmt: skip
        if precision == "auto" and not computes_bf16(device):
            precision = "fp32"
        self.name, self.device, self.precision, self.decode = name, device, precision, decode
        self._load, self._lock = load, Lock()
        self._loaded: Parts | None = None
        self._cast = False  # are the weights cast?
        self._former = ""  # fingerprint of the default of former versions, if this is the first run
        versions = [metadata.version(library) for library in LIBRARIES]
        place = str(Path(source).resolve()) if Path(source).is_dir() else source
        record = FINGERPRINTS / f"{digest(place, precision, device.type, versions, decode)}.json"
        summary = read_record(record)
        if not summary or summary["files"] != stamps(map(Path, summary["files"])):
            parts = self.parts
            low = "bf16" if precision == "auto" else precision
            if low != "fp32" and cosine_of_cast(parts, PRECISIONS[low], device) >= SAME:
                precision = low + CAST
            precision = "fp32" if precision == "auto" else precision
            if (precision, decode) != ("fp32", "full"):
                self._former = _hash(parts, "fp32", "full")
            folders = {file.parent for file in parts.files}
            summary = {"precision": precision, "fingerprint": _hash(parts, precision, decode),
                       "dim": parts.dim, "context": parts.context,
                       "files": stamps([*parts.files, *folders])}  # fmt: skip
            write_record(record, summary)
        self._precision: str = summary["precision"]  # with `CAST`, if weights are to be cast
        self.precision = self._precision.removesuffix(CAST)
        self._fingerprint, self.dim = summary["fingerprint"], summary["dim"]
        self.context: int = summary["context"]  # tokens of a text that are read
        self.files: Stamps = summary["files"]  # all that it is loaded from, and its folders
        self._cast = self._precision.endswith(CAST) and not trained
        if self._loaded:
            self._make_ready(self._loaded)

    @property
    def parts(self) -> Parts:
        with self._lock:  # `preprocess` is called from several threads
            if self._loaded is None:
                with torch.inference_mode(False):  # the call may come from within `encode_texts`
                    parts = self._load()
                    parts.model.eval().to(self.device)
                preprocess = replace(parts.preprocess, fast=self.decode == "fast")
                parts = parts._replace(preprocess=preprocess)
                self._make_ready(parts)
                self._loaded = parts
            return self._loaded

    def _make_ready(self, parts: Parts) -> None:
        if self._cast:
            cast(parts.model, PRECISIONS[self.precision])
        self._changes_when_loaded = _changes(parts.model)

    @property
    def fingerprint(self) -> str:
        if self._loaded is None or _changes(self.model) == self._changes_when_loaded:
            return self._fingerprint
        return _hash(self._loaded, self._precision, self.decode)

    @property
    def model(self) -> nn.Module:
        return self.parts.model

    @property
    def preprocess(self) -> Preprocess:
        return self.parts.preprocess

    def encode_images(self, batch: Tensor) -> Tensor:
        if self._former and (EMBEDDINGS / self._former).is_dir():
            note = "there are embeddings in fp32 from full decoding, which are not used"
            advice = "use them: --precision fp32 --decode full"
            warnings.warn(f"{self.name}: {note} ({advice})", stacklevel=2)
        self._former = ""
        with torch.inference_mode(), self._autocast():
            dtype = PRECISIONS[self.precision if self._cast else "fp32"]
            return self.image_features(in_dtype(batch, dtype)).float()

    def encode_texts(self, texts: list[str]) -> Tensor:
        with torch.inference_mode(), self._autocast():
            return self.text_features(texts).float()

    def image_features(self, batch: Tensor) -> Tensor:
        """`encode_images` with gradients, for training; the caller sets autocast."""
        return self.parts.image_features(batch.to(self.device))

    def text_features(self, texts: list[str]) -> Tensor:
        """`encode_texts` with gradients, for training; the caller sets autocast."""
        return self.parts.text_features(self.parts.tokenize(texts).to(self.device))

    def token_ids(self, texts: list[str]) -> Tensor:
        """(K, tokens) ids of K texts, as the text tower is given them, on the CPU."""
        return _ids(self.parts.tokenize(texts))

    def cut_off(self, texts: list[str]) -> list[str]:
        """The texts that are longer than the model's context, whose ends it does not read."""
        context = self.context
        texts = [text for text in texts if len(text.encode()) + 3 > context]  # at most so many
        if not texts:
            return []
        longest = "a " * 2 * context
        ids = _ids(self.parts.tokenize([*texts, longest, ""], context + 1))  # (K + 2, context + 1)
        padding = (ids == ids[-1].mode().values).sum(1)  # on the left or right
        return [text for text, count in zip(texts, padding, strict=False) if count == padding[-2]]

    def _autocast(self) -> torch.autocast:
        low = self.precision != "fp32" and not self._cast
        return torch.autocast(self.device.type, PRECISIONS[self.precision], enabled=low)


def describe_tokenizer(tokenizer: Any, tokenize: Callable[[list[str]], Any]) -> dict[str, Any]:
    """A tokenizer's vocabulary, and its tokens for a long text with accents, capitals and signs."""
    vocabulary = tokenizer.get_vocab() if hasattr(tokenizer, "get_vocab") else tokenizer.encoder
    tokens = tokenize(["A photo of  3 café's, unBELIEVABLY small! " * 20])
    return {"vocabulary": vocabulary, "probe": _ids(tokens).tolist()}


def _ids(tokens: Any) -> Tensor:
    return tokens if isinstance(tokens, Tensor) else tokens["input_ids"]


def _hash(parts: Parts, precision: str, decode: str) -> str:
    recipe = {**parts.recipe, "precision": precision}
    if decode != "full":  # the only way, once
        recipe["decode"] = decode
    hasher = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode())
    for name, tensor in sorted(parts.model.state_dict().items()):
        hasher.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        hasher.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy())
    return hasher.hexdigest()[:16]


def _changes(model: nn.Module) -> int:
    """How often an optimizer has changed the weights, by torch's own counters."""
    return sum(tensor._version for tensor in model.state_dict().values())
