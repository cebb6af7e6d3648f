"""The LLM step: a criterion in plain words -> the texts of its basis (paper, Table 12).

Any server with the OpenAI chat protocol can be asked (OpenAI, Ollama, vLLM, llama.cpp). One answer
rarely holds all that an LLM knows, so it is asked in rounds. Each prompt lists the texts so far:

    prompt --server--> answer --parse_texts--> texts

The rounds end when there are enough texts, or when two rounds in a row give no new text. Every good
answer is kept on disk. So a repeated call costs nothing, and an interrupted one continues.
"""

import hashlib
import json
import math
import os
import re
import sys
from base64 import b64encode
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from datetime import datetime, timezone
from itertools import islice
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar
from urllib.parse import urlsplit

import openai

from crl.basis import TextBasis, fold
from crl.run.errors import UserError
from crl.run.files import CACHE, write_text
from crl.run.store import content_digest

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
STALE_ROUNDS = 2  # at temperature 1 a single round without a new text happens by chance
MAX_CHARACTERS = 100  # a longer text is prose; the longest in the paper's bases has about 50
MAX_TEXTS = 5_000  # of one answer; the paper's bases have hundreds
MAX_BYTES = 1_000_000  # of one answer, as it comes from the server
MAX_TIMEOUT = 86_400  # a day
MAX_SEED = 2**31 - 1  # servers keep seeds in 32 or 64 bits
SECRET = 8  # so many characters of the key are never shown; a shorter key is one like EMPTY

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
    cache_dir: Path = CACHE / "llm",
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
        seed: 0 to `MAX_SEED`; round r uses seed + r, since the same question with the same seed
            could only get the same answer. Servers may ignore it.
        number: how many texts are wanted, 1 to `MAX_TEXTS`; None: as many as the model gives.
        examples: two or three texts that show the model what is meant.
        cache_dir: folder where the answers are kept.
        timeout: seconds that one request may take as a whole.
        max_retries: how often a request is repeated after a passing fault.

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
    if number is not None and not 1 <= number <= MAX_TEXTS:
        raise UserError(
            f"the number of texts must be at most {MAX_TEXTS} and at least 1, not {number}"
        )
    check_sampling(temperature, seed)

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


def check_sampling(temperature: float, seed: int) -> None:
    """Refuse a temperature or a seed that no server takes.

    Raises:
        UserError: the temperature is below 0 or not finite; the seed is not 0 to `MAX_SEED`.
    """
    if not 0 <= temperature < math.inf:
        raise UserError(f"the temperature must be 0 or above, not {temperature}")
    if not 0 <= seed <= MAX_SEED:
        raise UserError(f"the seed must be 0 to {MAX_SEED}, not {seed}")


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

_STRING = r'(?:"[^"\\]*(?:\\.[^"\\]*)*"|' + r"'[^'\\]*(?:\\.[^'\\]*)*')"
_OTHER = r"(?:-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?|null|true|false|None|True|False)"
_ITEM = re.compile(f"{_STRING}|{_OTHER}", re.DOTALL)
# Items, and what follows them. It takes as much as is a list, perhaps only the `[`, and the search
# goes on from there: so the time grows with the length of an answer only, whatever it holds.
_LIST = re.compile(rf"\[\s*((?:(?:{_STRING}|{_OTHER})\s*(?:,\s*|(?=\])|\Z))*)([][{{]?)", re.DOTALL)
_MARKED_LINE = re.compile(r"^[ \t]*(?:\d+[.):]|[-*•–])[ \t]+(\S.*)$", re.MULTILINE)
_QUOTE = re.compile(r'\\.|"', re.DOTALL)
_LOOSE = json.JSONDecoder(strict=False)  # line breaks in strings are allowed
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
    if len(items) > MAX_TEXTS:
        raise UserError(
            f"the LLM listed more than {MAX_TEXTS} things in one answer; try another model, or a "
            f"lower temperature; it said: {said}"
        )
    if None in items:
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


