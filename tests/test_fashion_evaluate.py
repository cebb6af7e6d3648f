"""evaluate.py from end to end: what it measures, saves and refuses."""

import json
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.decomposition import PCA
from toy_vlm import DIM, ToyVLM, direct, make_images

from crl.basis import TextBasis
from crl.projection import l2
from fashion_retrieval import evaluate, scoring
from fashion_retrieval.heads import Heads

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

    def load(name, device, precision):
        loaded[name] = ToyVLM(fingerprint=f"toy-{name}", queries=2 if name == "many" else None)
        return loaded[name]

    monkeypatch.setattr(evaluate, "load_vlm", load)
    monkeypatch.setattr(evaluate, "find_vlm", lambda name: name)
    return loaded


def heads_file(folder, attributes=2, width=4, seed=0):
    torch.manual_seed(seed)
    file = folder / f"heads{seed}.safetensors"
    heads = Heads(attributes, width, out=32)
    heads.weight1.data.normal_(0, 9)  # toy images are much alike: tell them apart
    save_file(heads.state_dict(), file)
    return file


def run(monkeypatch, capsys, root, *overrides):
    """Exit code, output, errors."""
    arguments = [f"outputs={root.parent}/out"]
    if not any(override.startswith("features=") for override in overrides):
        bases = {a: f"{root.parent}/{a}.yaml" for a in ATTRIBUTES}
        arguments += [f"root={root}", f"cache={root.parent}/cache", f"bases={json.dumps(bases)}"]
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *arguments, *overrides])
    code = 0
    try:
        evaluate.main()
    except SystemExit as stop:
        code = stop.code
    return code, *capsys.readouterr()


def results(root):
    return root.parent / "out/fashion_retrieval/run/results.json"


def cells(root):
    return json.loads(results(root).read_text())["cells"]


def table(root, kind):
    lines = (root / f"{kind}_test.txt").read_text().splitlines()
    return np.array([[int(n) for n in line.split()] for line in lines])


def embeddings(root):
    """I (N, D) and, an attribute each, T (K_a, D), not normalised."""
    files = [root / "img" / f"{n:03}.png" for n in range(IMAGES)]
    texts = [
        ToyVLM().encode_texts([f"a {a} of {a} {n}" for n in range(count)]).numpy()
        for a, count in zip(ATTRIBUTES, TEXTS, strict=True)
    ]
    return direct(ToyVLM(), files), texts


def slow_scores(root, method, heads=None):
    """The protocol, a query at a time, in float64."""
    image, texts = (l2(x.astype(float)) for x in embeddings(root)[:1]), embeddings(root)[1]
    [image] = image
    query, candidate = table(root, "query"), table(root, "candidate")
    precision = []
    for index, attribute, value in query:
        x = image
        if method != "universal":
            text = l2(texts[attribute].astype(float))
            if len(text) > min(TEXTS):
                text = PCA(n_components=min(TEXTS), svd_solver="full").fit_transform(text.T).T
            x = image @ text.T
            x /= np.linalg.norm(x, axis=1, keepdims=True)
        if heads is not None:
            rows = torch.from_numpy(x)
            x = heads.double()(rows, torch.full((IMAGES,), int(attribute))).detach().numpy()
        others = candidate[candidate[:, 1] == attribute]
        similarity = [float(x[index] @ x[other]) for other in others[:, 0]]
        found, total = 0, 0.0
        for rank, place in enumerate(np.argsort(similarity)[::-1], 1):
            if others[place, 2] == value:
                found += 1
                total += found / rank
        precision.append(total / found if found else 0.0)
    precision = 100 * np.array(precision)
    scores = {a: precision[query[:, 1] == n].mean() for n, a in enumerate(ATTRIBUTES)}
    return {**scores, "overall": precision.mean(), "mean": np.mean(list(scores.values()))}


