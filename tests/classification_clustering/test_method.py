"""Metrics against brute force and formulas worked out by hand, and the parts of the protocol."""

from itertools import permutations
from math import log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from classification_clustering import method
from classification_clustering.method import (
    clustering_scores,
    few_shot,
    few_shot_split,
    mean_average_precision,
    retrieval_split,
    zero_shot,
)
from crl.projection import l2
from crl.representations import represent

pairs = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=24)


@settings(max_examples=50)
@given(pairs)
def test_acc_is_that_of_the_best_of_all_matches(pairs):
    """Of all one-to-one maps of cluster numbers 0..4 to classes 0..4."""
    hits = max(sum(m[c] == y for y, c in pairs) for m in permutations(range(5)))
    acc = clustering_scores(*zip(*pairs, strict=True))["acc"]
    assert acc == pytest.approx(100 * hits / len(pairs))


def test_nmi_and_ari_by_hand():
    labels, clusters = [0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 1, 1]  # table [[2, 1], [0, 3]]
    information = 2 / 6 * log(2 * 6 / (3 * 2)) + 1 / 6 * log(6 / (3 * 4)) + 3 / 6 * log(18 / 12)
    of_labels = log(2)
    of_clusters = -(1 / 3 * log(1 / 3) + 2 / 3 * log(2 / 3))
    # pairs together in both 1 + 0 + 3, in the labels 3 + 3, in the clusters 1 + 6, in all 15
    chance = 6 * 7 / 15
    scores = clustering_scores(np.array(labels), np.array(clusters))
    assert scores["nmi"] == pytest.approx(100 * information / ((of_labels + of_clusters) / 2))
    assert scores["ari"] == pytest.approx(100 * (4 - chance) / ((6 + 7) / 2 - chance))
    assert scores["acc"] == pytest.approx(500 / 6)
    # 4 pairs are together in both, 15 - 6 - 7 + 4 are apart in both
    assert scores["ri"] == pytest.approx(100 * (4 + 6) / 15)


def test_ami_is_the_information_above_the_mean_over_all_orders():
    labels, clusters = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 1, 1])

    def entropy(*parts):
        shares = np.unique(np.column_stack(parts), axis=0, return_counts=True)[1] / len(labels)
        return -(shares * np.log(shares)).sum()

    def information(order):
        return entropy(labels) + entropy(clusters) - entropy(labels[list(order)], clusters)

    chance = np.mean([information(order) for order in permutations(range(6))])
    most = (entropy(labels) + entropy(clusters)) / 2
    expected = (information(range(6)) - chance) / (most - chance)
    assert clustering_scores(labels, clusters)["ami"] == pytest.approx(100 * expected)


@pytest.mark.parametrize(("images", "queries"), [(2, 1), (9, 1), (20, 2), (118, 11)])
def test_a_tenth_of_the_images_are_queries(images, queries):
    query, database = retrieval_split(images, seed=3)
    assert len(query) == queries
    assert sorted([*query, *database]) == list(range(images))
    assert len({tuple(retrieval_split(118, seed)[0]) for seed in range(9)}) == 9


def test_retrieval_in_parts_is_retrieval_in_one(monkeypatch):
    rng = np.random.default_rng(0)
    x, labels = l2(rng.normal(size=(90, 4))), rng.integers(5, size=90)
    whole = mean_average_precision(x, labels, seed=1)
    monkeypatch.setattr(method, "query_parts", lambda q, c: np.array_split(np.arange(q), 4))
    assert mean_average_precision(x, labels, seed=1) == pytest.approx(whole, abs=1e-9)


@pytest.mark.filterwarnings("ignore:lbfgs failed to converge")
def test_few_shot_ends_after_a_thousand_iterations():
    """On dimensions of such different lengths each iteration still changes some predictions."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20_000, 8)) * 1000 ** np.linspace(0, 1, 8)
    labels = rng.integers(4, size=20_000)
    train, test = few_shot_split(labels, 25, 0)

    def after(iterations):
        with threadpool_limits(1):
            classifier = LogisticRegression(max_iter=iterations).fit(x[train], labels[train])
        assert classifier.n_iter_.max() == iterations  # it would go on
        return 100 * np.mean(classifier.predict(x[test]) == labels[test])

    assert few_shot(x, labels, 25, 0) == pytest.approx(after(1000), abs=1e-9)
    assert after(1000) not in [after(iterations) for iterations in (100, 500, 2000)]


def test_few_shot_shows_a_representation_no_label_of_a_test_image():
    """The labels of the test images are hidden, and with others the rows are the same."""
    labels, seen = np.repeat([0, 1, 2], [5, 6, 7]), []
    image = l2(np.eye(3)[labels] + 0.1 * np.random.default_rng(0).normal(size=(18, 3)))

    def rows(given):
        seen.append(given)
        return represent("grounded", image, np.eye(3), given)

    score = few_shot(rows, labels, 2, seed=3)
    train, test = few_shot_split(labels, 2, seed=3)
    (given,) = seen
    assert (given[test] == -1).all() and (given[train] == labels[train]).all()
    assert few_shot(rows(given), labels, 2, seed=3) == score


@pytest.mark.parametrize("queries", [None, 2])
def test_zero_shot_takes_the_most_similar_name(queries):
    image = np.array([[1.0, 0.1], [20.0, 30.0], [0.0, 3.0], [5.0, 1.0]])  # class 0, 1, 1, 0
    image = image if queries is None else np.stack([image, -image], axis=1)
    class_text = np.eye(2)
    assert zero_shot(l2(image), class_text, np.array([0, 1, 1, 1])) == 75.0
