"""The table of fashion retrieval, its notes, and the places of its scores in Table 4."""

import pytest

from fashion_retrieval import rivals, tables

COLUMNS = ("texture", "fabric", "shape", "part", "style")


def cell(method, label, first, variant="x", **changes):
    """mAP of `first`, `first` + 1, ... by attribute."""
    scores = {name: first + n for n, name in enumerate(COLUMNS)}
    scores |= {"overall": 99.0, "mean": first + 2}
    about = {"data": "DeepFashion", "values": [156, 218, 180, 216, 230], "images": 27050}
    about |= {"method": method, "label": label, "variant": variant, "vlm": label, "queries": 9}
    about |= {"vlm_fingerprint": "fingerprint", "without_relevant": 2, "scores": {method: scores}}
    if method.startswith("crl"):
        about |= {"basis": "deepfashion_*", "texts": 97, "basis_hash": "basis"}
    return {**about, **changes}


def lines(cells):
    """The table's lines with single blanks."""
    return [" ".join(line.split()) for line in tables.table(cells, "t").text().splitlines()]


def test_the_places_of_scores_in_table_4():
    universal = cell("universal", "clip-b16", 9.0)
    random = cell("random", "", 2.0)["scores"]
    universal["scores"] |= random | {"random draw": random["random"]}
    cells = [
        universal,
        cell("crl-mlp", "clip-b16", 12.0),  # not in the paper
        cell("crl", "clip-b16", 16.0, "one"),
        cell("crl", "clip-b16", 17.0, "two"),
        cell("csn", "resnet50", 14.0),
        cell("asen", "clip-b16", 15.0),  # not on the tower of its authors
        cell("crl-free", "demo", 15.0),  # not the paper's VLM
        cell("crl-free", "clip-b16", 10.0),
        cell("crl-free", "clip-b16", 11.0, basis="official/deepfashion_*"),  # tells them apart
        cell("crl-free", "clip-b16", 12.0, representation="posterior"),  # not the paper's
    ]
    table = lines(cells)
    assert "DeepFashion - - - Random 2.00 3.00 4.00 5.00 6.00 4.00 99.00" in table
    assert any("clip-b16 [two] deepfashion_* (97) - CRL, backbone" in line for line in table)
    note = "DeepFashion: 2 of 9 queries have no relevant candidate; they score 0"
    assert note in tables.notes(cells)
    places = {
        (score.row, score.basis, score.values[0])
        for score in tables.scores(cells)
        if score.comparable and score.column == "texture"
    }
    basis, free = "deepfashion_* (97)", "CLIP+CRL (no training)"
    assert places == {
        ("Random", "-", 2.0),
        ("Random, one draw", "-", 2.0),
        ("CLIP", "-", 9.0),
        ("CLIP+CRL, heads only", basis, 12.0),
        ("CLIP+CRL", basis, 16.0),
        ("CLIP+CRL", basis, 17.0),
        ("CSN", "-", 14.0),
        (free, basis, 10.0),
        (free, f"official/{basis}", 11.0),
        (f"{free}, posterior", basis, 12.0),
    }
    others = {score.row for score in tables.scores(cells) if not score.comparable}
    assert "ASEN (CLIP)" in others and "demo+CRL (no training)" in others
    assert {score.column for score in tables.scores(cells)} == set(COLUMNS)


@pytest.mark.parametrize(
    "changes",
    [
        {"data": "DeepFashion (valid)"},
        {"values": [16, 12, 14, 13, 8]},  # the garments of the demo
        {"values": None},  # embeddings from a file
        {"images": 26000},  # not the whole split
    ],
)
def test_other_fashion_data_are_not_comparable(changes):
    cells = [cell("universal", "clip-b16", 9.0, **changes)]
    assert "universal" in " ".join(lines(cells))
    assert not any(score.comparable for score in tables.scores(cells))


def test_the_table():
    def cell(label, scores, method="universal", **more):
        names = {"data": "DeepFashion", "label": label, "variant": "x", "method": method}
        return {**names, "scores": scores, **more}

    scores = {"shape": 12.345, "overall": 11.0, "mean": 12.0}
    cells = [
        cell("a", {"new": scores}, "new"),
        cell("a", {"random": scores, "universal": scores}),
        cell("a", {"crl": scores}, "crl"),
        cell("a", {"crl-free": scores}, "crl-free"),
        cell("a", {"crl-free": scores}, "crl-free", representation="posterior (2)", names="3/7"),
        cell("b", {"random": scores, "universal": scores}),
        cell("b", {"asen": scores}, "asen"),
        cell("c", {"csn": scores}, "csn"),
    ]
    printed = tables.table(cells, "title").text().splitlines()[4:-1]
    shown = [line.split("  ") for line in printed]
    shown = [[part.strip() for part in line if part.strip()] for line in shown]
    assert [line[1:5:3] for line in shown] == [
        ["-", "Random"],
        ["c", "CSN"],
        ["b", "ASEN"],
        ["a", "universal: I"],
        ["b", "universal: I"],
        ["a", "CRL† (no training)"],
        ["a", "CRL†, posterior (2) (no training)"],
        ["a", "CRL, backbone trained"],
        ["a", "new"],
    ]
    assert all(line[5:] == ["12.35", "12.00", "11.00"] for line in shown)
    assert [line[3] for line in shown] == [
        "3/7" if "posterior" in line[4] else "-" for line in shown
    ]
    assert list(tables.METHODS)[2:5] == ["triplet", "csn", "asen"] == list(rivals.RIVALS)
