"""Measure what this code costs beyond the model itself, as ratios taken side by side in one run.

    python scripts/benchmark.py                      # all measurements; minutes on 2 CPU cores
    python scripts/benchmark.py --only path cache    # some of them
    python scripts/benchmark.py --quick              # tiny sizes, to see that it runs; no numbers

  path     images/s of embed_images (read, decode, preprocess, forward, write the cache)
           over images/s of the bare forward pass on tensors that are ready
  cache    seconds of a task's embeddings, computed, over seconds to find them in the cache
  texts    seconds to encode a criterion's texts one at a time over seconds in batches
  memory   peak memory of embedding 50,000 images, beyond the process with its model loaded
  encodes  images that GeneCIS's two object tasks encode here, over those of the authors' scheme,
           where every template encodes its 16
  scoring  seconds to score these tasks one template at a time, over all together
           (both on random templates of the real sizes, or on GeneCIS's own with --genecis FOLDER)
  ranking  seconds of mAP by sorting and looping query by query over seconds here, and the peak
           memory of 20,000 queries among 80,000 candidates
  heads    seconds of stage 1 of fashion retrieval with triplets drawn one by one, over seconds here
  step     seconds of a step of its stage 2, loading and all, over the bare step on ready tensors

The models have the real architecture (ViT-B/32) but random weights, which change no speed; only
`memory` takes a tiny one, to measure the code around it. Run it on an otherwise idle machine.
Writes outputs/benchmark/results.json.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import benchmark_fashion as fashion
import numpy as np
import torch
from benchmark_fashion import peak_resident, seconds
from PIL import Image
from safetensors.torch import save_file
from similarity_retrieval.scoring import Features, baseline_scores, crl_scores, target_ranks

from crl.basis import TextBasis
from crl.embed import embed_images, embed_texts
from crl.projection import l2, project
from crl.run.errors import UserError, command, nearest
from crl.run.files import write_text
from crl.run.results import environment
from crl.run.torchvision_fix import import_torchvision
from crl.vlm import LoadedVLM, load_vlm
from similarity_retrieval.datasets import Templates, load
from similarity_retrieval.evaluate import EvaluateConfig, cells

BATCH = 64  # images; embed_images' default
OBJECT_TASKS = ("focus_object", "change_object")
TINY_VISION = {"image_size": 224, "layers": 1, "width": 32, "head_width": 16, "patch_size": 112}
TINY_TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
# Tiny, but it takes pixels and gives embeddings of the usual size: those are what fills memory.
TINY = {"embed_dim": 512, "vision_cfg": TINY_VISION, "text_cfg": TINY_TEXT}
PREPROCESS = {  # as CLIP's
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}


@dataclass
class Result:
    """One row of the table; `details` are the numbers behind `value`, and go to the JSON."""

    what: str
    value: float
    unit: str  # "x" for a ratio
    target: str
    met: bool | None  # None: no target
    note: str  # what limits it
    details: dict[str, Any] = field(default_factory=dict)


# --- what is measured -----------------------------------------------------------------------------


class Bench:
    """Sizes, and the models and pictures that measurements share, each made when first used."""

    def __init__(self, work: Path, quick: bool, images: int, genecis: Path | None):
        self.work, self.images = work, images  # so many for `memory`
        self.genecis, self.quick = genecis, quick
        self.photos_wanted, self.rounds = (70, 2) if quick else (512, 3)
        self.architecture = TINY if quick else _vit_b_32()
        # embed_images takes a worker a core and at most 8: the number here, and the most anywhere
        self.workers = [1] if quick else sorted({min(8, os.cpu_count() or 1), 8})

    @cached_property
    def model(self) -> Path:
        return save_model(self.work / "model", self.architecture)

    @cached_property
    def photos(self) -> list[Path]:
        return draw(self.work / "photos", self.photos_wanted, (640, 480))

    @cached_property
    def templates(self) -> Path:
        """Folder with GeneCIS's two object tasks, or with random ones of the same sizes."""
        if self.genecis:
            return self.genecis
        m, c, b, references = (40, 5, 10, 4) if self.quick else (3033, 111, 1960, 218)
        rng, folder = np.random.default_rng(0), self.work / "genecis"
        folder.mkdir()
        for task in OBJECT_TASKS:
            few = rng.permutation(m)[:references]
            templates = []
            for number in range(b):
                images = [rng.choice(few), *rng.permutation(m)[:15]]
                reference, target, *gallery = ({"val_image_id": int(n)} for n in images)
                found = {"reference": reference, "target": target, "gallery": gallery}
                templates.append({**found, "condition": f"thing {number % c}"})
            write_text(folder / f"{task}.json", json.dumps(templates))
        return folder


