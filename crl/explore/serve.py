"""The page of a `crl.explore.session.Session`, served to this machine alone: at 127.0.0.1, at an
address with a secret token, and to no page of another origin."""

import asyncio
import hmac
import io
import json
import mimetypes
import os
import secrets
import socket
import sys
import webbrowser
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from threading import Thread
from typing import Any

import numpy as np
from pydantic import ValidationError
from threadpoolctl import threadpool_limits
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, HTTPError, RequestHandler

from crl.explore.session import Session
from crl.explore.view import View
from crl.run.errors import UserError, advice, explain

HERE = "127.0.0.1"
MOST_BYTES = 2**20  # of a request
ACTIONS = ("search", "ends", "near", "words", "clusters", "grouping", "criterion")  # of a Session
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'none'",  # what a page cannot say of itself
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",  # the token is a part of the address
    "X-Content-Type-Options": "nosniff",
}


def serve(session: Session, port: int = 0) -> None:
    """Serve until Ctrl-C; `port` 0 is any that is free. A UserError if it is not."""
    try:
        sockets = bind_sockets(port, HERE, socket.AF_INET)
    except OSError as error:
        reason = f"cannot listen at port {port}: {error.strerror}"
        raise UserError(f"{reason}; choose another one (--port)") from error
    token = secrets.token_urlsafe(24)
    address = f"http://{HERE}:{sockets[0].getsockname()[1]}/{token}/"
    print(f"{address}\nopen it in a browser of this machine; Ctrl-C ends it", flush=True)
    if sys.platform in ("win32", "darwin") or {"DISPLAY", "WAYLAND_DISPLAY"} & {*os.environ}:
        with suppress(Exception):  # without a browser the address is enough
            webbrowser.open(address)
    with suppress(KeyboardInterrupt):
        asyncio.run(listen(session, token, sockets))
    print(f"\nended; words and clusters are in {session.out}; --add shows new criteria")


async def listen(session: Session, token: str, sockets: list[socket.socket]) -> None:
    worker = ThreadPoolExecutor(1)  # so edits come one after another
    port = sockets[0].getsockname()[1]
    about: dict[str, Any] = dict(session=session, token=token, port=port, worker=worker)
    paths = {"": Page, r"pictures/(\d+)": Picture, r"ask/(\w+)": Ask}
    application = Application(
        [(rf"/([^/]+)/{path}", handler, about) for path, handler in paths.items()],
        default_handler_class=Guarded, default_handler_args=about, log_function=lambda _: None,
    )  # fmt: skip
    HTTPServer(application, max_body_size=MOST_BYTES).add_sockets(sockets)
    await asyncio.Event().wait()


class Guarded(RequestHandler):
    """Answers only who knows the token, at this address, from this page."""

    def initialize(self, session: Session, token: str, port: int, worker: Executor) -> None:
        self.session, self.token, self.worker = session, token, worker
        self.hosts = [f"{name}:{port}" for name in (HERE, "localhost")]

    def set_default_headers(self) -> None:
        for name, value in HEADERS.items():
            self.set_header(name, value)

    def prepare(self) -> None:
        origin = self.request.headers.get("Origin")
        if self.request.host not in self.hosts:  # another name that points here
            raise HTTPError(403, "refused: this address is not served")
        if origin is not None and origin != f"http://{self.request.host}":
            raise HTTPError(403, "refused: the request comes from another page")
        given = self.path_args[0] if self.path_args else ""
        if not hmac.compare_digest(given.encode(), self.token.encode()):
            raise HTTPError(403, "refused: open the address that the command printed")

    def write_error(self, status_code: int, **more: Any) -> None:
        error = more["exc_info"][1]
        reason = "an error in the program; see the terminal"
        if isinstance(error, HTTPError):
            reason = (error.log_message or self._reason).replace("%%", "%")  # tornado doubles them
        self.finish({"error": reason})

    def log_exception(self, kind: Any, error: Any, trace: Any) -> None:
        if not isinstance(error, HTTPError):  # of these the page says what is wrong
            super().log_exception(kind, error, trace)

    async def computed(self, function: Callable, *values: Any, **named: Any) -> Any:
        def work() -> Any:
            with threadpool_limits(1, "blas"):  # more gain little here, and wait for each other
                return function(*values, **named)

        return await asyncio.get_running_loop().run_in_executor(self.worker, work)


class Page(Guarded):
    async def get(self, token: str) -> None:
        self.finish(await self.computed(self.session.page))


class Picture(Guarded):
    async def get(self, token: str, number: str) -> None:
        files = self.session.photos.files
        if int(number) >= len(files):
            raise HTTPError(404, "there is no such picture")
        file = files[int(number)]
        try:
            content = await asyncio.to_thread(file.read_bytes)
        except (OSError, UserError) as error:
            raise HTTPError(404, "the file is not there any more") from error
        kind = mimetypes.guess_type(str(file))[0] or ""
        safe = kind.startswith("image/") and "svg" not in kind
        self.set_header("Content-Type", kind if safe else "application/octet-stream")
        self.finish(content)

    head = get


class Ask(Guarded):
    """JSON in, JSON out: `{"error": ...}` with status 400 for what does not fit."""

    async def post(self, token: str, action: str) -> None:
        kind = self.request.headers.get("Content-Type", "")
        if kind.partition(";")[0] != "application/json":  # what forms of other pages cannot send
            raise HTTPError(415, "refused: send JSON")
        try:
            values = json.loads(self.request.body)
            if not isinstance(values, dict):
                raise UserError("refused: send a JSON object")
            self.finish(await self._answer(action, values))
        except ValidationError as error:
            raise HTTPError(400, explain(error)) from error
        except (UserError, ValueError, OSError, RecursionError) as error:  # no room, endless JSON
            raise HTTPError(400, advice(error) or str(error)) from error
        except IndexError as error:  # of a picture or criterion
            raise HTTPError(400, "there is no such thing here; reload the page") from error
        except asyncio.CancelledError as error:  # Ctrl-C
            raise HTTPError(503, "the server has ended") from error

    async def _answer(self, action: str, values: dict[str, Any]) -> dict[str, Any]:
        session = self.session
        if action == "map":
            await map_in_advance(session.view(**values))
            return await self.computed(session.map, **values)
        if action == "write":
            session.check_name(**values)
            return await self.computed(session.add, await aside(session.write, **values))
        if action not in ACTIONS:
            raise HTTPError(404, "there is no such action")
        return await self.computed(getattr(session, action), **values)


async def map_in_advance(view: View) -> None:
    """Compute the t-SNE map of a view into the cache: in a process of low priority, which ends with
    the server, so that edits do not wait for it."""
    content = io.BytesIO()
    np.save(content, view.points)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "crl.explore.maps", stdin=PIPE, stdout=DEVNULL, stderr=DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, start_new_session=True,
    )  # fmt: skip
    try:
        await process.communicate(content.getvalue())
    finally:
        if process.returncode is None:
            process.kill()


async def aside(function: Callable, **values: Any) -> Any:
    """The result of what takes long, computed in a thread that Ctrl-C does not wait for."""
    result = Future[Any]()
    result.set_running_or_notify_cancel()  # nobody cancels it

    def work() -> None:
        try:
            result.set_result(function(**values))
        except Exception as error:
            result.set_exception(error)

    Thread(target=work, daemon=True).start()
    return await asyncio.wrap_future(result)
