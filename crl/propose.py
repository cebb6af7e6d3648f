"""A multimodal LLM looks at contact sheets of a collection and proposes criteria.

Making the sheets and showing them are two steps: pictures leave the machine only if the caller
passes them on.
"""

import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from crl.images import UnreadableImage, open_image
from crl.llm import OPENAI, Server, parse_texts
from crl.run.cache import LLM_ANSWERS
from crl.run.errors import UserError
from crl.run.files import slug

COLUMNS, ROWS, SIDE = 6, 5, 160  # of a sheet, in pictures and in pixels
MAX_CHARACTERS = 40  # of the name of a criterion
PROMPT = """\
Each picture shows a random sample from one collection of images. Name up to {number} different \
criteria by which a person could sort this collection: properties in which these images differ, \
and whose values can be described in a few words each, for example color, mood, season, kind of \
place, or number of people. Do not only name the main object.
Give each criterion a name of one to three words.
Answer with only a list of strings, as JSON."""


def contact_sheet(files: Sequence[Path], columns: int = COLUMNS) -> bytes:
    """A JPEG with small pictures of the files, row by row, without names. Files that cannot be read
    are left out.

    Raises:
        UserError: none can be read.
    """
    small = []
    for file in files:
        try:
            small.append(ImageOps.pad(open_image(file), (SIDE, SIDE), color="white"))
        except UnreadableImage:
            continue
    if not small:
        raise UserError("none of the images can be read")
    columns = min(columns, len(small))
    size = SIDE * columns, SIDE * math.ceil(len(small) / columns)
    sheet = Image.new("RGB", size, "white")
    for place, picture in enumerate(small):
        sheet.paste(picture, (SIDE * (place % columns), SIDE * (place // columns)))
    content = io.BytesIO()
    sheet.save(content, "JPEG", quality=80)
    return content.getvalue()


def contact_sheets(files: Sequence[Path], seed: int = 0, sheets: int = 3) -> list[bytes]:
    """At most `sheets` contact sheets of a random sample of the files."""
    each = COLUMNS * ROWS
    some = np.random.default_rng(seed).permutation(len(files))[: each * sheets]
    parts = [some[start : start + each] for start in range(0, len(some), each)]
    return [contact_sheet([files[i] for i in part]) for part in parts]


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
        Names of criteria, distinct, each with letters and at most `MAX_CHARACTERS` long.

    Raises:
        UserError: what `crl.llm.Server.answer` raises; an answer without any usable name.
    """

    def read(answer: str) -> tuple[str, ...]:
        names: dict[str, str] = {}  # name of its file -> criterion
        for text in parse_texts(answer):
            if slug(text) and len(text) <= MAX_CHARACTERS:
                names.setdefault(slug(text), text)
        if not names:
            raise UserError(f"{model} proposed no criterion of 1 to {MAX_CHARACTERS} characters")
        return tuple(names.values())[:number]

    server = Server(base_url, timeout, max_retries)
    return server.answer(
        PROMPT.format(number=number),
        read,
        model=model,
        temperature=temperature,
        seed=seed,
        cache_dir=cache_dir,
        pictures=sheets,
    )[0]
