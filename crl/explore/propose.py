"""A multimodal LLM looks at contact sheets of a collection and proposes criteria.

Pictures leave the machine only if the caller passes the sheets on.
"""

import io
import math
import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from crl.images import UnreadableImage, open_image
from crl.llm import FORM, OPENAI, Server, parse_texts
from crl.run.errors import UserError
from crl.run.files import CACHE, slug

COLUMNS, ROWS, SIDE = 6, 5, 160  # of a sheet, in pictures and in pixels
SHEETS = 3  # at most
NUMBER = 8  # of criteria, at most
MAX_CHARACTERS = 40  # of the name of a criterion
MARKS = " -'’&"  # that a name may have beside letters and digits
PROMPT = f"""\
Each picture shows a random sample from one collection of images. Name up to {NUMBER} different \
criteria by which a person could sort this collection: properties in which these images differ, \
and whose values can be described in a few words each, for example color, mood, season, kind of \
place, or number of people. Do not only name the main object.
Give each criterion a name of one to three plain words, without other signs.
Answer with only JSON of this form: {FORM}"""


def contact_sheets(files: Sequence[Path]) -> list[bytes]:
    """At most `SHEETS` contact sheets of a random sample of the files that can be read."""
    each = COLUMNS * ROWS
    order = np.random.default_rng(0).permutation(len(files))
    cells = list(islice(_cells(files[i] for i in order), SHEETS * each))
    return [_sheet(cells[start : start + each]) for start in range(0, max(1, len(cells)), each)]


def contact_sheet(files: Iterable[Path]) -> bytes:
    """A JPEG with small pictures of the files that can be read, row by row, without metadata."""
    return _sheet(list(_cells(files)))


def _cells(files: Iterable[Path]) -> Iterable[Image.Image]:
    """Each picture that can be read, in a white square of `SIDE` pixels."""
    for file in files:
        with suppress(UnreadableImage):
            picture = open_image(file)
            # ImageOps.pad would leave no row of a very long strip.
            width, height = (max(1, round(n * SIDE / max(picture.size))) for n in picture.size)
            cell = Image.new("RGB", (SIDE, SIDE), "white")
            cell.paste(picture.resize((width, height)), ((SIDE - width) // 2, (SIDE - height) // 2))
            yield cell


def _sheet(cells: list[Image.Image]) -> bytes:
    if not cells:
        raise UserError("none of the images can be read")
    columns = min(COLUMNS, len(cells))
    size = SIDE * columns, SIDE * math.ceil(len(cells) / columns)
    sheet = Image.new("RGB", size, "white")
    for place, cell in enumerate(cells):
        sheet.paste(cell, (SIDE * (place % columns), SIDE * (place // columns)))
    stream = io.BytesIO()
    sheet.save(stream, "JPEG", quality=80)
    return stream.getvalue()


def propose_criteria(
    sheets: Sequence[bytes],
    model: str,
    base_url: str = OPENAI,
    cache: Path = CACHE / "llm",
    timeout: float = 120.0,
) -> tuple[str, ...]:
    """Names of criteria, 1 to `NUMBER`, from a model that sees images; the sheets are sent to
    `base_url`, and the answer is kept in `cache`."""

    def read(answer: str) -> tuple[str, ...]:
        try:
            return usable_names(parse_texts(answer))[:NUMBER]
        except UserError as error:  # perhaps an excuse
            raise UserError(f"{error}; the model must be one that sees images") from None

    settings: dict[str, Any] = {"model": model, "temperature": 1.0, "seed": 0, "cache_dir": cache}
    return Server(base_url, timeout).answer(PROMPT, read, pictures=sheets, **settings)[0]


def usable_names(texts: Sequence[str]) -> tuple[str, ...]:
    """The texts that can name a criterion, in a sentence, on a page and as a file: letters or
    digits of any alphabet, `MARKS`, and nothing else, in at most `MAX_CHARACTERS`. Others are left
    out with a warning; of names that would share a file, the first is kept."""
    names: dict[str, str] = {}  # name of the file -> criterion
    for text in filter(_is_name, texts):
        names.setdefault(slug(text), text)
    others = [text for text in texts if not _is_name(text)]
    if not names:
        raise UserError(f"the LLM gave no name of a criterion; it said: {list(texts[:2])}")
    if others:
        warning = f"{len(others)} of {len(texts)} proposed names cannot be used: longer than "
        warning += f"{MAX_CHARACTERS} characters, or with odd signs; the first: {others[0]!r}"
        warnings.warn(warning, stacklevel=2)
    return tuple(names.values())


def _is_name(text: str) -> bool:
    plain = all(char in MARKS or unicodedata.category(char)[0] in "LMN" for char in text)
    return plain and slug(text) != "" and len(text) <= MAX_CHARACTERS
