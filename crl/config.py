"""Configuration: defaults < YAML file < command line, validated, with unknown keys refused."""

import argparse
from collections.abc import Collection
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from crl.errors import UserError, explain, nearest
from crl.files import read_yaml


class Config(BaseModel):
    """Base of every task's configuration: a key that is not a field is an error, `~` in a path is
    the home folder, and `name` is that of one folder, so that results stay in `outputs`."""

    model_config = ConfigDict(extra="forbid", validate_default=True)

    @field_validator("*")
    @classmethod
    def _home(cls, value):
        return value.expanduser() if isinstance(value, Path) else value

    @field_validator("name", check_fields=False)  # a field of those that inherit
    @classmethod
    def _one_folder(cls, name: str) -> str:
        if name in ("", ".", "..") or set(name) & set("/\\\0"):
            raise ValueError(
                f"{name!r} names no folder in outputs; to write elsewhere set outputs="
            )
        return name


T = TypeVar("T", bound=Config)


def load_config(kind: type[T], argv: list[str], about: str, unused: Collection[str] = ()) -> T:
    """Read `[--config FILE.yaml] [key=value ...]`; values are YAML, e.g. `shots=[1,5]`.

    Args:
        about: what the script does, for `--help`.
        unused: fields that this script does not use. They may stand in a file that two scripts
            share, but on the command line they are an error.

    Raises:
        UserError: no such file, bad YAML, an unknown or unused key, or a bad value.
    """
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, metavar="FILE.yaml", help="see configs/")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="overrides of the file")
    parser.epilog = "keys:\n" + "\n".join(
        f"  {key:<14} {field.description} (default: {_shown(field)})"
        for key, field in kind.model_fields.items()
        if key not in unused
    )
    arguments = parser.parse_intermixed_args(argv)  # overrides on either side of --config
    values = read_yaml(arguments.config) if arguments.config else {}
    where = str(arguments.config) if arguments.config else "the command line"
    for key in values:
        _check_key(key, kind.model_fields, where)
    if arguments.config:
        values.setdefault("name", arguments.config.stem)
    overridden = set()
    for override in arguments.overrides:
        key, separator, value = override.partition("=")
        if not separator:
            raise UserError(f"{override!r} is not of the form key=value")
        _check_key(key, kind.model_fields, "the command line")
        if key in unused:
            raise UserError(f"this script does not use {key!r}; remove it")
        try:
            values[key] = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError) as error:  # ValueError: the 99th of May
            raise UserError(f"{override!r}: the value is not valid YAML") from error
        overridden.add(key)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        if overridden & set(error.errors()[0]["loc"]):
            where = "the command line"
        raise UserError(f"{where}: {explain(error)}") from error


def _check_key(key: str, known: Collection[str], where: str) -> None:
    if key not in known:
        raise UserError(f"{where}: unknown key {key!r}; {nearest(str(key), known)}")


def _shown(field) -> str:
    default = field.get_default(call_default_factory=True)
    default = str(default) if isinstance(default, Path) else default
    shown = yaml.dump(default, Dumper=_Plain, default_flow_style=True, width=1000)
    return shown.removesuffix("...\n").strip()


class _Plain(yaml.SafeDumper):
    """A list that stands twice is written twice, not by reference."""

    def ignore_aliases(self, data) -> bool:
        return True
