"""Scores against a slow transcription of the protocol, one template and candidate at a time.

All ranks are compared in float64: in float32 two orders of the same sum differ in the last digits
and may swap candidates that are nearly tied.
"""

from itertools import permutations

import numpy as np
import pytest
import torch
from commands import SHARED
from hypothesis import given, settings
from hypothesis import strategies as st

from crl.projection import l2, project
from crl.representations import represent
from similarity_retrieval.combiner import Combiner
from similarity_retrieval.datasets import Templates, load
from similarity_retrieval.method import Features, baseline_scores, crl_scores, recall, target_ranks

OFFICIAL = SHARED / "genecis"
METHODS = ("image", "text", "image+text", "combiner", "paper")
DIM, TEXTS = 20, 17


def random_features(rng, images: int, conditions: int, prompts=5, dim=DIM) -> Features:
    """Raw: lengths differ by image and condition. A common part makes similarities alike, as
    CLIP's are."""
    common = rng.normal(size=dim)
    image = (rng.normal(size=(images, dim)) + common) * rng.uniform(0.1, 10, (images, 1))
    plain = (rng.normal(size=(conditions, dim)) - common) * rng.uniform(0.1, 10, (conditions, 1))
    prompted = rng.normal(size=(conditions, prompts, dim)) + common
    prompted *= rng.uniform(0.1, 10, (conditions, prompts, 1))
    return Features(image, plain, prompted)


def random_basis(rng, dim: int = DIM) -> np.ndarray:
    text = rng.normal(size=(TEXTS, dim)) + 0.3
    return text / np.linalg.norm(text, axis=1, keepdims=True)


def random_combiner(dim: int = DIM) -> Combiner:
    torch.manual_seed(0)
    combiner = Combiner(dim, projection=6, hidden=9).double().eval()
    with torch.no_grad():
        for weight in combiner.parameters():
            weight.normal_(std=0.4)
    return combiner


def templates(reference, gallery, condition) -> Templates:
    return Templates(reference, gallery, condition, left_out=0)


def random_templates(rng, count: int = 60, images: int = 40, candidates: int = 6) -> Templates:
    """Candidates are distinct, except that every fifth target stands in the gallery once more."""
    gallery = np.stack([rng.permutation(images)[:candidates] for _ in range(count)])
    gallery[::5, -1] = gallery[::5, 0]
    return templates(rng.integers(images, size=count), gallery, rng.integers(7, size=count))


def all_scores(features, tasks, basis, combiner=None, weight=10.0) -> dict[str, np.ndarray]:
    r = l2(project(features.unit_image, basis))
    crl = crl_scores(features, tasks, r, weight)
    return {**baseline_scores(features, tasks, combiner), "paper": crl}


# --- the protocol, written out --------------------------------------------------------------------


def unit(vector):
    return [x / sum(y * y for y in vector) ** 0.5 for x in vector]


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def conditional(features, basis, sharpness=None):
    """R of every image, in plain Python; with a sharpness, the posterior."""
    r = [[dot(unit(image), text) for text in basis.tolist()] for image in features.image.tolist()]
    if sharpness is not None:
        sigma = sum(float(np.std(row)) for row in r) / len(r)
        r = [[np.exp(sharpness * x / sigma / 2) for x in row] for row in r]
    return [unit(row) for row in r]


def crl(features, r, reference, gallery, condition, scaled, weight=1.0):
    """Scores of the candidates of one template: the scene, and how they fit the prompts, if there
    are any."""
    scene = [weight * x for x in scaled([dot(r[reference], r[g]) for g in gallery])]
    prompts = [unit(p) for p in features.prompted[condition].tolist()]
    if not prompts:
        return scene
    candidates = [unit(features.image[g].tolist()) for g in gallery]
    fit = scaled([sum(dot(p, g) for p in prompts) / len(prompts) for g in candidates])
    return [x + y for x, y in zip(scene, fit, strict=True)]


def transcription(features, r, combiner, weight, reference, gallery, condition):
    """{method: scores of the candidates} of one template, in plain Python but for the Combiner,
    which has a test of its own."""
    image = features.image[reference].tolist()
    candidates = [unit(features.image[g].tolist()) for g in gallery]
    c = features.plain[condition].tolist()
    with torch.no_grad():
        combined = combiner(*torch.tensor([[image], [c]], dtype=torch.float64))[0].tolist()
    asked = {
        "image": unit(image),
        "text": unit(c),
        "image+text": unit([0.5 * x + 0.5 * y for x, y in zip(image, c, strict=True)]),
        "combiner": combined,
    }
    scores = {name: [dot(query, g) for g in candidates] for name, query in asked.items()}
    return {**scores, "paper": crl(features, r, reference, gallery, condition, unit, weight)}


