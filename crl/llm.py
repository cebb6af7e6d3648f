"""The LLM step: a criterion in plain words -> the texts of its basis (paper, table 12).

Any server that speaks the OpenAI chat protocol will do (OpenAI, Ollama, vLLM, llama.cpp). An LLM
seldom gives all it knows at once, so it is asked in rounds, and told each time what it has given:

    prompt --server--> answer --parse_texts--> texts; again, until the number is reached or two
    rounds bring nothing new --> TextBasis

Every good answer is kept on disk under a key of all that shaped it, so a repeated call costs
nothing and an interrupted one goes on where it stopped.
"""

import ast
import hashlib
import json
import os
import re
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import openai

from crl.basis import TextBasis, fold
from crl.run.errors import UserError
from crl.run.files import write_text

T = TypeVar("T")

OPENAI = "https://api.openai.com/v1"

# Paper, table 12, in its order; number 1 is the one behind tables 1 to 4.
LLM_PROMPTS = (
    "Generate common expressions to describe the {criterion}.",
    "List a wide variety of typical phrases used to characterize the {criterion}.",
    "Enumerate familiar terms or expressions people often use when referring to the {criterion}.",
    "Identify and list expressions frequently used to convey the concept of the {criterion}.",
    "How do people usually talk about the {criterion}?",
)

