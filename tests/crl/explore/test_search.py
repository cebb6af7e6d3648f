"""Search against sorting all scores; the index against what is damaged; FAISS and mini-batches
against exact search and k-means."""

import json
import sys
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from crl.projection import ConditionalProjection, l2
from crl.run.errors import UserError
from crl.search import (
    Criterion,
    Faiss,
    Index,
    build_faiss,
    build_index,
    sample,
    search,
    stream_clusters,
)
from crl.search import approximate as of_faiss
from crl.search import clusters as of_clusters
from crl.search import exact as of_search
from crl.search import index as of_index
from crl.search.approximate import faiss_settings
from crl.search.exact import factors, points

D = 24


@pytest.fixture(autouse=True)
def few_rows_at_once(monkeypatch):
    monkeypatch.setattr(of_search, "ROWS_AT_ONCE", 7)


def vectors(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def like_a_vlm(rows: int, seed: int, width: int = D) -> np.ndarray:
    """Most of each row is a direction that all share, and the rest is unequally wide."""
    shared = np.ones(width, np.float32) / np.sqrt(width)
    return l2(shared + vectors(rows, width, seed=seed) / np.arange(1, width + 1) / 2)


def fitted(text: np.ndarray, image: np.ndarray, normalise: str = "l2") -> ConditionalProjection:
    return ConditionalProjection(text, normalise=normalise).fit(sample(image))


def criterion(text, image, query, normalise="l2", weight=1.0) -> Criterion:
    projection = fitted(text, image, normalise)
    return Criterion(projection, projection.transform(query.astype(float)), weight)


def written_out(image: np.ndarray, query: np.ndarray, criteria: list[Criterion]) -> np.ndarray:
    """All scores (Q, N) from the formulas, in float64."""
    total = np.zeros((len(query), len(image)))
    for c in criteria:
        text = np.asarray(c.projection.text_, float)

        def represent(x, text=text, c=c):
            r = l2(x.astype(float)) @ text.T
            if c.projection.normalise == "l2":
                return l2(r)
            e = np.exp((r - r.max(axis=1, keepdims=True)) / c.projection.sigma_)
            return np.sqrt(e / e.sum(axis=1, keepdims=True))

        total += c.weight * (represent(query) @ represent(image).T)
    return total / sum(abs(c.weight) for c in criteria)


def must_be_the_best(found, scores: np.ndarray, rows: np.ndarray, k: int) -> None:
    """`found` are the k best of `rows`; rows whose scores differ by rounding may change places."""
    for mine, score, all_scores in zip(found.rows, found.score, scores, strict=True):
        best = np.sort(all_scores[rows])[::-1][:k]
        assert len(set(mine.tolist())) == k and set(mine.tolist()) <= set(rows.tolist())
        np.testing.assert_allclose(score, best, rtol=0, atol=1e-6)
        np.testing.assert_allclose(all_scores[mine], score, rtol=0, atol=1e-6)
        assert (np.diff(score) <= 0).all() and score.dtype == np.float32
        same = np.diff(score) == 0
        assert (np.diff(mine)[same] > 0).all()


# ---- exact search


@given(
    n=st.integers(1, 40),
    d=st.integers(1, 16),
    texts=st.lists(st.integers(2, 30), min_size=1, max_size=3),
    queries=st.integers(1, 3),
    normalise=st.sampled_from(["l2", "posterior"]),
    whole=st.booleans(),
    half=st.booleans(),
    weights=st.lists(st.sampled_from([1.0, 0.3, -0.2, -1.0]), min_size=3, max_size=3),
    seed=st.integers(0, 10_000),
)
def test_the_best_of_all_scores(n, d, texts, queries, normalise, whole, half, weights, seed):
    rng = np.random.default_rng(seed)
    image = vectors(n, d, seed=seed)
    if whole:  # many ties, rows of zeros, and rows that are orthogonal to everything
        image = rng.integers(-1, 2, (n, d)).astype(np.float32)
    image = image.astype(np.float16 if half else np.float32)
    query = vectors(queries, d, seed=seed + 1)
    text = [l2(vectors(k, d, seed=seed + 2 + i) + 0.5) for i, k in enumerate(texts)]
    try:
        criteria = [
            criterion(t, image, query, normalise, w) for t, w in zip(text, weights, strict=False)
        ]
    except ValueError:
        assume(False)  # the posterior of similarities that are all equal
    scores, k = written_out(image, query, criteria), int(rng.integers(1, n + 1))
    must_be_the_best(search(image, criteria, k), scores, np.arange(n), k)
    mask = rng.random(n) < 0.5
    if mask.any():
        k = int(rng.integers(1, mask.sum() + 1))
        by_mask = search(image, criteria, k, rows=mask)
        must_be_the_best(by_mask, scores, np.flatnonzero(mask), k)
        numbers = rng.permutation(np.repeat(np.flatnonzero(mask), 2))
        assert np.array_equal(search(image, criteria, k, rows=numbers).rows, by_mask.rows)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("kind", ["usual", "orthogonal", "copies", "against"])
def test_a_first_pass_with_few_columns_loses_nothing(monkeypatch, kind, sign):
    """Rows for which the bounds of the first pass are loose, or of the wrong sign."""
    monkeypatch.setattr(of_search, "ROWS_AT_ONCE", 100)
    n, text = 2_000, like_a_vlm(50, 1)
    image = like_a_vlm(n, 0)
    shared = factors(fitted(text, image))[2][0]
    if kind == "orthogonal":  # nothing of them is in the first column
        image = (image - np.outer(image @ shared, shared)).astype(np.float32)
    elif kind == "copies":
        image = np.repeat(image[:10], n // 10, axis=0)
    elif kind == "against":  # all products are negative
        image = -image
    query = sign * like_a_vlm(3, 5)
    c = criterion(text, image, query)
    assert len(of_search._bounds(c, "cpu")) == 2
    scores = written_out(image, query, [c])
    for bound in of_search._bounds(c, "cpu"):
        low, high = (side.T.numpy() for side in bound(of_search._tensor(image, "cpu")))
        assert (low <= scores).all() and (scores <= high).all()
    must_be_the_best(search(image, [c], 20), scores, np.arange(n), 20)
    c = Criterion(c.projection, c.query[:1])
    must_be_the_best(search(image, [c], 1), scores[:1], np.arange(n), 1)


def test_a_negative_weight_and_few_columns():
    image, query = like_a_vlm(1_000, 0), like_a_vlm(3, 5)
    criteria = [
        criterion(like_a_vlm(50, 1), image, query),
        criterion(like_a_vlm(60, 2), image, query, weight=-0.5),
    ]
    scores, x = written_out(image, query, criteria), of_search._tensor(image, "cpu")
    each = [of_search._bounds(c, "cpu")[0](x) for c in criteria]
    low, high = (side.T.numpy() for side in of_search._weighted(each, [2 / 3, -1 / 3]))
    assert (low <= scores).all() and (scores <= high).all()
    low, high = (side.T.numpy() for side in of_search._weighted(each[1:], [-1.0]))
    scores_of_other = written_out(image, query, criteria[1:])  # its weight makes them negative
    assert (low <= scores_of_other).all() and (scores_of_other <= high).all()
    must_be_the_best(search(image, criteria, 20), scores, np.arange(1_000), 20)


def test_bounds_hold_and_a_few_columns_leave_few_rows(monkeypatch):
    monkeypatch.setattr(of_search, "ROWS_AT_ONCE", 1_000)
    image, text, query = like_a_vlm(20_000, 0), like_a_vlm(50, 1), like_a_vlm(2, 5)
    for normalise in ("l2", "posterior"):
        c = criterion(text, image, query, normalise)
        for bound in of_search._bounds(c, "cpu"):
            low, high = (side.T.numpy() for side in bound(of_search._tensor(image, "cpu")))
            scores = written_out(image, query, [c])
            assert (low <= scores).all() and (scores <= high).all()
        assert np.max(high - low) < 0.01  # of the last pass
        with patch.object(of_search, "scores", wraps=of_search.scores) as scored:
            search(image, [c], 10)
        assert sum(len(call.args[0]) for call in scored.call_args_list) < 1_000


def test_equal_rows_are_ordered_by_number():
    image = np.tile(like_a_vlm(10, 0), (50, 1))  # row i is a copy of row i % 10
    for normalise in ("l2", "posterior"):
        c = criterion(like_a_vlm(30, 1), image, image[3:4], normalise)
        assert search(image, [c], 20).rows[0].tolist() == list(range(3, 203, 10))


@given(k=st.integers(1, 60), d=st.integers(1, 20), seed=st.integers(0, 999))
def test_factors_with_min_k_d_columns_replace_r(k, d, seed):
    image, text = vectors(9, d, seed=seed), l2(vectors(k, d, seed=seed + 1))
    projection = fitted(text, image)
    u, s, directions = factors(projection)
    assert len(s) == min(k, d)
    r, a = image.astype(float) @ text.astype(float).T, image @ directions.T * s  # a = Lᵀ x
    np.testing.assert_allclose(a @ u.T, r, atol=1e-6)
    np.testing.assert_allclose(a @ a.T, r @ r.T, atol=1e-5)
    x = np.concatenate([*points(image, projection)])
    assert x.shape == (9, min(k, d))
    np.testing.assert_allclose(x @ x.T, l2(r) @ l2(r).T, atol=2e-5)


class Watched:
    """An array that remembers which rows were read."""

    def __init__(self, array):
        self.array, self.shape, self.ndim, self.read = array, array.shape, array.ndim, set()

    def __len__(self):
        return len(self.array)

    def __getitem__(self, rows):
        self.read |= set(np.arange(len(self.array))[rows].tolist())
        return self.array[rows]


def test_other_rows_are_not_read():
    image = Watched(like_a_vlm(100, 0))
    c = criterion(like_a_vlm(9, 1), image.array, image.array[:1])
    wanted = [90, 3, 55, 4]
    assert sorted(search(image, [c], 4, rows=wanted).rows[0]) == sorted(wanted)
    assert image.read == set(wanted)


def test_several_vectors_per_image_are_computed_exactly():
    image, query = vectors(30, 3, D), vectors(1, 3, D, seed=3)
    projection = fitted(l2(vectors(8, D, seed=1)), image, "posterior")
    found = search(image, [Criterion(projection, projection.transform(query))], 5)
    scores = (projection.transform(query) @ projection.transform(image).T)[0]
    assert found.rows[0].tolist() == np.argsort(-scores, kind="stable")[:5].tolist()


def test_sigma_is_that_of_all_rows_up_to_the_sample():
    image, text = vectors(500, D), l2(vectors(9, D, seed=1))
    of_all = ConditionalProjection(text, normalise="posterior").fit(image)
    assert fitted(text, image, "posterior").sigma_ == of_all.sigma_
    assert sample(image, 3).tolist() == image[[0, 250, 499]].tolist()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"k": 31}, "k must be 1 to 30, the number of rows, not 31"),
        ({"k": 0}, "k must be 1 to 30"),
        ({"k": 3, "rows": [1, 2]}, "k must be 1 to 2"),
        ({"rows": [30]}, "there is no row 30; there are 30"),
        ({"rows": [-1]}, "0 or above"),
        ({"rows": [0.5]}, "rows must be row numbers"),
        ({"rows": np.ones(29, bool)}, "must have 30 booleans"),
        ({"image": vectors(0, D)}, r"one image or more, not \(0, 24\)"),
        ({"image": vectors(30, D + 1)}, "width 25 and the texts 24; both must be of one VLM"),
    ],
)
def test_mistakes(change, words):
    image = vectors(30, D)
    given = {"image": image, "criteria": [criterion(vectors(9, D), image, image[:1])], "k": 1}
    with pytest.raises(UserError, match=words):
        search(**{**given, **change})


