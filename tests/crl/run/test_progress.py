"""Progress is shown on a terminal only."""

import sys

from crl.run.progress import progress


def test_quiet_where_there_is_no_terminal(capsys):
    assert list(progress([1, 2], label="work", unit="steps")) == [1, 2]
    assert capsys.readouterr() == ("", "")


def test_a_bar_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress(label="work", unit="steps", total=3, done=1) as bar:
        bar.update()
        bar.refresh()
    assert "work" in capsys.readouterr().err
    list(progress([1], label="work", unit="steps", shown=False))
    assert capsys.readouterr().err == ""
