"""Few-shot and clustering: the protocol against a literal transcription, and the commands."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from demo_worlds import cards, clevr4
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from classification_clustering import clustering, few_shot
from crl.run.errors import UserError

from commands import REPOSITORY


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


def run(script, *arguments, cwd):
    """Exit code, output and errors of a command, called in this process since a new one is slow."""
    main = {"clustering.py": clustering.main, "few_shot.py": few_shot.main}[script]
    with pytest.MonkeyPatch.context() as patch, io.StringIO() as out, io.StringIO() as errors:
        patch.chdir(cwd)
        patch.setattr(sys, "argv", [script, *map(str, arguments)])
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", errors)
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code
        return code, out.getvalue(), errors.getvalue()


@pytest.mark.parametrize("script", ["clustering.py", "few_shot.py"])
def test_as_a_program(script, tmp_path):
    command = [sys.executable, REPOSITORY / "classification_clustering" / script, "seeds=0"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "error: the command line: seeds: Input should be greater than 0\n"


def results(folder):
    return json.loads((folder / "results.json").read_text())


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


def test_clustering_is_the_papers_protocol(features, tmp_path):
    code, printed, errors = run(
        "clustering.py", f"features={features}", "seeds=4", "name=mine", cwd=tmp_path
    )
    assert code == 0, errors
    image, text, labels = protocol_inputs(features)
    r = torch.nn.functional.normalize(image @ text.T, dim=-1)
    [cell] = results(tmp_path / "outputs/clustering/mine")["cells"]
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


def test_few_shot_is_the_papers_protocol(features, tmp_path):
    code, _, errors = run(
        "few_shot.py", f"features={features}", "seeds=3", "shots=[1,5]", "name=mine", cwd=tmp_path
    )
    assert code == 0, errors
    image, text, labels = protocol_inputs(features)
    r = image @ text.T
    r = (r - r.mean()) / r.std(dim=1, keepdim=True)  # torch's std is the unbiased one
    [cell] = results(tmp_path / "outputs/few_shot/mine")["cells"]
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


def test_split_trains_on_shots_of_each_class_and_tests_on_all_the_rest():
    labels = np.array([2, 0, 1, 0, 1, 2, 2, 0, 1, 1])
    train, test = few_shot.split(labels, shots=2, seed=7)
    assert sorted([*train, *test]) == list(range(10))
    assert np.bincount(labels[train]).tolist() == [2, 2, 2]
    again, _ = few_shot.split(labels, shots=2, seed=7)
    assert again.tolist() == train.tolist()


def test_fewer_images_than_clusters():
    with pytest.raises(UserError, match="3 images cannot make 4 clusters"):
        clustering.kmeans(np.eye(3), 4, seeds=1)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"image": np.ones((3, 2)), "text": np.ones((2, 2))}, "must hold image, text and labels"),
        (
            {"image": np.ones((3, 2)), "text": np.ones((2, 5)), "labels": np.arange(3)},
            "image (3, 2), text (2, 5)",
        ),
        (
            {"image": np.ones((3, 2)), "text": np.ones((2, 2)), "labels": np.arange(4)},
            "labels (4,)",
        ),
        (
            {"image": np.full((3, 2), np.nan), "text": np.ones((2, 2)), "labels": np.arange(3)},
            "image holds things that are not finite numbers",
        ),
        (
            {"image": np.ones((3, 2)), "text": np.full((2, 2), "a"), "labels": np.arange(3)},
            "text holds things that are not finite numbers",
        ),
        (
            {"image": np.eye(3, 2), "text": np.ones((2, 2)), "labels": np.arange(3)},
            "image is empty or has a row of zeros",
        ),
        (
            {"image": np.ones((0, 2)), "text": np.ones((2, 2)), "labels": np.arange(0)},
            "image is empty",
        ),
        (
            {"image": np.ones((3, 2)), "text": np.ones((2, 2)), "labels": np.zeros(3)},
            "one class only",
        ),
        (
            {"image": np.array([{}] * 3), "text": np.ones((2, 2)), "labels": np.arange(3)},
            "cannot read",  # an array of objects is a pickle, and is not opened
        ),
    ],
)
def test_features_that_do_not_fit_are_one_line(tmp_path, arrays, says):
    np.savez(tmp_path / "mine.npz", **arrays)
    code, _, errors = run("clustering.py", "features=mine.npz", cwd=tmp_path)
    assert code == 2 and errors.count("\n") == 1 and says in errors
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"text", "an array alone"])
def test_a_file_that_is_no_npz_is_one_line(tmp_path, content):
    file = tmp_path / "mine.npz"
    if isinstance(content, str):
        np.save(tmp_path / "mine.npy", np.ones((3, 2)))
        (tmp_path / "mine.npy").rename(file)
    else:
        file.write_bytes(content)
    code, _, errors = run("clustering.py", "features=mine.npz", cwd=tmp_path)
    assert code == 2 and errors.count("\n") == 1 and "mine.npz" in errors


def test_too_few_images_for_the_shots_names_the_class(features, tmp_path):
    code, _, errors = run("few_shot.py", f"features={features}", "shots=[1,25]", cwd=tmp_path)
    assert code == 2 and "class elm has 25 images; 26 are needed" in errors
    assert not (tmp_path / "outputs").exists()


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A folder with small demo data, where the commands have been run once with the demo VLM."""
    folder = tmp_path_factory.mktemp("demo")
    clevr4.write(folder / "data", images=240, seed=11, workers=2)
    cards.write(folder / "data", images=240, seed=11, workers=2)
    configuration = "data: clevr4\nroot: data\ncriteria: [shape, color]\nvlm: demo\nseeds: 2\n"
    (folder / "small.yaml").write_text(configuration)
    code, _, errors = run("clustering.py", "--config", "small.yaml", cwd=folder)
    assert code == 0, errors
    return folder


