"""The data loaders on data in the official on-disk formats, drawn by the demo worlds."""

import json

import numpy as np
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


def test_both_trees_of_cards_hold_the_same_pictures(drawn):
    number, suits = (load("cards", drawn, criterion) for criterion in ("number", "suits"))
    assert {p.name for p in number.paths} == {p.name for p in suits.paths}
    suits_of = {path.name: path for path in suits.paths}
    for path in number.paths[:20]:
        assert path.read_bytes() == suits_of[path.name].read_bytes()


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


def test_another_number_of_images_is_an_error(small):
    with pytest.raises(UserError, match="has 10 images, not 10531; is the download complete"):
        load("clevr4", small, "color", expected=10531)


def test_unknown_criterion_names_the_nearest(small):
    with pytest.raises(UserError, match="'colour'; did you mean 'color'"):
        load("clevr4", small, "colour")


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


@pytest.mark.parametrize("content", ["[]", "{", '{"CLEVR_000": 3}', '{"CLEVR_000": {"shape": 1}}'])
def test_annotations_of_another_form_are_refused(small, content):
    (small / "clevr_4_10k_v1" / "clevr_4_annots.json").write_text(content)
    with pytest.raises(UserError, match=r"clevr_4_annots\.json is not"):
        load("clevr4", small, "color")


def test_cards_with_a_folder_too_many_or_too_few(drawn, tmp_path):
    for name in datasets.CARDS_CLASSES["suits"][:3]:
        (tmp_path / "cards" / "suits" / name).mkdir(parents=True)
    with pytest.raises(UserError, match=r"must hold the folders .*look at: \['spades'\]"):
        load("cards", tmp_path, "suits")
    (tmp_path / "cards" / "suits" / "spades").mkdir()
    with pytest.raises(UserError, match="there are no images"):
        load("cards", tmp_path, "suits")


def test_labels_are_a_little_imbalanced_but_no_class_is_missing(drawn):
    counts = np.bincount(load("clevr4", drawn, "shape").labels)
    assert len(counts) == 10 and counts.min() > 0 and counts.max() > counts.min()


def test_one_class_is_too_few(tmp_path):
    (tmp_path / "mood/calm").mkdir(parents=True)
    (tmp_path / "mood/calm/1.png").touch()
    with pytest.raises(UserError, match="one class only, calm"):
        load("folder", tmp_path, "mood")
