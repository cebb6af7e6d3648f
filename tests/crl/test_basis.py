"""The text basis: loading, refusing, hashing, and the twelve bases shipped in `configs/bases/`."""

import re
import tempfile
import unicodedata
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from crl.basis import BASES, TextBasis, fold
from crl.run.errors import UserError

# Name: (the number of texts in the paper, VLM prompt of the paper).
SHIPPED = {
    "clevr4_texture": (80, "objects with the texture of {text}"),
    "clevr4_shape": (318, "objects with the shape of {text}"),
    "clevr4_color": (108, "objects with the color of {text}"),
    "clevr4_count": (60, "objects with the count of {text}"),
    "cards_number": (27, "a poker card with the number of {text}"),
    "cards_suits": (46, "a poker card with the card suits of {text}"),
    "genecis_scene": (229, "a photo with a scene of {text}"),
    "deepfashion_texture": (97, "a fashion with a texture of {text}"),
    "deepfashion_fabric": (133, "a fashion with a fabric of {text}"),
    "deepfashion_shape": (214, "a fashion with a shape of {text}"),
    "deepfashion_part": (433, "a fashion with a part of {text}"),
    "deepfashion_style": (186, "a fashion with a style of {text}"),
}
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


def refusal(path: Path, content: str) -> str:
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        TextBasis.load(path)
    return str(caught.value)


@given(bases)
def test_save_then_load_gives_the_same_basis(basis):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "basis.yaml")
        basis.save(path)
        again = TextBasis.load(path)
    assert again == basis
    assert again.hash == basis.hash
    assert len(again.prompts) == len(again.texts)


@pytest.mark.parametrize(
    "change",
    [
        {"texts": ("red", "green", "black")},
        {"texts": ("red", "green")},
        {"texts": ("green", "red", "blue")},
        {"vlm_prompt": "the {text} thing"},
    ],
)
def test_hash_changes_with_what_the_vlm_reads(change):
    assert TextBasis(**{**GOOD, **change}).hash != TextBasis(**GOOD).hash


def test_hash_ignores_provenance():
    assert TextBasis(**GOOD, provenance={"llm": "x"}).hash == TextBasis(**GOOD).hash


@pytest.mark.parametrize(
    ("change", "field", "says"),
    [
        ({"texts": ["red", " RED "]}, "texts", "twice"),
        ({"texts": ["dark red", "dark  Red"]}, "texts", "twice"),
        ({"texts": ["red", " "]}, "texts", "empty"),
        ({"texts": []}, "texts", "empty"),
        ({"texts": ["one", 10]}, "texts.1", "must be a text, not 10"),
        ({"texts": "red"}, "texts", "must be a list"),
        ({"vlm_prompt": "a thing"}, "vlm_prompt", "{text}"),
        ({"vlm_prompt": "{text} and {text}"}, "vlm_prompt", "{text}"),
        ({"text": ["red"]}, "text", "not a known key"),
    ],
)
def test_a_bad_field_is_refused_in_one_line_naming_file_and_field(tmp_path, change, field, says):
    path = tmp_path / "mine.yaml"
    message = refusal(path, yaml.safe_dump({**GOOD, **change}))
    assert message.startswith(f"{path}: {field}: ")
    assert says in message
    assert "\n" not in message


def test_a_missing_field_is_named(tmp_path):
    assert ": vlm_prompt: " in refusal(tmp_path / "mine.yaml", "criterion: color\ntexts: [red]")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "- red\n- green\n",
        "criterion: [color\ntexts: }",
    ],
)
def test_a_file_that_is_no_mapping_is_refused_in_one_line(tmp_path, content):
    message = refusal(tmp_path / "mine.yaml", content)
    assert "mine.yaml" in message
    assert "\n" not in message


def test_unknown_name_suggests_the_nearest_and_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"'clevr4_colour'; did you mean 'clevr4_color'\?"):
        TextBasis.load("clevr4_colour")
    with pytest.raises(UserError, match=r"known: .*cards_suits"):
        TextBasis.load("zzz")
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "no.yaml"))):
        TextBasis.load(tmp_path / "no.yaml")


@given(bases, st.integers(-2, 10))
def test_first_k_is_a_prefix_or_refused(basis, k):
    if 1 <= k <= len(basis.texts):
        assert basis.first(k).prompts == basis.prompts[:k]
        assert (basis.first(k) == basis) == (k == len(basis.texts))
    else:
        with pytest.raises(UserError, match=f"{len(basis.texts)} texts, not {k}"):
            basis.first(k)


def test_every_shipped_basis_is_checked_here():
    assert {path.stem for path in BASES.glob("*.yaml")} >= set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_basis_keeps_the_papers_protocol(name):
    basis = TextBasis.load(name)
    paper_texts, vlm_prompt = SHIPPED[name]
    assert basis.criterion == name.split("_")[1]
    assert basis.vlm_prompt == vlm_prompt
    assert len(basis.texts) >= paper_texts == basis.provenance["paper_texts"]
    assert basis.provenance.keys() >= {"source", "llm_prompt", "date"}
    assert basis.provenance["llm_prompt"].startswith("Generate common expressions to describe the ")
    for text in basis.texts:
        assert text == " ".join(text.split()) and text[-1] not in ".,;:!?", text
        assert 1 <= len(text.split()) <= 6, text
        assert not any(unicodedata.category(character).startswith("C") for character in text), text
