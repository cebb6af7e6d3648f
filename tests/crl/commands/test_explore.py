"""The command from a folder of pictures to a page, and each mistake on the way."""

import codecs
import os
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from color_vlm import COLORS, ColorVLM, draw, write_bases
from commands import REPOSITORY
from llm_server import gives
from PIL import Image
from published import PUBLISHED

from crl.commands import explore
from crl.embed import embed_images, embed_texts
from crl.explore.collection import Collection
from crl.explore.edits import Edit, Edits, sketch
from crl.explore.listing import write_listing

BASES = ("--texts", "color=bases/color.yaml", "--texts", "side=bases/side.yaml")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The working directory: pictures, and bases."""
    draw(tmp_path / "pictures")
    write_bases(tmp_path / "bases")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    return tmp_path


@pytest.fixture
def look(run, place):
    """Runs the command on the pictures with the VLM that sees colors and sides."""

    def look(*arguments, folder="pictures"):
        code, printed, errors = run(explore.main, folder, "--vlm", "color_vlm:ColorVLM", *arguments)
        assert code == 0, errors
        return printed

    return look


def test_clusters_names_page_and_tables(look, place):
    printed = look(*BASES)
    assert all(f"\n6         {color}" in printed for color in COLORS)
    out = place / "outputs/explore/pictures"
    assert {file.name for file in out.iterdir()} == {*explore.MADE, ".made", ".crl", "texts"}
    table = pd.read_csv(out / "images.csv")
    assert (table["color_name"] == table["path"].str.split("-").str[0]).all()


def test_an_archive_is_a_folder_and_names_the_output(look, refusal, place):
    shutil.make_archive("Holiday 2024", "gztar", "pictures")
    printed = look(*BASES, folder="Holiday 2024.tar.gz")
    assert "Holiday 2024.tar.gz: 24 pictures" in printed
    out = place / "outputs/explore/holiday-2024"
    assert "<h1>Holiday 2024.tar.gz</h1>" in (out / "report.html").read_text("utf-8")
    assert "red-left-0.png" in set(pd.read_csv(out / "images.csv")["path"])
    assert look(*BASES, folder="Holiday 2024.tar.gz") == printed
    for folder, message in {"bases/side.yaml": "cannot unpack", "hf:name": "OWNER/NAME"}.items():
        assert message in refusal(explore.main, folder)


def test_what_many_machines_embedded_with_and_without_the_pictures(look, place):
    vlm, files = ColorVLM(), sorted((place / "pictures").iterdir())
    look(*BASES)
    expected = pd.read_csv(place / "outputs/explore/pictures/images.csv")
    embedded = embed_images(vlm, files, place / "parts")
    about = {"fingerprint": vlm.fingerprint, "vlm": vlm.name, "root": str(place / "pictures")}
    names = [file.name for file in files]
    write_listing(place / "parts/images.parquet", names, embedded.digests.tolist(), about)
    assert "parts: 24 pictures, VLM colors" in look(*BASES, folder="parts")
    assert pd.read_csv(place / "outputs/explore/parts/images.csv").equals(expected)
    shutil.rmtree(place / "pictures")
    look(*BASES, folder="parts")
    assert "Nearest to red" in look(*BASES, "--query", "red", folder="parts")


def test_embeddings_made_elsewhere(look, run, place):
    look(*BASES[:2])
    expected = pd.read_csv(place / "outputs/explore/pictures/images.csv")
    files = sorted((place / "pictures").iterdir())
    texts = ["red", "green", "blue", "yellow"]
    prompts = [f"a thing that is {text}" for text in texts]
    image = embed_images(ColorVLM(), files, raw=True).image  # (N, D), of any length
    text = embed_texts(ColorVLM(), prompts, raw=True)  # (K, D)
    ids = [file.name for file in files]
    np.savez(place / "mine.npz", ids=ids, image=image, text=text, texts=texts)
    arguments = ["pictures", "--features", "mine.npz", "--criterion", "color"]
    code, _, errors = run(explore.main, *arguments)
    assert code == 0, errors
    table = pd.read_csv(place / "outputs/explore/mine/images.csv")
    columns = ["path", "width", "height", "color_cluster", "color_name", "color_words"]
    assert table[columns].equals(expected[columns])


def test_a_second_run_writes_what_has_changed_and_nothing_else(look, place, monkeypatch):
    out = place / "outputs/explore/pictures"

    def written(*arguments):
        before = {file.name: file.stat().st_mtime_ns for file in out.glob("*")}
        look(*BASES, *arguments)
        return {file.name: file.stat().st_mtime_ns for file in out.glob("*")} != before

    assert written() and not written()
    (place / "bases/side.yaml").write_text((place / "bases/side.yaml").read_text() + "- middle\n")
    assert written() and not written()
    shutil.copy(place / "pictures/red-left-0.png", place / "pictures/new.png")
    assert written() and not written()
    first = (out / "images.csv").read_bytes()
    (out / "images.csv").unlink()
    for work in ("color_vlm.ColorVLM.encode_images", "crl.explore.maps._tsne",
                 "crl.explore.thumbnails.thumbnail"):  # fmt: skip
        monkeypatch.setattr(work, lambda *_: pytest.fail("computed again"))
    assert written() and (out / "images.csv").read_bytes() == first
    assert written("--clusters", "3")


def test_a_repeated_run_prints_the_same_and_embeds_only_after_a_change(run, place, monkeypatch):
    pictures, out = place / "pictures", place / "outputs/explore/pictures"
    for file in pictures.iterdir():
        os.utime(file, ns=(0, 10**18))
    red, calls, embed = pictures / "red-left-0.png", [], Collection.embed
    monkeypatch.setattr(Collection, "embed", lambda *a, **k: calls.append(a) or embed(*a, **k))
    printed: list[str] = []

    def embeds() -> bool:
        code, text, errors = run(explore.main, "pictures", "--vlm", "demo", *BASES[:2])
        assert code == 0 and "pictures: 2" in text, errors
        printed.append(text)
        return bool(calls and calls.pop())

    assert embeds() and not embeds() and printed[0] == printed[1]
    (out / ".made").write_text((out / ".made").read_text().replace("groups", "crowds"))
    assert embeds() and not embeds() and set(printed) == {printed[0]}
    (out / "images.csv").unlink()
    assert embeds() and not embeds()
    with monkeypatch.context() as other:  # weights that have changed
        other.setattr(explore, "stamps", lambda files: dict.fromkeys(map(str, files)))
        assert embeds()
    (place / "pictures/notes.txt").touch()
    assert embeds() and "left out: 1 .txt" in printed[-1] and not embeds()
    red.write_bytes((pictures / "red-left-1.png").read_bytes())  # just now: not trusted yet
    assert embeds() and "copies of other images: 1" in printed[-1] and embeds()
    os.utime(red, ns=(0, 10**18 + 1))
    assert embeds() and not embeds() and printed[-1] == printed[-2]
    os.utime(red, ns=(0, 10**18 + 2))
    with monkeypatch.context() as other:  # a disk that fails, for once
        real = Path.read_bytes
        failing = {red: place}  # to read a folder is an OSError
        other.setattr(Path, "read_bytes", lambda file: real(failing.get(place / file, file)))
        assert embeds() and "1 could not be read" in printed[-1]
    assert embeds() and "could not be read" not in printed[-1] and not embeds()
    one, two = (pictures / f"{name}.ppm" for name in "ab")
    for value, file in enumerate((one, two)):
        file.write_bytes(b"P6 8 8 255\n" + bytes([200 * value]) * 192)
        os.utime(file, ns=(0, 10**18))
    assert embeds() and not embeds()
    one.rename(place / "c"), two.rename(one), (place / "c").rename(two)  # sizes and times are equal
    assert embeds() and not embeds()


def test_given_texts_are_kept_also_a_text_per_line(look, place):
    (place / "colors.txt").write_bytes(codecs.BOM_UTF8 + "\r\n".join([*COLORS, ""]).encode())
    printed = look("--texts", "color=colors.txt")
    assert all(f"\n6         {color}" in printed for color in COLORS)
    (place / "colors.txt").unlink()
    assert look("--criterion", "color") == printed  # of texts/ in the output folder


def test_a_criterion_can_be_added_to_a_page(look, place):
    look(*BASES[2:])
    look(*BASES[:2], "--add")
    columns = list(pd.read_csv(place / "outputs/explore/pictures/images.csv"))
    assert columns.index("side_cluster") < columns.index("color_cluster")


def test_texts_of_an_llm_are_kept_and_can_be_edited(look, place, server):
    server.replies = [gives("red", "green", "blue", "yellow"), gives()]
    llm = ("--llm", "some-model", "--base-url", server.url)
    kept = Path("outputs/explore/pictures/texts/color.yaml")
    printed = look("--criterion", "color", *llm, "--number", "7", "--seed", "3", "--timeout", "9")
    assert server.requests[0]["seed"] == 3 and "exactly 7." in server.prompts[0]
    assert f"{kept}: 4 of 7 texts about color" in printed
    assert "a photo with the color of {text}" in kept.read_text()
    asked = len(server.requests)
    kept.write_text(kept.read_text().replace("- blue", "- very blue"))
    printed = look("--criterion", "color")  # no LLM needed any more
    assert "very blue" in printed and len(server.requests) == asked


def test_query_by_image(look):
    printed = look(*BASES, "--query", "red-left-0.png", "--top", "5")
    rows = [line.split() for line in printed.splitlines() if line.startswith("red-")]
    assert len(rows) == 5 and all(row[2] == "red;" for row in rows)
    assert "how many match cannot be told: the query is a picture" in printed
    more = (*BASES, "--criterion", "color", "--top", "2")
    assert look(*more, "--query", "red-left-0.png", "--unlike", "side=0.3").count("red-right") == 2


def test_export(look, place, refusal):
    printed = look(*BASES, "--export", "all", "--clusters", "4")
    assert "all: lists of 24 pictures, 8 groups" in printed
    assert {"color-red.txt", "side-left.txt"} <= {file.name for file in (place / "all").iterdir()}
    look(*BASES[:2], "--export", "one", "--export-as", "copies", "--only", "red", "--clusters", "4")
    assert [file.name for file in (place / "one").iterdir()] == ["red"]
    assert all(file.name.startswith("red-") for file in (place / "one/red").iterdir())
    look(*BASES[:2], "--query", "very red", "--top", "3", "--export", "three", "--export-as", "xmp")
    assert len(list((place / "three").iterdir())) == 3
    assert not (place / "outputs/explore/pictures/report.html").exists()
    look(*BASES, "--export", "again", "--export-as", "links")  # nothing is skipped as known
    pictures = ("pictures", "--vlm", "color_vlm:ColorVLM", *BASES[:2])
    for arguments, message in {
        ("--export", "pictures/new"): "is in the folder of the pictures",
        ("--export", "one"): "one exists and is not empty; export to a new folder",
        ("--export", "x", "--only", "rad"): "no cluster 'rad'; did you mean 'red'?",
        ("--export", "x", "--rank"): "--export keeps clusters, or what a --query finds",
        ("--only", "red"): "--only names a cluster for --export",
    }.items():
        assert message in refusal(explore.main, *pictures, *arguments)
    assert not (place / "x").exists()


def test_near_copies_count_once(look, place):
    red = place / "pictures/red-left-0.png"
    Image.open(red).resize((96, 96)).save(place / "pictures/red-left-0-large.webp")
    look(*BASES)
    table = pd.read_csv(place / "outputs/explore/pictures/images.csv", index_col="path")
    assert table["near_copy_of"]["red-left-0.png"] == "red-left-0-large.webp"
    printed = look(*BASES, "--once")
    count = int(table["near_copy_of"].isna().sum())
    assert f"pictures: {count} pictures" in printed
    assert f"near copies of other images: {25 - count}" in printed
    assert len(pd.read_csv(place / "outputs/explore/pictures/images.csv")) == count


def test_labels(look, place):
    rows = ["file,label", *(f"{c}-left-{n}.png,{c}!" for c in COLORS for n in "01")]
    (place / "few.csv").write_text("\n".join(rows) + "\n", encoding="utf-8-sig")
    printed = look(*BASES[:2], "--labels", "few.csv")
    assert "100% right of those left out to test" in printed
    assert (
        "access to color, percent of perfect: seen 100, reached 100, repaired 100 with" in printed
    )
    (place / "once.csv").write_text("\n".join([rows[0], *rows[1::2]]) + "\n")
    printed = look(*BASES[:2], "--labels", "once.csv")
    assert "labels under color: no confidence for 20 pictures; give each label twice" in printed
    assert (
        "%" not in (later := printed.partition("labels under color")[2]) and "access" not in later
    )
    look(*BASES[:2], "--labels", "few.csv")
    table = pd.read_csv(place / "outputs/explore/pictures/images.csv")
    assert (table["color_label"] == table["path"].str.split("-").str[0] + "!").all()
    for kind in ("grounded", "lda"):
        printed = look(*BASES[:2], "--labels", "few.csv", "--representation", kind)
        assert "100% right of those left out to test" in printed
        assert "access to" not in printed  # the representation has seen the labels


def test_everyday_criteria(look, place):
    printed = look("--criterion", "dominant color", "--criterion", "color", *BASES[:2])
    assert all(f"\n6         {color}" in printed for color in COLORS)  # and their shades
    assert "dominant color_name" in pd.read_csv(place / "outputs/explore/pictures/images.csv")
    texts = "criterion: smell\nvlm_prompt: '{text}'\ntexts: [sour, sweet, red]\n"
    (place / "smell.yaml").write_text(texts)
    printed = look("--rank", *BASES, "--texts", "smell=smell.yaml")
    rows = [line.split() for line in printed.split("nats")[1].splitlines()]
    names = [row[0] for row in rows if len(row) > 1]
    assert {"side", "color", "clevr4_color", "fruit-or-vegetable"} < set(names)
    assert (
        "0 more have less; the VLM cannot tell the texts of 57 apart; nor those of smell" in printed
    )


def test_propose_shows_the_sheets_first_and_sends_only_on_request(look, place, server, monkeypatch):
    (place / "shipped").mkdir()  # stands in for configs/bases
    lines = "criterion: fabric\nvlm_prompt: '{text}'\ntexts: [silk, wool that is left behind]\n"
    (place / "shipped/our_fabric.yaml").write_text(lines)
    monkeypatch.setattr(explore, "BASES", place / "shipped")
    llm = ("--llm", "some-model", "--base-url", server.url)
    assert "--send" in look("--propose", *llm) and not server.requests
    out = place / "outputs/explore/pictures"
    assert [file.name for file in (out / "sheets").iterdir()] == ["1.jpg"]
    color = [gives("red", "green", "blue", "yellow"), gives(), gives()]
    server.replies = [gives("color", "side of the thing"), *color, gives("left", "right"), gives()]
    printed = look("--propose", *llm, "--send")
    content = server.requests[0]["messages"][0]["content"]
    assert [part["type"] for part in content] == ["text", "image_url"]
    assert "some-model proposes: color, side of the thing" in printed
    assert (out / "texts/side-of-the-thing.yaml").is_file()
    assert "\nside of the thing" in printed.split("nats")[1]


def test_files_as_people_have_them(look, place):
    folder = place / "pictures"
    good = (folder / "red-left-0.png").read_bytes()
    names = ['"quoted", it\'s.png', "<script>alert(1)<script>.png", "a\nb.png", "x" * 246 + ".png"]
    names += ["\N{CAT FACE}.png", os.fsdecode(b"\xff\xfe.png"), "sub dir/deep/c.PNG"]
    (folder / "sub dir/deep").mkdir(parents=True)
    for name in names:
        (folder / name).write_bytes(good)
    (folder / "cut.png").write_bytes(good[: len(good) // 2])
    for name in ("empty.png", "notes.txt", "._red.png"):
        (folder / name).touch()
    (folder / "loop").symlink_to(folder)
    printed = look(*BASES)
    assert "31 pictures" in printed and "2 could not be read" in printed
    table = pd.read_csv(place / "outputs/explore/pictures/images.csv")
    assert len(table) == 31 and {r"\xff\xfe.png", "a\nb.png"} <= set(table["path"])
    page = (place / "outputs/explore/pictures/report.html").read_text(encoding="utf-8")
    assert "<script>alert(1)" not in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--criterion", "smell"], "there are no texts for 'smell'; give a file (--texts smell="),
        (["--criterion", "smell"], "--rank tries those that are at hand"),
        (["--criterion", "Color!"], "try clevr4_color, everyday/dominant-color"),
        (["--criterion", "colour"], "try clevr4_color, everyday/dominant-color"),
        (["--criterion", "?"], "a criterion needs a name with letters or digits"),
        (["--criterion", "a b", "--criterion", "A-b"], "two names of criteria are the same but"),
        ([*BASES, "--query", " "], "a text is empty"),
        ([*BASES, "--query", "x" * 10_000], "a text has 10,000 letters"),
        ([*BASES, "--query", "red", "--like", "side=1"], "the query is a text"),
        (
            [*BASES, "--query", "red", "--top", "auto"],
            "how many match cannot be told: the criterion",
        ),
        ([*BASES, "--query", "red.png"], "red.png is no image of pictures"),
        (["--propose"], "--propose needs a model that sees images: --llm MODEL"),
        ([*BASES, "--representation", "lda"], "lda learns from labels of a few images: --labels"),
        ([*BASES, "--representation", "od_crl"], "od_crl needs other criteria; not possible here"),
        ([*BASES, "--labels", "twice.csv"], "twice.csv: 'a.png' has two labels"),
        ([*BASES, "--labels", "other.csv"], "b.png is no image of pictures"),
    ],
)
def test_mistakes(refusal, place, arguments, message):
    (place / "twice.csv").write_text("file,label\na.png,x\na.png,y\n")
    (place / "other.csv").write_text("file,label\nb.png,x\nred-left-0.png,y\n")
    pictures = ("pictures", "--vlm", "color_vlm:ColorVLM")
    assert message in refusal(explore.main, *pictures, *arguments)
    assert not (place / "outputs/explore/pictures/report.html").exists()


def test_a_page_is_not_replaced_by_that_of_another_folder(look, run, place):
    shutil.copytree(place / "pictures", place / "other/pictures")
    look(*BASES)
    page = place / "outputs/explore/pictures/report.html"
    content = page.read_bytes()
    code, _, errors = run(explore.main, "other/pictures", "--vlm", "color_vlm:ColorVLM", *BASES)
    assert code == 2 and errors.count("\n") == 1 and f"was made of {place}/pictures; " in errors
    assert page.read_bytes() == content
    look(*BASES, "--out", "outputs/explore/pictures", folder="other/pictures")  # if one insists
    assert page.read_bytes() != content


def test_pictures_that_it_made_are_not_the_users(look, place, monkeypatch):
    monkeypatch.chdir(place / "pictures")
    for _ in range(2):
        printed = look("--query", "red-left-0.png", folder=".")
        assert ".: 24 pictures" in printed
        assert (place / "pictures/outputs/explore/pictures/query.jpg").is_file()


def test_the_device_is_that_of_the_vlm(run, place, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "crl.explore.collection.load_vlm",
        lambda name, device, *_, **__: asked.append(device) or ColorVLM(),
    )
    for folder in ("pictures", "parts"):
        if folder == "parts":
            files = sorted((place / "pictures").iterdir())
            embedded = embed_images(ColorVLM(), files, place / folder)
            about = {"fingerprint": "colors-1", "vlm": "demo", "root": str(place / "pictures")}
            names = [file.name for file in files]
            write_listing(
                place / folder / "images.parquet", names, embedded.digests.tolist(), about
            )
        code, _, errors = run(explore.main, folder, *BASES, "--device", "mps")
        assert code == 0, errors
    assert asked == ["mps", "mps"]


@pytest.fixture
def started(place):
    """The published command with --serve, in a process of its own, and the address it prints."""
    write_bases(place / "outputs/explore/pictures/texts")
    (command,) = {command for _, command in PUBLISHED if "--serve" in command}
    _, *arguments = shlex.split(command.replace("~/", "").replace("mood", "color"))
    paths = os.pathsep.join(map(str, [REPOSITORY, REPOSITORY / "tests/helpers"]))
    environment = {**os.environ, "PYTHONPATH": paths, "BROWSER": "false", "DISPLAY": ":9"}
    words = [sys.executable, "-m", "crl", "explore", *arguments, "--vlm", "color_vlm:ColorVLM"]
    process = subprocess.Popen(words, env=environment, text=True, stdout=subprocess.PIPE)
    lines = iter(process.stdout.readline, "")
    yield process, next(line for line in lines if line.startswith("http://127.0.0.1:")).strip()
    process.kill()
    process.communicate()


def test_a_server_answers_keeps_its_folder_and_ends(started, refusal, place):
    process, address = started
    with urllib.request.urlopen(address, timeout=60) as page:
        assert page.status == 200 and b'id="ask"' in page.read()
    second = ("pictures", "--vlm", "color_vlm:ColorVLM", "--criterion", "color", "--serve")
    assert "another command is at work in outputs/explore/pictures" in refusal(
        explore.main, *second
    )
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and "ended; words and clusters are in" in printed
    assert not (place / "outputs/explore/pictures/report.html").exists()


def test_the_next_run_keeps_what_was_edited_in_the_page(look, run, place):
    out = place / "outputs/explore/pictures"
    look(*BASES[:2])
    label = pd.read_csv(out / "images.csv")["color_cluster"].to_numpy()
    photos = Collection.embed(place / "pictures", ColorVLM())
    groups = [sketch(photos.digests[label == 0])]
    edit = Edit(do="name", groups=groups, name="=1+1")
    Edits(number=4, done=(edit,)).save(out, "color")
    assert "6         =1+1, " in look(*BASES[:2])
    assert set(pd.read_csv(out / "images.csv")["color_name"]) >= {"'=1+1"}
    same = [edit, Edit(do="name", groups=[sketch(photos.digests[label == 1])], name="=1+1")]
    Edits(number=4, done=tuple(same)).save(out, "color")  # two groups of one name
    assert "of 24 pictures, 3 groups" in look(*BASES[:2], "--export", "kept")
    Edits(number=4, done=(edit,)).save(out, "color")
    kept = out / "texts/color.yaml"
    kept.write_text(kept.read_text().replace("texts:", "provenance:\n  edited: today\ntexts:"))
    kept.write_text(kept.read_text().replace("- red\n", ""))
    code, _, errors = run(explore.main, "pictures", "--vlm", "color_vlm:ColorVLM", *BASES[:2])
    assert code == 0 and "color.yaml was edited in the page and is used; to take bases/" in errors
    assert "red" not in set(pd.read_csv(out / "images.csv")["color_name"])
    Edits.file(out, "color").write_text("{}}")
    code, _, errors = run(explore.main, "pictures", "--vlm", "color_vlm:ColorVLM", *BASES[:2])
    assert code == 2 and "color.json" in errors and "mend or remove it" in errors


def test_a_port_must_be_one(refusal, place):
    assert "1 to 65535" in refusal(explore.main, "pictures", "--serve", "--port", "70000")
