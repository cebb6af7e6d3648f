"""A small local web server for files, which misbehaves as told."""

import hashlib
import re
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Reply:
    """How one request is answered; as it is: properly.

    Attributes:
        status: an answer other than the file, with `body`.
        kind: the content type.
        cut: how many bytes are sent before the connection ends.
        length: the content length that is claimed.
        ranges: whether a wish for a part of the file is followed.
        careless: a part is sent even if the file has changed since.
        version: whether the version of the file is told.
    """

    status: int | None = None
    body: bytes = b"no"
    kind: str = "application/octet-stream"
    cut: int | None = None
    length: int | None = None
    ranges: bool = True
    careless: bool = False
    version: bool = True


class FileServer(ThreadingHTTPServer):
    """Serves `files`; gives `replies` in turn, then proper ones; keeps the requests that it got."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.replies: list[Reply] = []
        self.requests: list[tuple[str, str | None]] = []  # name, range
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        """Quiet: a client that went away is part of a test."""


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, name = self.server, self.path.lstrip("/")
        wish = self.headers["range"]
        server.requests.append((name, wish))
        reply = server.replies.pop(0) if server.replies else Reply()
        if reply.status is not None:
            self.answer(reply.status, reply.body, reply)
            return
        content = server.files[name]
        version = '"' + hashlib.md5(content).hexdigest() + '"'
        headers = {"etag": version} if reply.version else {}
        same = reply.careless or self.headers["if-range"] in (None, version)
        if not (wish and reply.ranges and same):
            self.answer(200, content, reply, headers)
            return
        start = int(re.fullmatch(r"bytes=(\d+)-", wish)[1])
        if start >= len(content):
            headers["content-range"] = f"bytes */{len(content)}"
            self.answer(416, b"", reply, headers)
        else:
            headers["content-range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self.answer(206, content[start:], reply, headers)

    def answer(self, status, body, reply, headers=None):
        self.send_response(status)
        self.send_header("content-type", reply.kind)
        self.send_header("content-length", str(reply.length or len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[: reply.cut])

    def log_message(self, *args):
        pass
