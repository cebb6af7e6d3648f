"""Embeddings made elsewhere. (Those of the store: crl/run/test_store.py.)"""

import io
import struct
from zipfile import ZipFile

import numpy as np
import pyarrow as pa
import pytest
from mistakes import FIFO, FOLDER, GARBAGE, LOOP, cuts, features, flipped
from pyarrow import parquet
from safetensors.numpy import save

OF = ("clustering_of", "few_shot_of", "similarity_of", "fashion_of")
GOOD = features()


def npz(**arrays) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def columns(**arrays) -> bytes:
    buffer = io.BytesIO()
    table = pa.table({key: list(array) for key, array in arrays.items()})
    parquet.write_table(table, buffer, write_page_checksum=True)
    return buffer.getvalue()


def single(file: str) -> None:
    with open(file, "wb") as stream:
        np.save(stream, GOOD["image"])


def liar(file: str) -> None:
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (10000000000000, 8), }"
    with ZipFile(file, "w") as archive:
        size = struct.pack("<H", len(header) + 1)
        archive.writestr("image.npy", b"\x93NUMPY\x01\x00" + size + header + b"\n")


NUMBERS = {key: array for key, array in GOOD.items() if array.dtype.kind != "U"}
WHOLE = {
    "npz": npz(**GOOD),
    "safetensors": save(NUMBERS),
    "parquet": columns(image=GOOD["image"], labels=GOOD["labels"]),
}
PICKLED = npz(image=np.array([{"a": 1}], object))
NO_FILES = [
    *(
        (f"bad.{form}", other, "there is no file bad.")
        for form in WHOLE
        for other in (FOLDER, FIFO)
    ),
    *((f"bad.{form}", other, f"bad.{form}") for form in WHOLE for other in (LOOP, GARBAGE)),
    ("bad.npz", PICKLED, "bad.npz is no NPZ file, or holds Python objects, which are never loaded"),
    ("bad.npz", single, "cannot read bad.npz: it must be an archive of named arrays"),
    ("bad.npz", liar, "bad.npz"),
    ("bad.npz", flipped(WHOLE["npz"], 200), "cannot read bad.npz: "),
    ("bad.parquet", flipped(WHOLE["parquet"], 60), "cannot read bad.parquet: "),
]


@pytest.mark.parametrize(("name", "content", "words"), NO_FILES, ids=range(len(NO_FILES)))
def test_files_that_are_none(refused, name, content, words):
    refused(f"clustering_of features={name}", words, {name: content})


@pytest.mark.parametrize("form", WHOLE)
@pytest.mark.parametrize("part", range(8))
@pytest.mark.parametrize("command", OF[1:])
def test_files_that_are_cut_off(refused, form, part, command):
    name = f"bad.{form}"
    refused(f"{command} features={name}", name, {name: cuts(WHOLE[form], 8)[part]})


def with_row(key: str, value: object) -> np.ndarray:
    x = GOOD[key].astype(float) if isinstance(value, float) else GOOD[key].copy()
    x[1] = value
    return x


IMAGE, TEXT, LABELS = GOOD["image"], GOOD["text"], GOOD["labels"]
IMAGES = {  # what every task refuses
    "image holds NaN or infinity": with_row("image", np.nan),
    "image has rows too long for float32; scale the embeddings": IMAGE * 1e30,
    "image is empty or has a row of zeros (in float32)": with_row("image", 0.0),
    "image holds complex128 values, not real numbers": IMAGE * 1j,
    "bad.npz must hold ": IMAGE[:, :3],
    "image is missing": None,
}
SAME = np.arange(1, 6)[:, None] * TEXT[:1]
OTHERS = [  # command, arrays, words
    ("clustering_of", {"text": TEXT * 0}, "text is empty or has a row of zeros (in float32)"),
    ("clustering_of", {"labels": LABELS[:-1]}, "labels (7,)"),
    ("clustering_of", {"labels": with_row("labels", np.nan)}, "labels holds NaN; give every image"),
    ("clustering_of", {"labels": LABELS * 0}, "there is one class only, 0; two or more are needed"),
    ("few_shot_of", {"labels": with_row("labels", 9)}, "class 9 has 1 images; it needs 2"),
    ("fashion_of", {"query": GOOD["query"] + [9, 0, 0]}, "query, row 0: image 9 is not in 0..7"),
    ("fashion_of", {"query": GOOD["query"] + [0, 7, 0]}, "row 0: attribute 7 is not in 0..0"),
    ("similarity_of", {"ids": with_row("ids", 0)}, "names some of its images twice; keep one"),
    ("similarity_of", {"ids": GOOD["ids"] + 99}, "bad.npz lacks 5 of 5 images"),
    ("similarity_of", {"conditions": np.array(["c"])}, "bad.npz lacks 1 of 1 conditions"),
]
for command, key in zip(OF, ("text", "text", "scene_text", "text0"), strict=True):
    OTHERS += [(command, {"image": image}, words) for words, image in IMAGES.items()]
    OTHERS += [
        (command, {key: TEXT[:1]}, "needs 2 texts or more"),
        (command, {key: SAME}, "its texts all look the same to the VLM"),
        (command, {key: TEXT * np.nan}, f"{key} holds NaN or infinity"),
    ]


@pytest.mark.parametrize(("command", "change", "words"), OTHERS, ids=range(len(OTHERS)))
def test_arrays(refused, command, change, words):
    arrays = {key: x for key, x in (GOOD | change).items() if x is not None}
    refused(f"{command} features=bad.npz", words, {"bad.npz": npz(**arrays)})
