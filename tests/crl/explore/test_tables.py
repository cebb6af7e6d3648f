"""What is written of a collection: tables, read back by other programs, and the page's data."""

import base64
import io
import json
import re
import shutil
from copy import copy

import numpy as np
import pandas as pd
import pytest
from PIL import ExifTags, Image
from safetensors import safe_open

from crl.explore import collection, tables
from crl.explore.collection import Collection
from crl.explore.tables import write_tables


@pytest.fixture
def views(color, side):
    return [color, side]


def test_tables(photos, views, tmp_path):
    labels = {"red-left-0.png": "warm", "blue-left-0.png": "cold"}
    guesses = {view.name: view.guesses(labels) for view in views}
    write_tables(tmp_path, photos, views, None, guesses)
    csv = pd.read_csv(tmp_path / "images.csv")
    parquet = pd.read_parquet(tmp_path / "images.parquet")
    assert list(csv["path"]) == photos.names
    assert set(csv["width"]) == set(csv["height"]) == {32}
    for view in views:
        expected, guess = view.clusters(), guesses[view.name]
        for table in (csv, parquet):
            for column in ("cluster", "name", "words"):
                assert list(table[f"{view.name}_{column}"]) == list(expected[column])
            places = table[[f"{view.name}_x", f"{view.name}_y"]]
            np.testing.assert_allclose(places, view.map, atol=1e-3)
            assert list(table[f"{view.name}_label"]) == list(guess.label)
            ask = table[f"{view.name}_ask"].dropna().astype(int).sort_values()
            assert list(ask.index) == list(guess.ask)
    first = [float(row.split("; ")[0]) for row in csv["color_probabilities"]]
    np.testing.assert_allclose(first, views[0].best[1][:, 0], atol=0.006)
    assert "universal_name" not in csv and "universal_x" in csv
    assert set(parquet.columns) - set(csv.columns) == {"image", "neighbors"}
    cosines = views[0].x @ views[0].x.T - 9 * np.eye(len(csv))
    for row, near in zip(cosines, parquet["neighbors"], strict=True):  # as Embedding Atlas reads it
        np.testing.assert_allclose(near["distances"], 1 - np.sort(row)[:-9:-1], atol=1e-6)
        np.testing.assert_allclose(row[near["ids"]], 1 - near["distances"], atol=1e-6)
    picture = Image.open(io.BytesIO(parquet["image"][0]["bytes"]))
    assert picture.size == (32, 32) and parquet["image"][0]["path"] == photos.names[0]
    with safe_open(tmp_path / "embeddings.safetensors", "np") as file:
        assert set(file.keys()) == {"image", "text/color", "text/side"}
        np.testing.assert_array_equal(file.get_tensor("image"), photos.image)
        assert file.get_tensor("text/side").shape == (2, 6)
        assert file.metadata() == {"vlm": "colors", "fingerprint": "colors-1"}


def test_what_cameras_wrote_becomes_columns(photos, tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Model] = "=X-T5"
    exif[ExifTags.IFD.GPSInfo] = {1: "S", 2: (33.0, 51.0, 30.0), 3: "E", 4: (151.0, 12.0, 36.0)}
    (tmp_path / "in").mkdir()
    for name, more in {"a.jpg": {"exif": exif}, "b.jpg": {}}.items():
        Image.new("RGB", (64, 64), "red").save(tmp_path / "in" / name, **more)
    taken = Collection.embed(tmp_path / "in", photos.vlm)
    for _ in range(2):  # the second from the cache
        write_tables(tmp_path, copy(taken), [])
        csv = pd.read_csv(tmp_path / "images.csv", index_col="path")
        parquet = pd.read_parquet(tmp_path / "images.parquet")
        assert not {"date", "keywords"} & {*csv, *parquet}  # no picture has them
        assert csv["camera"]["a.jpg"] == "'=X-T5" and parquet["camera"][0] == "=X-T5"
        assert pd.isna(parquet["camera"][1]) and np.isnan(parquet["latitude"][1])
        np.testing.assert_allclose(parquet.loc[0, ["latitude", "longitude"]].astype(float),
                                   [-33.858333, 151.21], atol=1e-6)  # fmt: skip
        assert csv["longitude"]["a.jpg"] == 151.21 and "latitude" in csv


