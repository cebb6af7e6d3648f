"""evaluate.py from end to end: what it encodes, measures and saves, and what it refuses."""

import numpy as np
import pytest
import torch
from toy_vlm import ToyVLM, direct

from crl.basis import TextBasis
from crl.projection import l2
from crl.representations import names, represent, supervisions
from crl.representations.null_space import without
from similarity_retrieval import evaluate
from similarity_retrieval.combiner import Combiner
from similarity_retrieval.config import ON_PLACES
from similarity_retrieval.datasets import WEIGHTS, load
from similarity_retrieval.method import Features, baseline_scores, crl_scores

IMAGES, CANDIDATES = 24, 5
OBJECT_TASKS = ["focus_object", "change_object"]
FOCUS = ("tasks=focus_object", "figures=no")


def expected_scores(
    root, method, task="focus_object", weight=10, sharpness=1, removed=None, tuned=False, head=None
):
    """Scores of every template (B, G) from the toy's embeddings, by the functions that
    test_method.py compares with a transcription of the protocol."""
    vlm, data = ToyVLM(), load([task], root)
    raw = direct(vlm, [root / "coco/val2017" / f"{int(i):012d}.jpg" for i in data.ids])
    raw = raw[:, ::-1].copy() if tuned else raw
    prompts = [p.replace("{condition}", c) for c in data.conditions for p in ON_PLACES]
    plain, prompted = (vlm.encode_texts(texts).numpy() for texts in (data.conditions, prompts))
    features = Features(raw, plain, prompted.reshape(len(plain), 5, -1))
    templates = data.tasks[task]
    if not method.startswith(("paper", "posterior")):
        return baseline_scores(features, templates, head and head.eval())[method]
    text = l2(vlm.encode_texts(TextBasis.load("genecis_scene").prompts).numpy())
    name, _, balance = method.partition(", ")
    image = without(l2(raw), removed)
    r = represent(name.split()[0], image, text, sharpness=sharpness)
    return crl_scores(features, templates, r, weight, balance or "paper")


def assert_recall(row, scores):
    for k in (1, 2, 3):
        expected = 100 * np.mean((scores[:, 1:] > scores[:, :1]).sum(1) < k)
        assert row["scores"][f"R@{k}"] == pytest.approx(expected), (row["about"], k)


def test_the_scores_are_those_of_the_protocol(row_of, genecis, toy, evaluated):
    printed = evaluated("weight=3")
    for task in OBJECT_TASKS:
        for method in ("image", "text", "image+text", "paper"):
            assert_recall(row_of(method, task), expected_scores(genecis, method, task, weight=3))
        expected = row_of("chance", task)
        assert expected["scores"] == {f"R@{k}": 100 * k / CANDIDATES for k in (1, 2, 3)}
        assert (expected["templates"], expected["candidates"]) == (12, CANDIDATES)
    assert "basis" in row_of()["about"] and row_of("image")["about"]["basis"] == "-"
    assert "chance" in printed and "image+text" in printed


def test_all_is_encoded_once_and_a_second_run_changes_nothing(genecis, toy, evaluated):
    first, vlm = evaluated(), toy["clip-b16"]
    assert vlm.images == len(load(OBJECT_TASKS, genecis).ids)
    assert len(vlm.texts) == len(set(vlm.texts))
    folder = genecis.parent / "out/similarity_retrieval/run"
    before = {file: file.read_bytes() for file in folder.iterdir()}
    assert sorted(file.suffix for file in before) == ["", ".json", ".npz", ".npz", ".png", ".png"]
    ranks = np.load(next(folder.glob("ranks-focus-object*.npz")))
    scores = expected_scores(genecis, "paper")
    assert (ranks["paper/better"] == (scores[:, 1:] > scores[:, :1]).sum(1)).all()
    assert not ranks["paper/tied"].any()
    assert evaluated() == first
    assert toy["clip-b16"].images == 0 and not toy["clip-b16"].texts  # all from the cache
    assert {file: file.read_bytes() for file in folder.iterdir()} == before
    for file in (*folder.glob("*.png"), *folder.glob("*.npz")):
        file.unlink()
    assert evaluated() == first and set(folder.iterdir()) == set(before)


def test_genecis_published_weights_give_starred_rows(row_of, genecis, toy, evaluated):
    torch.manual_seed(0)
    heads = {"": Combiner(5, 4, 6), "*": Combiner(5, 4, 6)}
    torch.save(heads[""].state_dict(), genecis / "plain.pt")
    torch.save(heads["*"].state_dict(), genecis / WEIGHTS[1])
    (genecis / WEIGHTS[0]).touch()
    printed = evaluated(f"combiner={genecis}/plain.pt", f"trained=[{genecis}]")
    assert list(toy) == ["clip-b16", f"open_clip:ViT-B-16-quickgelu/{genecis}/{WEIGHTS[0]}"]
    for task in OBJECT_TASKS:
        for star, head in heads.items():
            for method in ("image", "text", "image+text", "combiner", "paper"):
                scores = expected_scores(genecis, method, task, tuned=bool(star), head=head)
                assert_recall(row_of(method, task, f"clip-b16{star}"), scores)
    assert sum(line.startswith("clip-b16*") for line in printed.splitlines()) == 5


