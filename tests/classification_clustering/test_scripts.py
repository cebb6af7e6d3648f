"""Few-shot and clustering: the protocol against a literal transcription, and the commands."""

import json

import numpy as np
import pytest
import torch
from commands import REPOSITORY, run_python
from demo_worlds import cards, clevr4
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from classification_clustering import clustering, few_shot


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """Embeddings made elsewhere: 4 classes that overlap, of any length, labels as names."""
    rng = np.random.default_rng(0)
    labels = np.repeat(["ash", "elm", "fir", "oak"], [30, 25, 35, 28])
    centers = rng.normal(size=(4, 16))
    image = centers[np.unique(labels, return_inverse=True)[1]] + rng.normal(size=(118, 16))
    file = tmp_path_factory.mktemp("features") / "mine.npz"
    np.savez(file, image=image, text=rng.normal(size=(9, 16)) * 3, labels=labels)
    return file


def results(folder):
    return json.loads((folder / "results.json").read_text())["cells"]


def protocol_inputs(file):
    """I and T with L2-normalised rows, and labels, as torch would compute them (float32)."""
    with np.load(file) as data:
        image, text, labels = data["image"], data["text"], data["labels"]
    image = torch.nn.functional.normalize(torch.from_numpy(image).float(), dim=-1)
    text = torch.nn.functional.normalize(torch.from_numpy(text).float(), dim=-1)
    return image, text, np.unique(labels, return_inverse=True)[1]


def literal_accuracy(labels, clusters):
    """Hungarian match on a cost table filled pair by pair."""
    cost = np.zeros((4, 4))
    for a, b in zip(labels, clusters, strict=True):
        cost[b, a] -= 1
    return -cost[linear_sum_assignment(cost)].sum() / len(labels)


def test_clustering_is_the_papers_protocol(features, tmp_path, run):
    code, printed, errors = run(clustering.main, f"features={features}", "seeds=4", "name=mine")
    assert code == 0, errors
    image, text, labels = protocol_inputs(features)
    r = torch.nn.functional.normalize(image @ text.T, dim=-1)
    [cell] = results(tmp_path / "outputs/clustering/mine")
    assert (cell["images"], cell["texts"], cell["classes"]) == (118, 9, 4)
    for name, x in (("universal", image), ("conditional", r)):
        for seed in range(4):
            clusters = KMeans(n_clusters=4, n_init="auto", random_state=seed).fit_predict(x.numpy())
            expected = {
                "nmi": normalized_mutual_info_score(labels, clusters),
                "acc": literal_accuracy(labels, clusters),
                "ari": adjusted_rand_score(labels, clusters),
            }
            for metric, value in expected.items():
                got = cell["scores"][name][metric]["seeds"][seed]
                assert got == pytest.approx(100 * value, abs=1e-4), (name, seed, metric)
    assert "nmi I" in printed and "outputs/clustering/mine" in printed
    assert "zero-shot" not in cell["scores"]  # the file does not name the classes


