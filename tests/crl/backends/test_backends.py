"""Each VLM against an independent forward pass of its library's own full model, on tiny random
checkpoints in the real file formats; every refusal with its message."""

import functools
import json
import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import MEAN, SAVE, STD, TOWERS, clip_model, hf, open_clip, save_towers
from PIL import Image

from crl import vlm as vlm_module
from crl.backends.open_clip import _check_quick_gelu
from crl.embed import embed_texts
from crl.images import to_rgb
from crl.run.errors import UserError
from crl.vlm import load_vlm

TEXTS = [
    "a cat",
    "objects with the color of bright red metal cubes on a table",
    "sphere",
    "a photo of a dog, twice " * 40,  # longer than any context here
]


@pytest.fixture(scope="module")
def vlms(folders):
    return {name: load_vlm(str(folder), device="cpu") for name, folder in folders.items()}


@pytest.fixture(scope="module")
def pictures():
    """Noise of five sizes and tints."""
    rng = np.random.default_rng(0)
    noise = [rng.random((37 + 9 * i, 61, 3)) * rng.integers(0, 256, 3) for i in range(5)]
    return [Image.fromarray(pixels.astype(np.uint8)) for pixels in noise]


unit = functools.partial(torch.nn.functional.normalize, dim=-1)


# --- embeddings against the libraries' full models ------------------------------------------------


