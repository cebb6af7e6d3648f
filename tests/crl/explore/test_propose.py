"""Contact sheets, and criteria from a model that sees them, against a server that misbehaves."""

import io
import json
import math
import threading
import warnings
from base64 import b64decode

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llm_server import OK, fails, gives, says, sends
from PIL import Image

from crl import llm
from crl.basis import fold
from crl.explore.propose import (
    MAX_CHARACTERS,
    SIDE,
    contact_sheet,
    contact_sheets,
    propose_criteria,
    usable_names,
)
from crl.run.errors import UserError
from crl.run.files import slug

KEY = "sk-very-secret-0123456789"


# ---- the sheets ---------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path):
    """70 pictures of one red each, 3 times their number."""
    found = []
    for number in range(70):
        found.append(tmp_path / f"{number}.png")
        Image.new("RGB", (20 + number, 30), (3 * number, 0, 0)).save(found[-1])
    return found


def opened(sheet):
    return Image.open(io.BytesIO(sheet))


def reds(sheet):
    """The red in the middle of each cell, (rows, columns)."""
    middle = slice(SIDE // 2, None, SIDE)
    return np.asarray(opened(sheet), int)[middle, middle, 0]


def numbers(sheets):
    """The numbers of the pictures on these sheets; an empty cell is white, and none of them."""
    return [round(red / 3) for sheet in sheets for red in reds(sheet).ravel() if red < 240]


def test_a_sample_fills_sheets_and_is_the_same_for_a_seed(files):
    sheets = contact_sheets(files)
    assert [opened(sheet).size for sheet in sheets] == [
        (6 * SIDE, 5 * SIDE),
        (6 * SIDE, 5 * SIDE),
        (6 * SIDE, 2 * SIDE),
    ]
    assert sorted(numbers(sheets)) == list(range(70)) != numbers(sheets)
    assert contact_sheets(files) == sheets != contact_sheets(files, seed=1)
    assert contact_sheets(files, sheets=1) == sheets[:1]


def test_few_pictures_make_one_small_sheet(files):
    (sheet,) = contact_sheets(files[:4])
    assert opened(sheet).format == "JPEG" and opened(sheet).size == (4 * SIDE, SIDE)


def test_pictures_that_cannot_be_read_are_replaced_by_others(files):
    for file in files[10:]:
        file.write_bytes(b"no picture")
    files[10].unlink()
    assert sorted(numbers(contact_sheets(files, sheets=1))) == list(range(10))
    for file in files[:10]:
        file.write_bytes(b"no picture")
    for make in (contact_sheet, contact_sheets):
        with pytest.raises(UserError, match="none of the images can be read"):
            make(files)
        with pytest.raises(UserError, match="none of the images can be read"):
            make([])


def test_a_sheet_shows_the_files_row_by_row_and_leaves_out_what_is_broken(files):
    files[1].write_bytes(b"no picture")
    sheet = contact_sheet(files[:4] + files[60:64], columns=2)
    assert np.abs(reds(sheet) - [[0, 6], [9, 180], [183, 186], [189, 255]]).max() < 6


def test_a_picture_keeps_its_form_and_is_seen_whole(tmp_path):
    for size, shown in (
        ((40, 20), (160, 80)),
        ((300, 600), (80, 160)),
        ((2000, 1), (160, 1)),
        ((1, 1), (160, 160)),
    ):
        Image.new("RGB", size, "black").save(tmp_path / "a.png")
        dark = np.asarray(opened(contact_sheet([tmp_path / "a.png"])).convert("L")) < 128
        places = np.argwhere(dark)
        high, wide = np.ptp(places, axis=0) + 1
        assert (wide, high) == shown, size
        assert np.abs(places.mean(0) - (SIDE - 1) / 2).max() <= 0.5


def test_sheets_hold_no_names_and_no_metadata(tmp_path):
    file = tmp_path / "ann-in-paris.jpg"
    exif = Image.Exif()
    exif[0x010E] = "taken by Ann"
    picture = Image.new("RGB", (50, 50), "red")
    picture.save(file, exif=exif, comment=b"by Ann", icc_profile=b"profile of Ann")
    for sheet in (contact_sheet([file]), *contact_sheets([file])):
        assert b"Ann" not in sheet and b"ann" not in sheet
        assert not opened(sheet).getexif() and set(opened(sheet).info) <= {
            *("jfif", "jfif_version", "jfif_unit", "jfif_density")
        }


# ---- the question -------------------------------------------------------------------------------


@pytest.fixture
def ask(server, tmp_path, monkeypatch):
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.001)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    def ask(sheets=(b"one", b"two"), **settings):
        fixed = {"model": "m", "base_url": server.url, "cache_dir": tmp_path / "cache"}
        return propose_criteria(sheets, **{**fixed, "max_retries": 1, **settings})

    return ask


