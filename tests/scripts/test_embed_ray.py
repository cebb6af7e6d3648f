"""Parts, files and mistakes without Ray; then, where Ray is installed, whole runs and kills."""

import csv
import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path

import embed_ray
import numpy as np
import pyarrow.parquet as pq
import pytest
from commands import REPOSITORY, run_python
from object_store import ObjectStore
from PIL import Image
from published import python_blocks
from toy_vlm import DIM, ToyVLM, direct, make_images

from crl.embed import embed_images
from crl.images import image_files
from crl.run.cache import content_digest
from crl.run.errors import UserError
from crl.vlm import load_vlm

BATCH = 2  # images; so a part has 16
SCRIPT = REPOSITORY / "scripts/embed_ray.py"


def job(out: Path, root: Path | str = "", store: str = "", **about) -> embed_ray.Job:
    known = {"fingerprint": "toy-1", "dtype": "float32", "shape": [DIM], **about}
    return embed_ray.Job("toy", "fp32", BATCH, out, str(root), store, known)


def worker(of: embed_ray.Job, vlm: ToyVLM | None = None) -> embed_ray.Embedder:
    """A worker that has loaded its VLM."""
    found = embed_ray.Embedder(of, threads=1)
    found.vlm = embed_ray.WithSize(vlm or ToyVLM())
    return found


def embed_all(of: embed_ray.Job, names: list[str], vlm: ToyVLM | None = None) -> None:
    """What Ray would have workers do."""
    for part in embed_ray.cut(names, BATCH, of.root):
        row = {"number": part.number, "names": part.names, "digest": part.digest}
        assert worker(of, vlm)(row) == {"number": part.number, "error": ""}


def rows(out: Path) -> list[dict]:
    """All rows of all parts; the checksums of the pages are compared."""
    files = sorted(out.glob("part-*.parquet"))
    return [
        row
        for file in files
        for row in pq.read_table(file, page_checksum_verification=True).to_pylist()
    ]


def parts_of(of: embed_ray.Job, names: list[str]) -> list[embed_ray.Part]:
    return embed_ray.cut(names, BATCH, of.root)


# --- which images ---------------------------------------------------------------------------------


def test_images_of_a_folder_and_of_a_list(tmp_path):
    make_images(tmp_path / "a/deep", 2)
    make_images(tmp_path / "a", 1)
    found = embed_ray.find_images(str(tmp_path / "a"))
    assert found == (["000.png", "deep/000.png", "deep/001.png"], str(tmp_path / "a"), "")
    names = [str(tmp_path / "a" / name) for name in found.names]
    (tmp_path / "list.txt").write_text("\n".join([*reversed(names), "", "s3://b/key.jpg\n"]))
    found = embed_ray.find_images(str(tmp_path / "list.txt"))
    assert found == ([*names, "s3://b/key.jpg"], str(Path.cwd()), "")


