"""SEARLE: finds a word for each image by optimisation, and trains a network to find it at once.

Baldrati et al., Zero-Shot Composed Image Retrieval with Textual Inversion, ICCV 2023, arXiv
2303.15247; miccunifi/SEARLE (CC BY-NC 4.0). Written from its description; no code is copied.

1. Inversion (the paper's OTI): a free vector per image; sentences with it resemble the image.
2. Distillation: the network `Phi` learns to give these vectors from the image's embedding.
In both, a second loss: in a sentence about a concept that is near to the image, the vector in place
of the concept should change nothing.

Differs: a concept of the image is drawn, and then one of its sentences (there: a sentence of all);
images are prepared as for the VLM, not padded to an aspect ratio of 1.25; without `sentences` of a
language model the sentences are eight of ours. Not found: which epoch was published (here that of
the best held-out recall); a GeneCIS evaluation by its authors; weights for CLIP ViT-B/16.
"""

import warnings
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import BaseModel
from torch import Tensor, nn

from crl.backends.pseudo_words import SIGN, PseudoWords
from crl.embed import embed_texts
from crl.projection import l2
from crl.run.config import Word
from crl.run.errors import UserError
from crl.run.files import atomic_path
from crl.run.given import checked, read_given
from crl.run.progress import progress
from crl.run.training import derived_seed
from similarity_retrieval.mining.files import read_jsonl
from similarity_retrieval.rivals.config import RivalConfig
from similarity_retrieval.rivals.pic2word import image_inputs

KINDS = ("photo", "illustration", "sketch", "diagram")
PICTURES = ("photo", "image", "illustration")
TEMPLATES = [
    *(f"{start} {kind} of a $" for kind in KINDS for start in ("this is a", "a")),
    *(f"this {kind} contains a $" for kind in KINDS),
    *("a $", "we see a $", "$"),
    *(form.format(kind) for kind in PICTURES
      for form in ("we see a $ in this {}", "we see a $ {}", "$ {}")),
]  # fmt: skip
PLACES = ("on the table", "in the kitchen", "in the forest", "on the beach", "on the road",
          "in the library", "next to the door", "with a person")  # fmt: skip
INVERSION = 10  # a use of randomness, beside those of train_rival.py


