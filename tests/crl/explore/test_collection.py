"""A folder of pictures whose colors and sides are known, seen by a VLM that sees just these."""

import os

import numpy as np
import pytest
from color_vlm import COLORS, ColorVLM, draw, write_bases
from PIL import Image
from toy_vlm import ToyVLM

from crl.basis import TextBasis
from crl.embed import embed_texts
from crl.explore.collection import Collection
from crl.explore.listing import write_listing
from crl.projection import l2
from crl.representations import represent
from crl.representations.weighted import weighted_similarity
from crl.run.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    draw(folder)
    write_bases(folder.parent / "bases")
    return folder


@pytest.fixture(scope="module")
def photos(folder):
    return Collection.embed(folder, ColorVLM())


@pytest.fixture(scope="module")
def color(photos, folder):
    return photos.under(folder.parent / "bases/color.yaml")


@pytest.fixture(scope="module")
def side(photos, folder):
    return photos.under(folder.parent / "bases/side.yaml")


def value(file: str, place: int) -> str:
    return file.split("-")[place]


# ---- the collection


def test_what_cannot_be_read_is_left_out_and_said(tmp_path):
    draw(tmp_path, each=1)
    (tmp_path / "copy.png").write_bytes((tmp_path / "red-left-0.png").read_bytes())
    (tmp_path / "broken.png").write_bytes(b"no picture")
    (tmp_path / "notes.txt").touch()
    with pytest.warns(UserWarning, match="1 of 10 images could not be read"):
        photos = Collection.embed(tmp_path, ColorVLM())
    assert len(photos.files) == 9
    assert photos.remarks() == [
        "left out, since they are no images: 1 .txt",
        "1 could not be read: broken.png (not an image that Pillow knows)",
        "copies of other images: 1",
    ]
    for file in tmp_path.glob("*.png"):
        file.unlink()
    with pytest.raises(UserError, match=r"no images in .*; left out.*1 \.txt"):
        Collection.embed(tmp_path, ColorVLM())


def test_a_vlm_by_name_from_outside_and_only_new_images_are_embedded(tmp_path, folder):
    assert Collection.embed(folder, "color_vlm:ColorVLM").vlm.name == "colors"
    draw(tmp_path / "a", each=1)
    vlm, cache = ToyVLM(), tmp_path / "cache"
    Collection.embed(tmp_path / "a", vlm, cache=cache)
    assert vlm.images == 8
    (tmp_path / "a" / "new.png").write_bytes((folder / "red-left-2.png").read_bytes())
    Collection.embed(tmp_path / "a", vlm, cache=cache)
    assert vlm.images == 9


def test_an_image_is_found_by_name_and_by_path(photos, folder, monkeypatch):
    name = photos.names[5]
    monkeypatch.chdir(folder.parent)
    relative = f"{folder.name}/{name}"
    assert photos.names == sorted(os.listdir(folder)) and len(photos.image) == 24
    assert photos.place(name) == photos.place(folder / name) == photos.place(relative) == 5
    with pytest.raises(UserError, match=r"left-9\.png is no image of .*did you mean 'red-left-"):
        photos.place("red-left-9.png")


def test_r_is_the_product_of_images_and_texts(photos, folder):
    basis = TextBasis.load(folder.parent / "bases/color.yaml")
    text = embed_texts(photos.vlm, basis.prompts)
    r = photos.image @ text.T  # R = I Tᵀ
    np.testing.assert_allclose(photos.under(basis, "paper").x, l2(r), rtol=1e-5)
    posterior = represent("posterior", photos.image, text)
    np.testing.assert_array_equal(photos.under(basis).x, posterior)
    assert photos.under(basis).name == "color" and photos.under(basis, name="hue").name == "hue"
    with pytest.raises(UserError, match="unknown representation 'papr'; did you mean 'paper'"):
        photos.under(basis, "papr")
    with pytest.raises(UserError, match="name a basis; no texts came"):
        photos.under()


def test_which_criterion(photos, folder):
    bases = {n: TextBasis.load(folder.parent / f"bases/{n}.yaml") for n in ("color", "side")}
    fabric = TextBasis(criterion="fabric", vlm_prompt="{text}", texts=("silk", "wool of a left"))
    table = photos.rank({**bases, "fabric": fabric})
    assert table["color"] > table["fabric"] and table["side"] > table["fabric"]


def test_a_vlm_with_several_vectors_per_image(folder):
    photos = Collection.embed(folder, ToyVLM(queries=3), cache=None)
    basis = TextBasis(criterion="x", vlm_prompt="{text}", texts=tuple("abcde"))
    view = photos.under(basis)
    assert photos.universal.x.shape == (24, 5) and view.x.shape == (24, 5)
    table = view.nearest(photos.names[0], 3)
    similarity = view.x @ view.x[0]
    best = [i for i in np.argsort(-similarity, kind="stable") if i != 0][:3]
    np.testing.assert_allclose(table["similarity"], similarity[best], rtol=1e-5)
    assert len(photos.universal.nearest(photos.names[0], 30)) == 23
    assert len(view.clusters(2)) == 24


