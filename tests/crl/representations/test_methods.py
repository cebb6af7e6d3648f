"""Every method against a direct, slow recomputation, and what all of them must do."""

import inspect

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import inv, sqrtm
from scipy.optimize import minimize, nnls
from scipy.special import softmax
from sklearn.covariance import ledoit_wolf
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import check_estimator
from vectors import vectors

from crl.explore.search import Criterion, search
from crl.projection import l2, single_vector
from crl.representations import kind_of, make_representation, names, represent
from crl.representations.axes import AxesProjection
from crl.representations.clay import Representation as Clay
from crl.representations.indirect import Representation as Indirect
from crl.representations.null_space import null_space, without
from crl.representations.od_crl import kept
from crl.representations.salient import Representation as Salient
from crl.representations.splice import Representation as Splice
from crl.run.errors import UserError

N, Q, D, K, C = 30, 3, 12, 7, 3
SEEDS = st.integers(0, 50)
LINEAR = [name for name in names() if name != "paper" and issubclass(kind_of(name), AxesProjection)]


def world(seed: int = 0, *, queries: int = 0):
    """I (N, D) or (N, Q, D), T (K, D), labels (N,) and T of two other criteria: unit rows. Images
    have a mean of their own, as in a VLM."""
    y = np.arange(N) % C
    image = vectors(C, D, seed=seed)[y] + 0.5 * vectors(N, D, seed=seed + 1) + 2 * np.eye(D)[0]
    if queries:
        image = image[:, None] + 0.1 * vectors(N, queries, D, seed=seed + 2)
    text = l2(vectors(K, D, seed=seed + 3) + 2 * np.eye(D)[1])
    return l2(image), text, y, [l2(vectors(3, D, seed=seed + 4)), l2(vectors(3, D, seed=seed + 5))]


def cosines(x: np.ndarray) -> np.ndarray:
    return l2(x) @ l2(x).T


def rows_of(name: str, seed: int = 0, turn=None, **options) -> np.ndarray:
    image, text, y, others = world(seed)
    turn = np.eye(D) if turn is None else turn
    others = [other @ turn for other in others]
    return represent(name, image @ turn, text @ turn, y, others=others, **options)


def residual_of(v: np.ndarray, mu: np.ndarray) -> np.ndarray:
    """log_mu(v): along the great circle from mu to v, as long as the angle."""
    part = v - (v @ mu) * mu
    return np.arccos(v @ mu) * part / np.linalg.norm(part)


@given(SEEDS, st.integers(1, K - 1))
@settings(max_examples=20)
def test_clay_is_the_log_map_of_turned_images(seed, k):
    image, text, *_ = world(seed)
    mu, m = l2(text.mean(0)), l2(image.mean(0))
    house = np.eye(D) - 2 * np.outer(m - mu, m - mu) / np.sum((m - mu) ** 2)
    assert np.allclose(house @ m, mu)
    tangent = np.stack([residual_of(t, mu) for t in text])
    v_k = np.linalg.svd(tangent)[2][:k]
    slow = np.stack([v_k @ residual_of(house @ v, mu) for v in image])
    fitted = Clay(text, components=k).fit(image)
    assert np.allclose(fitted.weights_ @ fitted.weights_.T, np.eye(k), atol=1e-12)
    assert np.allclose(cosines(fitted.transform(image)), cosines(slow), atol=1e-6)


@given(SEEDS)
@settings(max_examples=15)
def test_od_crl_is_two_projections(seed):
    image, text, _, others = world(seed)
    centred = text - text.mean(0)
    values, axes = np.linalg.eigh(centred.T @ centred)
    values, axes = values[::-1], axes[:, ::-1].T
    k = next(k for k in range(1, D) if sum(values[:k]) >= 0.95 * sum(values))
    slow = without(image, null_space(others)) @ axes[:k].T
    assert np.allclose(cosines(rows_of("od_crl", seed)), cosines(slow), atol=1e-8)


def test_how_many_axes_od_crl_keeps():
    s = np.array([10, 9, 8.5, 2, 1.8, 1.7])  # bends after the third
    assert kept(s, "curvature") == 3 and kept(s[:2], "curvature") == 2
    assert kept(np.sqrt([90.0, 4, 3, 3]), "energy") == 3
    with pytest.raises(ValueError, match="unknown rule 'angle'"):
        kept(s, "angle")


