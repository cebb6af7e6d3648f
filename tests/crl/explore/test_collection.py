"""A folder of pictures whose colors and sides are known, seen by a VLM that sees just these."""

import os

import numpy as np
import pytest
from color_vlm import COLORS, ColorVLM, draw, write_bases
from PIL import Image
from toy_vlm import ToyVLM

from crl.basis import TextBasis
from crl.explore.collection import Collection, neighbours, shared_words
from crl.embed import embed_texts
from crl.projection import ConditionalProjection, l2, weighted_similarity
from crl.run.errors import UserError
from crl.explore.words import most


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


def test_files_and_embeddings_are_in_one_order(photos, folder):
    assert len(photos.files) == len(photos.image) == len(photos.digests) == 24
    assert photos.names == sorted(os.listdir(folder))


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


def test_a_folder_without_images(tmp_path):
    (tmp_path / "notes.txt").touch()
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
    assert photos.place(name) == photos.place(folder / name) == photos.place(relative) == 5
    with pytest.raises(UserError, match=r"left-9\.png is no image of .*did you mean 'red-left-"):
        photos.place("red-left-9.png")


def test_r_is_the_product_of_images_and_texts(photos, folder):
    basis = TextBasis.load(folder.parent / "bases/color.yaml")
    text = embed_texts(photos.vlm, basis.prompts)
    r = l2(np.asarray(photos.image)) @ l2(text).T  # R = I Tᵀ
    paper = photos.under(basis, "paper")
    np.testing.assert_allclose(paper.x, l2(r), rtol=1e-5)
    posterior = ConditionalProjection(text, normalise="posterior").fit_transform(photos.image)
    np.testing.assert_allclose(photos.under(basis).x, posterior, rtol=1e-5)
    assert photos.under(basis).name == "color" and photos.under(basis, name="hue").name == "hue"


def test_which_criterion(photos, folder):
    bases = {n: TextBasis.load(folder.parent / f"bases/{n}.yaml") for n in ("color", "side")}
    fabric = TextBasis(criterion="fabric", vlm_prompt="{text}", texts=("silk", "wool of a left"))
    found = photos.rank({**bases, "fabric": fabric})
    assert found["color"] > found["fabric"] and found["side"] > found["fabric"]


def test_a_vlm_with_several_vectors_per_image(folder):
    photos = Collection.embed(folder, ToyVLM(queries=3), cache=None)
    basis = TextBasis(criterion="x", vlm_prompt="{text}", texts=tuple("abcde"))
    view = photos.under(basis)
    assert photos.universal.x.shape == (24, 5) and view.x.shape == (24, 5)
    found = view.nearest(photos.names[0], 3)
    similarity = view.x @ view.x[0]
    best = [i for i in np.argsort(-similarity, kind="stable") if i != 0][:3]
    np.testing.assert_allclose(found["similarity"], similarity[best], rtol=1e-5)
    assert len(photos.universal.nearest(photos.names[0], 30)) == 23
    assert len(view.clusters(2)) == 24


# ---- clusters


def test_clusters_have_the_names_of_what_they_show(color, side):
    for view, place, number in ((color, 0, 4), (side, 1, 2)):
        found = view.clusters(number)
        assert list(found.columns) == ["file", "cluster", "name", "words"]
        assert (found["name"] == [value(file, place) for file in found["file"]]).all()
        assert (found["words"].str.split("; ").str[0] == found["name"]).all()
    assert set(color.clusters()["name"]) == set(COLORS)  # their number is found, too
    assert color.groups().clusters.number == 4


def test_the_universal_embedding_has_groups_without_names(photos):
    found = photos.universal.clusters(8)
    assert set(found["name"]) == {f"group {n}" for n in range(1, 9)}
    assert found.groupby("cluster")["file"].agg(lambda f: len({x[:-6] for x in f})).max() == 1


def test_maps_are_those_of_the_view(color, side):
    assert color.map.shape == (24, 2)
    kinds = np.array([value(name, 0) for name in color.collection.names])
    distance = np.linalg.norm(color.map[:, None] - color.map, axis=2) + 1e9 * np.eye(24)
    assert (kinds[distance.argmin(axis=1)] == kinds).all()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_images(tmp_path, folder, count):
    for number in range(count):
        Image.new("RGB", (8, 8), (50 * number + 5, 0, 200)).save(tmp_path / f"{number}.png")
    view = Collection.embed(tmp_path, ColorVLM()).under(folder.parent / "bases/color.yaml")
    assert len(view.clusters()) == count
    assert np.isfinite(view.map).all() and view.groups().clusters.note
    assert len(view.nearest("0.png", 10)) == count - 1


