"""What a user can get wrong, command by command: one line that says what and where.

A case is a command, arguments after those of `COMMANDS`, and words of the message. The files that
the cases name are made by `bad_files.py`.
"""

import os
import shlex
from collections.abc import Callable, Iterator
from functools import cache
from glob import glob
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import bad_files
import benchmark
import generate_texts
import import_official_bases
import make_data
import pytest
import reproduce_tables
from annotated_types import Ge, Gt, Le, Lt
from bad_files import BASES, NO_RECORDS
from published import CONFIGS
from pydantic import BeforeValidator
from pydantic.fields import FieldInfo

from classification_clustering import clustering, few_shot
from crl import basis
from crl.run import config
from fashion_retrieval import evaluate as fashion_evaluate
from fashion_retrieval import train_backbone, train_mlp, train_rival
from similarity_retrieval import datasets as similarity_datasets
from similarity_retrieval import evaluate as similarity_evaluate
from similarity_retrieval import mine_triplets, train_combiner

SUITS = len(basis.TextBasis.load("cards_suits").texts)
EVALUATED = "vlm=vlm seeds=2 figures=no"
GARMENTS = f"root=data/garments dataset=Garments '{BASES}' texts=8"
SHORT = "epochs=1 batch_size=4 workers=0"
COMMANDS: dict[str, tuple[Callable[[], None], str]] = {  # -> main, first arguments
    "clustering": (
        clustering.main,
        f"data=cards root=data criteria=[suits] {EVALUATED}",
    ),
    "clustering of features": (clustering.main, "features=good.npz seeds=2 figures=no"),
    "few_shot": (few_shot.main, f"data=cards root=data criteria=[suits] shots=[1] {EVALUATED}"),
    "few_shot of features": (few_shot.main, "features=good.npz shots=[1] seeds=2 figures=no"),
    "similarity": (similarity_evaluate.main, "root=data/genecis vlm=vlm figures=no"),
    "similarity of features": (
        similarity_evaluate.main,
        "root=data/genecis features=good.npz figures=no",
    ),
    "mine_triplets": (
        mine_triplets.main,
        f"graphs={bad_files.GRAPHS} samples=60 min_images=1",
    ),
    "mine_triplets of captions": (mine_triplets.main, "samples=60 min_images=1"),
    "train_combiner": (
        train_combiner.main,
        "triplets=outputs/triplets/run/triplets.jsonl images=data/genecis/coco vlm=vlm "
        f"projection=4 hidden=4 validation=0.2 {SHORT}",
    ),
    "fashion": (fashion_evaluate.main, f"{GARMENTS} vlm=vlm figures=no"),
    "fashion of features": (fashion_evaluate.main, "features=good.npz figures=no"),
    "train_mlp": (
        train_mlp.main,
        f"{GARMENTS} epochs=1 batch_size=4 triplets=8 vlm=vlm out=4",
    ),
    "train_backbone": (
        train_backbone.main,
        f"root=data/garments dataset=Garments {SHORT} triplets=4 heads=outputs/fashion_mlp/run",
    ),
    "train_rival": (
        train_rival.main,
        f"root=data/garments dataset=Garments {SHORT} triplets=4 method=csn tower=vlm width=4",
    ),
    "similarity data": (similarity_datasets.main, "--root data/genecis --tasks focus_object"),
    "generate_texts": (
        generate_texts.main,
        "--criterion color --vlm-prompt 'a {text}' --out color.yaml --cache-dir cache",
    ),
    "import_official_bases": (import_official_bases.main, "--out official"),
    "reproduce_tables": (reproduce_tables.main, ""),
    "make_data": (make_data.main, "--out data --images 2 --workers 1"),
    "benchmark": (benchmark.main, "--quick"),
}
SCRIPTS = {  # those with keys -> their script
    "clustering": "classification_clustering/clustering.py",
    "few_shot": "classification_clustering/few_shot.py",
    "similarity": "similarity_retrieval/evaluate.py",
    "mine_triplets": "similarity_retrieval/mine_triplets.py",
    "train_combiner": "similarity_retrieval/train_combiner.py",
    "fashion": "fashion_retrieval/evaluate.py",
    "train_mlp": "fashion_retrieval/train_mlp.py",
    "train_backbone": "fashion_retrieval/train_backbone.py",
    "train_rival": "fashion_retrieval/train_rival.py",
}
Case = tuple[str, str, str]


# --- keys -----------------------------------------------------------------------------------------

OF_TYPE: dict[Any, dict[str, str]] = {  # type of a key -> wrong values, and what is said about them
    int: {
        "x": "{key}: must be a whole number, not 'x'",
        "1.5": "{key}: must be a whole number, not 1.5",
        "[[1]]": "must be a",
        "yes": ", not True",
        str(10**29): "{key}: must be at most ",
        "1e999": "{key}: must be a whole number, not '1e999'",
    },
    float: {
        "x": "{key}: must be a number, not 'x'",
        "[1]": "{key}: must be a number, not [1]",
        "no": ", not False",
        ".nan": ", not nan",
        ".inf": ", not inf",
        "-.inf": ", not -inf",
    },
    bool: {
        "maybe": "{key}: must be true or false, not 'maybe'",
        "2": "{key}: must be true or false, not 2",
        "[]": "{key}: must be true or false, not []",
    },
    str: {
        "7": "{key}: must be a text, not 7; put it in quotes",
        "yes": "{key}: must be a text, not True; put it in quotes",
        "{a: b}": "{key}: must be a text, not {'a': 'b'}; put it in quotes",
    },
    Path: {
        "7": "{key}: must be the name of a file or folder, not 7",
        "{a: b}": "{key}: must be the name of a file or folder, not {'a': 'b'}",
        '"a\\0b"': "'a\\x00b' holds a NUL, which no file name does",
    },
    list: {
        "x": "{key}: must be a list like [a, b], not 'x'",
        "[[a]]": "{key}.0: must be ",
    },
    Literal: {"x": "must be "},
    dict: {
        "x": "{key}: must hold `key: value` lines, not 'x'",
        "[a]": "{key}: must hold `key: value` lines, not ['a']",
        "{7: a}": "{key}.7: must be a text, not 7; put it in quotes",
        "{a: 7}": "{key}.a: must be a",
    },
}


def of_keys() -> Iterator[Case]:
    """Wrong values of each key; a key that several commands share is tried with the first."""
    seen = set()
    for command, script in SCRIPTS.items():
        kind = bad_files.imported(CONFIGS[script])
        unused = {"clustering": "shots", "mine_triplets": "device"}.get(command)
        for key, field in kind.model_fields.items():
            if key == unused:
                yield command, f"{key}=1", f"this script does not use '{key}'; remove it"
            elif key != "features" and (key, str(field)) not in seen:
                seen.add((key, str(field)))
                for value, words in wrong_values(key, field):
                    yield command, shlex.quote(f"{key}={value}"), words
        for arguments, words in OF_ALL.items():
            if not (command == "mine_triplets" and "device" in arguments):
                yield command, arguments, words


