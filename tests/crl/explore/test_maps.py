import numpy as np
import pytest

from crl.explore import maps
from crl.explore.maps import map_points


def blobs():
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(3), 30)
    return (np.eye(3, 6)[truth] + 0.05 * rng.normal(size=(90, 6))).astype(np.float32), truth


def test_neighbours_stay_neighbours(tmp_path):
    x, truth = blobs()
    found = map_points(x, "map", tmp_path)
    assert found.shape == (90, 2) and found.dtype == np.float32
    distance = np.linalg.norm(found[:, None] - found, axis=2) + 1e9 * np.eye(90)
    assert (truth[distance.argmin(axis=1)] == truth).all()


def test_a_map_is_made_once(tmp_path, monkeypatch):
    x, _ = blobs()
    first = map_points(x, "map", tmp_path)
    np.testing.assert_array_equal(
        map_points(x, "map", None), first
    )  # the same points, the same map
    monkeypatch.setattr(maps, "_tsne", lambda *_: pytest.fail("made again"))
    np.testing.assert_array_equal(map_points(x, "map", tmp_path), first)


def test_a_damaged_map_is_made_again(tmp_path):
    x, _ = blobs()
    first = map_points(x, "map", tmp_path)
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(kept.read_bytes()[:100])
    np.testing.assert_array_equal(map_points(x, "map", tmp_path), first)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (4, 1), (4, 3), (9, 1)])
def test_few_images_get_their_components(shape):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    found = map_points(x, "map", None)
    np.testing.assert_array_equal(found[:, : min(2, shape[1])], x[:, :2])
    assert found.shape == (shape[0], 2)


def test_many_images_get_their_components(monkeypatch):
    monkeypatch.setattr(maps, "MOST_TSNE", 80)
    x, _ = blobs()
    np.testing.assert_array_equal(map_points(x, "map", None), x[:, :2])


def test_images_that_are_all_the_same():
    assert np.isfinite(map_points(np.zeros((10, 2), np.float32), "map", None)).all()