def assert_same(features, tasks, basis, combiner, weight=10.0):
    scores = all_scores(features, tasks, basis, combiner, weight)
    ranks = {method: target_ranks(s) for method, s in scores.items()}
    assert set(ranks) == set(METHODS)
    asked, r = zip(*tasks[:3], strict=True), conditional(features, basis)
    for b, template in enumerate(asked):
        expected = transcription(features, r, combiner, weight, *template)
        for method, (better, tied) in ranks.items():
            target, *others = expected[method]
            assert better[b] == sum(score > target for score in others), (b, method)
            assert tied[b] == sum(score == target for score in others), (b, method)
            np.testing.assert_allclose(scores[method][b], expected[method], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("prompts", [0, 1, 5])
@pytest.mark.parametrize("weight", [10.0, 0.5])
def test_equals_the_protocol_on_synthetic_templates(prompts, weight):
    rng = np.random.default_rng(prompts)
    features = random_features(rng, images=45, conditions=9, prompts=prompts)
    tasks = random_templates(rng)
    assert_same(features, tasks, random_basis(rng), random_combiner(), weight)


@pytest.mark.parametrize("task", ["focus_object", "change_object"])
def test_equals_the_protocol_on_the_official_templates(task):
    if not (OFFICIAL / f"{task}.json").is_file():
        pytest.skip("GeneCIS's own files are not here")
    rng, data = np.random.default_rng(1), load([task], OFFICIAL)
    tasks = data.tasks[task]
    assert tasks.gallery.shape == (1960, 15)
    features = random_features(rng, len(data.ids), len(data.conditions), dim=8)
    assert_same(features, tasks, random_basis(rng, dim=8), random_combiner(dim=8))


# --- properties -----------------------------------------------------------------------------------


def recalls(scores: dict[str, np.ndarray], policy="fair") -> dict[str, list[float]]:
    ranks = {method: target_ranks(s) for method, s in scores.items()}
    return {method: [recall(*r, k, policy) for k in (1, 2, 3)] for method, r in ranks.items()}


seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=15)
@given(seeds)
def test_order_of_the_other_candidates_and_their_lengths_change_no_fair_recall(seed):
    rng = np.random.default_rng(seed)
    features, tasks = random_features(rng, 40, 7), random_templates(rng, images=30)
    tasks = templates(tasks.reference % 10 + 30, tasks.gallery, tasks.condition)
    # References keep their lengths: image+text and the Combiner take them raw.
    length = np.r_[10 ** rng.uniform(-3, 3, 30), np.ones(10)][:, None]
    scaled = Features(features.image * length, features.plain, features.prompted)
    shuffled = tasks.gallery.copy()
    rng.permuted(shuffled[:, 1:], axis=1, out=shuffled[:, 1:])
    others = templates(tasks.reference, shuffled, tasks.condition)
    basis, combiner = random_basis(rng), random_combiner()
    expected = recalls(all_scores(features, tasks, basis, combiner))
    assert recalls(all_scores(scaled, tasks, basis, combiner)) == expected
    assert recalls(all_scores(features, others, basis, combiner)) == expected


scores_with_ties = st.integers(2, 8).flatmap(
    lambda candidates: st.lists(st.tuples(*[st.integers(0, 3)] * candidates), min_size=1)
)


@given(scores_with_ties)
def test_paper_is_a_stable_sort_with_the_target_first(rows):
    better, tied = target_ranks(np.array(rows, float))
    for k in (1, 2, 3):
        hits = [0 in sorted(range(len(row)), key=lambda i, row=row: -row[i])[:k] for row in rows]
        assert recall(better, tied, k, "paper") == pytest.approx(100 * np.mean(hits))
        assert recall(better, tied, k, "paper") >= recall(better, tied, k, "fair")


@given(st.lists(st.integers(0, 2), min_size=2, max_size=5), st.integers(1, 5))
def test_fair_is_the_mean_over_all_orders_of_the_tied(row, k):
    hits = []
    for order in permutations(range(len(row))):  # every order of the candidates, then stable sort
        hits.append(0 in sorted(order, key=lambda i: -row[i])[:k])
    ranks = target_ranks(np.array([row], float))
    assert recall(*ranks, k) == pytest.approx(100 * np.mean(hits))


# --- the standard balance (beyond the paper) ------------------------------------------------------


def standard(values):
    mean = sum(values) / len(values)
    deviation = (sum((x - mean) ** 2 for x in values) / len(values)) ** 0.5
    return [(x - mean) / deviation if deviation > 0 else 0.0 for x in values]


@pytest.mark.parametrize("prompts", [0, 5])
@pytest.mark.parametrize("sharpness", [None, 1.0, 2.5])
def test_the_standard_balance_against_a_slow_loop(prompts, sharpness):
    rng = np.random.default_rng(3)
    features = random_features(rng, images=20, conditions=7, prompts=prompts)
    tasks, basis = random_templates(rng, count=15, images=20), random_basis(rng)
    name = "paper" if sharpness is None else "posterior"
    r = represent(name, features.unit_image, basis, sharpness=sharpness or 1.0)
    scores = crl_scores(features, tasks, r, balance="standard")
    slow, asked = conditional(features, basis, sharpness), zip(*tasks[:3], strict=True)
    expected = [crl(features, slow, *template, standard) for template in asked]
    np.testing.assert_allclose(scores, expected, atol=1e-9)
    assert np.array_equal(scores, crl_scores(features, tasks, r, 3.0, "standard"))  # no weight
    assert not np.allclose(scores, crl_scores(features, tasks, r))


# --- ties and chance ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("candidates", [3, 14, 15, 16, 33])
def test_the_targets_image_ties_with_the_target_wherever_it_stands(dtype, candidates):
    rng = np.random.default_rng(candidates)
    features = random_features(rng, images=100, conditions=7, dim=67)
    features = Features(*(x.astype(dtype) for x in vars(features).values()))
    basis = random_basis(rng, dim=67).astype(dtype)
    tasks = random_templates(rng, 200, 100, candidates)
    places = rng.integers(1, candidates, size=200)
    tasks.gallery[np.arange(200), places] = tasks.gallery[:, 0]
    for scores in all_scores(features, tasks, basis, random_combiner(67)).values():
        assert scores.dtype == dtype
        _, tied = target_ranks(scores)
        assert (tied == (tasks.gallery[:, 1:] == tasks.gallery[:, :1]).sum(axis=1)).all()
