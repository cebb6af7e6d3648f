"""Progress: a bar on a terminal, a line every so many seconds elsewhere, silence for short work."""

import io
import sys
import time

from crl.run import progress as module
from crl.run.progress import progress


def test_short_work_prints_nothing_without_a_terminal(capsys):
    assert list(progress(range(100), label="images", unit="images")) == list(range(100))
    with progress(label="images", unit="images", total=3) as bar:
        bar.update(3)
    assert capsys.readouterr().err == ""


def test_long_work_prints_a_line_now_and_then(capsys, monkeypatch):
    monkeypatch.setattr(module, "SECONDS", 0.05)
    for _ in progress(range(20), label="images, clip", unit="images"):
        time.sleep(0.02)
    shown = capsys.readouterr().err
    lines = shown.splitlines()
    assert 2 <= len(lines) <= 8 and "\r" not in shown
    counts = [int(line.split()[2]) for line in lines]
    assert all(line.startswith("images, clip: ") and "of 20 (images)" in line for line in lines)
    assert counts == sorted(counts) and 0 < counts[0] < 20


def test_other_processes_and_finished_work_are_silent(capsys, monkeypatch):
    monkeypatch.setattr(module, "SECONDS", 0.0)
    assert list(progress(range(3), label="a", unit="b", shown=False)) == [0, 1, 2]
    assert capsys.readouterr().err == ""


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_on_a_terminal(monkeypatch):
    terminal = Terminal()
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", terminal)
        for _ in progress(range(3), label="images", unit="images", total=5, done=2):
            pass
    assert "images:" in terminal.getvalue() and "2/5" in terminal.getvalue()
    assert "\r" in terminal.getvalue()
