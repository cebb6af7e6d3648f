"""The LLM step: a criterion in plain words -> the texts of its basis (paper, Table 12).

Any server with the OpenAI chat protocol can be asked (OpenAI, Ollama, vLLM, llama.cpp). One answer
rarely holds all that an LLM knows, so it is asked in rounds. Each prompt lists the texts so far:

    prompt --server--> answer --parse_texts--> texts

Every good answer is kept on disk: a repeated call costs nothing, and an interrupted one continues.
"""

import hashlib
import json
import math
import multiprocessing
import os
import re
from base64 import b64encode
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, TypeVar

import json_repair
import openai
from pydantic import HttpUrl, TypeAdapter, ValidationError

from crl.basis import TextBasis, fold
from crl.run.cache import LLM_ANSWERS, content_digest
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
STALE_ROUNDS = 2  # at temperature 1 a single round without a new text happens by chance
MAX_CHARACTERS = 100  # a longer text is prose; the longest in the paper's bases has about 50
MAX_TEXTS = 5_000  # of a basis and of one answer; the paper's bases have hundreds
MAX_BYTES = 1_000_000  # of one answer, as it comes from the server
MAX_REPAIR = 8_000  # characters; json_repair's time grows with their square, here to 2 s
MAX_SEED = 2**31 - 1  # servers keep seeds in 32 or 64 bits

