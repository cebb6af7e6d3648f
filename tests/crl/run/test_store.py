"""The store against a dict: after kills, after damage, with several writers, or not writable."""

import multiprocessing
import os
import shutil
import tempfile
import warnings
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crl.run import store as module
from crl.run.errors import UserError
from crl.run.store import ENTRY, Store, digest_array

ABOUT = {"fingerprint": "f", "vlm": "toy", "precision": "fp32"}
KILLED = 86


def digest(number: int) -> bytes:
    return number.to_bytes(16, "little")  # most end with zeros


def expected(numbers) -> np.ndarray:
    rows = [np.random.default_rng(number).standard_normal(3) for number in numbers]
    return np.stack(rows).astype(np.float32)


def batch(*numbers: int) -> tuple[list[bytes], np.ndarray]:
    return [digest(n) for n in numbers], expected(numbers)


def gathered(store: Store, numbers) -> np.ndarray | None:
    return store.gather(digest_array(digest(n) for n in numbers))


def stored(folder: Path, *batches: list[int]) -> Store:
    """A closed store with these batches."""
    store = Store(folder, ABOUT)
    for numbers in batches:
        store.append(*batch(*numbers))
    store.close()
    return store


@settings(max_examples=40)
@given(
    batches=st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=9, unique=True), max_size=9),
    reopened=st.integers(1, 4),
    asked=st.lists(st.integers(0, 30), min_size=1),
    rows_at_once=st.integers(1, 4),
)
def test_a_store_is_a_dict_on_disk(batches, reopened, asked, rows_at_once):
    present = {number for numbers in batches for number in numbers}
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "ROWS_AT_ONCE", rows_at_once)
        patch.setattr(module, "BATCHES", 2)
        for start in range(0, len(batches), reopened):
            store = stored(Path(folder), *batches[start : start + reopened])
        for opened in (Store(Path(folder), ABOUT), *([store] if batches else [])):
            assert [digest(n) in opened for n in asked] == [n in present for n in asked]
            missing = opened.missing(digest(number) for number in asked)
            assert missing == [digest(n) for n in dict.fromkeys(asked) if n not in present]
            rows = gathered(opened, asked)
            assert np.array_equal(rows, expected(asked)) if not missing else rows is None
        assert len(list(Path(folder).glob("*.rows"))) == (1 if batches else 0)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        *(([1.0, value], "NaN or infinite") for value in (np.nan, np.inf, 70_000)),
        ([0.0, 0.0], "an embedding of zeros"),
        ([1e-9, -1e-9], "an embedding of zeros"),
    ],
)
def test_what_is_no_embedding_is_refused(tmp_path, row, words):
    store = Store(tmp_path, ABOUT | {"precision": "fp16"})  # 70,000 is infinity there, 1e-9 is 0
    with pytest.raises(UserError, match=words):
        store.append([digest(1), digest(2)], np.array([[1.0, 2.0], row], np.float32))
    store.close()
    assert not list(tmp_path.glob("*.rows"))


# ---- damage


