"""A progress bar on a terminal; elsewhere (nohup, CI, a notebook's log) a line every 15 seconds."""

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

SECONDS = 15.0  # between two lines where there is no terminal


class _Lines(tqdm):
    """Whole lines instead of a bar that redraws itself; work below 15 s prints none."""

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
        self.disable = True  # no last line: what follows says that the work is done


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
        label: what is under way; unit: what is counted.
        total: how many there are, where `iterable` has no length.
        done: how many were finished before.
        shown: False for the other processes of a distributed run.
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
