"""A folder of small good data, and the commands that use it: what tests of mistakes break.

pictures/   two classes of pictures        genecis/    templates and their images
clevr_4_10k_v1/                            clothes/    ASEN's files and images
texts.yaml  a text basis                   good.npz    embeddings for all tasks
captions.jsonl, graphs.jsonl, ratings.txt, triplets.jsonl
outputs/    after `train`: a training of each kind; vlm/ is their tiny CLIP
"""

import json
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import reproduce_tables
from checkpoints import save_clip
from clothes import write_clothes, write_noise
from mining_files import world, write_jsonl, write_triplets
from toy_vlm import make_images

from classification_clustering import clustering, few_shot, retrieval
from classification_clustering.datasets import CLEVR4_CLASSES
from crl.commands import explore, texts
from fashion_retrieval import evaluate as fashion
from fashion_retrieval import train_backbone, train_mlp, train_rival
from similarity_retrieval import evaluate as similarity
from similarity_retrieval import mine_triplets, train_combiner

COLORS = "vlm=color_vlm:ColorVLM cache=cache figures=no"
PICTURES = f"data=folder root=pictures criteria=[mood] 'bases={{mood: texts.yaml}}' {COLORS}"
CLOTHES = "root=clothes dataset=Clothes"
BASES = "'bases={texture: texts.yaml, shape: texts.yaml}'"
HEADS = "heads=outputs/fashion_mlp/run"
VLM = "vlm=vlm cache=cache"
SHORT = "epochs=1 batch_size=4 device=cpu workers=0"
GENECIS = "root=genecis tasks=focus_object figures=no"
COMMANDS: dict[str, tuple[Callable[[], None], str]] = {  # -> main, first arguments
    "clustering": (clustering.main, f"{PICTURES} seeds=2"),
    "clustering_of": (clustering.main, "features=good.npz seeds=2 figures=no"),
    "few_shot": (few_shot.main, f"{PICTURES} shots=[1] seeds=2"),
    "few_shot_of": (few_shot.main, "features=good.npz shots=[1] seeds=2 figures=no"),
    "retrieval_of": (retrieval.main, "features=good.npz seeds=2"),
    "similarity": (similarity.main, f"{GENECIS} {COLORS} 'bases={{focus_object: texts.yaml}}'"),
    "similarity_of": (similarity.main, f"{GENECIS} features=good.npz"),
    "fashion": (fashion.main, f"{CLOTHES} {BASES} {COLORS}"),
    "fashion_of": (fashion.main, "features=good.npz figures=no"),
    "mine_triplets": (mine_triplets.main, "graphs=graphs.jsonl samples=60 min_images=1"),
    "mine_captions": (mine_triplets.main, "samples=60 min_images=1"),
    "train_combiner": (
        train_combiner.main,
        f"triplets=triplets.jsonl images=images {VLM} {SHORT} projection=4 hidden=4 validation=0.2",
    ),
    "train_mlp": (train_mlp.main, f"{CLOTHES} {BASES} {VLM} {SHORT} triplets=8 out=4 workers=1"),
    "train_backbone": (train_backbone.main, f"{CLOTHES} {SHORT} triplets=4 {HEADS}"),
    "train_rival": (train_rival.main, f"{CLOTHES} {SHORT} triplets=4 method=csn tower=vlm width=4"),
    "reproduce_tables": (reproduce_tables.main, ""),
    "explore": (explore.main, "--criterion clevr4_color --out page"),
    "generate_texts": (
        texts.main,
        "--criterion color --vlm-prompt 'a {text}' --out color.yaml --cache-dir cache",
    ),
}


def words_of(command: str) -> list[str]:
    return shlex.split(COMMANDS[command][1])


# --- good data ------------------------------------------------------------------------------------