def test_the_protocol_and_a_second_run(root, toy, monkeypatch, capsys):
    trained, tuned = heads_file(root.parent), heads_file(root.parent, seed=1)
    extra = [f"heads={trained}", "backbone=tuned", f"backbone_heads={tuned}"]
    code, out, err = run(monkeypatch, capsys, root, *extra)
    assert code == 0, err
    first, second = cells(root)
    expected = {
        "universal": slow_scores(root, "universal"),
        "crl-free": slow_scores(root, "crl"),
        "crl-mlp": slow_scores(root, "crl", evaluate.load_heads(trained, 2, 4)),
    }
    assert set(first["scores"]) == {"random", "random draw", *expected}
    for method, scores in expected.items():
        assert first["scores"][method] == pytest.approx(scores, abs=1e-3), method
    assert set(second["scores"]) == {"random", "random draw", "crl"}
    expected = slow_scores(root, "crl", evaluate.load_heads(tuned, 2, 4))
    assert second["scores"]["crl"] == pytest.approx(expected, abs=1e-3)
    assert (first["data"], first["criterion"], first["label"]) == ("DeepFashion", "all", "clip-b16")
    asked = table(root, "query")
    there = {tuple(row[1:]) for row in table(root, "candidate")}
    none = sum(tuple(row[1:]) not in there for row in asked)
    assert none > 0 and first["without_relevant"] == none
    assert f"{none} of {len(asked)} queries have no relevant candidate" in out
    assert toy["clip-b16"].images == 39  # each once, and not the one that nothing names
    assert len(list(results(root).parent.glob("top-5-*.png"))) == 2

    before = results(root).read_bytes()
    monkeypatch.setattr(evaluate, "measure", None)  # a second run measures and draws nothing
    monkeypatch.setattr(evaluate, "draw", None)
    assert run(monkeypatch, capsys, root, *extra) == (0, out, "")
    assert results(root).read_bytes() == before


def test_random_rankings(root):
    query, candidate = table(root, "query"), table(root, "candidate")
    exact = evaluate.random_expectation(query, candidate)
    for row, precision in zip(query, exact, strict=True):
        others = candidate[candidate[:, 1] == row[1], 2]
        c, r = len(others), (others == row[2]).sum()
        h = sum(1 / n for n in range(1, c + 1))
        assert precision == pytest.approx((h + (r - 1) / (c - 1) * (c - h)) / c if r else 0)
    draws = np.array([evaluate.random_draw(query, candidate, seed) for seed in range(400)])
    assert (draws[0] == evaluate.random_draw(query, candidate, 0)).all()
    error = draws.std(axis=0) / 400**0.5
    assert (np.abs(draws.mean(axis=0) - exact) <= 5 * error + 1e-12).all()


def test_chunks_change_nothing(root, monkeypatch):
    query, candidate = table(root, "query"), table(root, "candidate")
    image = l2(embeddings(root)[0])
    whole = evaluate.retrieval_precision(lambda n, _: image[n], query, candidate)
    monkeypatch.setattr(scoring, "CHUNK", 1)  # a query at a time
    part = evaluate.retrieval_precision(lambda n, _: image[n], query, candidate)
    np.testing.assert_allclose(part, whole, atol=1e-9)


def features(root, **changes):
    image, texts = embeddings(root)
    arrays = {"image": image, "query": table(root, "query"), "candidate": table(root, "candidate")}
    arrays |= {f"text{a}": text for a, text in enumerate(texts)}
    arrays = {k: v for k, v in {**arrays, **changes}.items() if v is not None}
    file = root.parent / "features.npz"
    np.savez(file, **arrays)
    return f"features={file}"


def test_features_give_what_the_vlm_gives(root, toy, monkeypatch, capsys):
    heads = f"heads={heads_file(root.parent)}"
    assert run(monkeypatch, capsys, root, heads, "figures=false")[0] == 0
    [vlm] = cells(root)
    results(root).unlink()
    given = features(root, attributes=np.array(ATTRIBUTES))
    code, _, err = run(monkeypatch, capsys, root, given, heads)
    assert code == 0, err
    [file] = cells(root)
    assert file["scores"].keys() == vlm["scores"].keys()
    for method, scores in vlm["scores"].items():
        assert file["scores"][method] == pytest.approx(scores, abs=1e-6), method
    code, out, _ = run(monkeypatch, capsys, root, features(root))
    assert code == 0 and "attribute 1" in out


def bad(rows, row, column, value):
    rows = rows.copy()
    rows[row, column] = value
    return rows


ROWS = np.array([[0, 0, 0], [1, 1, 0], [2, 0, 1], [3, 1, 1]])
BAD_FEATURES = [
    ({"image": None}, "must hold image, query, candidate and text0"),
    ({"text0": None, "text1": None}, "must hold image, query, candidate and text0"),
    ({"text0": None}, "text0"),
    ({"image": np.ones(5)}, r"image is \(5,\)"),
    ({"text1": np.ones((4, DIM + 1))}, r"text1 is \(4, 6\)"),
    ({"image": np.full((IMAGES, DIM), np.nan)}, "image holds things that are not finite"),
    ({"text0": np.zeros((4, DIM))}, "text0 has a row of zeros"),
    ({"query": ROWS[:, :2]}, r"query must be \(n, 3\) integers"),
    ({"query": ROWS * 1.0}, "float64"),
    ({"query": bad(ROWS, 1, 0, IMAGES)}, "query, row 1: image 40 is not in 0..39"),
    ({"candidate": bad(ROWS, 2, 1, 2)}, "candidate, row 2: attribute 2 is not in 0..1"),
    ({"candidate": bad(ROWS, 0, 2, -1)}, "candidate, row 0: value -1"),
    ({"query": ROWS[::2]}, "query has no row of attribute 1"),
    ({"attributes": np.array(["a", "a"])}, "attributes must hold 2 different names"),
    ({"image": np.array([None])}, "cannot read"),
]