def wrong_values(key: str, field: FieldInfo) -> Iterator[tuple[str, str]]:
    parts = [get_origin(part) or part for part in get_args(field.annotation)]
    kinds = [get_origin(field.annotation) or field.annotation, *parts]
    kind = next((kind for kind in [k for k in kinds if k is not list] if kind in OF_TYPE), Literal)
    alone = kinds[0] is list and any(isinstance(m, BeforeValidator) for m in field.metadata)
    several = ".0" if alone else ""  # one value is a list of it
    for value, words in OF_TYPE[list if kinds[0] is list and not alone else kind].items():
        yield value, words.replace("{key}", key + several)
    if type(None) not in kinds:
        yield "null", ", not None"
    shown = float if kind is float else int
    for bound in field.metadata:
        match bound:
            case Gt(gt):
                yield str(gt), f"{key}: must be above {shown(gt)}, not {gt}"
                yield "-1", f"{key}: must be above {shown(gt)}, not -1"
            case Ge(ge):
                yield str(ge - 1), f"{key}: must be at least {shown(ge)}, not {ge - 1}"
            case Lt(lt):
                yield str(lt), f"{key}: must be below {shown(lt)}, not {lt}"
            case Le(le):
                yield str(10**12), f"{key}: must be at most {shown(le)}, not {10**12}"


OF_ALL = {  # arguments of any command -> words
    "nmae=x": "unknown key 'nmae'; did you mean 'name'?",
    "=x": "unknown key ''; known: name, ",
    "name": "'name' is not of the form key=value",
    "name=[": "'name=[': the value is not valid YAML",
    "\"name=''\"": "'' names no folder in outputs; to write elsewhere set outputs=",
    "name=..": "'..' names no folder in outputs",
    "name=a/b": "'a/b' names no folder in outputs",
    "name='\"a\\0b\"'": "names no folder in outputs",
    f"name={'n' * 300}": "name: is longer than the name of a folder can be",
    "outputs=bad/file": "cannot write to bad/file/",
    "--config bad/none.yaml": "cannot read bad/none.yaml: No such file",
    "--config bad/unknown.yaml": "bad/unknown.yaml: unknown key 'nmae'; did you mean 'name'?",
    "device=gpu": "no device 'gpu' here",
    "device=meta": "no device 'meta' here",
    "device=cpu:3": "no device 'cpu:3' here (the CPU has no number); use device=cpu",
    "\"device=''\"": "no device '' here",
}


CASES: list[Case] = [
    *of_keys(),
]


def cases(command: str, arguments: str, table: dict[str, str]) -> None:
    """One case for each entry: `{}` in the arguments and words is its key."""
    for name, words in table.items():
        CASES.append((command, arguments.replace("{}", name), words.replace("{}", name)))


# --- configuration files --------------------------------------------------------------------------

cases(
    "clustering",
    "--config bad/{}.yaml",
    {
        "twice": "bad/{}.yaml is not valid YAML: the key 'seeds' stands twice",
        "bomb": "bad/{}.yaml is not valid YAML: it has more than 20 references (*name)",
        "deep": "bad/{}.yaml is not valid YAML: it is nested too deeply",
        "tag": "bad/{}.yaml is not valid YAML: could not determine a constructor",
        "date": "bad/{}.yaml is not valid YAML: month must be in 1..12",
        "list": "bad/{}.yaml must hold `key: value` lines",
        "scalar": "bad/{}.yaml must hold `key: value` lines",
        "empty": "bad/{}.yaml must hold `key: value` lines",
        "tab": "bad/{}.yaml is not valid YAML",
        "open": "bad/{}.yaml is not valid YAML",
        "number_key": "bad/{}.yaml: unknown key 7",
        "list_key": "bad/{}.yaml is not valid YAML",
        "null_key": "bad/{}.yaml: unknown key None",
        "value": "bad/{}.yaml: cache: must be the name of a file or folder, not 2",
        "alias": "bad/{}.yaml is not valid YAML: found undefined alias",
        "two": "bad/{}.yaml is not valid YAML: expected a single document",
        "merge": "bad/{}.yaml is not valid YAML",
        "big": "bad/{}.yaml",
        "garbage": "bad/{}.yaml is not valid YAML",
        "latin1": "bad/{}.yaml is not valid YAML",
        "nul": "bad/{}.yaml is not valid YAML",
        "folder": "bad/{}.yaml is not a regular file",
        "fifo": "bad/{}.yaml is not a regular file",
        "loop": "cannot read bad/{}.yaml: ",
    },
)
CASES += [
    ("clustering", "--config", "expected one argument"),
    ("clustering", "--confg x", "unrecognized arguments: --confg"),
    ("clustering", "data=clever4", "data: unknown data set 'clever4'; did you mean 'clevr4'?"),
    ("clustering", "criteria=[]", "set data and criteria (see configs/), or features=FILE.npz"),
    ("clustering", "data=null", "set data and criteria (see configs/), or features=FILE.npz"),
    ("clustering", "criteria=[suit]", "unknown criterion 'suit'; did you mean 'suits'?"),
    (
        "clustering",
        "'bases={suit: x}'",
        "bases names 'suit', which is not in criteria; did you mean",
    ),
    ("clustering", "'bases={suits: card_suits}'", "unknown text basis 'card_suits'; did you mean"),
    ("clustering", "'bases={suits: none.yaml}'", "cannot read none.yaml: No such file"),
    ("clustering", "texts=9999", f"has {SUITS} texts, not 9999"),
    ("clustering", "vlm=[]", "vlm: must have at least 1 (entries: 0)"),
    ("clustering", "vlm=[clipp]", "unknown VLM 'clipp'; did you mean 'clip'?"),
    ("clustering", "vlm=bad/folder", "bad/folder"),
    ("clustering", "vlm=bad/file", "unknown VLM 'bad/file'"),
    ("clustering", "vlm=open_clip:nothing/x", "nothing"),
    ("clustering", "vlm=no_module:Thing", "cannot import the VLM no_module:Thing"),
    ("clustering", "precision=fp8", "precision: must be 'fp32', 'bf16' or 'fp16', not 'fp8'"),
    ("clustering", "image_vector=last", "image_vector: must be 'mean', 'first' or 'max'"),
    ("clustering", "unreadable=ignore", "unreadable: must be 'error' or 'skip', not 'ignore'"),
    ("clustering", "images=41", "cards in data has 40 images, not 41; is the download complete?"),
    ("clustering", "root=nowhere", "Cards is not in "),
    ("clustering", "root=bad/file", "Cards is not in "),
    ("clustering", "seeds=100000000000", "seeds: must be at most "),
    ("few_shot", "shots=[]", "shots: must have at least 1 (entries: 0)"),
    ("few_shot", "shots=[0]", "shots.0: must be above 0, not 0"),
    ("few_shot", "'shots=[1, x]'", "shots.1: must be a whole number, not 'x'"),
    ("few_shot", "shots=9999", "it needs 10000 or more"),
    ("few_shot of features", "shots=9999", "good.npz: class 0 has "),
    ("clustering of features", "vlm=clip", "features replaces vlm; remove it"),
    ("clustering of features", "root=x", "features replaces root; remove it"),
]

