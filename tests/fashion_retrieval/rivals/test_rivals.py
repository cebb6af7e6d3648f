"""The trained rivals: towers against their own layers, methods and penalties against loops, files
read back, trainings repeated and resumed; every message."""

import functools
import json
import math
import pickle
import shutil
import urllib.error
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fashion_retrieval.scoring import mean_scores, retrieval_precision
from fashion_retrieval.training import training_data, triplet_loss
from PIL import Image
from safetensors.torch import load_file, save_file
from test_fashion_training import write_clothes
from torch import nn

from crl.run.config import load_config
from crl.run.errors import UserError
from crl.run.torchvision_fix import import_torchvision
from crl.run.weights import read_about, save_tensors
from crl.vlm import DEMO, load_vlm
from fashion_retrieval import networks, rivals
from fashion_retrieval import train_rival as module
from fashion_retrieval.networks import represent_tables
from fashion_retrieval.rivals import ASEN, CSN, METHODS, Tower, Triplet, Visual, load_rival
from fashion_retrieval.train_rival import RivalConfig

import_torchvision()
import open_clip  # noqa: E402
from commands import REPOSITORY
from open_clip.modified_resnet import ModifiedResNet  # noqa: E402
from open_clip.timm_model import TimmModel  # noqa: E402
from open_clip.transformer import VisionTransformer  # noqa: E402
from torchvision.models import resnet50  # noqa: E402

