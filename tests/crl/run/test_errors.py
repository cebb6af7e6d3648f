"""What a person sees when something is wrong: one line, and an exit code."""

import errno
import os
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError, field_validator

from crl.run.errors import UserError, command, explain, nearest


def run(monkeypatch, error: BaseException | None) -> list[list[str]]:
    """Run a command that raises `error`; returns the arguments it was called with."""
    calls = []

    @command
    def main(argv):
        """What it does."""
        calls.append(argv)
        if error is not None:
            raise error

    assert main.__doc__ == "What it does."
    monkeypatch.setattr(sys, "argv", ["script.py", "a=1", "b=2"])
    main()
    return calls


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("no data;\n  get  it\nthere"), 2, "error: no data; get it there\n"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), 2, "error: the disk is full; "),
        (KeyboardInterrupt(), 130, "error: interrupted; "),
    ],
)
def test_what_a_person_can_mend_is_one_line(monkeypatch, capsys, error, code, line):
    with pytest.raises(SystemExit) as caught:
        run(monkeypatch, error)
    assert caught.value.code == code
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith(line) and printed.err.count("\n") == 1


@pytest.mark.parametrize(
    "error", [ValueError("a bug"), PermissionError(errno.EACCES, "no"), SystemExit(7)]
)
def test_anything_else_passes_through(monkeypatch, error):
    with pytest.raises(type(error)) as caught:
        run(monkeypatch, error)
    assert caught.value is error


def test_success_is_silent(monkeypatch, capsys):
    assert run(monkeypatch, None) == [["a=1", "b=2"]]
    assert capsys.readouterr() == ("", "")


def test_nearest():
    assert nearest("colour", ["shape", "color", "count"]) == "did you mean 'color'?"
    assert nearest("xyz", ["shape", "color"]) == "known: shape, color"
    assert nearest("xyz", iter(["shape", "color"])) == "known: shape, color"


@given(st.lists(st.text(min_size=1), min_size=1, unique=True), st.data())
def test_nearest_of_a_known_name_is_itself(known, data):
    name = data.draw(st.sampled_from(known))
    assert nearest(name, known) == f"did you mean {name!r}?"


class Example(BaseModel):
    name: str = "x"
    sizes: list[int] = []

    @field_validator("sizes")
    @classmethod
    def _ascending(cls, sizes):
        if sizes != sorted(sizes):
            raise ValueError("sizes must\nascend")
        return sizes


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": 7}, "name: Input should be a valid string, not 7; put it in quotes"),
        ({"sizes": [1, "many"]}, "sizes.1: Input should be a valid integer, unable to parse"),
        ({"sizes": [2, 1]}, "sizes: sizes must ascend"),
        ([], "Input should be a valid dictionary"),
    ],
)
def test_explain(values, message):
    with pytest.raises(ValidationError) as caught:
        Example.model_validate(values)
    assert explain(caught.value).startswith(message)
    assert "\n" not in explain(caught.value)
