"""Names: the weights that each asks for, the open_clip model that takes them, VLMs of one's own."""

import sys
from functools import partial

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from toy_vlm import DIM, ToyVLM, make_images

from crl.backends import loaded
from crl.backends import open_clip as backend
from crl.backends.torchvision_fix import import_torchvision
from crl.embed import embed_images, embed_texts
from crl.explore.collection import Collection
from crl.run.errors import UserError
from crl.vlm import ALIASES, HUB, load_trainable, load_vlm

import_torchvision()
import open_clip  # noqa: E402

NAMES = {  # weights on the Hugging Face Hub, side of an image in pixels, D
    "clip": ("timm/vit_base_patch32_clip_224.openai", 224, 512),
    "clip-b16": ("timm/vit_base_patch16_clip_224.openai", 224, 512),
    "metaclip": ("timm/vit_base_patch32_clip_224.metaclip_400m", 224, 512),
    "siglip2": ("timm/ViT-B-16-SigLIP2", 224, 768),
    "siglip2-l": ("timm/ViT-L-16-SigLIP2-256", 256, 1024),
    "pe": ("timm/PE-Core-B-16", 224, 1024),
    "pe-l": ("timm/PE-Core-L-14-336", 336, 1024),
    "dfn": ("apple/DFN2B-CLIP-ViT-B-16", 224, 512),
    "dfn-l": ("apple/DFN2B-CLIP-ViT-L-14", 224, 768),
}


class AskedFor(Exception):
    """The model, the weights and the preprocessing that a name leads to."""


@pytest.fixture
def nothing_loaded(tmp_path, monkeypatch):
    """Nothing is fetched, and `load_vlm` raises `AskedFor` where it would build the model."""

    def stop(*arguments):
        raise AskedFor(*arguments)

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(loaded, "FINGERPRINTS", tmp_path)
    monkeypatch.setattr(open_clip, "download_pretrained", lambda tag: tag["hf_hub"])
    monkeypatch.setattr(open_clip.factory, "download_pretrained", lambda tag, **_: tag["hf_hub"])
    monkeypatch.setattr(backend, "_build", stop)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_asks_for_its_weights_and_a_model_that_takes_them(nothing_loaded, name):
    hub, side, dim = NAMES[name]
    with pytest.raises(AskedFor) as asked:  # not a UserError: QuickGELU is as in the training
        load_vlm(name, "cpu")
    model_name, weights, preprocessing = asked.value.args
    assert str(weights) == hub

    # open_clip's own model for the same tag, with shapes but without numbers
    own_name, _, tag = ALIASES[name].removeprefix("open_clip:").partition("/")
    assert model_name == own_name
    with torch.device("meta"), torch.inference_mode():
        model = open_clip.create_model(own_name, tag, load_weights=False, device="meta")
        image = model.encode_image(torch.empty(1, 3, side, side))
        text = model.encode_text(torch.zeros(2, model.context_length, dtype=torch.long))
    assert image.shape == (1, dim) and text.shape == (2, dim)
    prepared = open_clip.get_model_preprocess_cfg(model)
    assert preprocessing == {key: prepared[key] for key in preprocessing}
    assert preprocessing.keys() == {"mean", "std", "interpolation", "resize_mode"}
    assert prepared["size"] in (side, (side, side))


def test_messages_and_docstring_know_each_name():
    with pytest.raises(UserError) as unknown:
        load_vlm("?")
    for name in ("demo", *ALIASES, *HUB):
        assert name in str(unknown.value).partition("known: ")[2].replace(";", ",").split(", ")
        assert f"`{name}`" in load_vlm.__doc__


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
    with pytest.raises(UserError, match="only an open_clip VLM can be trained here"):
        load_trainable("mine:Mine", "cpu")


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


def wrong(vlm: ToyVLM, member: str, change) -> ToyVLM:
    """The VLM with another member: `change` of what it gives."""
    right = getattr(vlm, member)
    setattr(vlm, member, (lambda x: change(right(x))) if callable(change) else change)
    return vlm


def broken(_):
    raise KeyError("weights")


