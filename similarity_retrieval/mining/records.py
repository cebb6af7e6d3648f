"""The relations of all captions as arrays: the input of the miner."""

from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, StringConstraints

from crl.run.errors import UserError
from crl.run.progress import progress
from similarity_retrieval.mining.captions import Name
from similarity_retrieval.mining.files import read_jsonl

Word = Annotated[
    str, StringConstraints(strip_whitespace=True, to_lower=True, min_length=1, max_length=60)
]


class Relation(BaseModel):
    """One statement of a caption, lower-cased: (dog, sitting on, bench)."""

    subject: Word
    relation: Word
    object: Word


class Graph(BaseModel):
    """One line of a graphs file: an image, and the relations of one caption of it."""

    image: Name
    caption: str = ""
    relations: list[Relation]


@dataclass(frozen=True)
class Records:
    """All relations of all captions, as indices into lists of distinct strings.

    Attributes:
        image, subject, relation, object: (R,) int32; subject and object are indices into `words`.
        captions: number of captions.
    """

    images: list[str]
    words: list[str]
    relations: list[str]
    image: np.ndarray
    subject: np.ndarray
    relation: np.ndarray
    object: np.ndarray
    captions: int


def read_graphs(file: Path) -> Records:
    """Read a JSONL of graphs: {"image": ..., "relations": [{"subject", "relation", "object"}]}.

    Raises:
        UserError: a malformed line (the message has its number), or no relations at all.
    """
    # A new string gets the next index.
    images, words, relations = {}, {}, {}
    rows = array("i")  # (R, 4), flat
    captions = 0
    for graph in progress(read_jsonl(Graph, file), label="graphs", unit="lines"):
        captions += 1
        image = images.setdefault(graph.image, len(images))
        for triple in graph.relations:
            subject = words.setdefault(triple.subject, len(words))
            relation = relations.setdefault(triple.relation, len(relations))
            rows.extend((image, subject, relation, words.setdefault(triple.object, len(words))))
    if not rows:
        reason = f"none of its {captions} captions has a relation" if captions else "it is empty"
        raise UserError(f"{file}: there is nothing to mine, {reason}")
    table = np.frombuffer(rows, np.int32).reshape(-1, 4)
    image, subject, relation, obj = np.ascontiguousarray(table.T)
    names = list(images), list(words), list(relations)
    return Records(*names, image, subject, relation, obj, captions)
