"""evaluate.py from end to end: what it encodes, measures, saves and refuses."""

import json
import sys

import numpy as np
import pytest
import torch
from toy_vlm import ToyVLM, direct, make_images

from crl.basis import TextBasis
from crl.projection import l2
from crl.run.weights import save_tensors
from similarity_retrieval import evaluate
from similarity_retrieval.combiner import Combiner

OBJECT_TASKS = ["focus_object", "change_object"]
IMAGES, GALLERY = 24, 5


def write_templates(folder, task, count, seed):
    """`count` random templates; of the attribute tasks, boxes in the 7 x 6 pictures."""
    rng = np.random.default_rng(seed)

    def image(number):
        if task.endswith("object"):
            return {"val_image_id": int(number)}
        return {"image_id": int(number), "instance_bbox": [int(number) % 3, 1, 3, 2]}

    templates = []
    for number in range(count):
        first, *others = rng.choice(IMAGES, GALLERY + 1, replace=False)
        reference, target, *gallery = [image(n) for n in (first, *others)]
        condition = "color" if task == "focus_attribute" else ["dog", "cat", "red"][number % 3]
        templates.append(
            {"reference": reference, "target": target, "gallery": gallery, "condition": condition}
        )
    (folder / f"{task}.json").write_text(json.dumps(templates))
    return templates


@pytest.fixture
def genecis(tmp_path):
    """A folder with four small tasks and their images."""
    root = tmp_path / "genecis"
    for folder in ("coco/val2017", "visual_genome/VG_100K"):
        for number, path in enumerate(make_images(root / folder, IMAGES)):
            name = f"{number:012d}.jpg" if "coco" in folder else f"{number}.jpg"
            path.rename(path.with_name(name))
    for seed, task in enumerate(evaluate.TASKS):
        write_templates(root, task, 12, seed)
    return root


class Tuned(ToyVLM):
    """Another VLM: its images' embeddings are the toy's back to front."""

    def encode_images(self, batch):
        return super().encode_images(batch).flip(1)


@pytest.fixture
def toy(monkeypatch):
    """Every VLM name loads a toy; gives those that were loaded, by name."""
    loaded = {}

    def load(name, device, precision):
        loaded[name] = (Tuned if name == "tuned" else ToyVLM)(fingerprint=f"toy-{name}")
        loaded[name].name = name
        return loaded[name]

    monkeypatch.setattr(evaluate, "load_vlm", load)
    monkeypatch.setattr(evaluate, "find_vlm", lambda name: name)
    return loaded


def run(monkeypatch, capsys, root, *overrides):
    """Exit code, output, errors."""
    arguments = [f"root={root}", f"outputs={root.parent}/out"]
    if not any(override.startswith("features=") for override in overrides):
        arguments.append(f"cache={root.parent}/cache")
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *arguments, *overrides])
    code = 0
    try:
        evaluate.main()
    except SystemExit as stop:
        code = stop.code
    return code, *capsys.readouterr()


def cells(root):
    file = root.parent / "out/similarity_retrieval/run/results.json"
    return {(c["label"], c["data"]): c for c in json.loads(file.read_text())["cells"]}


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
def test_the_scores_are_those_of_the_protocol(genecis, toy, monkeypatch, capsys, task):
    code, printed, errors = run(monkeypatch, capsys, genecis, "weight=3")
    assert code == 0, errors
    cell = cells(genecis)["clip-b16", task]
    for method in ("image", "text", "image+text", "crl"):
        scores = slow_scores(genecis, task, method, weight=3)
        for k in (1, 2, 3):
            hits = [(s[1:] > s[0]).sum() < k for s in scores]
            assert cell["scores"][method][f"R@{k}"] == pytest.approx(100 * np.mean(hits)), method
    assert cell["scores"]["chance"] == {f"R@{k}": 100 * k / GALLERY for k in (1, 2, 3)}
    assert cell["templates"] == 12 and cell["candidates"] == GALLERY
    assert "chance" in printed and "image+text" in printed


