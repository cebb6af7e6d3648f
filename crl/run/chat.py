"""Ask a server with the OpenAI chat protocol; keep its answers on disk.

The key (OPENAI_API_KEY) goes to that server alone: it is masked in all that is written or shown.
"""

import hashlib
import io
import json
import multiprocessing
import os
import re
import warnings
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from ipaddress import ip_address
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import openai
from PIL import Image
from pydantic import HttpUrl, TypeAdapter, ValidationError

from crl.run.errors import UserError
from crl.run.files import write_text
from crl.run.store import content_digest

Value = TypeVar("Value")

OPENAI = "https://api.openai.com/v1"
MAX_BYTES = 10_000_000  # of one answer; a stream takes some 250 for each token
MAX_QUOTE = 160  # characters of an answer or an error that a message shows

_LIST = {"type": "array", "items": {"type": "string"}}
_OBJECT = {"type": "object", "properties": {"texts": _LIST}, "required": ["texts"]}
_STRICT = {"name": "texts", "strict": True, "schema": {**_OBJECT, "additionalProperties": False}}
SCHEMA = {"type": "json_schema", "json_schema": _STRICT}
DEADLINE, BROKEN = "deadline", "the connection broke off"
CUT = (DEADLINE, BROKEN, "length", "max_tokens")  # ends of an answer whose last item is not whole
FILTERED = "content_filter"  # an end of an answer
FILTERS = re.compile(r"(?i)content[ _]?(filter|policy|management)|safety|moderation")
# What a request can do without, in the order in which a server that refuses it loses it.
OPTIONAL = ("response_format", "seed", "temperature", "max_tokens", "stream")


def _check(response: Any) -> None:
    """Of a refusal read no more than `MAX_BYTES`, and do not repeat what cannot be done."""
    if response.is_success:
        return
    body = b"".join(_limited(response.iter_bytes()))
    response._content = body  # as response.read() does
    if re.search(rb"(?i)not support|unsupported|not implemented", body):
        response.headers["x-should-retry"] = "false"  # llama.cpp says it with 500


def _limited(parts: Iterable[bytes]) -> Iterator[bytes]:
    size = 0
    for part in parts:
        size += len(part)
        if size > MAX_BYTES:
            raise UserError(f"the server sent more than {MAX_BYTES:,} bytes; check --base-url")
        yield part


def _key() -> str:
    return os.environ.get("OPENAI_API_KEY", "").strip()


def _mask(text: str) -> str:
    """`text` with "(key)" for the key; a short one is no secret but a word like `none`."""
    return text.replace(_key(), "(key)") if len(_key()) >= 8 else text


def printable(text: str) -> str:
    """`text` in one line, without the key, and without characters that control a terminal or the
    writing's direction."""
    return _mask("".join(char for char in " ".join(text.split()) if char.isprintable()))


class Refused(UserError):
    """A safety filter refuses to answer."""


