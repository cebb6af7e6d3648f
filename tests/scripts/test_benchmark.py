"""Every measurement once, at a tiny size: it must run and give both sides; times are not tested."""

import re

import benchmark
import numpy as np
import pytest


@pytest.mark.parametrize("name", benchmark.MEASUREMENTS)
def test_each_measurement_gives_two_sides_and_their_ratio(name, run):
    if name == "ray":
        pytest.importorskip("ray")
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


def test_an_unknown_name_is_refused(refusal):
    assert "did you mean 'store'?" in refusal(benchmark.main, "--only", "stor")
