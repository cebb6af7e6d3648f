"""Lists and mistakes without Ray; then, where Ray is installed, whole runs and kills."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
from commands import REPOSITORY
from object_store import ObjectStore
from toy_vlm import ToyVLM, direct, make_images

from crl.backends.loaded import FINGERPRINTS
from crl.commands import embed as embed_ray
from crl.embed import embed_images
from crl.explore.listing import find_images, read_listing, without_keys
from crl.run.errors import UserError
from crl.run.results import digest
from crl.run.store import ENTRY, open_store

BATCH = 2  # images; so a worker takes 16 at a time
SCRIPT = REPOSITORY / "scripts/embed_ray.py"


# --- which images ---------------------------------------------------------------------------------


def test_images_of_a_folder_and_of_a_list(tmp_path):
    make_images(tmp_path / "a/deep", 2)
    make_images(tmp_path / "a", 1)
    names, root = find_images(str(tmp_path / "a"))
    assert (names, root) == (["000.png", "deep/000.png", "deep/001.png"], str(tmp_path / "a"))
    paths = [str(tmp_path / "a" / name) for name in names]
    (tmp_path / "list.txt").write_text("\n".join([*paths[::-1], paths[0], "", "s3://b/key.jpg\n"]))
    assert find_images(str(tmp_path / "list.txt")) == ([*paths, "s3://b/key.jpg"], str(Path.cwd()))
    assert without_keys("s3://key:secret@b/a@b?secret_key=s") == "s3://b/a@b"
    assert without_keys("/home/a@b") == "/home/a@b"


# --- a worker -------------------------------------------------------------------------------------


@pytest.fixture
def embed(monkeypatch):
    """What a worker gives for one batch of names, having appended to the store in `out`."""
    monkeypatch.setattr(embed_ray, "load_vlm", lambda *_, **__: ToyVLM())

    def embed(out: Path, images: object) -> dict:
        args = Namespace(
            out=out, images=images, batch_size=BATCH, vlm="toy", precision="fp32", device="cpu",
            decode="full",
        )  # fmt: skip
        names, root = find_images(str(images))
        batch = {"names": np.array([os.fsencode("\0".join(names))], object)}
        return json.loads(embed_ray.Embedder(args, root, "toy-1", threads=1)(batch)["part"][0])

    return embed


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with ObjectStore("bucket") as store:
        for file in make_images(tmp_path / "local", 5):
            store.objects[f"some/deep pictures/{file.name}"] = file.read_bytes()
        store.objects |= {"some/readme.txt": b"no", "other/a.png": b"no"}
        yield store


def test_a_worker_appends_to_the_store(tmp_path, embed):
    make_images(tmp_path / "images", 5)
    (tmp_path / "images/003.png").write_bytes(b"no image")
    with pytest.warns(UserWarning, match="1 of 5"):
        part = embed(tmp_path / "out", tmp_path / "images")
    assert part["paths"] == ["000.png", "001.png", "002.png", "004.png"]
    assert part["unreadable"] == [["003.png", "not an image that Pillow knows, or damaged"]]
    digests = np.frombuffer(bytes.fromhex("".join(part["digests"])), "S16")
    with open_store(ToyVLM(), "image", tmp_path / "out") as opened:
        files = [tmp_path / "images" / name for name in part["paths"]]
        assert np.array_equal(opened.gather(digests), direct(ToyVLM(), files))


def test_images_of_an_object_store(store, tmp_path, embed):
    names, _ = find_images(store.uri("some"))
    assert names == [f"s3://bucket/some/deep pictures/{n:03}.png" for n in range(5)]
    part = embed(tmp_path / "out", store.uri("some"))
    assert part["paths"] == names and not part["error"]
    files = b"".join(file.read_bytes() for file in (tmp_path / "out").rglob("*.*"))
    assert b"secret" not in files

    store.refused.add("some/deep pictures/002.png")
    error = embed(tmp_path / "new", store.uri("some"))["error"]
    assert "cannot read s3://bucket/some/deep pictures/002.png: " in error
    assert "secret" not in error
    with pytest.raises(UserError, match=r"there are no images in s3://bucket/nothing$"):
        find_images(store.uri("nothing"))
    with pytest.raises(UserError, match="cannot list ftp9://a/b: "):
        find_images("ftp9://a/b")


# --- arguments ------------------------------------------------------------------------------------


def test_ray_is_not_installed_and_an_unknown_vlm(refusal, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    make_images(tmp_path / "a", 1)
    arguments = "--images", tmp_path / "a", "--out", tmp_path / "out"
    assert "pip install 'ray[data]>=2.60'" in refusal(embed_ray.main, *arguments, "--vlm", "demo")
    message = refusal(embed_ray.main, *arguments, "--vlm", "clap")
    assert "unknown VLM 'clap'; did you mean 'clip'" in message
    assert "no device 'mps' here" in refusal(embed_ray.main, *arguments, "--device", "mps")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("address", "says"),
    [(None, "start Ray on this machine"), ("auto", "join a Ray cluster at auto")],
)
def test_ray_that_cannot_start(monkeypatch, address, says):
    def init(*_, **__):
        raise Exception("The current node timed out during startup")

    monkeypatch.setattr(pytest.importorskip("ray"), "init", init)
    monkeypatch.setattr(os, "dup2", lambda *_: None)
    monkeypatch.setattr(sys, "stderr", sys.stderr)  # restores it
    with pytest.raises(UserError, match=f"^cannot {says}: The current node timed out"):
        embed_ray.start_ray(address)


# --- with Ray -------------------------------------------------------------------------------------

SLOW = """
import os, time
from pathlib import Path
from toy_vlm import ToyVLM

