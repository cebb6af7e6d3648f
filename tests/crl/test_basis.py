"""The text basis: loading, refusing, hashing, and the bases shipped in `configs/bases/`."""

import json
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crl.basis import TextBasis, fold, shipped
from crl.llm import build_prompt, parse_texts
from crl.run.errors import UserError
from crl.run.files import slug

# The paper's VLM prompts (Table 13).
PROMPTS = {
    "genecis_scene": "a photo with a scene of {text}",
    "cards_number": "a poker card with the number of {text}",
    "cards_suits": "a poker card with the card suits of {text}",
}
for criterion in ("texture", "shape", "color", "count"):
    PROMPTS[f"clevr4_{criterion}"] = f"objects with the {criterion} of {{text}}"
for criterion in ("texture", "fabric", "shape", "part", "style"):
    PROMPTS[f"deepfashion_{criterion}"] = f"a fashion with a {criterion} of {{text}}"
GOOD = {"criterion": "color", "vlm_prompt": "a {text} thing", "texts": ["red", "green", "blue"]}

# One line of any characters that a UTF-8 file can hold.
characters = st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"])
words = st.text(characters, min_size=1).filter(str.strip)
bases = st.builds(
    TextBasis,
    criterion=words,
    vlm_prompt=st.sampled_from(["{text}", "a photo of {text}", "a {text} thing: {x}"]),
    texts=st.lists(words, min_size=1, max_size=8, unique_by=fold).map(tuple),
    provenance=st.dictionaries(words, words | st.integers() | st.booleans() | st.none()),
)


def test_all_keys_that_miss_are_named_at_once(tmp_path):
    (tmp_path / "mood.yaml").write_text("texts: [calm]")
    with pytest.raises(UserError, match=r"mood.yaml: criterion and vlm_prompt: is missing"):
        TextBasis.load(tmp_path / "mood.yaml")


@given(bases)
def test_save_then_load_gives_the_same_basis(basis):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "basis.yaml")
        basis.save(path)
        again = TextBasis.load(path)
    assert again == basis
    assert again.digest == basis.digest
    assert len(again.prompts) == len(again.texts)


def test_the_hash_changes_with_what_the_vlm_reads():
    changes = [
        {"texts": ("red", "green", "black")},
        {"texts": ("red", "green")},
        {"texts": ("green", "red", "blue")},
        {"vlm_prompt": "the {text} thing"},
    ]
    assert len({TextBasis(**{**GOOD, **change}).digest for change in [{}, *changes]}) == 5
    assert TextBasis(**GOOD, provenance={"llm": "x"}).digest == TextBasis(**GOOD).digest


@given(bases, st.integers(-2, 10))
def test_first_k_is_a_prefix_or_refused(basis, k):
    if 1 <= k <= len(basis.texts):
        assert basis.first(k).prompts == basis.prompts[:k]
    else:
        with pytest.raises(UserError, match=f"{len(basis.texts)} texts, not {k}"):
            basis.first(k)


@pytest.mark.parametrize(
    ("texts", "classes", "named"),
    [
        (["red", "green"], ["red", "blue"], 1),
        ([" Dark  RED"], ["dark red", "red"], 1),  # case and blanks do not matter, words do
        (["two", "10"], ["2", "ten", "1"], 2),
        (["one of clubs"], ["1", "clubs"], 0),
    ],
)
def test_how_many_classes_a_basis_names(texts, classes, named):
    basis = TextBasis(criterion="x", vlm_prompt="{text}", texts=texts, allow_repeats=True)
    assert basis.names(classes) == named
    assert basis.names(iter(classes)) == named


def test_everyday_criteria_have_names_of_their_own():
    everyday = [name for name in shipped() if name.startswith("everyday/")]
    assert len(everyday) >= 45 and "everyday/mood" in everyday
    assert len({name.rpartition("/")[2] for name in shipped()}) == len(shipped())


@pytest.mark.parametrize("name", shipped())
def test_shipped_basis_keeps_the_papers_protocol(name):
    """It is an answer to the paper's first prompt, and no more."""
    basis = TextBasis.load(name)
    everyday = name.removeprefix("everyday/")
    assert slug(basis.criterion) == everyday.split("_")[-1] and not basis.allow_repeats
    assert basis.vlm_prompt == PROMPTS.get(name, basis.vlm_prompt)
    for text in basis.texts:
        assert text == " ".join(text.split()) and text[-1] not in ".,;:!?", text
        assert 1 <= len(text.split()) < 10, text  # an expression, kept as the LLM gave it
    about = basis.provenance
    assert set(about) == {"llm", "source", "llm_prompt", "prompt", "number", "date"}
    assert about["llm_prompt"] == 1
    number = None if name == everyday else len(basis.texts)
    assert about["number"] == (number or "as many as possible")
    criterion = re.match("Generate common expressions to describe the (.*)[.]", about["prompt"])[1]
    question = build_prompt(criterion, 1, number, [], []).splitlines()
    assert about["prompt"].splitlines()[:-1] == question[:-1]  # the form of the answer has changed
    assert parse_texts(json.dumps(list(basis.texts))) == list(basis.texts)
