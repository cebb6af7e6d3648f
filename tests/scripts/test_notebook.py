"""The notebook's code runs from top to bottom, and holds the ten lines of the README."""

import json
import sys
import tempfile

import matplotlib.pyplot as plt
from commands import REPOSITORY
from published import python_blocks


def test_the_notebook_runs_and_shows_the_ten_lines(monkeypatch, tmp_path):
    cells = json.loads((REPOSITORY / "scripts/crl.ipynb").read_text(encoding="utf-8"))["cells"]
    codes = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    method = python_blocks("README.md")[0].replace('"clip"', '"demo"')
    lines = method.replace('"pictures"', "folder").splitlines()
    assert len(cells) <= 12 and {*lines} <= {*"\n".join(codes).splitlines()}
    monkeypatch.chdir(REPOSITORY / "scripts")  # as Jupyter does
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    plt.switch_backend("Agg")
    plt.close("all")
    names: dict = {}
    for code in codes:
        exec(code, names)
    figures = plt.get_fignums()
    plt.close("all")
    assert len(figures) == 4 and {*names["clusters"]} == {*names["counts"]} == {0, 1, 2, 3}
    assert len(names["found"]) == 10
