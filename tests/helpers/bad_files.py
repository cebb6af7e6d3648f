"""A folder with small good data, and next to it files that are wrong in many ways.

data/        drawn pictures of the four demo worlds
vlm/         a tiny CLIP
good.npz     embeddings for all three tasks
outputs/     a tiny training of each kind, and copies of them with something wrong
bad/         everything else
"""

import importlib
import json
import os
import shutil
import struct
import sys
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import make_data
import numpy as np
import torch
import yaml
from clothes import write_clip
from PIL import Image
from safetensors.torch import load_file, save_file
from worlds import WORLDS

from fashion_retrieval import train_backbone, train_mlp, train_rival
from similarity_retrieval import mine_triplets, train_combiner
from similarity_retrieval.datasets import TASKS, load

GRAPHS = "data/genecis/coco/annotations/relations_train2017.jsonl"
GARMENTS = ["root=data/garments", "dataset=Garments"]
ATTRIBUTES = ("texture", "fabric", "shape", "part", "style")
BASES = "bases={" + ", ".join(f"{name}: deepfashion_{name}" for name in ATTRIBUTES) + "}"
SHORT = ["epochs=1", "batch_size=4"]
TRAININGS: dict[str, tuple[Callable[[], None], list[str]]] = {  # task in outputs -> its command
    "triplets": (mine_triplets.main, ["samples=60", "min_images=1", f"graphs={GRAPHS}"]),
    "combiner": (
        train_combiner.main,
        [
            *["triplets=outputs/triplets/run/triplets.jsonl", "images=data/genecis/coco"],
            *["vlm=vlm", "projection=4", "hidden=4", "validation=0.2", "workers=0", *SHORT],
        ],
    ),
    "fashion_mlp": (
        train_mlp.main,
        [*GARMENTS, BASES, *SHORT, "triplets=8", "vlm=vlm", "texts=8", "out=4"],
    ),
    "fashion_backbone": (
        train_backbone.main,
        [*GARMENTS, *SHORT, "triplets=4", "workers=0", "heads=outputs/fashion_mlp/run"],
    ),
    "fashion_rivals": (
        train_rival.main,
        [*GARMENTS, *SHORT, "triplets=4", "workers=0", "method=csn", "tower=vlm", "width=4"],
    ),
}
DEEP = "[" * 100_000
NO_RECORDS = {  # contents that are no results.json, by name
    "empty": "",
    "null": "null",
    "number": "7",
    "list": "[1, 2]",
    "text": '"words"',
    "half": '{"cells": [{"scores"',
    "deep": DEEP,
    "nan": "NaN",
}


def make(folder: Path) -> None:
    """Fill `folder`, the working directory."""
    (folder / "data").mkdir()
    for world in WORLDS:
        make_data.make(world, folder / "data", images=40, seed=0, workers=1)
    write_clip(folder / "vlm")
    np.savez(folder / "good.npz", **features())
    for main, arguments in TRAININGS.values():
        call(main, arguments)
    (folder / "bad").mkdir()
    for part in (things, configurations, archives, data_sets, pictures, trainings, results, clones):
        part(folder / "bad")


def call(main: Callable[[], None], arguments: list[str]) -> None:
    """Run a command that must succeed."""
    former, sys.argv = sys.argv, ["script", *arguments]
    try:
        main()
    finally:
        sys.argv = former


def put(file: Path, content: str | bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())


def things(bad: Path) -> None:
    """What no reader expects where it expects a file."""
    os.mkfifo(bad / "fifo")
    (bad / "folder").mkdir()
    (bad / "loop").symlink_to("loop")
    put(bad / "file", "words\n")
    put(bad / "empty", "")
    put(bad / "garbage", bytes(np.random.default_rng(0).integers(0, 256, 500, np.uint8)))
    put(bad / "latin1", "naïve: é\n".encode("latin-1"))
    put(bad / "nul", b"a\0b")
    put(bad / "deep.json", DEEP)
    for suffix in (".yaml", ".npz", ".jsonl", ".json", ".csv", ".tsv", ".tar", ".pt", ".txt"):
        for name in ("empty", "garbage", "latin1", "nul"):
            shutil.copy(bad / name, bad / f"{name}{suffix}")
        (bad / f"loop{suffix}").symlink_to(f"loop{suffix}")
        (bad / f"folder{suffix}").mkdir()
        os.mkfifo(bad / f"fifo{suffix}")
    for name in ("empty", "garbage", "nul"):
        shutil.copy(bad / name, bad / f"{name}.safetensors")