class Phi(nn.Module):
    """Raw embeddings (B, D) -> vectors of tokens (B, Dt); layers named as published. Of SEARLE and
    LinCIR."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(dim, 4 * dim), nn.GELU(), nn.Dropout(0.5),
            nn.Linear(4 * dim, 4 * dim), nn.GELU(), nn.Dropout(0.5), nn.Linear(4 * dim, width),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def adamw(network: nn.Module, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(network.parameters(), lr, weight_decay=weight_decay)


class SEARLE:
    """Training data and loss. `inputs` (N, D) are what the network is given. The vectors of the
    images that are not `held` out are found first, and kept in `folder`, so that a killed run
    goes on with the next batch of images."""

    supervision, entry, network = "images, sentences of concepts", "Phi", Phi
    optimizer = staticmethod(adamw)

    def __init__(
        self, config: RivalConfig, words: PseudoWords, images: list[Path], held: int, folder: Path
    ) -> None:
        self.words, self.device, self.config = words, words.vlm.device, config
        self.inputs = image_inputs(config, words, images)
        self.sentences = Sentences(config, words, self.inputs.numpy())
        self.held, parts, size = held, [], config.inversion_batch
        folder.mkdir(exist_ok=True)
        starts = range(held, len(images), size)
        for start in progress(starts, label="inversion", unit="batches"):
            file = folder / f"{start:07}.npz"
            if not file.is_file():
                vectors = self._invert(np.arange(start, min(start + size, len(images))))
                with atomic_path(file) as temporary, open(temporary, "wb") as stream:
                    np.savez(stream, vectors=vectors.cpu().numpy())
            arrays = checked([file], read_given([file]), vectors=f"N {words.width}")
            parts.append(torch.from_numpy(arrays["vectors"]))
        self.inverted = torch.cat(parts)  # (N - held, Dt)

    def _invert(self, rows: np.ndarray) -> Tensor:
        """A vector for each of the images at `rows` (b,): (b, Dt)."""
        config, key = self.config, (self.config.seed, INVERSION, int(rows[0]))
        torch.manual_seed(derived_seed(*key))
        rng = np.random.default_rng(key)
        image = self.inputs[rows].to(self.device)  # (b, D)
        vectors = nn.Parameter(0.02 * torch.randn(len(rows), self.words.width).to(self.device))
        optimizer = torch.optim.AdamW([vectors], config.inversion_lr, weight_decay=0.01)
        average = vectors.detach().clone()
        for _ in range(config.inversion_steps):
            texts = [TEMPLATES[i] for i in rng.integers(len(TEMPLATES), size=len(rows))]
            likeness = far(self.words.encode(texts, vectors), image)
            sense = self.sentences.loss(rows, vectors, config.nearest[0], rng, replaced=1)
            optimizer.zero_grad()
            ((likeness + 0.5 * sense) / 1.5).backward()
            optimizer.step()
            average = averaged(average, vectors.detach())
        return average

    def loss(self, network: nn.Module, rows: np.ndarray, rng: np.random.Generator) -> Tensor:
        vectors = network(self.inputs[rows].to(self.device))  # (B, Dt)
        inverted = self.inverted[rows - self.held].to(self.device)  # (B, Dt)
        sense = self.sentences.loss(rows, vectors, self.config.nearest[1], rng)
        return distillation(inverted, vectors) + 0.75 * sense


class Sentence(BaseModel):
    """A line of `sentences`."""

    concept: Word
    sentence: str


class Sentences:
    """Sentences about concepts, and the concepts that are near to each image (N, D)."""

    def __init__(self, config: RivalConfig, words: PseudoWords, images: np.ndarray) -> None:
        about: dict[str, list[str]] = {}
        if config.sentences:
            for line in read_jsonl(Sentence, config.sentences):
                about.setdefault(line.concept, []).append(line.sentence.replace(SIGN, ""))
        else:
            about = {c: [f"a photo of {c} that is {p}" for p in PLACES] for c in config.concepts}
        named = {c: some for c, some in about.items() if all(c in sentence for sentence in some)}
        if not named:
            raise UserError("method=searle needs concepts=[...], or sentences=FILE that hold them")
        if len(named) < len(about):  # as published
            left_out = f"{len(about) - len(named)} of {len(about)} concepts are left out"
            warnings.warn(f"{left_out}, since one of their sentences lacks the word", stacklevel=2)
        self.words, self.concepts, self.texts = words, list(named), list(named.values())
        self.first = np.cumsum([0, *map(len, self.texts)])  # of a concept, in `embedded`
        flat = [sentence for some in self.texts for sentence in some]
        vlm, cache = words.vlm, config.cache
        self.embedded = torch.from_numpy(embed_texts(vlm, flat, cache, raw=True))  # (S, D)
        filled = [t.replace(SIGN, concept) for concept in named for t in TEMPLATES]
        text = embed_texts(vlm, filled, cache)  # unit rows
        prototypes = l2(text.reshape(len(named), len(TEMPLATES), -1).mean(axis=1))  # (C, D)
        parts = np.array_split(images, len(images) // 1024 + 1)
        most = max(config.nearest)
        order = [np.argsort(-l2(part) @ prototypes.T, axis=1)[:, :most] for part in parts]
        self.near = np.concatenate(order)  # (N, at most C)

    def loss(
        self, rows: np.ndarray, vectors: Tensor, nearest: int, rng: np.random.Generator,
        replaced: int = -1,
    ) -> Tensor:  # fmt: skip
        """How far a sentence moves if a vector (B, Dt) takes the place of its concept, one of the
        `nearest` of the image at `rows` (B,). Of a concept that is named several times the first
        `replaced` become a `$` (-1: all), and the first `$` gets the vector, as published."""
        nearest = min(nearest, self.near.shape[1])
        concepts = self.near[rows, rng.integers(nearest, size=len(rows))]  # (B,)
        numbers = [int(rng.integers(len(self.texts[c]))) for c in concepts]
        pairs = list(zip(concepts, numbers, strict=True))
        texts = [
            self.texts[c][n].replace(self.concepts[c], f" {SIGN} ", replaced) for c, n in pairs
        ]
        plain = self.embedded[self.first[concepts] + numbers]  # (B, D)
        return far(self.words.encode(texts, vectors, count=1), plain.to(vectors.device))


def far(one: Tensor, other: Tensor) -> Tensor:
    """Mean of 1 - cosine of the rows of both (B, D)."""
    return (1 - F.cosine_similarity(one, other)).mean()


def averaged(average: Tensor, vectors: Tensor) -> Tensor:
    """The exponential average after one step more."""
    return 0.99 * average + 0.01 * vectors


def distillation(inverted: Tensor, predicted: Tensor, temperature: float = 0.25) -> Tensor:
    """Cross entropy of each vector's partner among the 2B - 1 others; both are (B, Dt)."""
    z = F.normalize(torch.cat([inverted, predicted]), dim=1)  # (2B, Dt)
    logits = (z @ z.T / temperature).fill_diagonal_(-torch.inf)
    partner = torch.arange(len(z), device=z.device).roll(len(inverted))
    return F.cross_entropy(logits, partner)
