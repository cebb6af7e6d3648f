"""The tables from cells that are written by hand. (The command: tests/test_published_runs.py.)"""

import compare_representations as script
import pytest
from compare_representations import changes, chosen, table

SHARP, BLUNT = "posterior", "posterior (0.5)"


def cell(data, criterion, basis="b", metric="k-means NMI", **scores) -> dict:
    """Scores over two seeds."""
    names = {"paper": "paper", "sharp": SHARP, "blunt": BLUNT}
    return {(data, criterion, basis): {names[m]: {metric: [*pair]} for m, pair in scores.items()}}


@pytest.fixture
def cells(monkeypatch):
    monkeypatch.setattr(script, "POSTERIORS", {BLUNT: 0.5, SHARP: 1})
    return (
        cell("clevr4", "color", paper=(50, 52), sharp=(60, 64), blunt=(51, 51)),
        cell("clevr4", "color", "of GPT", paper=(50, 52), sharp=(40, 41), blunt=(50, 52)),
        cell("cards", "suits", paper=(10, 10), sharp=(11, 11), blunt=(14, 14)),
    )


def test_the_tables_count_every_list_but_not_the_weight_of_the_paper(cells):
    own, other, cards = cells
    weighted = cell("genecis", "focus", metric="R@1, paper", paper=(9, 9), sharp=(0, 0))
    assert changes(own | other | cards | weighted, SHARP) == [
        (11, "clevr4 color k-means NMI"),
        (-10.5, "clevr4 color k-means NMI"),
        (1, "cards suits k-means NMI"),
    ]
    text = table(own | other | cards, "A title").text()
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[2] == "R is k-means NMI worst"
    # per seed: (60 + 40 + 11) / 3 = 37, (64 + 41 + 11) / 3 = 38.67
    assert "posterior 37.8 ± 1.2 -10.5 clevr4 color k-means NMI" in lines
    assert "paper+posterior - -" in lines


def test_the_choice_is_made_on_clevr4_and_each_kind_weighs_the_same(cells):
    own, other, cards = cells
    assert "Chosen on clevr4: posterior." in chosen({"own": own | cards})  # though worse on Cards
    five = {(d, c, f"{basis} {n}"): m for n in range(5) for (d, c, basis), m in other.items()}
    both = chosen({"own": own | cards, "official": five | cards})
    assert "Chosen on clevr4: posterior." in both  # +11 - 10.5 against 0 + 0, not five to one
    assert "+11.0" in both and "-10.5" in both
