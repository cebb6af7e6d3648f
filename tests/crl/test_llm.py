"""The LLM step and its command, over real HTTP, against a small local server that misbehaves."""

import json
import re
import time

import pytest
from commands import REPOSITORY
from hypothesis import given
from hypothesis import strategies as st
from llm_server import fails, gives, says

from crl.basis import BASES, TextBasis, fold
from crl.commands import texts as texts_command
from crl.llm import generate_basis, parse_texts
from crl.run import answers
from crl.run.chat import SCHEMA
from crl.run.errors import UserError
from crl.run.files import CACHE

KEY = "sk-very-secret-0123456789"
VLM_PROMPT = "objects with the color of {text}"


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
    assert first["response_format"] == SCHEMA
    assert first["messages"][0]["role"] == "user" and len(first["messages"]) == 1
    assert server.prompts[0] == (
        'Generate common expressions to describe the color.\nFor example: ["navy", "crimson"].\n'
        "Give as many as possible. All items must be unique.\n"
        "Each item is a word or a short phrase. "
        'Answer with only JSON of this form: {"texts": ["...", "..."]}'
    )
    assert server.prompts[1].endswith('["navy", "crimson"]')
    assert server.prompts[2].endswith('["navy", "crimson", "teal"]')
    assert server.prompts[3] == server.prompts[2]
    provenance = basis.provenance
    assert provenance.pop("date").startswith("20")
    assert provenance.pop("client").startswith("openai ")
    assert provenance == {
        "llm": "some-model",
        "base_url": server.url,
        "llm_prompt": 1,
        "prompt": server.prompts[0],
        "temperature": 0.5,
        "seed": 7,
        "number": "as many as possible",
        "rounds": 4,
        "refused": [],
    }


@pytest.mark.parametrize(
    ("replies", "number", "texts", "requests"),
    [
        # One round without anything new is not the end, two are.
        ([gives("red"), gives("RED"), gives("red", "blue"), gives("blue")], None, "red blue", 5),
        ([gives("red", "blue")], 5, "red blue", 3),
        # More than wanted is cut off.
        ([gives("red"), gives("red"), gives("teal", "navy")], 2, "red teal", 3),
        # "There are no others" ends the rounds.
        ([gives("red"), says("There are no other colors.")], None, "red", 3),
        # An answer that was cut off is used.
        ([says('{"texts": ["red", "navy", "tea'), gives("teal")], 3, "red navy teal", 2),
    ],
)
def test_when_the_rounds_end(server, ask, replies, number, texts, requests):
    server.replies = replies
    assert ask(number=number).texts == tuple(texts.split())
    assert len(server.requests) == requests
    if number:
        assert f"Give exactly {number}." in server.prompts[0]
        assert re.search("Give exactly [13] more. All items must be unique", server.prompts[1])
    assert ask(number=number).texts == tuple(texts.split())
    assert len(server.requests) == requests  # the same call again asks nobody


def test_an_interrupted_generation_goes_on_where_it_stopped(server, ask):
    server.replies = [gives("red"), gives("blue"), fails(401)]
    with pytest.warns(UserWarning, match="the 2 texts so far are kept: .*refused the key"):
        assert ask(number=3).texts == ("red", "blue")
    server.requests.clear()
    server.replies = [gives("teal")]
    assert ask(number=3).texts == ("red", "blue", "teal")
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "change", [{"criterion": "hue"}, {"llm_prompt": 2}, {"number": 1}, {"examples": ["a", "b"]}]
)
def test_all_that_shapes_an_answer_is_another_question(server, ask, change):
    server.replies = [gives("red", "blue")]
    ask(number=2), ask(number=2)
    assert len(server.requests) == 1
    for _ in range(2):
        ask(**{"number": 2, **change})
        assert len(server.requests) == 2
    ask(number=2, vlm_prompt="a photo of a {text} thing")  # only the VLM reads it
    assert len(server.requests) == 2


# ---- reading answers ----------------------------------------------------------------------------

A, B = ["red", "blue"], ["red", "sky blue"]


PASSED_OVER = "ignore:passed over in the LLM's answer"