class Server:
    """One chat server. `timeout` is for one answer as a whole, in seconds, with all retries;
    `public_url` is its address without user names, passwords or queries."""

    def __init__(self, base_url: str, timeout: float = 120.0, max_retries: int = 4):
        try:
            self.url = str(TypeAdapter(HttpUrl).validate_python(base_url))
        except ValidationError:
            raise UserError("the base URL must look like http://localhost:11434/v1") from None
        self.timeout, self.max_retries = timeout, max_retries
        self.public_url = re.sub(r"(?<=//)[^/]*@|[?#].*", "", self.url).rstrip("/")
        self.refused: list[str] = []  # of OPTIONAL, by this server

    def answer(
        self, prompt: str, read: Callable[[str], Value], *, model: str, temperature: float,
        seed: int, cache_dir: Path, schema: dict[str, Any] | None = SCHEMA,
        pictures: Sequence[bytes] = (), max_tokens: int = 4096,
        enough: Callable[[str], bool] = lambda text: False,
    ) -> tuple[Value, dict[str, Any]]:  # fmt: skip
        """The value that `read` returns for the answer to `prompt`, and the record of that answer.

        Records whose answer can be read are kept in `cache_dir`; the same question is not asked
        again. `schema` is the `response_format`, for servers that support it; `pictures` are JPEG
        files that the model sees. `enough` sees the answer grow, and says when to stop it. An
        answer that is cut, by its length or by the deadline, loses its last item. A UserError if
        there is no answer, `Refused` if a safety filter says why, or if `read` raises one."""
        sampling = {"model": model, "temperature": temperature, "seed": seed}
        request = {"base_url": self.public_url, "prompt": prompt, **sampling}
        digests = [content_digest(picture).hex() for picture in pictures]
        request |= {"response_format": schema, "pictures": digests}
        question = json.dumps(request, sort_keys=True, ensure_ascii=False).encode()
        file = Path(cache_dir) / f"{hashlib.sha256(question).hexdigest()[:32]}.json"
        # A damaged record, or one that this version cannot read, is asked for again.
        with suppress(FileNotFoundError, ValueError, LookupError, TypeError, AttributeError,
                      RecursionError, UserError):  # fmt: skip
            record = json.loads(file.read_text(encoding="utf-8"))
            needed = [record[key] for key in ("date", "client", "model", "refused")]
            if record["request"] == request and all(needed[:3]):
                return read(record["answer"]), record
        sampling |= {"response_format": schema} if schema else {}
        sampling |= {"max_tokens": max_tokens, "stream": True}
        before = list(self.refused)
        try:
            reply = self._ask(_content(prompt, pictures), sampling, enough)
        # ImportError: a proxy needs a package.
        except (openai.OpenAIError, ImportError) as error:
            # `from None`: the client's error holds the request, and with it the key.
            kind = _kind(str(error), model, getattr(error, "status_code", 0))
            raise kind(self._explain(error, model, bool(pictures))) from None
        if reply.end == FILTERED and not reply.text:
            raise Refused(f"{self.public_url} gave no answer: {FILTERED}")
        if refused := ", ".join(self.refused[len(before) :]):
            warnings.warn(f"{self.public_url} refuses {refused}; asked without", stacklevel=2)
        answer = _mask(reply.text)
        if reply.end in CUT:
            answer = answer[: 1 + max(answer.rfind(","), answer.rfind("\n"))]
            warnings.warn(f"an answer of {model} was cut ({reply.end}); its whole texts are kept",
                          stacklevel=2)  # fmt: skip
        value = read(answer)
        date = datetime.now(timezone.utc).isoformat(timespec="seconds")
        record = {"request": request, "answer": answer, "end": reply.end, "date": date}
        record |= {"model": printable(reply.model or model), "refused": self.refused}
        record["client"] = f"openai {openai.__version__}"
        write_text(file, json.dumps(record, indent=1))
        return value, record

    @property
    def is_local(self) -> bool:
        """Does it run on this machine?"""
        host = urlsplit(self.url).hostname or ""
        with suppress(ValueError):  # a name, such as 127.0.0.1.example.org, is no number
            return ip_address(host).is_loopback
        return host == "localhost"

    def embedding(self, messages: list[dict[str, Any]], model: str, **options: Any) -> Any:
        """What /embeddings answers to a chat, as vLLM serves it: JSON, not checked. A UserError if
        there is no answer."""
        body = {"model": model, "messages": messages, "encoding_format": "float", **options}
        try:
            with self._client() as client:
                return client.post("/embeddings", cast_to=object, body=body)
        except openai.APITimeoutError:
            raise UserError(f"{self.public_url} gave no answer within {self.timeout:g} s") from None
        except (openai.OpenAIError, ImportError, ValueError) as error:  # the last: no JSON
            raise UserError(self._explain(error, model, pictures=True)) from None

    def _client(self) -> openai.OpenAI:
        key = _key()
        if not re.fullmatch("[!-~]*", key):
            raise UserError("OPENAI_API_KEY holds a character that no key has; copy it again")
        if not key and self.public_url == OPENAI:
            raise UserError("OPENAI_API_KEY is not set; set it, or work offline: with a local "
                            "server (--base-url, for Ollama http://localhost:11434/v1), or with "
                            "configs/bases/*.yaml")  # fmt: skip
        http = openai.DefaultHttpxClient(
            timeout=self.timeout, event_hooks={"response": [_check]},
            trust_env=not self.is_local,  # a proxy does not reach this computer
        )  # fmt: skip
        # Local servers need no key, but the client must send something.
        limits: dict[str, Any] = {"max_retries": self.max_retries, "http_client": http}
        return openai.OpenAI(api_key=key or "none", base_url=self.url, **limits)

    def _ask(
        self, content: Any, sampling: dict[str, Any], enough: Callable[[str], bool]
    ) -> "_Answer":
        client = self._client()
        question = {"messages": [{"role": "user", "content": content}], **sampling}
        for name in self.refused:
            question.pop(name, None)
        answer = _Answer(enough)
        # The client would wait `timeout` for each byte and each retry. Closing it ends the thread.
        with client, ThreadPool(1) as pool:
            try:
                pool.apply_async(answer.receive, (client, question)).get(self.timeout)
            except (multiprocessing.TimeoutError, openai.APITimeoutError):
                answer.end = DEADLINE
                if not answer.text:
                    raise UserError(f"{self.public_url} gave no answer within {self.timeout:g} s; "
                                    "allow more with --timeout") from None  # fmt: skip
            except openai.APIConnectionError:
                if not answer.text:
                    raise
                answer.end = BROKEN
            except openai.APIStatusError as error:
                if not (name := _refused(error, question)):
                    raise
                self.refused.append(name)
                return self._ask(content, sampling, enough)
        if answer.error:
            kind = _kind(answer.error, sampling["model"])
            raise kind(f"{self.public_url} failed: {printable(answer.error)[:MAX_QUOTE]}")
        if not answer.is_chat:
            raise UserError(f"{self.public_url} does not answer like an OpenAI-compatible server, "
                            "or its answer was cut off; most need /v1 at the end of "
                            "--base-url")  # fmt: skip
        return answer

    def _explain(self, error: Exception, model: str, pictures: bool) -> str:
        """What went wrong and what to do, in one line, without the key."""
        status, detail = getattr(error, "status_code", None), getattr(error, "message", error)
        if isinstance(error, openai.APIConnectionError):
            reason = "cannot be reached or breaks off; is it running? check --base-url"
            detail = error.__cause__ or error
        elif isinstance(error, ImportError):  # socksio
            reason = "is behind a proxy (ALL_PROXY) that needs a package: pip install httpx[socks]"
        elif status in (401, 403):
            reason = "refused the key; check OPENAI_API_KEY"
        elif status == 429:
            reason = "is over its rate limit or the account's quota; try later"
        # llama.cpp says it with 500, OpenRouter with 404
        elif pictures and (
            status in (400, 422) or re.search("(?i)image|multi-?modal", str(detail))
        ):
            reason = "refused the pictures; the model must be one that sees images"
        elif status == 404:
            reason = f"does not know the model {model!r}, or the address"
        else:
            reason = "failed"
        return f"{self.public_url} {reason}: {printable(str(detail))[:MAX_QUOTE]}"


