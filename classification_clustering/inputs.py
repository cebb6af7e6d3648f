"""Loads and checks what clustering.py and few_shot.py need for a configuration: I, T and labels."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from crl.run.npz import checked, read_npz
from pydantic import Field, PositiveInt, field_validator, model_validator

from classification_clustering.datasets import LOADERS, check_classes, load
from classification_clustering.method import PARTS, single_vector
from crl.basis import TextBasis, basis_label
from crl.criteria import directions_of_others
from crl.embed import checked_basis, embed_basis, embed_images, embed_texts
from crl.projection import l2
from crl.run.config import Distinct, EvaluationConfig, OneOrMore
from crl.run.errors import UserError, nearest
from crl.run.files import slug
from crl.run.results import array_digest, digest
from crl.vlm import load_vlm


class EvaluateConfig(EvaluationConfig):
    """Keys of clustering.py and few_shot.py."""

    replaced_by_features = EvaluationConfig.replaced_by_features | {
        "data", "root", "images", "criteria", "unreadable", "vlm_prompt"
    }  # fmt: skip

    data: str | None = Field(None, description=f"the data set: {', '.join(LOADERS)}")
    root: Path = Field(Path("data"), description="folder that holds the data set")
    images: int | None = Field(None, description="how many images there must be")
    criteria: Annotated[list[str], OneOrMore] = Field([], description="one or more criteria")
    bases: dict[str, str] = Field({}, description="criterion: text basis (name or YAML file)")
    vlm_prompt: str | None = Field(
        None, description="in place of the bases' own, with {text}; {criterion} is its name"
    )
    vlm: Annotated[list[str], OneOrMore] = Field(
        ["clip"], min_length=1, description="one or more VLMs"
    )
    image_vector: Literal["mean", "first", "max"] = Field(
        "mean", description="BLIP-2: which vector of its 32 is the universal one"
    )
    unreadable: Literal["error", "skip"] = Field(
        "error", description="at an image that cannot be opened: error, or skip it"
    )
    representation: Annotated[
        list[Literal["paper", "posterior", "paper+posterior"]], OneOrMore, Distinct
    ] = Field(["paper"], min_length=1, description=f"one or more of {', '.join(PARTS)}")
    shots: Annotated[list[PositiveInt], OneOrMore] = Field(
        [1, 5, 10], min_length=1, description="training images per class"
    )
    seeds: int = Field(20, gt=0, description="how many runs, with seeds 0, 1, ...")

    @field_validator("data")
    @classmethod
    def _known(cls, data: str | None) -> str | None:
        if data is not None and data not in LOADERS:
            raise ValueError(f"unknown data set {data!r}; {nearest(data, LOADERS)}")
        return data

    @field_validator("vlm_prompt")
    @classmethod
    def _has_one_slot(cls, prompt: str | None) -> str | None:
        if prompt is not None and prompt.count("{text}") != 1:
            raise ValueError("must contain {text} exactly once")
        return prompt

    @model_validator(mode="after")
    def _data_or_features(self) -> "EvaluateConfig":
        if self.features is None and (self.data is None or not self.criteria):
            raise ValueError("set data and criteria (see configs/), or features=FILE.npz")
        for criterion in self.bases:
            if criterion not in self.criteria:
                hint = nearest(criterion, self.criteria)
                raise ValueError(f"bases names {criterion!r}, which is not in criteria; {hint}")
        return self

    def basis(self, criterion: str) -> str:
        """Name or file of the text basis."""
        return self.bases.get(criterion, f"{self.data}_{criterion}")

    def load_basis(self, criterion: str) -> TextBasis:
        """The basis, with its first `texts` texts, in `vlm_prompt`."""
        basis = TextBasis.load(self.basis(criterion), self.texts)
        if self.vlm_prompt is None:
            return basis
        prompt = self.vlm_prompt.replace("{criterion}", criterion)
        return basis.model_copy(update={"vlm_prompt": prompt})

    def basis_label(self, criterion: str) -> str:
        """The basis in tables: its name, and the prompt if it is not its own."""
        label = basis_label(self.basis(criterion))
        return label if self.vlm_prompt is None else f"{label} in {self.vlm_prompt!r}"


@dataclass(frozen=True)
class Inputs:
    """One VLM under one criterion: everything that the methods need.

    Attributes:
        image: (N, D), or (N, Q, D) for a VLM with Q query vectors per image; not normalised.
        universal: I, (N, D), L2-normalised rows: `image`, or one vector from the Q per image.
        text: (K, D), not normalised.
        removed: (d, D), directions of other criteria that are removed from I; None: none.
        labels: (N,) int64, index into `class_names`.
        class_text: (C, D), the embedded class names, not normalised; None if they are unknown.
        paths: N image files; None if the embeddings were made elsewhere.
        about: VLM, criterion, basis and so on, for the results file.
    """

    image: np.ndarray
    universal: np.ndarray
    text: np.ndarray
    removed: np.ndarray | None
    labels: np.ndarray
    class_names: list[str]
    class_text: np.ndarray | None
    paths: list[Path] | None
    about: dict[str, Any]

    @property
    def title(self) -> str:
        """VLM and criterion, for figures."""
        return f"{self.about['vlm']}, {self.about['criterion']}"

    def file_name(self, representations: list[str]) -> str:
        """The title as part of a file name; a digest tells other data, bases and R apart."""
        return f"{slug(self.title)}-{digest(self.digest, representations)[:6]}"

    @cached_property
    def digest(self) -> str:
        """Changes whenever one of the arrays does."""
        arrays = [self.image, self.universal, self.text, self.labels]
        arrays += [x for x in (self.class_text, self.removed) if x is not None]
        return digest(*map(array_digest, arrays))


def load_inputs(config: EvaluateConfig, at_least: int = 1) -> Iterator[Inputs]:
    """Yield every VLM under every criterion, or the embeddings of a file. Files, bases and VLMs are
    checked before the first image is embedded.

    Args:
        at_least: how many images each class must have.

    Raises:
        UserError: as in `load`, `TextBasis.load`, `load_vlm`, `embed_images` and `checked`.
    """
    if config.features:
        yield _from_file(config, at_least)
        return
    data = {c: load(config.data, config.root, c, config.images, at_least) for c in config.criteria}
    bases = {c: config.load_basis(c) for c in config.criteria}
    others = [TextBasis.load(name) for name in config.null_space]
    vlms = [load_vlm(name, config.device, config.precision) for name in config.vlm]
    while vlms:
        vlm = vlms.pop(0)  # so that its memory is free when the next VLM is used
        text = {c: np.asarray(embed_basis(vlm, b, config.cache)) for c, b in bases.items()}  # T
        paths = None
        for criterion, labelled in data.items():
            if labelled.paths != paths:  # the four criteria of Clevr4 share their images
                paths = labelled.paths
                embedded = embed_images(
                    vlm,
                    paths,
                    config.cache,
                    config.embed_batch,
                    config.workers,
                    config.unreadable,
                    embeddings=config.embeddings,
                )
                image = np.asarray(embedded.image)  # (N, D) or (N, Q, D)
                universal = single_vector(l2(image), config.image_vector)  # I, (N, D)
            labels = labelled.labels[embedded.kept]  # unreadable images may have been left out
            check_classes(f"{config.root}, {criterion}", labels, labelled.classes, at_least)
            basis = bases[criterion]
            names = [basis.vlm_prompt.replace("{text}", name) for name in labelled.classes]
            yield Inputs(
                image=image,
                universal=universal,
                text=text[criterion],
                removed=directions_of_others(vlm, basis, others, config.rank, config.cache),
                labels=labels,
                class_names=labelled.classes,
                class_text=np.asarray(embed_texts(vlm, names, config.cache)),  # (C, D)
                paths=[paths[i] for i in embedded.kept],
                about={
                    "data": config.data,
                    "criterion": criterion,
                    "vlm": vlm.name,
                    "images": len(image),
                    "left_out": len(paths) - len(image),
                    "classes": len(labelled.classes),
                    "basis": config.basis_label(criterion),
                    "texts": len(basis.texts),
                    "names": f"{basis.names(labelled.classes)}/{len(labelled.classes)}",
                    "basis_hash": basis.hash,
                    "vlm_fingerprint": vlm.fingerprint,
                    "precision": config.precision,
                    "device": str(vlm.device),
                    "image_vector": config.image_vector if image.ndim == 3 else None,
                },
            )


def _from_file(config: EvaluateConfig, at_least: int) -> Inputs:
    file = config.features
    shapes = {"image": "N D|N Q D", "text": "K D", "labels": "N"}
    image, text, classes = checked(file, read_npz(file), **shapes).values()
    if (classes != classes).any():  # NaN is the only value that differs from itself
        raise UserError(f"{file}: labels holds NaN; give every image a class, or leave it out")
    checked_basis(str(file), text)
    distinct, labels = np.unique(classes, return_inverse=True)
    names = [str(name) for name in distinct]
    check_classes(str(file), labels, names, at_least)
    return Inputs(
        image=image,
        universal=single_vector(l2(image), config.image_vector),
        text=text,
        removed=None,
        labels=labels,
        class_names=names,
        class_text=None,
        paths=None,
        about={
            "data": file.name,
            "criterion": config.name,
            "vlm": "features",
            "images": len(labels),
            "left_out": 0,
            "classes": len(names),
            "basis": file.name,
            "texts": len(text),
            "basis_hash": array_digest(text),
            "vlm_fingerprint": array_digest(image),
            "image_vector": config.image_vector if image.ndim == 3 else None,
        },
    )