# --- YAML -----------------------------------------------------------------------------------------


def configurations(bad: Path) -> None:
    bomb = "a0: &a0 [x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
    )
    contents = {
        "twice": "seeds: 2\nseeds: 3\n",
        "bomb": bomb,
        "deep": "seeds: " + "[" * 20_000,
        "tag": "seeds: !!python/object/apply:os.system ['exit 1']\n",
        "date": "name: 2020-13-45\n",
        "list": "- seeds\n- 2\n",
        "scalar": "seeds\n",
        "tab": "seeds:\t- 2\n\tname: x\n",
        "open": "shots: [1, 5\n",
        "unknown": "nmae: x\n",
        "number_key": "7: 2\n",
        "list_key": "? [a, b]\n: 2\n",
        "null_key": "? \n: 2\n",
        "endless": "&a seeds: *a\nshots: &b [*b]\n",
        "value": "cache: 2\n",
        "alias": "seeds: *nothing\n",
        "two": "seeds: 2\n---\nseeds: 3\n",
        "merge": "<<: 3\nseeds: 2\n",
        "big": "seeds: " + "9" * 5000 + "\n",
    }
    for name, content in contents.items():
        put(bad / f"{name}.yaml", content)
    good = {"criterion": "suits", "vlm_prompt": "a {text}", "texts": ["hearts", "spades"]}
    bases: dict[str, dict[str, Any]] = {
        "no_texts": {"texts": []},
        "one_text": {"texts": ["one"]},
        "same": {"vlm_prompt": "a " * 200 + "{text}"},  # the VLM reads the beginning only
        "no_slot": {"vlm_prompt": "a text"},
        "two_slots": {"vlm_prompt": "{text} {text}"},
        "repeated": {"texts": ["a b", "A  b"]},
        "blank": {"texts": ["a", " "]},
        "numbers": {"texts": [1, 2]},
        "no_list": {"texts": "hearts"},
        "mapping": {"texts": {"a": "b"}},
        "line_break": {"texts": ["a\nb", "c"]},
        "extra": {"text": ["a"]},
        "surrogate": {"texts": ["\ud800", "c"]},
        "criterion": {"criterion": 7},
        "nul_text": {"texts": ["\0", "c"]},
    }
    for name, change in bases.items():
        put(bad / "bases" / f"{name}.yaml", json.dumps(good | change))
    put(bad / "bases/no_prompt.yaml", yaml.safe_dump({"criterion": "a", "texts": ["a", "b"]}))


# --- NPZ ------------------------------------------------------------------------------------------


def features() -> dict[str, np.ndarray]:
    """Embeddings for all three tasks at once; each ignores what it does not use."""
    data, rng = load(TASKS[:2], Path("data/genecis")), np.random.default_rng(0)
    images, conditions, width = len(data.ids), len(data.conditions), 8
    return {
        "image": rng.normal(size=(images, width)),
        "text": rng.normal(size=(5, width)),
        "labels": np.arange(images) % 4,
        "ids": np.array(data.ids),
        "conditions": np.array(data.conditions),
        "scene_text": rng.normal(size=(5, width)),
        "caption_plain": rng.normal(size=(conditions, width)),
        "captions5": rng.normal(size=(conditions, 5, width)),
        "text0": rng.normal(size=(5, width)),
        "query": np.array([[n, 0, n % 4] for n in range(4)]),
        "candidate": np.array([[n, 0, n % 4] for n in range(4, 12)]),
    }