@pytest.mark.parametrize(("changes", "says"), BAD_FEATURES)
def test_bad_features(root, monkeypatch, capsys, changes, says):
    code, _, err = run(monkeypatch, capsys, root, features(root, **changes))
    assert code == 2 and len(err.splitlines()) == 1
    with pytest.raises(AssertionError, match=says):
        raise AssertionError(err)
    assert not results(root).exists()


def edit(name, text):
    return lambda root: (root / name).write_text(text)


BAD_RUNS = [  # what is done to the folder, overrides, what the one line says
    (None, ["heads=nowhere.safetensors"], "there are no heads nowhere.safetensors"),
    (None, ["backbone=tuned"], "backbone needs heads"),
    (None, ["backbone_heads=x"], "backbone_heads needs backbone"),
    (None, ["features=x.npz", "vlm=y"], "features replaces vlm; remove them"),
    (None, ["split=train"], "split"),
    (None, ["dataset=DARN"], "no data set 'DARN'; known: DeepFashion"),
    (None, ["bases={textur: x}"], "unknown attribute 'textur'; did you mean 'texture'"),
    (None, ["bases={texture: clevr4_colour}"], "unknown text basis"),
    (None, ["split=valid"], "filenames_valid.txt is not in"),
    (edit("query_test.txt", "0 0 9"), [], "query_test.txt, line 1: value 9"),
    (lambda root: (root / "img/003.png").unlink(), [], "1 of 39 images are missing"),
    (lambda root: heads_file(root.parent, width=5), ["heads=HEADS"], "width 5, these are 4"),
    (lambda root: heads_file(root.parent, attributes=3), ["heads=HEADS"], "3 attributes"),
]


@pytest.mark.parametrize(("damage", "overrides", "says"), BAD_RUNS)
def test_bad_input_is_seen_before_a_model_is_loaded(
    root, toy, monkeypatch, capsys, damage, overrides, says
):
    if damage:
        damage(root)
    heads = str(root.parent / "heads0.safetensors")
    overrides = [override.replace("HEADS", heads) for override in overrides]
    code, _, err = run(monkeypatch, capsys, root, *overrides)
    assert code == 2 and says in err and len(err.splitlines()) == 1
    assert not toy and not results(root).exists()


def test_a_vlm_with_several_vectors_is_refused(root, toy, monkeypatch, capsys):
    code, _, err = run(monkeypatch, capsys, root, "vlm=many")
    assert code == 2 and "many gives 2 vectors an image" in err


def test_a_run_that_dies_leaves_no_half_results(root, toy, monkeypatch, capsys):
    def die(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(evaluate, "random_draw", die)
        assert run(patched, capsys, root)[0] == 130
    assert not results(root).exists()
    with monkeypatch.context() as patched:  # numbers are kept though the figure is not drawn
        patched.setattr("crl.figures.plt.Figure.savefig", die)
        assert run(patched, capsys, root)[0] == 130
    assert [file.name for file in results(root).parent.iterdir()] == ["results.json"]
    assert run(monkeypatch, capsys, root)[0] == 0
    assert len(list(results(root).parent.glob("top-5-*.png"))) == 1


def test_the_table():
    def cell(label, scores):
        return {"data": "DeepFashion", "label": label, "scores": scores}

    scores = {"shape": 12.345, "overall": 11.0, "mean": 12.0}
    cells = [
        cell("a", {"csn": scores}),
        cell("a", {"random": scores, "crl-free": scores, "universal": scores}),
        cell("b", {"random": scores, "universal": scores}),
    ]
    lines = evaluate.map_table(cells, "title").splitlines()[4:-1]
    shown = [line.split("  ") for line in lines]
    shown = [[part.strip() for part in line if part.strip()] for line in shown]
    assert [line[1:3] for line in shown] == [
        ["-", "Random"],
        ["a", "universal: I"],
        ["b", "universal: I"],
        ["a", "CRL† (no training)"],
        ["a", "csn"],
    ]
    assert all(line[3:] == ["12.35", "12.00", "11.00"] for line in shown)
