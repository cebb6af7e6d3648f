"""Errors that the user can fix, and the words for them."""

import argparse
import difflib
import errno
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from pydantic import ValidationError


class UserError(Exception):
    """Says in one line what is wrong and what to do about it."""


class Missing(UserError):
    """Data or weights that are not there at all; the message says where to get them."""


class ArgumentParser(argparse.ArgumentParser):
    """Prints a docstring as it stands; refuses arguments in one line, like every other mistake."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see --help")


def lacks_memory(error: BaseException) -> bool:
    """Is it what Python, NumPy or torch, on any system or GPU, raises for want of memory?"""
    words = "(out of|not enough|n't allocate) memory|bad_alloc|ALLOC_FAILED"
    return isinstance(error, MemoryError) or re.search(words, str(error)) is not None


def advice(error: Exception) -> str | None:
    """What happened and what to do, or None for a bug."""
    match error:
        case UserError():
            return str(error)
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):  # comes without the name of a file
            return "the disk is full, or your quota of it; free some space and run it again"
        case OSError():
            return f"{error.filename or 'the system says'}: {error.strerror or error}"
        case RecursionError():
            return "a file is nested too deeply to be read"
        case UnicodeError():
            return f"a text is not valid UTF-8: {error}"
        case RuntimeError() if type(error).__name__ == "OutOfMemoryError":  # torch's
            return "the GPU has not enough memory; lower the batch size, or use the CPU"
        case Exception() if lacks_memory(error):
            return "there is not enough memory; use fewer or smaller images, or a smaller batch"
    return None


def whole_number(text: str) -> int:  # argparse's own messages name it
    """The type of an argument of a script that must be 1 or more."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"it must be 1 or more, not {text}")
    return int(text)


def nearest(name: str, known: Iterable[str]) -> str:
    """`"did you mean 'color'?"` for the most similar known name, else the list of known names."""
    known = list(known)
    match = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean {match[0]!r}?" if match else f"known: {', '.join(known)}"


# How pydantic's kind of error begins -> our words; {...} are its values.
WORDS: dict[str | tuple[str, ...], str] = {
    "missing": "is missing",
    "extra_forbidden": "is not a known key",
    "string_type": "must be a text, not {value}; put it in quotes",
    "int_": "must be a whole number, not {value}",
    "float_": "must be a number, not {value}",
    "finite_number": "must be a finite number, not {value}",
    "bool_": "must be true or false, not {value}",
    ("list_type", "tuple_type"): "must be a list like [a, b], not {value}",
    ("dict_type", "model_"): "must hold `key: value` lines, not {value}",
    "path_type": "must be the name of a file or folder, not {value}",
    "literal_error": "must be {expected}, not {value}",
    "greater_than_equal": "must be at least {ge}, not {value}",
    "greater_than": "must be above {gt}, not {value}",
    "less_than_equal": "must be at most {le}, not {value}",
    "less_than": "must be below {lt}, not {value}",
    "too_short": "must have at least {min_length} (entries: {actual_length})",
}


def explain(error: "ValidationError") -> str:
    """The first thing that pydantic rejected, as `key: what` on one line; all keys that miss."""
    first: Any = error.errors()[0]
    # pydantic adds to a place: of a dict's key, of one type of several
    places = [str(part) for part in first["loc"] if part not in ("[key]", "str")]
    if first["type"] == "missing":  # and what else misses there
        missing = [each["loc"] for each in error.errors() if each["type"] == "missing"]
        keys = [str(place[-1]) for place in missing if place[:-1] == first["loc"][:-1]]
        places[-1] = " and ".join(keys)
    place = ".".join(places)
    value = repr(first["input"])
    value = value if len(value) <= 60 else f"{value[:60]} ..."
    words = next((text for kind, text in WORDS.items() if first["type"].startswith(kind)), "")
    what = words.format(**{**first.get("ctx", {}), "value": value})
    what = what or first["msg"].removeprefix("Value error, ")
    return " ".join((f"{place}: {what}" if place else what).split())
