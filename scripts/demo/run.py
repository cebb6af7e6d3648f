"""Run the commands that stdin holds, one on each line, in one process, which imports torch once.

    echo "scripts/demo/make_data.py --out data/demo" | python scripts/demo/run.py

A line that begins with # is printed; what the commands print is not, but for the last one.
"""

import io
import runpy
import shlex
import sys
from contextlib import nullcontext, redirect_stdout
from pathlib import Path


def main() -> None:
    lines = [line.strip() for line in sys.stdin if line.strip()]
    for line in lines:
        if line.startswith("#"):
            print(line.lstrip("# "), flush=True)
            continue
        sys.argv = shlex.split(line)
        sys.path[0] = str(Path(sys.argv[0]).resolve().parent)
        try:
            with nullcontext() if line is lines[-1] else redirect_stdout(io.StringIO()):
                runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as stop:
            if stop.code:
                raise


if __name__ == "__main__":
    main()
