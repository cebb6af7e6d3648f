"""A local stand-in for the Hugging Face Hub, which misbehaves as told.

It has the part of the protocol that fetching needs: what a repository holds, and its files. As on
the Hub, weights come from another host, to which it redirects.
"""

import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

COMMIT = hashlib.sha1(b"the one commit of each repository").hexdigest()
WEIGHTS = (".safetensors", ".bin")
MESSAGES = {  # the Hub's words, by its X-Error-Code
    "RepoNotFound": "Repository not found",
    "EntryNotFound": "Entry not found",
    "GatedRepo": "Access to this model is restricted. Please log in.",
    "Unavailable": "The service is unavailable",
}


class Request(NamedTuple):
    """What a client asked for; `part` is api/models/, weights/ (the other host) or empty."""

    method: str
    part: str
    repository: str
    rest: str
    range: str | None


class Hub(ThreadingHTTPServer):
    """Serves `repositories`, folders by name; keeps the requests that it got.

    Attributes:
        refusal: the status and X-Error-Code of all answers, if any.
        cuts: the connection ends at these bytes of the next files of weights, one after the other.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, Path] = {}
        self.refusal: tuple[int, str] | None = None
        self.cuts: list[int] = []
        self.requests: list[Request] = []
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.other_host = f"http://localhost:{self.server_port}"

    def handle_error(self, request, client_address):
        """Quiet: a client that went away is part of a test."""


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        found = re.fullmatch(r"/(api/models/|weights/|)([^/]+/[^/]+)/?(.*)", path)
        assert found, path
        request = Request(self.command, *found.groups(), self.headers["range"])
        self.server.requests.append(request)
        folder = self.server.repositories.get(request.repository)
        file = folder and folder / request.rest.rpartition("/")[2]
        if self.server.refusal:
            self.refuse(*self.server.refusal)
        elif folder is None:
            self.refuse(404, "RepoNotFound")
        elif request.part == "api/models/" and re.fullmatch(r"(revision/[^/]+)?", request.rest):
            names = [{"rfilename": name.name} for name in sorted(folder.iterdir())]
            self.tell({"id": request.repository, "sha": COMMIT, "siblings": names})
        elif request.part == "api/models/" and re.fullmatch(r"tree/[^/]+", request.rest):
            print("TREE", self.path)
            entries = [(file.name, file.stat().st_size) for file in sorted(folder.iterdir())]
            kind = {"type": "file", "oid": COMMIT}
            self.tell([{**kind, "path": name, "size": size} for name, size in entries])
        elif request.part == "api/models/" or not file.is_file():
            self.refuse(404, "EntryNotFound")
        elif request.part == "" and file.suffix in WEIGHTS:
            headers = {"x-linked-etag": etag(file), "x-linked-size": file.stat().st_size}
            place = f"{self.server.other_host}/weights/{request.repository}/{file.name}"
            self.start(302, {**headers, "location": place, "content-length": 0})
        else:
            self.give(file)

    do_HEAD = do_GET

    def refuse(self, status: int, code: str) -> None:
        headers = {"x-error-code": code, "x-error-message": MESSAGES[code], "content-length": 0}
        self.start(status, headers)

    def tell(self, answer: Any) -> None:
        body = json.dumps(answer).encode()
        self.start(200, {"content-type": "application/json", "content-length": len(body)})
        self.wfile.write(body)

    def give(self, file: Path) -> None:
        size = file.stat().st_size
        start = int(re.fullmatch(r"bytes=(\d+)-", self.headers["range"] or "bytes=0-")[1])
        part = {"content-range": f"bytes {start}-{size - 1}/{size}"} if start else {}
        self.start(
            206 if part else 200, {**part, "etag": etag(file), "content-length": size - start}
        )
        end = size
        if self.command == "GET" and self.server.cuts and file.suffix in WEIGHTS:
            end = self.server.cuts.pop(0)
        if self.command == "GET" and start < end:
            with file.open("rb") as opened:
                self.connection.sendfile(opened, start, end - start)

    def start(self, status: int, headers: dict[str, object]) -> None:
        self.send_response(status)
        for name, value in {"x-repo-commit": COMMIT, **headers}.items():
            self.send_header(name, str(value))
        self.end_headers()

    def log_message(self, *args):
        pass


def etag(file: Path) -> str:
    return f'"{hashlib.sha256(f"{file.name} {file.stat().st_mtime_ns}".encode()).hexdigest()}"'
