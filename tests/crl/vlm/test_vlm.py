"""Each VLM against an independent forward pass of its library's own full model, on tiny random
checkpoints in the real file formats; every refusal with its message."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import (
    CLIP,
    MEAN,
    STD,
    clip_model,
    save_align,
    save_blip2,
    save_clip,
)
from PIL import Image
from safetensors.torch import save_file

from crl import vlm as vlm_module
from crl.images import to_rgb
from crl.run.errors import UserError
from crl.run.torchvision_fix import import_torchvision
from crl.vlm import fingerprints, load_vlm

import_torchvision()
import open_clip  # noqa: E402
import transformers as hf  # noqa: E402

TEXTS = [
    "a cat",
    "objects with the color of bright red metal cubes on a table",
    "sphere",
    "a photo of a dog, twice " * 40,  # longer than any context here
]


# --- checkpoints ----------------------------------------------------------------------------------

SAVE = {"open_clip": save_clip, "align": save_align, "blip2": save_blip2}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("vlms")
    return {name: save(root / name) for name, save in SAVE.items()}


@pytest.fixture(scope="module")
def vlms(folders):
    return {name: load_vlm(str(folder), device="cpu") for name, folder in folders.items()}


@pytest.fixture(scope="module")
def pictures():
    """Noise of five sizes and tints."""
    rng = np.random.default_rng(0)
    noise = [rng.random((37 + 9 * i, 61, 3)) * rng.integers(0, 256, 3) for i in range(5)]
    return [Image.fromarray(pixels.astype(np.uint8)) for pixels in noise]


def edited(folder, tmp_path, file, edit):
    """A copy of `folder` whose JSON `file` went through `edit`."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for original in folder.iterdir():
        (copy / original.name).write_bytes(original.read_bytes())
    config = json.loads((copy / file).read_text())
    edit(config)
    (copy / file).write_text(json.dumps(config))
    return copy


def unit(vectors):
    return vectors / vectors.norm(dim=-1, keepdim=True)


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


def embed(vlm, pictures, texts=TEXTS):
    return vlm.encode_images(torch.stack([vlm.preprocess(p) for p in pictures])), vlm.encode_texts(
        texts
    )


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


@pytest.mark.parametrize("backend", SAVE)
def test_loading_a_good_folder_warns_of_nothing(folders, caplog, recwarn, backend):
    load_vlm(str(folders[backend]), device="cpu")
    assert not [record.getMessage() for record in caplog.records if record.levelname != "INFO"]
    assert not [str(warning.message) for warning in recwarn]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("backend", SAVE)
def test_low_precision_is_close_and_comes_out_as_float32(
    vlms, folders, pictures, backend, precision
):
    exact = embed(vlms[backend], pictures)
    rough = embed(load_vlm(str(folders[backend]), device="cpu", precision=precision), pictures)
    for a, b in zip(exact, rough, strict=True):
        assert b.dtype == torch.float32
        assert not torch.equal(a, b)  # it did compute in low precision
        assert torch.cosine_similarity(a, b, dim=-1).min() > 0.995


# --- images ---------------------------------------------------------------------------------------


def test_every_image_mode_becomes_rgb(vlms):
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    grey = Image.fromarray(ramp)
    colour = Image.fromarray(np.stack([ramp, ramp.T, 255 - ramp], axis=-1))
    opaque = colour.copy()
    opaque.putalpha(Image.fromarray(ramp))
    share = ramp[..., None] / 255
    on_white = (np.asarray(colour) * share + 255 * (1 - share)).round().astype(np.uint8)
    palette = colour.quantize(7)
    cases = {
        "1": (grey.convert("1"), grey.convert("1").convert("RGB")),
        "L": (grey, np.stack([ramp] * 3, axis=-1)),
        "LA": (grey.convert("LA"), np.stack([ramp] * 3, axis=-1)),
        "P": (palette, palette.convert("RGB")),
        "RGB": (colour, colour),
        "RGBA": (opaque, on_white),
        "CMYK": (colour.convert("CMYK"), colour),
        "YCbCr": (colour.convert("YCbCr"), colour.convert("YCbCr").convert("RGB")),
        "I;16": (Image.fromarray(ramp.astype(np.uint16) * 257), np.stack([ramp] * 3, axis=-1)),
        "I": (Image.fromarray(ramp.astype(np.int32) * 257), np.stack([ramp] * 3, axis=-1)),
        "F": (Image.fromarray(ramp.astype(np.float32)), np.stack([ramp] * 3, axis=-1)),
    }
    for mode, (image, expected) in cases.items():
        assert image.mode == mode
        difference = np.asarray(to_rgb(image), int) - np.asarray(expected, int)
        assert np.abs(difference).max() <= (mode == "RGBA"), mode  # Pillow rounds its own way
        for vlm in vlms.values():
            shown = to_rgb(image)
            assert torch.equal(vlm.preprocess(image), vlm.preprocess(shown)), mode


