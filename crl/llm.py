"""The LLM step: a criterion in plain words -> the texts of its basis (paper, Table 12).

Any server with the OpenAI chat protocol can be asked (OpenAI, Ollama, vLLM, llama.cpp). One answer
rarely holds all that an LLM knows, so it is asked in rounds. Each prompt lists the texts so far:

    prompt --server--> answer --parse_texts--> texts

The rounds end when there are enough texts, or when two rounds in a row give no new text. Every good
answer is kept on disk. So a repeated call costs nothing, and an interrupted one continues.
"""

import ast
import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import openai

from crl.basis import TextBasis, fold
from crl.run.cache import LLM_ANSWERS
from crl.run.errors import UserError
from crl.run.files import write_text

Value = TypeVar("Value")

OPENAI = "https://api.openai.com/v1"

# Paper, Table 12, in its order. Number 1 made the bases of Tables 1 to 4.
LLM_PROMPTS = (
    "Generate common expressions to describe the {criterion}.",
    "List a wide variety of typical phrases used to characterize the {criterion}.",
    "Enumerate familiar terms or expressions people often use when referring to the {criterion}.",
    "Identify and list expressions frequently used to convey the concept of the {criterion}.",
    "How do people usually talk about the {criterion}?",
)

MAX_ROUNDS = 50  # limits the cost: some models never stop
STALE_ROUNDS = 2  # at temperature 1, one round without a new text can happen by chance
MAX_CHARACTERS = 100  # a longer text is prose; the longest text in the paper's bases has about 50

SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "texts",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"texts": {"type": "array", "items": {"type": "string"}}},
            "required": ["texts"],
            "additionalProperties": False,
        },
    },
}


def generate_basis(
    criterion: str,
    vlm_prompt: str,
    *,
    model: str = "gpt-4o",
    base_url: str = OPENAI,
    llm_prompt: int = 1,
    temperature: float = 1.0,
    seed: int = 0,
    number: int | None = None,
    examples: Sequence[str] = (),
    cache_dir: Path = LLM_ANSWERS,
    timeout: float = 120.0,
    max_retries: int = 4,
) -> TextBasis:
    """Ask an LLM for the texts of `criterion`.

    Args:
        criterion: what the texts describe, e.g. `color`.
        vlm_prompt: the sentence with `{text}` that the VLM encodes; it is stored in the basis.
        model: a name that the server at `base_url` knows.
        llm_prompt: which of `LLM_PROMPTS`, from 1.
        temperature: of the sampling; the paper uses 1 and tries 0, 0.5 and 1.5 (Table 11).
        seed: round r uses seed + r, since the same question with the same seed would get the same
            answer. Servers may ignore it.
        number: how many texts are wanted; None: as many as the model gives.
        examples: two or three texts that show the model what is meant.
        cache_dir: folder where the answers are kept.
        timeout: seconds that one request may take.
        max_retries: how often a request is repeated after a temporary fault.

    Returns:
        At most `number` texts: fewer if the rounds end early (see `MAX_ROUNDS`, `STALE_ROUNDS`).

    Raises:
        UserError: an invalid argument; no key, no server, no such model, rate limit; a first answer
            that is not a list of texts.
    """
    if not criterion.strip():
        raise UserError("the criterion is empty; name what the texts describe, e.g. color")
    if vlm_prompt.count("{text}") != 1:
        raise UserError(f"the VLM prompt must contain {{text}} exactly once, not {vlm_prompt!r}")
    if not 1 <= llm_prompt <= len(LLM_PROMPTS):
        raise UserError(f"there are LLM prompts 1 to {len(LLM_PROMPTS)}, not {llm_prompt}")
    if number is not None and number < 1:
        raise UserError(f"the number of texts must be at least 1, not {number}")

    server = Server(base_url, timeout, max_retries)
    texts: dict[str, str] = {}  # fold(text) -> text, in order of arrival
    rounds = stale = 0
    while len(texts) < (number or math.inf) and stale < STALE_ROUNDS and rounds < MAX_ROUNDS:
        found, record = server.answer(
            build_prompt(criterion, llm_prompt, number, examples, list(texts.values())),
            # "There are no others." is a valid answer, but not to the first question.
            read=_parse_rest if texts else parse_texts,
            model=model,
            temperature=temperature,
            seed=seed + rounds,
            cache_dir=cache_dir,
        )
        before = len(texts)
        for text in found:
            texts.setdefault(fold(text), text)
        stale = stale + 1 if len(texts) == before else 0
        rounds += 1

    return TextBasis(
        criterion=criterion,
        vlm_prompt=vlm_prompt,
        texts=tuple(texts.values())[:number],
        provenance={
            "llm": model,
            "base_url": server.public_url,
            "llm_prompt": llm_prompt,
            "prompt": build_prompt(criterion, llm_prompt, number, examples, []),
            "temperature": temperature,
            "seed": seed,
            "number": number or "as many as possible",
            "rounds": rounds,
            "schema": record["request"]["schema"],
            "date": record["date"],
            "client": record["client"],
        },
    )


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
        known = json.dumps(have, ensure_ascii=False)
        lines.append(f"Do not repeat these, and answer [] if there are no others: {known}")
    return "\n".join(lines)


