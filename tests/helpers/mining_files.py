"""Small files of captions, scene graphs and triplets, and a stand-in of spaCy."""

import io
import json
import random
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from toy_vlm import make_images


def graph(image: str, *relations: tuple[str, str, str], caption: str = "a caption") -> dict:
    keys = ("subject", "relation", "object")
    return {
        "image": image,
        "caption": caption,
        "relations": [dict(zip(keys, relation, strict=True)) for relation in relations],
    }


def write_jsonl(file: Path, items: list) -> Path:
    file.write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    return file


def read_jsonl(file: Path) -> list:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def write_tar(file: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(file, "w") as shard:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            shard.addfile(entry, io.BytesIO(content))
    return file


def world(n: int = 400, seed: int = 0) -> list[dict]:
    """Graphs of a world with rare and frequent words, several relations and captions per image."""
    draw = random.Random(seed)
    words = [f"w{i}" for i in range(40)]
    weights = [1 / (i + 1) for i in range(40)]

    def relation():
        subject = draw.choices(words, weights)[0]
        return subject, draw.choice(["on", "in front of"]), draw.choices(words, weights)[0]

    graphs = []
    for _ in range(n):
        image = f"{draw.randrange(n * 3 // 4)}.jpg"
        graphs.append(graph(image, *(relation() for _ in range(draw.randrange(4)))))
    return graphs


class Doc(list):
    """A stand-in for spaCy's Doc: tokens, with noun_chunks of single nouns. Of each token,
    `sentence` has word:lemma/part of speech/dependency/position of the head."""

    def __init__(self, sentence: str):
        cells = [cell.split("/") for cell in sentence.split()]
        for i, (text, pos, dep, _) in enumerate(cells):
            word, _, lemma = text.partition(":")
            names = {"text": word, "lemma_": lemma or word.lower(), "pos_": pos, "dep_": dep}
            self.append(SimpleNamespace(i=i, **names, children=[]))
        for token, cell in zip(self, cells, strict=True):
            token.head = self[int(cell[3])]
            if token.head is not token:
                token.head.children.append(token)

    @property
    def noun_chunks(self):
        for token in self:
            if token.pos_ in {"NOUN", "PROPN", "PRON"}:
                yield SimpleNamespace(root=token)


def toy_spacy(monkeypatch, see: Callable[[str], None] = lambda text: None) -> None:
    """`import spacy` gives a parser of `SUBJECT RELATION OBJECT`, which shows `see` each text."""

    class Pipeline:
        def pipe(self, texts, as_tuples, batch_size):
            for text, context in texts:
                see(text)
                words = text.split()
                tags = ("NOUN/ROOT/0", "ADP/prep/0", "NOUN/pobj/1")
                tagged = zip(words, tags, strict=True) if len(words) == 3 else ()
                yield Doc(" ".join("/".join(pair) for pair in tagged)), context

    module = type("spacy", (), {"load": lambda name, exclude: Pipeline()})
    monkeypatch.setitem(sys.modules, "spacy", module)


def write_triplets(folder: Path, count: int = 60, images: int = 12) -> dict:
    """`count` triplets over `images` small pictures; gives keys of a small training on them."""
    make_images(folder / "images", images)
    rng = np.random.default_rng(0)
    with open(folder / "triplets.jsonl", "w") as file:
        for _ in range(count):
            reference, target, _ = (f"{i:03}.png" for i in rng.choice(images, 3, replace=False))
            condition = f"on thing {rng.integers(5)}"
            triplet = {"reference": reference, "target": target, "condition": condition}
            file.write(json.dumps(triplet) + "\n")
    small = {"projection": 8, "hidden": 8, "device": "cpu", "workers": 0, "vlm": "toy", "lr": 1e-3}
    places = {place: folder / place for place in ("images", "cache", "outputs")}
    return {**small, **places, "triplets": folder / "triplets.jsonl", "batch_size": 8, "epochs": 3}
