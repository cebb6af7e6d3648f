"""Text files: text bases, the files of data sets, captions, scene graphs and triplets."""

import json

import pytest
from mining_files import write_tar
from mistakes import DEEP, FIFO, FOLDER, GARBAGE, LOOP, NO_RECORDS, basis, template

IN_BASIS = "bases={mood: bad.yaml}"
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
    "clustering": IN_BASIS,
    "few_shot": IN_BASIS,
    "similarity": "bases={focus_object: bad.yaml}",
    "fashion": "bases={texture: bad.yaml, shape: texts.yaml}",
    "train_mlp vlm=color_vlm:ColorVLM": "bases={texture: bad.yaml, shape: texts.yaml}",
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


# --- data sets ------------------------------------------------------------------------------------

CLEVR4 = "clustering data=clevr4 root=. criteria=color bases={}"
META = "meta.json must hold {Clothes: {ATTRIBUTES: [names], ATTRIBUTES_NUM: [numbers]}}: "
TEMPLATE = "focus_object.json: templates.0"
JSON_FILES = {  # file -> a command that reads it, and wrong contents
    "clevr_4_10k_v1/clevr_4_annots.json": (
        CLEVR4,
        [
            ({"000": {"color": "red"}}, "001.png has no entry in "),
            ({f"{n:03}": {"shape": "cube"} for n in range(10)}, "is not {name: {texture, shape, "),
            ({f"{n:03}": {"color": "purpel"} for n in range(10)}, "did you mean 'purple'?"),
            ({f"{n:03}": None for n in range(10)}, "is not {name: {texture, shape, color, count}}"),
        ],
    ),
    "clothes/meta.json": (
        "fashion",
        [
            ({"Shoes": {}}, "meta.json has no data set 'Clothes'; known: Shoes"),
            ({"Clothes": {"ATTRIBUTES_NUM": [1]}}, META),
            ({"Clothes": {"ATTRIBUTES": ["a", "b"], "ATTRIBUTES_NUM": [1]}}, META),
            ({"Clothes": {"ATTRIBUTES": ["a", "a"], "ATTRIBUTES_NUM": [1, 1]}}, META),
            ({"Clothes": {"ATTRIBUTES": ["a"], "ATTRIBUTES_NUM": [0]}}, META),
            ({"Clothes": {"ATTRIBUTES": ["a"], "ATTRIBUTES_NUM": ["many"]}}, META),
            ({"Clothes": {"ATTRIBUTES": [], "ATTRIBUTES_NUM": []}}, META),
            ({"Clothes": {"ATTRIBUTES": None, "ATTRIBUTES_NUM": None}}, META),
            ({"Clothes": None}, META),
        ],
    ),
    "genecis/focus_object.json": (
        "similarity",
        [
            ([], "focus_object.json: templates: must have at least 1 (entries: 0)"),
            ([7], f"{TEMPLATE}: must hold `key: value` lines, not 7"),
            ([template(condition=" ")], f"{TEMPLATE}.condition: "),
            ([template(condition=7)], f"{TEMPLATE}.condition: must be a text, not 7"),
            ([template(gallery=[])], f"{TEMPLATE}.gallery: must have at least 1 (entries: 0)"),
            ([template(gallery=None)], f"{TEMPLATE}.gallery: must be a list like [a, b], not None"),
            ([template(target=None)], f"{TEMPLATE}.target: must hold `key: value` lines, not None"),
            (
                [template(reference={"val_image_id": -1})],
                f"{TEMPLATE}.reference.val_image_id: must ",
            ),
            ([template(reference={"val_image_id": 1.5})], "must be a whole number, not 1.5"),
            (
                [template(reference={"val_image_id": 10**30})],
                "COCO val2017 are not in genecis/coco",
            ),
        ],
    ),
}
JSON_CASES = [
    (command, file, content if isinstance(content, (str, bytes)) else json.dumps(content), words)
    for file, (command, contents) in JSON_FILES.items()
    for content, words in [*((no_record, file) for no_record in NO_RECORDS), *contents]
]


