"""evaluate.py from end to end: what it encodes, measures and saves."""

import json

import numpy as np
import pytest
import torch
from toy_vlm import ToyVLM, direct

from crl.basis import TextBasis
from crl.run.results import read_cells
from similarity_retrieval.combiner import Combiner
from similarity_retrieval.tables import BASELINES, notes, table

CANDIDATES = 5
OBJECT_TASKS = ["focus_object", "change_object"]


def slow_scores(root, task, method, weight=10, tuned=False, combiner=None):
    """Scores of every template, one at a time, from the toy's embeddings."""
    vlm = ToyVLM()
    basis = TextBasis.load("genecis_scene")
    scene = torch.nn.functional.normalize(vlm.encode_texts(basis.prompts), dim=1).numpy()
    found = []
    for template in json.loads((root / f"{task}.json").read_text()):
        ids = [template[k]["val_image_id"] for k in ("reference", "target")]
        ids += [image["val_image_id"] for image in template["gallery"]]
        image = direct(vlm, [root / "coco/val2017" / f"{i:012d}.jpg" for i in ids]).astype(float)
        image = image[:, ::-1].copy() if tuned else image
        r, g = image[0], np.stack([x / np.linalg.norm(x) for x in image[1:]])
        c = vlm.encode_texts([template["condition"]])[0].numpy().astype(float)
        if method == "crl":
            a = r @ scene.T / np.linalg.norm(r @ scene.T)
            s = np.array([a @ (x @ scene.T) / np.linalg.norm(x @ scene.T) for x in g])
            places = ("left", "right", "top", "lower", "mid")
            prompts = [f"a photo with a {template['condition']} on the {p}" for p in places]
            five = [t / np.linalg.norm(t) for t in vlm.encode_texts(prompts).numpy().astype(float)]
            asked = np.mean([[t @ x for x in g] for t in five], axis=0)
            found.append(weight * s / np.linalg.norm(s) + asked / np.linalg.norm(asked))
        else:
            if method == "combiner":
                pair = (torch.from_numpy(x[None]).float() for x in (r, c))
                query = combiner.eval()(*pair)[0].detach().numpy().astype(float)
            else:
                query = {"image": r, "text": c, "image+text": (r + c) / 2}[method]
            found.append(g @ query / np.linalg.norm(query))
    return np.array(found)


@pytest.mark.parametrize("task", OBJECT_TASKS)
def test_the_scores_are_those_of_the_protocol(cells, genecis, toy, task, evaluated):
    code, printed, errors = evaluated("weight=3")
    assert code == 0, errors
    cell = cells()["clip-b16", task]
    for method in ("image", "text", "image+text", "crl"):
        scores = slow_scores(genecis, task, method, weight=3)
        for k in (1, 2, 3):
            hits = [(s[1:] > s[0]).sum() < k for s in scores]
            assert cell["scores"][method][f"R@{k}"] == pytest.approx(100 * np.mean(hits)), method
    assert cell["scores"]["chance"] == {f"R@{k}": 100 * k / CANDIDATES for k in (1, 2, 3)}
    assert cell["templates"] == 12 and cell["candidates"] == CANDIDATES
    assert "chance" in printed and "image+text" in printed


def test_every_image_and_text_is_encoded_once_over_all_tasks(genecis, toy, evaluated):
    assert evaluated("tasks=[focus_object, change_object]")[0] == 0
    named = set()
    for task in OBJECT_TASKS:
        for template in json.loads((genecis / f"{task}.json").read_text()):
            for image in (template["reference"], template["target"], *template["gallery"]):
                named.add(image["val_image_id"])
    vlm = toy["clip-b16"]
    assert vlm.images == len(named)
    assert len(vlm.texts) == len(set(vlm.texts))
    assert evaluated()[0] == 0
    assert toy["clip-b16"].images == 0 and not toy["clip-b16"].texts  # all from the cache