def test_every_image_and_text_is_encoded_once_over_all_tasks(genecis, toy, monkeypatch, capsys):
    assert run(monkeypatch, capsys, genecis, "tasks=[focus_object, change_object]")[0] == 0
    named = set()
    for task in OBJECT_TASKS:
        for template in json.loads((genecis / f"{task}.json").read_text()):
            for image in (template["reference"], template["target"], *template["gallery"]):
                named.add(image["val_image_id"])
    vlm = toy["clip-b16"]
    assert vlm.images == len(named)
    assert len(vlm.texts) == len(set(vlm.texts))
    assert run(monkeypatch, capsys, genecis)[0] == 0
    assert toy["clip-b16"].images == 0 and not toy["clip-b16"].texts  # all from the cache


def test_ranks_and_figures_are_saved_and_a_second_run_changes_nothing(
    genecis, toy, monkeypatch, capsys
):
    _, first, _ = run(monkeypatch, capsys, genecis)
    folder = genecis.parent / "out/similarity_retrieval/run"
    before = {file: file.read_bytes() for file in folder.iterdir()}
    assert {file.suffix for file in before} == {".json", ".npz", ".png"}
    assert len(before) == 1 + 2 + 2
    ranks = np.load(next(folder.glob("ranks-focus-object*.npz")))
    scores = slow_scores(genecis, "focus_object", "crl")
    assert (ranks["crl/better"] == (scores[:, 1:] > scores[:, :1]).sum(1)).all()
    assert not ranks["crl/tied"].any()
    _, again, _ = run(monkeypatch, capsys, genecis)
    assert again == first
    assert {file: file.read_bytes() for file in folder.iterdir()} == before
    for file in (*folder.glob("*.png"), *folder.glob("*.npz")):
        file.unlink()
    _, third, _ = run(monkeypatch, capsys, genecis)
    assert third == first and {f.name for f in folder.iterdir()} == {f.name for f in before}


def test_starred_rows_and_combiners(genecis, toy, monkeypatch, capsys):
    torch.manual_seed(0)
    heads = {"": Combiner(5, 4, 6), "*": Combiner(5, 4, 6)}
    for name, head in zip(("plain", "tuned"), heads.values(), strict=True):
        torch.save(head.state_dict(), genecis / f"{name}.pt")
    code, printed, errors = run(
        monkeypatch,
        capsys,
        genecis,
        f"combiner={genecis}/plain.pt",
        "finetuned=tuned",
        f"finetuned_combiner={genecis}/tuned.pt",
    )
    assert code == 0, errors
    found = cells(genecis)
    assert {label for label, _ in found} == {"clip-b16", "clip-b16*"}
    for task in OBJECT_TASKS:
        for star, head in heads.items():
            for method in evaluate.METHODS:
                slow = slow_scores(genecis, task, method, tuned=bool(star), combiner=head)
                hits = 100 * np.mean([(s[1:] > s[0]).sum() < 1 for s in slow])
                scores = found[f"clip-b16{star}", task]["scores"]
                assert scores[method]["R@1"] == pytest.approx(hits), (task, star, method)
    assert sum(line.startswith("clip-b16*") for line in printed.splitlines()) == 5


def test_attribute_tasks_use_crops_and_a_basis_a_condition(genecis, toy, monkeypatch, capsys):
    tasks = "tasks=[focus_attribute, change_attribute]"
    code, printed, errors = run(monkeypatch, capsys, genecis, tasks)
    assert code == 0, errors
    focus = cells(genecis)["clip-b16", "focus_attribute"]
    assert focus["criterion"] == "color" and set(focus["scores"]) == {
        "chance", "image", "text", "image+text", "crl"
    }  # fmt: skip
    assert "our extension" in printed
    only = "bases={focus_attribute: {size: genecis_attribute}, change_attribute: genecis_object}"
    code, _, errors = run(monkeypatch, capsys, genecis, tasks, only)
    assert code == 2 and "no basis for 'color'" in errors


