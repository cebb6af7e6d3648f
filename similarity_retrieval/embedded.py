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
from similarity_retrieval.datasets import GeneCIS, Task, Templates, images, load
from similarity_retrieval.method import Features
from similarity_retrieval.trained import models


class Basis(NamedTuple):
    """The basis of some templates of a task."""

    rows: np.ndarray  # (B',) the templates
    text: np.ndarray  # T, (K, D), unit rows
    directions: np.ndarray | None = None  # (d, D), null space of other criteria to remove from I


class Embedded(NamedTuple):
    """One task, embedded by one VLM."""

    data: GeneCIS
    templates: Templates
    features: Features  # embeddings of images and conditions, of any length
    bases: list[Basis]  # together they name all templates
    combiner: Combiner | None
    files: Sequence[Path | Crop] | None  # M, for the figure; None: embeddings made elsewhere
    about: dict[str, Any]  # what a result says of itself: task, VLM, images
    about_basis: dict[str, Any]  # and of CRL's texts
    counts: dict[str, Any]  # for tables: how many templates, images and so on


def embedded(config: EvaluateConfig) -> Iterator[Embedded]:
    """Yield each VLM on each task: first `vlm`, then the folders of `trained`; or the embeddings in
    `features`. Templates, images, bases, names and Combiners are checked before the first image is
    embedded."""
    data = load(config.tasks, config.root)
    for one in (_given if config.features else _embedded)(config, data):
        t, about = one.templates, one.about
        content = digest(about["content"], data.conditions, t.reference, t.gallery, t.condition)
        counts = {
            "templates": len(t.reference),
            "candidates": t.gallery.shape[1],
            "left_out": t.left_out,
            "target_also_in_gallery": t.repeated,
            "images": len(np.unique(np.append(t.gallery, t.reference))),
            "conditions": len(np.unique(t.condition)),
        }
        about |= {"content": content, "tie_policy": config.tie_policy}
        about_basis = one.about_basis | {"weight": config.weight}
        yield one._replace(about=about, about_basis=about_basis, counts=counts | one.counts)


def _embedded(config: EvaluateConfig, data: GeneCIS) -> Iterator[Embedded]:
    named = {task: _bases(config, data, task) for task in config.tasks}
    others = [TextBasis.load(name) for name in config.null_space]
    genome = config.visual_genome or config.root / "visual_genome"
    files = images(data, config.coco or config.root / "coco", genome)
    loaded = models(config)
    if "posterior" in config.representation and "paper" in config.balance:
        warnings.warn(
            "balance=paper was made for the paper's R; with the posterior the scene may drown the "
            "condition; balance=standard suits both",
            stacklevel=2,
        )
    size, cache = config.null_space_size, config.cache
    removed = digest(size, *(other.digest for other in others)) if others else None
    for label, (vlm, combiner) in loaded.items():
        bases = {}  # of all tasks, before the first image is embedded
        for task in config.tasks:
            bases[task] = []
            for rows, _, basis in named[task]:
                directions = directions_of_others(vlm, basis, others, size, cache)
                bases[task].append(Basis(rows, embed_basis(vlm, basis, cache), directions))
        how = cache, config.batch_size, config.workers
        result = embed_images(vlm, files, *how, single=True, raw=True)
        image = np.asarray(result.image)  # (M, D), each distinct image once
        plain = embed_texts(vlm, data.conditions, cache, raw=True)  # (C, D)
        for task in config.tasks:
            templates, prompts = data.tasks[task], config.prompts[task]
            filled = [p.replace("{condition}", c) for c in data.conditions for p in prompts]
            prompted = embed_texts(vlm, filled, cache) if filled else plain[:0]
            features = Features(image, plain, prompted.reshape(len(plain), -1, plain.shape[1]))
            used = [data.conditions[c] for c in np.unique(templates.condition)]
            texts = [basis for *_, basis in named[task]]
            about = {
                "data": task,
                "criterion": " ".join(dict.fromkeys(basis.criterion for basis in texts)),
                "vlm": vlm.name,
                "label": label,
                "vlm_fingerprint": vlm.fingerprint,
                "content": result.content,
            }
            about_basis = {
                "basis": " + ".join(basis_label(name) for _, name, _ in named[task]),
                "texts": sum(len(basis.texts) for basis in texts),
                "basis_digest": digest(*(basis.digest for basis in texts)),
                "prompts": prompts,
                "null_space": removed,
            }
            names = " + ".join(f"{basis.names(used)}/{len(used)}" for basis in texts)
            counts = {"names": names, "precision": config.precision, "device": str(vlm.device)}
            yield Embedded(
                data, templates, features, bases[task], combiner, files, about, about_basis, counts
            )


def _bases(
    config: EvaluateConfig, data: GeneCIS, task: Task
) -> list[tuple[np.ndarray, str, TextBasis]]:
    """For a task: templates (B',), the name of their basis, the basis."""
    names, conditions = config.bases[task], [data.conditions[c] for c in data.tasks[task].condition]
    if isinstance(names, str):
        names = {"other": names}
    unknown = sorted(set(conditions) - names.keys())
    if unknown and "other" not in names:
        raise UserError(f"bases of {task} name no basis for {unknown[0]!r}, nor one for `other`")
    chosen = np.array([names.get(condition, names.get("other")) for condition in conditions])
    return [
        (np.flatnonzero(chosen == name), str(name), TextBasis.load(str(name), config.texts))
        for name in np.unique(chosen)
    ]


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
    for task, templates in data.tasks.items():
        about = {"data": task, "criterion": "scene", "vlm": "features", "label": file.name}
        about["content"] = digest(image, features.plain)
        about_basis = {"basis": "scene_text", "texts": len(text)}
        about_basis["basis_digest"] = digest(text, features.prompted)
        bases = [Basis(np.arange(len(templates.reference)), text)]
        yield Embedded(data, templates, features, bases, combiner, None, about, about_basis, {})


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
