"""evaluate.py from end to end: what it measures, saves and draws."""

import copy
import json

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import nn
from toy_vlm import DIM, SIDE, ToyVLM, direct, make_images

from crl.backends.weights import save_tensors
from crl.basis import TextBasis
from crl.images import open_image
from crl.projection import l2
from fashion_retrieval import evaluate, inputs, rivals, tables, trained
from fashion_retrieval.heads import Heads
from fashion_retrieval.networks import Network
from fashion_retrieval.rivals.towers import Tower
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

    def load(name, device, precision, from_file=False):
        loaded[name] = ToyVLM(fingerprint=f"toy-{name}", queries=2 if name == "many" else None)
        return loaded[name]

    monkeypatch.setattr(inputs, "load_vlm", load)
    for module in (inputs, trained):
        monkeypatch.setattr(module, "find_vlm", lambda name, from_file=False: name)
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


def write_stage(folder, root, seed=0, **changes):
    """What train_mlp.py leaves (or train_backbone.py, with method="crl"); -> its heads."""
    heads = some_heads(root, seed)
    record = {"method": "crl-mlp", "weights": "heads.safetensors", "attributes": ATTRIBUTES}
    record |= {"vlm": "clip-b16", "vlm_fingerprint": "toy-clip-b16", "precision": "fp32"}
    bases = Bases.load("DeepFashion", ATTRIBUTES, bases_of(root), None)
    folder.mkdir(exist_ok=True)
    save_tensors(folder / "heads.safetensors", heads)
    (folder / "results.json").write_text(json.dumps({**record, **bases.record, **changes}))
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


def cells(root):
    return json.loads(results(root).read_text())["cells"]


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
        found, total = 0, 0.0
        for rank, place in enumerate(np.argsort(similarity)[::-1], 1):
            if others[place, 2] == value:
                found += 1
                total += found / rank
        precision.append(total / found if found else 0.0)
    precision = 100 * np.array(precision)
    scores = {a: precision[query[:, 1] == n].mean() for n, a in enumerate(ATTRIBUTES)}
    return {**scores, "overall": precision.mean(), "mean": np.mean(list(scores.values()))}


def test_the_protocol_and_a_second_run(root, toy, start, monkeypatch):
    one, two = (root.parent / name for name in ("mlp", "backbone"))
    heads = [None, write_stage(one, root), write_stage(two, root, seed=1, method="crl")]
    out = start(f"trained=[{one}, {two}]")
    found = {cell["method"]: cell for cell in cells(root)}
    assert list(found) == ["universal", "crl-free", "crl-mlp", "crl"]
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
    vlm = f"{two}/vlm"
    assert (found["crl"]["vlm"], found["crl"]["vlm_fingerprint"]) == (vlm, f"toy-{vlm}")
    assert (found["crl"]["from"], found["crl-mlp"]["from"]) == (str(two), str(one))
    assert (found["crl"]["values"], found["crl"]["images"]) == (VALUES, 39)
    folder = root.parent.name
    assert found["crl-mlp"]["basis"] == f"{folder}/*" and found["crl-mlp"]["texts"] == 4
    asked = table(root, "query")
    there = {tuple(row[1:]) for row in table(root, "candidate")}
    none = sum(tuple(row[1:]) not in there for row in asked)
    assert none > 0 and {cell["without_relevant"] for cell in found.values()} == {none}
    says = f"note: DeepFashion: {none} of {len(asked)} queries have no relevant candidate"
    assert out.count(says) == 1 and out.count("note") == 1 and out.count(f"{folder}/* (4)") == 3
    assert toy["clip-b16"].images == 39  # each once, and not the one that nothing names
    pictures = results(root).parent.glob("top-5-*.png")
    pictures = sorted(file.name.rpartition("-")[0] for file in pictures)
    assert pictures == [f"top-5-{method}-clip-b16" for method in ("crl", "crl-free", "crl-mlp")]

    before = results(root).read_bytes()
    monkeypatch.setattr(evaluate, "measure", None)  # a second run measures and draws nothing
    monkeypatch.setattr(evaluate, "draw", None)
    assert start(f"trained=[{one}, {two}]") == out
    assert results(root).read_bytes() == before