# --- text bases -----------------------------------------------------------------------------------

cases(
    "clustering",
    "'bases={suits: bad/bases/{}.yaml}'",
    {
        "no_texts": "bad/bases/{}.yaml: texts: texts is empty",
        "one_text": "the basis for 'suits' needs 2 texts or more",
        "no_slot": "bad/bases/{}.yaml: vlm_prompt: vlm_prompt must contain {text} exactly once",
        "two_slots": "bad/bases/{}.yaml: vlm_prompt: vlm_prompt must contain {text} exactly once",
        "repeated": "bad/bases/{}.yaml: texts: texts holds 'A b' twice",
        "blank": "bad/bases/{}.yaml: texts: texts holds an empty text",
        "numbers": "bad/bases/{}.yaml: texts.0: must be a text, not 1; put it in quotes",
        "no_list": "bad/bases/{}.yaml: texts: must be a list like [a, b], not 'hearts'",
        "mapping": "bad/bases/{}.yaml: texts: must be a list like [a, b], not {'a': 'b'}",
        "line_break": "bad/bases/{}.yaml: texts: 'a\\nb' holds a line break or control character",
        "extra": "bad/bases/{}.yaml: text: is not a known key",
        "surrogate": "bad/bases/{}.yaml: texts: '\\ud800' holds a line break or control character",
        "criterion": "bad/bases/{}.yaml: criterion: must be a text, not 7; put it in quotes",
        "nul_text": "bad/bases/{}.yaml: texts: '\\x00' holds a line break or control character",
        "no_prompt": "bad/bases/{}.yaml: vlm_prompt: is missing",
    },
)

# --- representations beyond the paper -------------------------------------------------------------

EVALUATIONS = {  # command -> the last representation that it knows
    "clustering": "'posterior' or 'paper+posterior'",
    "few_shot": "'posterior' or 'paper+posterior'",
    "similarity": "or 'posterior'",
    "fashion": "or 'posterior'",
}
for task, known in EVALUATIONS.items():
    CASES += [
        (command, arguments, words)
        for command in (task, f"{task} of features")
        for arguments, words in {
            "sharpness=0": "sharpness: must be above 0.0, not 0",
            "sharpness=-1": "sharpness: must be above 0.0, not -1",
            "sharpness=.nan": "sharpness: must be ",
            "sharpness=.inf": "sharpness: must be ",
            "sharpness=1e7": "sharpness: must be at most 1000000",
            "representation=[]": "representation: must have at least 1 (entries: 0)",
            "representation=postrior": f"{known}, not 'postrior'",
            "representation=[paper,7]": f"{known}, not 7",
        }.items()
    ]
    CASES += [
        (task, "rank=0", "rank: must be above 0, not 0"),
        (task, "rank=2", "rank needs null_space"),
        (task, "rank=half", "rank: must be a whole number, not 'half'"),
        (task, "null_space=clevr4_colour", "'clevr4_colour'; did you mean 'clevr4_color'?"),
        (task, "null_space=[none.yaml]", "cannot read none.yaml: No such file"),
        (task, "null_space=[7]", "null_space.0: must be a text, not 7; put it in quotes"),
        (task, "null_space=bad/bases/one_text.yaml", "the basis for 'suits' needs 2 texts or more"),
        (task, "null_space=bad/bases/same.yaml", "its texts all look the same to the VLM"),
        (f"{task} of features", "null_space=clevr4_color", "features replaces null_space"),
        (f"{task} of features", "rank=2", "features replaces rank; remove it"),
    ]
CASES += [
    ("similarity", "balance=[]", "balance: must have at least 1 (entries: 0)"),
    ("similarity", "balance=standart", "must be 'paper' or 'standard', not 'standart'"),
    ("clustering", "balance=standard", "unknown key 'balance'"),
    ("fashion", "representation=paper+posterior", "must be 'paper' or 'posterior', not 'paper+"),
]

# --- bases that cannot tell images apart ----------------------------------------------------------

OF_BASES = {  # command -> the key that gives it a bad basis
    "clustering": "bases={suits: FILE}",
    "few_shot": "bases={suits: FILE}",
    "similarity": "bases={focus_object: FILE, change_object: genecis_scene}",
    "fashion": BASES.replace("deepfashion_style", "FILE"),
}
for task, key in OF_BASES.items():
    for name, words in {
        "one_text": "the basis for 'suits' needs 2 texts or more",
        "same": "the basis for 'suits': its texts all look the same to the VLM; use other texts",
    }.items():
        given = shlex.quote(key.replace("FILE", f"bad/bases/{name}.yaml"))
        more = " texts=null" if task == "fashion" else ""
        CASES.append((task, given + more, words))
for task, array in {
    "clustering": "",
    "few_shot": "",
    "similarity": ": scene_text",
    "fashion": ": text0",
}.items():
    cases(
        f"{task} of features",
        "features=bad/{}.npz",
        {
            "one_text": f"bad/{{}}.npz{array} needs 2 texts or more",
            "same_texts": f"bad/{{}}.npz{array}: its texts all look the same to the VLM",
        },
    )

# --- embeddings from files ------------------------------------------------------------------------

NO_ARCHIVES = {
    "none": "there is no file bad/{}.npz",
    "folder": "bad/{}.npz is not a regular file",
    "fifo": "bad/{}.npz is not a regular file",
    "loop": "bad/{}.npz",
    "empty": "bad/{}.npz",
    "garbage": "bad/{}.npz is no NPZ file, or holds Python objects, which are never loaded",
    "pickled": "bad/{}.npz is no NPZ file, or holds Python objects, which are never loaded",
    "single": "bad/{}.npz must be an NPZ archive of named arrays, see numpy.savez",
    "cut": "bad/{}.npz",
    "end": "bad/{}.npz",
    "flipped": "bad/{}.npz is damaged: ",
    "liar": "bad/{}.npz",
}
for command in ("clustering", "similarity", "fashion"):
    cases(f"{command} of features", "features=bad/{}.npz", NO_ARCHIVES)
    for name, what in (
        ("nan", "image holds NaN or infinity"),
        ("inf", "image holds NaN or infinity"),
        ("huge", "image has rows too long for float32; scale the embeddings"),
        ("tiny", "image is empty or has a row of zeros (in float32)"),
        ("words", "image holds <U"),
        ("complex", "image holds complex128 values, not real numbers"),
        ("boolean", "image holds bool values, not real numbers"),
        ("dates", "image holds datetime64[s] values, not real numbers"),
        ("no_image", "image is missing"),
    ):
        cases(f"{command} of features", f"features=bad/{name}.npz", {"": f"bad/{name}.npz"})
        CASES[-1] = (*CASES[-1][:2], what)
