"""The relations of all captions: the input of the miner."""

import sys
from pathlib import Path
from typing import Annotated, NamedTuple

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


class Record(NamedTuple):
    """A relation, and the image whose caption states it."""

    image: str
    subject: str
    relation: str
    object: str


def read_graphs(file: Path) -> tuple[list[Record], int]:
    """All relations in a JSONL of graphs, {"image": ..., "relations": [{"subject", "relation",
    "object"}]}, and the number of captions. A UserError names the line that is malformed."""
    records: list[Record] = []
    captions = 0
    for graph in progress(read_jsonl(Graph, file), label="graphs", unit="lines"):
        captions += 1
        for relation in graph.relations:
            names = (graph.image, relation.subject, relation.relation, relation.object)
            records.append(Record(*map(sys.intern, names)))  # equal strings take memory once
    if not records:
        raise UserError(f"{file}: not one of its {captions} captions has a relation")
    return records, captions
