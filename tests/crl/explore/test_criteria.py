"""Which criterion images vary in, against the formula written out."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crl.explore.criteria import rank_criteria

N, Q, D = 7, 3, 5
SEEDS = st.integers(0, 100)
SHARPNESS = st.floats(1e-2, 50)
SIZES = st.lists(st.integers(1, 5), min_size=1, max_size=3).filter(lambda sizes: sum(sizes) > 1)
SHAPES = st.sampled_from([(N, D), (N, Q, D)])


def vectors(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def drawn(seed: int, sizes: list[int]) -> dict[str, np.ndarray]:
    return {f"c{i}": vectors(k, D, seed=seed + 1000 * (i + 1)) for i, k in enumerate(sizes)}


def posteriors(image, text, sharpness) -> tuple[list[str], list[list[float]]]:
    """The criterion of each word, and p(word | image), in plain Python."""
    words = [(c, t, 1 / len(text) / len(texts)) for c, texts in text.items() for t in texts]
    prior = [share for _, _, share in words]
    rows = []
    for queries in image.reshape(len(image), -1, D):
        row = [
            max(q @ t / math.sqrt(q @ q) / math.sqrt(t @ t) for q in queries) for _, t, _ in words
        ]
        level = sum(w * r for w, r in zip(prior, row, strict=True))
        rows.append([r - level for r in row])
    deviations = [sum(w * r**2 for w, r in zip(prior, row, strict=True)) ** 0.5 for row in rows]
    sigma = sum(deviations) / len(rows)
    p = [
        [w * math.exp(sharpness * r / sigma) for w, r in zip(prior, row, strict=True)]
        for row in rows
    ]
    return [c for c, _, _ in words], [[x / sum(row) for x in row] for row in p]


def close(scores: dict[str, float], expected: dict[str, float], atol: float = 1e-9) -> bool:
    return scores.keys() == expected.keys() and all(
        abs(scores[c] - expected[c]) <= atol for c in expected
    )


@given(SEEDS, SIZES, SHAPES, SHARPNESS)
def test_scores_are_the_formula(seed, sizes, shape, sharpness):
    image, text = vectors(*shape, seed=seed), drawn(seed, sizes)
    owners, p = posteriors(image, text, sharpness)
    expected = dict.fromkeys(text, 0.0)
    for w, owner in enumerate(owners):
        mean = sum(row[w] for row in p) / len(p)
        expected[owner] += sum(x * math.log(x / mean) for row in p if (x := row[w]) > 0) / len(p)
    scores = rank_criteria(image, text, sharpness)
    assert close(scores, expected) and all(type(score) is float for score in scores.values())
    assert list(scores.values()) == sorted(scores.values(), reverse=True)


@given(SEEDS, SIZES, SHAPES, st.integers(2, 3), st.integers(1, N + 2))
def test_lengths_order_parts_and_repeated_texts_change_nothing(seed, sizes, shape, times, rows):
    image, text = vectors(*shape, seed=seed), drawn(seed, sizes)
    expected = rank_criteria(image, text)
    again = {**text, "c0": np.repeat(text["c0"], times, axis=0)}
    assert close(rank_criteria(image, again), expected)
    rng = np.random.default_rng(seed)
    long = image * rng.uniform(1e-3, 1e3, (*shape[:-1], 1))
    scaled = {c: t * rng.uniform(1e-3, 1e3, (len(t), 1)) for c, t in text.items()}
    assert close(rank_criteria(long, scaled), expected)
    assert close(rank_criteria(image[::-1], {c: text[c][::-1] for c in reversed(text)}), expected)
    single = {c: t.astype(np.float32) for c, t in text.items()}
    assert close(rank_criteria(image.astype(np.float32), single), expected, atol=1e-5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("crl.projection.ROWS_AT_ONCE", rows)
        assert close(rank_criteria(image, text), expected)


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
    assert close(alike, {"c0": 0, "c1": 0}, atol=1e-12)
