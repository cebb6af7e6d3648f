"""The folders of trainings. A folder is the unit: it holds the weights, and in results.json what
they belong to. (The VLM of stage 1 is named there, not stored.)"""

import json
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ValidationError

from crl.basis import TextBasis
from crl.run.config import Width
from crl.run.errors import UserError, explain
from crl.vlm import VLM, find_vlm
from fashion_retrieval.bases import Bases
from fashion_retrieval.heads import Heads, load_heads

SCRIPTS = "train_mlp.py, train_backbone.py or train_rival.py"


class CRL(NamedTuple):
    """A VLM with its text bases, and with heads if it was trained.

    Attributes:
        method: `crl-mlp` (stage 1) or `crl` (stage 2); "" without a training.
        label: tells trainings of one VLM apart in tables: the name of the folder.
        vlm: the VLM's name in tables; source: its name for `load_vlm`, of stage 2 a folder.
        fingerprint: the one that the VLM must have; None: any.
        precision: precision of the VLM.
    """

    method: str
    label: str
    vlm: str
    source: str
    fingerprint: str | None
    precision: str
    bases: Bases
    heads: Heads | None

    def check(self, vlm: VLM) -> None:
        """Raises:
        UserError: the VLM with this name has changed since the training.
        """
        if self.fingerprint not in (None, vlm.fingerprint):
            raise UserError(
                f"{self.label} was trained on another VLM than {self.source!r} is now "
                f"({self.fingerprint}, not {vlm.fingerprint}); bring that one back or train again"
            )


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


class _OfCRL(_Record):
    vlm: str
    vlm_fingerprint: str
    precision: Literal["fp32", "bf16", "fp16"]
    basis: str
    bases: dict[str, TextBasis]


KINDS: dict[str, type[_OfCRL | TrainedRival]] = {
    **dict.fromkeys(("crl-mlp", "crl"), _OfCRL),
    **dict.fromkeys(("triplet", "csn", "asen"), TrainedRival),
}


def read_training(folder: Path, attributes: list[str], vlm: str = "") -> CRL | TrainedRival:
    """The training in a folder; neither its VLM nor its tower is loaded yet.

    Args:
        vlm: the VLM that the person named. Another one comes from a file, and must not be code.

    Raises:
        UserError: `folder` is not the folder of a training, or has no weights, or damaged heads;
            the training has other attributes; its VLM is gone, or is code.
    """
    if folder.is_file():
        raise UserError(f"{folder} is a file; give the folder of the training: {folder.parent}")
    try:
        content = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        kind = KINDS[content["method"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"{folder} is no folder of {SCRIPTS}: it has no results.json of theirs"
        ) from error
    try:
        record = kind.model_validate({**content, "folder": folder})
    except ValidationError as error:
        raise UserError(f"{folder}/results.json: {explain(error)}; train again") from error
    if not (folder / record.weights).is_file():
        raise UserError(f"{folder} has no {record.weights}; train to the first validation")
    of_bases = list(record.bases) if isinstance(record, _OfCRL) else record.attributes
    if not record.attributes == of_bases == attributes:
        raise UserError(
            f"{folder} was trained on the attributes {', '.join(record.attributes)}, the data has "
            f"{', '.join(attributes)}; use a training on this data set"
        )
    return _crl(record, vlm) if isinstance(record, _OfCRL) else record


def _crl(record: _OfCRL, vlm: str) -> CRL:
    folder, bases = record.folder, Bases(record.bases, record.basis)
    stage2 = record.method == "crl"  # its VLM is in the folder
    source = str(folder / "vlm") if stage2 else record.vlm
    find_vlm(source, from_file=source != vlm)
    return CRL(
        method=record.method,
        label=folder.name,
        vlm=record.vlm,
        source=source,
        fingerprint=None if stage2 else record.vlm_fingerprint,
        precision=record.precision,
        bases=bases,
        heads=load_heads(folder / "heads.safetensors", len(bases.by_attribute), bases.width),
    )
