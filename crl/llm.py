"""The LLM step: a criterion in plain words -> the texts of its basis (paper, Table 12).

An LLM rarely says all it knows at once, so it is asked in rounds; each prompt lists the texts so
far. Every good answer is kept on disk: a repeated call costs nothing, an interrupted one continues.
"""

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import json_repair

from crl.basis import TextBasis, fold
from crl.run.chat import MAX_QUOTE, OPENAI, Server, printable
from crl.run.errors import UserError
from crl.run.files import CACHE

# Paper, Table 12, in its order. Number 1 made the bases of Tables 1 to 4.
LLM_PROMPTS = (
    "Generate common expressions to describe the {criterion}.",
    "List a wide variety of typical phrases used to characterize the {criterion}.",
    "Enumerate familiar terms or expressions people often use when referring to the {criterion}.",
    "Identify and list expressions frequently used to convey the concept of the {criterion}.",
    "How do people usually talk about the {criterion}?",
)

MAX_ROUNDS = 50  # limits the cost: some models never stop
STALE_ROUNDS = 2  # at temperature 1 a single round without a new text happens by chance
MAX_CHARACTERS = 100  # a longer text is prose; the longest in the paper's bases has about 50
MAX_TEXTS = 5_000  # of a basis and of one answer; the paper's bases have hundreds
MAX_REPAIR = 8_000  # characters; json_repair's time grows with their square, here to 2 s


def generate_basis(
    criterion: str, vlm_prompt: str, *, model: str = "gpt-4o", base_url: str = OPENAI,
    llm_prompt: int = 1, temperature: float = 1.0, seed: int = 0, number: int | None = None,
    examples: Sequence[str] = (), cache_dir: Path = CACHE / "llm", timeout: float = 120.0,
    max_retries: int = 4,
) -> TextBasis:  # fmt: skip
    """Ask an LLM for the texts of `criterion`.

    Args:
        vlm_prompt: the sentence with `{text}` that the VLM encodes; it is stored in the basis.
        llm_prompt: which of `LLM_PROMPTS`, from 1.
        temperature: the paper uses 1 and tries 0, 0.5 and 1.5 (Table 11).
        seed: round r uses seed + r: a question with the same seed could only get the same answer.
        number: texts wanted, 1 to `MAX_TEXTS` (it may give fewer); None: as many as it gives.
        examples: two or three texts that show the model what is meant.
        cache_dir: folder where the answers are kept.

    A UserError for an invalid argument, a first answer without texts, and a server that fails."""
    if vlm_prompt.count("{text}") != 1:
        raise UserError(f"the VLM prompt must contain {{text}} exactly once, not {vlm_prompt!r}")
    if llm_prompt not in range(1, len(LLM_PROMPTS) + 1):
        raise UserError(f"there are LLM prompts 1 to {len(LLM_PROMPTS)}, not {llm_prompt}")
    wanted = MAX_TEXTS if number is None else number
    if not 1 <= wanted <= MAX_TEXTS:
        raise UserError(f"the number of texts must be 1 to {MAX_TEXTS}, not {number}")

    server = Server(base_url, timeout, max_retries)
    texts: dict[str, str] = {}  # fold(text) -> text, in order of arrival
    rounds = stale = 0
    while len(texts) < wanted and stale < STALE_ROUNDS and rounds < MAX_ROUNDS:
        answered, record = server.answer(
            build_prompt(criterion, llm_prompt, number, examples, list(texts.values())),
            # "There are no others." is a valid answer, but not to the first question.
            read=partial(parse_texts, may_be_empty=bool(texts)),
            model=model, temperature=temperature, seed=seed + rounds, cache_dir=cache_dir,
        )  # fmt: skip
        before = len(texts)
        for text in answered:
            texts.setdefault(fold(text), text)
        stale, rounds = (stale + 1 if len(texts) == before else 0), rounds + 1

    provenance = {
        "llm": model, "base_url": server.public_url, "llm_prompt": llm_prompt,
        "prompt": build_prompt(criterion, llm_prompt, number, examples, []),
        "temperature": temperature, "seed": seed, "number": number or "as many as possible",
        "rounds": rounds, **{key: record[key] for key in ("schema", "date", "client")},
    }  # fmt: skip
    return TextBasis(criterion=criterion, vlm_prompt=vlm_prompt, provenance=provenance,
                     texts=tuple(texts.values())[:wanted])  # fmt: skip


