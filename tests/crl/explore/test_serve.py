import errno
import json
import os
import shutil
import socket
import threading

import numpy as np
import pandas as pd
import pytest
from served import served

from crl.basis import TextBasis
from crl.explore import maps
from crl.explore.clusters import find_clusters
from crl.explore.collection import Collection
from crl.explore.edits import Edits
from crl.explore.serve import HERE, MOST_BYTES, serve
from crl.explore.session import Session
from crl.run.errors import UserError


@pytest.fixture
def opened(photos, bases, tmp_path):
    """A session with two criteria, and its server."""
    views = [photos.under(bases / "color.yaml"), photos.under(bases / "side.yaml")]
    session = Session(photos, views, tmp_path / "out", 4)
    with served(session) as server:
        yield session, server


def names(photos, answer):
    return [photos.names[i] for i in answer.json["images"]]


def test_only_the_page_itself_is_answered(opened):
    _, server = opened
    page = server.request("GET", "")
    assert page.status == 200 and b"; connect-src &#39;self&#39;" in page.body
    assert page.headers["Referrer-Policy"] == "no-referrer"
    refused = [
        server.request("GET", "/"),
        server.request("GET", "/wrong/"),
        server.request("GET", "/secret-tokem/pictures/0"),
        server.request("GET", "", Host="evil.example"),
        server.request("GET", "", Host=f"evil.example:{server.port}"),
        server.request("POST", "ask/near", "{}", Origin="http://evil.example"),
        server.request("POST", "ask/near", "{}", Origin="null"),
    ]
    assert [answer.status for answer in refused] == [403] * len(refused)
    assert all(answer.json["error"].startswith("refused: ") for answer in refused)
    assert "open the address that the command printed" in refused[1].json["error"]
    form = server.request("POST", "ask/near", "{}", Content_Type="text/plain")
    assert form.status == 415
    with pytest.raises(OSError):  # another address of this machine
        socket.create_connection(("127.0.0.2", server.port), 5)


