"""The data loaders on data in the official on-disk formats, drawn by the demo worlds."""

import json

import pytest
from PIL import Image
from worlds import cards, clevr4

from classification_clustering import datasets
from classification_clustering.datasets import load
from crl.backends.torchvision_fix import import_torchvision
from crl.run.errors import UserError


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    root = tmp_path_factory.mktemp("drawn")
    clevr4.write(root, images=150, seed=5, workers=2)
    cards.write(root, images=150, seed=5, workers=2)
    return root


@pytest.mark.parametrize("criterion", ["texture", "shape", "color", "count"])
def test_clevr4_labels_are_the_annotations_in_sorted_order(drawn, criterion):
    facts = json.loads((drawn / "clevr_4_10k_v1" / "clevr_4_annots.json").read_text())
    loaded = load("clevr4", drawn, criterion, expected=150)
    assert [path.stem for path in loaded.paths] == sorted(facts)
    names = [loaded.classes[label] for label in loaded.labels]
    assert names == [str(facts[path.stem][criterion]) for path in loaded.paths]
    assert loaded.classes == list(clevr4.PHRASES[criterion])  # the taxonomy's order, not sorted


@pytest.mark.parametrize("criterion", ["number", "suits"])
def test_cards_are_listed_as_torchvision_lists_them(drawn, criterion):
    import_torchvision()
    from torchvision.datasets import ImageFolder

    loaded = load("cards", drawn, criterion, expected=150)
    reference = ImageFolder(drawn / "cards" / criterion)
    paths = map(str, loaded.paths)
    assert list(zip(paths, loaded.labels, strict=True)) == reference.samples
    assert loaded.classes == reference.classes


def test_a_tree_of_ones_own_nested_folders_and_any_image_ending(tmp_path):
    for name in ("mood/calm/2.JPG", "mood/calm/b/1.png", "mood/calm/a.webp", "mood/wild/1.jpeg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "mood/wild/notes.txt").touch()
    loaded = load("folder", tmp_path, "mood")
    names = ["calm/2.JPG", "calm/a.webp", "calm/b/1.png", "wild/1.jpeg"]
    assert loaded.paths == [tmp_path / "mood" / name for name in names]
    assert loaded.labels.tolist() == [0, 0, 0, 1]


def test_damaged_annotations_are_noticed(tmp_path):
    folder = tmp_path / "clevr_4_10k_v1"
    (folder / "images").mkdir(parents=True)
    facts = {}
    for i in range(10):  # one image of each class
        values = {c: names[i] for c, names in datasets.CLEVR4_CLASSES.items()}
        facts[f"CLEVR_{i:03d}"] = {**values, "count": i + 1}
        Image.new("RGB", (8, 8)).save(folder / "images" / f"CLEVR_{i:03d}.png")
    facts["CLEVR_001"]["color"] = datasets.CLEVR4_CLASSES["color"][0]
    facts["CLEVR_003"]["count"] = 11
    (folder / "clevr_4_annots.json").write_text(json.dumps(facts))
    with pytest.raises(UserError, match="class red has 0 images; it needs 1 or more"):
        load("clevr4", tmp_path, "color")
    with pytest.raises(UserError, match="CLEVR_003 has the count '11'"):
        load("clevr4", tmp_path, "count")
    Image.new("RGB", (8, 8)).save(folder / "images" / "extra.png")
    with pytest.raises(UserError, match=r"extra\.png has no entry"):
        load("clevr4", tmp_path, "shape")


@pytest.mark.parametrize("folder", ["train", "cards/train"])
def test_kaggles_layout_of_the_cards_is_named(tmp_path, folder):
    for card in ("ace of clubs", "joker"):
        (tmp_path / folder / card).mkdir(parents=True)
    with pytest.raises(UserError, match=r"train has the layout of Kaggle's cards.*leave joker out"):
        load("cards", tmp_path, "suits")
