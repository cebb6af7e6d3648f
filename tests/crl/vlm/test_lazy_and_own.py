"""VLMs that are loaded only when needed, VLMs from outside, and VLMs to be trained."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from checkpoints import CLIP, MEAN, STD, save_clip
from commands import run_python
from toy_vlm import ToyVLM, make_images

from crl import embed_images, embed_texts, load_vlm
from crl.run.errors import UserError
from crl.vlm import (
    DEMO,
    LoadedVLM,
    check_trainable,
    find_vlm,
    fingerprints,
    load_trainable,
    open_clip,
)


@pytest.fixture
def clip(tmp_path, monkeypatch):
    """A CLIP in a folder, and nothing known of former runs."""
    monkeypatch.setattr(fingerprints, "FOLDER", tmp_path / "fingerprints")
    folder = save_clip(tmp_path / "clip")
    (folder / "README.md").write_text("not about the trained one")
    (folder / "merges.txt").write_text("of a tokenizer")
    return folder


# --- loaded when needed ---------------------------------------------------------------------------


def is_loaded(vlm: LoadedVLM) -> bool:
    return vlm._loaded is not None


def test_a_repeated_run_loads_no_model(clip, tmp_path):
    paths = make_images(tmp_path / "images", 3)
    first = load_vlm(str(clip), "cpu")
    assert is_loaded(first)
    image, text = (embed_images(first, paths).image, embed_texts(first, ["red", "blue"]))

    again = load_vlm(str(clip), "cpu")
    assert again.fingerprint == first.fingerprint and again.dim == first.dim == 16
    assert np.array_equal(embed_images(again, paths).image, image)
    assert np.array_equal(embed_texts(again, ["blue", "red"]), text[::-1])
    assert not is_loaded(again)
    assert embed_texts(again, ["green"]).shape == (1, 16)  # a new text needs the model
    assert is_loaded(again) and again.fingerprint == first.fingerprint


def test_another_precision_or_a_changed_file_is_not_taken_for_known(clip):
    first = load_vlm(str(clip), "cpu")
    assert first.fingerprint
    assert is_loaded(load_vlm(str(clip), "cpu", "bf16"))
    config = clip / "open_clip_config.json"
    content = json.loads(config.read_text())
    content["preprocess_cfg"]["mean"] = [0.1, 0.2, 0.3]
    config.write_text(json.dumps(content))
    changed = load_vlm(str(clip), "cpu")
    assert is_loaded(changed) and changed.fingerprint != first.fingerprint
    (clip / "merges.txt").unlink()
    assert is_loaded(load_vlm(str(clip), "cpu"))


def test_damaged_notes_of_former_runs_cost_no_more_than_loading(clip, tmp_path):
    known = load_vlm(str(clip), "cpu").fingerprint
    (note,) = (tmp_path / "fingerprints").iterdir()
    for content in ("", "[]", "null", '{"files": {}}', '{"files": {"gone": [1, 2]}, "known": {}}'):
        note.write_text(content)
        vlm = load_vlm(str(clip), "cpu")
        assert is_loaded(vlm) and vlm.fingerprint == known


def test_a_model_that_an_optimizer_changes_changes_its_fingerprint(clip):
    known = load_vlm(str(clip), "cpu").fingerprint
    vlm = load_vlm(str(clip), "cpu")
    with torch.no_grad():
        next(vlm.model.parameters()).add_(0.1)
    assert vlm.fingerprint != known
    assert load_vlm(str(clip), "cpu").fingerprint == known


# --- from outside ---------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A working directory with mine.py."""
    (tmp_path / "mine.py").write_text(
        "from toy_vlm import ToyVLM\n\n\n"
        "class Mine(ToyVLM):\n"
        "    def __init__(self, device, precision):\n"
        "        super().__init__()\n"
        "        self.device, self.precision, self.name = device, precision, 'mine'\n\n\n"
        "def half(device, precision):\n    return object()\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    yield tmp_path
    sys.modules.pop("mine", None)


def test_a_vlm_of_ones_own(own):
    vlm = load_vlm("mine:Mine", "cpu", "bf16")
    assert isinstance(vlm, ToyVLM) and (vlm.name, vlm.precision) == ("mine", "bf16")
    assert vlm.device == torch.device("cpu")
    paths = make_images(own / "images", 2)
    assert embed_images(vlm, paths, cache=None).image.shape == (2, vlm.dim)
    with pytest.raises(UserError, match="only an open_clip VLM can be trained here"):
        check_trainable("mine:Mine")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone:Mine", r"cannot import the VLM gone:Mine: No module named 'gone'; start in"),
        ("mine:Gone", r"cannot import the VLM mine:Gone: .*no attribute 'Gone'"),
        ("mine:half", r"mine:half is no VLM, it has no name, dim, device, fingerprint, preproc"),
    ],
)
def test_what_is_no_vlm(own, name, message):
    with pytest.raises(UserError, match=message):
        load_vlm(name)


