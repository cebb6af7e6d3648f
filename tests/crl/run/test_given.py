"""Embeddings made elsewhere: valid ones come unchanged; every fault has its line."""

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet
from safetensors.numpy import save_file

from crl.run.errors import UserError
from crl.run.given import checked, read_given

GOOD = {
    "image": np.eye(4, 3) + 1,
    "text": np.ones((2, 3)),
    "labels": np.array(["a", "b", "a", "c"]),
}
SHAPES = {"image": "N D|N Q D", "text": "K D", "labels": "N"}


def write(folder, form, arrays=GOOD) -> list:
    """The arrays in one format."""
    file = folder / f"mine.{form}"
    if form == "npz":
        np.savez(file, **arrays)
        return [file]
    if form == "safetensors":
        texts = {k: json.dumps(x.tolist()) for k, x in arrays.items() if x.dtype.kind == "U"}
        numbers = {k: x for k, x in arrays.items() if x.dtype.kind != "U"}
        save_file(numbers, file, metadata=texts)
        return [file]
    second = folder / "text.parquet"  # not a row per image
    columns = {k: pa.array(x.tolist()) for k, x in arrays.items() if k != "text"}
    parquet.write_table(pa.table(columns), file)
    parquet.write_table(pa.table({"text": pa.array(arrays["text"].tolist())}), second)
    return [file, second]


@pytest.mark.parametrize("form", ["npz", "safetensors", "parquet"])
@pytest.mark.parametrize("image", [GOOD["image"], np.ones((4, 7, 3))])
def test_embeddings_become_float32_and_other_arrays_stay(tmp_path, form, image):
    files = write(tmp_path, form, GOOD | {"image": image})
    arrays = checked(files, read_given(files), **SHAPES)
    assert arrays.keys() == SHAPES.keys()
    assert arrays["image"].dtype == np.float32 and np.array_equal(arrays["image"], image)
    assert arrays["labels"].tolist() == GOOD["labels"].tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": np.ones((4, 5))}, r"must hold image \(N, D\) or \(N, Q, D\), text \(K, D\)"),
        ({"labels": np.arange(3)}, r"not image \(4, 3\), text \(2, 3\), labels \(3,\)"),
        ({"text": np.ones(3)}, r"must hold .*, not .* text \(3,\)"),
        ({"image": np.full((4, 3), np.nan)}, "image holds NaN or infinity"),
        ({"image": np.full((4, 3), "a")}, "image holds <U1 values, not real numbers"),
        ({"image": np.eye(4, 3) * 0}, "image is empty or has a row of zeros"),
        ({"text": np.ones((0, 3))}, "text is empty"),
        ({"text": np.ones((2, 3)) * 1e-300}, "text is empty or has a row of zeros"),
        ({"text": np.ones((2, 3)) * 1e300}, "text has rows too long for float32; scale"),
    ],
)
def test_what_does_not_fit(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        checked([tmp_path / "a.npz"], {**GOOD, **change}, **SHAPES)
    with pytest.raises(UserError, match=r"must hold image \(N, D\).*; text, labels is missing"):
        checked([tmp_path / "a.npz"], {"image": GOOD["image"]}, **SHAPES)


@pytest.mark.parametrize("form", ["npz", "safetensors", "parquet"])
def test_files_that_are_none_of_that_format(tmp_path, form):
    files = write(tmp_path, form)
    whole = files[0].read_bytes()
    for content in (b"", b"PK", b"no archive", whole[:-30], whole[: len(whole) // 2]):
        files[0].write_bytes(content)
        with pytest.raises(UserError, match=rf"mine\.{form}") as caught:
            read_given(files)
        assert "\n" not in str(caught.value)


def test_other_files(tmp_path):
    with pytest.raises(UserError, match=r"there is no file .*a\.npz"):
        read_given([tmp_path / "a.npz"])
    (tmp_path / "a.pkl").touch()
    with pytest.raises(UserError, match=r"must end with \.npz, \.safetensors, \.parquet"):
        read_given([tmp_path / "a.pkl"])
    files = write(tmp_path, "npz")
    with pytest.raises(UserError, match="holds image, which another file holds too"):
        read_given([*files, *files])
    np.savez(files[0], image=np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(UserError, match="holds Python objects, which are never loaded"):
        read_given(files)  # would run its code
    with open(files[0], "wb") as stream:
        np.save(stream, np.eye(3))  # one array, no archive of several
    with pytest.raises(UserError, match=r"cannot read .*mine\.npz"):
        read_given(files)
    ragged = pa.table({"image": pa.array([[1.0], [1.0, 2.0]])})
    parquet.write_table(ragged, tmp_path / "ragged.parquet")
    with pytest.raises(UserError, match="lists of different lengths"):
        read_given([tmp_path / "ragged.parquet"])
    parquet.write_table(pa.table({"labels": pa.array(["a", None])}), tmp_path / "gap.parquet")
    with pytest.raises(UserError, match="a column has gaps"):
        read_given([tmp_path / "gap.parquet"])


@given(st.binary(max_size=300), st.sampled_from(["npz", "safetensors", "parquet"]))
def test_any_bytes_are_read_or_refused(tmp_path_factory, content, form):
    file = tmp_path_factory.getbasetemp() / f"any.{form}"
    file.write_bytes(content)
    with pytest.raises(UserError):
        read_given([file])
