"""Turns the errors of libraries that fetch or load models into one line of advice."""

import errno
import logging
import pickle
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from textwrap import shorten
from urllib.parse import urlsplit
from urllib.request import getproxies

from safetensors import SafetensorError

from crl.run.errors import Missing, UserError

SECONDS = 3.0  # how long to wait for an answer of the Hugging Face Hub
INSTEAD = "or use vlm=demo or a local folder"
REFUSED = (
    "there is no such repository, or its page there asks you to accept its terms: do so, and log "
    f"in with `hf auth login`; {INSTEAD}"
)
ABSENT = f"the repository, or a file of it, is not there; name other weights, {INSTEAD}"
ADVICE = {401: REFUSED, 403: REFUSED, 404: ABSENT}  # by what the hub answers
TRY_AGAIN = (
    "try again; without a network use vlm=demo, a local folder, or fill the Hugging Face cache "
    "(HF_HOME) on a machine that has one"
)


class _Failure(logging.Handler):
    """Keeps what the hub's client said when it gave up, and forgets what it tries again.

    open_clip and transformers may swallow the error itself, and raise another one later.
    """

    said = ""

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if re.search(r"\[Retry \d|Trying to resume", message):
            self.said = ""
        elif re.search("Error while downloading|thrown while requesting", message):
            self.said = message


@contextmanager
def explained(source: str, remote: bool) -> Iterator[None]:
    """Turn the errors of libraries that fetch or load `source` into one line of advice."""
    of_fetching: tuple[type[Exception], ...] = ()
    if remote:
        from huggingface_hub.errors import HTTPError  # of its HTTP client; no OSError

        of_fetching = (OSError, HTTPError)
        _offline_without_a_network()
    of_loading = (OSError, RuntimeError, ValueError, TypeError, AttributeError, LookupError)
    client, failure = logging.getLogger("huggingface_hub"), _Failure()
    client.addHandler(failure)
    try:
        yield
    except (SafetensorError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(f"{source}: a file is damaged ({_brief(error)}); fetch it again") from error
    except of_fetching + of_loading as error:
        if "loading state_dict" in str(error):
            lines = [shorten(line, 120) for line in str(error).splitlines()[1:4]]
            raise UserError(f"the weights do not fit {source}: {'; '.join(lines)}") from error
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise  # a full disk has a message of its own
        if isinstance(error, of_fetching):
            why = _why_not_fetched(error, failure.said)
            # without the library's many chained errors, which say nothing more
            raise Missing(f"cannot fetch {source}: {why}") from None
        raise UserError(f"cannot load {source}: {_brief(error)}") from error
    finally:
        client.removeHandler(failure)


def _why_not_fetched(error: Exception, said: str) -> str:
    """What the hub's client `said`, else what the hub answered, else the error; and some advice."""
    if said:
        said = re.sub(r"https?://([^/\s]+)\S*", r"\1", said)  # an address can be very long
        return f"{shorten(said, 160)}; {TRY_AGAIN}"
    cause: BaseException | None = error
    while cause is not None:
        answer = getattr(cause, "response", None)
        if answer is not None:
            status = answer.status_code
            return f"the Hugging Face Hub answers {status}: {ADVICE.get(status, TRY_AGAIN)}"
        cause = cause.__cause__ or cause.__context__
    return f"{_brief(error)}; {TRY_AGAIN}"


def _offline_without_a_network() -> None:
    """Use only the hub's cache if the hub does not answer one connection.

    Otherwise the hub's client would try again for a minute. Behind a proxy a direct connection is
    not possible, so nothing is tested.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or getproxies():
        return
    hub = urlsplit(constants.ENDPOINT)
    port = hub.port or (443 if hub.scheme == "https" else 80)
    try:
        socket.create_connection((hub.hostname or "", port), SECONDS).close()
    except OSError:
        constants.HF_HUB_OFFLINE = True


def _brief(error: Exception) -> str:
    return shorten(str(error) or type(error).__name__, 160)
