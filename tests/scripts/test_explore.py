"""The command from a folder of pictures to a page, and each mistake on the way."""

import os
import shutil

import explore
import numpy as np
import pandas as pd
import pytest
from color_vlm import COLORS, ColorVLM, draw, write_bases
from llm_server import fails, gives
from PIL import Image

from crl.embed import embed_images, embed_texts
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

    def look(*arguments):
        return run(explore.main, "pictures", "--vlm", "color_vlm:ColorVLM", *arguments)

    return look


@pytest.fixture
def wrong(refusal, place):
    def wrong(*arguments, folder="pictures"):
        return refusal(explore.main, folder, "--vlm", "color_vlm:ColorVLM", *arguments)

    return wrong


def test_clusters_names_page_and_tables(look, place):
    code, printed, errors = look(*BASES)
    assert code == 0, errors
    assert "pictures: 24 pictures, VLM colors" in printed
    assert "color: 4 groups, chosen by silhouette" in printed
    for color in COLORS:
        assert f"\n6         {color}" in printed
    out = place / "outputs/explore/pictures"
    assert {file.name for file in out.iterdir()} == {*explore.MADE, ".made"}
    assert str(out.relative_to(place) / "report.html") in printed
    table = pd.read_csv(out / "images.csv")
    assert (table["color_name"] == table["path"].str.split("-").str[0]).all()


def test_what_many_machines_embedded_with_and_without_the_pictures(look, run, place):
    vlm, files = ColorVLM(), sorted((place / "pictures").iterdir())
    look(*BASES)
    expected = pd.read_csv(place / "outputs/explore/pictures/images.csv")
    embedded = embed_images(vlm, files, place / "parts")
    about = {"fingerprint": vlm.fingerprint, "vlm": vlm.name, "root": str(place / "pictures")}
    names = [file.name for file in files]
    write_listing(place / "parts/images.parquet", names, embedded.digests.tolist(), about)
    line = ["parts", "--vlm", "color_vlm:ColorVLM", *BASES]
    for gone in (False, True):
        if gone:
            shutil.rmtree(place / "pictures")
        before = {file: file.read_bytes() for file in place.glob("parts/**/*") if file.is_file()}
        code, printed, errors = run(explore.main, *line)
        assert code == 0, errors
        assert "parts: 24 pictures, VLM colors" in printed
        out = place / "outputs/explore/parts"
        assert pd.read_csv(out / "images.csv").equals(expected)
        assert (out / "report.html").stat().st_size > 10_000
        code, printed, errors = run(explore.main, *line, "--query", "red")
        assert code == 0 and "Nearest to red" in printed, errors
        assert {file: file.read_bytes() for file in before} == before


def test_embeddings_made_elsewhere(look, run, refusal, place):
    look(*BASES[:2])
    expected = pd.read_csv(place / "outputs/explore/pictures/images.csv")
    files = sorted((place / "pictures").iterdir())
    texts = ["red", "green", "blue", "yellow"]
    prompts = [f"a thing that is {text}" for text in texts]
    np.savez(
        place / "mine.npz",
        ids=[file.name for file in files],  # names of the image files
        image=embed_images(ColorVLM(), files, raw=True).image,  # (N, D), of any length
        text=embed_texts(ColorVLM(), prompts, raw=True),  # (K, D); and texts (K,): one criterion
        texts=texts,
    )
    code, printed, errors = run(
        explore.main, "pictures", "--features", "mine.npz", "--criterion", "color"
    )
    assert code == 0, errors
    assert "mine.npz: 24 pictures, VLM not known" in printed
    table = pd.read_csv(place / "outputs/explore/mine/images.csv")
    columns = ["path", "width", "height", "color_cluster", "color_name", "color_words"]
    assert table[columns].equals(expected[columns])
    line = ["--features", "mine.npz", "--vlm", "color_vlm:ColorVLM", *BASES]
    code, printed, errors = run(explore.main, *line, "--query", "red-left-0.png", "--top", "2")
    assert code == 0 and printed.count("red-") == 3, errors
    message = refusal(explore.main, "--features", "mine.npz", *BASES)
    assert "name the VLM that made the embeddings: --vlm" in message


def test_a_second_run_computes_nothing_and_gives_the_same(look, place, monkeypatch):
    look(*BASES, "--clusters", "4")
    first = (place / "outputs/explore/pictures/images.csv").read_bytes()
    (place / "outputs/explore/pictures/.made").unlink()
    for work in ("color_vlm.ColorVLM.encode_images", "crl.explore.maps._tsne",
                 "crl.explore.thumbnails.thumbnail"):  # fmt: skip
        monkeypatch.setattr(work, lambda *_: pytest.fail("again"))
    code, printed, errors = look(*BASES, "--clusters", "4")
    assert code == 0, errors
    assert "side: 4 groups, as asked" in printed
    assert (place / "outputs/explore/pictures/images.csv").read_bytes() == first


