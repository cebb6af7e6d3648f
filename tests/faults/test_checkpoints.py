"""What trainings left: weights, what results.json says of them, and state.pt to go on from."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mistakes import FOLDER, GARBAGE, NO_RECORDS, Content, cuts, flipped
from safetensors.torch import load, save
from toy_vlm import ToyVLM, make_images

from crl.embed import embed_images
from crl.explore.listing import write_listing

pytestmark = pytest.mark.usefixtures("trained")
COMBINER, MLP, BACKBONE, RIVAL = (
    f"outputs/{task}/run"
    for task in ("combiner", "fashion_mlp", "fashion_backbone", "fashion_rivals")
)
USES = {  # folder of a training -> its weights, commands that read it
    COMBINER: ("combiner.safetensors", [f"similarity vlm=vlm trained=[{COMBINER}]"]),
    MLP: (
        "heads.safetensors",
        [f"fashion vlm=vlm texts=null trained={MLP}", "train_backbone name=other"],
    ),
    BACKBONE: ("vlm/open_clip_model.safetensors", [f"fashion vlm=vlm trained={BACKBONE}"]),
    RIVAL: ("rival.safetensors", [f"fashion vlm=vlm trained={RIVAL}"]),
}
READS = [(folder, line) for folder, (_, lines) in USES.items() for line in lines]


def damaged(whole: bytes, change: str) -> bytes:
    """A file of weights that is cut off, or of which one tensor is another."""
    if change.isdigit():
        return cuts(whole, 7)[int(change)]
    state = load(whole)
    key = next(key for key in state if key.endswith("weight"))
    first = state.pop(key)
    others = {
        "NaN": first * float("nan"),
        "wide": torch.zeros(first.shape[0], 99, *first.shape[2:]),
        "flat": torch.zeros(7),
        "scalar": torch.tensor(1.0),
    }
    return save(state | ({key: others[change]} if change in others else {}))


OTHERS: dict[str, Content] = {"gone": None, "folder": FOLDER, "garbage": GARBAGE}
CHANGES: dict[str, str] = {  # what is wrong with weights -> words; else the name of their folder
    **dict.fromkeys(("garbage", *"012345"), "is damaged, incomplete or no checkpoint"),
    "NaN": "NaN or infinit",
    **dict.fromkeys(("gone", "folder", "wide", "flat", "scalar", "lacking"), ""),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(("folder", "line"), READS, ids=range(len(READS)))
def test_weights(refused, data, folder, line, change):
    file = f"{folder}/{USES[folder][0]}"
    whole = (data / file).read_bytes()
    content = OTHERS[change] if change in OTHERS else damaged(whole, change)
    refused(line, CHANGES[change] or folder, {file: content})


RECORDS = [  # folder, key of results.json, value, words
    (COMBINER, "vlm", 7, "results.json is not of train_combiner.py: vlm: must be a text, not 7"),
    (COMBINER, "vlm_fingerprint", "0", "was trained with another VLM than 'vlm' is now"),
    (COMBINER, "vlm_trained", True, f"{COMBINER}/vlm"),
    (RIVAL, "width", 10**9, "width: must be at most 65536, not 1000000000"),
    (RIVAL, "width", 5, f"{RIVAL}"),
    (RIVAL, "tower", 7, "tower: must be a text, not 7"),
    (MLP, "vlm_fingerprint", "0", "was trained on another VLM than 'vlm' is now (0, not "),
]
NO_FOLDER = "is no folder of train_mlp.py, train_backbone.py or train_rival.py: it has no results"
for folder in (MLP, BACKBONE, RIVAL):
    RECORDS += [
        (folder, "method", "other", NO_FOLDER),
        (folder, "attributes", ["a"], "was trained on the attributes a, the data has texture"),
        (folder, "weights", "../../x", "has no ../../x; train to the first validation"),
    ]
for folder in (MLP, BACKBONE):
    RECORDS += [
        (folder, "bases", None, "bases: must hold `key: value` lines, not None; train again"),
        (folder, "vlm", 7, "vlm: must be a text, not 7"),
    ]
for name in ("evil:Evil", "outputs.evil:Evil"):  # code from a file is never run
    RECORDS += [
        (COMBINER, "vlm", name, name),
        (MLP, "vlm", name, name),
        (RIVAL, "tower", name, name),
    ]
EVIL = dict.fromkeys(("evil.py", "outputs/evil.py"), "open('ran', 'w').close()\n")  # `refused` sees


@pytest.mark.parametrize(("folder", "key", "value", "words"), RECORDS, ids=range(len(RECORDS)))
def test_what_results_say_of_weights(refused, data, folder, key, value, words):
    file = f"{folder}/results.json"
    record = json.loads((data / file).read_text()) | {key: value}
    for line in USES[folder][1]:
        refused(line, words, {**EVIL, file: json.dumps(record)})


@pytest.mark.parametrize("content", [None, *NO_RECORDS], ids=range(1 + len(NO_RECORDS)))
@pytest.mark.parametrize(("folder", "line"), READS, ids=range(len(READS)))
def test_no_results(refused, folder, line, content):
    refused(line, folder, {f"{folder}/results.json": content})


TRAININGS = ("train_combiner", "train_mlp", "train_backbone", "train_rival")
STATES = list(zip(TRAININGS, USES, strict=True))


@pytest.mark.parametrize("place", range(6))
@pytest.mark.parametrize("damage", ["cut", "flipped"])
@pytest.mark.parametrize(("command", "folder"), STATES)
def test_a_damaged_state(refused, data, command, folder, damage, place):
    whole = (data / folder / "state.pt").read_bytes()
    places = np.random.default_rng(place).integers(2, len(whole), 6)
    content = cuts(whole, 8)[place] if damage == "cut" else flipped(whole, places[place])
    words = f"{folder}/state.pt is damaged; remove it to start again"
    refused(command, words, {f"{folder}/state.pt": content})


@pytest.mark.parametrize(("command", "folder"), STATES)
def test_a_state_of_something_else(refused, data, command, folder):
    file = f"{folder}/state.pt"
    former = (data / file).read_bytes()[16:]  # without the digest that this version puts before it
    refused(command, f"{file} is of a former version; remove {folder} to train", {file: former})
    refused(f"{command} lr=1", f"{folder} holds another training (lr ")
    for name in ("results.json", USES[folder][0]):
        words = f"holds a finished training but {Path(name).name} is gone; remove the folder to"
        refused(command, words, {f"{folder}/{name}": None})


class Code:
    def __reduce__(self):
        return open, ("ran", "w")


CODE = "code.pt is refused: it holds Python objects beside tensors, which may run code"
NONE = {"garbage.pt": GARBAGE, "code.pt": lambda file: torch.save({"a": Code()}, file)}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("fashion trained=nowhere", "nowhere is no folder of train_mlp.py"),
        ("fashion heads=garbage.pt", "garbage.pt is damaged, incomplete or no checkpoint"),
        ("fashion heads=vlm/open_clip_model.safetensors", "holds no heads"),
        (f"fashion heads={MLP}", "belongs to a training of this repository; give its folder: "),
        ("similarity combiner=garbage.pt", "garbage.pt is damaged, incomplete or no checkpoint"),
        ("similarity combiner=vlm/open_clip_model.safetensors", "holds no Combiner"),
        (f"similarity combiner={COMBINER}/combiner.safetensors", f"trained=[{COMBINER}]"),
        (f"train_backbone heads={RIVAL}", "is no folder of train_mlp.py; heads must be one"),
        ("train_rival tower=resnet50:garbage.pt", "garbage.pt is damaged, incomplete or no"),
        ("similarity combiner=code.pt", CODE),
        ("fashion heads=code.pt", CODE),
        ("fashion vlm=open_clip:ViT-B-32-quickgelu/code.pt", CODE),
        ("train_rival tower=resnet50:code.pt", CODE),
    ],
)
def test_files_and_folders_that_are_none(refused, line, words):
    refused(line, words, NONE)


def test_code_that_a_folder_of_embeddings_names(refused, data, monkeypatch):
    monkeypatch.chdir(data)
    files = make_images(Path("cache/images"), 4)
    digests = embed_images(ToyVLM(), files, Path("cache/many")).digests
    about, names = {"fingerprint": "toy-1", "vlm": "evil:Evil"}, list(map(str, files))
    write_listing(Path("cache/many/images.parquet"), names, [d.tobytes() for d in digests], about)
    words = "the VLM 'evil:Evil' comes from a file, and code from a file is never run"
    refused("explore cache/many", words, EVIL)
