"""Loads and embeds: a configuration -> I, T and labels, for each VLM under each criterion."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from classification_clustering.config import EvaluateConfig
from classification_clustering.datasets import Labelled, check_classes, load
from crl.backends.instructed import Told, load_instructed
from crl.basis import TextBasis
from crl.embed import checked_basis, embed_basis, embed_images, embed_texts
from crl.projection import l2
from crl.representations.null_space import directions_of_others
from crl.run.errors import UserError
from crl.run.given import checked, read_given
from crl.run.results import digest
from crl.vlm import load_vlm


class Embedded(NamedTuple):
    """One data set under one criterion, embedded by one VLM, or by a model that is told the
    criterion. All embeddings have unit rows."""

    data: Labelled  # image files, labels and classes
    image: np.ndarray  # I, (N, D), or (N, Q, D) for a VLM with Q vectors per image
    text: np.ndarray | None  # T, (K, D); None: the model was told the criterion, and I is x
    directions: np.ndarray | None  # (d, D), the null space of other criteria, to remove from I
    class_text: np.ndarray | None  # (C, D), the embedded class names, if they are known
    about: dict[str, Any]  # what a result says of data, VLM and images,
    about_basis: dict[str, Any]  # and of the texts
    counts: dict[str, Any]  # for tables
    content: str  # of the images, see `crl.embed.ImageEmbeddings`


def embedded(config: EvaluateConfig, at_least: int = 1) -> Iterator[Embedded]:
    """Yield every VLM under every criterion, or the embeddings in `features`. Files, bases and VLMs
    are checked before the first image is embedded. `at_least`: images that each class must have."""
    if config.features:
        yield _given(config, at_least)
        return
    data = {c: load(config.data, config.root, c, config.images, at_least) for c in config.criteria}
    bases = {c: config.basis(c) for c in config.criteria} if config.vlm else {}
    others = [TextBasis.load(name) for name in config.null_space]
    vlms: list[Any] = [load_vlm(name, config.device, config.precision) for name in config.vlm]
    vlms += [load_instructed(name, config.device, config.precision, config.send)
             for name in config.instructed]  # fmt: skip
    while vlms:
        vlm = vlms.pop(0)  # so that its memory is free when the next VLM is used
        is_told = not hasattr(vlm, "encode_texts")
        if not is_told:
            text = {c: embed_basis(vlm, basis, config.cache) for c, (basis, _) in bases.items()}
        paths = None
        for criterion, labelled in data.items():
            if labelled.paths != paths:  # the four criteria of Clevr4 share their images
                paths = labelled.paths
                how = config.cache, config.batch_size, config.workers, config.unreadable
                together = [c for c, other in data.items() if other.paths == paths]
                result = embed_images(Told(vlm, together) if is_told else vlm, paths, *how)
                image = np.asarray(result.image)  # (N, D) or (N, Q, D)
            labelled = labelled.some(result.kept)  # unreadable images may have been left out
            check_classes(f"{config.root}, {criterion}", labelled, at_least)
            classes = labelled.classes
            content = digest(result.content, labelled.labels)
            about = {"data": config.data, "criterion": criterion, "vlm": vlm.name}
            key = Told(vlm, [criterion]) if is_told else vlm
            about |= {"vlm_fingerprint": key.fingerprint, "content": content}
            counts: dict[str, Any] = {"images": len(image), "left_out": len(paths) - len(image)}
            counts |= {"classes": len(classes), "precision": config.precision}
            counts["device"] = str(vlm.device)
            if config.instructed:
                each = len(together) if is_told else 1
                counts["seconds_per_1000"] = result.seconds and result.seconds / each
            if is_told:
                rest = None, None, None, about, {"basis": "-"}, counts, result.content
                yield Embedded(labelled, image[:, together.index(criterion)], *rest)
                continue
            basis, label = bases[criterion]
            prompts = [basis.vlm_prompt.replace("{text}", name) for name in classes]
            class_text = embed_texts(vlm, prompts, config.cache)
            size = config.null_space_size
            directions = directions_of_others(vlm, basis, others, size, config.cache)
            about_basis = {"basis": label, "texts": len(basis.texts), "basis_digest": basis.digest}
            about_basis["null_space"] = None if directions is None else digest(directions)
            counts["names"] = f"{basis.names(classes)}/{len(classes)}"
            T = text[criterion]
            embeddings = image, T, directions, class_text
            yield Embedded(labelled, *embeddings, about, about_basis, counts, result.content)


def _given(config: EvaluateConfig, at_least: int) -> Embedded:
    files = config.features
    where = ", ".join(map(str, files))
    shapes = {"image": "N D|N Q D", "text": "K D", "labels": "N"}
    image, text, classes = checked(files, read_given(files), **shapes).values()
    if (classes != classes).any():  # NaN is the only value that differs from itself
        raise UserError(f"{where}: labels holds NaN; give every image a class, or leave it out")
    distinct, labels = np.unique(classes, return_inverse=True)
    data = Labelled([], labels, [str(name) for name in distinct])
    check_classes(where, data, at_least)
    image, text = l2(image), checked_basis(where, l2(text))
    about = {"data": files[0].name, "criterion": config.name, "vlm": "features"}
    about["content"] = digest(image, labels)
    about_basis = {"basis": files[0].name, "texts": len(text), "basis_digest": digest(text)}
    counts = {"images": len(image), "left_out": 0, "classes": len(data.classes)}
    return Embedded(data, image, text, None, None, about, about_basis, counts, digest(image))
