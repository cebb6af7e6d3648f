"""Downloads from a local server, in small archives with the trees of the real ones."""

import hashlib
import io
import json
import stat
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import check_data
import download
import pytest
from check_data import SETS, File
from file_server import FileServer, Reply

from classification_clustering.datasets import CARDS_CLASSES, CLEVR4_CLASSES
from similarity_retrieval import datasets as genecis

COCO = {f"val2017/{number:012d}.jpg": bytes([number]) * 90_000 for number in range(3)}
CARDS = {
    f"Data/cards/{criterion}/{classes[number % len(classes)]}/{number}.png": b"x"
    for criterion, classes in CARDS_CLASSES.items()
    for number in range(13)
}
OTHERS = {"Data/fruit/color/red/a.png": b"x", "__MACOSX/Data/cards/number/ace/._a": b"x"}
CLEVR4 = {f"images/{number}.png": b"x" for number in range(10)} | {
    "clevr_4_annots.json": json.dumps(
        {n: {name: c[n] for name, c in CLEVR4_CLASSES.items()} for n in range(10)}
    ).encode(),
}


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


@pytest.fixture
def server(monkeypatch) -> Iterator[FileServer]:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "PAUSES", (0.0,) * 3)
    with FileServer() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def offer(server, monkeypatch) -> Callable[..., bytes]:
    """Puts a small data set on the server, and its address into the table of downloads."""

    def offer(name: str, content: bytes | dict, images: int | None, **known: object) -> bytes:
        content = zipped(content) if isinstance(content, dict) else content
        (file,) = SETS[name].files
        server.files[file.name] = content
        small = File(f"{server.url}/{file.name}", file.holds, **known)
        monkeypatch.setitem(SETS, name, replace(SETS[name], images=images, files=(small,)))
        return content

    return offer


@pytest.fixture
def coco(offer) -> bytes:
    """The archive of a small COCO on the server."""
    content = zipped(COCO)
    return offer("coco", content, 3, size=len(content), checksum=md5(content))


def md5(content: bytes) -> str:
    return f"md5:{hashlib.md5(content).hexdigest()}"


def tree(folder: Path) -> dict[str, bytes]:
    """The files below a folder, but no locks."""
    files = [file for file in folder.rglob("*") if file.is_file() and file.suffix != ".lock"]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


# --- what is fetched ------------------------------------------------------------------------------


def test_coco(run, coco, tmp_path):
    code, printed, errors = run(download.main, "coco", "--data", tmp_path)
    assert (code, errors) == (0, "")
    assert tree(tmp_path / "genecis/coco") == COCO
    assert "coco: complete" in printed and "3 / 3" in printed and "270.0 kB" in printed


def test_cards_are_found_in_an_archive_of_several_data_sets(run, offer, tmp_path):
    offer("cards", CARDS | OTHERS, 13)
    code, printed, errors = run(download.main, "cards", "--data", tmp_path)
    assert code == 0 and "13 / 13" in printed, errors
    assert tree(tmp_path) == {name.removeprefix("Data/"): b"x" for name in CARDS}


@pytest.mark.parametrize("above", ["", "clevr_4_10k_v1/", "a/b/"])
def test_clevr4_wherever_it_is_in_its_archive(run, offer, tmp_path, above):
    files = {above + name: content for name, content in CLEVR4.items()}
    offer("clevr4", files | {above + "LICENSE": b"x"}, 10)
    code, printed, errors = run(download.main, "clevr4", "--data", tmp_path)
    assert code == 0 and "clevr4: complete" in printed, errors
    assert tree(tmp_path / "clevr_4_10k_v1") == CLEVR4


def visual_genome(server: FileServer, monkeypatch) -> dict[str, bytes]:
    files, trees = [], {}
    for file, folder in zip(SETS["visual-genome"].files, ("VG_100K", "VG_100K_2"), strict=True):
        trees |= (part := {f"{folder}/{folder}.jpg": folder.encode()})
        server.files[file.name] = zipped(part)
        files.append(File(f"{server.url}/{file.name}", file.holds))
    small = replace(SETS["visual-genome"], images=2, files=tuple(files))
    monkeypatch.setitem(SETS, "visual-genome", small)
    return trees