def by_hand(image, backend):
    """Preprocessing again, in Pillow and NumPy. -> (3, 32, 32)"""
    if backend == "open_clip":  # shortest side to 32, then the centre
        scale = 32 / min(image.size)
        width, height = (max(32, int(side * scale)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
        left, top = round((width - 32) / 2), round((height - 32) / 2)
        image = image.crop((left, top, left + 32, top + 32))
        pixels = (np.asarray(image) / 255 - MEAN) / STD
    elif backend == "align":  # squashed to 40, the centre 32, values -1..1
        image = image.resize((40, 40), Image.Resampling.BILINEAR).crop((4, 4, 36, 36))
        pixels = np.asarray(image) / 127.5 - 1
    else:  # squashed to 32
        image = image.resize((32, 32), Image.Resampling.BICUBIC)
        pixels = (np.asarray(image) / 255 - MEAN) / STD
    return torch.tensor(pixels.transpose(2, 0, 1), dtype=torch.float32)


@pytest.mark.parametrize("backend", SAVE)
def test_preprocess_equals_pillow_and_numpy(vlms, pictures, backend):
    for picture in pictures:
        ours = vlms[backend].preprocess(picture)
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, by_hand(picture, backend), atol=1e-5, rtol=0)
    picture = pictures[0].copy()
    picture.putalpha(100)
    assert torch.equal(vlms[backend].preprocess(picture), vlms[backend].preprocess(to_rgb(picture)))


def embed(vlm, pictures, texts=TEXTS):
    pixels = torch.stack([vlm.preprocess(picture) for picture in pictures])
    return vlm.encode_images(pixels), vlm.encode_texts(texts)


def test_open_clip_equals_the_full_model(vlms, pictures):
    images, texts = embed(vlms["open_clip"], pictures)
    batch = torch.stack([by_hand(picture, "open_clip") for picture in pictures])
    tokens = open_clip.SimpleTokenizer(context_length=20)(TEXTS)
    with torch.no_grad():
        full_images, full_texts, _ = clip_model()(batch, tokens)
    torch.testing.assert_close(unit(images), full_images)
    torch.testing.assert_close(unit(texts), full_texts)
    assert images.shape == (5, 16) and texts.shape == (4, 16)


def test_align_equals_the_full_model(vlms, folders, pictures):
    images, texts = embed(vlms["align"], pictures)
    batch = torch.stack([by_hand(picture, "align") for picture in pictures])
    model = hf.AlignModel.from_pretrained(folders["align"]).eval()
    tokens = hf.AutoTokenizer.from_pretrained(folders["align"])(
        TEXTS, padding="max_length", max_length=64, truncation=True, return_tensors="pt"
    )
    with torch.no_grad():
        full = model(pixel_values=batch, **tokens)
    torch.testing.assert_close(unit(images), full.image_embeds)
    torch.testing.assert_close(unit(texts), full.text_embeds)
    scores = unit(images) @ unit(texts).T / model.temperature.detach()
    torch.testing.assert_close(scores, full.logits_per_image.detach())
    assert images.shape == (5, 64)


def test_blip2_equals_the_full_model(vlms, folders, pictures):
    images, texts = embed(vlms["blip2"], pictures)
    batch = torch.stack([by_hand(picture, "blip2") for picture in pictures])
    tokens = hf.AutoTokenizer.from_pretrained(folders["blip2"])(
        TEXTS, padding=True, max_length=512, truncation=True, return_tensors="pt"
    )
    tokens = {key: tokens[key] for key in ("input_ids", "attention_mask")}
    model = hf.Blip2ForImageTextRetrieval.from_pretrained(folders["blip2"]).eval()
    vision = hf.Blip2VisionModelWithProjection.from_pretrained(folders["blip2"]).eval()
    language = hf.Blip2TextModelWithProjection.from_pretrained(folders["blip2"]).eval()
    with torch.no_grad():
        full = model(pixel_values=batch, **tokens, use_image_text_matching_head=False)
        towers = vision(batch).image_embeds, language(**tokens).text_embeds[:, 0]
    assert images.shape == (5, 4, 16) and texts.shape == (4, 16)
    scores = (unit(images) @ unit(texts).T).amax(dim=1)  # the maximum over the queries
    torch.testing.assert_close(scores, full.logits_per_image)
    torch.testing.assert_close(unit(images), towers[0])
    torch.testing.assert_close(unit(texts), towers[1])


@pytest.mark.parametrize("kind", TOWERS)
def test_two_towers_equal_the_full_model(kind, tmp_path, pictures):
    vlm = load_vlm(str(save_towers(kind, tmp_path)), "cpu")
    images, texts = embed(vlm, pictures)
    model = TOWERS[kind][0].from_pretrained(tmp_path).eval()
    prepared = hf.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")(
        [picture.convert("RGB") for picture in pictures], return_tensors="pt"
    )
    length = {"siglip": "max_length", "siglip2": "max_length"}.get(kind, True)
    context = 22 if kind == "altclip" else 24
    tokenizer = hf.AutoTokenizer.from_pretrained(tmp_path, padding_side="right")
    tokens = tokenizer(
        TEXTS, padding=length, max_length=context, truncation=True, return_tensors="pt"
    )
    if kind not in ("chinese_clip", "altclip"):
        tokens.pop("token_type_ids", None)
    with torch.no_grad():
        full = model(**prepared, **tokens)
    torch.testing.assert_close(unit(images), full.image_embeds)
    torch.testing.assert_close(unit(texts), full.text_embeds)
    assert images.shape[1] == texts.shape[1] == vlm.dim and vlm.context == context
    assert torch.pdist(unit(texts)).min() > 1e-3 and torch.pdist(unit(images)).min() > 1e-3
    alone = torch.cat([vlm.encode_texts([text]) for text in TEXTS])
    torch.testing.assert_close(texts, alone, atol=1e-5, rtol=1e-5)
    long = [text for text in TEXTS if len(tokenizer(text)["input_ids"]) > context]
    assert vlm.cut_off(TEXTS) == long and TEXTS[0] not in long and TEXTS[3] in long


def test_a_folder_of_something_else_says_what_can_be_done(tmp_path):
    for kind in ("clap", "xclip", "llava"):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
        with pytest.raises(UserError, match=f"a '{kind}' model; known are align.*VLM of your own"):
            load_vlm(str(tmp_path), "cpu")