cases(
    "clustering of features",
    "features=bad/{}.npz",
    {
        "zeros": "bad/{}.npz: text is empty or has a row of zeros (in float32)",
        "narrow": "bad/{}.npz must hold image (N, D) or (N, Q, D), text (K, D), labels (N), not",
        "flat": "bad/{}.npz must hold image (N, D) or (N, Q, D), text (K, D), labels (N), not",
        "scalar": "labels ()",
        "no_images": "bad/{}.npz: image is empty",
        "no_texts": "bad/{}.npz: text is empty",
        "one_text": "bad/{}.npz needs 2 texts or more",
        "short": "bad/{}.npz must hold image (N, D) or (N, Q, D), text (K, D), labels (N), not",
        "nan_labels": "bad/{}.npz: labels holds NaN; give every image a class",
        "one_class": "bad/{}.npz: there is one class only, 0; two or more are needed",
        "no_text": "text is missing",
        "no_labels": "labels is missing",
    },
)
CASES += [
    ("few_shot of features", "features=bad/rare_class.npz", "class 9 has 1 images; it needs 2"),
]
cases(
    "fashion of features",
    "features=bad/{}.npz",
    {
        "float_rows": "bad/{}.npz: query must hold integers, not float64",
        "far_image": "bad/{}.npz: query, row 0: image 9999 is not in 0..",
        "negative": "bad/{}.npz: candidate, row 0: image -4 is not in 0..",
        "far_attribute": "bad/{}.npz: query, row 0: attribute 7 is not in 0..0",
        "two_columns": "query (4, 2)",
        "no_queries": "bad/{}.npz: query has no row of attribute 0",
        "names": "bad/{}.npz: attributes must hold 1 different names, one per text",
        "no_query": "query is missing",
        "no_candidate": "candidate is missing",
        "no_text0": "text0 is missing",
        "nan_text": "bad/{}.npz: text0 holds NaN or infinity",
    },
)
cases(
    "similarity of features",
    "features=bad/{}.npz",
    {
        "twice": "bad/{}.npz names some of its images twice; keep one row of each",
        "float_ids": "bad/{}.npz: the names of its images must be whole numbers or texts",
        "other_ids": "bad/{}.npz lacks ",
        "few_conditions": "bad/{}.npz lacks ",
        "no_ids": "ids is missing",
        "no_conditions": "conditions is missing",
        "no_scene_text": "scene_text is missing",
        "no_captions5": "captions5 is missing",
        "nan_text": "bad/{}.npz: scene_text holds NaN or infinity",
    },
)

# --- data sets ------------------------------------------------------------------------------------

