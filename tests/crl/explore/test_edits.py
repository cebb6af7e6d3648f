from collections import namedtuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crl.explore.edits import SKETCH, Edit, Edits, apply, overlap, sketch
from crl.run.errors import UserError

Edited = namedtuple("Edited", "label names lost")
LABEL = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2])
DIGESTS = np.random.default_rng(0).integers(0, 256, (len(LABEL), 16), np.uint8).view("V16")[:, 0]


def group(*images):
    return sketch(DIGESTS[list(images)])


def halves(members):
    return np.arange(len(members)) % 2


def applied(*edits, label=LABEL):
    return Edited(*apply(edits, label, DIGESTS, halves))


def test_name_merge_and_split_in_their_order():
    name = Edit(do="name", groups=[group(4, 5, 6)], name="calm")
    merge = Edit(do="merge", groups=[group(4, 5, 6), group(7, 8)])
    split = Edit(do="split", groups=[group(0, 1, 2, 3)])
    assert applied(name).names == {1: "calm"}
    merged = applied(name, merge)
    assert merged.label.tolist() == [1, 1, 1, 1, 0, 0, 0, 0, 0]  # the largest first
    assert merged.names == {0: "calm"}
    both = applied(name, merge, split)
    assert both.label.tolist() == [1, 2, 1, 2, 0, 0, 0, 0, 0] and both.names == {0: "calm"}
    again = Edit(do="split", groups=[group(4, 5, 6, 7, 8)])  # what has been merged; its name goes
    divided = applied(name, merge, split, again)
    assert divided.label.tolist() == [1, 2, 1, 2, 0, 3, 0, 3, 0] and divided.names == {}
    assert applied(name, Edit(do="name", groups=name.groups)).names == {}  # taken back


def test_an_edit_finds_its_cluster_after_others_were_computed_or_is_left_out():
    name = Edit(do="name", groups=[group(4, 5, 6)], name="calm")
    near = applied(name, label=np.array([1, 1, 1, 1, 0, 0, 2, 2, 2]))  # 2 of 3
    assert near.names == {2: "calm"} and near.lost == 0
    far = applied(name, label=np.array([0, 0, 1, 1, 0, 1, 2, 2, 2]))  # no more than 1 of 3
    assert far.names == {} and far.lost == 1
    assert far.label.tolist() == [0, 0, 1, 1, 0, 1, 2, 2, 2]


@given(st.sets(st.integers(0, 10**4)), st.sets(st.integers(0, 10**4)))
def test_the_overlap_is_the_jaccard_index(a, b):
    keys = [tuple(f"{i:016x}" for i in sorted(group)) for group in (a, b)]
    assert overlap(*keys) == len(a & b) / max(1, len(a | b))


def test_the_overlap_of_large_groups_is_estimated():
    rng = np.random.default_rng(0)
    digests = rng.integers(0, 256, (30_000, 16), np.uint8).view("V16")[:, 0]
    a, b = sketch(digests[:20_000]), sketch(digests[10_000:])
    assert len(a) == SKETCH and abs(overlap(a, b) - 1 / 3) < 0.09  # three standard errors


def test_a_view_shows_the_edits_in_all_that_it_gives(photos, color):
    label = color.groups(4).clusters.label
    red, green = (label[photos.place(f"{name}-left-0.png")] for name in ("red", "green"))
    groups = [sketch(photos.digests[label == c]) for c in (red, green)]
    both = [sketch(photos.digests[np.isin(label, [red, green])])]
    done = (Edit(do="merge", groups=groups), Edit(do="name", groups=both, name="=warm"))
    edited = color.with_edits(number=4, done=done)
    table = edited.clusters()
    kind = table["file"].str.split("-").str[0]
    assert (table["name"] == kind.replace(["red", "green"], "=warm")).all()
    assert edited.groups().clusters.note == "4 groups; edited by hand"
    lost = Edit(do="name", groups=[sketch(photos.digests[:1])], name="one of six")
    again = color.with_edits(number=4, done=(*done, lost))
    note = again.groups().clusters.note
    assert note.endswith("; 1 of 3 edits by hand fit no group any more and were left out")
    assert again.clusters().equals(table)
    assert color.clusters(4)["name"].nunique() == 4  # the view itself stays


def test_those_that_no_word_fits_are_a_group_of_their_own(photos, color):
    views = photos.under(["red", "green"], name="some", edits=Edits(number=2, none=True))
    table = views.clusters()
    none = views.standing.max(axis=1) <= 0
    assert none.any() and not none.all()
    assert (table["name"][none] == "fits none").all()
    assert set(table["name"][~none]) == {"red", "green"}
    assert views.groups().clusters.label.max() == 2
    assert (
        color.with_edits(none=True).groups(4).clusters.note == "4 groups; each picture fits a word"
    )


@pytest.mark.parametrize("text", ["{", '{"number": 0}', '{"done": [{"do": "rm", "groups": [[]]}]}'])
def test_a_broken_file_is_one_line(tmp_path, text):
    assert Edits.load(tmp_path, "mood") == Edits()
    kept = Edits(number=3, done=(Edit(do="name", groups=[group(1)], name="calm"),))
    kept.save(tmp_path, "mood")
    assert Edits.load(tmp_path, "mood") == kept
    (tmp_path / "clusters/mood.json").write_text(text)
    with pytest.raises(UserError, match=r"mood.json: .*; mend or remove it"):
        Edits.load(tmp_path, "mood")