def test_what_names_no_images(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.txt").write_text("\n\n")
    (tmp_path / "list.txt").write_text(f"{make_images(tmp_path, 1)[0]}\nno\nneither\n")
    for name, says in (
        ("empty", "there are no images in"),
        ("none", "there is no folder"),
        ("empty.txt", "names no images"),
        ("list.txt", "list.txt: 2 of 3 files are missing, the first: neither"),
    ):
        with pytest.raises(UserError, match=says):
            embed_ray.find_images(str(tmp_path / name))


def test_parts_are_whole_batches_of_the_list_and_differ_by_all_that_changes_them():
    names = [f"{number:02}" for number in range(40)]
    parts = embed_ray.cut(names, BATCH, "/a")
    assert [part.images for part in parts] == [16, 16, 8]
    assert b"\0".join(part.names for part in parts).decode().split("\0") == names
    digests = {part.digest for part in parts}
    for changed in (
        embed_ray.cut(names, 3 * BATCH, "/a"),
        embed_ray.cut(names, BATCH, "/b"),
        embed_ray.cut(names[1:], BATCH, "/a"),
    ):
        assert not digests & {part.digest for part in changed}
    assert embed_ray.cut([*names, "x"], BATCH, "/a")[:2] == parts[:2]
    assert len(embed_ray.cut(names[:8], BATCH, "/a")) == 1  # smaller batches, one part all the same
    assert embed_ray.cut(names[:8], 1, "/a")[0] != embed_ray.cut(names[:8], BATCH, "/a")[0]


# --- files of parts -------------------------------------------------------------------------------


@pytest.mark.parametrize("queries", [None, 3])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_part_holds_what_the_vlm_gives_and_the_size_as_shown(tmp_path, queries, dtype):
    files = make_images(tmp_path / "images", 5)
    turned = Image.new("RGB", (9, 4), "red")
    turned.getexif()[0x0112] = 6
    turned.save(tmp_path / "images/9.jpg", exif=turned.getexif())
    shape = [DIM] if queries is None else [queries, DIM]
    vlm = ToyVLM(queries=queries)
    of = job(tmp_path / "out", tmp_path / "images", dtype=dtype, shape=shape)
    embed_all(of, [*(file.name for file in files), "9.jpg"], vlm)
    table = pq.read_table(tmp_path / "out/part-000000.parquet")
    found = table.to_pydict()
    expected = direct(vlm, files).reshape(5, -1).astype(dtype)
    assert np.array_equal(np.array(found["embedding"][:5], dtype), expected)
    assert found["path"] == [*(file.name for file in files), "9.jpg"]
    assert found["digest"][:5] == [content_digest(file.read_bytes()) for file in files]
    assert (found["width"], found["height"]) == ([7] * 5 + [4], [6] * 5 + [9])
    value = {"float32": "float", "float16": "halffloat"}[dtype]
    assert [str(table.schema.field(name).type) for name in table.column_names] == [
        *["string", "fixed_size_binary[16]", "int32", "int32"],
        f"fixed_size_list<element: {value}>[{int(np.prod(shape))}]",
    ]


def test_the_numbers_are_those_of_embed_images_to_the_bit(tmp_path):
    """The demo VLM, whose numbers depend on the batch that an image is in."""
    rng = np.random.default_rng(0)
    for number in range(37):
        pixels = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number:02}.png")
    vlm = load_vlm("demo", "cpu")
    files = image_files(tmp_path)
    of = job(tmp_path / "out", tmp_path, **embed_ray.describe("demo", "fp32"))
    names = embed_ray.find_images(str(tmp_path)).names
    for part in embed_ray.cut(names, BATCH, of.root):
        found = embed_ray.Embedder(of, threads=1)
        found.vlm = embed_ray.WithSize(vlm)
        found.write(part.number, part.names, part.digest)
    expected = embed_images(vlm, files, None, BATCH, workers=1).image
    assert len(parts_of(of, names)) == 3
    assert np.array_equal(
        np.float32([row["embedding"] for row in rows(tmp_path / "out")]), expected
    )


def test_unreadable_images_are_named_and_a_part_may_have_no_other(tmp_path):
    make_images(tmp_path / "images", 20)
    for number in (3, *range(16, 20)):
        (tmp_path / f"images/{number:03}.png").write_bytes(b"no image")
    (tmp_path / "images/005.png").unlink()  # since the list was made
    of = job(tmp_path / "out", tmp_path / "images")
    names = [f"{number:03}.png" for number in range(20)]
    embed_all(of, names)
    lines = embed_ray.write_results(of, parts_of(of, names))
    assert "14 embeddings in 2 parts" in lines[0]
    assert "6 images could not be read" in lines[1]
    assert "the first: 003.png: not an image that Pillow knows; 005.png: No such file" in lines[1]
    with open(tmp_path / "out/unreadable.csv", newline="") as stream:
        named = [row["path"] for row in csv.DictReader(stream)]
    assert named == ["003.png", "005.png", "016.png", "017.png", "018.png", "019.png"]
    assert sorted(named + [row["path"] for row in rows(tmp_path / "out")]) == names
    assert json.loads((tmp_path / "out/manifest.json").read_text()) == {
        **{"format": "crl-parquet-1", "fingerprint": "toy-1", "dtype": "float32"},
        **{"shape": [DIM], "images": 14, "batch_size": BATCH},
        **{"root": str(tmp_path / "images")},
    }


def test_names_that_are_not_utf8_and_an_image_that_is_named_twice(tmp_path):
    (file,) = make_images(tmp_path, 1)
    strange = os.fsdecode(b"\xff,\n.png")
    file.rename(tmp_path / strange)
    embed_all(job(tmp_path / "out", tmp_path), [strange, strange])
    first, second = rows(tmp_path / "out")
    assert first == second and first["path"] == "\\xff,\n.png"


def test_an_embedding_that_float16_cannot_hold(tmp_path):
    make_images(tmp_path, 1)
    of = job(tmp_path / "out", tmp_path, dtype="float16", shape=[100, DIM])
    (part,) = parts_of(of, ["000.png"])
    row = {"number": 0, "names": part.names, "digest": part.digest}
    assert "too large for float16; use fp32" in worker(of, ToyVLM(queries=100))(row)["error"]


