"""Loads from a training's folder what the next step needs: text bases, VLM, heads.

Bases          the text basis of each attribute, and T_a
read_record    the results.json of a folder
Stage          CRL as train_mlp.py or train_backbone.py wrote it to a folder
load_heads     heads from a file
"""

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ValidationError

from crl.backends.hub import explained
from crl.backends.weights import load_tensors
from crl.basis import TextBasis, basis_label
from crl.embed import embed_basis
from crl.projection import l2
from crl.run.config import Width
from crl.run.errors import UserError, explain, nearest
from crl.run.results import digest
from crl.vlm import VLM, find_vlm
from fashion_retrieval.heads import Heads
from fashion_retrieval.method import align
from fashion_retrieval.rivals import RIVALS

TRAININGS = "train_mlp.py, train_backbone.py or train_rival.py"

# --- text bases -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bases:
    """The text basis of each attribute.

    Attributes:
        label: their names in tables, e.g. `deepfashion_*`.
    """

    of: dict[str, TextBasis]
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
        bases = {a: TextBasis.load(name, first) for a, name in names.items()}
        labels = [re.sub(f"{re.escape(a)}$", "*", basis_label(n)) for a, n in names.items()]
        return cls(bases, ", ".join(dict.fromkeys(labels)))

    @property
    def width(self) -> int:
        """K, the number of texts of the smallest basis."""
        return min(len(basis.texts) for basis in self.of.values())

    @property
    def about(self) -> dict[str, Any]:
        """Names, number of texts and digest, for the results file."""
        hashes = [basis.hash for basis in self.of.values()]
        return {"basis": self.label, "texts": self.width, "basis_hash": digest(*hashes)}

    @property
    def record(self) -> dict[str, Any]:
        """All that `from_record` needs, for a training's folder."""
        plain = {
            a: basis.model_dump(mode="json", exclude={"provenance"}) for a, basis in self.of.items()
        }
        return {**self.about, "bases": plain}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> "Bases":
        bases = {a: TextBasis.model_validate(plain) for a, plain in record["bases"].items()}
        return cls(bases, record["basis"])

    def texts(self, vlm: VLM, folder: Path | None) -> list[np.ndarray]:
        """T_a of each attribute, (K_a, D), not normalised; `folder`: the embedding cache."""
        return [embed_basis(vlm, basis, folder) for basis in self.of.values()]

    def embed(self, vlm: VLM, folder: Path | None) -> np.ndarray:
        """T_a of each attribute, aligned, (A, K, D); `folder`: the embedding cache."""
        return aligned(self.texts(vlm, folder))


def aligned(texts: list[np.ndarray]) -> np.ndarray:
    """(K_a, D) of each attribute, not normalised -> (A, K, D), K the smallest K_a."""
    return np.stack([align(l2(text), min(map(len, texts))) for text in texts])


# --- what trainings left --------------------------------------------------------------------------


class _Record(BaseModel):
    """What is needed of a training's results.json."""

    METHODS: ClassVar[Collection[str]]
    weights: str
    attributes: list[str]


class _OfCRL(_Record):
    METHODS = ("crl-mlp", "crl")
    vlm: str
    vlm_fingerprint: str
    precision: Literal["fp32", "bf16", "fp16"]
    basis: str
    bases: dict[str, TextBasis]


class _OfRival(_Record):
    METHODS = RIVALS.keys()
    tower: str
    width: Width


def read_record(folder: Path, attributes: list[str]) -> dict[str, Any]:
    """The results.json of a training.

    Raises:
        UserError: `folder` is not the folder of a training, or has no weights; the training has
            other attributes.
    """
    if folder.is_file():
        raise UserError(f"{folder} is a file; give the folder of the training: {folder.parent}")
    try:
        record = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        kind = next(kind for kind in (_OfRival, _OfCRL) if record["method"] in kind.METHODS)
    except (OSError, ValueError, KeyError, TypeError, StopIteration, RecursionError) as error:
        raise UserError(
            f"{folder} is no folder of {TRAININGS}: it has no results.json of theirs"
        ) from error
    try:
        kind.model_validate(record)
    except ValidationError as error:
        raise UserError(f"{folder}/results.json: {explain(error)}; train again") from error
    known = record["attributes"]
    if not (folder / record["weights"]).is_file():
        raise UserError(f"{folder} has no {record['weights']}; train to the first validation")
    if known != attributes or list(record.get("bases", known)) != known:
        raise UserError(
            f"{folder} was trained on the attributes {', '.join(known)}, the data has "
            f"{', '.join(attributes)}; use a training on this data set"
        )
    return record