@pytest.mark.filterwarnings(PASSED_OVER)
@pytest.mark.parametrize(
    ("answer", "texts"),
    [
        # JSON, alone or in prose
        ('["red", "blue"]', A),
        ('{"texts": ["red", "blue"]}', A),
        ('```json\n["red",\n "blue"]\n```', A),
        ('Sure, [as asked]:\n["red", "blue"]\nAnything else?', A),
        ('["caf\\u00e9", "a\\/b", "\\ud83d\\ude00"]', ["café", "a/b", "😀"]),
        # thoughts
        ('<think>["no",\n"not this"]</think>["red"]', ["red"]),
        ('<think>\nThe user wants ["no"', []),
        ('maybe ["bad"] ok\n</think>\n["red"]', ["red"]),
        ('<Thinking>["bad"]</thinking>\n["red"]', ["red"]),
        ('[THINK]["bad"][/THINK]["red"]', ["red"]),
        ('<|channel|>analysis<|message|>["bad"]<|end|><|channel|>final<|message|>["red"]', ["red"]),
        ('<reasoning>perhaps ["bad"]', []),
        ('["red", "blue<|im_end|>"]<|im_end|></s>', A),
        # objects, one text each
        ('[{"color": "red", "name": "John"}, {"color": "blue", "name": "Jane"}]', A),
        ('[{"id": 1, "Text": "red"}, {"id": 2, "Text": "blue"}]', A),
        ('[{"gloss": "warm", "term": "red"}, {"gloss": "cool", "term": "blue"}]', A),
        ('{"colors": [{"name": "red"}, {"name": "blue"}]}', A),
        ('{"red": "a warm hue", "blue": "a cool hue"}', A),
        ('{"1": "red", "2": "blue"}', A),
        ('{"warm": ["red"], "cool": {"dark": ["blue"]}}', A),
        ('{"texts": "red, blue"}', A),
        ('"red, blue, teal"', [*A, "teal"]),
        ('"[\\"red\\", \\"blue\\"]"', A),
        ("[1, 2.5, true, 3]", ["1", "3"]),
        # other lists are no answer
        ('["item1", "Text 2", "...", "string", "All items must be unique."]', []),
        ('For example: ["item1"].\nHere:\n["red", "blue"]', A),
        ('colors = ["red", "blue"]\nprint(colors["x"])', A),
        ("1. red\n2. blue\n\nThe answer is: [100, 'all']", A),
        # texts are cleaned, and distinct
        ('["1. red", "2) blue", "- red"]', A),
        ('["**red**: a warm hue", "**blue** (cool)"]', A),
        ('["red.", " “sky  blue”,", "\'red\';", "RED"]', B),
        ('["\\u001b[31mred", "a\\u202eb", "c\\u2028d"]', ["[31mred", "ab", "c d"]),
        # one bad item is one item lost
        ('["red", null, "", {"a": 2}, [], "blue"]', A),
        (json.dumps(["red", "a" * 101, "blue"]), A),
        # Python, and JSON that is damaged
        ("['red', \"sea's blue\",]", ["red", "sea's blue"]),
        ("['it\\'s', 'a \\\\ b', 'say \"x\" now']", ["it's", "a \\ b", 'say "x" now']),
        ('["the "red" one", "blue"]', ['the "red" one', "blue"]),
        ('["red" "blue"]', A),
        ('["red", // warm\n "blue"]', A),
        # cut off: whole items stay
        ('{"texts": ["red", "blue", "te', A),
        ('["red", "blue"', A),
        ('["red", "x[1]', ["red"]),
        # lines
        ("1. red\n2) sky blue\n3: teal", [*B, "teal"]),
        ("Colors:\n- red\n  * **blue**\n• teal\n+ pink\n\nEnjoy!", [*A, "teal", "pink"]),
        ("- round [like a ball]\n- flat", ["round [like a ball]", "flat"]),
        ("1. **red**: a warm hue.\n2. **blue** – cool", A),
        ("1. red: a warm hue\n2. blue - cool\n3. red (dark)", A),
        ("- Color: red\n- Color: blue", A),
        ("Sure!\n\nred\nblue\n\nI hope this helps!", A),
        ('"red"\n"blue"', A),
        ("The colors are: red, blue, and teal.", [*A, "teal"]),
        ("| color | hue |\n|---|:--:|\n| red | warm |\n| blue | cool |", A),
        ("| # | color |\n|--|--|\n| 1 | red |\n| 2 | blue |", A),
        ("[red](http://x) and [blue](http://y)", A),
        # no texts
        ("Sorry.", []),
        ("I'm sorry, but I can't help with that.", []),
        ("I would rather talk about shapes.", []),
        ("[" * 100_000, []),
        ('["' + "a" * 101 + '"]', []),
    ],
)
def test_forms_of_answers(answer, texts):
    assert parse_texts(answer, may_be_empty=True) == texts
    if not texts:
        with pytest.raises(UserError, match="no list of texts; it said: ") as caught:
            parse_texts(answer)
        assert str(caught.value).isprintable() and len(str(caught.value)) < 300


CASES = REPOSITORY.parent / "shared" / "cases"
FORMS = CASES / "llm-answers" / "forms.json"
NO_LISTS = {"think unclosed", "placeholder", "instruction echo (seen)", "refusal", "empty"}


