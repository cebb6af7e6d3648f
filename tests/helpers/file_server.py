"""A small local web server for files, which misbehaves on request."""

import re
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Reply:
    """How one request is answered; by default properly.

    Attributes:
        status: an answer other than the file, with `body`.
        cut: how many bytes are sent before the connection ends.
        length: the content length that is claimed.
        ranges: whether a wish for a part of the file is followed.
    """

    status: int | None = None
    body: bytes = b"no"
    cut: int | None = None
    length: int | None = None
    ranges: bool = True


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
        name, wish = self.path.lstrip("/"), self.headers["range"]
        self.server.requests.append((name, wish))
        reply = self.server.replies.pop(0) if self.server.replies else Reply()
        status, body = reply.status or 200, reply.body
        if reply.status is None:
            body = self.server.files[name]
            if wish and reply.ranges:
                start = int(re.fullmatch(r"bytes=(\d+)-", wish)[1])
                status, body = (206 if start < len(body) else 416), body[start:]
        self.send_response(status)
        self.send_header("content-length", str(reply.length or len(body)))
        self.end_headers()
        self.wfile.write(body[: reply.cut])

    def log_message(self, *args):
        pass