_LIST = {"type": "array", "items": {"type": "string"}}
_OBJECT = {"type": "object", "properties": {"texts": _LIST}, "required": ["texts"]}
SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "texts",
        "strict": True,
        "schema": {**_OBJECT, "additionalProperties": False},
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
        temperature: the paper uses 1 and tries 0, 0.5 and 1.5 (Table 11).
        seed: 0 to `MAX_SEED`; round r uses seed + r, since the same question with the same seed
            could only get the same answer. Servers may ignore it.
        number: how many texts are wanted, 1 to `MAX_TEXTS`; None: as many as the model gives.
        examples: two or three texts that show the model what is meant.
        cache_dir: folder where the answers are kept.
        timeout, max_retries: see `Server`.

    Returns:
        At most `number` texts: fewer if the rounds end early (see `MAX_ROUNDS`, `STALE_ROUNDS`).

    Raises:
        UserError: an invalid argument; what `Server.answer` raises; a first answer without texts.
    """
    if not criterion.strip():
        raise UserError("the criterion is empty; name what the texts describe, e.g. color")
    if vlm_prompt.count("{text}") != 1:
        raise UserError(f"the VLM prompt must contain {{text}} exactly once, not {vlm_prompt!r}")
    if llm_prompt not in range(1, len(LLM_PROMPTS) + 1):
        raise UserError(f"there are LLM prompts 1 to {len(LLM_PROMPTS)}, not {llm_prompt}")
    wanted = MAX_TEXTS if number is None else number
    if not 1 <= wanted <= MAX_TEXTS:
        raise UserError(f"the number of texts must be 1 to {MAX_TEXTS}, not {number}")
    check_sampling(temperature, seed)

    server = Server(base_url, timeout, max_retries)
    texts: dict[str, str] = {}  # fold(text) -> text, in order of arrival
    rounds = stale = 0
    while len(texts) < wanted and stale < STALE_ROUNDS and rounds < MAX_ROUNDS:
        answered, record = server.answer(
            build_prompt(criterion, llm_prompt, number, examples, list(texts.values())),
            # "There are no others." is a valid answer, but not to the first question.
            read=_texts_in if texts else parse_texts,
            model=model,
            temperature=temperature,
            seed=seed + rounds,
            cache_dir=cache_dir,
        )
        before = len(texts)
        for text in answered:
            texts.setdefault(fold(text), text)
        stale = stale + 1 if len(texts) == before else 0
        rounds += 1

    return TextBasis(
        criterion=criterion,
        vlm_prompt=vlm_prompt,
        texts=tuple(texts.values())[:wanted],
        provenance={
            "llm": model,
            "base_url": server.public_url,
            "llm_prompt": llm_prompt,
            "prompt": build_prompt(criterion, llm_prompt, number, examples, []),
            "temperature": temperature,
            "seed": seed,
            "number": number or "as many as possible",
            "rounds": rounds,
            "schema": record["schema"],
            "date": record["date"],
            "client": record["client"],
        },
    )


def check_sampling(temperature: float, seed: int) -> None:
    """Refuse a temperature or a seed that no server takes with a UserError."""
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
        listed = json.dumps(have, ensure_ascii=False)
        lines.append(f"Do not repeat these, and answer [] if there are no others: {listed}")
    return "\n".join(lines)


# ---- reading an answer --------------------------------------------------------------------------

_JSON = json.JSONDecoder(strict=False)  # line breaks in strings are allowed
_LIST_START = re.compile(r"""[\[{]\s*(?=["'“‘\[{])""")  # not [words in brackets]
_WHOLE_STRINGS = re.compile(
    r"""(?: "(?:[^"\\]|\\.)*" | '(?:[^'\\]|\\.)*' | [^"'] )*""", re.DOTALL | re.VERBOSE
)
_MARKED_LINE = re.compile(r"^[ \t]*(?:\d+[.):]|[A-Za-z][.)]|[-+*•–])[ \t]+(\S.*)$", re.MULTILINE)
_NOISE = " \t\"'`*“”‘’„«»,"


def parse_texts(answer: str) -> list[str]:
    """The distinct texts of an answer, cleaned, in order.

    Reads JSON lists and `{"texts": [...]}`, alone, in code fences or within prose; damaged ones as
    `json_repair` mends them, without a last text that was cut off; numbered and bulleted lines.
    Things that are not strings, and texts over `MAX_CHARACTERS`, are left out.

    Raises:
        UserError: the answer holds no texts; shows how it begins.

    >>> parse_texts("Sure! ['navy', 'Navy', 'sky bl")
    ['navy']
    """
    texts = _texts_in(answer)
    if not texts:
        raise UserError(f"the LLM gave no list of texts; it said: {_short(repr(answer))}")
    return texts


def _texts_in(answer: str) -> list[str]:
    """As `parse_texts`, but an answer may have no texts."""
    # Reasoning models write their thoughts first. Some send only the closing tag.
    body = answer.rpartition("</think>")[2].partition("<think>")[0]
    texts: dict[str, str] = {}
    for item in max(_listed(body), _MARKED_LINE.findall(body), key=len)[:MAX_TEXTS]:
        text = _clean(item)
        if 0 < len(text) <= MAX_CHARACTERS:
            texts.setdefault(fold(text), text)
    return list(texts.values())


def _listed(body: str) -> list[str]:
    """The strings of all JSON lists (a model may sort texts into groups)."""
    strings: list[str] = []
    end = 0
    while start := _LIST_START.search(body, end):
        try:
            value, end = _JSON.raw_decode(body, start.start())
        except (ValueError, RecursionError):
            damaged = body[start.start() : start.start() + MAX_REPAIR]
            with suppress(ValueError, RecursionError):
                strings += _strings(json_repair.loads(_WHOLE_STRINGS.match(damaged)[0]))  # type: ignore[index]
            break
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


def printable(text: str) -> str:
    """`text` in one line, without the key, and without characters that control a terminal or the
    writing's direction."""
    return _mask("".join(char for char in " ".join(text.split()) if char.isprintable()))


def _short(text: str) -> str:
    return text if len(text) <= 160 else f"{text[:160]} ..."


# ---- asking the server --------------------------------------------------------------------------


def _read_all(response: Any) -> None:
    """Read an HTTP response, but no more than `MAX_BYTES`."""
    body = bytearray()
    for part in response.iter_bytes():
        body += part
        if len(body) > MAX_BYTES:
            raise UserError(f"the server sent more than {MAX_BYTES:,} bytes; check --base-url")
    response._content = bytes(body)  # as response.read() does
    # A server's word for its type could make the client stumble.
    response.headers["content-type"] = "application/json"


def _key() -> str:
    return os.environ.get("OPENAI_API_KEY", "").strip()


def _mask(text: str) -> str:
    """`text` with "(key)" for the key; a short one is no secret but a word like `none`."""
    return text.replace(_key(), "(key)") if len(_key()) >= 8 else text


class Server:
    """One chat server; `public_url` is its address without user names, passwords or queries.

    Args:
        base_url: its address, e.g. http://localhost:11434/v1.
        timeout: seconds that one answer may take as a whole, with all retries.
        max_retries: how often a request is repeated after a passing fault.
    """

    def __init__(self, base_url: str, timeout: float = 120.0, max_retries: int = 4):
        if not 0 < timeout <= 86_400:
            raise UserError(f"the timeout must be above 0 and at most a day in s, not {timeout}")
        try:
            url = TypeAdapter(HttpUrl).validate_python(base_url)
        except ValidationError:
            raise UserError("the base URL must look like http://localhost:11434/v1") from None
        self.url, self.timeout, self.max_retries = str(url), timeout, max_retries
        self.public_url = re.sub(r"(?<=//)[^/]*@|[?#].*", "", self.url).rstrip("/")
        self.schema = True  # until the server rejects it

    def answer(
        self,
        prompt: str,
        read: Callable[[str], Value],
        *,
        model: str,
        temperature: float,
        seed: int,
        cache_dir: Path,
        schema: dict[str, Any] = SCHEMA,
        pictures: Sequence[bytes] = (),
    ) -> tuple[Value, dict[str, Any]]:
        """The value that `read` returns for the answer to `prompt`, and the record of that answer.

        Records whose answer can be read are kept in `cache_dir`, and the same question is not asked
        again. The key is masked in answers, should a server repeat it.

        Args:
            read: turns the model's answer into a value; raises a UserError if it cannot.
            schema: the `response_format`, for servers that support it.
            pictures: JPEG files that the model sees with the prompt. Records hold their digests.

        Raises:
            UserError: no key, no server, no such model, rate limit, a model that sees no pictures;
                what `read` raises.
        """
        if not model.strip():
            raise UserError("the name of the model is empty; name one that the server knows")
        request = {
            "base_url": self.public_url,
            "model": model,
            "prompt": prompt,
            "temperature": temperature,
            "seed": seed,
            "response_format": schema,
            "pictures": [content_digest(picture).hex() for picture in pictures],
        }
        content = json.dumps(request, sort_keys=True, ensure_ascii=False).encode()
        file = Path(cache_dir) / f"{hashlib.sha256(content).hexdigest()[:32]}.json"
        if record := _kept(file, request):
            with suppress(UserError):  # written by a version that could read it
                return read(record["answer"]), record
        try:
            answer = _mask(self._ask(request, pictures))
        except (openai.OpenAIError, ImportError) as error:  # ImportError: a proxy needs a package
            # `from None`: the client's error holds the request, and with it the key.
            raise UserError(self._explain(error, model, bool(pictures))) from None
        value = read(answer)
        record = {
            "request": request,
            "answer": answer,
            "schema": self.schema,
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "client": f"openai {openai.__version__}",
        }
        write_text(file, json.dumps(record, indent=1))
        return value, record

    def _ask(self, request: dict[str, Any], pictures: Sequence[bytes]) -> str:
        """The model's answer, from the server."""
        key = _key()
        if not re.fullmatch("[!-~]*", key):
            raise UserError("OPENAI_API_KEY holds a character that no key has; copy it again")
        if not key and self.public_url == OPENAI:
            raise UserError(
                "OPENAI_API_KEY is not set; set it, or work offline: with a local server "
                "(--base-url, for Ollama http://localhost:11434/v1), or with a text basis that "
                "comes with this repository (configs/bases/*.yaml)"
            )
        content: Any = request["prompt"]
        if pictures:  # not every local server takes a list
            urls = [f"data:image/jpeg;base64,{b64encode(picture).decode()}" for picture in pictures]
            parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
            content = [{"type": "text", "text": content}, *parts]
        # The key is sent to the server that --base-url names, since hosted servers need it. Local
        # servers need no key, but the client must send something.
        client = openai.OpenAI(
            api_key=key or "none",
            base_url=self.url,
            max_retries=self.max_retries,
            http_client=openai.DefaultHttpxClient(
                timeout=self.timeout, event_hooks={"response": [_read_all]}
            ),
        )
        question = {
            "model": request["model"],
            "messages": [{"role": "user", "content": content}],
            "temperature": request["temperature"],
            "seed": request["seed"],
            "response_format": request["response_format"] if self.schema else openai.omit,
        }
        # The client would wait `timeout` for each byte. The pool's thread does not outlive the
        # program, and closing the client ends it.
        with client, ThreadPool(1) as pool:
            try:
                task = pool.apply_async(client.chat.completions.create, kwds=question)
                completion: Any = task.get(self.timeout)
            except (multiprocessing.TimeoutError, openai.APITimeoutError):
                raise UserError(
                    f"{self.public_url} gave no answer within {self.timeout:g} s; allow more with "
                    "--timeout, or use a faster model"
                ) from None
            except (openai.BadRequestError, openai.UnprocessableEntityError):
                if not self.schema:
                    raise
                # Many local servers do not support response_format. If something else was wrong
                # with the request, the second attempt fails too and says what.
                self.schema = False
                return self._ask(request, pictures)
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

    def _explain(self, error: Exception, model: str, pictures: bool) -> str:
        """What went wrong and what to do, in one line, without the key."""
        detail = _short(printable(str(getattr(error, "message", error))))
        match error:
            case openai.APIConnectionError(__cause__=UserError() as cause):  # of `_read_all`
                return str(cause)
            case openai.APIConnectionError(__cause__=cause):
                reason = "cannot be reached or breaks off; is it running? check --base-url"
                detail = printable(str(cause or error))
            case openai.AuthenticationError() | openai.PermissionDeniedError():
                reason = "refused the key; check OPENAI_API_KEY"
            case openai.RateLimitError():
                reason = "is over its rate limit or the account's quota; try later"
            # What servers say of a model that sees no images: llama.cpp with 500, OpenRouter 404.
            case openai.APIStatusError(status_code=status) if pictures and (
                status in (400, 422) or re.search("image|multi-?modal", detail, re.IGNORECASE)
            ):
                reason = "refused the pictures; the model must be one that sees images"
            case openai.NotFoundError():
                reason = f"does not know the model {model!r}, or the address"
            case _:
                reason = "failed"
        return f"{self.public_url} {reason}: {detail}"


def _kept(file: Path, request: dict[str, Any]) -> dict[str, Any] | None:
    """The record of `request`; None if there is none, or a damaged one: then it is asked again."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        datetime.fromisoformat(record["date"])
        texts = record["answer"], record["client"]
        if record["request"] == request and all(isinstance(text, str) for text in texts):
            return {**record, "schema": bool(record["schema"])}
    except (FileNotFoundError, ValueError, LookupError, TypeError, RecursionError):
        pass
    return None
