"""A file is the complete old one or the complete new one; nothing else is left in its folder."""

import errno
import os

import pytest

from crl.run.files import atomic_path


def test_new_file_appears_only_when_complete(tmp_path):
    target = tmp_path / "new" / "folder" / "file.txt"
    with atomic_path(target) as temporary:
        temporary.write_text("half")
        assert temporary.parent == target.parent and not target.exists()
    assert target.read_text() == "half"
    assert os.listdir(target.parent) == ["file.txt"]


@pytest.mark.parametrize("former", ["former", None])
@pytest.mark.parametrize(
    "error", [ValueError("bug"), KeyboardInterrupt(), OSError(errno.ENOSPC, "full")]
)
def test_error_keeps_the_former_file(tmp_path, former, error):
    target = tmp_path / "file.txt"
    if former:
        target.write_text(former)
    with pytest.raises(type(error)) as caught, atomic_path(target) as temporary:
        temporary.write_text("half")
        raise error
    assert caught.value is error
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == (
        {"file.txt": former} if former else {}
    )


def test_two_writers_at_once_do_not_mix(tmp_path):
    target = tmp_path / "file"
    with atomic_path(target) as first, atomic_path(target) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert target.read_text() == "first"  # the last to finish
    assert os.listdir(tmp_path) == ["file"]
