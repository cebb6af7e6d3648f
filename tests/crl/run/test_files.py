"""A file is the complete old one or the complete new one; nothing else is left in its folder."""

import codecs
import ctypes
import errno
import os
import sys
from types import SimpleNamespace

import pytest

from classification_clustering import datasets as labelled
from crl.basis import TextBasis
from crl.explore.labels import read_labels
from crl.explore.listing import find_images
from crl.run.errors import UserError
from crl.run.files import alone_in, atomic_path, portable, read_text, read_yaml, remove_leftovers
from fashion_retrieval import datasets as fashion


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


# --- texts ----------------------------------------------------------------------------------------

KINDS = {  # a text as other programs write it
    "plain": str.encode,
    "mark": lambda text: codecs.BOM_UTF8 + text.encode(),
    "UTF-16": lambda text: text.encode("utf-16"),
    "UTF-16, big": lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
    "Windows": lambda text: text.replace("\n", "\r\n").encode("utf-8-sig"),
    "Windows, UTF-16": lambda text: text.replace("\n", "\r\n").encode("utf-16"),
    "old Mac": lambda text: text.replace("\n", "\r").encode(),
}
CLEVR4 = '{"grün": {"color": "red"}, "b": {"color": "blue"}}'
READERS = {  # name of the file -> its text, and what reads it
    "any.txt": ("grün\n\nb\n", read_text),
    "a.yaml": ("a: grün\nb: 1\n", read_yaml),
    "b.yaml": ("criterion: a\nvlm_prompt: '{text}'\ntexts:\n- grün\n- b\n", TextBasis.load),
    "texts.txt": ("grün\nb\n", TextBasis.load),
    "few.csv": ("file,label\ngrün.png,calm\nb.png,tense\n", read_labels),
    "list.txt": ("grün.png\nb.png\n", lambda file: find_images(str(file))),
    "filenames_test.txt": ("img/grün.png\nimg/b.png\n", fashion._names),
    "query_test.txt": (
        "0 0 1\n1 0 1\n", lambda file: fashion._rows(file, 2, ["a"], [2]).tolist()
    ),
    "clevr_4_10k_v1/clevr_4_annots.json": (
        CLEVR4, lambda file: labelled._clevr4(file.parent.parent, "color").labels.tolist(),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_text_is_the_same_whichever_program_wrote_it(tmp_path, monkeypatch, name, kind):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clevr_4_10k_v1/images").mkdir(parents=True)
    for picture in ("grün.png", "b.png"):
        (tmp_path / picture).touch()
        (tmp_path / "clevr_4_10k_v1/images" / picture).touch()
    text, read = READERS[name]
    file = tmp_path / name
    file.write_text(text)
    expected = read(file)
    file.write_bytes(KINDS[kind](text))
    assert read(file) == expected


@pytest.mark.parametrize("read", [read_text, read_yaml, read_labels])
def test_what_is_no_text_is_one_line(tmp_path, read):
    file = tmp_path / "file"
    with pytest.raises(UserError, match=r"cannot read [^ ]+file: No such file"):
        read(file)
    file.write_bytes("grün".encode("latin-1"))
    with pytest.raises(UserError, match="file is not a text in UTF-8"):
        read(file)
    file.unlink()
    os.mkfifo(file)  # to read it would wait for ever
    with pytest.raises(UserError, match="file is not a regular file"):
        read(file)


FORMS = ["Café/a.png", "Cafe\u0301/a.png", "Café\\a.png", "Cafe\u0301\\a.png"]


@pytest.mark.parametrize("there", FORMS[:2])
@pytest.mark.parametrize("name", FORMS)
def test_a_list_of_another_system_names_the_files(tmp_path, monkeypatch, there, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / there).parent.mkdir()
    (tmp_path / there).touch()
    (tmp_path / "list.txt").write_text(name)
    assert find_images("list.txt")[0] == [there]
    assert portable(name) == portable(there)


# --- one command per folder -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["holder", "lock"])
def test_a_link_beside_the_folder_is_not_written_through(tmp_path, kind):
    letter = tmp_path / "letter"
    letter.write_text("dear")
    (tmp_path / f".out.{kind}").symlink_to(letter)
    try:
        with alone_in(tmp_path / "out"):
            (tmp_path / "out/result").touch()
    except UserError as error:
        assert "cannot write to" in str(error)
    assert letter.read_text() == "dear"


@pytest.mark.parametrize(("handle", "state", "left"), [(0, -1, 0), (8, 0, 0), (8, 258, 1)])
def test_on_windows_no_signal_asks_who_is_alive(tmp_path, monkeypatch, handle, state, left):
    with atomic_path(tmp_path / "file") as temporary:
        (tmp_path / "copy").hardlink_to(temporary)
    (tmp_path / "copy").rename(temporary)  # as a killed process would leave it
    closed = []
    kernel = SimpleNamespace(
        OpenProcess=lambda access, inherit, process: handle,
        WaitForSingleObject=lambda handle, milliseconds: state, CloseHandle=closed.append,
    )  # fmt: skip
    monkeypatch.setattr(ctypes, "windll", SimpleNamespace(kernel32=kernel), raising=False)
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("it sends Ctrl-C to the group"))
    remove_leftovers(tmp_path)
    assert temporary.exists() == left and closed == [handle]


def test_on_windows_an_open_lock_cannot_be_removed(tmp_path, monkeypatch):
    def refused(path, missing_ok=False):
        if path.suffix == ".lock":
            raise PermissionError(32, "used by another process")
        os.unlink(path) if path.exists() else None

    monkeypatch.setattr("pathlib.Path.unlink", refused)
    with alone_in(tmp_path / "new/out"):
        pass
    assert not (tmp_path / "new/out").exists()