def test_mistakes_in_criteria():
    image = vectors(30, D)
    c = criterion(vectors(9, D), image, image[:1])
    for wrong, words in (
        (Criterion(c.projection, image[:1]), r"a query must be \(Q, 9\)"),
        (Criterion(c.projection, c.query, np.nan), "weights must be finite"),
        (Criterion(c.projection, c.query, 0.0), "one of them not 0"),
        (criterion(vectors(9, D), image, image[:1], "standardise"), "'l2' or 'posterior'"),
    ):
        with pytest.raises(UserError, match=words):
            search(image, [wrong], 1)


# ---- the index


def parts(image: np.ndarray, count: int = 7):
    for start in range(0, len(image), count):
        part = image[start : start + count]
        yield [f"{start + i}.jpg" for i in range(len(part))], part


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_an_index_holds_names_and_unit_rows(tmp_path, monkeypatch, dtype):
    monkeypatch.setattr(of_index, "NAMES_AT_ONCE", 10)  # names in a group
    image = 9 * vectors(25, D)
    build_index(tmp_path / "index", parts(image), "vlm-1", dtype)
    index = Index.open(tmp_path / "index", "vlm-1")
    assert index.image.shape == (25, D) and index.image.dtype == dtype
    np.testing.assert_allclose(index.image, l2(image), atol=1e-3 if dtype == "float16" else 1e-7)
    assert index.names([24, 3, 3, 10]) == ["24.jpg", "3.jpg", "3.jpg", "10.jpg"]
    assert index.names([]) == []
    assert (tmp_path / "index" / f"rows.f{16 if dtype == 'float16' else 32}").stat().st_size == (
        25 * D * index.image.itemsize
    )
    index.check()
    c = criterion(like_a_vlm(30, 1), index.image, image[4:5])
    must_be_the_best(
        search(index.image, [c], 5), written_out(index.image, image[4:5], [c]), np.arange(25), 5
    )


