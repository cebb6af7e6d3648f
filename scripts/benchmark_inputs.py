"""What `benchmark.py` measures on: drawn photographs, and a model with random weights."""

import json
import shutil
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.torch import save_file

from crl.backends.torchvision_fix import import_torchvision


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
