"""Tables of fashion retrieval, and the paper's numbers beside ours."""

import json

import pytest
from commands import REPOSITORY

from fashion_retrieval import rivals, tables

PAPER = json.loads((REPOSITORY / "configs/paper_tables.json").read_text())["table4_fashion_map"]
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


def printed(cells):
    """The table and notes, the comparison, what is quoted; lines with single blanks."""
    table, _, rest = tables.report(cells, PAPER).partition("The paper's numbers beside ours")
    beside, _, quoted = rest.partition("Only quoted from the paper, no result of ours")
    parts = (table, beside, quoted)
    return [[" ".join(line.split()) for line in part.splitlines()] for part in parts]


def test_fashion_retrieval_beside_table_4():
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
    table, beside, quoted = printed(cells)
    order = [line.split("clip-b16 ")[-1] for line in table if line.startswith("DeepFashion")]
    assert [line[:14] for line in order[2:4]] == ["DeepFashion re", "- - ASEN 15.00"]
    assert "DeepFashion - - - Random 2.00 3.00 4.00 5.00 6.00 4.00 99.00" in table
    assert "DeepFashion clip-b16 [two] deepfashion_* (97) - CRL, backbone trained" in " ".join(
        table
    )
    assert "note: DeepFashion: 2 of 9 queries have no relevant candidate; they score 0" in table
    assert "Random - style mAP 1.97 6.00 +4.03" in beside
    assert "CLIP - texture mAP 9.14 9.00 -0.14" in beside
    assert "CLIP - mean mAP 6.08 11.00 +4.92" in beside  # the plain mean, not `overall`
    assert "CSN - part mAP 5.13 17.00 +11.87" in beside
    assert "CLIP+CRL [one] deepfashion_* (97) texture mAP 16.88 16.00 -0.88" in beside
    assert "CLIP+CRL [two] deepfashion_* (97) texture mAP 16.88 17.00 +0.12" in beside
    free = "CLIP+CRL (no training)"
    assert f"{free} deepfashion_* (97) texture mAP 11.03 10.00 -1.03" in beside
    assert f"{free} official/deepfashion_* (97) texture mAP 11.03 11.00 -0.03" in beside
    assert sum("mAP" in line for line in beside) == 7 * 6
    names = ["Triplet", "ASEN", "ASEN++", "RPF"]
    assert [line.split(" ")[0] for line in quoted[4:8]] == names
    assert quoted[2] == "method texture fabric shape part style mean"
    assert "RPF 15.62 8.30 15.02 7.38 4.77 10.22" in quoted and len(quoted) == 4 + 4 + 1


@pytest.mark.parametrize(
    "changes",
    [
        {"data": "DeepFashion (valid)"},
        {"values": [16, 12, 14, 13, 8]},  # the garments of the demo
        {"values": None},  # embeddings from a file
        {"images": 26000},  # not the whole split
        {"scores": {"universal": {"hem": 9.0, "overall": 9.0, "mean": 9.0}}},  # other attributes
    ],
)
def test_other_fashion_data_are_not_compared(changes):
    cells = [cell("universal", "clip-b16", 9.0, **changes)]
    table, beside, quoted = printed(cells)
    assert "universal" in " ".join(table) and not beside and not quoted
    assert "aper" not in " ".join(table)


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
    lines = tables.table(cells, "title").splitlines()[4:-1]
    shown = [line.split("  ") for line in lines]
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
