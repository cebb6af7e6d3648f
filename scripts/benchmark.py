"""Measure the cost of this code in addition to the model: ratios, both sides measured in one run.

    python scripts/benchmark.py                     # all measurements; minutes on 2 CPU cores
    python scripts/benchmark.py --only path step    # some of them
    python scripts/benchmark.py --genecis FOLDER    # with GeneCIS's focus_ and change_object.json
    python scripts/benchmark.py --quick             # tiny sizes, to see that it runs

Models have the real architecture (ViT-B/32) and random weights, which do not affect the speed.
Where only memory or the number of encoded images is measured, a tiny model is used. Both sides of a
ratio must give the same results, else the script stops. Run it on an idle machine.
"""

from crl.run.command import command

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file

from crl.basis import TextBasis
from crl.embed import embed_images, embed_texts
from crl.projection import ConditionalProjection, l2, project, spread
from crl.run.cache import SHARD, content_digest, open_store
from crl.run.errors import ArgumentParser, UserError, nearest
from crl.run.tables import aligned
from crl.run.torchvision_fix import import_torchvision
from crl.vlm import LoadedVLM, load_trainable, load_vlm
from fashion_retrieval.heads import Heads
from fashion_retrieval.method import TripletSampler, retrieval_precision, triplet_loss
from fashion_retrieval.networks import ConditionalNetwork
from fashion_retrieval.train_backbone import trainable_tower
from fashion_retrieval.trainers import NetworkConfig, NetworkTrainer, TrainingData
from similarity_retrieval.datasets import Templates, load
from similarity_retrieval.inputs import EvaluateConfig, load_inputs
from similarity_retrieval.method import Features, baseline_scores, crl_scores, target_ranks

OBJECT_TASKS = ["focus_object", "change_object"]
WIDTH, VALUES = 97, 156  # DeepFashion: K of the aligned bases, values of an attribute
STORED_DIM = 64  # of the embeddings in a cache of millions: the memory does not depend on it
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
    ranked: tuple[int, int] = (20_000, 80_000)  # queries, candidates to measure memory
    timed: tuple[int, int] = (2000, 20_000)  # queries, candidates to measure time
    explored: int = 5000  # pictures for explore.py
    triplets: int = 8  # per step of stage 2
    steps: int = 8
    rounds: int = 3


QUICK = Sizes(8, 4, 50, 60, (100, 1_000, 2_000), (10, 200_000), (20, 200), 8, 2, 2, 1)


class Bench:
    """The sizes, models and photos that measurements share; each is made at first use."""

    def __init__(self, work: Path, sizes: Sizes, quick: bool, genecis: Path | None) -> None:
        self.work, self.sizes, self.quick, self.genecis = work, sizes, quick, genecis

    @cached_property
    def model(self) -> str:
        return self.tiny if self.quick else save_model(self.work / "model")

    @cached_property
    def tiny(self) -> str:
        return save_model(self.work / "tiny", TINY)

    @cached_property
    def photos(self) -> list[Path]:
        return draw(self.work / "photos", map(str, range(self.sizes.photos)), (640, 480))


# --- measurements: each gives a row of the table --------------------------------------------------


def cache(bench: Bench) -> list[str]:
    prompts = TextBasis.load("clevr4_shape").prompts[: bench.sizes.photos]
    found = []

    def embed() -> None:
        vlm = load_vlm(bench.model)
        folder = bench.work / "cache"
        image = np.array(embed_images(vlm, bench.photos, folder, bench.sizes.batch).image)
        found.append((image, embed_texts(vlm, prompts, folder)))

    first = seconds(embed)
    second = statistics.median(seconds(embed) for _ in range(bench.sizes.rounds))
    for again in found[1:]:
        must_agree("the cache", found[0], again, tolerance=0)
    counts = f"{len(bench.photos)} images, {len(prompts)} texts, loading the model included"
    return [
        "first run / second run (cache)",
        "computing all embeddings; finding them in the cache",
        f"{first:.2f} s, {second:.2f} s: {counts}",
        f"{first / second:.2f} x",
    ]


