"""Models that are told the criterion: their stores, and how the tasks use them."""

import json

import numpy as np
import pytest
from color_vlm import draw, write_bases
from PIL import Image
from told_model import ToldModel

from classification_clustering import clustering, few_shot, retrieval
from crl.backends.instructed import SIDE, Told, load_instructed
from crl.embed import embed_images
from crl.run.errors import UserError


@pytest.fixture
def files(tmp_path):
    return draw(tmp_path / "pictures", each=2)


def embed(model, criteria, files, cache, **options):
    return embed_images(Told(model, criteria), files, cache, **options).image


def test_each_criterion_has_rows_of_its_own_and_stays_when_others_come(files, tmp_path):
    model = ToldModel()
    rows = embed(model, ["color", "side_of_it"], files, tmp_path / "cache", batch_size=5)
    assert rows.shape == (16, 2, 3) and np.allclose(np.linalg.norm(rows, axis=2), 1)
    assert model.calls == [(n, ["color", "side of it"]) for n in (5, 5, 5, 1)]
    for number, criterion in enumerate(["color", "side_of_it"]):
        one = embed(ToldModel(stop_after=0), [criterion], files, tmp_path / "cache")
        assert np.array_equal(one[:, 0], rows[:, number])
    model = ToldModel()
    assert np.array_equal(
        embed(model, ["mood", "color"], files, tmp_path / "cache")[:, 1], rows[:, 0]
    )
    assert len(model.calls) == 1
    assert embed(model, ["color"], files[:2], None).shape == (2, 1, 3)


@pytest.mark.parametrize("other", [{"fingerprint": "told-2"}, {"template": "The {} is"}])
def test_other_weights_and_another_prompt_are_other_vectors(other, files, tmp_path):
    embed(ToldModel(), ["color"], files, tmp_path)
    model = ToldModel(**other)
    embed(model, ["color"], files, tmp_path)
    assert sum(count for count, _ in model.calls) == 16


def test_a_killed_run_goes_on_where_it_was(files, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        embed(ToldModel(stop_after=3), ["color", "心情"], files, tmp_path, batch_size=3)
    model = ToldModel()
    rows = embed(model, ["color", "心情"], files, tmp_path, batch_size=3)
    assert sum(count for count, _ in model.calls) == 16 - 9
    assert np.array_equal(rows, embed(ToldModel(), ["color", "心情"], files, None))


def test_the_time_of_1000_images_is_that_of_those_that_were_encoded(files, tmp_path):
    told = Told(ToldModel(), ["color"])
    assert embed_images(told, files, tmp_path, batch_size=2).seconds > 0
    assert embed_images(told, files, tmp_path).seconds is None


def test_long_pictures_are_scaled_and_small_ones_are_left(files):
    told = Told(ToldModel(), ["color"])
    assert told.preprocess(Image.new("L", (3 * SIDE, 300))).size == (SIDE, 100)
    assert told.preprocess(Image.open(files[0])).size == (32, 32)


def test_nan_is_refused_by_name(files, tmp_path, monkeypatch):
    model = ToldModel()
    monkeypatch.setattr(model, "encode", lambda images, criteria: ToldModel.encode(
        model, images, criteria) * float("nan"))  # fmt: skip
    with pytest.raises(UserError, match="told: encode_images gave NaN"):
        embed(model, ["color"], files, tmp_path)


@pytest.mark.parametrize("name", ["reedout:x", "readout:", "http://localhost/v1", "clip"])
def test_an_unknown_name_is_refused(name):
    with pytest.raises(UserError, match=r"unknown instructed model .*readout:<folder"):
        load_instructed(name)


# --- in the tasks ---------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Pictures sorted by color, and by side in Chinese; the model is loaded as `told`."""
    monkeypatch.chdir(tmp_path)
    for file in draw(tmp_path / "pictures", each=2):
        color, side, _ = file.stem.split("-")
        for place in (f"color/{color}", f"位置/{side}"):
            copy = tmp_path / "tree" / place / file.name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
    write_bases(tmp_path / "bases")
    monkeypatch.setattr(
        "classification_clustering.embedded.load_instructed", lambda *a: ToldModel()
    )
    return {"data": "folder", "root": "tree", "seeds": 2, "figures": "false", "cache": "cache"}


@pytest.mark.parametrize("script", [clustering, few_shot, retrieval])
def test_a_told_model_stands_beside_R_with_its_time(script, tree, output, tmp_path):
    settings = {**tree, "criteria": "color", "bases": "{color: bases/color.yaml}"}
    settings |= {"shots": 1} if script is few_shot else {}
    if script is retrieval:
        del settings["figures"]
    vlm = "vlm=color_vlm:ColorVLM"
    printed = output(script.main, vlm, "instructed=told", **settings)
    assert "s/1,000" in printed
    (file,) = (tmp_path / "outputs").glob("*/run/results.json")
    rows = {row["about"]["method"]: row for row in json.loads(file.read_text())["rows"]}
    told, paper = rows["instructed"], rows["paper"]
    assert told["seconds_per_1000"] > 0 and paper["seconds_per_1000"] > 0
    metric = {clustering: "acc", few_shot: "1-shot", retrieval: "map"}[script]
    assert told["scores"][metric]["mean"] == 100  # it sees color only
    again = output(script.main, vlm, "instructed=told", **settings)
    assert again == printed


def test_no_texts_are_needed_and_a_criterion_may_be_in_another_script(tree, output, tmp_path):
    printed = output(clustering.main, "vlm=[]", "instructed=told", **tree, criteria="[color, 位置]")
    assert "folder 位置" in printed and "universal" not in printed


def test_neither_vlm_nor_model_is_refused(tree, refusal):
    assert "instructed=..." in refusal(clustering.main, "vlm=[]", **tree, criteria="color")
