"""Every measurement once, at a tiny size: it must run and give both sides; times are not tested."""

import io
import re
import runpy
import shutil
import sys
from contextlib import redirect_stdout

import benchmark
import numpy as np
import pytest


def first_side(done):
    """`Bench.run` in this process, which has imported torch already. Of the two sides only the
    first: the second is the same command with stored embeddings, or in bf16, whose convolutions
    take minutes on some processors."""

    def run_here(bench, script, *arguments, remove=()):
        if script in done:
            return
        done.add(script)
        for folder in remove:
            shutil.rmtree(folder, ignore_errors=True)
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()):
            patch.setattr(sys, "argv", [script, *map(str, arguments)])
            runpy.run_path(str(benchmark.REPOSITORY / script), run_name="__main__")

    return run_here


@pytest.mark.parametrize("name", benchmark.MEASUREMENTS)
def test_each_measurement_gives_two_sides_and_their_ratio(name, run, monkeypatch):
    if name in ("tasks", "trainings"):
        monkeypatch.setattr(benchmark.Bench, "run", first_side(set()))
        monkeypatch.setattr(benchmark, "QUICK", benchmark.QUICK._replace(demo=200, triplets=8))
    code, out, errors = run(benchmark.main, "--quick", "--only", name)
    assert code == 0, errors
    rows = [line for line in out.splitlines() if " | " in line]
    assert rows, out
    for row in rows:
        assert re.fullmatch(rf"{name}: .+ \| .+ / .+( \| \d+\.\d+){{3}}", row)
        assert row.split(" | ")[0] in out.split("measurement", 1)[1]  # the table at the end


def test_sides_that_differ_stop_the_script(run, monkeypatch):
    monkeypatch.setattr(benchmark, "read", lambda file, rows: np.zeros((len(rows), benchmark.D)))
    with pytest.raises(AssertionError, match="Arrays are not equal"):
        run(benchmark.main, "--quick", "--only", "store")


def test_a_command_that_fails_is_named(refusal, monkeypatch):
    monkeypatch.setattr(benchmark, "DEMO", benchmark.DEMO / "missing")
    monkeypatch.setattr(benchmark.Bench, "demo_data", lambda bench, *_: bench.work)
    line = refusal(benchmark.main, "--quick", "--only", "tasks")
    assert "classification_clustering/clustering.py failed" in line