def test_a_run_records_what_it_measured_and_on_what(demo):
    result = results(demo / "outputs/clustering/small")
    assert [cell["criterion"] for cell in result["cells"]] == ["shape", "color"]
    for cell in result["cells"]:
        assert cell["images"] == 240 and cell["left_out"] == 0 and cell["classes"] == 10
        assert cell["config"]["seeds"] == 2 and cell["config"]["data"] == "clevr4"
        assert {"packages", "commit", "dirty", "gpu"} <= cell["environment"].keys()
        assert cell["device"] == "cpu" and cell["precision"] == "fp32"
        assert cell["basis_hash"] and cell["vlm_fingerprint"] and cell["seconds"] > 0
        assert set(cell["scores"]) == {"universal", "conditional", "zero-shot"}
    drawn = sorted(file.name for file in (demo / "outputs/clustering/small").iterdir())
    kinds = ["clusters-demo-color", "clusters-demo-shape", "results.json", "tsne-demo-color"]
    kinds.append("tsne-demo-shape")
    assert [name.rpartition("-")[0] or name for name in drawn] == kinds


def test_running_again_computes_nothing_and_changes_nothing(demo):
    file = demo / "outputs/clustering/small/results.json"
    before, stamp = file.read_text(), file.stat().st_mtime_ns
    code, printed, _ = run("clustering.py", "--config", "small.yaml", cwd=demo)
    assert code == 0 and "demo" in printed
    assert file.read_text() == before and file.stat().st_mtime_ns == stamp


def test_one_more_criterion_keeps_what_is_there(demo):
    file = demo / "outputs/clustering/small/results.json"
    before = {cell["key"]: cell for cell in json.loads(file.read_text())["cells"]}
    code, _, errors = run(
        "clustering.py", "--config", "small.yaml", "criteria=count", "figures=false", cwd=demo
    )
    assert code == 0, errors
    after = {cell["key"]: cell for cell in json.loads(file.read_text())["cells"]}
    assert len(after) == 3 and before.items() <= after.items()


def test_other_bases_do_not_replace_each_other(demo):
    file = demo / "outputs/few_shot/bases/results.json"
    for texts in (10, 20, 10):
        arguments = ["data=clevr4", "root=data", "criteria=color", "vlm=demo", f"texts={texts}"]
        code, _, errors = run(
            "few_shot.py", *arguments, "shots=1", "seeds=1", "name=bases", "figures=false", cwd=demo
        )
        assert code == 0, errors
    assert sorted(cell["texts"] for cell in json.loads(file.read_text())["cells"]) == [10, 20]


def test_few_shot_on_cards_with_the_first_texts_only(demo):
    arguments = ["data=cards", "root=data", "criteria=[number,suits]", "vlm=demo", "texts=20"]
    code, printed, errors = run(
        "few_shot.py", *arguments, "shots=1", "seeds=2", "name=cards", cwd=demo
    )
    assert code == 0, errors
    cells = results(demo / "outputs/few_shot/cards")["cells"]
    assert [(cell["classes"], cell["texts"]) for cell in cells] == [(13, 20), (4, 20)]
    assert "1-shot R" in printed


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("seedz=3", "unknown key 'seedz'; did you mean 'seeds'?"),
        ("shots=[1]", "does not use 'shots'"),
        ("seeds=0", "seeds: Input should be greater than 0"),
        ("vlm=dmo", "unknown VLM 'dmo'; did you mean 'demo'"),
        ("criteria=colour", "did you mean 'color'"),
        ("vlm=[demo,dmo]", "unknown VLM 'dmo'; did you mean 'demo'"),
        ("bases={colour: clevr4_color}", "'colour', which is not in criteria; did you mean"),
        ("texts=1", "texts: Input should be greater than 1"),
        ("bases={color: clevr4_colour}", "did you mean 'clevr4_color'"),
        ("texts=9999", "has 124 texts, not 9999"),
        ("images=10531", "has 240 images, not 10531"),
        ("root=nowhere", "Clevr4 is not in"),
        ("features=x.npz", "features replaces criteria, data"),
        ("device=cuda:9", "no device 'cuda:9'"),
        ("precision=fp8", "precision: Input should be 'fp32', 'bf16' or 'fp16'"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(demo, tmp_path, override, says):
    arguments = ["--config", demo / "small.yaml", f"root={demo / 'data'}", "criteria=color"]
    code, printed, errors = run("clustering.py", *arguments, override, cwd=tmp_path)
    assert code == 2 and printed == "" and errors.count("\n") == 1, errors
    assert errors.startswith("error: ") and says in errors
    assert not (tmp_path / "outputs").exists()


def test_an_unreadable_image_is_named_and_skipped_only_when_asked(demo, tmp_path):
    clevr4.write(tmp_path / "data", images=120, seed=12, workers=2)
    broken = tmp_path / "data/clevr_4_10k_v1/images/CLEVR_4_000007.png"
    broken.write_bytes(broken.read_bytes()[:200])
    arguments = ["data=clevr4", "criteria=color", "vlm=demo", "seeds=1", "figures=false"]
    code, _, errors = run("clustering.py", *arguments, cwd=tmp_path)
    assert code == 2 and "CLEVR_4_000007.png" in errors and "unreadable=skip" in errors
    assert not (tmp_path / "outputs").exists()
    with pytest.warns(UserWarning, match="1 of 120 images could not be read"):
        code, _, _ = run("clustering.py", *arguments, "unreadable=skip", cwd=tmp_path)
    assert code == 0
    [cell] = results(tmp_path / "outputs/clustering/run")["cells"]
    assert cell["images"] == 119 and cell["left_out"] == 1