def mean_angle(w, text):
    """The loss of the authors' code, for any W (k, D)."""
    rebuilt = torch.nn.functional.normalize(torch.nn.functional.normalize(text @ w.T) @ w)
    return torch.arccos((text * rebuilt).sum(1).clip(-1 + 1e-9, 1 - 1e-9)).mean()


@pytest.mark.parametrize("seed", range(2))
def test_indirect_ends_where_the_authors_descent_does(seed):
    text = l2(0.3 * vectors(K, D, seed=seed) + 2 * np.eye(D)[1])
    image, t = world()[0], torch.from_numpy(text)
    fitted = Indirect(text, components=3).fit(image)
    start = np.linalg.svd(text)[2][:3]
    first = start + 0.1 * vectors(3, D, seed=seed)

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        w = torch.tensor(w.reshape(3, D), requires_grad=True)
        angle = mean_angle(w, t)
        (gradient,) = torch.autograd.grad(angle, w)
        return angle.item(), gradient.numpy().ravel()

    descent = minimize(loss, first.ravel(), jac=True).fun
    found = float(mean_angle(torch.from_numpy(fitted.weights_), t))
    assert found < 1.005 * descent < 0.97 * float(mean_angle(torch.from_numpy(start), t))
    assert np.allclose(fitted.weights_ @ fitted.weights_.T, np.eye(3), atol=1e-12)
    assert np.allclose(fitted.transform(image), l2(image @ fitted.weights_.T))
    whole = Indirect(text, components=K).fit(image).weights_  # all that the texts span
    assert np.allclose(text @ whole.T @ whole, text, atol=1e-8)
    assert len(Indirect(text).fit(image).weights_) == D // 4


@given(SEEDS, st.floats(0.05, 0.9))
@settings(max_examples=15)
def test_splice_is_the_lasso(seed, penalty):
    """Non-negative least squares of a system in which a row stands for the penalty: completing the
    square, |z - w C|² + 2 a sum(w) = |[C; e]ᵀ w - [z; b]|² + const needs e b = C z - a, row by row;
    so it is solved in the coordinates of the Gram matrix."""
    image, text, *_ = world(seed)
    concepts = l2(text - text.mean(0))
    root = np.linalg.cholesky(concepts @ concepts.T + 1e-10 * np.eye(K))  # Gram = root rootᵀ
    found = Splice(text, penalty=penalty).fit(image).transform(image)
    for i, row in enumerate(image):
        z = l2(row - image.mean(0))
        linear = concepts @ z - penalty * max(concepts @ z)
        slow, _ = nnls(root.T, np.linalg.solve(root, linear), maxiter=1000)
        assert np.allclose(found[i], l2(slow), atol=2e-2)
        assert found[i] @ l2(slow) > 1 - 1e-3


@pytest.mark.parametrize("queries", [0, Q])
def test_assign_is_the_text_of_the_best_query(queries):
    image, text, *_ = world(queries=queries)
    for row, vector in zip(represent("assign", image, text), image, strict=True):
        best = max(range(K), key=lambda k: max(q @ text[k] for q in np.atleast_2d(vector)))
        assert row.tolist() == [float(k == best) for k in range(K)]


@given(SEEDS)
@settings(max_examples=15)
def test_salient_weighs_the_texts_by_their_spread(seed):
    image, text, *_ = world(seed)
    r = image @ text.T
    posterior = np.sqrt(softmax(r / r.std(axis=1).mean(), axis=1))
    spread = [np.std([row[k] for row in posterior]) for k in range(K)]
    expected = [[row[k] * spread[k] for k in range(K)] for row in posterior]
    fitted = Salient(text).fit(image)
    assert np.allclose(fitted.transform(image), l2(np.array(expected)), atol=1e-6)
    scales = [l2(Salient(text, sharpness=c).fit_transform(image)) for c in (1, 2, 4)]
    assert np.allclose(cosines(represent("scales", image, text)), sum(x @ x.T for x in scales) / 3)
    same = Salient(text).fit(image[:1].repeat(4, axis=0))  # varies in nothing
    assert np.allclose(same.weight_, 1)


def test_lda_is_whitening_and_then_the_axes_of_the_means():
    """In coordinates in which images spread alike within the classes."""
    image, text, y, _ = world()
    means = np.stack([image[y == v].mean(0) for v in range(C)])
    within = ledoit_wolf(np.stack([x - means[v] for x, v in zip(image, y, strict=True)]),
                         assume_centered=True)[0]  # fmt: skip
    white = inv(sqrtm(within + 1e-6 * np.eye(D)))
    moved = (means - means.mean(0)) @ white
    axes = np.linalg.svd(moved)[2][: C - 1]
    slow = (image - means.mean(0)) @ white @ axes.T
    assert np.allclose(cosines(represent("lda", image, text, y)), cosines(slow), atol=1e-8)


