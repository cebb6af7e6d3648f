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
    (basis(texts=["a b", "A  b"]), "bad.yaml: texts: 'a b' stands twice"),
    (basis(texts=["a\nb", "c"]), "bad.yaml: texts: 'a\\nb' holds a line break or control"),
    (basis(texts=["\ud800", "c"]), "bad.yaml: texts: '\\ud800' holds a line break or control"),
    (basis(vlm_prompt="a text"), "vlm_prompt: vlm_prompt must contain {text} exactly once"),
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


# --- data sets and mining -------------------------------------------------------------------------

CLEVR4 = "clustering data=clevr4 root=. criteria=color bases={color: texts.yaml}"
CLOTHES = "train_mlp name=new vlm=color_vlm:ColorVLM"
READ_BY = {  # file -> a command that reads it; its messages are tested beside its reader
    "clevr_4_10k_v1/clevr_4_annots.json": CLEVR4,
    "genecis/focus_object.json": "similarity",
    "clothes/meta.json": "fashion",
    "clothes/filenames_train.txt": CLOTHES,
    "clothes/label_train.txt": CLOTHES,
    "clothes/query_valid.txt": CLOTHES,
    "clothes/candidate_test.txt": "fashion",
    "graphs.jsonl": "mine_triplets",
    "triplets.jsonl": "train_combiner name=new",
    "ratings.txt": "mine_triplets ratings=ratings.txt",
}
for ending in ("jsonl", "csv", "tsv", "json", "tar"):
    READ_BY[f"bad.{ending}"] = f"mine_captions captions=bad.{ending}"
BAD: list[Content] = [
    *(None, FOLDER, FIFO, LOOP, GARBAGE, DEEP, "", "\ud800", "7", '{"a": 1}', "9" * 5000),
    "0 0 0\n0 0 99999999999999999999\n",
]


@pytest.mark.parametrize("file", READ_BY)
@pytest.mark.parametrize("content", BAD, ids=range(len(BAD)))
def test_files(refused, file, content):
    words = file.partition("/")[0] if "clothes" in file else Path(file).name
    command, *arguments = READ_BY[file].split(maxsplit=4)
    refused(shlex.join([command, *arguments]), words, {file: content})


TEMPLATES = [
    ([], "templates: must have at least 1 (entries: 0)"),
    ([template(gallery=[])], "templates.0.gallery: must have at least 1 (entries: 0)"),
    ([template(reference={"val_image_id": -1})], "templates.0.reference.val_image_id: must be at"),
    ([template(reference={"val_image_id": 10**30})], "COCO val2017 are not in genecis/coco"),
]


@pytest.mark.parametrize(("content", "words"), TEMPLATES, ids=range(len(TEMPLATES)))
def test_templates(refused, content, words):
    refused("similarity", words, {"genecis/focus_object.json": json.dumps(content)})
