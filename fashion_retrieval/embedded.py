"""Loads and embeds: a configuration -> the queries and candidates, and the models that are measured
on them: the VLM of the configuration, and each training."""

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from crl.backends.weights import weights_digest
from crl.basis import TextBasis
from crl.embed import ImageEmbeddings, checked_basis, embed_images
from crl.projection import l2
from crl.representations.null_space import directions_of_others
from crl.run.distributed import available_device
from crl.run.errors import UserError
from crl.run.given import checked, read_given
from crl.run.results import digest
from crl.vlm import VLM, load_vlm
from fashion_retrieval.bases import Bases
from fashion_retrieval.config import EvaluateConfig
from fashion_retrieval.datasets import check_images, keep_used, load
from fashion_retrieval.heads import Heads, load_heads
from fashion_retrieval.method import without_relevant
from fashion_retrieval.rivals import Rival, load_rival
from fashion_retrieval.trained import CRL, TrainedRival, read_training


class Split(NamedTuple):
    """The queries and candidates that every method is measured on.

    Attributes:
        data: name of the data set; content: digest of its images.
        attributes: A names.
        query, candidate: (Q, 3) and (C, 3) int64; rows: index of an image, attribute, value.
        files: N image files; none if the embeddings were made elsewhere.
        sizes: for tables: how many images, and values of each attribute.
    """

    data: str
    content: str
    attributes: list[str]
    query: np.ndarray
    candidate: np.ndarray
    files: list[Path]
    sizes: dict[str, Any]

    @property
    def about(self) -> dict[str, Any]:
        """What a result says of the data."""
        content = digest(self.content, self.attributes, self.query, self.candidate)
        return {"data": self.data, "criterion": "all", "content": content}

    @property
    def counts(self) -> dict[str, Any]:
        """For tables and notes."""
        none = without_relevant(self.query, self.candidate)
        queries, candidates = len(self.query), len(self.candidate)
        counts = {"queries": queries, "candidates": candidates, "without_relevant": none}
        return {**self.sizes, **counts}


class Model(NamedTuple):
    """A VLM with its text bases, or a training. All embeddings have unit rows.

    Attributes:
        method: what the training is called; "" for the VLM of the configuration.
        about: what a result says of the model; about_basis: and of the texts.
        counts: for tables.
        image: I, (N, D); texts: T_a, (K_a, D), of each attribute. A rival has none of these.
        directions: (d, D) of each attribute, the null space of other criteria; none if there is
            none.
        heads, rival: what was trained.
    """

    method: str
    about: dict[str, Any]
    about_basis: dict[str, Any]
    counts: dict[str, Any]
    image: np.ndarray | None = None
    texts: Sequence[np.ndarray] = ()
    directions: Sequence[np.ndarray | None] = ()
    heads: Heads | None = None
    rival: Rival | None = None


def embedded(config: EvaluateConfig) -> tuple[Split, list[Model]]:
    """The split, and the models: the VLM of the configuration; the same with the heads of the
    authors' code, if they are given; each folder of `trained`.

    Files, bases, trainings and VLMs are checked before the first image is embedded.

    Raises:
        UserError: wrong or missing files, images, bases, heads, trainings or VLMs.
    """
    if config.features:
        return _given(config)
    data = load(config.root, config.dataset, config.images, [config.split])
    part = getattr(data, config.split)
    files, (query, candidate) = keep_used(part.files, part.query, part.candidate)
    check_images(files)
    bases = Bases.load(config.dataset, data.attributes, config.bases, config.texts)
    others = [TextBasis.load(name) for name in config.null_space]
    untrained = CRL(
        method="", label=config.vlm, vlm=config.vlm, source=config.vlm, fingerprint=None,
        precision=config.precision, bases=bases, heads=None,
    )  # fmt: skip
    sources: list[CRL | Model] = [untrained]
    if config.heads:
        heads = load_heads(config.heads, len(bases.by_attribute), bases.width)
        sources.append(untrained._replace(method="crl-mlp", label=config.heads.name, heads=heads))
    trainings = [read_training(folder, data.attributes, config.vlm) for folder in config.trained]
    device = available_device(config.device)
    sources += [
        training if isinstance(training, CRL) else _rival(training, device, config.precision)
        for training in trainings
    ]

    @cache
    def vlm_of(source: str, precision: str) -> VLM:
        return load_vlm(source, config.device, precision, from_file=source != config.vlm)

    @cache
    def embed(source: str, precision: str) -> ImageEmbeddings:
        how = config.cache, config.batch_size, config.workers
        return embed_images(vlm_of(source, precision), files, *how, single=True)

    def model(crl: CRL) -> Model:
        vlm, image = vlm_of(crl.source, crl.precision), embed(crl.source, crl.precision).image
        texts = crl.bases.embed(vlm, config.cache)
        about = {"vlm": crl.vlm, "label": crl.label, "vlm_fingerprint": vlm.fingerprint}
        about_basis, directions = crl.bases.about, []
        names = crl.bases.names(data.value_names)
        counts = {"names": names, "precision": crl.precision, "device": str(vlm.device)}
        if crl.heads is not None:
            about["heads_digest"] = weights_digest(crl.heads)
        elif others:
            directions = [
                directions_of_others(vlm, basis, others, config.null_space_size, config.cache)
                for basis in crl.bases.by_attribute.values()
            ]
            about_basis["null_space"] = digest(*(d for d in directions if d is not None))
        return Model(crl.method, about, about_basis, counts, image, texts, directions, crl.heads)

    for source in sources:
        if isinstance(source, CRL):
            source.check(vlm_of(source.source, source.precision))
    models = [model(source) if isinstance(source, CRL) else source for source in sources]
    name = config.dataset + ("" if config.split == "test" else f" ({config.split})")
    content = embed(config.vlm, config.precision).content
    sizes = {"images": len(files), "values": data.values}
    return Split(name, content, data.attributes, query, candidate, files, sizes), models