def test_probe_is_the_root_of_the_probabilities():
    image, text, y, _ = world()
    centred = image - sum(image) / N
    x = centred / np.sqrt(sum(row @ row for row in centred) / N)
    model = LogisticRegression(C=100, max_iter=2_000).fit(x[5:], y[5:])
    given = np.where(np.arange(N) < 5, -1, y)
    found = represent("probe", image, text, given)
    assert np.allclose(found**2, model.predict_proba(x), atol=1e-6)


def test_grounded_moves_each_text_along_the_contrast_of_its_class():
    image, text, y, _ = world()
    mu = [l2(image[y == v].mean(0)) for v in range(C)]
    contrast = [l2(mu[v] - sum(mu[u] for u in range(C) if u != v) / (C - 1)) for v in range(C)]
    moved = []
    for t in text:
        best = max(contrast, key=lambda d: float(t @ d))
        moved.append(l2(t + 0.5 * best))
    found = represent("grounded", image, text, y, alpha=0.5, per_class=None)
    assert np.allclose(found, l2(image @ np.stack(moved).T), atol=1e-12)
    plain = represent("grounded", image, text, y, alpha=0.0)
    assert np.allclose(plain, represent("paper", image, text))


@pytest.mark.parametrize("per_class", [1, 2, 5])
def test_grounded_reads_no_more_labels_than_it_says(per_class):
    image, text, y, _ = world()
    found = represent("grounded", image, text, y, per_class=per_class)
    order = np.random.default_rng(0).permutation(N)
    few = np.full(N, -1)
    for v in range(C):
        few[[i for i in order if y[i] == v][:per_class]] = v
    assert np.allclose(represent("grounded", image, text, few, per_class=None), found)


# --- all of them ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", names())
@given(seed=SEEDS)
@settings(max_examples=5)
def test_rows_have_unit_length_and_keep_their_images(name, seed):
    """The order of the images, and their lengths, change nothing; nor what else is transformed."""
    image, text, y, others = world(seed)
    rows = rows_of(name, seed, per_class=None)
    assert rows.shape[0] == N and np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    order = np.random.default_rng(seed).permutation(N)
    options = {"others": others, "per_class": None}
    other = represent(name, 3 * image[order], 0.5 * text, y[order], **options)
    assert np.allclose(cosines(other), cosines(rows[order]), atol=1e-2 if name == "probe" else 1e-6)
    fitted = make_representation(name, text, **options).fit(image, y)
    assert np.allclose(fitted.transform(image[4:6]), rows[4:6], atol=1e-6)
    assert len(fitted.get_feature_names_out()) == rows.shape[1]


@pytest.mark.parametrize("name", names())
def test_a_rotation_of_the_embedding_space_changes_no_similarity(name):
    turn = np.linalg.qr(vectors(D, D, seed=9))[0]
    loose = {"probe": 1e-2, "splice": 1e-3}.get(name, 1e-6)
    assert np.allclose(cosines(rows_of(name, turn=turn)), cosines(rows_of(name)), atol=loose)


@pytest.mark.parametrize("name", names())
def test_several_vectors_per_image(name):
    """Methods of axes, splice and probe take their mean; the others the best for each text."""
    image, text, y, others = world(queries=Q)
    found = represent(name, image, text, y, others=others)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    mean = represent(name, single_vector(image), text, y, others=others)
    takes_mean = name in {*LINEAR, "splice", "probe"}
    assert np.allclose(found, mean, atol=1e-6) == takes_mean or name == "assign"


@pytest.mark.parametrize("name", names())
def test_what_no_method_takes(name):
    image, text, y, others = world()
    with pytest.raises(NotFittedError):
        kind_of(name)(text).transform(image)
    for bad in (np.nan, np.inf):
        for wrong in ((np.where(image > 0.5, bad, image), text), (image, np.full((K, D), bad))):
            with pytest.raises(ValueError, match=r"NaN|infinity"):
                represent(name, *wrong, y, others=others)
    with pytest.raises(ValueError, match="image embeddings must be"):
        represent(name, image[:, 1:], text, y, others=others)


