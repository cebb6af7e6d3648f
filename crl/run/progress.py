"""A progress bar on a terminal; nothing elsewhere (nohup, CI, a log file)."""

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


def progress(
    iterable: Iterable | None = None, *, label: str, unit: str, done: int = 0, shown: bool = True,
    **options: Any
) -> tqdm:  # fmt: skip
    """A bar over `iterable`, or one that the caller updates. `done` units were finished before;
    `shown=False` in all but the first process of a distributed run."""
    disable = None if shown else True  # None: unless it is a terminal
    options |= {"unit": f" {unit}", "initial": done, "disable": disable}
    return tqdm(iterable, desc=label, file=sys.stderr, leave=False, **options)