def test_one_index_gives_what_the_arrays_give_under_every_criterion(tmp_path):
    image = like_a_vlm(200, 0)
    index = build_index(tmp_path / "index", parts(image), "vlm-1", "float32")
    for seed in (1, 2):
        c = criterion(like_a_vlm(30, seed), image, image[:2], "posterior")
        one, other = search(index.image, [c], 9), search(image, [c], 9)
        assert np.array_equal(one.rows, other.rows)
        np.testing.assert_allclose(one.score, other.score, atol=1e-6)


def broken_off(image):
    yield from list(parts(image))[:2]
    raise KeyboardInterrupt


def test_an_index_that_is_half_written_is_never_opened(tmp_path):
    folder, image = tmp_path / "index", vectors(25, D)
    with pytest.raises(KeyboardInterrupt):
        build_index(folder, broken_off(image), "vlm-1")
    with pytest.raises(UserError, match="there is no complete index in"):
        Index.open(folder)
    build_index(folder, parts(image[:9]), "vlm-1")
    with pytest.raises(KeyboardInterrupt):
        build_index(folder, broken_off(image), "vlm-1")
    assert len(Index.open(folder)) == 9  # the old one
    assert sorted(f.name for f in folder.iterdir()) == ["index.json", "names.parquet", "rows.f16"]
    assert len(build_index(folder, parts(image), "vlm-1")) == 25
    for name in ("rows.f16", "names.parquet", "index.json"):
        content = (folder / name).read_bytes()
        (folder / name).unlink()
        with pytest.raises(UserError, match="there is no complete index in"):
            Index.open(folder)
        (folder / name).write_bytes(content)
    assert len(Index.open(folder)) == 25


