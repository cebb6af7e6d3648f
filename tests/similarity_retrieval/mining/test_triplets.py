"""Triplets read for training."""

import json

import pytest
from mining_files import write_triplets

from crl.run.errors import UserError
from similarity_retrieval.mining.triplets import read_triplets


def test_read_triplets_and_the_first_of_them(tmp_path):
    keys = write_triplets(tmp_path)
    data = read_triplets(keys["triplets"], keys["images"])
    lines = [json.loads(line) for line in keys["triplets"].read_text().splitlines()]
    for part in (data, data.first(60), data.first(3), data.first(1)):
        for i, line in enumerate(lines[: len(part)]):
            named = (
                part.images[part.reference[i]].name,
                part.images[part.target[i]].name,
                part.conditions[part.condition[i]],
            )
            assert named == (line["reference"], line["target"], line["condition"])
    assert len(data) == 60 and len(data.images) == 12 and len(data.conditions) == 5
    few = {name for line in lines[:3] for name in (line["reference"], line["target"])}
    assert {path.name for path in data.first(3).images} == few
    assert data.images[0].parent == keys["images"]


def refused(match, file, root):
    with pytest.raises(UserError, match=match) as caught:
        read_triplets(file, root)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("{", r"triplets.jsonl, line 61: not a JSON object with reference, target, condition"),
        ("", r"line 61: not a JSON object"),
        ("[1]", r"line 61: not a JSON object"),
        ('{"reference": "a", "target": "b"}', r"line 61: not a JSON object"),
        ('{"reference": "a", "target": 3, "condition": "c"}', r"line 61: target must be a text"),
        ('{"reference": "a", "target": "b", "condition": " "}', r"61: condition must be a text"),
    ],
)
def test_malformed_triplets(tmp_path, line, match):
    keys = write_triplets(tmp_path)
    with open(keys["triplets"], "a") as file:
        file.write(line + "\n")
    refused(match, keys["triplets"], tmp_path)


def test_bad_triplet_files(tmp_path):
    refused(r"cannot read .*nothing.jsonl: No such file", tmp_path / "nothing.jsonl", tmp_path)
    (tmp_path / "empty.jsonl").touch()
    refused(r"there are no triplets in .*empty", tmp_path / "empty.jsonl", tmp_path)
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\x00")
    refused(r"binary.jsonl is no triplet file", tmp_path / "binary.jsonl", tmp_path)


def test_missing_images_are_counted(tmp_path):
    keys = write_triplets(tmp_path)
    for number in (3, 4, 5, 6):
        (keys["images"] / f"{number:03}.png").unlink()
    match = r"4 of the 12 images of .* are not in .*images, the first: (00[3-6].png(, |;)){3}"
    refused(match, keys["triplets"], keys["images"])