def flip(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 0x10
    file.write_bytes(content)


@settings(max_examples=60)
@given(kind=st.sampled_from(["rows", "entries"]), place=st.floats(0, 1, exclude_max=True))
def test_any_flipped_bit_costs_one_row(kind, place):
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        stored(folder, range(10))
        (file,) = folder.glob(f"*.{kind}")
        flip(file, int(place * file.stat().st_size))
        hurt = int(place * file.stat().st_size) // (12 if kind == "rows" else ENTRY.itemsize)
        store = Store(folder, ABOUT)
        if digest(hurt) in store:  # its digest is right
            with pytest.warns(UserWarning, match=r"1 damaged row\(s\) .* computed again"):
                assert gathered(store, range(10)) is None
        assert store.missing(map(digest, range(10))) == [digest(hurt)]
        store.append(*batch(hurt))
        store.close()
        for opened in (store, Store(folder, ABOUT)):
            with warnings.catch_warnings():  # the damaged row has a good copy now
                warnings.simplefilter("error")
                assert np.array_equal(gathered(opened, range(10)), expected(range(10)))


def others(folder: Path) -> Path:
    """The rows of another VLM for the same images."""
    store = Store(folder / "other", ABOUT | {"fingerprint": "g"})
    store.append([digest(n) for n in range(10)], -expected(range(10)))
    store.close()
    return next((folder / "other").glob("*.rows"))


def exchange(rows: Path, kinds: list[str]) -> None:
    for kind in kinds:
        shutil.copy(others(rows.parent).with_suffix(kind), rows.with_suffix(kind))


def double(rows: Path, kinds: list[str]) -> None:
    for kind in kinds:
        shutil.copy(rows.with_suffix(kind), rows.with_name(f"copy{kind}"))


def zeros(rows: Path, kinds: list[str]) -> None:
    for kind in kinds:
        rows.with_suffix(kind).write_bytes(bytes(rows.with_suffix(kind).stat().st_size))


def lose(rows: Path, kinds: list[str]) -> None:
    for kind in kinds:
        rows.with_suffix(kind).unlink()


def shift(rows: Path, kinds: list[str]) -> None:
    for kind in kinds:
        size = 12 if kind == ".rows" else ENTRY.itemsize
        rows.with_suffix(kind).write_bytes(rows.with_suffix(kind).read_bytes()[size:])


@pytest.mark.filterwarnings("ignore:.* damaged row")
@pytest.mark.parametrize("kinds", [[".rows"], [".entries"], [".rows", ".entries"]])
@pytest.mark.parametrize("work", [exchange, double, zeros, lose, shift])
def test_lost_doubled_and_foreign_parts_give_no_wrong_row(tmp_path, work, kinds):
    folder = tmp_path / "store"
    stored(folder, range(10))
    work(next(folder.glob("*.rows")), kinds)
    shutil.rmtree(folder / "other", ignore_errors=True)
    store, again = Store(folder, ABOUT), []
    for _ in range(2):  # as crl/embed.py does
        again += (lost := [n for n in range(10) if digest(n) not in store])
        if lost:
            store.append(*batch(*lost))
        if (rows := gathered(store, range(10))) is not None:
            break
    assert np.array_equal(rows, expected(range(10)))
    assert len(again) == len(set(again)) and bool(again) == (work is not double)
    store.close()
    for opened in (store, Store(folder, ABOUT)):
        assert np.array_equal(gathered(opened, range(10)), expected(range(10)))


@pytest.mark.filterwarnings("ignore:.* damaged row")
def test_each_byte_of_each_file_counts(tmp_path):
    stored(tmp_path, [1, 2])
    for file in [*tmp_path.glob("*.rows"), *tmp_path.glob("*.entries"), tmp_path / "meta.json"]:
        whole = file.read_bytes()
        for place in range(len(whole)):
            flip(file, place)
            assert gathered(Store(tmp_path, ABOUT), [1, 2]) is None, (file.name, place)
            file.write_bytes(whole)
    assert np.array_equal(gathered(Store(tmp_path, ABOUT), [1, 2]), expected([1, 2]))


@pytest.mark.parametrize("kind", ["rows", "entries"])
@pytest.mark.parametrize("cut", [1, 13, 25, 40])
def test_what_a_kill_leaves_at_the_end_is_cut_off(tmp_path, kind, cut):
    stored(tmp_path, range(10))
    (file,) = tmp_path.glob(f"*.{kind}")
    os.truncate(file, file.stat().st_size - cut)
    store = Store(tmp_path, ABOUT)
    left = 10 - -(-cut // (12 if kind == "rows" else ENTRY.itemsize))
    assert store.missing(map(digest, range(10))) == [digest(n) for n in range(left, 10)]
    store.append(*batch(*range(left, 12)))
    store.close()
    assert np.array_equal(gathered(Store(tmp_path, ABOUT), range(12)), expected(range(12)))
    assert len(list(tmp_path.glob("*.rows"))) == 1


def test_a_damaged_meta_file_loses_no_row(tmp_path):
    stored(tmp_path, range(10))
    meta = tmp_path / "meta.json"
    before = meta.read_text()
    others = before.replace("3\n", "4\n"), before.replace('"f"', '"g"')
    for content in ("", "[]", '{"shape": "abc"}', "gone", *others):
        meta.unlink() if content == "gone" else meta.write_text(content)
        store = Store(tmp_path, ABOUT)
        assert gathered(store, [1]) is None
        store.append(*batch(1))  # the first batch writes it anew
        assert np.array_equal(gathered(store, range(10)), expected(range(10)))
        store.close()
        assert meta.read_text() == before


# ---- several writers


fork = multiprocessing.get_context("fork")
forks = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")


def add(folder: Path, first: int) -> None:
    warnings.simplefilter("error")
    numbers = list(range(first, first + 300))
    store = Store(folder, ABOUT)
    for start in range(0, 300, 7):
        store.append(*batch(*numbers[start : start + 7]))
        some = numbers[: start + 7][::7]
        assert np.array_equal(gathered(store, some), expected(some)), start
    store.close()


@forks
def test_several_commands_in_one_cache_all_end_well(tmp_path):
    with fork.Pool(3) as pool:
        pool.map(partial(add, tmp_path), [0, 200, 200], chunksize=1)
    assert np.array_equal(gathered(Store(tmp_path, ABOUT), range(500)), expected(range(500)))
    assert 1 <= len(list(tmp_path.glob("*.rows"))) <= 3


def fill(folder: Path, operations: int, finished: Path) -> None:
    """Appends 0 to 11; ends before write, sync or truncation `operations`, as a kill would end."""
    left, sync = count(operations, -1), os.fsync

    def counted(descriptor):
        if not next(left):
            os.ftruncate(descriptor, max(0, os.fstat(descriptor).st_size - 5))
            os._exit(KILLED)
        sync(descriptor)

    os.fsync = counted
    store = Store(folder, ABOUT)
    for n in range(0, 12, 2):
        store.append(*batch(n, n + 1))
        if not store._waiting:  # it is on the disk
            finished.write_text(str(n + 2))
    store.close()


@forks
def test_killed_at_any_write_nothing_finished_is_lost(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BATCHES", 2)
    for operations in range(100):
        folder, finished = tmp_path / str(operations), tmp_path / f"finished-{operations}"
        process = fork.Process(target=fill, args=(folder, operations, finished))
        process.start()
        process.join()
        assert process.exitcode in (0, KILLED)
        before = Store(folder, ABOUT)
        written = int(finished.read_text()) if finished.exists() else 0
        assert not before.missing(map(digest, range(written)))
        stored(folder, *[[n] for n in range(12) if digest(n) not in before])
        assert np.array_equal(gathered(Store(folder, ABOUT), range(12)), expected(range(12)))
        if process.exitcode == 0:
            break
    assert operations > 5


def test_a_full_disk_loses_no_earlier_row(tmp_path, monkeypatch):
    store = Store(tmp_path, ABOUT)
    store.append(*batch(1))
    store.flush()
    store.append(*batch(2))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left")))
        with pytest.raises(OSError, match="No space"):
            store.flush()
    store.close()  # there is room again
    assert np.array_equal(gathered(Store(tmp_path, ABOUT), [1, 2]), expected([1, 2]))


def test_a_store_where_nothing_can_be_written_is_read(tmp_path, monkeypatch):
    stored(tmp_path, range(5))
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(module, "FileLock", None)  # a writer would need it
    assert np.array_equal(gathered(Store(tmp_path, ABOUT), [4, 0]), expected([4, 0]))
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", "f4"), ("bf16", "f2"), ("fp16", "f2")])
def test_the_files_are_raw_rows_and_fixed_entries(tmp_path, precision, dtype):
    store = Store(tmp_path, ABOUT | {"precision": precision})
    content = np.arange(12, dtype=np.float32).reshape(2, 2, 3)  # two vectors per image
    store.append([digest(1), digest(2)], content)
    store.close()
    (rows,) = tmp_path.glob("*.rows")
    assert np.array_equal(np.fromfile(rows, dtype).reshape(2, 2, 3), content)
    entries = np.fromfile(rows.with_suffix(".entries"), np.uint8).reshape(2, 20)
    assert entries[:, :16].tobytes() == digest(1) + digest(2)
    again = Store(tmp_path, ABOUT | {"precision": precision}).gather(digest_array([digest(2)]))
    assert again.dtype == np.float32 and np.array_equal(again[0], content[1])


def test_two_open_stores_see_each_others_rows(tmp_path):
    one, other = Store(tmp_path, ABOUT), Store(tmp_path, ABOUT)
    one.append(*batch(1))
    one.flush()
    other.append(*batch(2))
    assert np.array_equal(gathered(other, [2, 1]), expected([2, 1]))
    assert np.array_equal(gathered(one, [1, 2]), expected([1, 2]))
    assert len(list(tmp_path.glob("*.rows"))) == 2
    one.close(), other.close()
    stored(tmp_path, [3])
    assert len(list(tmp_path.glob("*.rows"))) == 2  # files of those that ended are continued


def test_a_kill_loses_two_seconds_at_most(tmp_path, monkeypatch):
    now = 0.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    writer, reader = Store(tmp_path, ABOUT), Store(tmp_path, ABOUT)
    for number, after in enumerate([1, 1.5, 2.5, 3, 4.6, 9]):
        now = after
        writer.append(*batch(number))
        reader.refresh()
        assert sum(digest(n) in reader for n in range(9)) == [0, 0, 3, 3, 5, 6][number]
