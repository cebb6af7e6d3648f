"""What every script prints with --help. `python help_texts.py --help` does it with placeholders,
and names the libraries that are imported all the same."""

import contextlib
import io
import json
import re
import runpy
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDERS = ("scripts", "scripts/demo", "*_clustering", "*_retrieval")
FILES = [file for folder in FOLDERS for file in sorted(REPOSITORY.glob(f"{folder}/*.py"))]
RUNS = re.compile(r"\n@command\n|from crl\.commands\.")
SCRIPTS = [file for file in FILES if RUNS.search(file.read_text(encoding="utf-8"))]


def help_texts() -> dict[str, str]:
    """Script -> its help, and the exit code."""
    texts = {}
    for script in SCRIPTS:
        sys.argv, sys.path[0] = [str(script), "--help"], str(script.parent)
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            try:
                runpy.run_path(str(script), run_name="__main__")
            except SystemExit as stop:
                print(f"exit code {stop.code}")
        texts[str(script)] = printed.getvalue()
    return texts


if __name__ == "__main__":
    texts = help_texts()
    places = {name: str(getattr(m, "__file__", "")) for name, m in sys.modules.items()}
    installed = {name.split(".")[0] for name in places if "site-packages" in places[name]}
    print(json.dumps([texts, sorted(installed)]))
