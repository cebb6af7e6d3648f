"""A served page of explore.py, in a thread of the test."""

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from threading import Thread
from typing import Any, NamedTuple

from tornado.netutil import bind_sockets

from crl.explore.serve import HERE, listen
from crl.explore.session import Session

TOKEN = "secret-token"


class Answer(NamedTuple):
    status: int
    body: bytes
    headers: dict[str, str]

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.body)


class Served(NamedTuple):
    port: int

    @property
    def address(self) -> str:
        return f"http://{HERE}:{self.port}/{TOKEN}/"

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """`path` begins with "/" or is that of a page; "_" in names of headers stands for "-"."""
        connection = HTTPConnection(HERE, self.port, timeout=60)
        path = path if path.startswith("/") else f"/{TOKEN}/{path}"
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        answer = Answer(response.status, response.read(), dict(response.getheaders()))
        connection.close()
        return answer

    def ask(self, action: str, **values: Any) -> Answer:
        body = json.dumps(values)
        return self.request("POST", f"ask/{action}", body, Content_Type="application/json")


@contextmanager
def served(session: Session) -> Iterator[Served]:
    sockets = bind_sockets(0, HERE, socket.AF_INET)
    loop = asyncio.new_event_loop()
    task = loop.create_task(listen(session, TOKEN, sockets))

    def run() -> None:
        try:
            loop.run_until_complete(task)
        except asyncio.CancelledError:
            loop.close()

    thread = Thread(target=run)
    thread.start()
    yield Served(sockets[0].getsockname()[1])
    loop.call_soon_threadsafe(task.cancel)
    thread.join()
