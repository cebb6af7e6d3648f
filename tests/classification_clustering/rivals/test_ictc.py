"""IC|TC: published answers re-score to published numbers; parsing and merging by hand."""

import numpy as np
import pytest

from classification_clustering.method import clustering_scores
from classification_clustering.rivals.ictc import TRIES, assigned, merged, named, sort_images
from crl.run.errors import UserError

PPMI = [  # GPT-4's answers to 700 images of PPMI: rows true, columns predicted
    [98, 0, 0, 0, 0, 0, 2],  # cello
    [0, 86, 0, 0, 9, 4, 1],  # flute
    [0, 0, 100, 0, 0, 0, 0],  # guitar
    [0, 7, 0, 93, 0, 0, 0],  # harp
    [0, 0, 0, 0, 100, 0, 0],  # saxophone
    [0, 0, 0, 0, 2, 98, 0],  # trumpet
    [0, 0, 0, 0, 0, 0, 100],  # violin
]


def test_published_answers_have_the_published_scores():
    names = "cello flute guitar harp saxophone trumpet violin".split()
    labels = np.repeat(np.arange(7), 100)
    chosen = [names[j] for row in PPMI for j in np.repeat(np.arange(7), row)]
    clusters, unlisted = assigned(chosen, names, "wrong", 0)
    scores = clustering_scores(labels, clusters)
    assert unlisted == 0
    assert scores["acc"] == pytest.approx(96.42857, abs=1e-5)
    assert scores["ari"] == pytest.approx(92.09328, abs=1e-5)
    assert scores["nmi"] == pytest.approx(92.82584, abs=1e-5)


def test_the_small_case():
    scores = clustering_scores([1, 1, 0, 0, 2, 2, 0], [0, 0, 1, 1, 2, 2, 2])
    assert scores["acc"] == pytest.approx(100 * 6 / 7)


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        ("Answer: Red", "red"),
        ('Answer 12: "Dark, blue".', "dark blue"),
        ("blue", "blue"),
        ("It has a hue: strong.\nAnswer: **Sea Green**", "sea green"),
        ("<think>Answer: red</think>\nAnswer: blue", "blue"),
        ("Answer: 快乐", "快乐"),
        ("", ""),
    ],
)
def test_the_name_is_what_follows_the_colon(answer, name):
    assert named(answer) == name


def test_an_unlisted_answer_is_counted_and_drawn_with_the_seed_or_wrong():
    chosen = ["red", "mauve", "blue", "", "red"] * 20
    clusters, unlisted = assigned(chosen, ["red", "blue"], "wrong", 0)
    assert clusters[:5].tolist() == [0, 2, 1, 2, 0] and unlisted == 40
    drawn, unlisted = assigned(chosen, ["red", "blue"], "random", 0)
    assert unlisted == 40 and set(drawn) == {0, 1}
    others = clusters == 2
    assert (drawn[~others] == clusters[~others]).all() and 0 < drawn[others].mean() < 1
    assert (assigned(chosen, ["red", "blue"], "random", 0)[0] == drawn).all()
    assert (assigned(chosen, ["red", "blue"], "random", 1)[0] != drawn).any()


def test_rare_labels_are_left_out_if_there_are_enough_others():
    prompts = []

    def ask(questions, seed=0):
        prompts.extend(questions)
        return ["Answer 1: a\nAnswer 2: b"]

    labels = ["a"] * 1000 + ["b"] * 1000 + ["c"] * 3 + ["d"] * 4 + [""]  # rare: 3 of 2,008
    assert merged(ask, labels, "letter", 2) == ["a", "b"]
    assert "'d': 4" in prompts[0] and "'c'" not in prompts[0]
    merged(ask, ["a", "b", "b"], "letter", 2)
    assert "'a': 1" in prompts[1]


def test_names_are_asked_for_again_if_they_are_not_k():
    seeds = []

    def ask(questions, seed=0):
        seeds.append(seed)
        return ["1: a\n2: A.\n3: b" if seed < last else "1: a\n2: b\n3: c"]

    last = 2
    assert merged(ask, ["a", "b", "c"], "letter", 3) == ["a", "b", "c"] and seeds == [0, 1, 2]
    last = TRIES
    with pytest.raises(UserError, match=r"letter: .* 3 names and gave 2, 3 times"):
        merged(ask, ["a", "b", "c"], "letter", 3)


def test_the_four_steps():
    asked = []

    def ask(questions, pictures=False, seed=0):
        asked.append((len(questions), pictures))
        if pictures:
            assert questions == ["Describe the mood of this image in one or two sentences."] * 4
            return ["bright", "", "dark", "grim"]
        if "one to three words after" in questions[0]:
            return ["Answer: " + ("gay" if "bright" in q else "sad") for q in questions]
        if "with the number of images" in questions[0]:
            assert "{'sad': 2, 'gay': 1}" in questions[0] and "into 2 categories" in questions[0]
            return ["Answer 1: Sad\nAnswer 2: Gay"]
        assert all("? sad, gay\n" in question for question in questions)
        return ["Answer: gay" if "bright" in q else "Answer: sad." for q in questions]

    result = sort_images(ask, 4, "mood", 2, "wrong", 0)
    assert result.clusters.tolist() == [1, 2, 0, 0] and result.names == ["sad", "gay"]
    assert result.unlisted == 1 and result.descriptions == ["bright", "", "dark", "grim"]
    assert asked == [(4, True), (3, False), (1, False), (3, False)]