def archives(bad: Path) -> None:
    good = features()
    image, text, labels = good["image"], good["text"], good["labels"]

    def with_value(x: np.ndarray, value: float) -> np.ndarray:
        x = x.copy()
        x[1] = value
        return x

    changes: dict[str, dict[str, Any]] = {
        "nan": {"image": with_value(image, np.nan)},
        "inf": {"image": with_value(image, np.inf)},
        "huge": {"image": image * 1e30},
        "tiny": {"image": image * 1e-300},
        "zeros": {"text": text * 0},
        "words": {"image": image.astype(str)},
        "complex": {"image": image * 1j},
        "boolean": {"image": image > 0},
        "narrow": {"text": text[:, :3]},
        "flat": {"text": text.ravel()},
        "scalar": {"labels": np.array(1)},
        "no_images": {"image": image[:0], "labels": labels[:0]},
        "no_texts": {"text": text[:0]},
        "one_text": {"text": text[:1], "text0": text[:1], "scene_text": text[:1]},
        "same_texts": dict.fromkeys(
            ("text", "text0", "scene_text"), np.arange(1, 6)[:, None] * text[:1]
        ),
        "short": {"labels": labels[:-1]},
        "nan_labels": {"labels": with_value(labels.astype(float), np.nan)},
        "one_class": {"labels": labels * 0},
        "rare_class": {"labels": np.where(np.arange(len(labels)) < 1, 9, labels)},
        "structured": {"labels": np.zeros(len(labels), [("a", int)])},
        "dates": {"image": np.zeros(image.shape, "datetime64[s]")},
        "float_rows": {"query": good["query"] * 1.0},
        "far_image": {"query": good["query"] + [[9999, 0, 0]]},
        "negative": {"candidate": -good["candidate"]},
        "far_attribute": {"query": good["query"] + [[0, 7, 0]]},
        "two_columns": {"query": good["query"][:, :2]},
        "no_queries": {"query": good["query"][:0]},
        "names": {"attributes": np.array(["a", "b"])},
        "twice": {"ids": with_value(good["ids"], good["ids"][0])},
        "float_ids": {"ids": np.arange(len(image)) + 0.5},
        "other_ids": {"ids": np.arange(len(image)) + 10**9},
        "few_conditions": {"conditions": np.array([f"c{n}" for n in good["conditions"]])},
        "nan_text": {"text0": with_value(good["text0"], np.nan), "scene_text": text * np.nan},
    }
    for name, change in changes.items():
        np.savez(bad / f"{name}.npz", **good | change)
    for name in good:
        np.savez(bad / f"no_{name}.npz", **{k: v for k, v in good.items() if k != name})
    np.savez(bad / "pickled.npz", image=np.array([{"a": 1}], object), allow_pickle=True)
    with (bad / "single.npz").open("wb") as stream:
        np.save(stream, image)
    whole = Path("good.npz").read_bytes()
    put(bad / "cut.npz", whole[: len(whole) // 2])
    put(bad / "end.npz", whole[:-30])
    put(bad / "flipped.npz", whole[:200] + bytes([whole[200] ^ 255]) + whole[201:])
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (10000000000000, 8), }"
    liar = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) + 1) + header + b"\n"
    with ZipFile(bad / "liar.npz", "w") as archive:
        archive.writestr("image.npy", liar)


# --- data sets ------------------------------------------------------------------------------------


def linked(source: Path, target: Path, *own: str) -> None:
    """A folder like `source`: links to its entries, except for `own`."""
    target.mkdir(parents=True)
    for entry in source.iterdir():
        if entry.name not in own:
            (target / entry.name).symlink_to(entry.resolve())


