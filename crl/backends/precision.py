"""The precision in which a VLM computes. In bf16 and fp16 its weights are cast, which is faster
than autocast: that casts them again for every batch."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from crl.run.errors import lacks_memory

if TYPE_CHECKING:
    from crl.backends.loaded import Parts

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SAME = 0.999  # least cosine to fp32, else weights are not cast
BF16 = ("amx_bf16", "avx512_bf16", "bf16", "sve_bf16")  # of x86, and of ARM
TEXTS = ["a cat", "two red cubes on a table", "a street at night, calm and empty, in the rain", "7"]


def computes_bf16(device: torch.device) -> bool:
    """Does this processor or GPU compute in bf16, and not only emulate it?"""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and bool(bf16_instructions()[1])


def bf16_instructions() -> tuple[str, list[str]]:
    """The processor's name, and what it computes bf16 with."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # none before torch 2.11
    known = [name for name in BF16 if capabilities.get(name)]
    return capabilities.get("cpu_name", "processor"), known


@torch.inference_mode(False)  # weights that it would make do not count changes
def cast(model: nn.Module, dtype: torch.dtype) -> None:
    for weight in _weights(model):
        weight.data = weight.data.to(dtype)


def _weights(model: nn.Module) -> list[Tensor]:
    """What is cast: parameters, and the statistics of batch norms, which must be of the same dtype.
    Not other buffers: in bf16, angles of rotary positions would be off by some degrees."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    buffers = [buffer for norm in norms for buffer in norm.buffers()]
    return [*model.parameters(), *filter(Tensor.is_floating_point, buffers)]


def in_dtype(pixels: Tensor, dtype: torch.dtype) -> Tensor:
    """Pictures (B, 3, H, W) as weights of a `dtype` take them. SigLIP 2's patches (B, patches, ...)
    hold whole numbers too, and its model casts them by itself."""
    return pixels.to(dtype) if pixels.ndim == 4 else pixels


def cosine_of_cast(parts: "Parts", dtype: torch.dtype, device: torch.device) -> float:
    """The smallest cosine between embeddings in float32 and with weights in `dtype`, over a few
    pictures and texts; 0 if the model cannot compute so. The weights stay as they are."""
    noise = np.random.default_rng(0).integers(0, 256, (len(TEXTS), 8, 8, 3), np.uint8)
    pictures = [Image.fromarray(spots).resize((256, 192)) for spots in noise]  # bicubic: smooth
    pixels = torch.stack([*map(parts.preprocess, pictures)]).to(device)  # (4, 3, H, W)
    tokens = parts.tokenize(TEXTS).to(device)

    def embeddings(dtype: torch.dtype) -> list[Tensor]:
        images = parts.image_features(in_dtype(pixels, dtype))  # (4, D) or (4, Q, D)
        return [images, parts.text_features(tokens)]

    weights = _weights(parts.model)
    kept = [weight.data for weight in weights]
    with torch.inference_mode():
        exact = embeddings(torch.float32)
        try:
            cast(parts.model, dtype)
            rough = [rows.half().float() for rows in embeddings(dtype)]  # as a store keeps them
        except RuntimeError as error:  # an operation that the dtype lacks, a constant of another
            if lacks_memory(error):
                raise
            return 0.0
        finally:
            for weight, data in zip(weights, kept, strict=True):
                weight.data = data
    both = zip(exact, rough, strict=True)
    return min(float(cosine_similarity(a, b, dim=-1).nan_to_num(0).min()) for a, b in both)
