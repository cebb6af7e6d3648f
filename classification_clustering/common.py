"""What few_shot.py and clustering.py share: configuration, and the way to I, T and labels."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal
from zipfile import BadZipFile

import numpy as np
from pydantic import BeforeValidator, Field, model_validator

from classification_clustering.datasets import load
from crl.basis import TextBasis
from crl.run.config import Config
from crl.embed import embed_images, embed_texts
from crl.run.errors import UserError, nearest
from crl.run.figures import slug
from crl.metrics import accuracy
from crl.projection import l2, project, single_vector
from crl.run.results import array_digest, digest, summary
from crl.vlm import find_vlm, load_vlm

OneOrMore = BeforeValidator(lambda value: value if isinstance(value, list) else [value])


class TaskConfig(Config):
    """Keys of few_shot.py and clustering.py."""

    name: str = Field("run", description="results go to <outputs>/<task>/<name>")
    data: Literal["clevr4", "cards", "folder"] | None = Field(
        None, description="the data set: clevr4, cards, or folder (<root>/<criterion>/<class>/*)"
    )
    root: Path = Field(Path("data"), description="folder that holds the data set")
    images: int | None = Field(None, description="how many images there must be")
    criteria: Annotated[list[str], OneOrMore] = Field([], description="one or more criteria")
    bases: dict[str, str] = Field({}, description="criterion: text basis (name or YAML file)")
    texts: int | None = Field(None, gt=1, description="use the first so many texts of a basis")
    vlm: Annotated[list[str], OneOrMore] = Field(["clip"], description="one or more VLMs")
    features: Path | None = Field(None, description="NPZ with image, text, labels; no data, vlm")
    image_vector: Literal["mean", "first", "max"] = Field(
        "mean", description="BLIP-2: mean, first or max of its 32 is the universal one"
    )
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32", description="of the VLM: fp32, bf16 or fp16"
    )
    device: str | None = Field(None, description="e.g. cpu, cuda; none takes the best")
    batch_size: int = Field(64, gt=0, description="images a batch")
    workers: int | None = Field(None, gt=0, description="threads that decode images")
    unreadable: Literal["error", "skip"] = Field(
        "error", description="error, or skip images that do not open"
    )
    shots: Annotated[list[int], OneOrMore] = Field([1, 5, 10], description="images a class")
    seeds: int = Field(20, gt=0, description="runs, with seeds 0, 1, ...")
    figures: bool = Field(True, description="draw figures")
    cache: Path = Field(Path("cache/embeddings"), description="where embeddings are kept")
    outputs: Path = Field(Path("outputs"), description="where results go")

    @model_validator(mode="after")
    def _data_or_features(self) -> "TaskConfig":
        replaced = {"data", "root", "images", "criteria", "bases", "texts", "vlm"}
        replaced |= {"precision", "device", "batch_size", "workers", "unreadable", "cache"}
        if self.features is None and (self.data is None or not self.criteria):
            raise ValueError("set data and criteria (see configs/), or features=FILE.npz")
        idle = sorted(replaced & self.model_fields_set) if self.features else []
        if idle:
            raise ValueError(f"features replaces {', '.join(idle)}; remove them")
        if min(self.shots, default=0) < 1:
            raise ValueError("shots must be 1 or more")
        for criterion in self.bases:
            if criterion not in self.criteria:
                hint = nearest(criterion, self.criteria)
                raise ValueError(f"bases names {criterion!r}, which is not in criteria; {hint}")
        return self


@dataclass(frozen=True)
class Cell:
    """One VLM under one criterion: everything that a protocol needs.

    Attributes:
        image: I, (N, D) or (N, Q, D), L2-normalised rows.
        universal: (N, D), `image` itself, or one vector an image where the VLM gives Q.
        text: T, (K, D), L2-normalised rows.
        labels: (N,) int64, index into `class_names`.
        class_text: (C, D), L2-normalised embeddings of the true class names; None if unknown.
        paths: N image files; None where the embeddings were made elsewhere.
        about: what the cell is, for the results file.
    """

    image: np.ndarray
    universal: np.ndarray
    text: np.ndarray
    labels: np.ndarray
    class_names: list[str]
    class_text: np.ndarray | None
    paths: list[Path] | None
    about: dict

    @property
    def title(self) -> str:
        """VLM and criterion, for figures."""
        return f"{self.about['vlm']}, {self.about['criterion']}"

    @property
    def file_name(self) -> str:
        """The same, fit for a file, and with a digest that tells other data and bases apart."""
        return f"{slug(self.title)}-{self.digest[:6]}"

    @cached_property
    def digest(self) -> str:
        """Changes whenever an input of the protocol does."""
        arrays = [self.image, self.universal, self.text, self.labels]
        arrays += [] if self.class_text is None else [self.class_text]
        return digest(*map(array_digest, arrays))

    def zero_shot(self) -> dict[str, dict]:
        """Accuracy in percent of the class whose name is nearest; {} where names are unknown."""
        if self.class_text is None:
            return {}
        guess = project(self.image, self.class_text).argmax(1)
        return {"zero-shot": {"acc": summary([accuracy(self.labels, guess)])}}


def cells(config: TaskConfig, at_least: int = 1) -> Iterator[Cell]:
    """Every VLM under every criterion of the configuration.

    Raises:
        UserError: wrong or missing data, bases or VLM names; a class with fewer than `at_least`
            images. All this is looked at before the first VLM is loaded.
    """
    if config.features:
        cell = _from_file(config)
        _check_classes(cell.labels, cell.class_names, at_least)
        yield cell
        return
    data = {c: load(config.data, config.root, c, config.images) for c in config.criteria}
    for labelled in data.values():
        _check_classes(labelled.labels, labelled.classes, at_least)
    bases = {c: _basis(config, c) for c in config.criteria}
    for name in config.vlm:
        find_vlm(name)
    for name in config.vlm:
        vlm = load_vlm(name, config.device, config.precision)
        paths = None
        for criterion, labelled in data.items():
            if labelled.paths != paths:  # Clevr4's four criteria share their images
                paths = labelled.paths
                options = (config.batch_size, config.workers, config.unreadable)
                embeddings = embed_images(vlm, paths, config.cache, *options)
                image = l2(np.asarray(embeddings.image))  # I, (N, D) or (N, Q, D)
                universal = single_vector(image, config.image_vector)
            basis = bases[criterion]
            names = [basis.vlm_prompt.replace("{text}", name) for name in labelled.classes]
            yield Cell(
                image,
                universal,
                text=l2(embed_texts(vlm, basis.prompts, config.cache)),  # T, (K, D)
                labels=labelled.labels[embeddings.kept],
                class_names=labelled.classes,
                class_text=l2(embed_texts(vlm, names, config.cache)),
                paths=[paths[i] for i in embeddings.kept],
                about={
                    "data": config.data,
                    "criterion": criterion,
                    "vlm": vlm.name,
                    "images": len(image),
                    "left_out": len(paths) - len(image),
                    "classes": len(labelled.classes),
                    "texts": len(basis.texts),
                    "basis_hash": basis.hash,
                    "vlm_fingerprint": vlm.fingerprint,
                    "precision": config.precision,
                    "device": str(vlm.device),
                    "image_vector": config.image_vector if image.ndim == 3 else None,
                },
            )


def _basis(config: TaskConfig, criterion: str) -> TextBasis:
    basis = TextBasis.load(config.bases.get(criterion, f"{config.data}_{criterion}"))
    basis = basis.first(config.texts) if config.texts else basis
    if len(basis.texts) < 2:  # rows of one number have no standard deviation
        raise UserError(f"the basis for {criterion!r} needs 2 texts or more")
    return basis


def _from_file(config: TaskConfig) -> Cell:
    try:
        with np.load(config.features, allow_pickle=False) as file:
            image, text, labels = (file[key] for key in ("image", "text", "labels"))
    except KeyError as error:
        raise UserError(f"{config.features} must hold image, text and labels: {error}") from error
    except (OSError, ValueError, TypeError, EOFError, BadZipFile) as error:
        raise UserError(f"cannot read {config.features} as NPZ: {error}") from error
    _check_features(config.features, image, text, labels)
    image, text = l2(image.astype(np.float32)), l2(text.astype(np.float32))
    names, labels = np.unique(labels, return_inverse=True)
    names = [str(name) for name in names]
    about = {
        "data": config.features.name,
        "criterion": config.name,
        "vlm": "features",
        "images": len(labels),
        "classes": len(names),
        "texts": len(text),
        "basis_hash": array_digest(text),
        "vlm_fingerprint": array_digest(image),
    }
    universal = single_vector(image, config.image_vector)
    return Cell(image, universal, text, labels, names, None, None, about)


def _check_features(path: Path, image: np.ndarray, text: np.ndarray, labels: np.ndarray) -> None:
    shapes = f"image {image.shape}, text {text.shape}, labels {labels.shape}"
    fits = image.ndim in (2, 3) and text.ndim == 2 and labels.ndim == 1 and len(text) > 1
    if not fits or image.shape[-1] != text.shape[1] or len(image) != len(labels):
        raise UserError(
            f"{path} must hold image (N, D), text (K > 1, D), labels (N,), not {shapes}"
        )
    for name, x in (("image", image), ("text", text)):
        if x.dtype.kind not in "fiu" or not np.isfinite(x).all():
            raise UserError(f"{path}: {name} holds things that are not finite numbers")
        if not len(x) or not x.any(axis=-1).all():
            raise UserError(f"{path}: {name} is empty or has a row of zeros")


def _check_classes(labels: np.ndarray, names: list[str], at_least: int) -> None:
    counts = np.bincount(labels, minlength=len(names))
    if len(names) < 2:
        raise UserError(f"there is one class only, {names[0]}; two or more are needed")
    if counts.min() < at_least:
        name = names[counts.argmin()]
        raise UserError(f"class {name} has {counts.min()} images; {at_least} are needed")
