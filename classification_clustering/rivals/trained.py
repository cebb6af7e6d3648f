"""Trained rivals in clustering.py: from a folder of train_rival.py to a row of the table."""

from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, Field

from classification_clustering.config import EvaluateConfig
from classification_clustering.embedded import Embedded
from crl.run.errors import UserError
from crl.run.given import checked, read_given
from crl.run.results import digest
from crl.run.training import read_record

COSTS = {"supervision", "parameters", "training_seconds"}  # in a row


class Training(BaseModel):
    """What is needed of the results.json of train_rival.py."""

    method: str
    form: Literal["probabilities", "features"]  # see rivals/method.py
    supervision: str
    data: str
    criteria: list[str]
    images: int
    content: str
    parameters: int
    training_seconds: float = Field(validation_alias="seconds")
    vlm: str = "-"  # of a rival that uses one


class Rival(NamedTuple):
    """A finished training."""

    folder: Path
    label: str  # in tables
    training: Training
    values: np.ndarray  # probabilities (N, K) or features (N, D)

    def about(self, data: Embedded) -> dict[str, Any]:
        """What its row says of itself; a UserError if it has clustered other images."""
        if self.training.content != data.content:
            criterion = data.about["criterion"]
            raise UserError(f"{self.folder} was trained on other images than those of {criterion} "
                            "are now; train it again under another name")  # fmt: skip
        about = {key: data.about[key] for key in ("data", "criterion", "content")}
        about |= {"vlm": self.training.vlm, "basis": "-", "method": self.label}
        return about | {"rival": digest(self.values)}


def load_rivals(config: EvaluateConfig) -> list[Rival]:
    """The `rivals` of an evaluation. A UserError if a folder holds no training, an unfinished one,
    or one for another data set or other criteria."""
    rivals: list[Rival] = []
    for folder in config.rivals:
        clusters = folder / "clusters.safetensors"
        training = read_record(folder, Training, "train_rival.py")
        if training.data != config.data or not {*training.criteria} & {*config.criteria}:
            made = f"{training.data} {', '.join(training.criteria)}"
            asked = f"{config.data} {', '.join(config.criteria)}"
            raise UserError(f"rivals: {folder} was trained for {made}, not for {asked}")
        if not clusters.is_file():
            raise UserError(f"rivals: the training in {folder} has not ended; start it again")
        values = checked(
            [clusters], read_given([clusters]), **{training.form: f"{training.images} D"}
        )
        label, criteria = training.method, {*training.criteria}
        if any(r.label == label and criteria & {*r.training.criteria} for r in rivals):
            label += f" ({folder.name})"
        rivals.append(Rival(folder, label, training, values[training.form]))
    return rivals
