"""LinCIR: a network turns an embedding into a word, trained on captions alone.

Gu et al., Language-only Efficient Training of Zero-shot Composed Image Retrieval, CVPR 2024, arXiv
2312.01998; navervision/lincir (CC BY-NC 4.0). Written from its description; no code is copied.

The keywords of a caption are replaced by one pseudo-word, made from the caption's own embedding
with noise. The sentence with the pseudo-word must have the embedding of the caption. Then an
image's embedding takes the place of the caption's.

Differs: keywords are whole words (`whole_words=false`: as published, also letters within words); a
caption's random word is drawn once, not in each epoch; the weights are those of the best held-out
recall of captions, since the authors choose by images of CIRR. Not found: weights for CLIP
ViT-B/16; the code behind the authors' own GeneCIS numbers (the published one loses the condition of
the object tasks, see the prompt `released`).
"""

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crl.backends.pseudo_words import SIGN, PseudoWords
from crl.embed import embed_texts
from similarity_retrieval.mining.scene_graphs import load_spacy
from similarity_retrieval.rivals.config import RivalConfig
from similarity_retrieval.rivals.searle import Phi, adamw

MASKING = 11  # a use of randomness, beside those of train_rival.py
KEYWORDS = {"NOUN", "PROPN", "ADJ", "DET"}  # parts of speech
OTHERS = set(  # for tagger=list: in captions as plain as the demo's all other words are keywords
    "and at by for from has have in into is it near next of on or over that there to under which "
    "while with".split()
)
Tagged = Iterable[tuple[str, bool]]  # the words of a caption, and whether each is a keyword


class LinCIR:
    """Training data and loss. `inputs` (N, D) are what the network is given."""

    supervision, entry, network = "captions", "Phi", Phi
    optimizer = staticmethod(adamw)

    def __init__(
        self, config: RivalConfig, words: PseudoWords, captions: list[str], held: int, folder: Path
    ) -> None:
        self.words, self.device, self.noise_scale = words, words.vlm.device, config.noise_scale
        self.inputs = torch.from_numpy(embed_texts(words.vlm, captions, config.cache, raw=True))
        rng, tag = np.random.default_rng([config.seed, MASKING]), TAGGERS[config.tagger]
        tagged = zip(captions, tag(captions), strict=True)
        self.masked = [mask(text, runs(tags), rng, config.whole_words) for text, tags in tagged]

    def loss(self, network: nn.Module, rows: np.ndarray, rng: np.random.Generator) -> Tensor:
        embedded = self.inputs[rows].to(self.device)  # (B, D), not normalised
        noise = torch.rand(len(rows), 1) * torch.randn(len(rows), embedded.shape[1])
        vectors = network(embedded + self.noise_scale * noise.to(self.device))  # (B, Dt)
        texts = [self.masked[row] for row in rows]
        return F.mse_loss(self.words.encode(texts, vectors, otherwise="a photo of $"), embedded)


def clean(caption: str) -> str:
    return caption.replace("<PERSON>", "person").lower().replace(SIGN, "").strip()


def runs(tagged: Tagged) -> list[str]:
    """Neighbouring keywords, joined.

    >>> runs([("a", True), ("car", True), ("near", False), ("bridges", True)])
    ['a car', 'bridges']
    """
    groups = groupby(tagged, key=lambda pair: pair[1])
    return [" ".join(word for word, _ in group) for keyword, group in groups if keyword]


def mask(caption: str, runs: list[str], rng: np.random.Generator, whole_words: bool = True) -> str:
    """The caption with a `$` for each of its runs. If one is not in it literally, or there are
    none, a random word is replaced and no further run.

    >>> mask("a red car near the old bridge", ["a red car", "the old bridge"], None)
    '$ near $'
    """
    text = caption
    for run in runs or [SIGN]:  # which no caption holds
        form = rf"(?<!\w){re.escape(run)}(?!\w)" if whole_words else re.escape(run)
        if not re.search(form, caption):
            word = re.escape(str(rng.choice(caption.split())) if caption else caption)
            return re.sub(rf"(?<!\S){word}(?!\S)" if whole_words else word, SIGN, text)
        text = re.sub(form, SIGN, text)
    return text


def _by_list(captions: Iterable[str]) -> Iterator[Tagged]:
    for caption in captions:
        words = re.findall(r"\w+|[^\w\s]", caption)
        yield [(word, word.isalnum() and word not in OTHERS) for word in words]


def _by_spacy(captions: Iterable[str]) -> Iterator[Tagged]:
    for doc in load_spacy("tagger=list").pipe(captions, batch_size=256):
        yield [(token.text, token.pos_ in KEYWORDS) for token in doc]


TAGGERS: dict[str, Callable[[Iterable[str]], Iterator[Tagged]]]
TAGGERS = {"list": _by_list, "spacy": _by_spacy}
