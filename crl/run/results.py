"""One JSON file per run: what was measured, on which data, with which code. Tables need no more."""

import hashlib
import json
import platform
import subprocess
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from crl.run.errors import UserError
from crl.run.files import write_text
from crl.run.progress import progress

FORMAT = "crl-results-2"
SHOWN = ("data", "criterion", "vlm", "label", "basis", "texts", "method")  # what tables show
PACKAGES = ("torch", "open_clip_torch", "transformers", "scikit-learn", "numpy", "pillow")


class Results:
    """The rows of a run, in `folder/results.json`, which is rewritten after every new row. A row is
    one measurement, identified by `about`, all that changes its numbers: one that is in the file is
    not computed again. `rows` are those of this run, in order; the file keeps earlier ones too."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        self.folder, self.file, self.config = folder, folder / "results.json", config
        self.rows: list[dict[str, Any]] = []
        self.former = read_rows(self.file) if self.file.exists() else []

    def find(self, about: dict[str, Any]) -> dict[str, Any] | None:
        """The row that says `about` of itself, which becomes part of this run; None: none."""
        wanted = json.loads(json.dumps(about))  # as the file holds it: tuples are lists
        for row in self.rows + self.former:
            if row.get("about") == wanted:
                if row not in self.rows:
                    self.rows.append(row)
                return row
        return None

    def add(self, about: dict[str, Any], scores: dict[str, Any], **more: Any) -> dict[str, Any]:
        """Record a row and write the file. An earlier row that a table could not tell from it (see
        `SHOWN`) is replaced."""
        row = json.loads(json.dumps({"about": about, **more, "scores": scores}))
        row |= {"config": self.config, "environment": environment()}
        self.rows.append(row)
        present = read_rows(self.file) if self.file.exists() else []  # maybe of a parallel run
        replaced = [_shown(row) for row in self.rows]
        rows = self.rows + [other for other in present if _shown(other) not in replaced]
        write_text(self.file, json.dumps({"format": FORMAT, "rows": rows}, indent=1) + "\n")
        return row


def _shown(row: dict[str, Any]) -> list[Any]:
    return [row["about"].get(key) for key in SHOWN]


def read_rows(file: Path) -> list[dict[str, Any]]:
    """The rows of a results.json. A UserError if it is missing, damaged or of a former version."""
    if not file.is_file():
        raise UserError(f"there is no {file}; run the task first")
    advice = "remove it and run the task again"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if "cells" in content:
            raise UserError(f"{file} is of a former version of this repository; {advice}")
        sound = all(isinstance(r["about"], dict) and "scores" in r for r in content["rows"])
        if content["format"] != FORMAT or not sound:
            raise ValueError
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise UserError(f"{file} is not a results file, or is damaged; {advice}") from error
    return content["rows"]


def digest(*parts: Any) -> str:
    """16 hex digits that change whenever any of the parts does: arrays, or JSON-able."""
    hasher = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            hasher.update(f"{part.dtype} {part.shape}".encode())
            hasher.update(np.ascontiguousarray(part))
        else:
            hasher.update(json.dumps(part, sort_keys=True, default=str).encode() + b"\0")
    return hasher.hexdigest()[:16]


def summary(values: list[float]) -> dict[str, Any]:
    """Mean, sample standard deviation (ddof = 1; null for one value) and all values over seeds."""
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "std": std, "seeds": [float(v) for v in values]}


def over_seeds(score: Callable[[int], dict[str, float]], seeds: int, label: str) -> dict[str, Any]:
    """The `summary` of each metric of `score(seed)` over the seeds 0, 1, ..."""
    each = [score(seed) for seed in progress(range(seeds), label=label, unit="seeds")]
    return {metric: summary([scores[metric] for scores in each]) for metric in each[0]}


def environment() -> dict[str, Any]:
    """Package versions, the repository's commit (and whether it was edited), and the machine."""
    import torch  # takes seconds, and `digest` needs none of it

    repository = Path(__file__).resolve().parent.parent.parent

    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(repository), *arguments]
        try:
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout
        except (OSError, subprocess.CalledProcessError):
            return None

    commit, status = git("rev-parse", "HEAD"), git("status", "--porcelain", "--untracked-files=no")
    gpu = None
    with suppress(AssertionError, RuntimeError):  # there is none, or it cannot be used
        gpu = torch.cuda.get_device_name()
    return {
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "commit": commit.strip() if commit else None,
        "dirty": bool(status) if status is not None else None,
        "gpu": gpu,
        "machine": f"{platform.system()} {platform.machine()}",
    }
