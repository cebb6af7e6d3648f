"""Embeddings from a file: what they give, and what is refused."""

import json

import numpy as np
import pytest
import torch
from clothes import ATTRIBUTES, Clothes, bases_of, write_clothes
from PIL import Image

from crl.backends.weights import save_tensors
from fashion_retrieval import embedded, evaluate
from fashion_retrieval.config import EvaluateConfig
from fashion_retrieval.networks import Heads
from fashion_retrieval.trained import Bases


@pytest.fixture
def keys(tmp_path):
    """Keys of evaluate.py for the clothes."""
    keys = write_clothes(tmp_path)
    return {**keys, "bases": bases_of(tmp_path), "cache": str(tmp_path / "cache"), "figures": False}


def words(keys):
    return [f"{key}={json.dumps(value)}" for key, value in keys.items()]


@pytest.fixture
def vlm(monkeypatch):
    vlm = Clothes("clothes-1")
    monkeypatch.setattr(embedded, "load_vlm", lambda *_, **__: vlm)
    return vlm


IMAGES, DIM = 12, 5
ROWS = np.array([[0, 0, 0], [1, 1, 0], [2, 0, 1], [3, 1, 1]])
FURTHER = np.array([4, 0, 0])  # other images


def features(folder, **changes):
    rng = np.random.default_rng(0)
    arrays = {"image": rng.normal(size=(IMAGES, DIM)), "query": ROWS, "candidate": ROWS + FURTHER}
    arrays |= {"text0": rng.normal(size=(4, DIM)), "text1": rng.normal(size=(3, DIM))}
    np.savez(
        folder / "features.npz",
        **{key: value for key, value in {**arrays, **changes}.items() if value is not None},
    )
    return f"features={folder}/features.npz"


def scores(folder):
    """Of each row; the file is removed."""
    file = folder / "out/fashion_retrieval/run/results.json"
    rows = json.loads(file.read_text())["rows"]
    file.unlink()
    return {row["about"]["method"]: pytest.approx(row["scores"], abs=1e-6) for row in rows}


def test_features_give_what_the_vlm_gives(tmp_path, keys, run, vlm):
    """Also with a representation beyond the paper and heads; the lengths do not matter."""
    heads = tmp_path / "authors.safetensors"
    torch.manual_seed(0)
    save_tensors(heads, Heads(2, 6, out=8))
    settings = [f"outputs={tmp_path}/out", f"heads={heads}", "representation=[paper,posterior]"]
    assert run(evaluate.main, *words(keys), *settings)[0] == 0
    expected = scores(tmp_path)
    assert list(expected)[2:] == ["universal", "paper", "posterior", "crl-mlp"]
    split, _ = embedded.embedded(EvaluateConfig(**keys))
    image = vlm.encode_images(torch.stack([vlm.preprocess(Image.open(f)) for f in split.files]))
    texts = Bases.load("Clothes", list(ATTRIBUTES), bases_of(tmp_path), None).by_attribute.values()
    arrays = {f"text{a}": vlm.encode_texts(b.prompts).numpy() for a, b in enumerate(texts)}
    arrays["image"] = image.numpy() * 10.0 ** np.linspace(-9, 9, len(image))[:, None]
    given = features(tmp_path, query=split.query, candidate=split.candidate, **arrays,
                     attributes=np.array(ATTRIBUTES))  # fmt: skip
    code, _, errors = run(evaluate.main, given, *settings)
    assert code == 0, errors
    assert scores(tmp_path) == {m: s.expected for m, s in expected.items()}
    code, out, _ = run(evaluate.main, features(tmp_path), f"outputs={tmp_path}/out")
    assert code == 0 and "attribute 1" in out


BAD_FEATURES = [
    ({"image": None}, "must hold image (N, D), query (Q, 3), candidate (C, 3), text0 (K0, D)"),
    ({"text0": None}, "text0 is missing"),
    ({"query": ROWS + np.array([IMAGES - 1, 0, 0])}, "query, row 1: image 12 is not in 0..11"),
    ({"query": ROWS[::2]}, "query has no row of attribute 1"),
]


@pytest.mark.parametrize(("changes", "says"), BAD_FEATURES)
def test_bad_features(tmp_path, refusal, changes, says):
    outputs = f"outputs={tmp_path}/out"
    assert says in refusal(evaluate.main, features(tmp_path, **changes), outputs)
    assert not (tmp_path / "out").exists()
