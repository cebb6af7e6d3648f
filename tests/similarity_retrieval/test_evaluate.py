"""evaluate.py from end to end: what it encodes, measures and saves, and what it refuses."""

import json

import numpy as np
import pytest
import torch
from toy_vlm import ToyVLM, direct

from crl.basis import TextBasis
from crl.projection import l2
from crl.run.results import read_rows
from similarity_retrieval.combiner import Combiner
from similarity_retrieval.config import ON_PLACES
from similarity_retrieval.datasets import WEIGHTS

IMAGES, CANDIDATES = 24, 5
OBJECT_TASKS = ["focus_object", "change_object"]
FOCUS = ("tasks=focus_object", "figures=no")


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def standard(values):
    return (values - values.mean()) / values.std()


def slow_scores(
    root, method, task="focus_object", weight=10, sharpness=1, removed=None, tuned=False, head=None
):
    """Scores of every template, one at a time, from the toy's embeddings (B, G)."""
    vlm, templates = ToyVLM(), json.loads((root / f"{task}.json").read_text())
    text = unit(vlm.encode_texts(TextBasis.load("genecis_scene").prompts).numpy().astype(float))
    named = [[t["reference"], t["target"], *t["gallery"]] for t in templates]
    named = [[image["val_image_id"] for image in images] for images in named]
    if method.startswith("posterior"):  # sigma is over all images
        every = sorted({image for images in named for image in images})
    else:
        every = range(IMAGES)
    files = [root / "coco/val2017" / f"{i:012d}.jpg" for i in every]
    raw = direct(vlm, files).astype(float)
    raw = dict(zip(every, raw[:, ::-1].copy() if tuned else raw, strict=True))
    image = {i: unit(x) for i, x in raw.items()}
    seen = image
    if removed is not None:
        seen = {i: unit(x - (x @ removed) * removed) for i, x in image.items()}
    r = {i: x @ text.T for i, x in seen.items()}
    if method.startswith("posterior"):
        sigma = np.mean([x.std() for x in r.values()])
        r = {i: np.exp(sharpness * (x - x.max()) / sigma / 2) for i, x in r.items()}
    rows = []
    for (reference, *gallery), template in zip(named, templates, strict=True):
        c = vlm.encode_texts([template["condition"]])[0].numpy().astype(float)
        candidates = np.array([image[g] for g in gallery])
        if method.startswith(("paper", "posterior")):
            scene = np.array([unit(r[reference]) @ unit(r[g]) for g in gallery])
            prompts = [prompt.replace("{condition}", template["condition"]) for prompt in ON_PLACES]
            five = unit(vlm.encode_texts(prompts).numpy().astype(float))
            fit = (candidates @ five.T).mean(axis=1)
            balanced = standard(scene) + standard(fit)
            rows.append(balanced if "standard" in method else weight * unit(scene) + unit(fit))
            continue
        query = {"image": raw[reference], "text": c, "image+text": (raw[reference] + c) / 2}
        if head is not None:
            pair = (torch.from_numpy(x[None]).float() for x in (raw[reference], c))
            query["combiner"] = head.eval()(*pair)[0].detach().numpy().astype(float)
        rows.append(candidates @ unit(query[method]))
    return np.array(rows)


def assert_recall(row, scores):
    for k in (1, 2, 3):
        expected = 100 * np.mean([(s[1:] > s[0]).sum() < k for s in scores])
        assert row["scores"][f"R@{k}"] == pytest.approx(expected), (row["about"], k)


def test_the_scores_are_those_of_the_protocol(row_of, genecis, toy, evaluated):
    code, printed, errors = evaluated("weight=3")
    assert code == 0, errors
    for task in OBJECT_TASKS:
        for method in ("image", "text", "image+text", "paper"):
            assert_recall(row_of(method, task), slow_scores(genecis, method, task, weight=3))
        expected = row_of("chance", task)
        assert expected["scores"] == {f"R@{k}": 100 * k / CANDIDATES for k in (1, 2, 3)}
        assert (expected["templates"], expected["candidates"]) == (12, CANDIDATES)
    assert "basis" in row_of()["about"] and row_of("image")["about"]["basis"] == "-"
    assert "chance" in printed and "image+text" in printed


