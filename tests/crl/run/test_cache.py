"""The store against a dict: merged or not, after kills, with two at once, or not writable.

What `embed_images` makes of it is tested in tests/crl/test_embed.py.
"""

import os
import subprocess
import sys
import tempfile
import warnings
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest
from commands import REPOSITORY
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from crl.run import cache as module
from crl.run.cache import Store, digest_array
from crl.run.errors import UserError

KILLED = 86


def digest(number: int) -> bytes:
    return number.to_bytes(16, "little")  # most end with zeros


def row(number: int) -> np.ndarray:
    return np.random.default_rng(number).standard_normal(3).astype(np.float32)


def batch(*numbers: int) -> tuple[list[bytes], np.ndarray]:
    return [digest(n) for n in numbers], np.stack([row(n) for n in numbers])


def rows(store: Store, numbers: list[int]) -> np.ndarray | None:
    return store.gather(digest_array(digest(n) for n in numbers))


def expected(numbers: list[int]) -> np.ndarray:
    return np.stack([row(n) for n in numbers])


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


@contextmanager
def tiny(**values: int):
    """One batch per shard, merged from 4 on, at most 3,000 bytes; read 5 rows at a time."""
    values = {"BATCHES_PER_SHARD": 1, "MANY": 4, "MERGED": 3_000, "CHUNK": 4 * 12, **values}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setattr(module, name, value)
        yield


@pytest.fixture
def small():
    with tiny():
        yield


# ---- merged against unmerged