def _listed(body: str) -> list[str | None] | None:
    """The items of all bracketed lists (a model may sort texts into groups); None without any.

    An item that is no string is None. Nothing is read after a list that was cut off.
    """
    found: list[str | None] | None = None
    for match in _LIST.finditer(body):
        listed, end = match.groups()
        if not listed and not end:  # [words in brackets]
            continue
        found = found or []
        for item in islice(_ITEM.finditer(listed), MAX_TEXTS + 1):
            found.append(_unquote(item[0]) if item[0][0] in "\"'" else None)
        if end in ("[", "{"):  # a list of lists or objects
            found.append(None)
        if end != "]" or len(found) > MAX_TEXTS:
            break
    return found


def _unquote(literal: str) -> str:
    """The text of a string in double or single quotes, with JSON's escapes replaced."""
    fixed = _QUOTE.sub(
        lambda found: {r"\'": "'", '"': r"\""}.get(found[0], found[0]), literal[1:-1]
    )
    try:
        return _LOOSE.decode(f'"{fixed}"')
    except ValueError:
        return literal[1:-1]


def _short(said: str) -> str:
    return said if len(said) <= 160 else f"{said[:160]} ..."


def _clean(item: str) -> str:
    """Single spaces, and no quotes, asterisks or punctuation at the ends."""
    return printable(item).lstrip(_NOISE).rstrip(_NOISE + ".;:")


def printable(text: str) -> str:
    """`text` in one line, without characters that control a terminal or the writing's direction."""
    return "".join(char for char in " ".join(text.split()) if char.isprintable())


# ---- asking the server --------------------------------------------------------------------------

# The openai client's own HTTP library: httpx, or httpx2 in its later versions.
_httpx: Any = sys.modules[openai.DefaultHttpxClient.__mro__[1].__module__]


class _Client(openai.DefaultHttpxClient):
    """Waits for a whole answer no longer than the timeout, and reads no more than `MAX_BYTES`.

    By itself the client would wait so long for each byte.
    """

    def __init__(self, timeout: float):
        super().__init__(
            timeout=timeout,
            headers={"accept-encoding": "identity"},
            event_hooks={"response": [_read_whole]},
        )

    def send(self, request: Any, **settings: Any) -> Any:
        send, answer = super().send, Future()

        def work() -> None:
            try:
                answer.set_result(send(request, **settings))
            except BaseException as error:
                answer.set_exception(error)

        # Closing the client ends a thread that is still reading.
        Thread(target=work, daemon=True).start()
        if wait([answer], self.timeout.read).not_done:
            raise _httpx.ReadTimeout("no whole answer in time", request=request)
        return answer.result()


def _read_whole(response: Any) -> None:
    """Read a response, as JSON: a server's word for its type could make the client stumble."""
    body = bytearray()
    for part in response.stream:
        body += part
        if len(body) > MAX_BYTES:
            raise UserError(
                f"the server sent more than {MAX_BYTES:,} bytes as one answer; check --base-url, "
                "or try another model"
            )
    response.stream.close()
    response.stream = _httpx.ByteStream(bytes(body))
    response.headers.pop("content-encoding", None)  # was not asked for; could unpack to gigabytes
    response.headers["content-type"] = "application/json"


def _key() -> str:
    return os.environ.get("OPENAI_API_KEY", "").strip()


_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})|\\b")


def _hide(said: str) -> str:
    """`said` with "(key)" for the key and parts of it, as they are or in base64."""
    key = _key()
    if len(key) < SECRET:
        return said
    shifted = (b64encode(bytes(shift) + os.fsencode(key)).decode() for shift in range(3))
    pieces = {
        form[i : i + SECRET].lower()
        for form in (key, *shifted)
        for i in range(len(form) - SECRET + 1)
    }

    def places(text: str) -> list[int]:
        starts = range(len(text) - SECRET + 1)
        return [i for i in starts if text[i : i + SECRET].lower() in pieces]

    kept, end = [], 0
    for start in places(said):
        if start >= end:
            kept += [said[end:start], "(key)"]
        end = start + SECRET
    hidden = "".join([*kept, said[end:]])
    # What is removed from texts later, or replaced in them, must not bring the key together.
    plain = _ESCAPE.sub(lambda found: chr(int(found[1] or "0", 16)), hidden)
    return "(key)" if places(printable(plain)) else hidden