def test_every_image_and_text_is_encoded_once_over_all_tasks(genecis, toy, evaluated):
    assert evaluated()[0] == 0
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
    assert sorted(file.suffix for file in before) == [".json", ".npz", ".npz", ".png", ".png"]
    ranks = np.load(next(folder.glob("ranks-focus-object*.npz")))
    scores = slow_scores(genecis, "paper")
    assert (ranks["paper/better"] == (scores[:, 1:] > scores[:, :1]).sum(1)).all()
    assert not ranks["paper/tied"].any()
    _, again, _ = evaluated()
    assert again == first
    assert {file: file.read_bytes() for file in folder.iterdir()} == before
    for file in (*folder.glob("*.png"), *folder.glob("*.npz")):
        file.unlink()
    _, third, _ = evaluated()
    assert third == first and {f.name for f in folder.iterdir()} == {f.name for f in before}


def test_genecis_published_weights_give_starred_rows(row_of, genecis, toy, evaluated):
    torch.manual_seed(0)
    heads = {"": Combiner(5, 4, 6), "*": Combiner(5, 4, 6)}
    torch.save(heads[""].state_dict(), genecis / "plain.pt")
    torch.save(heads["*"].state_dict(), genecis / WEIGHTS[1])
    (genecis / WEIGHTS[0]).touch()
    code, printed, errors = evaluated(f"combiner={genecis}/plain.pt", f"trained=[{genecis}]")
    assert code == 0, errors
    assert list(toy) == ["clip-b16", f"open_clip:ViT-B-16-quickgelu/{genecis}/{WEIGHTS[0]}"]
    for task in OBJECT_TASKS:
        for star, head in heads.items():
            for method in ("image", "text", "image+text", "combiner", "paper"):
                scores = slow_scores(genecis, method, task, tuned=bool(star), head=head)
                assert_recall(row_of(method, task, f"clip-b16{star}"), scores)
    assert sum(line.startswith("clip-b16*") for line in printed.splitlines()) == 5


def test_attribute_tasks_use_crops_and_a_basis_a_condition(
    row_of, toy, evaluated, evaluation_refused
):
    tasks = "tasks=[focus_attribute, change_attribute]"
    code, printed, errors = evaluated(tasks)
    assert code == 0, errors
    about = row_of(task="focus_attribute")["about"]
    assert (about["criterion"], about["basis"], about["prompts"]) == ("color", "clevr4_color", [])
    assert about["texts"] == len(TextBasis.load("clevr4_color").texts)
    assert "focus_attribute: CRL is our extension" in printed
    errors = evaluation_refused(tasks, "bases={focus_attribute: {size: genecis_attribute}}")
    assert "no basis for 'color'" in errors


def test_templates_left_out_and_targets_that_stand_twice(row_of, genecis, toy, evaluated):
    file = genecis / "focus_object.json"
    templates = json.loads(file.read_text())
    templates[0]["gallery"].pop()
    templates[1]["gallery"][2] = templates[1]["target"]
    file.write_text(json.dumps(templates))
    _, printed, _ = evaluated(*FOCUS)
    row = row_of()
    assert (row["templates"], row["left_out"], row["target_also_in_gallery"]) == (11, 1, 1)
    assert "focus_object: 1 templates of another gallery size left out" in printed
    assert "1 templates hold their target twice" in printed
    assert "tie_policy=paper gives" in printed  # the twin ties with the target


def test_a_row_is_known_by_what_it_says_of_itself(row_of, genecis, toy, evaluated):
    evaluated(*FOCUS)
    before = row_of()
    evaluated(*FOCUS, "weight=0")  # a table could not tell the two apart: replaced
    assert (before["about"]["weight"], row_of()["about"]["weight"]) == (10, 0)
    assert before["scores"] != row_of()["scores"]
    evaluated(*FOCUS, "texts=7")
    file = genecis.parent / "out/similarity_retrieval/run/results.json"
    rows = [row["about"] for row in read_rows(file) if row["about"]["method"] == "paper"]
    assert [row["texts"] for row in rows] == [7, len(TextBasis.load("genecis_scene").texts)]


