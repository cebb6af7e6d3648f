"""Paths for tests; and a function that runs a script in a separate process."""

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED = REPOSITORY.parent / "shared"  # real templates and word lists, if they are available


def run_python(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python *arguments`, importing this repository's packages wherever it starts."""
    paths = [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "OMP_NUM_THREADS": "1",
            **environment,
        },
    )
