"""The text basis of each attribute, and T_a from it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from crl.basis import TextBasis, basis_label
from crl.embed import embed_basis
from crl.run.errors import UserError, nearest
from crl.run.results import digest
from crl.vlm import VLM
from fashion_retrieval.method import align


@dataclass(frozen=True)
class Bases:
    """The text basis of each attribute.

    Attributes:
        label: their names in tables, e.g. `deepfashion_*`.
    """

    by_attribute: dict[str, TextBasis]
    label: str

    @classmethod
    def load(
        cls, dataset: str, attributes: list[str], given: dict[str, str], first: int | None
    ) -> "Bases":
        """The bases in `given`, else the shipped `<dataset>_<attribute>`; `first`: how many texts
        of each to use.

        Raises:
            UserError: no such basis, or a basis for an unknown attribute.
        """
        for name in given:
            if name not in attributes:
                raise UserError(f"bases: unknown attribute {name!r}; {nearest(name, attributes)}")
        names = {a: given.get(a, f"{dataset.lower()}_{a}") for a in attributes}
        labels = [re.sub(f"{re.escape(a)}$", "*", basis_label(n)) for a, n in names.items()]
        bases = {a: TextBasis.load(name, first) for a, name in names.items()}
        return cls(bases, ", ".join(dict.fromkeys(labels)))

    @property
    def width(self) -> int:
        """K, the number of texts of the smallest basis."""
        return min(len(basis.texts) for basis in self.by_attribute.values())

    @property
    def about(self) -> dict[str, Any]:
        """Names, number of texts and digest, for results.json."""
        digests = [basis.digest for basis in self.by_attribute.values()]
        return {"basis": self.label, "texts": self.width, "basis_digest": digest(*digests)}

    @property
    def record(self) -> dict[str, Any]:
        """`about`, and the bases themselves, for a training's folder."""
        bases = {
            attribute: basis.model_dump(mode="json", exclude={"provenance"})
            for attribute, basis in self.by_attribute.items()
        }
        return {**self.about, "bases": bases}

    def names(self, values: list[list[str]] | None) -> str:
        """How many of the values of all attributes the bases name, e.g. `37/71`.

        Args:
            values: the names of the values of each attribute; None: not known.
        """
        if values is None:
            return "-"
        named = map(TextBasis.names, self.by_attribute.values(), values)
        return f"{sum(named)}/{sum(map(len, values))}"

    def embed(self, vlm: VLM, cache: Path | None) -> list[np.ndarray]:
        """T_a of each attribute, (K_a, D), unit rows; `cache`: folder of the embedding cache."""
        return [embed_basis(vlm, basis, cache) for basis in self.by_attribute.values()]


def aligned(texts: Sequence[np.ndarray]) -> np.ndarray:
    """T_a of each attribute, (K_a, D) unit rows -> (A, K, D), K the smallest K_a."""
    return np.stack([align(text, min(map(len, texts))) for text in texts])
