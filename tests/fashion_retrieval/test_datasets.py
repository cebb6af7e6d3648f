"""ASEN's files against a line-by-line reading, and under every kind of damage."""

import json
import re
import sys
import time

import numpy as np
import pytest

from crl.run.errors import UserError
from fashion_retrieval import datasets
from fashion_retrieval.datasets import check_images, load

ATTRIBUTES = ["texture-related", "style-related"]
VALUES = [3, 4]
FILES = {
    "filenames_train.txt": "img/a b.jpg\nimg/b.jpg\nimg/c.jpg\nimg/d.jpg\n",
    "label_train.txt": "0 0 1 1 2\n1 0 1\n2 0 2 1 2\n3 1 3 0 2 1 0\n",
    "filenames_valid.txt": "img/e.jpg\nimg/f.jpg\n",
    "query_valid.txt": "0 0 2\n1 1 0\n",
    "candidate_valid.txt": "1 0 2\n0 1 3\n0 0 1\n",
    "filenames_test.txt": "img/g.jpg\nimg/h.jpg",
    "query_test.txt": "0 0 0\n1 1 3",
    "candidate_test.txt": "1 0 0\n0 1 3",
    "meta.json": json.dumps(
        {
            "DeepFashion": {
                "ATTRIBUTES": ATTRIBUTES,
                "ATTRIBUTES_NUM": dict(zip(ATTRIBUTES, VALUES, strict=True)),
            },
            "DARN": {"ATTRIBUTES": ["collar", "sleeve"], "ATTRIBUTES_NUM": VALUES},
        }
    ),
}


