"""R = I Tᵀ and its normalisations against slow, obvious recomputations; the transformer against
scikit-learn's conventions."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator
from vectors import vectors

from crl.projection import ConditionalProjection, l2, project, single_vector, standardise
from crl.representations.posterior import Representation as Posterior

N, Q, D, K = 7, 3, 5, 4
SEEDS = st.integers(0, 100)
TRANSFORMERS = {  # what every representation that projects must do
    "l2": ConditionalProjection,
    "standardise": lambda *args: ConditionalProjection(*args, normalise="standardise"),
    "plain": lambda *args: ConditionalProjection(*args, normalise=None),
    "posterior": Posterior,
}
every_transformer = pytest.mark.parametrize("kind", TRANSFORMERS.values(), ids=TRANSFORMERS)


def written_out(r: np.ndarray) -> np.ndarray:
    """The paper's few-shot normalisation, as torch writes it."""
    r = torch.from_numpy(r)
    return ((r - r.mean()) / r.std(dim=1, keepdim=True)).numpy()


@pytest.mark.parametrize("shape", [(N, D), (N, Q, D)])
def test_project_is_every_dot_product_of_the_best_query(shape):
    image, text = vectors(*shape), vectors(K, D, seed=1)
    queries = image.reshape(N, -1, D)
    slow = [[max(sum(q[d] * t[d] for d in range(D)) for q in i) for t in text] for i in queries]
    r = project(image, text)
    assert r.shape == (N, K) and np.allclose(r, slow, rtol=0, atol=1e-12)


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


@given(SEEDS, st.sampled_from([np.float32, np.float64]), st.floats(1e-3, 1e3))
def test_l2_of_unit_rows_changes_no_bit(seed, dtype, scale):
    unit = l2((scale * vectors(50, 512, seed=seed)).astype(dtype))
    assert np.array_equal(l2(unit), unit)


def test_single_vector_is_the_unit_mean_of_the_queries():
    image = l2(vectors(N, Q, D))
    slow = [sum(queries) / np.linalg.norm(sum(queries)) for queries in image]
    assert np.allclose(single_vector(image), slow)
    assert np.array_equal(single_vector(image[:, 0]), image[:, 0])


@given(n=st.integers(1, 9), k=st.integers(2, 9), seed=st.integers(0, 99))
def test_standardise_is_the_papers(n, k, seed):
    r = vectors(n, k, seed=seed) + 3
    assert np.allclose(standardise(r), written_out(r), rtol=1e-9)


@pytest.mark.parametrize("shape", [(N, D), (N, Q, D)])
def test_transformer_equals_the_functions(shape):
    image, text = 5 * vectors(*shape), 3 * vectors(K, D, seed=1)
    r = project(l2(image), l2(text))
    expected = {"l2": l2(r), "standardise": written_out(r), None: r}
    for normalise, rows in expected.items():
        transformer = ConditionalProjection(text, normalise=normalise)
        assert transformer.fit(image) is transformer
        for got in (transformer.transform(image), clone(transformer).fit_transform(image)):
            assert got.shape == (N, K)
            assert np.allclose(got, rows, rtol=0, atol=1e-12)
    assert np.array_equal(ConditionalProjection(text.tolist()).fit_transform(image), l2(r))


@every_transformer
@given(
    seed=SEEDS,
    rows=st.integers(1, N + 2),
    dtype=st.sampled_from([np.float32, np.float64]),
    shape=st.sampled_from([(N, D), (N, Q, D)]),
)
@settings(max_examples=30)
def test_in_parts_as_in_one(kind, seed, rows, dtype, shape):
    image, text = vectors(*shape, seed=seed).astype(dtype), vectors(K, D, seed=1).astype(dtype)
    whole = kind(text).fit_transform(image)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("crl.projection.ROWS_AT_ONCE", rows)
        in_parts = kind(text).fit_transform(image)
    assert whole.dtype == in_parts.dtype == dtype
    assert np.allclose(in_parts, whole, rtol=0, atol=1e-4 if dtype == np.float32 else 1e-12)
    double = kind(text.astype(float)).fit_transform(image.astype(float))
    assert np.allclose(whole, double, rtol=0, atol=1e-4)


def test_standardise_learns_its_mean_from_the_images_of_fit():
    train, test, text = vectors(N, D), vectors(3, D, seed=2), l2(vectors(K, D, seed=1))
    transformer = ConditionalProjection(text, normalise="standardise").fit(train)
    r, mean = project(l2(test), text), project(l2(train), text).mean()
    expected = [(row - mean) / np.std(row, ddof=1) for row in r]
    assert np.allclose(transformer.transform(test), expected)
    assert np.allclose(transformer.transform(test)[:1], transformer.transform(test[:1]))


