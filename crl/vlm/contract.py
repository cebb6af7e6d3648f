"""What the rest of CRL knows about a vision-language model (VLM), and what each library brings."""

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
    """A vision-language model. It does not L2-normalise: that is the caller's one visible step.

    Attributes:
        name: the name it was loaded by.
        dim: D, the width of both embeddings.
        device: where the model computes and where the embeddings stay; callers move them.
        fingerprint: changes whenever weights, architecture, preprocessing, tokenizer or precision
            change an embedding. The embedding cache is keyed by it.
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
        other texts; what exceeds the model's context length is cut off."""


@dataclass(frozen=True)
class Preprocess:
    """A PIL image of any mode -> RGB -> a library's `transform` -> (3, H, W) float32."""

    transform: Callable[[Image.Image], Tensor]

    def __call__(self, image: Image.Image) -> Tensor:
        return self.transform(to_rgb(image))


class Parts(NamedTuple):
    """What differs between libraries."""

    model: nn.Module
    dim: int
    preprocess: Preprocess
    tokenize: Callable[[list[str]], Any]  # -> something with .to(device)
    image_features: Callable[[Tensor], Tensor]
    text_features: Callable[[Any], Tensor]
    recipe: dict[str, Any]  # everything but the weights that decides an embedding, as plain data
    files: list[Path]  # all that it was loaded from


class LoadedVLM:
    """The `VLM` contract over `Parts`. `model` is there for those who fine-tune it.

    If an earlier run has computed the fingerprint of the same files, the model is not loaded
    before it is asked to encode: a repeated run that finds all embeddings in the cache never does.
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
            self._parts()  # whatever is wrong with the weights is said now

    def _parts(self) -> Parts:
        with self._lock:  # `preprocess` is called from several threads
            if self._loaded is None:
                with torch.inference_mode(False):  # `encode_texts` may be what loads the model
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

    def encode_images(self, batch: Tensor) -> Tensor:
        with torch.inference_mode(), self._autocast():
            return self.image_features(batch).float()

    def encode_texts(self, texts: list[str]) -> Tensor:
        with torch.inference_mode(), self._autocast():
            return self.text_features(texts).float()

    def image_features(self, batch: Tensor) -> Tensor:
        """`encode_images` with gradients, for training; precision is the caller's autocast."""
        return self._parts().image_features(batch.to(self.device))

    def text_features(self, texts: list[str]) -> Tensor:
        """`encode_texts` with gradients, likewise."""
        return self._parts().text_features(self._parts().tokenize(texts).to(self.device))

    @property
    def recipe(self) -> dict[str, Any]:
        """Everything but the weights that decides an embedding, as plain data."""
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
    """Torch counts the changes to each tensor (but not those through .data), so a model that an
    optimizer changes does not keep its old fingerprint."""
    return sum(tensor._version for tensor in model.state_dict().values())


def _hash(parts: Parts, precision: str) -> str:
    recipe = {**parts.recipe, "precision": precision}
    hasher = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode())
    for name, tensor in sorted(parts.model.state_dict().items()):
        hasher.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        hasher.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy())
    return hasher.hexdigest()[:16]
