"""What is kept of a collection: lists, copies, links and sidecars; all of it or nothing."""

import errno
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crl.explore.collection import Collection
from crl.explore.export import distinct, export, safe
from crl.run.errors import UserError

GROUPS = {"Calm: a/b": [0, 5], "calm, a b": [5], "CON": [7]}
DC = "{http://purl.org/dc/elements/1.1/}subject"


@pytest.fixture
def own(photos, tmp_path):
    """The same pictures, one of them in a folder, under the name of another."""
    shutil.copytree(photos.folder, tmp_path / "in")
    (tmp_path / "in/sub").mkdir()
    (tmp_path / "in" / photos.names[0]).rename(tmp_path / "in/sub" / photos.names[5].upper())
    return Collection.embed(tmp_path / "in", photos.vlm)


def content(folder: Path) -> dict[str, bytes]:
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def test_lists_copies_links(own, tmp_path):
    before = content(own.folder)
    last = own.names.index(f"sub/{own.names[4].upper()}")  # the folder comes last
    groups = {**GROUPS, "Calm: a/b": [4, last]}
    names = ["calm-a-b", "calm-a-b-2", "con-"]
    assert export(tmp_path / "new/lists", own, groups, "lists") == 4
    lists = content(tmp_path / "new/lists")
    assert set(lists) == {f"{name}.txt" for name in names}
    assert lists["calm-a-b.txt"].decode().splitlines() == [str(own.files[i]) for i in (4, last)]
    first, second = own.files[4].name, f"{own.files[4].name.upper()[:-4]}-2.PNG"
    for kind in ("copies", "links"):
        assert export(tmp_path / kind, own, groups, kind) == 4
        kept = content(tmp_path / kind)
        assert sorted({Path(name).parts[0] for name in kept}) == names
        assert {f"calm-a-b/{first}", f"calm-a-b/{second}"} <= set(kept)
        assert kept[f"calm-a-b/{second}"] == own.files[last].read_bytes()
        assert (tmp_path / kind / f"calm-a-b/{first}").is_symlink() == (kind == "links")
    assert content(own.folder) == before


def test_sidecars(own, tmp_path):
    export(tmp_path / "kept", own, {"red & <blue>": [0, 23], "über": [23]}, "xmp")
    kept = content(tmp_path / "kept")
    assert set(kept) == {
        f"{own.names[i]}.xmp" for i in (0, 23)
    }  # as digiKam and darktable name them
    words = ET.fromstring(kept[f"{own.names[23]}.xmp"]).find(f".//{DC}")
    assert [word.text for word in words.iter() if (word.text or "").strip()] == [
        "red & <blue>",
        "über",
    ]


def test_all_or_nothing(own, tmp_path, monkeypatch):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/a.txt").touch()
    (tmp_path / "file").touch()
    reasons = dict.fromkeys(["in/kept", "in"], "in the folder of the pictures")
    for name, reason in {**reasons, "theirs": "is not empty", "file": "is not empty"}.items():
        with pytest.raises(UserError, match=reason):
            export(tmp_path / name, own, GROUPS, "copies")
    before = content(tmp_path)
    full = OSError(errno.ENOSPC, "No space left on device")
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(shutil, "copyfile", lambda *_, **__: (_ for _ in ()).throw(full))
        export(tmp_path / "kept", own, GROUPS, "copies")
    own.files[5].unlink()
    with pytest.raises(UserError, match="1 pictures are not here, the first: "):
        export(tmp_path / "kept", own, GROUPS, "links")
    assert not list(tmp_path.glob(".*"))
    left = before.keys() - content(tmp_path).keys()
    assert len(left) == 1 and not (tmp_path / "kept").exists()
    assert export(tmp_path / "kept", own, GROUPS, "lists") == 3


@given(st.lists(st.text(max_size=4) | st.sampled_from(["a", "A", "a-2", "a.b", "Nul", "com1"])))
def test_names_are_safe_and_distinct(names):
    parts = distinct(map(safe, names))
    assert len({part.casefold() for part in parts}) == len(names)
    for part in parts:
        assert part.strip(" .") == part != "" and not set(part) & set('<>:"/\\|?*\0')
        assert part not in {"con", "nul", "com1"}
