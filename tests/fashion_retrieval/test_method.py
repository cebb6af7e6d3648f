"""The formulas of fashion retrieval against slow ones, scikit-learn and hand-worked cases."""

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.metrics import average_precision_score

from crl.projection import l2
from fashion_retrieval import method
from fashion_retrieval.method import TripletSampler, align


@pytest.mark.parametrize(
    ("texts", "dims", "width"), [(9, 40, 4), (30, 12, 7), (8, 8, 7), (60, 512, 7)]
)
def test_align_is_the_pca_over_the_dimensions(texts, dims, width):
    text = l2(np.random.default_rng(0).normal(size=(texts, dims)))
    ours = align(text, width)
    assert ours.shape == (width, dims)
    theirs = PCA(n_components=width, svd_solver="full").fit_transform(text.T).T
    np.testing.assert_allclose(ours, theirs, atol=1e-10)
    if dims == 512:  # so large that scikit-learn itself would choose the randomised one
        randomised = PCA(width, svd_solver="randomized", random_state=0).fit_transform(text.T).T
        assert np.abs(np.abs(ours) - np.abs(randomised)).max() > 0.1


@pytest.mark.parametrize(("texts", "dims", "width"), [(9, 5, 6), (9, 5, 8), (7, 6, 6)])
def test_align_to_more_rows_than_dimensions_ends_with_zeros(texts, dims, width):
    text = l2(np.random.default_rng(0).normal(size=(texts, dims))).astype(np.float32)
    ours = align(text, width)
    assert ours.shape == (width, dims) and ours.dtype == np.float32
    np.testing.assert_allclose(ours[:dims], align(text, dims), atol=1e-6)
    assert not ours[dims:].any() and np.abs(ours[: dims - 1]).max(axis=1).min() > 1e-3


# --- triplets and their loss ----------------------------------------------------------------------

# attribute 0: values of 3, 2, 1 and 0 images (and 4 of another value); attribute 1: 2 and 2
LABELS = np.array(
    """0 0 0  5 0 0  2 0 0  3 0 1  4 0 1  6 0 2  6 0 5  7 0 5  8 0 5  9 0 5
       0 1 1  3 1 1  5 1 0  7 1 0  5 0 0  6 0 2""".split(),
    np.int64,
).reshape(-1, 3)  # the last two stand twice: an image is no positive of itself


def test_triplets_are_as_likely_as_they_should_be():
    triplets = TripletSampler(LABELS)
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
    kinds, count_of = np.unique(np.column_stack(drawn), axis=0, return_counts=True)
    assert set(map(tuple, kinds)) == set(expected)
    for kind, n in zip(map(tuple, kinds), count_of, strict=True):
        deviation = (count * expected[kind] * (1 - expected[kind])) ** 0.5
        assert abs(n - count * expected[kind]) < 5 * deviation


def test_triplets_depend_on_seed_and_epoch_alone():
    draws = [TripletSampler(LABELS).draw(50, seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert np.array_equal(draws[1], TripletSampler(LABELS[::-1]).draw(50, 0, 1))
    assert len({draw.tobytes() for draw in draws}) == 4


# --- mean average precision -----------------------------------------------------------------------

VALUES = [3, 5]  # of two attributes


@pytest.fixture
def tables():
    """Queries (20, 3) and candidates (about 55, 3) of 40 images, in no order; no candidate has
    value 2 of attribute 1, which some queries ask for."""
    rng = np.random.default_rng(0)
    rows = [(n, a, rng.integers(VALUES[a])) for n in range(40) for a in range(2)]
    query = [row for row in rows if row[0] >= 30] + [(30, 1, 2)]
    candidate = [row for row in rows if row[0] < 30 and row[1:] != (1, 2)]
    return rng.permutation(np.array(query)), rng.permutation(np.array(candidate))


def test_precision_against_scikit_learn(tables):
    query, candidate = tables
    rng = np.random.default_rng(1)
    x = l2(rng.normal(size=(2, 40, 6)))  # of each attribute, of each image
    actual = method.retrieval_precision(lambda n, attribute: x[attribute][n], query, candidate)
    none = 0
    for (image, attribute, value), precision in zip(query, actual, strict=True):
        others = candidate[candidate[:, 1] == attribute]
        relevant = others[:, 2] == value
        similarity = x[attribute][others[:, 0]] @ x[attribute][image]
        expected = average_precision_score(relevant, similarity) if relevant.any() else 0
        assert precision == pytest.approx(expected, abs=1e-9)
        none += not relevant.any()
    assert none > 0 and actual.max() > 0.3


def test_random_rankings(tables):
    query, candidate = tables
    exact = method.random_expectation(query, candidate)
    for row, precision in zip(query, exact, strict=True):
        others = candidate[candidate[:, 1] == row[1], 2]
        c, r = len(others), (others == row[2]).sum()
        h = sum(1 / n for n in range(1, c + 1))
        assert precision == pytest.approx((h + (r - 1) / (c - 1) * (c - h)) / c if r else 0)
    draws = np.array([method.random_draw(query, candidate, seed) for seed in range(400)])
    assert (draws[0] == method.random_draw(query, candidate, 0)).all()
    error = draws.std(axis=0) / 400**0.5
    assert (np.abs(draws.mean(axis=0) - exact) <= 5 * error + 1e-12).all()
