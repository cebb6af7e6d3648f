"""Millions of images: the cache, search, k-means, and Ray."""

import importlib.util
import io
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import redirect_stdout
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import embed_ray
import numpy as np
import pyarrow.parquet as pq
from crl.run.cache import SHARD, content_digest, open_store

from crl.embed import embed_images
from crl.projection import ConditionalProjection, l2, project
from crl.run.tables import aligned
from crl.search import Criterion, Index, build_faiss, build_index, sample, stream_clusters
from crl.search import search as find_rows
from crl.vlm import load_vlm
from measurements.common import (
    Bench,
    draw_worlds,
    in_own_process,
    in_turn,
    memory,
    must_agree,
    peak_memory,
    peak_of_own_memory,
    seconds,
)

RAY, FAISS = (importlib.util.find_spec(name) is not None for name in ("ray", "faiss"))
STORED_DIM = 64  # of the embeddings in a cache of millions: the memory does not depend on it
SEARCHED = 512  # D of what is searched
QUERIES = 16
TEXTS, CLUSTERS = 200, 10  # of k-means
OTHERS = ("numpy", "build", "faiss_per_s", "recall", "flat_per_s")
HEAD = [
    "rows", "texts", "first", "queries/s", "posterior", "own MB", "MB",
    "NumPy", "FAISS build", "FAISS queries/s", "recall@10", "flat queries/s",
]  # fmt: skip


def known(bench: Bench) -> list[str]:
    folder, cache, count = bench.work / "known", bench.work / "known-cache", bench.sizes.known
    folder.mkdir()
    for number in range(count):
        (folder / f"{number}.jpg").write_text(str(number))  # is never decoded
    contents = (str(number).encode() for number in range(count))
    fill(cache, map(content_digest, contents), count)
    peak, spent = in_own_process("find_known", folder, cache)
    return [
        f"peak memory of finding {count} images in the cache",
        "growth of a process of its own: embed_images when all are stored",
        f"{count} files of a few bytes, {spent:.1f} s",
        f"{peak:.0f} MB",
    ]


def find_known(folder: str, cache: str) -> list[float]:
    """MB by which the peak memory grows, and seconds."""
    vlm: Any = SimpleNamespace(name="stored", fingerprint="benchmark")
    files = [*Path(folder).iterdir()]
    before = peak_memory()
    spent = seconds(lambda: embed_images(vlm, files, Path(cache)))
    return [peak_memory() - before, spent]


def store(bench: Bench) -> list[str]:
    """The memory of an open store grows by `slope` per row."""
    found, files, size = [], [], []
    for count in bench.sizes.stored:
        cache, digests = bench.work / f"stored-{count}", np.random.default_rng(count)
        fill(cache, (digests.bytes(16) for _ in range(count)), count)
        shards = list(cache.rglob(f"*{SHARD}"))
        files.append(len(shards))
        size.append(sum(file.stat().st_size for file in shards) / 1e6)
        found.append(in_own_process("open_stored", cache))
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


def open_stored(cache: str) -> list[float]:
    """Seconds to open a full cache; its MB beyond an empty one: without mapped files, with them,
    peak."""
    kinds = ("RssAnon", "VmRSS", "VmHWM")
    with open_store("another", "image", Path(cache)):
        empty = [memory(kind) for kind in kinds]
    start = time.perf_counter()
    with open_store("benchmark", "image", Path(cache)) as opened:
        spent = time.perf_counter() - start
        full = [memory(kind) for kind in kinds]
        del opened  # which was in memory until now
    return [spent, *(one - none for one, none in zip(full, empty, strict=True))]


def fill(cache: Path, digests: Iterable[bytes], count: int) -> None:
    """A cache of `count` embeddings with the fingerprint `benchmark`."""
    rng, digests = np.random.default_rng(0), iter(digests)
    # Larger batches than usual, so that the small shards, which are merged, are not that many.
    batches = (list(islice(digests, 4_096)) for _ in range(0, count, 4_096))
    with open_store("benchmark", "image", cache) as opened:
        opened.add_all((part, rng.random((len(part), STORED_DIM), np.float32)) for part in batches)


