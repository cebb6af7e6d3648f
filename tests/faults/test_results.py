"""A results.json that is none: no task overwrites it, and no table shows it."""

import json

import pytest
from mistakes import NO_RECORDS

FORM = {"format": "crl-results-2"}
OTHERS = [
    *({}, FORM, FORM | {"rows": 7}, FORM | {"rows": [{"about": {}}]}),
    *(FORM | {"rows": [{"about": 7, "scores": {}}]}, {"format": "crl-results-9", "rows": []}),
]
BAD = [  # content, words
    *((x, "is not a results file, or is damaged") for x in (*NO_RECORDS, *map(json.dumps, OTHERS))),
    (
        '{"cells": []}',
        "is of a former version of this repository; remove it and run the task again",
    ),
]
ROW: dict = {"about": {"data": "d"}, "scores": {"universal": {}}}
LACKING = [ROW | {"scores": {}}, ROW | {"scores": 7}, ROW | {"about": {"data": []}}]
TASKS = {
    "clustering": "clustering_of",
    "few_shot": "few_shot_of",
    "retrieval": "retrieval_of",
    "similarity_retrieval": "similarity_of",
    "fashion_retrieval": "fashion_of",
}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(("content", "words"), BAD, ids=range(len(BAD)))
def test_no_task_goes_on_with_it_and_no_table_shows_it(refused, task, content, words):
    file = f"outputs/{task}/run/results.json"
    for line in (TASKS[task], f"reproduce_tables --runs outputs/{task}/run"):
        refused(line, f"{file} {words}", {file: content})


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("row", LACKING, ids=range(len(LACKING)))
def test_rows_that_lack_something(refused, task, row):
    files = {f"outputs/{task}/run/results.json": json.dumps(FORM | {"rows": [row]})}
    line = f"reproduce_tables --runs outputs/{task}/run"
    refused(line, "lacks what its table needs (", files)
