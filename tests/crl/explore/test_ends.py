"""Pictures of twelve known words: the numbers are right, and none is given where none can be."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crl.explore.collection import Collection
from crl.explore.ends import count_matches
from crl.projection import l2
from crl.run.errors import UserError
from crl.run.store import content_digest, digest_array

WORDS = 12
seeds = st.integers(0, 10_000)


def pictures(seed: int, images: int = 600, noise: float = 0.05, without: int | None = None):
    """(N,) the true word of each picture, and R (N, K): 0.5 for that word, 0.2 for the others."""
    rng = np.random.default_rng(seed)
    word = rng.integers(WORDS, size=images)
    word = word[word != without]
    r = np.where(word[:, None] == np.arange(WORDS), 0.5, 0.2)
    return word, r + rng.normal(0, noise, r.shape)


def test_two_groups_by_hand():
    """Of 30 pictures the query says 0.9, of 90 it says 0.1; others say 0.5 of all. Of the best 40,
    10 do not match: a quarter."""
    scores = np.repeat([0.1, 0.9], [90, 30])
    words = np.full((120, 10), 0.5)
    words[:, 0] = 0.0
    for error, number in ((0.0, 30), (0.1, 33), (0.25, 40), (1.0, 120)):
        end = count_matches(scores, words, error)
        assert end.number == number
        assert end.note == f"about {number} pictures match (expect at most {error:.0%} wrong ones)"


@pytest.mark.parametrize("noise", [0.04, 0.06])
def test_the_stated_rate_holds_and_most_are_found(noise):
    rates, recalls = [], []
    for seed in range(8):
        word, r = pictures(seed, noise=noise)
        if (number := count_matches(r[:, 0], r).number) is not None:
            hits = (word == 0)[np.argsort(-r[:, 0])[:number]]
            rates.append(1 - hits.mean())
            recalls.append(hits.sum() / (word == 0).sum())
    assert len(rates) >= 6 and 0.02 <= np.mean(rates) <= 0.15 and np.mean(recalls) > 0.8


@given(seeds)
@settings(max_examples=4)
def test_order_says_nothing_and_copies_count(seed):
    r = pictures(seed, 300, noise=0.03)[1]
    end = count_matches(r[:, 0], r)
    mixed = np.random.default_rng(seed).permutation(r)
    assert count_matches(mixed[:, 0], mixed) == end
    twice = np.concatenate([r, r])
    assert abs(count_matches(twice[:, 0], twice).number - 2 * end.number) <= 2
    assert count_matches(3 * r[:, 0] + 1, 3 * r + 1) == end  # another scale of cosines


@given(seeds, st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)))
@settings(max_examples=6)
def test_more_errors_allowed_are_never_fewer_pictures(seed, errors):
    r = pictures(seed, 300)[1]
    fewer, more = (count_matches(r[:, 0], r, error).number or 0 for error in sorted(errors))
    assert fewer <= more


def test_no_number_where_it_cannot_be_told():
    def reason(r):
        end = count_matches(r[:, 0], r)
        assert end.number is None and end.note.startswith("how many match cannot be told: ")
        return end.note

    for seed in range(3):
        assert "perhaps none matches" in reason(pictures(seed, without=0)[1])
    r = pictures(0)[1]
    assert "fewer than 10 texts" in reason(r[:, :9])
    assert "fewer than 100 pictures" in reason(r[:99])
    assert "are one group" in reason(np.full((200, 10), 0.3))
    blind = pictures(0, noise=1.0)[1]
    assert reason(blind)  # a VLM that hardly sees them


class WordVLM:
    """Embeds the text of word 7 as the unit vector 7."""

    name, dim, fingerprint, device = "words", WORDS, "words-1", torch.device("cpu")

    def encode_texts(self, texts: list[str]) -> torch.Tensor:
        return torch.eye(WORDS)[[int(text.rpartition(" ")[2]) for text in texts]]


def test_a_view_shows_as_many_as_match():
    word, r = pictures(0)
    files = [Path(f"/pictures/{n}.png") for n in range(len(r))]
    digests = digest_array(content_digest(row.tobytes()) for row in r)
    image = l2(r).astype(np.float32)
    photos = Collection(Path("/pictures"), files, image, digests, WordVLM())
    view = photos.under([f"a {n}" for n in range(WORDS)], name="word")
    table = view.nearest("word 3", "auto")
    assert len(table) == view.matching("word 3").number
    right = np.array([word[int(Path(name).stem)] == 3 for name in table["file"]])
    assert right.mean() > 0.85 and right.sum() > 0.95 * (word == 3).sum()
    assert len(view.nearest("word 3", "auto")) < view.matching("word 3", error=0.5).number
    for query, look, reason in (
        ("7.png", view, "is a picture"),
        ("word 3", photos.universal, "no texts"),
    ):
        assert reason in look.matching(query).note
        with pytest.raises(UserError, match=f"{reason}.*; give a number instead of auto"):
            look.nearest(query, "auto")