def path(bench: Bench) -> list[str]:
    vlm, batch, photos = load_vlm(bench.model), bench.sizes.batch, bench.photos
    pixels = torch.stack([vlm.preprocess(Image.open(file)) for file in photos[:batch]])
    pixels = pixels.to(vlm.device)

    def bare() -> None:
        for _ in range(len(photos) // batch):
            last = vlm.encode_images(pixels)
        last.cpu()  # waits for a GPU

    def whole() -> None:
        with tempfile.TemporaryDirectory(dir=bench.work) as folder:
            embed_images(vlm, photos, Path(folder), batch)

    there = embed_images(vlm, photos[:batch], None, batch).image
    must_agree("the embedding path", there, vlm.encode_images(pixels).cpu().numpy(), 1e-4)
    bare_time, whole_time = in_turn(bench.sizes.rounds, bare, whole)
    rates = [len(photos) / t for t in (whole_time, bare_time)]
    return [
        "embedding path / bare forward",
        "read, decode, preprocess, forward, store; the model on ready tensors",
        f"{rates[0]:.1f}, {rates[1]:.1f} images/s on 640x480",
        f"{rates[0] / rates[1]:.2f} x",
    ]


def embedding_memory(bench: Bench) -> list[str]:
    folder = bench.work / "many"
    draw(folder, map(str, range(bench.sizes.images)), (64, 64))
    (peak,) = in_own_process("embedding", bench.tiny, folder, bench.work / "many-cache")
    return [
        f"peak memory of embedding {bench.sizes.images} images",
        "growth of a process of its own, its share of mapped files included",
        f"{bench.sizes.images} images, beyond the loaded model",
        f"{peak:.0f} MB",
    ]


def known(bench: Bench) -> list[str]:
    folder, cache, count = bench.work / "known", bench.work / "known-cache", bench.sizes.known
    folder.mkdir()
    for number in range(count):
        (folder / f"{number}.jpg").write_text(str(number))  # is never decoded
    contents = (str(number).encode() for number in range(count))
    fill(cache, map(content_digest, contents), count)
    peak, spent = in_own_process("known", folder, cache)
    return [
        f"peak memory of finding {count} images in the cache",
        "growth of a process of its own: embed_images when all are stored",
        f"{count} files of a few bytes, {spent:.1f} s",
        f"{peak:.0f} MB",
    ]


def store(bench: Bench) -> list[str]:
    """The memory of an open store grows by `slope` per row."""
    found, files, size = [], [], []
    for count in bench.sizes.stored:
        cache, digests = bench.work / f"stored-{count}", np.random.default_rng(count)
        fill(cache, (digests.bytes(16) for _ in range(count)), count)
        shards = list(cache.rglob(f"*{SHARD}"))
        files.append(len(shards))
        size.append(sum(file.stat().st_size for file in shards) / 1e6)
        found.append(in_own_process("store", cache))
    spent, anonymous, resident, peak = zip(*found, strict=True)
    slope = (anonymous[-1] - anonymous[0]) / (bench.sizes.stored[-1] - bench.sizes.stored[0])

    def listed(values: Any, form: str) -> str:
        return " / ".join(format(value, form) for value in values)

    return [
        "memory of the open cache, per million rows",
        "growth of RssAnon in a process of its own, beyond an empty cache",
        f"{listed(bench.sizes.stored, ',')} rows of {STORED_DIM}: opened in {listed(spent, '.2f')} "
        f"s, RssAnon {listed(anonymous, '.1f')} MB, RSS {listed(resident, '.1f')} MB, peak "
        f"{listed(peak, '.0f')} MB, {listed(files, 'd')} files of {listed(size, '.0f')} MB",
        f"{slope * 1e6:.1f} MB",
    ]


def fill(cache: Path, digests: Iterable[bytes], count: int) -> None:
    """A cache of `count` embeddings with the fingerprint `benchmark`."""
    rng, digests = np.random.default_rng(0), iter(digests)
    # Larger batches than usual, so that the small shards, which are merged, are not that many.
    batches = (list(islice(digests, 4_096)) for _ in range(0, count, 4_096))
    with open_store("benchmark", "image", cache) as opened:
        opened.add_all((part, rng.random((len(part), STORED_DIM), np.float32)) for part in batches)


def posterior(bench: Bench) -> list[str]:
    rng, images = np.random.default_rng(0), bench.sizes.images
    image, text = l2(rng.normal(size=(images, 512))), l2(rng.normal(size=(WIDTH, 512)))
    image, text = image.astype(np.float32), text.astype(np.float32)
    crl = ConditionalProjection(text, normalise="posterior").fit(image)
    r = project(image, text)  # R = I Tᵀ
    in_doubles = np.exp(r.astype(float) / spread(r))
    slow = np.sqrt(in_doubles / in_doubles.sum(axis=1, keepdims=True))
    must_agree("the posterior", crl.transform(image), slow, 1e-4)
    product, whole = in_turn(
        bench.sizes.rounds, lambda: project(image, text), lambda: crl.transform(image)
    )
    return [
        "posterior / matrix product alone",
        "ConditionalProjection.transform, which includes the product; I @ T.T",
        f"{whole:.2f} s, {product:.2f} s: {images} images, {WIDTH} texts",
        f"{whole / product:.2f} x",
    ]


def explore(bench: Bench) -> list[str]:
    images, cache = bench.sizes.explored, {**os.environ, "CRL_CACHE": str(bench.work / "explored")}
    folder = bench.work / "pictures"
    drawn = draw(bench.work / "drawn", map(str, range(min(images, 500))), (640, 480))
    folder.mkdir()
    for number in range(images):  # drawing all would take longer than what is measured
        picture = Image.open(drawn[number % len(drawn)])
        turn = number // len(drawn)
        channels = np.roll(np.asarray(picture), (turn % 3, 60 * turn), axis=(2, 1))
        Image.fromarray(channels).save(folder / f"{number}.jpg", quality=90)

    def look(*criteria: str) -> None:
        names = [word for name in criteria for word in ("--criterion", name)]
        script = Path(__file__).with_name("explore.py")
        place = ["--vlm", "demo", "--out", str(bench.work / "out")]
        line = [sys.executable, str(script), str(folder), *place, *names]
        subprocess.run(line, env=cache, stdout=subprocess.DEVNULL, check=True)

    embed = f"from crl import Collection; Collection.embed({str(folder)!r}, 'demo')"
    subprocess.run([sys.executable, "-c", embed], env=cache, check=True)
    two = ("clevr4_color", "genecis_scene")
    first, again = (seconds(lambda: look(*two)) for _ in range(2))
    more = seconds(lambda: look(*two, "deepfashion_fabric"))
    page = (bench.work / "out/report.html").stat().st_size / 1e6
    return [
        "first look / second look (explore.py)",
        "thumbnails, clusters, maps, page, after embedding; the same again",
        f"{first:.0f} s, {again:.0f} s, a third criterion {more:.0f} s: {images} images of "
        f"640x480, 2 criteria, page of {page:.0f} MB",
        f"{first / again:.2f} x",
    ]


def ranking_memory(bench: Bench) -> list[str]:
    queries, candidates = bench.sizes.ranked
    (peak,) = in_own_process("ranking", queries, candidates)
    return [
        f"peak memory of mAP {queries} x {candidates}",
        "growth of a process of its own",
        f"{queries} x {candidates}, embeddings included",
        f"{peak:.0f} MB",
    ]


def encodes(bench: Bench) -> list[str]:
    data, encoded = load(OBJECT_TASKS, bench.genecis), 0
    draw(bench.work / "coco" / "val2017", (name.zfill(12) for name in data.ids), (64, 64))
    config = EvaluateConfig(
        root=bench.genecis,
        tasks=OBJECT_TASKS,
        coco=bench.work / "coco",
        vlm=bench.tiny,
        cache=bench.work / "encodes",
    )
    encode_images = LoadedVLM.encode_images

    def counted(vlm: LoadedVLM, batch: torch.Tensor) -> torch.Tensor:
        nonlocal encoded
        encoded += len(batch)
        return encode_images(vlm, batch)

    with patch.object(LoadedVLM, "encode_images", counted):
        list(load_inputs(config))
    theirs = sum(task.gallery.size + len(task.reference) for task in data.tasks.values())
    return [
        "GeneCIS: encodes here / one template at a time",
        "each image once; 16 images per template, as the authors",
        f"{encoded}, {theirs} images",
        f"{encoded / theirs:.3f} x",
    ]


def scoring(bench: Bench) -> list[str]:
    data, rng = load(OBJECT_TASKS, bench.genecis), np.random.default_rng(0)
    M, C, P, K, D = len(data.ids), len(data.conditions), 5, 229, 512  # ViT-B/16, genecis_scene
    image, plain, prompted, text = map(rng.standard_normal, ((M, D), (C, D), (C, P, D), (K, D)))

    def together(dtype: type = np.float32) -> list[np.ndarray]:
        """How many candidates are above the target: (4, B) per task."""
        features = Features(*(x.astype(dtype) for x in (image, plain, prompted)))
        r = l2(project(features.unit_image, l2(text).astype(dtype)))  # R = I Tᵀ
        found = []
        for task in data.tasks.values():
            scores = {**baseline_scores(features, task), "crl": crl_scores(features, task, r)}
            found.append(np.stack([target_ranks(score)[0] for score in scores.values()]))
        return found

    def one_by_one(dtype: type = np.float32) -> list[np.ndarray]:
        tensors = [torch.from_numpy(x.astype(dtype)) for x in (image, plain, prompted, l2(text))]
        methods = ("image", "text", "image+text", "crl")
        return [
            np.array([[one_rank(m, task, b, *tensors) for b in range(len(task.gallery))]
                      for m in methods])
            for task in data.tasks.values()
        ]  # fmt: skip

    # In float32 the scores of two candidates may differ by less than the rounding error.
    must_agree("the ranks", one_by_one(np.float64), together(np.float64), tolerance=0)
    slow, fast = in_turn(bench.sizes.rounds, one_by_one, together)
    templates = sum(len(task.gallery) for task in data.tasks.values())
    return [
        "GeneCIS: scoring one template at a time / together",
        "a loop over templates, as the authors; matrix products; equal ranks",
        f"{slow:.3f} s, {fast:.3f} s: {templates} templates, 4 methods",
        f"{slow / fast:.1f} x",
    ]


def one_rank(method: str, task: Templates, b: int, image, plain, prompted, text) -> int:
    """How many candidates are above the target of template b, computed as in the authors' code."""
    unit = partial(F.normalize, dim=-1)
    r, c = image[task.reference[b]][None], plain[task.condition[b]][None]  # (1, D)
    g = unit(image[torch.from_numpy(task.gallery[b])])  # (G, D)
    if method == "crl":
        scene = unit(unit(r @ text.T) @ unit(g @ text.T).T)  # (1, G)
        asked = unit((unit(prompted[task.condition[b]]) @ g.T).mean(0, keepdim=True))
        scores = 10 * scene + asked
    else:
        query = {"image": r, "text": c, "image+text": 0.5 * r + 0.5 * c}[method]
        scores = unit(query) @ g.T
    # A target that stands twice in its gallery ties with itself, up to rounding.
    return int((scores[0, 1:] - scores[0, 0] > 1e-9).sum())


def ranking(bench: Bench) -> list[str]:
    x, query, candidate = random_tables(*bench.sizes.timed)

    def here() -> float:
        return retrieval_precision(lambda images, _: x[images], query, candidate).mean()

    def authors() -> float:
        far = x[candidate[:, 0]]
        each = [listed_precision(far @ x[n], candidate[:, 2] == value) for n, _, value in query]
        return float(np.mean(each))

    must_agree("mAP", authors(), here(), 1e-6)
    slow, fast = in_turn(bench.sizes.rounds, authors, here)
    return [
        "mAP the authors' way / here",
        "argsort per query, then a Python list loop; sorting alone; equal mAP",
        f"{slow:.3f} s, {fast:.3f} s: {len(query)} x {len(candidate)}",
        f"{slow / fast:.1f} x",
    ]


def listed_precision(similarity: np.ndarray, relevant: np.ndarray) -> float:
    """Average precision of one query: argsort, then a loop over a Python list."""
    hits, total = 0, 0.0
    for rank, hit in enumerate(relevant[np.argsort(-similarity)].tolist(), 1):
        if hit:
            hits += 1
            total += hits / rank
    return total / hits if hits else 0.0


def random_tables(queries: int, candidates: int) -> tuple[np.ndarray, ...]:
    """Unit rows (Q + C, K), and queries (Q, 3) and candidates (C, 3) of one attribute."""
    rng, n = np.random.default_rng(0), queries + candidates
    x = l2(rng.standard_normal((n, WIDTH), np.float32))
    rows = np.column_stack([np.arange(n), np.zeros(n, int), rng.integers(VALUES, size=n)])
    return x, rows[:queries], rows[queries:]


class TimedTrainer(NetworkTrainer):
    """Stage 2 without writing weights; it records the start time and the loss of each step."""

    def prepare(self) -> None:
        self.begun: list[float] = []
        self.losses: list[float] = []
        self.train_network(self.network)

    def step(self, batch: tuple[torch.Tensor, torch.Tensor, float]) -> float:
        self.begun.append(time.perf_counter())
        self.losses.append(super().step(batch))
        return self.losses[-1]

    def validate(self) -> dict[str, float]:
        return {}

    def keep(self) -> None: ...

    def _write_state(self) -> None: ...


def step(bench: Bench) -> list[str]:
    count, steps, attributes = bench.sizes.triplets, bench.sizes.steps, 5
    files = draw(bench.work / "garments", map(str, range(64)), (300, 300))
    labels = np.array([(n, a, (n + a) % 4) for a in range(attributes) for n in range(len(files))])
    names = [f"attribute {a}" for a in range(attributes)]
    data = TrainingData(names, TripletSampler(labels), labels[:1], labels[1:2], files)
    vlm = load_trainable(bench.model, None)
    torch.manual_seed(0)
    text = F.normalize(torch.randn(attributes, WIDTH, vlm.dim), dim=2)
    tower = trainable_tower(vlm, checkpointing=False)
    network = ConditionalNetwork(tower, vlm.preprocess, text, Heads(attributes, WIDTH))
    config = NetworkConfig(
        name="step", outputs=bench.work, epochs=1, lr=1e-6,
        batch_size=count, triplets=count * (steps + 1),
    )  # fmt: skip
    trainer = TimedTrainer(config, data, "benchmark", "crl", "none")
    trainer.network = network.to(vlm.device)
    trainer.prepare()
    pixels, attribute, _ = next(iter(trainer.batches(0, 0)))

    def bare() -> float:
        trainer.optimizer.zero_grad()
        embedded = network.embed(network.tower(pixels), attribute.repeat(3))
        anchor, positive, negative = embedded.unflatten(0, (3, -1))
        loss = triplet_loss(anchor, positive, negative, config.margin)
        loss.backward()
        return loss.item()

    network.train()
    loss = bare()  # before any training
    with redirect_stdout(io.StringIO()):
        trainer.run()
    must_agree("the loss of the first step", loss, trainer.losses[0], 1e-4)
    whole = statistics.median(np.diff(trainer.begun))
    bare_time = statistics.median(
        seconds(lambda: (bare(), trainer.optimizer.step())) for _ in range(steps)
    )
    sides = f"{whole:.3f} s, {bare_time:.3f} s: {count} triplets of 300x300, {vlm.device.type}"
    return [
        "stage 2 step / bare step",
        "the training loop with decoding; forward, backward, Adam on ready tensors",
        sides,
        f"{whole / bare_time:.2f} x",
    ]


MEASUREMENTS: dict[str, Callable[[Bench], list[str]]] = {
    measure.__name__: measure
    for measure in (
        cache, path, posterior, explore, embedding_memory, known, store, ranking_memory,
        encodes, scoring, ranking, step,
    )
}  # fmt: skip
NEED_GENECIS = {"encodes", "scoring"}

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


def in_own_process(*arguments: Any) -> list[float]:
    """The result of `weigh` in a new process, which excludes this process."""
    line = [sys.executable, __file__, "--weigh", *map(str, arguments)]
    printed = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=True).stdout
    return [float(number) for number in printed.split()]