def test_sixteen_bit_png_from_disk(tmp_path):
    ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    with Image.open(tmp_path / "deep.png") as image:
        seen = np.asarray(to_rgb(image))[..., 0]
    assert np.abs(seen - ramp / 257).max() <= 0.5


# --- fingerprint ----------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", SAVE)
def test_fingerprint_is_stable_and_follows_the_weights(folders, vlms, backend):
    vlm = load_vlm(str(folders[backend]), device="cpu")
    before = vlm.fingerprint
    assert before == vlms[backend].fingerprint
    weight = next(iter(vlm.model.parameters()))
    with torch.no_grad():
        weight.view(-1)[-1] += 1e-3
    assert vlm.fingerprint != before
    assert load_vlm(str(folders[backend]), device="cpu", precision="bf16").fingerprint != before


def test_fingerprint_is_the_same_in_another_process(folders, vlms):
    code = (
        "import sys; from crl.vlm import load_vlm\n"
        "for folder in sys.argv[1:]: print(load_vlm(folder, device='cpu').fingerprint)"
    )
    there = run_python(code, *map(str, folders.values())).stdout.split()
    assert there == [vlms[backend].fingerprint for backend in folders]


@pytest.mark.parametrize(
    ("backend", "file", "edit"),
    [
        (
            "open_clip",
            "open_clip_config.json",
            lambda c: c["preprocess_cfg"].update(mean=[0.5] * 3),
        ),
        ("open_clip", "open_clip_config.json", lambda c: c["model_cfg"].update(quick_gelu=False)),
        (
            "open_clip",
            "open_clip_config.json",
            lambda c: c["model_cfg"]["text_cfg"].update(tokenizer_kwargs={"clean": "whitespace"}),
        ),
        ("align", "preprocessor_config.json", lambda c: c.update(rescale_offset=False)),
        ("align", "config.json", lambda c: c["text_config"].update(hidden_act="relu")),
        ("blip2", "preprocessor_config.json", lambda c: c.update(image_std=[0.5] * 3)),
        ("blip2", "tokenizer_config.json", lambda c: c.update(do_lower_case=False)),
    ],
)
def test_fingerprint_follows_preprocessing_activation_and_tokenizer(
    folders, vlms, tmp_path, backend, file, edit
):
    changed = load_vlm(str(edited(folders[backend], tmp_path, file, edit)), device="cpu")
    assert changed.fingerprint != vlms[backend].fingerprint


# --- open_clip names ------------------------------------------------------------------------------


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """open_clip with small models of ours; -> their tags: {model: {tag: settings}}."""
    monkeypatch.setattr(fingerprints, "FOLDER", tmp_path / "fingerprints")
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


def test_open_clip_tag_and_file_equal_the_folder(registry, vlms, pictures, tmp_path, monkeypatch):
    expected = embed(vlms["open_clip"], pictures)
    wrapped = {"epoch": 3, "state_dict": {f"module.{k}": v for k, v in load_weights(tmp_path)}}
    torch.save(wrapped, tmp_path / "wrapped.pt")
    monkeypatch.chdir(tmp_path)
    for weights in ("shiny", f"{tmp_path}/weights.pt", "weights.pt", "./wrapped.pt"):
        vlm = load_vlm(f"open_clip:tiny-quickgelu/{weights}", device="cpu")
        for ours, theirs in zip(embed(vlm, pictures), expected, strict=True):
            assert torch.equal(ours, theirs), weights


