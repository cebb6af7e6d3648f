"""R = I Tᵀ and its normalisations against slow, obvious recomputations; the transformer against
scikit-learn's conventions."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from crl.projection import (
    ConditionalProjection,
    l2,
    null_space,
    overlap,
    posterior,
    project,
    spread,
    standardise,
    weighted,
    weighted_similarity,
    without,
)

N, Q, D, K = 7, 3, 5, 4
NORMALISE = ["l2", "standardise", "posterior", None]


def vectors(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def written_out(r: np.ndarray) -> np.ndarray:
    """The paper's few-shot normalisation, as torch writes it."""
    r = torch.from_numpy(r)
    return ((r - r.mean()) / r.std(dim=1, keepdim=True)).numpy()


# --- functions ------------------------------------------------------------------------------------


def test_project_is_every_dot_product():
    image, text = vectors(N, D), vectors(K, D, seed=1)
    slow = [[sum(i[d] * t[d] for d in range(D)) for t in text] for i in image]
    assert np.allclose(project(image, text), slow, rtol=0, atol=1e-12)


def test_project_takes_the_best_query():
    image, text = vectors(N, Q, D), vectors(K, D, seed=1)
    slow = [[max(sum(q * t) for q in i) for t in text] for i in image]
    r = project(image, text)
    assert r.shape == (N, K)
    assert np.allclose(r, slow, rtol=0, atol=1e-12)
    assert np.allclose(project(image[:, :1], text), project(image[:, 0], text))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(N, D), (N, Q, D)])
def test_l2_gives_unit_rows_and_keeps_zeros(dtype, shape):
    x = vectors(*shape).astype(dtype)
    x[2] = 0
    unit = l2(x)
    assert unit.dtype == dtype and np.isfinite(unit).all()
    length = np.sqrt((unit.astype(float) ** 2).sum(-1))
    assert np.all(length[2] == 0) and np.allclose(np.delete(length, 2, 0), 1)
    assert np.allclose(unit * np.sqrt((x**2).sum(-1))[..., None], x, atol=1e-6)


def test_l2_of_whole_numbers():
    assert l2(np.array([[3, 4], [0, 0]])).tolist() == [[0.6, 0.8], [0.0, 0.0]]


@given(n=st.integers(1, 9), k=st.integers(2, 9), seed=st.integers(0, 99))
def test_standardise_is_the_papers(n, k, seed):
    r = vectors(n, k, seed=seed) + 3
    assert np.allclose(standardise(r), written_out(r), rtol=1e-9)


def test_standardise_by_hand():
    r = np.array([[1.0, 3.0], [2.0, 10.0]])  # mean 4; unbiased deviations sqrt(2) and sqrt(32)
    expected = [[-3 / 2**0.5, -1 / 2**0.5], [-2 / 32**0.5, 6 / 32**0.5]]
    assert np.allclose(standardise(r), expected)


# --- the posterior (beyond the paper) -------------------------------------------------------------

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


@given(SEEDS, SHARPNESS)
def test_dot_products_of_posteriors_are_bhattacharyya_coefficients(seed, sharpness):
    r = vectors(N, K, seed=seed)
    found = posterior(r, spread(r), sharpness)
    p = softmax(sharpness * r / spread(r))
    slow = [[sum(np.sqrt(a[k] * b[k]) for k in range(K)) for b in p] for a in p]
    assert np.allclose(found @ found.T, slow, rtol=0, atol=1e-12)
    assert np.allclose((found**2).sum(1), 1)


@given(SEEDS, SHARPNESS, st.floats(0.01, 100), st.floats(-100, 100))
def test_posterior_ignores_scale_and_level(seed, sharpness, scale, level):
    r = vectors(N, K, seed=seed)
    other = scale * r + level
    assert np.allclose(
        posterior(r, spread(r), sharpness), posterior(other, spread(other), sharpness), atol=1e-8
    )


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

    def difference(normalise: str) -> float:
        crl = ConditionalProjection(text, normalise=normalise, sharpness=sharpness)
        other = ConditionalProjection(other_text, normalise=normalise, sharpness=sharpness)
        return abs(crl.fit_transform(image) - other.fit_transform(other_image)).max()

    assert difference("posterior") < 1e-8
    assert difference("l2") > 0.1


