"""The door of every script: one line, an exit code, and notes."""

from crl.run.command import command

import errno
import os
import signal
import subprocess
import sys
import time
import warnings

import pytest
from commands import REPOSITORY

from crl.run.errors import UserError


def run(monkeypatch, error: BaseException) -> None:
    """Run a command that raises `error`."""

    @command
    def main(argv):
        assert argv == ["a=1", "b=2"]
        warnings.warn("two images\nare gone", stacklevel=1)
        raise error

    monkeypatch.setattr(sys, "argv", ["script.py", "a=1", "b=2"])
    main()


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("no data;\n  get  it\nthere"), 2, "error: no data; get it there\n"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), 2, "error: the disk is full, "),
        (RecursionError(), 2, "error: a file is nested too deeply"),
        (UserError("\x1b[31mred\u202e"), 2, "error: \ufffd[31mred\ufffd"),
        (KeyboardInterrupt(), 130, "error: interrupted; "),
    ],
)
def test_what_a_person_can_mend_is_one_line(monkeypatch, capsys, error, code, line):
    with pytest.raises(SystemExit) as caught:
        run(monkeypatch, error)
    assert caught.value.code == code
    printed = capsys.readouterr()
    note, _, errors = printed.err.partition("\n")
    assert printed.out == "" and note == "note: two images are gone"
    assert errors.startswith(line) and errors.count("\n") == 1


@pytest.mark.parametrize("error", [ValueError("a bug"), SystemExit(7)])
def test_anything_else_passes_through(monkeypatch, error):
    with pytest.raises(type(error)) as caught:
        run(monkeypatch, error)
    assert caught.value is error


@pytest.mark.parametrize("seconds", [0.5, 1.0])
def test_an_interrupt_while_torch_is_imported_is_one_line(seconds):
    line = [sys.executable, "similarity_retrieval/evaluate.py", "wrong"]
    pipe = subprocess.PIPE
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    script = subprocess.Popen(line, cwd=REPOSITORY, env=env, stdout=pipe, stderr=pipe, text=True)
    time.sleep(seconds)
    script.send_signal(signal.SIGINT)
    _, errors = script.communicate(timeout=60)
    # Before the first import, Python itself answers; after the last one the script is done.
    assert errors.count("Traceback") == 0 or "crl" not in errors, errors
    assert errors.startswith(("error: interrupted; ", "error: 'wrong' is not")) or not errors