@pytest.mark.parametrize(
    ("command", "file", "content", "words"), JSON_CASES, ids=range(len(JSON_CASES))
)
def test_json_of_data_sets(refused, command, file, content, words):
    refused(command, words, {file: content})


FILES, LABEL, QUERY = "filenames_train.txt", "label_train.txt", "query_valid.txt"
SPLIT = [  # file of a split, its second line, words
    (FILES, "/etc/passwd", ", line 2: '/etc/passwd' is not a relative path of an image"),
    (FILES, "../../secret.png", ", line 2: '../../secret.png' is not a relative path"),
    (FILES, "\nimg/a.png", ", line 2: '' is not a relative path of an image"),
    (FILES, b"img/\xe9.png", " is not text in UTF-8"),
    (LABEL, "0 texture 1", ", line 2: not whole numbers"),
    (LABEL, "0 1", ", line 2: 2 fields; expected: file_index attribute value [attribute"),
    (LABEL, "-1 0 0", ", line 2: file index -1 is not in 0..119"),
    (LABEL, "99999 0 0", ", line 2: file index 99999 is not in 0..119"),
    (LABEL, "0 9 0", ", line 2: attribute 9 is not in 0..1"),
    (LABEL, "0 0 99999", ", line 2: value 99999 is not in 0..3"),
    (LABEL, "0 0 1.5", ", line 2: not whole numbers"),
    (LABEL, "0 0 " + "9" * 5000, ", line 2: not whole numbers"),
    (QUERY, "0 0 0 0", ", line 2: 4 fields; expected: file_index attribute value"),
    (QUERY, "0 0", ", line 2: 2 fields; expected: file_index attribute value"),
]
for file in (FILES, LABEL, QUERY, "candidate_valid.txt", "filenames_valid.txt"):
    SPLIT += [(file, None, " is not in "), (file, FOLDER, " is not in ")]
    SPLIT += [(file, b"", "line 1"), (file, b"\0\n", ".txt")]


@pytest.mark.parametrize(("name", "second", "words"), SPLIT, ids=range(len(SPLIT)))
def test_a_split(refused, data, name, second, words):
    if second and not callable(second) and second != b"\0\n":
        first = (data / "clothes" / name).read_bytes().splitlines()[0]
        second = first + b"\n" + (second if isinstance(second, bytes) else second.encode()) + b"\n"
    words = name + words if words.startswith((",", " ")) else words
    refused("train_mlp vlm=color_vlm:ColorVLM", words, {f"clothes/{name}": second})


# --- mining ---------------------------------------------------------------------------------------

LINES = [  # line of a graph or triplet, words
    (GARBAGE, ":1: not UTF-8"),
    ("a\0b\n", ":1: is not valid JSON"),
    ("dog\n", ":1: is not valid JSON"),
    (DEEP + "\n", ":1: is not valid JSON"),
    ("null\n", ":1: must hold `key: value` lines, not None"),
    ("[1]\n", ":1: must hold `key: value` lines, not [1]"),
]
GRAPHS = [
    *LINES,
    (None, " does not exist"),
    (FIFO, " does not exist"),
    (FOLDER, " does not exist"),
    (b"", ": there is nothing to mine, it is empty"),
    ('{"image": "a.jpg"}\n', ":1: relations: is missing"),
    ('{"image": null, "relations": []}\n', ":1: image: must be a text, not None"),
    ('{"image": "", "relations": []}\n', ":1: image: "),
    ('{"image": "a", "relations": [{"subject": "dog"}]}', ":1: relations.0.relation: is missing"),
    ('{"image": "a", "relations": 7}\n', ":1: relations: must be a list like [a, b], not 7"),
    (
        '{"image": "a", "caption": "b", "relations": []}',
        ": there is nothing to mine, none of its 1",
    ),
    ('{"image": "\\ud800", "relations": []}\n', ":1: is not valid JSON"),
]
TRIPLETS = [
    *LINES,
    (None, " is not a regular file; make it with mine_triplets.py"),
    (FIFO, " is not a regular file; make it with mine_triplets.py"),
    (LOOP, " is not a regular file; make it with mine_triplets.py"),
    (b"", "there are no triplets in bad.jsonl"),
    ('{"reference": "a", "target": "b"}\n', ":1: condition: is missing"),
    ('{"reference": "a", "target": 7, "condition": "c"}\n', ":1: target: must be a text, not 7"),
    ('{"reference": "a", "target": " ", "condition": "c"}\n', ":1: target: "),
    ('{"reference": "a", "target": "b", "condition": "c"}\n' * 9, "2 of the 2 images of bad.jsonl"),
    ('{"reference": "a\\u0000", "target": "b", "condition": "c"}', "bad.jsonl are not in images"),
    ('{"reference": "\\ud800", "target": "b", "condition": "c"}\n', ":1: is not valid JSON"),
]
RATINGS = [
    (None, " does not exist"),
    (FOLDER, " does not exist"),
    (b"", " holds no ratings"),
    ("Word\tConc.M\n", " holds no ratings"),
    (GARBAGE, ":1: not UTF-8"),
    ("Word\tMean\na\t3\n", ":2: conc.m: is missing"),
    ("Word\tConc.M\na\tx\n", ":2: conc.m: must be a number"),
    ("Word\tConc.M\na\t9\n", ":2: conc.m: must be at most 5.0"),
    ("Word\tConc.M\na\tnan\n", ":2: conc.m: must be at most 5.0, not 'nan'"),
]