def load_weights(folder):
    return torch.load(folder / "weights.pt", weights_only=True).items()


def test_quick_gelu_mismatch_is_an_error(registry):
    with pytest.raises(UserError, match=r"with QuickGELU; use open_clip:tiny-quickgelu/shiny"):
        load_vlm("open_clip:tiny/shiny")
    registry["tiny"]["shiny"]["quick_gelu"] = False
    registry["tiny-quickgelu"]["shiny"]["quick_gelu"] = False
    with pytest.raises(UserError, match=r"without QuickGELU; use open_clip:tiny/shiny"):
        load_vlm("open_clip:tiny-quickgelu/shiny")


def test_quick_gelu_of_the_paper_s_weights():
    for model, tag in (
        ("ViT-B-32", "openai"),
        ("ViT-B-16", "openai"),
        ("ViT-B-32", "metaclip_400m"),
    ):
        with pytest.raises(UserError, match=f"use open_clip:{model}-quickgelu/{tag}"):
            load_vlm(f"open_clip:{model}/{tag}")
    for alias in vlm_module.ALIASES.values():
        vlm_module.open_clip._check_quick_gelu(*alias.removeprefix("open_clip:").split("/"))


def test_plain_file_needs_weights_that_agree_on_preprocessing(registry, tmp_path):
    name = f"open_clip:tiny-quickgelu/{tmp_path}/weights.pt"
    other = open_clip.pretrained._slpcfg(quick_gelu=True)
    registry["tiny-quickgelu"]["other"] = other
    with pytest.raises(UserError, match=r"known weights do not agree; use a folder"):
        load_vlm(name)
    registry["tiny-quickgelu"].clear()
    with pytest.raises(UserError, match=r"does not say how tiny-quickgelu's images"):
        load_vlm(name)


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("metaclipp",), r"unknown VLM 'metaclipp'; did you mean 'metaclip'\?"),
        (("no/such/folder",), r"unknown VLM .* a folder that exists"),
        (
            ("open_clip:ViT-B32/openai",),
            r"unknown open_clip model 'ViT-B32'; did you mean 'ViT-B-32'",
        ),
        (("open_clip:ViT-B-32/opnai",), r"no weights 'opnai' for ViT-B-32.*did you mean 'openai'"),
        (("clip", "cpu", "fp8"), r"unknown precision 'fp8'; known: fp32, bf16, fp16"),
        (("clip", "graphics"), r"no device 'graphics' here .* use device=cpu"),
        (("clip", "cuda:99"), r"no device 'cuda:99' here .* use device=cpu"),
    ],
)
def test_unknown_names_and_devices(arguments, message):
    with pytest.raises(UserError, match=message):
        load_vlm(*arguments)


def test_missing_demo_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(vlm_module, "DEMO", tmp_path / "demo_vlm")
    with pytest.raises(UserError, match=r"demo VLM is missing: .*demo_vlm; restore it"):
        load_vlm("demo")
    save_clip(tmp_path / "demo_vlm")
    assert load_vlm("demo").dim == 16


