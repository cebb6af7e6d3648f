"""Few-shot and clustering: the protocol against a literal transcription, and the commands."""

import json
from itertools import product
from unittest import mock

import numpy as np
import pytest
import torch
from commands import REPOSITORY, run_python
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    adjusted_rand_score,
    average_precision_score,
    normalized_mutual_info_score,
)
from toy_vlm import ToyVLM, direct, make_images
from worlds import clevr4

from classification_clustering import clustering, embedded, few_shot, retrieval
from classification_clustering.method import few_shot_split, kmeans
from crl.basis import TextBasis
from crl.projection import standardise
from crl.representations import names, represent


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
    return json.loads((folder / "results.json").read_text())["rows"]


def by_method(folder):
    return {row["about"]["method"]: row for row in results(folder)}


def protocol_inputs(file):
    """I and T with L2-normalised rows, and labels, as torch would compute them (float32)."""
    with np.load(file) as data:
        image, text, labels = data["image"], data["text"], data["labels"]
    image = torch.nn.functional.normalize(torch.from_numpy(image).float(), dim=-1)
    text = torch.nn.functional.normalize(torch.from_numpy(text).float(), dim=-1)
    return image, text, np.unique(labels, return_inverse=True)[1]


def test_clustering_is_the_papers_protocol(features, tmp_path, output):
    printed = output(clustering.main, f"features={features}", "seeds=4", "name=mine")
    image, text, labels = protocol_inputs(features)
    r = torch.nn.functional.normalize(image @ text.T, dim=-1)
    rows = by_method(tmp_path / "outputs/clustering/mine")
    assert list(rows) == ["universal", "paper"]  # no zero-shot: the file does not name the classes
    for name, x in (("universal", image), ("paper", r)):
        for seed in range(4):
            clusters = KMeans(n_clusters=4, n_init="auto", random_state=seed).fit_predict(x.numpy())
            together = np.zeros((4, 4))  # for the Hungarian match
            np.add.at(together, (clusters, labels), 1)
            matched = linear_sum_assignment(together, maximize=True)
            expected = {
                "nmi": normalized_mutual_info_score(labels, clusters),
                "acc": together[matched].sum() / len(labels),
                "ari": adjusted_rand_score(labels, clusters),
            }
            for metric, value in expected.items():
                got = rows[name]["scores"][metric]["seeds"][seed]
                assert got == pytest.approx(100 * value, abs=1e-4), (name, seed, metric)
    assert "universal  -" in printed


def literal_few_shot(x, labels, shots, seed):
    np.random.seed(seed)
    train, test = [], []
    for label in sorted(set(labels)):
        indices = np.where(labels == label)[0]
        np.random.shuffle(indices)
        train.extend(indices[:shots])
        test.extend(indices[shots:])
    classifier = LogisticRegression(max_iter=1000)
    classifier.fit(x[train], labels[train])
    return 100 * (classifier.predict(x[test]) == labels[test]).mean()


def test_few_shot_is_the_papers_protocol(features, tmp_path, output):
    arguments = [f"features={features}", "seeds=3", "shots=[1,5]", "name=mine"]
    output(few_shot.main, *arguments)
    image, text, labels = protocol_inputs(features)
    r = image @ text.T
    r = (r - r.mean()) / r.std(dim=1, keepdim=True)  # torch's std is the unbiased one
    rows = by_method(tmp_path / "outputs/few_shot/mine")
    for name, x in (("universal", image.numpy()), ("paper", r.numpy())):
        for shots in (1, 5):
            scores = rows[name]["scores"][f"{shots}-shot"]["seeds"]
            expected = [literal_few_shot(x, labels, shots, seed) for seed in range(3)]
            assert scores == pytest.approx(expected, abs=1e-4), (name, shots)


# --- beyond the paper -----------------------------------------------------------------------------


def test_retrieval_is_the_mean_precision_of_the_queries_in_the_database(features, tmp_path, output):
    both = "representation=[paper,posterior]"
    printed = output(retrieval.main, f"features={features}", "seeds=3", "name=mine", both)
    image, text, labels = protocol_inputs(features)
    image, text = image.numpy(), text.numpy()
    weight = np.exp(image @ text.T / (image @ text.T).std(axis=1).mean() / 2)
    x = {"universal": image, "paper": unit_rows(image @ text.T), "posterior": unit_rows(weight)}
    rows = by_method(tmp_path / "outputs/retrieval/mine")
    assert list(rows) == list(x) and "map" in printed
    for name, of_images in x.items():
        for seed in range(3):
            places = np.random.default_rng(seed).permutation(118)
            queries, database = places[:11], places[11:]
            expected = np.mean([
                average_precision_score(
                    labels[database] == labels[query], of_images[database] @ of_images[query]
                )
                for query in queries
            ])  # fmt: skip
            got = rows[name]["scores"]["map"]["seeds"][seed]
            assert got == pytest.approx(100 * expected, abs=1e-3), (name, seed)
    before = (tmp_path / "outputs/retrieval/mine/results.json").read_bytes()
    output(retrieval.main, f"features={features}", "seeds=3", "name=mine", both)
    assert (tmp_path / "outputs/retrieval/mine/results.json").read_bytes() == before


