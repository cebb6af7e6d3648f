import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from crl.explore.clusters import NUMBERS, WEAK, find_clusters, name_clusters, principal
from crl.run.errors import UserError


def blobs(number=5, each=20, width=8, spread=0.1, seed=0):
    """x (number * each, width), and the blob of each row."""
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(number), each)
    return np.eye(number, width)[truth] + spread * rng.normal(size=(len(truth), width)), truth


@pytest.mark.parametrize("number", [3, 5, 8])
def test_the_number_is_chosen_and_every_image_has_a_cluster(number):
    x, truth = blobs(number)
    found = find_clusters(principal(x))
    assert found.number == number
    assert adjusted_rand_score(truth, found.label) == 1
    assert list(found.silhouettes) == sorted(
        found.silhouettes, key=found.silhouettes.get, reverse=True
    )
    assert found.note.startswith(f"{number} groups, chosen by silhouette (0.")
    assert "strong structure" in found.note or "reasonable structure" in found.note


def test_no_structure_is_said():
    x = np.random.default_rng(0).normal(size=(300, 20))
    assert "hardly any structure" in find_clusters(principal(x)).note


def test_the_largest_cluster_is_first_and_the_same_call_gives_the_same():
    x, _ = blobs()
    x = x[20:]  # the others
    x = np.concatenate([x, x[:10] + 1e-3])
    found = find_clusters(principal(x), 4)
    sizes = np.bincount(found.label)
    assert sizes.tolist() == [30, 20, 20, 20]
    np.testing.assert_array_equal(find_clusters(principal(x), 4).label, found.label)


def test_typical_images_are_near_the_centre_and_uncertain_ones_between_two():
    x, _ = blobs(2, each=30, width=2, spread=0.01)
    x[7] = [0.51, 0.49]  # nearly halfway
    x[5] = x[:30].mean(axis=0)  # the centre of its cluster
    found = find_clusters(principal(x), 2)
    mine = found.label[7]
    assert found.uncertain(mine)[0] == 7
    assert found.typical(found.label[5])[0] == 5
    assert found.certainty.argmin() == 7 and found.certainty[7] < 0.1 < found.certainty[5]
    assert set(found.typical(0)) == set(np.flatnonzero(found.label == 0))


@pytest.mark.parametrize(
    ("x", "number", "clusters"),
    [
        (np.ones((1, 4)), None, 1),
        (np.ones((6, 4)), None, 1),
        (np.ones((6, 4)), 3, 1),
        (np.eye(2, 4), None, 2),
        (np.eye(3, 4), 5, 3),
        (np.repeat(np.eye(3, 4), 4, 0), 10, 3),
        (np.eye(3, 4), 1, 1),
    ],
)
def test_few_images_and_images_that_are_the_same(x, number, clusters):
    found = find_clusters(principal(x), number)
    assert found.number == clusters and len(found.label) == len(x)
    assert np.isfinite(found.certainty).all()
    assert found.note


@pytest.mark.parametrize("number", [None, 12])
@pytest.mark.parametrize("noise", [1e-3, 1e-5, 1e-7, 1e-12])
def test_images_that_are_nearly_the_same(recwarn, number, noise):
    x, truth = blobs(4, each=6, spread=noise)
    found = find_clusters(principal(x.astype(np.float32)), number)
    assert found.number >= 4 and set(found.label) == set(range(found.number))
    assert adjusted_rand_score(truth, np.minimum(found.label, 99)) > 0.2
    assert (np.diff(np.bincount(found.label)) <= 0).all()
    assert not recwarn.list


def test_a_number_that_is_none():
    with pytest.raises(UserError, match="must be 1 or more, not 0"):
        find_clusters(np.eye(3), 0)


def test_principal_components_keep_distances():
    x, _ = blobs()
    a, b = principal(x), x - x.mean(axis=0)
    np.testing.assert_allclose(
        np.linalg.norm(a[:, None] - a, axis=2), np.linalg.norm(b[:, None] - b, axis=2), atol=1e-8
    )


def test_numbers_start_at_three():
    assert NUMBERS[0] == 3


# ---- names


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
    total = sum(mean[c, name.words[0]] for c, name in enumerate(names))
    best = max(
        sum(mean[c, w] for c, w in enumerate(words))
        for words in itertools.permutations(range(texts), number)
    )
    assert total == pytest.approx(best)
    words = [word for name in names for word in name.words]
    assert len(words) == len(set(words))
    for cluster, name in enumerate(names):  # the other words: this cluster's more than any other's
        assert all(mean[:, word].argmax() == cluster for word in name.words[1:])
        assert all(0 <= value <= 1 for value in name.strength)


def test_margins_by_hand():
    # within clusters, the word varies by 0.1; the clusters' means are 1 and 0.8, or 1 and 0
    label = np.array([0, 0, 1, 1])
    near = np.array([[1.1, 0], [0.9, 0], [0.9, 0.5], [0.7, 0.5]])
    (name, _) = name_clusters(near, label)
    assert name.words[0] == 0 and name.margin == pytest.approx(2.0) and not name.weak
    near[2:, 0] += 0.1
    (name, _) = name_clusters(near, label)
    assert name.margin == pytest.approx(1.0) and name.margin < WEAK and name.weak


def test_more_clusters_than_texts():
    names = name_clusters(np.eye(3, 2), np.arange(3))
    assert [len(name.words) for name in names] == [1, 1, 0]
    assert names[2].weak


def test_one_cluster_is_named_but_the_name_is_weak():
    (name,) = name_clusters(np.zeros((4, 3)), np.zeros(4, int))
    assert name.words and name.weak