@pytest.mark.parametrize(
    ("backend", "file", "edit", "message"),
    [
        ("open_clip", "open_clip_config.json", lambda c: c.pop("model_cfg"), "no model_cfg"),
        ("open_clip", "open_clip_config.json", lambda c: c.pop("preprocess_cfg"), "how images are"),
        ("open_clip", "open_clip_config.json", lambda c: c["preprocess_cfg"].pop("std"), "how ima"),
        (
            "open_clip",
            "open_clip_config.json",
            lambda c: c["preprocess_cfg"].update(size=[48, 48]),
            r"prepared at \[48, 48\] but the model takes 32",
        ),
        (
            "open_clip",
            "open_clip_config.json",
            lambda c: c["model_cfg"].update(colour="red"),
            "cannot load local-dir.*colour",
        ),
        (
            "open_clip",  # open_clip would interpolate the position embedding
            "open_clip_config.json",
            lambda c: (
                c["preprocess_cfg"].pop("size"),
                c["model_cfg"]["vision_cfg"].update(image_size=64),
            ),
            r"visual.positional_embedding is \(5, 32\) in the file, \(17, 32\) in the model",
        ),
        (
            "open_clip",
            "open_clip_config.json",
            lambda c: c["model_cfg"]["text_cfg"].update(layers=3),
            r"do not fit .* Missing key.*transformer.resblocks.2",
        ),
        (
            "open_clip",
            "open_clip_config.json",
            lambda c: c["model_cfg"]["text_cfg"].update(layers=1),
            r"do not fit .* Unexpected key.*transformer.resblocks.1",
        ),
        (
            "open_clip",
            "open_clip_config.json",
            lambda c: c["model_cfg"].update(embed_dim=24),
            r"do not fit .* size mismatch for text_projection",
        ),
        (
            "align",
            "config.json",
            lambda c: c.update(model_type="clip"),
            r"a 'clip' model; .*'align'",
        ),
        ("align", "config.json", lambda c: c.pop("model_type"), "config.json.*model_type"),
        (
            "align",
            "config.json",
            lambda c: c["text_config"].update(num_hidden_layers=3),
            r"do not fit AlignModel: .*missing.*text_model.encoder.layer.2",
        ),
        (
            "align",
            "config.json",
            lambda c: c["text_config"].update(num_hidden_layers=1),
            r"do not fit AlignModel: .*unexpected.*text_model.encoder.layer.1",
        ),
        (
            "align",
            "config.json",
            lambda c: c.update(projection_dim=48),
            r"do not fit AlignModel: .*of another shape.*text_projection",
        ),
        (
            "blip2",
            "preprocessor_config.json",
            lambda c: c.update(size={"height": 48, "width": 48}),
            r"prepared at \[48, 48\] but the model takes 32",
        ),
    ],
)
def test_folders_that_do_not_match(folders, tmp_path, backend, file, edit, message):
    with pytest.raises(UserError, match=message):
        load_vlm(str(edited(folders[backend], tmp_path, file, edit)), device="cpu")


@pytest.mark.parametrize(
    ("backend", "file", "message"),
    [
        ("open_clip", "open_clip_model.safetensors", "open_clip_model.safetensors is missing"),
        ("open_clip", "open_clip_config.json", "no open_clip_config.json.*config.json"),
        ("align", "preprocessor_config.json", "preprocessor_config.json is missing"),
        ("blip2", "preprocessor_config.json", "preprocessor_config.json is missing"),
        ("align", "model.safetensors", "cannot load .*model.safetensors"),
    ],
)
def test_folders_with_a_file_missing(folders, tmp_path, backend, file, message):
    folder = (
        edited(folders[backend], tmp_path, file, lambda c: None)
        if file.endswith("json")
        else (
            edited(
                folders[backend],
                tmp_path,
                next(folders[backend].glob("*.json")).name,
                lambda c: None,
            )
        )
    )
    (folder / file).unlink()
    with pytest.raises(UserError, match=message):
        load_vlm(str(folder), device="cpu")