@pytest.mark.skipif(not FORMS.exists(), reason="answers of real models are beside the project")
def test_answers_of_real_models():
    for form, answer in json.loads(FORMS.read_text()).items():
        texts = parse_texts(answer, may_be_empty=True)
        assert (texts == []) == (form in NO_LISTS), form
        assert not any(re.search(r"\*\*|[|\[<]|: |^\d\. |bad|item", text) for text in texts), form


@pytest.mark.skipif(not CASES.is_dir(), reason="the cases are beside the project")
def test_whole_answers_and_texts_of_others():
    answer = (CASES / "01-thoughts-without-opening-tag" / "answer.txt").read_text()
    assert len(parse_texts(answer)) == 4
    answer = (CASES / "11-markdown-in-texts" / "answer.txt").read_text()
    assert parse_texts(answer) == ["Red", "Blue", "Green"]
    for name in ("mood.txt", "mood.yaml", "mood_bom_crlf.yaml", "mood_utf16.yaml"):
        assert TextBasis.load(CASES / "texts" / name).texts[:2] == ("calm", "gloomy"), name
    with pytest.raises(UserError, match="criterion and vlm_prompt: is missing"):
        TextBasis.load(CASES / "texts" / "mood_texts_only.yaml")


def test_what_is_passed_over_is_said():
    with pytest.warns(UserWarning, match="passed over .*: 2, the first 'aaaa"):
        assert parse_texts(json.dumps(["red", "a" * 101, "item 2"])) == ["red"]


def texts_of_any(answer):
    """The texts of any answer, which must be clean and come soon."""
    began = time.process_time()
    texts = parse_texts(answer, may_be_empty=True)
    assert time.process_time() - began < 6
    assert all(0 < len(text) <= 100 and text.isprintable() for text in texts)
    assert len({fold(text) for text in texts}) == len(texts) <= 5000
    return texts


UNITS = ["[", '["a", ', '[""', '["\\', '{"a":', "1. a\n", "\t", "<think>", '["a"b', "1. **", "[{"]


@pytest.mark.filterwarnings(PASSED_OVER)
@pytest.mark.parametrize("unit", UNITS)
def test_the_largest_answers_are_read_soon(unit):
    texts_of_any((unit * 1_000_000)[:1_000_000])
    texts_of_any(('["' + unit * 1_000_000)[:1_000_000])


@pytest.mark.filterwarnings(PASSED_OVER)
@given(st.text(max_size=2000) | st.text("[]{}\"'\\,:-1. \nau\x1b\u202e\u2028\ud800", max_size=2000))
def test_any_answer_gives_clean_texts(answer):
    texts_of_any(answer)


# Any characters that a basis can hold; cleaning keeps such a text as it is.
some_texts = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="<"), min_size=1, max_size=20).filter(
        lambda text: answers._clean(text) == text and not answers._PLACEHOLDER.fullmatch(fold(text))
    ),
    min_size=1,
    max_size=8,
    unique_by=fold,
)


@given(some_texts, st.booleans())
def test_json_lists_are_read_back(texts, ascii_only):
    listed = json.dumps(texts, ensure_ascii=ascii_only)
    for answer in (listed, f"```json\n{listed}\n```", f'Yes! {{"texts": {listed}}} Bye.'):
        assert parse_texts(answer) == texts


@pytest.mark.parametrize("dump", [json.dumps, repr, lambda texts: json.dumps(texts, indent=1)])
@pytest.mark.parametrize("name", ["clevr4_color", "deepfashion_part", "genecis_scene"])
def test_of_a_list_that_was_cut_off_the_whole_texts_are_read(name, dump):
    texts = list(TextBasis.load(BASES / f"{name}.yaml").texts[:40])
    ends = [len(dump(texts[: i + 1]).rstrip("]\n")) for i in range(len(texts))]
    for cut in range(1, len(dump(texts)), 7):
        whole = [text for text, end in zip(texts, ends, strict=True) if end <= cut]
        assert parse_texts(dump(texts)[:cut], may_be_empty=True) == whole


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
    options += ["--out", "my/color.yaml", "--examples", "red", "blue"]
    code, printed, errors = run(texts_command.main, *needed[:-2], *options)  # the default cache
    assert (code, errors) == (0, "")
    assert "my/color.yaml: 2 texts for 'color' by llama in 3 rounds" in printed
    assert "first: crimson, navy" in printed and "'objects with the color of crimson'" in printed
    basis = TextBasis.load(tmp_path / "my" / "color.yaml")
    assert basis.texts == ("crimson", "navy") and basis.vlm_prompt == VLM_PROMPT
    request = server.requests[0]
    assert (request["model"], request["temperature"], request["seed"]) == ("llama", 0.5, 3)
    assert server.prompts[0].startswith("List a wide") and '["red", "blue"]' in server.prompts[0]
    assert any(server.url in file.read_text() for file in (CACHE / "llm").iterdir())
