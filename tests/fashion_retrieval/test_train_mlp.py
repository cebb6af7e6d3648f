"""Stage 1 of fashion retrieval: triplets against their rules, the loss against a loop, killed and
resumed against undisturbed, a problem that it learns; every message."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import toy_vlm
import yaml
from PIL import Image
from torch.nn import functional as F

from crl.run.errors import UserError
from crl.projection import l2
from crl.run.weights import read_about
from fashion_retrieval import representation, training
from fashion_retrieval import train_mlp as module
from fashion_retrieval.heads import load_heads
from fashion_retrieval.train_mlp import MlpConfig
from fashion_retrieval.training import Progress, Triplets, triplet_loss

from commands import REPOSITORY

# --- triplets and their loss ----------------------------------------------------------------------

# attribute 0: values of 3, 2, 1 and 0 images (and 4 of another value); attribute 1: 2 and 2
LABELS = np.array(
    """0 0 0  5 0 0  2 0 0  3 0 1  4 0 1  6 0 2  6 0 5  7 0 5  8 0 5  9 0 5
       0 1 1  3 1 1  5 1 0  7 1 0  5 0 0  6 0 2""".split(),
    np.int64,
).reshape(-1, 3)  # the last two stand twice: an image is no positive of itself


def test_every_triplet_keeps_the_rules():
    triplets = Triplets(LABELS)
    assert sorted(map(tuple, triplets.labels)) == sorted(set(map(tuple, LABELS)))
    rows = triplets.draw(5000, 0, 0)
    assert rows.shape == (5000, 3)
    known = set(map(tuple, LABELS))
    for anchor, positive, negative in triplets.labels[rows]:
        assert {tuple(anchor), tuple(positive), tuple(negative)} <= known
        assert anchor[1] == positive[1] == negative[1]
        assert anchor[2] == positive[2] != negative[2]
        assert anchor[0] != positive[0]


def test_triplets_are_as_likely_as_they_should_be():
    triplets = Triplets(LABELS)
    images = {}
    for image, attribute, value in set(map(tuple, LABELS)):
        images.setdefault(attribute, {}).setdefault(value, []).append(image)
    expected = {}
    for attribute, values in images.items():
        pairs = [(v, w) for v in values for w in values if v != w and len(values[v]) > 1]
        for v, w in pairs:
            n = len(values[v])
            each = 1 / (2 * len(pairs) * n * (n - 1) * len(values[w]))
            for a in values[v]:
                for p in set(values[v]) - {a}:
                    for x in values[w]:
                        expected[attribute, a, p, x, v, w] = each
    assert sum(expected.values()) == pytest.approx(1)
    count = 400_000
    anchor, positive, negative = triplets.labels[triplets.draw(count, 3, 1)].transpose(1, 2, 0)
    drawn = [anchor[1], anchor[0], positive[0], negative[0], anchor[2], negative[2]]
    kinds, found = np.unique(np.column_stack(drawn), axis=0, return_counts=True)
    assert set(map(tuple, kinds)) == set(expected)
    for kind, n in zip(map(tuple, kinds), found, strict=True):
        deviation = (count * expected[kind] * (1 - expected[kind])) ** 0.5
        assert abs(n - count * expected[kind]) < 5 * deviation


def test_triplets_depend_on_seed_and_epoch_alone():
    draws = [Triplets(LABELS).draw(50, seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert np.array_equal(draws[1], Triplets(LABELS[::-1]).draw(50, 0, 1))
    assert len({draw.tobytes() for draw in draws}) == 4


@pytest.mark.parametrize("attribute", [[(0, 1, 4), (1, 1, 5)], [(0, 1, 4), (1, 1, 4)], []])
def test_attribute_without_triplets(attribute):
    more = [(n, 2, n % 2) for n in range(4)]
    labels = np.array([*LABELS[LABELS[:, 1] == 0].tolist(), *attribute, *more])
    with pytest.raises(UserError, match="attribute 1 makes no triplet"):
        Triplets(labels)


def test_loss_against_a_loop():
    torch.manual_seed(0)
    a, p, n = F.normalize(torch.randn(3, 40, 4, dtype=torch.float64), dim=2)
    each = [max(0.0, 0.3 - float(a[i] @ p[i]) + float(a[i] @ n[i])) for i in range(40)]
    assert 0.0 in each and max(each) > 1
    assert triplet_loss(a, p, n, 0.3).item() == pytest.approx(np.mean(each), abs=1e-12)


# --- training -------------------------------------------------------------------------------------


class Clothes(toy_vlm.ToyVLM):
    """Pictures of one pixel: texture, shape and a number. Embeddings are both values and noise."""

    dim = 16

    def preprocess(self, image):
        return torch.from_numpy(np.asarray(image.convert("RGB"), np.float32)).permute(2, 0, 1)

    def encode_images(self, batch):
        self.images += len(batch)
        texture, shape, number = batch[:, :, 0, 0].long().T
        values = torch.cat([F.one_hot(texture, 4), F.one_hot(shape, 4)], 1).float()
        noise = torch.randn(256, 16, generator=torch.Generator().manual_seed(0))
        return F.pad(values, (0, 8)) + 0.4 * noise[number]

    def encode_texts(self, texts):
        self.texts += texts
        return torch.stack(
            [
                torch.randn(16, generator=torch.Generator().manual_seed(sum(text.encode())))
                for text in texts
            ]
        )


ATTRIBUTES = ("texture", "shape")


def write_clothes(folder):
    """120 pictures to train on, 60 to validate with; -> keys of the configuration."""
    rng = np.random.default_rng(0)
    (folder / "img").mkdir()
    meta = {"ATTRIBUTES": list(ATTRIBUTES), "ATTRIBUTES_NUM": dict.fromkeys(ATTRIBUTES, 4)}
    (folder / "meta.json").write_text(json.dumps({"Clothes": meta}))
    number = 0
    for split, count in (("train", 120), ("valid", 60)):
        names, rows = [], []
        for index in range(count):
            values = rng.integers(4, size=2)
            names.append(f"img/{number:03}.png")
            Image.fromarray(np.uint8([[[*values, number]]])).save(folder / names[-1])
            number += 1
            rows.append([(index, attribute, values[attribute]) for attribute in (0, 1)])
        (folder / f"filenames_{split}.txt").write_text("\n".join(names) + "\n")
        lines = [" ".join(map(str, row)) for pair in rows for row in pair]
        if split == "train":
            lines = [f"{t[0]} {t[1]} {t[2]} {s[1]} {s[2]}" for t, s in rows]
            (folder / "label_train.txt").write_text("\n".join(lines) + "\n")
        else:
            (folder / "query_valid.txt").write_text("\n".join(lines[:40]) + "\n")
            (folder / "candidate_valid.txt").write_text("\n".join(lines[40:]) + "\n")
    bases = {}
    for attribute, count in zip(ATTRIBUTES, (6, 9), strict=True):
        texts = "".join(f"\n- {attribute} {'abcdefghi'[n] * (n + 1)}" for n in range(count))
        bases[attribute] = str(folder / f"{attribute}.yaml")
        Path(bases[attribute]).write_text(
            f"criterion: {attribute}\nvlm_prompt: of {{text}}\ntexts:{texts}\n"
        )
    return {
        "root": str(folder),
        "dataset": "Clothes",
        "bases": bases,
        "vlm": "demo",
        "out": 16,
        "epochs": 4,
        "triplets": 500,
        "batch_size": 64,
        "lr": 3e-3,
        "device": "cpu",
        "workers": 1,
        "cache": str(folder / "cache"),
        "outputs": str(folder / "outputs"),
    }


@pytest.fixture
def vlm(monkeypatch):
    vlm = Clothes("clothes-1")
    monkeypatch.setattr(module, "load_vlm", lambda *_: vlm)
    return vlm


def train(keys, **more):
    config = MlpConfig(**{**keys, **more})
    module.train(config)
    folder = config.outputs / "fashion_mlp" / config.name
    return folder, json.loads((folder / "results.json").read_text())


def test_learns_and_keeps_the_best(tmp_path, vlm):
    keys = write_clothes(tmp_path)
    folder, results = train(keys, epochs=10, triplets=1000, lr=1e-2)
    assert len(results["losses"]) == 10 and results["step"] == 160
    assert results["losses"][-1] < 0.75 * results["losses"][0]
    curve = [found["overall"] for found in results["validation"]]
    assert max(curve) > curve[0] + 3 and results["best"]["overall"] == max(curve)
    assert results["best"]["mean"] == pytest.approx(
        np.mean([results["best"][name] for name in ATTRIBUTES])
    )
    assert vlm.images == 180 and len(vlm.texts) == 15  # each once
    assert results["vlm_fingerprint"] == "clothes-1" and results["environment"]["python"]
    assert results["config"]["margin"] == 0.3 and results["texts"] == 6
    assert sorted(file.name for file in folder.iterdir()) == [
        "config.yaml",
        "heads.safetensors",
        "results.json",
        "state.pt",
    ]
    header = {"vlm": "demo", "vlm_fingerprint": "clothes-1", "precision": "fp32"}
    header |= {"basis_hash": results["basis_hash"]}
    assert read_about(folder / "heads.safetensors") == header
    # The weights on disk are those of the best epoch, measured here query by query.
    heads = load_heads(folder / "heads.safetensors", 2, 6)
    assert literal_map(tmp_path, heads, vlm, keys) == pytest.approx(max(curve), abs=1e-3)


def literal_map(folder, heads, vlm, keys):
    """The mean average precision of all queries, one at a time."""
    names = (folder / "filenames_valid.txt").read_text().split()
    files = [folder / name for name in names]
    pixels = torch.stack([vlm.preprocess(Image.open(file)) for file in files])
    image = l2(vlm.encode_images(pixels).numpy())
    bases = module.text_bases("Clothes", list(ATTRIBUTES), keys["bases"])
    text = module.aligned_texts(vlm, bases, None)

    def embed(row):
        r = torch.from_numpy(l2(image[row[0]] @ text[row[1]].T)).float()
        with torch.no_grad():
            return heads(r[None], torch.tensor([row[1]]))[0]

    query, candidate = (
        [tuple(map(int, line.split())) for line in (folder / name).read_text().splitlines()]
        for name in ("query_valid.txt", "candidate_valid.txt")
    )
    precision = []
    for q in query:
        own = [c for c in candidate if c[1] == q[1]]
        own.sort(key=lambda c: -float(embed(q) @ embed(c)))
        ranks = [rank for rank, c in enumerate(own, 1) if c[2] == q[2]]
        precision.append(np.mean([(n + 1) / rank for n, rank in enumerate(ranks)]))
    return 100 * np.mean(precision)


def test_conditional_representations_row_by_row(monkeypatch):
    rng = np.random.default_rng(0)
    image, text = rng.normal(size=(7, 5)), rng.normal(size=(2, 3, 5))
    rows = np.column_stack([rng.integers(7, size=20), rng.integers(2, size=20)])
    monkeypatch.setattr(representation, "CHUNK", 4)
    represent = representation.conditional(image, text)
    for attribute in (0, 1):
        mine = rows[rows[:, 1] == attribute, 0]
        for x, n in zip(represent(mine, attribute), mine, strict=True):
            r = text[attribute] @ image[n]
            assert np.allclose(x, r / np.linalg.norm(r), atol=1e-6)


def test_same_seed_same_training(tmp_path, vlm):
    keys = write_clothes(tmp_path)
    _, one = train(keys, name="one")
    _, two = train(keys, name="two")
    _, other = train(keys, name="other", seed=1)
    for key in ("losses", "validation"):
        assert one[key] == two[key] != other[key]
    assert [found["epoch"] for found in one["validation"]] == [1, 2, 3, 4]


def test_rate_falls_every_three_epochs(tmp_path, vlm, monkeypatch):
    rates = []

    class Recorded(torch.optim.Adam):
        def step(self):
            rates.append(self.param_groups[0]["lr"])
            super().step()

    monkeypatch.setattr(torch.optim, "Adam", Recorded)
    _, results = train(write_clothes(tmp_path), epochs=7, lr=1.0, triplets=65, validate_every=3)
    assert rates == pytest.approx([1.0] * 6 + [0.9] * 6 + [0.81] * 2)  # two steps an epoch
    assert [found["epoch"] for found in results["validation"]] == [3, 6, 7]


TOY = """
import os, signal, sys
import torch
from fashion_retrieval import train_mlp as module
from test_fashion_training import Clothes
torch.set_num_threads(1)
module.load_vlm = lambda *_: Clothes("clothes-1")
kill_at, loss, calls = int(sys.argv.pop(1)), module.triplet_loss, []
def counted(*arguments):
    calls.append(None)
    if len(calls) == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
    return loss(*arguments)
