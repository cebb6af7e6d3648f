"""Pseudo-words: the hook against the text tower written out, in every kind of tower."""

import pytest
import torch
from checkpoints import SAVE, TOWERS, save_clip, save_custom_text, save_towers
from torch import nn
from toy_vlm import ToyVLM

from crl.backends.pseudo_words import PseudoWords
from crl.run.errors import UserError
from crl.vlm import load_vlm


@pytest.fixture(params=[*SAVE, "custom_text", *TOWERS, "demo"], scope="module")
def words(request, tmp_path_factory):
    """Each kind of VLM, tiny; and the demo's, with its 16 tokens."""
    if request.param == "demo":
        return PseudoWords(load_vlm("demo", "cpu"))
    saves = {**SAVE, "custom_text": save_custom_text}
    save = saves.get(request.param) or (lambda folder: save_towers(request.param, folder))
    return PseudoWords(load_vlm(str(save(tmp_path_factory.mktemp("vlm"))), "cpu"))


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    return save_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def clip(clip_folder):
    return PseudoWords(load_vlm(str(clip_folder), "cpu"))


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def literal(model, embedded, end):
    """open_clip's text tower from embedded ids (B, L, Dt) and the places of the end (B,)."""
    length = embedded.shape[1]
    x = embedded + model.positional_embedding[:length]
    x = model.transformer(x, attn_mask=model.attn_mask[:length, :length])
    return model.ln_final(x)[torch.arange(len(x)), end] @ model.text_projection


def test_the_hook_equals_the_tower_written_out(clip):
    texts = ["a photo of $ that has a dog", "$", "two red dogs beside $ in the rain"]
    vectors, model = torch.randn(3, clip.width), clip.vlm.model
    ids = clip.vlm.token_ids([text.replace("$", "cat") for text in texts])
    embedded = model.token_embedding(ids).detach().clone()
    for row, place in enumerate((4, 1, 5)):  # after the start
        embedded[row, place] = vectors[row]
    with torch.no_grad():
        expected = literal(model, embedded, ids.argmax(dim=1))
        assert torch.allclose(clip.encode(texts, vectors), expected, atol=1e-6)


def test_the_tokens_own_embedding_gives_the_text(words):
    (place,) = (words.vlm.token_ids(["a"]) != words.vlm.token_ids(["e"]))[0].nonzero()[0]
    own = words.embedding.weight[words.vlm.token_ids(["a"])[0, place]]
    texts = ["a photo of $", "the $ with red metal"]
    expected = words.vlm.encode_texts([text.replace("$", "a") for text in texts])
    with torch.no_grad():
        assert torch.equal(words.encode(texts, own.expand(2, -1)), expected)


def test_each_text_has_its_vector_and_its_place(words):
    texts, vectors = ["a photo of $", "$ with red metal objects"], torch.randn(2, words.width)
    with torch.no_grad():
        both = words.encode(texts, vectors)
        for row in range(2):  # shorter rows: other padding
            one = words.encode(texts[row : row + 1], vectors[row : row + 1])
            assert torch.allclose(both[row], one[0], atol=1e-5)
        other = words.encode(texts, vectors.flip(0))
    assert not torch.isclose(both, other, atol=1e-3).all(dim=1).any()
    assert not words.embedding._forward_hooks  # it is removed


def test_only_the_vector_has_a_gradient(words):
    words.vlm.model.requires_grad_(False)
    vectors = torch.randn(2, words.width, requires_grad=True)
    words.encode(["a photo of $", "the $"], vectors).square().sum().backward()
    assert (vectors.grad.norm(dim=1) > 0).all()
    assert all(parameter.grad is None for parameter in words.vlm.model.parameters())


def test_what_follows_the_end_changes_nothing(clip):
    ids = clip.vlm.token_ids(["a photo of cat"])
    end = int(ids.argmax())
    changed = ids.clone()
    changed[0, end + 1 :] = torch.randint(1, 1000, (ids.shape[1] - end - 1,))
    with torch.no_grad():
        plain, other = clip.vlm.model.encode_text(ids), clip.vlm.model.encode_text(changed)
        short = literal(clip.vlm.model, clip.vlm.model.token_embedding(ids[:, : end + 1]), [end])
    assert torch.allclose(plain, other, atol=1e-6) and torch.allclose(plain, short, atol=1e-6)


def test_a_vector_inserted_before_the_end_is_the_same(clip):
    """Pic2Word's form: `a photo of`, the vector where the end was, and the rest moved right."""
    model, vector = clip.vlm.model, torch.randn(1, clip.width)
    ids = clip.vlm.token_ids(["a photo of"])
    end = int(ids.argmax())
    with torch.no_grad():
        embedded = model.token_embedding(ids)
        parts = [embedded[:, :end], vector[:, None], embedded[:, end:-1]]
        expected = literal(model, torch.cat(parts, dim=1), [end + 1])
        assert torch.allclose(clip.encode(["a photo of $"], vector), expected, atol=1e-6)


def test_several_signs(clip):
    vector, word = torch.randn(1, clip.width), clip.vlm.token_ids(["cat"])[0, 1]
    given = [[False, True, False, True], [False, True, False, False]]
    for count, which, text in ((-1, given[0], "cat of cat"), (1, given[1], "cat of $")):
        ids = clip.vlm.token_ids([text])
        assert ids[0, 1] == word
        with torch.no_grad():
            embedded = clip.vlm.model.token_embedding(ids)
            embedded[0, :4][torch.tensor(which)] = vector
            expected = literal(clip.vlm.model, embedded, ids.argmax(dim=1))
            assert torch.allclose(clip.encode(["$ of$"], vector, count), expected, atol=1e-6)


def test_a_prompt_that_is_cut_or_has_no_sign(words):
    vector, context = torch.zeros(1, words.width), words.vlm.context
    with torch.no_grad():
        fits = words.encode(["a photo of $ " + "red " * context], vector)  # its end is cut
        assert fits.isfinite().all()
        long = "red " * context + "$"
        with pytest.raises(UserError, match=rf"is cut before its \$ \(.* reads {context} tokens"):
            words.encode([long], vector)
        instead = words.encode([long], vector, otherwise="a photo of $")
        assert torch.equal(instead, words.encode(["a photo of $"], vector))
    with pytest.raises(UserError, match=r"'a photo' has no \$, the place of the pseudo-word"):
        words.encode(["a photo"], vector)


def test_vectors_of_another_width(clip):
    with pytest.raises(UserError, match=r"takes pseudo-words of width 32, .* not \(1, 31\)"):
        clip.encode(["a $"], torch.zeros(1, 31))


def test_towers_out_of_reach(clip):
    with pytest.raises(UserError, match="toy takes no pseudo-words; use a VLM of open_clip"):
        PseudoWords(ToyVLM())

    class Hidden(nn.Module):  # as of a TorchScript model: no layer to be seen
        def __init__(self, table):
            super().__init__()
            self.table = table

        def forward(self, ids):
            return self.table.weight[ids]

    clip.vlm.model.token_embedding = Hidden(clip.vlm.model.token_embedding)
    with pytest.raises(UserError, match="the token embedding of its text tower cannot be reached"):
        PseudoWords(clip.vlm)