def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch):
    make_images(tmp_path, 1)
    of = job(tmp_path / "out", tmp_path)
    (part,) = parts_of(of, ["000.png"])

    def full(table, file, *_, **__):
        Path(file).write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(embed_ray.pq, "write_table", full)
    report = worker(of)({"number": 0, "names": part.names, "digest": part.digest})
    assert "the disk is full; free some space and run the command again" in report["error"]
    assert list((tmp_path / "out").iterdir()) == []


def test_a_bug_in_a_worker_keeps_its_traceback(tmp_path):
    make_images(tmp_path, 1)
    of = job(tmp_path / "out", tmp_path, shape=[])
    (part,) = parts_of(of, ["000.png"])
    with pytest.raises(TypeError):
        worker(of)({"number": 0, "names": part.names, "digest": None})


# --- what is finished -----------------------------------------------------------------------------


def test_finished_parts_are_known_and_those_of_a_changed_list_are_made_again(tmp_path):
    names = [file.name for file in make_images(tmp_path, 40)]
    of = job(tmp_path / "out", tmp_path)
    assert embed_ray.finished(of, parts_of(of, names)) == {}
    embed_all(of, names)
    assert embed_ray.finished(of, parts_of(of, names)) == {0: 16, 1: 16, 2: 8}
    grown = [*names, "x.png"]
    assert embed_ray.finished(of, parts_of(of, grown)) == {0: 16, 1: 16}
    (tmp_path / "out/part-000000.parquet").write_bytes(b"PAR1 damaged PAR1")
    assert embed_ray.finished(of, parts_of(of, names)) == {1: 16, 2: 8}
    embed_all(of, names[:16])
    embed_ray.write_text(tmp_path / "out/manifest.json", "{}")
    assert embed_ray.finished(of, parts_of(of, names[:16])) == {0: 16}
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["part-000000.parquet"]


def test_a_folder_with_something_else_is_refused(tmp_path):
    names = [file.name for file in make_images(tmp_path, 2)]
    of = job(tmp_path / "out", tmp_path)
    embed_all(of, names)
    other = job(tmp_path / "out", tmp_path, fingerprint="toy-2")
    with pytest.raises(UserError, match="another VLM or precision; choose another --out"):
        embed_ray.finished(other, parts_of(of, names))
    with pytest.raises(UserError, match="holds embeddings of other images"):
        embed_ray.finished(of, parts_of(of, names[1:]))
    assert len(rows(tmp_path / "out")) == 2


def test_a_folder_that_the_workers_do_not_share(tmp_path, monkeypatch):
    make_images(tmp_path / "images", 1)
    monkeypatch.setattr(embed_ray, "cluster", nullcontext)
    monkeypatch.setattr(embed_ray, "run_parts", lambda *_: [0])  # written on another machine
    images = embed_ray.find_images(str(tmp_path / "images"))
    with pytest.raises(UserError, match=r"part-000000.parquet .* is not there: all machines"):
        embed_ray.embed(images, tmp_path / "out", "demo", "fp32", BATCH)
    assert not (tmp_path / "out").exists()


def test_the_example_in_the_readme(tmp_path, monkeypatch):
    files = make_images(tmp_path / "images", 3)
    embed_all(job(tmp_path / "embeddings", tmp_path / "images"), [file.name for file in files])
    monkeypatch.chdir(tmp_path)
    found: dict = {}
    exec(python_blocks("crl/README.md")[-1], found)
    assert np.array_equal(found["image"], direct(ToyVLM(), files))


# --- object stores --------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with ObjectStore("bucket") as store:
        for file in make_images(tmp_path / "local", 5):
            store.objects[f"some/deep pictures/{file.name}"] = file.read_bytes()
        store.objects |= {"some/readme.txt": b"no", "other/a.png": b"no"}
        threading.Thread(target=store.serve_forever, args=(0.01,), daemon=True).start()
        yield store
        store.shutdown()


def test_images_of_an_object_store(store, tmp_path):
    found = embed_ray.find_images(store.uri("some"))
    assert found.names == [f"s3://bucket/some/deep pictures/{n:03}.png" for n in range(5)]
    of = job(tmp_path / "out", "", found.store)
    names = [*found.names, "s3://bucket/some/none.png"]
    embed_all(of, names)
    local = direct(ToyVLM(), sorted((tmp_path / "local").iterdir()))
    assert [row["path"] for row in rows(tmp_path / "out")] == found.names
    assert np.array_equal([row["embedding"] for row in rows(tmp_path / "out")], local)
    embed_ray.write_results(of, parts_of(of, names))
    assert "s3://bucket/some/none.png,No such file" in (tmp_path / "out/unreadable.csv").read_text()
    assert b"secret" not in b"".join(file.read_bytes() for file in (tmp_path / "out").iterdir())


