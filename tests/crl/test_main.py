"""`crl`: its help, its version, and the commands that it hands over to."""

import sys

from commands import run_python

import crl
from crl.__main__ import COMMANDS, main
from crl.commands.explore import command_line


def test_the_help_fits_a_screen_and_imports_nothing_heavy():
    started = run_python("-X", "importtime", "-m", "crl")
    lines = started.stdout.splitlines()
    assert started.returncode == 0 and len(lines) <= 24 and max(map(len, lines)) < 80
    assert all(f"  crl {name} " in started.stdout for name in COMMANDS)
    assert not {"torch", "numpy"} & set(started.stderr.split())
    assert run_python("-m", "crl", "--help").stdout == started.stdout
    assert "usage: crl texts [-h]" in run_python("-m", "crl", "texts", "--help").stdout


def test_a_command_gets_its_arguments(refusal, monkeypatch):
    assert refusal(main, "explore", "no folder") == "there is no folder no folder"
    assert command_line() == "crl explore 'no folder'"
    monkeypatch.setattr(sys, "argv", ["scripts/explore.py", "pictures"])
    assert command_line() == "python scripts/explore.py pictures"


def test_an_unknown_command_is_one_line(output, refusal):
    assert refusal(main, "exlpore") == "crl has no command 'exlpore'; did you mean 'explore'?"
    assert output(main, "--version") == f"crl {crl.__version__}\n"
