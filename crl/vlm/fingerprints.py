"""Fingerprints from earlier runs: a VLM whose files are unchanged is not loaded to get one."""

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from crl.run.files import CACHE, write_text
from crl.run.results import digest

FOLDER = CACHE / "fingerprints"
LIBRARIES = ("torch", "open_clip_torch", "transformers")  # other versions may embed differently


@dataclass(frozen=True)
class Known:
    """What a run must know of a VLM if all embeddings are in the cache."""

    fingerprint: str
    dim: int


def recall(source: str, precision: str) -> Known | None:
    """The `known` that `remember` kept, if no file of the VLM has changed since; else None."""
    try:
        record = json.loads(_file(source, precision).read_text(encoding="utf-8"))
        same = record["files"] == _stamps([Path(file) for file in record["files"]])
        return Known(**record["known"]) if same else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # no record, or a damaged one: the model must be loaded


def remember(source: str, precision: str, files: list[Path], known: Known) -> None:
    """Keep `known` for the VLM that was loaded from `files`."""
    record = {"source": source, "files": _stamps(files), "known": asdict(known)}
    with suppress(OSError):  # without the record the next run only takes some seconds longer
        write_text(_file(source, precision), json.dumps(record, indent=1) + "\n")


def _file(source: str, precision: str) -> Path:
    versions = [metadata.version(library) for library in LIBRARIES]
    place = str(Path(source).resolve()) if Path(source).is_dir() else source
    return FOLDER / f"{digest(place, precision, versions)}.json"


def _stamps(files: list[Path]) -> dict[str, list[int]]:
    """Size, and time of the last change in nanoseconds, of each file."""
    stats = {str(file.resolve()): file.stat() for file in files}
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}