def test_a_store_that_refuses_says_nothing_about_an_image(store, tmp_path):
    found = embed_ray.find_images(store.uri("some"))
    store.refused.add("some/deep pictures/002.png")
    of = job(tmp_path / "out", "", found.store)
    (part,) = parts_of(of, found.names)
    report = worker(of)({"number": 0, "names": part.names, "digest": part.digest})
    assert "cannot read s3://bucket/some/deep pictures/002.png: " in report["error"]
    assert "secret" not in report["error"] and not (tmp_path / "out").exists()


def test_a_prefix_without_images_and_a_store_that_is_none(store):
    for uri, says in (
        (store.uri("nothing"), "there are no images in s3://bucket/nothing$"),
        (store.uri("other/none"), "there are no images in"),
        ("ftp9://a/b", "cannot reach ftp9://a/b: "),
    ):
        with pytest.raises(UserError, match=says):
            embed_ray.find_images(uri)


# --- workers and arguments ------------------------------------------------------------------------


def test_what_a_worker_takes():
    share = embed_ray.share
    assert share([{"CPU": 1}], None) == (1, 0, 1)
    assert share([{"CPU": 2}], 2) == (2, 0, 1)
    assert share([{"CPU": 64}, {"CPU": 12, "GPU": 1}], None) == (1, 1, 12)
    assert share([{"CPU": 16, "GPU": 8}], 2) == (2, 1, 2)
    with pytest.raises(UserError, match="--workers can be at most 2"):
        share([{"CPU": 2}], 3)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--images", "x"], "required: --out"),
        (["--images", "x", "--out", "o", "--batch-size", "0"], "must be 1 or more"),
        (["--images", "x", "--out", "o", "--precision", "fp8"], "invalid choice: 'fp8'"),
    ],
)
def test_wrong_arguments(refusal, arguments, says):
    assert says in refusal(embed_ray.main, *arguments)


@pytest.mark.parametrize(
    ("said", "why"),
    [(["", "Traceback ...", "AuthError: no token"], "AuthError: no token"), ([], "")],
)
def test_what_the_check_of_a_cluster_says(monkeypatch, said, why):
    done = subprocess.CompletedProcess([], returncode=len(said), stderr="\n".join(said))
    monkeypatch.setattr(embed_ray.subprocess, "run", lambda *_, **__: done)
    assert embed_ray.why_not_there("auto") == why


def test_a_cluster_that_never_answers(monkeypatch):
    def silent(line, timeout, **_):
        raise subprocess.TimeoutExpired(line, timeout)

    monkeypatch.setattr(embed_ray.subprocess, "run", silent)
    assert embed_ray.why_not_there("auto") == "no answer in 30 seconds"


def test_keys_are_not_shown():
    assert embed_ray.without_keys("s3://key:secret@b/a@b?secret_key=s") == "s3://b/a@b"
    assert embed_ray.without_keys("/home/a@b") == "/home/a@b"