def test_trained_brings_its_own_vlm_and_bases(root, toy, start):
    folder = root.parent / "mlp"
    expected = write_stage(folder, root, vlm="other", vlm_fingerprint="toy-other")
    for attribute in ATTRIBUTES:  # the files are not read again
        (root.parent / f"{attribute}.yaml").unlink()
    own = {"texture": "deepfashion_texture", "style": "deepfashion_style"}
    start(f"trained={folder}", f"bases={json.dumps(own)}", "texts=3", "figures=false")
    free, cell = cells(root)[1:]
    assert (free["basis"], free["texts"]) == ("deepfashion_*", 3)
    assert (cell["label"], cell["texts"]) == ("other", 4)
    represented = [conditional(root, a, expected) for a in range(2)]
    scores = slow_scores(root, represented)
    assert cell["scores"]["crl-mlp"] == pytest.approx(scores, abs=1e-3)


def test_heads_of_the_authors_take_the_bases_of_the_configuration(root, toy, start):
    heads, file = some_heads(root, 3), root.parent / "best_model.pth"
    torch.save({"epoch": 1, "model": heads.state_dict(), "mAP": 0.1}, file)
    start(f"heads={file}", "figures=false")
    cell = cells(root)[-1]
    scores = slow_scores(root, [conditional(root, a, heads) for a in range(2)])
    assert cell["scores"]["crl-mlp"] == pytest.approx(scores, abs=1e-3)
    assert cell["from"] == str(file)


# --- beyond the paper -----------------------------------------------------------------------------


def beyond(root, attribute, sharpness=None, removed=None):
    """R (N, K_a) of the basis as it is, or R' with a sharpness, one image and text at a time."""
    image, texts = embeddings(root)
    text = l2(texts[attribute].astype(float))
    image = l2(image.astype(float))[:39]  # nothing names the last one
    if removed is not None:
        image = np.array([x - sum((x @ d) * d for d in removed) for x in image])
        image = np.array([x / np.linalg.norm(x) for x in image])
    r = np.array([[x @ t for t in text] for x in image])
    if sharpness is not None:
        sigma = np.mean([np.std(row) for row in r])
        r = np.sqrt([np.exp(sharpness * row / sigma) for row in r])
    return np.array([row / np.linalg.norm(row) for row in r])


def by_representation(root):
    return {c["representation"]: c for c in cells(root) if c["method"] == "crl-free"}


def test_a_row_for_each_representation(root, toy, start):
    out = start("representation=[paper,posterior]", "sharpness=2")
    found = by_representation(root)
    assert list(found) == ["paper", "posterior (2)"]
    expected = {
        "paper": [conditional(root, a) for a in range(2)],
        "posterior (2)": [beyond(root, a, sharpness=2) for a in range(2)],
    }
    for name, represented in expected.items():
        scores = slow_scores(root, represented)
        assert found[name]["scores"]["crl-free"] == pytest.approx(scores, abs=1e-3), name
    assert "  CRL† (no training)  " in out and "  CRL†, posterior (2) (no training)  " in out
    pictures = [file.name for file in results(root).parent.glob("top-5-crl-free-*.png")]
    assert sum("posterior-2" in name for name in pictures) == 1 and len(pictures) == 2
    start("representation=posterior", "figures=no")  # another sharpness replaces none
    again = by_representation(root)
    assert set(again) == {*found, "posterior"}
    assert all(again[name] == found[name] for name in found)
    scores = slow_scores(root, [beyond(root, a, sharpness=1) for a in range(2)])
    assert again["posterior"]["scores"]["crl-free"] == pytest.approx(scores, abs=1e-3)


