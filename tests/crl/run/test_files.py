"""A file is the complete old one or the complete new one; nothing else is left in its folder."""

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crl.run.files import atomic_path, write_text


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


def test_error_while_renaming_keeps_the_former_file(tmp_path, monkeypatch):
    target = tmp_path / "file.txt"
    target.write_text("former")

    def refuse(*_):
        raise PermissionError("no")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(PermissionError):
        write_text(target, "new")
    assert os.listdir(tmp_path) == ["file.txt"] and target.read_text() == "former"


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_permissions_are_those_of_an_ordinary_file(tmp_path, umask):
    former = os.umask(umask)
    try:
        (tmp_path / "ordinary").write_text("")
        write_text(tmp_path / "atomic", "")
        assert os.umask(umask) == umask
    finally:
        os.umask(former)
    modes = [(tmp_path / name).stat().st_mode for name in ("ordinary", "atomic")]
    assert modes[0] == modes[1]


def test_two_writers_at_once_do_not_mix(tmp_path):
    target = tmp_path / "file"
    with atomic_path(target) as first, atomic_path(target) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert target.read_text() == "first"  # the last to finish
    assert os.listdir(tmp_path) == ["file"]


@given(text=st.text(st.characters(exclude_categories=["Cs", "Cc"])))
def test_text_is_utf8(tmp_path_factory, text):
    target = Path(tmp_path_factory.getbasetemp()) / "text"
    write_text(str(target), text)
    assert target.read_bytes() == text.encode("utf-8")