def test_new_rows_never_have_an_old_manifest(tmp_path):
    folder = tmp_path / "index"
    build_index(folder, parts(vectors(25, D)), "vlm-1")
    stopped = patch.object(of_index, "write_text", side_effect=KeyboardInterrupt)
    with stopped, pytest.raises(KeyboardInterrupt):
        build_index(folder, parts(vectors(25, D, seed=1)), "vlm-1")
    with pytest.raises(UserError, match="there is no complete index in"):
        Index.open(folder)


def test_a_damaged_index_is_one_clear_line(tmp_path):
    folder = tmp_path / "index"
    build_index(folder, parts(vectors(25, D)), "vlm-1")
    kept = {file: file.read_bytes() for file in folder.iterdir()}

    def refused(name: str, content: bytes, act) -> str:
        (folder / name).write_bytes(content)
        with pytest.raises(UserError, match=r"is damaged .*build it again") as refusal:
            act()
        for file, old in kept.items():
            file.write_bytes(old)
        assert "\n" not in str(refusal.value)
        return str(refusal.value)

    manifest = json.loads(kept[folder / "index.json"])
    rows, names = kept[folder / "rows.f16"], kept[folder / "names.parquet"]
    opened = lambda: Index.open(folder)  # noqa: E731
    assert "has 1198 bytes, not 1200" in refused("rows.f16", rows[:-2], opened)
    assert "index.json" in refused("index.json", b"{", opened)
    for wrong in ({"rows": 24}, {"rows": -1}, {"width": 0}, {"dtype": "object"}, {"format": "x"}):
        refused("index.json", json.dumps({**manifest, **wrong}).encode(), opened)
    refused("names.parquet", names[:-5], opened)
    turned = bytes([rows[0] ^ 1]) + rows[1:]
    assert "another checksum" in refused("rows.f16", turned, lambda: opened().check())
    for place in (60, len(names) // 2):
        turned = names[:place] + bytes([names[place] ^ 1]) + names[place + 1 :]
        assert "another checksum" in refused("names.parquet", turned, opened)


def test_an_index_of_another_vlm(tmp_path):
    build_index(tmp_path / "index", parts(vectors(25, D)), "vlm-1")
    with pytest.raises(UserError, match="is of another VLM"):
        Index.open(tmp_path / "index", "vlm-2")


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([], "one image or more"),
        ([(["a"], vectors(1, 3, D))], "one vector per image"),
        ([(["a"], vectors(2, D))], "1 names and embeddings"),
        ([(["a"], vectors(1, D)), (["b"], vectors(1, 5))], "do not fit an index of width 24"),
        ([(["a"], np.zeros((1, D)))], "all zeros"),
        ([(["a"], np.full((1, D), np.nan))], "not finite"),
        ([(["\udc80.jpg"], vectors(1, D))], "is not valid Unicode"),
    ],
)
def test_what_no_index_is_built_from(tmp_path, parts, words):
    with pytest.raises(UserError, match=words):
        build_index(tmp_path / "index", parts, "vlm-1")
    assert not (tmp_path / "index").exists()


