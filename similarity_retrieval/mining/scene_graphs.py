"""Parses a caption into relations (subject, relation, object), with spaCy or an LLM."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, StringConstraints, ValidationError

from crl.llm import OPENAI, Server, printable
from crl.run.errors import UserError
from similarity_retrieval.mining.captions import Name

SPACY_MODEL = "en_core_web_sm"
CHOICES = (
    "choose parser=spacy (pip install -e '.[mining]', then python -m spacy download "
    f"{SPACY_MODEL}), parser=llm (a key in OPENAI_API_KEY, or base_url= of a local server), or "
    "graphs=FILE.jsonl (captions parsed elsewhere)"
)


Word = Annotated[
    str, StringConstraints(strip_whitespace=True, to_lower=True, min_length=1, max_length=60)
]


class Relation(BaseModel):
    """One statement of a caption, lower-cased: (dog, sitting on, bench)."""

    subject: Word
    relation: Word
    object: Word


class Graph(BaseModel):
    """One line of graphs.jsonl: an image, and the relations of one caption of it."""

    image: Name
    caption: str = ""
    relations: list[Relation]


# One list of relations for each caption; None for one that could not be parsed.
Parser = Callable[[list[str]], list[list[Relation] | None]]


# --- spaCy ----------------------------------------------------------------------------------------


def spacy_parser() -> Parser:
    """The parser that takes relations from spaCy's dependency trees (its small English model).

    Raises:
        UserError: spaCy or the model is not installed.
    """
    try:
        import spacy  # here: heavy and optional

        nlp = spacy.load(SPACY_MODEL, exclude=["ner"])
    except (ImportError, OSError) as error:
        raise UserError(f"spaCy or its model {SPACY_MODEL} is missing; {CHOICES}") from error
    return lambda captions: [spacy_relations(doc) for doc in nlp.pipe(captions)]


def spacy_relations(doc: Any) -> list[Relation]:
    """The relations between the nouns of a spaCy `Doc`, in the order of their objects.

    From the head noun of each noun phrase we climb the tree to the noun that it depends on. The
    words on the way are the relation, as in the caption. Nouns are lemmas, without adjectives.

        a dog sitting on a wooden bench   ->  dog, sitting on, bench
        a man riding a horse on a beach   ->  man, riding, horse; man, on, beach
        a cat in front of a house         ->  cat, in front of, house
    """
    roots = (chunk.root for chunk in doc.noun_chunks)
    nouns = {root.i for root in roots if root.pos_ in {"NOUN", "PROPN"} and not _is_place(root)}
    relations = []
    for i in sorted(nouns):
        words, subjects = _climb(doc[i], nouns)
        for subject in subjects:
            parts = {"subject": subject.lemma_, "relation": words, "object": doc[i].lemma_}
            try:
                relation = Relation.model_validate(parts)
            except ValidationError:  # an empty or very long word: a smiley, a web address
                continue
            if relation not in relations:
                relations.append(relation)
    return relations


# Nouns that are a part of a preposition: in front of, on top of, at the edge of.
PLACES = set("front top side back middle center edge bottom corner foot".split())


def _is_place(noun: Any) -> bool:
    of = any(child.text.lower() == "of" for child in noun.children)
    return of and noun.dep_ == "pobj" and noun.lemma_.lower() in PLACES


def _is_particle(word: Any) -> bool:
    """`puts on` a coat; but in `walks on` the road, which may be tagged alike, it has an object."""
    return word.dep_ == "prt" and not any(child.dep_ == "pobj" for child in word.children)


def _climb(noun: Any, nouns: set[int]) -> tuple[str, list[Any]]:
    """(words, nouns): the nouns that `noun` depends on (perhaps none), and the words in between.

    `nouns` holds the positions of all nouns that can take part in a relation.
    """
    first = noun
    while first.dep_ == "conj" and first.head.i in nouns:  # a hat and a bag: as the hat
        first = first.head
    if first.dep_ not in {"pobj", "dobj", "obj"}:
        return "", []
    words: list[str] = []
    token = first.head
    while True:
        if token.pos_ in {"VERB", "AUX"}:
            # 'riding a horse on a beach': the relation to beach is 'on'; likewise for 'is on'.
            transitive = any(child.dep_ in {"dobj", "obj"} for child in token.children)
            if first.head.i == token.i or not (transitive or token.lemma_ == "be"):
                particles = [child.text for child in token.children if _is_particle(child)]
                words = [token.text, *particles, *words]
            subjects = _subjects(token, nouns)
            break
        if token.i in nouns:
            subjects = [token]
            break
        if token.head.i == token.i:  # the root was reached without a noun
            return "", []
        words = [token.text, *words]
        token = token.head
    if not words:
        return "", []
    return " ".join(words).lower(), [subject for subject in subjects if subject.i != noun.i]


def _subjects(verb: Any, nouns: set[int]) -> list[Any]:
    """The subjects of `verb`, also of a passive verb."""
    while True:
        found = [
            child
            for child in verb.children
            if child.dep_ in {"nsubj", "nsubjpass"} and child.i in nouns
        ]
        if not found and verb.dep_ in {"acl", "relcl"} and verb.head.i in nouns:
            found = [verb.head]  # a dog (that is) sitting
        if found:
            # A man and a woman sit: both do.
            others = [child for child in found[0].children if child.dep_ == "conj"]
            return found[:1] + [other for other in others if other.i in nouns]
        climbs = verb.dep_ in {"conj", "xcomp", "advcl", "ccomp"} and verb.head.i != verb.i
        if not climbs or verb.head.pos_ not in {"VERB", "AUX"}:
            return []
        verb = verb.head


# --- an LLM ---------------------------------------------------------------------------------------

_RELATION = {
    "type": "object",
    "properties": {name: {"type": "string"} for name in ("subject", "relation", "object")},
    "required": ["subject", "relation", "object"],
    "additionalProperties": False,
}
_CAPTION = {
    "type": "object",
    "properties": {
        "number": {"type": "integer"},
        "relations": {"type": "array", "items": _RELATION},
    },
    "required": ["number", "relations"],
    "additionalProperties": False,
}
SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "scene_graphs",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"captions": {"type": "array", "items": _CAPTION}},
            "required": ["captions"],
            "additionalProperties": False,
        },
    },
}
PROMPT = """\
List the relations between the things that each caption names, as (subject, relation, object).
Subject and object: one noun each, singular, without articles and adjectives. Relation: the verb, \
the preposition or both, as in the caption, e.g. "sitting on". Only what the caption says; no \
relation if it names one thing only.
Example: "a dog sitting on a wooden bench" gives {"subject": "dog", "relation": "sitting on", \
"object": "bench"}.
Answer with only JSON: {"captions": [{"number": 1, "relations": [...]}, ...]}, one entry for each \
caption, in their order.
"""


class _Numbered(BaseModel):
    number: int
    relations: list[Relation]


class _Answer(BaseModel):
    captions: list[_Numbered]


_DECODER = json.JSONDecoder(
    object_hook=lambda found: {
        key: printable(value) if isinstance(value, str) else value for key, value in found.items()
    }
)


class _BadAnswer(UserError):
    """The LLM did not answer with one list of relations per caption."""


def llm_parser(model: str, base_url: str, cache: Path) -> Parser:
    """The parser that asks the LLM `model` at `base_url`, many captions at a time.

    If the answer for a batch cannot be used, its two halves are asked separately. So one bad
    caption does not spoil a batch.

    Raises:
        UserError: no key or server; no usable answer for any caption of a batch.
    """
    if base_url == OPENAI and not os.environ.get("OPENAI_API_KEY", "").strip():
        raise UserError(f"OPENAI_API_KEY is not set; {CHOICES}")
    server = Server(base_url)

    def ask(captions: list[str]) -> list[list[Relation] | None]:
        listed = (f"{i}. {' '.join(text.split())}" for i, text in enumerate(captions, start=1))
        try:
            relations, _ = server.answer(
                PROMPT + "\n".join(listed),
                lambda answer: read_answer(answer, len(captions)),
                model=model,
                temperature=0.0,
                seed=0,
                cache_dir=cache,
                schema=SCHEMA,
            )
            return relations
        except _BadAnswer:
            if len(captions) == 1:
                return [None]
            half = len(captions) // 2
            return ask(captions[:half]) + ask(captions[half:])
        except UserError as error:
            kept = "what was parsed is kept: the same command continues"
            raise UserError(f"{error} ({kept}; or {CHOICES})") from error

    def parse(captions: list[str]) -> list[list[Relation] | None]:
        relations = ask(captions)
        if len(captions) > 1 and all(found is None for found in relations):
            raise UserError(
                f"{model} gave no relations that can be read for any of {len(captions)} "
                f"captions, the first {captions[0][:60]!r}; take another model, or {CHOICES}"
            )
        return relations

    return parse


def read_answer(answer: str, captions: int) -> list[list[Relation]]:
    """The relations of each of so many captions, from what an LLM said, in printable characters.

    Raises:
        UserError: not JSON, other numbers than 1, 2, ..., or a subject, relation or object that
            is empty or too long.
    """
    body = re.sub(r"\A\s*<think>.*?</think>", "", answer, flags=re.DOTALL)
    try:
        value, _ = _DECODER.raw_decode(body, max(body.find("{"), 0))
        found = _Answer.model_validate(value).captions
    except (ValueError, RecursionError) as error:  # a ValidationError is a ValueError
        raise _BadAnswer(f"the LLM gave no lists of relations; it said {answer[:160]!r}") from error
    if [entry.number for entry in found] != list(range(1, captions + 1)):
        raise _BadAnswer(f"the LLM answered for {len(found)} captions of {captions}, or mixed them")
    return [entry.relations for entry in found]
