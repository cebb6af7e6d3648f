"""evaluate.py from end to end: what it measures, saves and draws."""

import copy
import json

import numpy as np
import pytest
import torch
from clothes import write_training
from sklearn.decomposition import PCA
from toy_vlm import ToyVLM, direct, make_images

from crl.basis import TextBasis
from crl.projection import l2
from fashion_retrieval import embedded, evaluate, trained
from fashion_retrieval.networks import Heads
from fashion_retrieval.trained import Bases

ATTRIBUTES, VALUES, TEXTS = ["texture", "style"], [3, 5], [4, 7]
IMAGES = 40


@pytest.fixture
def root(tmp_path):
    """A test split in ASEN's format with its images, and two text bases."""
    rng = np.random.default_rng(0)
    root = tmp_path / "fashion"
    files = make_images(root / "img", IMAGES)
    names = [f"img/{file.name}" for file in files]
    (root / "filenames_test.txt").write_text("\n".join(names))
    meta = {"ATTRIBUTES": [f"{a}-related" for a in ATTRIBUTES], "ATTRIBUTES_NUM": VALUES}
    (root / "meta.json").write_text(json.dumps({"DeepFashion": meta}))
    for kind, images in (("query", range(30, 39)), ("candidate", range(30))):  # 39: not named
        rows = [(i, a, rng.integers(VALUES[a])) for i in images for a in range(2)]
        if kind == "candidate":
            rows = [row for row in rows if row[1:] != (1, 2)]  # none relevant for this value
        else:
            rows += [(30, 1, 2), (31, 1, 0)]
        rows = rng.permutation(np.array(rows))
        (root / f"{kind}_test.txt").write_text("\n".join(" ".join(map(str, r)) for r in rows))
    for attribute, count in zip(ATTRIBUTES, TEXTS, strict=True):
        basis = TextBasis(
            criterion=attribute,
            vlm_prompt=f"a {attribute} of {{text}}",
            texts=[f"{attribute} {n}" for n in range(count)],
        )
        basis.save(tmp_path / f"{attribute}.yaml")
    return root


@pytest.fixture
def toy(monkeypatch):
    """Every VLM name loads a toy; gives those that were loaded, by name."""
    loaded = {}

    def load(name, device, precision, from_file):
        assert from_file == (name != "clip-b16")
        loaded[name] = ToyVLM(fingerprint=f"toy-{name}", queries=2 if name == "many" else None)
        return loaded[name]

    monkeypatch.setattr(embedded, "load_vlm", load)
    monkeypatch.setattr(trained, "find_vlm", lambda name, from_file: name)
    return loaded


def bases_of(root):
    return {a: f"{root.parent}/{a}.yaml" for a in ATTRIBUTES}


def some_heads(root, seed):
    torch.manual_seed(seed)
    heads = Heads(2, min(TEXTS), out=32)
    for attribute, head in enumerate(heads.projection_heads):
        x = torch.from_numpy(conditional(root, attribute)).float()
        z = head.fc[0](x).detach()  # toy images are much alike: tell them apart
        head.fc[1].running_mean, head.fc[1].running_var = z.mean(0), z.var(0)
    return heads.eval()


def write_stage(folder, root, seed=0, **record):
    """What train_mlp.py leaves (or train_backbone.py, with method="crl"); -> its heads."""
    bases = Bases.load("DeepFashion", ATTRIBUTES, bases_of(root), None)
    heads = some_heads(root, seed)
    write_training(folder, heads, bases, **{"vlm_fingerprint": "toy-clip-b16", **record})
    return heads


@pytest.fixture
def start(run, root):
    """Runs evaluate.py on `root`; gives the output of a run that went well."""

    def start(*overrides):
        code, out, errors = run(evaluate.main, *arguments(root), *overrides)
        assert code == 0, errors
        return out

    return start


def arguments(root):
    bases = f"bases={json.dumps(bases_of(root))}"
    return [f"root={root}", f"outputs={root.parent}/out", f"cache={root.parent}/cache", bases]


def results(root):
    return root.parent / "out/fashion_retrieval/run/results.json"


def rows(root):
    """{method: its row}."""
    every = json.loads(results(root).read_text())["rows"]
    assert len({row["about"]["method"] for row in every}) == len(every)
    return {row["about"]["method"]: row for row in every}


def table(root, kind):
    lines = (root / f"{kind}_test.txt").read_text().splitlines()
    return np.array([[int(n) for n in line.split()] for line in lines])