def test_ray_is_not_installed(refusal, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    make_images(tmp_path / "a", 1)
    message = refusal(embed_ray.main, "--images", tmp_path / "a", "--out", tmp_path / "out")
    assert "pip install -e '.[ray]'" in message
    assert not (tmp_path / "out").exists()


# --- with Ray -------------------------------------------------------------------------------------

SLOW = """
import os, time
from pathlib import Path
from toy_vlm import ToyVLM

class Slow(ToyVLM):
    '''Says which process embeds, and takes its time.'''

    def __init__(self, device, precision):
        super().__init__()
        self.recipe = {"preprocess": "4 x 4"}

    def encode_images(self, batch):
        Path(os.environ["LOG"], str(os.getpid())).touch()
        time.sleep(0.1)
        if "FULL" in os.environ:
            raise OSError(28, "No space left on device")
        return super().encode_images(batch)
"""


class World:
    """A folder with 80 images (5 parts), a VLM, and the command that embeds them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.out, self.log = folder, folder / "out", folder / "log"
        self.log.mkdir()
        self.files = make_images(folder / "images", 80)
        (folder / "slow_vlm.py").write_text(SLOW)
        paths = [folder, REPOSITORY, REPOSITORY / "tests/helpers"]
        self.environment = {"PYTHONPATH": os.pathsep.join(map(str, paths)), "LOG": str(self.log)}
        self.line = [str(SCRIPT), "--images", "images", "--out", "out", "--vlm", "slow_vlm:Slow"]
        self.line += ["--batch-size", str(BATCH), "--workers", "2"]

    def start(self, **environment: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, *self.line],
            cwd=self.folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", **self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, started: subprocess.Popen) -> tuple[int, str, str]:
        out, errors = started.communicate(timeout=120)
        return started.returncode, out, errors

    def wait_for(self, pattern: str, count: int) -> list[Path]:
        """Files that the command makes."""
        for _ in range(600):
            if len(found := sorted(self.folder.glob(pattern))) >= count:
                return found
            time.sleep(0.05)
        raise AssertionError(f"{pattern}: {len(found)} of {count}")

    def check(self) -> None:
        """All of the images, each once, with their numbers, and nothing else in the folder."""
        found = rows(self.out)
        assert [row["path"] for row in found] == [file.name for file in self.files]
        numbers = np.float32([row["embedding"] for row in found])
        assert np.array_equal(numbers, direct(ToyVLM(), self.files))
        parts = [f"part-{number:06}.parquet" for number in range(5)]
        names = sorted(file.name for file in self.out.iterdir())
        assert names == ["manifest.json", *parts, "unreadable.csv"]


@pytest.fixture
def world(tmp_path) -> World:
    pytest.importorskip("ray")
    return World(tmp_path)


def test_two_workers_a_killed_worker_and_a_second_run(world):
    started = world.start()
    world.wait_for("out/part-*", 1)
    workers = {int(file.name) for file in world.wait_for("log/*", 3)} - {started.pid}
    os.kill(workers.pop(), signal.SIGKILL)
    code, out, errors = world.finish(started)
    assert (code, errors) == (0, ""), errors
    assert len(out.splitlines()) == 4, out  # all of them ours
    assert "workers: 2, each with 1 cores" in out and "80 embeddings in 5 parts" in out
    assert len(list(world.log.iterdir())) == 4  # a new one took the place of the killed one
    world.check()
    manifest = json.loads((world.out / "manifest.json").read_text())
    assert manifest == {
        **{"format": "crl-parquet-1", "fingerprint": "toy-1", "vlm": "slow_vlm:Slow"},
        **{"precision": "fp32", "dtype": "float32", "shape": [DIM], "preprocessing": '"4 x 4"'},
        **{"images": 80, "batch_size": BATCH, "root": str(world.out.parent / "images")},
    }
    times = {file: file.stat().st_mtime_ns for file in world.out.glob("part-*")}
    code, out, errors = world.finish(world.start())
    assert (code, errors) == (0, "") and "to embed" not in out
    assert times == {file: file.stat().st_mtime_ns for file in world.out.glob("part-*")}


def test_a_killed_driver_and_the_same_command_again(world):
    started = world.start()
    done = world.wait_for("out/part-*", 2)
    started.kill()
    world.finish(started)
    assert not (world.out / "manifest.json").exists()
    workers = {int(file.name) for file in world.log.iterdir()} - {started.pid}
    for _ in range(200):  # they end with it
        if not any(Path(f"/proc/{worker}").exists() for worker in workers):
            break
        time.sleep(0.05)
    times = {file: file.stat().st_mtime_ns for file in done}
    code, out, errors = world.finish(world.start())
    assert (code, errors) == (0, ""), errors
    assert times == {file: file.stat().st_mtime_ns for file in done}
    assert "5 parts to embed" not in out
    world.check()


def test_what_a_worker_cannot_do_is_one_line(world):
    code, _, errors = world.finish(world.start(FULL="yes"))
    assert code == 2 and errors.count("\n") == 1
    assert "the disk is full; free some space and run the command again" in errors
    assert not list(world.out.glob("part-*"))


def test_no_cluster(world):
    world.line += ["--address", "127.0.0.1:1"]
    code, _, errors = world.finish(world.start())
    (line,) = errors.splitlines()
    assert code == 2 and "cannot join a Ray cluster at 127.0.0.1:1: Connection refused" in line
    assert not world.out.exists()


def test_an_unknown_vlm(world):
    done = run_python(
        *[SCRIPT, "--images", world.files[0].parent, "--out", world.out, "--vlm", "clap"]
    )
    assert done.returncode == 2 and "unknown VLM 'clap'; did you mean 'clip'" in done.stderr
    assert not world.out.exists()
