"""Trainings: to the end, interrupted, and in two processes."""

import itertools
import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest
import torch
import torch.multiprocessing as mp

from crl.run.distributed import process_group
from crl.run.training import Trainer


def finished(trainer: Trainer) -> tuple[Path, dict]:
    """The training's folder and its results.json."""
    trainer.run()
    return trainer.folder, json.loads((trainer.folder / "results.json").read_text())


@contextmanager
def interrupted(owner: object, name: str, call: int) -> Iterator[None]:
    """The block is interrupted in the given call of `owner.name`, counted from 1."""
    function, calls = getattr(owner, name), itertools.count(1)

    def counted(*arguments):
        if next(calls) == call:
            raise KeyboardInterrupt
        return function(*arguments)

    with mock.patch.object(owner, name, counted), pytest.raises(KeyboardInterrupt):
        yield


def in_two_processes(function: Callable[[int, Path], None], folder: Path) -> None:
    """`function(rank, folder)` in two processes of one group."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    mp.spawn(_one_of_two, (function, folder, port), nprocs=2)


def _one_of_two(rank: int, function: Callable[[int, Path], None], folder: Path, port: str) -> None:
    torch.set_num_threads(1)
    where = {"WORLD_SIZE": "2", "RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update(where)
    with process_group("cpu"):
        function(rank, folder)
