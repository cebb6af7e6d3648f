"""A small local web server for files, which misbehaves on request."""

import re
from dataclasses import dataclass

from local_server import LocalServer, QuietHandler


@dataclass
class Reply:
    """How one request is answered; by default properly."""

    status: int | None = None  # of an answer other than the file, with `body`
    body: bytes = b"no"
    cut: int | None = None  # bytes that are sent before the connection ends
    length: int | None = None  # the content length that is claimed
    location: str = ""  # of a redirect
    endless: bool = False  # bytes without an end, and without a length
    ranges: bool = True  # whether a wish for a part of the file is followed


class FileServer(LocalServer):
    """Serves `files`; gives `replies` in turn, then proper ones; keeps the requests that it got."""

    def __init__(self):
        super().__init__(Handler)
        self.files: dict[str, bytes] = {}
        self.replies: list[Reply] = []
        self.requests: list[tuple[str, str | None]] = []  # name, range


class Handler(QuietHandler):
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
        if reply.endless:
            self.send_response(200)
            self.end_headers()
            while True:  # until the other side goes away
                self.wfile.write(bytes([1]) * 10_000)
        headers: dict[str, object] = {"content-length": reply.length or len(body)}
        headers |= {"location": reply.location} if reply.location else {}
        self.answer(status, headers, body[: reply.cut])
