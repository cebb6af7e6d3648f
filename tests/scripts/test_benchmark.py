"""Every measurement on tiny sizes: it must run and print a number; the number is not tested. The
two sides of a measurement must agree, or the script stops."""

import json
import re

import benchmark
import numpy as np
import pytest


@pytest.fixture
def genecis(tmp_path):
    """Two object tasks of 10 templates each, of 20 images in all."""
    rng = np.random.default_rng(0)
    for task in benchmark.OBJECT_TASKS:
        templates = []
        for number in range(10):
            chosen = rng.choice(20, 16, replace=False)
            reference, target, *gallery = ({"val_image_id": int(n)} for n in chosen)
            template = {"reference": reference, "target": target, "gallery": gallery}
            templates.append({**template, "condition": f"thing {number % 3}"})
        (tmp_path / f"{task}.json").write_text(json.dumps(templates))
    return tmp_path


def test_every_row_prints_a_number(genecis, run):
    code, out, errors = run(benchmark.main, "--quick", "--genecis", genecis)
    assert code == 0, errors
    rows = [line for line in out.splitlines() if re.search(r" \d+(\.\d+)? (x|MB)$", line)]
    assert len(rows) == len(benchmark.MEASUREMENTS) - (not benchmark.RAY), out
    embeddings = 200_000 * benchmark.WIDTH * 4 / 1e6  # MB, of the 200,000 candidates
    (ranked,) = (row for row in rows if row.startswith("peak memory of mAP"))
    assert embeddings < float(ranked.split()[-2]) < 10 * embeddings
    assert "20, 320 images" in out and "argsort per query" in out


def test_what_needs_genecis_is_skipped_without(run):
    code, out, _ = run(benchmark.main, "--quick", "--only", "encodes", "ranking")
    assert code == 0 and "encodes: skipped" in out
    assert "mAP the authors' way / here" in out and "GeneCIS" not in out


def test_sides_that_differ_stop_the_script(run, monkeypatch):
    monkeypatch.setattr(benchmark, "listed_precision", lambda *_: 0.5)
    with pytest.raises(RuntimeError, match="mAP: the two sides differ"):
        run(benchmark.main, "--quick", "--only", "ranking")


def test_unknown_name(refusal):
    assert "did you mean 'cache'?" in refusal(benchmark.main, "--only", "cashe")
