"""Archives and data sets that stand for a folder of pictures."""

import io
import os
import stat
import sys
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from color_vlm import ColorVLM
from PIL import Image

from crl.explore import sources
from crl.explore.collection import Collection
from crl.explore.sources import picture_folder
from crl.run.errors import UserError


def content(color: str, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), color).save(stream, kind)
    return stream.getvalue()


FILES = {"a.png": content("red"), "sub/b.JPG": content("blue", "JPEG"), "c": content("green")}
OTHERS = ["../out.png", "sub/../../out.png", "x.txt", ".d.png", "__MACOSX/a.png"]
MEMBERS = {**dict.fromkeys(OTHERS, b"x"), **FILES, "/tmp/e.png": FILES["a.png"]}


def write(file: Path) -> Path:
    if file.suffix == ".zip":
        link = zipfile.ZipInfo("link.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        with zipfile.ZipFile(file, "w") as zipped:
            for name, data in {**MEMBERS, link: "/etc/passwd"}.items():
                zipped.writestr(name, data)
        return file
    with tarfile.open(file, f"w:{file.suffix[1:].replace('tar', '')}") as tar:
        for name, data in {**MEMBERS, **dict.fromkeys(b"1236", b"")}.items():
            info = tarfile.TarInfo(str(name))
            info.size, info.linkname = len(data), "/etc/passwd"
            if isinstance(name, int):  # hard and symbolic links, devices, pipes
                info.type = bytes([name])
            tar.addfile(info, io.BytesIO(data))
    return file


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(sources, "UNPACKED", tmp_path / "cache")
    return tmp_path / "cache"


@pytest.mark.parametrize("ending", ["zip", "tar", "tar.gz", "tar.xz"])
def test_an_archive_is_unpacked_once_and_only_its_pictures(ending, tmp_path, cache, monkeypatch):
    archive = write(tmp_path / f"photos.{ending}")
    photos = Collection.embed(archive, ColorVLM())
    assert photos.names == ["a.png", "c", "sub/b.JPG", "tmp/e.png"] and not photos.left_out
    assert [file.read_bytes() for file in photos.files[:3]] == [FILES[n] for n in photos.names[:3]]
    assert photos.title == str(archive) and not [*tmp_path.rglob("out.png")]
    assert sum(not file.is_dir() for file in photos.folder.parent.rglob("*")) == 4
    with monkeypatch.context() as patch:
        patch.setattr(sources, "_unpack", lambda *_: pytest.fail("unpacked again"))
        assert picture_folder(str(archive)) == photos.folder
    os.utime(archive, ns=(0, 0))
    latter = picture_folder(archive)
    assert latter != photos.folder and [*latter.parent.iterdir()] == [latter]


def test_a_killed_unpacking_is_done_again(tmp_path, cache, monkeypatch):
    archive = write(tmp_path / "photos.zip")
    with monkeypatch.context() as patch:
        patch.setattr(sources.shutil, "rmtree", lambda *_, **__: None)  # as if killed
        patch.setattr(sources, "_check_room", lambda folder, _: 1 / (not any(folder.iterdir())))
        with pytest.raises(UserError, match="division by zero"):
            picture_folder(archive)
        assert [folder.name for folder in cache.glob("*/*")] == ["unfinished"]
    assert len(Collection.embed(archive, ColorVLM()).files) == 4


def test_archives_that_cannot_be_unpacked(tmp_path, cache, monkeypatch):
    with zipfile.ZipFile(tmp_path / "empty.zip", "w") as zipped:
        zipped.writestr("notes.txt", bytes(10**6))
    empty, packed = (tmp_path / "empty.zip").read_bytes(), write(tmp_path / "a.tar.gz").read_bytes()
    data = write(tmp_path / "a.zip").read_bytes()
    for name, damaged, message in [
        ("cut.zip", data[:-30], "it must be a folder, or a zip or tar archive"),
        ("cut.tar.gz", packed[:-60], "end-of-stream marker"),
        ("bytes.zip", data.replace(FILES["c"], FILES["c"][::-1]), "Bad CRC"),
        ("locked.zip", data.replace(b"PK\1\2\x14\3\x14\0\0", b"PK\1\2\x14\3\x14\0\1"), "password"),
        ("empty.zip", empty, "there are no pictures in"),
    ]:
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(UserError, match=message):
            picture_folder(tmp_path / name)
    with monkeypatch.context() as patch, pytest.raises(UserError, match="no room for the pictures"):
        patch.setattr(sources.shutil, "disk_usage", lambda _: SimpleNamespace(free=20))
        picture_folder(tmp_path / "a.zip")
    monkeypatch.setattr(sources, "ALWAYS", 10**5)
    monkeypatch.setattr(sources, "MOST_TIMES", 0)
    with pytest.raises(UserError, match="times its size; unpack it yourself"):
        picture_folder(tmp_path / "empty.zip")
    assert not [*cache.glob("*/*")]


class Rows(list):
    """Stands in for a data set of the package datasets."""

    features: dict
    select_columns = cast_column = lambda self, *_: self


@pytest.fixture(params=["stand-in", "datasets"])
def hub(request, monkeypatch, tmp_path):
    """Makes `load_dataset` give rows whose `columns` hold pictures; gives what it was asked."""
    module = SimpleNamespace(Image=SimpleNamespace, config=SimpleNamespace(HF_DATASETS_CACHE="x"))
    if request.param == "datasets":
        module = pytest.importorskip("datasets")
    monkeypatch.setitem(sys.modules, "datasets", module)
    monkeypatch.setattr(module.config, "HF_CACHE_HOME", tmp_path / "hub", raising=False)

    def serve(rows, *columns):
        asked, table = [], Rows(rows)
        table.features = dict.fromkeys(rows[0]) | {column: module.Image() for column in columns}
        if request.param == "datasets":
            table = module.Dataset.from_list(rows)
            for column in columns:
                table = table.cast_column(column, module.Image())
        load = lambda name, split: asked.append((name, split)) or table  # noqa: E731
        monkeypatch.setattr(module, "load_dataset", load, raising=False)
        return asked

    return serve


def test_a_data_set(hub, tmp_path):
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub/in cache.jpg").write_bytes(FILES["sub/b.JPG"])
    (tmp_path / "secret.png").write_bytes(FILES["a.png"])
    pictures = [
        (FILES["a.png"], "x/A cat.png"), (FILES["sub/b.JPG"], None), (b"damaged", "../../a.b/c"),
        (None, str(tmp_path / "hub/in cache.jpg")), (None, str(tmp_path / "secret.png")),
    ]  # fmt: skip
    rows = [{"image": {"bytes": data, "path": path}, "label": 1} for data, path in pictures]
    asked = hub([*rows, {"image": None, "label": 1}], "image")
    for name in ("hf:owner/name:train[:9]", Path("hf:owner/name:train[:9]")):
        photos = Collection.embed(name, ColorVLM())
        assert photos.names == ["000000-a-cat.png", "000001.png", "000003-in-cache.jpg"]
    assert photos.files[0].read_bytes() == FILES["a.png"]
    assert photos.title == "hf:owner/name:train[:9]" and asked == [("owner/name", "train[:9]")]


def test_data_sets_that_cannot_be_loaded(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my/pictures").mkdir(parents=True)
    picture = {"bytes": FILES["a.png"], "path": None}
    asked = hub([{"left": picture, "right": picture, "label": 1}], "left", "right")
    assert len([*picture_folder("hf:owner/name:test:right").iterdir()]) == 1
    assert asked == [("owner/name", "test")]

    def refuses(name, message):
        with pytest.raises(UserError, match=message):
            picture_folder(name)

    refuses("hf:owner/name", "name a column of pictures .*; left, right")
    refuses("hf:owner/name::label", "left, right")
    refuses("hf:../name", "must be hf:OWNER/NAME")
    refuses("hf:my/pictures", "there is my/pictures in this folder")
    hub([{"label": 1, "text": "a"}])
    refuses("hf:owner/name", "it has none")
    monkeypatch.setattr(sys.modules["datasets"], "load_dataset", lambda *_: 0)
    refuses("hf:owner/name", "cannot load hf:owner/name: .* unexpected keyword")
    monkeypatch.setitem(sys.modules, "datasets", None)
    refuses("hf:owner/name", "pip install 'datasets>=4.0'")