@dataclass(frozen=True)
class Stage:
    """CRL as train_mlp.py (stage 1) or train_backbone.py (stage 2) wrote it to `folder`.

    Attributes:
        method: crl-mlp or crl.
        vlm: name for `load_vlm`; after stage 2 a folder. label: the name before any training.
        fingerprint: of the VLM; None after stage 2, whose VLM is in the folder.
        precision: of the VLM.
    """

    folder: Path
    method: str
    vlm: str
    label: str
    fingerprint: str | None
    precision: str
    bases: Bases
    heads: Heads

    @classmethod
    def of(cls, folder: Path, record: dict[str, Any], given: str = "") -> "Stage":
        """
        Args:
            given: the VLM's name that the person gave; another one comes from a file.

        Raises:
            UserError: the folder is damaged, or its VLM is gone or would run code from a file.
        """
        bases = Bases.from_record(record)
        own = record["method"] == "crl"  # stage 2 has a VLM of its own
        vlm = str(folder / "vlm") if own else record["vlm"]
        find_vlm(vlm, from_file=vlm != given)
        return cls(
            folder=folder,
            method=record["method"],
            vlm=vlm,
            label=record["vlm"],
            fingerprint=None if own else record["vlm_fingerprint"],
            precision=record["precision"],
            bases=bases,
            heads=load_heads(folder / "heads.safetensors", len(bases.of), bases.width, own=True),
        )

    def check(self, vlm: VLM) -> None:
        """Raises:
        UserError: the VLM with this name has changed since the training.
        """
        if self.fingerprint not in (None, vlm.fingerprint):
            raise UserError(
                f"{self.folder} was trained on another VLM than {self.vlm!r} is now "
                f"({self.fingerprint}, not {vlm.fingerprint}); bring that one back or train again"
            )


def load_heads(file: Path, attributes: int, width: int, own: bool = False) -> Heads:
    """Heads from a file, in eval mode, on the CPU, in float32.

    Args:
        file: heads.safetensors of this repository's training, or a .pth of the authors' code.
        attributes: A, the number of heads that the file must have.
        width: K, the width of the bases that the heads must take.
        own: True if the file is read as part of its training's folder.

    Raises:
        UserError: no such file; a damaged file or one that holds code; a file of this repository's
            training, given without its folder; no heads; another number of heads, or another width.
    """
    if not own and (file.is_dir() or (file.parent / "results.json").is_file()):
        folder = file if file.is_dir() else file.parent
        raise UserError(
            f"{file} belongs to a training of this repository; give its folder: trained=[{folder}]"
        )
    state = load_tensors(file)
    first, last = (state.get(f"projection_heads.0.fc.{layer}.weight") for layer in (0, 3))
    if any(layer is None or layer.ndim != 2 for layer in (first, last)):
        raise UserError(
            f"{file} holds no heads: it has no projection_heads.0.fc.0.weight and so on"
        )
    count = len({key.split(".")[1] for key in state if key.startswith("projection_heads.")})
    if count != attributes:
        raise UserError(
            f"{file} holds heads for {count} attributes, the data has {attributes}; use heads "
            "trained on this data set"
        )
    if first.shape[-1] != width:
        raise UserError(
            f"the heads in {file} take representations of width {first.shape[-1]}, these are "
            f"{width} wide; use the text bases that they were trained with"
        )
    heads = Heads(attributes, width, len(last))
    with explained(f"{attributes} heads: {file}", remote=False):
        heads.load_state_dict(state)
    return heads.eval()