def build_prompt(
    criterion: str, llm_prompt: int, number: int | None, examples: Sequence[str], have: list[str]
) -> str:
    """The question of one round: the paper's LLM prompt, and the format of the answer."""
    lines = [LLM_PROMPTS[llm_prompt - 1].format(criterion=criterion)]
    if examples:
        lines.append(f"For example: {json.dumps(list(examples), ensure_ascii=False)}.")
    amount = "as many as possible" if number is None else f"exactly {number - len(have)}"
    lines.append(f"Give {amount}{' more' if have else ''}. All items must be unique.")
    lines.append("Answer with only a list of strings, as JSON.")
    if have:
        listed = json.dumps(have, ensure_ascii=False)
        lines.append(f"Do not repeat these, and answer [] if there are no others: {listed}")
    return "\n".join(lines)


# ---- reading an answer ----

_JSON = json.JSONDecoder(strict=False)  # line breaks in strings are allowed
_LIST_START = re.compile(r"""[\[{]\s*(?=["'“‘\[{])""")  # not [words in brackets]
_WHOLE_STRINGS = re.compile(r"""("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^"'])*""", re.DOTALL)
_MARKED_LINE = re.compile(r"^[ \t]*(?:\d+[.):]|[A-Za-z][.)]|[-+*•–])[ \t]+(\S.*)$", re.MULTILINE)
_NOISE = " \t\"'`*“”‘’„«»,"


def parse_texts(answer: str, may_be_empty: bool = False) -> list[str]:
    """The distinct texts of an answer, cleaned, in order. A UserError if it holds none.

    Reads JSON lists and `{"texts": [...]}`, alone, in code fences or within prose; damaged ones as
    `json_repair` mends them, without a last text that was cut off; numbered and bulleted lines.
    Things that are not strings, and texts over `MAX_CHARACTERS`, are left out.

    >>> parse_texts("Sure! ['navy', 'Navy', 'sky bl")
    ['navy']
    """
    # Reasoning models write their thoughts first. Some send only the closing tag.
    body = answer.rpartition("</think>")[2].partition("<think>")[0]
    items = max(_listed(body), _MARKED_LINE.findall(body), key=len)
    texts: dict[str, str] = {}
    for text in map(_clean, items[:MAX_TEXTS]):
        if 0 < len(text) <= MAX_CHARACTERS:
            texts.setdefault(fold(text), text)
    if not texts and not may_be_empty:
        raise UserError(f"the LLM gave no list of texts; it said: {answer[:MAX_QUOTE]!r}")
    return list(texts.values())


def _listed(body: str) -> list[str]:
    """The strings of all JSON lists (a model may sort texts into groups)."""
    strings, end, value = [], 0, None
    while start := _LIST_START.search(body, end):
        try:
            value, end = _JSON.raw_decode(body, start.start())
        except (ValueError, RecursionError):
            damaged, end = body[start.start() : start.start() + MAX_REPAIR], len(body)
            with suppress(ValueError, RecursionError):
                value = json_repair.loads(_WHOLE_STRINGS.match(damaged)[0])  # type: ignore[index]
        strings += _strings(value)
    return strings


def _strings(value: Any) -> list[str]:
    """The strings in the lists of a JSON value, in order. Others than in lists may be anything."""
    strings, rest = [], [value]
    while rest:
        match rest.pop():
            case str() as text:
                strings.append(text)
            case list() as items:
                rest += reversed(items)
            case dict() as groups:
                rest += [group for group in reversed(groups.values()) if not isinstance(group, str)]
    return strings


def _clean(item: str) -> str:
    """Single spaces; no quotes, asterisks or punctuation at the ends; of `**a** - gloss` only a."""
    text = re.sub(r"^\*\*(.+?)\*\*.*", r"\1", printable(item))
    return text.lstrip(_NOISE).rstrip(_NOISE + ".;:")
