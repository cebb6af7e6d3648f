"""Configuration: what overrides what, which values are valid, and every refusal in one line."""

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


def test_unused_keys_may_stand_in_a_shared_file_only(file):
    assert load("--config", file, unused=["seeds"]).seeds == 3
    with pytest.raises(UserError, match="does not use 'seeds'; remove it"):
        load("--config", file, "seeds=1", unused=["seeds"])


printable = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), max_size=12)


@given(printable | st.integers(-9, 9) | st.lists(printable | st.booleans(), max_size=3))
def test_as_yaml_is_read_as_the_same_value(value):
    assert parse_yaml(as_yaml(value)) == value
