"""Rivals in evaluate.py: their rows against a slow recomputation; published files; mistakes."""

import json

import numpy as np
import pytest
import torch
from checkpoints import save_rival
from PIL import Image

from crl.images import Crop, open_image
from similarity_retrieval import train_rival, trained
from similarity_retrieval.datasets import dilated
from similarity_retrieval.rivals import METHODS, queries
from similarity_retrieval.rivals.config import PROMPTS
from similarity_retrieval.rivals.queries import load_network


@pytest.mark.parametrize("method", METHODS)
def test_published_weights_load(tmp_path, method):
    network = save_rival(method, tmp_path / "large.pt", 24, 20)
    loaded = load_network(method, tmp_path / "large.pt", 24, 20)
    x = torch.randn(3, 24)
    with torch.no_grad():
        assert torch.equal(loaded(x), network(x)) and loaded(x).shape == (3, 20)


def embedded(root, words, image):
    if "val_image_id" in image:
        picture = Image.open(root / f"coco/val2017/{image['val_image_id']:012d}.jpg")
    else:
        file = root / f"visual_genome/VG_100K/{image['image_id']}.jpg"
        picture = open_image(Crop(file, dilated(image["instance_bbox"], (7, 6))))
    return words.vlm.encode_images(words.vlm.preprocess(picture)[None])


def test_rows_are_those_of_a_slow_recomputation(
    tmp_path, genecis, clip_folder, words, measure, row_of
):
    some = ("change_object", "focus_attribute")  # whole pictures, and parts of them
    networks = {method: save_rival(method, tmp_path / f"{method}.pt") for method in METHODS}
    files = ", ".join(f"{method}:{tmp_path}/{method}.pt" for method in METHODS)
    tasks = f"tasks=[{', '.join(some)}]"
    printed = measure(f"rivals=[{files}]", tasks, "rival_prompts=[that, released, comma, that_has]")
    for task in some:
        ranks = {(method, name): [] for method in METHODS for name in PROMPTS}
        for template in json.loads((genecis / f"{task}.json").read_text()):
            images = template["reference"], template["target"], *template["gallery"]
            reference, *gallery = (embedded(genecis, words, image) for image in images)
            for method, name in ranks:
                text = PROMPTS[name].format(condition=template["condition"])
                with torch.no_grad():
                    query = words.encode([text], networks[method](reference))
                target, *others = (torch.cosine_similarity(query, x).item() for x in gallery)
                ranks[method, name].append(sum(score > target for score in others))
        for (method, name), places in ranks.items():
            row = row_of(f"{method}, {name}", task, str(clip_folder))
            expected = {f"R@{k}": 100 * np.mean(np.array(places) < k) for k in (1, 2, 3)}
            assert row["scores"] == pytest.approx(expected), (task, method, name)
            assert row["about"]["supervision"] == METHODS[method].supervision
    assert "searle, released: prompt 'a photo of $ that 0' (it lacks the condition); " in printed
    assert "lincir, comma: prompt 'a photo of $ , {condition}'; trained on captions" in printed


def test_each_pair_is_encoded_once_and_released_forgets_the_condition(
    tmp_path, genecis, measure, monkeypatch
):
    save_rival("lincir", tmp_path / "large.pt")
    templates = json.loads((genecis / "focus_object.json").read_text())
    templates[1] = {**templates[0], "condition": "another"}
    templates[2] = {**templates[0], "target": templates[3]["target"]}
    (genecis / "focus_object.json").write_text(json.dumps(templates))
    seen = []

    class Watched(queries.PseudoWords):
        def encode(self, texts, vectors, count):
            rows = super().encode(texts, vectors, count)
            seen.extend(zip(texts, rows, strict=True))
            return rows

    monkeypatch.setattr(trained, "PseudoWords", Watched)
    measure("tasks=focus_object", f"rivals=[lincir:{tmp_path}/large.pt]")
    distinct = {(t["reference"]["val_image_id"], t["condition"]) for t in templates}
    assert len(seen) == len(distinct) == 10  # of 12 templates
    one, other = (next(row for text, row in seen if text == f"a photo of $ that {c}")
                  for c in (templates[0]["condition"], "another"))  # fmt: skip
    assert not torch.allclose(one, other, atol=1e-3)
    seen.clear()
    measure("tasks=focus_object", f"rivals=[lincir:{tmp_path}/large.pt]", "rival_prompts=released")
    rows = {tuple(np.round(row.tolist(), 4)) for _, row in seen}
    assert {text for text, _ in seen} == {"a photo of $ that 0"}
    assert len(rows) == len({t["reference"]["val_image_id"] for t in templates})


def test_trainings_are_evaluated(keys, measure, refused, output, clip_folder, row_of, tmp_path):
    keys |= {"concepts": "[cat, red]", "nearest": "[1, 2]", "epochs": 1}
    for name in ("one", "two"):
        output(train_rival.main, **keys, name=name, method="lincir", seed=len(name))
    one, two = (keys["outputs"] / "genecis_rivals" / name for name in ("one", "two"))
    # The fingerprint of the training is of another precision.
    measure("tasks=focus_object", f"rivals=[{one}, {two}]", "precision=bf16")
    for method in ("lincir, that", f"lincir, that ({two})"):
        assert row_of(method, label=str(clip_folder))["precision"] == "bf16"
    results = json.loads((one / "results.json").read_text())
    (one / "results.json").write_text(json.dumps({**results, "vlm_fingerprint": "old"}))
    error = refused(f"rivals=[{one}]")
    assert error.startswith(f"{one} was trained with another VLM than '{clip_folder}' is now")
    (one / "results.json").write_text(json.dumps({**results, "method": "cig"}))
    assert "results.json is not of train_rival.py: method: must be" in refused(f"rivals=[{one}]")


def test_mistakes(tmp_path, refused):
    file = f"{tmp_path}/large.pt"
    save_rival("searle", file, 24, 32)
    says = "the weights do not fit searle for embeddings of width 16 and tokens of width 32: "
    assert refused(f"rivals=[searle:{file}]").startswith(says + file)
    error = refused(f"rivals=[pic2word:{file}]")
    assert "no checkpoint (no tensors in its entry state_dict_img2text)" in error
    assert "there is no file lost.pt" in refused("rivals=[searle:lost.pt]")
    error = refused("rivals=[lost]")
    assert error.startswith("lost holds no training of train_rival.py (results.json: No")
    assert error.endswith("give a folder, or lincir|pic2word|searle:FILE of published weights")
    assert "rival_prompts.0: must be 'that', 'comma'" in refused("rival_prompts=other")


def test_a_condition_that_is_cut_is_named(tmp_path, genecis, measure, refused):
    save_rival("lincir", tmp_path / "large.pt")
    rival, task = f"rivals=[lincir:{tmp_path}/large.pt]", "tasks=focus_object"
    short = "prompts={focus_object: []}"  # of CRL
    templates = json.loads((genecis / "focus_object.json").read_text())
    for words, fits in ((13, True), (14, False)):  # of 20 tokens: start, end and 5 of the prompt
        templates[0]["condition"] = "a " * words
        (genecis / "focus_object.json").write_text(json.dumps(templates))
        if fits:
            measure(rival, task, short)
    error = refused(rival, task, short)
    assert "reads 20 tokens, and a rival's prompt is cut: 'a photo of a that a a" in error


def test_a_vlm_of_ones_own_takes_no_pseudo_words(evaluation_refused, toy):
    assert "clip-b16 takes no pseudo-words" in evaluation_refused("rivals=[searle:lost.pt]")
