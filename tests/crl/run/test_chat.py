"""Asking a chat server over real HTTP: one that misbehaves, the cache, and the key."""

import gzip
import json
import sys
import threading
import time

import pytest
from commands import REPOSITORY
from llm_server import OK, fails, gives, says, sends

from crl.llm import generate_basis, parse_texts
from crl.run.chat import SCHEMA, Refused, Server
from crl.run.errors import UserError

KEY = "sk-very-secret-0123456789"


@pytest.fixture(autouse=True)
def surroundings(monkeypatch):
    """A known key, and no waiting between the client's own retries."""
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.001)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture
def ask(server, tmp_path):
    """Asks for texts; gives them and the record."""

    def ask(prompt="Which?", read=parse_texts, base_url=None, timeout=20, max_retries=2, **more):
        settings = {"model": "m", "temperature": 0.0, "seed": 3, "cache_dir": tmp_path / "cache"}
        chat = Server(base_url or server.url, timeout, max_retries)
        return chat.answer(prompt, read, **{**settings, **more})

    return ask


# ---- servers that misbehave ---------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 422, 500])
@pytest.mark.parametrize("fields", [["response_format"], ["seed"], ["max_tokens", "temperature"]])
@pytest.mark.parametrize("named", [True, False])
def test_what_a_server_refuses_is_left_out(server, tmp_path, status, fields, named):
    def reply(request):
        for field in fields:
            if field in request:
                return fails(status, f"{field if named else 'this'} is not supported")
        return says("1. red\n2. blue")

    server.replies = [reply]
    settings = {"base_url": server.url, "cache_dir": tmp_path}
    with pytest.warns(UserWarning, match=f"refuses .*{fields[0]}") as caught:
        basis = generate_basis("color", "{text}", **settings)
    assert len(caught) == 1  # it is said once
    assert basis.texts == ("red", "blue") and set(basis.provenance["refused"]) >= set(fields)
    if named:
        assert basis.provenance["refused"] == fields
        # Only the first round tries it; a 500 that says so is not repeated as it is.
        assert len(server.requests) == 3 + len(fields)
    server.requests.clear()
    assert generate_basis("color", "{text}", **settings) == basis
    assert server.requests == []


LETTERS = str.maketrans("0123456789", "abcdefghij")


def events(*pieces, end="stop", model="llama-3"):
    """A reply as a stream of events."""
    choices = [{"delta": {"content": piece}, "finish_reason": None} for piece in pieces]
    choices.append({"delta": {}, "finish_reason": end})
    bodies = [json.dumps({"model": model, "choices": [choice]}) for choice in choices]
    lines = "".join(f": ping\n\ndata: {body}\n\n" for body in bodies) + "data: [DONE]\n\n"
    return 200, lines


def whole(**parts):
    return 200, json.dumps({"model": "llama-3", **parts})


def message(content, **more):
    return {"choices": [{"message": {"role": "assistant", "content": content, **more}}]}


@pytest.mark.parametrize(
    "reply",
    [
        events('["re', 'd", "bl', 'ue"]'),
        events('{"texts": ["red", "blue", "te', end="length"),  # the cut one is lost
        events("1. red\n2. blue\n3. te", end="length"),
        whole(**message([{"type": "thinking", "thinking": []},
                         {"type": "text", "text": '["red", "blue"]'}])),
        whole(**message(None, refusal="1. red\n2. blue")),
        events('["red", "blue"]', end="eos"),  # each server has words of its own
        (200, json.dumps({"model": "llama-3", **message('["red", "blue"]')}, indent=2)),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:an answer of m was cut")
def test_forms_of_replies(server, ask, reply):
    server.replies = [reply]
    texts, record = ask()
    assert texts == ["red", "blue"] and record["model"] == "llama-3"
    assert server.requests[0]["stream"] and server.requests[0]["max_tokens"]


@pytest.mark.parametrize("choices", [{}, {"choices": None}, {"choices": []}])
@pytest.mark.parametrize("error", ["too many requests", {"message": "too many requests"}])
def test_an_error_inside_a_good_status_is_said(server, ask, choices, error):
    server.replies = [whole(error=error, **choices)]
    with pytest.raises(UserError, match="failed: too many requests"):
        ask()


CASES = REPOSITORY.parent / "shared" / "cases"


@pytest.mark.skipif(not CASES.is_dir(), reason="the cases are beside the project")
def test_replies_of_others(server, ask):
    server.replies = [(200, (CASES / "29-content-in-parts/reply-200.json").read_text())]
    assert ask()[0] == ["red", "blue"]
    server.replies = [(200, (CASES / "31-error-inside-200/reply-200.json").read_text())]
    with pytest.raises(UserError, match="failed: too many requests today"):
        ask("What?")
    refusal = (CASES / "28-server-refuses-temperature/reply-400.json").read_text()
    server.replies = [lambda request: (400, refusal) if "temperature" in request else gives("red")]
    with pytest.warns(UserWarning, match="refuses temperature; asked without"):
        assert ask("Who?")[0] == ["red"]


@pytest.mark.parametrize("number", [None, 7], ids=["it turns in a circle", "it has enough"])
def test_a_model_that_would_not_end_is_stopped(server, tmp_path, number):
    sent = []

    def endless(request):
        yield OK + b"\r\n"
        for i in range(100_000):
            text = f"color {i % 50}" if number is None else str(i).translate(LETTERS)
            piece = {"choices": [{"delta": {"content": f"{i}. {text}\n"}}]}
            yield f"data: {json.dumps(piece)}\n\n".encode()
            sent.append(i)

    server.replies = [endless]
    settings = {"base_url": server.url, "cache_dir": tmp_path, "number": number}
    basis = generate_basis("color", "{text}", **settings)
    assert len(basis.texts) == 7 if number else len(basis.texts) > 20
    assert len(sent) < 50_000 * len(server.requests)


def test_a_deadline_keeps_what_came_and_asks_the_next_seed(server, tmp_path):
    piece = json.dumps({"choices": [{"delta": {"content": "red\nblue\nte"}}]})
    slow = sends(OK + b"\r\n", f"data: {piece}\n\n".encode(), *[b": ping\n"] * 50, pause=0.1)
    server.replies = [slow, gives("teal")]
    settings = {"base_url": server.url, "cache_dir": tmp_path, "number": 3}
    with pytest.warns(UserWarning, match="was cut \\(deadline\\)"):
        basis = generate_basis("color", "{text}", timeout=0.6, **settings)
    assert basis.texts == ("red", "blue", "teal")
    assert [request["seed"] for request in server.requests] == [0, 1]
    assert generate_basis("color", "{text}", timeout=0.6, **settings) == basis
    assert len(server.requests) == 2


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "socks5://127.0.0.1:9"])
def test_a_local_server_needs_no_proxy(server, ask, monkeypatch, name, proxy):
    monkeypatch.setenv(name, proxy)
    server.replies = [gives("red")]
    assert ask()[0] == ["red"]


