"""Measure what this code costs in addition to what it cannot avoid: two sides, in turn, in one run.

    python scripts/benchmark.py                     # all measurements; long on 2 CPU cores
    python scripts/benchmark.py --only path store   # some of them
    python scripts/benchmark.py --quick             # tiny sizes, to see that it runs
    python scripts/benchmark.py --only path trainings --precision bf16 --workers 16    # on a GPU

Each row of the table has the median seconds of both sides and their ratio. Sides that must give the
same are compared. Run it on an idle machine; on a busy one, --cpu-time counts the processor's time.
"""

from crl.run.command import command

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from benchmark_inputs import FAMILIES, draw, empty, random_family, random_vlm
from PIL import Image
from torch.utils.data import DataLoader

from crl.backends.precision import PRECISIONS, bf16_instructions
from crl.embed import embed_images
from crl.projection import l2, project
from crl.run.distributed import available_device
from crl.run.errors import ArgumentParser, UserError
from crl.run.store import ENTRY, Store, content_digest, digest_array, memory_map, open_store
from crl.run.tables import Table
from crl.vlm import load_vlm

REPOSITORY = Path(__file__).resolve().parent.parent
DEMO = REPOSITORY / "configs/demo"
STORED = SimpleNamespace(name="benchmark", fingerprint="benchmark", precision="fp32")
D, BATCH, ROWS = 512, 64, 4096  # ROWS are made or read at once
EXACT: dict[str, Any] = {"precision": "fp32", "decode": "full"}  # for the paper's tasks
FAST: dict[str, Any] = {"precision": "auto", "decode": "fast"}  # for own pictures
PEERS = {"CLIP_benchmark": (BATCH, os.cpu_count() or 1), "rclip": (8, 0)}  # batch, processes
Row = tuple[str, str, list[float]]  # what is measured, the two sides, their seconds


class Sizes(NamedTuple):
    layers: int = 12  # of the random VLM
    photos: int = 512
    families: int = 5
    large: tuple[int, int, int] = (16, 4000, 3000)  # photographs: number, width, height
    growing: tuple[int, ...] = (500, 2000, 20_000)  # pictures
    rows: tuple[int, ...] = (100_000, 1_000_000)  # of a store, and of I in a search
    gathered: int = 20_000
    known: int = 20_000  # files whose embeddings are stored
    texts: int = 200  # K
    demo: int = 3000  # pictures of the demo data
    triplets: int = 960  # of an epoch of fashion retrieval
    rounds: int = 3


QUICK = Sizes(1, 4, 1, (2, 800, 600), (4, 8), (500,), 100, 20, 8, 300, 16, rounds=1)


class Bench(NamedTuple):
    work: Path  # an empty folder for each measurement
    sizes: Sizes
    precision: str
    workers: int | None
    clock: Callable[[], float]

    def in_turn(self, *sides: Callable[[], Any]) -> list[float]:
        """Median seconds of each side. They alternate, so that a slower machine slows both."""
        seconds: list[list[float]] = [[] for _ in sides]
        for _ in range(self.sizes.rounds):
            for side, times in zip(sides, seconds, strict=True):
                start = self.clock()
                side()
                times.append(self.clock() - start)
        return list(map(statistics.median, seconds))

    def photos(self) -> list[list[Path]]:
        """Small and large ones, in folders with the names of their sizes."""
        kinds = (self.sizes.photos, 640, 480), self.sizes.large
        return [draw(self.work / f"{w} x {h}", number, w, h) for number, w, h in kinds]

    def run(self, script: str, *arguments: object, remove: Iterable[Path] = ()) -> None:
        """Run a script of this repository with a cache of its own, after removing folders."""
        for folder in remove:
            shutil.rmtree(folder, ignore_errors=True)
        line = [sys.executable, str(REPOSITORY / script), *map(str, arguments)]
        environment = {**os.environ, "CRL_CACHE": str(self.work / "cache")}
        if subprocess.run(line, env=environment, stdout=subprocess.DEVNULL).returncode:
            raise UserError(f"{script} failed; its message stands above")

    def demo(self, script: str, name: str, *keys: str, remove: Iterable[Path] = ()) -> None:
        self.run(script, "--config", DEMO / f"{name}.yaml", *keys, remove=remove)

    def demo_data(self, *worlds: str) -> Path:
        size = ("--images", self.sizes.demo)
        self.run("scripts/demo/make_data.py", "--out", self.work, *size, "--worlds", *worlds)
        return self.work


