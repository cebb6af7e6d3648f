"""VLMs to be trained: saved as a folder that loads; only those of open_clip."""

import json
import shutil

import pytest
import torch
from checkpoints import open_clip

from crl.backends.open_clip import save_vlm
from crl.vlm import DEMO, load_trainable, load_vlm


@pytest.mark.parametrize("name", ["folder", "open_clip:tiny-quickgelu/shiny"])
def test_a_saved_vlm_is_a_folder_that_loads(folders, registry, tmp_path, name):
    folder = tmp_path / "run/vlm"
    vlm = load_trainable(str(folders["open_clip"]) if name == "folder" else name, "cpu")
    with torch.no_grad():
        for parameter in vlm.model.parameters():
            parameter += 0.1
    save_vlm(folder, vlm)
    trained = load_vlm(str(folder), "cpu")
    for key, tensor in vlm.model.state_dict().items():
        assert torch.equal(trained.model.state_dict()[key], tensor)
    texts = ["a cat", "red"]
    assert torch.equal(trained.encode_texts(texts), vlm.encode_texts(texts))
    assert trained.parts.recipe == vlm.parts.recipe and trained.fingerprint == vlm.fingerprint
    load_trainable(str(folder), "cpu")  # and once more


def test_a_saved_vlm_takes_its_tokenizer_along(tmp_path, monkeypatch):
    """SigLIP 2 and others have a tokenizer on the hub; here it is a folder that is gone later."""
    hub = shutil.copytree(DEMO, tmp_path / "hub")
    config = json.loads((hub / "open_clip_config.json").read_text())
    model = config["model_cfg"]
    model["text_cfg"]["hf_tokenizer_name"] = str(hub)
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", {"tiny": model})
    cfg = {key: config["preprocess_cfg"][key] for key in ("mean", "std")}
    tag = open_clip.pretrained._pcfg(file=str(hub / "open_clip_model.safetensors"), **cfg)
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny", {"shiny": tag})
    vlm = load_trainable("open_clip:tiny/shiny", "cpu")
    texts = ["a red thing", "three of them"]
    expected = vlm.encode_texts(texts)
    save_vlm(tmp_path / "vlm", vlm)
    shutil.rmtree(hub)
    assert torch.equal(load_vlm(str(tmp_path / "vlm"), "cpu").encode_texts(texts), expected)
