"""SEARLE: losses, sentences and concepts, against RIVALS' numbers and slow versions."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from crl.run.errors import UserError
from similarity_retrieval.rivals.config import RivalConfig
from similarity_retrieval.rivals.searle import (
    SEARLE,
    TEMPLATES,
    Phi,
    Sentences,
    averaged,
    distillation,
    far,
)


def test_distillation_excludes_only_the_vector_itself():
    inverted, predicted = torch.eye(2), torch.tensor([[0.6, 0.8], [-0.6, 0.8]])
    assert distillation(inverted, predicted).item() == pytest.approx(0.545616, abs=1e-6)
    z = F.normalize(torch.randn(6, 5, dtype=torch.double), dim=1)
    terms = []
    for i in range(6):
        others = torch.stack([torch.exp(z[i] @ z[k] / 0.25) for k in range(6) if k != i])
        terms.append(-torch.log(torch.exp(z[i] @ z[(i + 3) % 6] / 0.25) / others.sum()))
    expected = torch.stack(terms).mean().item()
    assert distillation(2 * z[:3], 9 * z[3:]).item() == pytest.approx(expected)


def test_the_average():
    average = torch.tensor(1.0, dtype=torch.double)
    for value in (0.9, 0.8, 0.7, 0.6, 0.5):
        average = averaged(average, torch.tensor(value))
    assert average.item() == pytest.approx(0.985199, abs=1e-6)


def test_templates():
    assert len(set(TEMPLATES)) == 24 and all(text.count("$") == 1 for text in TEMPLATES)


@pytest.mark.parametrize(
    ("sizes", "count"), [((512, 512), 6_296_064), ((768, 768), 14_162_688), ((128, 128), 394_368)]
)
def test_the_network(sizes, count):
    network = Phi(*sizes)
    assert sum(p.numel() for p in network.parameters()) == count
    places = [f"layers.{i}.{kind}" for i in (0, 3, 6) for kind in ("weight", "bias")]
    assert list(network.state_dict()) == places


@pytest.fixture
def sentences(keys, words, tmp_path):
    """Two concepts with sentences of a file; a third one's sentence lacks it."""
    lines = [("cat", "a cat of cat"), ("cat", "the cat"), ("red", "a red$ photo"), ("sky", "blue")]
    with open(tmp_path / "sentences.jsonl", "w") as file:
        for concept, sentence in lines:
            file.write(json.dumps({"concept": concept, "sentence": sentence}) + "\n")
    config = RivalConfig(**{**keys, "nearest": [1, 2], "sentences": file.name})
    with pytest.warns(UserWarning, match="1 of 3 concepts are left out, since one of their"):
        return Sentences(config, words, np.random.default_rng(0).standard_normal((7, 16)))


def test_the_concepts_of_an_image(sentences, words):
    images = np.random.default_rng(0).standard_normal((7, 16))
    prototypes = []
    for concept in ("cat", "red"):
        rows = words.vlm.encode_texts([t.replace("$", concept) for t in TEMPLATES]).numpy()
        mean = sum(row / np.linalg.norm(row) for row in rows) / 24
        prototypes.append(mean / np.linalg.norm(mean))
    for image, near in zip(images, sentences.near, strict=True):
        scores = [image @ prototype for prototype in prototypes]
        assert near.tolist() == sorted(range(2), key=lambda c: -scores[c])
    assert sentences.concepts == ["cat", "red"]


class Draws:
    """In place of a generator: the numbers that are drawn."""

    def __init__(self, *numbers):
        self.numbers = list(numbers)

    def integers(self, high, size=None):
        return np.array(self.numbers.pop(0)) if size else self.numbers.pop(0)


def test_a_vector_takes_the_place_of_a_concept(sentences, words):
    rows, vectors = np.array([3, 5]), torch.randn(2, 32)
    places = [[*sentences.near[row]].index(concept) for row, concept in ((3, 0), (5, 1))]
    for number, plain, replaced, masked in (  # of the sentence about a cat
        (0, "a cat of cat", 1, "a $ of cat"),
        (0, "a cat of cat", -1, "a $ of $"),
        (1, "the cat", -1, "the $"),
    ):
        with torch.no_grad():
            encoded = words.encode([masked, "a $ photo"], vectors, count=1)
            expected = far(encoded, words.vlm.encode_texts([plain, "a red photo"]))
            loss = sentences.loss(rows, vectors, 2, Draws(places, number, 0), replaced)
        assert loss.item() == pytest.approx(expected.item(), abs=1e-6)


def test_inversion_finds_vectors_whose_sentences_resemble_the_images(keys, words, tmp_path):
    images = sorted((tmp_path / "images").iterdir())[:12]
    likeness = []
    for steps in (1, 60):
        config = RivalConfig(**{**keys, "inversion_steps": steps, "inversion_lr": 0.1})
        data = SEARLE(config, words, images, 4, tmp_path / str(steps))
        assert data.inverted.shape == (8, 32)
        with torch.no_grad():
            text = words.encode(["a photo of a $"] * 8, data.inverted)
        likeness.append(1 - far(text, data.inputs[4:]).item())
    assert likeness[1] > likeness[0] + 0.1


@pytest.mark.parametrize("given", [{"concepts": []}, {"sentences": "lacking"}])
def test_no_sentences(keys, words, tmp_path, given):
    if "sentences" in given:
        file = tmp_path / "lacking.jsonl"
        file.write_text(json.dumps({"concept": "sky", "sentence": "blue"}))
        given = {"sentences": file}
    with pytest.raises(UserError, match=r"needs concepts=.*, or sentences=FILE that hold them"):
        Sentences(RivalConfig(**{**keys, **given}), words, np.ones((2, 16)))
