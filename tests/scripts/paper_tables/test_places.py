"""Result rows and their places in the paper's Tables 1 to 4."""

from paper_tables.numbers import classification, fashion, similarity

from crl.run.results import summary

TEXTS = {"basis": "b", "texts": 9}


def check(place, rows) -> list:
    """Each row beside its name in the table, and whether it can be compared with the paper's."""
    scores = list(place([row for row, _, _ in rows]))
    assert [(score.row, score.comparable) for score in scores] == [(n, c) for _, n, c in rows]
    return scores


def test_classification():
    def row(vlm, method, images=10531, **texts):
        about = {"data": "clevr4", "criterion": "color", "vlm": vlm, "method": method, **texts}
        return {"about": about, "images": images, "scores": {"5-shot": summary([2.0, 4])}}

    rows = [
        (row("clip", "universal", basis="-"), "CLIP", True),
        (row("metaclip", "paper", **TEXTS), "MetaCLIP+CRL", True),
        (row("clip", "posterior", 3000, **TEXTS), "CLIP+CRL, posterior", False),
        (row("demo", "paper, null space of 2", **TEXTS), "demo+CRL, null space of 2", False),
    ]
    scores = check(classification, rows)
    assert scores[1][1:4] == ("color/5", [2.0, 4], "b (9)") and scores[0].basis == "-"
    zero_shot = row("clip", "zero-shot") | {"scores": {"acc": summary([1.0])}}
    assert list(classification([zero_shot])) == []  # not in the paper's tables


def test_similarity():
    def row(label, method, task="focus_object", images=2198, templates=1960, **texts):
        about = {"data": task, "vlm": "v", "label": label, "method": method, **texts}
        return {"about": about, "scores": {"R@1": 15.4}, "images": images, "templates": templates}

    posterior = "posterior, standard"
    rows = [
        (row("clip-b16", "chance"), "chance", True),
        (row("clip-b16", "image+text"), "CLIP image+text", True),
        (row("clip-b16", "paper", weight=10, **TEXTS), "CLIP+CRL", True),
        (row("clip-b16*", "combiner"), "Combiner*", True),
        (row("clip-b16*", posterior, **TEXTS), f"CLIP+CRL*, {posterior}", True),
        (row("demo", "combiner"), "demo combiner", False),
        (row("clip-b16", "paper", weight=3, **TEXTS), "CLIP+CRL", False),
        (row("clip-b16", "image", templates=1959), "CLIP image", False),  # not the whole task
        (row("clip-b16", "image", "change_object"), "CLIP image", False),  # drawn: other images
    ]
    scores = check(similarity, rows)
    assert scores[2][1:4] == ("focus/R@1", [15.4], "b (9)")
    assert scores[-1].column == "change/R@1"


def test_fashion():
    def row(vlm, method, images=27050, values=(156, 218, 180, 216, 230), **texts):
        about = {"data": "DeepFashion", "vlm": vlm, "method": method, **texts}
        scores = {"texture": 9.0, "overall": 1.0, "mean": 1.0}
        return {"about": about, "scores": scores, "images": images, "values": list(values)}

    untrained = "CLIP+CRL (no training)"
    rows = [
        (row("-", "random"), "Random", True),
        (row("clip-b16", "universal"), "CLIP", True),
        (row("clip-b16", "paper", **TEXTS), untrained, True),
        (row("clip-b16", "posterior", **TEXTS), f"{untrained}, posterior", True),
        (row("clip-b16", "crl-mlp", **TEXTS), "CLIP+CRL, heads only", True),
        (row("clip-b16", "crl", **TEXTS), "CLIP+CRL", True),
        (row("resnet50", "asen"), "ASEN", True),
        (row("resnet50", "asen_pp"), "ASEN++", True),
        (row("resnet50", "asen_pp-stage1"), "ASEN++, stage 1 only", True),
        (row("resnet50 + small", "rpf"), "RPF (resnet50 + small)", False),
        (row("demo", "csn"), "CSN (demo)", False),
        (row("demo", "crl", **TEXTS), "demo+CRL", False),
        (row("clip-b16", "universal", images=300), "CLIP", False),
        (row("clip-b16", "universal", values=[13, 13]), "CLIP", False),
    ]
    assert {score.column for score in check(fashion, rows)} == {"texture"}
