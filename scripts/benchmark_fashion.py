"""What benchmark.py measures of fashion retrieval: mAP, a step of stage 1, a step of stage 2.

As a command, `benchmark_fashion.py QUERIES CANDIDATES WIDTH VALUES`, it prints its own peak memory.
"""

import io
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from crl.vlm import LoadedVLM
from fashion_retrieval.heads import Heads
from fashion_retrieval.method import TripletSampler, retrieval_precision, triplet_loss
from fashion_retrieval.networks import ConditionalNetwork
from fashion_retrieval.train_backbone import trainable_tower
from fashion_retrieval.trainers import NetworkConfig, NetworkTrainer, TrainingData

VALUES = (156, 218, 180, 216, 230)  # of DeepFashion's attributes (paper, Table 4)
WIDTH, OUT, BATCH, MARGIN = 97, 1024, 256, 0.3  # K of its bases; of stage 1


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def alternating(rounds: int, **sides: Callable[[], Any]) -> dict[str, list[float]]:
    """Seconds of each side in each round, turn and turn about: a machine that drifts hits all."""
    for work in sides.values():
        work()  # the first time is slower
    timed = [{name: seconds(work) for name, work in sides.items()} for _ in range(rounds)]
    return {name: [found[name] for found in timed] for name in sides}


def median_ratio(slow: list[float], fast: list[float]) -> float:
    return statistics.median(s / f for s, f in zip(slow, fast, strict=True))


# --- mAP ------------------------------------------------------------------------------------------


def ranking(queries: int, candidates: int, width: int, values: int, rounds: int) -> dict[str, Any]:
    """Average precision here, and query by query as the protocol says it."""
    x, query, candidate = _embedded(queries, candidates, width, values)
    found: dict[str, np.ndarray] = {}

    def here() -> None:
        found["here"] = retrieval_precision(lambda images, _: x[images], query, candidate)

    def query_by_query() -> None:
        far, asked = x[candidate[:, 0]], zip(query[:, 0], query[:, 2], strict=True)
        precision = [_sort_and_loop(far @ x[n], candidate[:, 2] == value) for n, value in asked]
        found["query_by_query"] = np.array(precision)

    timed = alternating(rounds, here=here, query_by_query=query_by_query)
    return {
        "ratio": median_ratio(timed["query_by_query"], timed["here"]),
        # Of mAP: a product of many queries and one of a single query differ in their last bits, so
        # that neighbours can change places and one query's precision its sixth digit.
        "difference": float(abs(found["here"].mean() - found["query_by_query"].mean())),
        "queries": queries,
        "candidates": candidates,
        "seconds": timed,
    }


def _embedded(queries: int, candidates: int, width: int, values: int) -> tuple[np.ndarray, ...]:
    """Unit rows (Q + C, width), queries (Q, 3) and candidates (C, 3) of one attribute."""
    rng, count = np.random.default_rng(0), queries + candidates
    x = rng.standard_normal((count, width), np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    value = rng.integers(values, size=count)
    rows = np.column_stack([np.arange(count), np.zeros(count, int), value])
    return x, rows[:queries], rows[queries:]


def _sort_and_loop(similarity: np.ndarray, relevant: np.ndarray) -> float:
    hits, total = 0, 0.0
    for rank, hit in enumerate(relevant[np.argsort(-similarity)], 1):
        if hit:
            hits += 1
            total += hits / rank
    return total / hits if hits else 0.0


def ranking_memory(*sizes: int) -> dict[str, float]:
    """Peak memory in MB of a process that does nothing else; sizes as those of `ranking`."""
    arguments = [sys.executable, __file__, *map(str, sizes)]
    answer = subprocess.run(arguments, stdout=subprocess.PIPE, text=True, check=True).stdout
    return json.loads(answer)


def _weigh(*sizes: int) -> dict[str, float]:
    before = peak_resident()
    x, query, candidate = _embedded(*sizes)
    rank = partial(retrieval_precision, lambda images, _: x[images], query, candidate)
    return {"seconds": seconds(rank), "before_mb": before, "peak_mb": peak_resident()}


def peak_resident() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6  # Linux counts in KiB


# --- stage 1 --------------------------------------------------------------------------------------


class OneByOne(Dataset):
    """Triplets drawn in Python, one at a time; item: (K,) three times, and the attribute."""

    def __init__(self, x: Tensor, labels: np.ndarray, count: int) -> None:
        self.x, self.count = x, count
        self.rows: dict[int, dict[int, list[int]]] = {}  # attribute -> value -> rows of x
        for row, (_, attribute, value) in enumerate(labels.tolist()):
            self.rows.setdefault(attribute, {}).setdefault(value, []).append(row)
        self.values = {
            attribute: [value for value, rows in found.items() if len(rows) > 1]
            for attribute, found in self.rows.items()
        }
        self.random = random.Random(0)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, _: int) -> tuple[Tensor, Tensor, Tensor, int]:
        attribute = self.random.randrange(len(self.rows))
        first, second = self.random.sample(self.values[attribute], 2)
        anchor, positive = self.random.sample(self.rows[attribute][first], 2)
        negative = self.random.choice(self.rows[attribute][second])
        return self.x[anchor], self.x[positive], self.x[negative], attribute


