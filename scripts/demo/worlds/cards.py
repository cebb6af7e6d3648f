"""The Cards world: one playing card, 13 ranks x 4 suits, in several styles on several tables.

Files are written as the Cards data set publishes them: `cards/number/<class>/*` and
`cards/suits/<class>/*`, the same pictures in both trees.
"""

import functools
import os
import shutil
from pathlib import Path

import numpy as np
from matplotlib import get_data_path
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from worlds import draw_many, sample_facts

SIZE = 128  # pixels, width and height of a picture
CARD = (84, 116)  # pixels, the card before it is turned
DOMINANT = ("number",)
DATASET = "cards"

PHRASES = {
    "number": {
        "ace": ("ace", "an ace", "A", "the ace", "ace card", "the highest card"),
        "two": ("two", "2", "deuce", "number two", "a deuce", "the two"),
        "three": ("three", "3", "trey", "number three", "a three", "the three"),
        "four": ("four", "4", "number four", "a four", "the four"),
        "five": ("five", "5", "number five", "a five", "the five"),
        "six": ("six", "6", "number six", "a six", "the six"),
        "seven": ("seven", "7", "number seven", "a seven", "lucky seven"),
        "eight": ("eight", "8", "number eight", "an eight", "the eight"),
        "nine": ("nine", "9", "number nine", "a nine", "the nine"),
        "ten": ("ten", "10", "number ten", "a ten", "the ten"),
        "jack": ("jack", "J", "a jack", "knave", "the jack", "jack card"),
        "queen": ("queen", "Q", "a queen", "the queen", "lady", "queen card"),
        "king": ("king", "K", "a king", "the king", "king card", "crowned king"),
    },
    "suits": {
        "clubs": ("clubs", "club", "clover", "clovers", "black clubs", "three leaf clover"),
        "diamonds": ("diamonds", "diamond", "red diamonds", "rhombus", "red diamond", "tiles"),
        "hearts": ("hearts", "heart", "red hearts", "red heart", "love hearts", "heart symbol"),
        "spades": ("spades", "spade", "black spades", "black spade", "spade symbol", "pikes"),
    },
}

INDEX = dict(zip(PHRASES["number"], ["A", *map(str, range(2, 11)), "J", "Q", "K"], strict=True))
SYMBOL = {"clubs": "♣", "diamonds": "♦", "hearts": "♥", "spades": "♠"}
FONTS = ("DejaVuSans-Bold", "DejaVuSerif-Bold", "DejaVuSansMono-Bold")


def sample(rng: np.random.Generator) -> dict[str, str]:
    """One class for every attribute, independent of each other."""
    return sample_facts(PHRASES, rng)


def draw(facts: dict[str, str], rng: np.random.Generator) -> Image.Image:
    """A card on a table; style, ink, paper, place, angle, size and light vary."""
    card = _card(facts["number"], facts["suits"], rng)
    picture = _table(rng)
    scale = rng.uniform(0.78, 1.04)
    card = card.resize(
        (round(card.width * scale), round(card.height * scale)), Image.Resampling.BICUBIC
    )
    card = card.rotate(rng.uniform(-25, 25), Image.Resampling.BICUBIC, expand=True)
    x, y = ((SIZE - side) / 2 + rng.uniform(-8, 8) for side in card.size)
    shadow = card.getchannel("A").filter(ImageFilter.GaussianBlur(3)).point(lambda a: a * 0.5)
    drop = rng.uniform(1, 5)
    picture.paste((10, 10, 10), (round(x + drop), round(y + drop)), shadow)
    picture.paste(card, (round(x), round(y)), card)
    light = np.linspace(rng.uniform(0.72, 1.08), rng.uniform(0.72, 1.08), SIZE)
    pixels = np.asarray(picture, float) * light[None, :, None]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def caption(facts: dict[str, str], rng: np.random.Generator) -> str:
    """A sentence that names exactly the attributes in `facts`, each by one of its phrases."""
    said = {a: str(rng.choice(PHRASES[a][c])) for a, c in facts.items()}
    if set(said) == {"number"}:
        forms = ["a poker card with the number of {number}", "the number is {number}", "{number}"]
    elif set(said) == {"suits"}:
        forms = ["a poker card with the card suits of {suits}", "the suit is {suits}", "{suits}"]
        forms += ["a card of {suits}", "a playing card with {suits}"]
    elif said:
        forms = ["{number} of {suits}", "a photo of the {number} of {suits}"]
        forms += ["a playing card, {number} of {suits}", "a poker card with {suits} and {number}"]
    else:
        forms = ["a playing card", "a poker card", "a card on a table", "a photo of a card"]
    if set(said) == {"number"}:
        forms += ["a playing card, {number}", "a photo of a card with {number}"]
    return str(rng.choice(forms)).format(**said)


