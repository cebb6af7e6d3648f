"""What parsers read off an LLM's answer and off spaCy's dependency trees."""

import json
import sys

import pytest
from mining_files import read_jsonl, write_jsonl

from crl.run.errors import UserError
from similarity_retrieval.mining.scene_graphs import read_answer, spacy_relations

ENTRY = '{"number": 1, "relations": [{"subject": "a", "relation": "b", "object": "c"}]}'


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "none",
        "{",
        "[]",
        '{"captions": []}',
        '{"captions": [[]]}',
        f'{{"captions": [{ENTRY}, {ENTRY}]}}',
        f'{{"captions": [{ENTRY.replace("1", "2")}]}}',
        f'{{"captions": [{ENTRY.replace(chr(34) + "c" + chr(34), "null")}]}}',
        f'{{"captions": [{ENTRY.replace("c", " ", 1)}]}}',
        '{"captions": [{"number": 1, "relations": [{"subject": "a", "relation": "b"}]}]}',
        f'{{"captions": [{ENTRY.replace("b", "b" * 61, 2)}]}}',
        f'{{"captions": [{ENTRY}',
        "[" * 100_000,
    ],
)
def test_bad_answers(answer):
    with pytest.raises(UserError, match="the LLM"):
        read_answer(answer, 1)


def test_good_answers():
    for answer in (
        f'{{"captions": [{ENTRY}]}}',
        f'<think>{{"no": 1}}</think>Sure:\n```json\n{{"captions": [{ENTRY}]}}\n```\nBye.',
    ):
        [[found]] = read_answer(answer, 1)
        assert (found.subject, found.relation, found.object) == ("a", "b", "c")


def test_words_cannot_control_the_terminal():
    [[found]] = read_answer(
        f'{{"captions": [{ENTRY}]}}'.replace('"b"', r'"\u001b[1m b\u202e\r\n"'), 1
    )
    assert found.relation == "[1m b"
    with pytest.raises(UserError, match="the LLM"):
        read_answer(f'{{"captions": [{ENTRY}]}}'.replace('"b"', r'"\u001b"'), 1)


# word/lemma? /part of speech/dependency/head's position
SENTENCES = [
    (
        "a/DET/det/1 dog/NOUN/ROOT/1 sitting/VERB/acl/1 on/ADP/prep/2 a/DET/det/6 "
        "wooden/ADJ/amod/6 bench/NOUN/pobj/3 next/ADV/advmod/2 to/ADP/prep/7 a/DET/det/10 "
        "tree/NOUN/pobj/8",
        ["dog | sitting on | bench", "dog | sitting next to | tree"],
    ),
    (  # next belongs to the bench
        "Dogs:dog/NOUN/nsubj/1 Sit/VERB/ROOT/1 on/ADP/prep/1 benches:bench/NOUN/pobj/2 "
        "next/ADV/advmod/3 to/ADP/prep/4 trees:tree/NOUN/pobj/5",
        ["dog | sit on | bench", "bench | next to | tree"],
    ),
    (
        "a/DET/det/1 man/NOUN/nsubj/5 and/CCONJ/cc/1 woman/NOUN/conj/1 are:be/AUX/aux/5 "
        "riding/VERB/ROOT/5 a/DET/det/7 horse/NOUN/dobj/5 on/ADP/prep/5 the/DET/det/10 "
        "beach/NOUN/pobj/8",
        [
            "man | riding | horse",
            "woman | riding | horse",
            "man | on | beach",
            "woman | on | beach",
        ],
    ),
    (
        "A/DET/det/1 cat/NOUN/nsubj/2 is:be/AUX/ROOT/2 in/ADP/prep/2 front/NOUN/pobj/3 "
        "of/ADP/prep/4 a/DET/det/7 house/NOUN/pobj/5",
        ["cat | in front of | house"],
    ),
    (
        "a/DET/det/1 ball/NOUN/ROOT/1 held/VERB/acl/1 by/ADP/agent/2 a/DET/det/5 "
        "boy/NOUN/pobj/3 with/ADP/prep/5 a/DET/det/8 hat/NOUN/pobj/6 and/CCONJ/cc/8 "
        "bag/NOUN/conj/8",
        ["ball | held by | boy", "boy | with | hat", "boy | with | bag"],
    ),
    (
        "a/DET/det/1 girl/NOUN/ROOT/1 who/PRON/nsubj/3 puts/VERB/relcl/1 on/ADP/prt/3 "
        "a/DET/det/6 coat/NOUN/dobj/3 and/CCONJ/cc/3 opens/VERB/conj/3 it/PRON/dobj/8 "
        "near/ADP/prep/8 doors:door/NOUN/pobj/10",
        ["girl | puts on | coat", "girl | near | door"],
    ),
    ("on/ADP/ROOT/0 the/DET/det/2 road/NOUN/pobj/0", []),
    ("it/PRON/nsubj/1 eats/VERB/ROOT/1 grass/NOUN/dobj/1", []),
    ("red/ADJ/amod/1 sky/NOUN/ROOT/1", []),
]