@pytest.mark.parametrize(
    ("host", "local"),
    [("localhost", True), ("127.0.0.2", True), ("[::1]", True), ("127.0.0.1.example.org", False),
     ("localhost.example.org", False), ("192.168.0.1", False), ("example.org", False)],
)  # fmt: skip
def test_only_this_machine_is_local(host, local):
    assert Server(f"http://{host}:8000/v1").is_local == local


def test_a_model_named_like_a_filter_is_no_refusal(server, ask):
    unknown = "the model guard-safety does not exist"
    for status, reason, kind in [
        (404, unknown, UserError),
        (400, unknown, UserError),
        (500, "the safety valve is open", UserError),
        (400, "guard-safety: stopped by content_filter", Refused),
    ]:
        server.replies = [fails(status, reason)]
        with pytest.raises(UserError) as caught:
            ask(model="guard-safety", max_retries=0)
        assert type(caught.value) is kind


def test_a_proxy_that_needs_a_package_is_named(ask, monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "socksio", None)
    with pytest.raises(UserError, match=r"ALL_PROXY.* pip install httpx\[socks\]"):
        ask(base_url="http://example.invalid/v1")


NO_API = "does not answer like an OpenAI-compatible server.*/v1 at the end"
ERRORS = [
    (fails(400, "temperature is out of range"), 6, "failed: .*temperature is out of range"),
    (fails(401, f"bad key {KEY}"), 1, r"refused the key; check OPENAI_API_KEY: .*\(key\)"),
    (fails(429, "slow down"), 3, "over its rate limit or the account's quota; .*slow down"),
    (fails(500, "\x1b[31m" + "\u202e\n" * 9), 3, "failed"),
    ((200, "<html>welcome</html>"), 1, NO_API),
    ((200, '{"choices": [{"message": {"content": ["red"]}}]}'), 1, NO_API),
    (says(""), 1, "no list of texts; it said: ''"),
    (says("字" * 5000), 1, "it said: '字{160}'$"),
    (sends(OK + b'content-length: 99\r\n\r\n{"cho'), 1, "breaks off; .*peer closed connection"),
    (sends(b"HTTP/1.1 308 Go\r\nlocation: /v1\r\n\r\n"), 63, "check --base-url: .*redirects"),
]


@pytest.mark.parametrize(("reply", "requests", "message"), ERRORS)
def test_what_cannot_be_used_is_said_in_one_line(server, ask, tmp_path, reply, requests, message):
    server.replies = [reply]
    with pytest.raises(UserError, match=message) as caught:
        ask()
    assert len(server.requests) == requests
    assert str(caught.value).isprintable() and len(str(caught.value)) < 400
    assert KEY not in str(caught.value)
    assert not (tmp_path / "cache").exists()  # a bad answer is not kept


