"""evaluate.py from end to end: what it measures, saves and refuses."""

import json
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.decomposition import PCA
from torch import nn
from toy_vlm import DIM, SIDE, ToyVLM, direct, make_images

from crl.basis import TextBasis
from crl.images import open_image
from crl.projection import l2
from crl.run.weights import save_tensors, weights_digest
from fashion_retrieval import evaluate
from fashion_retrieval import rivals as rivals_module
from fashion_retrieval.heads import Heads, load_heads
from fashion_retrieval.networks import Network

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


def conditional(root, attribute, heads=None):
    """R (N, K) of all images for one attribute, or (N, out) through its head, in float64."""
    image, texts = embeddings(root)
    text = l2(texts[attribute].astype(float))
    if len(text) > min(TEXTS):
        text = PCA(n_components=min(TEXTS), svd_solver="full").fit_transform(text.T).T
    x = l2(l2(image.astype(float)) @ text.T)
    if heads is None:
        return x
    return heads.double()(torch.from_numpy(x), torch.full((IMAGES,), attribute)).detach().numpy()


def slow_scores(root, represented):
    """The protocol, a query at a time; `represented`: (N, W) of each attribute, unit rows."""
    query, candidate = table(root, "query"), table(root, "candidate")
    precision = []
    for index, attribute, value in query:
        x = represented[attribute]
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
    found = {cell["method"]: cell for cell in cells(root)}
    assert list(found) == ["universal", "crl-free", "crl-mlp", "crl"]
    heads = [None, load_heads(trained, 2, 4), load_heads(tuned, 2, 4)]
    expected = {
        "universal": [l2(embeddings(root)[0].astype(float))] * 2,
        **{
            method: [conditional(root, a, head) for a in range(2)]
            for method, head in zip(("crl-free", "crl-mlp", "crl"), heads, strict=True)
        },
    }
    for method, represented in expected.items():
        scores = found[method]["scores"][method]
        assert scores == pytest.approx(slow_scores(root, represented), abs=1e-3), method
        assert (found[method]["data"], found[method]["label"]) == ("DeepFashion", "clip-b16")
    assert set(found["universal"]["scores"]) == {"random", "random draw", "universal"}
    assert set(found["crl"]["scores"]) == {"crl"}
    assert (found["crl"]["vlm"], found["crl"]["vlm_fingerprint"]) == ("tuned", "toy-tuned")
    assert (found["crl"]["values"], found["crl"]["images"]) == (VALUES, 39)
    asked = table(root, "query")
    there = {tuple(row[1:]) for row in table(root, "candidate")}
    none = sum(tuple(row[1:]) not in there for row in asked)
    assert none > 0 and {cell["without_relevant"] for cell in found.values()} == {none}
    says = f"note: DeepFashion: {none} of {len(asked)} queries have no relevant candidate"
    assert out.count(says) == 1 and out.count("note") == 1
    assert toy["clip-b16"].images == 39  # each once, and not the one that nothing names
    pictures = results(root).parent.glob("top-5-*.png")
    pictures = sorted(file.name.rpartition("-")[0] for file in pictures)
    assert pictures == [f"top-5-{method}-clip-b16" for method in ("crl", "crl-free", "crl-mlp")]

    before = results(root).read_bytes()
    monkeypatch.setattr(evaluate, "measure", None)  # a second run measures and draws nothing
    monkeypatch.setattr(evaluate, "draw", None)
    assert run(monkeypatch, capsys, root, *extra) == (0, out, "")
    assert results(root).read_bytes() == before


# --- rivals ---------------------------------------------------------------------------------------


class Masked(Network):
    """A rival: what the toy VLM makes of an image, each attribute with weights of its own."""

    method, tower_name, width = "csn", "resnet50", DIM

    def __init__(self, seed):
        super().__init__()
        self.tower, self.preprocess = nn.Identity(), ToyVLM().preprocess
        torch.manual_seed(seed)
        self.mask = nn.Parameter(torch.rand(2, DIM))
        self.images = 0  # that went through the tower

    def features(self, pixels, precision):
        assert precision == "fp32"
        self.images += len(pixels)
        return ToyVLM().encode_images(pixels)

    def embed(self, features, attribute):
        return nn.functional.normalize(features * self.mask[attribute], dim=1)