class Slow(ToyVLM):
    '''Says which process embeds, and takes its time.'''

    def __init__(self, device, precision):
        super().__init__()

    def encode_images(self, batch):
        with open(Path(os.environ["LOG"], str(os.getpid())), "a") as log:
            log.write("x" * len(batch))
        time.sleep(0.1)
        return super().encode_images(batch)
"""


class World:
    """A folder with 80 images (5 parts), a VLM, and the command that embeds them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.out, self.log = folder, folder / "out", folder / "log"
        self.log.mkdir()
        self.files = make_images(folder / "images", 80)
        (folder / "slow_vlm.py").write_text(SLOW)
        FINGERPRINTS.mkdir(exist_ok=True)  # it need not be probed, which would be logged too
        (FINGERPRINTS / f"{digest('slow_vlm:Slow', 'toy-1')}.probed").touch()
        paths = os.pathsep.join(map(str, (folder, REPOSITORY, REPOSITORY / "tests/helpers")))
        self.environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths, "LOG": str(self.log)}
        self.line = [str(SCRIPT), "--images", "images", "--out", "out", "--vlm", "slow_vlm:Slow"]
        self.line += ["--batch-size", str(BATCH), "--workers", "2"]

    def start(self) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, *self.line],
            cwd=self.folder,
            env=os.environ | self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, started: subprocess.Popen, image_count: int) -> None:
        out, errors = started.communicate(timeout=120)
        assert (started.returncode, errors) == (0, ""), errors
        assert "workers: 2, each with 1 core(s)" in out
        assert f"{image_count} images are embedded" in out

    @property
    def encoded(self) -> int:
        return sum(file.stat().st_size for file in self.log.iterdir())

    @property
    def stored(self) -> int:
        return sum(file.stat().st_size for file in self.out.rglob("*.entries")) // ENTRY.itemsize

    def wait_until(self, reached) -> None:
        last = time.monotonic() + 60
        while not reached():
            assert time.monotonic() < last, "it never happened"
            time.sleep(0.05)

    def check(self) -> None:
        """All images, each with its numbers, and tasks take the folder as their cache."""
        paths, _, about = read_listing(self.out / "images.parquet")
        assert list(paths) == [file.name for file in self.files]
        assert about.fingerprint == "toy-1" and about.root == str(self.folder / "images")
        vlm = ToyVLM()
        embedded = embed_images(vlm, self.files, self.out, raw=True)
        assert vlm.images == 0 and np.array_equal(embedded.image, direct(vlm, self.files))


@pytest.fixture
def world(tmp_path) -> World:
    pytest.importorskip("ray")
    return World(tmp_path)


def test_two_workers_a_killed_worker_and_a_second_run(world):
    (world.files[7]).write_bytes(b"no image")
    started = world.start()
    world.wait_until(lambda: world.stored >= 16)
    world.wait_until(lambda: len(list(world.log.iterdir())) >= 2)
    os.kill(int(sorted(world.log.iterdir())[0].name), signal.SIGKILL)
    world.finish(started, 79)
    with open(world.out / "unreadable.csv", newline="") as stream:
        assert [row["path"] for row in csv.DictReader(stream)] == ["007.png"]
    assert len(list(world.log.iterdir())) == 3  # a new one took the place of the killed one
    del world.files[7]
    world.check()
    before = world.encoded
    world.finish(world.start(), 79)
    assert world.encoded == before


def test_a_killed_driver_and_the_same_command_again(world):
    started = world.start()
    world.wait_until(lambda: world.stored >= 32)
    started.kill()
    started.communicate()
    assert not (world.out / "images.parquet").exists()
    workers = [file.name for file in world.log.iterdir()]
    world.wait_until(lambda: not any(Path("/proc", worker).exists() for worker in workers))
    before, stored = world.encoded, world.stored
    world.finish(world.start(), 80)
    assert world.encoded - before == 80 - stored
    world.check()
