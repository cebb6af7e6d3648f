"""A stand-in of vLLM's /v1/embeddings, which misbehaves as told."""

import base64
import io
import json
import math

import numpy as np
import pytest
from color_vlm import draw
from PIL import Image

from crl.backends import served
from crl.backends.instructed import Told, load_instructed
from crl.embed import embed_images
from crl.run.chat import Server
from crl.run.errors import UserError


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch):
    monkeypatch.setattr(served, "FINGERPRINTS", tmp_path / "probes")


@pytest.fixture
def files(tmp_path):
    return draw(tmp_path / "pictures", each=1)


def seen(request):
    """The mean color of the picture in a request, and what the model is told."""
    system, user = request["messages"]
    url = user["content"][0]["image_url"]["url"]
    picture = Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/jpeg;base64,"))))
    pixels = np.asarray(picture.convert("RGB"), float).mean((0, 1)) + 1
    return pixels.tolist(), system["content"][0]["text"]


def vector(values, **more):
    row = {"object": "embedding", "index": 0, "embedding": values, **more}
    return 200, json.dumps({"object": "list", "data": [row], "model": "m"})


def honest(request):
    pixels, text = seen(request)
    return vector([*pixels, len(text)])


def model(server, send=False):
    return load_instructed(f"{server.url}#m", send=send)


def test_the_vectors_are_the_servers_and_are_asked_for_once(server, files, tmp_path):
    server.replies = [honest]
    result = embed_images(Told(model(server), ["color", "心情"]), files, tmp_path / "cache")
    assert len(server.requests) == 1 + 2 * 8  # a probe first
    told = ["Represent the image by its color.", "Represent the image by its 心情."]
    for number, text in enumerate(told):
        rows = [
            [*np.asarray(Image.open(file), float).mean((0, 1)) + 1, len(text)] for file in files
        ]
        cosines = (result.image[:, number] * rows).sum(1) / np.linalg.norm(rows, axis=1)
        assert cosines.min() > 0.999
    assert {seen(request)[1] for request in server.requests} == set(told)
    body = server.requests[0]
    assert body["model"] == "m" and body["encoding_format"] == "float"
    again = embed_images(Told(model(server), ["心情"]), files, tmp_path / "cache")
    assert np.array_equal(again.image[:, 0], result.image[:, 1])
    assert len(server.requests) == 17  # nothing more, not even a probe


def test_pictures_do_not_leave_the_machine_unless_told_so(server, monkeypatch):
    monkeypatch.setattr(Server, "is_local", property(lambda self: False))
    with pytest.raises(UserError, match=r"nothing was sent; add send=yes .*127.0.0.1"):
        model(server)
    assert model(server, send=True).name.endswith("/v1#m")


def test_a_drift_of_the_server_is_refused_by_name(server, files, tmp_path):
    server.replies = [honest]
    first = Told(model(server), ["color"])
    embed_images(first, files[:2], tmp_path)
    server.replies = [lambda request: vector([9.0, -9.0, 1.0, 0.0])]
    for changed, reason in (([9.0, -9.0, 1.0, 0.0], r"another vector .*cosine"),
                            ([1.0, 2.0], "2 numbers for a picture, and 4 once")):  # fmt: skip
        server.replies = [lambda request, changed=changed: vector(changed)]
        with pytest.raises(UserError, match=reason + r".*other weights or template.*remove"):
            embed_images(Told(model(server), ["color"]), files, tmp_path)
    (record,) = (tmp_path / "probes").iterdir()
    record.unlink()  # as the message says; what came before is not mixed with what comes now
    assert Told(model(server), ["color"]).fingerprint != first.fingerprint


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (vector([1.0, 2.0]), r"no vector for a picture: shape \(2,\), and \(4,\) before"),
        (vector([math.nan, 1, 1, 1]), "no vector for a picture: NaN"),
        (vector([]), "no vector for a picture: shape"),
        (vector([0, 0, 0, 0]), "no vector for a picture"),
        (vector("AAAA"), "no vector for a picture"),
        ((200, json.dumps({"data": []})), "no vector for a picture"),
        ((200, "<html>"), "no vector for a picture|failed"),
        ((500, json.dumps({"error": {"message": "out of order"}})), "failed.*out of order"),
        ((400, json.dumps({"error": {"message": "no image input"}})), "refused the pictures"),
        ((404, json.dumps({"error": {"message": "no m"}})), "does not know the model 'm'"),
    ],
)
def test_a_server_that_misbehaves_is_named_and_what_came_before_is_kept(
    reply, reason, server, files, tmp_path, monkeypatch
):
    monkeypatch.setattr(served, "Server", lambda url: Server(url, max_retries=0))
    server.replies = [honest] * 4 + [reply]
    with pytest.raises(UserError, match=reason):
        embed_images(Told(model(server), ["color"]), files, tmp_path, batch_size=3)
    server.replies = [honest]
    before = len(server.requests)
    embed_images(Told(model(server), ["color"]), files, tmp_path, batch_size=3)
    assert len(server.requests) - before == 1 + 5


def test_a_server_that_is_busy_is_asked_again(server, files, tmp_path):
    server.replies = [honest, (503, "{}"), honest]
    embed_images(Told(model(server), ["color"]), files[:1], tmp_path)
    assert len(server.requests) == 3


def test_a_slow_server_is_named(server, files, tmp_path, monkeypatch):
    from llm_server import sends

    monkeypatch.setattr(served, "Server", lambda url: Server(url, timeout=0.2, max_retries=0))
    server.replies = [sends(b"", b"HTTP/1.1 200 OK\r\n", pause=0.3)]
    with pytest.raises(UserError, match=r"gave no answer within 0.2 s"):
        embed_images(Told(model(server), ["color"]), files, tmp_path)