@pytest.mark.parametrize(
    "start", [b"200 OK", b"400 No", b"308 Go\r\nlocation: http://127.0.0.1:9/"]
)
def test_an_answer_without_end_is_not_read_to_its_end(server, ask, start):
    sent = []

    def reply(request):
        yield b"HTTP/1.1 " + start + b"\r\n\r\n"
        for _ in range(500):
            yield b" " * 100_000
            sent.append(request)

    server.replies = [reply]
    with pytest.raises(UserError, match="sent more than 10,000,000 bytes; check --base-url"):
        ask()
    assert len(sent) < 300  # what the network buffers hold is sent, but not read


def test_an_answer_that_unpacks_to_much_more_is_not_kept_in_memory(server, ask):
    bomb = gzip.compress(b" " * 20_000_000)
    server.replies = [sends(OK + b"content-encoding: gzip\r\n\r\n" + bomb)]
    with pytest.raises(UserError, match="sent more than 10,000,000 bytes; check --base-url"):
        ask()


@pytest.mark.parametrize("part", ["headers", "body", "nothing"])
def test_one_deadline_for_a_whole_answer(server, ask, part):
    """Also if a byte comes now and then."""
    headers, body = OK + b"x-slow: 1\r\n\r\n", gives("red")[1].encode()
    release = threading.Event()
    if part == "nothing":
        server.replies = [lambda request: release.wait(5) and gives("red")]
    else:
        fast, slow = (b"", headers + body) if part == "headers" else (headers, body)
        server.replies = [sends(fast, *(bytes([byte]) for byte in slow), pause=0.02)]
    began = time.monotonic()
    with pytest.raises(UserError, match=r"no answer within 0.3 s; allow more with --timeout"):
        ask(timeout=0.3)
    assert time.monotonic() - began < 1.5
    release.set()


# ---- the key ------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [f"{KEY}\n{KEY}", "schlüssel"])
def test_a_key_that_was_copied_badly(server, ask, monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(UserError, match="OPENAI_API_KEY holds a character that no key") as caught:
        ask()
    assert server.requests == [] and KEY not in str(caught.value) and key not in str(caught.value)


@pytest.mark.parametrize("echo", [KEY, f"Bearer {KEY}", KEY + KEY, "\u200b".join(KEY)])
def test_a_key_that_the_server_repeats_is_masked(server, ask, tmp_path, echo):
    escaped = "".join(f"\\u{ord(char):04x}" for char in echo)
    for reply in (gives("red", echo), says(f'["red", "{escaped}"]'), says(f"1. red\n- {echo}")):
        server.replies = [reply]
        texts, _ = ask(str(len(server.requests)))
        assert len(texts) == 2 and KEY not in texts[1]
    for reply in (says(f"Your key: {echo}"), *(fails(status, echo) for status in (404, 429, 500))):
        server.replies = [reply]
        with pytest.raises(UserError) as caught:
            ask()
        assert KEY not in str(caught.value)
    assert not any(KEY in file.read_text() for file in (tmp_path / "cache").iterdir())


def test_neither_key_nor_password_is_written(server, ask, tmp_path, caplog, capfd):
    server.replies = [gives("red")]
    with caplog.at_level("DEBUG"):
        ask()
    assert server.keys == [f"Bearer {KEY}"]  # it was there to be leaked
    url = server.url.replace("http://", "http://ann:hunt%40er2@") + "?token=hush"
    _, record = ask("What?", base_url=url)
    assert record["request"]["base_url"] == server.url and len(server.requests) == 2
    files = [file.read_text() for file in (tmp_path / "cache").iterdir()]
    for written in (*files, repr(record), *capfd.readouterr()):
        assert not any(secret in written for secret in (KEY, "hunt", "hush"))
    assert len(caplog.records) > 3 and KEY not in caplog.text


# ---- the cache ----------------------------------------------------------------------------------


def test_the_same_question_is_asked_once(server, ask, monkeypatch):
    server.replies = [gives("red"), gives("blue")]
    first = ask()
    monkeypatch.setenv("OPENAI_API_KEY", "\udcff" * 9)  # of no use, but not needed either
    assert ask() == first and len(server.requests) == 1
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    others = [{"prompt": "What?"}, {"model": "n"}, {"temperature": 1.0}, {"seed": 4}]
    others += [{"schema": {**SCHEMA, "type": "text"}}, {"pictures": [b"a"]}, {"pictures": [b"b"]}]
    for number, other in enumerate(others, start=2):
        assert ask(**other)[0] == ask(**other)[0] == ["blue"]
        assert len(server.requests) == number


DAMAGES: list = ["", "[]", "\ufffd", "[" * 100_000, {"request": 7}, {"answer": None}, {"model": ""}]
DAMAGES += [{"answer": "I know no colors."}, {"answer": "[" * 100_000}]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: str(damage)[:30])
def test_a_damaged_or_foreign_cache_file_is_not_read_as_good(server, ask, tmp_path, damage):
    server.replies = [gives("red")]
    ask()
    (file,) = (tmp_path / "cache").iterdir()
    good = json.loads(file.read_text())
    file.write_text(damage if isinstance(damage, str) else json.dumps({**good, **damage}))
    assert ask()[0] == ["red"]
    assert len(server.requests) == 2
    assert json.loads(file.read_text())["answer"] == good["answer"]  # and is mended
