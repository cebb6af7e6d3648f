"""Search against sorting all scores that are written out in float64."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.special import softmax

from crl.explore import search as module
from crl.explore.search import Criterion, neighbours, search
from crl.projection import l2
from crl.representations import make_representation

D = 24


@pytest.fixture(autouse=True)
def few_rows_at_once(monkeypatch):
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 7)


def vectors(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def criterion(name, image, text, query, weight=1.0) -> Criterion:
    fitted = make_representation(name, text).fit(image.astype(np.float32))
    return Criterion(fitted.transform, fitted.transform(query.astype(float)), weight)


def written_out(name, image, text, query) -> np.ndarray:
    """(queries, N): similarities by the formulas, in float64."""
    text = l2(text.astype(float))
    sigma = (l2(image.astype(float)) @ text.T).std(axis=1).mean()

    def represent(x):
        r = l2(x.astype(float)) @ text.T
        return l2(r) if name == "paper" else np.sqrt(softmax(r / sigma, axis=1))

    return represent(query) @ represent(image).T


WEIGHT = st.floats(-2, 2).filter(lambda weight: abs(weight) > 0.01)
CRITERION = st.tuples(st.sampled_from(["paper", "posterior"]), st.integers(2, 30), WEIGHT)


@given(
    n=st.integers(1, 40),
    d=st.integers(2, 16),
    criteria=st.lists(CRITERION, min_size=1, max_size=3),
    queries=st.integers(1, 3),
    half=st.booleans(),
    k=st.integers(1, 50),
    seed=st.integers(0, 99),
)
def test_the_best_are_those_of_all_scores(n, d, criteria, queries, half, k, seed):
    """Several criteria, "unlike", several queries; rows of any length, float16 or float32."""
    image = 5 * vectors(n, d, seed=seed).astype(np.float16 if half else np.float32)
    assume((np.linalg.norm(image, axis=1) > 0.1).all())
    query = vectors(queries, d, seed=seed + 1)
    total = sum(abs(weight) for *_, weight in criteria)
    scores, parts = 0, []
    for i, (name, size, weight) in enumerate(criteria):
        text = vectors(size, d, seed=seed + 2 + i)
        scores += weight * written_out(name, image, text, query) / total
        parts.append(criterion(name, image, text, query, weight))
    matches = search(image, parts, k)
    assert matches.rows.shape == (queries, min(k, n)) and matches.scores.dtype == np.float32
    for rows, got, expected in zip(matches.rows, matches.scores, scores, strict=True):
        assert len(set(rows.tolist())) == len(rows)
        np.testing.assert_allclose(got, np.sort(expected)[::-1][:k], atol=1e-5)
        np.testing.assert_allclose(got, expected[rows], atol=1e-5)
        assert (np.diff(rows)[np.diff(got) == 0] > 0).all() and (np.diff(got) <= 0).all()


def test_where_float32_is_too_coarse_float64_decides():
    """Texts that are nearly the same: R' magnifies the rounding of float32 beyond `SLACK`."""
    image, text = l2(vectors(3_000, D)), l2(np.ones(D) + 5e-7 * vectors(9, D, seed=1))
    fitted = make_representation("posterior", text.astype(np.float32)).fit(image.astype(float))
    query = fitted.transform(image[:1].astype(float))
    scores = (query @ fitted.transform(image.astype(float)).T)[0]
    rough = (query @ fitted.transform(image).T)[0]
    assert abs(scores - rough).max() > module.SLACK
    matches = search(image, [Criterion(fitted.transform, query)], 10)
    assert matches.rows[0].tolist() == np.argsort(-scores, kind="stable")[:10].tolist()


def test_few_rows_are_computed_twice_and_a_memory_map_is_read_by_parts(tmp_path):
    image = np.memmap(tmp_path / "rows", np.float16, "w+", shape=(2_000, D))
    image[:] = vectors(2_000, D)
    rows = []
    fitted = make_representation("paper", vectors(9, D, seed=1)).fit(np.asarray(image, np.float32))

    def transform(x):
        rows.append(len(x))
        return fitted.transform(x)

    search(image, [Criterion(transform, fitted.transform(image[:1].astype(float)))], 10)
    assert sum(rows) < 2_100 and max(rows) <= module.ROWS_AT_ONCE


def test_neighbours_against_a_slow_loop():
    x = vectors(1_100, 6)
    near = neighbours(x, 4)
    for i in (0, 999, 1_000, 1_099):
        order = [j for j in np.argsort(-(x @ x[i]), kind="stable") if j != i]
        assert near[i].tolist() == order[:4]
    assert neighbours(x[:1], 4).shape == (1, 0)
