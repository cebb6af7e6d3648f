"""A results.json that is none: no task overwrites it, and no table shows it."""

import json

import pytest
from mistakes import NO_RECORDS

FORM = {"format": "crl-results-2"}
DAMAGED = [
    *NO_RECORDS,
    *map(
        json.dumps,
        [
            {},
            FORM,
            FORM | {"rows": None},
            FORM | {"rows": 7},
            FORM | {"rows": [7]},
            FORM | {"rows": [{"about": {}}]},
            FORM | {"rows": [{"about": 7, "scores": {}}]},
            FORM | {"rows": [{"scores": {}}]},
            {"format": "crl-results-9", "rows": []},
        ],
    ),
]
ROW: dict = {"about": {"data": "d"}, "scores": {"universal": {}}}
LACKING = [ROW | {"scores": scores} for scores in ({}, None, 7, [])]
LACKING += [ROW | {"about": about} for about in ({}, {"data": []}, {"method": 7})]
TASKS = {
    "clustering": "clustering_of",
    "few_shot": "few_shot_of",
    "similarity_retrieval": "similarity_of",
    "fashion_retrieval": "fashion_of",
}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("content", DAMAGED, ids=range(len(DAMAGED)))
def test_no_task_goes_on_with_it(refused, task, content):
    file = f"outputs/{task}/run/results.json"
    refused(TASKS[task], f"{file} is not a results file, or is damaged; remove it", {file: content})


@pytest.mark.parametrize("task", TASKS)
def test_one_of_a_former_version(refused, task):
    file = f"outputs/{task}/run/results.json"
    words = f"{file} is of a former version of this repository; remove it and run the task again"
    refused(TASKS[task], words, {file: '{"cells": []}'})


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("content", DAMAGED, ids=range(len(DAMAGED)))
def test_no_table_shows_it(refused, task, content):
    file = f"outputs/{task}/run/results.json"
    words = f"{file} is not a results file, or is damaged; remove it"
    refused(f"reproduce_tables --runs outputs/{task}/run", words, {file: content})


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("row", LACKING, ids=range(len(LACKING)))
def test_rows_that_lack_something(refused, task, row):
    content = json.dumps(FORM | {"rows": [row]})
    words = "lacks what its table needs ("
    files = {f"outputs/{task}/run/results.json": content}
    refused(f"reproduce_tables --runs outputs/{task}/run", words, files)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--runs pictures", "pictures is no run of clustering or few_shot or"),
        ("--runs outputs/clustering/no", "there is no outputs/clustering/no/results.json; run the"),
        ("", "say --table N, --table all, or --runs"),
        ("--x", "unrecognized arguments: --x"),
        ("--table 14", "argument --table: invalid choice: '14'"),
        ("--table 1 --vlm clpi", "unknown VLM 'clpi'; did you mean 'clip'?"),
    ],
)
def test_what_there_is_no_table_of(refused, line, words):
    refused(f"reproduce_tables {line}", words)
