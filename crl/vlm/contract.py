"""The interface of a vision-language model (VLM), and the parts that each library provides."""

import hashlib
import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple, Protocol

import torch
from PIL import Image
from torch import Tensor, nn

from crl.images import to_rgb
from crl.vlm.fingerprints import Known, recall, remember

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class VLM(Protocol):
    """A vision-language model. Its embeddings are not L2-normalised; the caller does that.

    Attributes:
        name: the name it was loaded by.
        dim: D, the width of image and text embeddings.
        device: where the model computes and where the embeddings stay; callers move them.
        fingerprint: changes whenever weights, architecture, preprocessing, tokenizer or precision
            change an embedding. It is the key of the embedding cache.
    """

    name: str
    device: torch.device

    @property
    def dim(self) -> int: ...

    @property
    def fingerprint(self) -> str: ...

    def preprocess(self, image: Image.Image) -> Tensor:
        """An image of any mode -> (3, H, W) float32. Called from several threads at once."""

    def encode_images(self, batch: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, D), or (B, Q, D) for Q vectors per image. float32, not normalised."""

    def encode_texts(self, texts: list[str]) -> Tensor:
        """K texts -> (K, D), float32, not normalised. The row of a text does not depend on the
        other texts; texts longer than the model's context length are cut off."""


@dataclass(frozen=True)
class Preprocess:
    """A PIL image of any mode -> RGB -> a library's `transform` -> (3, H, W) float32."""

    transform: Callable[[Image.Image], Tensor]

    def __call__(self, image: Image.Image) -> Tensor:
        return self.transform(to_rgb(image))


class Parts(NamedTuple):
    """The parts of a VLM that differ between libraries."""

    model: nn.Module
    dim: int
    preprocess: Preprocess
    tokenize: Callable[[list[str]], Any]  # -> something with .to(device)
    image_features: Callable[[Tensor], Tensor]
    text_features: Callable[[Any], Tensor]
    recipe: dict[str, Any]  # everything except the weights that affects an embedding, as plain data
    files: list[Path]  # all files that it was loaded from


class LoadedVLM:
    """The `VLM` interface over `Parts`. `model` is public for fine-tuning.

    If an earlier run has computed the fingerprint of the same files, the model is loaded only when
    it must encode. A repeated run that finds all embeddings in the cache never loads it.
    """

    def __init__(
        self,
        name: str,
        source: str,
        load: Callable[[], Parts],
        device: torch.device,
        precision: str,
    ) -> None:
        self.name, self.device, self.precision = name, device, precision
        self._source, self._load, self._lock = source, load, Lock()
        self._known = recall(source, precision)
        self._loaded: Parts | None = None
        self._hashed: tuple[int, str] | None = None  # changes to the weights, and their fingerprint
        if self._known is None:
            self._parts()  # so that errors in the weights are reported now

    def _parts(self) -> Parts:
        with self._lock:  # `preprocess` is called from several threads
            if self._loaded is None:
                with torch.inference_mode(False):  # the call may come from within `encode_texts`
                    parts = self._load()
                    parts.model.eval().to(self.device)
                self._changes_when_loaded = _changes(parts.model)
                if self._known:
                    self._hashed = self._changes_when_loaded, self._known.fingerprint
                self._loaded = parts
            return self._loaded

    @property
    def model(self) -> nn.Module:
        return self._parts().model

    @property
    def dim(self) -> int:
        return self._known.dim if self._known else self._parts().dim

    @property
    def preprocess(self) -> Preprocess:
        return self._parts().preprocess

    @property
    def tokenize(self) -> Callable[[list[str]], Any]:
        return self._parts().tokenize

    def encode_images(self, batch: Tensor) -> Tensor:
        with torch.inference_mode(), self._autocast():
            return self.image_features(batch).float()

    def encode_texts(self, texts: list[str]) -> Tensor:
        with torch.inference_mode(), self._autocast():
            return self.text_features(texts).float()

    def image_features(self, batch: Tensor) -> Tensor:
        """`encode_images` with gradients, for training; the caller sets autocast."""
        return self._parts().image_features(batch.to(self.device))

    def text_features(self, texts: list[str]) -> Tensor:
        """`encode_texts` with gradients, for training; the caller sets autocast."""
        return self._parts().text_features(self._parts().tokenize(texts).to(self.device))

    @property
    def recipe(self) -> dict[str, Any]:
        """Everything except the weights that affects an embedding, as plain data."""
        return self._parts().recipe

    @property
    def fingerprint(self) -> str:
        if self._known and self._loaded is None:
            return self._known.fingerprint
        parts = self._parts()
        changes = _changes(parts.model)
        if self._hashed is None or self._hashed[0] != changes:
            self._hashed = changes, _hash(parts, self.precision)
            if changes == self._changes_when_loaded:
                known = Known(self._hashed[1], parts.dim)
                remember(self._source, self.precision, parts.files, known)
        return self._hashed[1]

    def _autocast(self):
        dtype = PRECISIONS[self.precision]
        return torch.autocast(self.device.type, dtype) if dtype else nullcontext()


def _changes(model: nn.Module) -> int:
    """How often the weights have changed, by torch's own counters (changes through .data are not
    counted). So a model that an optimizer changes does not keep its old fingerprint."""
    return sum(tensor._version for tensor in model.state_dict().values())


def _hash(parts: Parts, precision: str) -> str:
    recipe = {**parts.recipe, "precision": precision}
    hasher = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode())
    for name, tensor in sorted(parts.model.state_dict().items()):
        hasher.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        hasher.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy())
    return hasher.hexdigest()[:16]
