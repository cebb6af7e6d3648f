"""The index against a dict."""

import threading

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from crl.run import digests as module
from crl.run.cache import digest_array
from crl.run.digests import DigestIndex

# Few and alike: equal ones, ones that share 15 bytes, zeros at the end.
digests = st.builds(
    lambda start, end: bytes([start]) * 15 + bytes([end]), st.integers(0, 2), st.integers(0, 3)
)
steps = st.lists(st.tuples(st.integers(0, 4), st.lists(digests, max_size=6)), max_size=8)


@given(steps=steps, recent=st.integers(0, 12), forgotten=st.integers(0, 4) | st.none())
def test_it_is_like_a_dict(steps, recent, forgotten):
    index, expected = DigestIndex(), {}
    asked = [bytes([start]) * 15 + bytes([end]) for start in range(4) for end in range(4)]
    before, module.RECENT = module.RECENT, recent
    try:
        for file, added in steps:
            index.add(digest_array(added), np.array([(file, i) for i in range(len(added))]))
            expected.update({digest: (file, i) for i, digest in enumerate(added)})
            assert [digest in index for digest in asked] == [d in expected for d in asked]
    finally:
        module.RECENT = before
    if forgotten is not None:
        index.forget(forgotten)
        expected = {d: place for d, place in expected.items() if place[0] != forgotten}
    assert [digest in index for digest in asked] == [digest in expected for digest in asked]
    found = index.find(digest_array(asked))
    assert [tuple(place) for place in found.tolist()] == [expected.get(d, (-1, -1)) for d in asked]
    assert len(index.find(digest_array([]))) == 0


def test_a_look_up_in_another_thread_misses_nothing(monkeypatch):
    monkeypatch.setattr(module, "RECENT", 50)
    rng, index = np.random.default_rng(0), DigestIndex()
    every = [row.tobytes() for row in rng.integers(0, 256, (20_000, 16), np.uint8)]
    added, missed = [0], []

    def look() -> None:
        while added[0] < len(every):
            some = every[max(0, added[0] - 40) : added[0]]
            missed.extend(digest for digest in some if digest not in index)

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    for start in range(0, len(every), 20):
        part = every[start : start + 20]
        index.add(digest_array(part), np.array([(0, start + i) for i in range(20)]))
        added[0] = start + 20
    for thread in threads:
        thread.join()
    assert not missed


def test_a_million_digests_take_24_bytes_each():
    rng = np.random.default_rng(0)
    index = DigestIndex()
    index.add(np.frombuffer(rng.bytes(16_000_000), module.DIGEST),
              np.zeros((1_000_000, 2), np.int32))  # fmt: skip
    keys, places, recent = index._state
    assert keys.nbytes + places.nbytes == 24_000_000 and not recent
