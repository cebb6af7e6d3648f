"""Training CC and SCAN: they learn; killed and resumed against undisturbed; rows of the table."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from disturbed import finished, interrupted
from PIL import Image
from safetensors.torch import load_file, save_file

from classification_clustering import clustering, train_rival
from classification_clustering.method import clustering_scores, kmeans
from classification_clustering.rivals import METHODS
from classification_clustering.rivals.config import RivalConfig
from classification_clustering.train_rival import RivalTrainer
from crl.projection import l2
from crl.run.errors import UserError

COLORS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}
STAGES = [{"epochs": n, "batch_size": 8, "lr": lr} for n, lr in ((2, 0.05), (3, 1e-3), (2, 1e-3))]
OF = {"cc": {"epochs": 4, "lr": 1e-3}, "scan": {"stages": STAGES, "neighbours": 3}}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """27 noisy pictures of three colors, a folder for each."""
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for name, color in COLORS.items():
        (root / "color" / name).mkdir(parents=True)
        for number in range(9):
            pixels = np.clip(color + rng.normal(0, 25, (20, 24, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / "color" / name / f"{number}.png")
    return root


def small(pictures, outputs):
    sizes = {"network": "tiny", "size": 16, "batch_size": 8, "workers": 1, "confidence": 0.34}
    places = {"root": pictures, "outputs": outputs, "device": "cpu"}
    return {**places, **sizes, "data": "folder", "criteria": ["color"]}


@pytest.fixture
def keys(tmp_path, pictures):
    return small(pictures, tmp_path / "outputs")


def trainer(keys, method, **more):
    return RivalTrainer(RivalConfig(**{**keys, **OF[method], **more}, method=method), "cpu")


def train(keys, method, **more):
    return finished(trainer(keys, method, **more))


@pytest.fixture(scope="module")
def whole(pictures, tmp_path_factory):
    """An undisturbed training of each method: trainer, folder and results.json."""
    keys = small(pictures, tmp_path_factory.mktemp("whole"))
    trainers = {method: trainer(keys, method, name=method) for method in OF}
    return {method: (one, *finished(one)) for method, one in trainers.items()}


def weights(folder):
    files = [load_file(folder / f"{name}.safetensors") for name in ("rival", "clusters")]
    return {key: tensor for file in files for key, tensor in file.items()}


def equal(one, other):
    one, other = weights(one), weights(other)
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_cc_learns_and_says_so(keys, capsys):
    folder, results = train(keys, "cc", epochs=12, lr=3e-3, validate_every=3)
    assert np.mean(results["losses"][-4:]) < 0.9 * results["losses"][0]
    assert [scores["epoch"] for scores in results["validation"]] == [3, 6, 9, 12]
    assert results["best"] == results["validation"][-1]  # the last, as the authors have it
    assert "views_agree" in capsys.readouterr().out
    assert results["images"] == 27 and results["clusters"] == 3
    network = METHODS["cc"](RivalConfig(**keys), RivalTrainer(RivalConfig(**keys), "cpu").data,
                            torch.device("cpu")).network  # fmt: skip
    network.load_state_dict(load_file(folder / "rival.safetensors"))
    assert results["parameters"] == sum(p.numel() for p in network.parameters())
    probabilities = load_file(folder / "clusters.safetensors")["probabilities"]
    files = sorted((keys["root"] / "color").glob("*/*.png"), key=str)
    for file, row in zip(sorted(files), probabilities, strict=True):
        small = Image.open(file).resize((16, 16), Image.Resampling.BILINEAR)
        x = torch.from_numpy(np.array(small)).permute(2, 0, 1)[None].float() / 255
        names = ("blue", "green", "red")
        assert file.parent.name in names
        with torch.no_grad():
            assert torch.allclose(network.eval()(x)[0], row, atol=1e-5)


def test_scan_passes_on_the_weights_of_the_lowest_validation_loss(whole):
    trainer, _, results = whole["scan"]
    assert [len(scores) for scores in results["validation"]] == [1, 1, 5, 5, 5, 5, 5]
    losses = [scores["validation_loss"] for scores in results["validation"][2:5]]
    between = trainer.method.between
    assert between.lowest.item() == pytest.approx(min(losses))
    method = trainer.method
    method.begin(2)
    assert all(torch.equal(value, method.network.state_dict()[key])
               for key, value in between.best.state_dict().items())  # fmt: skip
    with torch.no_grad():
        assert method.scores(2)["validation_loss"] == pytest.approx(min(losses), abs=1e-5)
    rates = [method.rate(0, epoch) for epoch in range(3)]
    assert rates == pytest.approx([0.05, 0.05 * 0.5005, 0.05 * 0.001])
    assert method.rate(1, 2) == 1e-3


@pytest.mark.parametrize(
    ("method", "calls"),
    # In 3 steps an epoch: the 5th; of scan also the first and third steps of the later stages
    [("cc", [5]), ("scan", [5, 3, 3, 8, 3])],
)
def test_seed_decides_and_interruptions_do_not(keys, whole, method, calls):
    keys |= {"checkpoint_every": 1}
    for call in calls:
        with interrupted(METHODS[method], "loss", call):
            train(keys, method)
    if method == "scan":  # when no image is sure, the first stages stay
        with pytest.raises(UserError, match="start again with a lower confidence="):
            train(keys, method, confidence=0.9999)
    folder, parts = train(keys, method)
    _, whole_folder, results = whole[method]
    assert parts["losses"] == results["losses"] and parts["validation"] == results["validation"]
    assert equal(folder, whole_folder)
    if method == "cc":
        other = train(keys, method, name="other", seed=1, epochs=1)[1]
        assert other["losses"][0] != results["losses"][0]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"batch_size": 28}, "27 images do not fill a batch of 28; lower batch_size"),
        ({"method": "scan"}, "scan has three stages, the others none"),
        ({"method": "scan", "stages": STAGES, "epochs": 9}, "epochs must be that of all stages, 7"),
        (
            {"method": "scan", "stages": STAGES, "neighbours": 27},
            "27 images have fewer than 27 neig",
        ),
        ({"data": "cloth"}, "unknown data set 'cloth'"),
        ({"criteria": "mood"}, "there is no folder .*mood"),
        ({"criteria": "[color, copy]"}, "color, copy differ in images or number of classes; train"),
    ],
)
def test_what_cannot_be_trained_is_refused(keys, refusal, more, message):
    place = keys["root"] / "copy"
    if not place.exists():
        place.symlink_to(keys["root"] / "color")
    values = {key: json.dumps(value) if isinstance(value, list) else value
              for key, value in {**keys, **more}.items()}  # fmt: skip
    line = refusal(train_rival.main, **values)
    assert re.search(message, line), line


def test_a_damaged_picture_is_named(keys, refusal, tmp_path):
    for name in ("a", "b"):
        (tmp_path / "bad/color" / name).mkdir(parents=True)
        (tmp_path / f"bad/color/{name}/1.png").write_text("no picture")
    line = refusal(train_rival.main, **{**keys, "root": tmp_path / "bad", "batch_size": 2,
                                        "criteria": "color"})  # fmt: skip
    assert "cannot read the image" in line and "1.png" in line
    assert not list(keys["outputs"].glob("*/*/*"))


def test_another_training_in_the_folder(whole):
    keys = whole["cc"][0].config.model_dump(exclude={"method", "epochs", "lr"})
    for changed in ({"lr": 0.5}, {"size": 17}, {"jitter": 1.0}):
        with pytest.raises(UserError, match="cc holds another training"):
            train(keys, "cc", **changed)


# --- rows of clustering.py ------------------------------------------------------------------------


@pytest.fixture
def table(keys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts.yaml").write_text(
        "criterion: color\nvlm_prompt: a {text} thing\ntexts: [red, green, blue]\n"
    )
    return {
        "data": "folder", "root": keys["root"], "criteria": "[color]", "vlm": "color_vlm:ColorVLM",
        "bases": "{color: texts.yaml}", "seeds": 3, "figures": "no", "cache": tmp_path / "cache",
    }  # fmt: skip


def rows(tmp_path):
    content = json.loads((tmp_path / "outputs/clustering/run/results.json").read_text())
    return {row["about"]["method"]: row for row in content["rows"]}


def test_rivals_have_rows_beside_ours(whole, table, tmp_path, output):
    _, folder, results = whole["cc"]
    printed = output(clustering.main, **table, rivals=f"[{folder}]")
    assert list(rows(tmp_path)) == ["universal", "paper", "cc", "zero-shot"]
    row, labels = rows(tmp_path)["cc"], np.repeat([0, 1, 2], 9)
    probabilities = load_file(folder / "clusters.safetensors")["probabilities"].numpy()
    expected = clustering_scores(labels, probabilities.argmax(1))
    assert {metric: value["mean"] for metric, value in row["scores"].items()} == expected
    assert row["about"]["vlm"] == "-" and re.search(r"-\s+folder color\s+cc\s+-", printed)
    assert row["training_seconds"] == results["seconds"] and row["parameters"] > 300_000
    before = (tmp_path / "outputs/clustering/run/results.json").read_bytes()
    output(clustering.main, **table, rivals=f"[{folder}, {folder}]")
    assert (tmp_path / "outputs/clustering/run/results.json").read_bytes() == before
    # A rival that gives features: k-means with the protocol's seeds; and a second one's name
    content = json.loads((folder / "results.json").read_text()) | {"form": "features"}
    other = folder.with_name("other")
    other.mkdir()
    (other / "results.json").write_text(json.dumps(content))
    x = torch.randn(27, 4, generator=torch.Generator().manual_seed(0))
    save_file({"features": x}, other / "clusters.safetensors")
    output(clustering.main, **table, rivals=f"[{folder}, {other}]")
    nmi = rows(tmp_path)["cc (other)"]["scores"]["nmi"]["seeds"]
    for seed in range(3):
        clusters = kmeans(l2(x.numpy()), 3, seed)
        assert nmi[seed] == pytest.approx(clustering_scores(labels, clusters)["nmi"])


def test_what_is_no_rival_of_these_images_is_refused(whole, table, tmp_path, refusal):
    folder = shutil.copytree(whole["cc"][1], tmp_path / "copy")
    file, table = folder / "results.json", {**table, "rivals": f"[{folder}]"}
    content = json.loads(file.read_text())

    def line(**changed):
        file.write_text(json.dumps(content | changed))
        return refusal(clustering.main, **table)

    assert "was trained on other images than those of color are now" in line(content="0" * 16)
    assert "was trained for cards color, not for folder color" in line(data="cards")
    assert "was trained for folder mood, not for folder color" in line(criteria=["mood"])
    assert "must hold features (27, D)" in line(form="features")
    assert "must hold probabilities (5, D)" in line(images=5)
    assert "is not of train_rival.py" in line(parameters=None)
    file.write_text(json.dumps(content))
    (folder / "clusters.safetensors").unlink()
    assert "has not ended; start it again" in refusal(clustering.main, **table)
    file.unlink()
    assert "holds no training of train_rival.py" in refusal(clustering.main, **table)
