"""Contact sheets, and criteria from a model that sees them, against a server that misbehaves."""

import io
import json
from base64 import b64decode

import numpy as np
import pytest
from llm_server import fails, gives, says
from PIL import Image

from crl.propose import SIDE, contact_sheet, contact_sheets, propose_criteria
from crl.run.errors import UserError

KEY = "sk-very-secret-0123456789"


@pytest.fixture
def files(tmp_path):
    found = []
    for number in range(70):
        found.append(tmp_path / f"{number}.png")
        Image.new("RGB", (20 + number, 30), (3 * number, 0, 0)).save(found[-1])
    return found


@pytest.fixture
def ask(server, tmp_path, monkeypatch):
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.001)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    def ask(sheets=(b"one", b"two"), **settings):
        fixed = {"model": "m", "base_url": server.url, "cache_dir": tmp_path / "cache"}
        return propose_criteria(sheets, **{**fixed, "max_retries": 1, **settings})

    return ask


def test_sheets_hold_pictures_and_nothing_else(files):
    sheets = contact_sheets(files)
    assert [Image.open(io.BytesIO(sheet)).size for sheet in sheets] == [
        (6 * SIDE, 5 * SIDE),
        (6 * SIDE, 5 * SIDE),
        (6 * SIDE, 2 * SIDE),
    ]
    assert all(b"png" not in sheet and b"Exif" not in sheet for sheet in sheets)
    assert contact_sheets(files) == sheets != contact_sheets(files, seed=1)
    assert len(contact_sheets(files, sheets=1)) == 1


def test_a_sheet_shows_the_files_row_by_row_and_leaves_out_what_is_broken(files):
    files[1].write_bytes(b"no picture")
    sheet = np.asarray(Image.open(io.BytesIO(contact_sheet(files[:4] + files[60:64], columns=2))))
    assert sheet.shape == (4 * SIDE, 2 * SIDE, 3)
    middle = sheet[SIDE // 2 :: SIDE, SIDE // 2 :: SIDE, 0]
    expected = [[0, 6], [9, 180], [183, 186], [189, 255]]
    assert np.abs(middle.astype(int) - expected).max() < 6
    for file in files:
        file.write_bytes(b"no picture")
    with pytest.raises(UserError, match="none of the images can be read"):
        contact_sheets(files)


def test_the_model_sees_the_very_sheets_and_the_record_does_not_hold_them(server, ask, tmp_path):
    server.replies = [gives("color", "kind of place")]
    assert ask() == ("color", "kind of place")
    text, *pictures = server.requests[0]["messages"][0]["content"]
    assert "criteria" in text["text"]
    urls = [picture["image_url"]["url"] for picture in pictures]
    assert [b64decode(url.removeprefix("data:image/jpeg;base64,")) for url in urls] == [
        b"one",
        b"two",
    ]
    (record,) = (tmp_path / "cache").iterdir()
    assert "base64" not in record.read_text() and KEY not in record.read_text()
    assert len(json.loads(record.read_text())["request"]["pictures"]) == 2


def test_the_same_sheets_are_sent_once_and_others_again(server, ask):
    server.replies = [gives("color")]
    assert ask() == ask() == ("color",)
    assert len(server.requests) == 1
    ask(sheets=[b"three"])
    assert len(server.requests) == 2


def test_names_that_cannot_be_used_are_left_out(server, ask):
    said = [
        "Color",
        "color",
        "../..",
        "x" * 41,
        "<script>",
        "\x1b[31mmood",
        "kind/of place",
        "",
        "!?",
    ]
    server.replies = [says(json.dumps(said))]
    assert ask() == ("Color", "<script>", "[31mmood", "kind/of place")
    assert ask(number=2) == ("Color", "<script>")


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (
            fails(400, "image input is not supported"),
            "not supported; pictures need a model that sees",
        ),
        (fails(422, "no"), "pictures need a model that sees"),
        (fails(500, "boom"), "boom; pictures need"),
        (says("I see many nice pictures."), "no list of texts"),
        (says("[]"), "empty list"),
        (gives("!!", "??"), "proposed no criterion"),
        ((200, "<html>"), "does not answer like an OpenAI-compatible server"),
    ],
)
def test_what_goes_wrong_is_one_line_and_is_not_kept(server, ask, tmp_path, reply, message):
    server.replies = [reply]
    with pytest.raises(UserError, match=message) as error:
        ask()
    assert "\n" not in str(error.value) and KEY not in str(error.value)
    assert not list(tmp_path.glob("cache/*"))
