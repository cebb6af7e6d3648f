"""Decks from a sheet of colored cells, in the format of the package's sheets."""

import shutil

import numpy as np
import pytest
import real_decks
from PIL import Image

from classification_clustering.datasets import CARDS_CLASSES, load

RANKS, SUITS = CARDS_CLASSES["number"], CARDS_CLASSES["suits"]
COLORS = {(s, r): (60 * s, 15 * r, 100) for s in range(4) for r in range(13)}


@pytest.fixture
def sheets(tmp_path):
    """A sheet of 13 x 5 cells of 10 x 15, each of its own color, as one that is left out."""
    cells = [
        f'<rect x="{10 * r}" y="{15 * s}" width="10" height="15" fill="rgb{color}"/>'
        for (s, r), color in COLORS.items()
    ]
    head = '<svg xmlns="http://www.w3.org/2000/svg" width="130" height="75" viewBox="0 0 130 75">'
    (tmp_path / "sheets").mkdir()
    for name in ("tiny", real_decks.LEFT_OUT[0]):
        (tmp_path / f"sheets/{name}.svg").write_text(head + "".join(cells) + "</svg>")
    return tmp_path / "sheets"


def as_drawn(sheet):
    """What any renderer makes of the fixture's sheet."""
    pixels = np.full((5 * real_decks.SIDE, round(130 / 15 * real_decks.SIDE), 3), 255, np.uint8)
    for (s, r), color in COLORS.items():
        x = [round(place * pixels.shape[1] / 13) for place in (r, r + 1)]
        pixels[s * real_decks.SIDE : (s + 1) * real_decks.SIDE, slice(*x)] = color
    return Image.fromarray(pixels)


PROGRAM = pytest.mark.skipif(not shutil.which("rsvg-convert"), reason="there is no rsvg-convert")


@pytest.mark.parametrize("real", [False, pytest.param(True, marks=PROGRAM)])
def test_each_cell_becomes_a_picture_of_its_suit_and_rank(
    real, sheets, tmp_path, monkeypatch, output, refusal
):
    if not real:
        monkeypatch.setattr(real_decks, "rendered", as_drawn)
    command = real_decks.main, "--sheets", sheets, "--out", tmp_path / "decks"
    for _ in range(2):  # the second time it is made anew
        assert "1 decks, 52 cards" in output(*command)
    for criterion in ("number", "suits"):
        cards = load("cards", tmp_path / "decks", criterion, expected=52)
        for path, label in zip(cards.paths, cards.labels, strict=True):
            suit, rank = path.stem.split("_")[1:]
            assert cards.classes[label] == (rank if criterion == "number" else suit)
            card = np.asarray(Image.open(path)).astype(int)
            assert card.shape == (128, 128, 3) and (card[:, :3] == 255).all()  # on white
            color = COLORS[SUITS.index(suit), RANKS.index(rank)]
            assert abs(card[64, 64] - color).max() <= 1
    (tmp_path / "decks/cards/.real_decks").unlink()
    assert "was not made by this script" in refusal(*command)


def test_a_users_mistakes(sheets, tmp_path, monkeypatch, refusal):
    arguments = ["--out", tmp_path / "decks"]
    assert "gnome-cards-data" in refusal(real_decks.main, "--sheets", tmp_path, *arguments)
    monkeypatch.setenv("PATH", str(tmp_path))
    missing = refusal(real_decks.main, "--sheets", sheets, *arguments)
    assert missing.endswith("rsvg-convert is missing: apt-get install librsvg2-bin")
    program = tmp_path / "rsvg-convert"
    program.write_text("#!/bin/sh\necho no such sheet >&2\nexit 1\n")
    program.chmod(0o755)
    wrong = refusal(real_decks.main, "--sheets", sheets, *arguments)
    assert "tiny.svg cannot be drawn: no such sheet" in wrong
    assert not (tmp_path / "decks/cards").exists()
