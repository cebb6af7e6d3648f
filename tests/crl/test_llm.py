"""The LLM step and its command, over real HTTP, against a small local server that misbehaves."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import generate_texts
import pytest
from commands import run_python
from hypothesis import given
from hypothesis import strategies as st

from crl import llm
from crl.basis import TextBasis, fold
from crl.llm import generate_basis, parse_texts
from crl.run.cache import LLM_ANSWERS
from crl.run.errors import UserError

KEY = "sk-very-secret-0123456789"
VLM_PROMPT = "objects with the color of {text}"


def says(content, **message):
    """The server's reply that carries `content` as the model's words."""
    message = {"role": "assistant", "content": content, **message}
    return 200, json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})


def gives(*texts):
    return says(json.dumps({"texts": list(texts)}))


def fails(status, message="no"):
    return status, json.dumps({"error": {"message": message}})


class Server(ThreadingHTTPServer):
    """Gives `replies` in turn, then always the last one; keeps the requests that it got."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies, self.requests, self.keys = [], [], []
        self.url = f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request, client_address):
        """Quiet: a client that went away is part of a test."""

    @property
    def prompts(self):
        return [request["messages"][0]["content"] for request in self.requests]


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.requests.append(request)
        self.server.keys.append(self.headers["authorization"])
        replies = self.server.replies
        reply = replies[min(len(self.server.requests), len(replies)) - 1]
        status, body = reply(request) if callable(reply) else reply
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(autouse=True)
def surroundings(monkeypatch):
    """A known environment, and no waiting between the client's own retries."""
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.001)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


@pytest.fixture
def ask(server, tmp_path):
    def ask(criterion="color", vlm_prompt=VLM_PROMPT, **settings):
        fixed = {"base_url": server.url, "cache_dir": tmp_path / "cache", "max_retries": 2}
        return generate_basis(criterion, vlm_prompt, **{**fixed, **settings})

    return ask


# ---- rounds -------------------------------------------------------------------------------------


def test_a_criterion_becomes_a_basis(server, ask):
    server.replies = [gives("navy", "crimson"), gives("navy", "teal"), gives()]
    basis = ask(temperature=0.5, seed=7, model="some-model", examples=["navy", "crimson"])
    assert basis.texts == ("navy", "crimson", "teal")
    assert basis.prompts[2] == "objects with the color of teal"
    first = server.requests[0]
    assert (first["model"], first["temperature"], first["seed"]) == ("some-model", 0.5, 7)
    assert [request["seed"] for request in server.requests] == [7, 8, 9, 10]
    assert first["response_format"] == llm.SCHEMA
    assert first["messages"][0]["role"] == "user" and len(first["messages"]) == 1
    opening = (
        'Generate common expressions to describe the color.\nFor example: ["navy", "crimson"].\n'
    )
    assert server.prompts[0].startswith(opening + "Give as many as possible. All items must be uni")
    assert "only a list of strings" in server.prompts[0]
    assert "Do not repeat" not in server.prompts[0]
    assert server.prompts[1].endswith('["navy", "crimson"]')
    assert server.prompts[2].endswith('["navy", "crimson", "teal"]')
    assert server.prompts[3] == server.prompts[2]
    made = basis.provenance
    assert made["prompt"] == server.prompts[0]
    assert made["date"].startswith("20") and made["client"].startswith("openai ")
    del made["prompt"], made["date"], made["client"]
    assert made == {
        "llm": "some-model",
        "base_url": server.url,
        "llm_prompt": 1,
        "temperature": 0.5,
        "seed": 7,
        "number": "as many as possible",
        "rounds": 4,
        "schema": True,
    }


@pytest.mark.parametrize(
    ("number", "begins"),
    [
        (1, "Generate common expressions to describe the fur."),
        (2, "List a wide variety of typical phrases used to characterize the fur."),
        (3, "Enumerate familiar terms or expressions people often use when referring to the fur."),
        (4, "Identify and list expressions frequently used to convey the concept of the fur."),
        (5, "How do people usually talk about the fur?"),
    ],
)
def test_the_papers_five_prompts(server, ask, number, begins):
    server.replies = [gives("soft")]
    ask("fur", llm_prompt=number, number=1)
    assert server.prompts[0].splitlines()[0] == begins