def test_ranks_and_figures_are_saved_and_a_second_run_changes_nothing(genecis, toy, evaluated):
    _, first, _ = evaluated()
    folder = genecis.parent / "out/similarity_retrieval/run"
    before = {file: file.read_bytes() for file in folder.iterdir()}
    assert {file.suffix for file in before} == {".json", ".npz", ".png"}
    assert len(before) == 1 + 2 + 2
    ranks = np.load(next(folder.glob("ranks-focus-object*.npz")))
    scores = slow_scores(genecis, "focus_object", "crl")
    assert (ranks["crl/better"] == (scores[:, 1:] > scores[:, :1]).sum(1)).all()
    assert not ranks["crl/tied"].any()
    _, again, _ = evaluated()
    assert again == first
    assert {file: file.read_bytes() for file in folder.iterdir()} == before
    for file in (*folder.glob("*.png"), *folder.glob("*.npz")):
        file.unlink()
    _, third, _ = evaluated()
    assert third == first and {f.name for f in folder.iterdir()} == {f.name for f in before}


def test_starred_rows_and_combiners(cells, genecis, toy, evaluated):
    torch.manual_seed(0)
    heads = {"": Combiner(5, 4, 6), "*": Combiner(5, 4, 6)}
    for name, head in zip(("plain", "tuned"), heads.values(), strict=True):
        torch.save(head.state_dict(), genecis / f"{name}.pt")
    code, printed, errors = evaluated(
        f"combiner={genecis}/plain.pt",
        "finetuned=tuned",
        f"finetuned_combiner={genecis}/tuned.pt",
    )
    assert code == 0, errors
    found = cells()
    assert {label for label, _ in found} == {"clip-b16", "clip-b16*"}
    for task in OBJECT_TASKS:
        for star, head in heads.items():
            for method in (*BASELINES, "crl"):
                slow = slow_scores(genecis, task, method, tuned=bool(star), combiner=head)
                hits = 100 * np.mean([(s[1:] > s[0]).sum() < 1 for s in slow])
                scores = found[f"clip-b16{star}", task]["scores"]
                assert scores[method]["R@1"] == pytest.approx(hits), (task, star, method)
    assert sum(line.startswith("clip-b16*") for line in printed.splitlines()) == 5


def test_attribute_tasks_use_crops_and_a_basis_a_condition(
    cells, toy, evaluated, evaluation_refused
):
    tasks = "tasks=[focus_attribute, change_attribute]"
    code, printed, errors = evaluated(tasks)
    assert code == 0, errors
    focus = cells()["clip-b16", "focus_attribute"]
    assert focus["criterion"] == "color" and set(focus["scores"]) == {
        "chance", "image", "text", "image+text", "crl"
    }  # fmt: skip
    texts = len(TextBasis.load("clevr4_color").texts)
    assert focus["basis"] == "clevr4_color" and focus["texts"] == texts
    assert "our extension" in printed
    assert f"focus_attribute: basis clevr4_color ({texts} texts)" in printed
    only = "bases={focus_attribute: {size: genecis_attribute}, change_attribute: genecis_object}"
    errors = evaluation_refused(tasks, only)
    assert "no basis for 'color'" in errors


def test_templates_left_out_and_targets_that_stand_twice_are_told(cells, genecis, toy, evaluated):
    file = genecis / "focus_object.json"
    templates = json.loads(file.read_text())
    templates[0]["gallery"].pop()
    templates[1]["gallery"][2] = templates[1]["target"]
    file.write_text(json.dumps(templates))
    _, printed, _ = evaluated("tasks=focus_object")
    cell = cells()["clip-b16", "focus_object"]
    assert (cell["templates"], cell["left_out"], cell["target_also_in_gallery"]) == (11, 1, 1)
    assert "1 templates of another gallery size left out" in printed
    assert "1 templates hold their target twice" in printed
    assert "tie_policy=paper gives" in printed  # the twin ties with the target


