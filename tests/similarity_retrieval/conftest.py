"""A small GeneCIS, and the scripts on `key=value` settings, in this process."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from toy_vlm import ToyVLM, make_images

from similarity_retrieval import evaluate, inputs, mine_triplets
from similarity_retrieval.datasets import TASKS

IMAGES, CANDIDATES = 24, 5


def write_templates(folder: Path, task: str, count: int, seed: int) -> None:
    """`count` random templates; of the attribute tasks, boxes in the 7 x 6 pictures."""
    rng = np.random.default_rng(seed)

    def image(number):
        if task.endswith("object"):
            return {"val_image_id": int(number)}
        return {"image_id": int(number), "instance_bbox": [int(number) % 3, 1, 3, 2]}

    templates = []
    for number in range(count):
        first, *others = rng.choice(IMAGES, CANDIDATES + 1, replace=False)
        reference, target, *gallery = [image(n) for n in (first, *others)]
        condition = "color" if task == "focus_attribute" else ["dog", "cat", "red"][number % 3]
        templates.append(
            {"reference": reference, "target": target, "gallery": gallery, "condition": condition}
        )
    (folder / f"{task}.json").write_text(json.dumps(templates))


@pytest.fixture
def genecis(tmp_path):
    """A folder with four small tasks and their images."""
    root = tmp_path / "genecis"
    for folder in ("coco/val2017", "visual_genome/VG_100K"):
        for number, path in enumerate(make_images(root / folder, IMAGES)):
            name = f"{number:012d}.jpg" if "coco" in folder else f"{number}.jpg"
            path.rename(path.with_name(name))
    for seed, task in enumerate(TASKS):
        write_templates(root, task, 12, seed)
    return root


class Tuned(ToyVLM):
    """Another VLM: its images' embeddings are the toy's back to front."""

    def encode_images(self, batch):
        return super().encode_images(batch).flip(1)


@pytest.fixture
def toy(monkeypatch):
    """Every VLM name loads a toy; gives those that were loaded, by name."""
    loaded = {}

    def load(name, device, precision, from_file=False):
        loaded[name] = (Tuned if name == "tuned" else ToyVLM)(fingerprint=f"toy-{name}")
        loaded[name].name = name
        return loaded[name]

    monkeypatch.setattr(inputs, "load_vlm", load)
    monkeypatch.setattr(inputs, "find_vlm", lambda name, from_file: name)
    return loaded


@pytest.fixture
def evaluate_arguments(genecis) -> Callable[..., list[str]]:
    def arguments(*overrides: str) -> list[str]:
        given = [f"root={genecis}", f"outputs={genecis.parent}/out"]
        if not any(override.startswith("features=") for override in overrides):
            given.append(f"cache={genecis.parent}/cache")
        return [*given, *overrides]

    return arguments


@pytest.fixture
def evaluated(run, evaluate_arguments) -> Callable[..., tuple[int, str, str]]:
    """evaluate.py on `genecis`: exit code, output and errors."""
    return lambda *overrides: run(evaluate.main, *evaluate_arguments(*overrides))


@pytest.fixture
def evaluation_refused(refusal, evaluate_arguments) -> Callable[..., str]:
    """The one line of an evaluation that must fail."""
    return lambda *overrides: refusal(evaluate.main, *evaluate_arguments(*overrides))


@pytest.fixture
def cells(genecis) -> Callable[[], dict[tuple[str, str], dict]]:
    """What evaluate.py has written, by label and task."""

    def cells() -> dict[tuple[str, str], dict]:
        file = genecis.parent / "out/similarity_retrieval/run/results.json"
        written = json.loads(file.read_text())["cells"]
        return {(c["label"], c["data"]): c for c in reversed(written)}  # the newest is first

    return cells


@pytest.fixture
def mine_arguments(tmp_path) -> Callable[..., list[str]]:
    def arguments(**settings) -> list[str]:
        given = [f"{key}={'null' if value is None else value}" for key, value in settings.items()]
        return [f"outputs={tmp_path / 'out'}", *given]

    return arguments


@pytest.fixture
def mine(run, mine_arguments) -> Callable[..., tuple[int, str, str]]:
    """mine_triplets.py: exit code, output and errors."""
    return lambda **settings: run(mine_triplets.main, *mine_arguments(**settings))


@pytest.fixture
def mine_refused(refusal, mine_arguments) -> Callable[..., str]:
    """The one line of a mining that must fail."""
    return lambda **settings: refusal(mine_triplets.main, *mine_arguments(**settings))