def test_a_second_run_writes_what_has_changed_and_nothing_else(look, place):
    out = place / "outputs/explore/pictures"

    def written(*arguments):
        before = {file.name: file.stat().st_mtime_ns for file in out.glob("*")}
        assert look(*BASES, *arguments)[0] == 0
        return {file.name: file.stat().st_mtime_ns for file in out.glob("*")} != before

    assert written() and not written()
    (place / "bases/side.yaml").write_text((place / "bases/side.yaml").read_text() + "- middle\n")
    assert written() and not written()
    shutil.copy(place / "pictures/red-left-0.png", place / "pictures/new.png")
    assert written() and not written()
    (out / "images.csv").unlink()
    assert written() and written("--clusters", "3")


def test_texts_of_an_llm_are_kept_and_can_be_edited(look, place, server):
    server.replies = [gives("red", "green", "blue", "yellow"), gives()]
    llm = ("--llm", "some-model", "--base-url", server.url)
    code, printed, errors = look("--criterion", "color", *llm)
    assert code == 0, errors
    kept = place / "outputs/explore/pictures/texts/color.yaml"
    assert f"{kept.relative_to(place)}: the texts about color" in printed
    assert "a photo with the color of {text}" in kept.read_text()
    asked = len(server.requests)
    kept.write_text(kept.read_text().replace("- blue", "- very blue"))
    code, printed, _ = look("--criterion", "color")  # no LLM needed any more
    assert code == 0 and "very blue" in printed and len(server.requests) == asked


@pytest.fixture
def shipped(place, monkeypatch):
    """Stands in for configs/bases, most of whose texts say nothing to a VLM of colors and sides."""
    folder = place / "shipped"
    folder.mkdir()
    lines = "criterion: fabric\nvlm_prompt: '{text}'\ntexts: [silk, wool that is left behind]\n"
    (folder / "our_fabric.yaml").write_text(lines)
    monkeypatch.setattr(explore, "BASES", folder)


def test_rank(look, shipped):
    code, printed, errors = look("--rank", *BASES)
    assert code == 0, errors
    names = [line.split()[0] for line in printed.splitlines() if line.split()[1:2] and "." in line]
    assert set(names[-3:-1]) == {"color", "side"} and names[-1] == "our_fabric"


def test_query_by_image_and_by_text(look, place):
    code, printed, _ = look(*BASES, "--query", "red-left-0.png", "--top", "5")
    assert code == 0
    rows = [line.split() for line in printed.splitlines() if line[:2].strip().isdigit()]
    assert len(rows) == 5 and all(row[1].startswith("red-") and row[3] == "red;" for row in rows)
    sheet = Image.open(place / "outputs/explore/pictures/query.jpg")
    assert sheet.size == (5 * 160, 160)
    code, printed, _ = look("--query", "blue", "--top", "3", "--texts", "color=bases/color.yaml")
    assert code == 0 and printed.count("blue-") == 3
    more = (*BASES[:2], "--criterion", "color", "--texts", BASES[3], "--top", "2")
    code, printed, errors = look(*more, "--query", "red-left-0.png", "--unlike", "side=0.3")
    assert code == 0 and printed.count("red-right") == 2, errors
    code, printed, _ = look("--query", "on the left", "--top", "2")  # without a criterion
    assert code == 0 and printed.count("-left-") == 2


def test_labels(look, place):
    rows = ["file,label", *(f"{c}-left-{n}.png,{c}!" for c in COLORS for n in "01")]
    (place / "few.csv").write_text("\n".join(rows) + "\n", encoding="utf-8-sig")
    code, printed, errors = look(*BASES[:2], "--labels", "few.csv")
    assert code == 0, errors
    assert "100% right of 8 that were left out to test" in printed
    assert "label these next: " in printed
    table = pd.read_csv(place / "outputs/explore/pictures/images.csv")
    assert (table["color_label"] == table["path"].str.split("-").str[0] + "!").all()


