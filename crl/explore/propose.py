"""A multimodal LLM looks at contact sheets of a collection and proposes criteria.

Making the sheets and showing them are two steps: pictures leave the machine only if the caller
passes them on.
"""

import io
import math
import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image

from crl.images import UnreadableImage, open_image
from crl.llm import OPENAI, Server, check_sampling, parse_texts
from crl.run.cache import LLM_ANSWERS
from crl.run.errors import UserError
from crl.run.files import slug

COLUMNS, ROWS, SIDE = 6, 5, 160  # of a sheet, in pictures and in pixels
MAX_CHARACTERS = 40  # of the name of a criterion
MARKS = " -'’&"  # that a name may have beside letters and digits
PROMPT = """\
Each picture shows a random sample from one collection of images. Name up to {number} different \
criteria by which a person could sort this collection: properties in which these images differ, \
and whose values can be described in a few words each, for example color, mood, season, kind of \
place, or number of people. Do not only name the main object.
Give each criterion a name of one to three plain words, without other signs.
Answer with only a list of strings, as JSON."""


# ---- the sheets ---------------------------------------------------------------------------------


def contact_sheet(files: Iterable[Path], columns: int = COLUMNS) -> bytes:
    """A JPEG with small pictures of the files, row by row, without names or metadata.

    Files that cannot be read are left out.

    Raises:
        UserError: none can be read.
    """
    return _sheet(_cells(files), columns)


def contact_sheets(files: Sequence[Path], seed: int = 0, sheets: int = 3) -> list[bytes]:
    """Contact sheets of a random sample of the files that can be read.

    Args:
        sheets: how many at most, of `COLUMNS` x `ROWS` pictures each; fewer pictures make fewer
            and smaller sheets.

    Raises:
        UserError: none can be read.
    """
    each = COLUMNS * ROWS
    order = np.random.default_rng(seed).permutation(len(files))
    cells = _cells((files[i] for i in order), most=sheets * each)
    return [_sheet(cells[start : start + each], COLUMNS) for start in range(0, len(cells), each)]


def _cells(files: Iterable[Path], most: int | None = None) -> list[Image.Image]:
    """The first `most` pictures that can be read, as in `_cell`."""
    cells: list[Image.Image] = []
    for file in files:
        if len(cells) == most:
            break
        with suppress(UnreadableImage):
            cells.append(_cell(open_image(file)))
    if not cells:
        raise UserError("none of the images can be read")
    return cells


def _cell(picture: Image.Image) -> Image.Image:
    """A picture in the middle of a white square of `SIDE` pixels."""
    # ImageOps.pad would leave no row of a very long strip.
    width, height = (max(1, round(n * SIDE / max(picture.size))) for n in picture.size)
    cell = Image.new("RGB", (SIDE, SIDE), "white")
    cell.paste(picture.resize((width, height)), ((SIDE - width) // 2, (SIDE - height) // 2))
    return cell


def _sheet(cells: list[Image.Image], columns: int) -> bytes:
    columns = min(columns, len(cells))
    size = SIDE * columns, SIDE * math.ceil(len(cells) / columns)
    sheet = Image.new("RGB", size, "white")
    for place, cell in enumerate(cells):
        sheet.paste(cell, (SIDE * (place % columns), SIDE * (place // columns)))
    content = io.BytesIO()
    sheet.save(content, "JPEG", quality=80)
    return content.getvalue()


# ---- the proposals ------------------------------------------------------------------------------


def propose_criteria(
    sheets: Sequence[bytes],
    *,
    model: str,
    base_url: str = OPENAI,
    number: int = 8,
    temperature: float = 1.0,
    seed: int = 0,
    timeout: float = 120.0,
    max_retries: int = 4,
    cache_dir: Path = LLM_ANSWERS,
) -> tuple[str, ...]:
    """Ask a model that sees images for criteria; the sheets are sent to `base_url`.

    Args:
        sheets: JPEG files of `contact_sheets`.
        number: how many criteria, at most. The other arguments are those of
            `crl.llm.generate_basis`.

    Returns:
        Names of criteria, 1 to `number`, as in `usable_names`; a warning says what is left out.

    Raises:
        UserError: an invalid argument; what `crl.llm.Server.answer` raises; an answer without a
            list, or without a usable name.
    """
    if not sheets:
        raise UserError("there are no contact sheets; the model must see some pictures")
    if number < 1:
        raise UserError(f"the number of criteria must be at least 1, not {number}")
    check_sampling(temperature, seed)

    def read(answer: str) -> tuple[str, ...]:
        try:
            names = usable_names(parse_texts(answer))
        except UserError as error:  # perhaps an excuse
            raise UserError(f"{error}; the model must be one that sees images") from None
        return names[:number]

    names, _ = Server(base_url, timeout, max_retries).answer(
        PROMPT.format(number=number),
        read,
        model=model,
        temperature=temperature,
        seed=seed,
        cache_dir=cache_dir,
        pictures=sheets,
    )
    return names


def usable_names(texts: Sequence[str]) -> tuple[str, ...]:
    """The texts that can name a criterion, in a sentence, on a page and as a file.

    A name has letters or digits of any alphabet, `MARKS`, and nothing else, in at most
    `MAX_CHARACTERS`. Other texts are left out with a warning. Of names that would share a file
    (`crl.run.files.slug`), the first is kept.

    Raises:
        UserError: no text is left.
    """
    names: dict[str, str] = {}  # name of the file -> criterion
    others = []
    for text in texts:
        if _is_name(text):
            names.setdefault(slug(text), text)
        else:
            others.append(text)
    if not names:
        raise UserError(f"the LLM gave no name of a criterion; it said: {list(texts[:2])}")
    if others:
        warnings.warn(
            f"{len(others)} of {len(texts)} proposed names cannot be used: longer than "
            f"{MAX_CHARACTERS} characters, or with signs that no name needs; the first: "
            f"{others[0]!r}",
            stacklevel=2,
        )
    return tuple(names.values())


def _is_name(text: str) -> bool:
    plain = all(char in MARKS or unicodedata.category(char)[0] in "LMN" for char in text)
    return plain and slug(text) != "" and len(text) <= MAX_CHARACTERS
