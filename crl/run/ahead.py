"""Work ahead in threads, while the caller uses earlier results."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch

AHEAD = 128  # items that are computed in advance


def ahead(work: Callable[[list], list], groups: Iterable[list], workers: int | None) -> Iterator:
    """The items of `work(group)`, one per item of the group, for all groups in order. `workers`
    threads; None: one per core, at most 8. Threads, because Pillow releases Python's lock;
    processes would start more slowly and need several times the memory."""
    workers = workers or min(8, os.cpu_count() or 1)
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