def test_results_without_the_newer_metrics_are_kept_and_shown_with_gaps(features, tmp_path, output):
    command = clustering.main, f"features={features}", "seeds=2", "name=mine"
    output(*command)
    file = tmp_path / "outputs/clustering/mine/results.json"
    content = json.loads(file.read_text())
    del content["rows"][0]["scores"]["ri"], content["rows"][0]["scores"]["ami"]
    file.write_text(json.dumps(content))
    universal, paper = (line.split() for line in output(*command).splitlines()[4:6])
    assert universal[-2:] == ["-", "-"] and "-" not in paper[-6:]
    assert json.loads(file.read_text()) == content  # nothing was measured again


def unit_rows(r):
    return r / np.linalg.norm(r, axis=-1, keepdims=True)


def written_out(image, text, representation, sharpness):
    """R of the images (N, Q, D) in this representation, each part standardised."""
    image, text = unit_rows(image), unit_rows(text)
    r = np.array([[max(q @ t for q in queries) for t in text] for queries in image])
    weight = np.exp(sharpness * r / np.mean([np.std(row) for row in r]))
    parts = {"paper": r, "posterior": np.sqrt(weight / weight.sum(1, keepdims=True))}
    parts = {name: (x - x.mean()) / x.std(1, ddof=1, keepdims=True) for name, x in parts.items()}
    return np.hstack([parts[name] for name in representation.split("+")])


def test_few_shot_under_each_representation(features, tmp_path, output):
    with np.load(features) as stored:
        image, text, labels = stored["image"], stored["text"], stored["labels"]
    # 3 vectors per image, as BLIP-2 gives 32
    image = image[:, None] + np.random.default_rng(1).normal(size=(118, 3, 16))
    np.savez("several.npz", image=image, text=text, labels=labels)
    arguments = ["features=several.npz", "seeds=2", "shots=5", "name=mine", "figures=no"]
    arguments += ["representation=[paper,posterior,paper+posterior]", "sharpness=3"]
    output(few_shot.main, *arguments)
    rows = by_method(tmp_path / "outputs/few_shot/mine")
    assert list(rows) == ["universal", "paper", "posterior (3)", "paper+posterior (3)"]
    for method in [*rows][1:]:
        r = written_out(image, text, method.removesuffix(" (3)"), 3)
        expected = [literal_few_shot(r, labels, 5, seed) for seed in range(2)]
        actual = rows[method]["scores"]["5-shot"]["seeds"]
        assert actual == pytest.approx(expected, abs=1e-4), method


@pytest.fixture
def moods(tmp_path, monkeypatch):
    """Arguments of a run on a data set of one's own, with a toy VLM and bases color and shape."""
    monkeypatch.setattr(embedded, "load_vlm", lambda *_: ToyVLM())
    for name in ("blue", "sad"):
        make_images(tmp_path / "data/mood" / name, 6, first=10 * len(name))
    bases = {"mood": ["blue", "happy", "glad", "angry"], "size": ["large", "tiny", "wide"]}
    for criterion, texts in bases.items():
        basis = TextBasis(criterion=criterion, vlm_prompt="a {text} thing", texts=texts)
        basis.save(tmp_path / f"{criterion}.yaml")
    arguments = ["data=folder", "criteria=mood", "bases={mood: mood.yaml}", "vlm=toy"]
    return [*arguments, "seeds=2", "figures=no", "cache=cache"]


def test_the_null_space_of_another_basis(moods, tmp_path, output, monkeypatch):
    clustered = mock.Mock(side_effect=kmeans)
    monkeypatch.setattr(clustering, "kmeans", clustered)
    others = {"null_space": "[mood.yaml,size.yaml]", "null_space_size": 1}
    both = "representation=[paper,posterior]"
    assert "paper, null space of 2" in output(clustering.main, *moods, both, **others)
    vlm = ToyVLM()
    files = sorted((tmp_path / "data/mood").rglob("*.png"))
    image = unit_rows(direct(vlm, files).astype(float))
    own, other = (
        unit_rows(vlm.encode_texts(TextBasis.load(f"{name}.yaml").prompts).numpy().astype(float))
        for name in ("mood", "size")
    )
    centred = other - other.mean(axis=0)
    direction = np.linalg.eigh(centred.T @ centred)[1][:, -1]  # of most variance
    image = unit_rows(image - np.outer(image @ direction, direction))
    r = image @ own.T
    p = unit_rows(np.exp(r / (2 * r.std(axis=1).mean())))
    given = [call.args[0] for call in clustered.call_args_list]
    universal, paper, posterior = given[::2]  # of two seeds
    np.testing.assert_allclose(universal, unit_rows(direct(vlm, files)), atol=1e-6)
    np.testing.assert_allclose(paper, unit_rows(r), atol=1e-5)
    np.testing.assert_allclose(posterior, p, atol=1e-5)


