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
from unittest.mock import patch

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
    paths = [REPOSITORY, REPOSITORY / "scripts", REPOSITORY / "scripts/demo", Path(__file__).parent]
    with patch.dict(os.environ, PYTHONPATH=os.pathsep.join(map(str, paths))):  # of the forked one
        process = fork.Process(target=_run, args=(folder, name, arguments, last))
        process.start()
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
    return {str(f.relative_to(outputs)): _content(f) for f in files}


def _content(file: Path) -> object:
    def without_times(values: dict) -> dict:
        return {k: v for k, v in values.items() if not k.endswith("seconds") and k != "date"}

    if file.suffix != ".json":
        return file.read_bytes()
    return json.loads(file.read_text(), object_hook=without_times)
