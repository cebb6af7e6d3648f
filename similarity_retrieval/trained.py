"""Trainings to evaluate: folders of train_combiner.py, or of GeneCIS's published weights."""

from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ValidationError

from crl.run.errors import UserError, explain
from crl.vlm import VLM, find_vlm, load_vlm
from similarity_retrieval.combiner import Combiner, load_combiner
from similarity_retrieval.config import EvaluateConfig
from similarity_retrieval.datasets import WEIGHTS


class Training(BaseModel):
    """What is needed of the results.json of train_combiner.py."""

    vlm: str
    vlm_trained: bool
    vlm_fingerprint: str
    precision: Literal["fp32", "bf16", "fp16"]


class Model(NamedTuple):
    """A VLM by its name, its label in tables, the file of its Combiner, and their training."""

    vlm: str
    label: str
    combiner: Path | None = None
    training: Training | None = None

    def load(self, config: EvaluateConfig) -> tuple[VLM, Combiner | None]:
        """The VLM and its Combiner.

        Raises:
            UserError: as in `load_vlm` and `load_combiner`; the VLM is not the one of the training.
        """
        from_file = self.vlm != config.vlm
        vlm = load_vlm(self.vlm, config.device, config.precision, from_file)
        if self.training:
            then, same = self.training.precision, vlm  # the fingerprint depends on the precision
            if then != config.precision:
                same = load_vlm(self.vlm, config.device, then, from_file)
            if same.fingerprint != self.training.vlm_fingerprint:
                raise UserError(
                    f"{self.combiner.parent} was trained with another VLM than {self.vlm!r} is "
                    "now: its weights, preprocessing or tokenizer changed; run that training again"
                )
        return vlm, load_combiner(self.combiner, vlm.dim) if self.combiner else None


def models(config: EvaluateConfig) -> list[Model]:
    """The VLM of the configuration, and those of its trainings. A Combiner that was trained with
    this VLM, frozen, is not a model of its own. Loads nothing.

    Raises:
        UserError: no such VLM or training; a VLM from a file that would run code.
    """
    if config.combiner and (config.combiner.parent / "results.json").exists():
        raise UserError(f"{config.combiner} belongs to a training; give its folder: "
                        f"trained=[{config.combiner.parent}]")  # fmt: skip
    chosen = [Model(config.vlm, config.vlm, config.combiner)]
    for folder in config.trained:
        model = _read(folder)
        if model.label == config.vlm and chosen[0].combiner is None:
            chosen[0] = model
            continue
        if model.label in [other.label for other in chosen]:
            model = model._replace(label=f"{model.label} ({folder})")
        chosen.append(model)
    for model in chosen:
        find_vlm(model.vlm, from_file=model.vlm != config.vlm)
    return chosen


def _read(folder: Path) -> Model:
    backbone, head = (folder / name for name in WEIGHTS)
    if backbone.is_file() and head.is_file():
        return Model(f"open_clip:ViT-B-16-quickgelu/{backbone}", "clip-b16*", head)
    file, combiner = folder / "results.json", folder / "combiner.safetensors"
    try:
        training = Training.model_validate_json(file.read_bytes())
    except OSError as error:
        raise UserError(
            f"{folder} holds no training of train_combiner.py ({file.name}: {error.strerror}), nor "
            f"GeneCIS's {' and '.join(WEIGHTS)}"
        ) from error
    except ValidationError as error:
        raise UserError(f"{file} is not of train_combiner.py: {explain(error)}") from error
    if training.vlm_trained:
        return Model(str(folder / "vlm"), training.vlm + "*", combiner, training)
    return Model(training.vlm, training.vlm, combiner, training)
