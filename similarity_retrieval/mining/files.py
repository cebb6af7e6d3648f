"""Readers of JSONL and tables that name the line that is wrong."""

import csv
import hashlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from crl.run.errors import UserError, explain
from crl.run.files import encoding_of

Model = TypeVar("Model", bound=BaseModel)


def checked(validate: Callable[[Any], Model], value: Any, where: str) -> Model:
    """`validate(value)`, a method of pydantic; a UserError that begins with `where` if it fails."""
    try:
        return validate(value)
    except ValidationError as error:
        raise UserError(f"{where}: {explain(error)}") from error


def read_jsonl(kind: type[Model], file: Path) -> Iterator[Model]:
    """Yield the object in each line of `file`; blank lines are skipped. A UserError names the line
    that is not a `kind`."""
    for number, line in enumerate(_lines(file), start=1):
        if line.strip():
            yield checked(kind.model_validate_json, line, f"{file}:{number}")


def read_table(kind: type[Model], file: Path) -> Iterator[Model]:
    """Yield the object in each row of a table whose first line names its columns (in any case);
    .csv with commas or semicolons, others with tabs, and a quote is a letter in them. A UserError
    names the line that is not a `kind`."""
    lines = _lines(file)
    first = next(lines, "")
    whole = itertools.chain([first], lines)
    if file.suffix == ".csv":
        rows = csv.DictReader(whole, delimiter=max(",;\t", key=first.count), strict=True)
    else:
        rows = csv.DictReader(whole, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True)
    try:
        rows.fieldnames = columns = [name.strip().lower() for name in rows.fieldnames or []]
        for row in rows:
            where = f"{file}:{rows.line_num}"
            if None in row or None in row.values():
                raise UserError(f"{where}: not {len(columns)} columns as in the first line")
            yield checked(kind.model_validate, row, where)
    except csv.Error as error:
        raise UserError(f"{file}:{rows.reader.line_num}: {error}") from error


def _lines(file: Path) -> Iterator[str]:
    with file.open("rb") as content:
        encoding = encoding_of(content.read(2))
    try:
        with file.open(encoding=encoding, newline="") as stream:
            yield from stream
    except UnicodeError as error:
        raise UserError(f"{file} is not UTF-8: {error}") from error


def decoded(content: bytes, where: str) -> str:
    """The text in `content`; a UserError that begins with `where` if there is none."""
    try:
        return content.decode(encoding_of(content))
    except UnicodeError as error:
        raise UserError(f"{where} is not UTF-8: {error}") from error


def file_digest(file: Path) -> str:
    """SHA-256 of the content of `file`, in hex."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