# --- to be trained --------------------------------------------------------------------------------


@pytest.fixture
def named(clip, monkeypatch):
    """The same CLIP by an open_clip name."""
    import open_clip

    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", {"tiny-quickgelu": CLIP})
    tag = open_clip.pretrained._pcfg(
        file=f"{clip}/open_clip_model.safetensors", quick_gelu=True, mean=MEAN, std=STD
    )
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny-quickgelu", {"shiny": tag})
    return "open_clip:tiny-quickgelu/shiny"


@pytest.mark.parametrize("kind", ["clip", "named"])
def test_a_saved_vlm_is_a_folder_that_loads(tmp_path, request, kind):
    given, folder = str(request.getfixturevalue(kind)), tmp_path / "run/vlm"
    vlm = load_trainable(given, "cpu")
    with torch.no_grad():
        for parameter in vlm.model.parameters():
            parameter += 0.1
    open_clip.save_vlm(folder, vlm, find_vlm(given))
    trained = load_vlm(str(folder), "cpu")
    for key, tensor in vlm.model.state_dict().items():
        assert torch.equal(trained.model.state_dict()[key], tensor)
    texts = ["a cat", "red"]
    assert torch.equal(trained.encode_texts(texts), vlm.encode_texts(texts))
    files = ["open_clip_config.json", "open_clip_model.safetensors"]
    if kind == "clip":  # all but the model card
        files.insert(0, "merges.txt")
    assert sorted(file.name for file in folder.iterdir()) == files
    assert trained.recipe == vlm.recipe and trained.fingerprint == vlm.fingerprint
    check_trainable(str(folder))  # and once more


def test_a_saved_vlm_takes_its_tokenizer_along(tmp_path, monkeypatch):
    """SigLIP 2 and others have a tokenizer on the hub; here it is a folder that is gone later."""
    import open_clip as library

    hub = tmp_path / "hub"
    shutil.copytree(DEMO, hub)
    config = json.loads((hub / "open_clip_config.json").read_text())
    model = {**config["model_cfg"]}
    model["text_cfg"] = {**model["text_cfg"], "hf_tokenizer_name": str(hub)}
    monkeypatch.setattr(library.factory, "_MODEL_CONFIGS", {"tiny": model})
    cfg = {key: config["preprocess_cfg"][key] for key in ("mean", "std")}
    tag = library.pretrained._pcfg(file=str(hub / "open_clip_model.safetensors"), **cfg)
    monkeypatch.setitem(library.pretrained._PRETRAINED, "tiny", {"shiny": tag})
    vlm = load_trainable("open_clip:tiny/shiny", "cpu")
    texts = ["a red thing", "three of them"]
    expected = vlm.encode_texts(texts)
    open_clip.save_vlm(tmp_path / "vlm", vlm, "open_clip:tiny/shiny")
    shutil.rmtree(hub)
    assert torch.equal(load_vlm(str(tmp_path / "vlm"), "cpu").encode_texts(texts), expected)


def test_only_open_clip_is_trained(tmp_path):
    (tmp_path / "other").mkdir()
    for name in ("align", "blip2", str(tmp_path / "other")):
        with pytest.raises(UserError, match=r"only an open_clip VLM can be trained here, and '.*'"):
            check_trainable(name)
    with pytest.raises(UserError, match="unknown VLM 'clipp'"):
        check_trainable("clipp")


# --- without a network ----------------------------------------------------------------------------

FETCH = """
import time
from crl.run.errors import UserError
from crl.vlm import load_vlm
for name in ("clip", "align", "blip2"):
    start = time.perf_counter()
    try:
        load_vlm(name)
    except UserError as error:
        print(error)
        assert error.__suppress_context__  # no library's traceback above ours
"""


def test_without_a_network_one_line_says_what_and_the_ways_out(tmp_path):
    """Nobody answers at the hub's address: one look is enough, no second try."""
    address = "http://127.0.0.1:9"
    none = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "")
    done = run_python("-c", FETCH, HF_ENDPOINT=address, HF_HOME=str(tmp_path), **none)
    sources = ("ViT-B-32-quickgelu/openai", "kakaobrain/align-base", "Salesforce/blip2-itm-vit-g")
    lines = done.stdout.splitlines()
    assert len(lines) == 3 and "Retrying" not in done.stderr, done.stderr
    for line, source in zip(lines, sources, strict=True):
        assert "cannot fetch" in line and source in line
        assert "vlm=demo" in line and "local folder" in line and "HF_HOME" in line
