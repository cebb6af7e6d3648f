"""Parsing with spaCy's small English model, on captions as in COCO, worked out by hand.

It is skipped where spaCy or the model is not installed. Any package may have brought the model:
`python -m spacy download en_core_web_sm`, or one of PyPI with another name.
"""

import json
from pathlib import Path

import pytest
from mining_files import read_jsonl, write_jsonl

from similarity_retrieval.mining.captions import Pair
from similarity_retrieval.mining.scene_graphs import SPACY_MODEL, spacy_parser

spacy = pytest.importorskip("spacy")
INSTALLED = [name for name in spacy.util.get_installed_models() if name.startswith(SPACY_MODEL)]
if not INSTALLED:
    pytest.skip(f"{SPACY_MODEL} is not installed", allow_module_level=True)

CAPTIONS = {
    "A dog sitting on a wooden bench.": ["dog | sitting on | bench"],
    "A brown dog lies on the sofa.": ["dog | lies on | sofa"],
    "A black cat on a park bench": ["cat | on | bench"],
    "Two cats sleeping on a bed next to a pillow.": [
        "cat | sleeping on | bed",
        "cat | sleeping next to | pillow",
    ],
    "A man riding a wave on top of a surfboard.": [
        "man | riding | wave",
        "man | on top of | surfboard",
    ],
    "A woman holding a red umbrella in the rain.": [
        "woman | holding | umbrella",
        "woman | in | rain",
    ],
    "A boy and a girl are flying a kite.": ["boy | flying | kite", "girl | flying | kite"],
    "A man wearing a hat is talking on a phone.": [
        "man | wearing | hat",
        "man | talking on | phone",
    ],
    "A pizza topped with cheese and tomatoes.": [
        "pizza | topped with | cheese",
        "pizza | topped with | tomato",
    ],
    "A bird perched on a branch of a tree.": ["bird | perched on | branch", "branch | of | tree"],
    "A street sign that is on a pole.": ["sign | on | pole"],
    "A bus is parked in front of a building.": ["bus | parked in front of | building"],
    "A child brushing her teeth in a bathroom.": [
        "child | brushing | tooth",
        "child | in | bathroom",
    ],
    "It is raining.": [],
}


@pytest.fixture(autouse=True)
def by_its_own_name(tmp_path, monkeypatch):
    """The model under the name that is loaded: spaCy also takes a folder of that name."""
    monkeypatch.chdir(tmp_path)
    if SPACY_MODEL not in INSTALLED:
        Path(SPACY_MODEL).symlink_to(spacy.load(INSTALLED[0]).path)


def test_captions_become_triplets(mine, tmp_path):
    images = {caption: f"{number}.jpg" for number, caption in enumerate(CAPTIONS)}
    captions = [{"image": image, "caption": caption} for caption, image in images.items()]
    file = write_jsonl(tmp_path / "captions.jsonl", captions)
    code, _, errors = mine(captions=file, samples=40, min_images=2)
    assert code == 0, errors

    folder = tmp_path / "out/triplets/run"
    graphs = read_jsonl(next(folder.glob("graphs-*")))
    relations = {g["caption"]: [" | ".join(r.values()) for r in g["relations"]] for g in graphs}
    assert relations == CAPTIONS
    assert {g["caption"]: g["image"] for g in graphs} == images

    # The one object of two subjects is a bench, and both subjects have two images.
    on_bench, on_sofa, cat, cats = list(images.values())[:4]
    dog = (on_sofa, on_bench, "sitting on bench", cat, "dog")
    other = (cats, cat, "on bench", on_bench, "cat")
    assert {tuple(triplet.values()) for triplet in read_jsonl(folder / "triplets.jsonl")} == {
        dog,
        other,
    }
    assert (
        json.loads((folder / "summary.json").read_text())["counts"]["subjects"]["kept"] == 3
    )  # and man


def test_a_preposition_that_the_model_takes_for_a_particle():
    caption = Pair(image="1.jpg", caption="A train traveling down tracks near a forest.")
    [graph] = spacy_parser()([caption])
    assert [" | ".join(relation.model_dump().values()) for relation in graph.relations] == [
        "train | traveling down | track",
        "train | traveling near | forest",
    ]
