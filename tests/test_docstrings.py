"""The examples (>>>) in docstrings are true."""

import doctest
import importlib
from pathlib import Path

import pytest
from commands import REPOSITORY
from published import TASKS

FOLDERS = ("crl", *TASKS, "scripts")
FILES = [file for folder in FOLDERS for file in sorted(REPOSITORY.glob(f"{folder}/**/*.py"))]
WITH_EXAMPLES = [file for file in FILES if ">>> " in file.read_text(encoding="utf-8")]


@pytest.mark.parametrize("file", WITH_EXAMPLES, ids=lambda file: file.stem)
def test_examples(file: Path):
    place = file.relative_to(REPOSITORY)
    parts = place.with_suffix("").parts[place.parts[0] == "scripts" :]
    found = doctest.testmod(importlib.import_module(".".join(parts).removesuffix(".__init__")))
    assert found.attempted and not found.failed
