"""The demo worlds: deterministic, official layouts, captions that say exactly their facts."""

import hashlib
import importlib
import itertools
import re
import shutil
from pathlib import Path

import make_data
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import WORLDS

worlds = {name: importlib.import_module(f"worlds.{name}") for name in WORLDS}


def tree(folder: Path) -> dict[str, str]:
    """Relative path -> digest of each file."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    return {str(f.relative_to(folder)): hashlib.md5(f.read_bytes()).hexdigest() for f in files}


@pytest.mark.parametrize("name", WORLDS)
def test_same_seed_same_files_whatever_the_number_of_workers(name, tmp_path):
    for folder, seed, workers in (("a", 1, 1), ("b", 1, 2), ("c", 2, 2)):
        worlds[name].write(tmp_path / folder, images=12, seed=seed, workers=workers)
    a, b, c = (tree(tmp_path / folder) for folder in "abc")
    assert a == b
    pictures = [{d for path, d in t.items() if not path.endswith("json")} for t in (a, c)]
    assert not pictures[0] & pictures[1]


@pytest.mark.parametrize("name", WORLDS)
def test_every_class_can_be_drawn_and_looks_unlike_the_others(name):
    world = worlds[name]
    for attribute, classes in world.PHRASES.items():
        base = world.sample(np.random.default_rng(3))
        every = [{**base, attribute: value} for value in classes]
        pictures = [np.asarray(world.draw(f, np.random.default_rng(4)), float) for f in every]
        assert all(picture.shape == (128, 128, 3) for picture in pictures)
        for one, other in itertools.combinations(pictures, 2):
            assert np.abs(one - other).mean() > 0.1, attribute


@pytest.mark.parametrize("name", WORLDS)
@given(seed=st.integers(0, 10**6))
@settings(max_examples=60)
def test_a_caption_says_what_it_was_asked_to_and_nothing_else(name, seed):
    world, rng = worlds[name], np.random.default_rng(seed)
    facts = world.sample(rng)
    asked = {a: c for a, c in facts.items() if rng.random() < 0.5}
    caption = f" {world.caption(asked, rng)} ".replace(",", " ")
    for attribute, value in asked.items():
        phrases = world.PHRASES[attribute][value]
        assert not phrases or any(f" {phrase} " in caption for phrase in phrases)
    # once what was asked for is taken out, no phrase of any other class may be left
    rest = caption
    wanted = {phrase for a, value in asked.items() for phrase in world.PHRASES[a][value]}
    for phrase in sorted(wanted, key=len, reverse=True):  # "five pointed star" before "star"
        rest = re.sub(rf"(?<= ){re.escape(phrase)}(?= )", "", rest)
    others = {p for classes in world.PHRASES.values() for ps in classes.values() for p in ps}
    rest = f" {' '.join(rest.split())} "
    assert not [phrase for phrase in others if f" {phrase} " in rest]


def test_drawing_again_does_nothing_and_another_seed_replaces(tmp_path, run):
    out = tmp_path / "demo"
    arguments = ["--out", out, "--images", 8, "--workers", 2, "--worlds", "clevr4"]
    assert run(make_data.main, *arguments)[0] == 0
    before = tree(out)
    _, printed, _ = run(make_data.main, *arguments)
    assert "already" in printed and tree(out) == before
    shutil.rmtree(out / "clevr_4_10k_v1")
    _, printed, _ = run(make_data.main, *arguments)
    assert "drew 8 images" in printed and tree(out) == before
    run(make_data.main, *arguments, "--seed", 1)
    after = tree(out)
    assert len(after) == len(before) and after != before


def test_a_data_set_that_it_did_not_draw_is_left_alone(tmp_path, refusal):
    real = tmp_path / "clevr_4_10k_v1" / "images" / "real.png"
    real.parent.mkdir(parents=True)
    real.write_text("somebody's data")
    line = refusal(make_data.main, "--out", tmp_path, "--images", 4)
    assert "was not made by this script" in line
    assert real.read_text() == "somebody's data"
