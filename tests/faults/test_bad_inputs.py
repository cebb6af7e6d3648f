"""What a user can get wrong, command by command: one line that says what and where.

A case is a command, arguments after those of `COMMANDS`, and words of the message. The files that
the cases name are made by `bad_files.py`.
"""

import os
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import bad_files
import benchmark
import generate_texts
import import_official_bases
import make_demo_data
import pytest
import reproduce_tables
from annotated_types import Ge, Gt, Le, Lt
from bad_files import BASES, NO_RECORDS
from published import CONFIGS

from classification_clustering import clustering, few_shot
from crl.run.config import LARGEST, Config
from fashion_retrieval import datasets as fashion_datasets
from fashion_retrieval import evaluate as fashion_evaluate
from fashion_retrieval import train_backbone, train_mlp, train_rival
from similarity_retrieval import datasets as similarity_datasets
from similarity_retrieval import evaluate as similarity_evaluate
from similarity_retrieval import mine_triplets, train_combiner

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
    "fashion data": (fashion_datasets.main, "--root data/garments --dataset Garments"),
    "similarity data": (similarity_datasets.main, "--root data/genecis --tasks focus_object"),
    "generate_texts": (
        generate_texts.main,
        "--criterion color --vlm-prompt 'a {text}' --out color.yaml --cache-dir cache",
    ),
    "import_official_bases": (import_official_bases.main, "--out official"),
    "reproduce_tables": (reproduce_tables.main, ""),
    "make_demo_data": (make_demo_data.main, "--out data --images 2 --workers 1"),
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

HUGE = 10**29
OF_TYPE: dict[Any, list[tuple[str, str]]] = {  # type of a key -> values and what is said about them
    int: [
        ("x", "must be a whole number, not 'x'"),
        ("1.5", "must be a whole number, not 1.5"),
        ("[1]", "must be a whole number, not [1]"),
        ("yes", "must be a whole number, not True"),
        (str(HUGE), "must be at most "),
        (str(-HUGE), "must be at "),
        ("1e999", "must be a whole number, not '1e999'"),
    ],
    float: [
        ("x", "must be a number, not 'x'"),
        ("[1]", "must be a number, not [1]"),
        ("no", "must be a number, not False"),
        (".nan", "must be a finite number, not nan"),
        (".inf", "must be "),
        ("-.inf", "must be "),
    ],
    bool: [
        ("maybe", "must be true or false, not 'maybe'"),
        ("2", "must be true or false, not 2"),
        ("[]", "must be true or false, not []"),
    ],
    str: [
        ("7", "must be a text, not 7; put it in quotes"),
        ("yes", "must be a text, not True; put it in quotes"),
        ("{a: b}", "must be a text, not {'a': 'b'}; put it in quotes"),
    ],
    Path: [
        ("7", "must be the name of a file or folder, not 7"),
        ("[a]", "must be the name of a file or folder, not ['a']"),
        ('"a\\0b"', "holds a NUL"),
    ],
    dict: [
        ("x", "must hold `key: value` lines, not 'x'"),
        ("[a]", "must hold `key: value` lines, not ['a']"),
        ("{7: a}", "must be a text, not 7; put it in quotes"),
        ("{a: 7}", ""),
    ],
}


