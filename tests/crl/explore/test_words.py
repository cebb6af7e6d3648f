import numpy as np

from crl.explore.words import SHARPNESS, probabilities, shared_words, standing

R = np.array([[0.9, 0.1, 0.5], [0.9, 0.5, 0.1]])  # the first text is near to every image


def test_what_all_images_have_in_common_makes_none_stand_out():
    np.testing.assert_allclose(standing(R), [[0, -0.2, 0.2], [0, 0.2, -0.2]])
    np.testing.assert_allclose(standing(R + np.arange(3)), standing(R))
    assert probabilities(standing(R)).argmax(axis=1).tolist() == [2, 1]


def test_probabilities_by_hand():
    x = np.array([[0.0, 2.0], [2.0, 0.0]])  # sigma = 1
    a = np.exp(2 * SHARPNESS)
    np.testing.assert_allclose(probabilities(x)[0], [1 / (1 + a), a / (1 + a)])
    same = standing(np.repeat(R[:1], 3, 0))  # images that are all the same have no best word
    np.testing.assert_allclose(probabilities(same), 1 / 3)


def test_shared_words_against_a_slow_loop():
    rng = np.random.default_rng(0)
    level, near = rng.normal(size=(250, 9)), rng.integers(0, 250, (250, 4))
    shared = shared_words(level, near)
    for i, others in enumerate(near):
        for m, j in enumerate(others):
            both = np.minimum(level[i], level[j])
            np.testing.assert_array_equal(shared[i, m], np.argsort(-both)[:3])
    assert shared_words(level[:1], near[:1, :0]).shape == (1, 0, 3)
