"""A tiny VLM for tests: exact arithmetic, and it counts what it encodes."""

import hashlib
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

DIM = 5
SIDE = 4
WEIGHTS = torch.from_numpy(np.random.default_rng(0).integers(-9, 10, (3 * SIDE * SIDE, DIM)))


class ToyVLM:
    """Embeddings are whole numbers below 2^24, so they are exact in any batch."""

    name, dim, device = "toy", DIM, torch.device("cpu")

    def __init__(
        self,
        fingerprint: str = "toy-1",
        queries: int | None = None,  # Q vectors per image; None: one, without the axis
        log: Path | None = None,  # a file that gets one character per encoded image
        stall_after: int | None = None,  # after this number of encoded images, sleep forever
    ):
        self.fingerprint, self.queries, self.log = fingerprint, queries, log
        self.stall_after = stall_after
        self.images = 0  # encoded so far
        self.texts: list[str] = []
        self.batches: list[int] = []  # sizes

    def preprocess(self, image: Image.Image) -> torch.Tensor:
        pixels = np.asarray(image.convert("RGB").resize((SIDE, SIDE)), np.float32)
        return torch.from_numpy(pixels).permute(2, 0, 1)

    def encode_images(self, batch: torch.Tensor) -> torch.Tensor:
        self.images += len(batch)
        self.batches.append(len(batch))
        if self.log:
            with open(self.log, "a") as file:
                file.write("." * len(batch))
        if self.stall_after is not None and self.images > self.stall_after:
            time.sleep(3600)
        embeddings = (batch.flatten(1).long() @ WEIGHTS).float()
        if self.queries is None:
            return embeddings
        return torch.stack([embeddings + 1000 * q for q in range(self.queries)], dim=1)

    def encode_texts(self, texts: list[str]) -> torch.Tensor:
        self.texts += texts
        self.batches.append(len(texts))
        hashes = [hashlib.sha256(text.encode()).digest()[:DIM] for text in texts]
        return torch.tensor([list(row) for row in hashes], dtype=torch.float32)


def direct(vlm: ToyVLM, paths: list[Path]) -> np.ndarray:
    """The expected result of `embed_images`, one image at a time."""
    fresh, rows = ToyVLM(queries=vlm.queries), []
    for path in paths:
        with Image.open(path) as image:
            rows.append(fresh.encode_images(vlm.preprocess(image)[None]))
    return torch.cat(rows).numpy()


def make_images(folder: Path, count: int, first: int = 0) -> list[Path]:
    """`count` different PNGs, `first` the number of the first one."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(first, first + count):
        pixels = np.random.default_rng(number).integers(0, 256, (6, 7, 3), dtype=np.uint8)
        paths.append(folder / f"{number:03}.png")
        Image.fromarray(pixels).save(paths[-1])
    return paths