def _rival(training: TrainedRival, device: torch.device, precision: str) -> Model:
    rival = load_rival(training, device)
    fingerprint = digest(weights_digest(rival), precision)
    about = {"vlm": training.tower, "label": training.folder.name, "vlm_fingerprint": fingerprint}
    counts = {"precision": precision, "device": str(device)}
    return Model(training.method, about, {"basis": "-"}, counts, rival=rival)


# --- embeddings made elsewhere --------------------------------------------------------------------


def _given(config: EvaluateConfig) -> tuple[Split, list[Model]]:
    files = config.features
    where, arrays = ", ".join(map(str, files)), read_given(files)
    count = max(1, sum(bool(re.fullmatch(r"text\d+", key)) for key in arrays))
    keys = [f"text{a}" for a in range(count)]
    shapes = {key: f"K{a} D" for a, key in enumerate(keys)}
    given = checked(files, arrays, image="N D", query="Q 3", candidate="C 3", **shapes)
    image = l2(given["image"])
    query, candidate = (
        _checked_rows(f"{where}: {key}", given[key], len(image), count)
        for key in ("query", "candidate")
    )
    attributes = [f"attribute {a}" for a in range(count)]
    if "attributes" in arrays:
        attributes = [str(name) for name in arrays["attributes"].ravel()]
        if len(attributes) != count or len(set(attributes)) != count:
            raise UserError(f"{where}: attributes must hold {count} different names, one per text")
    texts = [checked_basis(f"{where}: {key}", l2(given[key])) for key in keys]
    name, width = files[0].name, min(map(len, texts))
    sizes = {"images": len(image)}
    split = Split(name, digest(image), attributes, query, candidate, [], sizes)
    about = {"vlm": "features", "label": name}
    about_basis = {"basis": name, "texts": width, "basis_digest": digest(*texts)}
    untrained = Model("", about, about_basis, {}, image, texts)
    if config.heads is None:
        return split, [untrained]
    heads = load_heads(config.heads, count, width)
    about = {**about, "label": config.heads.name, "heads_digest": weights_digest(heads)}
    return split, [untrained, untrained._replace(method="crl-mlp", about=about, heads=heads)]


def _checked_rows(where: str, rows: np.ndarray, images: int, attributes: int) -> np.ndarray:
    """(n, 3) rows of image index, attribute and value as int64."""
    if rows.dtype.kind not in "iu":
        raise UserError(f"{where} must hold integers, not {rows.dtype}")
    limits = {"image": images, "attribute": attributes, "value": np.iinfo(np.int64).max}
    for column, (what, limit) in zip(rows.T, limits.items(), strict=True):
        for row in np.flatnonzero((column < 0) | (column >= limit)):
            raise UserError(f"{where}, row {row}: {what} {column[row]} is not in 0..{limit - 1}")
    for attribute in set(range(attributes)) - set(rows[:, 1].tolist()):
        raise UserError(f"{where} has no row of attribute {attribute}")
    return rows.astype(np.int64)