def test_images_that_are_all_the_same(tmp_path, folder):
    for number in range(6):
        Image.new("RGB", (8, 8), "red").save(tmp_path / f"{number}.png")
    view = Collection.embed(tmp_path, ColorVLM()).under(folder.parent / "bases/color.yaml")
    assert set(view.clusters()["cluster"]) == {0} and np.isfinite(view.map).all()


# ---- search


def test_the_nearest_are_alike_under_the_criterion(color, side):
    found = color.nearest("red-left-0.png", 5)
    assert list(found.columns) == ["file", "similarity", "words"]
    assert {value(file, 0) for file in found["file"]} == {"red"}
    assert "red-left-0.png" not in set(found["file"])
    assert (found["words"].str.split("; ").str[0] == "red").all()
    assert (np.diff(found["similarity"]) <= 0).all()
    found = side.nearest("red-left-0.png", 11)
    assert {value(file, 1) for file in found["file"]} == {"left"}


def test_an_image_from_elsewhere(color, tmp_path):
    Image.new("RGB", (9, 9), "blue").save(tmp_path / "b.png")
    found = color.nearest(tmp_path / "b.png", 6)
    assert {value(file, 0) for file in found["file"]} == {"blue"}
    assert (found["words"].str.split("; ").str[0] == "blue").all()


@pytest.mark.parametrize("representation", ["posterior", "paper"])
def test_a_text_in_the_basis_or_not(photos, folder, representation):
    color = photos.under(folder.parent / "bases/color.yaml", representation)
    for text in ("green", "very green"):
        assert {value(file, 0) for file in color.nearest(text, 6)["file"]} == {"green"}
    assert {value(file, 1) for file in photos.universal.nearest("on the left", 12)["file"]} == {
        "left"
    }


def test_a_text_is_one_more_word_of_the_criterion(color):
    text = embed_texts(color.collection.vlm, ["a thing that is dark", *color.basis.prompts])
    more = ConditionalProjection(text, normalise="posterior").fit_transform(color.collection.image)
    found = color.nearest("dark", 24)
    expected = np.sort(more[:, 0])[::-1]
    np.testing.assert_allclose(found["similarity"], expected, rtol=1e-4)


def test_like_and_unlike(color, side, folder):
    other = str(folder.parent / "bases/side.yaml")
    found = color.nearest("red-left-0.png", 5, like={other: 1})
    assert {file[:8] for file in found["file"][:2]} == {"red-left"}
    found = color.nearest("red-left-0.png", 3, unlike={other: 0.3})
    assert {file[:9] for file in found["file"]} == {"red-right"}
    weights = {"color": 1.0, "side": -0.3}
    first = {"color": color.x[:1], "side": side.x[:1]}
    expected = weighted_similarity(first, {"color": color.x, "side": side.x}, weights)[0]
    found = color.nearest(color.collection.names[0], 23, unlike={other: 0.3})
    places = [color.collection.place(file) for file in found["file"]]
    np.testing.assert_allclose(found["similarity"], expected[places], rtol=1e-5)


def test_queries_that_make_no_sense(color, folder):
    other = str(folder.parent / "bases/side.yaml")
    with pytest.raises(UserError, match="the query is a text"):
        color.nearest("red", like={other: 1})
    with pytest.raises(UserError, match="must be above 0"):
        color.nearest("red-left-0.png", unlike={other: -1})
    with pytest.raises(UserError, match="is no image of"):
        color.nearest("nothing.jpg")
    with pytest.raises(UserError, match="unknown text basis"):
        color.nearest("red-left-0.png", like={"nothing": 1})
    assert len(color.nearest("x" * 5000, 2)) == 2  # no file name, but a text


def test_neighbours_and_shared_words_against_a_slow_loop():
    rng = np.random.default_rng(0)
    x, standing = rng.normal(size=(250, 6)), rng.normal(size=(250, 9))
    near = neighbours(x, 4)
    found = shared_words(standing, near)
    for i in range(250):
        order = [j for j in np.argsort(-(x @ x[i]), kind="stable") if j != i]
        assert near[i].tolist() == order[:4]
        for m, j in enumerate(near[i]):
            both = np.minimum(standing[i], standing[j])
            np.testing.assert_array_equal(found[i, m], most(both[None], 3)[0])
    assert neighbours(x[:1], 4).shape == (1, 0)
    assert shared_words(standing[:1], neighbours(x[:1], 4)).shape == (1, 0, 3)


# ---- labels


def test_a_handful_of_labels(color, side):
    labels = {f"{c}-left-0.png": f"it is {c}" for c in COLORS}
    found = color.classify(labels)
    assert list(found.columns) == ["file", "label", "confidence"]
    assert (found["label"] == ["it is " + value(file, 0) for file in found["file"]]).all()
    assert found["confidence"].between(0, 1).all()
    with pytest.raises(UserError, match="is no image of"):
        color.classify({"nothing.png": "a", "red-left-0.png": "b"})