ANNOTATIONS = "clevr_4_annots.json is not {name: {texture, shape, color, count}}: "
cases(
    "clustering",
    "data=clevr4 criteria=[color] root=bad/clevr4/{}",
    {
        **dict.fromkeys(NO_RECORDS, ANNOTATIONS),
        "no_entry": "has no entry in bad/clevr4/{}/clevr_4_10k_v1/clevr_4_annots.json",
        "no_color": ANNOTATIONS,
        "wrong_color": "has the color 'purpel'; did you mean 'purple'?",
        "null_facts": ANNOTATIONS,
    },
)
cases(
    "clustering",
    "root=bad/cards/{}",
    {
        "no_spades": "must hold the folders clubs, diamonds, hearts, spades; look at: ['spades']",
        "empty_spades": "class spades has 0 images; it needs 1 or more",
        "jokers": "must hold the folders clubs, diamonds, hearts, spades; look at: ['jokers']",
        "no_classes": "must hold the folders clubs, diamonds, hearts, spades",
        "a_file": "Cards is not in ",
    },
)
cases(
    "clustering",
    "data=folder criteria=[mood] 'bases={mood: clevr4_color}' root=bad/pictures/{}",
    {
        "text": "mood/wild/b.png: not an image that Pillow knows; mend or remove it, or set",
        "empty": "mood/wild/b.png: not an image that Pillow knows; mend or remove it, or set",
        "cut": "mood/wild/b.png: ",
        "bomb": "mood/wild/b.png: ",
        "zero": "mood/wild/b.png: ",
        "half": "mood/wild/b.png: ",
        "eps": "mood/wild/b.jpg: not an image that Pillow knows",
        "negative": "mood/wild/b.tif: its values are -1 to -1; known are 0 to 65535",
        "loop": "mood/wild/b.png",
        "gone": "mood/wild/b.png: No such file",
        "fifo": "mood/wild/b.png: not a regular file",
        "one_class": "there is one class only, calm; two or more are needed",
        "no_pictures": "there are no images in bad/pictures/no_pictures/mood",
        "nothing": "there is no folder bad/pictures/nothing/mood; expected: ",
    },
)
CASES += [
    (
        "clustering",
        "data=folder 'root=bad/pictures/odd names' 'criteria=[\"mood$\\n{x}\"]'"
        " 'bases={\"mood$\\n{x}\": clevr4_color}'",
        "there is one class only, one$ class; two or more are needed",
    ),
    (
        "clustering",
        "data=folder 'root=bad/pictures/odd names' 'criteria=[\"../mood$\\n\"]'",
        "there is no folder bad/pictures/odd names/../mood$",
    ),
]
SPLITS = {
    "absolute": "filenames_train.txt, line 2: '/etc/passwd' is not a relative path of an image",
    "upwards": "filenames_train.txt, line 2: '../../secret.png' is not a relative path",
    "blank": "filenames_train.txt, line 2: '' is not a relative path of an image",
    "latin1": "filenames_train.txt is not text in UTF-8",
    "words": "label_train.txt, line 2: not whole numbers",
    "even": "label_train.txt, line 2: 2 fields; expected: file_index attribute value [attribute",
    "negative": "label_train.txt, line 2: file index -1 is not in 0..",
    "far_image": "label_train.txt, line ",
    "far_attribute": "label_train.txt, line 2: attribute 9 is not in 0..4",
    "far_value": "label_train.txt, line 2: value 99999 is not in 0..",
    "overflow": "label_train.txt, line 2: not whole numbers",
    "decimal": "label_train.txt, line 2: not whole numbers",
    "long": "label_train.txt, line 2: not whole numbers",
    "four": "query_valid.txt, line 2: 4 fields; expected: file_index attribute value",
}
cases("train_mlp", "root=bad/split/{}", SPLITS)
cases(
    "fashion",
    "root=bad/split/{}",
    {
        "half": "candidate_test.txt, line 2: 2 fields; expected: file_index attribute value",
        "no_candidate_test.txt": "candidate_test.txt is not in ",
        "empty_candidate_test.txt": "candidate_test.txt, line 1: 0 fields; expected: ",
        "garbage_candidate_test.txt": "candidate_test.txt, line ",
        "nul_candidate_test.txt": "candidate_test.txt, line 1: ",
        "nowhere": "meta.json is not in ",
    },
)
cases(
    "train_backbone",
    "root=bad/split/{}",
    {
        f"{kind}_{file}.txt": file + words
        for file in ("filenames_train", "label_train", "query_valid")
        for kind, words in (("no", ".txt is not in "), ("empty", ".txt, line 1: "))
    },
)
META = "meta.json must hold {Garments: {ATTRIBUTES: [names], ATTRIBUTES_NUM: [numbers]}}: "
cases(
    "fashion",
    "root=bad/meta/{}",
    {
        **dict.fromkeys(NO_RECORDS, META),
        **dict.fromkeys(bad_files.METAS, META),
        "other": "meta.json has no data set 'Garments'; known: Shoes",
    },
)
CASES += [
    ("fashion", "dataset=Garment", "has no data set 'Garment'; did you mean 'Garments'?"),
    ("fashion", "images=bad/folder", "images are missing (bad/folder/img/"),
    ("fashion", "split=train", "split: must be 'valid' or 'test', not 'train'"),
    ("fashion", "bases={}", "unknown text basis 'garments_texture'"),
    ("fashion", "'bases={colour: clevr4_color}'", "bases: unknown attribute 'colour'; known: "),
    ("train_mlp", "'bases={texture: none.yaml}'", "cannot read none.yaml"),
]
TEMPLATE = "focus_object.json: template 0: "
JSON = "focus_object.json is not valid JSON: "
LIST = "focus_object.json must hold a list of templates, and at least one; get it again"
TEMPLATES = {
    "empty": JSON,
    "half": JSON,
    "deep": JSON,
    "null": LIST,
    "number": LIST,
    "text": LIST,
    "nan": LIST,
    "list": f"{TEMPLATE}must hold `key: value` lines, not 1",
    "no_templates": LIST,
    "of_numbers": f"{TEMPLATE}must hold `key: value` lines, not 7",
    "blank": f"{TEMPLATE}condition: is empty",
    "no_gallery": f"{TEMPLATE}gallery: must have at least 1 (entries: 0)",
    "null_gallery": f"{TEMPLATE}gallery: must be a list like [a, b], not None",
    "null_target": f"{TEMPLATE}target: must hold `key: value` lines, not None",
    "negative": f"{TEMPLATE}reference.val_image_id: must be at least 0, not -1",
    "decimal": f"{TEMPLATE}reference.val_image_id: 1.5 is not a whole number",
    "word": f"{TEMPLATE}reference.val_image_id: 'one' is not a whole number",
    "far": "COCO val2017 are not in bad/templates/far/coco/val2017",
    "nowhere": "focus_object.json, GeneCIS's templates, is not in ",
}
TEMPLATES["number"] = f"{TEMPLATE}condition: must be a text, not 7; put it in quotes"
cases("similarity", "root=bad/templates/{}", TEMPLATES)
cases(
    "similarity data",
    "--root bad/templates/{}",
    dict.fromkeys(TEMPLATES, "GeneCIS is not complete in bad/templates/{}; see above"),
)
CASES += [
    ("similarity", "tasks=[]", "tasks is empty; choose of focus_object, "),
    ("similarity", "tasks=[focus]", "tasks.0: must be 'focus_object', 'change_object', "),
    ("similarity", "tasks=change_attribute", "change_attribute.json must hold a list of templates"),
    ("similarity", "weight=-1", "weight: must be at least 0"),
    ("similarity", "tie_policy=x", "tie_policy: must be 'fair' or 'paper', not 'x'"),
    ("similarity", "bases={}", "bases says nothing about change_object, focus_object"),
    ("similarity", "'bases={focus: x}'", "bases names the task 'focus'; known: "),
    ("similarity", "'prompts={focus_object: []}'", "prompts says nothing about change_object"),
    (
        "similarity",
        "'prompts={focus_object: [a], change_object: []}'",
        "the prompt 'a' has no {condition}",
    ),
    (
        "similarity",
        "'bases={focus_object: {x: genecis_scene}, change_object: genecis_scene}'",
        "bases of focus_object name no basis for ",
    ),
    ("similarity", "finetuned_combiner=x.pt", "finetuned_combiner needs finetuned, the VLM"),
    ("similarity", "coco=nowhere", "are not in nowhere/val2017"),
    ("similarity", "combiner=none.pt", "there is no file none.pt"),
    ("similarity", "combiner=bad/folder.pt", "there is no file bad/folder.pt"),
    ("similarity", "combiner=bad/garbage.pt", "bad/garbage.pt is damaged, incomplete or no"),
    ("similarity", "combiner=bad/empty.pt", "bad/empty.pt is damaged, incomplete or no checkpoint"),
    ("similarity", "combiner=bad/garbage.safetensors", "bad/garbage.safetensors is damaged"),
    (
        "similarity",
        "combiner=outputs/combiner/run/combiner.safetensors",
        "belongs to a training; give its folder: trained=[outputs/combiner/run]",
    ),
    ("similarity data", "--tasks focus", "GeneCIS is not complete in data/genecis; see above"),
    ("similarity data", "--root nowhere", "GeneCIS is not complete in nowhere; see above"),
]

# --- captions, graphs and triplets ----------------------------------------------------------------