def shard(file: str) -> None:
    write_tar(__import__("pathlib").Path(file), {"1.txt": b"words"})


CAPTIONS = [
    ("jsonl", content, words)
    for content, words in [
        *LINES[:5],
        (None, " names no file (of a folder, the .tar shards are read)"),
        (FIFO, ": captions are regular files that end with .jsonl, .csv, .tsv, .json, .tar"),
        (LOOP, ": captions are regular files that end with"),
        (FOLDER, " names no file (of a folder, the .tar shards are read)"),
        (b"", " holds no captions"),
    ]
]
NO_COCO = " is not a COCO captions file"
CAPTIONS += [
    ("txt", "words", ": captions are regular files that end with"),
    ("csv", b"", " holds no captions"),
    ("csv", "picture,caption\na,b\n", ":2: image: is missing"),
    ("csv", "image,caption\na\n", ":2: not 2 columns as in the first line"),
    ("csv", 'image,caption\n"a,b\n', ":2: unexpected end of data"),
    ("csv", "image,caption\n,b\n", ":2: image: "),
    ("tsv", GARBAGE, ":"),
    ("json", '{"images": []}', NO_COCO),
    ("json", "[1]", NO_COCO),
    ("json", "null", NO_COCO),
    ("json", DEEP, NO_COCO),
    (
        "json",
        '{"images": [], "annotations": [{"image_id": 1, "caption": "a"}]}',
        ": annotations.0: no image 1",
    ),
    ("tar", b"", ""),
    ("tar", GARBAGE, " is damaged or no .tar"),
    ("tar", shard, ": 1: no image beside it (jpg, jpeg, png, webp)"),
    ("tar", None, " names no file"),
]


MINED = [
    *(("mine_triplets graphs=bad.jsonl", "bad.jsonl", *case) for case in GRAPHS),
    *(("train_combiner triplets=bad.jsonl", "bad.jsonl", *case) for case in TRIPLETS),
    *(("mine_triplets ratings=bad.txt", "bad.txt", *case) for case in RATINGS),
    *((f"mine_captions captions=bad.{end}", f"bad.{end}", *case) for end, *case in CAPTIONS),
]


@pytest.mark.parametrize(("line", "file", "content", "words"), MINED, ids=range(len(MINED)))
def test_mining(refused, line, file, content, words):
    refused(line, file + words if words.startswith((":", " ")) else words, {file: content})


@pytest.mark.parametrize("pattern", ["x{0..9999999999}.tar", "x{0..999}{0..999}{0..999}.tar"])
def test_patterns_of_shards_that_name_too_many(refused, pattern):
    refused(f"mine_captions 'captions={pattern}'", ".tar names no file")
