"""The posterior against the softmax written out, and what it must not depend on."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from vectors import vectors

from crl.projection import ConditionalProjection, l2
from crl.representations import posterior as module
from crl.representations.posterior import Representation, posterior

N, D, K = 7, 5, 4


def spread(r: np.ndarray) -> float:
    return module.spread(lambda rows: r[rows], len(r))


SHARPNESS = st.floats(1e-3, 50)
SEEDS = st.integers(0, 100)


def softmax(x: np.ndarray) -> np.ndarray:
    return torch.softmax(torch.from_numpy(x), dim=1).numpy()


@given(SEEDS, SHARPNESS)
def test_posterior_is_the_root_of_the_softmax(seed, sharpness):
    r = vectors(N, K, seed=seed)
    expected = np.sqrt(softmax(sharpness * r / spread(r)))
    found = posterior(r, spread(r), sharpness)
    assert np.allclose(found, expected, rtol=0, atol=1e-12)
    assert np.allclose(found, l2(np.exp(sharpness * r / (2 * spread(r)))), rtol=0, atol=1e-12)


@given(SEEDS, SHARPNESS, st.integers(1, N + 1), st.booleans())
def test_one_pass_equals_two_and_the_formula_in_float64(seed, sharpness, rows, queries):
    shape = (N, 3, D) if queries else (N, D)
    image, text = vectors(*shape, seed=seed).astype(np.float32), vectors(K, D, seed=seed + 1000)
    crl = Representation(text.astype(np.float32), sharpness=sharpness)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "ROWS_AT_ONCE", rows)
        one_pass = crl.fit_transform(image)
    r = l2(image.astype(float)) @ l2(text).T
    r = r.max(axis=1) if queries else r
    expected = np.sqrt(softmax(sharpness * r / np.std(r, axis=1).mean()))
    assert one_pass.dtype == np.float32
    assert np.allclose(one_pass, expected, rtol=0, atol=2e-6 * max(1, sharpness))
    assert np.allclose(one_pass, crl.fit(image).transform(image), rtol=0, atol=1e-5)


LEVELS = st.lists(st.floats(0.05, 0.3), min_size=N, max_size=N)  # SigLIP about 0.1, CLIP 0.25


@given(SEEDS, SHARPNESS, st.floats(0.01, 0.1), LEVELS)
def test_posterior_ignores_the_range_of_a_vlm_s_similarities(seed, sharpness, scale, levels):
    """The same images and texts in a VLM whose embeddings share a large component: the similarities
    of image i are scale * R + levels[i]."""
    image, text = l2(vectors(N, D, seed=seed)), l2(vectors(K, D, seed=seed + 1000))
    shared = np.array(levels)[:, None]
    rest = np.sqrt(0.5 - scale**2 - shared**2)  # so that rows have unit length
    other_image = np.hstack([scale * image, shared, rest]) * np.sqrt(2)
    other_text = np.hstack([text, np.ones((K, 1)), np.zeros((K, 1))]) / np.sqrt(2)
    expected = scale * image @ text.T + shared
    assert np.allclose(l2(other_image) @ l2(other_text).T, expected, rtol=0, atol=1e-12)

    def difference(kind, **options) -> float:
        crl, other = kind(text, **options), kind(other_text, **options)
        return abs(crl.fit_transform(image) - other.fit_transform(other_image)).max()

    assert difference(Representation, sharpness=sharpness) < 1e-8
    assert difference(ConditionalProjection) > 0.1


FINITE = st.floats(allow_nan=False, allow_infinity=False, width=32)
SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, max_side=5)


@given(hnp.arrays(np.float32, SHAPES, elements=FINITE), st.floats(1e-6, 1e6), SHARPNESS)
def test_posterior_of_any_finite_float32_matrix(r, sigma, sharpness):
    found = posterior(r, sigma, sharpness)
    assert found.dtype == np.float32 and found.shape == r.shape
    assert np.all(found >= 0)  # none is NaN
    assert np.allclose((found**2).sum(1), 1, atol=1e-5)
    best = np.take_along_axis(found, r.argmax(1)[:, None], 1)
    assert np.all(best == found.max(1, keepdims=True))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("level", [0, 0.1, -0.3, 1])
def test_rounding_is_no_spread(dtype, level):
    r = np.full((N, K), level, dtype)
    r[::2, 1] = np.nextafter(r[0, 0], dtype(2))  # the next number, in every second row
    with pytest.raises(ValueError, match="all similarities of an image are equal"):
        spread(r) if level else spread(np.zeros_like(r))
    r[0, 1] += dtype(0.01)
    assert spread(r) > 0


def test_posterior_learns_its_spread_from_the_images_of_fit():
    text, image, new = vectors(K, D), vectors(N, D, seed=1), vectors(2, D, seed=2)
    crl = Representation(text, sharpness=0.7).fit(image)
    sigma = np.mean([np.std(l2(i) @ l2(text).T) for i in image])
    expected = np.sqrt(softmax(0.7 * (l2(new) @ l2(text).T) / sigma))
    assert np.allclose(crl.transform(new), expected)