def path(bench: Bench) -> Result:
    vlm = load_vlm(str(bench.model))
    pixels = torch.randn(BATCH, *vlm.preprocess(Image.new("RGB", (640, 480))).shape)
    pixels = pixels.to(vlm.device)
    vlm.encode_images(pixels)  # the first pass is slower
    fingerprinting = seconds(lambda: vlm.fingerprint)  # once a process; not in the ratio
    batches = len(bench.photos) // BATCH

    def forward() -> None:
        for _ in range(batches):
            last = vlm.encode_images(pixels)
        last.cpu()  # waits for a GPU

    def whole(number: int) -> None:
        embed_images(vlm, bench.photos, bench.work / f"path-{number}", BATCH)

    embed_images(vlm, bench.photos[:BATCH], None, BATCH)
    bare, full = [], []  # seconds an image, turn and turn about: a machine that drifts hits both
    for number in range(bench.rounds):
        bare.append(seconds(forward) / (batches * BATCH))
        full.append(seconds(partial(whole, number)) / len(bench.photos))
    ratios = [b / f for b, f in zip(bare, full, strict=True)]

    decoding = _decode_seconds(vlm, bench.photos[:64])
    cores, kilobytes = os.cpu_count() or 1, _kilobytes(bench.photos)
    bare_one, full_one = statistics.median(bare), statistics.median(full)
    if vlm.device.type == "cpu":  # decoding takes its core seconds from the forward pass
        bound = bare_one / (bare_one + decoding / cores)
    else:
        bound = min(1.0, bare_one / (decoding / cores))
    return Result(
        "embedding path / bare forward",
        statistics.median(ratios),
        "x",
        ">= 0.85",
        statistics.median(ratios) >= 0.85,
        f"{1 / full_one:.1f} over {1 / bare_one:.1f} images/s. An image takes "
        f"{1000 * bare_one:.1f} ms forward ({vlm.device.type}, {cores} cores) and "
        f"{1000 * decoding:.1f} core ms to decode and preprocess (640x480 JPEG, "
        f"{kilobytes:.0f} KB): at most {bound:.2f}",
        {
            "ratio_each_round": ratios,
            "images": len(bench.photos),
            "forward_images_a_second": [1 / b for b in bare],
            "path_images_a_second": [1 / f for f in full],
            "decode_ms_an_image_on_one_core": 1000 * decoding,
            "kilobytes_an_image": kilobytes,
            "at_most": bound,
            "fingerprint_seconds": fingerprinting,
        },
    )


def cache(bench: Bench) -> Result:
    prompts = TextBasis.load("clevr4_shape").prompts

    def run() -> tuple[float, float]:
        """Seconds to load the VLM, and to embed; the fingerprint counts, as in a new process."""
        start = time.perf_counter()
        vlm = load_vlm(str(bench.model))
        loaded = time.perf_counter()
        embed_images(vlm, bench.photos, bench.work / "cache", BATCH)
        embed_texts(vlm, prompts, bench.work / "cache")
        return loaded - start, time.perf_counter() - loaded

    first_load, first = run()
    again = [run() for _ in range(bench.rounds)]
    second_load, second = (statistics.median(column) for column in zip(*again, strict=True))
    return Result(
        "first run / second run (cache)",
        first / second,
        "x",
        ">= 20",
        first / second >= 20,
        f"{first:.1f} s, then {second:.2f} s, for {len(bench.photos)} images and {len(prompts)} "
        f"texts; loading the model is not counted ({second_load:.1f} s)",
        {
            "first_seconds": first,
            "second_seconds": second,
            "load_seconds": [first_load, second_load],
            "images": len(bench.photos),
            "texts": len(prompts),
        },
    )


