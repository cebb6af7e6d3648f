"""The table of costs, with a stand-in that makes no mistake."""

import draw_costs
from worlds import clevr4

from classification_clustering import ask
from crl.run.chat import Server


def test_a_stand_in_without_errors_is_perfect_at_its_stated_cost(tmp_path, output):
    clevr4.write(tmp_path / "demo", images=100, seed=0, workers=0)
    out = tmp_path / "out"
    printed = output(draw_costs.main, "--root", tmp_path / "demo", "--out", out, "--error", 0,
                     "--seconds", 2)  # fmt: skip
    assert "STAND-IN: true labels, 0% at random; 2 s each" in printed
    rows = {line.split("  ")[0]: line.split()[-2:] for line in printed.splitlines()}
    assert rows["ictc (stand-in)"] == ["100.0", "6000.0"]
    assert rows["instructed (stand-in)"] == ["100.0", "2000.0"]
    assert float(rows["paper"][0]) > float(rows["universal"][0]) and float(rows["paper"][1]) > 0
    assert (out / "costs.png").stat().st_size > 10_000
    assert ask.Server is Server