NAN = torch.tensor(torch.nan)
WRONG = [  # member, what it gives in place of the right thing, words
    ("name", 7, "name must be a text, not 7"),
    ("dim", DIM + 1, r"encode_images must give a torch.Tensor \(1, 6\), float32, not \(1, 5\)"),
    ("dim", "5", "encode_images must"),
    ("fingerprint", "../toy", "fingerprint must be a text of letters, .* '../toy'"),
    ("fingerprint", None, "fingerprint must be .* not None"),
    ("preprocess", torch.Tensor.numpy, "preprocess fails with TypeError: .*numpy.ndarray"),
    ("preprocess", lambda x: {"pixel_values": x}, "preprocess fails with TypeError: .*dict"),
    ("preprocess", broken, "preprocess fails with KeyError: 'weights'"),
    ("encode_images", torch.Tensor.numpy, "encode_images must .* not a ndarray"),
    ("encode_images", lambda x: x.tolist(), "encode_images must .* not a list"),
    ("encode_images", lambda x: (x, x), "encode_images must .* not a tuple"),
    ("encode_images", lambda x: {"image_embeds": x}, "encode_images must .* not a dict"),
    ("encode_images", torch.Tensor.squeeze, r"encode_images must .* not \(5,\), float32"),
    ("encode_images", lambda x: x.T, r"encode_images must .* not \(5, 1\)"),
    ("encode_images", torch.Tensor.long, r"encode_images must .* not \(1, 5\), int64"),
    ("encode_images", lambda x: x * 1j, "encode_images must .* complex64"),
    ("encode_images", lambda x: x * NAN, "encode_images gave NaN or infinite embeddings"),
    ("encode_images", lambda x: x - x.mean(0) + (len(x) == 1), "beside others; is the model in ev"),
    ("encode_images", broken, "encode_images fails with KeyError: 'weights'"),
    ("encode_texts", torch.Tensor.squeeze, r"encode_texts must .* not \(5,\)"),
    ("encode_texts", lambda x: x[:1], r"encode_texts must give a torch.Tensor \(2, 5\).* \(1, 5\)"),
    ("encode_texts", lambda x: x[:, None], r"encode_texts must .* not \(1, 1, 5\)"),
    ("encode_texts", lambda x: x[:, :3], r"encode_texts must .* not \(1, 3\)"),
    ("encode_texts", lambda x: x / 0, "encode_texts gave NaN or infinite embeddings"),
]


@pytest.mark.parametrize(("member", "change", "words"), WRONG)
def test_a_wrong_member_is_named_before_the_run(own, monkeypatch, member, change, words):
    load_vlm("mine:Mine", "cpu")  # is right
    monkeypatch.setattr("crl.vlm.FINGERPRINTS", own / "cache")
    mine = sys.modules["mine"]
    make = mine.Mine
    monkeypatch.setattr(mine, "Mine", lambda **how: wrong(make(**how), member, change))
    with pytest.raises(UserError, match=words):
        load_vlm("mine:Mine", "cpu")


def test_a_vlm_is_probed_once(own, monkeypatch):
    monkeypatch.setattr("crl.vlm.FINGERPRINTS", own / "cache")
    vlm = load_vlm("mine:Mine", "cpu")
    assert vlm.images == 3 and len(vlm.texts) == 3  # one alone, then two
    assert load_vlm("mine:Mine", "cpu").images == 0


@pytest.mark.parametrize("text", ["raise RuntimeError('no weights')", "def f(:", "import gone"])
def test_a_module_that_cannot_be_imported(own, text):
    (own / "mine.py").write_text(text)
    with pytest.raises(UserError, match="cannot import the VLM mine:Mine: "):
        load_vlm("mine:Mine", "cpu")


# ---- arrays that lie in memory in any order


LAYOUTS = {
    "transposed": lambda x: x.T.contiguous().T,
    "product": lambda x: (torch.eye(DIM) @ x.T).T,
    "strided": lambda x: x.repeat_interleave(2, 1)[:, ::2],
    "with gradients": lambda x: x.clone().requires_grad_(),
    "double": torch.Tensor.double,
    "queries first": lambda x: torch.stack([x, x + 1]).transpose(0, 1),
    "queries last": lambda x: torch.stack([x, x + 1], 2).transpose(1, 2),
    "expanded": lambda x: x[:, None].expand(-1, 2, -1),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_embeddings_of_any_layout_are_encoded_once(tmp_path, layout, precision):
    paths, vlm = make_images(tmp_path / "images", 5), wrong(ToyVLM(), "encode_images", layout)
    vlm.precision = precision
    texts = wrong(ToyVLM("toy-2"), "encode_texts", layout)
    for _ in range(2):
        image = embed_images(vlm, paths, tmp_path / "cache", 2, raw=True).image
        if image.ndim == 2:
            text = embed_texts(texts, ["red", "blue"], tmp_path / "cache", raw=True)
    assert vlm.images == 5 and len(texts.texts) in (0, 2)
    plain = ToyVLM("toy-3")
    plain.precision = precision
    rows = embed_images(plain, paths, tmp_path / "cache", raw=True).image
    assert np.array_equal(image.reshape(5, -1, DIM)[:, 0], rows)
    if image.ndim == 2:
        assert np.array_equal(text, ToyVLM().encode_texts(["red", "blue"]).numpy())


# ---- devices


def on_the_cpu(ones, *size, device):
    if device.type == "cpu":
        return ones(*size, device=device)
    raise RuntimeError("no kernel image is available for execution on the device")


def test_a_gpu_that_cannot_be_used_is_not_used(own, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "ones", partial(on_the_cpu, torch.ones))
    with pytest.warns(UserWarning, match="sees a GPU here and cannot use it .no kernel.*; the CPU"):
        assert load_vlm("mine:Mine").device == torch.device("cpu")
    for device in ("cuda", "mps", "xpu", "nonsense"):
        with pytest.raises(UserError, match=f"no device '{device}' here .*; use the device cpu"):
            load_vlm("mine:Mine", device)
        with pytest.raises(UserError, match=f"no device '{device}' here"):
            make_images(own / "images", 1)
            Collection.embed(own / "images", "mine:Mine", device)
