"""One JSON file per run: what was measured, on which data, with which code. Tables need no more."""

import hashlib
import json
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from crl.run.errors import UserError
from crl.run.files import write_text

PACKAGES = ("torch", "open_clip_torch", "transformers", "scikit-learn", "numpy", "pillow")
# Two results with equal values of these keys are the same measurement: the later one replaces the
# earlier one.
IDENTITY = ["data", "criterion", "vlm", "vlm_fingerprint", "basis_hash", "image_vector"]
IDENTITY += ["representation", "null_space", "rank", "balance"]
IDENTITY += ["method", "label", "variant"]  # where a task has them


class Run:
    """The results of one run, in `folder/results.json`, rewritten after every finished cell.

    A cell is one measurement: one VLM under one criterion, with the configuration and environment
    of the run. Its key is a digest of everything that affects its numbers. A cell whose key is
    already in the file is not computed again. So an interrupted run continues, and a repeated one
    takes seconds. Cells of earlier runs with other VLMs, criteria or bases stay in the file.
    """

    def __init__(self, folder: Path, config: dict[str, Any]):
        self.folder = Path(folder)
        self.file = self.folder / "results.json"
        self.config = config
        self.cells: list[dict[str, Any]] = []
        self.former = read_cells(self.file) if self.file.exists() else []

    def finished(self, key: str) -> bool:
        """Is there an earlier result for `key`? If so, it becomes part of this run."""
        found = [cell for cell in self.former if cell.get("key") == key]
        self.cells += found
        return bool(found)

    def add(self, key: str, **cell: Any) -> None:
        """Record a cell (`vlm`, `criterion`, `scores`, `seconds`, ...) and write the file."""
        cell = {"key": key, **cell, "config": self.config, "environment": environment()}
        self.cells.append(cell)
        present = read_cells(self.file) if self.file.exists() else []  # maybe of a parallel run
        mine = {_identity(cell) for cell in self.cells}
        cells = self.cells + [other for other in present if _identity(other) not in mine]
        write_text(self.file, json.dumps({"cells": cells}, indent=1) + "\n")


def _identity(cell: dict[str, Any]) -> tuple:
    return tuple(repr(cell.get(name)) for name in IDENTITY)


def read_cells(file: Path) -> list[dict[str, Any]]:
    """The cells of a results.json.

    Raises:
        UserError: the file is missing or is not a results file.
    """
    if not Path(file).is_file():
        raise UserError(f"there is no {file}; run the task first")
    try:
        cells = json.loads(Path(file).read_text(encoding="utf-8"))["cells"]
        if not all(isinstance(cell, dict) and "scores" in cell for cell in cells):
            raise ValueError
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise UserError(
            f"{file} is not a results file, or is damaged; remove it and run the task again"
        ) from error
    return cells


def digest(*parts: Any) -> str:
    """16 hex digits that change whenever any of the JSON-able `parts` does."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def array_digest(array: np.ndarray) -> str:
    """16 hex digits of the content, shape and type of an array."""
    content = hashlib.sha256(np.ascontiguousarray(array)).hexdigest()
    return digest(content, array.shape, str(array.dtype))


def summary(values: list[float]) -> dict[str, Any]:
    """Mean, sample standard deviation (ddof = 1; null for one value) and all values over seeds."""
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "std": std, "seeds": [float(v) for v in values]}


def environment() -> dict[str, Any]:
    """Package versions, the repository's commit (and whether it was edited), and the machine."""
    repository = Path(__file__).resolve().parent.parent.parent

    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(repository), *arguments]
        try:
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout
        except (OSError, subprocess.CalledProcessError):
            return None

    commit, status = git("rev-parse", "HEAD"), git("status", "--porcelain", "--untracked-files=no")
    return {
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "commit": commit.strip() if commit else None,
        "dirty": bool(status) if status is not None else None,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "machine": f"{platform.system()} {platform.machine()}",
    }