@pytest.fixture
def root(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_everything_is_read(root):
    data = load(root)
    assert (data.attributes, data.values) == (["texture", "style"], VALUES)
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


def with_names(root, names):
    meta = json.loads(FILES["meta.json"])
    meta["DeepFashion"]["VALUE_NAMES"] = names
    (root / "meta.json").write_text(json.dumps(meta))


def test_names_of_values(root):
    assert load(root).value_names is None
    names = [["dots", "stripes", "none"], ["a", "b", "c", "d"]]
    with_names(root, names)
    assert load(root).value_names == names
    assert load(root, "DARN", splits=["test"]).value_names is None


@pytest.mark.parametrize(
    "names",
    [
        *([], 7, ["abc", "abcd"], {"abc": [], "abcd": []}, [["a", "b", "c"], None]),
        [["a", "b", "c", "d"], ["a", "b", "c"]],
        [["a", "b", 3], ["a", "b", "c", "d"]],
    ],
)
def test_names_of_values_that_do_not_fit(root, names):
    with_names(root, names)
    with pytest.raises(UserError, match=r"meta\.json must hold .*DeepFashion") as error:
        load(root)
    assert "\n" not in str(error.value)


def test_other_data_sets_and_folders(root):
    for name in FILES:
        if "train" in name or "valid" in name:
            (root / name).unlink()
    data = load(root, "DARN", images="elsewhere", splits=["test"])
    assert (data.attributes, data.values) == (["collar", "sleeve"], VALUES)
    assert (data.train, data.valid) == (None, None)
    assert str(data.test.files[0]) == "elsewhere/img/g.jpg"


BAD_LINES = [  # file, text, what the one line must say
    ("label_train.txt", "0 0 1\n4 0 1", "label_train.txt, line 2: file index 4 is not in 0..3"),
    ("label_train.txt", "0 0 1 2 0\n1 0 1", "line 1: attribute 2 is not in 0..1"),
    ("label_train.txt", "0 0 1 1 3\n1 0 1\n1 1 4", "line 3: value 4 is not in 0..3"),
    ("label_train.txt", "0 0 1\n1 0 1 1", "line 2: 4 fields; expected: file_index attribute"),
    ("label_train.txt", "0 0 1\n\n1 0 1", "line 2: 0 fields"),
    ("label_train.txt", "0 0 1\n1 0 x", "label_train.txt, line 2: not whole numbers"),
    ("label_train.txt", f"0 0 {10**30}", "line 1: value 10{30} is not in 0..2"),
    ("label_train.txt", "0 0 1\n1 0 1\n2 0 2", "label_train.txt says nothing about .* style"),
    ("label_train.txt", "0 0 1 1 2\n1 0 1 1 2\n2 0 2", "attribute style makes no triplet"),
    ("label_train.txt", "0 0 1 1 2\n1 0 1 1 1\n2 0 2", "attribute style makes no triplet"),
    # the same image twice is one image
    ("label_train.txt", "0 0 1 1 2 1 2\n1 0 1 1 1\n2 0 2", "attribute style makes no triplet"),
    ("query_valid.txt", "0 0 2\n2 1 0", "query_valid.txt, line 2: file index 2 is not in 0..1"),
    ("query_test.txt", "0 0 2 1 1\n1 1 0", "line 1: 5 fields; expected: file_index attribute valu"),
    ("candidate_test.txt", "0 0 2", "candidate_test.txt says nothing about attribute style"),
    ("candidate_test.txt", "", "line 1: 0 fields"),
    ("filenames_test.txt", "img/g.jpg\n\nimg/h.jpg", "filenames_test.txt, line 2: ''"),
    ("filenames_test.txt", "/etc/g.jpg\nimg/h.jpg", "line 1: '/etc/g.jpg' is not a relative path"),
    ("filenames_test.txt", "img/g.jpg\n../h.jpg", "line 2: '../h.jpg' is not a relative path"),
    ("filenames_test.txt", b"\xff\xfe", "not text in UTF-8"),
    ("meta.json", "{", "meta.json must hold"),
    ("meta.json", "[]", "meta.json must hold"),
    ("meta.json", '{"DeepFashion": {"ATTRIBUTES": ["a"]}}', "must hold .*ATTRIBUTES_NUM"),
    ("meta.json", '{"DeepFashion": {"ATTRIBUTES": ["a"], "ATTRIBUTES_NUM": []}}', "must hold"),
    ("meta.json", '{"DeepFashion": {"ATTRIBUTES": ["a"], "ATTRIBUTES_NUM": [0]}}', "must hold"),
    ("meta.json", '{"DeepFashion": {"ATTRIBUTES": ["a"], "ATTRIBUTES_NUM": {"b": 1}}}', "must hol"),
    ("meta.json", '{"DeepFashion": {"ATTRIBUTES": [1, 2], "ATTRIBUTES_NUM": [3, 3]}}', "must hold"),
]


@pytest.mark.parametrize(("name", "text", "says"), BAD_LINES)
def test_bad_files_are_named(root, name, text, says):
    (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=says) as error:
        load(root)
    assert str(root / name) in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_data_set_shows_the_known_ones(root):
    with pytest.raises(UserError, match="did you mean 'DeepFashion'"):
        load(root, "Deepfashion")
    with pytest.raises(UserError, match="known: DeepFashion, DARN"):
        load(root, "zappos")


def test_meta_beside_the_folder(root, tmp_path):
    """As ASEN's archive has it."""
    folder = tmp_path / "DeepFashion"
    folder.mkdir()
    for name in FILES.keys() - {"meta.json"}:
        (root / name).rename(folder / name)
    assert load(folder).attributes


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_and_where_to_get_it(root, name):
    (root / name).unlink()
    expected = f"{re.escape(name)} is not in .*github.com/Maryeon/asen.*expected there: meta.json"
    with pytest.raises(UserError, match=expected):
        load(root)


def test_missing_images_are_counted(root):
    data = load(root)
    (root / "img").mkdir()
    (root / "img/b.jpg").touch()
    with pytest.raises(UserError, match=r"3 of 4 images are missing \(.*a b.jpg.*mmlab"):
        check_images(data.train.files)
    for file in data.train.files:
        file.touch()
    check_images(data.train.files)


def test_a_large_file_is_read_fast(root):
    """As many labels as DeepFashion's: 221k lines. If it takes seconds, there is a slow loop."""
    lines = [f"{i % 4} 0 {i % 3} 1 {i % 3}" for i in range(221_000)]
    (root / "label_train.txt").write_text("\n".join(lines))
    start = time.process_time()
    data = load(root, splits=["train"])
    assert time.process_time() - start < 5
    assert len(data.train.labels) == 442_000
    assert data.train.labels[-1].tolist() == [220_999 % 4, 1, 220_999 % 3]


def check(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["datasets.py", *map(str, arguments)])
    code = 0
    try:
        datasets.main()
    except SystemExit as stop:
        code = stop.code
    return code, *capsys.readouterr()


def test_the_check_command(root, monkeypatch, capsys):
    code, out, err = check(monkeypatch, capsys, "--root", root)
    assert code == 2 and "not complete" in err
    assert "4 of 4 images are missing" in out and "train: 4 images (official: 221k)" in out
    (root / "img").mkdir()
    for part in ("train", "valid", "test"):
        for file in getattr(load(root), part).files:
            file.touch()
    code, out, err = check(monkeypatch, capsys, "--root", root)
    assert (code, err) == (0, "")
    assert "texture: 3 values (official: 156), 4 labels" in out
    assert "texture: 3 values (official: 156), 1 queries, 2 candidates" in out
    (root / "query_valid.txt").write_text("9 0 0")
    code, out, err = check(monkeypatch, capsys, "--root", root)
    assert code == 2 and "valid: " in out and "line 1: file index 9" in out
    assert "test: 2 images" in out  # the others are still looked at
