"""Two equal commands at once: the second one says who works in the folder, and writes nothing."""

import os
import subprocess
import sys

import pytest
from commands import run_python

from crl.run.errors import UserError
from crl.run.files import HOST, alone_in, atomic_path

HOLD = """
import os, sys
from pathlib import Path
from crl.run.files import alone_in
with alone_in(Path(sys.argv[1])):
    print(os.getpid(), flush=True)
    sys.stdin.read()
"""


def test_the_second_command_is_refused_while_the_first_one_runs(tmp_path):
    folder = tmp_path / "outputs/clustering/run"
    pipe = subprocess.PIPE
    line = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(line, stdin=pipe, stdout=pipe, text=True) as first:
        number = first.stdout.readline().strip()
        says = rf"at work in .*run \(process {number} on {HOST}\)"
        with pytest.raises(UserError, match=says), alone_in(folder):
            pytest.fail("two at once")
        first.stdin.close()
    with alone_in(folder):
        (folder / "results.json").write_text("{}")
    assert [file.name for file in folder.iterdir()] == ["results.json"]


def test_a_killed_command_leaves_no_lock(tmp_path):
    done = run_python("-c", HOLD.replace("sys.stdin.read()", "os._exit(9)"), tmp_path / "a")
    assert done.returncode == 9
    with alone_in(tmp_path / "a"):
        pass


def test_a_refused_command_leaves_no_folder(tmp_path):
    with pytest.raises(UserError, match="refused"), alone_in(tmp_path / "outputs/task/run"):
        raise UserError("refused")
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_to_is_named_before_any_work(tmp_path):
    (tmp_path / "outputs").write_text("a file")
    says = r"cannot write to .*outputs/task/run: .*choose another folder"
    with pytest.raises(UserError, match=says), alone_in(tmp_path / "outputs/task/run"):
        pytest.fail("it is a file")


def test_leftovers_of_the_dead_go_and_those_of_the_living_stay(tmp_path):
    code = "import sys, os; from pathlib import Path; from crl.run.files import atomic_path\n"
    code += "with atomic_path(Path(sys.argv[1]) / 'deep' / 'state.pt') as file:\n"
    code += "    file.write_text('half'); os._exit(9)"
    assert run_python("-c", code, tmp_path).returncode == 9
    (leftover,) = tmp_path.rglob(".state.pt.*.tmp")
    with atomic_path(tmp_path / "mine.json") as mine:
        with alone_in(tmp_path):
            assert not leftover.exists() and mine.exists()
        mine.write_text("{}")
    elsewhere = tmp_path / f".x.{os.getpid()}-another.abc.tmp"
    elsewhere.write_text("of another machine")
    with alone_in(tmp_path):
        assert elsewhere.exists()
