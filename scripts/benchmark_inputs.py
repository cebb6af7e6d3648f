"""What `benchmark.py` measures on: drawn photographs, and models with random weights."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn.functional import interpolate

from crl.backends.precision import cast
from crl.backends.torchvision_fix import import_torchvision

FAMILIES = ("ViT-B-32", "ViT-B-16-SigLIP2", "PE-Core-B-16", "ALIGN", "BLIP-2")


def empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def random_vlm(folder: Path, layers: int) -> str:
    """A local open_clip folder: ViT-B/32 with random weights, which do not change its speed."""
    import_torchvision()
    import open_clip

    architecture = open_clip.get_model_config("ViT-B-32")
    architecture["vision_cfg"]["layers"] = architecture["text_cfg"]["layers"] = layers
    weights = open_clip.CLIP(**architecture).state_dict()
    save_file(weights, empty(folder) / "open_clip_model.safetensors")
    pixels = {"mean": [0.5] * 3, "std": [0.3] * 3, "interpolation": "bicubic"}
    config = {"model_cfg": architecture, "preprocess_cfg": {**pixels, "resize_mode": "shortest"}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return str(folder)


def random_family(name: str, device: torch.device, dtype: torch.dtype) -> list[tuple[Any, Any]]:
    """The image tower of one of `FAMILIES` with 8 pictures, and its text tower with 8 texts; at its
    real size. Weights and inputs are random, the same at each call."""
    import_torchvision()
    import open_clip
    import transformers as hf

    torch.manual_seed(0)
    size, context, vocabulary = 224, 64, 30522
    if name == "ALIGN":
        model: Any = hf.AlignModel(hf.AlignConfig())
        size, norms = 289, (m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d))
        for norm in norms:
            norm.momentum = 1.0
        with torch.no_grad():  # statistics of noise; without them, all images look the same
            model.train().get_image_features(torch.randn(4, 3, size, size))
        towers: Any = (lambda pixels: model.get_image_features(pixels).pooler_output,
                       lambda tokens: model.get_text_features(**tokens).pooler_output)  # fmt: skip
    elif name == "BLIP-2":
        qformer = {"use_qformer_text_input": True, "vocab_size": vocabulary}
        config = hf.Blip2Config(qformer_config=qformer)
        image: Any = hf.Blip2VisionModelWithProjection(config)
        text: Any = hf.Blip2TextModelWithProjection(config)
        model = torch.nn.ModuleList([image, text])
        towers = (lambda pixels: image(pixels).image_embeds,
                  lambda tokens: text(**tokens).text_embeds[:, 0])  # fmt: skip
    else:
        model = open_clip.create_model(name, load_weights=False)
        towers, context = (model.encode_image, model.encode_text), model.context_length
        vocabulary = model.vocab_size
    cast(model.eval().to(device), dtype)
    pixels = interpolate(torch.rand(8, 3, 8, 8) * 4 - 2, size, mode="bicubic")  # smooth spots
    tokens: Any = torch.randint(1, vocabulary - 1, (8, context))
    tokens[:, -1] = vocabulary - 1  # CLIP reads the embedding of the largest
    if name in ("ALIGN", "BLIP-2"):
        tokens = hf.BatchEncoding({"input_ids": tokens, "attention_mask": torch.ones_like(tokens)})
    return [(towers[0], pixels.to(device, dtype)), (towers[1], tokens.to(device))]


def draw(folder: Path, number: int, width: int, height: int) -> list[Path]:
    """Different JPEG files, 4:2:0: spots of every size, the smaller the fainter, as in photos.
    White noise would decode more slowly than a photo, and a plain drawing faster."""
    files, rng = [empty(folder) / f"{n}.jpg" for n in range(number)], np.random.default_rng(0)
    for file in files:
        picture = np.full((height, width, 3), 128, np.float32)
        for cell in (320, 160, 80, 40, 20, 10, 5, 2, 1):
            spots = rng.integers(0, 256, (height // cell + 1, width // cell + 1, 3), np.uint8)
            layer = Image.fromarray(spots).resize((width, height), Image.Resampling.BICUBIC)
            picture += (np.asarray(layer) - np.float32(128)) * 0.5 * (cell / 640) ** 0.3
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(file, quality=90)
    return files
