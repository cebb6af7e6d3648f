"""Near copies: found when resized or compressed, and nothing else."""

import io

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from crl.explore.collection import Collection
from crl.explore.copies import near_copies, near_groups


def photo(seed: int, side: int = 640) -> Image.Image:
    """Soft shapes of all sizes, as photographs have."""
    rng, layers = np.random.default_rng(seed), np.zeros((480, 640, 3))
    for size in (3, 9, 27, 81):
        noise = Image.fromarray(rng.integers(256, size=(size, size, 3), dtype=np.uint8))
        layers += np.asarray(noise.resize((640, 480), Image.Resampling.BICUBIC), float) / size
    picture = Image.fromarray((layers / layers.max() * 255).astype(np.uint8))
    return picture.resize((side, side * 3 // 4))


def test_copies_and_no_others(photos, tmp_path):
    saved = {"0.jpg": (0, 640, 95), "1.jpg": (1, 640, 95), "1-copy.jpg": (1, 300, 30)}
    saved |= {"1-small.jpg": (1, 200, 90), "2.jpg": (2, 320, 75), "2-copy.jpg": (2, 640, 95)}
    for name, (seed, side, quality) in saved.items():
        photo(seed, side).save(tmp_path / name, quality=quality)
    taken = Collection.embed(tmp_path, photos.vlm)
    assert taken.names == ["0.jpg", "1-copy.jpg", "1-small.jpg", "1.jpg", "2-copy.jpg", "2.jpg"]
    assert taken.near.tolist() == [0, 1, 1, 1, 4, 4]
    once = taken.once()
    assert once.names == ["0.jpg", "1-copy.jpg", "2-copy.jpg"]
    assert once.remarks() == ["near copies of other images: 3"]
    assert once.once().remarks() == once.remarks()
    np.testing.assert_array_equal(once.image, taken.image[[0, 1, 4]])
    for name in ("1-small.jpg", "1.jpg"):  # what is not here is gray, and no copy
        (tmp_path / name).unlink()
    del taken.__dict__["near"], taken.__dict__["thumbnails"]
    assert taken.near.tolist() == [0, 1, 2, 3, 4, 4]


def test_the_threshold():
    def picture(value):
        stream = io.BytesIO()
        Image.new("RGB", (96, 72), (value,) * 3).save(stream, "PNG")
        return stream.getvalue()

    shades = [picture(value) for value in (100, 120, 103, 106, 111, 123)]  # 106: by 103
    assert near_copies(shades).tolist() == [0, 1, 0, 0, 4, 1]
    assert near_copies(shades[:1]).tolist() == [0]


CELL = st.one_of(st.integers(start, start + 8) for start in (0, 7, 200))


@given(st.lists(st.tuples(CELL, CELL), min_size=1, max_size=12), st.integers(1, 4))
def test_groups_are_those_of_all_pairs_compared(rows, block):
    cells, group = np.array(rows, np.float32), np.arange(len(rows))
    near = np.square(cells[:, None] - cells).mean(axis=2) <= 4.0**2
    for _ in rows:  # the smallest number of those near, as far as it reaches
        group = np.where(near, group, len(rows)).min(axis=1)
    places = near_groups(cells, block)
    assert ((places[:, None] == places) == (group[:, None] == group)).all()
