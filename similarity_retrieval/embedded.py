"""Loads and embeds: a configuration -> what the methods need, for each VLM on each task."""

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from crl.basis import TextBasis, basis_label
from crl.embed import checked_basis, embed_basis, embed_images, embed_texts
from crl.images import Crop
from crl.projection import l2
from crl.representations.null_space import directions_of_others
from crl.run.errors import UserError
from crl.run.given import checked, read_given
from crl.run.results import digest
from similarity_retrieval.combiner import Combiner, load_combiner
from similarity_retrieval.config import EvaluateConfig
from similarity_retrieval.datasets import GeneCIS, Templates, load
from similarity_retrieval.method import Features
from similarity_retrieval.rivals.cig import fusions, generated_files
from similarity_retrieval.rivals.queries import Rival
from similarity_retrieval.trained import models


class Basis(NamedTuple):
    """The basis of some templates of a task."""

    rows: np.ndarray  # (B',) the templates
    text: np.ndarray  # T, (K, D), unit rows
    directions: np.ndarray | None  # (d, D), null space of other criteria to remove from I


class Embedded(NamedTuple):
    """One task, embedded by one VLM."""

    data: GeneCIS
    templates: Templates
    features: Features  # embeddings of images and conditions, of any length
    bases: list[Basis]  # together they name all templates
    combiner: Combiner | None
    rivals: dict[str, Rival]
    files: Sequence[Path | Crop] | None  # M, for the figure; None: embeddings made elsewhere
    about: dict[str, Any]  # what a result says of itself: task, VLM, images
    about_basis: dict[str, Any]  # and of CRL's texts
    counts: dict[str, Any]  # for tables, beside those of the templates


def embedded(config: EvaluateConfig) -> Iterator[Embedded]:
    """Yield each VLM on each task: first `vlm`, then the folders of `trained`; or the embeddings in
    `features`. Templates, images, bases, names and Combiners are checked before the first image is
    embedded."""
    data = load(config.tasks, config.root)
    if config.features:
        yield from _given(config, data)
        return
    named = {}
    for task, templates in data.tasks.items():
        used = [data.conditions[c] for c in templates.condition]
        chosen = _chosen(f"bases of {task}", config.bases[task], used)
        named[task] = [(n, rows, TextBasis.load(n, config.texts)) for n, rows in chosen.items()]
    others = [TextBasis.load(name) for name in config.null_space]
    files = config.pictures(data)
    generated = generated_files(config.generated, data) if config.generated else {}
    loaded = models(config)
    if "posterior" in config.representation and "paper" in config.balance:
        warnings.warn("balance=paper was made for the paper's R; with the posterior the scene may "
                      "drown the condition; balance=standard suits both", stacklevel=2)  # fmt: skip
    size, cache = config.null_space_size, config.cache
    removed = digest(size, *(other.digest for other in others)) if others else None
    for label, (vlm, combiner, rivals) in loaded.items():
        bases: dict[str, list[Basis]] = {task: [] for task in named}
        for task, choices in named.items():  # before the first image is embedded
            for _, rows, basis in choices:
                text, directions = embed_basis(vlm, basis, cache), None
                if others:
                    directions = directions_of_others(vlm, basis, others, size, cache)
                bases[task].append(Basis(rows, text, directions))
        how = cache, config.batch_size, config.workers
        result = embed_images(vlm, files, *how, single=True, raw=True)
        image = np.asarray(result.image)  # (M, D), each distinct image once
        plain = embed_texts(vlm, data.conditions, cache, raw=True)  # (C, D)
        for task, templates in data.tasks.items():
            prompts = config.prompts[task]
            filled = [p.replace("{condition}", c) for c in data.conditions for p in prompts]
            prompted = embed_texts(vlm, filled, cache) if filled else plain[:0]
            features = Features(image, plain, prompted.reshape(len(plain), -1, plain.shape[1]))
            texts = [basis for *_, basis in named[task]]
            criterion = " ".join(dict.fromkeys(basis.criterion for basis in texts))
            content = digest(result.content, data.conditions, *templates[:3])
            about = {"data": task, "criterion": criterion, "vlm": vlm.name, "label": label}
            about |= {"vlm_fingerprint": vlm.fingerprint, "content": content}
            about_basis = {
                "basis": " + ".join(basis_label(name) for name, *_ in named[task]),
                "texts": sum(len(basis.texts) for basis in texts),
                "basis_digest": digest(*(basis.digest for basis in texts)),
            }
            about_basis |= {"prompts": prompts, "null_space": removed}
            used = [data.conditions[c] for c in np.unique(templates.condition)]
            names = " + ".join(f"{basis.names(used)}/{len(used)}" for basis in texts)
            counts = {"names": names, "precision": config.precision, "device": str(vlm.device)}
            fused: dict[str, Rival] = {}
            if rivals and generated:
                made = embed_images(vlm, generated[task], *how, single=True, raw=True)
                fused = fusions(rivals, made, config.generated, config.reference_weight)
            yield Embedded(
                data, templates, features, bases[task], combiner, {**rivals, **fused}, files, about,
                about_basis,
                counts,
            )  # fmt: skip


