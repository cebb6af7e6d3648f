"""R = I Tᵀ and its normalisations against slow, obvious recomputations; the transformer against
scikit-learn's conventions."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from crl.projection import ConditionalProjection, l2, posterior, project, spread, standardise

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


# --- transformer ----------------------------------------------------------------------------------


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


def test_posterior_learns_its_spread_from_the_images_of_fit():
    text, image, new = vectors(K, D), vectors(N, D, seed=1), vectors(2, D, seed=2)
    crl = ConditionalProjection(text, normalise="posterior", sharpness=0.7).fit(image)
    sigma = np.mean([np.std(l2(i) @ l2(text).T) for i in image])
    expected = np.sqrt(softmax(0.7 * (l2(new) @ l2(text).T) / sigma))
    assert np.allclose(crl.transform(new), expected)


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