# ---- approximate search


@pytest.fixture
def faiss():
    return pytest.importorskip("faiss")


@pytest.mark.parametrize("normalise", ["l2", "posterior"])
@pytest.mark.parametrize(("settings", "lists"), [("Flat", 0), ("PCAR8,IVF16,PQ4x4", 16)])
def test_faiss_finds_nearly_the_same(faiss, monkeypatch, capsys, normalise, settings, lists):
    monkeypatch.setattr(of_search, "ROWS_AT_ONCE", 500)
    monkeypatch.setattr(of_faiss, "PROBES", 4)
    monkeypatch.setattr(of_faiss, "faiss_settings", lambda rows, width: (settings, lists))
    image = like_a_vlm(4_000, 0)
    projection = fitted(like_a_vlm(40, 1), image, normalise)
    built = build_faiss(image, projection)
    assert f"FAISS {settings}: 4,000 rows, recall@10 {built.recall:.3f}" in capsys.readouterr().out
    own = np.linspace(0, 3_999, 100).round().astype(int)
    query = projection.transform(image[own].astype(float))
    exact = search(image, [Criterion(projection, query)], 11)
    found = built.search(image, query, 11)
    pairs = zip(own, exact.rows, found.rows, strict=True)
    each = [np.mean([row in b for row in a if row != me]) for me, a, b in pairs]
    assert built.recall == pytest.approx(np.mean(each)) and built.recall > 0.9
    if settings == "Flat":
        assert np.array_equal(found.rows, exact.rows) and built.recall == 1
    scores = written_out(image, image[own], [Criterion(projection, query)])
    scores = np.take_along_axis(scores, found.rows, axis=1)
    np.testing.assert_allclose(found.score, scores, atol=1e-6)


