"""evaluate.py from end to end: what it measures, saves and draws."""

import copy
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from clothes import ATTRIBUTES, TEXTS, Clothes, bases_of, write_clothes, write_training
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.metrics import average_precision_score

from crl.backends.weights import save_tensors
from crl.basis import TextBasis
from crl.projection import l2
from crl.representations import names, supervisions
from fashion_retrieval import embedded, evaluate, trained
from fashion_retrieval.networks import Heads
from fashion_retrieval.trained import Bases

IMAGES = 59  # that queries or candidates name
VALUES = [4, 4]


@pytest.fixture
def root(tmp_path):
    """The clothes in another order; their last image has no row, and one value no candidate."""
    write_clothes(tmp_path)
    for kind in ("query", "candidate"):
        kept = [row for row in table(tmp_path, kind).tolist() if row[0] < IMAGES]
        kept = [row for row in kept if kind == "query" or row[1:] != [1, 2]]
        write_table(tmp_path, kind, np.random.default_rng(0).permutation(kept))
    return tmp_path


def table(root, kind):
    return np.loadtxt(root / f"{kind}_test.txt", dtype=int)


def write_table(root, kind, rows):
    np.savetxt(root / f"{kind}_test.txt", rows, "%d")


@pytest.fixture
def vlms(monkeypatch):
    """Every VLM name loads one that sees clothes; gives those that were loaded, by name."""
    loaded = {}

    def load(name, device, precision, from_file):
        assert from_file == (name != "clip-b16")
        loaded[name] = Clothes(fingerprint=f"clothes-{name}")
        return loaded[name]

    monkeypatch.setattr(embedded, "load_vlm", load)
    monkeypatch.setattr(trained, "find_vlm", lambda name, from_file: name)
    return loaded


def some_heads(seed=0):
    torch.manual_seed(seed)
    return Heads(2, min(TEXTS), out=32).eval()


def write_stage(folder, root, seed=0, **record):
    """What train_mlp.py leaves (or train_backbone.py, with method="crl"); -> its heads."""
    bases, heads = Bases.load("Clothes", list(ATTRIBUTES), bases_of(root), None), some_heads(seed)
    folder.mkdir()
    write_training(folder, heads, bases, **{"vlm_fingerprint": "clothes-clip-b16", **record})
    return heads


@pytest.fixture
def start(output, root):
    """What evaluate.py prints, on embeddings made elsewhere or on `root`."""

    def start(*words, **settings):
        outputs = {"outputs": root / "out"}
        if "features" not in settings:
            outputs |= {"root": root, "dataset": "Clothes", "cache": root / "cache"}
            outputs |= {"bases": bases_of(root)}
        return output(evaluate.main, *words, **{**outputs, **settings})

    return start


def results(root):
    return root / "out/fashion_retrieval/run/results.json"


def rows(root):
    """{method: its row}."""
    every = json.loads(results(root).read_text())["rows"]
    assert len({row["about"]["method"] for row in every}) == len(every)
    return {row["about"]["method"]: row for row in every}


def embeddings(root):
    """I (N, D), and T (K_a, D) per attribute, not normalised."""
    vlm, names = Clothes(), (root / "filenames_test.txt").read_text().split()
    pixels = [vlm.preprocess(Image.open(root / name)) for name in names[:IMAGES]]
    bases = [TextBasis.load(file) for file in bases_of(root).values()]
    texts = [vlm.encode_texts(basis.prompts).numpy() for basis in bases]
    return vlm.encode_images(torch.stack(pixels)).numpy(), texts


def conditional(root, attribute, heads=None):
    """R (N, K) of all images for one attribute, or (N, out) through its head, in float64."""
    image, texts = embeddings(root)
    text = l2(texts[attribute].astype(float))
    if len(text) > min(TEXTS):
        text = PCA(n_components=min(TEXTS), svd_solver="full").fit_transform(text.T).T
    x = l2(l2(image.astype(float)) @ text.T)
    if heads is None:
        return x
    heads = copy.deepcopy(heads).double()
    return heads(torch.from_numpy(x), torch.full((IMAGES,), attribute)).detach().numpy()


def slow_scores(root, represented):
    """The protocol, one query at a time; `represented`: (N, W) per attribute, unit rows."""
    query, candidate = table(root, "query"), table(root, "candidate")
    precision = []
    for index, attribute, value in query:
        others = candidate[candidate[:, 1] == attribute]
        similarity = represented[attribute][others[:, 0]] @ represented[attribute][index]
        relevant = others[:, 2] == value
        precision.append(average_precision_score(relevant, similarity) if relevant.any() else 0)
    precision = 100 * np.array(precision)
    scores = {a: precision[query[:, 1] == n].mean() for n, a in enumerate(ATTRIBUTES)}
    return {**scores, "overall": precision.mean(), "mean": np.mean(list(scores.values()))}