@pytest.mark.parametrize("backend", SAVE)
def test_a_text_is_cut_off_from_one_token_more_than_the_context(vlms, backend, tmp_path):
    vlm = vlms[backend]
    words = [("a " * n).strip() for n in range(1, vlm.context + 9)]
    fits = vlm.context - 2  # beside begin and end
    assert vlm.cut_off(words) == words[fits:] and vlm.cut_off(words[:fits]) == []
    with pytest.warns(UserWarning, match=f"2 of 4 texts are longer than the {vlm.context} tokens"):
        embed_texts(vlm, words[fits - 2 : fits + 2], tmp_path)
    with pytest.warns(UserWarning, match="1 of 2 texts"):  # embedded before, and still not read
        embed_texts(vlm, [words[0], words[-1]], tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        embed_texts(vlm, words[:fits], tmp_path)


@pytest.mark.parametrize("backend", SAVE)
def test_contract(vlms, pictures, backend):
    vlm = vlms[backend]
    images, texts = embed(vlm, pictures)
    assert images.dtype == texts.dtype == torch.float32
    assert images.shape[-1] == texts.shape[-1] == vlm.dim
    assert images.device == texts.device == vlm.device == torch.device("cpu")
    for vectors in (images, texts):  # not normalised
        assert (vectors.norm(dim=-1) - 1).abs().min() > 0.01
    assert not vlm.model.training and not images.requires_grad
    # Neither rows of a batch nor dropout or padding touch one another.
    alone = [embed(vlm, [picture], [text]) for picture, text in zip(pictures, TEXTS, strict=False)]
    torch.testing.assert_close(images[:4], torch.cat([a[0] for a in alone]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(texts, torch.cat([a[1] for a in alone]), atol=1e-5, rtol=1e-5)
    # The test could not see a mix-up if all rows were alike.
    assert torch.pdist(unit(texts)).min() > 1e-3
    assert torch.pdist(unit(images).flatten(1)).min() > 1e-3


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("backend", SAVE)
def test_low_precision_is_close_and_float32(vlms, folders, pictures, backend, precision):
    exact = embed(vlms[backend], pictures)
    rough = embed(load_vlm(str(folders[backend]), "cpu", precision), pictures)
    for a, b in zip(exact, rough, strict=True):
        assert b.dtype == torch.float32
        assert not torch.equal(a, b)  # it did compute in low precision
        assert torch.cosine_similarity(a, b, dim=-1).min() > 0.995


# --- open_clip names ------------------------------------------------------------------------------


def test_open_clip_tag_and_file_equal_the_folder(registry, vlms, pictures, tmp_path, monkeypatch):
    expected = embed(vlms["open_clip"], pictures)
    state = {f"module.{key}": tensor for key, tensor in clip_model().state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "wrapped.pt")
    monkeypatch.chdir(tmp_path)
    for weights in ("shiny", f"{tmp_path}/weights.pt", "weights.pt", "./wrapped.pt"):
        vlm = load_vlm(f"open_clip:tiny-quickgelu/{weights}", device="cpu")
        for ours, theirs in zip(embed(vlm, pictures), expected, strict=True):
            assert torch.equal(ours, theirs), weights


def test_quick_gelu_mismatch_is_an_error(registry):
    with pytest.raises(UserError, match=r"with QuickGELU; use open_clip:tiny-quickgelu/shiny"):
        load_vlm("open_clip:tiny/shiny")
    for model in ("tiny", "tiny-quickgelu"):
        registry[model]["shiny"]["quick_gelu"] = False
    with pytest.raises(UserError, match=r"without QuickGELU; use open_clip:tiny/shiny"):
        load_vlm("open_clip:tiny-quickgelu/shiny")


@pytest.mark.parametrize("name", ["ViT-B-32/openai", "ViT-B-16/openai", "ViT-B-32/metaclip_400m"])
def test_quick_gelu_of_the_paper_s_weights(name):
    with pytest.raises(UserError, match=f"use open_clip:{name.replace('/', '-quickgelu/')}"):
        load_vlm(f"open_clip:{name}")
    for alias in vlm_module.ALIASES.values():
        _check_quick_gelu(*alias.removeprefix("open_clip:").split("/"))


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("metaclipp",), r"unknown VLM 'metaclipp'; did you mean 'metaclip'\?"),
        (("no/such/folder",), r"unknown VLM .* a folder that exists"),
        (("open_clip:ViT-B32/openai",), r"unknown open_clip model 'ViT-B32'; did .* 'ViT-B-32'"),
        (("open_clip:ViT-B-32/opnai",), r"no weights 'opnai' for ViT-B-32.*did you mean 'openai'"),
        (("clip", "cpu", "fp8"), r"unknown precision 'fp8'; known: fp32, bf16, fp16"),
        (("clip", "graphics"), r"no device 'graphics' here .* use the device cpu"),
        (("clip", "cuda:99"), r"no device 'cuda:99' here .* use the device cpu"),
    ],
)
def test_unknown_names_and_devices(arguments, message):
    with pytest.raises(UserError, match=message):
        load_vlm(*arguments)


