"""The trained rivals of an evaluation: from a folder or a published file to GeneCIS's queries."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel
from torch import nn

from crl.backends.hub import explained
from crl.backends.pseudo_words import SIGN, STAND_INS, PseudoWords
from crl.backends.weights import load_tensors, weights_digest
from crl.run.errors import UserError
from crl.run.training import read_record
from similarity_retrieval.datasets import Templates
from similarity_retrieval.method import Features, query_scores
from similarity_retrieval.rivals import METHODS
from similarity_retrieval.rivals.config import PROMPTS, Prompt

BATCH = 256  # queries at a time


class RivalTraining(BaseModel):
    """What is needed of the results.json of train_rival.py."""

    method: Literal["lincir", "pic2word", "searle"]
    vlm_fingerprint: str
    precision: Literal["fp32", "bf16"]


@dataclass(frozen=True)
class Rival:
    """A trained network with one prompt: a row of the table."""

    network: nn.Module
    words: PseudoWords
    prompt: str
    about: dict[str, Any]  # what its row says of itself

    def scores(self, features: Features, templates: Templates, conditions: list[str]) -> np.ndarray:
        """Cosine similarity of each template's candidates to its query: (B, G). Each pair of a
        reference and a condition is encoded once."""
        pairs, row = templates.pairs
        references = features.image[pairs[:, 0]]  # (P, D), not normalised
        queries = self.queries(references, [conditions[c] for c in pairs[:, 1]])
        return query_scores(features, templates, queries[row])

    @torch.inference_mode()
    def queries(self, images: np.ndarray, conditions: list[str]) -> np.ndarray:
        """The prompt with the word of each of P images (P, D) and its condition: (P, D), of any
        length."""
        vlm, parts = self.words.vlm, []
        for some in np.array_split(np.arange(len(images)), len(images) // BATCH + 1):
            vectors = self.network(torch.from_numpy(images[some]).to(vlm.device))  # (b, Dt)
            texts = [self.prompt.replace("{condition}", conditions[p]) for p in some]
            if cut := vlm.cut_off([text.replace(SIGN, STAND_INS[0]) for text in texts]):
                reads = f"{vlm.name} reads {vlm.context} tokens, and a rival's prompt"
                raise UserError(f"{reads} is cut: {cut[0]!r}; choose other rival_prompts")
            parts.append(self.words.encode(texts, vectors, count=1).cpu().numpy())
        return np.concatenate(parts)


def read_rival(entry: str) -> tuple[str, Path, RivalTraining | None]:
    """`folder` of train_rival.py, or `method:file` with published weights -> method, file of the
    weights, and the training if it is one of ours."""
    method, _, file = entry.partition(":")
    if method in METHODS and file:
        return method, Path(file), None
    advice = f"; give a folder, or {'|'.join(METHODS)}:FILE of published weights"
    training = read_record(Path(entry), RivalTraining, "train_rival.py", advice)
    return training.method, Path(entry) / "rival.safetensors", training


def load_network(method: str, file: Path, dim: int, width: int) -> nn.Module:
    """A rival's network for embeddings of width `dim` and tokens of `width`, in eval mode, on the
    CPU, in float32: from train_rival.py, or a published file, with the network in an entry of it.
    A UserError if it is none, or of other widths."""
    kind = METHODS[method]
    state = {key: tensor.float() for key, tensor in load_tensors(file, kind.entry).items()}
    with torch.device("meta"):  # shapes only: the weights come from the file
        network: nn.Module = kind.network(dim, width)
    source = f"{method} for embeddings of width {dim} and tokens of width {width}: {file}"
    with explained(source, remote=False):
        network.load_state_dict(state, assign=True)
    return network.eval()


def load_rivals(entry: str, words: PseudoWords, prompts: list[Prompt]) -> dict[str, Rival]:
    """{method as tables show it: rival}: those of one entry of `rivals`, a row for each prompt."""
    (method, file, _), vlm = read_rival(entry), words.vlm
    network = load_network(method, file, vlm.dim, words.width).to(vlm.device)
    about: dict[str, Any] = {"basis": "-", "rival": weights_digest(network)}
    about["supervision"] = METHODS[method].supervision
    about["parameters"] = sum(p.numel() for p in network.parameters())
    rows = {f"{method}, {name}": PROMPTS[name] for name in prompts}
    return {row: Rival(network, words, p, {**about, "prompt": p}) for row, p in rows.items()}
