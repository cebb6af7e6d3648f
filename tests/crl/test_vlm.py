"""Names: the weights that each asks for, the open_clip model that takes them, VLMs of one's own."""

import sys

import pytest
import torch
from huggingface_hub import constants
from toy_vlm import ToyVLM

from crl.backends import loaded
from crl.backends import open_clip as backend
from crl.backends.torchvision_fix import import_torchvision
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
