"""Each measurement on tiny sizes: that it runs and what it writes, never its times or ratios."""

import json
import mmap
import sys

import benchmark
import pytest


@pytest.fixture(autouse=True)
def two_sentences(monkeypatch):
    """The criterion's texts, cut short."""
    load = benchmark.TextBasis.load
    monkeypatch.setattr(benchmark.TextBasis, "load", lambda name: load(name).first(2))


def test_quick_run_of_every_measurement(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", f"benchmark.py --quick --images 70 --out {tmp_path}".split())
    benchmark.main()
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["quick"] and found["environment"]["packages"]["torch"]
    assert list(found["measurements"]) == list(benchmark.MEASUREMENTS)
    for name, row in found["measurements"].items():
        assert isinstance(row["value"], float) and row["unit"] in {"x", "MB"}, name
        assert row["met"] in ({None} if row["target"] == "-" else {True, False}), name
    details = {name: row["details"] for name, row in found["measurements"].items()}
    assert len(details["path"]["ratio_each_round"]) == 2
    assert details["cache"]["images"] == 70 and details["cache"]["texts"] == 2
    assert details["memory"]["images"] == 70
    assert details["encodes"] == {"encoded": 40, "one_template_at_a_time": 2 * 10 * 16}
    assert details["scoring"]["different_ranks"] == 0
    assert details["ranking"]["difference"] < 1e-6 and details["ranking"]["queries"] == 100
    assert 0 < details["ranking"]["memory"]["before_mb"] <= details["ranking"]["memory"]["peak_mb"]
    assert details["heads"]["triplets"] == 2 * 256
    assert len(details["step"]["seconds"]["whole"][0]) == 2
    weighed = details["memory"]["workers_1"]
    parts = ("private_mb", "mapped_files_mb", "shared_mb")
    assert weighed["peak_mb"] == pytest.approx(sum(weighed[part] for part in parts))
    assert weighed["embeddings_mb"] == pytest.approx(70 * 512 * 4 / 1e6)

    printed = capsys.readouterr().out.splitlines()
    head = next(i for i, line in enumerate(printed) if line.startswith("measurement"))
    assert printed[head].split() == ["measurement", "target", "measured", "repeat", "with"]
    rows = printed[head + 2 : head + 2 + len(benchmark.MEASUREMENTS)]
    for row, name in zip(rows, benchmark.MEASUREMENTS, strict=True):
        assert row.endswith(f"python scripts/benchmark.py --only {name} --quick")
    notes = printed[head + 3 + len(benchmark.MEASUREMENTS) :]
    assert [note.split(":")[0] for note in notes] == list(benchmark.MEASUREMENTS)


def test_only_what_is_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", f"benchmark.py --quick --only texts --out {tmp_path}".split())
    benchmark.main()
    assert list(json.loads((tmp_path / "results.json").read_text())["measurements"]) == ["texts"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [("--only cashe", "did you mean 'cache'?"), ("--images 0", "at least 1")],
)
def test_wrong_arguments(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *arguments.split()])
    with pytest.raises(SystemExit, match="2"):
        benchmark.main()
    assert message in capsys.readouterr().err


def test_held_memory_counts_what_is_held():
    # Pages of its own: an allocation may be served from memory that is held already.
    before = benchmark.held_memory()["private"]
    with mmap.mmap(-1, 50_000_000, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as data:
        data[:: mmap.PAGESIZE] = bytes(len(data) // mmap.PAGESIZE + 1)
        held = benchmark.held_memory()["private"]
    assert held - before > 45e6
    assert held - benchmark.held_memory()["private"] > 45e6
