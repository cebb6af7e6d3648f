"""The tables of rivals beside CRL, from rows and records by hand."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from paper_tables import rivals
from PIL import Image

from crl.run.results import summary


@pytest.fixture(autouse=True)
def _embedding(monkeypatch):
    monkeypatch.setattr(rivals, "embedding_seconds", lambda run: 2.0)


def run(rows: list, *trainings: dict) -> SimpleNamespace:
    before = [SimpleNamespace(folder=Path(t["config"]["name"]), record=t) for t in trainings]
    return SimpleNamespace(rows=rows, before=before, config=SimpleNamespace(vlm="demo"))


def training(name: str, supervision: str, losses: list, seconds: float, **more) -> dict:
    record = {"config": {"name": name}, "supervision": supervision, "losses": losses}
    record |= {"seconds": seconds, "preparation_seconds": 5, "parameters": 1234, "best": None}
    return record | more


def clustered(criterion: str, method: str, nmi: float, **about) -> dict:
    about = {"data": "clevr4", "criterion": criterion, "method": method, "basis": "-", **about}
    about = {"vlm": "demo", **about}
    return {"about": about, "images": 500, "scores": {"nmi": summary([nmi]), "ri": summary([1])}}


def test_clustering(tmp_path):
    stages = {"name": "scan", "stages": [{"epochs": 2}, {"epochs": 1}]}
    scan = training("scan", "images", [5.28, 3.7, -9.7], 100, config=stages, form="probabilities")
    scan |= {"best": {"epoch": 3, "neighbours_agree": 67.2}, "inference_seconds": 1}
    words = {"form": "features", "best": {"cosine": 0.412}}
    proxies = [training(c, "words", [0.8, 0.7], 45, **words) for c in ("color", "shape")]
    crl = {"basis": "b", "texts": 9}
    criteria = ("color", "shape")
    runs = [
        run([clustered(c, "universal", nmi) for c, nmi in zip(criteria, (1, 93), strict=True)]),
        run([clustered("suits", "universal", 5)]),  # where no rival was run: not in the table
        run([clustered(c, "paper", 90, **crl) for c in criteria]),
        run([clustered(c, "scan", 20, rival="d", vlm="-") for c in criteria], scan),
        run([clustered("color", "multi_map", 64, rival="e")], proxies[0]),
        run([clustered("color", "universal", 1), clustered("shape", "multi_map", 48, rival="f")],
            proxies[1]),
    ]  # fmt: skip
    by_name = rivals.entries(2, runs)
    shown = rivals.table(2, by_name)
    assert shown.header[6:] == ["color/nmi", "shape/nmi", "mean"]
    loss = "loss 0.8 to 0.7, cosine 0.412"
    assert shown.rows == [
        ["demo", "nothing", "-", "0", "0", "2.0", "1.0", "93.0", "47.0"],
        ["demo+CRL", "texts", "-", "0", "0", "2.0", "90.0", "90.0", "90.0"],
        ["SCAN", "images", "loss 5.28 to 3.7, -9.7 to -9.7, neighbours_agree 67.2", "1,234", "105",
         "12.0", "20.0", "20.0", "20.0"],
        ["Multi-Map (demo)", "words", f"{loss}; {loss}", "1,234", "100", "100.0", "64.0", "48.0",
         "56.0"],
    ]  # fmt: skip
    rivals.draw(shown, by_name, tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").width > 500


def test_queries_of_genecis_cost_time_and_two_prompts_have_a_row_each():
    def row(method: str, **about) -> dict:
        about = {"data": "focus_object", "vlm": "demo", "label": "demo", "method": method, **about}
        row = {"about": {"basis": "-", **about}, "scores": {"R@1": 50.0, "R@2": 60.0}}
        row |= {"images": 9, "templates": 250}
        return row | ({"query_seconds": 1.0} if "rival" in about else {})

    rows = [row("chance"), row("image"), row("lincir, that", rival="d")]
    rows += [
        row("lincir, released", rival="d"),
        row("CIG (ours, o) on x, that", rival="d", generated=1),
    ]
    by_name = rivals.entries(3, [run(rows, training("lincir", "captions", [0.3, 0.1], 40))])
    assert {name: (e.supervision, e.speed, e.seconds) for name, e in by_name.items()} == {
        "chance": ("nothing", None, 0),
        "demo image": ("nothing", 2.0, 0),
        "LinCIR (demo)": ("captions", 6.0, 45),
        "LinCIR (demo), released": ("captions", 6.0, 45),
        "CIG (ours, o) on x (demo)": ("captions", 8.0, 45),
    }


def test_both_stages_of_a_fashion_training_count():
    about = {"data": "Garments", "vlm": "demo + small", "basis": "-", "criterion": "all"}
    about |= {"method": "asen_pp", "label": "demo"}
    row = {"about": about, "images": 400, "seconds": 6, "scores": {"part": 30.0, "mean": 30.0}}
    stages = [training(n, "labels", [0.2, 0.1], 60) for n in ("stage1", "demo_asen_pp")]
    universal = row | {"about": about | {"method": "universal", "label": "demo", "vlm": "demo"}}
    by_name = rivals.entries(4, [run([universal, row], *stages)])
    rival = by_name["ASEN++ (demo + small)"]
    assert (rival.seconds, rival.speed, len(rival.trainings)) == (130, 15.0, 2)
    assert by_name["demo"].trainings == {} and by_name["demo"].scores == {"part": 30.0}
