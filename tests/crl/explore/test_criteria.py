"""Which criterion images vary in, against the formula written out; the directions of others."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_vlm import ToyVLM

from crl import criteria
from crl.basis import TextBasis
from crl.explore.criteria import directions_of_others, rank_criteria
from crl.embed import embed_basis
from crl.projection import l2, null_space, overlap, posterior, project, spread
from crl.run.errors import UserError

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
    found = []
    for row in rows:
        p = [w * math.exp(sharpness * r / sigma) for w, r in zip(prior, row, strict=True)]
        found.append([x / sum(p) for x in p])
    return [c for c, _, _ in words], found


def written_out(image, text, sharpness) -> dict[str, float]:
    owners, p = posteriors(image, text, sharpness)
    scores = dict.fromkeys(text, 0.0)
    for w, owner in enumerate(owners):
        mean = sum(row[w] for row in p) / len(p)
        scores[owner] += sum(x * math.log(x / mean) for row in p if (x := row[w]) > 0) / len(p)
    return scores


def close(found: dict[str, float], expected: dict[str, float], atol: float = 1e-9) -> bool:
    return found.keys() == expected.keys() and all(
        abs(found[c] - expected[c]) <= atol for c in expected
    )


# --- rank_criteria --------------------------------------------------------------------------------


@given(SEEDS, SIZES, SHAPES, SHARPNESS)
def test_scores_are_the_formula(seed, sizes, shape, sharpness):
    image, text = vectors(*shape, seed=seed), drawn(seed, sizes)
    found = rank_criteria(image, text, sharpness)
    assert all(type(score) is float and score > -1e-12 for score in found.values())
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert close(found, written_out(image, text, sharpness))


def test_the_default_sharpness():
    image, text = vectors(N, D), drawn(0, [3, 4])
    assert close(rank_criteria(image, text), written_out(image, text, 4))


@given(SEEDS, SIZES, SHARPNESS)
def test_scores_add_up_to_the_mutual_information(seed, sizes, sharpness):
    image, text = vectors(N, D, seed=seed), drawn(seed, sizes)
    joint = np.array(posteriors(image, text, sharpness)[1]) / N  # p(image, word)
    independent = joint.sum(1, keepdims=True) * joint.sum(0)
    information = np.sum(joint[joint > 0] * np.log(joint[joint > 0] / independent[joint > 0]))
    total = sum(rank_criteria(image, text, sharpness).values())
    assert np.isclose(total, information, rtol=0, atol=1e-9)
    assert total <= np.log(min(N, sum(sizes))) + 1e-9


@given(SEEDS, SHARPNESS)
def test_the_posterior_is_that_of_the_projection(seed, sharpness):
    """With bases of one size, each word has the same prior."""
    image, text = vectors(N, D, seed=seed), drawn(seed, [3, 3])
    r = project(l2(image), l2(np.concatenate(list(text.values()))))
    p = posterior(r, spread(r), sharpness) ** 2
    parts = np.sum(p * np.log(p.clip(1e-300) / p.mean(0)), axis=0) / N
    expected = {"c0": sum(parts[:3]), "c1": sum(parts[3:])}
    assert close(rank_criteria(image, text, sharpness), expected)


@given(SEEDS, SIZES, SHARPNESS, st.integers(2, 3))
def test_a_basis_with_each_text_twice_scores_the_same(seed, sizes, sharpness, times):
    image, text = vectors(N, D, seed=seed), drawn(seed, sizes)
    again = {**text, "c0": np.repeat(text["c0"], times, axis=0)}
    assert close(rank_criteria(image, again, sharpness), rank_criteria(image, text, sharpness))


@given(SEEDS, SIZES, SHAPES)
def test_lengths_and_order_change_nothing(seed, sizes, shape):
    image, text = vectors(*shape, seed=seed), drawn(seed, sizes)
    expected = rank_criteria(image, text)
    rng = np.random.default_rng(seed)
    long = image * rng.uniform(1e-3, 1e3, (*shape[:-1], 1))
    assert close(rank_criteria(long, text), expected)
    scaled = {c: t * rng.uniform(1e-3, 1e3, (len(t), 1)) for c, t in text.items()}
    assert close(rank_criteria(image, scaled), expected)
    assert close(rank_criteria(image[::-1], {c: text[c][::-1] for c in reversed(text)}), expected)


@given(SEEDS, SIZES, SHAPES, st.integers(1, N + 2))
def test_in_parts_as_in_one(seed, sizes, shape, rows):
    image, text = vectors(*shape, seed=seed), drawn(seed, sizes)
    whole = rank_criteria(image, text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("crl.projection.ROWS_AT_ONCE", rows)
        assert close(rank_criteria(image, text), whole)


def test_images_that_vary_along_the_texts_of_one_criterion():
    texts = np.eye(6)
    text = {"shape": texts[:3], "color": texts[3:]}
    red_green_blue = np.arange(12) % 3
    image = texts[0] + texts[3:][red_green_blue] + 0.01 * vectors(12, 6)  # one shape, three colors
    scores = rank_criteria(image, text)
    assert list(scores) == ["color", "shape"]
    assert scores["color"] > 0.3 > 0.001 > scores["shape"]
    swapped = rank_criteria(image[:, [3, 4, 5, 0, 1, 2]], text)
    assert list(swapped) == ["shape", "color"]


def test_images_that_are_all_alike():
    scores = rank_criteria(np.repeat(vectors(1, D), N, axis=0), drawn(0, [3, 4]))
    assert close(scores, {"c0": 0, "c1": 0}, atol=1e-12)


def test_a_criterion_whose_texts_do_not_fit():
    texts = np.eye(7)
    text = {"suit": texts[4:], "color": texts[:4]}
    image = texts[np.arange(12) % 4] - 0.5 * texts[4:].sum(0) + 0.1 * np.abs(vectors(12, 7))
    scores = rank_criteria(image, text, sharpness=8)
    assert list(scores) == ["color", "suit"] and scores["suit"] < 0.01 < 1 < scores["color"]


def test_lists_and_float32():
    image, text = vectors(N, D), drawn(0, [3, 4])
    expected = rank_criteria(image, text)
    assert close(rank_criteria(image.tolist(), {c: t.tolist() for c, t in text.items()}), expected)
    single = {c: t.astype(np.float32) for c, t in text.items()}
    assert close(rank_criteria(image.astype(np.float32), single), expected, atol=1e-5)


def test_no_criteria():
    with pytest.raises(ValueError, match="one criterion or more"):
        rank_criteria(vectors(N, D), {})


@pytest.mark.parametrize("sharpness", [0, -1, math.nan, math.inf, -math.inf])
def test_impossible_sharpness(sharpness):
    with pytest.raises(ValueError, match="sharpness must be above 0 and finite"):
        rank_criteria(vectors(N, D), drawn(0, [3]), sharpness)


@pytest.mark.parametrize(
    "sizes",
    [
        (1, 1),
        (2, 2),
        (3, 7),
    ],
)
def test_texts_that_are_all_the_same(sizes):
    text = {str(i): np.tile(vectors(D, seed=1), (k, 1)) for i, k in enumerate(sizes)}
    with pytest.raises(ValueError, match="all texts of all criteria are the same"):
        rank_criteria(vectors(N, D), text)