def data_sets(bad: Path) -> None:
    clevr4 = json.loads(Path("data/clevr_4_10k_v1/clevr_4_annots.json").read_text())
    first = min(clevr4)
    contents: dict[str, Any] = {
        **NO_RECORDS,
        "no_entry": {k: v for k, v in clevr4.items() if k != first},
        "no_color": {k: {"shape": "cube"} for k in clevr4},
        "wrong_color": clevr4 | {first: clevr4[first] | {"color": "purpel"}},
        "null_facts": dict.fromkeys(clevr4),
    }
    for name, content in contents.items():
        target = bad / "clevr4" / name / "clevr_4_10k_v1"
        linked(Path("data/clevr_4_10k_v1"), target, "clevr_4_annots.json")
        put(target / "clevr_4_annots.json", written(content))
    suits = Path("data/cards/suits")
    for name, own in (("no_spades", "spades"), ("empty_spades", "spades"), ("jokers", "none")):
        linked(suits, bad / "cards" / name / "cards/suits", own)
    (bad / "cards/empty_spades/cards/suits/spades").mkdir()
    (bad / "cards/jokers/cards/suits/jokers").mkdir()
    (bad / "cards/no_classes/cards/suits").mkdir(parents=True)
    (bad / "cards/a_file/cards").mkdir(parents=True)
    put(bad / "cards/a_file/cards/suits", "")

    split = "filenames_train.txt", "label_train.txt", "query_valid.txt", "candidate_test.txt"
    lines = {name: Path("data/garments", name).read_text().splitlines() for name in split}
    for name, (file, line) in SPLIT_LINES.items():
        linked(Path("data/garments"), bad / "split" / name, file)
        put(bad / "split" / name / file, b"\n".join([lines[file][0].encode(), line, b""]))
    for name in split:
        linked(Path("data/garments"), bad / "split" / f"no_{name}", name)
        for content in ("empty", "garbage", "nul"):
            linked(Path("data/garments"), bad / "split" / f"{content}_{name}", name)
            shutil.copy(bad / content, bad / "split" / f"{content}_{name}" / name)
    for name, meta in {**NO_RECORDS, **METAS}.items():
        linked(Path("data/garments"), bad / "meta" / name, "meta.json")
        put(bad / "meta" / name / "meta.json", written(meta))

    template = json.loads(Path("data/genecis/focus_object.json").read_text())[0]
    for name, change in {**NO_RECORDS, **TEMPLATES}.items():
        linked(Path("data/genecis"), bad / "templates" / name, "focus_object.json")
        content = [template | change] if isinstance(change, dict) else change
        put(bad / "templates" / name / "focus_object.json", written(content))

    for name, line in LINES.items():
        put(bad / "lines" / f"{name}.jsonl", line)
    tables = {
        "header": "picture,caption\na,b\n",
        "columns": "image,caption\na\n",
        "quote": 'image,caption\n"a,b\n',
        "twice": "image,image,caption\na,b,c\n",
        "no_image": "image,caption\n,b\n",
    }
    for name, content in tables.items():
        put(bad / f"{name}.csv", content)
    ratings = {"ratings_header": "Word\tMean\na\t3\n", "ratings_number": "Word\tConc.M\na\tx\n"}
    ratings |= {"ratings_range": "Word\tConc.M\na\t9\n", "ratings_none": "Word\tConc.M\n"}
    ratings |= {"ratings_nan": "Word\tConc.M\na\tnan\n"}
    for name, content in ratings.items():
        put(bad / f"{name}.txt", content)
    coco: dict[str, Any] = {
        "coco_other": {"images": []},
        "coco_no_image": {"images": [], "annotations": [{"image_id": 1, "caption": "a"}]},
        "coco_list": [1],
        "coco_null": None,
    }
    for name, content in coco.items():
        put(bad / f"{name}.json", json.dumps(content))
    (bad / "shards").mkdir()
    with tarfile.open(bad / "no_image.tar", "w") as shard:
        shard.add(bad / "file", "1.txt")
    put(bad / "cut.tar", (bad / "no_image.tar").read_bytes()[:700])
    for place in ("a", "b"):
        (bad / place).mkdir()
        shutil.copy(bad / "no_image.tar", bad / place / "1.tar")


