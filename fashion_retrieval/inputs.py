"""From a configuration to the rows of the table, each with all that it needs, checked.

Bases       the text basis of each attribute, and T_a
Stage       CRL as train_mlp.py or train_backbone.py left it in a folder
Inputs      one row of the table
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field, field_validator

from crl.basis import TextBasis, basis_label
from crl.embed import embed_images, embed_texts
from crl.projection import l2
from crl.run.config import EvaluationConfig
from crl.run.distributed import available_device
from crl.run.errors import UserError, nearest
from crl.run.files import slug
from crl.run.hub import explained
from crl.run.npz import checked, read_npz
from crl.run.results import array_digest, digest
from crl.run.weights import load_tensors, weights_digest
from crl.vlm import VLM, find_vlm, load_vlm
from fashion_retrieval.datasets import Fashion, Retrieval, check_images, keep_used, load
from fashion_retrieval.heads import Heads
from fashion_retrieval.method import align
from fashion_retrieval.rivals import RIVALS, Rival, load_rival

TRAININGS = "train_mlp.py, train_backbone.py or train_rival.py"
OneOrMore = BeforeValidator(lambda value: value if isinstance(value, list) else [value])


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
    """What every method is asked.

    Attributes:
        attributes: A names.
        query, candidate: (Q, 3) and (C, 3) int64; rows: index of an image, attribute, value.
        files: N image files; None where embeddings were made elsewhere.
        about: what the split is, for the results file.
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
        """Name, size and time of the last change of each image file, which cost no reading."""
        return [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in self.files or ()]


@dataclass(frozen=True)
class Inputs:
    """One row of the table: what represents an image, and what it is measured on.

    Attributes:
        method: a key of `tables.METHODS`.
        image: I, (N, D), of any length; None for a rival.
        text: T_a of each attribute, aligned, (A, K, D); None for `universal` and for a rival.
        heads: trained heads over x = l2(I @ T_a.T), or None.
        rival: a network that sees the images itself, or None.
        about: what the row is, for the results file.
    """

    method: str
    split: Split
    about: dict[str, Any]
    image: np.ndarray | None = None
    text: np.ndarray | None = None
    heads: Heads | None = None
    rival: Rival | None = None

    @cached_property
    def digest(self) -> str:
        """Changes whenever the representation, the queries or the candidates do."""
        arrays = [array_digest(x) for x in (self.image, self.text) if x is not None]
        seen = self.split.stamps if self.rival else arrays
        weights = self.about["vlm_fingerprint"], self.about.get("heads_hash")
        return digest(self.method, self.split.digest, weights, seen)

    @property
    def file_name(self) -> str:
        """Method and model as part of a file name."""
        return f"{self.method}-{slug(self.about['label'])}"


def load_inputs(config: EvaluateConfig) -> Iterator[Inputs]:
    """All rows: the universal representation first, then CRL, then the trained ones in order.

    Raises:
        UserError: wrong or missing files, images, bases, heads, trainings or VLM names, before the
            first VLM is loaded; VLMs that cannot be loaded, before any image is embedded.
    """
    if config.features:
        yield from _from_file(config)
        return
    fashion = load(config.root, config.dataset, config.images, [config.split])
    bases = Bases.load(config.dataset, fashion.attributes, config.bases, config.texts)
    split = _split(config, fashion)
    records = {folder: read_record(folder, split.attributes) for folder in config.trained}
    rivals = {folder for folder, record in records.items() if record["method"] in RIVALS}
    stages = {f: Stage.of(f, record) for f, record in records.items() if f not in rivals}
    heads = load_heads(config.heads, len(split.attributes), bases.width) if config.heads else None
    find_vlm(config.vlm)
    device = available_device(config.device)
    networks = {folder: load_rival(folder, records[folder], device) for folder in rivals}

    @cache
    def vlm_of(name: str, precision: str) -> VLM:
        return load_vlm(name, config.device, precision)

    @cache
    def image_of(vlm: VLM) -> np.ndarray:
        return embed_images(
            vlm, split.files, config.cache, config.embed_batch, config.workers, single=True
        ).image  # (N, D)

    vlm = vlm_of(config.vlm, config.precision)
    for stage in stages.values():
        stage.check(vlm_of(stage.vlm, stage.precision))

    text = bases.embed(vlm, config.cache)  # T_a, (A, K, D)
    about = {"vlm": config.vlm, "label": config.vlm, **_about_vlm(vlm, config.precision)}
    yield from _rows(split, image_of(vlm), text, about, bases.about, heads, config.heads)
    for folder in config.trained:
        if folder in networks:
            yield _rival(split, networks[folder], folder, config.precision)
            continue
        stage = stages[folder]
        vlm = vlm_of(stage.vlm, stage.precision)
        about = {"vlm": stage.vlm, "label": stage.label, **_about_vlm(vlm, stage.precision)}
        yield _row(
            stage.method,
            split,
            {**about, **stage.bases.about, **_about_heads(stage.heads, folder)},
            image=image_of(vlm),
            text=stage.bases.embed(vlm, config.cache),
            heads=stage.heads,
        )