def test_a_posterior_of_embeddings_from_a_file(root, toy, start, run):
    image, texts = embeddings(root)
    tables = {kind: table(root, kind) for kind in ("query", "candidate")}
    file = root.parent / "features.npz"
    np.savez(file, image=image[:39], **tables, **{f"text{a}": t for a, t in enumerate(texts)})
    settings = [f"features={file}", f"outputs={root.parent}/out", "representation=posterior"]
    code, _, errors = run(evaluate.main, *settings)
    assert code == 0, errors
    scores = slow_scores(root, [beyond(root, a, sharpness=1) for a in range(2)])
    found = by_representation(root)["posterior"]["scores"]["crl-free"]
    assert list(found.values()) == pytest.approx(list(scores.values()), abs=1e-3)


def test_the_null_space_of_the_own_basis_is_none(root, toy, start):
    """Of each attribute: what the basis of style explains is removed for texture only."""
    settings = ["representation=posterior", "figures=no"]
    start(*settings)
    expected = by_representation(root)["posterior"]["scores"]["crl-free"]
    for number, name in enumerate(ATTRIBUTES):
        start(*settings, f"null_space={root.parent}/{name}.yaml", "rank=1")
        found = cells(root)[1]["scores"]["crl-free"]
        assert found[name] == expected[name]
        assert found[ATTRIBUTES[1 - number]] != expected[ATTRIBUTES[1 - number]]


def test_the_null_space_of_other_bases(root, toy, start):
    basis = TextBasis(criterion="x", vlm_prompt="a {text}", texts=["dog", "red", "town", "tea"])
    basis.save(root.parent / "mine.yaml")
    settings = [f"null_space={root.parent}/mine.yaml", "rank=1", "figures=no"]
    out = start("representation=[paper,posterior]", *settings)
    text = l2(ToyVLM().encode_texts(basis.prompts).numpy().astype(float))
    centred = text - text.mean(axis=0)
    removed = np.linalg.eigh(centred.T @ centred)[1][:, -1:].T
    found = by_representation(root)
    for name, sharpness in (("paper", None), ("posterior", 1)):
        scores = slow_scores(root, [beyond(root, a, sharpness, removed) for a in range(2)])
        cell = found[f"{name}, null space of 1"]
        assert cell["scores"]["crl-free"] == pytest.approx(scores, abs=1e-3), name
        assert f"  CRL†, {name}, null space of 1 (no training)  " in out


def test_an_overlap_of_criteria_is_a_note(root, toy, run):
    like = f"null_space={root.parent}/texture.yaml"
    basis = TextBasis.load(str(root.parent / "texture.yaml"))
    basis.first(3).save(root.parent / "texture.yaml")
    own = {"texture": f"{root.parent}/other.yaml", "style": f"{root.parent}/style.yaml"}
    basis.save(root.parent / "other.yaml")
    settings = [*arguments(root)[:3], f"bases={json.dumps(own)}", like, "rank=2", "figures=no"]
    code, _, errors = run(evaluate.main, *settings)
    assert code == 0
    says = [line for line in errors.splitlines() if "the basis for 'texture' says" in line]
    assert len(says) == 1 and says[0].startswith("note: null_space: ")


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (None, "-"),
        ([["texture 1", "TEXTURE  3", "no"], ["style 6", *"abcd"]], "3/8"),
        ([["texture 4", "a", "b"], ["texture 1", *"abcd"]], "0/8"),  # of each, its own basis
    ],
)
def test_how_many_values_the_bases_name(root, toy, start, names, shown):
    meta = json.loads((root / "meta.json").read_text())
    if names is not None:
        meta["DeepFashion"]["VALUE_NAMES"] = names
    (root / "meta.json").write_text(json.dumps(meta))
    out = start("figures=no")
    [cell] = by_representation(root).values()
    assert cell["names"] == shown
    [line] = [line for line in out.splitlines() if "CRL†" in line]
    assert f"  {shown}  " in line and "names" in out


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