def features_of(root, constant=False):
    """The toy's embeddings of the object tasks as a features file."""
    vlm = ToyVLM()
    image = direct(vlm, [root / "coco/val2017" / f"{i:012d}.jpg" for i in range(IMAGES)])
    conditions = ["cat", "dog", "red"]
    basis = TextBasis.load("genecis_scene")
    five = [[p.replace("{condition}", c) for p in evaluate.ON_PLACES] for c in conditions]
    return {
        "ids": np.arange(IMAGES),
        "image": np.ones_like(image) if constant else image,
        "scene_text": l2(vlm.encode_texts(basis.prompts).numpy()),
        "conditions": np.array(conditions),
        "caption_plain": vlm.encode_texts(conditions).numpy(),
        "captions5": np.stack([vlm.encode_texts(prompts).numpy() for prompts in five]),
    }


def test_embeddings_made_elsewhere_give_the_same_numbers(genecis, toy, monkeypatch, capsys):
    assert run(monkeypatch, capsys, genecis)[0] == 0
    file = genecis / "mine.npz"
    np.savez(file, **features_of(genecis))
    assert run(monkeypatch, capsys, genecis, f"features={file}")[0] == 0
    found = cells(genecis)
    for task in OBJECT_TASKS:
        assert found["mine.npz", task]["scores"] == found["clip-b16", task]["scores"]


def test_a_constant_scorer_has_chance_and_the_tie_is_reported(genecis, monkeypatch, capsys):
    file = genecis / "same.npz"
    np.savez(file, **features_of(genecis, constant=True))
    code, printed, errors = run(monkeypatch, capsys, genecis, f"features={file}")
    assert code == 0, errors
    cell = cells(genecis)["same.npz", "focus_object"]
    for method in ("image", "text", "image+text", "crl"):
        assert cell["scores"][method] == pytest.approx(cell["scores"]["chance"])
        assert cell["other_tie_policy"][method]["R@1"] == 100
    assert "ties; tie_policy=paper gives R@1 100.0" in printed


def test_the_papers_tie_policy_puts_the_target_first(genecis, monkeypatch, capsys):
    file = genecis / "same.npz"
    np.savez(file, **features_of(genecis, constant=True))
    code, printed, _ = run(monkeypatch, capsys, genecis, f"features={file}", "tie_policy=paper")
    cell = cells(genecis)["same.npz", "focus_object"]
    assert code == 0 and cell["scores"]["crl"]["R@1"] == 100
    assert cell["other_tie_policy"]["crl"]["R@1"] == pytest.approx(100 / GALLERY)
    assert "ties; tie_policy=fair gives R@1 20.0" in printed


def test_templates_left_out_and_targets_that_stand_twice_are_told(
    genecis, toy, monkeypatch, capsys
):
    file = genecis / "focus_object.json"
    templates = json.loads(file.read_text())
    templates[0]["gallery"].pop()
    templates[1]["gallery"][2] = templates[1]["target"]
    file.write_text(json.dumps(templates))
    _, printed, _ = run(monkeypatch, capsys, genecis, "tasks=focus_object")
    cell = cells(genecis)["clip-b16", "focus_object"]
    assert (cell["templates"], cell["left_out"], cell["target_also_in_gallery"]) == (11, 1, 1)
    assert "1 templates of another gallery size left out" in printed
    assert "1 templates hold their target twice" in printed
    assert "tie_policy=paper gives" in printed  # the twin ties with the target


