"""Paths for tests; and a function that runs a script in a separate process."""

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED = REPOSITORY.parent / "shared"  # real templates and word lists, if they are available


def run_python(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python *arguments`, importing this repository's packages wherever it starts."""
    paths = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    line = [sys.executable, *map(str, arguments)]
    env = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(line, capture_output=True, text=True, check=False, env=env)