def test_only_the_missing_part_is_fetched(run, server, monkeypatch, tmp_path):
    wanted, place = visual_genome(server, monkeypatch), tmp_path / "genecis/visual_genome"
    server.replies = [Reply(), Reply(status=404)]
    assert run(download.main, "visual-genome", "--data", tmp_path)[0] == 2
    assert list(tree(place)) == ["VG_100K/VG_100K.jpg"]
    assert run(download.main, "visual-genome", "--data", tmp_path)[0] == 0
    assert tree(place) == wanted
    assert [name for name, _ in server.requests] == ["images.zip", "images2.zip", "images2.zip"]


def templates(server: FileServer, monkeypatch) -> None:
    image = {"val_image_id": 1, "image_id": 1, "instance_bbox": [0, 0, 9, 9]}
    template = {"reference": image, "target": image, "gallery": [image], "condition": "red"}
    monkeypatch.setattr(genecis, "OFFICIAL_TEMPLATES", {"focus_object": 1})
    for name in ("genecis", "genecis-weights"):
        files = [File(f"{server.url}/{file.name}") for file in SETS[name].files]
        monkeypatch.setitem(SETS, name, replace(SETS[name], files=tuple(files)))
        for file in files:
            server.files[file.name] = json.dumps([template]).encode()


def test_templates_and_weights(run, server, monkeypatch, tmp_path):
    templates(server, monkeypatch)
    code, printed, _ = run(download.main, "genecis", "genecis-weights", "--data", tmp_path)
    assert code == 0 and "genecis: complete" in printed and "genecis-weights: complete" in printed
    assert set(tree(tmp_path / "genecis")) == {f"{t}.json" for t in genecis.TASKS} | {
        *genecis.WEIGHTS
    }


def test_broken_templates_are_fetched_again(run, server, monkeypatch, tmp_path):
    templates(server, monkeypatch)
    run(download.main, "genecis", "--data", tmp_path)
    (tmp_path / "genecis/focus_object.json").write_text("[")
    assert run(download.main, "genecis", "--data", tmp_path)[0] == 0


def test_what_is_complete_is_not_fetched_again(run, server, coco, tmp_path):
    run(download.main, "coco", "--data", tmp_path)
    code, printed, _ = run(download.main, "coco", "--data", tmp_path)
    assert code == 0 and "already complete" in printed
    assert len(server.requests) == 1


def test_an_incomplete_tree_is_filled_and_other_files_stay(run, coco, tmp_path):
    place = tmp_path / "genecis/coco"
    (place / "val2017").mkdir(parents=True)
    (place / "val2017/notes.txt").write_text("mine")
    (place / "val2017/000000000000.jpg").write_bytes(b"half")
    assert run(download.main, "coco", "--data", tmp_path)[0] == 0
    assert tree(place) == COCO | {"val2017/notes.txt": b"mine"}


def test_an_archive_got_by_hand_is_used(run, server, coco, tmp_path):
    place = tmp_path / "genecis/coco"
    place.mkdir(parents=True)
    (place / "val2017.zip").write_bytes(coco)
    assert run(download.main, "coco", "--data", tmp_path)[0] == 0
    assert tree(place) == COCO and server.requests == []


def test_a_wrong_archive_got_by_hand_stays(refusal, coco, tmp_path):
    place = tmp_path / "genecis/coco"
    place.mkdir(parents=True)
    (place / "val2017.zip").write_bytes(coco[:-1])
    assert "delete it" in refusal(download.main, "coco", "--data", tmp_path)
    assert tree(place) == {"val2017.zip": coco[:-1]}


# --- interrupted transfers ------------------------------------------------------------------------