module.triplet_loss = counted
module.main()
"""


def test_killed_and_resumed_is_the_undisturbed_training(tmp_path, vlm, capsys):
    keys = {**write_clothes(tmp_path), "checkpoint_every": 3}
    (tmp_path / "toy.py").write_text(TOY)
    search = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])
    folder, line = tmp_path / "outputs/fashion_mlp", ""
    settings = [f"{key}={json.dumps(value)}" for key, value in keys.items()]
    for kill_at, kept in ((5, 3), (12, 12)):  # 8 steps an epoch: in the first, then the second
        killed = subprocess.run(
            [sys.executable, str(tmp_path / "toy.py"), str(kill_at), "name=killed", *settings],
            env={**os.environ, "PYTHONPATH": search, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert killed.returncode == -signal.SIGKILL and line in killed.stdout, killed.stderr
        progress = torch.load(folder / "killed/state.pt", weights_only=True)["progress"]
        line = f"going on after step {kept}"
        assert progress["step"] == kept
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    _, one = train(keys, name="killed")
    assert line in capsys.readouterr().out
    _, other = train(keys, name="undisturbed", checkpoint_every=2000)
    torch.set_num_threads(threads)
    assert one["losses"] == other["losses"] and len(one["losses"]) == 4
    assert one["validation"] == other["validation"] and one["step"] == 32
    one, other = (
        torch.load(folder / name / "state.pt", weights_only=True)["model"]
        for name in ("killed", "undisturbed")
    )
    assert all(torch.equal(one[key], other[key]) for key in one)
    one, other = (
        (folder / name / "heads.safetensors").read_bytes() for name in ("killed", "undisturbed")
    )
    assert one == other


def test_finished_training_is_not_done_again_but_can_be_prolonged(tmp_path, vlm, capsys):
    keys = write_clothes(tmp_path)
    folder, _ = train(keys, epochs=2)
    before = {file: file.read_bytes() for file in folder.iterdir()}
    train(keys, epochs=2)
    assert "this training is finished; nothing to do" in capsys.readouterr().out
    assert {file: file.read_bytes() for file in folder.iterdir()} == before
    _, prolonged = train(keys, epochs=4)
    _, whole = train(keys, epochs=4, name="whole")
    assert prolonged["losses"] == whole["losses"]


def test_no_training_ends_without_a_validation(tmp_path, vlm, monkeypatch):
    keys = write_clothes(tmp_path)
    store = training.write_state

    def killed(file, content):
        store(file, content)
        if len(content["progress"]["losses"]) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(training, "write_state", killed)
    with pytest.raises(KeyboardInterrupt):
        train(keys, epochs=9, validate_every=5)
    monkeypatch.setattr(training, "write_state", store)
    folder, results = train(keys, epochs=3, validate_every=5)
    assert [found["epoch"] for found in results["validation"]] == [3] and len(vlm.texts) == 15
    assert results["best"]["epoch"] == 3 and (folder / "heads.safetensors").exists()


def test_stops_when_the_map_does_not_rise(tmp_path, vlm, monkeypatch, capsys):
    monkeypatch.setattr(module, "mean_scores", lambda *_: {"overall": 5.0})
    keys = write_clothes(tmp_path)
    _, results = train(keys, epochs=9, patience=2, triplets=64)
    assert len(results["losses"]) == 3 and results["best"]["epoch"] == 1
    train(keys, epochs=9, patience=2, triplets=64)
    assert "finished" in capsys.readouterr().out
    assert not Progress(validation=[{"overall": 1.0}] * 3).over(MlpConfig(patience=3))


def test_the_vlm_is_untouched(tmp_path, vlm):
    keys = write_clothes(tmp_path)
    vlm.model = torch.nn.Linear(16, 16)  # whatever takes part in the embedding
    encode = vlm.encode_images
    vlm.encode_images = lambda batch: vlm.model(encode(batch)).detach()
    before = {key: tensor.clone() for key, tensor in vlm.model.state_dict().items()}
    train(keys)
    assert all(torch.equal(vlm.model.state_dict()[key], before[key]) for key in before)
    assert all(parameter.grad is None for parameter in vlm.model.parameters())


# --- messages -------------------------------------------------------------------------------------


def refused(match, keys, **more):
    with pytest.raises(UserError, match=match) as caught:
        train(keys, **more)
    assert "\n" not in str(caught.value)


def test_another_training_in_the_folder(tmp_path, vlm):
    keys = write_clothes(tmp_path)
    folder, _ = train(keys, epochs=1)
    before = {file: file.read_bytes() for file in folder.iterdir()}
    refused(r"holds another training \(lr 0.003, not 0.5\); choose another name=", keys, lr=0.5)
    vlm.fingerprint = "clothes-2"
    refused("another training .vlm 'clothes-1', not 'clothes-2'", keys)
    vlm.fingerprint = "clothes-1"
    labels = tmp_path / "label_train.txt"
    text = labels.read_text()
    labels.write_text("".join(labels.read_text().splitlines(keepends=True)[:-1]))
    refused("another training .data ", keys)
    labels.write_text(text)
    train(keys, epochs=1)  # and now it is the same again
    picture = tmp_path / "img/000.png"
    Image.open(picture).resize((2, 2)).save(picture)
    refused("another training .data ", keys)
    assert {file: file.read_bytes() for file in folder.iterdir()} == before


def test_loss_that_is_not_finite(tmp_path, vlm, monkeypatch):
    keys = write_clothes(tmp_path)
    folder, _ = train(keys, epochs=1)
    before = {file: file.read_bytes() for file in folder.iterdir() if file.name != "config.yaml"}
    loss = module.triplet_loss
    monkeypatch.setattr(module, "triplet_loss", lambda *given: loss(*given) * torch.nan)
    refused("the loss of step 9 is not finite; the best weights and the last checkpoint are", keys)
    assert {file: file.read_bytes() for file in before} == before


@pytest.mark.parametrize("checkpoint_every", [3, 2000])
def test_weights_that_are_not_finite(tmp_path, vlm, monkeypatch, checkpoint_every):
    """A finite loss can have gradients that are not."""
    keys = write_clothes(tmp_path)
    folder, _ = train(keys, epochs=1, checkpoint_every=checkpoint_every)
    before = {file: file.read_bytes() for file in folder.iterdir() if file.name != "config.yaml"}

    class Steep(torch.autograd.Function):
        @staticmethod
        def forward(ctx, loss):
            return loss.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * torch.inf

    loss = module.triplet_loss
    monkeypatch.setattr(module, "triplet_loss", lambda *given: Steep.apply(loss(*given)))
    monkeypatch.setattr(training.math, "isfinite", lambda _: True)  # the next loss would show it
    step = 9 if checkpoint_every == 3 else 16
    says = f"the weights after step {step} are not finite; the best weights and the last checkpoint"
    refused(says, keys, checkpoint_every=checkpoint_every)
    assert {file: file.read_bytes() for file in before} == before


def test_full_disk_leaves_the_former_checkpoint(tmp_path, vlm, monkeypatch):
    keys = write_clothes(tmp_path)
    folder, _ = train(keys, epochs=1)
    before = (folder / "state.pt").read_bytes()
    write = Path.write_bytes

    def full(path, data):
        write(path, bytes(data)[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        train(keys, epochs=2)
    assert (folder / "state.pt").read_bytes() == before
    assert not list(folder.glob(".*.tmp"))
    monkeypatch.setattr(Path, "write_bytes", write)
    _, resumed = train(keys, epochs=2)
    _, whole = train(keys, epochs=2, name="whole")
    assert resumed["losses"] == whole["losses"]


def test_wrong_input_before_the_vlm_is_loaded(tmp_path, monkeypatch):
    keys = write_clothes(tmp_path)
    monkeypatch.setattr(module, "load_vlm", lambda *_: pytest.fail("a VLM was loaded"))
    refused("unknown VLM 'nothing'", keys, vlm="nothing")
    refused("no data set 'Cloths'; did you mean 'Clothes'", keys, dataset="Cloths")
    refused("unknown attribute 'colour'", keys, bases={"colour": "x"})
    (tmp_path / "img/150.png").unlink()
    refused("1 of 180 images are missing", keys)
    assert not (tmp_path / "outputs").exists()


def test_vlm_of_several_vectors_an_image(tmp_path, vlm):
    encode = vlm.encode_images
    vlm.encode_images = lambda batch: torch.stack([encode(batch)] * 2, 1)
    refused("toy gives 2 vectors an image", write_clothes(tmp_path))


def test_configurations_of_the_repository():
    from crl.config import load_config

    for name in ("deepfashion_mlp", "demo/garments_mlp"):
        config = load_config(MlpConfig, ["--config", f"{REPOSITORY}/configs/{name}.yaml"], "")
        assert config.margin == training.FitConfig().margin == 0.3
        names = ["texture", "fabric", "shape", "part", "style"]
        assert len(representation.text_bases(config.dataset, names, config.bases)) == 5
    for name in ("garments", "garments_backbone"):  # heads fit the bases that they were trained on
        used = yaml.safe_load((REPOSITORY / f"configs/demo/{name}.yaml").read_text())
        assert (used["dataset"], used["bases"]) == (config.dataset, config.bases)