def test_tokenizer_with_more_tokens_than_the_model(tmp_path):
    small = {**CLIP, "text_cfg": {**CLIP["text_cfg"], "vocab_size": 100}}
    config = {"model_cfg": small, "preprocess_cfg": {"mean": MEAN, "std": STD}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    save_file(open_clip.CLIP(**small).state_dict(), tmp_path / "open_clip_model.safetensors")
    with pytest.raises(UserError, match="tokenizer has 49408 tokens, the model fewer"):
        load_vlm(str(tmp_path), device="cpu")


class Evil:
    def __reduce__(self):
        return os.mkdir, ("pwned",)


@pytest.mark.parametrize("backend", ["open_clip", "align"])
def test_pickled_code_never_runs(registry, folders, tmp_path, monkeypatch, backend):
    monkeypatch.chdir(tmp_path)
    if backend == "open_clip":
        name, file = f"open_clip:tiny-quickgelu/{tmp_path}/evil.pt", tmp_path / "evil.pt"
    else:
        folder = edited(folders["align"], tmp_path, "config.json", lambda c: None)
        (folder / "model.safetensors").unlink()
        name, file = str(folder), folder / "pytorch_model.bin"
    for payload in (Evil(), {"state_dict": {"a": torch.ones(1)}, "args": Evil()}):
        torch.save(payload, file)
        with pytest.raises(UserError, match="refused: it holds Python objects"):
            load_vlm(name, device="cpu")
    assert not Path("pwned").exists()


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_torchscript_archive_is_refused(registry, tmp_path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "script.pt"))
    with pytest.raises(UserError, match="TorchScript archive, that is code"):
        load_vlm(f"open_clip:tiny-quickgelu/{tmp_path}/script.pt", device="cpu")


def test_damaged_files(registry, folders, tmp_path):
    whole = (tmp_path / "weights.pt").read_bytes()
    damaged = tmp_path / "damaged.pt"
    for content in (whole[: len(whole) // 2], b"", b"<html>not found</html>", os.urandom(999)):
        damaged.write_bytes(content)
        with pytest.raises(UserError, match=r"damaged.pt is damaged, incomplete or no checkpoint"):
            load_vlm(f"open_clip:tiny-quickgelu/{damaged}", device="cpu")
    for content in ([1, 2], {"epoch": 3}):
        torch.save(content, damaged)
        with pytest.raises(UserError, match=r"damaged.pt is damaged, incomplete or no checkpoint"):
            load_vlm(f"open_clip:tiny-quickgelu/{damaged}", device="cpu")
    for backend, file in (
        ("open_clip", "open_clip_model.safetensors"),
        ("align", "model.safetensors"),
    ):
        weights = (folders[backend] / file).read_bytes()
        (tmp_path / backend).mkdir()
        folder = edited(folders[backend], tmp_path / backend, *next_json(folders[backend]))
        (folder / file).write_bytes(weights[: len(weights) // 2])
        with pytest.raises(UserError, match=rf"{file} is damaged, incomplete or no checkpoint"):
            load_vlm(str(folder), device="cpu")


def next_json(folder):
    return next(folder.glob("*config.json")).name, lambda config: None


# --- the world around -----------------------------------------------------------------------------


def run_python(code, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        cwd=Path(__file__).parent.parent,
    )


def test_importing_the_module_stays_quick():
    code = (
        "import sys, crl.vlm; print({'open_clip', 'transformers', 'torchvision'} & {*sys.modules})"
    )
    assert run_python(code).stdout.strip() == "set()"


def test_torch_and_torchvision_that_do_not_match(monkeypatch):
    monkeypatch.setattr(
        "importlib.metadata.requires", lambda name: ["numpy", "torch (==1.2.3)", "pillow (>=5)"]
    )
    with pytest.raises(UserError, match=r"torchvision .* wants torch 1\.2\.3 but .* is installed"):
        load_vlm("clip")


def test_torchvision_whose_operators_do_not_load(tmp_path):
    """A stand-in that fails as the CUDA wheel does beside a CPU-only torch: half-way."""
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "early.py").write_text("")
    (package / "late.py").write_text(
        "import torch, torchvision.early\n"
        "torchvision.early\n"  # an attribute that a half-imported package does not get again
        "torch.library.register_fake('torchvision::nms')(lambda *_: None)\n"
        "torch.library.register_fake('torchvision::qnms')(lambda *_: None)\n"
    )
    (package / "__init__.py").write_text("from torchvision import early, late\nwhole = True\n")
    code = (
        "from crl.run.torchvision_fix import import_torchvision\n"
        "import_torchvision(); import_torchvision()\n"
        "import torchvision; print(torchvision.whole, torchvision.__file__)"
    )
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parent.parent)])
    answer = run_python(code, PYTHONPATH=path).stdout.split()
    assert answer == ["True", str(package / "__init__.py")]
