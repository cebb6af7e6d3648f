"""Downloads from a local server, in small archives with the trees of the real ones."""

import errno
import hashlib
import http.client
import io
import json
import stat
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import check_data
import download
import pytest
from check_data import DATA_SETS, Download
from file_server import FileServer, Reply
from tqdm import tqdm

from classification_clustering.datasets import CARDS_CLASSES, CLEVR4_CLASSES

COCO = {f"val2017/{number:012d}.jpg": bytes([number]) * 90_000 for number in range(3)}
CARDS = {
    f"Data/cards/{criterion}/{classes[number % len(classes)]}/{number}.png": b"x"
    for criterion, classes in CARDS_CLASSES.items()
    for number in range(13)
}
LABELS = {n: {name: c[n] for name, c in CLEVR4_CLASSES.items()} for n in range(10)}
CLEVR4 = {f"images/{number}.png": b"x" for number in range(10)}
CLEVR4 |= {"clevr_4_annots.json": json.dumps(LABELS).encode()}


def zipped(files: dict[Any, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def md5(content: bytes) -> str:
    return f"md5:{hashlib.md5(content).hexdigest()}"


def tree(folder: Path) -> dict[str, bytes]:
    """The files below a folder, but no locks."""
    files = [file for file in folder.rglob("*") if file.is_file() and file.suffix != ".lock"]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


@pytest.fixture
def server(monkeypatch) -> Iterator[FileServer]:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "PAUSES", (0.0,) * 3)
    with FileServer() as server:
        yield server


@pytest.fixture
def offer(server, monkeypatch) -> Callable[..., None]:
    """Puts the files of a small data set on the server, and their addresses into the table."""

    def offer(name: str, *contents: bytes | dict, count: int | None = None, **facts: object):
        files = []
        for file, content in zip(DATA_SETS[name].downloads, contents, strict=True):
            server.files[file.name] = zipped(content) if isinstance(content, dict) else content
            files.append(Download(f"{server.url}/{file.name}", file.unpacked, **facts))
        small = replace(DATA_SETS[name], count=count, downloads=tuple(files))
        monkeypatch.setitem(DATA_SETS, name, small)

    return offer


@pytest.fixture
def coco(offer) -> bytes:
    """The archive of a small COCO on the server."""
    content = zipped(COCO)
    offer("coco", content, count=3, size=len(content), checksum=md5(content))
    return content


@pytest.fixture
def place(tmp_path) -> Path:
    place = tmp_path / "genecis/coco"
    place.mkdir(parents=True)
    return place


# --- what is fetched ------------------------------------------------------------------------------


@pytest.mark.parametrize("above", ["", "clevr_4_10k_v1/", "a/b/"])
def test_clevr4_wherever_it_is_in_its_archive(run, offer, tmp_path, above):
    files = {above + name: content for name, content in CLEVR4.items()}
    offer("clevr4", files | {above + "LICENSE": b"x"}, count=11)
    code, printed, errors = run(download.main, "clevr4", "--data", tmp_path)
    assert (code, errors) == (0, "") and "clevr4: complete" in printed and "11 files" in printed
    assert tree(tmp_path / "clevr_4_10k_v1") == CLEVR4


def test_cards_are_taken_from_an_archive_of_several_data_sets(run, offer, tmp_path):
    others = {"Data/fruit/color/red/a.png": b"x", "__MACOSX/Data/cards/number/ace/._a": b"x"}
    offer("cards", CARDS | others, count=26)
    assert run(download.main, "cards", "--data", tmp_path)[0] == 0
    assert tree(tmp_path) == {name.removeprefix("Data/"): b"x" for name in CARDS}


def test_an_incomplete_tree_is_filled_and_other_files_stay(run, coco, place, tmp_path):
    (place / "val2017").mkdir()
    (place / "val2017/notes.txt").write_text("mine")
    (place / "val2017/000000000000.jpg").write_bytes(b"half")
    assert run(download.main, "coco", "--data", tmp_path)[0] == 0
    assert tree(place) == COCO | {"val2017/notes.txt": b"mine"}


def test_an_archive_got_by_hand(run, refusal, server, coco, place, tmp_path):
    (place / "val2017.zip").write_bytes(coco[:-1])
    assert "delete it" in refusal(download.main, "coco", "--data", tmp_path)
    assert tree(place) == {"val2017.zip": coco[:-1]}
    (place / "val2017.zip").write_bytes(coco)
    assert run(download.main, "coco", "--data", tmp_path)[0] == 0
    assert tree(place) == COCO and server.requests == []


# --- interrupted ----------------------------------------------------------------------------------


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no ranges"])
def test_an_interrupted_download_goes_on(run, server, coco, monkeypatch, place, tmp_path, ranges):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(download, "CHUNK", 100_000)
        patch.setattr(tqdm, "update", interrupted)
        assert run(download.main, "coco", "--data", tmp_path)[0] == 130
    assert (place / "val2017.zip.part").stat().st_size == 100_000
    server.replies = [Reply(ranges=ranges)]
    assert run(download.main, "coco", "--data", tmp_path)[0] == 0
    assert server.requests == [("val2017.zip", None), ("val2017.zip", "bytes=100000-")]
    assert tree(place) == COCO


def test_a_transfer_that_breaks_off_goes_on_from_there(run, refusal, server, coco, tmp_path):
    server.replies = [Reply(cut=1000)] * 3
    message = refusal(download.main, "coco", "--data", tmp_path)
    assert "it broke off after 3,000 of" in message and "give the command again" in message
    server.replies = [Reply(cut=1000), Reply(status=503)]
    assert run(download.main, "coco", "--data", tmp_path)[0] == 0
    wishes = [None, *(f"bytes={start}-" for start in (1000, 2000, 3000, 4000, 4000))]
    assert [wish for _, wish in server.requests] == wishes
    assert tree(tmp_path / "genecis/coco") == COCO


@pytest.mark.parametrize("checked", [True, False], ids=["checksum", "CRC of the archive"])
def test_halves_of_two_versions_are_noticed(run, refusal, offer, place, tmp_path, checked):
    old, new = zipped(COCO), zipped({name: b"!" * 90_000 for name in COCO})
    offer("coco", new, count=3, checksum=md5(new) if checked else "")
    (place / "val2017.zip.part").write_bytes(old[:100_000])
    message = refusal(download.main, "coco", "--data", tmp_path)
    assert ("has the checksum" if checked else "is damaged: Bad CRC-32") in message
    (place / "val2017.zip").unlink(missing_ok=True)
    assert run(download.main, "coco", "--data", tmp_path)[0] == 0


def test_a_killed_unpacking_goes_on_from_the_archive(run, server, coco, monkeypatch, tmp_path):
    read, numbers = zipfile.ZipFile.open, count()

    def killed(*arguments):
        if next(numbers) == 2:
            raise KeyboardInterrupt
        return read(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(zipfile.ZipFile, "open", killed)
        assert run(download.main, "coco", "--data", tmp_path)[0] == 130
    assert check_data.state("coco", tmp_path)[0] == "incomplete: 2 of 3 files"
    assert run(download.main, "coco", "--data", tmp_path)[0] == 0
    assert tree(tmp_path / "genecis/coco") == COCO and len(server.requests) == 1


# --- what goes wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("replies", "facts", "reason"),
    [
        ([Reply(status=401)], {}, "401 Unauthorized"),
        ([Reply(status=404)], {}, "404 Not Found"),
        ([Reply(status=503)] * 3, {}, "503 Service Unavailable, 3 times"),
        ([Reply(status=200, body=b"\n<!DOCTYPE html><p>Sign in")], {}, "is empty or a web page"),
        ([Reply(status=200, body=b"")], {}, "is empty or a web page"),
        ([Reply(status=200, body=b"no zip")], {}, "is not a whole zip archive"),
        ([Reply(length=99_999)], {}, "is not a whole zip archive"),  # and no more bytes are read
        ([Reply(length=999_999, ranges=False)] * 3, {}, "broke off"),
        ([], {"size": 5}, "bytes now, not 5"),
        ([], {"checksum": md5(b"other")}, f"not {md5(b'other')}"),
    ],
)
def test_wrong_answers(refusal, offer, server, tmp_path, replies, facts, reason):
    offer("coco", COCO, count=3, **facts)
    server.replies = replies
    message = refusal(download.main, "coco", "--data", tmp_path)
    assert reason in message
    assert f"get val2017.zip by hand from {DATA_SETS['coco'].page}" in message
    assert f"put it in {tmp_path / 'genecis/coco'}" in message
    if reason != "broke off":
        assert tree(tmp_path) == {}


def test_a_full_disk(refusal, coco, monkeypatch, tmp_path):
    def full(*_):
        raise OSError(errno.ENOSPC, "")

    monkeypatch.setattr(tqdm, "update", full)
    assert "the disk is full" in refusal(download.main, "coco", "--data", tmp_path)


@pytest.mark.parametrize("known", [True, False], ids=["size", "size not known"])
@pytest.mark.parametrize("endless", [True, False], ids=["endless", "a large length"])
def test_a_server_that_sends_too_much(
    refusal, offer, server, place, monkeypatch, tmp_path, known, endless
):
    monkeypatch.setattr(download, "MOST_BYTES", 50_000)
    offer("coco", COCO, count=3, size=50_000 if known else None)
    server.replies = [Reply(endless=endless)]
    message = refusal(download.main, "coco", "--data", tmp_path)
    assert "sends more than 50,000 bytes" in message or "bytes now, not 50,000" in message
    assert not any(tree(tmp_path).values()) and len(server.requests) == 1


def test_what_is_encrypted_stays_so(refusal, offer, server, monkeypatch, tmp_path):
    """The server takes https as it takes http, without a certificate."""

    def https_open(handler, request):
        return handler.do_open(http.client.HTTPConnection, request)

    monkeypatch.setattr(urllib.request.HTTPSHandler, "https_open", https_open)
    secure = server.url.replace("http:", "https:")
    offer("coco", COCO, count=3)
    for start, end, allowed in (
        (server.url, server.url, True),
        (server.url, secure, True),
        (secure, secure, True),
        (secure, server.url, False),
        (secure, "ftp://127.0.0.1", False),
    ):
        file = replace(DATA_SETS["coco"].downloads[0], url=f"{start}/val2017.zip")
        monkeypatch.setitem(DATA_SETS, "coco", replace(DATA_SETS["coco"], downloads=(file,)))
        server.replies = [
            Reply(status=302, location=f"{end}/val2017.zip" + "?key=1" * (not allowed))
        ]
        target = tmp_path / f"{allowed}.zip"
        if allowed:
            download.fetch(file, target)
            assert target.read_bytes() == server.files["val2017.zip"]
            assert len(server.requests) == 2
        else:
            message = refusal(download.main, "coco", "--data", tmp_path)
            assert (
                f"leads to {end}/val2017.zip, which is not encrypted" in message
                and "key" not in message
            )
            assert len(server.requests) == 1
        server.requests.clear()


def test_what_has_no_checksum_says_so(run, offer, coco, tmp_path):
    assert "no checksum" not in run(download.main, "coco", "--data", tmp_path)[1]
    content = zipped(COCO)
    offer("coco", content, count=3)
    printed = run(download.main, "coco", "--data", tmp_path / "new")[1]
    digest = hashlib.sha256(content).hexdigest()
    assert "no checksum of val2017.zip is on record" in printed and f"sha256:{digest}" in printed


def test_a_part_that_is_a_link_elsewhere(refusal, coco, place, tmp_path):
    (tmp_path / "letter").write_text("dear")
    (place / "val2017.zip.part").symlink_to(tmp_path / "letter")
    assert "val2017.zip.part: " in refusal(download.main, "coco", "--data", tmp_path)
    assert (tmp_path / "letter").read_text() == "dear"


LINK = zipfile.ZipInfo("val2017/out")
LINK.external_attr = (stat.S_IFLNK | 0o777) << 16
UNSAFE = {name: zipped(COCO | {name: b"x"}) for name in ("val2017/../../o", "/out", "c:/o", "a\\b")}
UNSAFE["link"] = zipped({LINK: b"/etc"})
UNSAFE["bomb"] = zipped(COCO | {"val2017/a.jpg": bytes(10**7)}, zipfile.ZIP_DEFLATED)


@pytest.mark.parametrize("content", UNSAFE.values(), ids=UNSAFE)
def test_an_archive_that_is_not_safe(refusal, offer, tmp_path, content):
    offer("coco", content, count=3)
    assert "is not safe to unpack" in refusal(download.main, "coco", "--data", tmp_path / "data")
    assert list(tree(tmp_path)) == ["data/genecis/coco/val2017.zip"]


def test_an_archive_of_too_many_files(refusal, coco, monkeypatch, tmp_path):
    monkeypatch.setattr(download, "MOST_FILES", 2)
    assert "it has more than 2 files" in refusal(download.main, "coco", "--data", tmp_path)


# --- the command ----------------------------------------------------------------------------------


def test_deepfashion_needs_an_agreement(run, server, coco, tmp_path):
    code, printed, errors = run(download.main, "coco", "deepfashion", "--data", tmp_path)
    assert code == 2 and errors.count("\n") == 1 and "needs an agreement" in errors
    assert DATA_SETS["deepfashion"].page in printed and f"{tmp_path / 'deepfashion'}" in printed
    assert server.requests == []  # all names are read before anything is fetched