def test_other_settings_in_the_same_name_get_rows_of_their_own(genecis, toy, evaluated):
    evaluated("tasks=focus_object")
    _, alone, _ = evaluated("tasks=focus_object", "weight=0")
    assert "[" not in alone
    file = genecis.parent / "out/similarity_retrieval/run/results.json"
    kept = json.loads(file.read_text())["cells"]
    assert [cell["weight"] for cell in kept] == [0, 10]
    assert all((file.parent / cell["ranks"]).exists() for cell in kept)
    printed = table(kept, "both").text()
    for cell in kept:
        row = f"clip-b16 [{cell['variant']}]  crl "
        numbers = next(line for line in printed.splitlines() if line.startswith(row)).split()[6:]
        assert float(numbers[0]) == round(cell["scores"]["crl"]["R@1"], 1)
    assert any("weight 0" in note for note in notes(kept))


def test_two_bases_of_one_criterion_are_told_apart(genecis, toy, evaluated):
    basis = TextBasis.load("genecis_scene")
    basis.save(genecis / "mine.yaml")
    evaluated("tasks=focus_object", "texts=7")
    evaluated("tasks=focus_object", f"bases={{focus_object: {genecis}/mine.yaml}}")
    kept = read_cells(genecis.parent / "out/similarity_retrieval/run/results.json")
    assert [(cell["basis"], cell["texts"]) for cell in kept] == [
        ("genecis/mine", len(basis.texts)), ("genecis_scene", 7)
    ]  # fmt: skip
    assert kept[0]["scores"]["crl"] != kept[1]["scores"]["crl"]
    printed = [line.split() for line in table(kept, "both").text().splitlines() if " crl " in line]
    assert [row[3:5] for row in printed] == [
        ["genecis/mine", f"({len(basis.texts)})"], ["genecis_scene", "(7)"]
    ]  # fmt: skip


# --- beyond the paper -----------------------------------------------------------------------------


def standard(values):
    return (values - values.mean()) / values.std()


def beyond_scores(root, representation, balance, sharpness=1.0, removed=None):
    """CRL's scores of every template of focus_object, one at a time."""
    vlm, basis = ToyVLM(), TextBasis.load("genecis_scene")
    text = unit(vlm.encode_texts(basis.prompts).numpy().astype(float))
    templates = json.loads((root / "focus_object.json").read_text())
    named = [[t["reference"], t["target"], *t["gallery"]] for t in templates]
    named = [[image["val_image_id"] for image in images] for images in named]
    every = sorted({image for images in named for image in images})  # sigma is of all images
    files = [root / "coco/val2017" / f"{i:012d}.jpg" for i in every]
    image = dict(zip(every, unit(direct(vlm, files).astype(float)), strict=True))
    seen = image
    if removed is not None:
        seen = {i: unit(x - (x @ removed) * removed) for i, x in image.items()}
    r = {i: x @ text.T for i, x in seen.items()}
    if representation == "posterior":
        sigma = np.mean([x.std() for x in r.values()])
        r = {i: np.exp(sharpness * (x - x.max()) / sigma / 2) for i, x in r.items()}
    found = []
    for (reference, *gallery), template in zip(named, templates, strict=True):
        scene = np.array([unit(r[reference]) @ unit(r[g]) for g in gallery])
        places = ("left", "right", "top", "lower", "mid")
        prompts = [f"a photo with a {template['condition']} on the {p}" for p in places]
        five = unit(vlm.encode_texts(prompts).numpy().astype(float))
        asked = np.array([(five @ image[g]).mean() for g in gallery])
        parts = standard(scene) + standard(asked)
        found.append(parts if balance == "standard" else 10 * unit(scene) + unit(asked))
    return np.array(found)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def assert_recall(cell, method, scores):
    for k in (1, 2, 3):
        expected = 100 * np.mean([(s[1:] > s[0]).sum() < k for s in scores])
        assert cell["scores"][method][f"R@{k}"] == pytest.approx(expected), (method, k)


