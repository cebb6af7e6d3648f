"""Concreteness ratings."""

import pytest

from crl.run.errors import UserError
from similarity_retrieval.mining.concreteness import concreteness, read_ratings


def test_words_are_rated_by_their_singular_too(tmp_path):
    (tmp_path / "r.txt").write_text("Word\tConc.M\ndog\t4.9\nBus \t4.8\nglass\t4.7\n")
    ratings = read_ratings(tmp_path / "r.txt")
    words = {"dog": 4.9, "dogs": 4.9, "bus": 4.8, "buses": 4.8, "glasses": 4.7, "sky": -1}
    assert {word: concreteness(word, ratings) for word in words} == words


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no ratings"),
        ("Word\tConc.M\n", "holds no ratings"),
        ("Word,Conc.M\nx,1\n", "r.txt:2: word: is missing"),
        ("Word\tConc.M\nx\t4\n\ny\tmuch\n", "r.txt:4: conc.m: must be a number, not 'much'"),
        ("Word\tConc.M\nx\n", "r.txt:2: not 2 columns"),
        ("Word\tConc.M\nx\t6\n", "r.txt:2: conc.m: must be at most 5.0, not '6'"),
        ("Word\tConc.M\nx\tnan\n", "r.txt:2: conc.m: must be at most 5.0, not 'nan'"),
    ],
)
def test_malformed_ratings_are_named(tmp_path, text, message):
    (tmp_path / "r.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        read_ratings(tmp_path / "r.txt")
