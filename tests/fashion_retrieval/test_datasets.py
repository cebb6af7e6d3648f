"""ASEN's files against a line-by-line reading, and under every kind of damage."""

import json
from pathlib import Path

import numpy as np
import pytest

from crl.run.errors import UserError
from fashion_retrieval.datasets import check_images, load

FILES = {
    "filenames_train.txt": "img/a b.jpg\nimg/b.jpg\nimg/c.jpg\nimg/d.jpg\n",
    "label_train.txt": "0 0 1 1 2\n1 0 1\n2 0 2 1 2\n3 1 3 0 2 1 0\n",
    "filenames_valid.txt": "img/e.jpg\nimg/f.jpg\n",
    "query_valid.txt": "0 0 2\n1 1 0\n",
    "candidate_valid.txt": "1 0 2\n0 1 3\n0 0 1\n",
    "filenames_test.txt": "img/g.jpg\nimg/h.jpg",
    "query_test.txt": "0 0 0\n1 1 3",
    "candidate_test.txt": "1 0 0\n0 1 3",
}
NUMBERS = {"texture-related": 3, "style-related": 4}
META = {
    "DeepFashion": {"ATTRIBUTES": list(NUMBERS), "ATTRIBUTES_NUM": NUMBERS},
    "DARN": {"ATTRIBUTES": ["collar", "sleeve"], "ATTRIBUTES_NUM": [3, 4]},
}
FILES["meta.json"] = json.dumps(META)


@pytest.fixture
def root(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_everything_is_read(root):
    data = load(root)
    assert (data.attributes, data.values) == (["texture", "style"], [3, 4])
    assert data.train.files[0] == root / "img/a b.jpg"
    assert [len(part.files) for part in (data.train, data.valid, data.test)] == [4, 2, 2]
    slow = []
    for line in FILES["label_train.txt"].splitlines():
        image, *pairs = map(int, line.split())
        slow += [[image, *pairs[i : i + 2]] for i in range(0, len(pairs), 2)]
    assert data.train.labels.tolist() == slow
    for split in ("valid", "test"):
        for kind in ("query", "candidate"):
            rows = getattr(getattr(data, split), kind)
            lines = FILES[f"{kind}_{split}.txt"].splitlines()
            assert rows.tolist() == [[int(n) for n in line.split()] for line in lines]
            assert rows.dtype == np.int64
    assert data.train.labels.dtype == np.int64


def test_other_data_sets_and_folders(root):
    for name in FILES:
        if "train" in name or "valid" in name:
            (root / name).unlink()
    data = load(root, "DARN", images=Path("elsewhere"), splits=["test"])
    assert (data.attributes, data.values) == (["collar", "sleeve"], [3, 4])
    assert (data.train, data.valid) == (None, None)
    assert str(data.test.files[0]) == "elsewhere/img/g.jpg"


BAD_LINES = [  # file, text, what the one line must say
    ("label_train.txt", "0 0 1\n4 0 1", "label_train.txt, line 2: file index 4 is not in 0..3"),
    ("label_train.txt", "0 0 1 1 3\n1 0 1\n1 1 4", "line 3: value 4 is not in 0..3"),
    ("label_train.txt", "0 0 1\n1 0 x", "label_train.txt, line 2: not whole numbers"),
    # the same image twice is one image
    ("label_train.txt", "0 0 1 1 2 1 2\n1 0 1 1 1\n2 0 2", "attribute style makes no triplet"),
    ("candidate_test.txt", "0 0 2", "candidate_test.txt says nothing about attribute style"),
    ("filenames_test.txt", "img/g.jpg\n../h.jpg", "line 2: '../h.jpg' is not a relative path"),
]


@pytest.mark.parametrize(("name", "text", "says"), BAD_LINES)
def test_bad_files_are_named(root, name, text, says):
    (root / name).write_text(text)
    with pytest.raises(UserError, match=says) as error:
        load(root)
    assert str(root / name) in str(error.value)


def test_meta_beside_the_folder(root, tmp_path):
    """As ASEN's archive has it."""
    folder = tmp_path / "DeepFashion"
    folder.mkdir()
    for name in FILES.keys() - {"meta.json"}:
        (root / name).rename(folder / name)
    assert load(folder).attributes


def test_names_that_windows_wrote(root):
    (root / "filenames_test.txt").write_text("img\\g.jpg\r\nimg\\h.jpg\r\n")
    assert load(root).test.files == [root / "img/g.jpg", root / "img/h.jpg"]
    (root / "filenames_test.txt").write_text("img\\g.jpg\n..\\h.jpg\n")
    with pytest.raises(UserError, match=r"line 2: '../h.jpg' is not a relative path"):
        load(root)


SPELLED = [("Img/g.jpg", "holds Img, not img"), ("img/g.JPG", "img holds g.JPG, not g.jpg")]


@pytest.mark.parametrize(("there", "says"), [*SPELLED, ("img/x.jpg", "get DeepFashion's from")])
def test_images_that_are_spelled_otherwise(root, there, says):
    (root / there).parent.mkdir()
    (root / there).touch()
    with pytest.raises(UserError, match=rf"^2 of 2 images are missing.*{says}"):
        check_images(load(root).test.files)
