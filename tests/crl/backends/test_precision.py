"""Weights in bf16 and fp16: close to float32, decided once, and never in a training."""

import warnings

import pytest
import torch
from checkpoints import SAVE, TOWERS, clip_model, save_clip, save_towers
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from crl import embed_images, embed_texts, load_vlm
from crl.backends import loaded
from crl.backends.precision import bf16_instructions, cast, computes_bf16, cosine_of_cast
from crl.run.errors import UserError
from crl.vlm import load_trainable

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def forget(tmp_path, monkeypatch):
    """No records of former runs, and a processor that computes in bf16."""
    monkeypatch.setattr(loaded, "FINGERPRINTS", tmp_path / "fingerprints")
    monkeypatch.setattr(loaded, "computes_bf16", lambda device: True)


@pytest.fixture
def clip(tmp_path):
    return str(save_clip(tmp_path / "clip"))


def dtypes(vlm) -> set[torch.dtype]:
    return {weight.dtype for weight in vlm.model.parameters()}


@pytest.mark.parametrize("kind", [*SAVE, *TOWERS])
def test_every_family_computes_with_bf16_weights(kind, tmp_path):
    folder = SAVE[kind](tmp_path) if kind in SAVE else save_towers(kind, tmp_path)
    parts = load_vlm(str(folder), "cpu").parts
    before = {name: tensor.clone() for name, tensor in parts.model.state_dict().items()}
    assert 0.998 < cosine_of_cast(parts, torch.bfloat16, CPU) < 1 - 1e-7
    after = parts.model.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    vlm = load_vlm(str(folder), "cpu", "bf16")
    pixels = torch.stack([vlm.preprocess(Image.new("RGB", (64, 48), "red"))])
    assert vlm.encode_images(pixels).dtype == vlm.encode_texts(["red"]).dtype == torch.float32


def test_auto_is_bf16_where_it_is_the_same_and_then_no_model_is_loaded(clip, monkeypatch):
    monkeypatch.setattr(loaded, "SAME", 0.99)
    first, again = load_vlm(clip, "cpu", "auto"), load_vlm(clip, "cpu", "auto")
    assert first._loaded and not again._loaded
    assert again.fingerprint == first.fingerprint == load_vlm(clip, "cpu", "bf16").fingerprint
    assert torch.equal(again.encode_texts(["red"]), first.encode_texts(["red"]))
    for vlm in (first, again):
        assert vlm.precision == "bf16" and dtypes(vlm) == {torch.bfloat16}


def test_a_note_says_once_that_former_embeddings_are_not_used(clip, tmp_path, monkeypatch):
    monkeypatch.setattr(loaded, "EMBEDDINGS", tmp_path)
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        embed_texts(load_vlm(clip, "cpu"), ["red"], tmp_path)
        for precision in ("fp32", "bf16", "bf16"):
            vlm = load_vlm(clip, "cpu", precision, decode="full")
            for _ in range(2):
                vlm.encode_images(torch.zeros(1, 3, 32, 32))
    (note,) = notes
    assert "there are embeddings in fp32 from full decoding, which are not" in str(note.message)


@pytest.mark.parametrize("change", [{"SAME": 1.0}, {"computes_bf16": lambda device: False}])
def test_auto_is_fp32_elsewhere(clip, monkeypatch, change):
    for name, value in change.items():
        monkeypatch.setattr(loaded, name, value)
    vlm, exact = load_vlm(clip, "cpu", "auto"), load_vlm(clip, "cpu")
    assert vlm.precision == "fp32" and vlm.fingerprint == exact.fingerprint
    assert torch.equal(vlm.encode_texts(["red"]), exact.encode_texts(["red"]))


def test_where_casting_fails_it_is_autocast(clip, monkeypatch):
    weights = load_vlm(clip, "cpu", "fp16")
    monkeypatch.setattr(loaded, "FINGERPRINTS", loaded.FINGERPRINTS / "other")
    monkeypatch.setattr(loaded, "cosine_of_cast", lambda *_: 0.0)
    vlm = load_vlm(clip, "cpu", "fp16")
    assert vlm.precision == "fp16" and dtypes(vlm) == {torch.float32}
    assert vlm.fingerprint != weights.fingerprint  # their numbers differ
    exact, rough = load_vlm(clip, "cpu").encode_texts(["red"]), vlm.encode_texts(["red"])
    assert torch.cosine_similarity(exact, rough).item() > 0.999 and not torch.equal(exact, rough)


def test_a_model_that_cannot_compute_so_has_cosine_0(clip):
    vlm = load_vlm(clip, "cpu")
    features = vlm.parts.text_features
    mixed = vlm.parts._replace(text_features=lambda tokens: features(tokens) @ torch.ones(16, 16))
    assert cosine_of_cast(mixed, torch.bfloat16, CPU) == 0 and dtypes(vlm) == {torch.float32}


def test_a_vlm_that_is_trained_keeps_its_weights(clip):
    low, trained = load_vlm(clip, "cpu", "bf16"), load_trainable(clip, "cpu", "bf16")
    assert dtypes(trained) == {torch.float32} and trained.precision == "bf16"
    assert trained.fingerprint == low.fingerprint  # so a saved training is recognised
    a, b = low.encode_texts(["red"]), trained.encode_texts(["red"])
    assert torch.cosine_similarity(a, b).item() > 0.999


def test_batch_norms_are_cast_and_other_buffers_are_not():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Linear(3, 2))
    model.register_buffer("angles", torch.arange(3) / 7)
    cast(model, torch.bfloat16)
    kinds = {name: tensor.dtype for name, tensor in model.state_dict().items()}
    assert kinds.pop("angles") == torch.float32
    assert kinds.pop("0.num_batches_tracked") == torch.int64
    assert set(kinds.values()) == {torch.bfloat16}


@pytest.mark.parametrize(
    ("capabilities", "found"),
    [({}, []), ({"avx512_f": True, "avx512_bf16": False}, []), ({"bf16": True}, ["bf16"]),
     ({"amx_bf16": True, "avx512_bf16": True}, ["amx_bf16", "avx512_bf16"])],
)  # fmt: skip
def test_processors(monkeypatch, capabilities, found):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert bf16_instructions() == ("processor", found) and computes_bf16(CPU) is bool(found)
    assert not computes_bf16(torch.device("mps"))


def test_values_that_overflow_in_fp16_are_named(tmp_path):
    model = clip_model()
    model.text_projection.data *= 1e6
    model.visual.proj.data *= 1e6
    folder = save_clip(tmp_path / "large")
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    picture = tmp_path / "red.png"
    Image.new("RGB", (40, 40), "red").save(picture)
    vlm = load_vlm(str(folder), "cpu", "fp16")
    for embed, what in ((embed_images, [picture]), (embed_texts, ["a"])):
        with pytest.raises(UserError, match=r"large \(CLIP in fp16\): .* infinite .* fp32"):
            embed(vlm, what, None)
    assert load_vlm(str(folder), "cpu", "bf16").encode_texts(["a"]).isfinite().all()
    with pytest.raises(UserError, match=r"large in bf16 gave NaN or infinite .* fp32"):
        embed_texts(load_vlm(str(folder), "cpu", "bf16"), ["a"], None)  # a store keeps float16
    assert embed_texts(load_vlm(str(folder), "cpu", "auto"), ["a"], None).shape == (1, 16)