def of_keys() -> Iterator[Case]:
    """Wrong values of every key of every command."""
    for command, script in SCRIPTS.items():
        kind = bad_files.imported(CONFIGS[script])
        unused = {"clustering": "shots", "mine_triplets": "device"}.get(command)
        for key, field in kind.model_fields.items():
            if key == unused:
                yield command, f"{key}=1", f"this script does not use '{key}'; remove it"
                continue
            kinds = [get_origin(part) or part for part in (get_args(field.annotation) or ())]
            optional = type(None) in kinds
            types = [t for t in kinds if t in OF_TYPE] or [field.annotation]
            whole = get_origin(field.annotation) or field.annotation
            if whole in OF_TYPE:
                types = [whole]
            for value, words in OF_TYPE.get(types[0], []):
                yield command, shlex.quote(f"{key}={value}"), f"command line: {key}"
            if not optional:
                yield command, f"{key}=null", f"{key}"
            for bound in field.metadata:
                match bound:
                    case Gt(gt):
                        yield command, f"{key}={gt}", f"{key}: must be above {gt}, not {gt}"
                        yield command, f"{key}=-1", f"{key}: must be above {gt}, not -1"
                    case Ge(ge):
                        yield command, f"{key}={ge - 1}", f"{key}: must be at least {ge}, not"
                    case Lt(lt):
                        yield command, f"{key}={lt}", f"{key}: must be below {lt}, not {lt}"
                    case Le(le):
                        yield command, f"{key}={10**12}", f"{key}: must be at most {le}, not"
        yield command, "nmae=x", "unknown key 'nmae'; did you mean 'name'?"
        yield command, "name", "'name' is not of the form key=value"
        yield command, "name=[", "'name=[': the value is not valid YAML"
        yield command, "name=''", "'' names no folder in outputs; to write elsewhere set outputs="
        yield command, "name=..", "'..' names no folder in outputs"
        yield command, "name=a/b", "'a/b' names no folder in outputs"
        yield command, f"name={'n' * 300}", "name: is longer than the name of a folder can be"
        yield command, "outputs=bad/file", "bad/file"
        yield command, "--config bad/none.yaml", "cannot read bad/none.yaml: No such file"
        yield command, "--config bad/unknown.yaml", "unknown key 'seed'"
        if command not in ("mine_triplets",):
            yield command, "device=gpu", "no device 'gpu' here"
            yield command, "device=meta", "no device 'meta' here"
            yield command, "device=cpu:3", "no device 'cpu:3' here"
            yield command, "device=''", "no device '' here"


CASES: list[Case] = [
    *of_keys(),
    # --- configuration files ---
    *[
        ("clustering", f"--config bad/{file}.yaml", words)
        for file, words in {
            "twice": "bad/twice.yaml is not valid YAML: the key 'seeds' stands twice",
            "bomb": "bad/bomb.yaml is not valid YAML: it has more than 20 references (*name)",
            "deep": "bad/deep.yaml is not valid YAML: it is nested too deeply",
            "tag": "bad/tag.yaml is not valid YAML: could not determine a constructor",
            "date": "bad/date.yaml is not valid YAML: month must be in 1..12",
            "list": "bad/list.yaml must hold `key: value` lines",
            "scalar": "bad/scalar.yaml must hold `key: value` lines",
            "empty": "bad/empty.yaml must hold `key: value` lines",
            "tab": "bad/tab.yaml is not valid YAML",
            "open": "bad/open.yaml is not valid YAML",
            "number_key": "bad/number_key.yaml: unknown key 7",
            "list_key": "bad/list_key.yaml is not valid YAML",
            "null_key": "bad/null_key.yaml: unknown key None",
            "endless": "bad/endless.yaml",
            "value": "bad/value.yaml: seeds",
            "alias": "bad/alias.yaml is not valid YAML: found undefined alias",
            "two": "bad/two.yaml is not valid YAML: expected a single document",
            "merge": "bad/merge.yaml is not valid YAML",
            "big": "bad/big.yaml",
            "garbage": "bad/garbage.yaml is not valid YAML",
            "latin1": "bad/latin1.yaml is not valid YAML",
            "nul": "bad/nul.yaml is not valid YAML",
            "folder": "bad/folder.yaml is not a regular file",
            "fifo": "bad/fifo.yaml is not a regular file",
            "loop": "bad/loop.yaml",
        }.items()
    ],
]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Iterator[Path]:
    folder, former = tmp_path_factory.mktemp("workspace"), Path.cwd()
    os.chdir(folder)
    try:
        bad_files.make(folder)
        before = set(folder.rglob("*"))
        yield folder
        assert {file for file in folder.rglob("*") if file.suffix != ".lock"} <= before
    finally:
        os.chdir(former)


PYDANTIC = ("Input should", "valid dictionary", "Extra inputs", "Value error", "errors.pydantic")


@pytest.mark.parametrize(("command", "arguments", "words"), CASES)
def test_a_mistake_is_one_line(workspace, run, command, arguments, words):
    main, first = COMMANDS[command]
    before = there()
    code, _, errors = run(main, *shlex.split(first), *shlex.split(arguments))
    lines = [line for line in errors.splitlines() if not line.startswith("note: ")]
    assert code == 2, errors
    assert [line.startswith("error: ") for line in lines] == [True], errors
    assert words in lines[0]
    assert not any(word in lines[0] for word in PYDANTIC)
    assert there() == before


def there() -> set[str]:
    """What is in the working directory and in outputs, without the locks of folders."""
    names = {entry.name for entry in os.scandir()}
    for folder, _, files in os.walk("outputs"):
        names |= {folder, *(f"{folder}/{file}" for file in files if not file.endswith(".lock"))}
    return names
