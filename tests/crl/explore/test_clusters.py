import itertools
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from crl.explore.clusters import WEAK, find_clusters, name_clusters, principal


def blobs(number=5, each=20, width=8, spread=0.1):
    """x (number * each, width), and the blob of each row."""
    truth = np.repeat(np.arange(number), each)
    noise = np.random.default_rng(0).normal(size=(len(truth), width))
    return np.eye(number, width)[truth] + spread * noise, truth


@pytest.mark.parametrize("number", [3, 5, 8])
def test_the_number_is_chosen_and_every_image_has_a_cluster(number):
    x, truth = blobs(number)
    clusters = find_clusters(principal(x))
    assert adjusted_rand_score(truth, clusters.label) == 1
    assert clusters.note.startswith(f"{number} groups, chosen by silhouette (0.")
    assert re.search("(strong|reasonable) structure.*; next best: ", clusters.note)
    noise = np.random.default_rng(0).normal(size=(300, 20))
    assert "hardly any structure" in find_clusters(principal(noise)).note


def test_the_largest_is_first_and_the_certain_is_near_its_centre():
    x, _ = blobs()
    x = np.concatenate([x[20:], x[20:30] + 1e-3])
    clusters = find_clusters(principal(x), 4)
    assert np.bincount(clusters.label).tolist() == [30, 20, 20, 20]
    x, _ = blobs(2, each=30, width=2, spread=0.01)
    x[7] = [0.51, 0.49]  # nearly halfway
    x[5] = x[:30].mean(axis=0)  # the centre of its cluster
    clusters = find_clusters(principal(x), 2)
    assert clusters.certainty.argmin() == 7 and clusters.distance.argmin() == 5
    assert clusters.certainty[7] < 0.1 < clusters.certainty[5]


@pytest.mark.parametrize(
    ("x", "number", "clusters"),
    [
        (np.ones((6, 4)), None, 1),
        (np.ones((6, 4)), 3, 1),
        (np.repeat(np.eye(3, 4), 4, 0), 10, 3),
        (np.eye(3, 4), 1, 1),
    ],
)
def test_few_images_and_images_that_are_the_same(x, number, clusters):
    result = find_clusters(principal(x), number)
    assert result.label.max() + 1 == clusters and len(result.label) == len(x) and result.note
    assert np.isfinite(result.certainty).all()


def test_a_text_that_is_near_to_everything_names_nothing():
    standing = np.array([[0.0, 1.0, -1.0], [0.0, 1.0, -1.0], [0.0, -1.0, 1.0]])
    one, two = name_clusters(standing, np.array([0, 0, 1]))
    assert one.words[0] == 1 and two.words[0] == 2


@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(5, 9))
def test_the_names_are_the_best_of_all_one_to_one_names(seed, number, texts):
    rng = np.random.default_rng(seed)
    label = np.r_[np.arange(number), rng.integers(0, number, 10)]
    standing = rng.normal(size=(len(label), texts))
    names = name_clusters(standing, label)
    mean = np.array([standing[label == c].mean(axis=0) for c in range(number)])
    choices = itertools.permutations(range(texts), number)
    best = max(sum(mean[c, w] for c, w in enumerate(words)) for words in choices)
    assert sum(mean[c, name.words[0]] for c, name in enumerate(names)) == pytest.approx(best)
    words = [word for name in names for word in name.words]
    assert len(words) == len(set(words))
    for cluster, name in enumerate(names):  # the other words: this cluster's more than any other's
        assert all(mean[:, word].argmax() == cluster for word in name.words[1:])
        assert all(0 <= value <= 1 for value in name.strength)


def test_margins_by_hand():
    # within clusters, the word varies by 0.1; the clusters' means are 1 and 0.8, or 1 and 0.9
    near = np.array([[1.1, 0], [0.9, 0], [0.9, 0.5], [0.7, 0.5]])
    for margin in (2.0, 1.0):
        name, _ = name_clusters(near, np.array([0, 0, 1, 1]))
        assert name.words[0] == 0 and name.margin == pytest.approx(margin)
        assert name.weak == (margin < WEAK)
        near[2:, 0] += 0.1