def _split(config: EvaluateConfig, fashion: Fashion) -> Split:
    part: Retrieval = getattr(fashion, config.split)
    files, tables = keep_used(part.files, part.query, part.candidate)
    check_images(files)
    name = config.dataset + ("" if config.split == "test" else f" ({config.split})")
    about = {"data": name, "values": fashion.values, "images": len(files)}
    return Split(fashion.attributes, *tables, files, about)


# --- rows -----------------------------------------------------------------------------------------


def _rows(
    split: Split,
    image: np.ndarray,
    text: np.ndarray,
    about: dict[str, Any],
    about_bases: dict[str, Any],
    heads: Heads | None,
    file: Path | None,
) -> Iterator[Inputs]:
    """I and CRL without training; and with heads of the authors' code, if there are any."""
    yield _row("universal", split, about, image=image)
    about = about | about_bases
    yield _row("crl-free", split, about, image=image, text=text)
    if heads is not None:
        about = about | _about_heads(heads, file)
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
    # `variant` tells the row from another one of the same method and VLM, e.g. other heads.
    shapes = [about.get(key) for key in ("vlm_fingerprint", "basis_hash", "heads_hash")]
    about = {**about, "method": method, "variant": digest(shapes)[:6]}
    return Inputs(method, split, about, **what)


def _about_vlm(vlm: VLM, precision: str) -> dict[str, Any]:
    return {
        "vlm_fingerprint": vlm.fingerprint,
        "precision": precision,
        "device": str(vlm.device),
    }


def _about_heads(heads: Heads, source: Path) -> dict[str, Any]:
    return {"heads_hash": weights_digest(heads), "from": str(source)}


# --- text bases -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bases:
    """The text basis of each attribute.

    Attributes:
        label: their names in tables, e.g. `deepfashion_*`.
    """

    of: dict[str, TextBasis]
    label: str

    @classmethod
    def load(
        cls, dataset: str, attributes: list[str], given: dict[str, str], first: int | None
    ) -> "Bases":
        """Those `given`, else the shipped `<dataset>_<attribute>`; `first`: texts of each.

        Raises:
            UserError: no such basis, or one given for an attribute that there is not.
        """
        for name in given:
            if name not in attributes:
                raise UserError(f"bases: unknown attribute {name!r}; {nearest(name, attributes)}")
        names = {a: given.get(a, f"{dataset.lower()}_{a}") for a in attributes}
        bases = {a: TextBasis.load(name, first) for a, name in names.items()}
        labels = [re.sub(f"{re.escape(a)}$", "*", basis_label(n)) for a, n in names.items()]
        return cls(bases, ", ".join(dict.fromkeys(labels)))

    @property
    def width(self) -> int:
        """K, the number of texts of the smallest basis."""
        return min(len(basis.texts) for basis in self.of.values())

    @property
    def about(self) -> dict[str, Any]:
        """For the results file."""
        hashes = [basis.hash for basis in self.of.values()]
        return {"basis": self.label, "texts": self.width, "basis_hash": digest(*hashes)}

    @property
    def record(self) -> dict[str, Any]:
        """For a training's folder: all that `from_record` needs."""
        plain = {
            a: basis.model_dump(mode="json", exclude={"provenance"}) for a, basis in self.of.items()
        }
        return {**self.about, "bases": plain}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> "Bases":
        bases = {a: TextBasis.model_validate(plain) for a, plain in record["bases"].items()}
        return cls(bases, record["basis"])

    def embed(self, vlm: VLM, folder: Path | None) -> np.ndarray:
        """T_a of each attribute, aligned, (A, K, D); `folder`: the embedding cache."""
        return _aligned([embed_texts(vlm, basis.prompts, folder) for basis in self.of.values()])


def _aligned(texts: list[np.ndarray]) -> np.ndarray:
    """(K_a, D) of each attribute, of any length -> (A, K, D)."""
    try:
        return np.stack([align(l2(text), min(map(len, texts))) for text in texts])
    except ValueError as error:
        raise UserError(
            f"{error}; use a smaller basis for the attribute that has the fewest texts"
        ) from error


# --- what trainings left --------------------------------------------------------------------------


