"""Towers against their own layers, and every message."""

from unittest import mock

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from crl.backends.torchvision_fix import import_torchvision
from crl.run.errors import UserError
from crl.vlm import load_vlm
from fashion_retrieval.towers import Visual, open_tower

import_torchvision()
from open_clip.modified_resnet import ModifiedResNet  # noqa: E402
from open_clip.timm_model import TimmModel  # noqa: E402
from open_clip.transformer import VisionTransformer  # noqa: E402


def vit(**more):
    size = {"image_size": 64, "patch_size": 16, "width": 32, "layers": 2, "heads": 2}
    return VisionTransformer(**size, mlp_ratio=2, output_dim=24, **more)


COCA = {"attentional_pool": True, "output_tokens": True, "attn_pooler_queries": 3}
TIMM = {"model_name": "convnext_atto", "embed_dim": 24, "proj": "linear"}
VISUALS = {  # a tower; the layer whose output is its map; is the map a list of tokens there?
    "vit": (lambda: vit(), "ln_post", True),
    "coca": (lambda: vit(**COCA, attn_pooler_heads=2), "transformer", True),
    "resnet": (lambda: ModifiedResNet([1, 1, 1, 1], 24, 4, 64, 8), "layer4", False),
    "timm": (lambda: TimmModel(**TIMM, image_size=64, pool="avg"), "trunk.stages", False),
}


@pytest.mark.parametrize("kind", VISUALS)
def test_vector_and_map_of_open_clip_towers(kind):
    build, layer, tokens = VISUALS[kind]
    visual = build().eval()
    seen = []
    visual.get_submodule(layer).register_forward_hook(lambda *call: seen.append(call[2]))
    pixels = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        vector, actual = visual(pixels), Visual(visual, spatial=True)(pixels)
        vector = vector[0] if kind == "coca" else vector
        assert torch.equal(Visual(visual, spatial=False)(pixels), vector)
    assert vector.shape == (3, 24) and actual.shape[2] == actual.shape[3] > 1
    expected = seen[0]
    for b, y, x in np.ndindex(3, *actual.shape[2:]):
        own = expected[b, 1 + y * actual.shape[3] + x] if tokens else expected[b, :, y, x]
        assert torch.allclose(actual[b, :, y, x], own, atol=1e-5)


def test_tower_of_a_vlm_is_the_vlm(clip):
    tower = open_tower(str(clip), False, "cpu")
    vlm = load_vlm(str(clip), "cpu")
    pixels = torch.randn(4, 3, 32, 32)
    assert torch.allclose(tower.module(pixels), vlm.encode_images(pixels), atol=1e-5)
    assert (tower.channels, tower.fingerprint) == (16, vlm.fingerprint)
    assert not any(part.training for part in tower.module.modules())
    assert open_tower(str(clip), True, "cpu").channels == 32


def test_a_tower_without_a_map(clip):
    with (
        mock.patch.object(Visual, "forward", side_effect=NotImplementedError),
        pytest.raises(UserError, match="has no feature map; try resnet50"),
    ):
        open_tower(str(clip), True, "cpu")


def test_resnet_from_a_file(resnet):
    model, file = resnet
    vector, actual = (open_tower(f"resnet50:{file}", s, "cpu") for s in (False, True))
    assert (vector.name, vector.channels, actual.channels) == ("resnet50", 2048, 1024)
    assert vector.fingerprint != actual.fingerprint
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        x = model.maxpool(model.relu(model.bn1(model.conv1(pixels))))
        x = model.layer3(model.layer2(model.layer1(x)))
        assert torch.equal(actual.module(pixels), x)
        x = model.layer4(x).mean((2, 3))
        assert torch.allclose(vector.module(pixels), x, rtol=1e-5, atol=1e-6)


def test_resnet_from_safetensors_and_from_torchvision_is_the_same(resnet, tmp_path, monkeypatch):
    model, file = resnet
    save_file(model.state_dict(), tmp_path / "resnet.safetensors")
    fetch = mock.Mock(return_value=model.state_dict())
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fetch)
    names = "resnet50", f"resnet50:{file}", f"resnet50:{tmp_path / 'resnet.safetensors'}"
    towers = [open_tower(name, True, "cpu") for name in names]
    assert len({(tower.name, tower.fingerprint) for tower in towers}) == 1
    url, asked = fetch.call_args.args[0], fetch.call_args.kwargs
    assert asked["weights_only"] and asked["check_hash"] and "resnet50-0676ba61" in url
