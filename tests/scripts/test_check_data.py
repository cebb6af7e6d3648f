"""The table of data sets: whole ones, halves of them, and broken files."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import check_data
import pytest
from check_data import SETS

from classification_clustering.datasets import CARDS_CLASSES, CLEVR4_CLASSES
from similarity_retrieval import datasets as genecis

CLEVR4 = "clevr_4_10k_v1/clevr_4_annots.json"
IMAGES = {"clevr4": 10, "cards": 13, "coco": 2, "visual-genome": 3}


def write(folder: Path, files: dict[str, object]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.fixture
def data(tmp_path, monkeypatch) -> Path:
    """A data folder with a small, complete stand-in of each data set."""
    for name, images in IMAGES.items():
        monkeypatch.setitem(SETS, name, replace(SETS[name], images=images))
    monkeypatch.setattr(genecis, "OFFICIAL_TEMPLATES", {"focus_object": 1})
    labels = {n: {name: classes[n] for name, classes in CLEVR4_CLASSES.items()} for n in range(10)}
    write(tmp_path / "clevr_4_10k_v1", {"clevr_4_annots.json": labels})
    write(tmp_path / "clevr_4_10k_v1/images", {f"{n}.png": "x" for n in range(10)})
    for criterion, classes in CARDS_CLASSES.items():
        for n in range(13):
            write(tmp_path / "cards", {f"{criterion}/{classes[n % len(classes)]}/{n}.jpg": "x"})
    image = {"val_image_id": 1, "image_id": 1, "instance_bbox": [0, 0, 9, 9]}
    template = {"reference": image, "target": image, "gallery": [image], "condition": "red"}
    write(tmp_path / "genecis", {f"{task}.json": [template] for task in genecis.TASKS})
    write(tmp_path / "genecis", dict.fromkeys(genecis.WEIGHTS, "x"))
    write(tmp_path / "genecis/coco/val2017", {"1.jpg": "x", "2.jpg": "x"})
    # Image 2 is there twice.
    regions = ("VG_100K/1.jpg", "VG_100K/2.jpg", "VG_100K_2/2.jpg", "VG_100K_2/3.jpg")
    write(tmp_path / "genecis/visual_genome", dict.fromkeys(regions, "x"))
    lines = "0 0 0\n1 0 0\n2 0 1\n"
    splits = {
        f"{kind}_{split}.txt": lines
        for kind in ("query", "candidate")
        for split in ("valid", "test")
    }
    names = {f"filenames_{s}.txt": "a.jpg\nb.jpg\nimg/c.jpg\n" for s in ("train", "valid", "test")}
    meta = {"DeepFashion": {"ATTRIBUTES": ["texture"], "ATTRIBUTES_NUM": [2]}}
    write(tmp_path / "deepfashion", splits | names | {"meta.json": meta, "label_train.txt": lines})
    write(tmp_path / "deepfashion", dict.fromkeys(("a.jpg", "b.jpg", "img/c.jpg"), "x"))
    return tmp_path


@pytest.fixture
def rows(run) -> Callable[[Path], tuple[int, dict[str, str], str]]:
    """Runs the command; gives its exit code, the line of each data set, and the errors."""

    def rows(data: Path) -> tuple[int, dict[str, str], str]:
        code, printed, errors = run(check_data.main, "--data", data)
        lines = printed.splitlines()
        return (
            code,
            {n: next(x for x in lines if x.startswith(SETS[n].title)) for n in SETS},
            errors,
        )

    return rows


def test_all_complete(rows, data):
    code, lines, errors = rows(data)
    assert (code, errors) == (0, "")
    assert all("  complete  " in line for line in lines.values()), lines
    counts = {"clevr4": 10, "cards": 13, "coco": 2, "visual-genome": 3, "deepfashion-images": 3}
    for name, line in lines.items():
        assert f"{counts[name]} / {counts[name]}" in line if name in counts else " / " not in line
    assert "  26 bytes  " in lines["cards"] and "  3 bytes  " in lines["deepfashion-images"]
    assert "scripts/download.py coco" in lines["coco"] and "CC BY-NC 4.0" in lines["genecis"]
    assert SETS["deepfashion-images"].page in lines["deepfashion-images"]


def test_nothing_there(rows, tmp_path):
    code, lines, errors = rows(tmp_path / "no")
    assert (code, errors) == (0, "")
    assert all("  missing  " in line for line in lines.values()), lines
    assert "0 / 108,249" in lines["visual-genome"]


@pytest.mark.parametrize(
    ("name", "files", "said"),
    [
        ("clevr4", ["clevr_4_10k_v1/images/3.png"], "has 9 images, not 10"),
        ("clevr4", [CLEVR4], "not all of clevr_4_10k_v1/{images"),
        ("cards", ["cards/suits/hearts/2.jpg"], "has 12 images, not 13"),
        ("cards", [f"cards/suits/{n}" for n in CARDS_CLASSES["suits"]], "must hold the folders"),
        ("genecis", ["genecis/change_object.json"], "change_object.json, GeneCIS's templates, is"),
        ("coco", ["genecis/coco/val2017/1.jpg"], "1 of 2 images"),
        ("visual-genome", ["genecis/visual_genome/VG_100K_2/3.jpg"], "2 of 3 images"),
        ("genecis-weights", [f"genecis/{genecis.WEIGHTS[0]}"], f"without {genecis.WEIGHTS[0]}"),
        ("deepfashion-images", ["deepfashion/img/c.jpg"], "2 of 3 images"),
    ],
)
def test_half_a_data_set(rows, data, name, files, said):
    for file in files:
        (data / file).rename(data / "gone")
        if (data / "gone").is_dir():
            (data / "gone").rename(data / file.replace("/", "-"))
    code, lines, errors = rows(data)
    assert code == 2 and errors.count("\n") == 1
    assert errors.startswith(f"error: incomplete or broken in {data}: {SETS[name].title}; ")
    assert "incomplete: " in lines[name] and said in lines[name], lines[name]
    assert all("  complete  " in line for other, line in lines.items() if other != name)


def test_images_that_no_split_file_names(rows, data):
    (data / "deepfashion/meta.json").unlink()
    code, lines, errors = rows(data)
    assert code == 2 and "DeepFashion split files, DeepFashion images;" in errors
    assert "meta.json is not in" in lines["deepfashion"]
    assert "the split files, which name the images, are missing" in lines["deepfashion-images"]


@pytest.mark.parametrize(
    ("file", "content", "name", "said"),
    [
        (CLEVR4, "{", "clevr4", f"{CLEVR4} is not {{name:"),
        (CLEVR4, "{}", "clevr4", "clevr_4_10k_v1/images/0.png has no entry in"),
        ("genecis/focus_object.json", "[", "genecis", "focus_object.json is not valid JSON"),
        ("genecis/focus_object.json", "[1]", "genecis", "focus_object.json: template 0: "),
        ("deepfashion/meta.json", "[]", "deepfashion", "meta.json must hold"),
        ("deepfashion/query_test.txt", "0 0", "deepfashion", "query_test.txt, line 1: 2 fields"),
    ],
)
def test_broken_files(rows, data, file, content, name, said):
    write(data, {file: content})
    code, lines, errors = rows(data)
    assert code == 2 and SETS[name].title in errors
    assert f"incomplete: {said}" in lines[name]
    assert max(map(len, lines.values())) < 300


def test_too_few_templates(rows, data, monkeypatch):
    monkeypatch.setattr(genecis, "OFFICIAL_TEMPLATES", {"focus_object": 1960})
    code, lines, _ = rows(data)
    assert code == 2 and "focus_object.json has 1 templates, not 1,960" in lines["genecis"]


def test_a_link_to_nothing_is_no_image(rows, data):
    image = data / "genecis/coco/val2017/1.jpg"
    image.unlink()
    image.symlink_to("nowhere")
    assert "1 of 2 images" in rows(data)[1]["coco"]