def test_few_shot_is_the_papers_protocol(features, tmp_path, run):
    arguments = [f"features={features}", "seeds=3", "shots=[1,5]", "name=mine"]
    code, _, errors = run(few_shot.main, *arguments)
    assert code == 0, errors
    image, text, labels = protocol_inputs(features)
    r = image @ text.T
    r = (r - r.mean()) / r.std(dim=1, keepdim=True)  # torch's std is the unbiased one
    [cell] = results(tmp_path / "outputs/few_shot/mine")
    for name, x in (("universal", image.numpy()), ("conditional", r.numpy())):
        for shots in (1, 5):
            for seed in range(3):
                np.random.seed(seed)
                train, test = [], []
                for label in sorted(set(labels)):
                    indices = np.where(labels == label)[0]
                    np.random.shuffle(indices)
                    train.extend(indices[:shots])
                    test.extend(indices[shots:])
                classifier = LogisticRegression(max_iter=1000)
                classifier.fit(x[train], labels[train])
                expected = 100 * (classifier.predict(x[test]) == labels[test]).mean()
                got = cell["scores"][name][f"{shots}-shot"]["seeds"][seed]
                assert got == pytest.approx(expected, abs=1e-4), (name, shots, seed)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A folder with small demo data, where clustering.py has run once as a program."""
    folder = tmp_path_factory.mktemp("demo")
    clevr4.write(folder / "data", images=240, seed=11, workers=2)
    cards.write(folder / "data", images=240, seed=11, workers=2)
    (folder / "small.yaml").write_text(
        f"data: clevr4\nroot: {folder}/data\noutputs: {folder}/outputs\n"
        "criteria: [shape, color]\nvlm: demo\nseeds: 2\n"
    )
    script = REPOSITORY / "classification_clustering/clustering.py"
    done = run_python(script, "--config", folder / "small.yaml")
    assert done.returncode == 0, done.stderr
    return folder


def test_a_run_records_what_it_measured_and_on_what(demo):
    cells = results(demo / "outputs/clustering/small")
    assert [cell["criterion"] for cell in cells] == ["shape", "color"]
    for cell in cells:
        assert cell["images"] == 240 and cell["left_out"] == 0 and cell["classes"] == 10
        assert cell["config"]["seeds"] == 2 and cell["config"]["data"] == "clevr4"
        assert {"packages", "commit", "dirty", "gpu"} <= cell["environment"].keys()
        assert cell["device"] == "cpu" and cell["precision"] == "fp32"
        assert cell["basis"] == f"clevr4_{cell['criterion']}"
        assert cell["basis_hash"] and cell["vlm_fingerprint"] and cell["seconds"] > 0
        assert set(cell["scores"]) == {"universal", "conditional", "zero-shot"}
    drawn = sorted(file.name for file in (demo / "outputs/clustering/small").iterdir())
    kinds = ["clusters-demo-color", "clusters-demo-shape", "results.json", "tsne-demo-color"]
    kinds.append("tsne-demo-shape")
    assert [name.rpartition("-")[0] or name for name in drawn] == kinds


def test_running_again_computes_nothing_and_changes_nothing(demo, run):
    file = demo / "outputs/clustering/small/results.json"
    before, stamp = file.read_text(), file.stat().st_mtime_ns
    code, printed, _ = run(clustering.main, "--config", demo / "small.yaml")
    assert code == 0 and "demo" in printed
    assert file.read_text() == before and file.stat().st_mtime_ns == stamp


def test_one_more_criterion_keeps_what_is_there(demo, run):
    before = {cell["key"]: cell for cell in results(demo / "outputs/clustering/small")}
    arguments = ["--config", demo / "small.yaml", "criteria=count", "figures=false"]
    code, _, errors = run(clustering.main, *arguments)
    assert code == 0, errors
    after = {cell["key"]: cell for cell in results(demo / "outputs/clustering/small")}
    assert len(after) == 3 and before.items() <= after.items()


def test_other_bases_do_not_replace_each_other(demo, tmp_path, run):
    arguments = ["data=clevr4", f"root={demo}/data", "criteria=color", "vlm=demo", "figures=false"]
    for texts in (10, 20, 10):
        code, _, errors = run(few_shot.main, *arguments, f"texts={texts}", "shots=1", "seeds=1")
        assert code == 0, errors
    cells = results(tmp_path / "outputs/few_shot/run")
    assert sorted(cell["texts"] for cell in cells) == [10, 20]


def test_few_shot_on_cards_with_the_first_texts_only(demo, tmp_path, run):
    arguments = ["data=cards", f"root={demo}/data", "criteria=[number,suits]", "vlm=demo"]
    code, printed, errors = run(few_shot.main, *arguments, "texts=20", "shots=1", "seeds=2")
    assert code == 0, errors
    cells = results(tmp_path / "outputs/few_shot/run")
    assert [(cell["classes"], cell["texts"]) for cell in cells] == [(13, 20), (4, 20)]
    assert "1-shot R" in printed and "cards_suits (20)" in printed
