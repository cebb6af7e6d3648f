"""Multi-MaP: a word of its own for each image, so that a sentence on a criterion describes it.

Yao, Qian, Hu, Multi-Modal Proxy Learning Towards Personalized Visual Multiple Clustering, CVPR
2024, arXiv 2404.15655; Alexander-Yao/Multi-MaP (no licence). Written from its description; no code
is copied.

The sentence is `objects with color of $`; the token of the `$`, one for each image, is trained over
a frozen VLM. It starts as the embedding of the image's reference word, the most similar one of an
LLM's, and must stay near it and near the criterion's word. The sentences' embeddings are clustered.

Differs: weight decay is for the block's tokens (`decay=all`: for all at every step, as published);
the text tower is complete (`text_tower=released`: without positions and last norm). If embeddings
are not as wide as tokens, or by `start=token`, words are means of token embeddings instead, ours.
The published code ends with the sentences' embeddings; k-means is that of clustering.py. Not found:
words, prompts and settings behind the CRL paper's rows; in the published code, the contrastive term
of the Multi-MaP paper.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classification_clustering.datasets import Labelled
from classification_clustering.rivals.config import RivalConfig
from classification_clustering.rivals.method import Method
from crl.backends.loaded import LoadedVLM
from crl.backends.pseudo_words import SIGN, STAND_INS, PseudoWords
from crl.basis import TextBasis
from crl.embed import embed_images, embed_texts
from crl.run.errors import UserError, nearest
from crl.run.results import digest
from crl.vlm import load_vlm


class MultiMaP(Method):
    """The N tokens and their loss."""

    supervision, form = "an LLM's words, number of clusters", "features"

    @classmethod
    def settings(cls, config: RivalConfig, device: torch.device) -> dict[str, Any]:
        vlm, references = load_vlm(config.vlm, device), digest(reference_words(config))
        return {"vlm": vlm.name, "vlm_fingerprint": vlm.fingerprint, "references": references}

    def __init__(self, config: RivalConfig, data: Labelled, device: torch.device) -> None:
        self.config, self.data = config, data
        self.words = PseudoWords(load_vlm(config.vlm, device))
        vlm = self.words.vlm
        vlm.model.requires_grad_(False)
        self.prompt = prompt_of(config)
        with torch.no_grad():  # checks prompt and tower
            self.sentences(torch.zeros(1, self.words.width, device=device))
        if vlm.cut_off([self.prompt.replace(SIGN, STAND_INS[0])]):
            reads = f"{vlm.name} reads {vlm.context} tokens"
            raise UserError(f"the prompt {self.prompt!r} is cut ({reads}); shorten it")
        images = embed_images(vlm, data.paths, config.cache, workers=config.workers, single=True)
        self.content = images.content
        self.image = torch.from_numpy(np.array(images.image)).to(device)  # (N, D), unit rows
        words = [config.criterion_word or config.criteria[0], *reference_words(config)]
        embedded = torch.from_numpy(embed_texts(vlm, words, config.cache, raw=True)).to(device)
        closest = (self.image @ F.normalize(embedded[1:], dim=1).T).argmax(dim=1)  # (N,)
        if config.start == "token" or vlm.dim != self.words.width:
            embedded = token_means(self.words, words)
        self.criterion, self.reference = embedded[0], embedded[1:][closest]  # (Dt,), (N, Dt)
        self.tokens = nn.Embedding.from_pretrained(self.reference.clone(), freeze=False)
        self.models = {"rival": self.tokens}

    def sentences(self, tokens: Tensor) -> Tensor:
        """Embeddings of the prompt with tokens (B, Dt): (B, D), not normalised."""
        released = self.config.text_tower == "released"
        with released_tower(self.words.vlm) if released else nullcontext():
            return self.words.encode([self.prompt] * len(tokens), tokens)

    def optimizer(self, stage: int) -> torch.optim.Optimizer:
        decay = self.config.weight_decay if self.config.decay == "all" else 0.0
        return torch.optim.Adagrad(self.tokens.parameters(), self.config.lr, weight_decay=decay)

    def batches(self, stage: int, rng: np.random.Generator) -> list[np.ndarray]:
        """Blocks of the same images in every epoch, in another order; the last may be smaller."""
        count, size = len(self.reference), self.config.batch_size
        blocks = np.split(np.arange(count), range(size, count, size))
        return [blocks[place] for place in rng.permutation(len(blocks))]

    def loss(self, rows: Tensor, stage: int) -> Tensor:
        config, tokens = self.config, self.tokens(rows)  # (B, Dt)
        if config.decay == "block":
            tokens.register_hook(lambda grad: grad + config.weight_decay * tokens.detach())
        distances = proxy_loss(
            self.sentences(tokens), self.image[rows], tokens, self.criterion, self.reference[rows]
        )
        return distances @ torch.tensor([1, config.alpha, config.beta], device=distances.device)

    def scores(self, stage: int) -> dict[str, float]:
        """The cosine of sentence and image, from -1 to 1; and how far tokens are from where they
        started, in percent of their lengths there; means over the images."""
        cosine = (self.clusters() * self.image).sum(dim=1).mean()
        moved = (self.tokens.weight - self.reference).norm(dim=1) / self.reference.norm(dim=1)
        return {"cosine": cosine.item(), "movement": 100 * moved.mean().item()}

    def clusters(self) -> Tensor:
        parts = [self.sentences(some) for some in self.tokens.weight.split(256)]
        return F.normalize(torch.cat(parts), dim=1)  # (N, D)


def proxy_loss(
    sentences: Tensor, images: Tensor, tokens: Tensor, criterion: Tensor, reference: Tensor
) -> Tensor:
    """The three terms, before their weights: how far sentences (B, D) are from images (B, D) by
    cosine, and tokens (B, Dt) from the criterion's (Dt,) and their reference words' (B, Dt)."""
    far = (1 - F.cosine_similarity(sentences, images)).mean()
    concept = (tokens - criterion).square().mean()
    return torch.stack([far, concept, F.mse_loss(tokens, reference)])


def prompt_of(config: RivalConfig) -> str:
    return config.prompt.replace("{criterion}", config.criterion_word or config.criteria[0])


def reference_words(config: RivalConfig) -> list[str]:
    """Those of the criterion: a list, the texts of a basis, or the prompt alone. A UserError for
    two criteria."""
    if len(config.criteria) > 1:
        raise UserError("multi_map trains for one criterion; give criteria=... name=... for each")
    criterion = config.criteria[0]
    if config.references and criterion not in config.references:
        hint = nearest(criterion, config.references)
        raise UserError(f"references has no words for {criterion!r}; {hint}")
    words = config.references.get(criterion, f"{config.data}_{criterion}")
    if words == "prompt":  # the published "list" for Cards
        return [prompt_of(config).replace(SIGN, "").strip()]
    return words if isinstance(words, list) else list(TextBasis.load(words).texts)


def token_means(words: PseudoWords, texts: list[str]) -> Tensor:
    """The mean token embedding of each of K texts, without start, end and padding: (K, Dt)."""
    *rows, empty = words.vlm.token_ids([*texts, ""])
    pieces = [ids[~torch.isin(ids, empty)].to(words.vlm.device) for ids in rows]
    with torch.no_grad():
        return torch.stack([words.embedding(ids).mean(dim=0) for ids in pieces])


@contextmanager
def released_tower(vlm: LoadedVLM) -> Iterator[None]:
    """In this block open_clip's text tower is that of the published code: it adds no positions, and
    has no last norm. A UserError for a tower of another kind."""
    tower: Any = getattr(vlm.model, "text", vlm.model)
    parts = [getattr(tower, p, None) for p in ("positional_embedding", "transformer", "ln_final")]
    if None in parts:
        raise UserError(f"{vlm.name} has no text tower of open_clip, which text_tower=released "
                        "needs; use text_tower=clip")  # fmt: skip
    positions, transformer, norm = parts

    def take_off(module: nn.Module, inputs: tuple) -> tuple:
        x, *others = inputs  # (B, L, Dt), with positions
        return (x - positions[: x.shape[1]].to(x.dtype), *others)

    hooks = [transformer.register_forward_pre_hook(take_off)]
    hooks.append(norm.register_forward_hook(lambda module, inputs, output: inputs[0]))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
