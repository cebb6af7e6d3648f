"""Turns the errors of libraries that fetch or load models into one line of advice."""

import errno
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from textwrap import shorten
from urllib.parse import urlsplit
from urllib.request import getproxies

from crl.run.errors import Missing, UserError

INSTEAD = "or use vlm=demo or a local folder"
REFUSED = ("there is no such repository, or its page there asks you to accept its terms: do so, "
           f"and log in with `hf auth login`; {INSTEAD}")  # fmt: skip
# open_clip reports a broken connection as the 404 of the next name that it tries
ABSENT = ("the repository, or a file of it, is not there, or the connection broke; try again, name "
          f"other weights, {INSTEAD}")  # fmt: skip
ADVICE = {401: REFUSED, 403: REFUSED, 404: ABSENT}  # by the hub's answer
TRY_AGAIN = ("try again; without a network use vlm=demo, a local folder, or fill the Hugging Face "
             "cache (HF_HOME) on a machine that has one")  # fmt: skip


@contextmanager
def explained(source: str, remote: bool) -> Iterator[None]:
    fetching: tuple[type[Exception], ...] = ()
    if remote:
        from huggingface_hub.errors import HTTPError  # of its HTTP client; no OSError

        fetching = OSError, HTTPError
        _offline_without_a_network()
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # for a damaged file the libraries can raise almost any error
        if getattr(error, "errno", None) == errno.ENOSPC:
            raise  # a full disk has a message of its own
        if isinstance(error, fetching):  # without the many chained errors, which say nothing more
            raise Missing(f"cannot fetch {source}: {_advice(error)}") from None
        what = "the weights do not fit" if "state_dict" in str(error) else "cannot load"
        raise UserError(f"{what} {source}: {_brief(error)}") from error


def _offline_without_a_network() -> None:
    """Use only the hub's cache if the hub does not answer one connection: its client would try
    again for a minute. Behind a proxy there is no direct connection, so nothing is tested."""
    from huggingface_hub import constants

    if not constants.HF_HUB_OFFLINE and not getproxies():
        hub = urlsplit(constants.ENDPOINT)
        port = hub.port or {"https": 443}.get(hub.scheme, 80)
        try:
            socket.create_connection((hub.hostname or "", port), timeout=3.0).close()
        except OSError:
            constants.HF_HUB_OFFLINE = True


def _advice(error: BaseException) -> str:
    """What the hub answered, else the error; and what to do."""
    cause: BaseException | None = error
    while cause is not None:
        if status := getattr(getattr(cause, "response", None), "status_code", None):
            return f"the Hugging Face Hub answers {status}: {ADVICE.get(status, TRY_AGAIN)}"
        cause = cause.__cause__ or cause.__context__
    return f"{_brief(error)}; {TRY_AGAIN}"


def _brief(error: BaseException) -> str:
    # Of an address only the host: all of it can be very long.
    message = re.sub(r"https?://([^/\s]+)[^\s'\",]*", r"\1", str(error))
    return " ".join(shorten(line, 160) for line in message.splitlines()[:4]) or type(error).__name__