def write(root: Path, images: int, seed: int, workers: int) -> None:
    """Draw `images` pictures into `root/cards`, in the official layout with its two trees."""
    folder = Path(root) / DATASET
    for attribute, classes in PHRASES.items():
        for name in classes:
            (folder / attribute / name).mkdir(parents=True, exist_ok=True)
    list(draw_many(_draw_file, [(folder, seed, i) for i in range(images)], workers, "cards"))


def _draw_file(task: tuple[Path, int, int]) -> None:
    folder, seed, index = task
    rng = np.random.default_rng([seed, index])
    facts = sample(rng)
    name = f"card_{index:05d}.jpg"
    first = folder / "number" / facts["number"] / name
    second = folder / "suits" / facts["suits"] / name
    draw(facts, rng).save(first, quality=92)
    second.unlink(missing_ok=True)
    try:
        os.link(first, second)
    except OSError:  # a file system without hard links
        shutil.copyfile(first, second)


@functools.cache
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    # matplotlib ships the DejaVu fonts, which have the four suits' symbols
    return ImageFont.truetype(f"{get_data_path()}/fonts/ttf/{name}.ttf", size)


def _table(rng: np.random.Generator) -> Image.Image:
    """Felt, wood or plain cloth."""
    kind = rng.integers(3)
    if kind == 0:  # felt: green, blue or dark red, with a fine grain
        color = np.array([(25, 95, 50), (30, 60, 120), (110, 25, 30)])[rng.integers(3)]
        pixels = color + rng.normal(0, 6, (SIZE, SIZE, 1))
    elif kind == 1:  # wood: brown, with long streaks
        streaks = rng.normal(0, 14, (SIZE // 4, 1, 1)).repeat(4, 0)
        pixels = np.array((140, 95, 55)) * rng.uniform(0.6, 1.3) + streaks
        pixels = pixels + rng.normal(0, 3, (SIZE, SIZE, 1))
    else:
        pixels = rng.uniform(40, 210) + rng.uniform(-20, 20, 3) + rng.normal(0, 2, (SIZE, SIZE, 1))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _card(number: str, suit: str, rng: np.random.Generator) -> Image.Image:
    """An upright card, RGBA."""
    paper = tuple(int(c) for c in 250 - rng.uniform(0, 1) * np.array([2, 8, 26]))
    card = Image.new("RGBA", CARD)
    pen = ImageDraw.Draw(card)
    edge = ((0, 0), (CARD[0] - 1, CARD[1] - 1))
    pen.rounded_rectangle(*[edge], radius=7, fill=paper, outline=(120, 120, 120))
    red, dark = rng.uniform(0.85, 1.1), int(rng.uniform(5, 50))
    ink = (int(200 * red), 20, 30) if suit in {"hearts", "diamonds"} else (dark, dark, dark)
    font = FONTS[rng.integers(len(FONTS))]
    symbol, index = SYMBOL[suit], INDEX[number]
    style = rng.integers(3)
    center = (CARD[0] / 2, CARD[1] / 2)
    if style == 2:  # jumbo index above one large symbol
        pen.text((center[0], 34), index, ink, _font(font, 44), anchor="mm")
        pen.text((center[0], 84), symbol, ink, _font(FONTS[0], 50), anchor="mm")
        return card
    corner = Image.new("RGBA", CARD)
    small = ImageDraw.Draw(corner)
    small.text((14, 15), index, ink, _font(font, 19 if index == "10" else 23), anchor="mm")
    small.text((14, 36), symbol, ink, _font(FONTS[0], 20), anchor="mm")
    card.alpha_composite(corner)
    card.alpha_composite(corner.rotate(180))
    if number in {"jack", "queen", "king"} and style == 0:
        _court(pen, number, symbol, ink, rng)
    elif style == 0:
        for u, v in _pips(number):
            place = (center[0] + 15 * u, center[1] + 36 * v)
            size = 46 if number == "ace" else 22
            pen.text(place, symbol, ink, _font(FONTS[0], size), anchor="mm")
    else:  # the index once more, large, over a symbol
        pen.text((center[0], center[1] - 17), index, ink, _font(font, 38), anchor="mm")
        pen.text((center[0], center[1] + 22), symbol, ink, _font(FONTS[0], 36), anchor="mm")
    return card


def _pips(number: str) -> list[tuple[float, float]]:
    """Where the symbols of a number card stand: (across, down) from -1 to 1."""
    n = 1 if number == "ace" else int(INDEX[number])
    column = {1: [], 2: [], 3: []}.get(n) or np.linspace(-1, 1, {4: 2, 5: 2, 9: 4, 10: 4}.get(n, 3))
    middle = {1: [0], 2: [-1, 1], 3: [-1, 0, 1], 5: [0], 7: [-0.5], 8: [-0.5, 0.5], 9: [0]}
    middle[10] = [-0.67, 0.67]
    sides = [(side, v) for side in (-1, 1) for v in column] if n > 3 else []
    return sides + [(0, v) for v in middle.get(n, [])]


def _court(pen: ImageDraw.ImageDraw, number: str, symbol: str, ink, rng) -> None:
    """A framed bust: king with crown and beard, queen with tiara and hair, jack with cap."""
    x, y = CARD[0] / 2, CARD[1] / 2
    robe = tuple(int(c) for c in rng.integers(40, 220, 3))
    gold, skin = (225, 175, 40), (240, 205, 170)
    pen.rectangle((x - 19, y - 42, x + 19, y + 42), fill=(248, 236, 200), outline=ink)
    pen.polygon([(x - 18, y + 41), (x + 18, y + 41), (x + 9, y + 6), (x - 9, y + 6)], fill=robe)
    if number == "queen":
        pen.ellipse((x - 15, y - 22, x + 15, y + 18), fill=(120, 60, 25))
    pen.ellipse((x - 10, y - 18, x + 10, y + 9), fill=skin)
    for side in (-4, 4):
        pen.ellipse((x + side - 1, y - 7, x + side + 1, y - 5), fill=(20, 20, 20))
    if number == "king":
        pen.polygon([(x - 10, y), (x + 10, y), (x + 6, y + 16), (x - 6, y + 16)], fill=(90, 60, 30))
        crown = [(-13, -14), (-15, -34), (-7, -24), (0, -37), (7, -24), (15, -34), (13, -14)]
        pen.polygon([(x + u, y + v) for u, v in crown], fill=gold, outline=(90, 60, 0))
    elif number == "queen":
        crown = [(-10, -16), (-8, -25), (-4, -19), (0, -29), (4, -19), (8, -25), (10, -16)]
        pen.polygon([(x + u, y + v) for u, v in crown], fill=gold, outline=(90, 60, 0))
        pen.line((x - 3, y + 3, x + 3, y + 3), fill=(190, 30, 40), width=2)
    else:
        pen.pieslice((x - 14, y - 32, x + 14, y - 4), 180, 360, fill=robe, outline=ink)
        pen.line((x + 6, y - 22, x + 17, y - 38), fill=gold, width=3)
    pen.text((x, y + 28), symbol, (250, 250, 250), _font(FONTS[0], 22), anchor="mm")
    pen.text((x, y + 28), symbol, ink, _font(FONTS[0], 18), anchor="mm")
