"""Embedding models on a server with the OpenAI protocol, to which vLLM adds pictures.

vLLM's /v1/embeddings takes the messages of a chat, with pictures as data URIs, and gives a vector.
Which chat template and weights it uses, it does not say: so one picture that is always the same is
sent first, and its vector must be the one of the first time.
"""

import json
from collections.abc import Sequence
from functools import cached_property, partial
from multiprocessing.pool import ThreadPool
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from crl.backends.loaded import FINGERPRINTS
from crl.run.chat import Server, as_jpeg, picture_part, printable
from crl.run.errors import UserError
from crl.run.results import digest
from crl.run.stamps import read_record, write_record

# Qwen3-VL-Embedding's instruction is a system message; other models follow it as well.
INSTRUCTION = "Represent the image by its {criterion}."
OPTIONS = {"add_generation_prompt": True}
AT_ONCE = 8  # requests
DRIFT = 0.999  # least cosine of the probe to that of the first time; bf16 on other GPUs is above


class Served:
    """The interface `crl.backends.instructed.Instructed` for `http://host:8000/v1#<model>`."""

    precision, device = "fp32", torch.device("cpu")

    def __init__(self, name: str, send: bool) -> None:
        url, _, self.model = name.partition("#")
        self.server = Server(url)
        self.name = f"{self.server.public_url}#{self.model}"  # without a password
        if not (send or self.server.is_local):
            place = self.server.public_url
            raise UserError(f"nothing was sent; add send=yes to show the pictures to {place}")
        self.record = FINGERPRINTS / f"{digest(self.model, INSTRUCTION, OPTIONS)}.probe.json"

    @cached_property
    def first(self) -> list[float]:
        """The vector of the known picture, of the first time."""
        return read_record(self.record).get("vector") or self.probed

    @cached_property
    def probed(self) -> list[float]:
        """The same of this run; a UserError if it is another."""
        picture = as_jpeg(Image.linear_gradient("L").convert("RGB").resize((64, 48)))
        vector = self._vector((picture, "color"))
        first = read_record(self.record).get("vector", vector)
        change = f"{len(vector)} numbers for a picture, and {len(first)} once"
        if len(first) == len(vector):
            cosine = np.dot(first, vector) / np.linalg.norm(first) / np.linalg.norm(vector)
            if cosine > DRIFT:
                write_record(self.record, {"vector": first})
                return vector
            change = f"another vector for the same picture than once (cosine {cosine:.4f})"
        advice = f"serve it as before, or remove {self.record} to begin anew"
        raise UserError(f"{self.name} gives {change}: other weights or template; {advice}")

    @property
    def dim(self) -> int:
        return len(self.first)

    @property
    def fingerprint(self) -> str:
        return digest(self.model, OPTIONS, self.first)

    def prompt(self, criterion: str) -> str:
        return INSTRUCTION.replace("{criterion}", criterion)

    def encode(self, images: list[Image.Image], criteria: Sequence[str]) -> Tensor:
        self.probed  # noqa: B018  (the first time it asks the server)
        pictures = [as_jpeg(image) for image in images]
        pairs = [(picture, criterion) for picture in pictures for criterion in criteria]
        with ThreadPool(AT_ONCE) as pool:
            each = pool.map(partial(self._vector, dim=self.dim), pairs, chunksize=1)
        return torch.tensor(each).view(len(images), len(criteria), -1)

    def _vector(self, pair: tuple[bytes, str], dim: int | None = None) -> list[float]:
        """The vector of a JPEG under a criterion. A UserError for any other answer."""
        picture, criterion = pair
        messages: list[dict[str, Any]] = [
            {"role": "system", "content": [{"type": "text", "text": self.prompt(criterion)}]},
            {"role": "user", "content": [picture_part(picture)]},
        ]
        answer = self.server.embedding(messages, self.model, **OPTIONS)
        try:
            (row,) = answer["data"]
            vector = np.array(row["embedding"], np.float64)
            if vector.shape != (dim or vector.size,):
                reason = f"shape {vector.shape}, and ({dim},) before"
            elif np.isfinite(vector).all() and vector.any():
                return vector.tolist()
            else:
                reason = "NaN, infinite, zeros or empty"
        except (LookupError, TypeError, ValueError):
            reason = printable(json.dumps(answer, default=str))[:160]
        raise UserError(f"{self.name} gave no vector for a picture: {reason}")
