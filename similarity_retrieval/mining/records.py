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
    """Read a JSONL of graphs: {"image": ..., "relations": [{"subject", "relation", "object"}]}.

    Returns:
        All relations of all captions, and the number of captions.

    Raises:
        UserError: a malformed line (the message has its number), or no relations at all.
    """
    records: list[Record] = []
    captions = 0
    for graph in progress(read_jsonl(Graph, file), label="graphs", unit="lines"):
        captions += 1
        for relation in graph.relations:
            names = (graph.image, relation.subject, relation.relation, relation.object)
            records.append(Record(*map(sys.intern, names)))  # equal strings take memory once
    if not records:
        reason = f"none of its {captions} captions has a relation" if captions else "it is empty"
        raise UserError(f"{file}: there is nothing to mine, {reason}")
    return records, captions
