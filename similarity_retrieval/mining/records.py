"""The input of the miner: the relations of all captions, and how concrete their words are."""

import sys
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import BaseModel, Field, StringConstraints

from crl.run.errors import UserError
from crl.run.progress import progress
from similarity_retrieval.mining.captions import Name
from similarity_retrieval.mining.files import read_jsonl, read_table

Word = Annotated[
    str, StringConstraints(strip_whitespace=True, to_lower=True, min_length=1, max_length=60)
]


class Relation(BaseModel):
    """(dog, sitting on, bench), lower-cased."""

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


class _Rating(BaseModel):
    """How concrete a word is: dog 4.9, idea 1.6 (Brysbaert, Warriner and Kuperman, 2014)."""

    word: str
    concreteness: float = Field(alias="conc.m", ge=1, le=5)


def read_ratings(file: Path) -> dict[str, float]:
    """Word -> mean concreteness from 1 to 5, from a tab-separated file with Word and Conc.M."""
    ratings = {row.word.strip().lower(): row.concreteness for row in read_table(_Rating, file)}
    if not ratings:
        raise UserError(f"{file} holds no ratings")
    return ratings


def concreteness(word: str, ratings: dict[str, float]) -> float:
    """The rating of `word`, else of its singular, else -1 (GeneCIS's value for unknown words)."""
    forms = (word, word.removesuffix("s"), word.removesuffix("es"))
    return next((ratings[form] for form in forms if form in ratings), -1.0)