@pytest.fixture
def rivals(monkeypatch):
    """The file `no<seed>` holds the rival of that seed; gives those that were loaded, by file."""
    loaded = {}

    def load(path, attributes, device):
        assert attributes == 2 and device.type == "cpu"
        loaded[str(path)] = Masked(int(path.name[2:])).eval()
        return loaded[str(path)]

    monkeypatch.setattr(evaluate, "load_rival", load)
    return loaded


def test_a_rival_on_the_same_images(root, toy, rivals, monkeypatch, capsys):
    settings = ["rivals=[no5]", "device=cpu", "workers=1", "batch_size=7"]
    code, out, err = run(monkeypatch, capsys, root, *settings)
    assert code == 0, err
    *_, cell = cells(root)
    assert (cell["method"], cell["label"], cell["file"]) == ("csn", "resnet50", "no5")
    assert cell["queries"] == len(table(root, "query")) and cell["images"] == 39
    mask = Masked(5).mask.detach().numpy().astype(float)
    represented = [l2(embeddings(root)[0] * mask[a]) for a in range(2)]
    assert cell["scores"] == {"csn": pytest.approx(slow_scores(root, represented), abs=1e-3)}
    assert rivals["no5"].images == 39  # each once, for both attributes, scores and figure
    assert len(list(results(root).parent.glob("top-5-csn-resnet50-*.png"))) == 1
    names = [" ".join(line.split()[1:3]) for line in out.splitlines() if line[:4] == "Deep"]
    assert names == [
        "- Random",
        "- Random,",
        "resnet50 CSN",
        "clip-b16 universal:",
        "clip-b16 CRL†",
    ]

    before = results(root).read_bytes()
    assert run(monkeypatch, capsys, root, *settings) == (0, out, "")
    assert rivals["no5"].images == 0 and results(root).read_bytes() == before
    (root / "img/003.png").write_bytes((root / "img/004.png").read_bytes())
    # Another image: measured again
    assert run(monkeypatch, capsys, root, *settings, "figures=false")[0] == 0
    assert rivals["no5"].images == 39 and results(root).read_bytes() != before
    assert len(cells(root)) == 3  # in the place of the former results


def test_a_real_rival_file(root, toy, monkeypatch, capsys):
    tower = rivals_module.Tower("toy", nn.Flatten(), ToyVLM().preprocess, 3 * SIDE * SIDE, "f")
    monkeypatch.setattr(rivals_module, "open_tower", lambda *_, **__: tower)
    monkeypatch.setattr(rivals_module, "check_tower", lambda _: None)
    torch.manual_seed(0)
    rival = rivals_module.CSN(tower, attributes=2, width=8)
    file = root.parent / "rival.safetensors"
    header = {"method": "csn", "tower": "toy", "width": "8", "attributes": "2"}
    save_tensors(file, rival, **header)
    settings = [
        f"rivals={file}",
        "device=cpu",
        "workers=1",
        "figures=false",
    ]  # one may stand without a list
    code, _, err = run(monkeypatch, capsys, root, *settings)
    assert code == 0, err
    *_, cell = cells(root)
    files = [root / "img" / f"{n:03}.png" for n in range(IMAGES)]
    pixels = np.stack([rival.preprocess(open_image(file)).flatten().numpy() for file in files])
    weight, bias, mask = (
        tensor.detach().numpy().astype(float)
        for tensor in (rival.embedding.weight, rival.embedding.bias, rival.mask)
    )
    represented = [l2((pixels @ weight.T + bias) * mask[a].clip(0)) for a in range(2)]
    assert cell["scores"]["csn"] == pytest.approx(slow_scores(root, represented), abs=1e-3)

    save_tensors(file, rivals_module.CSN(tower, 3, 8), **{**header, "attributes": "3"})
    toy.clear()
    before = results(root).read_bytes()
    code, _, err = run(monkeypatch, capsys, root, *settings)
    assert code == 2 and "3 attributes" in err and len(err.splitlines()) == 1
    assert not toy and results(root).read_bytes() == before


