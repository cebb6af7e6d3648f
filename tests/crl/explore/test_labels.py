import numpy as np
import pytest

from crl.explore.labels import guess_labels, read_labels
from crl.projection import l2
from crl.run.errors import UserError


def two_kinds(each=50, spread=0.3):
    """x (2 * each, 10), unit rows, and the kind of each row."""
    truth = np.repeat([0, 1], each)
    x = np.eye(2, 10)[truth] + spread * np.random.default_rng(0).normal(size=(2 * each, 10))
    return l2(x), np.array(["calm", "tense"])[truth]


def test_the_rest_is_labelled_and_what_was_given_stays():
    x, truth = two_kinds()
    given = {0: "calm", 1: "calm", 60: "tense", 61: "tense", 2: "tense"}  # the last is wrong
    guesses = guess_labels(x, given)
    assert all(
        guesses.label[i] == label and guesses.confidence[i] == 1 for i, label in given.items()
    )
    rest = [i for i in range(100) if i not in given]
    assert np.mean(guesses.label[rest] == truth[rest]) > 0.8
    assert ((guesses.confidence >= 0.5) & (guesses.confidence <= 1)).all()


def test_the_doubtful_are_asked_first():
    x, _ = two_kinds()
    x[10] = x[0] + x[60]  # halfway
    x[1], x[61] = x[0], x[60]
    given = {0: "calm", 1: "calm", 60: "tense", 61: "tense"}
    guesses = guess_labels(x, given, ask=7)
    assert guesses.ask[0] == 10 and len(guesses.ask) == 7 and not given.keys() & set(guesses.ask)
    assert (np.diff(guesses.confidence[guesses.ask]) >= 0).all()


@pytest.mark.parametrize("twice", [[], ["calm"], ["calm", "tense"]])
def test_a_label_given_once_gives_no_confidence(twice):
    x, _ = two_kinds()
    given = {0: "calm", 60: "tense"} | {i: label for i, label in ((1, "calm"), (61, "tense"))
                                        if label in twice}  # fmt: skip
    guesses = guess_labels(x, given)
    rest = np.setdiff1d(np.arange(100), list(given))
    once = ~np.isin(guesses.label[rest], twice)
    assert (np.isnan(guesses.confidence[rest]) == once).all() and once.any() == (len(twice) < 2)
    assert (guesses.confidence[list(given)] == 1).all()
    assert len(guesses.ask) == 20 and not given.keys() & set(guesses.ask)


def test_one_label_in_all_is_refused():
    for given in ({0: "calm"}, {0: "calm", 1: "calm"}):
        with pytest.raises(UserError, match="two kinds or more"):
            guess_labels(two_kinds()[0], given)


def test_accuracy_is_that_of_images_that_were_left_out():
    x, truth = two_kinds(spread=0.05)
    given = {i: truth[i] for i in (*range(6), *range(60, 66))}
    guesses = guess_labels(x, given)
    assert guesses.accuracy == 1 and guesses.confidence.mean() > 0.9
    noise = np.random.default_rng(0).permutation(list(given.values()))
    assert guess_labels(x, dict(zip(given, noise, strict=True))).accuracy < 0.9
    assert guess_labels(x, {0: "calm", 1: "calm", 60: "tense"}).accuracy is None  # one of a kind


TABLES = [  # as spreadsheets write them
    "file,label\na.png,calm\nb c.png,tense\n",
    "file;label\na.png;calm\nb c.png;tense\n",
    "path\tlabel\na.png\tcalm\nb c.png\ttense\n",
    'Path , Label\n"a.png",calm \n"b c.png","tense"\n',
    "path;width;label\na.png;3;calm\na.png;3;calm\nb c.png;4;tense\n",
]


@pytest.mark.parametrize("text", TABLES)
def test_tables_of_labels(tmp_path, text):
    file = tmp_path / "few.csv"
    file.write_text(text)
    assert read_labels(file) == {"a.png": "calm", "b c.png": "tense"}


@pytest.mark.parametrize("text", ["a.png,calm\n", "file\na.png\n", "file,label\na.png,\n"])
def test_tables_that_lack_something(tmp_path, text):
    (tmp_path / "few.csv").write_text(text)
    with pytest.raises(UserError, match="must begin with the line file,label"):
        read_labels(tmp_path / "few.csv")