def test_one_round_without_anything_new_is_not_the_end(server, ask):
    server.replies = [gives("red"), gives("RED"), gives("red", "blue"), gives("blue")]
    assert ask().texts == ("red", "blue")
    assert len(server.requests) == 5


def test_an_exact_number_is_asked_for_until_reached_and_cut(server, ask):
    server.replies = [gives("red", "blue"), gives("red"), gives("teal", "navy", "pink")]
    assert ask(number=4).texts == ("red", "blue", "teal", "navy")
    assert [prompt.split("Give ")[1].split(".")[0] for prompt in server.prompts] == [
        "exactly 4",
        "exactly 2 more",
        "exactly 2 more",
    ]


def test_a_model_that_repeats_itself_for_ever(server, ask):
    server.replies = [gives("red", "blue")]
    basis = ask(number=5)  # what came is not thrown away
    assert basis.texts == ("red", "blue")
    assert (basis.provenance["number"], basis.provenance["rounds"]) == (5, 3)
    assert len(server.requests) == 3
    assert ask().texts == ("red", "blue")


def test_a_model_that_goes_on_for_ever_is_stopped(server, ask, monkeypatch):
    monkeypatch.setattr(llm, "MAX_ROUNDS", 4)
    server.replies = [lambda request: gives(f"shade {request['seed']}")]
    assert ask().texts == ("shade 0", "shade 1", "shade 2", "shade 3")
    assert ask(number=5).texts == ask().texts


def test_prose_ends_a_list_but_does_not_begin_one(server, ask):
    server.replies = [gives("red"), says("There are no other colors.")]
    assert ask().texts == ("red",)
    server.requests.clear()
    server.replies = [says("I would rather talk about shapes.")]
    with pytest.raises(UserError, match="no list of texts; it said: 'I would rather talk"):
        ask("hue")


def test_an_answer_that_was_cut_off_is_used_and_asked_on(server, ask):
    server.replies = [says('{"texts": ["red", "navy blue", "tea'), gives("teal")]
    assert ask(number=3).texts == ("red", "navy blue", "teal")


# ---- servers that misbehave ---------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 422])
def test_a_server_without_schemas(server, ask, status):
    def reply(request):
        if "response_format" in request:
            return fails(status, "response_format is not supported")
        return says("1. red\n2. blue")

    server.replies = [reply]
    basis = ask()
    assert basis.texts == ("red", "blue") and basis.provenance["schema"] is False
    # Only the first round tries the schema.
    assert ["response_format" in request for request in server.requests] == [True] + [False] * 3
    server.requests.clear()
    assert ask() == basis
    assert server.requests == []


@pytest.mark.parametrize("status", [429, 500, 503])
def test_passing_faults_are_retried(server, ask, status):
    server.replies = [fails(status), fails(status), gives("red")]
    assert ask(number=1).texts == ("red",)
    assert len(server.requests) == 3


ERRORS = [
    (fails(400, "temperature is out of range"), 2, "failed: .*temperature is out of range"),
    (fails(401, f"bad key {KEY}"), 1, "refused the key; check OPENAI_API_KEY"),
    (fails(403), 1, "refused the key; check OPENAI_API_KEY"),
    (fails(404, "try pulling it"), 1, "does not know the model 'gpt-4o'.*try pulling it"),
    (fails(429, "slow down"), 3, "over its rate limit or the account's quota; .*slow down"),
    (fails(500, f"dump: {KEY}"), 3, r"failed: .*dump: \(key\)"),
    ((200, "<html>welcome</html>"), 1, "does not answer like an OpenAI-compatible server"),
    ((200, '{"hello": "world"}'), 1, "does not answer like an OpenAI-compatible server"),
    ((200, '{"choices": []}'), 1, "does not answer like an OpenAI-compatible server"),
    ((200, '["choices"]'), 1, "does not answer like an OpenAI-compatible server"),
    ((200, '{"choices": [{"message": {"content": ["red"]}}]}'), 1, "does not answer like an Open"),
    ((200, '{"choices": ["red"]}'), 1, "does not answer like an OpenAI-compatible server"),
    ((200, "null"), 1, "does not answer like an OpenAI-compatible server"),
    (says(""), 1, "no list of texts; it said: ''"),
    (says(None), 1, "no list of texts; it said: ''"),
    (says(None, refusal="I cannot help."), 1, "no list of texts; it said: 'I cannot help.'"),
    (gives(), 1, "an empty list"),
    (gives("", " ", '""'), 1, "an empty list"),
    (says('{"texts": "red"}'), 1, "no list of texts; it said"),
    (says("[1, 2, 3]"), 1, r"not strings; it said: '\[1, 2, 3\]'"),
    (says('["red", null]'), 1, "not strings"),
    (says('[{"text": "red"}]'), 1, "not strings"),
    (gives("red", "a" * 101), 1, "over 100 characters"),
    (says("word " * 5000), 1, r"it said: 'word word .{0,160} \.\.\.$"),
    (says("字" * 5000), 1, r"it said: '字{159} \.\.\.$"),
    (fails(500, "x" * 117 + KEY), 3, r"failed: .*x\(key"),
]


