"""Models that are told the criterion: a picture and a criterion -> a vector, without texts.

The second contract beside `crl.vlm.VLM`. What such a model gives is a representation as it is, as R
is. `crl.embed.embed_images(Told(model, criteria), images)` batches, keeps and resumes as ever.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from crl.images import to_rgb
from crl.run.errors import UserError
from crl.run.results import digest
from crl.run.store import Store, memory_map, open_store

SIDE = 1024  # pixels; longer pictures are scaled to it: it decides what a picture costs


class Instructed(Protocol):
    """A model that is told the criterion. `crl.embed` normalises its vectors."""

    name: str  # that it was loaded by
    device: torch.device  # where it computes
    precision: str  # of its vectors, as in `crl.backends.precision`

    @property
    def dim(self) -> int:
        """D, the width of a vector."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever weights, preprocessing, engine or precision change a vector."""

    def prompt(self, criterion: str) -> str:
        """All that the model reads beside the picture, to the letter: engines are known to drift
        with it. With the fingerprint it is the key of the embedding cache."""

    def encode(self, images: list[Image.Image], criteria: Sequence[str]) -> Tensor:
        """B pictures (RGB), C criteria in plain words -> (B, C, D), float32, not normalised."""


def load_instructed(
    name: str, device: str | torch.device | None = None, precision: str = "fp32", send: bool = False
) -> Instructed:
    """Load a model that is told the criterion.

    `name`: `readout:<folder or hub name>`, any multimodal language model of transformers, read as
    DIOR does; `qwen3-vl-embedding:...` or `gme:...`, embedding models with prompts of their own;
    `http://host:8000/v1#<model>`, a server with the OpenAI protocol, elsewhere only if pictures may
    leave this machine: `send`. `precision`: `fp32`, `bf16` or `fp16`, of weights and forward pass.

    A UserError for an unknown name, no or damaged weights, and a server elsewhere without `send`.
    """
    from crl.backends.readout import TEMPLATES, Readout
    from crl.backends.served import Served

    kind, _, source = name.partition(":")
    if kind in TEMPLATES and source:
        return Readout(name, kind, source, device, precision)
    if re.match(r"https?://[^#]+#.", name):
        return Served(name, send)
    kinds = ", ".join(f"{kind}:<folder or hub name>" for kind in TEMPLATES)
    raise UserError(f"unknown instructed model {name!r}; known: {kinds}, or http://...#<model>")


def words(criterion: str) -> str:
    """The name of a criterion in plain words, as a model is told it."""
    return " ".join(criterion.replace("_", " ").split())


def scaled(image: Image.Image) -> Image.Image:
    """RGB, no side above `SIDE`."""
    picture = to_rgb(image).copy()
    picture.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC)
    return picture


class Told:
    """A model that is told C criteria, in the form in which `crl.embed` takes a VLM. Each criterion
    has a store of its own, so that a further one leaves the others."""

    def __init__(self, model: Instructed, criteria: Sequence[str]) -> None:
        self.model, self.criteria = model, [words(criterion) for criterion in criteria]
        self.name, self.device, self.precision = model.name, model.device, model.precision

    @property
    def dim(self) -> int:
        return self.model.dim

    @property
    def fingerprint(self) -> str:
        prompts = [self.model.prompt(criterion) for criterion in self.criteria]
        return digest(self.model.fingerprint, prompts, SIDE)

    preprocess = staticmethod(scaled)

    def encode_images(self, batch: list[Image.Image]) -> Tensor:
        """(B, C, D)"""
        return self.model.encode(batch, self.criteria)


class Stores:
    """The stores of several criteria as one; a row of it is (C, D)."""

    def __init__(self, stores: list[Store]) -> None:
        self.stores = stores

    def __contains__(self, digest: bytes) -> bool:
        return all(digest in store for store in self.stores)

    def append(self, digests: list[bytes], rows: np.ndarray) -> None:
        for number, store in enumerate(self.stores):
            store.append(digests, rows[:, number])

    def gather(self, digests: np.ndarray) -> np.ndarray | None:
        """(N, C, D), as `Store.gather`."""
        each = [store.gather(digests) for store in self.stores]
        if any(rows is None for rows in each):
            return None
        result = memory_map((len(digests), len(each), *each[0].shape[1:]), self.stores[0].folder)
        for number, rows in enumerate(each):
            result[:, number] = rows
        return result


@contextmanager
def open_stores(told: Told, cache: Path | None) -> Iterator[Any]:
    with ExitStack() as stack:
        each = [Told(told.model, [criterion]) for criterion in told.criteria]
        yield Stores([stack.enter_context(open_store(one, "image", cache)) for one in each])