cases(
    "mine_triplets of captions",
    "name=captions captions=bad/{}",
    {
        "none.jsonl": "bad/{} names no file (of a folder, the .tar shards are read)",
        "file": "bad/{}: captions are regular files that end with .jsonl, .csv, .tsv, .json, .tar",
        "folder": "bad/{} names no file (of a folder, the .tar shards are read)",
        "shards/*.tar": "bad/{} names no file",
        "fifo.jsonl": "bad/{}: captions are regular files that end with",
        "loop.jsonl": "bad/{}: captions are regular files that end with",
        "empty.jsonl": "bad/{} holds no captions",
        "garbage.jsonl": "bad/{}:1: not UTF-8",
        "latin1.jsonl": "bad/{}:1: not UTF-8",
        "nul.jsonl": "bad/{}:1: is not valid JSON",
        "lines/words.jsonl": "bad/{}:1: is not valid JSON",
        "lines/deep.jsonl": "bad/{}:1: is not valid JSON",
        "lines/null.jsonl": "bad/{}:1: must hold `key: value` lines, not None",
        "empty.csv": "bad/{} holds no captions",
        "header.csv": "bad/{}:2: image: is missing",
        "columns.csv": "bad/{}:2: not 2 columns as in the first line",
        "quote.csv": "bad/{}:2: unexpected end of data",
        "no_image.csv": "bad/{}:2: image: ",
        "garbage.tsv": "bad/{}:",
        "coco_other.json": "bad/{} is not a COCO captions file",
        "coco_list.json": "bad/{} is not a COCO captions file",
        "coco_null.json": "bad/{} is not a COCO captions file",
        "coco_no_image.json": "bad/{}: annotations.0: no image 1",
        "deep.json": "bad/{} is not a COCO captions file",
        "empty.tar": "bad/{}",
        "garbage.tar": "bad/{} is damaged or no .tar",
        "cut.tar": "bad/{}",
        "no_image.tar": "bad/{}: 1: no image beside it (jpg, jpeg, png, webp)",
        "{a,b}/1.tar": "bad/{}: two shards have the same name, and so would their images",
        "x{0..9999999999}.tar": "bad/x0.tar names no file",
        "x{0..999}{0..999}{0..999}.tar": "bad/x000.tar names no file",
        "x{9..0}.tar": "bad/x9.tar names no file",
    },
)
cases(
    "mine_triplets",
    "name=graphs graphs=bad/{}",
    {
        "none.jsonl": "bad/{} does not exist",
        "fifo.jsonl": "bad/{} does not exist",
        "folder.jsonl": "bad/{} does not exist",
        "empty.jsonl": "bad/{}: there is nothing to mine, it is empty",
        "garbage.jsonl": "bad/{}:1: not UTF-8",
        "nul.jsonl": "bad/{}:1: is not valid JSON",
        "lines/words.jsonl": "bad/{}:1: is not valid JSON",
        "lines/no_relations.jsonl": "bad/{}:1: relations: is missing",
        "lines/null_image.jsonl": "bad/{}:1: image: must be a text, not None",
        "lines/blank_image.jsonl": "bad/{}:1: image: ",
        "lines/half_relation.jsonl": "bad/{}:1: relations.0.relation: is missing",
        "lines/number.jsonl": "bad/{}:1: relations: must be a list like [a, b], not 7",
        "lines/nothing.jsonl": "bad/{}: there is nothing to mine, none of its 1 captions has",
        "lines/deep.jsonl": "bad/{}:1: is not valid JSON",
        "lines/null.jsonl": "bad/{}:1: must hold `key: value` lines, not None",
        "lines/list.jsonl": "bad/{}:1: must hold `key: value` lines, not [1]",
        "lines/surrogate_graph.jsonl": "bad/{}:1: is not valid JSON",
    },
)
cases(
    "mine_triplets",
    "name=rated ratings=bad/{}.txt",
    {
        "none": "bad/{}.txt does not exist",
        "folder": "bad/{}.txt does not exist",
        "empty": "bad/{}.txt holds no ratings",
        "garbage": "bad/{}.txt:1: not UTF-8",
        "ratings_header": "bad/{}.txt:2: conc.m: is missing",
        "ratings_number": "bad/{}.txt:2: conc.m: must be a number",
        "ratings_range": "bad/{}.txt:2: conc.m: must be at most 5.0",
        "ratings_nan": "bad/{}.txt:2: conc.m: must be at most 5.0, not 'nan'",
        "ratings_none": "bad/{}.txt holds no ratings",
    },
)
CASES += [
    ("mine_triplets", "captions=x.csv", "set either captions or graphs (see configs/mine_cc3m"),
    ("mine_triplets", "graphs=null", "set either captions or graphs (see configs/mine_cc3m.yaml)"),
    ("mine_triplets", "name=few min_images=9999", "9999"),
    ("mine_triplets", "samples=61", "comes from other inputs or settings; take another name="),
]
cases(
    "train_combiner",
    "name=other triplets=bad/{}",
    {
        "none.jsonl": "bad/{} is not a regular file; make it with mine_triplets.py",
        "folder.jsonl": "bad/{} is not a regular file; make it with mine_triplets.py",
        "fifo.jsonl": "bad/{} is not a regular file; make it with mine_triplets.py",
        "loop.jsonl": "bad/{} is not a regular file; make it with mine_triplets.py",
        "empty.jsonl": "there are no triplets in bad/{}",
        "garbage.jsonl": "bad/{}:1: not UTF-8",
        "lines/words.jsonl": "bad/{}:1: is not valid JSON",
        "lines/null.jsonl": "bad/{}:1: must hold `key: value` lines, not None",
        "lines/deep.jsonl": "bad/{}:1: is not valid JSON",
        "lines/no_condition.jsonl": "bad/{}:1: condition: is missing",
        "lines/number_target.jsonl": "bad/{}:1: target: must be a text, not 7",
        "lines/blank_target.jsonl": "bad/{}:1: target: ",
        "lines/missing_image.jsonl": "2 of the 2 images of bad/{} are not in data/genecis/coco",
        "lines/nul_image.jsonl": "images of bad/{} are not in data/genecis/coco",
        "lines/surrogate.jsonl": "bad/{}:1: is not valid JSON",
    },
)
CASES += [
    ("train_combiner", "images=nowhere", "are not in nowhere, the first: "),
    ("train_combiner", "batch_size=1", "batch_size: must be above 1, not 1"),
    ("train_combiner", "accumulate=3", "batch_size 4 does not divide into 3 equal parts"),
    ("train_combiner", "batch_size=9999", "do not fill a batch of 9999; mine more or set"),
    ("train_combiner", "validation=0.999", "1 triplets to train on (and 59 held out) do not fill"),
    ("train_combiner", "precision=fp16", "precision: must be 'fp32' or 'bf16', not 'fp16'"),
    ("train_combiner", "vlm=align train_vlm=yes", "only an open_clip VLM can be trained here"),
    ("train_combiner", "lr=1", "holds another training (lr 1e-06, not 1.0); choose another name="),
    ("train_mlp", "precision=fp8", "precision: must be 'fp32', 'bf16' or 'fp16', not 'fp8'"),
    ("train_mlp", "vlm=clpi", "unknown VLM 'clpi'; did you mean 'clip'?"),
    ("train_mlp", "margin=1", "holds another training (margin 0.3, not 1.0); choose another name="),
    ("train_backbone", "heads=nowhere", "nowhere is no folder of train_mlp.py, train_backbone.py"),
    ("train_backbone", "heads=outputs/fashion_rivals/run", "is no folder of train_mlp.py; heads"),
    ("train_backbone", "heads=outputs/fashion_mlp/run/state.pt", "is a file; give the folder of"),
    ("train_backbone", "precision=fp16", "precision: must be 'fp32' or 'bf16', not 'fp16'"),
    ("train_rival", "method=cns", "method: must be 'triplet', 'csn' or 'asen', not 'cns'"),
    ("train_rival", "tower=resnet5", "unknown VLM 'resnet5'"),
    ("train_rival", "tower=resnet50:none.pt", "there is no file 'none.pt' with the weights"),
    ("train_rival", "tower=resnet50:bad/garbage.pt", "bad/garbage.pt is damaged, incomplete or no"),
    ("train_rival", "tower=resnet50:bad/empty.pt", "bad/empty.pt is damaged, incomplete or no"),
    ("train_rival", "tower=align", "only an open_clip VLM can be trained here, and 'align'"),
    ("train_rival", "width=70000", "width: must be at most 65536, not 70000"),
]

# --- trainings ------------------------------------------------------------------------------------

