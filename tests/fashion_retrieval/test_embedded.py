"""What evaluate.py refuses, in one line, and before a model is loaded; embeddings from a file."""

import json
import shutil

import numpy as np
import pytest
import torch
from clothes import ATTRIBUTES, Clothes, bases_of, write_clothes, write_training
from PIL import Image

from fashion_retrieval import embedded, evaluate
from fashion_retrieval.config import EvaluateConfig
from fashion_retrieval.networks import Heads
from fashion_retrieval.trained import Bases


@pytest.fixture
def keys(tmp_path):
    """Keys of evaluate.py for the clothes, whose training folder is mlp/."""
    keys = write_clothes(tmp_path)
    write_stage(tmp_path / "mlp", tmp_path, method="crl-mlp")
    return {**keys, "bases": bases_of(tmp_path), "cache": str(tmp_path / "cache"), "figures": False}


def write_stage(folder, root, width=6, **record):
    torch.manual_seed(0)
    bases = Bases.load("Clothes", list(ATTRIBUTES), bases_of(root), None)
    record = {"vlm_fingerprint": "clothes-1", **record}
    write_training(folder, Heads(2, width, out=8), bases, **record)
    (folder / "vlm").mkdir()


def words(keys):
    return [f"{key}={json.dumps(value)}" for key, value in keys.items()]


@pytest.fixture
def nothing_loaded(monkeypatch):
    monkeypatch.setattr(embedded, "load_vlm", lambda *_, **__: pytest.fail("a VLM was loaded"))


def edit(name, text):
    return lambda root: (root / name).write_text(text)


def stage(name, **changes):
    return lambda root: write_stage(root / name, root, **changes)


BAD_RUNS = [  # what is done to the folder, overrides, what the one line says
    (edit("mlp/results.json", "{}"), ["trained=ROOT/mlp"], "it has no results.json of theirs"),
    (stage("a", weights="b.pt"), ["trained=ROOT/a"], "a has no b.pt; train to the first valid"),
    (
        stage("a", attributes=["hue"]),
        ["trained=[ROOT/mlp, ROOT/a]"],
        "a was trained on the attributes hue, the data has texture, shape; use a training on this",
    ),
    (stage("a", width=5), ["trained=ROOT/a"], "do not fit heads of 2 attributes over 6 texts"),
    (lambda root: (root / "img/150.png").unlink(), [], "1 of 60 images are missing"),
]


@pytest.mark.parametrize(("damage", "overrides", "says"), BAD_RUNS)
def test_bad_input_is_seen_before_a_model_is_loaded(
    tmp_path, keys, refusal, nothing_loaded, damage, overrides, says
):
    if damage:
        damage(tmp_path)
    overrides = [override.replace("ROOT", str(tmp_path)) for override in overrides]
    assert says.replace("ROOT", str(tmp_path)) in refusal(evaluate.main, *words(keys), *overrides)
    assert not (tmp_path / "outputs").exists()


@pytest.fixture
def vlm(monkeypatch):
    vlm = Clothes("clothes-1")
    monkeypatch.setattr(embedded, "load_vlm", lambda *_, **__: vlm)
    return vlm


def test_a_vlm_that_has_changed_since(tmp_path, keys, refusal, vlm):
    vlm.fingerprint = "clothes-2"
    said = refusal(evaluate.main, *words(keys), f"trained=[{tmp_path / 'mlp'}]")
    assert (
        "mlp was trained on another VLM than 'clip-b16' is now (clothes-1, not clothes-2)" in said
    )
    assert vlm.images == 0 and not (tmp_path / "outputs").exists()


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
    shutil.copy(tmp_path / "mlp/heads.safetensors", heads)
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
