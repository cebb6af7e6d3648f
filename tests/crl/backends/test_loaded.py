"""VLMs are loaded only when needed; what their fingerprints follow."""

import json
import shutil

import numpy as np
import pytest
import torch
from checkpoints import SAVE
from toy_vlm import make_images

from crl import embed_images, embed_texts, load_vlm
from crl.backends import loaded
from crl.backends.loaded import LoadedVLM

OPEN_CLIP = "open_clip_config.json"


@pytest.fixture
def clip(folders, tmp_path, monkeypatch):
    """A CLIP in a folder, and no record of former runs."""
    monkeypatch.setattr(loaded, "FINGERPRINTS", tmp_path / "fingerprints")
    folder = shutil.copytree(folders["open_clip"], tmp_path / "clip")
    (folder / "merges.txt").write_text("of a tokenizer")
    return folder


def is_loaded(vlm: LoadedVLM) -> bool:
    return vlm._loaded is not None


def test_a_repeated_run_loads_no_model(clip, tmp_path):
    paths = make_images(tmp_path / "images", 3)
    first = load_vlm(str(clip), "cpu")
    assert is_loaded(first)
    image, text = embed_images(first, paths).image, embed_texts(first, ["red", "blue"])

    again = load_vlm(str(clip), "cpu")
    assert again.fingerprint == first.fingerprint and again.dim == first.dim == 16
    assert np.array_equal(embed_images(again, paths).image, image)
    assert np.array_equal(embed_texts(again, ["blue", "red"]), text[::-1])
    assert not is_loaded(again)
    assert embed_texts(again, ["green"]).shape == (1, 16)  # a new text needs the model
    assert is_loaded(again) and again.fingerprint == first.fingerprint
    # nor does it matter that the text comes first, inside of encode_texts
    lazy = load_vlm(str(clip), "cpu")
    assert torch.equal(lazy.encode_texts(["green"]), again.encode_texts(["green"]))


def test_another_precision_or_a_changed_file_is_loaded_again(clip):
    first = load_vlm(str(clip), "cpu")
    low = load_vlm(str(clip), "cpu", "bf16")
    assert is_loaded(low) and low.fingerprint != first.fingerprint and low.precision == "bf16"
    config = clip / OPEN_CLIP
    config.write_text(config.read_text() + "\n")
    changed = load_vlm(str(clip), "cpu")
    assert is_loaded(changed) and changed.fingerprint == first.fingerprint
    (clip / "merges.txt").unlink()
    assert is_loaded(load_vlm(str(clip), "cpu"))
    assert not is_loaded(load_vlm(str(clip), "cpu"))


def test_a_damaged_record_costs_no_more_than_loading(clip, tmp_path):
    fingerprint = load_vlm(str(clip), "cpu").fingerprint
    (record,) = (tmp_path / "fingerprints").iterdir()
    for content in ("", "[]", "null", '{"files": {}}', '{"files": {"gone": [1, 2]}, "dim": 1}'):
        record.write_text(content)
        vlm = load_vlm(str(clip), "cpu")
        assert is_loaded(vlm) and vlm.fingerprint == fingerprint
    whole = record.read_bytes()
    for place in range(0, len(whole), 5):
        record.write_bytes(whole[:place] + bytes([whole[place] ^ 2]) + whole[place + 1 :])
        summary = loaded._recall(record)
        assert summary is None or (summary["fingerprint"], summary["dim"]) == (fingerprint, 16)
    other = record.with_name("other.json")  # of another VLM
    other.write_bytes(whole)
    assert loaded._recall(other) is None


@pytest.mark.parametrize("backend", SAVE)
def test_the_fingerprint_follows_the_weights(folders, tmp_path, monkeypatch, backend):
    monkeypatch.setattr(loaded, "FINGERPRINTS", tmp_path)
    first, second = (load_vlm(str(folders[backend]), "cpu") for _ in range(2))
    for vlm in (first, second):  # one that is loaded now, one that is loaded here
        with torch.no_grad():
            next(iter(vlm.model.parameters())).view(-1)[-1] += 1e-3
        assert vlm.fingerprint != load_vlm(str(folders[backend]), "cpu").fingerprint
    assert first.fingerprint == second.fingerprint


@pytest.mark.parametrize(
    ("backend", "file", "keys", "value"),
    [
        ("open_clip", OPEN_CLIP, "preprocess_cfg mean", [0.5] * 3),
        ("open_clip", OPEN_CLIP, "model_cfg quick_gelu", False),
        ("open_clip", OPEN_CLIP, "model_cfg text_cfg tokenizer_kwargs", {"clean": "whitespace"}),
        ("align", "preprocessor_config.json", "rescale_offset", False),
        ("align", "config.json", "text_config hidden_act", "relu"),
        ("blip2", "preprocessor_config.json", "image_std", [0.5] * 3),
        ("blip2", "tokenizer_config.json", "do_lower_case", False),
    ],
)
def test_the_fingerprint_follows_the_settings(folders, tmp_path, backend, file, keys, value):
    copy = shutil.copytree(folders[backend], tmp_path / "copy")
    config = part = json.loads((copy / file).read_text())
    *above, last = keys.split()
    for key in above:
        part = part[key]
    part[last] = value
    (copy / file).write_text(json.dumps(config))
    changed, former = (load_vlm(str(folder), "cpu") for folder in (copy, folders[backend]))
    assert changed.fingerprint != former.fingerprint