def write_rival(folder, model=None, **changes):
    record = {"method": "csn", "weights": "rival.safetensors", "attributes": ATTRIBUTES}
    record |= {"tower": "resnet50", "width": 4}
    folder.mkdir(exist_ok=True)
    save_tensors(folder / "rival.safetensors", model or nn.Linear(1, 1))
    (folder / "results.json").write_text(json.dumps({**record, **changes}))
    return folder


@pytest.fixture
def masked(monkeypatch):
    """The folder `no<seed>` holds the rival of that seed; gives those that were loaded, by name."""
    loaded = {}

    def load(folder, record, device):
        assert record["method"] == "csn" and device.type == "cpu"
        loaded[folder.name] = Masked(int(folder.name[2:])).eval()
        return loaded[folder.name]

    monkeypatch.setattr(inputs, "load_rival", load)
    return loaded


def test_a_rival_on_the_same_images(root, toy, masked, start):
    folder = write_rival(root.parent / "no5")
    settings = [f"trained={folder}", "device=cpu", "workers=1", "embed_batch=7"]
    out = start(*settings)
    *_, cell = cells(root)
    assert (cell["method"], cell["label"], cell["from"]) == ("csn", "resnet50", str(folder))
    assert cell["queries"] == len(table(root, "query")) and cell["images"] == 39
    mask = Masked(5).mask.detach().numpy().astype(float)
    represented = [l2(embeddings(root)[0] * mask[a]) for a in range(2)]
    assert cell["scores"] == {"csn": pytest.approx(slow_scores(root, represented), abs=1e-3)}
    assert masked["no5"].images == 39  # each once, for both attributes, scores and figure
    assert len(list(results(root).parent.glob("top-5-csn-resnet50-*.png"))) == 1
    names = [" ".join(line.split()[1:5]) for line in out.splitlines() if line[:4] == "Deep"]
    assert names[:4] == [
        "- - - Random", "- - - Random,", "resnet50 - - CSN", "clip-b16 - - universal:"
    ]  # fmt: skip

    before = results(root).read_bytes()
    assert start(*settings) == out
    assert masked["no5"].images == 0 and results(root).read_bytes() == before
    # Another image: measured again
    (root / "img/003.png").write_bytes((root / "img/004.png").read_bytes())
    start(*settings, "figures=false")
    assert masked["no5"].images == 39 and results(root).read_bytes() != before
    assert len(cells(root)) == 3  # in the place of the former results


def test_a_real_rival(root, toy, start, refusal, monkeypatch):
    tower = Tower("toy", nn.Linear(3 * SIDE * SIDE, 9), ToyVLM().preprocess, 9, "f")
    tower = tower._replace(module=nn.Sequential(nn.Flatten(), tower.module))
    monkeypatch.setattr(rivals, "open_tower", lambda *_, **__: tower)
    monkeypatch.setattr(rivals, "check_tower", lambda _: None)
    torch.manual_seed(0)
    rival = rivals.CSN(tower, attributes=2, width=8)
    folder = write_rival(root.parent / "csn", rival, tower="toy", width=8)
    settings = [f"trained={folder}", "device=cpu", "workers=1", "figures=false"]
    start(*settings)
    *_, cell = cells(root)
    files = [root / "img" / f"{n:03}.png" for n in range(IMAGES)]
    pixels = np.stack([rival.preprocess(open_image(file)).flatten().numpy() for file in files])
    pixels = tower.module[1](torch.from_numpy(pixels)).detach().numpy()
    weight, bias, mask = (
        tensor.detach().numpy().astype(float)
        for tensor in (rival.embedding.weight, rival.embedding.bias, rival.mask)
    )
    represented = [l2((pixels @ weight.T + bias) * mask[a].clip(0)) for a in range(2)]
    assert cell["scores"]["csn"] == pytest.approx(slow_scores(root, represented), abs=1e-3)


# --- several results side by side -----------------------------------------------------------------


def rows(root, method):
    """Of all results: model and mean, as the table shows them."""
    lines = tables.table(cells(root), "title").text().splitlines()
    shown = [line.split("  ") for line in lines if f"  {tables.METHODS[method]}  " in line]
    shown = [[part.strip() for part in line if part.strip()] for line in shown]
    return {line[1]: line[-2] for line in shown}


