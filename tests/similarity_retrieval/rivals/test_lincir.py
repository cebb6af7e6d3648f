"""LinCIR: keywords, masks and the loss, against RIVALS' cases worked by hand."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mining_files import Doc
from torch import nn

from similarity_retrieval.rivals import lincir
from similarity_retrieval.rivals.config import RivalConfig
from similarity_retrieval.rivals.lincir import LinCIR, clean, mask, runs


def by_list(caption):
    return runs(next(iter(lincir._by_list([caption]))))


@pytest.mark.parametrize(
    ("caption", "whole_words", "keywords", "masked"),
    [
        (
            "a red car near the old bridge", True, ["a red car", "the old bridge"], "$ near $"
        ),
        ("all of a wall", False, ["all", "a wall"], "$ of a w$"),
        ("all of a wall", True, ["all", "a wall"], "$ of $"),
        ("a dog, a cat", True, ["a dog", "a cat"], "$, $"),
        ("a a, a", True, ["a a", "a"], "$, $"),
    ],
)  # fmt: skip
def test_keywords_and_masks(caption, whole_words, keywords, masked):
    assert by_list(caption) == keywords
    assert mask(caption, keywords, None, whole_words) == masked


def test_without_a_literal_keyword_a_random_word_is_replaced_and_no_more():
    rng = np.random.default_rng(0)
    # `t shirt` was joined from `t-shirt`; `dog` comes after it
    seen = {mask("a t-shirt on a dog", ["t shirt", "dog"], rng) for _ in range(60)}
    assert seen == {"$ t-shirt on $ dog", "a $ on a dog", "a t-shirt $ a dog", "a t-shirt on a $"}
    assert {mask("with on", [], rng) for _ in range(20)} == {"$ on", "with $"}
    assert mask("", [], rng) == "$"
    assert mask("an ant", [], np.random.default_rng(1), whole_words=False) in ("$ $t", "an $")


def test_clean():
    assert clean("  <PERSON> pays 5$ ") == "person pays 5"


def test_parts_of_speech_by_spacy(monkeypatch):
    doc = Doc("A/DET/det/1 Dog/NOUN/ROOT/1 on/ADP/prep/1 big/ADJ/amod/4 Tim/PROPN/pobj/2")
    pipe = SimpleNamespace(pipe=lambda texts, batch_size: [doc])
    monkeypatch.setattr(lincir, "load_spacy", lambda instead: pipe)
    assert [runs(tagged) for tagged in lincir._by_spacy(["x"])] == [["A Dog", "big Tim"]]


class Given(nn.Module):
    """Remembers what it is given."""

    def forward(self, x):
        self.x = x
        return x


def test_the_loss_and_the_noise(keys, words):
    data = LinCIR(RivalConfig(**keys, noise_scale=0), words, ["a cat of red"] * 4, 2, None)
    assert data.masked == ["$ of $"] * 4  # `red` too
    data.inputs = torch.tensor([[1.0, 0], [0, 2], [1, 1], [2, 2]])
    told = []

    def encode(texts, vectors, otherwise):
        told.append((texts, otherwise))
        return torch.tensor([[0.5, 0.5], [0, 1.0]])

    data.words = SimpleNamespace(encode=encode)
    network = Given()
    assert data.loss(network, np.array([0, 1]), None).item() == pytest.approx(0.375)
    assert told == [(["$ of $"] * 2, "a photo of $")]
    assert torch.equal(network.x, data.inputs[:2])
    data.noise_scale = 3
    torch.manual_seed(5)
    data.loss(network, np.array([0, 1]), None)
    torch.manual_seed(5)
    u, n = torch.rand(2, 1), torch.randn(2, 2)
    assert torch.allclose(network.x, data.inputs[:2] + 3 * u * n)


def test_the_text_is_not_normalised(keys, words):
    data = LinCIR(RivalConfig(**keys), words, ["a cat of red"], 0, None)
    assert torch.allclose(data.inputs, words.vlm.encode_texts(["a cat of red"]), atol=1e-6)
