"""Errors that the user can fix, and the words for them."""

import argparse
import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from pydantic import ValidationError


class UserError(Exception):
    """Says in one line what is wrong and what to do about it."""


class Missing(UserError):
    """Data or weights that are not there at all; the message says where to get them."""


class ArgumentParser(argparse.ArgumentParser):
    """Refuses arguments in one line, like every other mistake."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see --help")


def nearest(name: str, known: Iterable[str]) -> str:
    """`"did you mean 'color'?"` for the most similar known name, else the list of known names.

    >>> nearest("colour", ["color", "shape"])
    "did you mean 'color'?"
    """
    known = list(known)
    match = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean {match[0]!r}?" if match else f"known: {', '.join(known)}"


# pydantic's kind of error -> ours; {...} are its values.
WORDS = {
    "missing": "is missing",
    "extra_forbidden": "is not a known key",
    "string_type": "must be a text, not {found}; put it in quotes",
    "int_type": "must be a whole number, not {found}",
    "int_parsing": "must be a whole number, not {found}",
    "int_parsing_size": "is too large a number",
    "int_from_float": "must be a whole number, not {found}",
    "float_type": "must be a number, not {found}",
    "float_parsing": "must be a number, not {found}",
    "finite_number": "must be a finite number, not {found}",
    "bool_type": "must be true or false, not {found}",
    "bool_parsing": "must be true or false, not {found}",
    "list_type": "must be a list like [a, b], not {found}",
    "tuple_type": "must be a list like [a, b], not {found}",
    "dict_type": "must hold `key: value` lines, not {found}",
    "model_type": "must hold `key: value` lines, not {found}",
    "model_attributes_type": "must hold `key: value` lines, not {found}",
    "path_type": "must be the name of a file or folder, not {found}",
    "literal_error": "must be {expected}, not {found}",
    "greater_than": "must be above {gt}, not {found}",
    "greater_than_equal": "must be at least {ge}, not {found}",
    "less_than": "must be below {lt}, not {found}",
    "less_than_equal": "must be at most {le}, not {found}",
    "too_short": "must have at least {min_length} (entries: {actual_length})",
    "too_long": "must have at most {max_length} (entries: {actual_length})",
    "string_unicode": "holds characters that are not valid Unicode",
    "json_invalid": "is not valid JSON: {error}",
}
PYDANTICS = ("[key]", "str")  # what it adds to a place: of a dict's key, of one type of several


def explain(error: "ValidationError") -> str:
    """The first thing that pydantic found wrong, as `key: what` on one line."""
    first: Any = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if part not in PYDANTICS)
    found = repr(first["input"])
    found = found if len(found) <= 60 else f"{found[:60]} ..."
    values = {**first.get("ctx", {}), "found": found}
    what = WORDS.get(first["type"], "").format(**values)
    what = what or first["msg"].removeprefix("Value error, ")
    return " ".join((f"{where}: {what}" if where else what).split())