def test_faiss_is_kept_and_damage_is_seen(faiss, tmp_path):
    image = like_a_vlm(300, 0)
    projection = fitted(like_a_vlm(9, 1), image)
    built = build_faiss(image, projection)
    with pytest.raises(UserError, match="no complete FAISS index"):
        Faiss.open(tmp_path, projection)
    built.save(tmp_path)
    again = Faiss.open(tmp_path, projection)
    query = projection.transform(image[:3])
    assert np.array_equal(again.search(image, query, 5).rows, built.search(image, query, 5).rows)
    assert (again.recall, again.settings) == (built.recall, "Flat")
    with pytest.raises(UserError, match="of another criterion"):
        Faiss.open(tmp_path, fitted(like_a_vlm(9, 2), image))
    with pytest.raises(UserError, match="has 300 rows, not 299"):
        again.search(image[:299], query, 5)
    file = tmp_path / "rows.faiss"
    content = file.read_bytes()
    for damaged in (content[:-1], content[:50] + bytes([content[50] ^ 1]) + content[51:], b""):
        file.write_bytes(damaged)
        with pytest.raises(UserError, match=r"damaged .*another checksum"):
            Faiss.open(tmp_path, projection)
    (tmp_path / "faiss.json").write_text("{}")
    with pytest.raises(UserError, match=r"damaged .*faiss\.json"):
        Faiss.open(tmp_path, projection)


def test_faiss_is_optional(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    image = vectors(9, D)
    with pytest.raises(UserError, match=r"pip install -r requirements-faiss\.txt"):
        build_faiss(image, fitted(vectors(4, D), image))


def test_faiss_settings_follow_from_the_size():
    assert faiss_settings(99_999, 512) == ("Flat", 0)
    assert faiss_settings(100_000, 512) == ("IVF1264,SQfp16", 1264)
    assert faiss_settings(10**7, 512) == ("PCAR64,IVF4096,PQ32", 4096)
    assert faiss_settings(10**7, 64) == ("IVF4096,SQfp16", 4096)


# ---- clusters


def groups(each: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Images of `number` classes, sorted by class, of unequal sizes."""
    centres = vectors(number, D, seed=3)
    label = np.repeat(np.arange(number), each * np.arange(number, 0, -1))
    return centres[label] + vectors(len(label), D) / 3, label


@pytest.mark.parametrize("normalise", ["l2", "posterior"])
def test_clusters_in_mini_batches_are_those_of_kmeans(monkeypatch, normalise):
    monkeypatch.setattr(of_search, "ROWS_AT_ONCE", 100)
    monkeypatch.setattr(of_clusters, "BATCH", 200)
    image, truth = groups(100, 5)
    projection = fitted(vectors(40, D, seed=7), image, normalise)
    label = stream_clusters(image, projection, 5, seed=0)
    whole = KMeans(5, n_init=5, random_state=0).fit_predict(projection.transform(image))
    assert adjusted_rand_score(whole, label) > 0.98 and adjusted_rand_score(truth, label) > 0.98
    assert (np.diff(np.bincount(label)) <= 0).all()  # the largest first
    assert np.array_equal(label, stream_clusters(image, projection, 5, seed=0))


def test_numbers_of_clusters_that_make_no_sense():
    image = vectors(9, D)
    projection = fitted(vectors(4, D), image)
    for number in (0, 10):
        with pytest.raises(UserError, match="must be 1 to 9"):
            stream_clusters(image, projection, number)
    assert sorted(stream_clusters(image, projection, 9)) == list(range(9))
