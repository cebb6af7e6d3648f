"""Read the texts in an answer of an LLM: JSON, damaged JSON, and the forms that models like."""

import json
import re
import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import json_repair

from crl.basis import fold
from crl.run.chat import MAX_QUOTE, printable
from crl.run.errors import UserError

MAX_CHARACTERS = 100  # a longer text is prose; the longest in the paper's bases has about 50
MAX_TEXTS = 5_000  # of a basis and of one answer; the paper's bases have hundreds
MAX_REPAIR = 8_000  # characters; json_repair's time grows with their square, here to 2 s
MAX_WORDS = 6  # of a text in plain lines; a longer line is prose

# Reasoning models write their thoughts first. Some templates leave only the mark of their end.
_MARK = "think|thinking|thoughts?|reasoning|reflection|analysis|scratchpad"
_THOUGHTS_END = re.compile(
    rf"(?i)</(?:{_MARK})>|\[/THINK\]|◁/think▷|<\|end_of_thought\|>|final<\|message\|>"
)
_THOUGHTS = re.compile(
    rf"(?is)(?:<(?:{_MARK})>|\[THINK\]|◁think▷|<\|begin_of_thought\|>|analysis<\|message\|>).*"
)
_TOKEN = re.compile(r"<\|[^|<>\n]{1,40}\|>|</?s>|<(?:eos|bos|end_of_turn|start_of_turn)>")

_JSON = json.JSONDecoder(strict=False)  # line breaks in strings are allowed
# Not [words in brackets], nor the index of `colors["x"]`.
_LIST_START = re.compile(r"""(?<![\w\])])[\[{]\s*(?=["'“‘\[{\d])""")
_WHOLE_STRINGS = re.compile(r"""("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^"'])*""", re.DOTALL)
_NUMBERING = r"(?:\d{1,4}[.):]|[A-Za-z][.)]|[-+*•–])[ \t]+"
_MARKED_LINE = re.compile(rf"^[ \t]*{_NUMBERING}(\S.*)$", re.MULTILINE)
_LINK = re.compile(r"\[([^\[\]\n]+)\]\([^()\s]*\)")
_NOISE = " \t\"'`*“”‘’„«»,"
# The word by which a list of objects calls its texts; else the first string of each is taken.
_TEXT_KEYS = ("text", "texts", "expression", "phrase", "term", "word", "value")
# What is no text: a model repeats the question, or shows the form of a list.
_PLACEHOLDER = re.compile(
    r"(?:item|string|text|example|expression|phrase|placeholder)[ _-]?\d{1,4}|\.*|…"
    r"|string|all items must be unique"
)


def parse_texts(answer: str, may_be_empty: bool = False) -> list[str]:
    """The distinct texts of an answer, cleaned, in order. A UserError if it holds none.

    Reads JSON lists, `{"texts": [...]}`, lists of objects and groups, alone, in code fences or
    within prose; damaged ones as `json_repair` mends them, without a last text that was cut off;
    numbered and bulleted lines, tables, plain lines, and words between commas. Thoughts, glosses,
    placeholders and texts over `MAX_CHARACTERS` are left out.

    >>> parse_texts("Sure! ['navy', 'Navy', 'sky bl")
    ['navy']
    >>> parse_texts("1. **Calm**: a peaceful feeling")
    ['Calm']
    """
    items = [_clean(item) for item in _items(without_thoughts(answer))[:MAX_TEXTS]]
    texts, others = {}, []
    for text in filter(None, items):
        if len(text) > MAX_CHARACTERS or _PLACEHOLDER.fullmatch(fold(text)):
            others.append(text)
        else:
            texts.setdefault(fold(text), text)
    if not texts and not may_be_empty:
        raise UserError(f"the LLM gave no list of texts; it said: {answer[:MAX_QUOTE]!r}")
    if others:
        warnings.warn(f"passed over in the LLM's answer, no texts: {len(others)}, the first "
                      f"{others[0][:MAX_QUOTE]!r}", stacklevel=2)  # fmt: skip
    return list(texts.values())


def count_texts(answer: str) -> tuple[int, bool]:
    """Of an answer that still comes in: how many distinct texts it holds, roughly but fast, and
    whether its last 20 bring nothing new (`color 8` after `color 7` is nothing new)."""
    body = without_thoughts(answer)
    strings, lines = re.findall(r'"((?:[^"\\]|\\.)*)"', body), body.split("\n")[:-1]
    items = [fold(item) for item in (strings if len(strings) >= len(lines) else lines)]
    stems = [re.sub(r"\d+", "", item) for item in items]
    return len(set(items)), len(stems) > 40 and set(stems[-20:]) <= set(stems[:-20])


