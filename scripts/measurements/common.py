"""What the measurements share: sizes, models, pictures, time and memory."""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from crl.backends.torchvision_fix import import_torchvision
from crl.run.errors import UserError

BENCHMARK = Path(__file__).resolve().parent.parent / "benchmark.py"
MAKE_DATA = BENCHMARK.parent / "demo/make_data.py"
TINY = {  # pixels and embeddings have the usual size, because they fill the memory
    "embed_dim": 512,
    "vision_cfg": {
        "image_size": 224, "layers": 1, "width": 32, "head_width": 16, "patch_size": 112
    },
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}  # fmt: skip
CLIP_PREPROCESS = {
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}


@dataclass(frozen=True)
class Sizes:
    photos: int = 512
    batch: int = 64
    images: int = 50_000  # embedded to measure memory
    known: int = 100_000  # images that the cache has already
    stored: tuple[int, ...] = (100_000, 1_000_000, 10_000_000)  # rows of a cache
    indexed: tuple[int, ...] = (100_000, 1_000_000, 10_000_000)  # rows that are searched
    words: tuple[int, ...] = (200, 1000)  # texts of a criterion that is searched under
    clustered: int = 1_000_000  # rows of k-means
    drawn: int = 3000  # pictures for embed_ray.py
    ranked: tuple[int, int] = (20_000, 80_000)  # queries, candidates to measure memory
    timed: tuple[int, int] = (2000, 20_000)  # queries, candidates to measure time
    explored: int = 5000  # pictures for explore.py
    triplets: int = 8  # per step of stage 2
    steps: int = 8
    trained: int = 600  # pictures of each training
    rounds: int = 3


QUICK = Sizes(
    photos=8,
    batch=4,
    images=50,
    known=60,
    stored=(100, 1_000, 2_000),
    indexed=(500, 1_000),
    words=(8,),
    clustered=500,
    drawn=40,
    ranked=(10, 200_000),
    timed=(20, 200),
    explored=8,
    triplets=2,
    steps=2,
    trained=150,
    rounds=1,
)


class Bench:
    """The sizes, models and photos that measurements share; each is made at first use."""

    def __init__(self, work: Path, sizes: Sizes, arguments: argparse.Namespace) -> None:
        self.work, self.sizes = work, sizes
        self.quick, self.genecis = arguments.quick, arguments.genecis
        self.precision, self.workers = arguments.precision, arguments.workers

    @cached_property
    def model(self) -> str:
        return self.tiny if self.quick else save_model(self.work / "model")

    @cached_property
    def tiny(self) -> str:
        return save_model(self.work / "tiny", TINY)

    @cached_property
    def photos(self) -> list[Path]:
        return draw(self.work / "photos", map(str, range(self.sizes.photos)), (640, 480))


# --- time and memory ------------------------------------------------------------------------------


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def in_turn(rounds: int, *sides: Callable[[], Any]) -> list[float]:
    """Median seconds of each side, measured alternately, so that a slower machine slows both."""
    for work in sides:
        work()  # not measured: the first call is slower
    timed = [[seconds(work) for work in sides] for _ in range(rounds)]
    return [statistics.median(side) for side in zip(*timed, strict=True)]


def must_agree(what: str, one: Any, other: Any, tolerance: float) -> None:
    """Stop unless both computations gave the same (lists of) arrays."""
    one, other = ([*side] if isinstance(side, (list, tuple)) else [side] for side in (one, other))
    for a, b in zip(one, other, strict=True):
        difference = np.abs(np.asarray(a, float) - np.asarray(b, float)).max()
        if not difference <= tolerance:
            raise RuntimeError(f"{what}: the two sides differ by {difference}")


def in_own_process(measure: str, *arguments: Any) -> Any:
    """The result of a function of `benchmark.IN_OWN_PROCESS` in a new process, which excludes this
    one."""
    line = [sys.executable, str(BENCHMARK), "--in-own-process", measure, *map(str, arguments)]
    printed = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=True).stdout
    return json.loads(printed.splitlines()[-1])


@contextmanager
def peak_of_own_memory() -> Iterator[list[float]]:
    """MB of this process without mapped files, every 20 ms while the block runs."""
    found, ended = [], Event()

    def watch() -> None:
        while not ended.wait(0.02):
            found.append(memory("RssAnon"))

    watching = Thread(target=watch)
    watching.start()
    try:
        yield found
    finally:
        found.append(memory("RssAnon"))
        ended.set()
        watching.join()


def peak_memory() -> float:
    """Peak memory of this process so far, in MB. Not by `getrusage`: on Linux its maximum includes
    that of the parent process."""
    return memory("VmHWM")


def memory(kind: str) -> float:
    """A number of /proc/self/status, in MB."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(kind)) / 1000
    except (OSError, StopIteration) as error:
        raise UserError("memory is measured on Linux only; leave it out with --only") from error


# --- models and pictures --------------------------------------------------------------------------


def save_model(folder: Path, architecture: dict[str, Any] | None = None) -> str:
    """A local open_clip folder with random weights; ViT-B/32 if no architecture is given."""
    import_torchvision()
    import open_clip

    architecture = architecture or open_clip.get_model_config("ViT-B-32")
    folder.mkdir()
    torch.manual_seed(0)
    save_file(open_clip.CLIP(**architecture).state_dict(), folder / "open_clip_model.safetensors")
    config = {"model_cfg": architecture, "preprocess_cfg": CLIP_PREPROCESS}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return str(folder)


def draw(folder: Path, names: Any, size: tuple[int, int]) -> list[Path]:
    """Different JPEG files: spots of every size; smaller spots have less contrast, as in photos.
    White noise would decode more slowly than a photo, and a plain drawing faster."""
    folder.mkdir(parents=True)
    files, rng = [folder / f"{name}.jpg" for name in names], np.random.default_rng(0)
    for file in files:
        total, cell = np.full((size[1], size[0], 3), 128, np.float32), max(size) // 2
        while cell >= 1:
            grid = rng.integers(0, 256, (size[1] // cell + 1, size[0] // cell + 1, 3), np.uint8)
            layer = Image.fromarray(grid).resize(size, Image.Resampling.BICUBIC)
            total += (np.asarray(layer) - np.float32(128)) * 0.5 * (cell / max(size)) ** 0.3
            cell //= 2
        Image.fromarray(total.clip(0, 255).astype(np.uint8)).save(file, quality=90)
    return files


def draw_worlds(folder: Path, images: int, *worlds: str) -> None:
    """Draw demo data into `folder`."""
    command = [sys.executable, str(MAKE_DATA), "--out", str(folder), "--images", str(images)]
    subprocess.run([*command, "--worlds", *worlds], check=True, stdout=subprocess.DEVNULL)