def _chosen(
    where: str, names: str | dict[str, str], conditions: list[str]
) -> dict[str, np.ndarray]:
    """{basis: the templates (B',) whose condition it is for}, from the condition of each."""
    if isinstance(names, str):
        names = {"other": names}
    unknown = sorted(set(conditions) - names.keys())
    if unknown and "other" not in names:
        raise UserError(f"{where} name no basis for {unknown[0]!r}, nor one for `other`")
    chosen = np.array([names.get(condition, names.get("other")) for condition in conditions])
    return {str(name): np.flatnonzero(chosen == name) for name in np.unique(chosen)}


def _given(config: EvaluateConfig, data: GeneCIS) -> Iterator[Embedded]:
    file = config.features[0]
    shapes = {"ids": "M", "image": "M D", "scene_text": "K D", "conditions": "C"}
    shapes |= {"caption_plain": "C D", "captions5": "C P D"}
    arrays = checked(config.features, read_given(config.features), **shapes)
    image = arrays["image"][_rows(file, "images", data.ids, arrays["ids"])]
    rows = _rows(file, "conditions", data.conditions, arrays["conditions"])
    features = Features(image, arrays["caption_plain"][rows], arrays["captions5"][rows])
    text = checked_basis(f"{file}: scene_text", l2(arrays["scene_text"]))
    combiner = load_combiner(config.combiner, text.shape[1]) if config.combiner else None
    about_basis = {"basis": "scene_text", "texts": len(text)}
    about_basis["basis_digest"] = digest(text, features.prompted)
    content = digest(image, features.plain)
    for task, templates in data.tasks.items():
        about = {"data": task, "criterion": "scene", "vlm": "features", "label": file.name}
        about["content"] = digest(content, data.conditions, *templates[:3])
        bases = [Basis(np.arange(len(templates.reference)), text, None)]
        yield Embedded(data, templates, features, bases, combiner, {}, None, about, about_basis, {})


def _rows(file: Path, what: str, wanted: list[str], names: np.ndarray) -> np.ndarray:
    """The row of each wanted name in the file."""
    if names.dtype.kind not in "iuU":
        raise UserError(f"{file}: the names of its {what} must be whole numbers or texts")
    place = {str(name): row for row, name in enumerate(names.tolist())}
    if len(place) < len(names):
        raise UserError(f"{file} names some of its {what} twice; keep one row of each")
    if missing := [name for name in wanted if name not in place]:
        raise UserError(f"{file} lacks {len(missing)} of {len(wanted)} {what}: {missing[0]}, ...")
    return np.array([place[name] for name in wanted])
