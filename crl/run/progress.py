"""A progress bar on a terminal; nothing elsewhere (nohup, CI, a log file)."""

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


class Bar(tqdm):
    """Estimates no time before three batches are done: the first ones load and warm up."""

    batch = 1  # units

    @property
    def format_dict(self) -> dict[str, Any]:
        early = self.n - self.initial < 3 * self.batch
        return {**super().format_dict, **({"rate": 0} if early else {})}


def progress(
    iterable: Iterable | None = None, *, label: str, unit: str, done: int = 0, shown: bool = True,
    batch: int = 1, **options: Any
) -> Bar:  # fmt: skip
    """A bar over `iterable`, or one that the caller updates. `done` units were finished before;
    `batch` units are done at once; `shown=False` in all but the first process of a distributed
    run."""
    disable = None if shown else True  # None: unless it is a terminal
    options |= {"unit": f" {unit}", "initial": done, "disable": disable}
    bar = Bar(iterable, desc=label, file=sys.stderr, leave=False, **options)
    bar.batch = batch
    return bar
