"""Loads and checks all inputs of a configuration: one `Inputs` per row of the table."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from crl.run.npz import checked, read_npz
from pydantic import Field, field_validator

from crl.backends.weights import weights_digest
from crl.basis import TextBasis
from crl.criteria import directions_of_others
from crl.embed import checked_basis, embed_images
from crl.projection import ConditionalProjection
from crl.run.config import EvaluationConfig, OneOrMore, Representations
from crl.run.distributed import available_device
from crl.run.errors import UserError
from crl.run.files import slug
from crl.run.results import array_digest, digest
from crl.vlm import VLM, find_vlm, load_vlm
from fashion_retrieval.datasets import Fashion, Retrieval, check_images, keep_used, load
from fashion_retrieval.heads import Heads
from fashion_retrieval.rivals import RIVALS, Rival, load_rival
from fashion_retrieval.trained import TRAININGS, Bases, Stage, aligned, load_heads, read_record


class EvaluateConfig(EvaluationConfig):
    """Keys of evaluate.py."""

    replaced_by_features = EvaluationConfig.replaced_by_features | {
        "root", "dataset", "images", "split", "trained"
    }  # fmt: skip

    root: Path = Field(Path("data/deepfashion"), description="folder of ASEN's split files")
    dataset: str = Field("DeepFashion", description="its name in meta.json")
    images: Path | None = Field(None, description="folder of the images; none: root")
    split: Literal["valid", "test"] = Field("test", description="valid or test")
    bases: dict[str, str] = Field(
        {}, description="attribute: text basis (name or YAML file); none: <dataset>_<attribute>"
    )
    vlm: str = Field("clip-b16", description="the VLM, by name")
    representation: Representations = Field(
        ["paper"], min_length=1, description="paper, posterior or a list of them; no training"
    )
    trained: Annotated[list[Path], OneOrMore] = Field(
        [], description=f"folders of {TRAININGS}: a row each"
    )
    heads: Path | None = Field(
        None, description="heads of the authors' code (.pth), trained with that VLM and bases"
    )
    seed: int = Field(0, ge=0, description="of the random draw and of the queries in the figure")

    @field_validator("trained")
    @classmethod
    def _homes(cls, folders: list[Path]) -> list[Path]:
        return list(dict.fromkeys(folder.expanduser() for folder in folders))


@dataclass(frozen=True)
class Split:
    """The queries and candidates that every method is measured on.

    Attributes:
        attributes: A names.
        query, candidate: (Q, 3) and (C, 3) int64; rows: index of an image, attribute, value.
        files: N image files; None if the embeddings were made elsewhere.
        about: data set, number of images and so on, for the results file.
    """

    attributes: list[str]
    query: np.ndarray
    candidate: np.ndarray
    files: list[Path] | None
    about: dict[str, Any]

    @cached_property
    def digest(self) -> str:
        return digest(self.attributes, array_digest(self.query), array_digest(self.candidate))

    @cached_property
    def stamps(self) -> list[tuple[str, int, int]]:
        """Name, size and time of the last change of each image file; no file is read."""
        return [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in self.files or ()]


@dataclass(frozen=True)
class Inputs:
    """One row of the table: a representation, and the split that it is measured on.

    Attributes:
        method: a key of `tables.METHODS`.
        image: I, (N, D), not normalised; None for a rival.
        text: T_a of each attribute, aligned, (A, K, D); None for `universal` and for a rival.
        projections: beyond the paper, in place of `text`: R' of each attribute by its basis as it
            is, not aligned.
        heads: trained heads over x = l2(I @ T_a.T), or None.
        rival: a network whose inputs are the images, or None.
        about: method, VLM, basis and so on, for the results file.
    """

    method: str
    split: Split
    about: dict[str, Any]
    image: np.ndarray | None = None
    text: np.ndarray | None = None
    projections: list[ConditionalProjection] | None = None
    heads: Heads | None = None
    rival: Rival | None = None

    @cached_property
    def digest(self) -> str:
        """Changes whenever the representation, the queries or the candidates do."""
        texts = [x for p in self.projections or () for x in (p.text_embeddings, p.removed)]
        arrays = [array_digest(x) for x in (self.image, self.text, *texts) if x is not None]
        seen = self.split.stamps if self.rival else arrays
        weights = self.about["vlm_fingerprint"], self.about.get("heads_hash")
        representation = self.about.get("representation")
        return digest(self.method, self.split.digest, weights, seen, representation)

    @property
    def file_name(self) -> str:
        """Method and model as part of a file name."""
        representation = self.about.get("representation", "paper")
        kind = "" if representation == "paper" else f"-{slug(representation)}"
        return f"{self.method}{kind}-{slug(self.about['label'])}"


def load_inputs(config: EvaluateConfig) -> Iterator[Inputs]:
    """Yield all rows: the universal representation, then CRL, then the folders of `trained`.

    Raises:
        UserError: wrong or missing files, images, bases, heads, trainings or VLM names (checked
            before the first VLM is loaded); VLMs that cannot be loaded (checked before any image is
            embedded).
    """
    if config.features:
        yield from _from_file(config)
        return
    fashion = load(config.root, config.dataset, config.images, [config.split])
    bases = Bases.load(config.dataset, fashion.attributes, config.bases, config.texts)
    others = [TextBasis.load(name) for name in config.null_space]
    split = _split(config, fashion)
    records = {folder: read_record(folder, split.attributes) for folder in config.trained}
    rivals = [folder for folder, record in records.items() if record["method"] in RIVALS]
    stages = {
        f: Stage.of(f, record, config.vlm) for f, record in records.items() if f not in rivals
    }
    heads = load_heads(config.heads, len(split.attributes), bases.width) if config.heads else None
    find_vlm(config.vlm)
    device = available_device(config.device)
    networks = {folder: load_rival(folder, records[folder], device) for folder in rivals}

    @cache  # a folder of stage 1 usually has the VLM of the configuration
    def vlm_of(name: str, precision: str) -> VLM:
        return load_vlm(name, config.device, precision, from_file=name != config.vlm)

    @cache
    def image_of(name: str, precision: str) -> np.ndarray:
        return embed_images(
            vlm_of(name, precision),
            split.files,
            config.cache,
            config.embed_batch,
            config.workers,
            single=True,
            embeddings=config.embeddings,
        ).image  # (N, D)

    vlm = vlm_of(config.vlm, config.precision)
    for stage in stages.values():
        stage.check(vlm_of(stage.vlm, stage.precision))

    texts = bases.texts(vlm, config.cache)
    removed = [
        directions_of_others(vlm, basis, others, config.rank, config.cache)
        for basis in bases.of.values()
    ]
    image = image_of(config.vlm, config.precision)
    about = _about_vlm(vlm, config.vlm, config.vlm, config.precision)
    about_bases = bases.about | {"names": _names(bases, fashion.value_names)}
    yield from _rows(config, split, image, texts, removed, about, about_bases, heads)
    for folder in config.trained:
        if folder in networks:
            yield _rival(split, networks[folder], folder, config.precision)
            continue
        stage = stages[folder]
        vlm = vlm_of(stage.vlm, stage.precision)
        about = _about_vlm(vlm, stage.vlm, stage.label, stage.precision) | stage.bases.about
        about["names"] = _names(stage.bases, fashion.value_names)
        yield _row(
            stage.method,
            split,
            about | _about_heads(stage.heads, folder),
            image=image_of(stage.vlm, stage.precision),
            text=stage.bases.embed(vlm, config.cache),
            heads=stage.heads,
        )


def _split(config: EvaluateConfig, fashion: Fashion) -> Split:
    part: Retrieval = getattr(fashion, config.split)
    files, (query, candidate) = keep_used(part.files, part.query, part.candidate)
    check_images(files)
    name = config.dataset + ("" if config.split == "test" else f" ({config.split})")
    about = {"data": name, "values": fashion.values, "images": len(files)}
    return Split(fashion.attributes, query, candidate, files, about)


# --- rows -----------------------------------------------------------------------------------------


def _names(bases: Bases, value_names: list[list[str]] | None) -> str:
    """How many of all values of all attributes the bases name."""
    if value_names is None:
        return "-"
    found = map(TextBasis.names, bases.of.values(), value_names)
    return f"{sum(found)}/{sum(map(len, value_names))}"


def _rows(
    config: EvaluateConfig,
    split: Split,
    image: np.ndarray,
    texts: list[np.ndarray],
    removed: list[np.ndarray | None],
    about: dict[str, Any],
    about_bases: dict[str, Any],
    heads: Heads | None,
) -> Iterator[Inputs]:
    """Rows of I, of CRL without training, and of CRL with the authors' heads if they are given."""
    yield _row("universal", split, about, image=image)
    about = about | about_bases
    text = aligned(texts)  # T_a, (A, K, D)
    for representation in config.representation:
        what: dict[str, Any] = {"text": text}
        if representation != "paper" or config.null_space:
            how = "l2" if representation == "paper" else representation, config.sharpness
            pairs = zip(texts, removed, strict=True)
            what = {"projections": [ConditionalProjection(t, None, *how, r) for t, r in pairs]}
        mine = about | config.about(representation)
        yield _row("crl-free", split, mine, image=image, **what)
    if heads is not None:
        about = about | _about_heads(heads, config.heads)
        yield _row("crl-mlp", split, about, image=image, text=text, heads=heads)