def weigh(what: str, *arguments: str) -> list[float]:
    """By how many MB the peak memory of this process grows, and for some more numbers."""
    if what == "store":  # seconds; MB: without mapped files, with them, peak
        kinds, place = ("RssAnon", "VmRSS", "VmHWM"), Path(arguments[0])
        with open_store("another", "image", place):
            empty_one = [memory(kind) for kind in kinds]
        start = time.perf_counter()
        with open_store("benchmark", "image", place) as opened:
            spent = time.perf_counter() - start
            full_one = [memory(kind) for kind in kinds]
            del opened  # which was in memory until now
        return [spent, *(full - none for full, none in zip(full_one, empty_one, strict=True))]
    if what == "known":  # MB, seconds
        stored: Any = SimpleNamespace(name="stored", fingerprint="benchmark")
        files = [*Path(arguments[0]).iterdir()]
        empty = peak_memory()
        spent = seconds(lambda: embed_images(stored, files, Path(arguments[1])))
        return [peak_memory() - empty, spent]
    if what == "embedding":
        model, folder, cache = arguments
        vlm = load_vlm(model)
        vlm.encode_images(torch.zeros(64, 3, 224, 224, device=vlm.device))
        vlm.fingerprint  # noqa: B018 - computed here: it is the model's
        before = peak_memory()
        embed_images(vlm, sorted(Path(folder).iterdir()), Path(cache)).image.sum()
    else:
        before = peak_memory()
        x, query, candidate = random_tables(*map(int, arguments))
        retrieval_precision(lambda images, _: x[images], query, candidate)
    return [peak_memory() - before]


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