def texts(bench: Bench) -> Result:
    vlm = load_vlm(str(bench.model))
    prompts = TextBasis.load("clevr4_shape").prompts
    vlm.encode_texts(prompts[:1])  # the first pass is slower
    vlm.fingerprint  # noqa: B018 - computed here, so that no round pays for it

    def one_at_a_time() -> None:
        for prompt in prompts:
            vlm.encode_texts([prompt])

    single, batched = [], []
    for _ in range(bench.rounds):
        single.append(seconds(one_at_a_time))
        batched.append(seconds(lambda: embed_texts(vlm, prompts, cache=None)))
    ratio = statistics.median(s / b for s, b in zip(single, batched, strict=True))
    return Result(
        "texts one at a time / in batches",
        ratio,
        "x",
        "-",
        None,
        f"{statistics.median(single):.2f} s over {statistics.median(batched):.2f} s "
        f"for {len(prompts)} texts",
        {"single_seconds": single, "batched_seconds": batched, "texts": len(prompts)},
    )


def memory(bench: Bench) -> Result:
    if not Path("/proc/self/smaps_rollup").exists():
        raise UserError("memory is measured through /proc, so on Linux only; use --only")
    files, model = bench.work / "many", save_model(bench.work / "tiny", TINY)
    draw(files, bench.images, (64, 64))
    found: dict[int, dict[str, Any]] = {}
    for workers in bench.workers:
        folders = [str(model), str(files), str(bench.work / f"memory-{workers}")]
        # A fresh process, so that nothing of this one is counted or hides growth.
        arguments = [sys.executable, __file__, "--weigh", *folders, str(workers)]
        answer = subprocess.run(arguments, stdout=subprocess.PIPE, text=True, check=True).stdout
        found[workers] = json.loads(answer.splitlines()[-1])
    most = bench.workers[-1]
    peak, parts = found[most]["peak_mb"], found[most]
    each = [f"{workers} threads {found[workers]['peak_mb']:.0f} MB" for workers in found]
    return Result(
        f"peak memory, {bench.images} images",
        peak,
        "MB",
        "< 500",
        peak < 500,
        f"{', '.join(each)} (of which {parts['mapped_files_mb']:.0f} mapped files)",
        {"images": bench.images, **{f"workers_{n}": weighed for n, weighed in found.items()}},
    )


def encodes(bench: Bench) -> Result:
    data = load(OBJECT_TASKS, bench.templates)
    files = draw(bench.work / "coco" / "val2017", len(data.ids), (64, 64))
    for name, file in zip(data.ids, files, strict=True):
        file.rename(file.with_name(f"{int(name):012d}.jpg.new"))
    for file in files[0].parent.iterdir():  # only now: a new name may be another's old one
        file.rename(file.with_suffix(""))
    config = EvaluateConfig(
        root=bench.templates,
        tasks=list(OBJECT_TASKS),
        coco=bench.work / "coco",
        vlm=str(save_model(bench.work / "small", TINY)),
        cache=bench.work / "encodes",
    )
    encoded, encode_images = 0, LoadedVLM.encode_images

    def counting(vlm: LoadedVLM, batch: torch.Tensor) -> torch.Tensor:
        nonlocal encoded
        encoded += len(batch)
        return encode_images(vlm, batch)

    with patch.object(LoadedVLM, "encode_images", counting):
        for _ in cells(config):
            pass
    theirs = sum(task.gallery.size + len(task.reference) for task in data.tasks.values())
    return Result(
        "encodes here / one template at a time",
        encoded / theirs,
        "x",
        "<= 0.1",
        encoded / theirs <= 0.1,
        f"{encoded} images encoded instead of {theirs}",
        {"encoded": encoded, "one_template_at_a_time": theirs},
    )