# ---- reading an answer --------------------------------------------------------------------------

_STRING = r"""(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')"""
_BROKEN_LIST = re.compile(rf"\[\s*(?:{_STRING}\s*(?:,\s*|$))+")
_MARKED_LINE = re.compile(r"^[ \t]*(?:\d+[.):]|[-*•–])[ \t]+(\S.*)$", re.MULTILINE)
_NOISE = " \t\"'`*“”‘’„«»,"


def parse_texts(answer: str) -> list[str]:
    """The distinct texts of an answer, cleaned, in order.

    Reads JSON lists and `{"texts": [...]}`, alone, in code fences or within prose; Python lists;
    the complete texts of a list that was cut off; numbered and bulleted lines.

    Raises:
        UserError: the answer has no list, or a list of other things; shows how the answer begins.

    >>> parse_texts("Sure! ['navy', 'Navy', 'sky bl")
    ['navy']
    """
    said = _short(repr(answer))
    # Reasoning models write their thoughts first.
    body = re.sub(r"\A\s*<think>.*?</think>", "", answer, flags=re.DOTALL)
    items = _listed(body)
    if items is None:
        items = _MARKED_LINE.findall(body)
        if not items:
            raise UserError(f"the LLM gave no list of texts; it said: {said}")
    if not all(isinstance(item, str) for item in items):
        raise UserError(f"the LLM listed things that are not strings; it said: {said}")
    texts = {}
    for text in map(_clean, items):
        if len(text) > MAX_CHARACTERS:
            raise UserError(
                f"the LLM gave a text over {MAX_CHARACTERS} characters; it said: {said}"
            )
        if text:
            texts.setdefault(fold(text), text)
    if not texts:
        raise UserError(f"the LLM gave an empty list; it said: {said}")
    return list(texts.values())


def _parse_rest(answer: str) -> list[str]:
    """The texts of an answer that may have none."""
    try:
        return parse_texts(answer)
    except UserError:
        return []


def _listed(body: str) -> list[Any] | None:
    """The items of all bracketed lists (a model may sort texts into groups); None if there is no
    list."""
    found: list[Any] | None = None
    start = body.find("[")
    while start >= 0:
        items, end = _list_at(body, start)
        if items is not None:
            found = (found or []) + items
        start = body.find("[", end)
    return found


def _list_at(body: str, start: int) -> tuple[list[Any] | None, int]:
    """The list that begins with the `[` at `start`, or None, and where to continue reading.

    It is read as JSON; if that fails, as Python (single quotes, a comma at the end); if that fails
    too, as a list that was cut off.
    """
    try:
        return json.JSONDecoder().raw_decode(body, start)
    except (ValueError, RecursionError):
        pass
    # The next `]` closes the list, unless it is part of a text. Then try the last `]`.
    for end in (body.find("]", start) + 1, body.rfind("]") + 1):
        try:
            return list(ast.literal_eval(body[start:end])), end
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            pass
    if broken := _BROKEN_LIST.match(body, start):
        return [_unquote(text) for text in re.findall(_STRING, broken[0])], len(body)
    return None, start + 1


def _unquote(literal: str) -> str:
    """The text of a quoted string, with JSON's escapes replaced."""
    try:
        return json.loads(literal)
    except ValueError:
        return literal[1:-1]


def _short(said: str) -> str:
    return said if len(said) <= 160 else f"{said[:160]} ..."


def _clean(item: str) -> str:
    """Single spaces, and no quotes, asterisks or punctuation at the ends."""
    printable = "".join(char for char in " ".join(item.split()) if char.isprintable())
    return printable.lstrip(_NOISE).rstrip(_NOISE + ".;:")


# ---- asking the server --------------------------------------------------------------------------