def without_thoughts(answer: str) -> str:
    """An answer without thoughts and without the tokens of a chat template."""
    end = max((match.end() for match in _THOUGHTS_END.finditer(answer)), default=0)
    return _TOKEN.sub("", _THOUGHTS.sub("", answer[end:]))


def _items(body: str) -> list[str]:
    """The texts as they stand there, in the form that holds most of them."""
    with suppress(ValueError, RecursionError):
        if isinstance(value := json.loads(body.strip().removeprefix("```json").strip("`")), str):
            return _items(value)
    marked = _without_glosses(_MARKED_LINE.findall(body))
    forms = [marked, _listed(body), _table(body), _LINK.findall(body)]
    return max(forms, key=len) or _plain(body)


def _listed(body: str) -> list[str]:
    """The texts of all JSON lists (a model may sort texts into groups)."""
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
    """The texts of a JSON value, in order."""
    if isinstance(value, dict) and value and all(isinstance(v, str) for v in value.values()):
        if len(value) == 1:  # {"texts": "calm, tense"}
            return next(iter(value.values())).split(",")
        numbered = all(re.search(r"\d$", key) for key in value)  # {"1": "calm", "2": "tense"}
        return list(value.values() if numbered else value)  # {"calm": "a peaceful feeling"}
    strings, rest = [], [value]
    while rest:
        match rest.pop():
            case str() | int() as text if not isinstance(text, bool):
                strings.append(str(text))
            case list() as items:
                rest += [_text_of(item) for item in reversed(items)]
            case dict() as groups:
                rest += [
                    part for part in reversed(groups.values()) if isinstance(part, list | dict)
                ]
    return strings


def _text_of(item: Any) -> Any:
    """Of an object that describes one text, the text; anything else as it is."""
    if not isinstance(item, dict):
        return item
    strings = {key.lower(): value for key, value in item.items() if isinstance(value, str)}
    named = [strings[key] for key in _TEXT_KEYS if key in strings]
    return next(iter(named or strings.values()), item)


def _table(body: str) -> list[str]:
    """The first column that is no number of a Markdown table."""
    rows = [line.strip().strip("|").split("|") for line in body.splitlines() if "|" in line]
    if len(rows) < 3 or not set("".join(rows[1])) <= set(" :-"):
        return []
    cells = [[cell.strip() for cell in row if cell.strip()] for row in rows[2:]]
    return [next((cell for cell in row if not cell.isdigit()), "") for row in cells]


def _plain(body: str) -> list[str]:
    """Texts without any mark: a short one in each line, or short ones between commas."""
    if _LIST_START.search(body):  # of which nothing could be read
        return []
    lines = [line.strip() for line in body.splitlines()]
    short = [line for line in lines if line and line[-1] not in ".!?:" and _short(line)]
    if len(short) > 1:
        return short
    line = max(lines, key=len, default="").rpartition(":")[2].rstrip(".")
    parts = re.split(r",\s*(?:and\s)?", line)
    return parts if len(parts) > 2 and all(map(_short, parts)) else []


def _short(text: str) -> bool:
    return len(text.split()) <= MAX_WORDS // (1 + ("," in text)) and "```" not in text


def _without_glosses(items: Sequence[str]) -> list[str]:
    """`Calm: a peaceful feeling` -> `Calm`; but of `Mood: calm`, `Mood: tense` what differs."""
    short = [item[: 10 * MAX_CHARACTERS] for item in items]
    split = [re.split(r":\s+|\s+[-–—]\s+|\s+\(", item, maxsplit=1) for item in short]
    heads, tails = [parts[0] for parts in split], [parts[-1] for parts in split]
    return tails if len(set(heads)) == 1 < len(items) else heads


def _clean(item: str) -> str:
    """Single spaces; no numbering, and no quotes, asterisks or punctuation at the ends; of
    `**a** - gloss` only a; of `[a](link)` only a."""
    text = re.sub(rf"^(?:{_NUMBERING})?", "", printable(item))
    text = re.sub(r"^\*\*(.+?)\*\*.*", r"\1", _LINK.sub(r"\1", text))
    return text.lstrip(_NOISE).rstrip(_NOISE + ".;:")