def test_propose_shows_the_sheets_first_and_sends_only_on_request(look, place, shipped, server):
    llm = ("--llm", "some-model", "--base-url", server.url)
    code, printed, errors = look("--propose", *llm)
    assert code == 0, errors
    assert not server.requests
    out = place / "outputs/explore/pictures"
    assert [file.name for file in (out / "sheets").iterdir()] == ["1.jpg"]
    assert "1 contact sheets, 24 pictures" in printed and "--send" in printed
    server.replies = [
        gives("color", "side of the thing"),
        *[gives("red", "green", "blue", "yellow"), gives(), gives()],
        *[gives("left", "right"), gives()],
    ]
    code, printed, errors = look("--propose", *llm, "--send")
    assert code == 0, errors
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
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(good)
    (folder / "empty.png").touch()
    (folder / "cut.png").write_bytes(good[: len(good) // 2])
    (folder / "notes.txt").touch()
    (folder / "._red.png").touch()
    (folder / "loop").symlink_to(folder)
    code, printed, errors = look(*BASES)
    assert code == 0, errors
    assert "31 pictures" in printed and "2 could not be read: cut.png" in printed
    assert "1 .txt" in printed and "copies of other images: 7" in printed
    table = pd.read_csv(place / "outputs/explore/pictures/images.csv")
    assert len(table) == 31 and {r"\xff\xfe.png", "a\nb.png"} <= set(table["path"])
    page = (place / "outputs/explore/pictures/report.html").read_text(encoding="utf-8")
    assert "<script>alert(1)" not in page
    code, printed, errors = look(*BASES, "--query", "a\nb.png", "--top", "2")
    assert code == 0 and len(printed.splitlines()) < 14, errors


def test_nothing_usable(wrong, place):
    (place / "none").mkdir()
    assert wrong(*BASES, folder="none") == "there are no images in none"
    (place / "none/a.png").write_bytes(b"no picture")
    assert wrong(*BASES, folder="none").startswith(
        "none of 1 images can be read, the first: none/a"
    )
    assert wrong(*BASES, folder="nowhere") == "there is no folder nowhere"
    assert not (place / "outputs/explore/none").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--representation", "paper"], "name a criterion (--criterion mood), or see which"),
        (["--criterion", "mood"], "there are no texts for 'mood'; give their file (--texts mood="),
        (["--criterion", "!?", "--llm", "x"], "the criterion '!?' has no letter to name a file by"),
        (["--texts", "universal=bases/color.yaml"], "universal is the name of the embedding"),
        (["--texts", "mood=none.yaml"], "cannot read none.yaml: No such file or directory"),
        (["--texts", "mood"], "write NAME=VALUE, not 'mood'; see --help"),
        ([*BASES, "--clusters", "0"], "write auto, or a number of clusters, not '0'"),
        ([*BASES, "--clusters", "many"], "write auto, or a number of clusters, not 'many'"),
        ([*BASES, "--like", "side=1"], "--like and --unlike belong to --query"),
        ([*BASES, "--query", "red", "--like", "side=much"], "the weight of side must be a number"),
        ([*BASES, "--query", "red", "--like", "side=1"], "the query is a text"),
        ([*BASES, "--query", "red.png"], "red.png is no image of pictures"),
        ([*BASES, "--query", "red-left-0.png", "--unlike", "side=-1"], "must be above 0"),
        ([*BASES, "--top", "0", "--query", "x"], "--top and --batch-size must be 1 or more"),
        ([*BASES, "--rank", "--query", "x"], "not allowed with argument"),
        (["--propose"], "--propose needs a model that sees images: --llm MODEL"),
        ([*BASES, "--labels", "none.csv"], "cannot read none.csv: No such file or directory"),
        ([*BASES, "--representation", "posteror"], "invalid choice: 'posteror'"),
    ],
)
def test_mistakes(wrong, place, arguments, message):
    assert message in wrong(*arguments)
    assert not (place / "outputs/explore/pictures/report.html").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "must begin with the line file,label"),
        ("name,label\n", "must begin with the line file,label"),
        ("file,label\nred-left-0.png\n", "line 2: it must hold a file and its label"),
        ("file,label\nred-left-0.png, \n", "line 2: it must hold a file and its label"),
        ("file,label\na.png,x\na.png,y\n", "line 3: 'a.png' has two labels"),
        ("file,label\na.png,x\nb.png,y\n", "a.png is no image of pictures"),
        ("file,label\nred-left-0.png,x\n", "labels of two kinds or more"),
        ("file,label\n\xff", "cannot read few.csv"),
    ],
)
def test_wrong_labels(wrong, place, content, message):
    (place / "few.csv").write_bytes(content.encode("latin-1"))
    assert message in wrong(*BASES, "--labels", "few.csv")


def test_an_llm_that_fails_leaves_nothing(wrong, place, server):
    server.replies = [fails(401)]
    message = wrong("--criterion", "mood", "--llm", "m", "--base-url", server.url)
    assert "refused the key" in message
    assert not (place / "outputs/explore/pictures").exists()
