"""Stamps: which files may be trusted, and records of them."""

import json
import os
import time

import pytest

from crl.run.stamps import SETTLED, read_record, settled_stamps, stamps, write_record


@pytest.mark.parametrize(("seconds", "trusted"), [(-3, True), (-1, False), (0, False), (60, False)])
def test_a_file_that_has_just_changed_or_in_the_future_is_not_settled(tmp_path, seconds, trusted):
    file, gone = tmp_path / "a", tmp_path / "gone"
    file.write_bytes(b"123")
    changed = time.time_ns() + seconds * 10**9
    os.utime(file, ns=(0, changed))
    stamp = {str(file): [3, changed, file.stat().st_ctime_ns]}
    assert stamps([file, gone]) == stamp and SETTLED == 2e9
    assert settled_stamps([gone, file]) == (stamp if trusted else {})


def test_a_record_is_read_whole_or_not_at_all(tmp_path):
    record, content = tmp_path / "new/record.json", {"a": [1, "\udcff ü"], "b": None}
    assert read_record(record) == {}
    write_record(record, content)
    whole = record.read_bytes()
    assert read_record(record) == content
    for place in range(len(whole)):
        record.write_bytes(whole[:place] + bytes([whole[place] ^ 2]) + whole[place + 1 :])
        assert read_record(record) in ({}, content)  # white space may differ
    for damaged in (whole[:-5], b"", b"1", b"[1, {}]", json.dumps(content).encode()):
        record.write_bytes(damaged)
        assert read_record(record) == {}
    record.rename(record.with_name("other.json"))
    record.mkdir()
    write_record(record, content)  # cannot be written: no error