def make(folder: Path) -> None:
    for kind in ("calm", "wild"):
        make_images(folder / "pictures/mood" / kind, 3, first=ord(kind[0]))
    clevr4 = make_images(folder / "clevr_4_10k_v1/images", 10)
    colors = zip(clevr4, CLEVR4_CLASSES["color"], strict=True)
    annotations = {picture.stem: {"color": color} for picture, color in colors}
    (folder / "clevr_4_10k_v1/clevr_4_annots.json").write_text(json.dumps(annotations))
    for number, path in enumerate(make_images(folder / "genecis/coco/val2017", 5)):
        path.rename(path.with_name(f"{number:012d}.jpg"))
    (folder / "genecis/focus_object.json").write_text(json.dumps([template(), template()]))
    (folder / "clothes").mkdir()
    write_clothes(folder / "clothes")
    write_noise(folder / "clothes")
    (folder / "texts.yaml").write_text(json.dumps(basis()))
    write_triplets(folder)
    write_jsonl(folder / "graphs.jsonl", world(60))
    write_jsonl(folder / "captions.jsonl", [{"image": "a.jpg", "caption": "dog on sofa"}])
    (folder / "ratings.txt").write_text("Word\tConc.M\ndog\t4.9\n")
    np.savez(folder / "good.npz", **features())


def basis(**change: Any) -> dict[str, Any]:
    texts = ["red", "green", "left blue"]
    return {"criterion": "mood", "vlm_prompt": "a {text}", "texts": texts, **change}


def template(**change: Any) -> dict[str, Any]:
    image = [{"val_image_id": number} for number in range(5)]
    whole = {"reference": image[0], "target": image[1], "gallery": image[2:], "condition": "red"}
    return whole | change


def features(ids: Iterable = range(8), conditions: Iterable = ("red",)) -> dict[str, np.ndarray]:
    """Embeddings for all tasks at once; each ignores what it does not use."""
    rng, ids, conditions = np.random.default_rng(0), np.array(ids), np.array(conditions)
    rows = np.array([[n, 0, n % 2] for n in range(8)])
    return {
        "image": rng.normal(size=(len(ids), 6)),
        "text": rng.normal(size=(5, 6)),
        "labels": np.arange(len(ids)) % 2,
        "ids": ids,
        "conditions": conditions,
        "scene_text": rng.normal(size=(5, 6)),
        "caption_plain": rng.normal(size=(len(conditions), 6)),
        "captions5": rng.normal(size=(len(conditions), 5, 6)),
        "text0": rng.normal(size=(5, 6)),
        "query": rows[:4],
        "candidate": rows[4:],
    }


def train() -> None:
    """A training of each kind, in outputs/<task>/run."""
    save_clip(Path("vlm"))
    for command in ("train_combiner", "train_mlp", "train_backbone", "train_rival"):
        with patch.object(sys, "argv", [command, *words_of(command)]):
            COMMANDS[command][0]()


# --- what is wrong in it --------------------------------------------------------------------------

FIFO, FOLDER = os.mkfifo, os.mkdir  # what no reader expects where it expects a file
GARBAGE = np.random.default_rng(0).bytes(500)
DEEP = "[" * 100_000
NO_RECORDS = ["", "null", "[1, 2]", '{"rows": [{"scores"', DEEP, GARBAGE]


def LOOP(file: str) -> None:
    os.symlink(os.path.basename(file), file)


Content = str | bytes | Callable[[str], None] | None


def cuts(whole: bytes, count: int) -> list[bytes]:
    """The beginnings of a file, from nothing to all but its last byte."""
    return [whole[:size] for size in np.linspace(0, len(whole) - 1, count, dtype=int)]


def flipped(whole: bytes, place: int) -> bytes:
    return whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]


def put(file: Path, content: Content) -> None:
    """In place of what is there; None: nothing."""
    if file.is_dir() and not file.is_symlink():
        file.rmdir()
    else:
        file.unlink(missing_ok=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    if callable(content):
        content(str(file))
    elif isinstance(content, str):
        file.write_text(content, encoding="utf-8", errors="surrogatepass", newline="")
    elif content is not None:
        file.write_bytes(content)


@contextmanager
def replaced(files: dict[str, Content]) -> Iterator[None]:
    """Meanwhile, `files` hold other content, or are something else (see `FIFO`), or are gone."""
    former = {Path(name): Path(name).read_bytes() for name in files if Path(name).is_file()}
    for name, content in files.items():
        put(Path(name), content)
    try:
        yield
    finally:
        for name in files:
            put(Path(name), former.get(Path(name)))


def tree() -> dict[str, tuple[int, int]]:
    """Each file and folder below here, with its time and size, except for caches and locks."""
    entries = {}
    for folder, folders, files in os.walk("."):
        folders[:] = [name for name in folders if name != "cache"]
        for name in files + folders:
            if not name.endswith(".lock"):
                status = os.lstat(path := os.path.join(folder, name))
                entries[path] = (status.st_mtime_ns * (name in files), status.st_size)
    return entries
