"""Graphs read as records, and what cannot be mined."""

import json

import pytest
from mining_files import graph, write_jsonl

from similarity_retrieval.mining.records import read_graphs

BEDS = "".join(json.dumps(graph(str(i), ("dog", "on", "bed"))) + "\n" for i in range(5))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", "g.jsonl: there is nothing to mine, it is empty"),
        ('{"image": "a", "relations": []}\n', "none of its 1 captions has a relation"),
        ('{"image": "a", "relations": []}\n{"image"', "g.jsonl:2: "),
        ('{"image": "a"}\n', "g.jsonl:1: relations: is missing"),
        ('{"image": "a", "relations": [{"subject": "x", "object": "y"}]}', "relations.0.relation"),
        (json.dumps(graph("a", ("x", "on", " "))), "g.jsonl:1: relations.0.object"),
        (json.dumps(graph("a", ("x", "on", "y" * 61))), "g.jsonl:1: relations.0.object"),
        (json.dumps(graph("a", ("x", 3, "y"))), "g.jsonl:1: relations.0.relation"),
        (BEDS, "5 images or more and with 2 objects or more (1 subjects)"),
    ],
)
def test_malformed_graphs_are_named(mine_refused, tmp_path, lines, message):
    (tmp_path / "g.jsonl").write_text(lines)
    assert message in mine_refused(graphs=tmp_path / "g.jsonl")


def test_words_are_folded(tmp_path):
    graphs = [graph("a", ("Dog ", "On", "BED")), graph("b"), graph("c", ("dog", "on", "bed"))]
    records, captions = read_graphs(write_jsonl(tmp_path / "g.jsonl", graphs))
    assert records == [("a", "dog", "on", "bed"), ("c", "dog", "on", "bed")] and captions == 3
