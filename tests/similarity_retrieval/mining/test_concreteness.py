"""Concreteness ratings."""

import pytest

from crl.run.errors import UserError
from similarity_retrieval.mining.concreteness import concreteness, read_ratings


def test_words_are_rated_by_their_singular_too():
    ratings = {"dog": 4.9, "bus": 4.8, "glass": 4.7}
    assert [concreteness(w, ratings) for w in ("dog", "dogs", "bus", "buses", "glasses")] == [
        4.9,
        4.9,
        4.8,
        4.8,
        4.7,
    ]
    assert concreteness("sky", ratings) == -1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no ratings"),
        ("Word\tConc.M\n", "holds no ratings"),
        ("Word,Conc.M\nx,1\n", "r.txt:1: .*tab-separated"),
        ("Word\tConc.M\nx\t4\n\ny\tmuch\n", "r.txt:4: not 2 columns with a number"),
        ("Word\tConc.M\nx\n", "r.txt:2: not 2 columns"),
        ("Word\tConc.M\nx\t6\n", "r.txt:2: a concreteness is from 1 to 5, not 6"),
        ("Word\tConc.M\nx\tnan\n", "r.txt:2: a concreteness is from 1 to 5, not nan"),
    ],
)
def test_malformed_ratings_are_named(tmp_path, text, message):
    (tmp_path / "r.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        read_ratings(tmp_path / "r.txt")