def test_other_settings_in_the_same_name_get_rows_of_their_own(genecis, toy, monkeypatch, capsys):
    run(monkeypatch, capsys, genecis, "tasks=focus_object")
    _, alone, _ = run(monkeypatch, capsys, genecis, "tasks=focus_object", "weight=0")
    assert "[" not in alone
    file = genecis.parent / "out/similarity_retrieval/run/results.json"
    kept = json.loads(file.read_text())["cells"]
    assert [cell["weight"] for cell in kept] == [0, 10]
    assert all((file.parent / cell["ranks"]).exists() for cell in kept)
    printed = evaluate.recall_table(kept, "both")
    for cell in kept:
        row = f"clip-b16 [{cell['variant']}]  crl "
        numbers = next(line for line in printed.splitlines() if line.startswith(row)).split()[3:]
        assert float(numbers[0]) == round(cell["scores"]["crl"]["R@1"], 1)
    assert any("weight 0" in note for note in evaluate.notes(kept))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"ids": np.arange(IMAGES) // 2}, "twice"),
        ({"ids": np.arange(IMAGES) / 2}, "whole numbers or texts"),
        ({"ids": np.arange(3)}, "image is (24, 5)"),
        ({"image": np.full((IMAGES, 5), np.nan)}, "not finite"),
        ({"scene_text": np.zeros((0, 5))}, "scene_text is (0, 5)"),
        ({"captions5": np.ones((3, 5, 4))}, "captions5 is (3, 5, 4)"),
        ({"conditions": np.array(["cat", "cow", "red"])}, "lacks 1 of 3 conditions"),
        ({"ids": np.arange(IMAGES) + 2}, "lacks 2 of"),
        ({"caption_plain": np.zeros((3, 5))}, "row of zeros"),
    ],
)
def test_bad_features_are_one_line_and_nothing_is_written(
    genecis, monkeypatch, capsys, change, says
):
    file = genecis / "bad.npz"
    np.savez(file, **{**features_of(genecis), **change})
    code, _, errors = run(monkeypatch, capsys, genecis, f"features={file}")
    assert code == 2 and says in errors and len(errors.splitlines()) == 1
    assert not (genecis.parent / "out").exists()


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["weight=.inf"], "finite"),
        (["bases={focus_objekt: genecis_scene}"], "did you mean 'focus_object'"),
        (["weigth=3"], "did you mean 'weight'"),
        (["tasks=[focus_objects]"], "focus_object"),
        (["finetuned_combiner=x.pt"], "needs finetuned"),
        (["prompts={focus_object: [a dog], change_object: []}"], "has no {condition}"),
        (["bases={focus_object: genecis_scene}"], "nothing about change_object"),
        (["bases={focus_object: genecis_scne, change_object: genecis_scene}"], "genecis_scene"),
        (["combiner=nowhere.pt"], "nowhere.pt"),
    ],
)
def test_bad_settings_are_one_line(genecis, toy, monkeypatch, capsys, overrides, says):
    code, _, errors = run(monkeypatch, capsys, genecis, *overrides)
    assert code == 2 and says in errors and len(errors.splitlines()) == 1
    assert not (genecis.parent / "out").exists()


def test_nothing_is_encoded_when_an_image_is_missing(genecis, toy, monkeypatch, capsys):
    for number in (3, 7):
        (genecis / f"coco/val2017/{number:012d}.jpg").unlink()
    code, _, errors = run(monkeypatch, capsys, genecis)
    assert code == 2 and not toy
    assert "2 of" in errors and "000000000003.jpg" in errors and "cocodataset.org" in errors


def test_a_damaged_image_is_named_and_no_results_are_written(genecis, toy, monkeypatch, capsys):
    file = genecis / "coco/val2017/000000000005.jpg"
    file.write_bytes(file.read_bytes()[:60])
    code, _, errors = run(monkeypatch, capsys, genecis)
    assert code == 2 and file.name in errors and len(errors.splitlines()) == 1
    assert not list((genecis.parent / "out").rglob("*.*"))


def test_a_combiner_of_another_width_is_refused_before_anything_is_encoded(
    genecis, toy, monkeypatch, capsys
):
    torch.save(Combiner(8, 4, 6).state_dict(), genecis / "wide.pt")
    code, _, errors = run(monkeypatch, capsys, genecis, f"combiner={genecis}/wide.pt")
    assert code == 2 and "8" in errors and "5" in errors
    assert toy["clip-b16"].images == 0


