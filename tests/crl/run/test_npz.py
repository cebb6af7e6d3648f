"""Embeddings from a file: valid ones are returned unchanged; every fault has its message."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crl.run.errors import UserError
from crl.run.npz import checked, read_npz

GOOD = {"image": np.eye(4, 3) + 1, "text": np.ones((2, 3)), "labels": np.arange(4)}
SHAPES = {"image": "N D|N Q D", "text": "K D", "labels": "N"}


def test_embeddings_become_float32_and_other_arrays_stay(tmp_path):
    np.savez(tmp_path / "a.npz", **GOOD, other=np.array("x"))
    found = checked(tmp_path / "a.npz", read_npz(tmp_path / "a.npz"), **SHAPES)
    assert found.keys() == SHAPES.keys()
    assert found["image"].dtype == np.float32 and np.array_equal(found["image"], GOOD["image"])
    assert found["labels"].dtype == GOOD["labels"].dtype
    several = {**GOOD, "image": np.ones((4, 7, 3))}
    assert checked(tmp_path, several, **SHAPES)["image"].shape == (4, 7, 3)
    assert checked(tmp_path, {"query": np.zeros((5, 3), int)}, query="Q 3")["query"].shape == (5, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"image": np.ones((4, 5))},
            r"must hold image \(N, D\) or \(N, Q, D\), text \(K, D\), labels",
        ),
        ({"labels": np.arange(3)}, r"not image \(4, 3\), text \(2, 3\), labels \(3,\)"),
        ({"text": np.ones(3)}, r"must hold .*, not .* text \(3,\)"),
        ({"image": np.full((4, 3), np.nan)}, "image holds NaN or infinity"),
        ({"image": np.full((4, 3), "a")}, "image holds <U1 values, not real numbers"),
        ({"image": np.eye(4, 3) * 0}, "image is empty or has a row of zeros"),
        ({"text": np.ones((0, 3))}, "text is empty"),
        ({"text": np.ones((2, 3)) * 1e-300}, "text is empty or has a row of zeros"),
        ({"text": np.ones((2, 3)) * 1e30}, "text has rows too long for float32; scale"),
        ({"text": np.ones((2, 3)) * 1e300}, "text has rows too long for float32; scale"),
    ],
)
def test_what_does_not_fit(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        checked(tmp_path / "a.npz", {**GOOD, **change}, **SHAPES)


def test_missing_arrays_are_named(tmp_path):
    with pytest.raises(UserError, match=r"must hold image \(N, D\).*; text, labels is missing"):
        checked(tmp_path / "a.npz", {"image": GOOD["image"]}, **SHAPES)


def test_files_that_are_no_npz(tmp_path):
    file = tmp_path / "a.npz"
    with pytest.raises(UserError, match=r"there is no file .*a\.npz"):
        read_npz(file)
    np.savez_compressed(file, **GOOD)
    whole = file.read_bytes()
    for content in (b"", b"PK", b"no archive", whole[:-30], whole[: len(whole) // 2]):
        file.write_bytes(content)
        with pytest.raises(UserError, match=r"a\.npz"):
            read_npz(file)
    np.savez(file, image=np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(
        UserError, match=r"holds Python objects, which are never loaded"
    ):  # would run its code
        read_npz(file)
    with open(file, "wb") as stream:
        np.save(stream, np.eye(3))  # one array, no archive of several
    with pytest.raises(UserError, match="must be an NPZ archive of named arrays"):
        read_npz(file)


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(tmp_path_factory, content):
    file = tmp_path_factory.getbasetemp() / "any.npz"
    file.write_bytes(content)
    with pytest.raises(UserError):
        read_npz(file)