SPLIT_LINES = {  # name -> file, and what stands in its second line
    "absolute": ("filenames_train.txt", b"/etc/passwd"),
    "upwards": ("filenames_train.txt", b"../../secret.png"),
    "blank": ("filenames_train.txt", b"\nimg/a.png"),
    "missing_image": ("filenames_train.txt", b"img/no.png"),
    "latin1": ("filenames_train.txt", b"img/\xe9.png"),
    "words": ("label_train.txt", b"0 texture 1"),
    "even": ("label_train.txt", b"0 1"),
    "negative": ("label_train.txt", b"-1 0 0"),
    "far_image": ("label_train.txt", b"99999 0 0"),
    "far_attribute": ("label_train.txt", b"0 9 0"),
    "far_value": ("label_train.txt", b"0 0 99999"),
    "overflow": ("label_train.txt", b"0 0 99999999999999999999999"),
    "decimal": ("label_train.txt", b"0 0 1.5"),
    "long": ("label_train.txt", b"0 0 " + b"9" * 5000),
    "four": ("query_valid.txt", b"0 0 0 0"),
    "half": ("candidate_test.txt", b"0 0"),
}
METAS: dict[str, Any] = {
    "other": {"Shoes": {}},
    "no_names": {"Garments": {"ATTRIBUTES_NUM": [1]}},
    "different": {"Garments": {"ATTRIBUTES": ["a", "b"], "ATTRIBUTES_NUM": [1]}},
    "same": {"Garments": {"ATTRIBUTES": ["a", "a"], "ATTRIBUTES_NUM": [1, 1]}},
    "zero": {"Garments": {"ATTRIBUTES": ["a"], "ATTRIBUTES_NUM": [0]}},
    "words": {"Garments": {"ATTRIBUTES": ["a"], "ATTRIBUTES_NUM": ["many"]}},
    "no_attributes": {"Garments": {"ATTRIBUTES": [], "ATTRIBUTES_NUM": []}},
    "null_names": {"Garments": {"ATTRIBUTES": None, "ATTRIBUTES_NUM": None}},
}
TEMPLATES: dict[str, Any] = {
    "no_templates": [],
    "of_numbers": [7],
    "blank": {"condition": " "},
    "number": {"condition": 7},
    "no_gallery": {"gallery": []},
    "null_gallery": {"gallery": None},
    "null_target": {"target": None},
    "negative": {"reference": {"val_image_id": -1}},
    "decimal": {"reference": {"val_image_id": 1.5}},
    "word": {"reference": {"val_image_id": "one"}},
    "far": {"reference": {"val_image_id": 10**30}},
}
LINES = {
    "words": "dog\n",
    "no_relations": '{"image": "a.jpg"}\n',
    "null_image": '{"image": null, "relations": []}\n',
    "blank_image": '{"image": "", "relations": []}\n',
    "half_relation": '{"image": "a", "relations": [{"subject": "dog"}]}\n',
    "number": '{"image": "a", "relations": 7}\n',
    "nothing": '{"image": "a", "caption": "b", "relations": []}\n',
    "deep": DEEP + "\n",
    "null": "null\n",
    "list": "[1]\n",
    "no_condition": '{"reference": "a", "target": "b"}\n',
    "number_target": '{"reference": "a", "target": 7, "condition": "c"}\n',
    "blank_target": '{"reference": "a", "target": " ", "condition": "c"}\n',
    "missing_image": '{"reference": "a.jpg", "target": "b.jpg", "condition": "c"}\n' * 9,
    "nul_image": '{"reference": "a\\u0000", "target": "b", "condition": "c"}\n' * 9,
    "surrogate": '{"reference": "\\ud800", "target": "b", "condition": "c"}\n' * 9,
    "surrogate_graph": '{"image": "\\ud800", "relations": []}\n',
}


def written(content: Any) -> str:
    return content if isinstance(content, str) else json.dumps(content)


# --- pictures -------------------------------------------------------------------------------------