def scoring(bench: Bench) -> Result:
    data, rng = load(OBJECT_TASKS, bench.templates), np.random.default_rng(0)
    dim, basis, prompts = 512, 229, 5  # CLIP ViT-B/16 and the paper's scenes

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, np.float32)

    c = len(data.conditions)
    image, plain, prompted = normal(len(data.ids), dim), normal(c, dim), normal(c, prompts, dim)
    text = l2(normal(basis, dim))

    def together(dtype: type = np.float32) -> list[np.ndarray]:
        # New Features, which keep nothing from the round before
        features = Features(*(x.astype(dtype, copy=False) for x in (image, plain, prompted)))
        r = l2(project(features.unit_image, text.astype(dtype, copy=False)))  # one basis for both
        found = []
        for task in data.tasks.values():
            scores = {**baseline_scores(features, task), "crl": crl_scores(features, task, r)}
            found.append(np.stack([target_ranks(s)[0] for s in scores.values()]))
        return found

    def one_at_a_time(dtype: type = np.float32) -> list[np.ndarray]:
        tensors = [torch.from_numpy(x.astype(dtype)) for x in (image, plain, prompted, text)]
        return [
            np.array(
                [
                    [_one_template(method, task, b, *tensors) for b in range(len(task.reference))]
                    for method in ("image", "text", "image+text", "crl")
                ]
            )
            for task in data.tasks.values()
        ]

    together()  # the first time is slower
    slow, fast = [], []
    for _ in range(bench.rounds):
        slow.append(seconds(one_at_a_time))
        fast.append(seconds(lambda: [together() for _ in range(10)]) / 10)  # each is over so soon
    # In double precision: in single precision two candidates may differ by less than rounding.
    pairs = zip(one_at_a_time(np.float64), together(np.float64), strict=True)
    different = sum(int((loop != ours).sum()) for loop, ours in pairs)
    ratio = statistics.median(s / f for s, f in zip(slow, fast, strict=True))
    templates = sum(len(task.reference) for task in data.tasks.values())
    return Result(
        "scoring one template at a time / together",
        ratio,
        "x",
        ">= 50",
        ratio >= 50 and not different,
        f"{templates} templates, image, text, image+text and CRL: {statistics.median(slow):.2f} s "
        f"over {statistics.median(fast):.3f} s; {different} ranks differ",
        {"one_at_a_time_seconds": slow, "together_seconds": fast, "different_ranks": different},
    )


def _one_template(method: str, task: Templates, b: int, image, plain, prompted, text) -> int:
    """How many candidates are above the target of template b; a run a method, as the authors'."""
    unit = partial(torch.nn.functional.normalize, dim=-1)
    r, c = image[task.reference[b]][None], plain[task.condition[b]][None]  # (1, D)
    g = unit(image[torch.from_numpy(task.gallery[b])])  # (G, D)
    if method == "crl":
        scene = unit(unit(r @ text.T) @ unit(g @ text.T).T)  # (1, G)
        asked = unit((unit(prompted[task.condition[b]]) @ g.T).mean(0, keepdim=True))
        scores = 10 * scene + asked
    else:
        query = {"image": r, "text": c, "image+text": 0.5 * r + 0.5 * c}[method]
        scores = unit(query) @ g.T
    return int((scores[0, 1:] > scores[0, 0]).sum())


def ranking(bench: Bench) -> Result:
    many, few = ((200, 800), (100, 1000)) if bench.quick else ((20_000, 80_000), (2000, 20_000))
    width, values = fashion.WIDTH, fashion.VALUES[0]
    weighed = fashion.ranking_memory(*many, width, values)
    found = fashion.ranking(*few, width, values, bench.rounds)
    ours, theirs = (statistics.median(found["seconds"][s]) for s in ("here", "query_by_query"))
    ratio, difference, peak = found["ratio"], found["difference"], weighed["peak_mb"]
    return Result(
        "mAP query by query / here",
        ratio,
        "x",
        ">= 3",
        ratio >= 3 and difference <= 1e-6 and peak < 2000,
        f"{theirs:.2f} s over {ours:.2f} s for {few[0]} queries among {few[1]} candidates, equal "
        f"to {difference:.0e}; {many[0]} among {many[1]}: peak memory of the process "
        f"{peak:.0f} MB (must be < 2000), {weighed['seconds']:.1f} s",
        {**found, "memory": {"queries": many[0], "candidates": many[1], **weighed}},
    )


def heads(bench: Bench) -> Result:
    images, steps = (2000, 2) if bench.quick else (100_000, 10)
    found = fashion.stage_1(images, steps, bench.rounds)
    rate = {s: found["triplets"] / statistics.median(t) for s, t in found["seconds"].items()}
    return Result(
        "stage 1 one by one / here",
        found["ratio"],
        "x",
        "-",
        None,
        f"{rate['whole']:.0f} over {rate['theirs']:.0f} triplets/s; drawing alone "
        f"{found['sampler_ratio']:.0f} x",
        found,
    )