@settings(max_examples=40, deadline=None)
@given(
    batches=st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=9), max_size=14),
    many=st.integers(2, 5),
    merged=st.sampled_from([1_000, 2_000, 4_000]),
    reopened=st.integers(1, 5),
    asked=st.lists(st.integers(0, 30), min_size=1),
)
def test_merged_shards_hold_what_unmerged_ones_hold(batches, many, merged, reopened, asked):
    stored = {number for numbers in batches for number in numbers}
    with tempfile.TemporaryDirectory() as place:
        for name, settings_ in (("plain", {"MANY": 999}), ("merged", {"MANY": many})):
            folder = Path(place, name)
            folder.mkdir()
            with tiny(MERGED=merged, **settings_):
                for start in range(0, len(batches), reopened):
                    store = Store(folder, "f")
                    store.add_all(batch(*numbers) for numbers in batches[start : start + reopened])
                for opened in (Store(folder, "f"), *([store] if batches else [])):
                    found = rows(opened, asked)
                    if set(asked) <= stored:
                        assert np.array_equal(found, expected(asked))
                    else:
                        assert found is None
                    missing = opened.missing(digest(number) for number in asked)
                    assert missing == [digest(n) for n in dict.fromkeys(asked) if n not in stored]
            if name == "merged":
                assert sum(file.stat().st_size < merged // 2 for file in shards(folder)) < many


def test_one_long_run_leaves_few_files(tmp_path, small):
    store, numbers = Store(tmp_path, "f"), list(range(600))
    most = []

    def batches():
        for start in range(0, 600, 3):
            most.append(len(shards(tmp_path)))
            yield batch(*numbers[start : start + 3])

    store.add_all(batches())
    data = 600 * (16 + 12)
    assert max(most) <= data / 1_500 + 4
    assert all(file.stat().st_size < 3_000 + 500 for file in shards(tmp_path))
    assert np.array_equal(rows(store, numbers[::-1]), expected(numbers[::-1]))
    assert not list(tmp_path.glob(".*"))


def test_shards_of_former_versions_are_small_ones(tmp_path):
    """With the real sizes, those of the tests are tiny."""
    with tiny(MANY=999):
        Store(tmp_path, "f").add_all(
            ([digest(n) for n in range(start, start + 100)], np.full((100, 3), start, np.float32))
            for start in range(0, 8_000, 100)
        )
    assert len(shards(tmp_path)) == 80
    store = Store(tmp_path, "f")
    assert len(shards(tmp_path)) == 1 and len(store.files) == 1
    found = store.gather(digest_array(digest(n) for n in range(8_000)))
    assert np.array_equal(found[:, 0], np.arange(8_000) // 100 * 100)


def test_the_checksum_by_chunks_is_that_of_all(tmp_path, small):
    Store(tmp_path, "f").add_all([batch(*range(23))])
    with safe_open(shards(tmp_path)[0], "np") as file:
        ids, embeddings = file.get_tensor("ids"), file.get_tensor("embeddings")
        whole = blake2b(ids.tobytes() + embeddings.tobytes(), digest_size=16).hexdigest()
        assert file.metadata()["checksum"] == whole
    assert np.array_equal(rows(Store(tmp_path, "f"), [22, 0, 5, 5]), expected([22, 0, 5, 5]))


def test_a_damaged_shard_is_not_merged(tmp_path):
    with tiny(MANY=999):
        Store(tmp_path, "f").add_all(batch(n, n + 100) for n in range(6))
    victim = shards(tmp_path)[3]
    content = bytearray(victim.read_bytes())
    content[8 + int.from_bytes(content[:8], "little")] ^= 1
    victim.write_bytes(content)
    with tiny(), pytest.warns(UserWarning, match=f"{victim} is damaged"):
        store = Store(tmp_path, "f")
    assert victim.with_suffix(".damaged").exists() and len(shards(tmp_path)) == 1
    every = [*range(6), *range(100, 106)]
    (lost, _) = missing = store.missing(digest(n) for n in every)
    number = int.from_bytes(lost, "little")
    assert missing == [digest(number), digest(number + 100)]
    kept = [n for n in every if n % 100 != number]
    assert np.array_equal(rows(store, kept), expected(kept)) and rows(store, every) is None


def test_embeddings_of_two_shapes(tmp_path, small):
    store = Store(tmp_path, "f")
    store.add_all([batch(1), ([digest(2)], np.ones((1, 7), np.float32))])
    assert np.array_equal(rows(store, [1]), expected([1])) and rows(store, [2]).shape == (1, 7)
    with pytest.raises(UserError, match=r"have the shape \([37],\), others of this VLM \([37],\)"):
        rows(store, [1, 2])
    store.add_all(batch(n) for n in range(3, 9))  # merged, those of one shape
    assert np.array_equal(rows(store, [1, *range(3, 9)]), expected([1, *range(3, 9)]))
    assert rows(store, [2]).shape == (1, 7)


# ---- kills


def in_a_process(work, before: int) -> int:
    """Do `work` in a forked process that ends before its file operation number `before` (a rename
    or a removal of a shard), as a kill would; -> its exit code."""
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    left = [before]

    def counted(call):
        def counts(*arguments, **keywords):
            if str(arguments[-1]).endswith(".safetensors"):
                if not left[0]:
                    os._exit(KILLED)
                left[0] -= 1
            return call(*arguments, **keywords)

        return counts

    os.replace, Path.unlink = counted(os.replace), counted(Path.unlink)
    try:
        work()
    except BaseException:
        os._exit(1)
    os._exit(0)


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_killed_between_any_two_steps_nothing_is_lost(tmp_path):
    numbers = list(range(40))
    for before in range(100):
        folder = tmp_path / str(before)
        folder.mkdir()
        with tiny(MANY=999):
            Store(folder, "f").add_all(batch(*numbers[n : n + 4]) for n in range(0, 40, 4))
        with tiny(MERGED=1_100):  # several merged shards
            code = in_a_process(lambda: Store(folder, "f"), before)  # noqa: B023
            assert code in (0, KILLED)
            with tiny(MANY=999):
                assert np.array_equal(rows(Store(folder, "f"), numbers), expected(numbers))
            store = Store(folder, "f")
            assert np.array_equal(rows(store, numbers), expected(numbers))
            store.add_all(batch(n) for n in range(100, 110))  # merges again
            every = [*numbers, *range(100, 110)]
            assert np.array_equal(rows(store, every), expected(every))
            kept = sum(len(store._read_digests(file)) for file in shards(folder))
            assert kept == len(every) if before in (0, 99) else kept <= len(every) + 20
            assert not list(folder.glob(".*.tmp"))
        if code == 0:
            break
    assert before > 10  # renames and removals


def test_rows_that_a_merged_shard_holds_too_are_dropped(tmp_path, small):
    """As after a kill between the two steps."""
    with tiny(MANY=999):
        store = Store(tmp_path, "f")
        store.add_all([batch(*range(60))])  # the merged one: above half of the most
        store.add_all(batch(*range(n, n + 10)) for n in range(0, 60, 10))
    assert len(shards(tmp_path)) == 7
    store = Store(tmp_path, "f")
    assert len(shards(tmp_path)) == 1
    assert np.array_equal(rows(store, list(range(60))), expected(list(range(60))))


def test_a_merged_shard_that_has_the_name_of_a_small_one_stays(tmp_path):
    with tiny(MANY=999):
        store = Store(tmp_path, "f")
        store.add_all(batch(*numbers) for numbers in ([1, 2], [1], [2], [1, 2, 3, 4]))
    for _ in range(3):
        with tiny(MANY=2):
            store = Store(tmp_path, "f")
        assert np.array_equal(rows(store, [4, 3, 2, 1]), expected([4, 3, 2, 1]))
    assert len(shards(tmp_path)) == 1


# ---- two at once


def test_a_shard_that_another_command_merged_is_found_in_its_new_place(tmp_path):
    with tiny(MANY=999):
        store = Store(tmp_path, "f")
        store.add_all(batch(n) for n in range(9))
        other = Store(tmp_path, "f")
    with tiny():
        other.add_all([batch(9)])
        assert len(shards(tmp_path)) == 1
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert np.array_equal(rows(store, [8, 0, 3]), expected([8, 0, 3]))
        assert np.array_equal(rows(store, [9]), expected([9]))  # which came since


def test_while_another_command_merges_nothing_is_merged(tmp_path, small):
    folder = tmp_path / "image-2"
    folder.mkdir()
    with FileLock(tmp_path / "image-2.lock"):
        store = Store(folder, "f")
        store.add_all(batch(n) for n in range(9))
        assert len(shards(folder)) == 9
        assert np.array_equal(rows(store, [8, 0]), expected([8, 0]))
    assert len(Store(folder, "f").files) == len(shards(folder)) == 1


ADD = """
import sys
from pathlib import Path
import numpy as np
from crl.run import cache
from test_cache import batch, expected, rows, tiny
folder, first, step = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
mine = list(range(first, first + 300))
with tiny():
    store = cache.Store(folder, "f")
    for start in range(0, 300, step):
        store.add_all([batch(*mine[start : start + step])])
        some = mine[: start + step][:: 7]
        assert np.array_equal(rows(store, some), expected(some)), start
"""


def test_two_commands_in_one_cache_both_end_well(tmp_path):
    search = [REPOSITORY, REPOSITORY / "tests/helpers", Path(__file__).parent]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, search))}
    line = [sys.executable, "-W", "error::UserWarning", "-c", ADD, str(tmp_path)]
    running = [
        subprocess.Popen([*line, first, step], env=environment)
        for first, step in (("0", "3"), ("200", "4"))  # 100 rows in common
    ]
    assert [process.wait() for process in running] == [0, 0]
    every = list(range(500))
    with tiny():
        assert np.array_equal(rows(Store(tmp_path, "f"), every), expected(every))
    assert not list(tmp_path.glob("*.damaged"))


# ---- where nothing can be written


@pytest.mark.parametrize("what", ["FileLock", "atomic_path"])
def test_a_cache_where_nothing_can_be_written_is_used_as_it_is(tmp_path, monkeypatch, what):
    with tiny(MANY=999):
        Store(tmp_path, "f").add_all(batch(n) for n in range(9))
    before = {file: file.read_bytes() for file in shards(tmp_path)}

    def refuse(*_, **__):
        raise PermissionError("Read-only file system")

    monkeypatch.setattr(module, what, refuse)
    with tiny():
        store = Store(tmp_path, "f")
        assert np.array_equal(rows(store, [8, 0, 3]), expected([8, 0, 3]))
    assert {file: file.read_bytes() for file in shards(tmp_path)} == before
