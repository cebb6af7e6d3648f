"""Multimodal language models, read at their last token: the library's own states, one picture at a
time and without any cache."""

import shutil

import pytest
import torch
import transformers as hf
from multimodal import save_multimodal
from PIL import Image

from crl.backends.instructed import load_instructed
from crl.backends.readout import Readout
from crl.run.errors import UserError

KINDS = ["qwen2_vl", "qwen3_vl", "llava", "idefics3"]
CRITERIA = ["color", "number of metal objects", "颜色"]
SIZES = [(64, 40), (32, 32), (24, 96)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {kind: save_multimodal(kind, root / kind) for kind in KINDS}


@pytest.fixture(scope="module")
def pictures():
    ramp = Image.radial_gradient("L").convert("RGB")
    return [ramp.rotate(40 * i).resize(size) for i, size in enumerate(SIZES)]


def library(folder, picture, criterion):
    """The state, with the head and all of the library, of one picture."""
    model = hf.AutoModelForImageTextToText.from_pretrained(folder)
    processor = hf.AutoProcessor.from_pretrained(folder)
    words = f'Express this image in one word in terms of {criterion}: "'
    content = [{"type": "image", "image": picture}, {"type": "text", "text": words}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True,
        return_dict=True, return_tensors="pt",
    )  # fmt: skip
    with torch.no_grad():
        return model(**inputs, output_hidden_states=True).hidden_states[-1][0, -1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_vector_is_the_librarys_with_padding_and_with_a_shared_picture(kind, folders, pictures):
    model = Readout("x", "readout", str(folders[kind]), "cpu", "fp32")
    expected = torch.stack([
        torch.stack([library(folders[kind], picture, c) for c in CRITERIA]) for picture in pictures
    ])  # fmt: skip
    shared = model.encode(pictures, CRITERIA)
    assert model.shares and shared.shape == (3, 3, model.dim)
    alone = torch.cat([model.encode(pictures, [c]) for c in CRITERIA], dim=1)
    torch.testing.assert_close(alone, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(shared, expected, atol=1e-5, rtol=1e-5)
    twice = model.encode(pictures[:1], ["color", "color"])[0]
    torch.testing.assert_close(twice, expected[0, [0, 0]], atol=1e-5, rtol=1e-5)
    assert (expected[:, 0] - expected[:, 1]).abs().max() > 0.01  # the words matter


@pytest.mark.parametrize("kind", ["qwen3-vl-embedding", "gme"])
def test_embedding_models_are_read_after_their_own_prompt(kind, folders, pictures):
    """The prompts as the published code writes them."""
    folder = folders["qwen2_vl"]
    model = load_instructed(f"{kind}:{folder}", "cpu")
    told, end = {
        "qwen3-vl-embedding": ("Represent the image by its color.", ""),
        "gme": ("Find images of the same color.", "<|endoftext|>"),
    }[kind]
    text = (
        f"<|im_start|>system\n{told}<|im_end|>\n<|im_start|>user\n<|vision_start|><|image_pad|>"
        f"<|vision_end|><|im_end|>\n<|im_start|>assistant\n{end}"
    )
    assert model.prompt("color") == text
    processor = hf.AutoProcessor.from_pretrained(folder)
    whole = hf.AutoModelForImageTextToText.from_pretrained(folder)
    with torch.no_grad():
        for picture, row in zip(pictures, model.encode(pictures, ["color", "mood"]), strict=True):
            inputs = processor(images=picture, text=text, return_tensors="pt")
            state = whole(**inputs, output_hidden_states=True).hidden_states[-1][0, -1]
            torch.testing.assert_close(row[0], state, atol=1e-5, rtol=1e-5)


def test_the_fingerprint_is_of_all_files_and_of_the_precision(folders, tmp_path):
    folder = shutil.copytree(folders["llava"], tmp_path / "copy")
    first = load_instructed(f"readout:{folder}", "cpu").fingerprint
    assert first == load_instructed(f"readout:{folders['llava']}", "cpu").fingerprint
    assert first != load_instructed(f"readout:{folder}", "cpu", "bf16").fingerprint
    with (folder / "processor_config.json").open("a") as file:
        file.write(" ")
    assert first != load_instructed(f"readout:{folder}", "cpu").fingerprint


def test_low_precision_is_near(folders, pictures):
    rows = [load_instructed(f"readout:{folders['qwen3_vl']}", "cpu", p).encode(pictures, ["color"])
            for p in ("fp32", "bf16")]  # fmt: skip
    assert rows[1].dtype == torch.float32
    assert torch.cosine_similarity(*rows, dim=-1).min() > 0.99


def test_what_cannot_be_read_is_refused_in_one_line(folders, tmp_path):
    with pytest.raises(UserError, match="cannot fetch no/such"):
        load_instructed("readout:no/such", "cpu")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"cannot load .*empty"):
        load_instructed(f"readout:{tmp_path / 'empty'}", "cpu")
    silent = shutil.copytree(folders["qwen2_vl"], tmp_path / "silent")
    (silent / "chat_template.jinja").unlink()
    with pytest.raises(UserError, match="silent has no chat template"):
        load_instructed(f"readout:{silent}", "cpu")
    damaged = shutil.copytree(folders["llava"], tmp_path / "damaged")
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"model\.safetensors"):
        load_instructed(f"readout:{damaged}", "cpu").encode([Image.new("RGB", (9, 9))], ["color"])