def stage_1(images: int, steps: int, rounds: int) -> dict[str, Any]:
    """Steps with triplets drawn together, as here, and one by one in Python."""
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    tables = [
        (np.arange(images), np.full(images, a), rng.integers(v, size=images))
        for a, v in enumerate(VALUES)
    ]
    sampler = TripletSampler(np.concatenate([np.column_stack(table) for table in tables]))
    x = F.normalize(torch.randn(len(sampler.labels), WIDTH), dim=1)
    attribute = torch.from_numpy(sampler.labels[:, 1])
    loader = DataLoader(OneByOne(x, sampler.labels, steps * BATCH), BATCH)
    heads = Heads(len(VALUES), WIDTH, OUT)
    adam = torch.optim.Adam(heads.parameters(), lr=1e-4, fused=True)  # as in train_mlp.py

    def drawn() -> Iterator[tuple[Tensor, ...]]:
        """(b, K) three times and (b,)."""
        for rows in torch.from_numpy(sampler.draw(steps * BATCH, 0)).split(BATCH):
            yield *x[rows.T], attribute[rows[:, 0]]

    def step(anchor: Tensor, positive: Tensor, negative: Tensor, attribute: Tensor) -> None:
        features = [heads(part, attribute) for part in (anchor, positive, negative)]
        _descend(adam, triplet_loss(*features, MARGIN))

    timed = alternating(
        rounds,
        sampler=lambda: list(drawn()),
        one_by_one=lambda: list(loader),
        whole=lambda: [step(*batch) for batch in drawn()],
        theirs=lambda: [step(*batch) for batch in loader],
    )
    return {
        "ratio": median_ratio(timed["theirs"], timed["whole"]),
        "sampler_ratio": median_ratio(timed["one_by_one"], timed["sampler"]),
        "triplets": steps * BATCH,
        "seconds": timed,
    }


def _descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    loss.item()
    optimizer.step()


# --- stage 2 --------------------------------------------------------------------------------------


def stage_2(
    vlm: LoadedVLM, files: list[Path], folder: Path, batch: int, steps: int, rounds: int
) -> dict[str, Any]:
    """Seconds of a step of NetworkTrainer, from the tower's beginning of one batch to that of the
    next, and of the bare step on tensors that are ready."""
    network = _network(vlm)
    device = vlm.device
    pixels = torch.randn(3 * batch, *vlm.preprocess(Image.open(files[0])).shape, device=device)
    attribute = torch.arange(batch, device=device) % len(VALUES)
    parameters = [p for p in network.parameters() if p.requires_grad]
    config = NetworkConfig(batch_size=batch, triplets=batch * (steps + 1), epochs=1, lr=1e-6)
    adam = torch.optim.Adam(parameters, lr=config.lr)

    def bare_step() -> None:
        embedded = network.embed(network.features(pixels, config.precision), attribute.repeat(3))
        _descend(adam, triplet_loss(*embedded.unflatten(0, (3, -1)), config.margin))

    bare_step()  # the first time is slower
    each: dict[str, list[list[float]]] = {"whole": [], "bare": []}
    for _ in range(rounds):
        each["whole"].append(_network_steps(network, config, _few_labels(files), folder))
        each["bare"].append([seconds(bare_step) for _ in range(steps)])
    whole, bare = ([statistics.median(found) for found in each[side]] for side in each)
    return {
        "ratio": median_ratio(whole, bare),
        "batch": batch,
        "workers": min(config.workers, os.cpu_count() or 1),
        "whole_seconds": statistics.median(whole),
        "bare_seconds": statistics.median(bare),
        "seconds": each,
    }


class Timed(NetworkTrainer):
    """A training that writes no checkpoint: of a gigabyte, it is no part of a step."""

    def __init__(
        self, config: NetworkConfig, data: TrainingData, network: ConditionalNetwork, folder: Path
    ) -> None:
        config = config.model_copy(update={"outputs": folder})
        super().__init__(config, data, "benchmark", "crl", "none")
        self.network = network

    def prepare(self) -> None:
        self.train_network(self.network)

    def keep(self) -> None:
        pass

    def _write_state(self) -> None:
        pass


def _network(vlm: LoadedVLM) -> ConditionalNetwork:
    generator = torch.Generator().manual_seed(0)
    text = torch.randn(len(VALUES), WIDTH, vlm.dim, generator=generator)
    heads = Heads(len(VALUES), WIDTH, OUT)
    tower = trainable_tower(vlm, checkpointing=False)
    return ConditionalNetwork(tower, vlm.preprocess, F.normalize(text, dim=2), heads).to(vlm.device)


def _few_labels(files: list[Path]) -> TrainingData:
    """Four values per attribute; a validation of one query and one candidate each."""
    A, n = len(VALUES), np.arange(len(files))
    rows = [np.column_stack([n, np.full_like(n, a), (n + a) % 4]) for a in range(A)]
    first, last = (np.stack([table[i] for table in rows]) for i in (0, -1))
    names = [f"attribute {a}" for a in range(A)]
    return TrainingData(names, TripletSampler(np.concatenate(rows)), first, last, files)


def _network_steps(
    network: ConditionalNetwork, config: NetworkConfig, data: TrainingData, folder: Path
) -> list[float]:
    """Seconds of each step of an epoch but the last."""
    begun: list[float] = []

    def begin(*_: Any) -> None:
        if torch.is_grad_enabled():  # training, not validation
            begun.append(time.perf_counter())

    hook = network.tower.register_forward_pre_hook(begin)
    with redirect_stdout(io.StringIO()):
        Timed(config, data, network, folder).run()
    hook.remove()
    return np.diff(begun).tolist()


if __name__ == "__main__":
    print(json.dumps(_weigh(*map(int, sys.argv[1:]))))