# --- several results side by side -----------------------------------------------------------------


def rows(root, method):
    """Of all results: model and mean, as the table shows them."""
    lines = evaluate.map_table(cells(root), "title").splitlines()
    shown = [line.split("  ") for line in lines if f"  {evaluate.METHODS[method]}  " in line]
    shown = [[part.strip() for part in line if part.strip()] for line in shown]
    return {line[1]: line[-2] for line in shown}


def test_other_heads_backbones_and_rivals_stand_beside(root, toy, rivals, monkeypatch, capsys):
    one, two = heads_file(root.parent), heads_file(root.parent, seed=1)
    options = ["device=cpu", "workers=1", "figures=false"]
    for heads, backbone, rival in ((one, "tuned", "no5"), (two, "better", "no6")):
        settings = [f"heads={heads}", f"backbone={backbone}", f"rivals=[{rival}]"]
        code, out, err = run(monkeypatch, capsys, root, *options, *settings)
        assert code == 0 and "[" not in out, err  # a run shows its own results, of one kind each
    assert len(cells(root)) == 2 + 2 * 3  # the VLM itself is the same
    for method in ("universal", "crl-free"):
        assert list(rows(root, method)) == ["clip-b16"]
    for method, label in (("crl-mlp", "clip-b16"), ("crl", "clip-b16"), ("csn", "resnet50")):
        mine = [cell for cell in cells(root) if cell["method"] == method]
        assert rows(root, method) == {
            f"{label} [{cell['variant']}]": f"{cell['scores'][method]['mean']:.2f}" for cell in mine
        }
        assert len(set(rows(root, method))) == 2, method
    notes = evaluate.notes(cells(root))
    assert len(notes) == 7 and notes[-1].startswith("DeepFashion: ")
    for file, backbone in ((one, "tuned"), (two, "better")):
        assert sum(f"from {file}" in note for note in notes) == 2
        assert sum(f": {backbone} toy-" in note for note in notes) == 1
    assert sum("resnet50 [" in note and "CSN: " in note for note in notes) == 2

    keys = [cell["key"] for cell in cells(root)]
    assert run(monkeypatch, capsys, root, *options, *settings, "seed=1")[0] == 0
    again = [cell["key"] for cell in cells(root)]  # those of the last run are measured again
    assert len(again) == 8 and len(set(again) & set(keys)) == 3
    bases = f"bases={{texture: {root.parent}/texture.yaml, style: {root.parent}/other.yaml}}"
    basis = TextBasis.load(str(root.parent / "style.yaml"))
    basis.model_copy(update={"texts": basis.texts[:-1]}).save(root.parent / "other.yaml")
    assert run(monkeypatch, capsys, root, *options, bases)[0] == 0
    assert len(rows(root, "crl-free")) == 2 and list(rows(root, "universal")) == ["clip-b16"]


# --- embeddings from a file -----------------------------------------------------------------------


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
    vlm = cells(root)
    results(root).unlink()
    given = features(root, attributes=np.array(ATTRIBUTES))
    code, _, err = run(monkeypatch, capsys, root, given, heads)
    assert code == 0, err
    assert [cell["method"] for cell in cells(root)] == ["universal", "crl-free", "crl-mlp"]
    for cell, expected in zip(cells(root), vlm, strict=True):
        assert cell["scores"].keys() == expected["scores"].keys()
        for method, scores in expected["scores"].items():
            assert cell["scores"][method] == pytest.approx(scores, abs=1e-6), method
    code, out, _ = run(monkeypatch, capsys, root, features(root))
    assert code == 0 and "attribute 1" in out