@given(SEEDS)
def test_a_blunt_posterior_is_r_with_centred_rows(seed):
    r, sharpness = vectors(N, K, seed=seed), 1e-6
    sigma = spread(r)
    found = posterior(r, sigma, sharpness)
    centred = (found - found.mean(1, keepdims=True)) * 2 * sigma * np.sqrt(K) / sharpness
    assert np.allclose(centred, r - r.mean(1, keepdims=True), atol=1e-4)


@given(SEEDS)
def test_a_sharp_posterior_names_the_most_similar_text(seed):
    r = vectors(N, K, seed=seed)
    assert np.allclose(posterior(r, spread(r), 1e9), np.eye(K)[r.argmax(1)])


@given(st.floats(0, 2.0**127), SHARPNESS)
def test_posterior_of_any_finite_float32_is_finite(size, sharpness):
    r = (np.array([[-1, 0.5, 1], [1, 1, -1]]) * size).astype(np.float32)
    found = posterior(r, 1.0, sharpness)
    assert found.dtype == np.float32 and np.isfinite(found).all()
    assert np.allclose((found**2).sum(1), 1, atol=1e-5)


@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=5),
        elements=st.floats(allow_nan=False, allow_infinity=False, width=32),
    ),
    st.floats(1e-6, 1e6),
    SHARPNESS,
)
def test_posterior_of_any_finite_float32_matrix(r, sigma, sharpness):
    found = posterior(r, sigma, sharpness)
    assert found.dtype == np.float32 and found.shape == r.shape
    assert np.all(found >= 0)  # none is NaN
    assert np.allclose((found**2).sum(1), 1, atol=1e-5)
    best = np.take_along_axis(found, r.argmax(1)[:, None], 1)
    assert np.all(best == found.max(1, keepdims=True))


@given(SEEDS, st.sampled_from([np.float32, np.float64]))
def test_spread_is_the_mean_deviation_of_the_rows(seed, dtype):
    r = vectors(N, K, seed=seed).astype(dtype)
    slow = [np.sqrt(sum((x - sum(row) / K) ** 2 for x in row) / K) for row in r.tolist()]
    assert type(spread(r)) is float
    assert np.isclose(spread(r), sum(slow) / N, rtol=1e-6 if dtype == np.float32 else 1e-12)


@given(SEEDS, st.integers(1, N + 2))
def test_spread_in_parts(seed, rows):
    r = vectors(N, K, seed=seed)
    whole = spread(r)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("crl.projection.ROWS_AT_ONCE", rows)
        assert np.isclose(spread(r), whole, rtol=1e-12)


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
    crl = ConditionalProjection(text, normalise="posterior", sharpness=0.7).fit(image)
    sigma = np.mean([np.std(l2(i) @ l2(text).T) for i in image])
    expected = np.sqrt(softmax(0.7 * (l2(new) @ l2(text).T) / sigma))
    assert np.allclose(crl.transform(new), expected)


@pytest.mark.filterwarnings("ignore:invalid value")
def test_any_finite_sharpness_in_float32():
    r = vectors(N, K).astype(np.float32)
    assert np.allclose(posterior(r, spread(r), 1e39), np.eye(K)[r.argmax(1)])


@pytest.mark.parametrize("sharpness", [0, -1, np.nan, np.inf])
def test_impossible_sharpness(sharpness):
    with pytest.raises(ValueError, match="sharpness must be above 0 and finite"):
        ConditionalProjection(vectors(K, D), sharpness=sharpness).fit(vectors(N, D))


def test_a_basis_that_tells_nothing_apart():
    text = np.repeat(vectors(1, D), 3, axis=0)
    with pytest.raises(ValueError, match="all similarities of an image are equal"):
        ConditionalProjection(text, normalise="posterior").fit(np.eye(D))


