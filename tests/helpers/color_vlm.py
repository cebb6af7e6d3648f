"""A VLM that sees the color of a picture and the side on which it is: `vlm=color_vlm:ColorVLM`."""

from itertools import product
from pathlib import Path

import numpy as np
import torch
from PIL import Image

COLORS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "yellow": (255, 255, 0)}
SIDES = ("left", "right")


class ColorVLM:
    """I: the mean color, and the brightness of each side. T: the same of the words in a text."""

    name, dim, fingerprint = "colors", 6, "colors-1"

    def __init__(self, device=None, precision="fp32"):
        self.device = torch.device("cpu")

    def preprocess(self, image: Image.Image) -> torch.Tensor:
        pixels = np.asarray(image.convert("RGB").resize((8, 8)), np.float32) / 255
        return torch.from_numpy(pixels).permute(2, 0, 1)

    def encode_images(self, batch: torch.Tensor) -> torch.Tensor:
        color = batch.mean((2, 3))
        color = color / (color.norm(dim=1, keepdim=True) + 1e-3)
        sides = torch.stack([batch[..., :4].mean((1, 2, 3)), batch[..., 4:].mean((1, 2, 3))], 1)
        sides = sides / (sides.norm(dim=1, keepdim=True) + 1e-3)
        return torch.cat([color, sides, torch.ones(len(batch), 1)], dim=1)

    def encode_texts(self, texts: list[str]) -> torch.Tensor:
        rows = np.zeros((len(texts), self.dim), np.float32)
        for row, text in zip(rows, texts, strict=True):
            for name, color in COLORS.items():
                row[:3] += (name in text) * np.divide(color, np.linalg.norm(color))
            row[3:5] = [side in text for side in SIDES]
            row[5] = 0.3
        return torch.from_numpy(rows)


def draw(folder: Path, each: int = 3) -> list[Path]:
    """`each` pictures of each color on each side: red-left-0.png ..."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    files = []
    for color, side, number in product(COLORS, SIDES, range(each)):
        pixels = np.zeros((32, 32, 3), np.uint8)
        half = slice(0, 16) if side == "left" else slice(16, 32)
        pixels[:, half] = np.clip(COLORS[color] + rng.integers(-40, 41, (32, 16, 3)), 0, 255)
        files.append(folder / f"{color}-{side}-{number}.png")
        Image.fromarray(pixels).save(files[-1])
    return files


def write_bases(folder: Path) -> None:
    """color.yaml and side.yaml"""
    folder.mkdir(parents=True, exist_ok=True)
    for criterion, texts in (("color", COLORS), ("side", SIDES)):
        lines = "".join(f"\n- {text}" for text in texts)
        head = f"criterion: {criterion}\nvlm_prompt: 'a thing that is {{text}}'\ntexts:"
        (folder / f"{criterion}.yaml").write_text(f"{head}{lines}\n")
