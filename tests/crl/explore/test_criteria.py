"""Which criterion images vary in, against the formula written out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import xlogy
from vectors import vectors

from crl.explore.criteria import most_alike, rank_criteria, told_apart
from crl.projection import l2

N, Q, D = 7, 3, 5
SEEDS = st.integers(0, 100)
SHARPNESS = st.floats(1e-2, 50)
SIZES = st.lists(st.integers(1, 5), min_size=1, max_size=3).filter(lambda sizes: sum(sizes) > 1)
SHAPES = st.sampled_from([(N, D), (N, Q, D)])


def drawn(seed: int, sizes: list[int]) -> dict[str, np.ndarray]:
    return {f"c{i}": vectors(k, D, seed=seed + 1000 * (i + 1)) for i, k in enumerate(sizes)}


def written_out(image, text, sharpness) -> dict[str, float]:
    owners = [criterion for criterion, texts in text.items() for _ in texts]  # of each word
    prior = np.array([1 / len(text) / len(text[criterion]) for criterion in owners])
    words = l2(np.concatenate(list(text.values())))
    r = (l2(image).reshape(len(image), -1, D) @ words.T).max(axis=1)  # (N, sum of K_c)
    r -= (r @ prior)[:, None]
    p = prior * np.exp(sharpness * r / np.sqrt(r**2 @ prior).mean())
    p /= p.sum(axis=1, keepdims=True)
    information = xlogy(p, p / p.mean(axis=0)).mean(axis=0)
    return {c: information[np.array(owners) == c].sum() for c in text}


def close(expected: dict[str, float], atol: float = 1e-9):
    return pytest.approx(expected, rel=0, abs=atol)


@given(SEEDS, SIZES, SHAPES, SHARPNESS)
def test_scores_are_the_formula(seed, sizes, shape, sharpness):
    image, text = vectors(*shape, seed=seed), drawn(seed, sizes)
    scores = rank_criteria(image, text, sharpness)
    assert scores == close(written_out(image, text, sharpness))
    assert all(type(score) is float for score in scores.values())
    assert list(scores.values()) == sorted(scores.values(), reverse=True)


@given(SEEDS, SIZES, SHAPES, st.integers(2, 3), st.integers(1, N + 2))
def test_lengths_order_parts_and_repeated_texts_change_nothing(seed, sizes, shape, times, rows):
    image, text = vectors(*shape, seed=seed), drawn(seed, sizes)
    scores = rank_criteria(image, text)
    again = {**text, "c0": np.repeat(text["c0"], times, axis=0)}
    assert rank_criteria(image, again) == close(scores)
    rng = np.random.default_rng(seed)
    long = image * rng.uniform(1e-3, 1e3, (*shape[:-1], 1))
    scaled = {c: t * rng.uniform(1e-3, 1e3, (len(t), 1)) for c, t in text.items()}
    assert rank_criteria(long, scaled) == close(scores)
    assert rank_criteria(image[::-1], {c: text[c][::-1] for c in reversed(text)}) == close(scores)
    single = {c: t.astype(np.float32) for c, t in text.items()}
    assert rank_criteria(image.astype(np.float32), single) == close(scores, 1e-5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("crl.projection.ROWS_AT_ONCE", rows)
        assert rank_criteria(image, text) == close(scores)


def test_images_that_vary_along_the_texts_of_one_criterion():
    texts = np.eye(6)
    text = {"shape": texts[:3], "color": texts[3:]}
    red_green_blue = np.arange(12) % 3
    image = texts[0] + texts[3:][red_green_blue] + 0.01 * vectors(12, 6)  # one shape, three colors
    scores = rank_criteria(image, text)
    assert list(scores) == ["color", "shape"]
    assert scores["color"] > 0.3 > 0.001 > scores["shape"]
    assert list(rank_criteria(image[:, [3, 4, 5, 0, 1, 2]], text)) == ["shape", "color"]
    suit = {"suit": np.eye(7)[4:], "color": np.eye(7)[:4]}  # texts that do not fit
    image = np.eye(7)[np.arange(12) % 4] - 0.5 * suit["suit"].sum(0) + 0.1 * abs(vectors(12, 7))
    scores = rank_criteria(image, suit, sharpness=8)
    assert list(scores) == ["color", "suit"] and scores["suit"] < 0.01 < 1 < scores["color"]
    with pytest.raises(ValueError, match="all texts of all criteria are the same"):
        rank_criteria(vectors(N, D), {"a": np.ones((2, D)), "b": np.ones((7, D))})
    alike = rank_criteria(np.repeat(vectors(1, D), N, axis=0), drawn(0, [3, 4]))
    assert alike == close({"c0": 0, "c1": 0}, 1e-12)


def test_texts_that_look_the_same_to_the_vlm_are_left_out():
    text = l2(vectors(5, 64))  # float32 or float64, whatever the VLM gives
    alike = np.concatenate([text[:1], text, text[3:4] + 1e-7])
    for kind in (np.float32, np.float64):
        np.testing.assert_allclose(told_apart(alike.astype(kind)), text[[1, 2, 4]], atol=1e-6)


def test_criteria_that_group_the_images_alike():
    rng = np.random.default_rng(0)
    color, shape = rng.integers(4, size=(2, 200))
    text = {"color": np.eye(8)[:4], "shape": np.eye(8)[4:], "hue": np.eye(8)[3::-1]}
    image = l2(np.eye(8)[color] + np.eye(8)[4 + shape] + 0.01 * vectors(200, 8))
    alike = most_alike(image, text)
    assert list(alike) == list(text) and alike["color"] is None
    assert alike["shape"][0] == "color" and abs(alike["shape"][1]) < 0.1
    assert alike["hue"][0] == "color" and alike["hue"][1] > 0.5