NO_TRAINING = "is no folder of train_mlp.py, train_backbone.py or train_rival.py: it has no results"
NO_RECORD = {
    **dict.fromkeys(NO_RECORDS, NO_TRAINING),
    "no_record": NO_TRAINING,
    "method_other": NO_TRAINING,
    "method_7": NO_TRAINING,
    "attributes_None": "/results.json: attributes: must be a list like [a, b], not None",
    "attributes_7": "/results.json: attributes: must be a list like [a, b], not 7; train again",
    "weights_7": "/results.json: weights: must be a text, not 7; put it in quotes; train again",
    "weights_nothing": "has no nothing; train to the first validation",
    "weights_______x": "has no ../../x; train to the first validation",
    "attributes___a__": "was trained on the attributes a, the data has texture",
}
OF_CRL = {
    "bases_None": "/results.json: bases: must hold `key: value` lines, not None; train again",
    "bases___": "was trained on the attributes",
    "bases___texture___7_": "/results.json: bases.texture: must hold `key: value` lines, not 7",
    "vlm_7": "/results.json: vlm: must be a text, not 7",
    "vlm_no_vlm": "unknown VLM 'no_vlm'",
    "precision_fp8": "/results.json: precision: must be 'fp32', 'bf16' or 'fp16', not 'fp8'",
    "precision_7": "/results.json: precision: must be 'fp32', 'bf16' or 'fp16', not 7; train again",
}
WEIGHTS = {
    "no_weights": "train to the first validation",
    "folder_weights": "train to the first validation",
    "empty_weights": "is damaged, incomplete or no checkpoint",
    "cut_weights": "is damaged, incomplete or no checkpoint",
    "garbage_weights": "is damaged, incomplete or no checkpoint",
    "nan_weights": " holds NaN or infinity; train again",
    "wide_weights": "{}",
    "flat_weights": "{}",
    "scalar_weights": "{}",
    "lacking": "{}",
}
for task, tables in {
    "fashion_mlp": (
        NO_RECORD,
        OF_CRL,
        WEIGHTS,
        {"vlm_fingerprint_0": "was trained on another VLM than 'vlm' is now (0, not "},
    ),
    "fashion_backbone": ({k: v for k, v in OF_CRL.items() if k != "vlm_no_vlm"},),
    "fashion_rivals": (
        NO_RECORD,
        WEIGHTS,
        {
            "width__3": "width: must be above 0, not -3",
            "width_1000000000": "width: must be at most 65536, not 1000000000",
            "width_x": "width: must be a whole number, not 'x'",
            "width_None": "width: must be a whole number, not None",
            "tower_7": "tower: must be a text, not 7",
            "tower_no_tower": "the tower of outputs/fashion_rivals/{} is not here: unknown VLM",
        },
    ),
}.items():
    for table in tables:
        cases("fashion", f"trained=outputs/{task}/{{}}", table)
for table in (NO_RECORD, OF_CRL, WEIGHTS):
    cases("train_backbone", "name=other heads=outputs/fashion_mlp/{}", table)
CASES += [
    ("fashion", "trained=nowhere", "nowhere is no folder of train_mlp.py"),
    ("fashion", "trained=bad/file", "bad/file is a file; give the folder of the training: bad"),
    ("fashion", "heads=nowhere.pth", "there is no file nowhere.pth"),
    ("fashion", "heads=bad/garbage.pt", "bad/garbage.pt is damaged, incomplete or no checkpoint"),
    ("fashion", "heads=vlm/open_clip_model.safetensors", "holds no heads"),
    (
        "fashion",
        "heads=outputs/fashion_mlp/run/heads.safetensors",
        "give its folder: trained=[outputs/fashion_mlp/run]",
    ),
    ("fashion", "texts=7 trained=[] heads=outputs/fashion_mlp/run", "belongs to a training of"),
]
cases(
    "similarity",
    "trained=[outputs/combiner/{}]",
    {
        **dict.fromkeys(NO_RECORDS, "outputs/combiner/{}/results.json is not of train_combiner.py"),
        "no_record": "outputs/combiner/{} holds no training of train_combiner.py (results.json: ",
        "vlm_7": "results.json is not of train_combiner.py: vlm: must be a text, not 7",
        "vlm_no_vlm": "unknown VLM 'no_vlm'",
        "vlm_fingerprint_0": "outputs/combiner/{} was trained with another VLM than ",
        "precision_fp8": "fp8",
        "precision_7": "results.json is not of train_combiner.py: precision: must be 'fp32', ",
        "vlm_trained_True": "unknown VLM 'outputs/combiner/{}/vlm'",
        "no_weights": "there is no file outputs/combiner/{}/combiner.safetensors",
        "empty_weights": "combiner.safetensors is damaged, incomplete or no checkpoint",
        "cut_weights": "combiner.safetensors is damaged, incomplete or no checkpoint",
        "garbage_weights": "combiner.safetensors is damaged, incomplete or no checkpoint",
        "nan_weights": " holds NaN or infinity; train again",
        "wide_weights": "combiner.safetensors",
        "flat_weights": "combiner.safetensors",
        "scalar_weights": "combiner.safetensors",
        "lacking": "combiner.safetensors holds no Combiner",
    },
)
DAMAGED = "{}/state.pt is damaged; remove it to start again"
STATES = {
    "state_empty": DAMAGED,
    "state_cut": DAMAGED,
    "state_flipped": DAMAGED,
    "state_text": DAMAGED,
    "state_null": DAMAGED,
    "state_list": DAMAGED,
    "state_progress": DAMAGED,
    "state_no_settings": DAMAGED,
    "state_no_progress": DAMAGED,
    "state_losses": DAMAGED,
    "state_unfinished": DAMAGED,
    "state_other": "outputs/",
}
for command in ("train_combiner", "train_mlp"):
    cases(command, "name={}", STATES)
GOES_ON = dict.fromkeys(("state_no_models", "state_no_optimizer", "state_shapes"), DAMAGED)
cases("train_mlp", "name={} epochs=2", GOES_ON)

# --- tables ---------------------------------------------------------------------------------------

NO_RESULTS = "is not a results file, or is damaged; remove it and run the task again"
LACKS = "lacks what its table needs ("
for task in ("clustering", "few_shot", "similarity_retrieval", "fashion_retrieval"):
    cases(
        "reproduce_tables",
        f"--runs outputs/{task}/{{}}",
        {
            **dict.fromkeys(NO_RECORDS, NO_RESULTS),
            "no_cells": "there are no results to show",
            "null_cells": NO_RESULTS,
            "number_cells": NO_RESULTS,
            "cell_number": NO_RESULTS,
            "no_scores": NO_RESULTS,
            "no_key": LACKS,
            "no_scores_inside": LACKS,
            "null_scores": LACKS,
            "number_scores": LACKS,
            "list_key": LACKS,
            "no_file": f"there is no outputs/{task}/{{}}/results.json; run the task first",
            "a_folder": f"there is no outputs/{task}/{{}}/results.json; run the task first",
            "nothing": f"there is no outputs/{task}/{{}}/results.json; run the task first",
        },
    )
