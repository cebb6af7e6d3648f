"""The data loaders on data in the official on-disk formats, drawn by the demo worlds or tiny."""

import json

import pytest
from commands import REPOSITORY
from PIL import Image
from suite import write_suite
from worlds import cards, clevr4

from classification_clustering import clustering, datasets
from classification_clustering.config import EvaluateConfig
from classification_clustering.datasets import CRITERIA, TREES, load
from crl.backends.torchvision_fix import import_torchvision
from crl.run.config import load_config
from crl.run.errors import Missing, UserError
from crl.run.results import read_rows


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
    with pytest.raises(UserError, match="count: CLEVR_003 is '11'"):
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


# --- the data sets of other work ------------------------------------------------------------------

OTHERS = ["stanford40", "cmuface", *TREES]


@pytest.fixture
def suite(tmp_path):
    write_suite(tmp_path)
    return tmp_path


@pytest.mark.parametrize("criterion", ["action", "location", "mood"])
def test_stanford40_has_the_labels_of_its_file_and_the_order_of_names(suite, criterion):
    loaded = load("stanford40", suite, criterion, expected=40)
    lines = (suite / f"Stanford40/{criterion}.txt").read_text().splitlines()
    expected = [(name, value.replace("_", " ")) for name, value in sorted(map(str.split, lines))]
    names = [loaded.classes[label] for label in loaded.labels]
    assert list(zip([path.name for path in loaded.paths], names, strict=True)) == expected
    assert len(loaded.classes) == {"action": 40, "location": 10, "mood": 4}[criterion]


def test_an_image_of_stanford40_without_a_listed_class_is_left_out(suite):
    with (suite / "Stanford40/mood.txt").open("a") as file:
        file.write("running_002.jpg -1\n")  # as in OAK's code, whether or not it is there
    with pytest.warns(UserWarning, match="mood.txt: 1 of 41 images have no mood of OAK's list"):
        assert len(load("stanford40", suite, "mood").paths) == 40


def test_the_labels_of_cmuface_are_the_parts_of_its_files_names(suite):
    for place, criterion in enumerate(["identity", "pose", "emotion", "glass"]):
        loaded = load("cmuface", suite, criterion, expected=20)  # no smaller copies, no *.bad
        names = [loaded.classes[label] for label in loaded.labels]
        assert names == [path.stem.split("_")[place] for path in loaded.paths]


@pytest.mark.parametrize("data", TREES)
def test_the_trees_of_the_suite_have_a_folder_per_class(suite, data):
    for criterion in CRITERIA[data]:
        loaded = load(data, suite, criterion)
        places = [path.relative_to(suite / data / criterion) for path in loaded.paths]
        assert list(map(str, places)) == ["a/1.png", "a/3.png", "b/0.png", "b/2.png"]
        assert loaded.labels.tolist() == [0, 0, 1, 1] and loaded.classes == ["a", "b"]


@pytest.mark.parametrize(
    ("data", "file", "content", "words"),
    [
        (
            "stanford40",
            "Stanford40/action.txt",
            "running_001.jpg\n",
            "line 1: 'running_001.jpg' is",
        ),
        (
            "stanford40",
            "Stanford40/action.txt",
            "a.jpg running\n" * 2,
            "line 2.* names an image ag",
        ),
        (
            "stanford40",
            "Stanford40/action.txt",
            "a.jpg running\n",
            "names 1 images that are not the",
        ),
        ("stanford40", "Stanford40/action.txt", "a.jpg run\n", "there are no images in"),
        ("cmuface", "faces/tammo/face.pgm", "", "face.pgm is not named <person>_<pose>_<expressi"),
        ("cmuface", "faces/tammo/tomma_left_sad_open.pgm", "", "'tomma'; did you mean 'tammo'"),
        ("fruit", "fruit/species/c/notes.txt", "", "class c has 0 images"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*left out")
def test_a_damaged_layout_is_named(suite, data, file, content, words):
    (suite / file).parent.mkdir(exist_ok=True)
    (suite / file).write_text(content)
    with pytest.raises(UserError, match=words):
        load(data, suite, CRITERIA[data][0])


@pytest.mark.parametrize("data", OTHERS)
def test_where_to_get_what_is_missing(tmp_path, data):
    with pytest.raises(Missing, match=r"is not in .*; get it from http.*or set root=$"):
        load(data, tmp_path, CRITERIA[data][0])
    with pytest.raises(UserError, match=f"unknown criterion 'x'; .*{CRITERIA[data][0]}"):
        load(data, tmp_path, "x")


@pytest.mark.parametrize("data", OTHERS)
def test_the_configurations_bases_are_general_and_say_who_wrote_them(data, monkeypatch):
    """No list of the classes: a user who asks for texts does not know these."""
    monkeypatch.chdir(REPOSITORY)
    config = load_config(EvaluateConfig, ["--config", f"configs/{data}.yaml"], "")
    assert config.data == data and config.criteria == CRITERIA[data]
    classes = {"stanford40": datasets.STANFORD40_CLASSES, "cmuface": datasets.CMUFACE_CLASSES}
    for criterion, name in config.bases.items():
        basis, _ = config.basis(criterion)
        if "more_bases" in name:
            assert basis.criterion == criterion and 40 <= len(basis.texts) <= 60
            assert "knew the data set and its classes" in basis.provenance["source"]
            names = [c.replace("_", " ") for c in classes.get(data, {}).get(criterion, ["none"])]
            assert basis.names(names) < 0.6 * len(names)


@pytest.mark.parametrize("data", ["stanford40", "cmuface", "fruit"])
def test_clustering_runs_on_the_official_layout(suite, output, data, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    small = {"vlm": "demo", "images": "null", "seeds": 1, "figures": "no"}
    places = {"root": suite, "outputs": suite / "out", "name": data}
    output(clustering.main, "--config", f"configs/{data}.yaml", **small, **places)
    rows = read_rows(suite / f"out/clustering/{data}/results.json")
    assert [row["about"]["criterion"] for row in rows[::3]] == CRITERIA[data]
    assert {"nmi", "acc", "ari", "ri", "ami"} == rows[0]["scores"].keys()
