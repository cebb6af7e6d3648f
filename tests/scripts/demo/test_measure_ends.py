"""The small form of the table: the suits of cards."""

import measure_ends
from worlds import cards


def test_suits(output, monkeypatch):
    monkeypatch.setitem(cards.PHRASES, "number", {"six": ()})  # all cards are sixes; nobody asks
    printed = output(measure_ends.main, "--worlds", "cards", "--images", 160)
    rows = {}
    for line in printed.splitlines():
        if line.startswith("cards"):
            *_, collection, rule, told, rate, worst, recall = line.split()
            rows[collection, rule] = [float(number) for number in (told, rate, worst, recall)]
    told, rate, worst, recall = rows["drawn", "rule"]
    assert told > 0.7 and rate <= 0.15 and worst <= 0.2 and recall > 0.9
    assert rows["none", "rule"][:3] == [0, 0, 0]  # nothing is told
    assert rows["none", "min-p"][1] == 1  # the best ones are always counted
    assert rows["drawn", "cosine"][0] == 1
