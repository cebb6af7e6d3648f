"""Small VLMs: as folders, and by a name of open_clip."""

import json

import pytest
import torch
from checkpoints import CLIP, MEAN, SAVE, STD, clip_model, open_clip

from crl.backends import loaded


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("vlms")
    return {name: save(root / name) for name, save in SAVE.items()}


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """open_clip with small models of ours; -> their tags: {model: {tag: settings}}."""
    monkeypatch.setattr(loaded, "FINGERPRINTS", tmp_path / "fingerprints")
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIG_PATHS", [tmp_path])
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", dict(open_clip.factory._MODEL_CONFIGS))
    (tmp_path / "tiny.json").write_text(json.dumps({**CLIP, "quick_gelu": False}))
    (tmp_path / "tiny-quickgelu.json").write_text(json.dumps(CLIP))
    open_clip.add_model_config(tmp_path)
    torch.save(clip_model().state_dict(), tmp_path / "weights.pt")
    settings = open_clip.pretrained._pcfg(
        file=str(tmp_path / "weights.pt"), quick_gelu=True, mean=MEAN, std=STD
    )
    for model in ("tiny", "tiny-quickgelu"):
        monkeypatch.setitem(open_clip.pretrained._PRETRAINED, model, {"shiny": dict(settings)})
    return open_clip.pretrained._PRETRAINED
