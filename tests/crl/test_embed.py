"""Embeddings: right rows, each image encoded once, and nothing lost or wrong after any fault."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import REPOSITORY
from disturbed import interrupted
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from toy_vlm import DIM, ToyVLM, direct, make_images

from crl import embed as module
from crl.images import Crop
from crl.projection import l2
from crl.run import ahead, command
from crl.run import store as store_module
from crl.run.errors import UserError
from crl.run.store import ENTRY

# Whole numbers, as the toy gives them: they can be compared to the bit.
embed_images = partial(module.embed_images, raw=True)
embed_texts = partial(module.embed_texts, raw=True)


def files(cache: Path) -> list[Path]:
    return sorted(path for path in cache.rglob("*") if path.suffix in (".rows", ".entries"))


def stored(cache: Path, kind: str = "image") -> int:
    """Rows on disk."""
    entries = cache.rglob(f"{kind}-*/*.entries")
    return sum(file.stat().st_size for file in entries) // ENTRY.itemsize


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """000.png .. 005.png, and copy.png, byte for byte 002.png."""
    folder = tmp_path_factory.mktemp("images")
    paths = make_images(folder, 6)
    shutil.copy(paths[2], folder / "copy.png")
    return folder


@pytest.mark.parametrize("queries", [None, 3])
def test_unit_rows_in_the_order_asked(folder, tmp_path, queries, capfd):
    paths = sorted(folder.glob("0*.png"))[::-1]
    vlm = ToyVLM(queries=queries)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = module.embed_images(vlm, [str(path) for path in paths], tmp_path, 4).image
    assert image.dtype == np.float32 and isinstance(image, np.memmap)
    assert np.array_equal(image, l2(direct(vlm, paths)))
    assert np.array_equal(embed_images(vlm, paths, tmp_path).image, direct(vlm, paths))
    assert vlm.batches == [4, 2]
    assert capfd.readouterr() == ("", "")  # no progress bar: this is no terminal


def test_content_changes_with_an_image_and_with_the_order(folder):
    paths = sorted(folder.glob("0*.png"))
    lists = paths, paths[::-1], paths[1:], [folder / "copy.png", *paths[1:]]
    assert len({embed_images(ToyVLM(), some, None).content for some in lists}) == 4
    copy = [*paths[:2], folder / "copy.png", *paths[3:]]  # the same content
    same = [embed_images(ToyVLM(), some, None, 2).content for some in (paths, copy)]
    assert same[0] == same[1]


def test_a_known_file_is_read_only_if_it_must_be_encoded(folder, tmp_path, monkeypatch):
    paths = sorted(folder.glob("0*.png"))
    first = embed_images(ToyVLM(), paths, tmp_path)
    known = dict(zip(map(str, paths[1:]), first.digests[1:].tolist(), strict=True))
    again, read = ToyVLM(), []
    real = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda file: read.append(file) or real(file))
    same = embed_images(again, paths, tmp_path, known=known)
    assert read == paths[:1] and again.images == 0
    assert np.array_equal(same.image, first.image) and same.content == first.content
    (rows,) = tmp_path.rglob("*.rows")
    content = bytearray(real(rows))
    content[3 * 4 * DIM] ^= 1  # of the fourth row
    rows.write_bytes(content)
    with pytest.warns(UserWarning, match="1 damaged row"):
        mended = embed_images(again, paths, tmp_path, known=known)
    assert read[1:] == [paths[0], paths[0], paths[3]] and again.images == 1
    assert np.array_equal(mended.image, first.image)
    gone = folder / "gone.png"
    with pytest.raises(UserError, match="No such file"):
        embed_images(again, [*paths, gone], tmp_path, known={**known, str(gone): bytes(16)})


# --- right rows, each image once ------------------------------------------------------------------


def cut(path: Path, box: tuple[int, int, int, int]) -> Image.Image:
    """A crop padded to a square."""
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    side = max(width, height)
    y, x = (side - height) // 2, (side - width) // 2
    whole, square = np.asarray(Image.open(path)), np.zeros((side, side, 3), np.uint8)
    square[y : y + height, x : x + width] = whole[top:bottom, left:right]
    return Image.fromarray(square)


def direct_crops(items: list) -> np.ndarray:
    """What `embed_images` should give for whole files and crops."""
    pictures = [cut(i.path, i.box) if isinstance(i, Crop) else Image.open(i) for i in items]
    pixels = torch.stack([ToyVLM().preprocess(picture) for picture in pictures])
    return ToyVLM().encode_images(pixels).numpy()


def side(pixels: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, pixels), min_size=2, max_size=2, unique=True).map(sorted)


boxes = st.builds(lambda x, y: (x[0], y[0], x[1], y[1]), side(7), side(6))
parts = st.tuples(st.sampled_from(["000", "001", "002", "copy"]), st.none() | boxes)


@settings(max_examples=60)
@given(st.lists(parts, min_size=1), st.integers(1, 4), st.integers(1, 5))
def test_any_list_of_files_and_crops_gives_their_rows(folder, items, batch_size, first):
    files = [(folder / f"{name}.png", box) for name, box in items]
    images = [Crop(file, box) if box else file for file, box in files]
    distinct = {("002" if name == "copy" else name, box) for name, box in items}
    vlm = ToyVLM()
    with tempfile.TemporaryDirectory() as cache:
        before = embed_images(vlm, images[:first], Path(cache), 1)
        got = embed_images(vlm, images, Path(cache), batch_size)
    assert np.array_equal(got.image, direct_crops(images))
    assert np.array_equal(before.image, got.image[:first])
    assert np.array_equal(got.kept, np.arange(len(images)))
    assert vlm.images == len(distinct) and max(vlm.batches) <= batch_size


def test_each_file_is_read_once_whatever_is_cut_or_stored(folder, tmp_path, monkeypatch):
    file, read, whole = folder / "000.png", [], Path.read_bytes

    def counting(path):
        read.append(path)
        return whole(path)

    class Decoding(ToyVLM):
        decoded = 0

        def preprocess(self, image):
            self.decoded += 1
            return super().preprocess(image)

    monkeypatch.setattr(Path, "read_bytes", counting)
    images = [file, *(Crop(file, (i, 0, 7, 6)) for i in range(5)), folder / "001.png"]
    for count in (7, 0):
        vlm = Decoding()
        embed_images(vlm, [*images, *images[::-1]], tmp_path, workers=1)  # each is named twice
        assert vlm.images == vlm.decoded == count and sorted(read) == [file, folder / "001.png"]
        read.clear()


def test_only_what_is_new_is_encoded(tmp_path):
    paths = make_images(tmp_path / "images", 5)
    cache, vlm = tmp_path / "cache", ToyVLM()
    first = embed_images(vlm, paths, cache)
    again = embed_images(vlm, paths, cache)
    assert vlm.images == 5 and np.array_equal(first.image, again.image)

    paths += make_images(tmp_path / "images", 2, first=5)
    grown = embed_images(vlm, paths[::-1], cache)
    assert vlm.images == 7 and np.array_equal(grown.image, direct(vlm, paths[::-1]))

    make_images(tmp_path / "new", 1, first=50)[0].replace(paths[3])  # other content, same name
    changed = embed_images(vlm, paths, cache)
    assert vlm.images == 8 and np.array_equal(changed.image, direct(vlm, paths))
    assert not np.array_equal(changed.image[3], first.image[3])

    other = ToyVLM("toy-2", queries=2)  # another fingerprint: nothing of the first is used
    assert np.array_equal(embed_images(other, paths, cache).image, direct(other, paths))
    assert other.images == 7


def test_result_outlives_its_cache_and_may_be_written_to(folder, tmp_path):
    paths, vlm = sorted(folder.glob("0*.png")), ToyVLM()
    got = embed_images(vlm, paths, tmp_path / "cache").image
    got[0] = -1
    assert np.array_equal(embed_images(vlm, paths, tmp_path / "cache").image, direct(vlm, paths))
    shutil.rmtree(tmp_path / "cache")
    assert np.array_equal(got[1:], direct(vlm, paths)[1:])


def test_no_cache_leaves_nothing_behind(folder, tmp_path, monkeypatch):
    for name in ("temporary", "here"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.chdir(tmp_path / "here")
    vlm, paths = ToyVLM(), sorted(folder.glob("*.png"))
    for _ in range(2):
        assert np.array_equal(embed_images(vlm, paths, cache=None).image, direct(vlm, paths))
        assert embed_texts(vlm, ["a"], cache=None).shape == (1, DIM)
    assert vlm.images == 12
    assert {path.name for path in tmp_path.rglob("*")} == {"temporary", "here"}


def test_workers_change_nothing(tmp_path):
    paths = make_images(tmp_path / "images", 11)
    paths[4].write_text("no image")
    results = []
    for workers in (1, 3):
        cache = tmp_path / f"cache-{workers}"
        with pytest.warns(UserWarning, match="1 of 11 images"):
            results.append(embed_images(ToyVLM(), paths, cache, 2, workers, "skip"))
    assert np.array_equal(results[0].image, results[1].image)
    assert np.array_equal(results[0].kept, results[1].kept)
    a, b = ([file.read_bytes() for file in files(tmp_path / f"cache-{n}")] for n in (1, 3))
    assert a == b


@pytest.mark.parametrize(
    ("cores", "waiting", "decoding", "threads"),
    [(2, 0, 1, 2), (2, 1, 1, 4), (2, 3.2, 0.8, 10), (8, 10, 0.1, 64), (2, 0, 0, 2), (2, 1, 0, 64)],
)
def test_threads_that_keep_the_cores_busy(cores, waiting, decoding, threads):
    assert ahead._threads(cores, waiting, decoding) == threads


def test_slow_files_are_read_by_more_threads_and_give_the_same_rows(tmp_path, monkeypatch):
    paths, together, most = make_images(tmp_path, 60), [], []

    def slow(path):
        together.append(path)
        most.append(len(together))
        time.sleep(0.02)
        together.remove(path)
        return read_bytes(path)

    read_bytes = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", slow)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    image = embed_images(ToyVLM(), paths, None, 8).image
    assert max(most[: ahead.MEASURED]) <= 2 and 4 < max(most) <= ahead.MOST_THREADS
    assert np.array_equal(image, direct(ToyVLM(), paths))


def test_waiting_threads_do_not_decode_more_pictures_at_once(tmp_path, monkeypatch):
    paths, together, most, preprocess = make_images(tmp_path, 12), [], [], ToyVLM.preprocess

    def slow(*arguments):
        together.append(1)
        most.append(len(together))
        time.sleep(0.01)
        together.pop()
        return preprocess(*arguments)

    monkeypatch.setattr(ToyVLM, "preprocess", slow)
    monkeypatch.setattr(module, "DECODING", threading.Semaphore(2))
    embed_images(ToyVLM(), paths, None, workers=8)
    assert max(most) == 2


# --- memory ---------------------------------------------------------------------------------------


class SmallMemory(ToyVLM):
    fits, kind, words = 3, torch.OutOfMemoryError, "CUDA out of memory. Tried to allocate 9 GiB"

    def encode_images(self, batch):
        if len(batch) > self.fits:
            raise self.kind(self.words)
        return super().encode_images(batch)


def allocate(batch):
    return torch.empty(10**15)  # the real error of this system


@pytest.mark.parametrize("real", [False, True])
def test_a_batch_that_memory_does_not_hold_is_halved_for_the_rest(tmp_path, real):
    paths, vlm = make_images(tmp_path, 11), SmallMemory()
    vlm.kind = allocate if real else vlm.kind
    with pytest.warns(UserWarning, match="memory for 8 images at once; going on with 2") as notes:
        image = embed_images(vlm, paths, None, batch_size=8).image
    assert len(notes) == 1 and vlm.batches == [2] * 5 + [1]
    assert np.array_equal(image, direct(ToyVLM(), paths))

    vlm.encode_texts = lambda texts: SmallMemory.encode_images(vlm, torch.ones(len(texts), 3, 4, 4))
    with pytest.warns(UserWarning, match="memory for 7 texts at once; going on with 3"):
        assert embed_texts(vlm, list("abcdefg"), None).shape == (7, DIM)


@pytest.mark.filterwarnings("ignore:not enough memory")
@pytest.mark.parametrize(
    ("kind", "words", "advice"),
    [
        (torch.OutOfMemoryError, SmallMemory.words, "the GPU has not enough memory; lower the b"),
        (RuntimeError, "DefaultCPUAllocator: not enough memory", "there is not enough memory; use"),
        (RuntimeError, "DefaultCPUAllocator: can't allocate memory", "there is not enough memory"),
        (MemoryError, "Unable to allocate 9 GiB", "there is not enough memory; use"),
        (RuntimeError, "shapes do not match", "None"),
    ],
)
def test_one_image_that_memory_does_not_hold_and_other_errors(folder, kind, words, advice):
    vlm = SmallMemory()
    vlm.fits, vlm.kind, vlm.words = 0, kind, words
    with pytest.raises(kind, match=words) as caught:
        embed_images(vlm, sorted(folder.glob("0*.png")), None)
    assert str(command.advice(caught.value)).startswith(advice)


# --- what goes wrong ------------------------------------------------------------------------------


def test_unreadable_image_is_named_and_finished_batches_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "BATCHES", 2)  # that reach the disk together
    paths = make_images(tmp_path / "images", 11)
    paths[9].write_text("no image")
    cache = tmp_path / "cache"
    with pytest.raises(UserError, match=r"009\.png.*unreadable=skip"):
        embed_images(ToyVLM(), paths, cache, batch_size=2, workers=1)
    assert stored(cache) == 8  # images 0 to 7

    make_images(tmp_path / "images", 1, first=9)
    vlm = ToyVLM()
    assert np.array_equal(embed_images(vlm, paths, cache, 2, 0).image, direct(vlm, paths))
    assert vlm.images == 3


def test_missing_image_is_named_before_anything_is_encoded(tmp_path):
    paths = make_images(tmp_path / "images", 3)
    vlm = ToyVLM()
    gone = [tmp_path / "gone.png", tmp_path / "images", tmp_path / "gone too.png"]
    with pytest.raises(UserError, match=r"gone\.png: No such file \(2 more"):
        embed_images(vlm, [*paths, *gone], tmp_path / "cache")
    assert vlm.images == 0 and files(tmp_path / "cache") == []


def test_skip_leaves_out_exactly_the_unreadable(tmp_path):
    paths = make_images(tmp_path / "images", 8)
    for path in paths[0], paths[3], paths[7]:
        path.write_bytes(path.read_bytes()[:50])
    asked = [*paths, tmp_path / "gone.png", paths[3], paths[1]]
    good, vlm = [1, 2, 4, 5, 6, 10], ToyVLM()
    for encoded in (5, 5):  # the second time from the cache
        with pytest.warns(UserWarning, match="5 of 11 images could not be read"):
            got = embed_images(vlm, asked, tmp_path / "cache", 3, 0, "skip")
        assert got.kept.tolist() == good
        assert np.array_equal(got.image, direct(vlm, [asked[i] for i in good]))
        assert vlm.images == encoded


@pytest.mark.filterwarnings("ignore:2 of 2 images")
def test_nothing_readable_and_nothing_asked(tmp_path):
    (tmp_path / "text.png").write_text("no image")
    cases = (["gone.png", "text.png"], r"gone\.png"), (["a", "b"], "2 images .*/a: "), ([], "no im")
    for asked, message in cases:
        with pytest.raises(UserError, match=message):
            paths = [tmp_path / name for name in asked]
            embed_images(ToyVLM(), paths, tmp_path / "cache", unreadable="skip")
    with pytest.raises(UserError, match="no texts"):
        embed_texts(ToyVLM(), [], tmp_path / "cache")
    assert files(tmp_path / "cache") == []


@pytest.mark.parametrize(
    "image", [Image.new("RGB", (9, 9)), np.zeros((9, 9, 3), np.uint8), b"\x89PNG", None, 7]
)
def test_pictures_in_memory_are_refused_with_what_to_do(folder, image):
    words = f"takes files and crops, not {type(image).__name__}; for pictures in memory: vlm.enc"
    for images in ([image], [folder / "000.png", image]):
        with pytest.raises(UserError, match=words):
            embed_images(ToyVLM(), images, None)


def test_one_file_and_one_text(folder):
    expected = direct(ToyVLM(), [folder / "000.png"])
    for file in (folder / "000.png", str(folder / "000.png")):
        assert np.array_equal(embed_images(ToyVLM(), file, None).image, expected)
    assert embed_texts(ToyVLM(), "red", None).shape == (1, DIM)


def test_rows_that_cannot_be_read_back_are_computed_twice_and_no_more(
    folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(store_module.Store, "gather", lambda *_: None)
    vlm = ToyVLM()
    for work in (
        partial(embed_images, vlm, [folder / "000.png"]),
        partial(embed_texts, vlm, ["a"]),
    ):
        with pytest.raises(UserError, match="cannot be read back; check the disk"):
            work(tmp_path)
    monkeypatch.setattr(store_module.Store, "__contains__", lambda *_: False)
    with pytest.raises(UserError, match="cannot be read back; check the disk"):
        embed_images(vlm, [folder / "000.png"], tmp_path)
    assert len(vlm.batches) == 2 + 2


@pytest.mark.parametrize("box", [(0, 0, 8, 6), (0, 0, 7, 7), (-1, 0, 3, 3), (3, 2, 3, 4)])
def test_a_box_that_leaves_its_image_is_named(folder, tmp_path, box):
    file, vlm = folder / "000.png", ToyVLM()
    good = Crop(file, (0, 0, 7, 6))
    with pytest.raises(UserError, match=r"000\.png: there is no box .* in 7 x 6 pixels; mend"):
        embed_images(vlm, [Crop(file, box)], tmp_path)
    with pytest.warns(UserWarning, match=r"1 of 3 images could not .*first: \S*000\.png$"):
        got = embed_images(vlm, [file, Crop(file, box), good], tmp_path, unreadable="skip")
    assert got.kept.tolist() == [0, 2] and np.array_equal(got.image, direct_crops([file, good]))


# --- kills ----------------------------------------------------------------------------------------

EMBED = """
import sys
from pathlib import Path
from toy_vlm import ToyVLM
from crl.embed import embed_images