# ---- clusters


def test_clusters_have_the_names_of_what_they_show(color, side):
    for view, place, number in ((color, 0, 4), (side, 1, 2)):
        table = view.clusters(number)
        assert list(table.columns) == ["file", "cluster", "name", "words"]
        assert (table["name"] == [value(file, place) for file in table["file"]]).all()
        assert (table["words"].str.split("; ").str[0] == table["name"]).all()
    assert set(color.clusters()["name"]) == set(COLORS)  # their number is chosen, too
    assert color.groups().clusters.number == 4
    table = color.collection.universal.clusters(8)
    assert set(table["name"]) == {f"group {n}" for n in range(1, 9)}
    assert table.groupby("cluster")["file"].agg(lambda f: len({x[:-6] for x in f})).max() == 1


def test_maps_are_those_of_the_view(color, side):
    assert color.map.shape == (24, 2)
    kinds = np.array([value(name, 0) for name in color.collection.names])
    distance = np.linalg.norm(color.map[:, None] - color.map, axis=2) + 1e9 * np.eye(24)
    assert (kinds[distance.argmin(axis=1)] == kinds).all()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_images_and_equal_ones(tmp_path, folder, count):
    for number in range(count):
        Image.new("RGB", (8, 8), (50 * number + 5, 0, 200)).save(tmp_path / f"{number}.png")
    view = Collection.embed(tmp_path, ColorVLM()).under(folder.parent / "bases/color.yaml")
    assert len(view.clusters()) == count
    assert np.isfinite(view.map).all() and view.groups().clusters.note
    assert len(view.nearest("0.png", 10)) == count - 1
    for file in tmp_path.glob("*.png"):
        Image.new("RGB", (8, 8), "red").save(file)
    view = Collection.embed(tmp_path, ColorVLM()).under(folder.parent / "bases/color.yaml")
    assert set(view.clusters()["cluster"]) == {0} and np.isfinite(view.map).all()


# ---- search


def test_the_nearest_are_alike_under_the_criterion(color, side, tmp_path):
    table = color.nearest("red-left-0.png", 5)
    assert list(table.columns) == ["file", "similarity", "words"]
    assert {value(file, 0) for file in table["file"]} == {"red"}
    assert "red-left-0.png" not in set(table["file"])
    assert (table["words"].str.split("; ").str[0] == "red").all()
    assert (np.diff(table["similarity"]) <= 0).all()
    table = side.nearest("red-left-0.png", 11)
    assert {value(file, 1) for file in table["file"]} == {"left"}
    Image.new("RGB", (9, 9), "blue").save(tmp_path / "b.png")  # an image from elsewhere
    table = color.nearest(tmp_path / "b.png", 6)
    assert {value(file, 0) for file in table["file"]} == {"blue"}
    assert (table["words"].str.split("; ").str[0] == "blue").all()


@pytest.mark.parametrize("representation", ["posterior", "paper"])
def test_a_text_in_the_basis_or_not(photos, folder, representation):
    color = photos.under(folder.parent / "bases/color.yaml", representation)
    for text in ("green", "very green"):
        assert {value(file, 0) for file in color.nearest(text, 6)["file"]} == {"green"}
    files = photos.universal.nearest("on the left", 12)["file"]
    assert {value(file, 1) for file in files} == {"left"}


def test_a_text_is_one_more_word_of_the_criterion(color):
    text = embed_texts(color.collection.vlm, ["a thing that is dark", *color.basis.prompts])
    more = represent("posterior", color.collection.image, text)
    table = color.nearest("dark", 24)
    expected = np.sort(more[:, 0])[::-1]
    np.testing.assert_allclose(table["similarity"], expected, rtol=1e-4)


def test_like_and_unlike(color, side, folder):
    other = str(folder.parent / "bases/side.yaml")
    table = color.nearest("red-left-0.png", 5, like={other: 1})
    assert {file[:8] for file in table["file"][:2]} == {"red-left"}
    table = color.nearest("red-left-0.png", 3, unlike={other: 0.3})
    assert {file[:9] for file in table["file"]} == {"red-right"}
    weights = {"color": 1.0, "side": -0.3}
    first = {"color": color.x[:1], "side": side.x[:1]}
    expected = weighted_similarity(first, {"color": color.x, "side": side.x}, weights)[0]
    table = color.nearest(color.collection.names[0], 23, unlike={other: 0.3})
    places = [color.collection.place(file) for file in table["file"]]
    np.testing.assert_allclose(table["similarity"], expected[places], rtol=1e-5)