def combiner_of(root, **about):
    """A Combiner for the toy's width whose header holds `about`."""
    torch.manual_seed(0)
    save_tensors(root / "own.safetensors", Combiner(5, 4, 6), **about)
    return f"{root}/own.safetensors"


@pytest.mark.parametrize("trained", ["fp32", "bf16"])
@pytest.mark.parametrize("measured", ["fp32", "bf16"])
@pytest.mark.parametrize("same", [True, False])
def test_a_combiner_of_another_vlm_is_refused_and_of_another_precision_is_not(
    genecis, toy, monkeypatch, capsys, trained, measured, same
):
    plain = evaluate.load_vlm

    def load(name, device, precision):
        vlm = plain(name, device, precision)
        vlm.fingerprint = f"{precision}-{name}"  # as of the VLMs of crl, the precision is part
        return vlm

    monkeypatch.setattr(evaluate, "load_vlm", load)
    monkeypatch.setattr("crl.training.load_vlm", load)
    fingerprint = f"{trained}-clip-b16" if same else f"{trained}-clip-b16 of another training"
    header = {"vlm": "outputs/mine", "vlm_fingerprint": fingerprint, "precision": trained}
    settings = [f"combiner={combiner_of(genecis, **header)}", f"precision={measured}"]
    settings += ["tasks=focus_object", "figures=no"]
    code, printed, errors = run(monkeypatch, capsys, genecis, *settings)
    if same:
        assert code == 0 and "combiner" in printed, errors
        return
    assert code == 2 and len(errors.splitlines()) == 1
    assert "own.safetensors was trained on the VLM 'outputs/mine'" in errors
    assert "not those of 'clip-b16'" in errors
    assert toy["clip-b16"].images == 0 and not (genecis.parent / "out").exists()


def test_the_starred_rows_combiner_is_compared_with_the_finetuned_vlm(
    genecis, toy, monkeypatch, capsys
):
    def settings(name):
        header = {"vlm": name, "vlm_fingerprint": f"toy-{name}", "precision": "fp32"}
        head = f"finetuned_combiner={combiner_of(genecis, **header)}"
        return "finetuned=tuned", head, "tasks=focus_object", "figures=no"

    assert run(monkeypatch, capsys, genecis, *settings("tuned"))[0] == 0
    code, _, errors = run(monkeypatch, capsys, genecis, *settings("clip-b16"))
    assert code == 2 and "on the VLM 'clip-b16'" in errors and "those of 'tuned'" in errors


def test_a_trained_combiner_fits_the_vlm_that_it_was_trained_on_alone(
    genecis, monkeypatch, capsys, tmp_path
):
    from safetensors.torch import load_file, save_file  # here, for test_vlm imports transformers
    from test_train_combiner import train, write_triplets
    from test_vlm import save_clip

    vlm, other = save_clip(tmp_path / "clip"), save_clip(tmp_path / "other")
    weights = load_file(other / "open_clip_model.safetensors")
    weights["visual.proj"][0, 0] += 1
    save_file(weights, other / "open_clip_model.safetensors")
    keys = {**write_triplets(tmp_path, count=20), "vlm": str(vlm), "epochs": 1}
    frozen, _ = train(keys, name="frozen")
    tuned, results = train(keys, name="tuned", train_vlm=True, precision="bf16")

    def evaluated(vlm, folder, *more):
        settings = f"vlm={vlm}", f"combiner={folder}/combiner.safetensors", "figures=no"
        return run(monkeypatch, capsys, genecis, *settings, "tasks=focus_object", *more)

    for precision in ("precision=fp32", "precision=bf16"):
        assert evaluated(vlm, frozen, precision)[0] == 0
        assert evaluated(results["trained_vlm"], tuned, precision)[0] == 0
    for wrong, folder, own in ((other, frozen, vlm), (vlm, tuned, f"{tuned}/vlm")):
        code, _, errors = evaluated(wrong, folder)
        assert code == 2 and f"on the VLM '{own}' " in errors and f"those of '{wrong}' " in errors