def test_each_representation_in_each_balance(cells, genecis, toy, evaluated):
    both = ["representation=[paper,posterior]", "balance=[paper,standard]", "sharpness=2"]
    code, printed, errors = evaluated("tasks=focus_object", *both)
    assert code == 0, errors
    cell = cells()["clip-b16", "focus_object"]
    methods = ["crl", "crl, standard", "crl posterior (2)", "crl posterior (2), standard"]
    assert [method for method in cell["scores"] if method.startswith("crl")] == methods
    ranks = np.load(genecis.parent / "out/similarity_retrieval/run" / cell["ranks"])
    how = [(r, b) for r in ("paper", "posterior") for b in ("paper", "standard")]
    for method, (representation, balance) in zip(methods, how, strict=True):
        scores = beyond_scores(genecis, representation, balance, sharpness=2)
        assert_recall(cell, method, scores)
        assert (ranks[f"{method}/better"] == (scores[:, 1:] > scores[:, :1]).sum(1)).all()
        assert f"  {method}  " in printed
    assert cell["names"] == "0/3" and "  0/3  " in printed
    assert evaluated("tasks=focus_object", "figures=no")[0] == 0  # the default
    assert set(cells()["clip-b16", "focus_object"]["scores"]) == {
        "chance", "image", "text", "image+text", "crl"
    }  # fmt: skip
    file = genecis.parent / "out/similarity_retrieval/run/results.json"
    assert cell in read_cells(file) and len(read_cells(file)) == 2  # the former ones stay


def test_names_says_how_many_conditions_the_bases_name(cells, genecis, toy, evaluated):
    basis = TextBasis(criterion="x", vlm_prompt="a {text}", texts=["Dog", "red", "town"])
    basis.save(genecis / "mine.yaml")
    bases = f"bases={{focus_object: {genecis}/mine.yaml}}"
    assert evaluated("tasks=focus_object", bases, "figures=no")[0] == 0
    assert cells()["clip-b16", "focus_object"]["names"] == "2/3"  # dog and red, not cat


def crl_of(cells):
    scores = cells()["clip-b16", "focus_object"]["scores"]
    return [found for method, found in scores.items() if method.startswith("crl")]


def test_the_null_space_of_the_own_basis_is_none(cells, genecis, toy, evaluated):
    settings = ["tasks=focus_object", "figures=no", "representation=[paper,posterior]"]
    assert evaluated(*settings)[0] == 0
    expected = crl_of(cells)
    code, _, errors = evaluated(*settings, "null_space=genecis_scene")
    assert code == 0 and "note: null_space" not in errors
    assert crl_of(cells) == expected and len(expected) == 2


def test_the_null_space_of_another_basis(cells, genecis, toy, evaluated):
    mine = TextBasis(criterion="x", vlm_prompt="a {text}", texts=["dog", "red", "town", "tea"])
    mine.save(genecis / "mine.yaml")
    settings = ["tasks=focus_object", "figures=no", "representation=[paper,posterior]", "rank=1"]
    code, _, errors = evaluated(*settings, f"null_space=[{genecis}/mine.yaml, genecis_scene]")
    assert code == 0, errors
    text = unit(ToyVLM().encode_texts(mine.prompts).numpy().astype(float))
    centred = text - text.mean(axis=0)
    removed = np.linalg.eigh(centred.T @ centred)[1][:, -1]
    cell = cells()["clip-b16", "focus_object"]
    for representation in ("paper", "posterior"):
        scores = beyond_scores(genecis, representation, "paper", removed=removed)
        assert_recall(cell, f"crl {representation}, null space of 2", scores)
    code, _, errors = evaluated(
        "tasks=focus_object", "figures=no", f"null_space={genecis}/mine.yaml", "rank=3"
    )
    assert code == 0
    [line] = [line for line in errors.splitlines() if "null_space" in line]
    assert line.startswith("note: null_space: ") and "the basis for 'scene' says" in line


@pytest.mark.parametrize(
    ("weight", "says"),
    [
        (torch.inf, "broken.pt is of no use: output_layer.weight holds NaN or infinity"),
        (3e38, "clip-b16, focus_object: scores of combiner are not finite"),  # overflows in use
    ],
)
def test_what_is_not_finite_is_named(genecis, toy, evaluation_refused, weight, says):
    head = Combiner(5, 4, 6)
    head.output_layer.weight.data.fill_(weight)
    torch.save(head.state_dict(), genecis / "broken.pt")
    assert says in evaluation_refused("tasks=focus_object", f"combiner={genecis}/broken.pt")