def read_record(folder: Path, attributes: list[str]) -> dict[str, Any]:
    """What a training says of itself in its results.json.

    Raises:
        UserError: `folder` is none of a training, or has no weights; other attributes.
    """
    if folder.is_file():
        raise UserError(f"{folder} is a file; give the folder of the training: {folder.parent}")
    try:
        record = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        weights, known = folder / record["weights"], record["attributes"]
        assert record["method"] in (*RIVALS, *Stage.METHODS)
    except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
        raise UserError(
            f"{folder} is no folder of {TRAININGS}: it has no results.json of theirs"
        ) from error
    if not weights.is_file():
        raise UserError(f"{folder} has no {record['weights']}; train to the first validation")
    if known != attributes:
        raise UserError(
            f"{folder} was trained on the attributes {', '.join(known)}, the data has "
            f"{', '.join(attributes)}; use a training on this data set"
        )
    return record


@dataclass(frozen=True)
class Stage:
    """CRL as train_mlp.py (stage 1) or train_backbone.py (stage 2) left it in `folder`.

    Attributes:
        method: see METHODS.
        vlm: name for `load_vlm`, a folder after stage 2; label: the name before any training.
        fingerprint: of that VLM; None for the one in the folder itself.
        precision: of the VLM.
    """

    METHODS = ("crl-mlp", "crl")

    folder: Path
    method: str
    vlm: str
    label: str
    fingerprint: str | None
    precision: str
    bases: Bases
    heads: Heads

    @classmethod
    def of(cls, folder: Path, record: dict[str, Any]) -> "Stage":
        """Raises:
        UserError: the folder is damaged, or its VLM is gone.
        """
        bases = Bases.from_record(record)
        own = record["method"] == "crl"  # stage 2 has a VLM of its own
        vlm = str(folder / "vlm") if own else record["vlm"]
        find_vlm(vlm)
        return cls(
            folder=folder,
            method=record["method"],
            vlm=vlm,
            label=record["vlm"],
            fingerprint=None if own else record["vlm_fingerprint"],
            precision=record["precision"],
            bases=bases,
            heads=load_heads(folder / "heads.safetensors", len(bases.of), bases.width, own=True),
        )

    def check(self, vlm: VLM) -> None:
        """Raises:
        UserError: the VLM of that name is no longer the one of the training.
        """
        if self.fingerprint not in (None, vlm.fingerprint):
            raise UserError(
                f"{self.folder} was trained on another VLM than {self.vlm!r} is now "
                f"({self.fingerprint}, not {vlm.fingerprint}); bring that one back or train again"
            )


def load_heads(file: Path, attributes: int, width: int, own: bool = False) -> Heads:
    """Heads from a file, in eval mode, on the CPU, in float32.

    Args:
        file: heads.safetensors of a training here, or a .pth of the authors' code.
        attributes: A, as many as it must have.
        width: K, the width of the bases that it must take.
        own: it is read as part of its training's folder.

    Raises:
        UserError: no such file; a damaged one or one that holds code; one of a training here,
            without its folder; no heads; heads for other attributes or another width.
    """
    if not own and (file.is_dir() or (file.parent / "results.json").is_file()):
        folder = file if file.is_dir() else file.parent
        raise UserError(
            f"{file} belongs to a training of this repository; give its folder: trained=[{folder}]"
        )
    state = load_tensors(file)
    first, last = (state.get(f"projection_heads.0.fc.{layer}.weight") for layer in (0, 3))
    if first is None or last is None:
        raise UserError(
            f"{file} holds no heads: it has no projection_heads.0.fc.0.weight and so on"
        )
    count = len({key.split(".")[1] for key in state if key.startswith("projection_heads.")})
    if count != attributes:
        raise UserError(
            f"{file} holds heads for {count} attributes, the data has {attributes}; use heads "
            "trained on this data set"
        )
    if first.shape[-1] != width:
        raise UserError(
            f"the heads in {file} take representations of width {first.shape[-1]}, these are "
            f"{width} wide; use the text bases that they were trained with"
        )
    heads = Heads(attributes, width, len(last))
    with explained(f"{attributes} heads: {file}", remote=False):
        heads.load_state_dict(state)
    return heads.eval()


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
    text = _aligned([found[key] for key in texts])
    heads = load_heads(config.heads, *text.shape[:2]) if config.heads else None
    split = Split(
        names,
        found["query"],
        found["candidate"],
        None,
        {"data": file.name, "values": None, "images": len(image)},
    )
    about = {"vlm": "features", "label": file.name, "vlm_fingerprint": array_digest(image)}
    bases = {"basis": file.name, "texts": text.shape[1], "basis_hash": array_digest(text)}
    yield from _rows(split, image, text, about, bases, heads, config.heads)


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
