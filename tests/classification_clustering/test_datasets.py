"""The data loaders on data in the official on-disk formats, drawn by the demo worlds."""

import json

import pytest
from PIL import Image
from worlds import cards, clevr4

from classification_clustering import datasets
from classification_clustering.datasets import load
from crl.backends.torchvision_fix import import_torchvision
from crl.run.errors import Missing, UserError


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    root = tmp_path_factory.mktemp("drawn")
    clevr4.write(root, images=150, seed=5, workers=2)
    cards.write(root, images=150, seed=5, workers=2)
    return root


@pytest.fixture
def small(tmp_path):
    """An official Clevr4 tree with one image of each class, which a test may damage."""
    folder = tmp_path / "clevr_4_10k_v1"
    (folder / "images").mkdir(parents=True)
    facts = {}
    for i in range(10):
        values = {c: names[i] for c, names in datasets.CLEVR4_CLASSES.items()}
        facts[f"CLEVR_{i:03d}"] = {**values, "count": i + 1}
        Image.new("RGB", (8, 8)).save(folder / "images" / f"CLEVR_{i:03d}.png")
    (folder / "clevr_4_annots.json").write_text(json.dumps(facts))
    return tmp_path


def change(small, name, **values):
    file = small / "clevr_4_10k_v1" / "clevr_4_annots.json"
    facts = json.loads(file.read_text())
    facts[name].update(values)
    file.write_text(json.dumps(facts))


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
    assert [
        (str(path), label) for path, label in zip(loaded.paths, loaded.labels, strict=True)
    ] == [(path, label) for path, label in reference.samples]
    assert loaded.classes == reference.classes


def test_a_tree_of_ones_own_nested_folders_and_any_image_ending(tmp_path):
    for name in ("mood/calm/2.JPG", "mood/calm/b/1.png", "mood/calm/a.webp", "mood/wild/1.jpeg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "mood/wild/notes.txt").touch()
    loaded = load("folder", tmp_path, "mood")
    assert [str(path.relative_to(tmp_path / "mood")) for path in loaded.paths] == [
        "calm/2.JPG",
        "calm/a.webp",
        "calm/b/1.png",
        "wild/1.jpeg",
    ]
    assert loaded.labels.tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize(
    ("data", "page"), [("clevr4", datasets.CLEVR4_PAGE), ("cards", datasets.CARDS_PAGE)]
)
def test_missing_data_says_where_to_get_it_and_where_to_put_it(tmp_path, data, page):
    criterion = "color" if data == "clevr4" else "suits"
    with pytest.raises(Missing) as error:
        load(data, tmp_path, criterion)
    assert page in str(error.value) and str(tmp_path) in str(error.value)


def test_a_value_out_of_range_names_the_image(small):
    change(small, "CLEVR_003", count=11)
    with pytest.raises(UserError, match="CLEVR_003 has the count '11'"):
        load("clevr4", small, "count")


def test_an_image_without_facts_and_an_empty_class(small):
    change(small, "CLEVR_001", color=datasets.CLEVR4_CLASSES["color"][0])
    with pytest.raises(UserError, match="class red has 0 images; it needs 1 or more"):
        load("clevr4", small, "color")
    Image.new("RGB", (8, 8)).save(small / "clevr_4_10k_v1" / "images" / "extra.png")
    with pytest.raises(UserError, match=r"extra\.png has no entry"):
        load("clevr4", small, "shape")
