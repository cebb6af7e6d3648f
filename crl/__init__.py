"""Conditional Representation Learning: R = I Tᵀ.

The names below are imported when they are first used: torch takes seconds, and a script must be
able to answer an interrupt before.
"""
# ruff: noqa: F401

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crl.basis import TextBasis
    from crl.embed import embed_images, embed_texts
    from crl.explore.collection import Collection
    from crl.explore.criteria import rank_criteria
    from crl.images import Crop, image_files
    from crl.projection import ConditionalProjection
    from crl.representations import represent
    from crl.representations.weighted import weighted, weighted_similarity
    from crl.vlm import VLM, load_vlm

__version__ = "0.4.0"

MODULES = {
    "VLM": "vlm",
    "Collection": "explore.collection",
    "ConditionalProjection": "projection",
    "Crop": "images",
    "TextBasis": "basis",
    "embed_images": "embed",
    "embed_texts": "embed",
    "image_files": "images",
    "load_vlm": "vlm",
    "rank_criteria": "explore.criteria",
    "represent": "representations",
    "weighted": "representations.weighted",
    "weighted_similarity": "representations.weighted",
}
__all__ = list(MODULES)


def __getattr__(name: str) -> Any:
    if name not in MODULES:
        raise AttributeError(f"module 'crl' has no attribute {name!r}")
    return getattr(import_module(f"crl.{MODULES[name]}"), name)