@pytest.fixture
def interrupted(run, monkeypatch, tmp_path) -> Callable[[], None]:
    """Runs a command that is interrupted after the first bytes."""

    def interrupted() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(download, "CHUNK", 100_000)
            chunks, read = iter([True]), download._read

            def once(answer):
                if next(chunks, False):
                    return read(answer)
                raise KeyboardInterrupt

            patch.setattr(download, "_read", once)
            assert run(download.main, "coco", "--data", tmp_path)[0] == 130
        assert (tmp_path / "genecis/coco/val2017.zip.part").stat().st_size == 100_000

    return interrupted


def test_an_interrupted_download_goes_on(run, server, coco, interrupted, tmp_path):
    interrupted()
    assert run(download.main, "coco", "--data", tmp_path)[0] == 0
    assert server.requests == [("val2017.zip", None), ("val2017.zip", "bytes=100000-")]
    assert tree(tmp_path / "genecis/coco") == COCO


@pytest.mark.parametrize(
    "reply", [Reply(ranges=False), Reply(careless=True)], ids=["no ranges", "careless"]
)
def test_a_changed_file_is_not_glued_to_an_old_half(
    run, server, offer, interrupted, reply, tmp_path
):
    offer("coco", COCO, 3)
    interrupted()
    changed = {name: content[::-1] + b"!" for name, content in COCO.items()}
    offer("coco", changed, 3)
    server.replies = [reply]
    assert run(download.main, "coco", "--data", tmp_path)[0] == 0
    assert tree(tmp_path / "genecis/coco") == changed


def test_a_server_that_keeps_its_word_about_versions(run, server, offer, interrupted, tmp_path):
    offer("coco", COCO, 3)
    interrupted()
    changed = {name: content + b"!" for name, content in COCO.items()}
    offer("coco", changed, 3)
    assert run(download.main, "coco", "--data", tmp_path)[0] == 0
    assert tree(tmp_path / "genecis/coco") == changed
    assert len(server.requests) == 2


def test_without_a_version_it_starts_again(run, server, coco, interrupted, tmp_path):
    server.replies = [Reply(version=False)]
    interrupted()
    assert run(download.main, "coco", "--data", tmp_path)[0] == 0
    assert server.requests == [("val2017.zip", None)] * 2