def test_queries_that_make_no_sense(color, folder):
    other = str(folder.parent / "bases/side.yaml")
    with pytest.raises(UserError, match="the query is a text"):
        color.nearest("red", like={other: 1})
    for weight in (-1, 0, np.nan, np.inf):
        with pytest.raises(UserError, match="must be above 0 and finite"):
            color.nearest("red-left-0.png", unlike={other: weight})
    with pytest.raises(UserError, match="is no image of"):
        color.nearest("nothing.jpg")
    with pytest.raises(UserError, match="unknown text basis"):
        color.nearest("red-left-0.png", like={"nothing": 1})
    assert len(color.nearest("x" * 5000, 2)) == 2  # no file name, but a text


# ---- labels


def test_a_handful_of_labels(color, side):
    labels = {f"{c}-left-0.png": f"it is {c}" for c in COLORS}
    table = color.classify(labels)
    assert list(table.columns) == ["file", "label", "confidence"]
    assert (table["label"] == ["it is " + value(file, 0) for file in table["file"]]).all()
    assert table["confidence"].between(0, 1).all()
    with pytest.raises(UserError, match="is no image of"):
        color.classify({"nothing.png": "a", "red-left-0.png": "b"})


# ---- embeddings that were made before


def stored(folder, photos, **about):
    """What scripts/embed_ray.py leaves."""
    Collection.embed(photos.folder, photos.vlm, cache=folder)
    names = [file.name for file in photos.files]
    about = {"fingerprint": "colors-1", "vlm": "colors", "root": str(photos.folder), **about}
    write_listing(folder / "images.parquet", names, photos.digests.tolist(), about)
    return folder


def test_what_many_machines_embedded(photos, color, folder, tmp_path, monkeypatch):
    out = stored(tmp_path, photos, vlm="color_vlm:ColorVLM")  # a name by which it is loaded
    monkeypatch.setattr(ColorVLM, "encode_images", lambda *_: pytest.fail("embedded again"))
    monkeypatch.setattr("crl.explore.collection.list_images", lambda *_: pytest.fail("listed"))
    loaded = Collection.load(out, ColorVLM())
    np.testing.assert_array_equal(loaded.image, photos.image)
    assert loaded.names == photos.names and loaded.folder == folder
    view = loaded.under(folder.parent / "bases/color.yaml")
    assert view.clusters(4).equals(color.clusters(4))
    assert {small[1:] for small in loaded.thumbnails} == {(32, 32)}
    with pytest.raises(
        UserError, match=r"are of color_vlm.* in fp32, fingerprint colors-1.*has toy-1"
    ):
        Collection.load(out, ToyVLM())


def test_a_vlm_that_the_listing_names_never_runs_code(photos, tmp_path):
    out = stored(tmp_path, photos, vlm="color_vlm:ColorVLM")
    with pytest.raises(UserError, match="code from a file is never run"):
        Collection.load(out)
    with pytest.raises(UserError, match="no complete listing of images"):
        Collection.load(stored(tmp_path, photos, fingerprint="../elsewhere"))


def test_embeddings_that_are_missing_or_damaged(photos, tmp_path):
    out = stored(tmp_path, photos)
    (rows,) = out.glob("colors-1/image-3/*.rows")
    content = rows.read_bytes()
    rows.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    message = "lacks some of its embeddings; run scripts/embed_ray.py again"
    with pytest.warns(UserWarning, match="1 damaged"), pytest.raises(UserError, match=message):
        Collection.load(out, ColorVLM())
    rows.unlink()
    with pytest.raises(UserError, match=message):
        Collection.load(out, ColorVLM())


def test_embeddings_made_elsewhere(photos, color, folder, tmp_path):
    """The file: ids (names of the image files) and image; text and texts for one criterion."""
    texts = np.array(color.basis.texts)
    file = tmp_path / "mine.npz"
    np.savez(file, ids=photos.names, image=7 * photos.image, text=3 * color.text, texts=texts)
    given = Collection.given(file, folder=folder)
    view = given.under(name="color")
    np.testing.assert_allclose(view.x, color.x, atol=1e-6)
    assert (view.clusters(4)["name"] == color.clusters(4)["name"]).all()
    assert view.nearest(photos.names[0], 5).equals(color.nearest(photos.names[0], 5))
    assert {small[1:] for small in given.thumbnails} == {(32, 32)}
    for needs_a_vlm in (lambda: view.nearest("green"), lambda: given.under("clevr4_color")):
        with pytest.raises(UserError, match="name the VLM that made the embeddings"):
            needs_a_vlm()
    with_vlm = Collection.given(file, ColorVLM())  # and the pictures are not here
    assert with_vlm.under(color.basis).nearest("green", 6)["file"].str.startswith("green").all()
    assert {small[1:] for small in with_vlm.thumbnails} == {(0, 0)}
    np.savez(file, ids=photos.names[1:], image=photos.image)
    with pytest.raises(UserError, match=r"must hold image .*ids \(23,\)"):
        Collection.given(file)