@pytest.mark.parametrize(("reply", "requests", "message"), ERRORS)
def test_what_cannot_be_used_is_said_in_one_line(server, ask, tmp_path, reply, requests, message):
    server.replies = [reply]
    with pytest.raises(UserError, match=message) as caught:
        ask()
    assert len(server.requests) == requests
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    assert KEY not in str(caught.value)
    assert not (tmp_path / "cache").exists()  # a bad answer is not kept


def test_a_slow_server(server, ask):
    release = threading.Event()
    server.replies = [lambda request: release.wait(5) and gives("red")]
    with pytest.raises(UserError, match=r"no answer within 0.3 s \(2 attempts\).*--timeout"):
        ask(timeout=0.3, max_retries=1)
    release.set()
    assert len(server.requests) == 2


def test_a_server_that_is_not_there(server, ask):
    url = server.url
    server.server_close()
    with pytest.raises(UserError, match=f"cannot reach {url}; is the server running"):
        ask(base_url=url, max_retries=0)


def test_no_key_names_what_works_offline(ask, monkeypatch, server):
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(UserError, match=r"OPENAI_API_KEY.*--base-url.*configs/bases/\*\.yaml"):
        ask(base_url=llm.OPENAI)
    server.replies = [gives("red")]
    assert ask(number=1).texts == ("red",)  # a local server needs none
    assert server.keys == ["Bearer none"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"criterion": " "}, "criterion is empty"),
        ({"vlm_prompt": "objects"}, "exactly once"),
        ({"vlm_prompt": "{text} and {text}"}, "exactly once"),
        ({"llm_prompt": 0}, "LLM prompts 1 to 5, not 0"),
        ({"llm_prompt": 6}, "LLM prompts 1 to 5, not 6"),
        ({"number": 0}, "at least 1, not 0"),
        ({"base_url": "localhost:1234"}, "must look like http"),
        ({"base_url": "http://localhost:port/v1"}, "must look like http"),
    ],
)
def test_impossible_arguments_cost_no_request(server, ask, settings, message):
    with pytest.raises(UserError, match=message):
        ask(**settings)
    assert server.requests == []


# ---- the cache, and the key ---------------------------------------------------------------------


def test_the_same_call_again_asks_nobody(server, ask, monkeypatch):
    server.replies = [gives("red"), gives("blue"), gives()]
    basis = ask()
    assert len(server.requests) == 4
    monkeypatch.delenv("OPENAI_API_KEY")
    assert ask(vlm_prompt="a photo of a {text} thing").texts == basis.texts
    assert ask() == basis
    assert len(server.requests) == 4