def test_attribute_tasks_use_crops_and_a_basis_a_condition(row_of, toy, evaluated):
    printed = evaluated("tasks=[focus_attribute, change_attribute]")
    about = row_of(task="focus_attribute")["about"]
    assert (about["criterion"], about["basis"], about["prompts"]) == ("color", "clevr4_color", [])
    assert about["texts"] == len(TextBasis.load("clevr4_color").texts)
    assert "focus_attribute: CRL is our extension" in printed


def test_each_representation_in_each_balance(row_of, genecis, toy, evaluated):
    both = ["representation=[paper,posterior]", "balance=[paper,standard]", "sharpness=2"]
    printed = evaluated(*FOCUS, *both)
    file = genecis.parent / "out/similarity_retrieval/run" / row_of()["ranks"]
    ranks = np.load(file)
    for method in ("paper", "paper, standard", "posterior (2)", "posterior (2), standard"):
        scores = expected_scores(genecis, method, sharpness=2)
        assert_recall(row_of(method), scores)
        assert (ranks[f"{method}/better"] == (scores[:, 1:] > scores[:, :1]).sum(1)).all()
        assert f"  {method}  " in printed
    assert row_of()["names"] == "0/3" and "  0/3  " in printed


def test_every_name_without_labels_works(row_of, genecis, toy, evaluated, refusal):
    possible = [name for name in names() if "labels" not in supervisions(name)]
    every = f"representation=[{','.join(possible)}]"
    evaluated(*FOCUS, every, "null_space=clevr4_color", "null_space_size=1")
    for name in possible:
        assert row_of(f"{name}, null space of 1")["scores"]
    wrong = "representation: probe learns from labels, and this task has none to learn from"
    assert wrong in refusal(evaluate.main, "root=nowhere", "representation=[paper,probe]")


def test_the_null_space_of_another_basis(row_of, genecis, toy, evaluated):
    mine = TextBasis(criterion="x", vlm_prompt="a {text}", texts=["dog", "red", "town", "tea"])
    mine.save(genecis / "mine.yaml")
    evaluated(*FOCUS, "null_space=genecis_scene")
    own = row_of("paper, null space of 1")["scores"]  # the own basis is left out
    others = f"null_space=[{genecis}/mine.yaml, genecis_scene]"
    evaluated(*FOCUS, others, "representation=[paper,posterior]", "null_space_size=1")
    text = l2(ToyVLM().encode_texts(mine.prompts).numpy().astype(float))
    centred = text - text.mean(axis=0)
    removed = np.linalg.eigh(centred.T @ centred)[1][:, -1:].T
    for name in ("paper", "posterior"):
        row = row_of(f"{name}, null space of 2")
        assert_recall(row, expected_scores(genecis, name, removed=removed))
    evaluated(*FOCUS)
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
    printed = evaluated(f"features={file}", f"tie_policy={policy}")
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
    evaluated(f"combiner={genecis}/head.pt")
    file = genecis / "mine.npz"
    np.savez(file, **features_of(genecis))
    evaluated(f"combiner={genecis}/head.pt", f"features={file}")
    for task in OBJECT_TASKS:
        for method in ("chance", "image", "text", "image+text", "combiner", "paper"):
            other = row_of(method, task, "mine.npz")
            assert other["scores"] == row_of(method, task)["scores"]


# --- mistakes -------------------------------------------------------------------------------------


def test_a_condition_without_a_basis_is_named(toy, evaluation_refused):
    bases = "bases={focus_attribute: {size: genecis_attribute}}"
    assert "no basis for 'color'" in evaluation_refused("tasks=focus_attribute", bases)


def test_nothing_is_encoded_when_an_image_is_missing(genecis, toy, evaluation_refused):
    for number in (3, 7):
        (genecis / f"coco/val2017/{number:012d}.jpg").unlink()
    errors = evaluation_refused()
    assert not toy
    assert "2 of" in errors and "000000000003.jpg" in errors and "cocodataset.org" in errors


def test_scores_that_are_not_finite_are_named(genecis, toy, evaluation_refused):
    head = Combiner(5, 4, 6)
    head.output_layer.weight.data.fill_(3e38)  # overflows in use
    torch.save(head.state_dict(), genecis / "broken.pt")
    error = evaluation_refused("tasks=focus_object", f"combiner={genecis}/broken.pt")
    assert "clip-b16, focus_object, combiner: there are scores that are not finite" in error
