"""Contact sheets, and criteria from a model that sees them, against a server that misbehaves."""

import io
from base64 import b64decode

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llm_server import fails, gives, says
from PIL import Image

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


@pytest.fixture
def files(tmp_path):
    """70 pictures of one red each, 3 times their number."""
    files = [tmp_path / f"{number}.png" for number in range(70)]
    for number, file in enumerate(files):
        Image.new("RGB", (20 + number, 30), (3 * number, 0, 0)).save(file)
    return files


def opened(sheet):
    return Image.open(io.BytesIO(sheet))


def reds(sheet):
    """The red in the middle of each cell, (rows, columns)."""
    middle = slice(SIDE // 2, None, SIDE)
    return np.asarray(opened(sheet), int)[middle, middle, 0]


def numbers(sheets):
    """The numbers of the pictures on these sheets; an empty cell is white, and none of them."""
    return [round(red / 3) for sheet in sheets for red in reds(sheet).ravel() if red < 240]


def test_a_sample_fills_sheets_and_is_always_the_same(files):
    sheets = contact_sheets(files)
    sizes = [(6 * SIDE, 5 * SIDE), (6 * SIDE, 5 * SIDE), (6 * SIDE, 2 * SIDE)]
    assert [opened(sheet).size for sheet in sheets] == sizes
    assert sorted(numbers(sheets)) == list(range(70)) != numbers(sheets)
    assert contact_sheets(files) == sheets
    (sheet,) = contact_sheets(files[:4])
    assert opened(sheet).format == "JPEG" and opened(sheet).size == (4 * SIDE, SIDE)


def test_pictures_that_cannot_be_read_are_replaced_by_others(files):
    for file in files[10:]:
        file.write_bytes(b"no picture")
    files[10].unlink()
    assert sorted(numbers(contact_sheets(files))) == list(range(10))
    sheet = contact_sheet(files[:3] + files[20:21] + files[3:8])  # row by row
    expected = [[0, 3, 6, 9, 12, 15], [18, 21, *[255] * 4]]
    assert np.abs(reds(sheet) - expected).max() < 6
    for make in (contact_sheet, contact_sheets):
        with pytest.raises(UserError, match="none of the images can be read"):
            make(files[10:])


def test_sheets_hold_no_names_and_no_metadata(tmp_path):
    file = tmp_path / "ann-in-paris.jpg"
    exif = Image.Exif()
    exif[0x010E] = "taken by Ann"
    picture = Image.new("RGB", (50, 50), "red")
    picture.save(file, exif=exif, comment=b"by Ann", icc_profile=b"profile of Ann")
    plain = {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
    for sheet in (contact_sheet([file]), *contact_sheets([file])):
        assert b"Ann" not in sheet and b"ann" not in sheet
        assert not opened(sheet).getexif() and set(opened(sheet).info) <= plain


@pytest.fixture
def ask(server, tmp_path, monkeypatch):
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.001)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    return lambda sheets=(b"one", b"two"): propose_criteria(
        sheets, "m", server.url, tmp_path / "cache"
    )


def test_the_model_sees_the_very_sheets_and_the_record_does_not_hold_them(
    server, ask, tmp_path, files
):
    sheets = contact_sheets(files)
    server.replies = [gives("color", "kind of place")]
    assert ask(sheets) == ask(sheets) == ("color", "kind of place")
    (request,) = server.requests
    text, *pictures = request["messages"][0]["content"]
    assert text["type"] == "text" and "up to 8 different criteria" in text["text"]
    urls = [picture["image_url"]["url"] for picture in pictures]
    assert [b64decode(url.removeprefix("data:image/jpeg;base64,")) for url in urls] == sheets
    assert (request["model"], request["temperature"], request["seed"]) == ("m", 1.0, 0)
    assert server.keys == [f"Bearer {KEY}"]  # it was there to be leaked
    (file,) = (tmp_path / "cache").iterdir()
    kept = file.read_text()
    assert len(kept) < 2000 and "base64" not in kept and KEY not in kept
    ask([b"two", b"one"])
    assert len(server.requests) == 2


SEES = "the model must be one that sees images"


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (fails(400, "content must be a string"), f"{SEES}: .*content must be a string"),
        (says("I cannot see pictures."), f"no list of texts; it said: 'I cannot see .*{SEES}"),
        (gives("a" * 41, "!!"), r"gave no name of a criterion; it said: \['aaaa"),
    ],
)
def test_what_goes_wrong_is_one_line_and_is_not_kept(server, ask, tmp_path, reply, message):
    server.replies = [reply]
    with pytest.raises(UserError, match=message) as caught:
        ask()
    assert str(caught.value).isprintable() and len(str(caught.value)) < 400
    assert KEY not in str(caught.value)
    assert not (tmp_path / "cache").exists()


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
