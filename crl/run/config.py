"""Configuration: defaults < YAML file < command line; validated, and unknown keys are refused."""

import json
from collections.abc import Container
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    StringConstraints,
    ValidationError,
)
from pydantic.functional_validators import field_validator, model_validator

from crl.run.errors import ArgumentParser, UserError, explain, nearest
from crl.run.files import parse_yaml, read_yaml
from crl.run.store import EMBEDDINGS


def _listed(value: Any) -> list:
    return value if isinstance(value, list) else [value]


OneOrMore = BeforeValidator(_listed)
Distinct = AfterValidator(lambda values: list(dict.fromkeys(values)))
LARGEST = 2**32 - 1  # of all numbers in a configuration; also the largest seed of NumPy
Width = Annotated[int, Field(gt=0, le=65536)]  # of a layer
Word = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Config(BaseModel, extra="forbid", validate_default=True, allow_inf_nan=False):
    """Base of every configuration: a key that is not a field is an error, `~` in a path is the home
    folder, and `name` must name one folder, so that results stay in `outputs`."""

    @field_validator("*", mode="wrap")
    @classmethod
    def _plain(cls, value, handler):
        """Refuse true and false where a number is expected (pydantic takes them as 1 and 0) and
        numbers that are too large for a seed; expand `~`."""
        checked = handler(value)
        for given, one in zip(_listed(value), _listed(checked), strict=False):
            if isinstance(given, bool) and not isinstance(one, bool):
                raise ValueError(f"must be a number, not {given}")
            if isinstance(one, int) and abs(one) > LARGEST:
                raise ValueError(f"must be at most {LARGEST}")
            if isinstance(one, Path) and "\0" in str(one):
                raise ValueError(f"{str(one)!r} holds a NUL, which no file name does")
        homes = [one.expanduser() if isinstance(one, Path) else one for one in _listed(checked)]
        return homes if isinstance(checked, list) else homes[0]

    @field_validator("name", check_fields=False)  # a field of those that inherit
    @classmethod
    def _one_folder(cls, name: str) -> str:
        if name in ("", ".", "..") or set(name) & set("/\\\0"):
            raise ValueError(
                f"{name!r} names no folder in outputs; to write elsewhere use outputs="
            )
        if len(name.encode(errors="replace")) > 200:
            raise ValueError("is longer than the name of a folder can be")
        return name


class RunConfig(Config):
    """Keys of every script."""

    name: str = Field("run", description="results go to <outputs>/<task>/<name>")
    outputs: Path = Field(Path("outputs"), description="where results go")
    device: str | None = Field(None, description="e.g. cpu, cuda, mps; none takes CUDA or the CPU")


class EmbeddingConfig(RunConfig):
    """Keys of every script that embeds images and texts."""

    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="precision of the VLM")
    batch_size: int = Field(64, gt=0, le=65536, description="images per batch while embedding")
    workers: int | None = Field(None, gt=0, le=256, description="threads that decode images")
    cache: Path = Field(EMBEDDINGS, description="folder in which embeddings are kept")


class EvaluationConfig(EmbeddingConfig):
    """Keys of every script that evaluates; `features` replaces those in `replaced_by_features`."""

    replaced_by_features: ClassVar[frozenset[str]] = frozenset(
        ("vlm bases texts null_space null_space_size "
         "precision device batch_size workers cache").split()
    )  # fmt: skip

    texts: int | None = Field(None, gt=1, description="use the first N texts of each basis")
    features: Annotated[list[Path], OneOrMore] = Field(
        [], description="files with embeddings made elsewhere, in place of a VLM"
    )
    figures: bool = Field(True, description="draw figures")
    sharpness: float = Field(1.0, gt=0, le=1e6, description="sharpness of the posterior")
    null_space: Annotated[list[str], OneOrMore, Distinct] = Field(
        [], description="bases of other criteria; what they explain is removed from the images"
    )
    null_space_size: int | None = Field(
        None, gt=0, description="directions per basis of null_space; none: half of its variance"
    )

    @model_validator(mode="after")
    def _size_of_something(self):
        if self.null_space_size is not None and not self.null_space:
            raise ValueError("null_space_size needs null_space, the bases that it is about")
        return self


Kind = TypeVar("Kind", bound=Config)


def load_config(kind: type[Kind], argv: list[str], about: str, unused: Container[str] = ()) -> Kind:
    """Read `[--config FILE.yaml] [key=value ...]`; values are YAML, e.g. `shots=[1,5]`. Fields that
    are `unused`, or that `features` replaces, may be in a file that two scripts share, but on the
    command line they are an error. A UserError for bad YAML, keys and values."""
    parser = ArgumentParser(description=about)
    parser.add_argument("--config", type=Path, metavar="FILE.yaml", help="see configs/")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="overrides of the file")
    fields = kind.model_fields
    parser.epilog = "keys:\n" + "\n".join(
        f"  {key:<14} {field.description} (default: {as_yaml(field.get_default())})"
        for key, field in fields.items()
        if key not in unused
    )
    arguments = parser.parse_intermixed_args(argv)  # overrides on either side of --config
    given = dict(map(_override, arguments.overrides))
    place = str(arguments.config or "the command line")
    values = read_yaml(arguments.config) if arguments.config else {}
    for source, key in [(place, k) for k in values] + [("the command line", k) for k in given]:
        if key not in fields:
            raise UserError(f"{source}: unknown key {key!r}; {nearest(str(key), fields)}")
    if arguments.config:
        values.setdefault("name", arguments.config.stem)
    features = given.get("features", values.get("features"))
    idle = getattr(kind, "replaced_by_features", ()) if features else ()
    for key in given:
        if key in idle:
            raise UserError(f"features replaces {key}; remove it")
        if key in unused:
            raise UserError(f"this script does not use {key!r}; remove it")
    values = {key: value for key, value in values.items() if key not in idle} | given
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        if given.keys() & set(error.errors()[0]["loc"]):
            place = "the command line"
        raise UserError(f"{place}: {explain(error)}") from error


def _override(text: str) -> tuple[str, Any]:
    key, separator, value = text.partition("=")
    if not separator:
        raise UserError(f"{text!r} is not of the form key=value")
    try:
        return key, parse_yaml(value)
    except ValueError as error:
        raise UserError(f"{text!r}: the value is not valid YAML") from error


def as_yaml(value: Any) -> str:
    """`value` as a command line has it: `clip` plain, `[1, 5]` and `"5"` as JSON."""
    value = str(value) if isinstance(value, Path) else value
    try:
        plain = isinstance(value, str) and parse_yaml(value) == value
    except ValueError:
        plain = False
    return value if plain else json.dumps(value, ensure_ascii=False, default=str)
