"""The help that scripts print without heavy libraries: the same text as with them."""

import json
import sys

import help_texts
import pytest
from commands import REPOSITORY, run_python

from crl.run.placeholders import asks_for_help

LIGHT = {"PIL", "annotated_types", "pydantic", "pydantic_core", "typing_extensions",
         "typing_inspection", "yaml"}  # fmt: skip


def test_the_help_of_every_script_is_the_same_without_heavy_libraries(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    run = run_python(help_texts.__file__, "--help")
    assert run.returncode == 0, run.stderr
    texts, installed = json.loads(run.stdout)
    assert {name for name in installed if not name.startswith("_")} <= LIGHT
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "argv", [])
    assert len(texts) > 20 and texts == help_texts.help_texts()
    assert all(text.endswith("exit code 0\n") for text in texts.values())


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        ("-h", True),
        ("--criterion --help", True),
        ("--query=--help", False),
        ("-- --help", False),
        ("outlines=help", False),
    ],
)
def test_who_asks_for_help(arguments, answer):
    assert asks_for_help(["python", "script.py", *arguments.split()]) == answer


def test_a_mistake_before_help_is_one_line():
    run = run_python(REPOSITORY / "scripts/explore.py", "--clusters", "none", "--help")
    assert (run.returncode, run.stdout) == (2, "")
    assert (
        run.stderr == "error: argument --clusters: invalid whole_number value: 'none'; see --help\n"
    )