def step(bench: Bench) -> Result:
    vlm = load_vlm(str(bench.model))
    files = draw(bench.work / "garments", 64, (300, 300))
    batch, steps = (2, 2) if bench.quick else (8, 8)
    rounds = 1 if bench.quick else 2
    found = fashion.stage_2(vlm, files, bench.work / "step", batch, steps, rounds)
    decoding = 3 * batch * _decode_seconds(vlm, files)
    return Result(
        "stage 2 step / bare step",
        found["ratio"],
        "x",
        "<= 1.15",
        found["ratio"] <= 1.15,
        f"{found['whole_seconds']:.2f} s over {found['bare_seconds']:.2f} s ({vlm.device.type}) "
        f"for {batch} triplets, {3 * batch} images 300x300, decoded in {1000 * decoding:.0f} core "
        f"ms by {found['workers']} processes",
        {**found, "decode_core_seconds_a_step": decoding},
    )


MEASUREMENTS: dict[str, Callable[[Bench], Result]] = {
    "path": path,
    "cache": cache,
    "texts": texts,
    "memory": memory,
    "encodes": encodes,
    "scoring": scoring,
    "ranking": ranking,
    "heads": heads,
    "step": step,
}


# --- memory ---------------------------------------------------------------------------------------


def weigh(model: str, folder: str, cache: str, workers: str) -> dict[str, Any]:
    """Embed the images of `folder`; peak memory in MB of this process, beyond
    what it held just before, with the model loaded and one batch done."""
    vlm = load_vlm(model)
    vlm.encode_images(torch.zeros(BATCH, *vlm.preprocess(Image.new("RGB", (64, 64))).shape))
    vlm.fingerprint  # noqa: B018 - computed here; it is the model's
    before, resident_before = held_memory(), peak_resident()
    samples, done = [], threading.Event()

    def sample() -> None:
        while not done.wait(0.2):
            samples.append(held_memory())

    sampler = threading.Thread(target=sample)
    sampler.start()
    start = time.perf_counter()
    try:
        result = embed_images(vlm, sorted(Path(folder).iterdir()), Path(cache), BATCH, int(workers))
        samples.append(held_memory())  # the embeddings are all in memory now
    finally:
        done.set()
        sampler.join()
    elapsed = time.perf_counter() - start
    peak = max(samples, key=lambda sample: sum(sample.values()))
    growth = {name: (peak[name] - before[name]) / 1e6 for name in peak}
    return {
        "peak_mb": sum(growth.values()),
        **{f"{name}_mb": mb for name, mb in growth.items()},
        # A cross-check by the kernel's own counter, which counts shared pages in full:
        "rss_growth_mb": peak_resident() - resident_before,
        "embeddings_mb": result.image.nbytes / 1e6,
        "seconds": elapsed,
        "samples": len(samples),
    }


def held_memory() -> dict[str, int]:
    """Bytes that this process holds: its own, and its share of mapped files (PSS)."""
    names = {"Pss_Anon:": "private", "Pss_File:": "mapped_files", "Pss_Shmem:": "shared"}
    lines = map(str.split, Path("/proc/self/smaps_rollup").read_text().splitlines())
    return {names[name]: int(number) * 1024 for name, number, *_ in lines if name in names}


# --- models and pictures --------------------------------------------------------------------------


def _vit_b_32() -> dict[str, Any]:
    import_torchvision()
    import open_clip

    return open_clip.get_model_config("ViT-B-32")


def save_model(folder: Path, architecture: dict[str, Any]) -> Path:
    """A local open_clip folder with random weights, which load_vlm reads as it reads any other."""
    import_torchvision()
    import open_clip

    folder.mkdir()
    torch.manual_seed(0)
    save_file(open_clip.CLIP(**architecture).state_dict(), folder / "open_clip_model.safetensors")
    config = {"model_cfg": architecture, "preprocess_cfg": PREPROCESS}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


def draw(folder: Path, count: int, size: tuple[int, int]) -> list[Path]:
    """`count` JPEG files, all different."""
    folder.mkdir(parents=True)
    files = [folder / f"{i:06d}.jpg" for i in range(count)]
    with ProcessPoolExecutor() as pool:
        list(pool.map(partial(_draw, size), files, chunksize=256))
    return files


