"""A local stand-in for the Hugging Face Hub, which misbehaves as told.

It has the part of the protocol that fetching needs: what a repository holds, and its files. As on
the Hub, weights come from another host, to which it redirects.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from local_server import LocalServer, QuietHandler

REFUSALS = {  # X-Error-Code -> status, X-Error-Message
    "RepoNotFound": (404, "Repository not found"),
    "EntryNotFound": (404, "Entry not found"),
    "GatedRepo": (401, "Access to this model is restricted. Please log in."),
    "Unavailable": (503, "The service is unavailable"),
}


class Request(NamedTuple):
    method: str
    repository: str
    what: str  # the name of a file, or what to tell of the repository
    range: str | None


class Hub(LocalServer):
    """Serves `repositories`, folders by name; keeps the requests that it got."""

    def __init__(self, repositories: dict[str, Path]) -> None:
        super().__init__(Handler)
        self.other_host = f"http://localhost:{self.server_port}"
        self.repositories = repositories
        self.requests: list[Request] = []
        self.behave()

    def behave(
        self,
        refusal: str = "",  # the X-Error-Code of all answers
        cuts: dict[str, list[int]] | None = None,  # file -> bytes at which its transfers break off
        absent: str = "",  # a file that is not there
    ) -> None:
        """How it behaves from now on; by default properly."""
        self.refusal, self.cuts, self.absent = refusal, cuts or {}, absent
        # Other files, another commit: a client may remember what a commit lacks.
        self.commit = hashlib.sha1(absent.encode()).hexdigest()


LISTING = r"/api/models/([^/]+/[^/]+)(/revision/[^/]+|/tree/[^/]+|)"
FILE = r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)"
ELSEWHERE = r"/weights/([^/]+/[^/]+)/(.+)"


class Handler(QuietHandler):
    server: Hub

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        for pattern, answer in ((LISTING, self.list), (FILE, self.resolve), (ELSEWHERE, self.give)):
            if found := re.fullmatch(pattern, path):
                repository, what = found.groups()
                request = Request(self.command, repository, what, self.headers["range"])
                self.server.requests.append(request)
                folder = self.server.repositories.get(repository)
                refusal = self.server.refusal or ("" if folder else "RepoNotFound")
                if refusal:
                    self.refuse(refusal)
                else:
                    answer(folder, repository, what)
                return
        self.refuse("EntryNotFound")

    do_HEAD = do_GET

    def list(self, folder: Path, repository: str, what: str) -> None:
        files = [file for file in sorted(folder.iterdir()) if file.name != self.server.absent]
        names = [{"rfilename": file.name} for file in files]
        answer: Any = {"id": repository, "sha": self.server.commit, "siblings": names}
        if what.startswith("/tree/"):
            kind = {"type": "file", "oid": self.server.commit}
            answer = [{**kind, "path": file.name, "size": file.stat().st_size} for file in files]
        self.answer(200, {"content-type": "application/json"}, json.dumps(answer).encode())

    def resolve(self, folder: Path, repository: str, name: str) -> None:
        file = folder / name
        if name == self.server.absent or not file.is_file():
            self.refuse("EntryNotFound")
        elif file.suffix == ".safetensors":
            headers = {"x-linked-etag": etag(file), "x-linked-size": file.stat().st_size}
            place = f"{self.server.other_host}/weights/{repository}/{name}"
            self.answer(302, {**headers, "location": place})
        else:
            self.give(folder, repository, name)

    def give(self, folder: Path, repository: str, name: str) -> None:
        """The file, from the byte that the client wishes up to the next cut."""
        file, wish = folder / name, self.headers["range"]
        size = file.stat().st_size
        start = int(re.fullmatch(r"bytes=(\d+)-", wish)[1]) if wish else 0
        headers = {"etag": etag(file), "content-length": size - start}
        if wish:
            headers["content-range"] = f"bytes {start}-{size - 1}/{size}"
        cuts = self.server.cuts.get(name) if self.command == "GET" else None
        end = cuts.pop(0) if cuts else size
        self.answer(206 if wish else 200, headers, file.read_bytes()[start:end])

    def refuse(self, code: str) -> None:
        status, message = REFUSALS[code]
        self.answer(status, {"x-error-code": code, "x-error-message": message})

    def answer(self, status: int, headers: dict[str, object], body: bytes = b"") -> None:
        # The Hub advises all who are not logged in; that is no failure.
        advice = {"x-hf-warning": "unauthenticated; Please set a HF_TOKEN"}
        super().answer(status, {**advice, "x-repo-commit": self.server.commit, **headers}, body)


def etag(file: Path) -> str:
    stat = file.stat()
    content = f"{file.name} {stat.st_size} {stat.st_mtime_ns}"  # hashing all of it takes seconds
    return f'"{hashlib.sha256(content.encode()).hexdigest()}"'