# --- beyond the paper -----------------------------------------------------------------------------


def test_each_representation_in_each_balance(row_of, genecis, toy, evaluated):
    both = ["representation=[paper,posterior]", "balance=[paper,standard]", "sharpness=2"]
    code, printed, errors = evaluated(*FOCUS, *both)
    assert code == 0, errors
    assert "the posterior the scene may drown the condition" in errors
    file = genecis.parent / "out/similarity_retrieval/run" / row_of()["ranks"]
    ranks = np.load(file)
    for method in ("paper", "paper, standard", "posterior (2)", "posterior (2), standard"):
        scores = slow_scores(genecis, method, sharpness=2)
        assert_recall(row_of(method), scores)
        assert (ranks[f"{method}/better"] == (scores[:, 1:] > scores[:, :1]).sum(1)).all()
        assert f"  {method}  " in printed
    assert row_of()["names"] == "0/3" and "  0/3  " in printed


def test_names_says_how_many_conditions_the_bases_name(row_of, genecis, toy, evaluated):
    basis = TextBasis(criterion="x", vlm_prompt="a {text}", texts=["Dog", "red", "town"])
    basis.save(genecis / "mine.yaml")
    assert evaluated(*FOCUS, f"bases={{focus_object: {genecis}/mine.yaml}}")[0] == 0
    assert row_of()["names"] == "2/3"  # dog and red, not cat


def test_the_null_space_of_another_basis(row_of, genecis, toy, evaluated):
    mine = TextBasis(criterion="x", vlm_prompt="a {text}", texts=["dog", "red", "town", "tea"])
    mine.save(genecis / "mine.yaml")
    both = "representation=[paper,posterior]"
    assert evaluated(*FOCUS, "null_space=genecis_scene")[0] == 0
    own = row_of("paper, null space of 1")["scores"]  # the own basis is left out
    others = f"null_space=[{genecis}/mine.yaml, genecis_scene]"
    code, _, errors = evaluated(*FOCUS, both, others, "null_space_size=1")
    assert code == 0, errors
    text = unit(ToyVLM().encode_texts(mine.prompts).numpy().astype(float))
    centred = text - text.mean(axis=0)
    removed = np.linalg.eigh(centred.T @ centred)[1][:, -1]
    for name in ("paper", "posterior"):
        row = row_of(f"{name}, null space of 2")
        assert_recall(row, slow_scores(genecis, name, removed=removed))
    assert evaluated(*FOCUS)[0] == 0
    assert row_of()["scores"] == own


# --- embeddings made elsewhere --------------------------------------------------------------------


def features_of(root, constant=False):
    """The toy's embeddings of the object tasks as a features file."""
    vlm = ToyVLM()
    image = direct(vlm, [root / "coco/val2017" / f"{i:012d}.jpg" for i in range(IMAGES)])
    conditions = ["cat", "dog", "red"]
    five = [[p.replace("{condition}", c) for p in ON_PLACES] for c in conditions]
    return {
        "ids": np.arange(IMAGES),
        "image": np.ones_like(image) if constant else image,
        "scene_text": l2(vlm.encode_texts(TextBasis.load("genecis_scene").prompts).numpy()),
        "conditions": np.array(conditions),
        "caption_plain": vlm.encode_texts(conditions).numpy(),
        "captions5": np.stack([vlm.encode_texts(prompts).numpy() for prompts in five]),
    }


@pytest.mark.parametrize("policy", ["fair", "paper"])
def test_a_constant_scorer_has_chance_and_the_tie_is_reported(row_of, genecis, evaluated, policy):
    file = genecis / "same.npz"
    np.savez(file, **features_of(genecis, constant=True))
    code, printed, errors = evaluated(f"features={file}", f"tie_policy={policy}")
    assert code == 0, errors
    expected = pytest.approx(row_of("chance", label="same.npz")["scores"])
    for method in ("image", "text", "image+text", "paper"):
        row = row_of(method, label="same.npz")
        fair, first = row["scores"], row["other_ties"]
        if policy == "paper":
            fair, first = first, fair
        assert fair == expected and set(first.values()) == {100}
    gives = "tie_policy=fair gives R@1 20.0" if policy == "paper" else "=paper gives R@1 100.0"
    assert gives in printed