@pytest.mark.parametrize("shape", [(N, D), (N, Q, D)])
def test_transformer_equals_the_functions(shape):
    image, text = 5 * vectors(*shape), 3 * vectors(K, D, seed=1)
    r = project(l2(image), l2(text))
    expected = {"l2": l2(r), "standardise": written_out(r), None: r}
    expected["posterior"] = np.sqrt(softmax(r / spread(r)))
    for normalise in NORMALISE:
        transformer = ConditionalProjection(text, normalise=normalise)
        assert transformer.fit(image) is transformer
        for got in (transformer.transform(image), clone(transformer).fit_transform(image)):
            assert got.shape == (N, K)
            assert np.allclose(got, expected[normalise], rtol=0, atol=1e-12)
    assert np.array_equal(ConditionalProjection(text.tolist()).fit_transform(image), l2(r))


@pytest.mark.parametrize(
    "normalise",
    [
        "l2",
        "standardise",
        "posterior",
        None,
    ],
)
@given(
    seed=SEEDS,
    rows=st.integers(1, N + 2),
    dtype=st.sampled_from([np.float32, np.float64]),
    shape=st.sampled_from([(N, D), (N, Q, D)]),
    removing=st.booleans(),
)
@settings(max_examples=30)
def test_in_parts_as_in_one(normalise, seed, rows, dtype, shape, removing):
    image, text = vectors(*shape, seed=seed).astype(dtype), vectors(K, D, seed=1).astype(dtype)
    removed = null_space([l2(vectors(3, D, seed=2))]) if removing else None
    transformer = ConditionalProjection(text, normalise=normalise, removed=removed)
    whole = transformer.fit_transform(image)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("crl.projection.ROWS_AT_ONCE", rows)
        in_parts = transformer.fit_transform(image)
    assert whole.dtype == in_parts.dtype == dtype
    assert np.allclose(in_parts, whole, rtol=0, atol=1e-4 if dtype == np.float32 else 1e-12)