def png(width: int, height: int) -> bytes:
    """A PNG whose header promises more pixels than it has."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 10)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


def pictures(bad: Path) -> None:
    """Trees with two classes of one picture each; one of the pictures is bad."""
    good = next(f for f in Path("data/cards/suits").rglob("*.*")).resolve()
    contents: dict[str, bytes] = {
        "text": b"no picture",
        "empty": b"",
        "cut": good.read_bytes()[:200],
        "bomb": png(60_000, 60_000),
        "zero": png(0, 0),
        "half": png(50, 50),
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
    }

    def tree(name: str, picture: str = "b.png") -> Path:
        place = bad / "pictures" / name / "mood"
        for kind in ("calm", "wild"):
            (place / kind).mkdir(parents=True)
            (place / kind / "a.png").symlink_to(good)
        return place / "wild" / picture

    for name, content in contents.items():
        put(tree(name, "b.jpg" if name == "eps" else "b.png"), content)
    Image.fromarray(np.full((4, 4), -1, np.int32)).save(tree("negative", "b.tif"))
    tree("loop").symlink_to("b.png")
    tree("gone").symlink_to("nowhere")
    os.mkfifo(tree("fifo"))
    tree("folder").mkdir()  # named x.png, and without pictures: left out
    (bad / "pictures/one_class/mood/calm").mkdir(parents=True)
    (bad / "pictures/one_class/mood/calm/a.png").symlink_to(good)
    (bad / "pictures/no_pictures/mood/calm").mkdir(parents=True)
    (bad / "pictures/no_pictures/mood/wild").mkdir()
    (bad / "pictures/odd names/mood$\n{x}").mkdir(parents=True)
    (bad / "pictures/odd names/mood$\n{x}/one$\nclass").mkdir()
    (bad / "pictures/odd names/mood$\n{x}/one$\nclass/a.png").symlink_to(good)


# --- what trainings left --------------------------------------------------------------------------


def copy(task: str, name: str, *own: str) -> Path:
    """outputs/<task>/<name>: the training of that task, without the files `own`."""
    target = Path("outputs", task, name)
    linked(Path("outputs", task, "run"), target, *own)
    return target


def trainings(bad: Path) -> None:
    for task in ("combiner", "fashion_mlp", "fashion_backbone", "fashion_rivals"):
        record = json.loads(Path("outputs", task, "run/results.json").read_text())
        for name, content in NO_RECORDS.items():
            put(copy(task, name, "results.json") / "results.json", content)
        copy(task, "no_record", "results.json")
        for key, values in RECORDS.items():
            for value in values if key in record else []:
                name = f"{key}_{slug(value)}"
                put(
                    copy(task, name, "results.json") / "results.json",
                    json.dumps(record | {key: value}),
                )
    weights = {
        "combiner": "combiner.safetensors",
        "fashion_mlp": "heads.safetensors",
        "fashion_rivals": "rival.safetensors",
    }
    for task, file in weights.items():
        source = Path("outputs", task, "run", file)
        content, state = source.read_bytes(), load_file(source)
        key = next(key for key in state if key.endswith("weight"))
        first = state[key]
        changes = {
            "nan_weights": {key: first * float("nan")},
            "wide_weights": {key: torch.zeros(first.shape[0], 99, *first.shape[2:])},
            "flat_weights": {key: torch.zeros(7)},
            "scalar_weights": {key: torch.tensor(1.0)},
        }
        for name, change in changes.items():
            save_file(state | change, copy(task, name, file) / file)
        save_file({k: v for k, v in state.items() if k != key}, copy(task, "lacking", file) / file)
        put(copy(task, "empty_weights", file) / file, b"")
        put(copy(task, "cut_weights", file) / file, content[: len(content) // 2])
        put(copy(task, "garbage_weights", file) / file, (bad / "garbage").read_bytes())
        copy(task, "no_weights", file)
        (copy(task, "folder_weights", file) / file).mkdir()
        checkpoints(task)


RECORDS: dict[str, list[Any]] = {
    "width": [-3, 10**9, "x", None],
    "method": ["other", 7],
    "attributes": [7, ["a"], None],
    "weights": [7, "nothing", "../../x"],
    "tower": [7, "no_tower"],
    "bases": [None, {}, {"texture": 7}],
    "vlm": [7, "no_vlm"],
    "vlm_fingerprint": ["0"],
    "precision": ["fp8", 7],
    "vlm_trained": [True],
}


def slug(value: Any) -> str:
    return "".join(c if c.isalnum() else "_" for c in str(value))


def checkpoints(task: str) -> None:
    """Copies of a training with a damaged state.pt."""
    source = Path("outputs", task, "run/state.pt")
    content = source.read_bytes()
    state = torch.load(source, weights_only=True)
    model = next(iter(state["models"]))
    key = next(key for key in state["models"][model])
    other = state["models"][model] | {key: torch.zeros(3, 3)}
    half = len(content) // 2
    place = content.index(state["models"][model][key].numpy().tobytes())  # of a weight
    contents: dict[str, Any] = {
        "state_empty": b"",
        "state_cut": content[:half],
        "state_flipped": content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :],
        "state_text": b"words",
        "state_other": state | {"settings": state["settings"] | {"lr": 9.0}},
        "state_null": None,
        "state_list": [1],
        "state_shapes": state | {"models": {**state["models"], model: other}},
        "state_progress": state | {"progress": {"steps": 1}},
        "state_losses": state | {"progress": state["progress"] | {"losses": 7}},
        "state_unfinished": state | {"progress": state["progress"] | {"unfinished": None}},
    }
    for part in state:
        contents[f"state_no_{part}"] = {k: v for k, v in state.items() if k != part}
    for name, changed in contents.items():
        file = copy(task, name, "state.pt") / "state.pt"
        if isinstance(changed, bytes):
            put(file, changed)
        else:
            torch.save(changed, file)


def results(bad: Path) -> None:
    """results.json of measurements, of all tasks."""
    cell: dict[str, Any] = {"scores": {"universal": {}}, "key": "k"}
    contents: dict[str, Any] = {
        **NO_RECORDS,
        "no_cells": {"cells": []},
        "null_cells": {"cells": None},
        "number_cells": {"cells": 7},
        "cell_number": {"cells": [7]},
        "no_scores": {"cells": [{"key": "k"}]},
        "no_key": {"cells": [{"scores": {}}]},
        "no_scores_inside": {"cells": [cell | {"scores": {}}]},
        "null_scores": {"cells": [cell | {"scores": None}]},
        "number_scores": {"cells": [cell | {"scores": 7}]},
        "list_key": {"cells": [cell | {"data": [], "vlm": {}}]},
    }
    for task in ("clustering", "few_shot", "similarity_retrieval", "fashion_retrieval"):
        for name, content in contents.items():
            put(Path("outputs", task, name, "results.json"), written(content))
        Path("outputs", task, "no_file").mkdir()
        Path("outputs", task, "a_folder/results.json").mkdir(parents=True)


def clones(bad: Path) -> None:
    """Folders that should be clones of the authors' repository."""
    utils, texts = "Clustering & Few-shot/utils", "Similarity Retrieval/text_embedding.py"
    labels = 'dataset_gptLabel_dict = {"clevr4": {"color": ["red"]}}\n'
    fashion = "prompt = ['a fashion with a texture of ']\ngpt_labels = [['plain']]\n"
    files = {f"{utils}/{name}.py": labels for name in ("more_data", "llm_prompt", "other_llm")}
    files |= {texts: 'scenes = ["beach"]\n'}
    files |= {"Fashion Retrieval/mlp_training/load_text.py": fashion}
    first = f"{utils}/more_data.py"
    changes: dict[str, dict[str, str | bytes]] = {
        "latin1": {first: "é".encode("latin-1")},
        "syntax": {first: "dataset_gptLabel_dict = {"},
        "nul": {first: b"a\0b"},
        "deep": {first: "dataset_gptLabel_dict = " + "[" * 5000},
        "no_dict": {first: "x = 1\n"},
        "a_list": {first: "dataset_gptLabel_dict = []\n"},
        "of_lists": {first: "dataset_gptLabel_dict = {'clevr4': []}\n"},
        "unpacked": {first: "dataset_gptLabel_dict = {**other}\n"},
        "inner_unpacked": {first: "dataset_gptLabel_dict = {'clevr4': {**other}}\n"},
        "code": {first: "dataset_gptLabel_dict = {'clevr4': {'color': list('ab')}}\n"},
        "numbers": {first: "dataset_gptLabel_dict = {'clevr4': {'color': [1]}}\n"},
        "no_texts": {first: "dataset_gptLabel_dict = {'clevr4': {'color': []}}\n"},
        "two_lines": {first: "dataset_gptLabel_dict = {'clevr4': {'color': ['a\\nb']}}\n"},
        "no_scenes": {texts: "x = 1\n"},
        "indented": {first: labels + "  x = 1\n"},
    }
    for name, change in changes.items():
        for file, content in {**files, **change}.items():
            put(bad / "clones" / name / file, content)


def imported(name: str) -> Any:
    """`<module>:<name>` -> what it names."""
    module, _, name = name.partition(":")
    return getattr(importlib.import_module(module), name)
