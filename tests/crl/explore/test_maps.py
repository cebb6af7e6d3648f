import shutil

import numpy as np
import pytest

from crl.explore import maps
from crl.explore.maps import kept_array, map_points


def blobs():
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(3), 30)
    return (np.eye(3, 6)[truth] + 0.05 * rng.normal(size=(90, 6))).astype(np.float32), truth


def test_neighbours_stay_neighbours_and_a_map_is_made_once(tmp_path, monkeypatch):
    x, truth = blobs()
    points = map_points(x, "map", tmp_path)
    assert points.shape == (90, 2) and points.dtype == np.float32
    distance = np.linalg.norm(points[:, None] - points, axis=2) + 1e9 * np.eye(90)
    assert (truth[distance.argmin(axis=1)] == truth).all()
    np.testing.assert_array_equal(map_points(x, "map", None), points)  # the same points, same map
    monkeypatch.setattr(maps, "_tsne", lambda *_: pytest.fail("made again"))
    np.testing.assert_array_equal(map_points(x, "map", tmp_path), points)


@pytest.mark.parametrize("damage", ["cut", "bit", "empty", "another's"])
def test_a_damaged_array_is_computed_again(tmp_path, damage):
    x = np.arange(12.0).reshape(3, 4)
    kept_array("double", x, lambda: 2 * x, tmp_path)
    (file,) = tmp_path.iterdir()
    content = file.read_bytes()
    turned = content[:-3] + bytes([content[-3] ^ 1]) + content[-2:]
    kept_array("triple", x, lambda: 3 * x, tmp_path / "other")
    other = next((tmp_path / "other").iterdir()).read_bytes()
    shutil.rmtree(tmp_path / "other")
    damaged = {"cut": content[:100], "bit": turned, "empty": b"", "another's": other}
    file.write_bytes(damaged[damage])
    np.testing.assert_array_equal(kept_array("double", x, lambda: 2 * x, tmp_path), 2 * x)
    assert file.read_bytes() == content
    kept_array("double", x + 1, lambda: x, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("shape", [(1, 1), (4, 3)])
def test_few_images_get_their_components(shape):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    points = map_points(x, "map", None)
    np.testing.assert_array_equal(points[:, : min(2, shape[1])], x[:, :2])
    assert points.shape == (shape[0], 2)
