"""Parses captions into relations (subject, relation, object) with spaCy."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pydantic import ValidationError

from crl.run.errors import UserError
from similarity_retrieval.mining.captions import Pair
from similarity_retrieval.mining.records import Graph, Relation

SPACY_MODEL = "en_core_web_sm"
BATCH = 256  # captions that spaCy takes at once
MAX_CAPTION = 2000  # characters; a longer text is no caption and is not parsed


def load_spacy(instead: str) -> Any:
    """spaCy's English pipeline; a UserError, with what to give `instead`, if it is missing."""
    try:
        import spacy  # here: heavy and optional

        return spacy.load(SPACY_MODEL, exclude=["ner"])
    except (ImportError, OSError) as error:
        get = f"pip install -e .[mining] and python -m spacy download {SPACY_MODEL}"
        raise UserError(f"spaCy or its model {SPACY_MODEL} is missing; {get}, or give "
                        f"{instead}") from error  # fmt: skip


def spacy_parser() -> Callable[[Iterable[Pair]], Iterator[Graph]]:
    """A parser by spaCy's dependency trees; a UserError if its model is not installed."""
    nlp = load_spacy("graphs=FILE.jsonl")

    def parse(pairs: Iterable[Pair]) -> Iterator[Graph]:
        texts = ((p.caption if len(p.caption.strip()) <= MAX_CAPTION else "", p) for p in pairs)
        for doc, pair in nlp.pipe(texts, as_tuples=True, batch_size=BATCH):
            yield Graph.model_construct(**dict(pair), relations=spacy_relations(doc))

    return parse


def spacy_relations(doc: Any) -> list[Relation]:
    """The relations between the nouns of a spaCy `Doc`, in the order of their objects.

    From the head noun of each noun phrase we climb the tree to the noun that it depends on. The
    words on the way are the relation, as in the caption. Nouns are lemmas, without adjectives.
    What a caption negates is no relation: the image does not show it.

        a dog sitting on a wooden bench   ->  dog, sitting on, bench
        a man riding a horse on a beach   ->  man, riding, horse; man, on, beach
        a cat in front of a house         ->  cat, in front of, house
        a boy without a hat, not holding a ball  ->  none
    """
    roots = (chunk.root for chunk in doc.noun_chunks)
    nouns = {root.i for root in roots if root.pos_ in {"NOUN", "PROPN"} and not _is_place(root)}
    relations = []
    for i in sorted(nouns):
        words, subjects = _climb(doc[i], nouns)
        for subject in subjects:
            if _is_negated(subject) or _is_negated(doc[i]):
                continue
            parts = {"subject": subject.lemma_, "relation": words, "object": doc[i].lemma_}
            try:
                relation = Relation.model_validate(parts)
            except ValidationError:  # an empty or very long word: a smiley, a web address
                continue
            if relation not in relations:
                relations.append(relation)
    return relations


SUBJECT = {"nsubj", "nsubjpass"}
# Nouns that are a part of a preposition: in front of, on top of, at the edge of.
PLACES = set("front top side back middle center edge bottom corner foot".split())
NEGATIONS = {"no", "never", "neither"}  # not always tagged as `neg`
# A word that depends so on a negated one is negated, too; a subject or a relative clause is not.
DEPENDENT = set("dobj obj pobj attr agent prep pcomp xcomp ccomp advmod conj".split())


def _is_place(noun: Any) -> bool:
    has_of = any(child.text.lower() == "of" for child in noun.children)
    return has_of and noun.dep_ == "pobj" and noun.lemma_.lower() in PLACES


def _is_particle(word: Any) -> bool:
    """`puts on` a coat; but in `walks on` the road, which may be tagged alike, it has an object."""
    return word.dep_ == "prt" and not any(child.dep_ == "pobj" for child in word.children)


def _is_negated(word: Any) -> bool:
    """Whether `word` stands under a negation: `no hat`, `without a hat`, `not holding a hat`."""
    while True:
        adverbs = [child for child in word.children if child.dep_ == "advmod"]  # no longer
        near = [*word.children, *(child for adverb in adverbs for child in adverb.children)]
        negated = any(w.dep_ == "neg" or w.text.lower() in NEGATIONS for w in near)
        if negated or word.text.lower() == "without":
            return True
        is_verb = word.pos_ in {"VERB", "AUX"}  # not smiling and holding a hat: it is held
        if word.dep_ not in DEPENDENT or (word.dep_ == "conj" and is_verb):
            return False
        word = word.head


def _climb(noun: Any, nouns: set[int]) -> tuple[str, list[Any]]:
    """The words between `noun` and the nouns that it depends on, and these nouns (perhaps none), of
    `nouns`, the positions of all."""
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
        subjects = [child for child in verb.children if child.dep_ in SUBJECT and child.i in nouns]
        if not subjects and verb.dep_ in {"acl", "relcl"} and verb.head.i in nouns:
            subjects = [verb.head]  # a dog (that is) sitting
        if subjects:
            # A man and a woman sit: both do.
            others = [child for child in subjects[0].children if child.dep_ == "conj"]
            return subjects[:1] + [other for other in others if other.i in nouns]
        climbs = verb.dep_ in {"conj", "xcomp", "advcl", "ccomp"} and verb.head.i != verb.i
        if not climbs or verb.head.pos_ not in {"VERB", "AUX"}:
            return []
        verb = verb.head
