"""Procedurally drawn data sets for the demo: each module of this folder is one world.

A world has
- `PHRASES`: attribute -> class -> ways to say it (the first is the class's own name; a class with
  none is never said: captions name the objects that are there, not those that are not);
- `DATASET`: the folder that `write` makes;
- `DOMINANT`: the attributes that everyday captions of this world name almost always;
- `sample(rng)`: random facts, {attribute: class} for every attribute;
- `draw(facts, rng)`: a PIL image of `facts`;
- `caption(facts, rng)`: a sentence that names exactly the attributes in `facts`;
- `write(root, images, seed, workers)`: a data set in the official on-disk format.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from tqdm import tqdm

WORLDS = ("clevr4", "cards", "scenes", "garments")


def sample_facts(phrases: dict[str, dict], rng: np.random.Generator) -> dict[str, str]:
    """One class for every attribute, each drawn uniformly and independently of the others."""
    return {a: str(rng.choice(list(classes))) for a, classes in phrases.items()}


def draw_many(task: Callable, arguments: list, workers: int, label: str) -> Iterator:
    """`map(task, arguments)` over processes, in order, with a progress bar."""
    bar = tqdm(total=len(arguments), desc=label, unit="image", disable=None)
    with bar, ProcessPoolExecutor(workers or os.cpu_count()) as pool:
        for result in pool.map(task, arguments, chunksize=64):
            bar.update()
            yield result
