"""A kill at any rename, of any command: the same command again ends as if nothing had been. And two
commands at once.

All output files appear by a rename. A process that ends before the n-th rename leaves what one
leaves that ends after the one before, and a temporary file more.
"""

import os
import shutil
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest
from commands import run_python
from killing import KILLED, contents, finish
from mistakes import words_of

from crl.run.errors import UserError
from crl.run.files import HOST, OURS, alone_in, atomic_path

STEPS = "checkpoint_every=1"
MORE = {  # command -> arguments after those of `mistakes.COMMANDS`
    "clustering": ["cache=other"],
    "few_shot": [],
    "mine_triplets": [],
    "train_combiner": [STEPS, "batch_size=16"],
    "similarity": ["vlm=vlm", "trained=[outputs/combiner/run]"],
    "train_mlp": [STEPS],
    "train_backbone": [STEPS],
    "train_rival": [STEPS],
    "fashion": ["vlm=vlm", "trained=outputs/fashion_mlp/run"],
}
NEEDS = {"similarity": "combiner", "train_backbone": "fashion_mlp", "fashion": "fashion_mlp"}


def start_folder(data: Path, folder: Path, name: str) -> Path:
    """A folder in which the command `name` has not run yet."""
    folder.mkdir()
    for entry in data.iterdir():
        if entry.name != "outputs":
            (folder / entry.name).symlink_to(entry)
    if task := NEEDS.get(name):
        shutil.copytree(data / "outputs" / task, folder / "outputs" / task)
    return folder


@pytest.mark.parametrize("name", MORE)
def test_killed_before_any_rename_it_ends_like_an_undisturbed_run(data, trained, tmp_path, name):
    arguments = [*words_of(name), *MORE[name]]
    for number in count():
        folder = start_folder(data, tmp_path / str(number), name)
        code = finish(folder, name, arguments, number)
        if code == 0:  # it has fewer renames
            break
        assert code == KILLED, (folder / "printed").read_text()
        assert finish(folder, name, arguments) == 0, (folder / "printed").read_text()
        assert not list(folder.rglob("*.tmp")), f"killed before rename {number}"
    assert number > 0
    undisturbed = contents(folder / "outputs")
    for killed in range(number):
        outputs = tmp_path / str(killed) / "outputs"
        assert contents(outputs) == undisturbed, f"killed before rename {killed}"


HOLD = """
import os, sys
from pathlib import Path
from crl.run.files import alone_in
with alone_in(Path(sys.argv[1])):
    print(os.getpid(), flush=True)
    sys.stdin.read()
"""


def test_the_second_command_is_refused_while_the_first_one_runs(tmp_path):
    folder, pipe = tmp_path / "outputs/clustering/run", subprocess.PIPE
    line = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(line, stdin=pipe, stdout=pipe, text=True) as first:
        number = first.stdout.readline().strip()
        says = rf"at work in .*run \(process {number} on {HOST}\)"
        with pytest.raises(UserError, match=says), alone_in(folder):
            pytest.fail("two at once")
        first.kill()
    with alone_in(folder):  # a killed command leaves no lock
        (folder / "results.json").write_text("{}")
    assert {file.name for file in folder.iterdir()} == {OURS, "results.json"}


def test_leftovers_of_the_dead_go_and_those_of_the_living_stay(tmp_path):
    code = "import sys, os; from pathlib import Path; from crl.run.files import atomic_path\n"
    code += "with atomic_path(Path(sys.argv[1]) / 'deep' / 'state.pt') as file:\n"
    code += "    file.write_text('half'); os._exit(9)"
    assert run_python("-c", code, tmp_path).returncode == 9
    (leftover,) = tmp_path.rglob(".state.pt.*.tmp")
    elsewhere = tmp_path / f".x.{os.getpid()}-another.abc.tmp"
    elsewhere.write_text("of another machine")
    with atomic_path(tmp_path / "new.json") as new:
        with alone_in(tmp_path):
            assert not leftover.exists() and new.exists() and elsewhere.exists()
        new.write_text("{}")
