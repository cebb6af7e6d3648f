import io
import sys

import pytest

from crl.run.progress import progress


@pytest.mark.parametrize(("batch", "done"), [(1, 0), (64, 0), (64, 128)])
def test_the_time_left_is_not_estimated_before_the_third_batch(monkeypatch, batch, done):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress(label="a", unit="b", total=1000, done=done, batch=batch) as bar:
        bar.start_t -= 60
        estimates = []
        for n in (0, 1, 3 * batch - 1, 3 * batch, 999 - done):
            bar.n = done + n
            estimates.append("<?, " not in str(bar))
    assert estimates == [False, False, False, True, True]
