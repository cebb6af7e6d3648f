"""Turns the errors of libraries that fetch or load models into one line of advice."""

import errno
import pickle
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from textwrap import shorten
from urllib.parse import urlsplit
from urllib.request import getproxies

from safetensors import SafetensorError

from crl.run.errors import Missing, UserError

SECONDS = 3.0  # how long to wait for an answer of the Hugging Face Hub


@contextmanager
def explained(source: str, remote: bool) -> Iterator[None]:
    """Turn the errors of libraries that fetch or load `source` into one line of advice."""
    if remote:
        _offline_without_a_network()
    try:
        yield
    except (SafetensorError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(f"{source}: a file is damaged ({_brief(error)}); fetch it again") from error
    except (OSError, RuntimeError, ValueError, TypeError, AttributeError, LookupError) as error:
        if "loading state_dict" in str(error):
            lines = [shorten(line, 120) for line in str(error).splitlines()[1:4]]
            raise UserError(f"the weights do not fit {source}: {'; '.join(lines)}") from error
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise  # a full disk has a message of its own
        if remote and isinstance(error, OSError):
            raise Missing(
                f"cannot fetch {source} ({_brief(error)}). Without a network use vlm=demo, a "
                "local folder, or fill the Hugging Face cache (HF_HOME) on a machine that has one"
            ) from None  # the library's many chained errors say nothing more
        raise UserError(f"cannot load {source}: {_brief(error)}") from error


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
