"""Ask a server with the OpenAI chat protocol; keep its answers on disk.

The key (OPENAI_API_KEY) goes to that server alone: it is masked in all that is written or shown.
"""

import hashlib
import json
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

import openai
from pydantic import HttpUrl, TypeAdapter, ValidationError

from crl.run.errors import UserError
from crl.run.files import write_text
from crl.run.store import content_digest

Value = TypeVar("Value")

OPENAI = "https://api.openai.com/v1"
MAX_BYTES = 1_000_000  # of one answer
MAX_QUOTE = 160  # characters of an answer or an error that a message shows

_LIST = {"type": "array", "items": {"type": "string"}}
_OBJECT = {"type": "object", "properties": {"texts": _LIST}, "required": ["texts"]}
_STRICT = {"name": "texts", "strict": True, "schema": {**_OBJECT, "additionalProperties": False}}
SCHEMA = {"type": "json_schema", "json_schema": _STRICT}


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


def printable(text: str) -> str:
    """`text` in one line, without the key, and without characters that control a terminal or the
    writing's direction."""
    return _mask("".join(char for char in " ".join(text.split()) if char.isprintable()))


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
        self.schema = True  # until the server rejects it

    def answer(
        self, prompt: str, read: Callable[[str], Value], *, model: str, temperature: float,
        seed: int, cache_dir: Path, schema: dict[str, Any] = SCHEMA, pictures: Sequence[bytes] = (),
    ) -> tuple[Value, dict[str, Any]]:  # fmt: skip
        """The value that `read` returns for the answer to `prompt`, and the record of that answer.

        Records whose answer can be read are kept in `cache_dir`; the same question is not asked
        again. `schema` is the `response_format`, for servers that support it; `pictures` are JPEG
        files that the model sees. A UserError if there is no answer, or if `read` raises one."""
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
            if record["request"] == request and record["date"] and record["client"]:
                return read(record["answer"]), record
        try:
            answer = _mask(self._ask(_content(prompt, pictures), schema, sampling))
        except (openai.OpenAIError, ImportError) as error:  # ImportError: a proxy needs a package
            # `from None`: the client's error holds the request, and with it the key.
            raise UserError(self._explain(error, model, bool(pictures))) from None
        value = read(answer)
        date = datetime.now(timezone.utc).isoformat(timespec="seconds")
        record = {"request": request, "answer": answer, "schema": self.schema, "date": date}
        record["client"] = f"openai {openai.__version__}"
        write_text(file, json.dumps(record, indent=1))
        return value, record

    def _ask(self, content: Any, schema: dict[str, Any], sampling: dict[str, Any]) -> str:
        key = _key()
        if not re.fullmatch("[!-~]*", key):
            raise UserError("OPENAI_API_KEY holds a character that no key has; copy it again")
        if not key and self.public_url == OPENAI:
            raise UserError("OPENAI_API_KEY is not set; set it, or work offline: with a local "
                            "server (--base-url, for Ollama http://localhost:11434/v1), or with "
                            "configs/bases/*.yaml")  # fmt: skip
        # Local servers need no key, but the client must send something.
        http = openai.DefaultHttpxClient(
            timeout=self.timeout, event_hooks={"response": [_read_all]}
        )
        limits: dict[str, Any] = {"max_retries": self.max_retries, "http_client": http}
        client = openai.OpenAI(api_key=key or "none", base_url=self.url, **limits)
        question = {"messages": [{"role": "user", "content": content}], **sampling}
        question["response_format"] = schema if self.schema else openai.omit
        # The client would wait `timeout` for each byte and each retry. Closing it ends the thread.
        with client, ThreadPool(1) as pool:
            try:
                task = pool.apply_async(client.chat.completions.create, kwds=question)
                completion: Any = task.get(self.timeout)
            except (multiprocessing.TimeoutError, openai.APITimeoutError):
                raise UserError(f"{self.public_url} gave no answer within {self.timeout:g} s; "
                                "allow more with --timeout") from None  # fmt: skip
            except (openai.BadRequestError, openai.UnprocessableEntityError):
                if not self.schema:
                    raise
                self.schema = False  # many local servers do not support response_format
                return self._ask(content, schema, sampling)
            except (ValueError, RecursionError):  # malformed or deep JSON, not caught by the client
                completion = None
        with suppress(AttributeError, LookupError, TypeError):  # a web page, or some other JSON
            message = completion.choices[0].message
            answer = message.content or message.refusal or ""
            if isinstance(answer, str):
                return answer
        reason = "does not answer like an OpenAI-compatible server, or its answer was cut off"
        raise UserError(f"{self.public_url} {reason}; most need /v1 at the end of --base-url")

    def _explain(self, error: Exception, model: str, pictures: bool) -> str:
        """What went wrong and what to do, in one line, without the key."""
        status, detail = getattr(error, "status_code", None), getattr(error, "message", error)
        if isinstance(error, openai.APIConnectionError):
            reason = "cannot be reached or breaks off; is it running? check --base-url"
            detail = error.__cause__ or error
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


def _content(prompt: str, pictures: Sequence[bytes]) -> Any:
    """A question in the chat format; pictures are part of it as data URIs."""
    if not pictures:
        return prompt  # not every local server takes a list
    urls = [f"data:image/jpeg;base64,{b64encode(picture).decode()}" for picture in pictures]
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [{"type": "text", "text": prompt}, *parts]
