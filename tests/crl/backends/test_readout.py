"""Multimodal language models, read at their last token: the library's own states, one picture at a
time and without any cache."""

import json

import pytest
import torch
import transformers as hf
from multimodal import save_multimodal
from PIL import Image

from crl.backends.readout import Readout
from crl.instructed import load_instructed
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
    assert (expected[:, 0] - expected[:, 1]).abs().max() > 0.01  # the words matter