@pytest.mark.parametrize("name", ["clay", "od_crl", "indirect", "splice"])
def test_texts_that_do_not_differ(name):
    image, text, _, others = world()
    for few in (text[:1], text[:1].repeat(4, axis=0)):
        with pytest.raises(ValueError, match="texts do not differ to the VLM; give two or more"):
            represent(name, image, few, others=others)
    two = represent(name, image, text[:2], others=others)  # are enough
    assert np.allclose(np.linalg.norm(two, axis=1), 1)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("clay", {"components": K}, r"components must be 1 to 6 with these texts, not 7"),
        ("clay", {"components": 0}, r"components must be 1 to 6"),
        ("indirect", {"components": K + 1}, r"components must be 1 to 7"),
        ("splice", {"penalty": 1.0}, r"penalty must be above 0 and below 1, not 1.0"),
        ("grounded", {"alpha": -1.0}, r"alpha must be 0 or above"),
        ("od_crl", {"rule": "knee"}, r"unknown rule 'knee'"),
    ],
)
def test_impossible_options(name, options, message):
    with pytest.raises(ValueError, match=message):
        rows_of(name, **options)


def test_what_a_method_lacks_is_named_in_one_line():
    image, text, y, _ = world()
    for name in ("grounded", "lda", "probe"):
        with pytest.raises(UserError, match=f"{name} learns from labels"):
            represent(name, image, text)
        with pytest.raises(UserError, match=f"{name} needs labelled images of two classes"):
            represent(name, image, text, np.where(y == 1, 1, -1))
        with pytest.raises(ValueError, match="a label for each of the 30 images"):
            represent(name, image, text, y[1:])
    with pytest.raises(UserError, match=r"od_crl needs the texts of other criteria: null_space="):
        represent("od_crl", image, text)


@pytest.mark.parametrize("name", ["grounded", "lda", "probe"])
def test_images_without_a_label_teach_nothing_about_labels(name):
    image, text, y, _ = world()
    hidden = np.where(np.arange(N) % 2, y, -1)
    first = make_representation(name, text).fit(image, hidden).transform(image)
    swapped = image.copy()
    swapped[::2] = image[::2][::-1]  # other images have no label now; the collection is the same
    second = make_representation(name, text).fit(swapped, hidden).transform(image)
    assert np.allclose(first, second, atol=1e-6)
    once = np.full(N, -1)
    once[:C] = y[:C]
    assert np.isfinite(represent(name, image, text, once)).all()  # one label per class


@pytest.mark.parametrize("name", LINEAR)
@given(seed=SEEDS, k=st.integers(1, 9))
@settings(max_examples=5)
def test_exact_search_of_the_linear_ones(name, seed, k):
    image, text, y, others = world(seed)
    fitted = make_representation(name, text, others=others).fit(image.astype(np.float32), y)
    query = image[:2]
    matches = search(
        image.astype(np.float32), [Criterion(fitted.transform, fitted.transform(query))], k
    )
    w = fitted.weights_
    scores = l2((query - fitted.offset_) @ w.T) @ l2((image - fitted.offset_) @ w.T).T
    for rows, got, brute in zip(matches.rows, matches.scores, scores, strict=True):
        assert np.allclose(got, np.sort(brute)[::-1][:k], atol=1e-5)
        assert np.allclose(got, brute[rows], atol=1e-5)


class AnyWidth:
    """Texts as wide as the images: scikit-learn's checks come with images of many widths."""

    texts = None

    @property
    def text_embeddings(self):
        return vectors(K, self.n_features_in_)


def of_any_width(kind):
    """The class with its default options, and the texts of `AnyWidth`."""
    options = dict(list(inspect.signature(kind).parameters.items())[1:])
    options.pop("texts", None)

    def __init__(self):
        for key, option in options.items():
            setattr(self, key, option.default)

    return type(
        f"Checked{kind.__module__.rpartition('.')[2]}", (AnyWidth, kind), {"__init__": __init__}
    )


CHECKED = [of_any_width(kind_of(n)) for n in "assign clay indirect salient scales splice".split()]
globals().update({kind.__name__: kind for kind in CHECKED})  # a check pickles them


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@pytest.mark.parametrize("kind", CHECKED)
def test_scikit_learns_checks(kind):
    one = {"check_fit2d_1feature": "a sphere in one dimension has no directions"}
    check_estimator(kind(), expected_failed_checks=one if issubclass(kind, Clay) else {})