MAX_ROUNDS = 50  # a bound on the bill: some models can go on for ever
STALE_ROUNDS = 2  # one round without anything new happens by chance at temperature 1
MAX_CHARACTERS = 100  # a longer 'text' is prose; the longest in the paper's bases has about 50

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
    cache_dir: Path = Path("cache/llm"),
    timeout: float = 120.0,
    max_retries: int = 4,
) -> TextBasis:
    """Ask an LLM for the texts of `criterion`.

    Args:
        criterion: what the texts shall describe, e.g. `color`.
        vlm_prompt: the template with `{text}` that the basis will carry.
        model: a name that the server at `base_url` knows.
        llm_prompt: which of `LLM_PROMPTS`, from 1.
        temperature: of the sampling; the paper uses 1 and tries 0, 0.5 and 1.5 (table 11).
        seed: round r is asked with seed + r, for the same question again under the same seed
            could only bring the same answer. Servers may ignore it.
        number: exactly so many texts; None: as many as the model gives.
        examples: two or three texts that show the model what is meant.
        timeout: seconds that one request may take.
        max_retries: how often the client repeats a request that failed for a passing reason.

    Raises:
        UserError: an impossible argument; no key, no server, no such model, rate limit; an answer
            that is no list of texts; fewer than `number` texts however often the model is asked.
    """
    if not criterion.strip():
        raise UserError("the criterion is empty; name what the texts shall describe, e.g. color")
    if vlm_prompt.count("{text}") != 1:
        raise UserError(f"the VLM prompt must contain {{text}} exactly once, not {vlm_prompt!r}")
    if not 1 <= llm_prompt <= len(LLM_PROMPTS):
        raise UserError(f"there are LLM prompts 1 to {len(LLM_PROMPTS)}, not {llm_prompt}")
    if number is not None and number < 1:
        raise UserError(f"the number of texts must be at least 1, not {number}")

    server = Server(base_url, timeout, max_retries)
    texts: dict[str, str] = {}  # fold(text) -> text, in the order in which they came
    rounds = stale = 0
    while len(texts) < (number or float("inf")) and stale < STALE_ROUNDS and rounds < MAX_ROUNDS:
        found, record = server.answer(
            build_prompt(criterion, llm_prompt, number, examples, list(texts.values())),
            # 'There are no others.' is a proper answer, but not to the first question.
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

    if number is not None and len(texts) < number:
        why = "the last rounds brought nothing new" if stale else "there it was stopped"
        raise UserError(
            f"{model} gave {len(texts)} distinct texts for {criterion!r} in {rounds} rounds, not "
            f"{number} ({why}); ask for at most {len(texts)}, or as many as possible (no number)"
        )
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
    """The whole question of one round: the paper's template and the instructions added to it."""
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


# ---- reading what the model wrote -------------------------------------------------------------

_STRING = r"""(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')"""
_BROKEN_LIST = re.compile(rf"\[\s*(?:{_STRING}\s*(?:,\s*|$))+")
_MARKED_LINE = re.compile(r"^[ \t]*(?:\d+[.):]|[-*•–])[ \t]+(\S.*)$", re.MULTILINE)
_NOISE = " \t\"'`*“”‘’„«»,"


def parse_texts(answer: str) -> list[str]:
    """The distinct texts of an answer, cleaned, in order.

    Reads JSON lists and `{"texts": [...]}`, alone, in code fences or among prose; Python lists;
    lists that were cut off (what is complete of them); numbered and bulleted lines.

    Raises:
        UserError: with the beginning of the answer, if it has no list, or one of other things.

    >>> parse_texts("Sure! ['navy', 'Navy', 'sky bl")
    ['navy']
    """
    said = _short(repr(answer))
    # Reasoning models think aloud first.
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
    """The items of all bracketed lists (a model may sort them into groups); None if there is none.

    A list is tried as JSON, then as Python (single quotes, a comma at the end), then as one that
    was cut off.
    """
    found: list[Any] | None = None
    start = body.find("[")
    while start >= 0:
        items, end = _list_at(body, start)
        if items is not None:
            found = (found or []) + items
        start = body.find("[", end)
    return found


def _list_at(body: str, start: int) -> tuple[list[Any] | None, int]:
    """The list whose `[` stands at `start`, or None, and where to read on."""
    try:
        return json.JSONDecoder().raw_decode(body, start)
    except (ValueError, RecursionError):
        pass
    # The next `]` closes the list, unless it stands inside a text: then the last one may.
    for end in (body.find("]", start) + 1, body.rfind("]") + 1):
        try:
            return list(ast.literal_eval(body[start:end])), end
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            pass
    if broken := _BROKEN_LIST.match(body, start):
        return [_unquote(text) for text in re.findall(_STRING, broken[0])], len(body)
    return None, start + 1


def _unquote(literal: str) -> str:
    """The text of a quoted string, JSON's escapes first (`\\/` is not Python's)."""
    try:
        return json.loads(literal)
    except ValueError:
        return literal[1:-1]


def _short(said: str) -> str:
    return said if len(said) <= 160 else f"{said[:160]} ..."


def _clean(item: str) -> str:
    """White space made plain, and no quotes, marks of emphasis or punctuation at the ends."""
    printable = "".join(char for char in " ".join(item.split()) if char.isprintable())
    return printable.lstrip(_NOISE).rstrip(_NOISE + ".;:")


# ---- asking the server --------------------------------------------------------------------------


class Server:
    """One chat server; `public_url` is its address without user names, passwords or queries.

    Args:
        base_url: where it is, e.g. http://localhost:11434/v1.
        timeout: seconds that one request may take.
        max_retries: how often the client repeats a request that failed for a passing reason.
    """

    def __init__(self, base_url: str, timeout: float = 120.0, max_retries: int = 4):
        self.base_url, self.timeout, self.max_retries = base_url, timeout, max_retries
        self.schema = True  # until the server rejects it
        try:
            url = urlsplit(base_url)
            good = url.scheme in {"http", "https"} and url.hostname and url.port != 0
        except ValueError:  # of `.port`, which is no number
            good = False
        if not good:
            raise UserError("the base URL must look like http://localhost:11434/v1")
        self.public_url = f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path}".rstrip("/")
        self.is_openai = url.hostname == urlsplit(OPENAI).hostname

    def answer(
        self,
        prompt: str,
        read: Callable[[str], T],
        *,
        model: str,
        temperature: float,
        seed: int,
        cache_dir: Path,
        schema: dict[str, Any] | None = None,
    ) -> tuple[T, dict[str, Any]]:
        """What `read` makes of the answer to `prompt`, and the record of that answer.

        A record holds the request, the answer, its date and the client; one that `read` accepts is
        kept in `cache_dir`, and the same question is not asked again.

        Args:
            read: turns the model's words into a value; raises a UserError where it cannot.
            schema: the `response_format` to ask for, where the server knows such; None: `SCHEMA`.

        Raises:
            UserError: no key, no server, no such model, rate limit; and what `read` raises.
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
            _remember(cache_dir, record)
        return value, record

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """One answer, with what shaped it and when it came; the form that the cache keeps."""
        key = os.environ.get("OPENAI_API_KEY", "").strip()
        if not key.isascii():
            raise UserError("OPENAI_API_KEY holds a character that no key has; copy it again")
        if not key and self.is_openai:
            raise UserError(
                "OPENAI_API_KEY is not set; set it, or stay offline: a local server with "
                "--base-url (Ollama: http://localhost:11434/v1), or a text basis that comes with "
                "this repository (configs/bases/*.yaml)"
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
        schema = request.get("response_format", SCHEMA)
        # As everywhere with this client, the key goes to whatever server --base-url names (hosted
        # ones want it); a local server wants none, but the client wants something to send.
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
                # Many local servers know no response_format. If something else was wrong with
                # the request, the second attempt says so.
                self.schema = False
                return self._complete(key, request)
            except ValueError:  # the client lets malformed JSON through
                completion = None
        # A web page or foreign JSON arrives as an object that lacks these.
        choices = getattr(completion, "choices", None)
        first = choices[0] if isinstance(choices, list) and choices else None
        message = getattr(first, "message", None)
        answer = getattr(message, "content", None) or getattr(message, "refusal", None) or ""
        if message is None or not isinstance(answer, str):
            raise UserError(
                f"{self.public_url} does not answer like an OpenAI-compatible server; "
                "most need /v1 at the end of --base-url"
            )
        return answer

    def _explain(self, error: openai.OpenAIError, model: str, key: str) -> str:
        """What went wrong and what to do, in one line, without the key."""
        detail = str(getattr(error, "message", error))
        if key:
            detail = detail.replace(key, "(key)")
        detail = _short(detail)  # only now, lest half a key stay
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
    """The kept record of `request`, with or without the schema, if there is a good one."""
    for schema in (True, False):
        wanted = {**request, "schema": schema}
        try:
            record = json.loads(_path(cache_dir, wanted).read_text(encoding="utf-8"))
            if record["request"] == wanted and isinstance(record["answer"], str):
                return record
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            continue  # none, or damaged: ask again
    return None


def _remember(cache_dir: Path, record: dict[str, Any]) -> None:
    write_text(_path(cache_dir, record["request"]), json.dumps(record, indent=1))
