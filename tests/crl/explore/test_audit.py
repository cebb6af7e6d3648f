"""The audit on embeddings whose answer is by construction."""

import numpy as np
import pytest

from crl.explore.audit import Audit, audit
from crl.projection import l2

Y = np.arange(120) % 4


def images(strength, seed=0):
    """I (120, 16): the class is a direction of this length, beside noise, and beside a much larger
    direction that has nothing to do with it."""
    rng = np.random.default_rng(seed)
    other = 4 * np.eye(16)[8 + rng.integers(3, size=120)]
    return l2(strength * np.eye(16)[Y] + other + rng.normal(size=(120, 16)) / 10)


RIGHT, WRONG = np.eye(16)[:4], np.eye(16)[8:12]  # T about the class; about the other thing


def test_fine():
    image = images(2)
    found = audit(image, l2(image @ RIGHT.T), Y)
    assert found.seen > 95 and found.reached > 95 and min(found.repaired.values()) > 90
    assert found.verdict == "fine: the VLM sees it, and the words reach it"
    assert str(found).startswith("seen 100, reached 100, repaired ")


def test_seen_but_the_words_are_about_something_else():
    image = images(2)
    found = audit(image, l2(image @ WRONG.T), Y)
    assert found.seen > 95 and found.reached < 10
    assert "the words reach a part" in found.verdict
    few = audit(image, l2(image @ np.concatenate([RIGHT / 4, WRONG]).T), Y)
    assert few.reached < 50 and few.repaired[5] > few.reached + 25  # labels say what matters


def test_not_seen():
    image = l2(np.random.default_rng(0).normal(size=(120, 300)))  # a probe could learn it by heart
    found = audit(image, image, Y)
    assert abs(found.seen) < 15 and "hardly sees it" in found.verdict
    assert max(map(abs, found.repaired.values())) < 15


def test_only_images_with_a_label_count_and_unknown_ones_do_not():
    image, y = images(2), Y.copy()
    y[30:] = -1
    rows = l2(image @ RIGHT.T)
    some = audit(image, rows, y)
    other = np.where(y == -1, -1, 3 - y)  # the numbers of classes mean nothing
    assert audit(image, rows, other)[:2] == pytest.approx(some[:2])
    assert some.seen > 90 and list(some.repaired) == [1, 2, 5]
    queries = audit(np.stack([image, image], axis=1), rows, y)
    assert queries.seen == pytest.approx(some.seen)


def test_few_labels():
    image = images(2)
    rows = l2(image @ RIGHT.T)

    def labelled(*counts):
        y = np.full(120, -1)
        for v, count in enumerate(counts):
            y[np.flatnonzero(v == Y)[:count]] = v
        return y

    assert list(audit(image, rows, labelled(3, 3, 4)).repaired) == [1, 2]
    assert list(audit(image, rows, labelled(2, 2)).repaired) == [1]
    once = audit(image, rows, labelled(3, 3, 1))  # a class with one label is left out
    assert once == audit(image, rows, labelled(3, 3))
    assert audit(image, rows, labelled(5, 1)) is None
    assert audit(image, rows, labelled(1, 1)) is None


def test_the_verdict_at_its_limits():
    assert "hardly" in Audit(49.9, 49.9, {}).verdict and "fine" in Audit(50, 37.5, {}).verdict
    assert "a part" in Audit(100, 74.9, {}).verdict
    assert str(Audit(60, 59.6, {})) == "seen 60, reached 60; " + Audit(60, 59.6, {}).verdict