def test_embeddings_made_elsewhere_give_the_same_numbers(row_of, genecis, toy, evaluated):
    torch.manual_seed(0)
    torch.save(Combiner(5, 4, 6).state_dict(), genecis / "head.pt")
    assert evaluated(f"combiner={genecis}/head.pt")[0] == 0
    file = genecis / "mine.npz"
    np.savez(file, **features_of(genecis))
    assert evaluated(f"combiner={genecis}/head.pt", f"features={file}")[0] == 0
    for task in OBJECT_TASKS:
        for method in ("chance", "image", "text", "image+text", "combiner", "paper"):
            other = row_of(method, task, "mine.npz")
            assert other["scores"] == row_of(method, task)["scores"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"ids": np.arange(IMAGES) // 2}, "twice"),
        ({"ids": np.arange(IMAGES) / 2}, "whole numbers or texts"),
        ({"ids": np.arange(3)}, "not ids (3,), image (24, 5)"),
        ({"image": np.full((IMAGES, 5), np.nan)}, "holds NaN or infinity"),
        ({"scene_text": np.zeros((0, 5))}, "scene_text is empty"),
        ({"captions5": np.ones((3, 5, 4))}, "captions5 (3, 5, 4)"),
        ({"conditions": np.array(["cat", "cow", "red"])}, "lacks 1 of 3 conditions"),
        ({"ids": np.arange(IMAGES) + 2}, "lacks 2 of"),
        ({"caption_plain": np.zeros((3, 5))}, "row of zeros"),
    ],
)
def test_bad_features_are_one_line_and_nothing_is_written(
    genecis, change, says, evaluation_refused
):
    file = genecis / "bad.npz"
    np.savez(file, **{**features_of(genecis), **change})
    assert says in evaluation_refused(f"features={file}")
    assert not (genecis.parent / "out").exists()


# --- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("weight=.inf", "finite"),
        ("bases={focus_objekt: genecis_scene}", "must be 'focus_object', 'change_object',"),
        ("weigth=3", "did you mean 'weight'"),
        ("tasks=[focus_objects]", "focus_object"),
        ("tasks=[]", "tasks: must have at least 1"),
        ("prompts={focus_object: [a dog]}", "has no {condition}"),
        ("bases={focus_object: genecis_scne}", "genecis_scene"),
        ("combiner=nowhere.pt", "nowhere.pt"),
        ("trained=[nowhere]", "nowhere holds no training of train_combiner.py (results.json: No"),
    ],
)
def test_bad_settings_are_one_line(genecis, toy, override, says, evaluation_refused):
    assert says in evaluation_refused(override)
    assert not (genecis.parent / "out").exists()


def test_nothing_is_encoded_when_an_image_is_missing(genecis, toy, evaluation_refused):
    for number in (3, 7):
        (genecis / f"coco/val2017/{number:012d}.jpg").unlink()
    errors = evaluation_refused()
    assert not toy
    assert "2 of" in errors and "000000000003.jpg" in errors and "cocodataset.org" in errors


def test_the_bases_of_all_tasks_are_checked_before_the_first(genecis, toy, evaluation_refused):
    TextBasis(criterion="x", vlm_prompt="{text}", texts=["a"]).save(genecis / "one.yaml")
    bases = f"bases={{change_object: {genecis}/one.yaml}}"
    assert "the basis for 'x' needs 2 texts or more" in evaluation_refused(bases)
    assert not list((genecis.parent / "out").rglob("*.json"))


@pytest.mark.parametrize(
    ("weight", "says"),
    [
        (torch.inf, "broken.pt is of no use: output_layer.weight holds NaN or infinity"),
        (3e38, "clip-b16, focus_object, combiner: the scores of 12 templates are not finite"),
    ],
)
def test_what_is_not_finite_is_named(genecis, toy, evaluation_refused, weight, says):
    head = Combiner(5, 4, 6)
    head.output_layer.weight.data.fill_(weight)  # 3e38 overflows in use
    torch.save(head.state_dict(), genecis / "broken.pt")
    assert says in evaluation_refused("tasks=focus_object", f"combiner={genecis}/broken.pt")