GONE = object()
FILES = {"open_clip": "open_clip_config.json", "align": "config.json",
         "blip2": "preprocessor_config.json"}  # fmt: skip
# fmt: off
MISMATCHES = [
    ("open_clip", {"model_cfg": GONE}, "no model_cfg"),
    ("open_clip", {"preprocess_cfg.std": GONE}, "how images are"),
    ("open_clip", {"preprocess_cfg.size": [48, 48]}, r"at \[48, 48\] but the model takes 32"),
    ("open_clip", {"model_cfg.colour": "red"}, "cannot load local-dir.*colour"),
    # open_clip would interpolate the position embedding
    ("open_clip", {"preprocess_cfg.size": GONE, "model_cfg.vision_cfg.image_size": 64},
     r"visual.positional_embedding is \(5, 32\) in the file, \(17, 32\) in the model"),
    ("open_clip", {"model_cfg.text_cfg.layers": 3}, r"do not fit .* Missing key.*resblocks.2"),
    ("open_clip", {"model_cfg.text_cfg.layers": 1}, r"do not fit .* Unexpected key.*resblocks.1"),
    ("open_clip", {"model_cfg.embed_dim": 24}, "do not fit .* size mismatch for text_projection"),
    ("align", {"model_type": "clip"}, r"do not fit CLIPModel"),
    ("align", {"text_config.num_hidden_layers": 3}, r"do not fit AlignModel: .*missing.*layer.2"),
    ("align", {"text_config.num_hidden_layers": 1}, r"not fit AlignModel: .*unexpected.*layer.1"),
    ("align", {"projection_dim": 48}, "do not fit AlignModel: .*of another shape.*text_projection"),
    ("blip2", {"size": {"height": 48, "width": 48}}, r"at \[48, 48\] but the model takes 32"),
]
# fmt: on


@pytest.mark.parametrize(("backend", "changes", "message"), MISMATCHES)
def test_folders_that_do_not_match(folders, tmp_path, backend, changes, message):
    file = FILES[backend]
    folder = shutil.copytree(folders[backend], tmp_path / "copy")
    config = json.loads((folder / file).read_text())
    for place, value in changes.items():
        *above, key = place.split(".")
        part = functools.reduce(dict.__getitem__, above, config)
        if value is GONE:
            part.pop(key)
        else:
            part[key] = value
    (folder / file).write_text(json.dumps(config))
    with pytest.raises(UserError, match=message):
        load_vlm(str(folder), device="cpu")


class Evil:
    def __reduce__(self):
        return os.mkdir, ("pwned",)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("backend", ["open_clip", "align"])
def test_code_in_a_checkpoint_never_runs(registry, folders, tmp_path, monkeypatch, backend):
    monkeypatch.chdir(tmp_path)
    if backend == "open_clip":
        name, file = f"open_clip:tiny-quickgelu/{tmp_path}/evil.pt", tmp_path / "evil.pt"
    else:
        folder = shutil.copytree(folders["align"], tmp_path / "copy")
        (folder / "model.safetensors").unlink()
        name, file = str(folder), folder / "pytorch_model.bin"
    for payload in (Evil(), {"state_dict": {"a": torch.ones(1)}, "args": Evil()}):
        torch.save(payload, file)
        with pytest.raises(UserError, match="refused: it holds Python objects"):
            load_vlm(name, device="cpu")
    assert not Path("pwned").exists()
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(file))
    with pytest.raises(UserError, match="TorchScript archive, that is code"):
        load_vlm(name, device="cpu")


def test_damaged_files(registry, folders, tmp_path):
    whole, damaged = (tmp_path / "weights.pt").read_bytes(), tmp_path / "damaged.pt"
    torch.save({"epoch": 3}, damaged)
    no_weights = damaged.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"<html>", os.urandom(999), no_weights):
        damaged.write_bytes(content)
        with pytest.raises(UserError, match=r"damaged.pt is damaged, incomplete or no checkpoint"):
            load_vlm(f"open_clip:tiny-quickgelu/{damaged}", device="cpu")
    for backend in ("open_clip", "align"):
        folder = shutil.copytree(folders[backend], tmp_path / backend)
        (file,) = folder.glob("*.safetensors")
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        with pytest.raises(UserError, match=r"model.safetensors is damaged, incomplete or no"):
            load_vlm(str(folder), device="cpu")