for command, task in (
    ("clustering", "clustering"),
    ("few_shot of features", "few_shot"),
    ("similarity of features", "similarity_retrieval"),
    ("fashion of features", "fashion_retrieval"),
):
    cases(
        command,
        "name=\"'{}'\"",
        {
            **dict.fromkeys(NO_RECORDS, f"outputs/{task}/{{}}/results.json {NO_RESULTS}"),
            "number_cells": f"outputs/{task}/{{}}/results.json {NO_RESULTS}",
            "a_folder": f"outputs/{task}/{{}}/results.json",
        },
    )
CASES += [
    ("reproduce_tables", "--runs bad/folder", "bad/folder is no run of clustering or few_shot or"),
    ("reproduce_tables", "", "say --table N, --table all, or --runs"),
    ("reproduce_tables", "--table 1 --runs outputs/clustering/null", "say --table N, --table all"),
    ("reproduce_tables", "--x --runs outputs/clustering/null", "unrecognized arguments: --x"),
    ("reproduce_tables", "--table 14", "unknown table '14'; known: 1, 2, 3, 4, 5, 6"),
    ("reproduce_tables", "--table 1 --vlm clpi", "unknown VLM 'clpi'; did you mean 'clip'?"),
    ("reproduce_tables", "--table 1 --plan no.yaml", "no.yaml"),
]

# --- other scripts --------------------------------------------------------------------------------

CLONE = "'Clustering & Few-shot/utils/more_data.py'"
cases(
    "import_official_bases",
    "bad/clones/{}",
    {
        "nothing": f"bad/clones/{{}} holds no {CLONE}, so it is not a clone of the authors'",
        **dict.fromkeys(
            ["latin1", "syntax", "nul", "indented", "no_dict", "a_list", "of_lists", "unpacked"],
            f"{CLONE} is damaged (",
        ),
        **dict.fromkeys(["inner_unpacked", "code", "numbers"], f"{CLONE} is damaged ("),
        "deep": f"{CLONE}",
        "no_texts": f"{CLONE} is damaged (texts: texts is empty, or holds an empty text); restore",
        "two_lines": f"{CLONE} is damaged (texts: 'a\\nb' holds a line break or control character",
        "no_scenes": "text_embedding.py' is damaged (it assigns no scenes); restore it with",
    },
)
CASES += [
    ("import_official_bases", "bad/file", "bad/file holds no "),
    ("import_official_bases", "", "the following arguments are required: clone"),
    ("make_data", "--images 0", "--images must be at least 1 and at most 1000000, not 0"),
    ("make_data", "--images -5", "--images must be at least 1 and at most 1000000, not -5"),
    ("make_data", "--images x", "argument --images: invalid int value: 'x'"),
    (
        "make_data",
        f"--images {10**29}",
        "--images must be at least 1 and at most 1000000, not 1",
    ),
    ("make_data", f"--workers {10**9}", "--workers must be at least 0 and at most 256, not 1"),
    ("make_data", "--seed -1", "--seed must be at least 0 and at most "),
    ("make_data", "--workers -1", "--workers must be at least 0 and at most 256, not -1"),
    ("make_data", "--worlds clever4", "unknown world 'clever4'; did you mean 'clevr4'?"),
    ("make_data", "--out bad/file", "bad/file: File exists"),
    ("make_data", "--out bad/cards/jokers --worlds cards", "was not made by this script"),
    ("generate_texts", "--out x.txt", "--out must end in .yaml, not 'x.txt'"),
    ("generate_texts", "--out bad/twice.yaml", "exists; give another --out, or --overwrite"),
    ("generate_texts", "--vlm-prompt a", "the VLM prompt must contain {text} exactly once, not"),
    ("generate_texts", "--criterion ' '", "the criterion is empty; name what the texts describe"),
    ("generate_texts", "--llm-prompt 9", "there are LLM prompts 1 to 5, not 9"),
    ("generate_texts", "--temperature nan", "the temperature must be 0 or above, not nan"),
    ("generate_texts", "--temperature x", "argument --temperature: invalid float value: 'x'"),
    ("generate_texts", "--temperature -1", "the temperature must be 0 or above, not -1.0"),
    ("generate_texts", "--number 0", "the number of texts must be 1 to 5000, not 0"),
    ("generate_texts", "--number 9999999", "the number of texts must be 1 to 5000, not 9999999"),
    ("generate_texts", "--seed -1", "the seed must be 0 to "),
    ("generate_texts", f"--seed {10**29}", "the seed must be 0 to "),
    ("generate_texts", "--timeout 0", "the timeout must be above 0 and at most "),
    ("generate_texts", "--timeout inf", "the timeout must be above 0 and at most "),
    ("generate_texts", "--base-url localhost", "the base URL must look like http://localhost"),
    ("generate_texts", "--base-url http://a:b/", "the base URL must look like http://localhost"),
    ("generate_texts", "--model ''", "the name of the model is empty; name one that the server"),
    ("generate_texts", "", "OPENAI_API_KEY is not set; set it, or work offline"),
    ("generate_texts", "--cache-dir bad/file", "bad/file"),
    ("benchmark", "--only pth", "unknown measurement 'pth'; did you mean 'path'?"),
    ("benchmark", "--quick=x", "ignored explicit argument 'x'"),
    ("benchmark", "--only scoring --genecis bad/folder", "GeneCIS's templates, is not in "),
]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Iterator[set[str]]:
    """Makes the files and goes there; gives the names of what is there."""
    folder, former = tmp_path_factory.mktemp("workspace"), Path.cwd()
    os.chdir(folder)
    patch = pytest.MonkeyPatch()
    patch.setattr(basis, "read_yaml", cache(basis.read_yaml))  # these two take most of the time
    patch.setattr(config, "_shown", str)  # of --help
    try:
        bad_files.make(folder)
        before = set(folder.rglob("*"))
        yield there()
        assert {file for file in folder.rglob("*") if file.suffix != ".lock"} <= before
    finally:
        patch.undo()
        os.chdir(former)


PYDANTIC = ("Input should", "valid dictionary", "Extra inputs", "Value error", "errors.pydantic")


@pytest.mark.parametrize(("command", "arguments", "words"), CASES)
def test_a_mistake_is_one_line(workspace, run, monkeypatch, command, arguments, words):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    main, first = COMMANDS[command]
    code, _, errors = run(main, *shlex.split(first), *shlex.split(arguments))
    lines = [line for line in errors.splitlines() if not line.startswith("note: ")]
    assert code == 2, errors
    assert [line.startswith("error: ") for line in lines] == [True], errors
    assert words in lines[0]
    assert not any(word in lines[0] for word in PYDANTIC)
    assert there() == workspace


def there() -> set[str]:
    """What is in the working directory, and the folders of runs, without their locks."""
    return {entry for entry in glob("*") + glob("outputs/*/*") if not entry.endswith(".lock")}