images, cache, log = sys.argv[1:]
embed_images(ToyVLM(log=log, stall_after=40), sorted(Path(images).glob("*.png")), Path(cache),
             batch_size=2, workers=1)
"""


def test_killed_run_goes_on_from_its_last_batches(tmp_path):
    """Of a kill while a store is written, see tests/crl/run/test_store.py."""
    paths = make_images(tmp_path / "images", 60)
    log, cache = tmp_path / "log", tmp_path / "cache"
    search = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests/helpers")])
    process = subprocess.Popen(
        [sys.executable, "-c", EMBED, tmp_path / "images", cache, log],
        env={**os.environ, "PYTHONPATH": search},
    )
    try:  # the process stalls at that moment, so this is no race
        while not (log.exists() and log.stat().st_size > 40):
            assert process.poll() is None
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert stored(cache) == 32 and log.stat().st_size == 42

    vlm, undisturbed = ToyVLM(), tmp_path / "undisturbed"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resumed = embed_images(vlm, paths, cache, batch_size=2, workers=1)
    assert vlm.images == 60 - 32
    plain = embed_images(ToyVLM(), paths, undisturbed, batch_size=2, workers=1)
    assert resumed.image.tobytes() == plain.image.tobytes()
    assert [f.read_bytes() for f in files(cache)] == [f.read_bytes() for f in files(undisturbed)]


# --- texts ----------------------------------------------------------------------------------------


def test_texts_keep_their_order_and_are_encoded_once(folder, tmp_path):
    texts = ["red", "grün", "", "red", "blue", "Red"]
    vlm = ToyVLM()
    got = embed_texts(vlm, texts, tmp_path, batch_size=2)
    assert got.shape == (6, DIM) and got.dtype == np.float32
    assert np.array_equal(got, ToyVLM().encode_texts(texts).numpy())
    assert np.array_equal(module.embed_texts(ToyVLM(), texts, tmp_path), l2(got))
    assert vlm.texts == ["red", "grün", "", "blue", "Red"] and vlm.batches == [2, 2, 1]

    again = embed_texts(vlm, ["new", *texts[::-1]], tmp_path)
    assert np.array_equal(again[1:], got[::-1])
    assert vlm.texts[5:] == ["new"]

    embed_images(vlm, [folder / "000.png"], tmp_path)  # in the same cache, on its own
    assert stored(tmp_path, "image") == 1 and stored(tmp_path, "text") == 6


@pytest.mark.parametrize("batches", [1, 2, 7])
def test_an_interrupt_keeps_whole_batches(tmp_path, batches):
    files = make_images(tmp_path / "images", 20)
    with interrupted(ToyVLM, "encode_images", batches + 1):
        embed_images(ToyVLM(), files, tmp_path / "cache", batch_size=2)
    vlm = ToyVLM()
    image = embed_images(vlm, files, tmp_path / "cache", batch_size=2, raw=True).image
    assert vlm.images == 20 - 2 * batches and np.array_equal(image, direct(vlm, files))
