"""The null space of other criteria against the covariance, direction by direction."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_vlm import ToyVLM
from vectors import vectors

from crl.basis import TextBasis
from crl.projection import l2
from crl.representations import null_space as module
from crl.representations.null_space import directions_of_others, null_space, overlap, without
from crl.run.errors import UserError

N, Q, D, K = 7, 3, 5, 4
SEEDS = st.integers(0, 100)


SIZES = st.one_of(st.none(), st.integers(1, 3))


def bases(seed: int, sizes: list[int]) -> list[np.ndarray]:
    return [l2(vectors(k, D, seed=seed + 1000 * i)) for i, k in enumerate(sizes)]


def basis(*counts: int) -> np.ndarray:
    """T (sum of counts * 2, 9): the i-th count gives its share of the variance, along axis i."""
    pairs = [s * 0.1 * np.eye(9)[i] for i, count in enumerate(counts) for s in count * (1, -1)]
    return np.stack(pairs) + np.sqrt(0.99) * np.eye(9)[8]


def projector(directions: np.ndarray) -> np.ndarray:
    return directions.T @ directions


def principal(text: np.ndarray, size: int | None) -> np.ndarray:
    """Principal directions, largest variance first, one by one from the covariance."""
    centred = text - sum(text) / len(text)
    variances, directions = np.linalg.eigh(sum(np.outer(row, row) for row in centred))
    taken = 0
    for count in range(1, D + 1):
        taken += variances[-count]
        if count == size or (size is None and taken >= sum(variances) / 2):
            return directions[:, -count:].T
    raise AssertionError


@given(SEEDS, st.lists(st.integers(4, 8), min_size=1, max_size=3), SIZES)
def test_null_space_spans_the_principal_directions_of_each_basis(seed, sizes, size):
    others = bases(seed, sizes)
    found = null_space(others, size)
    wanted = np.concatenate([principal(text, size) for text in others])
    assert found.ndim == 2 and len(found) <= min(len(wanted), D)
    assert np.allclose(found @ found.T, np.eye(len(found)), rtol=0, atol=1e-12)
    assert np.allclose(wanted @ projector(found), wanted, rtol=0, atol=5e-3)  # nothing is lost
    inside = np.linalg.lstsq(wanted.T, found.T, rcond=None)[0]
    assert np.allclose(wanted.T @ inside, found.T, rtol=0, atol=1e-9)  # and nothing comes in


@pytest.mark.parametrize(
    ("counts", "few"),
    [((6, 2, 2), 1), ((3, 2), 1), ((4, 3, 2), 2), ((5, 3, 2, 2), 2), ((5, 4, 3, 2, 2, 2, 2, 1), 3)],
)
def test_null_space_takes_the_fewest_directions_for_half(counts, few):
    assert np.allclose(projector(null_space([basis(*counts)])), np.diag(np.arange(9) < few))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_null_space_takes_no_direction_in_which_texts_do_not_differ(dtype):
    (text,) = bases(0, [3])  # three texts differ in two directions
    assert len(null_space([text.astype(dtype)], 3)) == len(null_space([text.astype(dtype)], 5)) == 2


@given(SEEDS, st.integers(1, D - 1), st.sampled_from([(N, D), (N, Q, D)]))
def test_without_leaves_only_what_is_orthogonal(seed, size, shape):
    image, directions = l2(vectors(*shape, seed=seed)), null_space(bases(seed + 1, [D + 1]), size)
    image[2] = 0
    rest = without(image, directions)
    assert rest.shape == image.shape
    assert np.allclose(rest @ directions.T, 0, rtol=0, atol=1e-9)
    assert np.all(rest[2] == 0)
    assert np.allclose(np.linalg.norm(np.delete(rest, 2, 0), axis=-1), 1)
    assert np.allclose(without(rest, directions), rest, rtol=0, atol=1e-9)
    # slowly: one direction after the other
    for row, found in zip(image.reshape(-1, D), rest.reshape(-1, D), strict=True):
        for v in directions:
            row = row - sum(row * v) * v
        assert np.allclose(found, row / max(np.sqrt(sum(row**2)), 1e-300), rtol=0, atol=1e-9)


@given(SEEDS, SIZES)
def test_overlap_is_a_fraction_of_the_variance(seed, size):
    text, other = bases(seed, [K, 6])
    directions = null_space([other], size)
    mean = sum(text) / K
    total = sum(sum((t - mean) ** 2) for t in text)
    inside = sum(sum((t - mean) * v) ** 2 for t in text for v in directions)
    share = overlap(text, directions)
    assert type(share) is float and 0 <= share <= 1 + 1e-12
    assert np.isclose(share, inside / total, rtol=1e-9)


def made_of(criterion: str, *texts: str) -> TextBasis:
    return TextBasis(criterion=criterion, vlm_prompt=f"a {criterion} of {{text}}", texts=texts)


COLOR = made_of("color", "red", "green", "blue", "black")
SHAPE = made_of("shape", "cube", "ball", "cone")
COUNT = made_of("count", "one", "two", "three")


def embedded(named: TextBasis) -> np.ndarray:
    return l2(ToyVLM().encode_texts(named.prompts).numpy())


@pytest.mark.filterwarnings("ignore:null_space")
def test_the_own_basis_is_left_out():
    alone = directions_of_others(ToyVLM(), COLOR, [SHAPE], cache=None)
    same = COLOR.model_copy(update={"provenance": {"llm": "another"}})
    for others in ([COLOR, SHAPE], [SHAPE, same], [COLOR, SHAPE, COLOR]):
        assert np.array_equal(directions_of_others(ToyVLM(), COLOR, others, cache=None), alone)
    reworded = COLOR.model_copy(update={"vlm_prompt": "{text} things"})  # is another basis
    found = directions_of_others(ToyVLM(), COLOR, [SHAPE, reworded], cache=None)
    assert np.array_equal(found, null_space([embedded(SHAPE), embedded(reworded)]))


def test_a_warning_above_the_largest_overlap(monkeypatch):
    share = overlap(embedded(COLOR), null_space([embedded(SHAPE)], 1))
    assert 0 < share < 1
    monkeypatch.setattr(module, "MOST_OVERLAP", share)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        directions_of_others(ToyVLM(), COLOR, [SHAPE], 1, cache=None)
    monkeypatch.setattr(module, "MOST_OVERLAP", share - 1e-6)
    expected = f"{share:.0%} of what the basis for 'color' says"
    with pytest.warns(UserWarning, match=expected) as caught:
        directions_of_others(ToyVLM(), COLOR, [SHAPE], 1, cache=None)
    assert caught[0].filename == __file__


def test_a_null_space_that_leaves_nothing_is_refused():
    many = made_of("many", *(f"{letter} thing" for letter in "abcdefghijklmnopqrstuvwxyz"))
    dim = ToyVLM().dim
    assert len(null_space([embedded(many)], dim)) == dim  # the texts fill the space
    with pytest.raises(UserError, match="null_space leaves nothing of the images"):
        directions_of_others(ToyVLM(), COLOR, [many], dim, cache=None)