def test_an_interrupted_generation_goes_on_where_it_stopped(server, ask):
    server.replies = [gives("red"), gives("blue"), fails(401)]
    with pytest.raises(UserError, match="refused the key"):
        ask(number=3)
    server.requests.clear()
    server.replies = [gives("teal")]
    assert ask(number=3).texts == ("red", "blue", "teal")
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"criterion": "hue"},
        {"model": "other"},
        {"llm_prompt": 2},
        {"temperature": 0.0},
        {"seed": 1},
        {"number": 1},
        {"examples": ["navy", "teal"]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_all_that_shapes_an_answer_is_in_the_key(server, ask, change):
    server.replies = [gives("red", "blue")]
    ask(number=2)
    assert len(server.requests) == 1
    ask(**{"number": 2, **change})
    assert len(server.requests) == 2
    ask(number=2)
    ask(**{"number": 2, **change})
    assert len(server.requests) == 2


def test_the_server_and_the_schema_are_in_the_key(server, ask, tmp_path):
    server.replies = [gives("red")]
    ask(number=1)
    ask(number=1, base_url=server.url.replace("127.0.0.1", "localhost"))
    assert len(server.requests) == 2
    server.replies = [fails(400), says("1. blue")]
    server.requests.clear()
    ask("hue", number=1)
    kept = [json.loads(path.read_text()) for path in (tmp_path / "cache").iterdir()]
    assert sorted(record["request"]["schema"] for record in kept) == [False, True, True]
    [plain] = [record["request"] for record in kept if not record["request"]["schema"]]
    assert llm._path(Path(), plain) != llm._path(Path(), {**plain, "schema": True})


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"request": 1, "answer": "[]"}', "\ufffd"])
def test_a_damaged_or_foreign_cache_file_is_not_read_as_good(server, ask, tmp_path, damage):
    server.replies = [gives("red")]
    ask(number=1)
    [file] = (tmp_path / "cache").iterdir()
    good = file.read_text()
    file.write_text(damage)
    assert ask(number=1).texts == ("red",)
    assert len(server.requests) == 2
    assert json.loads(file.read_text())["answer"] == json.loads(good)["answer"]  # and is mended


def test_neither_key_nor_password_is_written_anywhere(server, ask, tmp_path):
    server.replies = [gives("red")]
    url = server.url.replace("http://", "http://ann:hunter2@") + "?token=hush"
    basis = ask(number=1, base_url=url)
    assert basis.provenance["base_url"] == server.url
    basis.save(tmp_path / "basis.yaml")
    ask(number=1, criterion="hue")
    assert server.keys[-1] == f"Bearer {KEY}"  # it was there to be leaked
    written = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) == 3
    for secret in (KEY, "hunter2", "hush"):
        assert not any(secret in text for text in written)
    assert TextBasis.load(tmp_path / "basis.yaml") == basis


def test_other_questions_have_their_own_schema_and_reader(server, tmp_path):
    schema = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "integer"}}}
    settings = {"model": "m", "temperature": 0.0, "seed": 3, "cache_dir": tmp_path}

    def read(answer):
        if not answer.isdigit():
            raise UserError("no number")
        return int(answer)

    server.replies = [says("many"), says("7"), says("8")]
    asked = llm.Server(server.url)
    with pytest.raises(UserError, match="no number"):
        asked.answer("How many?", read, schema=schema, **settings)
    assert list(tmp_path.iterdir()) == []  # what cannot be read is not kept
    for _ in range(2):  # the second time from the cache
        number, record = asked.answer("How many?", read, schema=schema, **settings)
        assert number == 7 and record["answer"] == "7"
    assert [request["response_format"] for request in server.requests] == [schema] * 2
    assert server.requests[1]["seed"] == 3 and server.prompts[1] == "How many?"
    # Another schema is another question.
    assert asked.answer("How many?", read, **settings)[0] == 8
    assert server.requests[2]["response_format"] == llm.SCHEMA


def test_what_earlier_versions_kept_is_still_found(server, ask, tmp_path):
    request = {
        "base_url": server.url,
        "model": "gpt-4o",
        "prompt": llm.build_prompt("color", 1, 1, (), []),
        "temperature": 1.0,
        "seed": 0,
        "schema": True,
    }
    record = {"request": request, "answer": '["red"]', "date": "2026-01-01", "client": "openai"}
    key = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:32]
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / f"{key}.json").write_text(json.dumps(record))
    assert ask(number=1).texts == ("red",)
    assert server.requests == []


