"""The text basis of each attribute, T_a from it, and the folders of trainings: a folder holds the
weights, and in results.json what they belong to. (The VLM of stage 1 is named there, not stored.)
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ValidationError

from crl.basis import TextBasis, basis_label
from crl.embed import embed_basis
from crl.run.config import Width
from crl.run.errors import UserError, explain, nearest
from crl.run.results import digest
from crl.vlm import VLM, find_vlm
from fashion_retrieval.method import align
from fashion_retrieval.networks import Heads, load_heads


class Bases(NamedTuple):
    """The text basis of each attribute."""

    by_attribute: dict[str, TextBasis]
    label: str  # their names in tables, e.g. `deepfashion_*`

    @classmethod
    def load(
        cls, dataset: str, attributes: list[str], given: dict[str, str], first: int | None
    ) -> "Bases":
        """The bases in `given`, else the shipped `<dataset>_<attribute>`; `first`: how many texts
        of each to use. UserError: no such basis, or a basis for an unknown attribute."""
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
        """What a result says of them."""
        digests = [basis.digest for basis in self.by_attribute.values()]
        return {"basis": self.label, "texts": self.width, "basis_digest": digest(*digests)}

    @property
    def record(self) -> dict[str, Any]:
        """`about`, and the bases themselves, for a training's folder."""
        bases = {a: b.model_dump(exclude={"provenance"}) for a, b in self.by_attribute.items()}
        return {**self.about, "bases": bases}

    def embed(self, vlm: VLM, cache: Path | None) -> list[np.ndarray]:
        """T_a of each attribute, (K_a, D), unit rows; `cache`: folder of the embedding cache."""
        return [embed_basis(vlm, basis, cache) for basis in self.by_attribute.values()]


def aligned(texts: Sequence[np.ndarray]) -> np.ndarray:
    """T_a of each attribute, (K_a, D) unit rows -> (A, K, D), K the smallest K_a."""
    return np.stack([align(text, min(map(len, texts))) for text in texts])


class CRL(NamedTuple):
    """A VLM with its text bases, and with heads if it was trained."""

    method: str  # `crl-mlp` (stage 1), `crl` (stage 2), "" without a training
    label: str  # tells trainings of one VLM apart in tables: the name of the folder
    vlm: str  # the VLM's name in tables
    source: str  # its name for `load_vlm`; of stage 2 a folder
    fingerprint: str | None  # the one that the VLM must have; None: any
    precision: str
    bases: Bases
    heads: Heads | None

    def check(self, vlm: VLM) -> None:
        """A UserError if the VLM with this name has changed since the training."""
        if self.fingerprint not in (None, vlm.fingerprint):
            changed = f"{self.source!r} is now ({self.fingerprint}, not {vlm.fingerprint})"
            raise UserError(f"{self.label} was trained on another VLM than {changed}; bring that "
                            "one back or train again")  # fmt: skip


class _Record(BaseModel):
    """What is needed of a training's results.json."""

    folder: Path
    method: str
    weights: str
    attributes: list[str]


class TrainedRival(_Record):
    """A rival by train_rival.py; its weights include the tower's."""

    tower: str
    width: Width
    local: str | None = None  # stage 2 of ASEN++ and RPF: source of their local network


class _TrainedCRL(_Record):
    vlm: str
    vlm_fingerprint: str
    precision: Literal["fp32", "bf16", "fp16"]
    basis: str
    bases: dict[str, TextBasis]


KINDS: dict[str, type[_TrainedCRL | TrainedRival]] = {"crl-mlp": _TrainedCRL, "crl": _TrainedCRL}
STAGE1 = "-stage1"  # ends the method's name of a rival that has two stages, after the first one
RIVALS = "triplet", "csn", "asen", "asen_pp", "asen_pp" + STAGE1, "rpf", "rpf" + STAGE1
KINDS |= dict.fromkeys(RIVALS, TrainedRival)


def read_training(folder: Path, attributes: list[str], vlm: str = "") -> CRL | TrainedRival:
    """The training in a folder; neither its VLM nor its tower is loaded yet. `vlm`: the VLM that
    the person named; another one comes from a file, and must not be code. UserError: no training,
    no weights, damaged heads, other attributes, or a VLM that is gone, or is code."""
    if folder.is_file():
        raise UserError(f"{folder} is a file; give the folder of the training: {folder.parent}")
    try:
        content = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        kind = KINDS[content["method"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{folder} is no folder of train_mlp.py, train_backbone.py or "
                        "train_rival.py: it has no results.json of theirs") from error  # fmt: skip
    try:
        record = kind.model_validate({**content, "folder": folder})
    except ValidationError as error:
        raise UserError(f"{folder}/results.json: {explain(error)}; train again") from error
    if not (folder / record.weights).is_file():
        raise UserError(f"{folder} has no {record.weights}; train to the first validation")
    bases = getattr(record, "bases", dict.fromkeys(record.attributes))
    if not record.attributes == list(bases) == attributes:
        theirs, ours = ", ".join(record.attributes), ", ".join(attributes)
        raise UserError(f"{folder} was trained on the attributes {theirs}, the data has {ours}; "
                        "use a training on this data set")  # fmt: skip
    if isinstance(record, TrainedRival):
        return record
    bases = Bases(record.bases, record.basis)
    heads = load_heads(folder / "heads.safetensors", len(attributes), bases.width)
    source, fingerprint = record.vlm, record.vlm_fingerprint
    if record.method == "crl":  # its VLM is in the folder
        source, fingerprint = str(folder / "vlm"), None
    find_vlm(source, from_file=source != vlm)
    return CRL(record.method, folder.name, record.vlm, source, fingerprint, record.precision,
               bases, heads)  # fmt: skip