def test_features_of_any_length(root, monkeypatch, capsys):
    """float64 holds lengths that float32 cannot."""
    run(monkeypatch, capsys, root, features(root))
    expected = cells(root)
    results(root).unlink()
    image, texts = embeddings(root)
    long = 10.0 ** np.linspace(-200, 200, IMAGES)[:, None]
    given = features(root, image=image.astype(float) * long, text1=texts[1].astype(float) * 1e60)
    code, _, err = run(monkeypatch, capsys, root, given)
    assert code == 0, err
    for cell, other in zip(cells(root), expected, strict=True):
        for method, scores in other["scores"].items():
            assert cell["scores"][method] == pytest.approx(scores, abs=1e-6)


def bad(rows, row, column, value):
    rows = rows.copy()
    rows[row, column] = value
    return rows


ROWS = np.array([[0, 0, 0], [1, 1, 0], [2, 0, 1], [3, 1, 1]])
BAD_FEATURES = [
    ({"image": None}, "must hold image, query, candidate and text0"),
    ({"text0": None, "text1": None}, "must hold image, query, candidate and text0"),
    ({"text0": None}, "text0"),
    ({"text1": None, "texture": np.ones((4, DIM))}, "attribute 1 is not in 0..0"),
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


@pytest.mark.parametrize("kind", ["npy", "cut", "garbled", "text", "nothing"])
def test_a_file_that_is_no_npz(root, monkeypatch, capsys, kind):
    given = features(root)
    file = root.parent / "features.npz"
    whole = file.read_bytes()
    if kind == "npy":
        with open(file, "wb") as stream:
            np.save(stream, np.ones(3))
    elif kind == "garbled":
        np.savez_compressed(file, **np.load(file))
        whole = file.read_bytes()
        file.write_bytes(whole[:60] + bytes(40) + whole[100:])
    else:
        content = {"cut": whole[: len(whole) // 2], "text": b"image", "nothing": b""}
        file.write_bytes(content[kind])
    code, _, err = run(monkeypatch, capsys, root, given)
    assert code == 2 and "cannot read" in err and len(err.splitlines()) == 1
    assert not results(root).exists()


def edit(name, text):
    return lambda root: (root / name).write_text(text)


BAD_RUNS = [  # what is done to the folder, overrides, what the one line says
    (None, ["heads=nowhere.safetensors"], "there are no heads nowhere.safetensors"),
    (None, ["backbone=tuned"], "backbone needs heads"),
    (None, ["backbone_heads=x"], "backbone_heads needs backbone"),
    (None, ["features=x.npz", "vlm=y", "rivals=[z]"], "features replaces rivals, vlm; remove them"),
    (None, ["rivals=[nowhere.safetensors]"], "there is no rival nowhere.safetensors"),
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


def test_heads_of_another_vlm_are_refused(root, toy, monkeypatch, capsys):
    heads = load_heads(heads_file(root.parent), 2, 4)
    own = {"vlm": "mine", "precision": "fp32"}
    for fingerprint, code in (("toy-mine", 2), ("toy-clip-b16", 0)):
        save_tensors(root.parent / "own.safetensors", heads, vlm_fingerprint=fingerprint, **own)
        found, _, err = run(monkeypatch, capsys, root, f"heads={root.parent}/own.safetensors")
        assert found == code
        if code:
            assert "own.safetensors was trained on the VLM 'mine'" in err
            assert "or train heads on this one" in err and len(err.splitlines()) == 1
            assert toy["clip-b16"].images == 0 and not results(root).exists()


def test_a_backbone_of_other_heads_or_another_vlm_is_refused(root, toy, monkeypatch, capsys):
    folder = root.parent / "tuned"
    monkeypatch.setattr(evaluate, "find_vlm", lambda name: str(folder) if name == "tuned" else name)
    one, two = (load_heads(heads_file(root.parent, seed=seed), 2, 4) for seed in (0, 1))
    heads = [f"heads={root.parent}/heads1.safetensors", "backbone=tuned", "figures=false"]
    own = {"vlm": "mine", "vlm_fingerprint": "toy-clip-b16", "precision": "fp32"}
    own["heads_hash"] = weights_digest(one)

    def told(*overrides):
        save_tensors(folder / "open_clip_model.safetensors", two, **own)  # only the header counts
        code, _, err = run(monkeypatch, capsys, root, *heads, *overrides)
        assert code == 2 and len(err.splitlines()) == 1 and not results(root).exists()
        return err

    assert "the backbone tuned was trained under other heads" in told()
    heads.append(f"backbone_heads={root.parent}/heads0.safetensors")
    own["vlm_fingerprint"] = "toy-mine"
    assert "was trained on the VLM 'mine'" in told()
    own["vlm_fingerprint"] = "toy-clip-b16"
    save_tensors(folder / "open_clip_model.safetensors", two, **own)
    assert run(monkeypatch, capsys, root, *heads)[0] == 0


def test_a_vlm_with_several_vectors_is_refused(root, toy, monkeypatch, capsys):
    code, _, err = run(monkeypatch, capsys, root, "vlm=many")
    assert code == 2 and "toy gives 2 vectors an image" in err


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
    assert len(list(results(root).parent.glob("top-5-crl-free-*.png"))) == 1


def test_the_table():
    def cell(label, scores, method="universal"):
        names = {"data": "DeepFashion", "label": label, "variant": "x", "method": method}
        return {**names, "scores": scores}

    scores = {"shape": 12.345, "overall": 11.0, "mean": 12.0}
    cells = [
        cell("a", {"new": scores}, "new"),
        cell("a", {"random": scores, "universal": scores}),
        cell("a", {"crl": scores}, "crl"),
        cell("a", {"crl-free": scores}, "crl-free"),
        cell("b", {"random": scores, "universal": scores}),
        cell("b", {"asen": scores}, "asen"),
        cell("c", {"csn": scores}, "csn"),
    ]
    lines = evaluate.map_table(cells, "title").splitlines()[4:-1]
    shown = [line.split("  ") for line in lines]
    shown = [[part.strip() for part in line if part.strip()] for line in shown]
    assert [line[1:3] for line in shown] == [
        ["-", "Random"],
        ["c", "CSN"],
        ["b", "ASEN"],
        ["a", "universal: I"],
        ["b", "universal: I"],
        ["a", "CRL† (no training)"],
        ["a", "CRL, backbone trained"],
        ["a", "new"],
    ]
    assert all(line[3:] == ["12.35", "12.00", "11.00"] for line in shown)
    assert list(evaluate.METHODS)[2:5] == ["triplet", "csn", "asen"] == list(rivals_module.METHODS)


def test_the_figure_marks_what_is_right(root, toy, monkeypatch, capsys):
    drawn = {}
    monkeypatch.setattr(
        evaluate, "retrieval_sheet", lambda rows, title, file: drawn.update({title: rows})
    )
    assert run(monkeypatch, capsys, root, f"heads={heads_file(root.parent)}")[0] == 0
    assert list(drawn) == [
        f"clip-b16, DeepFashion: {method} below universal (green: right)"
        for method in ("CRL† (no training)", "CRL, heads trained")
    ]
    asked, there = table(root, "query"), table(root, "candidate")
    for sheet, head in zip(
        drawn.values(), (None, load_heads(heads_file(root.parent), 2, 4)), strict=True
    ):
        assert [row[1].split("\n")[0] for row in sheet] == ["texture"] * 2 + ["style"] * 2
        assert [row[1].split("\n")[1][:9] for row in sheet][::2] == ["universal"] * 2
        for place, (query, _, found, right) in enumerate(sheet):
            attribute, number = place // 2, int(query.stem)
            x = l2(embeddings(root)[0].astype(float))
            if place % 2:
                x = conditional(root, attribute, head)
            others = there[there[:, 1] == attribute]
            best = others[np.argsort(-(x[others[:, 0]] @ x[number]), kind="stable")[:5]]
            assert [int(file.stem) for file in found] == best[:, 0].tolist()
            values = asked[(asked[:, 0] == number) & (asked[:, 1] == attribute), 2]
            assert any(right == (best[:, 2] == value).tolist() for value in values)
            assert np.isin(values, others[:, 2]).any()  # something can be found