VISION = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16}
TEXT = {"context_length": 20, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
CLIP = {"embed_dim": 12, "vision_cfg": VISION, "text_cfg": TEXT}


TOKENIZER = functools.cache(open_clip.get_tokenizer)


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setattr(open_clip, "get_tokenizer", TOKENIZER)  # most of the time of loading
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A small random CLIP, as a folder of open_clip."""
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    preprocess = {"size": 32, "mean": [0.5] * 3, "std": [0.25] * 3}
    config = {"model_cfg": CLIP, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_file(open_clip.CLIP(**CLIP).state_dict(), folder / "open_clip_model.safetensors")
    return folder


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    """A random ResNet-50 whose running statistics are not those of the beginning; its file."""
    torch.manual_seed(0)
    model = resnet50()
    with torch.no_grad():
        model(torch.randn(2, 3, 64, 64))
    file = tmp_path_factory.mktemp("resnet") / "resnet.pth"
    torch.save(model.state_dict(), file)
    return model.eval(), file


# --- towers ---------------------------------------------------------------------------------------


def vit(**more):
    size = {"image_size": 64, "patch_size": 16, "width": 32, "layers": 2, "heads": 2}
    return VisionTransformer(**size, mlp_ratio=2, output_dim=24, **more)


COCA = {"attentional_pool": True, "output_tokens": True, "attn_pooler_queries": 3}
VISUALS = {  # a tower; the layer whose output is its map; is the map a list of tokens there?
    "vit": (lambda: vit(), "ln_post", True),
    "coca": (lambda: vit(**COCA, attn_pooler_heads=2), "transformer", True),
    "resnet": (lambda: ModifiedResNet([1, 1, 1, 1], 24, 4, 64, 8), "layer4", False),
    "timm": (
        lambda: TimmModel("convnext_atto", 24, image_size=64, pool="avg", proj="linear"),
        "trunk.stages",
        False,
    ),
}


@pytest.mark.parametrize("kind", VISUALS)
def test_vector_and_map_of_open_clip_towers(kind):
    build, layer, tokens = VISUALS[kind]
    visual = build().eval()
    seen = []
    visual.get_submodule(layer).register_forward_hook(lambda *call: seen.append(call[2]))
    pixels = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        vector, found = visual(pixels), Visual(visual, spatial=True)(pixels)
        vector = vector[0] if kind == "coca" else vector
        assert torch.equal(Visual(visual, spatial=False)(pixels), vector)
    assert vector.shape == (3, 24) and found.shape[2] == found.shape[3] > 1
    expected = seen[0]
    for b, y, x in np.ndindex(3, *found.shape[2:]):
        own = expected[b, 1 + y * found.shape[3] + x] if tokens else expected[b, :, y, x]
        assert torch.allclose(found[b, :, y, x], own, atol=1e-5)


def test_tower_of_a_vlm_is_the_vlm(clip):
    tower = rivals.open_tower(str(clip), False, "cpu")
    vlm = load_vlm(str(clip), "cpu")
    pixels = torch.randn(4, 3, 32, 32)
    assert torch.allclose(tower.module(pixels), vlm.encode_images(pixels), atol=1e-5)
    assert (tower.channels, tower.fingerprint) == (12, vlm.fingerprint)
    assert not any(part.training for part in tower.module.modules())
    assert rivals.open_tower(str(clip), True, "cpu").channels == 32
    picture = Image.new("RGB", (50, 40), "red")
    assert torch.equal(tower.preprocess(picture), vlm.preprocess(picture))


def test_resnet_from_a_file(resnet):
    model, file = resnet
    vector, found = (rivals.open_tower(f"resnet50:{file}", s, "cpu") for s in (False, True))
    assert (vector.name, vector.channels, found.channels) == ("resnet50", 2048, 1024)
    assert vector.fingerprint != found.fingerprint
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        x = model.maxpool(model.relu(model.bn1(model.conv1(pixels))))
        x = model.layer3(model.layer2(model.layer1(x)))
        assert torch.equal(found.module(pixels), x)
        x = model.layer4(x).mean((2, 3))
        assert torch.allclose(vector.module(pixels), x, rtol=1e-5, atol=1e-6)
    # torchvision's own preparation, of an image of any mode
    pixels = vector.preprocess(Image.new("L", (300, 260), 128))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    assert pixels.shape == (3, 224, 224)
    assert torch.allclose(pixels[:, 100, 100], (128 / 255 - mean) / std, atol=1e-5)
    half = Image.new("RGB", (200, 200))
    half.paste((255, 255, 255), (0, 0, 200, 4))  # at the rim of a square: not cut off
    assert vector.preprocess(half)[:, 1].min() > 1.5


def test_resnet_from_safetensors_and_from_torchvision_is_the_same(resnet, tmp_path, monkeypatch):
    model, file = resnet
    save_file(model.state_dict(), tmp_path / "resnet.safetensors")
    asked = {}

    def fetch(url, **more):
        asked.update(more, url=url)
        return model.state_dict()

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fetch)
    names = "resnet50", f"resnet50:{file}", f"resnet50:{tmp_path / 'resnet.safetensors'}"
    towers = [rivals.open_tower(name, True, "cpu") for name in names]
    assert len({(tower.name, tower.fingerprint) for tower in towers}) == 1
    assert asked["weights_only"] and asked["check_hash"] and "resnet50-0676ba61" in asked["url"]


# --- methods --------------------------------------------------------------------------------------


class Small(nn.Module):
    """Pixels (B, 3, h, w) -> a map (B, 6, h, w), or its mean."""

    def __init__(self, spatial):
        super().__init__()
        self.layer, self.spatial = nn.Conv2d(3, 6, 1), spatial
        self.norm = nn.BatchNorm2d(6)

    def forward(self, pixels):
        found = self.norm(self.layer(pixels))
        return found if self.spatial else found.mean((2, 3))


def small(kind, attributes=3, width=5):
    torch.manual_seed(1)
    tower = Tower("small", Small(kind.spatial), None, 6, "small-1")
    rival = kind(tower, attributes, width)
    for parameter in rival.parameters():  # none of them idle
        parameter.data += 0.3 * torch.randn_like(parameter)
    return rival.double()


ATTRIBUTE = torch.tensor([2, 0, 0, 1])


def test_triplet_row_by_row():
    rival = small(Triplet)
    features = torch.randn(4, 6, dtype=torch.float64)
    W, b = rival.embedding.weight, rival.embedding.bias
    for found, x in zip(rival.embed(features, ATTRIBUTE), features, strict=True):
        e = torch.stack([sum(W[i, j] * x[j] for j in range(6)) + b[i] for i in range(5)])
        assert torch.allclose(found, e / e.square().sum().sqrt(), atol=1e-12)
    assert torch.equal(
        rival.embed(features, ATTRIBUTE), rival.embed(features, torch.zeros(4, dtype=torch.long))
    )
    assert rival.penalty(features[None].repeat(3, 1, 1), ATTRIBUTE) == 0


def test_csn_row_by_row():
    rival = small(CSN)
    rival.mask.data = rival.mask.data - 0.9  # some of them below zero
    features = torch.randn(4, 6, dtype=torch.float64)
    masks = rival.masks(ATTRIBUTE)
    assert (masks >= 0).all() and (masks == 0).any() and (masks > 0).any(1).all()
    W, b, mask = rival.embedding.weight, rival.embedding.bias, rival.mask.tolist()
    for n, found in enumerate(rival.embed(features, ATTRIBUTE)):
        e = torch.stack(
            [
                (sum(W[i, j] * features[n, j] for j in range(6)) + b[i])
                * max(0.0, mask[ATTRIBUTE[n]][i])
                for i in range(5)
            ]
        )
        assert torch.allclose(found, e / e.square().sum().sqrt(), atol=1e-12)


def test_csn_masks_begin_as_published():
    tower = Tower("small", Small(False), None, 6, "")
    mask = CSN(tower, 40, 1000).mask
    assert mask.mean().item() == pytest.approx(0.9, abs=0.02)
    assert mask.std().item() == pytest.approx(0.7, abs=0.02)


def test_csn_penalty_is_the_published_one():
    rival = small(CSN)
    features = torch.randn(3, 4, 6, dtype=torch.float64)
    mask_norm = embedding_norm = 0.0
    for part in range(3):  # as published: a mean over anchors, positives and negatives
        squares = 0.0
        for n in range(4):
            mask_norm += sum(max(0.0, w) for w in rival.mask[ATTRIBUTE[n]].tolist()) / 4 / 3
            e = rival.embedding.weight @ features[part, n] + rival.embedding.bias
            squares += sum(value**2 for value in e.tolist())
        embedding_norm += math.sqrt(squares) / math.sqrt(4) / 3
    expected = 5e-4 * mask_norm + 5e-3 * embedding_norm
    assert min(mask_norm, embedding_norm) > 0.5
    penalty = rival.penalty(features, ATTRIBUTE)
    assert penalty.item() == pytest.approx(expected, abs=1e-12)
    penalty.backward()
    assert rival.mask.grad.abs().sum() > 0 and rival.embedding.weight.grad.abs().sum() > 0


def literal_asen(rival, features, attribute, mean, variance):
    """Sample by sample, position by position; -> rows (B, width), weights (B, h, w)."""
    conv, norm = rival.position[0], rival.position[1]
    rows, weights = [], []
    for x, a in zip(features, attribute, strict=True):
        asked = rival.attribute.weight[a]
        where = torch.tanh(rival.where[0].weight @ asked + rival.where[0].bias)
        score = torch.zeros(x.shape[1:], dtype=torch.float64)
        for y, z in np.ndindex(*score.shape):
            p = conv.weight[:, :, 0, 0] @ x[:, y, z] + conv.bias
            p = (p - mean) / torch.sqrt(variance + norm.eps) * norm.weight + norm.bias
            score[y, z] = torch.dot(torch.tanh(p), where) / 512**0.5
        weight = torch.exp(score) / torch.exp(score).sum()
        vector = sum(weight[y, z] * x[:, y, z] for y, z in np.ndindex(*score.shape))
        which = torch.clamp(rival.which[0].weight @ asked + rival.which[0].bias, min=0)
        squeeze, excite = rival.channel[0], rival.channel[2]
        hidden = squeeze.weight @ torch.cat([vector, which]) + squeeze.bias
        gate = excite.weight @ torch.clamp(hidden, min=0) + excite.bias
        row = rival.embedding.weight @ (vector / (1 + torch.exp(-gate))) + rival.embedding.bias
        rows.append(row / row.square().sum().sqrt())
        weights.append(weight)
    return torch.stack(rows), torch.stack(weights)


@torch.no_grad()
def test_asen_position_by_position():
    rival = small(ASEN)
    features = torch.randn(4, 6, 2, 3, dtype=torch.float64)
    # In training mode the map is normalised by the batch, and the running statistics follow.
    mapped = rival.position[0](features).transpose(0, 1).flatten(1)  # (512, all positions)
    rows, weights = literal_asen(
        rival, features, ATTRIBUTE, mapped.mean(1), mapped.var(1, correction=0)
    )
    assert torch.allclose(rival.train().embed(features, ATTRIBUTE), rows, atol=1e-10)
    assert not rival.tower.norm.training and rival.position[1].training
    norm = rival.eval().position[1]
    assert torch.allclose(norm.running_mean, 0.1 * mapped.mean(1))
    rows, weights = literal_asen(rival, features, ATTRIBUTE, norm.running_mean, norm.running_var)
    assert torch.allclose(rival.embed(features, ATTRIBUTE), rows, atol=1e-10)
    found = rival.attention(features, ATTRIBUTE)
    assert torch.allclose(found, weights, atol=1e-10)
    assert torch.allclose(found.sum((1, 2)), torch.ones(4, dtype=torch.float64))
    assert found.std() > 1e-3  # and they are not all the same


@pytest.mark.parametrize("kind", METHODS.values())
def test_gradients_reach_everything(kind):
    rival = small(kind).train()
    features = rival.features(torch.randn(12, 3, 2, 2, dtype=torch.float64), "fp32").double()
    embedded = rival.embed(features, ATTRIBUTE.repeat(3))
    assert torch.allclose(embedded.norm(dim=1), torch.ones(12, dtype=torch.float64))
    triplet_loss(*embedded.unflatten(0, (3, -1)), 0.3).backward()  # without the penalty
    # A bias before a batch normalisation changes nothing.
    used = {k: p for k, p in rival.named_parameters() if k != "position.0.bias"}
    assert [key for key, parameter in used.items() if not parameter.grad.abs().sum() > 0] == []


# --- training -------------------------------------------------------------------------------------


@pytest.fixture
def keys(tmp_path, clip):
    """Pictures whose red is the texture and whose green is the shape; the configuration."""
    keys = write_clothes(tmp_path)
    for file in (tmp_path / "img").iterdir():
        texture, shape, number = Image.open(file).getpixel((0, 0))
        Image.new("RGB", (20, 20), (80 * texture, 80 * shape, number)).save(file)
    kept = {key: keys[key] for key in ("root", "dataset", "device", "outputs")}
    sizes = {"width": 16, "epochs": 2, "triplets": 64, "batch_size": 16, "lr": 1e-3}
    return {**kept, **sizes, "method": "csn", "tower": str(clip), "workers": 0}


def train(keys, **more):
    config = RivalConfig(**{**keys, **more})
    module.train(config, config.device)
    folder = config.outputs / "fashion_rivals" / config.name
    return folder, json.loads((folder / "results.json").read_text())


@pytest.mark.parametrize("method", METHODS)
def test_trains_and_can_be_read_back(keys, method):
    folder, results = train(keys, method=method, epochs=3, triplets=160)
    if method != "triplet":  # one embedding cannot serve both attributes
        assert results["losses"][-1] < 0.9 * results["losses"][0]
    assert results["best"]["overall"] > 50 and results["step"] == 30  # by chance: about 30
    assert results["method"] == method and results["tower"] == keys["tower"]
    assert results["tower_fingerprint"] == load_vlm(keys["tower"], "cpu").fingerprint
    files = {file.name for file in folder.iterdir()}
    assert files == {"config.yaml", "rival.safetensors", "results.json", "state.pt"}

    rival = load_rival(folder / "rival.safetensors", 2, "cpu")
    assert (rival.method, rival.tower_name, rival.width) == (method, keys["tower"], 16)
    assert type(rival) is METHODS[method] and not any(m.training for m in rival.modules())
    config = RivalConfig(**keys)
    data = training_data(config)
    tables = [data.query, data.candidate]
    represent = represent_tables(rival, data.files, tables, config, torch.device("cpu"))
    scores = mean_scores(retrieval_precision(represent, *tables), data.query, data.attributes)
    assert scores["overall"] == pytest.approx(results["best"]["overall"], abs=1e-9)
    # The tower was trained too, and stands in the file as it is now.
    before = load_vlm(keys["tower"], "cpu").model.visual.conv1.weight
    stored = load_file(folder / "rival.safetensors")["tower.visual.conv1.weight"]
    assert torch.equal(stored, rival.tower.visual.conv1.weight)
    assert not torch.allclose(stored, before, atol=1e-4)


def test_step_of_a_resnet_and_its_file(resnet, tmp_path):
    tower = rivals.open_tower(f"resnet50:{resnet[1]}", True, "cpu")
    rival = ASEN(tower, 2, 8).train()
    former = {key: tensor.clone() for key, tensor in rival.state_dict().items()}
    optimizer = torch.optim.Adam(rival.parameters(), 1e-3)
    pixels, attribute = torch.randn(6, 3, 64, 64), torch.tensor([0, 1])
    embedded = rival.embed(rival.features(pixels, "fp32"), attribute.repeat(3))
    triplet_loss(*embedded.unflatten(0, (3, -1)), 0.9).backward()
    optimizer.step()
    state = rival.state_dict()
    changed = {key for key in state if not torch.equal(state[key], former[key])}
    assert {"tower.0.weight", "tower.6.5.conv3.weight", "embedding.weight"} <= changed
    assert not any("running" in key for key in changed if key.startswith("tower."))  # in eval mode
    file = tmp_path / "rival.safetensors"
    header = {"method": "asen", "tower": tower.name, "width": "8", "attributes": "2"}
    save_tensors(file, rival, **header)
    with torch.no_grad():
        features = rival.eval().features(pixels, "fp32")
        read = load_rival(file, 2, "cpu")  # no file of the tower, and no network
        again = read.features(pixels, "fp32")
        found = read.embed(again, attribute.repeat(3))
        assert torch.equal(found, rival.embed(features, attribute.repeat(3)))
    assert read.tower_name == "resnet50"


@pytest.mark.parametrize("method", METHODS)
def test_seed_decides_and_interruptions_do_not(keys, method, monkeypatch, capsys):
    keys |= {"method": method, "checkpoint_every": 3}  # 4 steps an epoch
    train(keys, epochs=1, name="parts")
    loss, calls = networks.triplet_loss, []

    def interrupted(*given):
        calls.append(None)
        if len(calls) == 4:  # step 8; the checkpoint is of step 6
            raise KeyboardInterrupt
        return loss(*given)

    monkeypatch.setattr(networks, "triplet_loss", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(keys, name="parts")
    monkeypatch.setattr(networks, "triplet_loss", loss)
    folder, parts = train(keys, name="parts")
    assert "going on after step 6" in capsys.readouterr().out
    whole_folder, whole = train(keys, name="whole")
    assert parts["losses"] == whole["losses"] and len(whole["losses"]) == 2
    assert parts["validation"] == whole["validation"]
    one, two = (load_file(place / "rival.safetensors") for place in (folder, whole_folder))
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    other = train(keys, name="other", seed=1, epochs=1)[1]
    assert other["losses"][0] != whole["losses"][0]


def test_identity_does_not_depend_on_places(keys, tmp_path, capsys):
    folder, _ = train(keys, epochs=1)
    before = {file: file.read_bytes() for file in folder.iterdir()}
    shutil.copytree(keys["tower"], tmp_path / "elsewhere")
    train(keys, epochs=1, tower=str(tmp_path / "elsewhere"))
    assert "this training is finished; nothing to do" in capsys.readouterr().out
    refused(r"holds another training \(method 'csn', not 'triplet'\)", keys, method="triplet")
    refused(r"holds another training \(width 16, not 8\)", keys, width=8)
    refused(r"holds another training \(tower '\w{16}', not '\w{16}'\)", keys, tower="demo")
    assert {file: file.read_bytes() for file in folder.iterdir()} == before


# --- messages -------------------------------------------------------------------------------------


def refused(match, keys, **more):
    with pytest.raises(UserError, match=match) as caught:
        train(keys, **more)
    assert "\n" not in str(caught.value)


def test_wrong_input_before_the_tower_is_loaded(keys, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "open_tower", lambda *_: pytest.fail("a tower was loaded"))
    refused("unknown VLM 'nothing'.* a folder that exists; or take resnet50", keys, tower="nothing")
    refused("only an open_clip VLM .* 'align' is none; or take resnet50", keys, tower="align")
    refused("there is no file 'a/b.pth' with the weights of a", keys, tower="resnet50:a/b.pth")
    refused("there is no file '' with", keys, tower="resnet50:")
    refused("no data set 'Cloths'", keys, dataset="Cloths")
    monkeypatch.setattr(module, "world", lambda: 2)
    refused("rivals are trained by one process", keys)
    assert not Path(keys["outputs"]).exists()


def test_unknown_method():
    with pytest.raises(UserError, match="method: Input should be 'triplet', 'csn' or 'asen'"):
        load_config(RivalConfig, ["method=rpf"], "")


def no_tower(match, name, spatial=False):
    with pytest.raises(UserError, match=match) as caught:
        rivals.open_tower(name, spatial, "cpu")
    assert "\n" not in str(caught.value)


class Evil:
    def __reduce__(self):
        return (pytest.fail, ("code of a checkpoint ran",))


def test_weights_of_a_resnet_that_are_wrong(resnet, tmp_path):
    file = tmp_path / "resnet.pth"
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, file)
    no_tower("weights do not fit a ResNet-50: .*Missing key.*bn1.weight", f"resnet50:{file}")
    torch.save({"conv1.weight": torch.zeros(64, 4, 7, 7)}, file)
    no_tower("weights do not fit a ResNet-50: .*size mismatch for conv1.w", f"resnet50:{file}")
    torch.save([1, 2], file)
    no_tower("resnet.pth is damaged, incomplete or no checkpoint", f"resnet50:{file}")
    file.write_bytes(resnet[1].read_bytes()[:5000])
    no_tower("resnet.pth is damaged, incomplete or no checkpoint", f"resnet50:{file}")
    file.write_bytes(pickle.dumps(Evil(), protocol=2))
    no_tower("resnet.pth is", f"resnet50:{file}")
    torch.save({"conv1.weight": Evil()}, file)
    no_tower("resnet.pth is refused: it holds Python objects", f"resnet50:{file}")


def test_resnet_without_a_network(monkeypatch):
    def fetch(*_, **__):
        raise urllib.error.URLError("no route")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fetch)
    no_tower("ResNet-50: .*no route.*Without a network use tower=resnet50:FILE", "resnet50")


def test_tower_without_a_map(clip, monkeypatch):
    vlm = load_vlm(str(clip), "cpu")
    plain = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4))
    fake = SimpleNamespace(
        preprocess=vlm.preprocess, fingerprint="", model=SimpleNamespace(visual=plain)
    )
    monkeypatch.setattr(rivals, "load_vlm", lambda *_: fake)
    assert rivals.open_tower("demo", False, "cpu").channels == 4
    no_tower("the visual tower of demo has no feature map; try resnet50", "demo", spatial=True)


def no_rival(match, path, attributes=2):
    with pytest.raises(UserError, match=match) as caught:
        load_rival(path, attributes, "cpu")
    assert "\n" not in str(caught.value)


def test_files_that_are_no_rival(clip, tmp_path, keys):
    folder, _ = train(keys, epochs=1)
    file = tmp_path / "other.safetensors"
    no_rival("there is no rival .*other.safetensors; train it with train_rival.py", file)
    no_rival("state.pt is no rival that", folder / "state.pt")
    state = load_file(folder / "rival.safetensors")
    about = {"method": "csn", "tower": str(clip), "width": 16, "attributes": 2}
    assert read_about(folder / "rival.safetensors") == about

    def write(**wrong):
        save_file(state, file, {"about": json.dumps({**about, **wrong})})

    for wrong in ({"method": "rpf"}, {"width": "wide"}, {"attributes": None}):
        write(**wrong)
        no_rival("is no rival that train_rival.py has saved", file)
    save_file(state, file)
    no_rival("is no rival that train_rival.py has saved", file)
    no_rival("is a rival for 2 attributes, the data has 5", folder / "rival.safetensors", 5)
    write(tower="gone")
    no_rival("the tower of .*other.safetensors is not here: unknown VLM 'gone'", file)
    write(width=17)
    no_rival("weights do not fit csn on .*size mismatch for mask", file)
    write(method="asen")
    no_rival("weights do not fit asen on .*Missing key", file)
    write(tower=str(DEMO))
    no_rival("weights do not fit csn on .*demo_vlm", file)
    write()
    assert load_rival(file, 2, "cpu").method == "csn"
    file.write_bytes(file.read_bytes()[:1000])
    no_rival("other.safetensors is damaged, incomplete or no checkpoint", file)


def test_configurations_of_the_repository():
    for name in ("deepfashion_rival", "demo/garments_csn"):
        config = load_config(RivalConfig, ["--config", f"{REPOSITORY}/configs/{name}.yaml"], "")
        assert config.margin == 0.3
    assert (config.method, config.tower, config.width) == ("csn", "demo", 256)