@every_transformer
@given(
    seed=SEEDS,
    image_scale=st.lists(st.floats(1e-3, 1e3), min_size=N, max_size=N),
    text_scale=st.lists(st.floats(1e-3, 1e3), min_size=K, max_size=K),
)
@settings(max_examples=30)
def test_lengths_of_embeddings_change_nothing(kind, seed, image_scale, text_scale):
    image, text = vectors(N, D, seed=seed), vectors(K, D, seed=seed + 1000)
    scaled_image, scaled_text = (
        (np.array(image_scale) * image.T).T,
        (np.array(text_scale) * text.T).T,
    )
    plain, scaled = kind(text).fit_transform(image), kind(scaled_text).fit_transform(scaled_image)
    assert np.allclose(plain, scaled, rtol=1e-6, atol=1e-9)


def test_in_a_pipeline():
    """Three words, images near one of them each: classes are easy in R."""
    text = np.eye(3, D)
    labels = np.arange(30) % 3
    image = text[labels] + 0.1 * vectors(30, D)
    image[:, 3:] = 5 * vectors(30, 2, seed=1)  # what the criterion does not ask for
    image = np.abs(image)

    standardised = ConditionalProjection(text, normalise="standardise")
    pipeline = make_pipeline(standardised, LogisticRegression())
    assert pipeline.fit(image[:15], labels[:15]).score(image[15:], labels[15:]) == 1
    pipeline.set_params(conditionalprojection__normalise="l2")
    r = l2(project(l2(image), text))
    assert np.allclose(clone(pipeline[:1]).fit_transform(image), r)


@every_transformer
def test_images_must_fit_the_texts(kind):
    transformer = kind(vectors(K, D))
    with pytest.raises(NotFittedError):
        transformer.transform(vectors(N, D))
    with pytest.raises(ValueError, match="image embeddings must be"):
        transformer.fit(vectors(N, D - 1))
    transformer.fit(vectors(N, D))
    for wrong in (vectors(N, D - 1), vectors(D), vectors(2, 2, 2, D), vectors(N, Q, D + 1)):
        with pytest.raises(ValueError, match=r"Expected 2D|features, but|dim 4"):
            transformer.transform(wrong)
    for value in (np.nan, np.inf, 1j):
        for shape in ((N, D), (N, Q, D)):
            wrong = vectors(*shape).astype(type(value))
            wrong[-1, ..., 0] = value
            for method in (transformer.transform, kind(vectors(K, D)).fit):
                with pytest.raises(ValueError, match=r"NaN|infinity|Complex"):
                    method(wrong)
        with pytest.raises(ValueError, match=r"NaN|infinity|Complex"):
            kind(np.full((K, D), value)).fit(vectors(N, D))


@every_transformer
@pytest.mark.filterwarnings("error")
def test_rows_of_zeros_and_texts_that_come_twice(kind):
    image = vectors(N, D).astype(np.float32)
    image[2] = 0
    texts = ["red", "blue", "red", "red"]
    r = kind(l2(vectors(K, D)), texts).set_output(transform="pandas").fit_transform(image)
    assert list(r) == ["red", "blue", "red (2)", "red (3)"] and np.isfinite(r).all(axis=None)
    assert np.ptp(r.loc[2]) == 0


class AnyWidth:
    """Texts as wide as the images: scikit-learn's checks come with images of many widths."""

    @property
    def text_embeddings(self):
        return vectors(K, self.n_features_in_)


class Projection(AnyWidth, ConditionalProjection):
    def __init__(self, normalise="l2"):
        self.texts, self.normalise = None, normalise


class OfPosterior(AnyWidth, Posterior):
    def __init__(self, sharpness=1.0):
        self.texts, self.normalise, self.sharpness = None, "l2", sharpness


FIXED = "the texts fix the number of features"  # the only exceptions
EXCEPTIONS = """check_estimators_overwrite_params check_estimators_fit_returns_self
    check_readonly_memmap_input check_n_features_in_after_fitting check_estimators_dtypes
    check_positive_only_tag_during_fit check_dtype_object check_fit2d_1sample check_fit2d_1feature
    check_fit_idempotent check_fit_check_is_fitted check_n_features_in
    check_transformer_data_not_an_array""".split()


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@pytest.mark.parametrize(
    ("estimator", "fails"),
    [
        *((Projection(normalise), []) for normalise in ("l2", "standardise", None)),
        (OfPosterior(), []),
        (ConditionalProjection(np.eye(3)), EXCEPTIONS),
    ],
)
def test_scikit_learns_checks(estimator, fails):
    check_estimator(estimator, expected_failed_checks=dict.fromkeys(fails, FIXED))