# ---- reading answers ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "texts"),
    [
        ('["red", "blue"]', ["red", "blue"]),
        ('{"texts": ["red", "blue"]}', ["red", "blue"]),
        ('```json\n["red",\n "blue"]\n```', ["red", "blue"]),
        ('Sure, [as asked]:\n["red", "blue"]\nAnything else?', ["red", "blue"]),
        ("['red', \"sea's blue\",]", ["red", "sea's blue"]),
        ("('red',) or ['it', 'is']", ["it", "is"]),
        ('{"reds": ["ruby"], "blues": ["navy"]}', ["ruby", "navy"]),
        ("{'reds': ['ruby'], 'blues': ['navy']}", ["ruby", "navy"]),
        ("1. red\n2) sky blue\n3: teal", ["red", "sky blue", "teal"]),
        ("Colors:\n- red\n  * **blue**\n• teal\n\nEnjoy!", ["red", "blue", "teal"]),
        ("- round [like a ball]\n- flat", ["round [like a ball]", "flat"]),
        ('["red.", " “sky  blue”,", "\'teal\';", "red"]', ["red", "sky blue", "teal"]),
        ('["Red", "RED", "red"]', ["Red"]),
        ('<think>["no",\n"not this"]</think>["red"]', ["red"]),
        ('["red", "blue", "te', ["red", "blue"]),
        ('["red", "blue"', ["red", "blue"]),
        ("['red', 'blue', 'te", ["red", "blue"]),
        ('["red", "x[1]', ["red"]),
        ('["caf\\u00e9", "a\\/b", "\\ud800c', ["café", "a/b"]),
        ('["half \\ud800 a pair"]', ["half  a pair"]),
    ],
)
def test_forms_of_lists(answer, texts):
    assert parse_texts(answer) == texts


# Any characters that a basis can hold; `_clean` keeps such a text as it is.
a_text = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).filter(
    lambda text: llm._clean(text) == text
)
some_texts = st.lists(a_text, min_size=1, max_size=8, unique_by=fold)


@given(some_texts, st.booleans())
def test_json_lists_are_read_back(texts, ascii_only):
    listed = json.dumps(texts, ensure_ascii=ascii_only)
    for answer in (listed, f"```json\n{listed}\n```", f'Yes! {{"texts": {listed}}} Bye.'):
        assert parse_texts(answer) == texts


@given(some_texts)
def test_python_lists_are_read_back(texts):
    assert parse_texts(f"texts = {texts!r}") == texts
    assert parse_texts(f"texts = {texts!r}"[:-1] + ",]") == texts


@given(some_texts)
def test_marked_lines_are_read_back(texts):
    texts = [text.replace("[", "(") for text in texts]
    texts = list({fold(text): text for text in reversed(texts)}.values())
    numbered = "\n".join(f"{i}. {text}" for i, text in enumerate(texts, start=1))
    for answer in (numbered, "\n".join(f"- {text}" for text in texts)):
        assert parse_texts(answer) == texts


@given(some_texts, st.data())
def test_of_a_list_that_was_cut_off_the_complete_texts_are_read(texts, data):
    texts = list({fold(text.replace("[", "(")): text.replace("[", "(") for text in texts}.values())
    listed = json.dumps(texts)
    cut = data.draw(st.integers(0, len(listed)))
    complete = [text for i, text in enumerate(texts) if len(json.dumps(texts[: i + 1])) - 1 <= cut]
    if complete:
        assert parse_texts(listed[:cut]) == complete
    else:
        with pytest.raises(UserError):
            parse_texts(listed[:cut])


# ---- the command --------------------------------------------------------------------------------


@pytest.fixture
def needed(server, tmp_path, tmp_path_factory, monkeypatch):
    """The options that every call needs; it is made from `tmp_path`."""
    monkeypatch.chdir(tmp_path)
    options = ["--criterion", "color", "--vlm-prompt", VLM_PROMPT, "--base-url", server.url]
    return [*options, "--cache-dir", tmp_path_factory.mktemp("answers")]