@pytest.mark.parametrize(
    ("action", "values", "error"),
    [
        ("search", {"panel": 1, "text": " "}, "type a text, or choose pictures"),
        ("search", {"panel": 9, "text": "red"}, "there is no such thing here"),
        ("search", {"panel": 1, "more": [99]}, "there is no such thing here"),
        ("search", {"panel": 1, "more": [1], "weights": {"1": 0}}, "all weights are 0"),
        ("search", {"panel": "a", "text": "red"}, "panel"),
        ("words", {"panel": 1, "version": 0, "add": [" "]}, "a text is empty"),
        ("words", {"panel": 1, "version": 0, "add": ["x" * 10_000]}, "10,000 letters"),
        ("words", {"panel": 1, "version": 0, "add": ["RED"]}, "twice"),
        ("words", {"panel": 1, "version": 0, "add": []}, "type a word first"),
        ("words", {"panel": 1, "version": 0, "add": [str(n) for n in range(6_000)]}, "6,000 texts"),
        ("words", {"panel": 1, "version": 7, "add": ["x"]}, "in another window"),
        ("words", {"panel": 0, "version": 0, "add": ["x"]}, "nothing to edit"),
        ("words", {"panel": 2, "version": 0, "strike": ["left"]}, "needs 2 texts"),
        ("clusters", {"panel": 1, "version": 0, "do": "merge", "groups": [1, 1]}, "two groups"),
        ("clusters", {"panel": 1, "version": 0, "do": "name", "groups": [1], "name": "x" * 999},
         "name"),
        ("grouping", {"panel": 1, "version": 0, "number": 10**6}, "number"),
        ("criterion", {"name": "Color!", "texts": []}, "already"),
        ("criterion", {"name": "universal", "texts": ["a", "b"]}, "already"),
        ("criterion", {"name": "?", "texts": ["a", "b"]}, "name the criterion"),
        ("criterion", {"name": "mood", "texts": ["a"]}, "two words or more"),
        ("write", {"name": "mood"}, "no language model was given"),
        ("page", {}, "no such action"),
        ("__init__", {}, "no such action"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_a_line_and_changes_nothing(opened, action, values, error):
    session, server = opened
    before = list(session.views)
    answer = server.ask(action, **values)
    assert answer.status in (400, 404) and error in answer.json["error"]
    assert session.views == before and not session.out.exists()


def test_requests_that_are_no_requests(opened):
    _, server = opened
    json_body = {"Content_Type": "application/json"}
    for body in ("", "[1]", "{", "null", "[" * 100_000):
        assert server.request("POST", "ask/near", body, **json_body).status == 400
    with pytest.raises(ConnectionError):  # not read at all
        server.request("POST", "ask/near", "x" * 10 * MOST_BYTES, **json_body)
    assert server.request("GET", "pictures/99").status == 404
    assert server.request("GET", "pictures/../../etc/passwd").status == 403
    assert server.ask("near", image=0).status == 200


def test_pictures_by_their_number_and_one_that_vanished(photos, bases, tmp_path):
    shutil.copytree(photos.folder, tmp_path / "pictures")
    files = sorted((tmp_path / "pictures").iterdir())
    moved = Collection(tmp_path / "pictures", files, photos.image, photos.digests, photos.vlm)
    session = Session(moved, [moved.under(bases / "color.yaml")], tmp_path / "out", 4)
    with served(session) as server:
        picture = server.request("GET", "pictures/3")
        assert picture.body == files[3].read_bytes()
        assert picture.headers["Content-Type"] == "image/png"
        files[3].unlink()
        gone = server.request("HEAD", "pictures/3"), server.request("GET", "pictures/3")
        assert [answer.status for answer in gone] == [404, 404]
        assert gone[1].json["error"] == "the file is not there any more"


def test_search_by_text_and_by_pictures(opened, photos, color, side):
    _, server = opened
    answer = server.ask("search", panel=1, text="red")
    table = color.nearest("red", 6)
    assert names(photos, answer)[:6] == table["file"].tolist()
    assert np.allclose(answer.json["scores"][:6], table["similarity"], atol=1e-4)
    assert names(photos, server.ask("search", panel=0, text="red"))[0].startswith("red")
    red, blue = photos.place("red-left-0.png"), photos.place("blue-right-1.png")
    more = names(photos, server.ask("search", panel=1, more=[red, red + 1]))
    assert len(more) == 22 and all(name.startswith("red") for name in more[:4])
    less = names(photos, server.ask("search", panel=1, more=[red], less=[blue]))
    assert all(name.startswith("blue") for name in less[-6:])
    both = server.ask("search", panel=1, more=[red], less=[blue], weights={"2": -1})
    query = [v.x[red] - v.x[blue] for v in (color, side)]
    scores = [v.x @ q / np.linalg.norm(q) for v, q in zip((color, side), query, strict=True)]
    expected = (scores[0] - scores[1]) / 2  # like in color, unlike in side
    got = both.json["images"]
    assert np.allclose(both.json["scores"], expected[got], atol=1e-3)
    assert got == sorted(got, key=lambda i: -both.json["scores"][got.index(i)])


def test_neighbours_are_those_of_the_page(opened, photos, color):
    _, server = opened
    near = server.ask("near", image=5).json["panels"][1]
    panel = color.panel(np.arange(len(photos.files)), 4, None)
    shared = color.x @ color.x[5]
    assert np.allclose(shared[near["images"]], shared[panel["neighbours"][5]], atol=1e-6)
    assert near["words"][0][0] == color.words[panel["shared"][5, 0, 0]]


def test_words_are_edited_and_python_gives_the_same_clusters(opened, photos, bases):
    session, server = opened
    file = session.out / "texts/color.yaml"

    def same():
        view = photos.under(file)
        number = json.loads((session.out / "clusters/color.json").read_text())["number"]
        assert number == 4
        label = find_clusters(view.points, number).label
        assert (label == session.views[1].groups().clusters.label).all()
        return view.basis

    patch = server.ask("words", panel=1, version=0, strike=["red"]).json
    assert patch["words"] == ["green", "blue", "yellow"] and patch["served"]["version"] == 1
    assert same().texts == ("green", "blue", "yellow")
    server.ask("words", panel=1, version=1, strike=["green", "blue"], add=["green or blue"])
    server.ask("words", panel=1, version=2, add=["red", " dark  red "])
    basis = same()
    assert basis.texts == ("yellow", "green or blue", "red", "dark red")
    assert "edited" in basis.provenance and basis.vlm_prompt == "a thing that is {text}"
    assert TextBasis.load(bases / "color.yaml").texts[0] == "red"  # the user's file stays


def test_clusters_are_edited_undone_and_kept_for_the_next_run(opened, photos, bases):
    session, server = opened
    merged = server.ask("clusters", panel=1, version=0, do="merge", groups=[0, 1]).json
    assert len(merged["clusters"]) == 3
    named = server.ask("clusters", panel=1, version=1, do="name", groups=[0], name=" my  own ")
    assert named.json["clusters"][0]["name"] == "my own"
    split = server.ask("clusters", panel=1, version=2, do="split", groups=[1]).json
    assert len(split["clusters"]) == 4 and split["served"]["undo"] == 3
    undone = server.ask("grouping", panel=1, version=3, undo=True).json
    assert undone["clusters"] == named.json["clusters"]
    again = photos.under(bases / "color.yaml", edits=Edits.load(session.out, "color"))
    assert again.groups().titles == session.views[1].groups().titles
    more = server.ask("grouping", panel=1, version=4, number=6).json
    assert more["note"].startswith(("6 groups", "4 groups"))
    anew = server.ask("grouping", panel=2, version=0, anew=True, none=True).json
    assert anew["served"]["none"] and anew["served"]["number"] >= 2


def test_a_group_that_cannot_be_split_stays(opened):
    _, server = opened
    last = len(server.ask("grouping", panel=1, version=0, number=24).json["clusters"]) - 1
    answer = server.ask("clusters", panel=1, version=1, do="split", groups=[last])
    assert answer.status == 400 and "too few or too much alike" in answer.json["error"]


def test_a_full_disk_is_a_line_and_the_page_stays(opened, monkeypatch):
    session, server = opened
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(full))
    before = list(session.views)
    answer = server.ask("words", panel=1, version=0, strike=["red"])
    assert answer.status == 400 and answer.json["error"].startswith("the disk is full")
    assert session.views == before and not list(session.out.rglob("*.*"))


def test_a_new_criterion_typed_and_written_by_a_model(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(maps, "_tsne", lambda *_: pytest.fail("edits would wait for it"))
    asked = threading.Event()

    def writer(name):
        asked.set()
        return TextBasis.of(["left", "right", "middle"], name)

    session = Session(photos, [], tmp_path, 4, writer)
    with served(session) as server:
        typed = server.ask("criterion", name="my colors", texts=["red", "blue"])
        assert typed.json == {"panels": 2}
        assert photos.under(tmp_path / "texts/my-colors.yaml").basis.texts == ("red", "blue")
        assert server.ask("write", name="my colors").status == 400 and not asked.is_set()
        assert server.ask("write", name="side").json == {"panels": 3}
        page = server.request("GET", "").body.decode()
        assert "<figcaption>side" in page and 'id="write"' in page
        placed = server.ask("map", panel=2, version=0).json
        assert len(placed["limits"]) == 4
        assert server.ask("map", panel=2, version=5).json["error"].startswith("this was changed")


def test_a_port_that_is_in_use_is_one_line(photos, tmp_path):
    with socket.socket() as other:
        other.bind((HERE, 0))
        other.listen()
        with pytest.raises(UserError, match=r"cannot listen at port \d+: .* choose another one"):
            serve(Session(photos, [], tmp_path, 4), other.getsockname()[1])


def test_embeddings_without_their_vlm_can_be_searched_by_pictures(color, tmp_path):
    photos = color.collection
    given = Collection(photos.folder, photos.files, photos.image, photos.digests, None,
                       texts=(color.basis, color.text))  # fmt: skip
    with served(Session(given, [given.under()], tmp_path, 4)) as server:
        assert server.ask("search", panel=1, more=[0]).status == 200
        assert "--vlm" in server.ask("search", panel=1, text="red").json["error"]
        assert "--vlm" in server.ask("words", panel=1, version=0, add=["x"]).json["error"]
        assert pd.Series(server.ask("near", image=0).json["panels"]).size == 2
