"""A progress bar on a terminal; nothing elsewhere (nohup, CI, a log file)."""

import sys
from collections.abc import Iterable

from tqdm import tqdm


def progress(
    iterable: Iterable | None = None,
    *,
    label: str,
    unit: str,
    total: int | None = None,
    done: int = 0,
    shown: bool = True,
) -> tqdm:
    """A bar over `iterable`, or one that the caller updates.

    Args:
        label: name of the work; unit: what is counted.
        total: number of units, if `iterable` has no length.
        done: number of units that were finished before.
        shown: False in all but the first process of a distributed run.
    """
    return tqdm(
        iterable,
        desc=label,
        unit=f" {unit}",
        total=total,
        initial=done,
        file=sys.stderr,
        disable=None if shown else True,  # None: unless it is a terminal
        leave=False,
    )
