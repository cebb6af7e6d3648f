"""Text files: text bases, the files of data sets, captions, scene graphs and triplets."""

import json
import shlex
from pathlib import Path

import pytest
from mistakes import DEEP, FIFO, FOLDER, GARBAGE, LOOP, Content, basis, template

BASES = [  # content of a basis, words
    (basis(texts=[]), "bad.yaml: texts: texts is empty"),
    (basis(texts=["one"]), "the basis for 'mood' needs 2 texts or more"),
    (basis(texts=["odd", "even"]), "the basis for 'mood': its texts all look the same to the VLM"),
    (basis(texts=["a b", "A  b"]), "bad.yaml: texts: texts holds 'a b' twice"),
    (basis(texts=["a", " "]), "bad.yaml: texts: texts is empty, or holds an empty text"),
    (basis(texts=[1, 2]), "bad.yaml: texts.0: must be a text, not 1; put it in quotes"),
    (basis(texts="hearts"), "bad.yaml: texts: must be a list like [a, b], not 'hearts'"),
    (basis(texts={"a": "b"}), "bad.yaml: texts: must be a list like [a, b], not {'a': 'b'}"),
    (basis(texts=["a\nb", "c"]), "bad.yaml: texts: 'a\\nb' holds a line break or control"),
    (basis(texts=["\0", "c"]), "bad.yaml: texts: '\\x00' holds a line break or control character"),
    (basis(texts=["\ud800", "c"]), "bad.yaml: texts: '\\ud800' holds a line break or control"),
    (basis(vlm_prompt="a text"), "vlm_prompt: vlm_prompt must contain {text} exactly once"),
    (basis(vlm_prompt="{text} {text}"), "vlm_prompt: vlm_prompt must contain {text} exactly once"),
    (basis(vlm_prompt=None), "bad.yaml: vlm_prompt: must be a text, not None"),
    (basis(criterion=7), "bad.yaml: criterion: must be a text, not 7; put it in quotes"),
    (basis(text=["a"]), "bad.yaml: text: is not a known key"),
    ({"criterion": "a", "texts": ["a", "b"]}, "bad.yaml: vlm_prompt: is missing"),
    ([1], "bad.yaml must hold `key: value` lines"),
]
OF_BASES = {  # command -> the key that gives it a basis
    "clustering": "bases={mood: bad.yaml}",
    "similarity": "bases={focus_object: bad.yaml}",
    "fashion": "bases={texture: bad.yaml, shape: texts.yaml}",
    "similarity null_space=bad.yaml": "figures=no",
}


@pytest.mark.parametrize("command", OF_BASES)
@pytest.mark.parametrize(("content", "words"), BASES, ids=range(len(BASES)))
def test_bases(refused, command, content, words):
    refused(f"{command} '{OF_BASES[command]}'", words, {"bad.yaml": json.dumps(content)})


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("clustering 'bases={mood: clevr4_colour}'", "unknown text basis 'clevr4_colour'; did you"),
        ("clustering 'bases={mood: none.yaml}'", "cannot read none.yaml: No such file"),
        ("clustering texts=99", "has 3 texts, not 99"),
        ("similarity 'null_space=[none.yaml]'", "cannot read none.yaml: No such file"),
    ],
)
def test_bases_that_are_not_there(refused, line, words):
    refused(line, words)


# --- data sets and mining -------------------------------------------------------------------------

CLOTHES = "train_mlp name=new vlm=color_vlm:ColorVLM"
READ_BY = {  # file -> a command that reads it; its messages are tested beside its reader
    "clevr_4_10k_v1/clevr_4_annots.json": (
        "clustering data=clevr4 root=. criteria=color bases={color: texts.yaml}"
    ),
    "genecis/focus_object.json": "similarity",
    "clothes/meta.json": "fashion",
    "clothes/filenames_train.txt": CLOTHES,
    "clothes/label_train.txt": CLOTHES,
    "clothes/query_valid.txt": CLOTHES,
    "clothes/candidate_test.txt": "fashion",
    "graphs.jsonl": "mine_triplets",
    "triplets.jsonl": "train_combiner name=new",
    **{
        f"bad.{ending}": f"mine_captions captions=bad.{ending}"
        for ending in ("jsonl", "csv", "tsv", "json", "tar")
    },
    "ratings.txt": "mine_triplets ratings=ratings.txt",
}
BAD: list[Content] = [
    *(None, FOLDER, FIFO, LOOP, GARBAGE, DEEP, "", "\0", "\ud800", "null", "7", "[1]", '{"a": 1}'),
    *("9" * 5000, "naïve: é".encode("latin-1"), 'a,b\n"c\n', "0 0 0\n0 0 99999999999999999999\n"),
]


@pytest.mark.parametrize("file", READ_BY)
@pytest.mark.parametrize("content", BAD, ids=range(len(BAD)))
def test_files(refused, file, content):
    words = file.partition("/")[0] if "clothes" in file else Path(file).name
    command, *arguments = READ_BY[file].split(maxsplit=4)
    refused(shlex.join([command, *arguments]), words, {file: content})


TEMPLATES = [
    ([], "templates: must have at least 1 (entries: 0)"),
    ([7], "templates.0: must hold `key: value` lines, not 7"),
    ([template(condition=" ")], "templates.0.condition: "),
    ([template(gallery=[])], "templates.0.gallery: must have at least 1 (entries: 0)"),
    ([template(target=None)], "templates.0.target: must hold `key: value` lines, not None"),
    ([template(reference={"val_image_id": -1})], "templates.0.reference.val_image_id: must be at"),
    ([template(reference={"val_image_id": 10**30})], "COCO val2017 are not in genecis/coco"),
]


@pytest.mark.parametrize(("content", "words"), TEMPLATES, ids=range(len(TEMPLATES)))
def test_templates(refused, content, words):
    refused("similarity", words, {"genecis/focus_object.json": json.dumps(content)})


@pytest.mark.parametrize("pattern", ["x{0..9999999999}.tar", "x{0..999}{0..999}{0..999}.tar"])
def test_patterns_of_shards_that_name_too_many(refused, pattern):
    refused(f"mine_captions 'captions={pattern}'", ".tar names no file")