def embeddings(root):
    """I (N, D), and T (K_a, D) per attribute, not normalised."""
    files = [root / "img" / f"{n:03}.png" for n in range(IMAGES)]
    texts = [
        ToyVLM().encode_texts([f"a {a} of {a} {n}" for n in range(count)]).numpy()
        for a, count in zip(ATTRIBUTES, TEXTS, strict=True)
    ]
    return direct(ToyVLM(), files), texts


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
        x = represented[attribute]
        others = candidate[candidate[:, 1] == attribute]
        similarity = [float(x[index] @ x[other]) for other in others[:, 0]]
        hits, total = 0, 0.0
        for rank, place in enumerate(np.argsort(similarity)[::-1], 1):
            if others[place, 2] == value:
                hits += 1
                total += hits / rank
        precision.append(total / hits if hits else 0.0)
    precision = 100 * np.array(precision)
    scores = {a: precision[query[:, 1] == n].mean() for n, a in enumerate(ATTRIBUTES)}
    return {**scores, "overall": precision.mean(), "mean": np.mean(list(scores.values()))}


def test_the_protocol_and_a_second_run(root, toy, start, monkeypatch):
    one, two = (root.parent / name for name in ("mlp", "backbone"))
    heads = [None, write_stage(one, root), write_stage(two, root, seed=1, method="crl")]
    out = start(f"trained=[{one}, {two}]")
    results_of = rows(root)
    expected = {"universal": [l2(embeddings(root)[0].astype(float))] * 2}
    for method, head in zip(("paper", "crl-mlp", "crl"), heads, strict=True):
        expected[method] = [conditional(root, a, head) for a in range(2)]
    assert list(results_of) == ["random", "random draw", *expected]
    folder, digests = root.parent.name, set()
    asked, there = table(root, "query"), table(root, "candidate")
    none = len(asked) - sum(tuple(row[1:]) in set(map(tuple, there[:, 1:])) for row in asked)
    for method, represented in expected.items():
        row, about = results_of[method], results_of[method]["about"]
        assert row["scores"] == pytest.approx(slow_scores(root, represented), abs=1e-3), method
        basis = (about["basis"], about.get("texts"))
        assert basis == (("-", None) if method == "universal" else (f"{folder}/*", 4))
        assert (row["values"], row["images"], row["without_relevant"]) == (VALUES, 39, none)
        digests.add(about["content"])
    assert len(digests) == 1 and none > 0
    assert results_of["crl"]["about"]["vlm_fingerprint"] == f"toy-{two}/vlm"
    says = f"note: DeepFashion: {none} of {len(asked)} queries have no relevant candidate"
    assert out.count(says) == 1 and out.count(f"{folder}/* (4)") == 3
    assert toy["clip-b16"].images == 39  # each once, and not the one that nothing names
    assert len(list(results(root).parent.glob("top-5-*.png"))) == 3

    before = results(root).read_bytes()
    monkeypatch.setattr(evaluate, "mean_scores", None)  # a second run measures and draws nothing
    monkeypatch.setattr(evaluate, "draw", None)
    assert start(f"trained=[{one}, {two}]") == out
    assert results(root).read_bytes() == before


def test_trained_brings_its_own_vlm_and_bases(root, toy, start):
    folder = root.parent / "mlp"
    expected = write_stage(folder, root, vlm="other", vlm_fingerprint="toy-other")
    for attribute in ATTRIBUTES:  # the files are not read again
        (root.parent / f"{attribute}.yaml").unlink()
    bases = {"texture": "deepfashion_texture", "style": "deepfashion_style"}
    start(f"trained={folder}", f"bases={json.dumps(bases)}", "texts=3", "figures=false")
    paper, row = rows(root)["paper"]["about"], rows(root)["crl-mlp"]
    assert (paper["basis"], paper["texts"]) == ("deepfashion_*", 3)
    assert (row["about"]["vlm"], row["about"]["texts"]) == ("other", 4)
    scores = slow_scores(root, [conditional(root, a, expected) for a in range(2)])
    assert row["scores"] == pytest.approx(scores, abs=1e-3)


# --- beyond the paper -----------------------------------------------------------------------------


def beyond(root, attribute, sharpness):
    """R and R' (N, K_a) of the basis as it is, one image and text at a time."""
    image, texts = embeddings(root)
    text = l2(texts[attribute].astype(float))
    image = l2(image.astype(float))[:39]  # nothing names the last one
    r = np.array([[x @ t for t in text] for x in image])
    sigma = np.mean([np.std(row) for row in r])
    return l2(r), l2(np.sqrt([np.exp(sharpness * row / sigma) for row in r]))


def test_a_row_for_each_representation(root, toy, start):
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
