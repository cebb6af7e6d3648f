import numpy as np
import pytest

from crl.explore.labels import guess_labels
from crl.run.errors import UserError


def two_kinds(each=50, spread=0.3, seed=0):
    """x (2 * each, 10), unit rows, and the kind of each row."""
    rng = np.random.default_rng(seed)
    truth = np.repeat([0, 1], each)
    x = np.eye(2, 10)[truth] + spread * rng.normal(size=(2 * each, 10))
    return x / np.linalg.norm(x, axis=1, keepdims=True), np.array(["calm", "tense"])[truth]


def test_the_rest_is_labelled_and_what_was_given_stays():
    x, truth = two_kinds()
    given = {0: "calm", 1: "calm", 60: "tense", 61: "tense", 2: "tense"}  # the last is wrong
    found = guess_labels(x, given)
    assert all(found.label[i] == label and found.confidence[i] == 1 for i, label in given.items())
    rest = [i for i in range(100) if i not in given]
    assert np.mean(found.label[rest] == truth[rest]) > 0.8
    assert ((found.confidence >= 0.5) & (found.confidence <= 1)).all()


def test_confidence_is_not_the_modesty_of_unit_rows():
    x, truth = two_kinds(spread=0.1)
    found = guess_labels(x, {0: "calm", 1: "calm", 60: "tense", 61: "tense"})
    assert (found.label == truth).all() and found.confidence.mean() > 0.9


def test_the_doubtful_are_asked_first():
    x, _ = two_kinds()
    x[10] = x[0] + x[60]  # halfway
    found = guess_labels(x, {0: "calm", 60: "tense"}, ask=7)
    assert found.ask[0] == 10 and len(found.ask) == 7
    assert not {0, 60} & set(found.ask)
    assert (np.diff(found.confidence[found.ask]) >= 0).all()


def test_accuracy_is_that_of_images_that_were_left_out():
    x, truth = two_kinds(spread=0.05)
    given = {i: truth[i] for i in (*range(6), *range(60, 66))}
    found = guess_labels(x, given)
    assert found.accuracy == 1 and found.tested == 12
    noise = np.random.default_rng(0).permutation(list(given.values()))
    assert guess_labels(x, dict(zip(given, noise, strict=True))).accuracy < 0.9


def test_one_label_of_a_kind_cannot_be_left_out():
    x, _ = two_kinds()
    assert guess_labels(x, {0: "calm", 1: "calm", 60: "tense"}).accuracy is None


@pytest.mark.parametrize("given", [{}, {0: "calm"}, {0: "calm", 1: "calm"}])
def test_nothing_to_tell_apart(given):
    with pytest.raises(UserError, match="two kinds or more"):
        guess_labels(np.eye(3), given)


def test_images_that_are_all_the_same():
    found = guess_labels(np.ones((5, 3)), {0: "a", 1: "b"})
    assert np.isfinite(found.confidence).all()
