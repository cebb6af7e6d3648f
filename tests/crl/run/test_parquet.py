"""Embeddings in Parquet files: the same as those of the cache, and one line for every mistake."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from parquet_files import write_parts
from toy_vlm import DIM, ToyVLM, direct, make_images

from crl.collection import Collection
from crl.embed import embed_images
from crl.run.errors import UserError
from crl.run.parquet import is_embeddings, read_digests, read_manifest, read_rows
from crl.vlm import load_vlm


@pytest.fixture
def paths(tmp_path):
    return make_images(tmp_path / "images", 11)


@pytest.mark.parametrize("queries", [None, 3])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_they_are_used_like_the_cache(paths, tmp_path, queries, dtype):
    vlm, folder = ToyVLM(queries=queries), tmp_path / "parts"
    embedded = direct(vlm, paths[:7]).astype(dtype)
    write_parts(folder, paths[:7], embedded, dtype=dtype)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    asked = [*paths[::-1], paths[2]]
    for encoded in (4, 0):
        vlm = ToyVLM(queries=queries)
        got = embed_images(vlm, asked, tmp_path / "cache", 2, embeddings=folder)
        expected = np.concatenate([embedded.astype(np.float32), direct(vlm, paths[7:])])
        assert np.array_equal(got.image, np.concatenate([expected[::-1], expected[2:3]]))
        assert vlm.images == encoded and got.image.dtype == np.float32
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_what_the_cache_has_comes_from_there(paths, tmp_path):
    good = embed_images(ToyVLM(), paths, tmp_path / "cache").image
    write_parts(tmp_path / "parts", paths, good + 1)
    found = embed_images(ToyVLM(), paths, tmp_path / "cache", embeddings=tmp_path / "parts")
    assert np.array_equal(found.image, good)


def test_reading(paths, tmp_path):
    image = direct(ToyVLM(), paths)
    write_parts(tmp_path, paths, image)
    manifest = read_manifest(tmp_path)
    assert [file.name for file in manifest.files] == [f"part-00000{i}.parquet" for i in range(3)]
    groups = [group for file in manifest.files for group in read_rows(file)]
    assert [len(rows) for _, rows in groups] == [3, 1, 3, 1, 3]
    assert np.array_equal(np.concatenate([rows for _, rows in groups]), image)
    assert [p for names, _ in groups for p in names.to_pylist()] == [str(p) for p in paths]
    cached = embed_images(ToyVLM(), paths, None).digests
    assert np.array_equal(np.concatenate([read_digests(f) for f in manifest.files]), cached)


# ---- a collection without its images


@pytest.mark.parametrize("root", [True, False])
def test_a_collection_from_embeddings_alone(tmp_path, root):
    paths = make_images(tmp_path / "images/a", 5) + make_images(tmp_path / "images/b", 3, first=5)
    folder = tmp_path / "parts"
    write_parts(folder, paths, direct(ToyVLM(), paths), tmp_path / "images" if root else "")
    expected = Collection.embed(tmp_path / "images", ToyVLM(), cache=None)
    shutil.rmtree(tmp_path / "images")
    photos = Collection.load(folder, ToyVLM())
    assert photos.files == expected.files and photos.names == expected.names
    assert photos.folder == expected.folder
    assert np.array_equal(photos.image, expected.image) and isinstance(photos.image, np.memmap)
    assert np.array_equal(photos.digests, expected.digests)
    assert photos.remarks() == [] and photos.place("b/006.png") == 6


def test_a_collection_of_another_vlm(paths, tmp_path):
    write_parts(tmp_path / "parts", paths, direct(ToyVLM(), paths))
    with pytest.raises(UserError, match="fingerprint toy-1; the VLM in use has toy-2"):
        Collection.load(tmp_path / "parts", ToyVLM("toy-2"))


# ---- mistakes

MISTAKES = {
    "of toy in fp32, fingerprint other; the VLM in use has toy-1": {"fingerprint": "other"},
    "manifest.json is not the manifest of embeddings: format": {"format": "crl-parquet-9"},
    "manifest.json is not the manifest of embeddings: dtype": {"dtype": "float64"},
    "manifest.json is not the manifest of embeddings: shape": {"shape": []},
    "part-000000.parquet: its embeddings are .*, the manifest says 4 numbers": {"shape": [4]},
}


@pytest.mark.parametrize("says", MISTAKES)
def test_a_wrong_manifest(paths, tmp_path, says):
    vlm = ToyVLM()
    write_parts(tmp_path / "parts", paths, direct(vlm, paths), **MISTAKES[says])
    with pytest.raises(UserError, match=says) as caught:
        embed_images(vlm, paths, tmp_path / "cache", embeddings=tmp_path / "parts")
    assert "\n" not in str(caught.value) and vlm.images == 0


def test_a_part_that_does_not_fit_the_manifest(paths, tmp_path):
    image = direct(ToyVLM(), paths)
    write_parts(tmp_path / "a", paths, image)
    write_parts(tmp_path / "b", paths, image, fingerprint="toy-2")
    write_parts(tmp_path / "c", paths, image, dtype="float16")
    part = "part-000001.parquet"
    for other, says in (
        ("b", f"{part} is of another VLM"),
        ("c", f"{part} holds halffloat, the manifest says float"),
    ):
        shutil.copy(tmp_path / other / part, tmp_path / "a" / part)
        with pytest.raises(UserError, match=says):
            read_manifest(tmp_path / "a")


@pytest.mark.parametrize("size", [0, 7, 300, -1])
def test_a_part_that_was_cut_short_is_named(paths, tmp_path, size):
    write_parts(tmp_path / "parts", paths, direct(ToyVLM(), paths))
    victim = tmp_path / "parts/part-000001.parquet"
    victim.write_bytes(victim.read_bytes()[:size])
    with pytest.raises(UserError, match=r"part-000001\.parquet is no complete file") as caught:
        embed_images(ToyVLM(), paths, tmp_path / "cache", embeddings=tmp_path / "parts")
    assert "\n" not in str(caught.value)


def test_missing_things(paths, tmp_path):
    for folder, says in ((tmp_path / "none", "No such file"), (paths[0], "Not a directory")):
        with pytest.raises(UserError, match=f"holds no embeddings: .*{says}"):
            read_manifest(folder)
        assert not is_embeddings(folder)
    write_parts(tmp_path / "parts", paths, np.full((11, DIM), np.nan))
    assert is_embeddings(tmp_path / "parts")
    with pytest.raises(UserError, match=r"part-000000\.parquet holds NaN"):
        embed_images(ToyVLM(), paths, None, embeddings=tmp_path / "parts")
    for file in tmp_path.glob("parts/*.parquet"):
        file.unlink()
    with pytest.raises(UserError, match="holds no part-"):
        read_manifest(tmp_path / "parts")


def test_a_collection_takes_the_vlm_and_the_precision_of_its_manifest(tmp_path):
    files = make_images(tmp_path / "images", 5)
    vlm = load_vlm("demo", precision="bf16")
    image = embed_images(vlm, files, cache=None).image
    about = {"vlm": "demo", "precision": "bf16", "fingerprint": vlm.fingerprint}
    write_parts(tmp_path / "parts", files, image, dtype="float16", **about)
    photos = Collection.load(tmp_path / "parts")
    assert photos.vlm.fingerprint == vlm.fingerprint != load_vlm("demo").fingerprint
    assert photos.under("clevr4_color").x.shape[0] == 5
    with pytest.raises(UserError, match="of demo in bf16, fingerprint"):
        Collection.load(tmp_path / "parts", load_vlm("demo"))


def test_a_collection_of_an_object_store_keeps_its_names(tmp_path):
    files = make_images(tmp_path / "images", 3)
    folder = tmp_path / "parts"
    write_parts(folder, files, direct(ToyVLM(), files))
    for part in folder.glob("*.parquet"):
        table = pq.read_table(part)
        names = [f"s3://bucket/some/{Path(path).name}" for path in table["path"].to_pylist()]
        table = table.set_column(0, "path", pa.array(names))
        pq.write_table(table, part)
    photos = Collection.load(folder, ToyVLM())
    assert photos.names == [file.name for file in files]
    assert len(photos.thumbnails) == 3