@pytest.mark.parametrize("shape", [(N, D), (N, Q, D)])
def test_removed_directions_leave_the_images_before_anything_else(shape):
    image, text = 5 * vectors(*shape), 3 * vectors(K, D, seed=1)
    removed = null_space([l2(vectors(4, D, seed=2))], rank=2)
    rest = image - sum((image @ v)[..., None] * v for v in removed)
    for normalise in NORMALISE:
        expected = ConditionalProjection(text, normalise=normalise).fit_transform(rest)
        for given_as in (removed, removed.tolist()):
            crl = ConditionalProjection(text, normalise=normalise, removed=given_as)
            assert np.allclose(crl.fit_transform(image), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("normalise", NORMALISE)
def test_removing_no_direction_changes_nothing(normalise):
    image, text = vectors(N, D), vectors(K, D, seed=1)
    plain = ConditionalProjection(text, normalise=normalise).fit_transform(image)
    none = ConditionalProjection(text, normalise=normalise, removed=np.empty((0, D)))
    assert np.allclose(none.fit_transform(image), plain, rtol=0, atol=1e-12)


def test_what_lies_in_removed_directions_changes_nothing():
    image, text = l2(vectors(N, D)), vectors(K, D, seed=1)
    removed = null_space([l2(vectors(4, D, seed=2))], rank=2)
    crl = ConditionalProjection(text, removed=removed)
    other = image + vectors(N, 2, seed=3) @ removed
    assert np.allclose(crl.fit_transform(other), crl.fit_transform(image), rtol=0, atol=1e-12)


@pytest.mark.parametrize("normalise", NORMALISE)
@pytest.mark.parametrize("shape", [(N, D), (N, Q, D)])
def test_float32_stays_float32(normalise, shape):
    image, text = vectors(*shape).astype(np.float32), vectors(K, D, seed=1).astype(np.float32)
    for removed in (None, np.eye(1, D)):
        crl = ConditionalProjection(text, normalise=normalise, removed=removed)
        double = ConditionalProjection(text.astype(float), normalise=normalise, removed=removed)
        found = crl.fit_transform(image)
        assert found.dtype == np.float32
        assert np.allclose(found, double.fit_transform(image.astype(float)), atol=1e-4)


def test_half_precision_gives_float32():
    image, text = vectors(N, D).astype(np.float16), vectors(K, D, seed=1).astype(np.float16)
    assert ConditionalProjection(text).fit_transform(image).dtype == np.float32


def test_standardise_learns_its_mean_from_the_images_of_fit():
    train, test, text = vectors(N, D), vectors(3, D, seed=2), l2(vectors(K, D, seed=1))
    transformer = ConditionalProjection(text, normalise="standardise").fit(train)
    r, mean = project(l2(test), text), project(l2(train), text).mean()
    expected = [(row - mean) / np.std(row, ddof=1) for row in r]
    assert np.allclose(transformer.transform(test), expected)
    assert np.allclose(transformer.transform(test)[:1], transformer.transform(test[:1]))


@given(
    seed=st.integers(0, 99),
    image_scale=st.lists(st.floats(1e-3, 1e3), min_size=N, max_size=N),
    text_scale=st.lists(st.floats(1e-3, 1e3), min_size=K, max_size=K),
    normalise=st.sampled_from(NORMALISE),
)
def test_lengths_of_embeddings_change_nothing(seed, image_scale, text_scale, normalise):
    image, text = vectors(N, D, seed=seed), vectors(K, D, seed=seed + 1000)
    scaled_image, scaled_text = (
        x * np.array(scale)[:, None] for x, scale in ((image, image_scale), (text, text_scale))
    )
    plain = ConditionalProjection(text, normalise=normalise).fit_transform(image)
    scaled = ConditionalProjection(scaled_text, normalise=normalise).fit_transform(scaled_image)
    assert np.allclose(plain, scaled, rtol=1e-6, atol=1e-9)


def test_feature_names_are_the_texts():
    text, words = vectors(3, D), ["red", "dark green", "blue"]
    fitted = ConditionalProjection(text, words).fit(vectors(N, D))
    assert fitted.get_feature_names_out().tolist() == words
    assert fitted.get_feature_names_out().dtype == object
    unnamed = ConditionalProjection(text).fit(vectors(N, D))
    assert unnamed.get_feature_names_out().tolist() == ["0", "1", "2"]


def test_parameters_and_clone():
    text = vectors(K, D)
    transformer = ConditionalProjection(text, list("abcd"), normalise=None).fit(vectors(N, D))
    parameters = transformer.get_params()
    assert parameters["text_embeddings"] is text and parameters["texts"] == list("abcd")
    copy = clone(transformer)
    assert np.array_equal(copy.text_embeddings, text) and copy.normalise is None
    with pytest.raises(NotFittedError):
        copy.transform(vectors(N, D))
    copy.set_params(normalise="l2")
    assert np.allclose(np.linalg.norm(copy.fit_transform(vectors(N, D)), axis=1), 1)


def test_in_a_pipeline():
    """Three words, images near one of them each: both tasks are easy in R."""
    text = np.eye(3, D)
    labels = np.arange(30) % 3
    image = text[labels] + 0.1 * vectors(30, D)
    image[:, 3:] = 5 * vectors(30, 2, seed=1)  # what the criterion does not ask for
    image = np.abs(image)

    pipeline = make_pipeline(
        ConditionalProjection(text, normalise="standardise"), LogisticRegression()
    )
    assert pipeline.fit(image[:15], labels[:15]).score(image[15:], labels[15:]) == 1
    clusters = make_pipeline(ConditionalProjection(text), KMeans(3, n_init=10, random_state=0))
    found = clusters.fit_predict(image)
    assert len({(a, b) for a, b in zip(labels, found, strict=True)}) == 3
    pipeline.set_params(conditionalprojection__normalise="l2")
    r = l2(project(l2(image), text))
    assert np.allclose(clone(pipeline[:1]).fit_transform(image), r)


@pytest.mark.parametrize(
    ("transformer", "message"),
    [
        (ConditionalProjection(vectors(K, D + 1)), r"must be \(N, 6\) or .* not \(7, 5\)"),
        (ConditionalProjection(vectors(K, D), ["a"]), "1 texts for 4 text embeddings"),
        (ConditionalProjection(vectors(K, D), normalise="L2"), "normalise must be .* 'L2'"),
        (ConditionalProjection(vectors(D)), r"text_embeddings must be \(K, D\)"),
        (ConditionalProjection(vectors(0, D)), "K > 0"),
        (ConditionalProjection(vectors(K, D), removed=vectors(D)), r"removed must be \(d, 5\)"),
        (ConditionalProjection(vectors(K, D), removed=vectors(1, 4)), r"removed .* not \(1, 4\)"),
        (ConditionalProjection(vectors(K, D), removed=vectors(1, 1, D)), "removed must be"),
    ],
)
def test_fit_refuses(transformer, message):
    with pytest.raises(ValueError, match=message):
        transformer.fit(vectors(N, D))


@pytest.mark.parametrize("normalise", NORMALISE)
def test_images_must_fit_the_texts(normalise):
    transformer = ConditionalProjection(vectors(K, D), normalise=normalise)
    for method in (transformer.transform, transformer.get_feature_names_out):
        with pytest.raises(NotFittedError):
            method(vectors(N, D))
    transformer.fit(vectors(N, D))
    for wrong in (vectors(N, D - 1), vectors(D), vectors(2, 2, 2, D)):
        for method in (transformer.transform, clone(transformer).fit):
            with pytest.raises(ValueError, match="image embeddings must be"):
                method(wrong)


def test_columns_of_a_table_are_the_texts():
    crl = ConditionalProjection(np.eye(2, 3), ["red", "blue"]).set_output(transform="pandas")
    table = crl.fit_transform(np.array([[3.0, 4.0, 0.0]]))
    assert list(table.columns) == ["red", "blue"] and table.to_numpy().tolist() == [[0.6, 0.8]]


# --- without other criteria -----------------------------------------------------------------------

RANKS = st.one_of(st.none(), st.integers(1, 3))


def bases(seed: int, sizes: list[int]) -> list[np.ndarray]:
    return [l2(vectors(k, D, seed=seed + 1000 * i)) for i, k in enumerate(sizes)]


def basis(*counts: int) -> np.ndarray:
    """T (sum of counts * 2, 9): the i-th count gives its share of the variance, along axis i."""
    pairs = [s * 0.1 * np.eye(9)[i] for i, count in enumerate(counts) for s in count * (1, -1)]
    return np.stack(pairs) + np.sqrt(0.99) * np.eye(9)[8]


def projector(directions: np.ndarray) -> np.ndarray:
    return directions.T @ directions


def principal(text: np.ndarray, rank: int | None) -> np.ndarray:
    """Principal directions, largest variance first, one by one from the covariance."""
    centred = text - sum(text) / len(text)
    variances, directions = np.linalg.eigh(sum(np.outer(row, row) for row in centred))
    taken = 0
    for count in range(1, D + 1):
        taken += variances[-count]
        if count == rank or (rank is None and taken >= sum(variances) / 2):
            return directions[:, -count:].T
    raise AssertionError


@given(SEEDS, st.lists(st.integers(4, 8), min_size=1, max_size=3), RANKS)
def test_null_space_spans_the_principal_directions_of_each_basis(seed, sizes, rank):
    others = bases(seed, sizes)
    found = null_space(others, rank)
    wanted = np.concatenate([principal(text, rank) for text in others])
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


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_null_space_takes_rank_directions(rank):
    found = null_space([basis(4, 3, 2, 1)], rank)
    assert np.allclose(projector(found), np.diag(np.arange(9) < rank))


def test_half_is_that_of_each_basis():
    one, other = basis(9, 1), basis(0, 0, 3, 2, 2)
    assert np.allclose(np.diag(projector(null_space([one, other]))), [1, 0, 1, 1, 0, 0, 0, 0, 0])


@given(SEEDS, st.integers(1, 3), st.sampled_from([np.float32, np.float64]))
def test_a_direction_found_twice_counts_once(seed, rank, dtype):
    one, two = (text.astype(dtype) for text in bases(seed, [6, 6]))
    once = null_space([one], rank)
    assert len(once) == rank and once.dtype == dtype
    again = null_space([one, one[::-1], np.repeat(one, 2, axis=0)], rank)
    assert len(again) == rank and np.allclose(projector(again), projector(once), atol=1e-3)
    assert len(null_space([one, two, one], rank)) == len(null_space([one, two], rank))


@given(SEEDS, RANKS)
def test_each_basis_is_centred(seed, rank):
    one, two = bases(seed, [6, 7])
    shifted = [one + 3 * vectors(D, seed=1), two - 5 * vectors(D, seed=2)]
    expected = projector(null_space([one, two], rank))
    assert np.allclose(projector(null_space(shifted, rank)), expected, rtol=0, atol=1e-6)


def test_null_space_is_at_most_the_whole_space():
    found = null_space(bases(0, [8, 8, 8]), rank=4)
    assert found.shape == (D, D) and np.allclose(projector(found), np.eye(D))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_null_space_takes_no_direction_in_which_texts_do_not_differ(dtype):
    (text,) = bases(0, [3])  # three texts differ in two directions
    assert len(null_space([text.astype(dtype)], 3)) == len(null_space([text.astype(dtype)], 5)) == 2


@pytest.mark.parametrize(
    ("others", "rank", "message"),
    [
        ([], None, "one other criterion or more"),
        ([], 2, "one other criterion or more"),
        (bases(0, [4]), 0, "a rank of 1 or more"),
        (bases(0, [4]), -1, "a rank of 1 or more"),
        ([*bases(0, [4]), np.repeat(l2(vectors(1, D)), 3, axis=0)], None, "all the same"),
        ([np.repeat(l2(vectors(1, D)), 30, axis=0).astype(np.float32)], 1, "all the same"),
        ([l2(vectors(1, D))], None, "all the same"),  # one text
    ],
)
def test_null_space_refuses(others, rank, message):
    with pytest.raises(ValueError, match=message):
        null_space(others, rank)


@given(SEEDS, st.integers(1, D - 1), st.sampled_from([(N, D), (N, Q, D)]))
def test_without_leaves_only_what_is_orthogonal(seed, rank, shape):
    image, directions = l2(vectors(*shape, seed=seed)), null_space(bases(seed + 1, [D + 1]), rank)
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


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nothing_is_left_of_an_image_within_the_directions(dtype):
    directions = null_space(bases(0, [6]), rank=2).astype(dtype)
    image = l2(vectors(N, 2).astype(dtype) @ directions)
    assert np.allclose(without(image, directions) @ directions.T, 0, rtol=0, atol=1e-4)


def test_without_does_not_write_to_its_images():
    image = l2(vectors(N, D))
    kept = image.copy()
    without(image, np.eye(2, D))
    assert np.array_equal(image, kept)


@given(SEEDS, RANKS)
def test_overlap_is_a_fraction_of_the_variance(seed, rank):
    text, other = bases(seed, [K, 6])
    directions = null_space([other], rank)
    mean = sum(text) / K
    total = sum(sum((t - mean) ** 2) for t in text)
    inside = sum(sum((t - mean) * v) ** 2 for t in text for v in directions)
    share = overlap(text, directions)
    assert type(share) is float and 0 <= share <= 1 + 1e-12
    assert np.isclose(share, inside / total, rtol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_overlap_of_nothing_half_and_all(dtype):
    text = basis(3, 3, 2).astype(dtype)
    axes = np.eye(9, dtype=dtype)
    for kept, share in ([0], 3 / 8), ([0, 2], 5 / 8), ([0, 1, 2], 1), ([3, 8], 0):
        assert np.isclose(overlap(text, axes[kept]), share, atol=1e-6)


@given(SEEDS)
def test_overlap_is_one_in_its_own_directions(seed):
    (text,) = bases(seed, [K])
    assert np.isclose(overlap(text, null_space([text], K - 1)), 1)
    assert overlap(text, null_space([text])) >= 0.5 - 1e-12  # half of its variance is explained


# --- several criteria -----------------------------------------------------------------------------

NAMES = ("color", "shape", "count")
POSITIVE = st.dictionaries(
    st.sampled_from(NAMES), st.floats(0, 1e6, allow_subnormal=False), min_size=1
).filter(lambda weights: sum(weights.values()) > 0)
SIGNED = st.dictionaries(
    st.sampled_from(NAMES), st.floats(-1e6, 1e6, allow_subnormal=False), min_size=1
).filter(lambda weights: any(weights.values()))


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


@given(SEEDS, POSITIVE)
def test_products_of_weighted_rows_are_weighted_means(seed, weights):
    parts = representations(N, seed)
    found = weighted(parts, weights)
    used = [c for c, w in weights.items() if w > 0]
    assert found.shape == (N, sum(parts[c].shape[1] for c in used))
    assert np.allclose(np.linalg.norm(found, axis=1), 1)
    assert np.allclose(found @ found.T, mean_similarity(parts, parts, weights), rtol=0, atol=1e-12)


@given(SEEDS, SIGNED)
def test_weighted_similarity_written_out(seed, weights):
    queries, candidates = representations(N, seed), representations(4, seed + 500)
    found = weighted_similarity(queries, candidates, weights)
    assert found.shape == (N, 4) and np.all(abs(found) <= 1 + 1e-12)
    assert np.allclose(found, mean_similarity(queries, candidates, weights), rtol=0, atol=1e-12)


@given(SEEDS, POSITIVE)
def test_weighted_similarity_is_the_product_of_weighted_rows(seed, weights):
    queries, candidates = representations(N, seed), representations(4, seed + 500)
    expected = weighted(queries, weights) @ weighted(candidates, weights).T
    found = weighted_similarity(queries, candidates, weights)
    assert np.allclose(found, expected, rtol=0, atol=1e-12)


@given(SEEDS, SIGNED, st.floats(1e-3, 1e3))
def test_only_the_ratio_of_weights_counts(seed, weights, scale):
    parts = representations(N, seed)
    found = weighted_similarity(parts, parts, weights)
    scaled = weighted_similarity(parts, parts, {c: w * scale for c, w in weights.items()})
    opposite = weighted_similarity(parts, parts, {c: -w for c, w in weights.items()})
    assert np.allclose(scaled, found, atol=1e-9) and np.allclose(opposite, -found)


def test_one_criterion_is_itself():
    parts = representations(N, 0)
    assert np.allclose(weighted(parts, {"shape": 7, "color": 0}), parts["shape"])


def test_unlike_in_color():
    """Of two candidates of the same shape, the one of another color comes first."""
    red, blue = np.eye(2)
    candidates = {"shape": np.eye(2)[[0, 0, 1]], "color": np.stack([red, blue, blue])}
    queries = {c: r[:1] for c, r in candidates.items()}
    found = weighted_similarity(queries, candidates, {"shape": 1, "color": -1})
    assert found.tolist() == [[0, 0.5, 0]]


def weighted_products(parts, weights):
    return weighted_similarity(parts, parts, weights)


@pytest.mark.parametrize("function", [weighted, weighted_products])
@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"colour": 1}, "unknown criterion 'colour'; known: color, shape, count"),
        ({"color": 1, "size": 0}, "unknown criterion 'size'"),
        ({"color": np.nan}, "weight of 'color' must be finite, not nan"),
        ({"shape": 1, "color": np.inf}, "weight of 'color' must be finite, not inf"),
        ({"shape": -np.inf, "color": 1}, "weight of 'shape' must be finite, not -inf"),
        ({"color": 0, "shape": 0.0}, "all weights are 0"),
        ({}, "all weights are 0"),
    ],
)
def test_impossible_weights(function, weights, message):
    with pytest.raises(ValueError, match=message):
        function(representations(N, 0), weights)


def test_a_criterion_that_only_the_queries_have():
    queries = representations(N, 0)
    with pytest.raises(ValueError, match="unknown criterion 'color'"):
        weighted_similarity(queries, {"shape": queries["shape"]}, {"color": 1})


def test_large_weights():
    found = weighted(representations(N, 0), {"color": 1e308, "shape": 1e308})
    assert np.allclose(np.linalg.norm(found, axis=1), 1)


@pytest.mark.parametrize("weights", [{"color": -1}, {"color": 2, "shape": -0.1}])
def test_a_negative_weight_cannot_be_clustered(weights):
    with pytest.raises(ValueError, match="use weighted_similarity"):
        weighted(representations(N, 0), weights)
