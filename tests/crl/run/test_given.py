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

GOOD = {"image": np.eye(4, 3) + 1, "text": np.ones((2, 3)), "labels": np.array(list("abac"))}
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


@given(st.binary(max_size=300), st.sampled_from(["npz", "safetensors", "parquet"]))
def test_any_bytes_are_read_or_refused(tmp_path_factory, content, form):
    file = tmp_path_factory.getbasetemp() / f"any.{form}"
    file.write_bytes(content)
    with pytest.raises(UserError):
        read_given([file])
