"""Relations that are read off spaCy's dependency trees."""

import pytest
from mining_files import Doc

from similarity_retrieval.mining.scene_graphs import spacy_relations

# word:lemma/part of speech/dependency/position of the head
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
            f"{who} | {what}"
            for what in ("riding | horse", "on | beach")
            for who in ("man", "woman")
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
    (f"dog/NOUN/ROOT/0 on/ADP/prep/0 {'b' * 61}/NOUN/pobj/1", []),  # no word is so long
]


# As en_core_web_sm 3.8 parses them
NEGATED = [
    (
        "a/DET/det/1 boy/NOUN/nsubj/3 not/PART/neg/3 holding/VERB/ROOT/3 a/DET/det/5 "
        "ball/NOUN/dobj/3",
        [],
    ),
    ("boy/NOUN/ROOT/0 holding/VERB/acl/0 no/DET/det/3 ball/NOUN/dobj/1", []),
    (
        "a/DET/det/1 boy/NOUN/ROOT/1 who/PRON/nsubj/4 never/ADV/neg/4 rides/VERB/relcl/1 "
        "a/DET/det/6 horse/NOUN/dobj/4",
        [],
    ),
    ("no/DET/det/1 dog/NOUN/ROOT/1 on/ADP/prep/1 the/DET/det/4 sofa/NOUN/pobj/2", []),
    (
        "man/NOUN/nsubj/3 no/ADV/neg/2 longer/ADV/advmod/3 holding/VERB/ROOT/3 rope/NOUN/dobj/3",
        [],
    ),
    (
        "dog/NOUN/nsubj/2 not/PART/neg/2 trying/VERB/ROOT/2 to/PART/aux/4 catch/VERB/xcomp/2 "
        "ball/NOUN/dobj/4",
        [],
    ),
    ("man/NOUN/ROOT/0 without/ADP/prep/0 hat/NOUN/pobj/1 on/ADP/prep/2 head/NOUN/pobj/3", []),
    (
        "boy/NOUN/ROOT/0 Without/ADP/prep/0 hat/NOUN/pobj/1 or/CCONJ/cc/2 bag/NOUN/conj/2 "
        "on/ADP/prep/0 bench/NOUN/pobj/5",
        ["boy | on | bench"],
    ),
    (
        "man/NOUN/ROOT/0 riding/VERB/acl/0 horse/NOUN/dobj/1 without/ADP/prep/1 "
        "holding/VERB/pcomp/3 reins/NOUN/dobj/4",
        ["man | riding | horse"],
    ),
    (  # the shirt is not on the beach
        "man/NOUN/ROOT/0 who/PRON/nsubj/4 is/AUX/aux/4 not/PART/neg/4 wearing/VERB/relcl/0 "
        "shirt/NOUN/dobj/4 on/ADP/prep/5 beach/NOUN/pobj/6 with/ADP/prep/0 dog/NOUN/pobj/8",
        ["man | with | dog"],
    ),
    (
        "boy/NOUN/nsubj/2 not/PART/neg/2 smiling/VERB/ROOT/2 and/CCONJ/cc/2 holding/VERB/conj/2 "
        "ball/NOUN/dobj/4",
        ["boy | holding | ball"],
    ),
    (
        "man/NOUN/nsubj/4 and/CCONJ/cc/0 no/DET/det/3 woman/NOUN/conj/0 sit/VERB/ROOT/4 "
        "on/ADP/prep/4 bench/NOUN/pobj/5",
        ["man | sit on | bench"],
    ),
]


@pytest.mark.parametrize(("sentence", "relations"), SENTENCES + NEGATED)
def test_relations_are_read_off_the_tree(sentence, relations):
    parsed = spacy_relations(Doc(sentence))
    assert [f"{r.subject} | {r.relation} | {r.object}" for r in parsed] == relations