# What servers say of a model that sees no images: llama.cpp with 500, OpenRouter with 404.
_BLIND = re.compile("image|multi-?modal", re.IGNORECASE)


def _content(prompt: str, pictures: Sequence[bytes]) -> Any:
    """A question in the chat format; pictures are part of it as data URIs."""
    if not pictures:
        return prompt  # not every local server takes a list
    urls = [f"data:image/jpeg;base64,{b64encode(picture).decode()}" for picture in pictures]
    seen = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [{"type": "text", "text": prompt}, *seen]


class Server:
    """One chat server; `public_url` is its address without user names, passwords or queries.

    Args:
        base_url: its address, e.g. http://localhost:11434/v1.
        timeout: seconds that one request may take as a whole.
        max_retries: how often a request is repeated after a passing fault.
    """

    def __init__(self, base_url: str, timeout: float = 120.0, max_retries: int = 4):
        if not 0 < timeout <= MAX_TIMEOUT:
            raise UserError(
                f"the timeout must be above 0 and at most {MAX_TIMEOUT} seconds, not {timeout}"
            )
        if max_retries < 0:
            raise UserError(f"the number of retries must be at least 0, not {max_retries}")
        self.base_url, self.timeout, self.max_retries = base_url, timeout, max_retries
        self.schema = True  # until the server rejects it
        try:
            url = urlsplit(base_url)
            good = url.scheme in {"http", "https"} and url.hostname and url.port != 0
            _httpx.URL(base_url)
        except (ValueError, _httpx.InvalidURL):  # a port that is no number, a control character
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
        pictures: Sequence[bytes] = (),
    ) -> tuple[Value, dict[str, Any]]:
        """The value that `read` returns for the answer to `prompt`, and the record of that answer.

        A record holds the request, the answer, its date and the client. Records whose answer can be
        read are kept in `cache_dir`, and the same question is not asked again. The key is hidden in
        answers, should a server repeat it.

        Args:
            read: turns the model's answer into a value; raises a UserError if it cannot.
            schema: the `response_format` for servers that support it; None: `SCHEMA`.
            pictures: JPEG files that the model sees with the prompt. Records hold their digests.

        Raises:
            UserError: no key, no server, no such model, rate limit, a model that sees no pictures;
                any error of `read`.
        """
        if not model.strip():
            raise UserError("the name of the model is empty; name one that the server knows")
        request = {
            "base_url": self.public_url,
            "model": model,
            "prompt": prompt,
            "temperature": temperature,
            "seed": seed,
        }
        if schema is not None:
            request["response_format"] = schema
        if pictures:
            request["pictures"] = [content_digest(picture).hex() for picture in pictures]
        if kept := _recall(cache_dir, request):
            with suppress(UserError):  # written by an earlier version that could read it
                return read(_hide(kept["answer"])), kept
        record = self._ask(request, pictures)
        value = read(record["answer"])
        write_text(_path(cache_dir, record["request"]), json.dumps(record, indent=1))
        return value, record

    def _ask(self, request: dict[str, Any], pictures: Sequence[bytes]) -> dict[str, Any]:
        """The record of one answer, from the server."""
        key = _key()
        if not re.fullmatch("[!-~]*", key):
            raise UserError(
                "OPENAI_API_KEY holds a character that no key has, perhaps a space or a line "
                "break; copy it again"
            )
        if not key and urlsplit(self.base_url).hostname == urlsplit(OPENAI).hostname:
            raise UserError(
                "OPENAI_API_KEY is not set; set it, or work offline: with a local server "
                "(--base-url, for Ollama http://localhost:11434/v1), or with a text basis that "
                "comes with this repository (configs/bases/*.yaml)"
            )
        try:
            answer = self._complete(key, request, pictures)
        except openai.OpenAIError as error:
            # `from None`: the client's error holds the request, and with it the key.
            raise UserError(self._explain(error, request["model"], bool(pictures))) from None
        return {
            "request": {**request, "schema": self.schema},
            "answer": _hide(answer),
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "client": f"openai {openai.__version__}",
        }

    def _complete(self, key: str, request: dict[str, Any], pictures: Sequence[bytes]) -> str:
        """The text of the model's answer."""
        schema = request.get("response_format", SCHEMA)
        # The key is sent to the server that --base-url names, since hosted servers need it. Local
        # servers need no key, but the client must send something.
        client = openai.OpenAI(
            api_key=key or "none",
            base_url=self.base_url,
            timeout=self.timeout,
            max_retries=self.max_retries,
            http_client=_Client(self.timeout),
        )
        with client:
            try:
                completion = client.chat.completions.create(
                    model=request["model"],
                    messages=[{"role": "user", "content": _content(request["prompt"], pictures)}],
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
                return self._complete(key, request, pictures)
            except UnicodeEncodeError as error:
                letter = error.object[error.start]
                raise UserError(
                    f"the question holds {letter!r}, which is no Unicode text"
                ) from None
            except (ValueError, RecursionError):  # malformed or deep JSON, not caught by the client
                completion = None
        with suppress(AttributeError, LookupError, TypeError):  # a web page, or some other JSON
            message = completion.choices[0].message
            answer = message.content or message.refusal or ""
            if isinstance(answer, str):
                return answer
        raise UserError(
            f"{self.public_url} does not answer like an OpenAI-compatible server, or its answer "
            "was cut off; most need /v1 at the end of --base-url"
        )

    def _explain(self, error: openai.OpenAIError, model: str, pictures: bool = False) -> str:
        """What went wrong and what to do, in one line, without the key."""
        # Cut after the key is gone: else a short piece of it could remain.
        detail = _short(_hide(printable(str(getattr(error, "message", error)))))
        url = self.public_url
        match error:
            case openai.APITimeoutError():
                return (
                    f"{url} gave no answer within {self.timeout:g} s ({self.max_retries + 1} "
                    "attempts); allow more with --timeout, or use a faster model"
                )
            # Of `_read_whole`; earlier clients wrap it.
            case openai.APIConnectionError(__cause__=UserError() as cause):
                return str(cause)
            case openai.APIConnectionError(__cause__=_httpx.TooManyRedirects()):
                return f"{url} redirects in a circle; check --base-url"
            case openai.APIConnectionError(
                __cause__=_httpx.RemoteProtocolError() | _httpx.ReadError()
            ):
                return (
                    f"{url} closed the connection before its answer was complete; try again, look "
                    "into the server's log, or check --base-url"
                )
            case openai.APIConnectionError():
                return f"cannot reach {url}; is the server running, and the network up?"
            case openai.AuthenticationError() | openai.PermissionDeniedError():
                return f"{url} refused the key; check OPENAI_API_KEY"
            case openai.RateLimitError():
                return f"{url} is over its rate limit or the account's quota; try later: {detail}"
            case openai.APIStatusError(status_code=status) if pictures and (
                status in (400, 422) or _BLIND.search(detail)
            ):
                return (
                    f"{url} refused the question with pictures; the model must be one that sees "
                    f"images: {detail}"
                )
            case openai.NotFoundError():
                return f"{url} does not know the model {model!r}, or the address: {detail}"
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
            datetime.fromisoformat(record["date"])
            texts = record["answer"], record["client"]
            if record["request"] == wanted and all(isinstance(text, str) for text in texts):
                return record
        except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
            continue  # missing, damaged or not ours: ask again
    return None