def test_the_protocol_and_a_second_run(root, vlms, start, monkeypatch):
    one, two = (root / name for name in ("mlp", "backbone"))
    heads = [None, write_stage(one, root), write_stage(two, root, seed=1, method="crl")]
    out = start(f"trained=[{one}, {two}]")
    results_of = rows(root)
    expected = {"universal": [l2(embeddings(root)[0].astype(float))] * 2}
    for method, head in zip(("paper", "crl-mlp", "crl"), heads, strict=True):
        expected[method] = [conditional(root, a, head) for a in range(2)]
    assert list(results_of) == ["random", "random draw", *expected]
    folder, digests = root.name, set()
    none = (table(root, "query")[:, 1:] == [1, 2]).all(axis=1).sum()
    for method, represented in expected.items():
        row, about = results_of[method], results_of[method]["about"]
        assert row["scores"] == pytest.approx(slow_scores(root, represented), abs=1e-3), method
        basis = (about["basis"], about.get("texts"))
        assert basis == (("-", None) if method == "universal" else (f"{folder}/*", min(TEXTS)))
        assert (row["values"], row["images"], row["without_relevant"]) == (VALUES, IMAGES, none)
        digests.add(about["content"])
    assert len(digests) == 1 and none > 0
    assert results_of["crl"]["about"]["vlm_fingerprint"] == f"clothes-{two}/vlm"
    says = f"note: Clothes: {none} of 40 queries have no relevant candidate"
    assert out.count(says) == 1 and out.count(f"{folder}/* (6)") == 3
    assert vlms["clip-b16"].images == IMAGES  # each once, and not the one that nothing names
    assert len(list(results(root).parent.glob("top-5-*.png"))) == 3

    before = results(root).read_bytes()
    monkeypatch.setattr(evaluate, "mean_scores", None)  # a second run measures and draws nothing
    monkeypatch.setattr(evaluate, "draw", None)
    assert start(f"trained=[{one}, {two}]") == out
    assert results(root).read_bytes() == before


def test_trained_brings_its_own_vlm_and_bases(root, vlms, start):
    folder = root / "mlp"
    expected = write_stage(folder, root, vlm="other", vlm_fingerprint="clothes-other")
    scores = slow_scores(root, [conditional(root, a, expected) for a in range(2)])
    for file in bases_of(root).values():  # are not read again
        Path(file).unlink()
    bases = {"texture": "deepfashion_texture", "shape": "deepfashion_shape"}
    start(f"trained={folder}", "texts=3", "figures=false", bases=bases)
    paper, row = rows(root)["paper"]["about"], rows(root)["crl-mlp"]
    assert (paper["basis"], paper["texts"]) == ("deepfashion_*", 3)
    assert (row["about"]["vlm"], row["about"]["texts"]) == ("other", min(TEXTS))
    assert row["scores"] == pytest.approx(scores, abs=1e-3)


def test_features_give_what_the_vlm_gives(root, vlms, start):
    """Also with a representation beyond the paper and heads; the lengths do not matter."""
    save_tensors(root / "heads.safetensors", some_heads())
    start = partial(start, heads=root / "heads.safetensors", representation="[paper,posterior]")
    start("figures=no")
    expected = {method: row["scores"] for method, row in rows(root).items()}
    assert list(expected)[2:] == ["universal", "paper", "posterior", "crl-mlp"]
    results(root).unlink()
    image, texts = embeddings(root)
    arrays = {"image": image * 10.0 ** np.linspace(-9, 9, IMAGES)[:, None]}
    arrays |= {f"text{a}": text for a, text in enumerate(texts)}
    arrays |= {kind: table(root, kind) for kind in ("query", "candidate")}
    np.savez(root / "features.npz", attributes=np.array(ATTRIBUTES), **arrays)
    start(features=root / "features.npz")
    for method, row in rows(root).items():
        assert row["scores"] == pytest.approx(expected[method], abs=1e-6), method


# --- beyond the paper -----------------------------------------------------------------------------


def beyond(root, attribute, sharpness):
    """R and R' (N, K_a) of the basis as it is, one image and text at a time."""
    image, texts = embeddings(root)
    text = l2(texts[attribute].astype(float))
    r = np.array([[x @ t for t in text] for x in l2(image.astype(float))])
    sigma = np.mean([np.std(row) for row in r])
    return l2(r), l2(np.sqrt([np.exp(sharpness * row / sigma) for row in r]))


def test_every_name_without_labels_works(root, vlms, start, refusal):
    TextBasis.of(["dim", "pale", "dark"], "light").save(root / "light.yaml")
    possible = [name for name in names() if "labels" not in supervisions(name)]
    start(f"representation=[{','.join(possible)}]", f"null_space={root}/light.yaml")
    assert all(rows(root)[f"{name}, null space of 1"]["scores"] for name in possible)
    wrong = "representation: lda learns from labels, and this task has none to learn from"
    assert wrong in refusal(evaluate.main, "root=nowhere", "representation=lda")


def test_a_row_for_each_representation(root, vlms, start):
    start("representation=[paper,posterior,paper+posterior]", "sharpness=2")
    both = [np.hstack(beyond(root, a, 2)) / np.sqrt(2) for a in range(2)]
    expected = {
        "paper": [conditional(root, a) for a in range(2)],
        "posterior (2)": [beyond(root, a, 2)[1] for a in range(2)],
        "paper+posterior (2)": both,
    }
    first = rows(root)
    for name, represented in expected.items():
        scores = slow_scores(root, represented)
        assert first[name]["scores"] == pytest.approx(scores, abs=1e-3), name
    start("representation=posterior", "figures=no")  # another sharpness replaces none
    again = rows(root)
    assert set(again) == {*first, "posterior"} and all(again[name] == first[name] for name in first)