def test_the_model_sees_the_very_sheets_and_the_record_does_not_hold_them(
    server, ask, tmp_path, files
):
    sheets = contact_sheets(files)
    server.replies = [gives("color", "kind of place")]
    assert ask(sheets, number=5, temperature=0.5, seed=7) == ("color", "kind of place")
    (request,) = server.requests
    (message,) = request["messages"]
    text, *pictures = message["content"]
    assert text["type"] == "text" and "up to 5 different criteria" in text["text"]
    assert {picture["type"] for picture in pictures} == {"image_url"}
    urls = [picture["image_url"]["url"] for picture in pictures]
    assert [b64decode(url.removeprefix("data:image/jpeg;base64,")) for url in urls] == sheets
    assert (request["model"], request["temperature"], request["seed"]) == ("m", 0.5, 7)
    assert request["response_format"] == llm.SCHEMA
    assert server.keys == [f"Bearer {KEY}"]  # it was there to be leaked
    (file,) = (tmp_path / "cache").iterdir()
    kept = file.read_text()
    assert len(kept) < 2000 and "base64" not in kept and KEY not in kept
    assert len(set(json.loads(kept)["request"]["pictures"])) == 3


def test_the_same_sheets_are_sent_once_and_others_again(server, ask):
    server.replies = [gives("color")]
    assert ask() == ask() == ("color",)
    assert len(server.requests) == 1
    for sheets in ([b"one", b"three"], [b"two", b"one"], [b"one"]):
        before = len(server.requests)
        ask(sheets), ask(sheets)
        assert len(server.requests) == before + 1
    ask(seed=1)
    assert len(server.requests) == 5


def test_questions_without_pictures_are_sent_and_kept_as_before(server, tmp_path):
    server.replies = [gives("red")]
    settings = {"model": "m", "temperature": 0.0, "seed": 0, "cache_dir": tmp_path}
    _, record = llm.Server(server.url).answer("Which?", llm.parse_texts, **settings)
    assert server.prompts == ["Which?"] and "pictures" not in record["request"]


@pytest.mark.parametrize("status", [400, 422])
def test_a_server_that_takes_pictures_but_no_schema(server, ask, status):
    def reply(request):
        assert len(request["messages"][0]["content"]) == 3
        return fails(status) if "response_format" in request else says("- color\n- mood")

    server.replies = [reply]
    assert ask() == ("color", "mood")
    assert len(server.requests) == 2
    assert ask() == ("color", "mood") and len(server.requests) == 2


# ---- servers that misbehave ---------------------------------------------------------------------

SEES = "the model must be one that sees images"

ERRORS = [
    # Statuses and words of servers whose model sees no images.
    (fails(400, "content must be a string"), 2, f"{SEES}: .*content must be a string"),
    (fails(422, "unknown variant `image_url`"), 2, f"{SEES}: .*unknown variant"),
    (fails(500, "image input is not supported"), 2, f"{SEES}: .*image input is not"),
    (fails(404, "No endpoints found that support image input"), 1, f"{SEES}: .*No endpoints"),
    (says("I cannot see pictures."), 1, f"no list of texts; it said: 'I cannot see .*{SEES}"),
    # Other faults are not blamed on the model's sight.
    (fails(401, f"bad key {KEY}"), 1, "refused the key; check OPENAI_API_KEY$"),
    (fails(404, "try pulling it"), 1, "does not know the model 'm'.*try pulling it$"),
    (fails(429, "10 images a minute"), 2, "over its rate limit .*10 images a minute$"),
    (fails(500, f"dump: {KEY}"), 2, r"failed: .*dump: \(key\)$"),
    (fails(413, "too large"), 1, "failed: .*too large$"),
    ((200, "<html>welcome</html>"), 1, "does not answer like an OpenAI-compatible server"),
    ((200, '{"choices": [{"mess'), 1, "or its answer was cut off"),
    (sends(OK + b'content-length: 99\r\n\r\n{"cho'), 2, "closed the connection before its answer"),
    (sends(OK + b"\r\n" + b" " * 1_000_001), 1, "sent more than 1,000,000 bytes"),
    # Answers that are no names.
    (gives(), 1, "empty list"),
    (says('{"color": "red"}'), 1, "no list of texts"),
    (says('[{"name": "color"}]'), 1, "not strings"),
    (gives("color", "a" * 101), 1, "over 100 characters"),
    (gives(*map(str, range(5001))), 1, "listed more than 5000 things"),
    (gives("a" * 41, "!!"), 1, r"gave no name of a criterion; it said: \['aaaa"),
    (gives("<script>alert(1)</script>"), 1, r"gave no name of a criterion; it said: \['<script>"),
    (gives("../../etc/passwd"), 1, r"gave no name of a criterion; it said: \['\.\./"),
]