def _rival(split: Split, rival: Rival, folder: Path, precision: str) -> Inputs:
    about = {
        "vlm": rival.tower_name,
        "label": rival.tower_name,
        "vlm_fingerprint": digest(weights_digest(rival), precision),
        "precision": precision,
        "device": str(next(rival.parameters()).device),
        "from": str(folder),
    }
    return _row(rival.method, split, about, rival=rival)


def _row(method: str, split: Split, about: dict[str, Any], **what: Any) -> Inputs:
    # `variant` distinguishes rows of the same method and VLM, e.g. with other heads.
    keys = ("vlm_fingerprint", "basis_hash", "heads_hash", "null_space", "rank")
    shapes = [about[key] for key in keys if about.get(key)]
    about = {**about, "method": method, "variant": digest(shapes)[:6]}
    return Inputs(method, split, about, **what)


def _about_vlm(vlm: VLM, name: str, label: str, precision: str) -> dict[str, Any]:
    about = {"vlm": name, "label": label, "vlm_fingerprint": vlm.fingerprint}
    return {**about, "precision": precision, "device": str(vlm.device)}


def _about_heads(heads: Heads, source: Path) -> dict[str, Any]:
    return {"heads_hash": weights_digest(heads), "from": str(source)}


# --- embeddings from a file -----------------------------------------------------------------------


