"""The tasks: GeneCIS, mean average precision, and trainings."""

import io
import json
import statistics
import time
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F

from crl.backends.loaded import LoadedVLM
from crl.projection import l2, project
from crl.run.config import as_yaml, load_config
from crl.vlm import load_trainable
from fashion_retrieval import train_backbone, train_mlp, train_rival
from fashion_retrieval.heads import Heads
from fashion_retrieval.method import TripletSampler, retrieval_precision, triplet_loss
from fashion_retrieval.networks import ConditionalNetwork
from fashion_retrieval.train_backbone import trainable_tower
from fashion_retrieval.trainers import NetworkConfig, NetworkTrainer, TrainingData
from measurements.common import (
    BENCHMARK,
    Bench,
    draw,
    draw_worlds,
    in_own_process,
    in_turn,
    must_agree,
    peak_memory,
    seconds,
)
from similarity_retrieval import mine_triplets, train_combiner
from similarity_retrieval.datasets import Templates, load
from similarity_retrieval.inputs import EvaluateConfig, load_inputs
from similarity_retrieval.method import Features, baseline_scores, crl_scores, target_ranks

OBJECT_TASKS = ["focus_object", "change_object"]
WIDTH, VALUES = 97, 156  # DeepFashion: K of the aligned bases, values of an attribute


def ranking_memory(bench: Bench) -> list[str]:
    queries, candidates = bench.sizes.ranked
    peak = in_own_process("rank_many", queries, candidates)
    return [
        f"peak memory of mAP {queries} x {candidates}",
        "growth of a process of its own",
        f"{queries} x {candidates}, embeddings included",
        f"{peak:.0f} MB",
    ]


def rank_many(queries: str, candidates: str) -> float:
    """MB by which the peak memory grows."""
    before = peak_memory()
    x, query, candidate = random_tables(int(queries), int(candidates))
    retrieval_precision(lambda images, _: x[images], query, candidate)
    return peak_memory() - before


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


STAGES = (  # configuration in configs/demo, its class, what runs it, its folder in outputs
    ("mine", mine_triplets.MineConfig, mine_triplets.mine_triplets, "triplets"),
    ("combiner", train_combiner.TrainConfig, train_combiner.train, "combiner"),
    ("garments_mlp", train_mlp.MlpConfig, train_mlp.train, "fashion_mlp"),
    ("garments_backbone", train_backbone.BackboneConfig, train_backbone.train, "fashion_backbone"),
    ("garments_csn", train_rival.RivalConfig, train_rival.train, "fashion_rivals"),
)


def trainings(bench: Bench) -> list[str]:
    data = bench.work / "worlds"
    data.mkdir()
    draw_worlds(data, bench.sizes.trained, "scenes", "garments")
    full, half = (an_epoch_of_each(data, bench.work, p) for p in ("fp32", "bf16"))
    each = [
        f"{name} {full[name][0]:.1f}, {half[name][0]:.1f} s, loss {full[name][1]:.4f}, "
        f"{half[name][1]:.4f}"
        for name in full
    ]
    times = [sum(seconds for seconds, _ in side.values()) for side in (full, half)]
    return [
        "four trainings, fp32 / bf16",
        "an epoch of each, with the demo VLM: seconds, and the mean loss of its steps",
        "; ".join(each),
        f"{times[0] / times[1]:.2f} x",
    ]


def an_epoch_of_each(data: Path, work: Path, precision: str) -> dict[str, tuple[float, float]]:
    """Training: seconds, and the mean loss."""
    out, scenes, found = work / precision, data / "genecis/coco", {}
    usual = {"outputs": out, "precision": precision, "epochs": 1}
    clothes = usual | {"root": data / "garments", "triplets": 960}
    triplets = out / "triplets/demo/triplets.jsonl"
    graphs = scenes / "annotations/relations_train2017.jsonl"
    changed: dict[str, dict[str, Any]] = {
        "mine": {"outputs": out, "graphs": graphs, "samples": 2000},
        "combiner": usual | {"triplets": triplets, "images": scenes},
        "garments_mlp": clothes,
        "garments_backbone": clothes | {"heads": out / "fashion_mlp/demo"},
        "garments_csn": clothes,
    }
    for name, kind, run, folder in STAGES:
        values = {k: str(v) if isinstance(v, Path) else v for k, v in changed[name].items()}
        overrides = [f"{key}={as_yaml(value)}" for key, value in values.items()]
        file = BENCHMARK.parent.parent / f"configs/demo/{name}.yaml"
        config: Any = load_config(kind, ["--config", str(file), *overrides], "")  # type: ignore[type-var]
        with redirect_stdout(io.StringIO()):
            spent = seconds(partial(run, config))
        if name != "mine":
            results = json.loads((out / folder / "demo/results.json").read_text())
            found[name] = spent, results["losses"][-1]
    return found
