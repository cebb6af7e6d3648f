"""The one door of every script: what goes wrong inside becomes one line and an exit code. Scripts
import it before all others, which takes seconds: an interrupt meanwhile gets its one line too."""

import functools
import os
import sys
import warnings
from collections.abc import Callable

from crl.run.errors import advice
from crl.run.placeholders import Finder, asks_for_help

# Threads that wait sleep, in place of spinning: beside other work t-SNE and k-means take a third of
# the time, and alone 5 % more at most. Must be set before torch and scikit-learn come.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# What the user typed: scripts/demo/run.py runs several scripts, with other `sys.argv`.
if asks_for_help(sys.orig_argv):
    sys.meta_path.insert(0, Finder())

INTERRUPTED = "interrupted; whole batches and files are kept, run the command again"


def command(main: Callable[[list[str]], None]) -> Callable[[], None]:
    """Wrap a script's `main(argv)`. What a user can repair becomes one line on stderr and exit code
    2; an interrupt gets 130. Warnings become lines that begin with `note:`. Anything else is a bug,
    and keeps its traceback."""

    @functools.wraps(main)
    def run() -> None:
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _note
                main(sys.argv[1:])
        except KeyboardInterrupt:
            sys.exit(_fail(INTERRUPTED, 130))
        except BrokenPipeError:  # `... | head` has read enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except Exception as error:
            if (message := advice(error)) is None:
                raise
            sys.exit(_fail(message, 2))

    return run


def _fail(message: str, code: int) -> int:
    print(f"error: {one_line(message)}", file=sys.stderr)
    return code


def _note(message: Warning | str, *_: object, **__: object) -> None:
    print(f"note: {one_line(str(message))}", file=sys.stderr)


def one_line(text: str) -> str:
    """`text` without line breaks, and without characters that could control a terminal."""
    text = " ".join(text.split())
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _interrupted_while_importing(kind: type[BaseException], error: BaseException, trace) -> None:
    if issubclass(kind, KeyboardInterrupt):
        _fail("interrupted; nothing has begun yet", 130)
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _interrupted_while_importing
