"""The tables of compare_representations.py from cells that are written by hand. The command itself
is run by tests/test_published_runs.py."""

import compare_representations as script
import pytest
from compare_representations import Bases, Cell, changes, chosen, official, table

from crl.basis import TextBasis
from crl.run.errors import UserError

SHARP, BLUNT = "posterior", "posterior (0.5)"


def cell(data, criterion, metric="k-means NMI", **scores) -> Cell:
    """Scores over two seeds."""
    names = {"paper": "paper", "sharp": SHARP, "blunt": BLUNT}
    return Cell(data, criterion, {names[m]: {metric: [*pair]} for m, pair in scores.items()})


@pytest.fixture
def cells(monkeypatch):
    monkeypatch.setattr(script, "POSTERIORS", {BLUNT: 0.5, SHARP: 1})
    return [
        cell("clevr4", "color", paper=(50, 52), sharp=(60, 64), blunt=(51, 51)),
        cell("clevr4", "color", paper=(50, 52), sharp=(40, 41), blunt=(50, 52)),  # of another list
        cell("cards", "suits", paper=(10, 10), sharp=(11, 11), blunt=(14, 14)),
        cell("genecis", "focus", "R@1, paper", paper=(9, 9), sharp=(0, 0), blunt=(0, 0)),
    ]


def test_changes_count_every_list_but_not_the_weight_of_the_paper(cells):
    assert changes(cells, SHARP) == [
        (11, "clevr4 color k-means NMI"),
        (-10.5, "clevr4 color k-means NMI"),
        (1, "cards suits k-means NMI"),
    ]


def test_the_table_has_means_over_cells_and_deviations_over_seeds(cells):
    lines = [" ".join(line.split()) for line in table(cells[:3], "A title").splitlines()]
    assert lines[2] == "R is k-means NMI worst"
    # per seed: (60 + 40 + 11) / 3 = 37, (64 + 41 + 11) / 3 = 38.67
    assert "posterior 37.8 ± 1.2 -10.5 clevr4 color k-means NMI" in lines
    assert "paper+posterior - -" in lines and any(line.endswith(" -") for line in lines)


def test_the_choice_is_made_on_clevr4_and_each_kind_weighs_the_same(cells):
    own, imported = [cells[0], cells[2]], [*cells[1:3]]
    assert "Chosen on clevr4: posterior." in chosen({"own": own})  # though it is worse on Cards
    both = chosen({"own": own, "official": [imported[0]] * 5 + [imported[1]]})
    assert "Chosen on clevr4: posterior." in both  # +11 - 10.5 against 0 + 0, not five to one
    assert "+11.0" in both and "-10.5" in both


def test_sets_of_imported_lists(tmp_path):
    basis = TextBasis(criterion="color", vlm_prompt="{text}", texts=["red", "blue"])
    for name in ("clevr4_color", "clevr4_color_claude", "clevr4_color_long", "genecis_scene"):
        basis.save(tmp_path / f"{name}.yaml")
    paper, claude = official(tmp_path)
    assert (paper.name, claude.name) == ("official", "official_claude")
    assert paper.of("clevr4_color") == str(tmp_path / "clevr4_color.yaml")
    assert claude.of("clevr4_color") == str(tmp_path / "clevr4_color_claude.yaml")
    assert claude.of("genecis_scene") == str(tmp_path / "genecis_scene.yaml")
    with pytest.raises(UserError, match="import_official_bases"):
        official(tmp_path / "nothing")


def test_robustness(monkeypatch):
    monkeypatch.setattr(script, "CHANGES", {k: script.CHANGES[k] for k in ("as drawn", "noisy")})
    monkeypatch.setattr(script, "CRITERIA", {"cards": ["number", "suits"]})
    printed = script.robustness(Bases("own", lambda name: name), seeds=1, images=60)
    rows = {line.split("  ")[0]: line.split()[-4:] for line in printed.splitlines()[4:-1]}
    assert list(rows)[:2] == ["as drawn", "noisy"] and "50 random texts" in rows
    wrong = rows["texts of a wrong criterion"]
    assert wrong[3] == "-" and float(rows["as drawn"][0]) > float(wrong[0])
    assert all(0 <= float(value) <= 100 for value in [*rows["as drawn"], *rows["noisy"]])


@pytest.mark.parametrize("option", [["--seeds", 0], ["--shots", 0], ["--official", "nowhere"]])
def test_mistakes_are_one_line(refusal, tmp_path, option):
    assert refusal(script.main, "--out", tmp_path / "out", *option)
    assert not (tmp_path / "out").exists()
