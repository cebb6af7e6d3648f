"""Work that threads do ahead of the caller, such as reading and decoding images."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice

import numpy as np
import torch

AHEAD = 128  # items, e.g. images, that are computed in advance
MEASURED, MOST_THREADS = 32, 64  # groups, e.g. files, that are timed; threads


def ahead(work: Callable, groups: Iterator[list], workers: int | None) -> Iterator:
    """The items of `work(seconds, group)`, one per item of the group, for all groups in order, from
    `workers` threads. `work` appends to `seconds` how long it waited for a file, and its CPU
    seconds for decoding; without `workers`, those of the first files choose their number."""
    seconds: list[tuple[float, float]] = []
    work = partial(work, seconds)
    if not workers:
        cores = min(8, os.cpu_count() or 1)
        yield from _in_threads(work, islice(groups, MEASURED), cores)
        workers = _threads(cores, *np.sum(seconds or [(0, 0)], axis=0))
    yield from _in_threads(work, groups, workers)


def _threads(cores: int, waiting: float, decoding: float) -> int:
    """How many threads keep the cores busy, if each waits and decodes for so many seconds."""
    return min(MOST_THREADS, int(cores * (1 + waiting / max(decoding, 1e-6))))


def _in_threads(work: Callable[[list], list], groups: Iterable[list], workers: int) -> Iterator:
    """The items of `work(group)` for all groups in order, computed while the caller uses earlier
    ones. Threads, because Pillow releases Python's lock; processes would start more slowly and need
    several times the memory."""
    threads = torch.get_num_threads()
    pending: deque = deque()
    waiting = 0  # items in `pending`
    # Later threads inherit torch's number of threads from this one; so it is restored.
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            for group in groups:
                pending.append(pool.submit(work, group))
                torch.set_num_threads(threads)
                waiting += len(group)
                while waiting > AHEAD:
                    results = pending.popleft().result()
                    waiting -= len(results)
                    yield from results
            while pending:
                yield from pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)
