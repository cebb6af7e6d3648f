"""A folder of pictures whose colors and sides are known, seen by a VLM that sees just these."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
from color_vlm import COLORS, ColorVLM, draw
from PIL import Image
from toy_vlm import ToyVLM

from crl.basis import TextBasis
from crl.embed import embed_texts
from crl.explore.collection import Collection
from crl.explore.listing import write_listing
from crl.explore.thumbnails import made_meanwhile
from crl.images import decoded
from crl.projection import l2
from crl.representations import kind_of, names, represent
from crl.representations.weighted import weighted_similarity
from crl.run.errors import UserError
from crl.run.files import CACHE
from crl.run.results import digest
from crl.run.store import content_digest


def value(file: str, place: int) -> str:
    return file.split("-")[place]


def test_r_is_the_product_of_images_and_texts(photos, bases):
    basis = TextBasis.load(bases / "color.yaml")
    text = embed_texts(photos.vlm, basis.prompts)
    r = photos.image @ text.T  # R = I Tᵀ
    np.testing.assert_allclose(photos.under(basis, "paper").x, l2(r), rtol=1e-5)
    posterior = represent("posterior", photos.image, text)
    np.testing.assert_array_equal(photos.under(basis).x, posterior)
    assert photos.under(basis).name == "color" and photos.under(basis, name="hue").name == "hue"
    with pytest.raises(UserError, match="name a basis; no texts came"):
        photos.under()


def test_texts_of_ones_own(photos):
    view = photos.under(["red", "green"], name="color")
    assert view.name == "color" and view.words.tolist() == ["red", "green"]
    assert view.basis.prompts[0] == "a photo with the color of red"
    with pytest.raises(UserError, match="the texts of color: texts: 'red' stands twice"):
        photos.under(["red", "Red"], name="color")


def test_which_criterion(photos, bases):
    two = {n: TextBasis.load(bases / f"{n}.yaml") for n in ("color", "side")}
    fabric = TextBasis(
        criterion="fabric", vlm_prompt="{text}", texts=("red silk", "wool of a left")
    )
    unknown = TextBasis(criterion="mood", vlm_prompt="{text}", texts=("calm", "tense", "red"))
    table = photos.rank({**two, "fabric": fabric, "hue": two["color"], "mood": unknown}, top=4)
    assert set(table["criterion"]) == {"color", "side", "fabric", "hue"}  # one word left of mood
    assert table["nats"].is_monotonic_decreasing and table["criterion"][3] == "fabric"
    table = table.set_index("criterion")
    assert table["like"]["hue"] == "color" and table["ami"]["hue"] == pytest.approx(1)
    assert table["like"]["side"] == "" and table["ami"]["color"] < 0.5
    assert set(photos.rank(two, top=1)["like"]) == {""}
    with pytest.raises(UserError, match="colors can tell the texts of no criterion apart"):
        photos.rank({"mood": unknown})


def test_clusters_have_the_names_of_what_they_show(color, side):
    for view, place, number in ((color, 0, 4), (side, 1, 2)):
        table = view.clusters(number)
        assert list(table.columns) == ["file", "cluster", "name", "words"]
        assert (table["name"] == [value(file, place) for file in table["file"]]).all()
        assert (table["words"].str.split("; ").str[0] == table["name"]).all()
    assert set(color.clusters()["name"]) == set(COLORS)  # their number is chosen, too
    table = color.collection.universal.clusters(8)
    assert set(table["name"]) == {f"group {n}" for n in range(1, 9)}
    assert table.groupby("cluster")["file"].agg(lambda f: len({x[:-6] for x in f})).max() == 1


def test_neighbours_and_labels_under_the_criterion(color, side, tmp_path):
    table = color.nearest("red-left-0.png", 5)
    assert list(table.columns) == ["file", "similarity", "words"]
    assert {value(file, 0) for file in table["file"]} == {"red"}
    assert "red-left-0.png" not in set(table["file"])
    assert (table["words"].str.split("; ").str[0] == "red").all()
    assert (np.diff(table["similarity"]) <= 0).all()
    table = side.nearest("red-left-0.png", 11)
    assert {value(file, 1) for file in table["file"]} == {"left"}
    labels = {f"{c}-left-0.png": f"it is {c}" for c in COLORS}
    table = color.classify(labels)
    assert list(table.columns) == ["file", "label", "confidence"]
    assert (table["label"] == ["it is " + value(file, 0) for file in table["file"]]).all()
    with pytest.raises(UserError, match="is no image of"):
        color.classify({"nothing.png": "a", "red-left-0.png": "b"})
    Image.new("RGB", (9, 9), "blue").save(tmp_path / "b.png")  # an image from elsewhere
    table = color.nearest(tmp_path / "b.png", 6)
    assert {value(file, 0) for file in table["file"]} == {"blue"}
    assert (table["words"].str.split("; ").str[0] == "blue").all()


def test_a_text_is_one_more_word_of_the_criterion(color):
    text = embed_texts(color.collection.vlm, ["a thing that is dark", *color.basis.prompts])
    more = represent("posterior", color.collection.image, text)
    table = color.nearest("dark", 24)
    expected = np.sort(more[:, 0])[::-1]
    np.testing.assert_allclose(table["similarity"], expected, rtol=1e-4)
    for text in ("green", "very green"):
        assert {value(file, 0) for file in color.nearest(text, 6)["file"]} == {"green"}
    files = color.collection.universal.nearest("on the left", 12)["file"]
    assert {value(file, 1) for file in files} == {"left"}


@pytest.mark.parametrize("name", names())
def test_every_representation_of_a_collection(name, photos, bases):
    labels = {f"{c}-{s}-0.png": c for c in COLORS for s in ("left", "right")}
    other = TextBasis.load(bases / "side.yaml")
    needs = {"labels": {"labels": labels}, "other criteria": {"others": [other]}}
    given = needs.get(kind_of(name).supervision, {})
    view = photos.under(bases / "color.yaml", name, **given)
    np.testing.assert_allclose(np.linalg.norm(view.x, axis=1), 1, rtol=1e-5)
    assert len(view.nearest("red-left-0.png", 5, unlike={str(bases / "side.yaml"): 0.1})) == 5
    y = photos.classes(labels)
    assert (y == -1).sum() == len(photos.files) - len(labels) and set(y) == {-1, 0, 1, 2, 3}
    if given:
        with pytest.raises(UserError, match=f"^{name} (needs|learns)"):
            photos.under(bases / "color.yaml", name)
    if view.x.shape[1] == len(view.words) and name != "probe":
        assert len(view.nearest("dark", 3)) == 3  # one column more
    else:
        with pytest.raises(UserError, match=f"{name!r} has no column for a text"):
            view.nearest("dark")


def test_unlike(color, side, bases):
    weights = {"color": 1.0, "side": -0.3}
    first = {"color": color.x[:1], "side": side.x[:1]}
    expected = weighted_similarity(first, {"color": color.x, "side": side.x}, weights)[0]
    table = color.nearest(color.collection.names[0], 23, unlike={str(bases / "side.yaml"): 0.3})
    places = [color.collection.place(file) for file in table["file"]]
    np.testing.assert_allclose(table["similarity"], expected[places], rtol=1e-5)


def test_what_many_machines_embedded(photos, color, bases, tmp_path, monkeypatch):
    Collection.embed(photos.folder, photos.vlm, cache=tmp_path)
    about = {"fingerprint": "colors-1", "vlm": "color_vlm:ColorVLM", "root": str(photos.folder)}
    write_listing(tmp_path / "images.parquet", photos.names, photos.digests.tolist(), about)
    monkeypatch.setattr(ColorVLM, "encode_images", lambda *_: pytest.fail("embedded again"))
    loaded = Collection.load(tmp_path, ColorVLM())
    np.testing.assert_array_equal(loaded.image, photos.image)
    assert loaded.names == photos.names and loaded.folder == photos.folder
    view = loaded.under(bases / "color.yaml")
    assert view.clusters(4).equals(color.clusters(4))
    with pytest.raises(UserError, match=r"by color_vlm.* in fp32, decode=full, colors-1, not"):
        Collection.load(tmp_path, ToyVLM())
    with pytest.raises(UserError, match="code from a file is never run"):
        Collection.load(tmp_path)


def test_embeddings_made_elsewhere(photos, color, tmp_path):
    """The file: ids (names of the image files) and image; text and texts for one criterion."""
    texts = np.array(color.basis.texts)
    file = tmp_path / "mine.npz"
    np.savez(file, ids=photos.names, image=7 * photos.image, text=3 * color.text, texts=texts)
    given = Collection.given(file, folder=photos.folder)
    view = given.under(name="color")
    np.testing.assert_allclose(view.x, color.x, atol=1e-6)
    assert (view.clusters(4)["name"] == color.clusters(4)["name"]).all()
    assert view.nearest(photos.names[0], 5).equals(color.nearest(photos.names[0], 5))
    assert {small[1:4] for small in given.thumbnails} == {(32, 32, True)}
    for needs_a_vlm in (lambda: view.nearest("green"), lambda: given.under("clevr4_color")):
        with pytest.raises(UserError, match="name the VLM that made the embeddings"):
            needs_a_vlm()
    with_vlm = Collection.given(file, ColorVLM())  # and the pictures are not here
    assert with_vlm.under(color.basis).nearest("green", 6)["file"].str.startswith("green").all()
    assert {small[1:4] for small in with_vlm.thumbnails} == {(0, 0, True)}
    np.savez(file, ids=photos.names[1:], image=photos.image)
    with pytest.raises(UserError, match=r"must hold image .*ids \(23,\)"):
        Collection.given(file)


def test_an_image_is_named_as_any_system_writes_it(photos, tmp_path):
    names = ["Cafe\u0301/a.png", "b.png", "odd\\name.png", "odd/name.png"]
    files = [tmp_path / name for name in names]
    some = Collection(tmp_path, files, photos.image[:4], photos.digests[:4], None)
    for place, forms in enumerate([
        ["Cafe\u0301/a.png", "Café/a.png", "Café\\a.png", str(tmp_path / "Café/a.png")],
        ["b.png", str(tmp_path / "b.png")], ["odd\\name.png"], ["odd/name.png"],
    ]):  # fmt: skip
        assert [some.place(form) for form in forms] == [place] * len(forms)
    assert some.find("c.png") is None


def test_thumbnails_that_cannot_be_kept_stop_nothing(tmp_path):
    files = draw(tmp_path / "pictures", each=1)
    with made_meanwhile(tmp_path / "pictures", files[0] / "no folder") as seen:
        seen(b"1" * 16, decoded(files[0]))


def test_a_file_is_read_again_if_it_may_have_changed(tmp_path, monkeypatch):
    file, *_ = files = draw(tmp_path, each=1)
    for one in files:
        os.utime(one, ns=(0, 10**18))
    versions = [b"P6 8 8 255\n" + bytes([value]) * 192 for value in (90, 91)]  # PPM, of one size
    read, read_bytes = [], Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path) or read_bytes(path))

    def reads(version: int | None = None, changed: int = 0) -> list[Path]:
        if version is not None:
            file.write_bytes(versions[version])
            os.utime(file, ns=(0, changed))
        read.clear()
        photos = Collection.embed(tmp_path, ColorVLM())
        key = photos.digests[photos.files.index(file)].item()
        assert key == content_digest(read_bytes(file))
        return read

    long_ago, now = 10**18, time.time_ns()
    assert sorted(reads(0, long_ago)) == sorted(files) and not reads()
    assert reads(1, long_ago + 1) == [file] and not reads()  # changed in place
    assert reads(0, long_ago + 1) == [file] and not reads()  # size and time as they were
    assert reads(0, now) == [file] and reads(1, now) == [file]  # twice within a tick of the clock
    assert reads(0, now + 10**12) == [file] and reads(1, now + 10**12) == [file]  # in the future
    (record,) = (CACHE / "digests").glob(f"{digest(str(tmp_path.resolve()))}.json")
    record.write_bytes(record.read_bytes()[:-9])
    assert sorted(reads(0, long_ago)) == sorted(files) and not reads()
