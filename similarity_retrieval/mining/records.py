"""The relations of all captions as arrays: the input of the miner."""

from array import array
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from crl.run.errors import UserError, explain
from crl.run.progress import progress
from similarity_retrieval.mining.captions import lines
from similarity_retrieval.mining.scene_graphs import Graph


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
    columns = [array("i") for _ in range(4)]
    captions = 0
    for where, line in progress(lines(file), label="graphs", unit="lines"):
        try:
            graph = Graph.model_validate_json(line)
        except ValidationError as error:
            raise UserError(f"{where}: {explain(error)}") from error
        captions += 1
        image = images.setdefault(graph.image, len(images))
        for found in graph.relations:
            columns[0].append(image)
            columns[1].append(words.setdefault(found.subject, len(words)))
            columns[2].append(relations.setdefault(found.relation, len(relations)))
            columns[3].append(words.setdefault(found.object, len(words)))
    if not columns[0]:
        what = f"none of its {captions} captions has a relation" if captions else "it is empty"
        raise UserError(f"{file}: there is nothing to mine, {what}")
    image, subject, relation, object_ = (np.frombuffer(column, np.int32) for column in columns)
    return Records(
        list(images), list(words), list(relations), image, subject, relation, object_, captions
    )
