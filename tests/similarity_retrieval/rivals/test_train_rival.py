"""Training the rivals: they learn; killed and resumed against undisturbed; what is refused."""

import re
import sys

import pytest
import torch
from disturbed import finished, interrupted
from PIL import Image
from safetensors.torch import load_file

from crl.run.errors import UserError
from similarity_retrieval import train_rival
from similarity_retrieval.rivals import METHODS, searle
from similarity_retrieval.rivals.config import RivalConfig
from similarity_retrieval.rivals.queries import load_network
from similarity_retrieval.train_rival import RivalTrainer


def train(keys, **more):
    return finished(RivalTrainer(RivalConfig(**{**keys, **more}), "cpu"))


def equal(one, other):
    one, other = (load_file(folder / "rival.safetensors") for folder in (one, other))
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("method", METHODS)
def test_it_learns_and_its_score_is_that_of_a_loop(keys, words, method):
    folder, results = train(keys, method=method, epochs=8, lr=3e-3, validate_every=4)
    assert results["losses"][-1] < 0.9 * results["losses"][0]
    best, held = results["best"], results["items"]["held_out"]
    assert best["candidates"] == held == {"lincir": 8}.get(method, 6)
    data = RivalTrainer(RivalConfig(**keys, method=method), "cpu")
    network = load_network(method, folder / "rival.safetensors", 16, 32)
    if method == "lincir":
        inputs = words.vlm.encode_texts(data.items[:held])
    else:
        pixels = [words.vlm.preprocess(Image.open(file)) for file in data.items[:held]]
        inputs = words.vlm.encode_images(torch.stack(pixels))
    hits = 0
    with torch.no_grad():
        for number, row in enumerate(inputs):
            query = words.encode(["a photo of $"], network(row[None]))
            hits += int(torch.cosine_similarity(query, inputs).argmax()) == number
    assert best["recall@1"] == pytest.approx(100 * hits / held)
    assert results["parameters"] == sum(p.numel() for p in network.parameters())
    assert results["mean_length"] > 0 and results["method"] == method
    before = words.vlm.fingerprint
    assert results["vlm_fingerprint"] == before


@pytest.mark.parametrize("method", METHODS)
def test_seed_decides_and_interruptions_do_not(keys, method):
    keys |= {"method": method, "checkpoint_every": 2}
    with interrupted(METHODS[method], "loss", 5):  # in the second epoch
        train(keys, name="parts")
    folder, parts = train(keys, name="parts")
    whole_folder, whole = train(keys, name="whole")
    assert parts["losses"] == whole["losses"] and len(whole["losses"]) == 3
    assert parts["validation"] == whole["validation"] and equal(folder, whole_folder)
    assert train(keys, name="other", seed=1, epochs=1)[1]["losses"][0] != whole["losses"][0]


def test_a_killed_inversion_goes_on_with_the_next_images(keys):
    keys |= {"method": "searle", "epochs": 1, "inversion_batch": 5}
    whole, _ = train(keys, name="whole")
    with interrupted(searle, "averaged", 6):  # two steps for each of five batches
        train(keys, name="parts")
    done = {file: file.stat().st_mtime_ns for file in keys["outputs"].glob("*/parts/*/*.npz")}
    assert len(done) == 2
    parts, _ = train(keys, name="parts")
    assert equal(parts, whole)
    assert {file: file.stat().st_mtime_ns for file in done} == done


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"batch_size": 60}, r"32 captions to train on \(and 8 held out\) do not fill a batch of"),
        ({"method": "searle", "limit": 2}, r"0 images to train on \(and 2 held out\) do not fill"),
        ({"method": "searle", "concepts": []}, r"needs concepts=\[...\], or sentences=FILE"),
        ({"concepts": "['cat', ' ']"}, "concepts.1: String should have at least 1 character"),
        ({"nearest": [0, 3]}, "nearest.0: must be above 0, not 0"),
        ({"captions": "no.csv"}, "no.csv names no file"),
        ({"tagger": "spacy"}, "or give tagger=list"),
    ],
)
def test_what_cannot_be_trained_is_refused_and_leaves_nothing(
    keys, refusal, monkeypatch, more, message
):
    monkeypatch.setitem(sys.modules, "spacy", None)
    settings = {**keys, "concepts": "[cat]", **more}
    line = refusal(train_rival.main, **settings)
    assert re.search(message, line), line
    assert not list(keys["outputs"].glob("*/*/*"))


def test_another_training_in_the_folder(keys):
    train(keys, epochs=1)
    for changed in ({"lr": 0.5}, {"limit": 39}, {"method": "pic2word"}):
        with pytest.raises(UserError, match="run holds another training"):
            train(keys, **{"epochs": 1, **changed})