def _draw(size: tuple[int, int], file: Path) -> None:
    """Blots of every size, the smaller the fainter, as in photographs; white noise would make JPEG
    unnaturally slow to decode, a plain drawing unnaturally fast."""
    width, height = size
    rng = np.random.default_rng(int(file.stem))
    total, cell = np.full((height, width, 3), 128.0), max(size) // 2
    while cell >= 1:
        grid = rng.integers(0, 256, (height // cell + 1, width // cell + 1, 3), np.uint8)
        layer = Image.fromarray(grid).resize(size, Image.Resampling.BICUBIC)
        total += (np.asarray(layer) - 128.0) * 0.5 * (cell / max(size)) ** 0.3
        cell //= 2
    Image.fromarray(total.clip(0, 255).astype(np.uint8)).save(file, quality=90)


def _decode_seconds(vlm: LoadedVLM, files: list[Path]) -> float:
    """Core seconds to decode and preprocess one image, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    each = []
    for file in files:
        start = time.process_time()
        with Image.open(file) as image:
            vlm.preprocess(image)
        each.append(time.process_time() - start)
    torch.set_num_threads(threads)
    return statistics.median(each)


def _kilobytes(files: list[Path]) -> float:
    return statistics.mean(file.stat().st_size for file in files) / 1000


# --- the table ------------------------------------------------------------------------------------


def table(results: dict[str, Result], quick: bool) -> str:
    """Each measurement with its target, its value, and the command that repeats it."""
    rows = [["measurement", "target", "measured", "", "repeat with"]]
    for name, found in results.items():
        verdict = "" if quick else {True: "met", False: "MISSED", None: ""}[found.met]
        value = f"{found.value:.2f} {found.unit}"
        repeat = f"python scripts/benchmark.py --only {name}{' --quick' if quick else ''}"
        rows.append([found.what, found.target, value, verdict, repeat])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    notes = [f"{name}: {found.note}" for name, found in results.items()]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:], "", *notes])


@command
def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = f"of {', '.join(MEASUREMENTS)}"
    parser.add_argument("--only", nargs="+", default=list(MEASUREMENTS), metavar="NAME", help=names)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument(
        "--images", type=int, metavar="N", help="embedded by `memory` (default 50000; quick: 200)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("outputs/benchmark"), help="folder of results.json"
    )
    parser.add_argument(
        "--genecis", type=Path, metavar="FOLDER", help="GeneCIS's focus_ and change_object.json"
    )
    parser.add_argument("--weigh", nargs=4, help=argparse.SUPPRESS)  # the process of `memory`
    arguments = parser.parse_args(argv)
    if arguments.weigh:
        print(json.dumps(weigh(*arguments.weigh)))
        return
    for name in arguments.only:
        if name not in MEASUREMENTS:
            raise UserError(f"unknown measurement {name!r}; {nearest(name, MEASUREMENTS)}")
    images = arguments.images
    if images is None:
        images = 200 if arguments.quick else 50_000
    if images < 1:
        raise UserError(f"--images must be at least 1, not {images}")
    cores, load = os.cpu_count() or 1, os.getloadavg()[0]
    print(
        f"{cores} cores, {torch.get_num_threads()} threads, load before {load:.1f}; "
        f"{'tiny model' if arguments.quick else 'ViT-B/32'}, random weights"
    )
    if load > 0.5:
        print("warning: the machine is not idle, so its memory and times may be those of others")

    results: dict[str, Result] = {}
    with tempfile.TemporaryDirectory() as work:
        bench = Bench(Path(work), arguments.quick, images, arguments.genecis)
        for name in dict.fromkeys(arguments.only):
            print(f"measuring {name} ...", flush=True)
            results[name] = MEASUREMENTS[name](bench)
            data = {
                "quick": arguments.quick,
                "load_before": load,
                "cores": cores,
                "environment": environment(),
                "measurements": {name: vars(found) for name, found in results.items()},
            }
            write_text(arguments.out / "results.json", json.dumps(data, indent=1) + "\n")
    print("\n" + table(results, arguments.quick))


if __name__ == "__main__":
    main()
