"""Conditional Representation Learning: R = I Tᵀ."""

from crl.basis import TextBasis
from crl.embed import embed_images, embed_texts
from crl.images import Crop, image_files
from crl.projection import ConditionalProjection
from crl.vlm import VLM, load_vlm

__all__ = [
    "VLM",
    "ConditionalProjection",
    "Crop",
    "TextBasis",
    "embed_images",
    "embed_texts",
    "image_files",
    "load_vlm",
]
