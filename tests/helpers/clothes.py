"""A small data set of clothes in ASEN's files, and a VLM that sees them."""

import functools
import json
from pathlib import Path

import numpy as np
import torch
from checkpoints import open_clip
from PIL import Image
from torch.nn import functional as F
from toy_vlm import ToyVLM

from crl.backends.weights import save_tensors
from fashion_retrieval.trained import Bases

ATTRIBUTES = ("texture", "shape")
TEXTS = (6, 9)  # of the bases
open_clip.get_tokenizer = functools.cache(open_clip.get_tokenizer)  # most of the time of loading


class Clothes(ToyVLM):
    """Sees pictures of one pixel: texture, shape and a number. Embeddings are both values and
    noise."""

    dim = 16

    def preprocess(self, image):
        return torch.from_numpy(np.asarray(image.convert("RGB"), np.float32)).permute(2, 0, 1)

    def encode_images(self, batch):
        self.images += len(batch)
        texture, shape, number = batch[:, :, 0, 0].long().T
        values = torch.cat([F.one_hot(texture, 4), F.one_hot(shape, 4)], 1).float()
        noise = torch.randn(256, 16, generator=torch.Generator().manual_seed(0))
        return F.pad(values, (0, 8)) + 0.4 * noise[number]

    def encode_texts(self, texts):
        self.texts += texts
        seeds = [torch.Generator().manual_seed(sum(text.encode())) for text in texts]
        return torch.stack([torch.randn(16, generator=seed) for seed in seeds])


def write_clothes(folder: Path) -> dict:
    """120 pictures to train on, 60 to validate with (and to test: the same); -> the keys that all
    trainings share. Their bases are `folder/<attribute>.yaml`, see `bases_of`."""
    rng = np.random.default_rng(0)
    (folder / "img").mkdir()
    meta = {"ATTRIBUTES": list(ATTRIBUTES), "ATTRIBUTES_NUM": dict.fromkeys(ATTRIBUTES, 4)}
    (folder / "meta.json").write_text(json.dumps({"Clothes": meta}))
    number = 0
    for split, count in (("train", 120), ("valid", 60)):
        names, rows = [], []
        for index in range(count):
            values = rng.integers(4, size=2)
            names.append(f"img/{number:03}.png")
            Image.fromarray(np.uint8([[[*values, number]]])).save(folder / names[-1])
            number += 1
            rows.append([(index, attribute, values[attribute]) for attribute in (0, 1)])
        lines = [" ".join(map(str, row)) for pair in rows for row in pair]
        if split == "train":
            lines = [f"{t[0]} {t[1]} {t[2]} {s[1]} {s[2]}" for t, s in rows]
            (folder / "filenames_train.txt").write_text("\n".join(names) + "\n")
            (folder / "label_train.txt").write_text("\n".join(lines) + "\n")
            continue
        for part in ("valid", "test"):
            (folder / f"filenames_{part}.txt").write_text("\n".join(names) + "\n")
            (folder / f"query_{part}.txt").write_text("\n".join(lines[:40]) + "\n")
            (folder / f"candidate_{part}.txt").write_text("\n".join(lines[40:]) + "\n")
    for attribute, count in zip(ATTRIBUTES, TEXTS, strict=True):
        texts = "".join(f"\n- {attribute} {'abcdefghi'[n] * (n + 1)}" for n in range(count))
        head = f"criterion: {attribute}\nvlm_prompt: of {{text}}\ntexts:"
        (folder / f"{attribute}.yaml").write_text(f"{head}{texts}\n")
    shared = {"root": folder, "dataset": "Clothes", "device": "cpu", "outputs": folder / "outputs"}
    return {key: str(value) for key, value in shared.items()}


def bases_of(folder: Path) -> dict[str, str]:
    return {attribute: str(folder / f"{attribute}.yaml") for attribute in ATTRIBUTES}


def write_training(folder, heads, bases: Bases, **record) -> Path:
    """What train_mlp.py leaves; `record` changes what it says of itself."""
    save_tensors(folder / "heads.safetensors", heads)
    known = {"method": "crl-mlp", "weights": "heads.safetensors", "vlm": "clip-b16"}
    known |= {"attributes": list(bases.by_attribute), "precision": "fp32", **bases.record}
    (folder / "results.json").write_text(json.dumps({**known, **record}))
    return folder


def write_noise(folder: Path) -> None:
    """In the place of the pictures of `write_clothes`, for networks that see more than a pixel."""
    rng = np.random.default_rng(0)
    for picture in sorted((folder / "img").iterdir()):
        Image.fromarray(rng.integers(0, 256, (36, 40, 3), np.uint8)).save(picture)