def test_it_writes_a_basis_and_says_so(server, run, needed, tmp_path):
    server.replies = [gives("crimson", "navy"), gives()]
    options = ["--llm-prompt", "2", "--temperature", "0.5", "--seed", "3", "--model", "llama"]
    options += ["--out", "my/color.yaml", "--examples", " red, blue ,"]
    code, printed, errors = run(generate_texts.main, *needed[:-2], *options)  # the default cache
    assert (code, errors) == (0, "")
    assert "my/color.yaml: 2 texts for 'color' by llama in 3 rounds" in printed
    assert "first: crimson, navy" in printed and "'objects with the color of crimson'" in printed
    basis = TextBasis.load(tmp_path / "my" / "color.yaml")
    assert basis.texts == ("crimson", "navy") and basis.vlm_prompt == VLM_PROMPT
    assert server.requests[0]["temperature"] == 0.5 and server.requests[0]["seed"] == 3
    assert server.prompts[0].startswith("List a wide variety")
    assert '["red", "blue"]' in server.prompts[0]
    assert any(server.url in file.read_text() for file in LLM_ANSWERS.iterdir())


def test_fewer_texts_than_wanted_are_saved_and_the_rest_is_said_to_be_missing(
    server, run, needed, tmp_path
):
    server.replies = [gives(*(f"shade {n}" for n in range(10)))]
    code, printed, errors = run(
        generate_texts.main, *needed, "--out", "color.yaml", "--number", 12, "--model", "llama"
    )
    assert code == 3 and "color.yaml: 10 texts for 'color'" in printed
    assert errors == (
        "warning: 2 of 12 texts are missing: llama gave only 10 distinct ones in 3 rounds; "
        "these are saved\n"
    )
    assert len(TextBasis.load(tmp_path / "color.yaml").texts) == 10


def test_it_does_not_overwrite_unless_told(server, run, refusal, needed, tmp_path):
    server.replies = [gives("red")]
    (tmp_path / "color.yaml").write_text("mine")
    options = [*needed, "--out", "color.yaml", "--number", "1"]
    assert "--overwrite" in refusal(generate_texts.main, *options)
    assert (tmp_path / "color.yaml").read_text() == "mine" and server.requests == []
    code, *_ = run(generate_texts.main, *options, "--overwrite")
    assert code == 0 and TextBasis.load(tmp_path / "color.yaml").texts == ("red",)


@pytest.mark.parametrize(
    ("reply", "options", "says"),
    [
        (fails(401, f"wrong key: {KEY}"), [], "refused the key"),
        (fails(500, f"crash with {KEY}"), [], "crash with (key)"),
        (gives(), [], "empty list"),
        (gives(), ["--number", "2"], "empty list"),
        (gives("red"), ["--out", "color.txt"], "must end in .yaml"),
        (gives("red"), ["--vlm-prompt", "a thing"], "exactly once"),
        (gives("red"), ["--out", "taken/color.yaml"], "cannot write"),
        (gives("red"), ["--cache-dir", "taken"], "cannot write"),
    ],
)
def test_an_error_is_one_line_and_nothing_is_written(
    server, refusal, needed, tmp_path, reply, options, says
):
    server.replies = [reply]
    (tmp_path / "taken").write_text("a file")
    line = refusal(generate_texts.main, *needed, "--out", "color.yaml", *options)
    assert says in line and KEY not in line
    assert [path.name for path in tmp_path.rglob("*")] == ["taken"]


def test_wrong_options_are_refused(server, run, needed):
    code, _, errors = run(generate_texts.main, *needed, "--out", "color.yaml", "--llm-prompt", "6")
    assert code == 2 and "invalid choice: 6" in errors and server.requests == []


def test_as_a_program(tmp_path, monkeypatch):
    """Help lists the prompts; without a key one line names the offline choices."""
    monkeypatch.chdir(tmp_path)
    script = generate_texts.__file__
    helped = run_python(script, "--help")
    assert helped.returncode == 0 and "5  How do people usually talk about" in helped.stdout
    options = ["--criterion", "color", "--vlm-prompt", VLM_PROMPT, "--out", "color.yaml"]
    failed = run_python(script, *options, OPENAI_API_KEY="", OPENAI_BASE_URL="")
    assert failed.returncode == 2 and failed.stdout == ""
    assert failed.stderr.count("\n") == 1 and "configs/bases/*.yaml" in failed.stderr
    assert list(tmp_path.iterdir()) == []
