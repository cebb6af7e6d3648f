"""Records of files that are trusted as long as the stamps of the files are the same: the size, and
the times of the last change of content and of the entry (a rename, say) in nanoseconds. So does
git's index."""

import json
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from crl.run.files import write_text
from crl.run.results import digest

Stamps = dict[str, list[int]]  # name of a file -> size, times
SETTLED = 2 * 10**9  # nanoseconds; within them two versions of a file may have the same stamp


def stamps(files: Iterable[Path]) -> Stamps:
    """The stamps of those of the files that exist."""
    stats = {}
    for file in files:
        with suppress(OSError):
            stats[str(file)] = file.stat()
    times = "st_size", "st_mtime_ns", "st_ctime_ns"
    return {name: [getattr(stat, time) for time in times] for name, stat in stats.items()}


def settled_stamps(files: Iterable[Path]) -> Stamps:
    """The same without files that have changed in the last 2 seconds, or in the future: another
    change might not show."""
    latest = time.time_ns() - SETTLED
    return {name: stamp for name, stamp in stamps(files).items() if stamp[1] < latest}


def read_record(file: Path) -> dict[str, Any]:
    """What `write_record` wrote; {} if there is none, or a damaged one."""
    with suppress(OSError, ValueError, TypeError):
        checksum, content = json.loads(file.read_text(encoding="utf-8"))
        if checksum == digest(file.name, content):
            return content
    return {}


def write_record(file: Path, content: dict[str, Any]) -> None:
    if content == read_record(file):
        return
    with suppress(OSError):  # without it the next run takes longer
        write_text(file, json.dumps([digest(file.name, content), content], indent=1) + "\n")