def test_every_name_works_in_both_tasks(moods, tmp_path, output, refusal):
    every = f"representation=[{','.join(names())}]"
    for script, more in ((clustering, []), (few_shot, ["shots=[1,2]"]), (retrieval, [])):
        moods = [key for key in moods if script is not retrieval or key != "figures=no"]
        printed = output(script.main, *moods, every, "null_space=size.yaml", *more)
        assert "lda (labels), null space of 1" in printed
        rows = by_method(tmp_path / f"outputs/{script.__name__.rpartition('.')[2]}/run")
        assert len(rows) == len(names()) + 1 + (script is not retrieval)  # universal, zero-shot
        assert all(row["scores"] for row in rows.values())
        wrong = "representation: od_crl needs other criteria: null_space="
        assert wrong in refusal(script.main, *moods, "representation=[paper,od_crl]")
    message = refusal(retrieval.main, *moods, "representation=od_crl", "null_space=mood.yaml")
    assert message.startswith("od_crl needs the texts of other criteria")  # it is the own one


def test_labels_make_a_ceiling_in_clustering_and_not_in_few_shot(features, tmp_path, output):
    how = [f"features={features}", "seeds=2", "shots=5", "name=mine", "figures=no"]
    how += ["representation=[probe,paper+lda]"]
    printed = output(clustering.main, *[part for part in how if part != "shots=5"])
    assert "(labels): has learned from labels; in clustering and retrieval from all" in printed
    output(few_shot.main, *how)
    clustered, classified = (
        by_method(tmp_path / f"outputs/{task}/mine") for task in ("clustering", "few_shot")
    )
    assert list(clustered) == ["universal", "probe (labels)", "paper+lda (labels)"]
    image, text, labels = (x if x.ndim == 1 else x.numpy() for x in protocol_inputs(features))
    for seed, score in enumerate(classified["probe (labels)"]["scores"]["5-shot"]["seeds"]):
        train, test = few_shot_split(labels, 5, seed)
        given = np.where(np.isin(np.arange(len(labels)), train), labels, -1)
        x = standardise(represent("probe", image, text, given))
        model = LogisticRegression(max_iter=1000).fit(x[train], labels[train])
        assert score == pytest.approx(100 * model.score(x[test], labels[test]), abs=1e-4)
    assert clustered["probe (labels)"]["scores"]["acc"]["mean"] > 99


# --- whole runs -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A folder with small demo data, where clustering.py has run once as a program."""
    folder = tmp_path_factory.mktemp("demo")
    clevr4.write(folder / "data", images=240, seed=11, workers=2)
    (folder / "small.yaml").write_text(
        f"data: clevr4\nroot: {folder}/data\noutputs: {folder}/outputs\n"
        "criteria: [shape, color]\nvlm: demo\nseeds: 2\n"
    )
    script = REPOSITORY / "classification_clustering/clustering.py"
    done = run_python(script, "--config", folder / "small.yaml")
    assert done.returncode == 0, done.stderr
    return folder


def test_a_run_records_what_it_measured_and_on_what(demo):
    rows = results(demo / "outputs/clustering/small")
    methods = ["universal", "paper", "zero-shot"]
    measured = [(row["about"]["criterion"], row["about"]["method"]) for row in rows]
    assert measured == [*product(("shape", "color"), methods)]
    for row in rows:
        assert row["images"] == 240 and row["left_out"] == 0 and row["classes"] == 10
        assert {"packages", "commit", "dirty", "gpu"} <= row["environment"].keys()
        assert row["about"]["vlm_fingerprint"] and row["about"]["content"]
    assert len(list((demo / "outputs/clustering/small").glob("*.png"))) == 4


def test_running_again_computes_nothing_and_changes_nothing(demo, output):
    file = demo / "outputs/clustering/small/results.json"
    before, stamp = file.read_text(), file.stat().st_mtime_ns
    assert "demo" in output(clustering.main, "--config", demo / "small.yaml")
    assert file.read_text() == before and file.stat().st_mtime_ns == stamp


def test_images_that_changed_under_their_names_are_measured_again(moods, tmp_path, output):
    content = set()
    for first in (50, 60):
        paths = make_images(tmp_path / "drawn", 6, first=first)
        for number, path in enumerate(paths):
            path.replace(tmp_path / f"data/mood/sad/{30 + number:03}.png")
        output(clustering.main, *moods)
        rows = results(tmp_path / "outputs/clustering/run")
        assert len(rows) == 3  # the former ones are replaced
        content |= {row["about"]["content"] for row in rows}
    assert len(content) == 2
