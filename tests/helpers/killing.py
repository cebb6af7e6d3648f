"""Commands in processes that end at a chosen rename, as a kill would end them.

Each process is forked from one that has imported torch already, so that it starts at once.
"""

import hashlib
import importlib
import json
import os
import subprocess
import sys
import traceback
from pathlib import Path

import torch
from commands import REPOSITORY

from crl.backends.torchvision_fix import import_torchvision

KILLED = 86


class Renames:
    """Counts the renames below `folder`, and ends the process before the one with number `last`."""

    def __init__(self, last: int | None, folder: Path) -> None:
        self.last, self.folder, self.count = last, folder.resolve(), 0

    def around(self, rename):
        def counted(*arguments, **keywords):
            counts = Path(arguments[1]).resolve().is_relative_to(self.folder)
            if counts and self.count == self.last:
                os._exit(KILLED)
            rename(*arguments, **keywords)
            if counts:
                self.count += 1
                with (self.folder / "renames").open("a") as stream:
                    stream.write(f"{arguments[1]}\n")

        return counted


def run(folder: Path, command: list[str], last: int | None) -> None:
    """In a forked process: `command` from `folder`, killed before rename number `last`."""
    output = (folder / "printed").open("a")
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    os.chdir(folder)
    torch.set_num_threads(1)
    renames = Renames(last, folder)
    os.replace, os.rename = renames.around(os.replace), renames.around(os.rename)
    script, *sys.argv[1:] = command
    sys.argv[0] = script
    code: object = 0
    try:
        importlib.import_module(script.removesuffix(".py").replace("/", ".")).main()
    except SystemExit as stop:
        code = stop.code
    except BaseException:
        traceback.print_exc()
        code = 1
    output.flush()
    os._exit(code if isinstance(code, int) else 1)


class Forks:
    """The process that others are forked from; ends with the `with` block."""

    def __enter__(self) -> "Forks":
        paths = [REPOSITORY, REPOSITORY / "scripts", Path(__file__).parent]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
        line, pipe = [sys.executable, __file__], subprocess.PIPE
        self.process = subprocess.Popen(line, stdin=pipe, stdout=pipe, text=True, env=environment)
        return self

    def __exit__(self, *error: object) -> None:
        self.process.stdin.close()
        self.process.wait()

    def finish(self, folder: Path, command: list[str], last: int | None = None) -> int:
        """Run `command` from `folder`, killed before rename number `last`; -> its exit code."""
        self.process.stdin.write(json.dumps([str(folder), command, last]) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


def serve() -> None:
    import_torchvision()
    for module in ("open_clip", "matplotlib.pyplot", "sklearn.cluster", "sklearn.linear_model"):
        importlib.import_module(module)
    for line in sys.stdin:
        folder, command, last = json.loads(line)
        if not (child := os.fork()):
            run(Path(folder), command, last)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def contents(outputs: Path) -> dict[str, object]:
    """The files below `outputs`, without what differs between undisturbed runs: times and zips."""
    found: dict[str, object] = {}
    for file in sorted(outputs.rglob("*")):
        name = str(file.relative_to(outputs))
        if file.is_dir():
            continue
        if file.suffix == ".json":
            found[name] = _without_times(json.loads(file.read_text()))
        elif file.suffix == ".pt":
            state = torch.load(file, weights_only=True)
            found[name] = json.dumps(_without_times(state), default=_tensor_digest)
        else:
            found[name] = file.read_bytes()
    return found


def _tensor_digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()


def _without_times(value):
    if isinstance(value, dict):
        return {k: _without_times(v) for k, v in value.items() if k not in ("seconds", "date")}
    return [_without_times(item) for item in value] if isinstance(value, list) else value


if __name__ == "__main__":
    serve()
