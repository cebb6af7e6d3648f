"""Scores of fashion retrieval against one query at a time, scikit-learn and hand-worked cases."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from crl.projection import l2
from fashion_retrieval import scoring

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
    found = scoring.retrieval_precision(lambda n, attribute: x[attribute][n], query, candidate)
    none = 0
    for (image, attribute, value), precision in zip(query, found, strict=True):
        others = candidate[candidate[:, 1] == attribute]
        relevant = others[:, 2] == value
        similarity = x[attribute][others[:, 0]] @ x[attribute][image]
        expected = average_precision_score(relevant, similarity) if relevant.any() else 0
        assert precision == pytest.approx(expected, abs=1e-9)
        none += not relevant.any()
    assert none > 0 and found.max() > 0.3


def test_chunks_change_nothing(tables, monkeypatch):
    x = l2(np.random.default_rng(1).normal(size=(40, 6)))
    whole = scoring.retrieval_precision(lambda n, _: x[n], *tables)
    monkeypatch.setattr(scoring, "CHUNK", 1)  # a query at a time
    part = scoring.retrieval_precision(lambda n, _: x[n], *tables)
    np.testing.assert_allclose(part, whole, atol=1e-9)


def test_random_rankings(tables):
    query, candidate = tables
    exact = scoring.random_expectation(query, candidate)
    for row, precision in zip(query, exact, strict=True):
        others = candidate[candidate[:, 1] == row[1], 2]
        c, r = len(others), (others == row[2]).sum()
        h = sum(1 / n for n in range(1, c + 1))
        assert precision == pytest.approx((h + (r - 1) / (c - 1) * (c - h)) / c if r else 0)
    draws = np.array([scoring.random_draw(query, candidate, seed) for seed in range(400)])
    assert (draws[0] == scoring.random_draw(query, candidate, 0)).all()
    error = draws.std(axis=0) / 400**0.5
    assert (np.abs(draws.mean(axis=0) - exact) <= 5 * error + 1e-12).all()


def test_means_by_hand():
    query = np.array([[0, 0, 7], [1, 1, 7], [2, 1, 7], [3, 1, 7]])
    scores = scoring.mean_scores(np.array([0.1, 0.2, 0.3, 0.4]), query, ["shape", "style"])
    assert scores == pytest.approx({"shape": 10, "style": 30, "overall": 25, "mean": 20})


def test_queries_without_a_relevant_candidate_are_counted():
    candidate = np.array([[9, 0, 1], [9, 1, 2]])
    query = np.array([[0, 0, 1], [1, 0, 2], [2, 1, 1], [3, 1, 2], [4, 1, 1]])
    assert scoring.without_relevant(query, candidate) == 3  # (0, 2), and (1, 1) twice
