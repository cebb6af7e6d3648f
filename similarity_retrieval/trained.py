"""The VLMs, Combiners and rivals to evaluate: by name, and from the folders of trainings."""

from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel

from crl.backends.pseudo_words import PseudoWords
from crl.run.errors import UserError
from crl.run.training import read_record
from crl.vlm import VLM, load_vlm
from similarity_retrieval.combiner import Combiner, load_combiner
from similarity_retrieval.config import EvaluateConfig
from similarity_retrieval.datasets import WEIGHTS
from similarity_retrieval.rivals.queries import Rival, RivalTraining, load_rivals, read_rival


class Training(BaseModel):
    """What is needed of the results.json of train_combiner.py."""

    vlm: str
    vlm_trained: bool
    vlm_fingerprint: str
    precision: Literal["fp32", "bf16", "fp16"]


Source = tuple[str, Path | None, Training | None]  # VLM, file of its Combiner, their training


class Loaded(NamedTuple):
    """A VLM, and what was trained with it."""

    vlm: VLM
    combiner: Combiner | None
    rivals: dict[str, Rival]


def models(config: EvaluateConfig) -> dict[str, Loaded]:
    """{label in tables: what is to be evaluated}: `vlm`, with `rivals`, and each folder of
    `trained`. A Combiner that was trained with `vlm`, frozen, comes with `vlm`. A UserError if the
    VLM of a training has changed since, or its name would run code."""
    if config.combiner and (config.combiner.parent / "results.json").exists():
        raise UserError(f"{config.combiner} belongs to a training; give its folder: "
                        f"trained=[{config.combiner.parent}]")  # fmt: skip
    sources: dict[str, Source] = {config.vlm: (config.vlm, config.combiner, None)}
    for folder in config.trained:
        label, source = _read(folder)
        if label in sources and (label != config.vlm or sources[label][1]):
            label += f" ({folder})"
        sources[label] = source
    models: dict[str, Loaded] = {}
    for label, (name, file, training) in sources.items():
        vlm = load_vlm(name, config.device, config.precision, name != config.vlm)
        if training:
            _check_vlm(file.parent, training, vlm, config)
        models[label] = Loaded(vlm, load_combiner(file, vlm.dim) if file else None, {})
    for entry in config.rivals:
        loaded, (_, file, made) = models[config.vlm], read_rival(entry)
        if made:
            _check_vlm(file.parent, made, loaded.vlm, config)
        some = load_rivals(entry, PseudoWords(loaded.vlm), config.rival_prompts)
        twice = loaded.rivals.keys() & some.keys()  # of another training: the row says which
        loaded.rivals.update({f"{k} ({entry})" if twice else k: some[k] for k in some})
    return models


def _check_vlm(
    folder: Path, training: Training | RivalTraining, vlm: VLM, config: EvaluateConfig
) -> None:
    """A UserError unless `vlm` is the one of the training."""
    name, precision = vlm.name, training.precision
    if precision != config.precision:  # the fingerprint depends on it
        vlm = load_vlm(name, config.device, precision, name != config.vlm)
    if vlm.fingerprint != training.vlm_fingerprint:
        raise UserError(f"{folder} was trained with another VLM than {name!r} is now; run that "
                        "training again")  # fmt: skip


def _read(folder: Path) -> tuple[str, Source]:
    """The label and source of a training: GeneCIS's published one, or of train_combiner.py."""
    backbone, head = (folder / name for name in WEIGHTS)
    if backbone.is_file() and head.is_file():
        return "clip-b16*", (f"open_clip:ViT-B-16-quickgelu/{backbone}", head, None)
    combiner, nor = folder / "combiner.safetensors", f", nor GeneCIS's {' and '.join(WEIGHTS)}"
    training = read_record(folder, Training, "train_combiner.py", nor)
    if training.vlm_trained:
        return f"{training.vlm}*", (str(folder / "vlm"), combiner, training)
    return training.vlm, (training.vlm, combiner, training)