def search(bench: Bench) -> list[str]:
    """Prints a table of its own: one row for each number of rows and of texts."""
    rows, firsts, ratio = [], {}, ""
    for count in bench.sizes.indexed:
        folder = bench.work / f"index-{count}"
        built = in_own_process("write_index", folder, count)
        size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
        print(f"{count:,} rows: built in {built:.1f} s, {size:,.0f} MB on disk", flush=True)
        for texts in bench.sizes.words:
            exact = in_own_process("search_exactly", folder, texts)
            firsts[count, texts] = exact["first"]
            other = in_own_process("search_otherwise", folder, texts)
            if "numpy" in other:
                sides = (
                    f"{other['numpy']:.2f}, {exact['first']:.2f} s: {count:,} rows, {texts} texts"
                )
                ratio = f"{other['numpy'] / exact['first']:.2f} x"
            names = ("first", "per_s", "posterior", "anonymous", "resident")
            values = [f"{exact[name]:.2f}" for name in names]
            values += [f"{other[name]:.3f}" if name in other else "-" for name in OTHERS]
            rows.append([f"{count:,}", str(texts), *values])
            print(" ".join(f"{h}={v}" for h, v in zip(HEAD, rows[-1], strict=True)), flush=True)
        shutil.rmtree(folder)
    title = (
        "Search: seconds of the first query of a criterion (paper's; posterior), queries/s, 16 at "
        "once (paper's), MB of memory (own; with mapped files); NumPy: project, l2, sort; FAISS: "
        "on the representation, recall@10; flat: FAISS on I, which no criterion changes"
    )
    print(aligned(title, HEAD, rows, left=0))
    few, many, texts = bench.sizes.indexed[0], bench.sizes.indexed[-1], bench.sizes.words[0]
    growth = np.log(firsts[many, texts] / firsts[few, texts]) / np.log(many / few)
    return [
        "NumPy brute force / exact search, first query",
        "project, l2, sort; crl.search, the criterion's factors included; equal rows",
        f"{sides}; from {few:,} to {many:,} rows its time grows with the power {growth:.2f}",
        ratio,
    ]


def synthetic(rng: np.random.Generator, rows: int, shared: np.ndarray) -> np.ndarray:
    """Unit rows (rows, D) as of a VLM: half of the squared length is a direction that all share;
    in the rest, the variances fall like 1 / i."""
    variance = 1 / np.arange(1, SEARCHED + 1)
    rest = rng.standard_normal((rows, SEARCHED), np.float32)
    rest *= np.sqrt(variance / variance.sum()).astype(np.float32)
    return l2(l2(shared) + rest)


def write_index(folder: str, rows: str) -> float:
    """Seconds to write an index of synthetic images, without drawing them."""
    count, rng, drawing = int(rows), np.random.default_rng(0), 0.0
    shared = rng.standard_normal(SEARCHED).astype(np.float32)

    def parts() -> Iterator[tuple[list[str], np.ndarray]]:
        nonlocal drawing
        for start in range(0, count, 10_000):
            begun = time.perf_counter()
            image = synthetic(rng, min(10_000, count - start), shared)
            drawing += time.perf_counter() - begun
            yield [f"{start + i:08}.jpg" for i in range(len(image))], image

    whole = seconds(lambda: build_index(Path(folder), parts(), "synthetic"))
    return whole - drawing


def criterion(folder: Path, texts: int) -> tuple[np.ndarray, list[ConditionalProjection]]:
    """I of an index, and synthetic texts: their cosines with the images are about 0.2. The paper's
    representation, and the posterior, whose sigma is learned here."""
    image, rng = Index.open(folder).image, np.random.default_rng(1)
    other = rng.standard_normal(SEARCHED).astype(np.float32)
    text = synthetic(rng, texts, 0.4 * l2(sample(image, 1000).mean(axis=0)) + l2(other))
    return image, [ConditionalProjection(text), ConditionalProjection(text, normalise="posterior")]


def search_exactly(folder: str, texts: str) -> dict[str, float]:
    """Exact search in this process; see `search`."""
    with peak_of_own_memory() as anonymous:
        image, (paper, posterior) = criterion(Path(folder), int(texts))
        own = np.linspace(0, len(image) - 1, QUERIES).astype(int)

        def find(projection: ConditionalProjection, rows: np.ndarray) -> None:
            projection.fit(image[:1] if projection is paper else sample(image))
            query = projection.transform(np.asarray(image[rows], float))
            find_rows(image, [Criterion(projection, query)], 10)

        found = {
            "first": seconds(lambda: find(paper, own[:1])),
            "per_s": QUERIES / seconds(lambda: find(paper, own)),
            "posterior": seconds(lambda: find(posterior, own[:1])),
        }
    return {**found, "anonymous": max(anonymous), "resident": peak_memory()}


