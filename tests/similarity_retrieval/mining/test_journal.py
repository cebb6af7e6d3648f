"""A file that grows batch by batch: killed, foreign, damaged and shortened."""

from collections import Counter

import pytest

from crl.run.errors import UserError
from similarity_retrieval.mining.journal import Journal, batches


@pytest.fixture
def file(tmp_path):
    """Two batches of a file that is not finished."""
    with Journal(tmp_path / "rows.jsonl", "key") as journal:
        journal.add(["a", "é"], 3, Counter(good=2))
        journal.add([], 1, Counter(bad=1))
    return tmp_path / "rows.jsonl"


def test_batches():
    assert list(batches(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(batches([], 2)) == []


def test_goes_on_after_the_last_whole_batch(file):
    with file.open("ab") as stream:
        stream.write(b"half a li")  # what a killed run left
    with Journal(file, "key") as journal:
        assert journal.done == 4 and not journal.finished
        journal.add(["c"], 2, Counter(good=1))
        journal.finish()
    assert file.read_text(encoding="utf-8") == "a\né\nc\n"
    found = Journal(file, "key")
    assert (found.done, found.finished, found.counts) == (6, True, Counter(good=3, bad=1))


def test_foreign_damaged_and_shortened_files_are_refused(file):
    def refused(match, key="key"):
        before = file.read_bytes()
        with pytest.raises(UserError, match=f"{match}; take another name="):
            Journal(file, key)
        assert file.read_bytes() == before

    refused("comes from other inputs or settings", key="another")
    file.write_bytes(file.read_bytes()[:-1])
    refused("has lost its end")
    record = file.with_suffix(".progress.json")
    record.write_text("{")
    refused("progress.json is damaged")
    record.unlink()
    refused("was not made by this command")


def test_a_finished_file_that_has_grown_is_refused(file):
    with Journal(file, "key") as journal:
        journal.finish()
    with file.open("ab") as stream:
        stream.write(b"another\n")
    with pytest.raises(UserError, match=r"rows\.jsonl is longer than what was written; take"):
        Journal(file, "key")
