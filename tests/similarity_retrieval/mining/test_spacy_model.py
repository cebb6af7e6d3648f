"""Parsing with spaCy's small English model, on captions as in COCO, worked out by hand.

It is skipped where spaCy or the model is not installed. Any package may have brought the model:
`python -m spacy download en_core_web_sm`, or one of PyPI with another name.
"""

from pathlib import Path

import pytest

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
    # Here the model takes the preposition for a particle.
    "A train traveling down tracks near a forest.": [
        "train | traveling down | track",
        "train | traveling near | forest",
    ],
    "It is raining.": [],
    "": [],
}


@pytest.fixture(autouse=True)
def by_its_own_name(tmp_path, monkeypatch):
    """The model under the name that is loaded: spaCy also takes a folder of that name."""
    monkeypatch.chdir(tmp_path)
    if SPACY_MODEL not in INSTALLED:
        Path(SPACY_MODEL).symlink_to(spacy.load(INSTALLED[0]).path)


def test_relations_of_captions():
    pairs = [Pair(image="1.jpg", caption=caption) for caption in CAPTIONS]
    graphs = list(spacy_parser()(pairs))
    assert [graph.caption for graph in graphs] == list(CAPTIONS)
    for graph in graphs:
        relations = [" | ".join(dict(relation).values()) for relation in graph.relations]
        assert relations == CAPTIONS[graph.caption]
