"""Metrics against brute force and formulas worked out by hand, degenerate clusterings included."""

from itertools import pairwise, permutations
from math import log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from crl.metrics import accuracy, average_precision, clustering_scores

pairs = st.integers(1, 24).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 4), min_size=n, max_size=n),
        st.lists(st.integers(0, 4), min_size=n, max_size=n),
    )
)


def best_match(labels: list[int], clusters: list[int]) -> float:
    """ACC by trying every one-to-one map of cluster numbers 0..4 to classes 0..4."""
    maps = permutations(range(5))
    hits = max(sum(m[c] == y for y, c in zip(labels, clusters, strict=True)) for m in maps)
    return 100 * hits / len(labels)


@settings(max_examples=50)
@given(pairs)
def test_acc_is_that_of_the_best_of_all_matches(pair):
    assert clustering_scores(*pair)["acc"] == pytest.approx(best_match(*pair))


@pytest.mark.parametrize(
    ("labels", "clusters", "acc"),
    [
        ([0, 0, 0, 0, 1, 1], [0, 0, 1, 1, 2, 3], 50.0),  # more clusters than classes
        ([0, 0, 1, 1, 2, 2], [7, 7, 7, 7, 3, 3], 200 / 3),  # fewer
        ([0, 0, 0, 1, 1, 2], [1, 1, 0, 0, 0, 0], 200 / 3),  # the greedy match would be the same
        ([0, 0, 0, 1, 1, 1, 1], [0, 0, 1, 0, 0, 0, 2], 400 / 7),
        # the largest cell, class 0 in cluster 0 (3), is not in the best match (2 + 2)
        ([0] * 5 + [1] * 2, [0, 0, 0, 1, 1, 0, 0], 400 / 7),
    ],
)
def test_acc_by_hand(labels, clusters, acc):
    assert best_match(labels, np.unique(clusters, return_inverse=True)[1]) == pytest.approx(acc)
    assert clustering_scores(labels, clusters)["acc"] == pytest.approx(acc)


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


@settings(max_examples=50)
@given(pairs, st.permutations(range(5)), st.permutations(range(5)), st.randoms())
def test_numbering_and_order_do_not_matter(pair, classes, numbers, random):
    labels, clusters = pair
    renamed = [(classes[y] * 10, numbers[c] + 3) for y, c in zip(labels, clusters, strict=True)]
    random.shuffle(renamed)
    assert clustering_scores(*zip(*renamed, strict=True)) == pytest.approx(
        clustering_scores(labels, clusters)
    )


@given(st.lists(st.integers(0, 4), min_size=1, max_size=24))
def test_perfect_clustering_scores_100(labels):
    scores = clustering_scores(labels, [9 - label for label in labels])
    assert scores == pytest.approx({"nmi": 100, "acc": 100, "ari": 100})


def test_a_single_cluster_knows_nothing():
    scores = clustering_scores([0, 0, 0, 1, 1], [4] * 5)
    assert scores == pytest.approx({"nmi": 0, "acc": 60, "ari": 0})
    assert all(type(value) is float for value in scores.values())


def test_accuracy():
    assert accuracy(np.array([0, 1, 2, 3]), np.array([0, 1, 2, 0])) == 75.0
    assert accuracy([1, 1], [0, 0]) == 0.0
    assert type(accuracy([1], [1])) is float


# --- average precision ----------------------------------------------------------------------------


def slow_average_precision(similarity, query_value, candidate_value):
    """The protocol, literally: sort, walk down the list, add up."""
    result = []
    for row, value in zip(similarity, query_value, strict=True):
        found, total = 0, 0.0
        for rank, candidate in enumerate(sorted(range(len(row)), key=lambda c: -row[c]), 1):
            if candidate_value[candidate] == value:
                found += 1
                total += found / rank
        result.append(total / found if found else 0.0)
    return result


def all_orders(row, value, candidate_value):
    """The mean of the protocol over every order of tied candidates."""
    candidates = range(len(row))
    orders = [p for p in permutations(candidates) if all(row[a] >= row[b] for a, b in pairwise(p))]
    ranks = [{candidate: -place for place, candidate in enumerate(order)} for order in orders]
    rows = [[rank[c] for c in candidates] for rank in ranks]
    return np.mean([slow_average_precision([r], [value], candidate_value)[0] for r in rows])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_average_precision_without_ties(dtype):
    rng = np.random.default_rng(0)
    similarity = rng.permuted(np.tile(np.arange(300), (40, 1)), axis=1).astype(dtype) / 300
    query, candidate = rng.integers(0, 12, 40), rng.integers(0, 10, 300)  # 10, 11: none relevant
    precision = average_precision(similarity, query, candidate)
    assert precision.dtype == np.float64
    np.testing.assert_allclose(
        precision, slow_average_precision(similarity, query, candidate), atol=1e-9
    )
    none = query >= 10
    assert none.any() and (precision[none] == 0).all()
    for row, value, mine in zip(similarity[~none], query[~none], precision[~none], strict=True):
        theirs = average_precision_score(candidate == value, row)
        assert mine == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize("outlier", [1e5, -1e5, 1e9])
def test_average_precision_where_scores_crowd(outlier):
    """One score far from the others puts dozens, or all of them, in the same few bins."""
    rng = np.random.default_rng(0)
    similarity = rng.permuted(np.tile(np.arange(400.0), (20, 1)), axis=1)
    similarity[:, 7] = outlier
    query, candidate = rng.integers(0, 40, 20), rng.integers(0, 40, 400)
    expected = slow_average_precision(similarity, query, candidate)
    found = average_precision(similarity, query, candidate)
    assert found == pytest.approx(expected, abs=1e-12)


@settings(max_examples=60)
@given(
    st.integers(1, 6).flatmap(
        lambda c: st.tuples(
            st.lists(st.integers(0, 2), min_size=c, max_size=c),
            st.lists(st.integers(0, 1), min_size=c, max_size=c),
        )
    )
)
def test_average_precision_with_ties_is_the_mean_over_all_orders(pair):
    row, values = pair
    mine = average_precision(np.array([row, row], float), np.array([1, 0]), np.array(values))
    expected = [all_orders(row, value, values) for value in (1, 0)]
    assert mine == pytest.approx(expected, abs=1e-12)


def test_a_constant_similarity_scores_a_random_ranking():
    c, relevant = 50, 7
    values = np.arange(c) < relevant
    harmonic = sum(1 / n for n in range(1, c + 1))
    expected = (harmonic + (relevant - 1) / (c - 1) * (c - harmonic)) / c
    tied = average_precision(np.zeros((1, c)), np.array([1]), values.astype(int))
    assert tied == pytest.approx([expected])
    drawn = np.random.default_rng(0).random((4000, c))
    drawn = average_precision(drawn, np.ones(4000, int), values.astype(int))
    assert drawn.mean() == pytest.approx(expected, abs=4 * drawn.std() / 4000**0.5)


def test_average_precision_at_the_edges():
    assert average_precision(np.ones((1, 1)), np.array([0]), np.array([0])) == [1.0]
    assert average_precision(np.ones((1, 1)), np.array([0]), np.array([1])) == [0.0]
    assert average_precision(np.ones((0, 3)), np.zeros(0, int), np.arange(3)).shape == (0,)
    everything = average_precision(np.eye(3), np.zeros(3, int), np.zeros(3, int))
    assert everything == pytest.approx([1, 1, 1])