def _kind(reason: str, model: str, status: int = 400) -> type[UserError]:
    return Refused if status in (400, 403, 422) and _filtered(reason, model) else UserError


def _filtered(reason: str, model: str) -> bool:
    """Did a safety filter do it? The name of the model may hold such words, too."""
    return bool(FILTERS.search(re.sub(rf"(?<!\w){re.escape(model)}(?!\w)", "", reason)))


def _content(prompt: str, pictures: Sequence[bytes]) -> Any:
    """A question in the chat format; pictures are part of it."""
    if not pictures:
        return prompt  # not every local server takes a list
    return [{"type": "text", "text": prompt}, *map(picture_part, pictures)]


def picture_part(picture: bytes) -> dict[str, Any]:
    """A JPEG as a part of a message: a data URI."""
    url = f"data:image/jpeg;base64,{b64encode(picture).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def as_jpeg(picture: Image.Image) -> bytes:
    """The file that is sent, without metadata."""
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=95, subsampling=0)
    return stream.getvalue()


def _refused(error: openai.APIStatusError, question: dict[str, Any]) -> str | None:
    """The part of the question that a server refuses: the one that it names, or else the next."""
    text = str(error.message)
    unsupported = error.status_code in (400, 422) or "x-should-retry" in error.response.headers
    about_pictures = _has_pictures(question) and re.search("(?i)image|multi-?modal", text)
    if not unsupported or about_pictures or _filtered(text, question["model"]):
        return None
    left = [name for name in OPTIONAL if name in question]
    return next((name for name in left if name in text), left[0] if left else None)


def _has_pictures(question: dict[str, Any]) -> bool:
    return not isinstance(question["messages"][0]["content"], str)


class _Answer:
    """One answer while it comes in: events of a stream, or one JSON document."""

    def __init__(self, enough: Callable[[str], bool]):
        self.text = self.error = ""
        self.model = ""  # that answers; a server may have another one than it was asked for
        self.end = "stop"  # as the server says, one of CUT, or "enough": we stopped it
        self.is_chat, self.enough = False, enough

    def receive(self, client: openai.OpenAI, question: dict[str, Any]) -> None:
        document: list[str] = []
        with client.chat.completions.with_streaming_response.create(**question) as response:
            for line in _lines(_limited(_pieces(response))):
                if line.startswith("data:"):
                    self._add(line.removeprefix("data:"))
                    if self.end == "stop" and self.text and self.enough(self.text):
                        self.end = "enough"
                        return
                elif not re.match(r":|event:|id:|retry:", line):
                    document.append(line)
        if not self.is_chat:
            self._add("\n".join(document))

    def _add(self, content: str) -> None:
        """Add what a completion, or a piece of one, holds; others than that are passed over."""
        with suppress(ValueError, RecursionError, AttributeError, LookupError, TypeError):
            piece = json.loads(content)
            self.model = str(piece.get("model") or self.model)
            if error := piece.get("error"):  # some gateways send it with status 200
                self.error = str(error.get("message") if isinstance(error, dict) else error)
            choice = piece["choices"][0]
            message = choice.get("delta") or choice.get("message") or {}
            text = _text(message.get("content")) or _text(message.get("refusal"))
            self.is_chat, self.text = True, self.text + text
            self.end = str(choice.get("finish_reason") or self.end)


def _pieces(response: Any) -> Iterator[bytes]:
    try:
        yield from response.iter_bytes()
    except Exception as error:  # of the client's HTTP library
        slow = "Timeout" in type(error).__name__
        kind = openai.APITimeoutError if slow else openai.APIConnectionError
        raise kind(request=response.http_request) from error


def _lines(parts: Iterable[bytes]) -> Iterator[str]:
    rest = b""
    for part in parts:
        *lines, rest = (rest + part).split(b"\n")
        yield from (line.decode(errors="replace").strip() for line in lines)
    yield rest.decode(errors="replace").strip()


def _text(content: Any) -> str:
    """The text of a message, which may come in parts beside thoughts."""
    if isinstance(content, list):
        return "".join(part["text"] for part in content if part.get("type") == "text")
    return content or ""
