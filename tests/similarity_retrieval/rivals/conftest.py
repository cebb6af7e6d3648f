"""A small VLM and a small training of each rival."""

import json

import pytest
import torch
from checkpoints import save_clip
from toy_vlm import make_images

from crl.backends.pseudo_words import PseudoWords
from crl.vlm import load_vlm

NOUNS = ("cat", "sphere", "photo", "metal", "red color")


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory):
    """D = 16 and Dt = 32 differ."""
    return save_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def words(clip_folder):
    return PseudoWords(load_vlm(str(clip_folder), "cpu"))


@pytest.fixture
def keys(tmp_path, clip_folder):
    """30 pictures and 40 captions; the configuration of a training in seconds."""
    make_images(tmp_path / "images", 30)
    pairs = [f"a {one} with the {two} of {n}" for n, one in enumerate(NOUNS * 2) for two in NOUNS]
    with open(tmp_path / "captions.jsonl", "w") as file:
        for caption in pairs[:40]:
            file.write(json.dumps({"image": "a.png", "caption": caption}) + "\n")
    places = {place: tmp_path / place for place in ("images", "cache", "outputs")}
    small = {"batch_size": 8, "epochs": 3, "validation": 0.2, "lr": 1e-3, "tagger": "list"}
    small |= {"concepts": list(NOUNS), "nearest": [2, 3], "inversion_steps": 2}
    return {
        **places, **small, "captions": str(tmp_path / "captions.jsonl"), "vlm": str(clip_folder),
        "device": "cpu", "inversion_batch": 10,
    }  # fmt: skip


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def measure(genecis, clip_folder, evaluated):
    """Evaluates rivals of the small CLIP on the small GeneCIS."""
    return lambda *more: evaluated(
        f"vlm={clip_folder}", "device=cpu", "figures=no", "texts=4", *more
    )


@pytest.fixture
def refused(genecis, clip_folder, evaluation_refused):
    return lambda *more: evaluation_refused(f"vlm={clip_folder}", "device=cpu", "texts=4", *more)
