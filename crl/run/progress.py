"""A progress bar on a terminal; elsewhere (nohup, CI, a log file) one line every 15 seconds."""

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

SECONDS = 15.0  # between two lines where there is no terminal


class _Lines(tqdm):
    """Prints whole lines instead of a bar that redraws itself; nothing if the work takes < 15 s."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(
            *arguments,
            **keywords,
            mininterval=SECONDS,
            maxinterval=SECONDS,
            delay=SECONDS,
            bar_format="{desc}: {n_fmt} of {total_fmt} ({unit}), {elapsed}, {remaining} to go",
        )

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        print(msg if msg is not None else str(self), file=self.fp, flush=True)
        return True

    def close(self) -> None:
        self.disable = True  # no last line: the caller's next output shows that the work is done


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
    kind = tqdm if sys.stderr.isatty() else _Lines
    return kind(
        iterable,
        desc=label,
        unit=unit,
        total=total,
        initial=done,
        file=sys.stderr,
        disable=not shown,
        leave=False,
    )