def _from_file(config: EvaluateConfig) -> Iterator[Inputs]:
    file = config.features
    arrays = read_npz(file)
    count = max(1, sum(bool(re.fullmatch(r"text\d+", key)) for key in arrays))
    texts = {f"text{a}": f"K{a} D" for a in range(count)}
    found = checked(file, arrays, image="N D", query="Q 3", candidate="C 3", **texts)
    image = found["image"]
    for name in ("query", "candidate"):
        found[name] = _checked_rows(file, name, found[name], len(image), count)
    names = [f"attribute {a}" for a in range(count)]
    if "attributes" in arrays:
        names = [str(name) for name in arrays["attributes"].ravel()]
        if len(names) != count or len(set(names)) != count:
            raise UserError(f"{file}: attributes must hold {count} different names, one per text")
    given = [checked_basis(f"{file}: {key}", found[key]) for key in texts]
    width = min(map(len, given))
    heads = load_heads(config.heads, len(given), width) if config.heads else None
    split = Split(
        names,
        found["query"],
        found["candidate"],
        None,
        {"data": file.name, "values": None, "images": len(image)},
    )
    about = {"vlm": "features", "label": file.name, "vlm_fingerprint": array_digest(image)}
    bases = {"basis": file.name, "texts": width, "basis_hash": digest(*map(array_digest, given))}
    yield from _rows(config, split, image, given, [None] * len(given), about, bases, heads)


def _checked_rows(
    file: Path, name: str, rows: np.ndarray, images: int, attributes: int
) -> np.ndarray:
    """(n, 3) rows of image index, attribute and value as int64."""
    if rows.dtype.kind not in "iu":
        raise UserError(f"{file}: {name} must hold integers, not {rows.dtype}")
    limits = {"image": images, "attribute": attributes, "value": np.iinfo(np.int64).max}
    for column, (what, limit) in enumerate(limits.items()):
        wrong = (rows[:, column] < 0) | (rows[:, column] >= limit)
        if wrong.any():
            row = int(wrong.argmax())
            raise UserError(
                f"{file}: {name}, row {row}: {what} {rows[row, column]} is not in 0..{limit - 1}"
            )
    for attribute in set(range(attributes)) - set(rows[:, 1].tolist()):
        raise UserError(f"{file}: {name} has no row of attribute {attribute}")
    return rows.astype(np.int64)