class Server:
    """One chat server; `public_url` is its address without user names, passwords or queries.

    Args:
        base_url: its address, e.g. http://localhost:11434/v1.
        timeout: seconds that one request may take.
        max_retries: how often a request is repeated after a temporary fault.
    """

    def __init__(self, base_url: str, timeout: float = 120.0, max_retries: int = 4):
        self.base_url, self.timeout, self.max_retries = base_url, timeout, max_retries
        self.schema = True  # until the server rejects it
        try:
            url = urlsplit(base_url)
            good = url.scheme in {"http", "https"} and url.hostname and url.port != 0
        except ValueError:  # a port that is no number
            good = False
        if not good:
            raise UserError("the base URL must look like http://localhost:11434/v1")
        self.public_url = f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path}".rstrip("/")

    def answer(
        self,
        prompt: str,
        read: Callable[[str], Value],
        *,
        model: str,
        temperature: float,
        seed: int,
        cache_dir: Path,
        schema: dict[str, Any] | None = None,
    ) -> tuple[Value, dict[str, Any]]:
        """The value that `read` returns for the answer to `prompt`, and the record of that answer.

        A record holds the request, the answer, its date and the client. Records whose answer can be
        read are kept in `cache_dir`, and the same question is not asked again.

        Args:
            read: turns the model's answer into a value; raises a UserError if it cannot.
            schema: the `response_format` for servers that support it; None: `SCHEMA`.

        Raises:
            UserError: no key, no server, no such model, rate limit; any error of `read`.
        """
        request = {
            "base_url": self.public_url,
            "model": model,
            "prompt": prompt,
            "temperature": temperature,
            "seed": seed,
        }
        if schema is not None:
            request["response_format"] = schema
        kept = _recall(cache_dir, request)
        record = kept or self._ask(request)
        value = read(record["answer"])
        if not kept:
            write_text(_path(cache_dir, record["request"]), json.dumps(record, indent=1))
        return value, record

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """The record of one answer, from the server."""
        key = os.environ.get("OPENAI_API_KEY", "").strip()
        if not key.isascii():
            raise UserError("OPENAI_API_KEY holds a character that no key has; copy it again")
        if not key and urlsplit(self.base_url).hostname == urlsplit(OPENAI).hostname:
            raise UserError(
                "OPENAI_API_KEY is not set; set it, or work offline: with a local server "
                "(--base-url, for Ollama http://localhost:11434/v1), or with a text basis that "
                "comes with this repository (configs/bases/*.yaml)"
            )
        try:
            answer = self._complete(key, request)
        except openai.OpenAIError as error:
            # `from None`: the client's error holds the request, and with it the key.
            raise UserError(self._explain(error, request["model"], key)) from None
        return {
            "request": {**request, "schema": self.schema},
            "answer": answer,
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "client": f"openai {openai.__version__}",
        }

    def _complete(self, key: str, request: dict[str, Any]) -> str:
        """The text of the model's answer."""
        schema = request.get("response_format", SCHEMA)
        # The key is sent to the server that --base-url names, since hosted servers need it. Local
        # servers need no key, but the client must send something.
        client = openai.OpenAI(
            api_key=key or "none",
            base_url=self.base_url,
            timeout=self.timeout,
            max_retries=self.max_retries,
        )
        with client:
            try:
                completion = client.chat.completions.create(
                    model=request["model"],
                    messages=[{"role": "user", "content": request["prompt"]}],
                    temperature=request["temperature"],
                    seed=request["seed"],
                    response_format=schema if self.schema else openai.omit,
                )
            except (openai.BadRequestError, openai.UnprocessableEntityError):
                if not self.schema:
                    raise
                # Many local servers do not support response_format. If something else was wrong
                # with the request, the second attempt fails too and says what.
                self.schema = False
                return self._complete(key, request)
            except ValueError:  # malformed JSON, which the client does not catch
                completion = None
        with suppress(AttributeError, IndexError, TypeError):  # a web page, or some other JSON
            message = completion.choices[0].message
            answer = message.content or message.refusal or ""
            if isinstance(answer, str):
                return answer
        raise UserError(
            f"{self.public_url} does not answer like an OpenAI-compatible server; "
            "most need /v1 at the end of --base-url"
        )

    def _explain(self, error: openai.OpenAIError, model: str, key: str) -> str:
        """What went wrong and what to do, in one line, without the key."""
        detail = str(getattr(error, "message", error))
        if key:
            detail = detail.replace(key, "(key)")
        detail = _short(detail)  # only now: cutting first could leave half of the key
        url = self.public_url
        match error:
            case openai.APITimeoutError():
                return (
                    f"{url} gave no answer within {self.timeout:g} s ({self.max_retries + 1} "
                    "attempts); allow more with --timeout, or use a faster model"
                )
            case openai.APIConnectionError():
                return f"cannot reach {url}; is the server running, and the network up?"
            case openai.AuthenticationError() | openai.PermissionDeniedError():
                return f"{url} refused the key; check OPENAI_API_KEY"
            case openai.NotFoundError():
                return f"{url} does not know the model {model!r}, or the address: {detail}"
            case openai.RateLimitError():
                return f"{url} is over its rate limit or the account's quota; try later: {detail}"
            case _:
                return f"{url} failed: {detail}"


# ---- the cache ----------------------------------------------------------------------------------


def _path(cache_dir: Path, request: dict[str, Any]) -> Path:
    key = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:32]
    return Path(cache_dir) / f"{key}.json"


def _recall(cache_dir: Path, request: dict[str, Any]) -> dict[str, Any] | None:
    """The kept record of `request`, with or without the schema; None if there is no record."""
    for schema in (True, False):
        wanted = {**request, "schema": schema}
        try:
            record = json.loads(_path(cache_dir, wanted).read_text(encoding="utf-8"))
            if record["request"] == wanted and isinstance(record["answer"], str):
                return record
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            continue  # missing or damaged: ask again
    return None
