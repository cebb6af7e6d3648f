"""VLMs are loaded only when needed; what their fingerprints follow."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import SAVE
from PIL import Image
from toy_vlm import make_images

from crl import embed_images, embed_texts, load_vlm
from crl.backends import loaded, transformers
from crl.backends.loaded import LoadedVLM
from crl.run.stamps import read_record, stamps
from similarity_retrieval.combiner_features import augmentation

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
    (clip / "added.bin").touch()  # libraries prefer some names to others
    assert is_loaded(load_vlm(str(clip), "cpu"))


def test_stamps_change_with_a_link_and_a_working_directory(clip, tmp_path, monkeypatch):
    other, link = shutil.copytree(clip, tmp_path / "there/clip"), tmp_path / "link"
    for name, change in (
        ("link", lambda: (link.unlink(), link.symlink_to(other))),
        ("./clip", lambda: monkeypatch.chdir(other.parent)),
    ):
        monkeypatch.chdir(tmp_path)
        link.unlink(missing_ok=True)
        link.symlink_to(clip)
        files = load_vlm(name, "cpu").files
        assert stamps(map(Path, files)) == files
        change()
        assert stamps(map(Path, files)) != files


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
        summary = read_record(record)
        assert not summary or (summary["fingerprint"], summary["dim"]) == (fingerprint, 16)
    other = record.with_name("other.json")  # of another VLM
    other.write_bytes(whole)
    assert read_record(other) == {}


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


def preprocessings() -> dict[str, loaded.Preprocess]:
    """Each that scales the shorter side: the demo's and open_clip's, transformers', torchvision's,
    and the augmentation of a training."""
    from torchvision.models import ResNet50_Weights
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    demo, resnet = load_vlm("demo").preprocess, ResNet50_Weights.DEFAULT.transforms(resize_size=224)
    return {
        "demo": demo,
        "transformers": transformers._preprocess(CLIPImageProcessorPil()),
        "torchvision": loaded.Preprocess(resnet, 224, Image.Resampling.BILINEAR),
        "training": augmentation(demo),
    }


@pytest.mark.parametrize("name", ["demo", "transformers", "torchvision", "training"])
def test_the_middle_of_a_strip_is_the_same_to_the_bit(name, monkeypatch):
    preprocess, rng = preprocessings()[name], np.random.default_rng(0)
    whole = replace(preprocess, side=None)
    for size in ((1, 301), (300, 1), (2, 501), (500, 2), (4, 811), (840, 7), (40, 100), (64, 64)):
        image = Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8))
        monkeypatch.setattr(loaded, "MOST_PIXELS", 2**17)
        torch.manual_seed(0)
        middle = preprocess(image)
        torch.manual_seed(0)
        expected = whole(image)
        # Where no pixels begin together, Pillow's corners of boxes (float32) round a few otherwise.
        exact = preprocess.side * max(size) % min(size) == 0
        assert (middle != expected).float().mean() <= (0 if exact else 0.005), size
        assert (middle - expected).abs().max() < 0.04


@pytest.mark.parametrize("size", [(1, 20_000), (60_000, 2), (65_000, 3)])
def test_a_strip_takes_little_memory(size):
    scaled = []
    for preprocess in preprocessings().values():
        record = replace(preprocess, transform=lambda image: scaled.append(image.size))
        record(Image.new("RGB", size))
    assert max(max(size) for size in scaled) < 10_000
