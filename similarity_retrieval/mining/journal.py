"""Files that grow batch by batch and survive a kill."""

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from crl.run.errors import UserError
from crl.run.files import write_text


class Journal:
    """A file of lines that grows batch by batch, and a record file that says how far it is.

    Lines that a killed run wrote after the last record are cut off. So a batch and its counts are
    stored completely or not at all.

    Attributes:
        done: how many items (captions, samples) the file covers.
        counts: the sum of the counts given to `add`.
        finished: whether the file covers all items.

    Raises:
        UserError: the file was made from other inputs or settings (`key`), or not by this class.
    """

    def __init__(self, file: Path, key: str):
        self.file, self.key = file, key
        self.record = file.with_suffix(".progress.json")
        self.done, self.size, self.counts, self.finished = 0, 0, Counter(), False
        self.stream: BinaryIO | None = None
        self._resume()

    def _resume(self) -> None:
        advice = f"take another name=, or delete it and {self.record.name}"
        if not self.record.exists():
            if self.file.exists():
                raise UserError(f"{self.file} was not made by this command; {advice}")
            return
        try:
            state = json.loads(self.record.read_text(encoding="utf-8"))
            same = state["key"] == self.key
            done, size = int(state["done"]), int(state["bytes"])
            counts, finished = Counter(state["counts"]), bool(state["finished"])
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise UserError(f"{self.record} is damaged; {advice}") from error
        if not done:  # nothing to lose
            return
        if not same:
            raise UserError(f"{self.file} comes from other inputs or settings; {advice}")
        found = self.file.stat().st_size if self.file.exists() else 0
        if found < size:
            raise UserError(f"{self.file} has lost its end; {advice}")
        if finished and found > size:
            raise UserError(f"{self.file} is longer than what was written; {advice}")
        self.done, self.size, self.counts, self.finished = done, size, counts, finished

    def add(self, rows: list[str], items: int, counts: Counter) -> None:
        """Write the lines `rows`, which come from the next items; `items`: their number."""
        self.size += self.stream.write("".join(row + "\n" for row in rows).encode())
        self.stream.flush()
        self.done += items
        self.counts += counts
        self._note()

    def finish(self) -> None:
        self.finished = True
        self._note()

    def _note(self) -> None:
        state = {
            "key": self.key,
            "done": self.done,
            "bytes": self.size,
            "counts": dict(sorted(self.counts.items())),
            "finished": self.finished,
        }
        write_text(self.record, json.dumps(state, indent=1) + "\n")

    def __enter__(self) -> "Journal":
        if not self.finished:
            self._note()  # before the file exists: a file without a record would be refused
            self.stream = self.file.open("ab")
            self.stream.truncate(self.size)
        return self

    def __exit__(self, *error: object) -> None:
        if self.stream:
            self.stream.close()


def file_digest(file: Path) -> str:
    """SHA-256 of the content of `file`, in hex."""
    state = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            state.update(block)
    return state.hexdigest()


def batches(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Lists of `size` items each; the last one may be shorter."""
    items = iter(items)
    while batch := list(itertools.islice(items, size)):
        yield batch
