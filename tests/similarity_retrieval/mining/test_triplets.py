"""Triplets read for training."""

import json

import pytest
from mining_files import write_triplets

from crl.run.errors import UserError
from similarity_retrieval.mining.triplets import read_triplets

TRIPLET = '{"reference": "a", "target": "b", "condition": "on bed"}\n'


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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"triplets.jsonl:1: is not valid JSON"),
        (TRIPLET + "[1]", r"triplets.jsonl:2: must hold"),
        ('{"reference": "a", "target": "b"}', r"jsonl:1: condition: is missing"),
        ('{"reference": "a", "target": 3, "condition": "c"}', r"jsonl:1: target: must be a text"),
        ('{"reference": "a", "target": "b", "condition": " "}', r"jsonl:1: condition: "),
        ("\xff", r"triplets.jsonl:1: not UTF-8"),
        ("", r"there are no triplets in .*triplets.jsonl"),
        (TRIPLET, r"2 of the 2 images of .* are not in .*, the first: a, b; set images="),
        (None, r"triplets.jsonl is not a regular file; make it with mine_triplets.py"),
    ],
)
def test_bad_triplets(tmp_path, content, message):
    if content is not None:
        (tmp_path / "triplets.jsonl").write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match=message):
        read_triplets(tmp_path / "triplets.jsonl", tmp_path)
