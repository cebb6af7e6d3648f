"""Errors that the user can fix, shown as one line."""

import difflib
import errno
import functools
import sys
from collections.abc import Callable, Iterable

from pydantic import ValidationError


class UserError(Exception):
    """Says in one line what is wrong and what to do about it."""


def nearest(name: str, known: Iterable[str]) -> str:
    """`"did you mean 'color'?"` for the most similar known name, else the list of known names.

    >>> nearest("colour", ["color", "shape"])
    "did you mean 'color'?"
    """
    known = list(known)
    match = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean {match[0]!r}?" if match else f"known: {', '.join(known)}"


def explain(error: ValidationError) -> str:
    """The first thing that pydantic found wrong, as `key: what` on one line."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    what = first["msg"].removeprefix("Value error, ")
    if first["type"] == "string_type":
        what += f", not {first['input']!r}; put it in quotes"
    return " ".join((f"{where}: {what}" if where else what).split())


def command(main: Callable[[list[str]], None]) -> Callable[[], None]:
    """Wrap a script's `main(argv)`: a `UserError` becomes one line on stderr and exit code 2."""

    @functools.wraps(main)
    def run() -> None:
        try:
            main(sys.argv[1:])
        except UserError as error:
            sys.exit(_fail(str(error), 2))
        except KeyboardInterrupt:
            sys.exit(_fail("interrupted; finished parts are kept, run the command again", 130))
        except OSError as error:
            if error.errno == errno.ENOSPC:
                sys.exit(_fail("the disk is full; free some space and run the command again", 2))
            if error.filename is None:
                raise
            sys.exit(_fail(f"{error.filename}: {error.strerror}", 2))

    return run


def _fail(message: str, code: int) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return code