def test_other_heads_backbones_and_rivals_stand_beside(root, toy, masked, start):
    options = ["device=cpu", "workers=1", "figures=false"]
    folders = []
    for seed in (0, 1):
        mlp, backbone = root.parent / f"mlp{seed}", root.parent / f"backbone{seed}"
        write_stage(mlp, root, seed), write_stage(backbone, root, seed, method="crl")
        folders.append([mlp, backbone, write_rival(root.parent / f"no{seed}")])
        out = start(*options, f"trained=[{', '.join(map(str, folders[-1]))}]")
        assert "[" not in out  # a run shows its own results, of one kind each
    assert len(cells(root)) == 2 + 2 * 3  # the VLM itself is the same
    for method in ("universal", "crl-free"):
        assert list(rows(root, method)) == ["clip-b16"]
    for method, label in (("crl-mlp", "clip-b16"), ("crl", "clip-b16"), ("csn", "resnet50")):
        mine = [cell for cell in cells(root) if cell["method"] == method]
        assert rows(root, method) == {
            f"{label} [{cell['variant']}]": f"{cell['scores'][method]['mean']:.2f}" for cell in mine
        }
        assert len(set(rows(root, method))) == 2, method
    notes = tables.notes(cells(root))
    assert len(notes) == 7 and notes[-1].startswith("DeepFashion: ")
    for folder in folders[0] + folders[1]:
        assert sum(f"from {folder}" in note for note in notes) == 1
    assert sum("resnet50 [" in note and "CSN: " in note for note in notes) == 2

    keys = [cell["key"] for cell in cells(root)]
    start(*options, f"trained=[{', '.join(map(str, folders[1]))}]", "seed=1")
    again = [cell["key"] for cell in cells(root)]  # those of the last run are measured again
    assert len(again) == 8 and len(set(again) & set(keys)) == 3
    # Another basis has a name of its own in the table, and needs no mark.
    basis = TextBasis.load(str(root.parent / "style.yaml"))
    (root.parent / "other").mkdir()
    basis.first(6).save(root.parent / "other/style.yaml")
    start(
        *options,
        f"bases={json.dumps(bases_of(root) | {'style': f'{root.parent}/other/style.yaml'})}",
    )
    assert [cell["basis"] for cell in cells(root) if cell["method"] == "crl-free"] == [
        f"{root.parent.name}/*, other/*",
        f"{root.parent.name}/*",
    ]
    assert list(rows(root, "crl-free")) == list(rows(root, "universal")) == ["clip-b16"]


def test_a_run_that_dies_leaves_no_half_results(root, toy, run, start, monkeypatch):
    def die(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(evaluate, "random_draw", die)
        assert run(evaluate.main, *arguments(root))[0] == 130
    assert not results(root).exists()
    with monkeypatch.context() as patched:  # numbers are kept though the figure is not drawn
        patched.setattr("crl.run.figures.plt.Figure.savefig", die)
        assert run(evaluate.main, *arguments(root))[0] == 130
    assert [file.name for file in results(root).parent.iterdir()] == ["results.json"]
    start()
    assert len(list(results(root).parent.glob("top-5-crl-free-*.png"))) == 1


def test_the_figure_marks_what_is_right(root, toy, start, monkeypatch):
    folder = root.parent / "mlp"
    heads = write_stage(folder, root)
    drawn = {}
    monkeypatch.setattr(
        evaluate, "retrieval_sheet", lambda rows, title, file: drawn.update({title: rows})
    )
    start(f"trained={folder}")
    assert list(drawn) == [
        f"clip-b16, DeepFashion: {method} below universal (green: right)"
        for method in ("CRL† (no training)", "CRL, heads trained")
    ]
    asked, there = table(root, "query"), table(root, "candidate")
    for sheet, head in zip(drawn.values(), (None, heads), strict=True):
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