@pytest.mark.parametrize(("reply", "requests", "message"), ERRORS)
def test_what_goes_wrong_is_one_line_and_is_not_kept(
    server, ask, tmp_path, reply, requests, message
):
    server.replies = [reply]
    with pytest.raises(UserError, match=message) as caught:
        ask()
    assert len(server.requests) == requests
    assert str(caught.value).isprintable() and len(str(caught.value)) < 400
    assert KEY not in str(caught.value)
    assert not (tmp_path / "cache").exists()


def test_a_slow_server(server, ask):
    release = threading.Event()
    server.replies = [lambda request: release.wait(5) and gives("color")]
    with pytest.raises(UserError, match=r"no answer within 0.3 s \(2 attempts\)"):
        ask(timeout=0.3)
    release.set()


def test_a_list_that_was_cut_off_or_lies_in_prose_is_used(server, ask):
    server.replies = [
        says('{"texts": ["color", "kind of pl'),
        says('Of course! ["mood",\n"Season."] Shall I go on?'),
    ]
    assert ask() == ("color",)
    assert ask(seed=1) == ("mood", "Season")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sheets": []}, "no contact sheets"),
        ({"number": 0}, "at least 1, not 0"),
        ({"temperature": math.nan}, "temperature must be 0 or above, not nan"),
        ({"seed": -1}, "seed must be 0 to 2147483647, not -1"),
        ({"timeout": 0}, "timeout must be above 0"),
        ({"model": " "}, "name of the model is empty"),
        ({"base_url": "localhost:1234"}, "must look like http"),
    ],
)
def test_impossible_arguments_cost_no_request(server, ask, settings, message):
    with pytest.raises(UserError, match=message):
        ask(**settings)
    assert server.requests == []


# ---- names --------------------------------------------------------------------------------------


def test_names_are_distinct_and_no_more_than_wanted(server, ask):
    server.replies = [gives("Color", "color ", "kind of place", "Kind-of-place", "mood", "light")]
    assert ask(number=3) == ("Color", "kind of place", "mood")
    assert ask(number=9) == ("Color", "kind of place", "mood", "light")


def test_names_that_cannot_be_used_are_left_out_with_a_warning(server, ask):
    odd = ["../..", "/etc/passwd", "x" * 41, "<script>", "{text}", "a=b", "\x1b[31mred", "!?", "♥"]
    server.replies = [says(json.dumps(["mood", *odd, "", "the \x1b\u202ewriter's season"]))]
    for _ in range(2):  # the second time from the cache
        with pytest.warns(UserWarning, match=r"^9 of 11 proposed names .*40 characters.*'\.\./'$"):
            assert ask() == ("mood", "the writer's season")
    assert len(server.requests) == 1


def test_names_may_be_in_any_alphabet():
    names = ("Größe", "Fußball & Co", "цвет", "色", "रंग", "number of people", "3-D look")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert usable_names(names) == names


@pytest.mark.filterwarnings("ignore:.*proposed names cannot be used")
@given(st.lists(st.text(max_size=50) | st.text("aAßéе 色-'_./<{\x1b", max_size=6)))
def test_any_names_are_refused_or_can_be_used(texts):
    try:
        names = usable_names(texts)
    except UserError as error:
        assert str(error).isprintable()
        return
    assert set(names) <= set(texts)
    assert len({slug(name) for name in names}) == len(names) > 0
    for name in names:
        assert name.isprintable() and fold(name) and len(name) <= MAX_CHARACTERS
        assert not set(name) & set('<>{}[]/\\=:*?"|._%$`')
        assert len(f"{slug(name)}.yaml".encode()) < 256 and slug(name).strip("-")