def path(bench: Bench) -> Iterator[Row]:
    """From image files to a store, beside the model alone on pixels that are ready."""
    small, large = bench.photos()
    folder = random_vlm(bench.work / "ViT-B-32", bench.sizes.layers)
    for name, photos in (("demo", small), (folder, small), (folder, large)):
        vlm: Any = load_vlm(name, precision=bench.precision)
        images = (vlm.preprocess(Image.open(file)) for file in photos[:BATCH])
        pixels = torch.stack([*images]).to(vlm.device)  # (B, 3, H, W)
        model = partial(encode, vlm.encode_images, pixels)
        np.testing.assert_allclose(whole(bench, vlm, photos[:BATCH]), l2(model(1)), atol=1e-4)
        both = partial(whole, bench, vlm, photos), partial(model, -(-len(photos) // BATCH))
        label = f"{Path(name).name}, {len(photos)} of {photos[0].parent.name}, {vlm.device.type}"
        yield f"{label}, {bench.precision}", "files to store / model alone", bench.in_turn(*both)
        yield label, "exact / fast", bench.in_turn(*exact_and_fast(bench, name, photos))


def whole(bench: Bench, vlm: Any, images: list[Path]) -> np.ndarray:
    """I of files, by way of an empty store."""
    return embed_images(vlm, images, empty(bench.work / "new"), BATCH, bench.workers).image


def exact_and_fast(bench: Bench, name: str, photos: list[Path]) -> list[Callable[[], Any]]:
    vlms = [load_vlm(name, **how) for how in (EXACT, FAST)]
    alike(*(whole(bench, vlm, photos[:BATCH]) for vlm in vlms))
    return [partial(whole, bench, vlm, photos) for vlm in vlms]


def alike(a: np.ndarray, b: np.ndarray) -> None:  # (N, D), unit rows of different precision
    np.testing.assert_array_less(0.99, (a * b).sum(axis=1))


def encode(tower: Callable, inputs: Any, batches: int) -> np.ndarray:
    for _ in range(batches):
        rows = tower(inputs)  # (B, D)
    return rows.float().cpu().numpy()  # waits for a GPU


@torch.no_grad()
def weights(bench: Bench) -> Iterator[Row]:
    """Images and texts of each kind of VLM in float32, beside weights in bf16, and their cosine."""
    device = available_device(None)
    for name in FAMILIES[: bench.sizes.families]:
        low = random_family(name, device, torch.bfloat16)
        exact = random_family(name, device, torch.float32)
        for what, *towers in zip(("images", "texts"), exact, low, strict=True):
            sides = [partial(encode, *tower, 1) for tower in towers]
            cosine = np.prod([l2(side()) for side in sides], axis=0).sum(-1).min()
            label = f"{name}, 8 {what}, {device.type}, smallest cosine {cosine:.5f}"
            yield label, "fp32 / weights in bf16", bench.in_turn(*sides)


def peers(bench: Bench) -> Iterator[Row]:
    """The loops of two other programs, on the same pictures and weights, beside `embed_images`: in
    LAION's CLIP_benchmark processes decode, one for each core; rclip decodes 8 pictures, then
    encodes them, and so on."""
    name = random_vlm(bench.work / "ViT-B-32", bench.sizes.layers)
    import open_clip  # now that torchvision is there

    model, transform = open_clip.create_model_from_pretrained(f"local-dir:{name}")
    vlm = load_vlm(name, **FAST)
    model.eval().to(vlm.device)
    stack = partial(stacked, transform)
    for photos, (peer, (size, processes)) in product(bench.photos(), PEERS.items()):
        loader = DataLoader(photos, size, num_workers=processes, collate_fn=stack)
        both = partial(unit_rows, model, loader), partial(whole, bench, vlm, photos)
        alike(*(side() for side in both))
        label = f"{len(photos)} of {photos[0].parent.name}, {vlm.device.type}"
        yield label, f"{peer} / embed_images", bench.in_turn(*both)


def stacked(transform: Callable, files: list[Path]) -> torch.Tensor:
    return torch.stack([transform(Image.open(file)) for file in files])  # (B, 3, H, W)


@torch.no_grad()
def unit_rows(model: Any, batches: Iterable[torch.Tensor]) -> np.ndarray:
    device = next(model.parameters()).device
    rows = [model.encode_image(batch.to(device), normalize=True).cpu() for batch in batches]
    return torch.cat(rows).numpy()  # (N, D)


def linear(bench: Bench) -> Iterator[Row]:
    """Neither the time of a picture nor the memory may grow with the number of pictures."""
    import resource  # not on Windows

    photos = draw(bench.work / "photos", bench.sizes.photos, 640, 480)
    vlm = load_vlm(random_vlm(bench.work / "ViT-B-32", bench.sizes.layers), **FAST)
    few, *numbers = bench.sizes.growing
    files = [empty(bench.work / "files") / f"{n}.jpg" for n in range(numbers[-1])]
    for number, file in enumerate(files):  # another end makes another file of a photo
        file.write_bytes(photos[number % len(photos)].read_bytes() + b"%d" % number)
    for many in numbers:
        sides = bench.in_turn(*(partial(whole, bench, vlm, files[:n]) for n in (few, many)))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        milliseconds = [1000 * s / n for s, n in zip(sides, (few, many), strict=True)]
        yield f"ms of each, memory so far {peak:.2f} GiB", f"of {few} / of {many:,}", milliseconds


def known(bench: Bench) -> Iterator[Row]:
    """A repeated run: all embeddings are stored, so files are read and nothing is decoded."""
    files = [empty(bench.work / "files") / f"{n}.jpg" for n in range(bench.sizes.known)]
    for number, file in enumerate(files):
        file.write_bytes(np.random.default_rng(number).bytes(20_000))

    def digests() -> list[bytes]:
        return [content_digest(file.read_bytes()) for file in files]

    fill(bench.work / "cache", digests())
    sides = bench.in_turn(partial(embed_images, STORED, files, bench.work / "cache"), digests)
    yield f"{len(files):,} files of 20 kB", "embed_images / digests alone", sides


def store(bench: Bench) -> Iterator[Row]:
    """Writing, opening and reading a store, beside NumPy on a plain file without checksums."""
    rng, cache, plain = np.random.default_rng(0), bench.work / "store", bench.work / "plain"
    for count in bench.sizes.rows:
        digests = [rng.bytes(16) for _ in range(count)]
        sides = bench.in_turn(partial(fill, cache, digests), partial(write, plain, count))
        yield f"write {count:,} rows of {D}", "store / plain file", sides

        wanted = rng.permutation(count)[: bench.sizes.gathered]
        some = digest_array(digests[place] for place in wanted)
        with open_store(STORED, "image", cache) as opened:
            again = partial(Store, opened.folder, opened.about)
            sides = bench.in_turn(again, partial(read_digests, opened.folder))
            yield f"open {count:,} rows", "store / read and sort digests", sides
            both = partial(opened.gather, some), partial(read, plain, wanted)
            np.testing.assert_array_equal(both[0](), both[1]())
            label = f"gather {len(some):,} of {count:,} rows"
            yield label, "store / memory map", bench.in_turn(*both)


def parts(count: int) -> Iterator[np.ndarray]:
    """`count` random unit rows, (n, D) at a time."""
    rng = np.random.default_rng(0)
    for start in range(0, count, ROWS):
        yield l2(rng.random((min(ROWS, count - start), D), np.float32) - np.float32(0.5))


def fill(cache: Path, digests: list[bytes]) -> None:
    with open_store(STORED, "image", empty(cache)) as opened:
        for n, rows in enumerate(parts(len(digests))):
            opened.append(digests[ROWS * n :][: len(rows)], rows)


def write(file: Path, count: int) -> None:
    with open(file, "wb") as stream:
        for rows in parts(count):
            stream.write(rows.tobytes())
        stream.flush()
        os.fsync(stream.fileno())


def read_digests(folder: Path) -> np.ndarray:
    (file,) = folder.glob("*.entries")
    return np.sort(np.fromfile(file, ENTRY)["digest"], kind="stable")


def read(file: Path, rows: np.ndarray) -> np.ndarray:
    return np.memmap(file, np.float32, "r").reshape(-1, D)[rows]


def search(bench: Bench) -> Iterator[Row]:
    """Exact search under a criterion, beside a product by parts in float32 and the top 10."""
    from crl.explore.search import Criterion
    from crl.explore.search import search as exact_search

    text = l2(np.random.default_rng(1).standard_normal((bench.sizes.texts, D), np.float32))
    for count in bench.sizes.rows:
        image, query = memory_map((count, D), bench.work), represent(text, next(parts(1)))
        np.concatenate([*parts(count)], out=image)
        criteria = [Criterion(partial(represent, text), query)]
        both = partial(exact_search, image, criteria, 10), partial(nearest, image, text, query)
        np.testing.assert_array_equal(np.sort(both[0]().rows[0]), np.sort(both[1]()))
        yield f"{count:,} rows, {len(text)} texts", "exact / float32", bench.in_turn(*both)


def represent(text: np.ndarray, x: np.ndarray) -> np.ndarray:
    return l2(project(x, text))  # R = I Tᵀ, (n, K)


def nearest(image: np.ndarray, text: np.ndarray, query: np.ndarray) -> np.ndarray:
    """The 10 rows of I that are most similar to the query, (1, K)."""
    starts = range(0, len(image), ROWS)
    scores = np.concatenate([represent(text, image[i : i + ROWS]) @ query[0] for i in starts])
    return np.argpartition(-scores, 10)[:10]


def tasks(bench: Bench) -> Iterator[Row]:
    """Each evaluation of the demo data, with and without embeddings in the cache."""
    data, out = bench.demo_data("clevr4", "scenes", "garments"), bench.work / "out"
    clevr4 = ("clevr4", f"root={data}", f"images={bench.sizes.demo}", "criteria=[color]")
    for script, *keys in (
        ("classification_clustering/clustering.py", *clevr4),
        ("classification_clustering/few_shot.py", *clevr4),
        ("similarity_retrieval/evaluate.py", "scenes", f"root={data}/genecis", "trained=[]"),
        ("fashion_retrieval/evaluate.py", "garments", f"root={data}/garments"),
    ):
        evaluate = partial(bench.demo, script, *keys, f"outputs={out}", "figures=false")
        new = partial(evaluate, remove=[out, bench.work / "cache"])
        sides = bench.in_turn(new, partial(evaluate, remove=[out]))
        yield f"{script}, {bench.sizes.demo:,} pictures", "new / stored embeddings", sides


def trainings(bench: Bench) -> Iterator[Row]:
    """An epoch of each training of the demo, in fp32 and bf16."""
    data = bench.demo_data("scenes", "garments")
    coco, triplets = data / "genecis/coco", data / "triplets/demo/triplets.jsonl"
    graphs = coco / "annotations/relations_train2017.jsonl"
    mine = ("mine", f"graphs={graphs}", f"outputs={data}", "samples=2000")
    bench.demo("similarity_retrieval/mine_triplets.py", *mine)
    combiner = (f"triplets={triplets}", f"images={coco}")
    clothes = (f"root={data}/garments", f"triplets={bench.sizes.triplets}")
    for script, folder, name, *keys in (
        ("similarity_retrieval/train_combiner.py", "combiner", "combiner", *combiner),
        ("fashion_retrieval/train_mlp.py", "fashion_mlp", "garments_mlp", *clothes),
        ("fashion_retrieval/train_backbone.py", "fashion_backbone", "garments_backbone",
         *clothes, "heads={out}/fashion_mlp/demo"),
        ("fashion_retrieval/train_rival.py", "fashion_rivals", "garments_csn", *clothes),
    ):  # fmt: skip
        sides = []
        for precision in ("fp32", "bf16"):
            out = data / precision
            here = f"outputs={out}", f"precision={precision}", *(k.format(out=out) for k in keys)
            sides.append(
                partial(bench.demo, script, name, "epochs=1", *here, remove=[out / folder])
            )
        yield folder, "fp32 / bf16", bench.in_turn(*sides)


def machine() -> str:
    """The processor, its bf16 instructions, and the GPU, in torch's words."""
    name, instructions = bf16_instructions()
    gpu = [torch.cuda.get_device_name()] if torch.cuda.is_available() else []
    return ", ".join([name, " and ".join(instructions) or "no bf16 known", *gpu])


MEASUREMENTS = {
    f.__name__: f for f in (path, weights, peers, linear, known, store, search, tasks, trainings)
}


@command
def main(argv: list[str]) -> None:
    parser = ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--only", nargs="+", metavar="NAME", default=[], choices=MEASUREMENTS, help="measurements")
    add("--quick", action="store_true", help="tiny sizes, to see that it runs")
    add("--cpu-time", action="store_true", help="seconds of all cores, for a busy machine")
    add("--precision", choices=list(PRECISIONS), default="fp32", help="of `path`")
    add("--workers", type=int, help="threads that decode images, of `path`")
    args = parser.parse_args(argv)
    # Of all cores, in this process and in those that it waited for; or of a clock
    clock = (lambda: sum(os.times()[:4])) if args.cpu_time else time.perf_counter
    rows, sizes = [], QUICK if args.quick else Sizes()
    for name in args.only or MEASUREMENTS:
        with tempfile.TemporaryDirectory() as work:
            bench = Bench(Path(work), sizes, args.precision, args.workers, clock)
            for what, names, (first, second) in MEASUREMENTS[name](bench):
                seconds = [f"{first:.3f}", f"{second:.3f}", f"{first / second:.2f}"]
                rows.append([f"{name}: {what}", names, *seconds])
                print(*rows[-1], sep=" | ", flush=True)
    kind = "CPU seconds" if args.cpu_time else "seconds"
    threads = torch.get_num_threads()
    title = f"Median {kind} of {sizes.rounds} rounds, {threads} threads; {machine()}"
    header = ["measurement", "first side / second side", "first, s", "second, s", "ratio"]
    print(Table(title, header, rows, left=2).text())


if __name__ == "__main__":
    main()
