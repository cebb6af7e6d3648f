"""Commands in processes that end at a chosen rename, as a kill would end them.

Each process is forked from one that has imported torch already, so that it starts at once.
"""

import importlib
import itertools
import json
import multiprocessing
import os
import sys
import traceback
from pathlib import Path

import torch
from commands import REPOSITORY
from mistakes import COMMANDS

from crl.backends.torchvision_fix import import_torchvision

KILLED = 86
import_torchvision()
for module in ("open_clip", "matplotlib.pyplot", "sklearn.cluster", "sklearn.linear_model"):
    importlib.import_module(module)
fork = multiprocessing.get_context("forkserver")
fork.set_forkserver_preload(["killing"])


def finish(folder: Path, name: str, arguments: list[str], last: int | None = None) -> int:
    """Run the command `name` from `folder`, killed before rename `last`; -> its exit code."""
    former = os.environ.get("PYTHONPATH")
    paths = [REPOSITORY, REPOSITORY / "scripts", REPOSITORY / "scripts/demo", Path(__file__).parent]
    os.environ["PYTHONPATH"] = os.pathsep.join(map(str, paths))  # of the process that forks
    try:
        process = fork.Process(target=_run, args=(folder, name, arguments, last))
        process.start()
    finally:
        os.environ.pop("PYTHONPATH") if former is None else os.environ.update(PYTHONPATH=former)
    process.join()
    return process.exitcode


def _run(folder: Path, name: str, arguments: list[str], last: int | None) -> None:
    output = (folder / "printed").open("a")
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    os.chdir(folder)
    torch.set_num_threads(1)
    os.replace = _counted(os.replace, folder, last)
    sys.argv = [name, *arguments]
    code: object = 0
    try:
        COMMANDS[name][0]()
    except SystemExit as stop:
        code = stop.code
    except BaseException:
        traceback.print_exc()
        code = 1
    output.flush()
    os._exit(code if isinstance(code, int) else 1)


def _counted(rename, folder: Path, last: int | None):
    """`rename` that ends the process before it renames to a file below `folder` for the time
    `last`, from 0."""
    numbers = itertools.count()

    def counted(source, target):
        if Path(target).resolve().is_relative_to(folder.resolve()) and next(numbers) == last:
            os._exit(KILLED)
        rename(source, target)

    return counted


def contents(outputs: Path) -> dict[str, object]:
    """The files below `outputs` without times, in which undisturbed runs differ; state.pt, which
    holds some, is left out."""
    files = [file for file in sorted(outputs.rglob("*.*")) if file.suffix != ".pt"]
    return {
        str(file.relative_to(outputs)): _without_times(json.loads(file.read_text()))
        if file.suffix == ".json"
        else file.read_bytes()
        for file in files
    }


def _without_times(value):
    if isinstance(value, dict):
        return {k: _without_times(v) for k, v in value.items() if k not in ("seconds", "date")}
    return [_without_times(item) for item in value] if isinstance(value, list) else value
