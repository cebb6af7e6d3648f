"""Average precision against the protocol, step by step, and over all orders of ties."""

from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crl.run.ranking import average_precision, query_parts


def slow_average_precision(order, value, candidate_value):
    """The protocol, literally: walk down the list, add up."""
    hits, total = 0, 0.0
    for rank, candidate in enumerate(order, 1):
        if candidate_value[candidate] == value:
            hits += 1
            total += hits / rank
    return total / hits if hits else 0.0


def all_orders(row, value, candidate_value):
    """The mean of the protocol over every order of tied candidates."""
    orders = permutations(range(len(row)))
    orders = [order for order in orders if all(row[a] >= row[b] for a, b in pairwise(order))]
    return np.mean([slow_average_precision(order, value, candidate_value) for order in orders])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_average_precision_without_ties(dtype):
    rng = np.random.default_rng(0)
    similarity = rng.permuted(np.tile(np.arange(300), (40, 1)), axis=1).astype(dtype) / 300
    query, candidate = rng.integers(0, 12, 40), rng.integers(0, 10, 300)  # 10, 11: none relevant
    precision = average_precision(similarity, query, candidate)
    orders = zip(np.argsort(-similarity, axis=1), query, strict=True)
    expected = [slow_average_precision(order, value, candidate) for order, value in orders]
    assert precision.dtype == np.float64 and not precision[query >= 10].any()
    np.testing.assert_allclose(precision, expected, atol=1e-9)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1)), min_size=1, max_size=6))
def test_average_precision_with_ties_is_the_mean_over_all_orders(pairs):
    row, values = zip(*pairs, strict=True)
    ours = average_precision(np.array([row, row], float), np.array([1, 0]), np.array(values))
    expected = [all_orders(row, value, values) for value in (1, 0)]
    assert ours == pytest.approx(expected, abs=1e-12)


def test_nan_has_no_place_in_a_ranking():
    similarity = np.array([[0.9, np.nan, 0.1]])
    with pytest.raises(ValueError, match="NaN"):
        average_precision(similarity, np.array([7]), np.array([7, 1, 7]))


def test_parts_hold_each_query_once_and_bound_the_memory():
    parts = query_parts(1000, 100_000)
    assert np.array_equal(np.concatenate(parts), np.arange(1000))
    assert max(map(len, parts)) * 100_000 <= 2**23
    assert [len(part) for part in query_parts(3, 2**24)] == [1, 1, 1]
