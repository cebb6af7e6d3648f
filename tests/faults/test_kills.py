"""A kill at any rename, of any command: the same command again ends as if nothing had been.

All output files appear by a rename. A process that ends before the n-th rename leaves what one
leaves that ends after the one before, and a temporary file more.
"""

import shutil
from pathlib import Path

import make_data
import pytest
from killing import KILLED, Forks, contents

CACHE = "cache=data/cache"  # filled before
TINY = ["vlm=demo", CACHE, "figures=no"]
TRAINED = ["epochs=1", "triplets=8", "batch_size=4", "checkpoint_every=1"]
SCENES, GARMENTS = "data/genecis", ["root=data/garments", "dataset=Garments"]
COMMANDS: dict[str, list[str]] = {
    "clustering": [
        *["classification_clustering/clustering.py", "data=cards", "root=data", "images=null"],
        *["criteria=[suits]", "vlm=demo", "cache=cache", "seeds=2", "figures=no"],
    ],
    "few_shot": [
        *["classification_clustering/few_shot.py", "data=cards", "root=data", "images=null"],
        *["criteria=[suits]", "shots=[1]", "seeds=2", *TINY],
    ],
    "mine_triplets": [
        *["similarity_retrieval/mine_triplets.py", "samples=60", "min_images=1"],
        f"graphs={SCENES}/coco/annotations/relations_train2017.jsonl",
    ],
    "train_combiner": [
        *["similarity_retrieval/train_combiner.py", "triplets=triplets.jsonl", "epochs=1"],
        *[f"images={SCENES}/coco", "vlm=demo", CACHE, "projection=4", "hidden=4"],
        *["batch_size=16", "validation=0.2", "checkpoint_every=1"],
    ],
    "similarity_evaluate": [
        *["similarity_retrieval/evaluate.py", f"root={SCENES}", *TINY],
        "trained=[outputs/combiner/run]",
    ],
    "train_mlp": [
        "fashion_retrieval/train_mlp.py",
        *GARMENTS,
        *TRAINED,
        "vlm=demo",
        CACHE,
        "out=4",
    ],
    "train_backbone": [
        *["fashion_retrieval/train_backbone.py", *GARMENTS, *TRAINED, "triplets=4", "workers=0"],
        "heads=outputs/fashion_mlp/run",
    ],
    "train_rival": [
        *["fashion_retrieval/train_rival.py", *GARMENTS, *TRAINED, "triplets=4"],
        *["method=csn", "tower=demo", "width=4", "workers=0"],
    ],
    "fashion_evaluate": [
        *["fashion_retrieval/evaluate.py", *GARMENTS, *TINY],
        "trained=[outputs/fashion_mlp/run]",
    ],
}
FIRST = {  # what a command needs from another one
    "similarity_evaluate": "train_combiner",
    "train_backbone": "train_mlp",
    "fashion_evaluate": "train_mlp",
}
BASES = "bases={" + ", ".join(
    f"{name}: deepfashion_{name}" for name in ("texture", "fabric", "shape", "part", "style")
) + "}"  # fmt: skip
for name in ("train_mlp", "fashion_evaluate"):
    COMMANDS[name] += [BASES, "texts=20"]


@pytest.fixture(scope="module")
def finish():
    with Forks() as forks:
        yield forks.finish


@pytest.fixture(scope="module")
def world(tmp_path_factory, finish) -> Path:
    """Drawn data, triplets, and what `FIRST` asks for."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "data").mkdir()
    for drawn in ("clevr4", "cards", "scenes", "garments"):
        make_data.make(drawn, folder / "data", images=24, seed=0, workers=1)
    assert finish(folder, COMMANDS["mine_triplets"]) == 0
    shutil.move(folder / "outputs/triplets/run/triplets.jsonl", folder)
    for command in set(FIRST.values()):
        assert finish(folder, COMMANDS[command]) == 0, (folder / "printed").read_text()
    return folder


def start_folder(world: Path, folder: Path, name: str) -> Path:
    """A folder in which the command `name` has not run yet."""
    folder.mkdir()
    for entry in ("data", "triplets.jsonl"):
        (folder / entry).symlink_to(world / entry)
    if name in FIRST:
        task = {"train_combiner": "combiner", "train_mlp": "fashion_mlp"}[FIRST[name]]
        shutil.copytree(world / "outputs" / task, folder / "outputs" / task)
    return folder


@pytest.mark.parametrize("name", COMMANDS)
def test_killed_before_any_rename_it_ends_like_an_undisturbed_run(world, finish, tmp_path, name):
    command = COMMANDS[name]
    for attempt in ("fills the cache", "whole"):
        whole = start_folder(world, tmp_path / attempt, name)
        assert finish(whole, command) == 0, (whole / "printed").read_text()
    renames = (whole / "renames").read_text().splitlines()
    expected = contents(whole / "outputs")

    for number, rename in enumerate(renames):
        folder = start_folder(world, tmp_path / str(number), name)
        assert finish(folder, command, number) == KILLED, f"killed before {rename}"
        assert finish(folder, command) == 0, f"{rename}: {(folder / 'printed').read_text()}"
        assert contents(folder / "outputs") == expected, f"killed before {rename}"
        assert not list(folder.rglob("*.tmp")), f"killed before {rename}"
