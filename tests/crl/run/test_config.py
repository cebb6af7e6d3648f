"""Configuration: what overrides what, which values are valid, and every refusal in one line."""

from crl.run.command import command

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from crl.run.config import LARGEST, Config, as_yaml, load_config
from crl.run.errors import UserError
from crl.run.files import parse_yaml


class Example(Config):
    name: str = Field("run", description="of the results")
    shots: list[int] = Field([1, 5], description="images a class")
    seeds: int = Field(20, gt=0, description="how many")
    limit: int | None = Field(None, description="at most")
    bases: dict[str, str] = Field({}, description="criterion: basis")
    folder: Path = Field(Path("data"), description="of images")
    figures: bool = Field(True, description="draw them")


def load(*argv: Any, unused=()) -> Example:
    return load_config(Example, [str(argument) for argument in argv], "An example.", unused)


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "clevr4.yaml"
    path.write_text("seeds: 3\nlimit: 7\nbases:\n  color: reds\n")
    return path


def test_defaults_then_file_then_command_line(file):
    assert load() == Example()
    assert load("--config", file) == Example(
        name="clevr4", seeds=3, limit=7, bases={"color": "reds"}
    )
    got = load("--config", file, "seeds=4", "limit=null", "name=mine", "seeds=5")
    assert got == Example(name="mine", seeds=5, bases={"color": "reds"})
    assert load("seeds=4", "--config", file, "limit=1") == Example(
        name="clevr4", seeds=4, limit=1, bases={"color": "reds"}
    )
    file.write_text("name: other\n")
    assert load("--config", file).name == "other"


@given(
    st.builds(
        Example,
        name=st.text(st.characters(exclude_characters="/\\\0"), max_size=50).filter(
            lambda name: name not in ("", ".", "..")
        ),
        shots=st.lists(st.integers(-LARGEST, LARGEST), max_size=4),
        seeds=st.integers(1, LARGEST),
        limit=st.none() | st.integers(-LARGEST, LARGEST),
        bases=st.dictionaries(st.text(), st.text(), max_size=3),
        figures=st.booleans(),
    )
)
def test_any_configuration_comes_back_from_its_yaml(config):
    values = config.model_dump(mode="json")
    flow = {"default_flow_style": True, "width": 10**6}
    arguments = [f"{key}={yaml.safe_dump(value, **flow)}" for key, value in values.items()]
    assert load("--", *arguments) == config
    assert load("folder=~/a").folder == Path("~/a").expanduser()


@pytest.mark.parametrize("name", ["../x", "a/", "..", "", "a\\b", "a\0"])
def test_a_name_that_leaves_outputs_is_refused(name):
    with pytest.raises(UserError) as caught:
        load(f"name={yaml.safe_dump(name, default_flow_style=True).splitlines()[0]}")
    assert str(caught.value) == (
        f"the command line: name: {name!r} names no folder in outputs; "
        "to write elsewhere set outputs="
    )


def test_unused_keys_may_stand_in_a_shared_file_only(file):
    assert load("--config", file, unused=["seeds"]).seeds == 3
    with pytest.raises(UserError, match="does not use 'seeds'; remove it"):
        load("--config", file, "seeds=1", unused=["seeds"])


@pytest.mark.parametrize(
    ("content", "argv", "words"),
    [
        ("seed: 3", [], ["clevr4.yaml", "unknown key 'seed'", "did you mean 'seeds'"]),
        ("colour: 3", [], ["unknown key 'colour'", "known: name, shots, seeds"]),
        ("", ["shot=[1]"], ["the command line", "unknown key 'shot'", "did you mean 'shots'"]),
        ("", ["seeds"], ["'seeds' is not of the form key=value"]),
        ("", ["seeds=[1"], ["'seeds=[1'", "not valid YAML"]),
        ("", ["seeds=0"], ["seeds", "above 0"]),
        ("seeds: many", [], ["clevr4.yaml", "seeds", "whole number"]),
        ("name: ../x", [], ["clevr4.yaml", "name: '../x' names no folder", "outputs="]),
        ("bases: {color: 3}", [], ["bases.color", "not 3"]),
        ("a: [1\nb: 2\n", [], ["clevr4.yaml", "not valid YAML"]),
        ("name: !!python/object/apply:os.system ['exit 1']", [], ["not valid YAML"]),
        ("- seeds\n", [], ["clevr4.yaml", "key: value"]),
        ("name: \xff".encode("latin-1"), [], ["clevr4.yaml", "not valid YAML"]),
        (None, [], ["clevr4.yaml", "No such file"]),
    ],
)
def test_refusals_name_what_is_wrong_in_one_line(
    tmp_path, monkeypatch, capsys, content, argv, words
):
    path = tmp_path / "clevr4.yaml"
    if content is not None:
        content = content or "seeds: 2"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    monkeypatch.setattr(sys, "argv", ["script", "--config", str(path), *argv])
    with pytest.raises(SystemExit) as caught:
        command(lambda argv: load(*argv) and None)()
    printed = capsys.readouterr()
    assert caught.value.code == 2 and printed.out == ""
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1
    for word in words:
        assert word in printed.err


def test_help_lists_the_keys_in_use(capsys):
    with pytest.raises(SystemExit) as caught:
        load("--help", unused=["figures"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "An example." in text and "draw them" not in text
    for line in (
        "name of the results (default: run)",
        "shots images a class (default: [1, 5])",
        "seeds how many (default: 20)",
        "limit at most (default: null)",
        "bases criterion: basis (default: {})",
        "folder of images (default: data)",
    ):
        assert line in " ".join(text.split())


printable = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), max_size=12)


@given(printable | st.integers(-9, 9) | st.lists(printable | st.booleans(), max_size=3))
def test_as_yaml_is_read_as_the_same_value(value):
    assert parse_yaml(as_yaml(value)) == value
