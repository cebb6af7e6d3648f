"""Loads and embeds: a configuration -> the queries and candidates, and the models that are measured
on them: the VLM of the configuration, and each training."""

import os
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from crl.backends.weights import weights_digest
from crl.basis import TextBasis
from crl.embed import checked_basis, embed_images
from crl.projection import l2
from crl.representations.null_space import directions_of_others
from crl.run.distributed import available_device
from crl.run.errors import UserError
from crl.run.given import checked, read_given
from crl.run.results import digest
from crl.vlm import VLM, load_vlm
from fashion_retrieval.config import EvaluateConfig
from fashion_retrieval.datasets import check_images, keep_used, load
from fashion_retrieval.method import Represent, without_relevant
from fashion_retrieval.networks import Heads, load_heads, represent_tables
from fashion_retrieval.rivals import load_rival
from fashion_retrieval.trained import CRL, Bases, TrainedRival, read_training


class Split(NamedTuple):
    """The queries and candidates that every method is measured on."""

    name: str  # of the data set, in tables
    content: str  # changes whenever an image does
    attributes: list[str]  # A names
    query: np.ndarray  # (Q, 3) int64: index of an image, attribute, value
    candidate: np.ndarray  # (C, 3) int64, the same
    files: list[Path]  # N images; none if the embeddings were made elsewhere
    sizes: dict[str, Any]  # for tables and notes

    @property
    def about(self) -> dict[str, Any]:
        """What a result says of the data."""
        content = digest(self.content, self.attributes, self.query, self.candidate)
        return {"data": self.name, "criterion": "all", "content": content}

    @property
    def counts(self) -> dict[str, Any]:
        """`sizes`, and how many queries and candidates there are."""
        counts = {"queries": len(self.query), "candidates": len(self.candidate)}
        counts["without_relevant"] = without_relevant(self.query, self.candidate)
        return {**self.sizes, **counts}


class Model(NamedTuple):
    """A VLM with its text bases, or a training. All embeddings have unit rows."""

    method: str  # what the training is called; "" for the VLM of the configuration
    about: dict[str, Any]  # what a result says of the model,
    about_basis: dict[str, Any]  # and of the texts
    counts: dict[str, Any]  # for tables
    image: np.ndarray | None = None  # I, (N, D); a rival has neither images
    texts: Sequence[np.ndarray] = ()  # nor texts: T_a, (K_a, D), of each attribute
    directions: Sequence[np.ndarray | None] = ()  # (d, D) of each: other criteria's null space
    heads: Heads | None = None
    rival: Represent | None = None


def embedded(config: EvaluateConfig) -> tuple[Split, list[Model]]:
    """The split, and the models: the VLM of the configuration; the same with the heads of the
    authors' code, if they are given; each folder of `trained`. Files, bases, trainings and VLMs are
    checked before the first image is embedded (UserError)."""
    if config.features:
        return _given(config)
    data = load(config.root, config.dataset, config.images, [config.split])
    part, vlm = getattr(data, config.split), config.vlm
    files, tables = keep_used(part.files, part.query, part.candidate)
    check_images(files)
    bases = Bases.load(config.dataset, data.attributes, config.bases, config.texts)
    others = [TextBasis.load(name) for name in config.null_space]
    sources: list[Any] = [CRL("", vlm, vlm, vlm, None, config.precision, bases, heads=None)]
    if config.heads:
        heads = load_heads(config.heads, len(data.attributes), bases.width)
        sources += [sources[0]._replace(method="crl-mlp", label=config.heads.name, heads=heads)]
    sources += [read_training(folder, data.attributes, vlm) for folder in config.trained]
    vlms: dict[tuple[str, str], VLM] = {}
    for n, source in enumerate(sources):
        if isinstance(source, CRL):
            key = source.source, source.precision
            if key not in vlms:
                vlms[key] = load_vlm(key[0], config.device, key[1], from_file=key[0] != vlm)
            source.check(vlms[key])
        else:
            sources[n] = _rival(source, config, files, tables)
    how = config.cache, config.batch_size, config.workers
    images = {key: embed_images(vlms[key], files, *how, single=True) for key in vlms}
    models = []
    for source in sources:
        if isinstance(source, Model):
            models.append(source)
            continue
        key = source.source, source.precision
        loaded, directions, about_basis = vlms[key], [], source.bases.about
        texts = source.bases.embed(loaded, config.cache)
        about = {"vlm": source.vlm, "label": source.label, "vlm_fingerprint": loaded.fingerprint}
        counts = {"precision": source.precision, "device": str(loaded.device)}
        if source.heads is not None:
            about["heads_digest"] = weights_digest(source.heads)
        elif others:
            options = others, config.null_space_size, config.cache
            each = source.bases.by_attribute.values()
            directions = [directions_of_others(loaded, basis, *options) for basis in each]
            about_basis["null_space"] = digest(*(d for d in directions if d is not None))
        embeddings = images[key].image, texts, directions
        models.append(Model(source.method, about, about_basis, counts, *embeddings, source.heads))
    name = config.dataset + ("" if config.split == "test" else f" ({config.split})")
    content, (query, candidate) = images[vlm, config.precision].content, tables
    sizes = {"images": len(files), "values": data.values}
    return Split(name, content, data.attributes, query, candidate, files, sizes), models


def _rival(
    training: TrainedRival, config: EvaluateConfig, files: list[Path], tables: list[np.ndarray]
) -> Model:
    device = available_device(config.device)
    network = load_rival(training, device)

    @cache  # all images go through it once, if it is used
    def represent() -> Represent:
        how = config.precision, config.workers or min(8, os.cpu_count() or 1), config.batch_size
        return represent_tables(network, files, tables, *how)

    fingerprint = digest(weights_digest(network), config.precision)
    tower = training.tower + " + small" * (training.local == "small")
    about = {"vlm": tower, "label": training.folder.name, "vlm_fingerprint": fingerprint}
    counts = {"precision": config.precision, "device": str(device)}
    return Model(training.method, about, {"basis": "-"}, counts,
                 rival=lambda images, attribute: represent()(images, attribute))  # fmt: skip


def _given(config: EvaluateConfig) -> tuple[Split, list[Model]]:
    """The same from embeddings that were made elsewhere."""
    files = config.features
    where, arrays = ", ".join(map(str, files)), read_given(files)
    count = max(1, sum(bool(re.fullmatch(r"text\d+", key)) for key in arrays))
    keys = [f"text{a}" for a in range(count)]
    shapes = {key: f"K{a} D" for a, key in enumerate(keys)}
    given = checked(files, arrays, image="N D", query="Q 3", candidate="C 3", **shapes)
    image = l2(given["image"])
    query = _checked_rows(f"{where}: query", given["query"], len(image), count)
    candidate = _checked_rows(f"{where}: candidate", given["candidate"], len(image), count)
    attributes = [f"attribute {a}" for a in range(count)]
    if "attributes" in arrays:
        attributes = [str(name) for name in arrays["attributes"].ravel()]
        if len(attributes) != count or len(set(attributes)) != count:
            raise UserError(f"{where}: attributes must hold {count} different names, one per text")
    texts = [checked_basis(f"{where}: {key}", l2(given[key])) for key in keys]
    name, width, sizes = files[0].name, min(map(len, texts)), {"images": len(image)}
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