def test_killed_after_the_last_byte(run, server, offer, monkeypatch, tmp_path):
    offer("coco", COCO, 3)  # its size is not known
    with monkeypatch.context() as patch:
        patch.setattr(download, "_wrong", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert run(download.main, "coco", "--data", tmp_path)[0] == 130
    assert run(download.main, "coco", "--data", tmp_path)[0] == 0
    assert [wish for _, wish in server.requests] == [None, f"bytes={len(zipped(COCO))}-"]


def test_a_transfer_that_breaks_off_is_tried_again_from_there(run, server, coco, tmp_path):
    server.replies = [Reply(cut=1000), Reply(status=503), Reply()]
    assert run(download.main, "coco", "--data", tmp_path)[0] == 0
    assert [wish for _, wish in server.requests] == [None, "bytes=1000-", "bytes=1000-"]
    assert tree(tmp_path / "genecis/coco") == COCO


def test_a_transfer_that_always_breaks_off(refusal, run, server, coco, tmp_path):
    server.replies = [Reply(cut=1000)] * 3
    message = refusal(download.main, "coco", "--data", tmp_path)
    assert "it broke off after 3,000 of" in message and "give the command again" in message
    assert run(download.main, "coco", "--data", tmp_path)[0] == 0


# --- what goes wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("replies", "what"),
    [
        ([Reply(status=401)], "401 Unauthorized"),
        ([Reply(status=403)], "403 Forbidden"),
        ([Reply(status=404)], "404 Not Found"),
        ([Reply(status=503)] * 3, "503 Service Unavailable, 3 times"),
        ([Reply(status=200, kind="text/html")], "answers with a web page"),
        ([Reply(status=200, body=b"\n<!DOCTYPE html><p>Sign in")], "is a web page"),
        ([Reply(status=200, body=b"no zip")], "is not a whole zip archive"),
        ([Reply(status=200, body=b"")], "is empty"),
        ([Reply(length=99_999)], "is not a whole zip archive"),  # and no more bytes are read
        ([Reply(length=999_999, ranges=False)] * 3, "broke off"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_answers(refusal, offer, server, tmp_path, replies, what):
    offer("coco", COCO, 3)
    server.replies = replies
    message = refusal(download.main, "coco", "--data", tmp_path)
    assert what in message
    assert f"get val2017.zip by hand from {SETS['coco'].page}" in message
    assert f"put it in {tmp_path / 'genecis/coco'}" in message
    if "broke off" not in what:
        assert tree(tmp_path) == {}


def test_no_network(refusal, coco, server, monkeypatch, tmp_path):
    (file,) = SETS["coco"].files
    nobody = replace(file, url=f"http://127.0.0.1:9/{file.name}")
    monkeypatch.setitem(SETS, "coco", replace(SETS["coco"], files=(nobody,)))
    message = refusal(download.main, "coco", "--data", tmp_path)
    assert "no answer (Connection refused), 3 times" in message and "by hand" in message


@pytest.mark.parametrize(
    ("known", "what"),
    [
        ({"size": 5}, "bytes now, not 5"),
        ({"checksum": md5(b"other")}, f"not {md5(b'other')}"),
    ],
    ids=["size", "checksum"],
)
def test_another_file_than_the_known_one(refusal, offer, tmp_path, known, what):
    offer("coco", COCO, 3, **known)
    assert what in refusal(download.main, "coco", "--data", tmp_path)
    assert tree(tmp_path) == {}


def test_a_wrong_number_of_images(refusal, offer, tmp_path):
    offer("coco", COCO, 4)
    message = refusal(download.main, "coco", "--data", tmp_path)
    assert "coco is still incomplete: 3 of 4 images" in message


def test_a_full_disk(refusal, coco, tmp_path):
    place = tmp_path / "genecis/coco"
    place.mkdir(parents=True)
    (place / "val2017.zip.part").symlink_to("/dev/full")
    assert "the disk is full" in refusal(download.main, "coco", "--data", tmp_path)


def test_a_disk_that_is_full_while_unpacking(refusal, run, coco, server, monkeypatch, tmp_path):
    def full(source, sink):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(download.shutil, "copyfileobj", full)
        assert "the disk is full" in refusal(download.main, "coco", "--data", tmp_path)
    assert list(tree(tmp_path / "genecis/coco")) == ["val2017.zip"]
    assert run(download.main, "coco", "--data", tmp_path)[0] == 0
    assert len(server.requests) == 1


# --- archives -------------------------------------------------------------------------------------


def link() -> bytes:
    entry = zipfile.ZipInfo("val2017/out")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(entry, "/etc")
    return stream.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        *(
            zipped(COCO | {name: b"x"})
            for name in ("val2017/../../../out", "/out", "c:/out", "a\\b")
        ),
        link(),
    ],
    ids=["dots", "absolute", "drive", "backslash", "link"],
)
def test_an_archive_that_leads_elsewhere(refusal, offer, tmp_path, content):
    offer("coco", content, 3)
    assert "is not safe to unpack" in refusal(download.main, "coco", "--data", tmp_path / "data")
    assert list(tree(tmp_path)) == ["data/genecis/coco/val2017.zip"]


def test_a_damaged_archive(refusal, offer, tmp_path):
    content = zipped(COCO).replace(COCO["val2017/000000000002.jpg"], b"!" * 90_000)
    offer("coco", content, 3)
    message = refusal(download.main, "coco", "--data", tmp_path)
    assert "is damaged: Bad CRC-32" in message and "delete it" in message
    assert list(tree(tmp_path)) == ["genecis/coco/val2017.zip"]


@pytest.mark.parametrize(
    ("files", "where"),
    [({"train2017/a.jpg": b"x"}, "nowhere"), ({"a/val2017/b": b"", "c/val2017/b": b""}, "a, c")],
)
def test_an_archive_of_something_else(refusal, offer, tmp_path, files, where):
    offer("coco", files, 3)
    message = refusal(download.main, "coco", "--data", tmp_path)
    assert f"must hold val2017 side by side in one place; found: {where};" in message


def test_a_killed_unpacking_leaves_nothing_that_looks_complete(
    run, server, coco, monkeypatch, tmp_path
):
    place, copy, copied = tmp_path / "genecis/coco", download.shutil.copyfileobj, []

    def killed(source, sink):
        if len(copied) == 2:
            raise KeyboardInterrupt
        copied.append(copy(source, sink))

    with monkeypatch.context() as patch:
        patch.setattr(download.shutil, "copyfileobj", killed)
        patch.setattr(download.shutil, "rmtree", lambda *_, **__: None)  # as if by SIGKILL
        assert run(download.main, "coco", "--data", tmp_path)[0] == 130
    assert check_data.look("coco", tmp_path).state == "missing"
    assert sorted(p.name for p in place.iterdir()) == [".val2017.zip.unpacking", "val2017.zip"]
    assert run(download.main, "coco", "--data", tmp_path)[0] == 0
    assert tree(place) == COCO and len(server.requests) == 1
    assert [entry.name for entry in place.iterdir()] == ["val2017"]


def test_killed_between_two_folders(run, server, offer, monkeypatch, tmp_path):
    offer("clevr4", CLEVR4, 10)
    moves, move = iter([True]), download._move

    def killed(source, target):
        if not next(moves, False):
            raise KeyboardInterrupt
        move(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(download, "_move", killed)
        assert run(download.main, "clevr4", "--data", tmp_path)[0] == 130
    assert check_data.look("clevr4", tmp_path).state == "incomplete"
    assert run(download.main, "clevr4", "--data", tmp_path)[0] == 0
    assert len(server.requests) == 1 and "clevr_4_10k_v1/clevr_4_10k_v1.zip" not in tree(tmp_path)


# --- the command ----------------------------------------------------------------------------------


def test_deepfashion_needs_an_agreement(run, server, coco, tmp_path):
    code, printed, errors = run(download.main, "coco", "deepfashion", "--data", tmp_path)
    assert code == 2 and errors.count("\n") == 1 and "needs an agreement" in errors
    assert SETS["deepfashion-images"].page in printed and SETS["deepfashion"].page in printed
    assert f"{tmp_path / 'deepfashion'}" in printed
    assert server.requests == []  # all names are read before anything is fetched


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["cocoo"], "unknown data set 'cocoo'; did you mean 'coco'?"),
        ([], "give one or more of clevr4, cards"),
    ],
)
def test_wrong_names(refusal, arguments, what):
    assert what in refusal(download.main, *arguments)


def test_the_list(run):
    code, printed, _ = run(download.main, "--list")
    assert code == 0
    for name, of in SETS.items():
        assert all(file.url in printed for file in of.files)
        assert (f"{name}: " in printed) == bool(of.files)


def test_two_commands_at_once(refusal, coco, tmp_path):
    with download.alone_in(tmp_path / "genecis/coco"):
        assert "another command" in refusal(download.main, "coco", "--data", tmp_path)


def test_the_table_of_downloads():
    files = [file for of in SETS.values() for file in of.files]
    assert len({file.url for file in files}) == len(files) == 11
    for file in files:
        assert file.url.startswith("http") and bool(file.holds) == (file.url.endswith(".zip"))
        kind, _, digits = file.checksum.partition(":")
        lengths = {"": 0, "md5": 32, "sha512": 128}
        assert len(digits) == lengths[kind] and set(digits) <= set("0123456789abcdef")
