"""Embedding, the representation, and explore.py."""

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from crl.basis import TextBasis
from crl.embed import embed_images, embed_texts
from crl.projection import ConditionalProjection, l2, project, spread
from crl.vlm import load_vlm
from measurements.common import (
    Bench,
    draw,
    in_own_process,
    in_turn,
    must_agree,
    peak_memory,
    seconds,
)

TEXTS = 97  # K


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
    vlm, batch = load_vlm(bench.model, precision=bench.precision), bench.sizes.batch
    photos = bench.photos
    pixels = torch.stack([vlm.preprocess(Image.open(file)) for file in photos[:batch]])
    pixels = pixels.to(vlm.device)

    def bare() -> None:
        for _ in range(len(photos) // batch):
            last = vlm.encode_images(pixels)
        last.cpu()  # waits for a GPU

    def whole() -> None:
        with tempfile.TemporaryDirectory(dir=bench.work) as folder:
            embed_images(vlm, photos, Path(folder), batch, bench.workers)

    there = embed_images(vlm, photos[:batch], None, batch).image
    must_agree("the embedding path", there, vlm.encode_images(pixels).float().cpu().numpy(), 1e-4)
    bare_time, whole_time = in_turn(bench.sizes.rounds, bare, whole)
    rates = [len(photos) / t for t in (whole_time, bare_time)]
    return [
        "embedding path / bare forward",
        "read, decode, preprocess, forward, store; the model on ready tensors",
        f"{rates[0]:.1f}, {rates[1]:.1f} images/s on 640x480, {bench.precision}, {vlm.device.type}",
        f"{rates[0] / rates[1]:.2f} x",
    ]


def posterior(bench: Bench) -> list[str]:
    rng, images = np.random.default_rng(0), bench.sizes.images
    image, text = l2(rng.normal(size=(images, 512))), l2(rng.normal(size=(TEXTS, 512)))
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
        f"{whole:.2f} s, {product:.2f} s: {images} images, {TEXTS} texts",
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
        script = Path(__file__).parent.with_name("explore.py")
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


def embedding_memory(bench: Bench) -> list[str]:
    folder = bench.work / "many"
    draw(folder, map(str, range(bench.sizes.images)), (64, 64))
    peak = in_own_process("embed_many", bench.tiny, folder, bench.work / "many-cache")
    return [
        f"peak memory of embedding {bench.sizes.images} images",
        "growth of a process of its own, its share of mapped files included",
        f"{bench.sizes.images} images, beyond the loaded model",
        f"{peak:.0f} MB",
    ]


def embed_many(model: str, folder: str, cache: str) -> float:
    """MB by which the peak memory grows."""
    vlm = load_vlm(model)
    vlm.encode_images(torch.zeros(64, 3, 224, 224, device=vlm.device))
    vlm.fingerprint  # noqa: B018 - computed here: it is the model's
    before = peak_memory()
    embed_images(vlm, sorted(Path(folder).iterdir()), Path(cache)).image.sum()
    return peak_memory() - before