def test_names_of_files_are_no_formulas_in_csv(photos, color, tmp_path, monkeypatch):
    names = ["=cmd.png", "@a/b.png", "-1.png", "+x.png", "a=b.png", *photos.names[5:]]
    renamed = copy(photos)
    object.__setattr__(renamed, "names", names)
    monkeypatch.setattr(tables, "MOST_COMPARED", 23)
    write_tables(tmp_path, renamed, [color])
    assert "neighbors" not in pd.read_parquet(tmp_path / "images.parquet")
    escaped = [f"'{name}" for name in names[:4]] + names[4:]
    csv = pd.read_csv(tmp_path / "images.csv")
    assert list(csv["path"]) == escaped and csv["color_x"].dtype == float
    assert (csv["color_x"] < 0).any()
    assert list(pd.read_parquet(tmp_path / "images.parquet")["path"]) == names


def test_a_panel_has_what_the_view_has(views):
    panel = views[0].panel(np.arange(24), None, None)
    clusters = views[0].groups().clusters
    assert [card["name"] for card in panel["clusters"]] == views[0].groups().titles
    for number, card in enumerate(panel["clusters"]):
        members = np.flatnonzero(clusters.label == number)
        assert set(card["typical"]) == set(members) > set(card["uncertain"][:5])
        assert card["typical"][0] == members[clusters.distance[members].argmin()]
        assert card["uncertain"][0] == members[clusters.certainty[members].argmin()]
        assert card["words"][0][0] == card["name"] and not card["weak"]
    np.testing.assert_allclose(panel["standing"].std(axis=0), 1, rtol=1e-4)
    assert panel["neighbours"].shape == (24, 8) and panel["shared"].shape == (24, 8, 3)


def test_a_page_with_a_sample_numbers_its_own_images(photos, views, tmp_path, monkeypatch):
    monkeypatch.setattr(collection, "MOST_ON_PAGE", 10)
    photos.report(tmp_path / "report.html", views)
    page = (tmp_path / "report.html").read_text("utf-8")
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])
    assert len(data["names"]) == 10
    assert "10 of 24 pictures, a random sample" in page and "colors (colors-1)" in page
    assert "2 texts from a file; the VLM reads &#39;a thing that is left&#39;" in page
    for panel in data["panels"]:
        numbers = [i for c in panel["clusters"] for i in (*c["typical"], *c["uncertain"])]
        assert numbers and set(numbers) <= set(range(10))
    for cluster in data["panels"][1]["clusters"]:
        assert all(data["names"][i].startswith(cluster["name"]) for i in cluster["typical"])


def test_copies_and_scans(photos, bases, tmp_path):
    """Copies are named; the page has larger pictures of files that browsers do not show."""
    for name in ("b.png", "sub/a.png", "a.png", "z.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(photos.files[0], tmp_path / "in" / name)
    shutil.copy(photos.files[9], tmp_path / "in/c.png")
    Image.new("RGB", (640, 480), "red").save(tmp_path / "in/scan.tif")
    scans = Collection.embed(tmp_path / "in", photos.vlm)
    assert scans.remarks() == [
        "copies of other images: 3, b.png (of a.png), z.png (of a.png), sub/a.png (of a.png)"
    ]
    views = [scans.under(bases / "color.yaml")]
    write_tables(tmp_path, scans, views)
    table = pd.read_csv(tmp_path / "images.csv", index_col="path", keep_default_na=False)
    copies = {name: "a.png" for name in ("b.png", "sub/a.png", "z.png")}
    assert table["copy_of"].to_dict() == {name: copies.get(name, "") for name in scans.names}
    assert (table["near_copy_of"] == table["copy_of"]).all()
    scans.report(tmp_path / "report.html", views)
    page = (tmp_path / "report.html").read_text("utf-8")
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])
    assert [data["names"][first] for first in data["copies"]] == [
        copies.get(name, name) for name in data["names"]
    ]
    ((place, preview),) = data["previews"].items()
    assert data["names"][int(place)] == "scan.tif"
    assert Image.open(io.BytesIO(base64.b64decode(preview))).size == (512, 384)
