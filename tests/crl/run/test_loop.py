"""Checkpoints and trained weights on disk: what comes back, what is refused, a full disk."""

import errno
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from crl.run.errors import UserError
from crl.run.loop import read_state, write_state
from crl.run.weights import read_about, save_tensors
from crl.vlm import load_vlm
from crl.vlm.open_clip import save_vlm, trained_name

SETTINGS = {"lr": 0.1, "bases": ["a", "b"], "data": "x1"}
CONTENT = {"settings": SETTINGS, "model": {"weight": torch.arange(6.0).view(2, 3)}, "step": 7}


@pytest.fixture
def state(tmp_path):
    write_state(tmp_path / "run/state.pt", CONTENT)
    return tmp_path / "run/state.pt"


def test_state_comes_back(state, tmp_path):
    found = read_state(state, dict(SETTINGS))
    assert torch.equal(found["model"]["weight"], CONTENT["model"]["weight"])
    assert found["step"] == 7 and found["settings"] == SETTINGS
    assert read_state(tmp_path / "nothing.pt", SETTINGS) is None
    assert [file.name for file in state.parent.iterdir()] == ["state.pt"]


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({**SETTINGS, "lr": 0.2}, r"\(lr 0.1, not 0.2\)"),
        ({**SETTINGS, "lr": 0.2, "data": "x2"}, r"\(lr 0.1, not 0.2, data 'x1', not 'x2'\)"),
        ({**SETTINGS, "seed": 0}, r"\(seed None, not 0\)"),
        ({"lr": 0.1, "data": "x1"}, r"\(bases \['a', 'b'\], not None\)"),
    ],
)
def test_state_of_another_training(state, settings, what):
    with pytest.raises(UserError, match=f"run holds another training {what}; choose another name="):
        read_state(state, settings)


def test_damaged_state_and_one_with_code(state):
    whole = state.read_bytes()
    for content in (b"", b"nonsense", whole[:999], whole[:-99]):
        state.write_bytes(content)
        with pytest.raises(UserError, match=r"state.pt is damaged; remove it to start again"):
            read_state(state, SETTINGS)
    for content in ({"settings": Path("x")}, {"settings": 3}, {"step": 7}, [1, 2]):
        torch.save(content, state)
        with pytest.raises(UserError, match=r"state.pt is damaged"):
            read_state(state, SETTINGS)


def test_full_disk_leaves_the_former_files(state, monkeypatch):
    weights = state.parent / "model.safetensors"
    save_tensors(weights, nn.Linear(2, 2))
    before = {file: file.read_bytes() for file in state.parent.iterdir()}
    write = Path.write_bytes

    def full(path, data):
        write(path, bytes(data)[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        write_state(state, CONTENT)
    with pytest.raises(OSError, match="No space left"):
        save_tensors(weights, nn.Linear(2, 2))
    assert {file: file.read_bytes() for file in state.parent.iterdir()} == before


def test_tensors_and_what_they_are(tmp_path):
    model = nn.ModuleDict({"a": nn.Linear(3, 2), "b": nn.BatchNorm1d(2)})
    model["a"].weight.data = torch.arange(6.0).view(3, 2).T  # not contiguous
    save_tensors(tmp_path / "of/model.safetensors", model, method="csn", width=7)
    found = load_file(tmp_path / "of/model.safetensors")
    assert found.keys() == model.state_dict().keys() and "b.running_mean" in found
    assert all(torch.equal(found[key], tensor) for key, tensor in model.state_dict().items())
    assert read_about(tmp_path / "of/model.safetensors") == {"method": "csn", "width": 7}
    once = (tmp_path / "of/model.safetensors").read_bytes()
    save_tensors(tmp_path / "of/model.safetensors", model, method="csn", width=7)
    assert (tmp_path / "of/model.safetensors").read_bytes() == once
    for other, about in (("b.safetensors", {}), ("c.safetensors", {"format": "pt", "about": "it"})):
        save_file(found, tmp_path / other, about)
        assert read_about(tmp_path / other) == {}
    torch.save(found, tmp_path / "d.pt")
    assert read_about(tmp_path / "d.pt") == {}
    (tmp_path / "e.safetensors").write_bytes(once[:-5])
    with pytest.raises(UserError, match="is damaged"):
        read_about(tmp_path / "e.safetensors")


# --- a VLM that was trained -----------------------------------------------------------------------


@pytest.fixture
def clip(tmp_path):
    from test_vlm import save_clip  # here, for it imports all of transformers

    (save_clip(tmp_path / "clip") / "README.md").write_text("not about the trained one")
    (tmp_path / "clip/merges.txt").write_text("of a tokenizer")
    return str(tmp_path / "clip")


@pytest.fixture
def named(clip, monkeypatch):
    """The same CLIP by an open_clip name."""
    import open_clip
    from test_vlm import CLIP, MEAN, STD

    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", {"tiny-quickgelu": CLIP})
    tag = open_clip.pretrained._pcfg(
        file=f"{clip}/open_clip_model.safetensors", quick_gelu=True, mean=MEAN, std=STD
    )
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny-quickgelu", {"shiny": tag})
    return "open_clip:tiny-quickgelu/shiny"


@pytest.mark.parametrize("kind", ["clip", "named"])
def test_trained_vlm_is_found_by_its_name(tmp_path, request, kind):
    given, run = request.getfixturevalue(kind), tmp_path / "run"
    name = trained_name(run, given)
    vlm = load_vlm(given, device="cpu")
    with torch.no_grad():
        for parameter in vlm.model.parameters():
            parameter += 0.1
    save_vlm(run, vlm)
    trained = load_vlm(name, device="cpu")
    for key, tensor in vlm.model.state_dict().items():
        assert torch.equal(trained.model.state_dict()[key], tensor)
    texts = ["a cat", "red"]
    assert torch.equal(trained.encode_texts(texts), vlm.encode_texts(texts))
    saved = sorted(str(file.relative_to(run)) for file in run.rglob("*") if file.is_file())
    files = ["open_clip_config.json", "open_clip_model.safetensors"]
    if kind == "clip":  # all but the model card
        files.insert(0, "merges.txt")
    assert name == f"{run}/vlm" and saved == [f"vlm/{file}" for file in files]
    assert trained.recipe == vlm.recipe and trained.fingerprint == vlm.fingerprint
    assert trained_name(tmp_path / "next", name) == f"{tmp_path}/next/vlm"  # and once more


def test_only_open_clip_is_trained(tmp_path):
    (tmp_path / "other").mkdir()
    for name in ("align", "blip2", str(tmp_path / "other")):
        with pytest.raises(UserError, match=r"only an open_clip VLM can be trained here, and '.*'"):
            trained_name(tmp_path, name)
    with pytest.raises(UserError, match="unknown VLM 'clipp'"):
        trained_name(tmp_path, "clipp")