@command
def main(argv: list[str]) -> None:
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"of {', '.join(MEASUREMENTS)}")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--genecis", type=Path, metavar="FOLDER", help="its two object tasks")
    parser.add_argument("--weigh", nargs="+", help=argparse.SUPPRESS)  # see `in_own_process`
    arguments = parser.parse_args(argv)
    if arguments.weigh:
        print(*weigh(*arguments.weigh))
        return
    for name in arguments.only or []:
        if name not in MEASUREMENTS:
            raise UserError(f"unknown measurement {name!r}; {nearest(name, MEASUREMENTS)}")
    rows, sizes = [], QUICK if arguments.quick else Sizes()
    with tempfile.TemporaryDirectory() as work:
        bench = Bench(Path(work), sizes, arguments.quick, arguments.genecis)
        for name, measure in MEASUREMENTS.items():
            if arguments.only and name not in arguments.only:
                continue
            if name in NEED_GENECIS and not arguments.genecis:
                print(f"{name}: skipped, it needs --genecis FOLDER")
                continue
            print(f"measuring {name} ...", flush=True)
            rows.append(measure(bench))
    model = "tiny model, sizes that say nothing" if arguments.quick else "ViT-B/32"
    title = f"{model}, random weights, {torch.get_num_threads()} threads"
    print(aligned(title, ["measurement", "what is compared", "sides", "measured"], rows, left=3))


if __name__ == "__main__":
    main()
