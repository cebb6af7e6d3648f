"""A small GeneCIS, and the scripts on `key=value` settings, in this process."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from toy_vlm import ToyVLM, make_images

from crl.run.results import read_rows
from similarity_retrieval import evaluate, trained
from similarity_retrieval.datasets import TASKS

IMAGES, CANDIDATES = 24, 5


@pytest.fixture
def genecis(tmp_path):
    """A folder with four small tasks and their images; the boxes fit the 7 x 6 pictures."""
    root = tmp_path / "genecis"
    for folder, name in (("coco/val2017", "{:012d}.jpg"), ("visual_genome/VG_100K", "{}.jpg")):
        for number, path in enumerate(make_images(root / folder, IMAGES)):
            path.rename(path.with_name(name.format(number)))
    for seed, task in enumerate(TASKS):
        rng, templates = np.random.default_rng(seed), []
        for number in range(12):
            ids = rng.choice(IMAGES, CANDIDATES + 1, replace=False).tolist()
            images = [{"image_id": n, "instance_bbox": [n % 3, 1, 3, 2]} for n in ids]
            if task.endswith("object"):
                images = [{"val_image_id": n} for n in ids]
            condition = "color" if task == "focus_attribute" else ["dog", "cat", "red"][number % 3]
            first = {"reference": images[0], "target": images[1], "condition": condition}
            templates.append({**first, "gallery": images[2:]})
        (root / f"{task}.json").write_text(json.dumps(templates))
    return root


class Tuned(ToyVLM):
    """Another VLM: the embeddings of its images are the toy's back to front."""

    def encode_images(self, batch):
        return super().encode_images(batch).flip(1)


@pytest.fixture
def toy(monkeypatch):
    """Every VLM name loads a toy; gives those that were loaded, by name."""
    loaded = {}

    def load(name, device, precision, from_file=False):
        loaded[name] = (Tuned if "backbone" in name else ToyVLM)(fingerprint=f"toy-{name}")
        loaded[name].name = name
        return loaded[name]

    monkeypatch.setattr(trained, "load_vlm", load)
    return loaded


def on(genecis: Path, overrides: tuple[str, ...]) -> tuple:
    """evaluate.py and its arguments; embeddings made elsewhere need no cache."""
    features = any(override.startswith("features=") for override in overrides)
    cache = [] if features else [f"cache={genecis.parent}/cache"]
    return evaluate.main, f"root={genecis}", f"outputs={genecis.parent}/out", *cache, *overrides


@pytest.fixture
def evaluated(output, genecis) -> Callable[..., str]:
    """What evaluate.py on `genecis` prints."""
    return lambda *overrides: output(*on(genecis, overrides))


@pytest.fixture
def evaluation_refused(refusal, genecis) -> Callable[..., str]:
    """The one line of an evaluation that must fail."""
    return lambda *overrides: refusal(*on(genecis, overrides))


@pytest.fixture
def row_of(genecis) -> Callable[..., dict]:
    """What evaluate.py has written: the row of a label, task and method."""

    def row_of(method="paper", task="focus_object", label="clip-b16") -> dict:
        rows = read_rows(genecis.parent / "out/similarity_retrieval/run/results.json")
        wanted = {"label": label, "data": task, "method": method}
        return next(row for row in rows if wanted.items() <= row["about"].items())

    return row_of