def fields(sentence):
    """words, lemmas, parts of speech, dependencies, heads"""
    rows = [cell.split("/") for cell in sentence.split(" ")]
    words = [row[0].partition(":")[0] for row in rows]
    lemmas = [row[0].partition(":")[2] or row[0].lower() for row in rows]
    return words, lemmas, *([row[i] for row in rows] for i in (1, 2)), [int(r[3]) for r in rows]


class Token:
    """The part of spaCy's Token that is used."""

    def __init__(self, i, text, lemma, pos, dep):
        self.i, self.text, self.lemma_, self.pos_, self.dep_ = i, text, lemma, pos, dep
        self.children = []


class FakeDoc(list):
    """A stand-in for spaCy's Doc: a list of tokens, with noun_chunks of single nouns."""

    @property
    def noun_chunks(self):
        for token in self:
            if token.pos_ in {"NOUN", "PROPN", "PRON"}:
                yield type("Span", (), {"root": token})


def fake_doc(sentence):
    words, lemmas, parts, dependencies, heads = fields(sentence)
    rows = zip(words, lemmas, parts, dependencies, strict=True)
    doc = FakeDoc(Token(i, *row) for i, row in enumerate(rows))
    for token, head in zip(doc, heads, strict=True):
        token.head = doc[head]
        if head != token.i:
            doc[head].children.append(token)
    return doc


def spacy_doc(sentence):
    spacy = pytest.importorskip("spacy")
    words, lemmas, parts, dependencies, heads = fields(sentence)
    vocabulary = spacy.blank("en").vocab
    return spacy.tokens.Doc(
        vocabulary, words=words, lemmas=lemmas, pos=parts, deps=dependencies, heads=heads
    )


@pytest.mark.parametrize("make", [fake_doc, spacy_doc])
@pytest.mark.parametrize(("sentence", "wanted"), SENTENCES)
def test_relations_are_read_off_the_tree(make, sentence, wanted):
    found = spacy_relations(make(sentence))
    assert [f"{r.subject} | {r.relation} | {r.object}" for r in found] == wanted


def test_the_spacy_parser_as_a_whole(mine_refused, tmp_path, monkeypatch):
    """Captions go through `spacy.load(...).pipe` and come back in their order."""
    by_text = {"a dog sits": SENTENCES[1][0], "a cat sits": SENTENCES[3][0], "sky": SENTENCES[8][0]}

    class Pipeline:
        def pipe(self, captions):
            return (fake_doc(by_text[caption]) for caption in captions)

    loaded = []
    module = type("spacy", (), {"load": lambda name, **more: loaded.append(name) or Pipeline()})
    monkeypatch.setitem(sys.modules, "spacy", module)
    texts = ["a dog sits", "sky", "", "a cat sits"] * 100
    lines = [{"image": f"{i}.jpg", "caption": text} for i, text in enumerate(texts)]
    file = write_jsonl(tmp_path / "c.jsonl", lines)
    told = mine_refused(captions=file, samples=5)
    assert "no subject" in told and loaded == ["en_core_web_sm"]
    graphs = read_jsonl(tmp_path / "out/triplets" / "run" / "graphs.jsonl")
    assert [g["image"] for g in graphs] == [line["image"] for line in lines]
    assert [len(g["relations"]) for g in graphs] == [2, 0, 0, 1] * 100
    progress = json.loads((tmp_path / "out/triplets" / "run" / "graphs.progress.json").read_text())
    assert progress["counts"] == {"captions": 400, "unparsed": 100}
    module.load = None  # a finished file is not parsed again
    assert "no subject" in mine_refused(captions=file, samples=5)