def search_otherwise(folder: str, texts: str) -> dict[str, float]:
    """NumPy and FAISS; left out where R or I would take more than 2 GB, or FAISS is missing."""
    image, (paper, _) = criterion(Path(folder), int(texts))
    paper.fit(image[:1])
    own, found = np.linspace(0, len(image) - 1, QUERIES).astype(int), {}
    queries = np.asarray(image[own], np.float32)
    if len(image) * max(int(texts), SEARCHED) * 4 < 2.1e9:
        whole = np.asarray(image, np.float32)

        def brute() -> np.ndarray:
            r = l2(project(l2(whole), paper.text_))
            return np.argsort(-(r @ r[own[0]]), kind="stable")[:10]

        found["numpy"] = seconds(brute)
        exact = find_rows(image, [Criterion(paper, paper.transform(queries[:1]))], 10)
        must_agree("search", np.sort(exact.rows[0][:5]), np.sort(brute()[:5]), 0)
    if FAISS:
        import faiss

        if "numpy" in found:
            flat = faiss.IndexFlatIP(SEARCHED)
            flat.add(whole)
            found["flat_per_s"] = QUERIES / seconds(lambda: flat.search(queries, 10))
            del flat, whole
        begun = time.perf_counter()
        built = build_faiss(image, paper)
        found |= {"build": time.perf_counter() - begun, "recall": built.recall}
        query = paper.transform(queries)
        found["faiss_per_s"] = QUERIES / seconds(lambda: built.search(image, query, 10))
    return found


def clusters(bench: Bench) -> list[str]:
    count, folder = bench.sizes.clustered, bench.work / "clustered"
    in_own_process("write_index", folder, count)
    spent, peak = in_own_process("cluster_rows", folder)
    shutil.rmtree(folder)
    return [
        f"peak memory of k-means of {count:,} images",
        "growth of a process of its own, without mapped files: mini-batches over an index",
        f"{CLUSTERS} clusters, {TEXTS} texts, D = {SEARCHED}: {spent:.1f} s",
        f"{peak:.0f} MB",
    ]


def cluster_rows(folder: str) -> list[float]:
    """Seconds, and MB by which the peak memory without mapped files grows."""
    image, (paper, _) = criterion(Path(folder), TEXTS)
    paper.fit(image[:1])
    with peak_of_own_memory() as anonymous:
        before = memory("RssAnon")
        spent = seconds(lambda: stream_clusters(image, paper, CLUSTERS))
    return [spent, max(anonymous) - before]


def ray(bench: Bench) -> list[str]:
    folder, vlm = bench.work / "clevr", load_vlm("demo")
    draw_worlds(folder, bench.sizes.drawn, "clevr4")
    images, batch = embed_ray.find_images(str(folder)), bench.sizes.batch
    files = [Path(images.root, name) for name in images.names]
    found = []

    def alone() -> None:
        found.append(embed_images(vlm, files, None, batch).image)

    def whole() -> None:
        with tempfile.TemporaryDirectory(dir=bench.work) as out:
            embed_ray.embed(images, Path(out), "demo", "fp32", batch)
            parts = [pq.read_table(file) for file in sorted(Path(out).glob("*.parquet"))]
            rows = [part["embedding"].combine_chunks().flatten().to_numpy() for part in parts]
            found.append(np.concatenate(rows).reshape(len(files), -1))

    with redirect_stdout(io.StringIO()):
        alone_time, whole_time = in_turn(bench.sizes.rounds, alone, whole)
    for other in found[1:]:
        must_agree("the embeddings", found[0], other, 1e-4)
    rates = [len(files) / t for t in (whole_time, alone_time)]
    return [
        "embed_ray.py / embed_images, both on this machine",
        "Ray started and ended, parts written; the same images, kept nowhere",
        f"{rates[0]:.0f}, {rates[1]:.0f} images/s: {len(files)} of 128x128, demo VLM",
        f"{rates[0] / rates[1]:.2f} x",
    ]
