"""The table of data sets: whole ones, halves of them, and broken files."""

import json
from dataclasses import replace
from pathlib import Path

import check_data
import pytest
from check_data import DATA_SETS
from suite import write_suite

from classification_clustering.datasets import CARDS_CLASSES, CLEVR4_CLASSES
from similarity_retrieval import datasets as genecis

CLEVR4 = "clevr_4_10k_v1/clevr_4_annots.json"
DEEPFASHION = "deepfashion deepfashion-images"
COUNTS = {"clevr4": 11, "cards": 26, "coco": 2, "visual-genome": 3}
COUNTS |= {"stanford40": 43, "cmuface": 20}
COUNTS |= dict.fromkeys(("fruit", "fruit360", "stanfordcars", "flowers"), 8)


def write(folder: Path, files: dict[str, object]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.fixture
def data(tmp_path, monkeypatch) -> Path:
    """A data folder with a small, complete stand-in of each data set."""
    for name, count in COUNTS.items():
        monkeypatch.setitem(DATA_SETS, name, replace(DATA_SETS[name], count=count))
    monkeypatch.setattr(genecis, "OFFICIAL_TEMPLATES", {"focus_object": 1})
    labels = {n: {name: classes[n] for name, classes in CLEVR4_CLASSES.items()} for n in range(10)}
    write(tmp_path / "clevr_4_10k_v1", {"clevr_4_annots.json": labels})
    write(tmp_path / "clevr_4_10k_v1/images", {f"{n}.png": "x" for n in range(10)})
    for criterion, classes in CARDS_CLASSES.items():
        for n in range(13):
            write(tmp_path / "cards", {f"{criterion}/{classes[n % len(classes)]}/{n}.jpg": "x"})
    write_suite(tmp_path)
    image = {"val_image_id": 1, "image_id": 1, "instance_bbox": [0, 0, 9, 9]}
    template = {"reference": image, "target": image, "gallery": [image], "condition": "red"}
    write(tmp_path / "genecis", {f"{task}.json": [template] for task in genecis.TASKS})
    write(tmp_path / "genecis", dict.fromkeys(genecis.WEIGHTS, "x"))
    write(tmp_path / "genecis/coco/val2017", {"1.jpg": "x", "2.jpg": "x"})
    # Image 2 is there twice.
    regions = ("VG_100K/1.jpg", "VG_100K/2.jpg", "VG_100K_2/2.jpg", "VG_100K_2/3.jpg")
    write(tmp_path / "genecis/visual_genome", dict.fromkeys(regions, "x"))
    lines = "0 0 0\n1 0 0\n2 0 1\n"
    splits = [f"{k}_{s}.txt" for k in ("query", "candidate") for s in ("valid", "test")]
    names = {f"filenames_{s}.txt": "a.jpg\nb.jpg\nimg/c.jpg\n" for s in ("train", "valid", "test")}
    meta = {"DeepFashion": {"ATTRIBUTES": ["texture"], "ATTRIBUTES_NUM": [2]}}
    rows = dict.fromkeys([*splits, "label_train.txt"], lines)
    write(tmp_path / "deepfashion", rows | names | {"meta.json": meta})
    write(tmp_path / "deepfashion", dict.fromkeys(("a.jpg", "b.jpg", "img/c.jpg"), "x"))
    return tmp_path


def table(run, data: Path) -> tuple[int, dict[str, str], str]:
    """Runs the command; gives its exit code, the line of each data set, and the errors."""
    code, printed, errors = run(check_data.main, "--data", data)
    lines = printed.splitlines()
    by_name = {n: next(x for x in lines if x.startswith(DATA_SETS[n].title)) for n in DATA_SETS}
    return code, by_name, errors


def test_all_complete(run, data):
    code, lines, errors = table(run, data)
    assert (code, errors) == (0, "")
    for name, line in lines.items():
        assert "  complete  " in line and f"  {COUNTS.get(name, '')}" in line
    assert "  26.0B  " in lines["cards"] and "  3.00B  " in lines["deepfashion-images"]
    assert "scripts/download.py coco" in lines["coco"] and "CC BY-NC 4.0" in lines["genecis"]
    assert DATA_SETS["deepfashion-images"].page in lines["deepfashion-images"]


@pytest.mark.parametrize(
    ("file", "content", "names", "reason"),
    [  # None: a link to nothing
        ("clevr_4_10k_v1/images/3.png", None, "clevr4", "10 of 11 files"),
        (CLEVR4, None, "clevr4", "10 of 11 files"),
        ("cards/suits/hearts/2.jpg", None, "cards", "25 of 26 files"),
        ("genecis/change_object.json", None, "genecis", "3 of 4 files"),
        ("genecis/coco/val2017/1.jpg", None, "coco", "1 of 2 files"),
        ("genecis/visual_genome/VG_100K_2/3.jpg", None, "visual-genome", "2 of 3 files"),
        (f"genecis/{genecis.WEIGHTS[0]}", None, "genecis-weights", "1 of 2 files"),
        ("deepfashion/img/c.jpg", None, "deepfashion-images", "2 of 3 files"),
        ("deepfashion/meta.json", None, DEEPFASHION, "meta.json is not"),
        (CLEVR4, "{", "clevr4", f"{CLEVR4} is not {{name:"),
        (CLEVR4, "{}", "clevr4", "clevr_4_10k_v1/images/0.png has no entry in"),
        ("cards/suits/hares/1.jpg", "x", "cards", "cards/suits must hold the folders"),
        ("Stanford40/mood.txt", None, "stanford40", "42 of 43 files"),
        ("Stanford40/mood.txt", "running", "stanford40", "mood.txt, line 1: 'running' is not of"),
        ("faces/an2i/an2i_straight_neutral_open.pgm", None, "cmuface", "19 of 20 files"),
        ("flowers/color/a/1.png", None, "flowers", "7 of 8 files"),
        ("genecis/focus_object.json", "[", "genecis", "focus_object.json Invalid JSON"),
        ("deepfashion/meta.json", "[]", DEEPFASHION, "meta.json must hold"),
        ("deepfashion/query_test.txt", "0 0", DEEPFASHION, "query_test.txt, line 1: 2 fields"),
    ],
)
def test_half_a_data_set_and_broken_files(run, data, file, content, names, reason):
    (data / file).unlink(missing_ok=True)
    if content is None:
        (data / file).symlink_to("nowhere")
    else:
        write(data, {file: content})
    code, lines, errors = table(run, data)
    titles = ", ".join(DATA_SETS[name].title for name in names.split())
    assert code == 2 and errors.count("\n") == 1
    assert errors.startswith(f"error: incomplete or broken in {data}: {titles}; ")
    for name, line in lines.items():
        if name in names.split():
            assert "incomplete: " in line and reason in line and len(line) < 300
        else:
            assert "  complete  " in line, line
