"""Configurations: every key with wrong values, and files that are none."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from annotated_types import Ge, Gt, Le, Lt
from mistakes import FIFO, FOLDER, GARBAGE, LOOP
from pydantic import BeforeValidator
from pydantic.fields import FieldInfo

from classification_clustering.config import EvaluateConfig as Clustering
from crl.run.config import Config
from fashion_retrieval import train_backbone, train_mlp, train_rival
from fashion_retrieval.config import EvaluateConfig as Fashion
from similarity_retrieval import mine_triplets, train_combiner
from similarity_retrieval.config import EvaluateConfig as Similarity

WRONG: dict[Any, list[str]] = {  # type of a key -> values that it refuses
    int: ["x", "1.5", "yes", str(10**29)],
    float: ["x", "no", ".nan", ".inf"],
    bool: ["maybe"],
    str: ["7", "{a: b}"],
    Path: ["7", '"a\\0b"'],
    list: ["x", "[[a]]"],
    dict: ["x", "{7: a}", "{a: 7}"],
    Literal: ["x"],
}
CONFIGS: dict[str, type[Config]] = {
    "clustering": Clustering,
    "similarity": Similarity,
    "fashion": Fashion,
    "mine_triplets": mine_triplets.MineConfig,
    "train_combiner": train_combiner.TrainConfig,
    "train_mlp": train_mlp.MlpConfig,
    "train_backbone": train_backbone.BackboneConfig,
    "train_rival": train_rival.RivalConfig,
}


def of_keys() -> Iterator[tuple[str, str]]:
    """Wrong values of each key; a key that several commands share is tried with the first."""
    seen = set()
    for command, config in CONFIGS.items():
        for key, field in config.model_fields.items():
            if (key, str(field)) not in seen and key not in ("features", "shots"):
                seen.add((key, str(field)))
                for value in wrong_values(field):
                    yield f"{command} {shlex.quote(f'{key}={value}')}", f"the command line: {key}"


def wrong_values(field: FieldInfo) -> Iterator[str]:
    kinds = [get_origin(kind) or kind for kind in (field.annotation, *get_args(field.annotation))]
    kind = next((kind for kind in kinds if kind in WRONG and kind is not list), Literal)
    alone = any(isinstance(m, BeforeValidator) for m in field.metadata)  # a value is a list of it
    yield from WRONG[list if kinds[0] is list and not alone else kind]
    if type(None) not in kinds:
        yield "null"
    for bound in field.metadata:
        match bound:
            case Gt(limit):
                yield from (str(limit), "-1")
            case Ge(limit):
                yield str(limit - 1)
            case Lt(limit):
                yield str(limit)
            case Le():
                yield str(10**12)


@pytest.mark.parametrize(("line", "words"), list(of_keys()))
def test_keys(refused, line, words):
    refused(line, words)


TOGETHER = [  # arguments that are none, or that do not fit each other or the data
    ("clustering nmae=x", "unknown key 'nmae'; did you mean 'name'?"),
    ("clustering name", "'name' is not of the form key=value"),
    ("clustering name=..", "'..' names no folder in outputs"),
    (f"clustering name={'n' * 300}", "name: is longer than the name of a folder can be"),
    ("clustering --config none.yaml", "cannot read none.yaml: No such file"),
    ("clustering --confg x", "unrecognized arguments: --confg"),
    ("clustering root=nowhere", "there is no folder nowhere/mood; expected: "),
    ("clustering 'criteria=[\"../mood$\\n\"]' bases={}", "there is no folder pictures/../mood$"),
    ("clustering data=clever4", "unknown data set 'clever4'; did you mean 'clevr4'?"),
    ("clustering 'bases={mod: x}'", "bases names 'mod', which is not in criteria; did you mean"),
    ("clustering vlm=[clipp]", "unknown VLM 'clipp'; did you mean 'clip'?"),
    ("clustering vlm=no_module:Thing", "cannot import the VLM no_module:Thing"),
    (
        "clustering device=cpu:3",
        "no device 'cpu:3' here (the CPU has no number); use the device cpu",
    ),
    ("clustering 'vlm_prompt=a text'", "vlm_prompt: must contain {text} exactly once"),
    ("clustering images=41", "folder in pictures has 6 images, not 41; is the download complete?"),
    ("clustering shots=1", "this script does not use 'shots'; remove it"),
    ("retrieval_of figures=no", "this script does not use 'figures'; remove it"),
    ("few_shot 'shots=[1, x]'", "shots.1: must be a whole number, not 'x'"),
    ("few_shot shots=9", "class calm has 3 images; it needs 10 or more"),
    ("similarity 'prompts={focus_object: [a]}'", "should match pattern"),
    ("similarity 'bases={focus_object: {x: texts.yaml}}'", "bases of focus_object name no basis"),
    ("similarity coco=nowhere", "5 of 5 images of COCO val2017 are not in nowhere/val2017"),
    ("fashion images=pictures", "images are missing (pictures/img/"),
    ("fashion dataset=Cloths", "has no data set 'Cloths'; did you mean 'Clothes'?"),
    ("fashion 'bases={colour: texts.yaml}'", "bases: unknown attribute 'colour'; known: "),
    ("mine_triplets captions=x.csv", "set either captions or graphs (see configs/mine_cc3m"),
    ("mine_captions 'captions=x{0..9999999999}.tar'", ".tar names no file"),
    ("mine_captions 'captions=x{0..999}{0..999}{0..999}.tar'", ".tar names no file"),
    ("train_combiner batch_size=999", "do not fill a batch of 999; mine more"),
    ("train_combiner accumulate=3", "batch_size 4 does not divide into 3 equal parts"),
    ("train_combiner vlm=align train_vlm=yes", "only an open_clip VLM can be trained here"),
    ("train_rival tower=align", "only an open_clip VLM can be trained here, and 'align'"),
    ("generate_texts", "OPENAI_API_KEY is not set; set it, or work offline"),
]
for task in ("clustering", "few_shot", "similarity", "fashion"):
    TOGETHER += [
        (f"{task} null_space_size=2", "null_space_size needs null_space"),
        (f"{task} null_space=clevr4_colour", "'clevr4_colour'; did you mean 'clevr4_color'?"),
        (f"{task}_of features=7", "features.0: must be the name of a file or folder, not 7"),
        (f"{task}_of null_space=clevr4_color", "features replaces null_space; remove it"),
    ]


@pytest.mark.parametrize(("line", "words"), TOGETHER)
def test_values_that_do_not_fit(refused, line, words):
    refused(line, words)


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{f'*a{n - 1}, ' * 9}]\n" for n in range(1, 10))
NO_YAML = "bad.yaml is not valid YAML"
FILES = {
    "seeds: 2\nseeds: 3\n": f"{NO_YAML}: the key 'seeds' stands twice",
    BOMB: f"{NO_YAML}: it has more than 20 references (*name)",
    "seeds: " + "[" * 20_000: f"{NO_YAML}: it is nested too deeply",
    "seeds: !!python/object/apply:os.system ['exit 1']": f"{NO_YAML}: could not determine a",
    "shots: [1, 5": NO_YAML,
    GARBAGE: "bad.yaml is not a text in UTF-8",
    "naïve: é".encode("latin-1"): "bad.yaml is not a text in UTF-8",
    "seeds": "bad.yaml must hold `key: value` lines",
    "nmae: x": "bad.yaml: unknown key 'nmae'; did you mean 'name'?",
    "null_space_size: " + "9" * 5000: "bad.yaml",
    FOLDER: "bad.yaml is not a regular file",
    FIFO: "bad.yaml is not a regular file",
    LOOP: "cannot read bad.yaml: ",
}


@pytest.mark.parametrize(("content", "words"), FILES.items(), ids=range(len(FILES)))
def test_files(refused, content, words):
    refused("clustering --config bad.yaml", words, {"bad.yaml": content})
