"""Conditional Representation Learning: R = I Tᵀ."""

from crl.basis import TextBasis
from crl.embed import Crop, embed_images, embed_texts, image_files
from crl.projection import ConditionalProjection
from crl.vlm import load_vlm

__all__ = [
    "ConditionalProjection",
    "Crop",
    "TextBasis",
    "embed_images",
    "embed_texts",
    "image_files",
    "load_vlm",
]
