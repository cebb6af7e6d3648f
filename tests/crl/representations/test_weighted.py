"""Several criteria at once against sums written out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vectors import vectors

from crl.projection import l2
from crl.representations.weighted import weighted, weighted_similarity

N = 7
SEEDS = st.integers(0, 100)


NAMES = ("color", "shape", "count")


def any_weights(least: float) -> st.SearchStrategy[dict[str, float]]:
    values = st.floats(least, 1e6, allow_subnormal=False)
    dicts = st.dictionaries(st.sampled_from(NAMES), values, min_size=1)
    return dicts.filter(lambda weights: any(weights.values()))


def representations(n: int, seed: int) -> dict[str, np.ndarray]:
    """criterion: R (n, K_c), unit rows; a different K_c each."""
    return {name: l2(vectors(n, 2 + i, seed=seed + 1000 * i)) for i, name in enumerate(NAMES)}


def mean_similarity(a, b, weights: dict[str, float]) -> list[list[float]]:
    total = sum(abs(w) for w in weights.values())
    share = {c: w / total for c, w in weights.items()}
    rows, columns = len(a["color"]), len(b["color"])
    return [
        [sum(w * sum(a[c][i] * b[c][j]) for c, w in share.items()) for j in range(columns)]
        for i in range(rows)
    ]


@given(SEEDS, any_weights(0))
def test_products_of_weighted_rows_are_weighted_means(seed, weights):
    parts = representations(N, seed)
    found = weighted(parts, weights)
    used = [c for c, w in weights.items() if w > 0]
    assert found.shape == (N, sum(parts[c].shape[1] for c in used))
    assert np.allclose(np.linalg.norm(found, axis=1), 1)
    assert np.allclose(found @ found.T, mean_similarity(parts, parts, weights), rtol=0, atol=1e-12)


@given(SEEDS, any_weights(-1e6))
def test_weighted_similarity_written_out(seed, weights):
    queries, candidates = representations(N, seed), representations(4, seed + 500)
    found = weighted_similarity(queries, candidates, weights)
    assert found.shape == (N, 4) and np.all(abs(found) <= 1 + 1e-12)
    assert np.allclose(found, mean_similarity(queries, candidates, weights), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"colour": 1}, "unknown criterion 'colour'; known: color, shape, count"),
        ({"color": np.nan}, "weight of 'color' must be finite, not nan"),
        ({"color": 0, "shape": 0.0}, "all weights are 0"),
    ],
)
def test_impossible_weights(weights, message):
    parts = representations(N, 0)
    with pytest.raises(ValueError, match=message):
        weighted(parts, weights)
    with pytest.raises(ValueError, match=message):
        weighted_similarity(parts, parts, weights)
    with pytest.raises(ValueError, match="use weighted_similarity"):
        weighted(parts, {"color": 2, "shape": -0.1})
