"""Fashion retrieval by attribute (paper, Table 4): mean average precision (mAP).

    python fashion_retrieval/evaluate.py --config configs/deepfashion.yaml

For each attribute, each query ranks all candidates of that attribute; relevant are those of the
query's value. Rows: random ranking, trained rivals if there are any, the universal representation
I, CRL without training, and CRL with trained heads and with a trained backbone if these are given.
"""

import hashlib
import os
import re
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Literal
from zipfile import BadZipFile

import numpy as np
import torch
from pydantic import BeforeValidator, Field, field_validator, model_validator

from crl.run.distributed import available_device
from crl.run.config import Config, load_config
from crl.embed import embed_images
from crl.run.errors import UserError, command
from crl.run.figures import retrieval_sheet, slug
from crl.projection import l2
from crl.run.results import Run, array_digest, digest
from crl.run.tables import aligned
from crl.vlm import check_made_for
from crl.run.weights import read_about, weights_digest
from crl.vlm import VLM, find_vlm, load_vlm
from crl.vlm.open_clip import WEIGHTS
from fashion_retrieval.datasets import Fashion, Retrieval, check_images, load
from fashion_retrieval.heads import Heads, load_heads
from fashion_retrieval.networks import Network, represent_tables
from fashion_retrieval.representation import (
    align_all,
    aligned_texts,
    conditional,
    headed,
    text_bases,
)
from fashion_retrieval.rivals import load_rival
from fashion_retrieval.scoring import (
    Represent,
    by_attribute,
    mean_scores,
    random_draw,
    random_expectation,
    retrieval_precision,
    without_relevant,
)

METHODS = {  # as in the paper's table; rows of other names follow
    "random": "Random",
    "random draw": "Random, one draw",
    "triplet": "Triplet",
    "csn": "CSN",
    "asen": "ASEN",
    "universal": "universal: I",
    "crl-free": "CRL† (no training)",
    "crl-mlp": "CRL, heads trained",
    "crl": "CRL, backbone trained",
}


class EvaluateConfig(Config):
    """Keys of evaluate.py."""

    name: str = Field("run", description="results go to <outputs>/fashion_retrieval/<name>")
    root: Path = Field(Path("data/deepfashion"), description="folder of ASEN's split files")
    dataset: str = Field("DeepFashion", description="its name in meta.json")
    images: Path | None = Field(None, description="folder of the images; none: root")
    split: Literal["valid", "test"] = Field("test", description="valid or test")
    bases: dict[str, str] = Field(
        {}, description="attribute: text basis (name or YAML file); none: <dataset>_<attribute>"
    )
    vlm: str = Field("clip-b16", description="the VLM, by name")
    heads: Path | None = Field(None, description="heads trained on that VLM (train_mlp.py)")
    backbone: str | None = Field(None, description="that VLM after train_backbone.py, by name")
    backbone_heads: Path | None = Field(None, description="heads of the backbone; none: heads")
    rivals: Annotated[list[Path], BeforeValidator(lambda x: x if isinstance(x, list) else [x])] = (
        Field([], description="rival.safetensors files of train_rival.py")
    )
    features: Path | None = Field(None, description="NPZ with embeddings made elsewhere; no vlm")
    seed: int = Field(0, ge=0, description="of the random draw and of the queries in the figure")
    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="of VLMs and rivals")
    device: str | None = Field(None, description="e.g. cpu, cuda; none takes the best")
    batch_size: int = Field(64, gt=0, description="images a batch")
    workers: int | None = Field(None, gt=0, description="threads (rivals: processes) that decode")
    figures: bool = Field(True, description="draw a query of each attribute with its top 5")
    cache: Path = Field(Path("cache/embeddings"), description="where embeddings are kept")
    outputs: Path = Field(Path("outputs"), description="where results go")

    @model_validator(mode="after")
    def _fits(self) -> "EvaluateConfig":
        replaced = {"root", "dataset", "images", "split", "bases", "vlm", "backbone", "precision"}
        replaced |= {"device", "batch_size", "workers", "cache", "backbone_heads", "rivals"}
        idle = sorted(replaced & self.model_fields_set) if self.features else []
        if idle:
            raise ValueError(f"features replaces {', '.join(idle)}; remove them")
        if self.backbone and not (self.heads or self.backbone_heads):
            raise ValueError("backbone needs heads, those that it was trained with")
        if self.backbone_heads and not self.backbone:
            raise ValueError("backbone_heads needs backbone")
        return self

    @field_validator("rivals")
    @classmethod
    def _homes(cls, files: list[Path]) -> list[Path]:
        return list(dict.fromkeys(file.expanduser() for file in files))


@dataclass(frozen=True)
class Task:
    """One split: what every method is asked.

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


@dataclass(frozen=True)
class Cell:
    """One row of the table, whatever represents the images: a VLM with or without heads, a trained
    backbone, embeddings from a file, a rival.

    Attributes:
        method: a key of METHODS.
        represent: may compute at its first call; nothing is computed for a finished cell.
        digest: changes whenever a representation does.
        about: what the cell is, for the results file.
    """

    method: str
    represent: Represent
    digest: str
    about: dict[str, Any]


def measure(task: Task, cell: Cell, seed: int) -> dict[str, dict[str, float]]:
    """{method: {attribute: mAP in percent, ..., "overall": ..., "mean": ...}}.

    Random rankings, which need no representation, come with the universal one.
    """
    query, candidate = task.query, task.candidate
    precision = {}
    if cell.method == "universal":
        precision["random"] = random_expectation(query, candidate)
        precision["random draw"] = random_draw(query, candidate, seed)
    precision[cell.method] = retrieval_precision(cell.represent, query, candidate)
    return {m: mean_scores(p, query, task.attributes) for m, p in precision.items()}


# --- inputs ---------------------------------------------------------------------------------------


def cells(config: EvaluateConfig) -> Iterator[tuple[Task, Cell]]:
    """All that is measured: first the universal representation, then CRL, then the rivals.

    Raises:
        UserError: wrong or missing files, images, bases, heads, rivals or VLM names, before the
            first VLM is loaded; VLMs that cannot be loaded, before any image is encoded.
    """
    if config.features:
        yield from _from_file(config)
        return
    fashion = load(config.root, config.dataset, config.images, [config.split])
    bases = text_bases(config.dataset, fashion.attributes, config.bases)
    size = len(bases), min(len(basis.texts) for basis in bases)  # A, K
    models = [(config.vlm, config.heads, False)]
    if config.backbone:
        models.append((config.backbone, config.backbone_heads or config.heads, True))
    for name, _, _ in models:
        find_vlm(name)
    basis = digest(*(basis.hash for basis in bases))
    heads = [load_heads(file, *size, basis) if file else None for _, file, _ in models]
    task = _task(config, fashion)
    device = available_device(config.device)
    rivals = [load_rival(file, len(bases), device) for file in config.rivals]
    vlms = [load_vlm(name, config.device, config.precision) for name, _, _ in models]
    if config.heads:
        check_made_for(config.heads, "heads", vlms[0], config.precision)
    if config.backbone:
        _check_backbone(config.backbone, vlms[0], config.precision, heads[1])
    for vlm, head, (name, file, trained) in zip(vlms, heads, models, strict=True):
        text = aligned_texts(vlm, bases, config.cache)
        embedded = embed_images(
            vlm, task.files, config.cache, config.batch_size, config.workers, single=True
        )
        image = l2(np.asarray(embedded.image))  # (N, D)
        about = {
            "vlm": name,
            "label": config.vlm,
            "vlm_fingerprint": vlm.fingerprint,
            "precision": config.precision,
            "device": str(vlm.device),
        }
        for cell in _embedded(image, text, basis, head, file, about, trained):
            yield task, cell
    for file, network in zip(config.rivals, rivals, strict=True):
        yield task, _rival(task, network, file, config, device)


def _check_backbone(name: str, vlm: VLM, precision: str, heads: Heads) -> None:
    """Was the trained backbone `name` once `vlm`, and was it trained under these heads?"""
    file = Path(find_vlm(name)) / WEIGHTS[0]
    if not file.is_file():  # not of train_backbone.py
        return
    check_made_for(file, "a backbone", vlm, precision)
    if read_about(file).get("heads_hash", weights_digest(heads)) != weights_digest(heads):
        raise UserError(
            f"the backbone {name} was trained under other heads than those given; give those as "
            "backbone_heads"
        )


def _task(config: EvaluateConfig, fashion: Fashion) -> Task:
    """The split, and of its images those that are used."""
    part: Retrieval = getattr(fashion, config.split)
    tables = [part.query, part.candidate]
    used, place = np.unique(np.concatenate([t[:, 0] for t in tables]), return_inverse=True)
    files = [part.files[n] for n in used]
    check_images(files)
    place = np.split(place, [len(part.query)])
    query, candidate = (np.column_stack([p, t[:, 1:]]) for p, t in zip(place, tables, strict=True))
    name = config.dataset + ("" if config.split == "test" else f" ({config.split})")
    about = {"data": name, "values": fashion.values, "images": len(files)}
    return Task(fashion.attributes, query, candidate, files, about)


def _embedded(
    image: np.ndarray,
    text: np.ndarray,
    basis: str,
    heads: Heads | None,
    file: Path | None,
    about: dict[str, Any],
    trained: bool,
) -> Iterator[Cell]:
    """The rows of one VLM: universal, CRL without training and with heads; of a trained backbone
    the last alone.

    Args:
        image: I, (N, D) unit rows.
        text: T_a, (A, K, D), the aligned basis of each attribute.
        basis: digest of the bases.
        file: where the heads come from.
    """
    inputs = [array_digest(image)]
    if not trained:
        yield _cell("universal", lambda images, _: image[images], inputs, about)
    inputs.append(array_digest(text))
    about = {**about, "texts": text.shape[1], "basis_hash": basis}
    represent = conditional(image, text)
    if not trained:
        yield _cell("crl-free", represent, inputs, about)
    if heads is not None:
        about |= {"heads_hash": weights_digest(heads), "file": str(file)}
        method = "crl" if trained else "crl-mlp"
        yield _cell(method, headed(represent, heads), [*inputs, about["heads_hash"]], about)


def _rival(
    task: Task, network: Network, file: Path, config: EvaluateConfig, device: torch.device
) -> Cell:
    """A rival on the images of the others. Its tower sees them when it is first asked: a finished
    cell costs but the reading of files."""
    workers = config.workers or min(8, os.cpu_count() or 1)
    reading = SimpleNamespace(
        precision=config.precision, eval_batch=config.batch_size, workers=workers
    )

    @cache
    def represented() -> Represent:
        tables = [task.query, task.candidate]
        return represent_tables(network, task.files, tables, reading, device)

    fingerprint = digest(weights_digest(network), config.precision)
    about = {
        "vlm": network.tower_name,
        "label": network.tower_name,
        "vlm_fingerprint": fingerprint,
        "file": str(file),
        "precision": config.precision,
        "device": str(device),
    }
    images = [hashlib.sha256(image.read_bytes()).hexdigest() for image in task.files]
    return _cell(
        network.method,
        lambda images, attribute: represented()(images, attribute),
        [fingerprint, *images],
        about,
    )


def _cell(method: str, represent: Represent, inputs: list[str], about: dict[str, Any]) -> Cell:
    """`inputs`: digests of all that shapes the representation."""
    # What tells this row of the table from another one of the same method and VLM
    shapes = [about.get(key) for key in ("vlm_fingerprint", "basis_hash", "heads_hash")]
    about = {**about, "method": method, "variant": digest(shapes)[:6]}
    return Cell(method, represent, digest(method, inputs), about)


def _from_file(config: EvaluateConfig) -> Iterator[tuple[Task, Cell]]:
    file = config.features
    try:
        with np.load(file, allow_pickle=False) as stored:
            arrays = {key: stored[key] for key in stored.files}
        image, query, candidate = (arrays[key] for key in ("image", "query", "candidate"))
        count = sum(bool(re.fullmatch(r"text\d+", key)) for key in arrays)
        texts = [arrays[f"text{a}"] for a in range(max(count, 1))]
    except KeyError as error:
        raise UserError(
            f"{file} must hold image, query, candidate and text0, text1, ... (and may hold "
            f"attributes, their names): {error}"
        ) from error
    except (
        OSError,
        ValueError,
        TypeError,
        EOFError,
        AttributeError,
        BadZipFile,
        zlib.error,
    ) as error:
        raise UserError(f"cannot read {file} as NPZ: {error}") from error
    attributes = [f"attribute {a}" for a in range(count)]
    if "attributes" in arrays:
        attributes = [str(name) for name in arrays["attributes"].ravel()]
        if len(set(attributes)) != count or len(attributes) != count:
            raise UserError(f"{file}: attributes must hold {count} different names, one a text")
    for name, x in {"image": image, **{f"text{a}": t for a, t in enumerate(texts)}}.items():
        _check_embeddings(file, name, x, image.shape[-1] if image.ndim else 0)
    for name, rows in (("query", query), ("candidate", candidate)):
        _check_rows(file, name, rows, len(image), count)
    image, text = _unit(image), align_all([_unit(t) for t in texts])
    heads = load_heads(config.heads, *text.shape[:2]) if config.heads else None
    about = {"vlm": "features", "label": file.name, "vlm_fingerprint": array_digest(image)}
    split = {"data": file.name, "values": None, "images": len(image)}
    query, candidate = query.astype(np.int64), candidate.astype(np.int64)
    task = Task(attributes, query, candidate, None, split)
    for cell in _embedded(image, text, array_digest(text), heads, config.heads, about, False):
        yield task, cell


def _check_embeddings(file: Path, name: str, x: np.ndarray, width: int) -> None:
    if x.ndim != 2 or not len(x) or x.shape[1] != width:
        raise UserError(f"{file} must hold image (N, D), text0 (K, D), ...; {name} is {x.shape}")
    if x.dtype.kind not in "fiu" or not np.isfinite(x).all():
        raise UserError(f"{file}: {name} holds things that are not finite numbers")
    if not x.any(axis=1).all():
        raise UserError(f"{file}: {name} has a row of zeros")


def _unit(x: np.ndarray) -> np.ndarray:
    """Unit rows in float32 of rows whose length float32 may not hold."""
    return l2(x / np.abs(x).max(axis=1, keepdims=True).astype(np.float64)).astype(np.float32)


def _check_rows(file: Path, name: str, rows: np.ndarray, images: int, attributes: int) -> None:
    if rows.ndim != 2 or rows.shape[1] != 3 or rows.dtype.kind not in "iu":
        raise UserError(
            f"{file}: {name} must be (n, 3) integers, rows of image index, attribute, value, not "
            f"{rows.shape} {rows.dtype}"
        )
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


# --- output ---------------------------------------------------------------------------------------


def map_table(cells: list[dict], title: str) -> str:
    """Methods as rows, the mAP of each attribute, the mean and the overall one as columns (as in
    Table 4; `mean` counts every attribute alike, `overall` every query). Several results of one
    method and model, e.g. with other heads, are rows of their own, marked [variant]."""
    if not cells:
        raise UserError("there are no results to show")
    columns = list(dict.fromkeys(c for cell in cells for s in cell["scores"].values() for c in s))
    columns = [c for c in columns if c not in ("mean", "overall")] + ["mean", "overall"]
    methods = list(dict.fromkeys([*METHODS, *(m for cell in cells for m in cell["scores"])]))
    rows = []
    for method in methods:
        for name, cell in zip(names(cells), cells, strict=True):
            scores = cell["scores"].get(method)
            if scores is None:
                continue
            shown = [f"{scores[c]:.2f}" if c in scores else "-" for c in columns]
            model = "-" if method.startswith("random") else name
            row = [cell["data"], model, METHODS.get(method, method), *shown]
            if row not in rows:  # a random ranking is the same for all models
                rows.append(row)
    return aligned(title, ["data", "model", "method", *columns], rows, left=3)


def names(cells: list[dict]) -> list[str]:
    """The model of each cell as tables show it, marked where its method has been measured with
    several of that label."""
    kinds = [tuple(cell[key] for key in ("data", "method", "label", "variant")) for cell in cells]
    several = Counter(kind[:3] for kind in set(kinds))
    return [
        label + (f" [{variant}]" if several[data, method, label] > 1 else "")
        for data, method, label, variant in kinds
    ]


def notes(cells: list[dict]) -> list[str]:
    """What a reader of the table should know."""
    found = []
    for name, cell in zip(names(cells), cells, strict=True):
        if name != cell["label"]:
            what = [f"{cell['vlm']} {cell['vlm_fingerprint'][:6]}"]
            if "texts" in cell:
                what.append(f"{cell['texts']} texts {cell['basis_hash'][:6]}")
            if "heads_hash" in cell:
                what.append(f"heads {cell['heads_hash'][:6]}")
            if "file" in cell:
                what.append(f"from {cell['file']}")
            method = METHODS.get(cell["method"], cell["method"])
            found.append(f"{name}, {method}: {', '.join(what)}")
    for cell in cells:
        if cell["without_relevant"]:
            found.append(
                f"{cell['data']}: {cell['without_relevant']} of {cell['queries']} queries have no "
                "relevant candidate; they score 0"
            )
    return list(dict.fromkeys(found))


def draw(task: Task, universal: Represent, cell: Cell, seed: int, file: Path) -> None:
    """A random query an attribute with its top 5, of the universal representation and below of
    the cell's."""
    rng = np.random.default_rng(seed)
    rows = []
    for mine, others in by_attribute(task.query, task.candidate):
        found = np.isin(task.query[mine, 2], task.candidate[others, 2])
        image, attribute, value = task.query[rng.choice(mine[found] if found.any() else mine)]
        candidates = task.candidate[others]
        for method, represent in (("universal", universal), (cell.method, cell.represent)):
            near = represent(np.array([image]), attribute)  # (1, W)
            similarity = (near @ represent(candidates[:, 0], attribute).T)[0]
            top = candidates[np.argsort(-similarity, kind="stable")[:5]]
            text = f"{task.attributes[attribute]}\n{METHODS[method].partition(',')[0]}"
            shown = [task.files[n] for n in top[:, 0]]
            rows.append((task.files[image], text, shown, (top[:, 2] == value).tolist()))
    about = f"{cell.about['label'][-40:]}, {task.about['data']}"
    retrieval_sheet(rows, f"{about}: {METHODS[cell.method]} below universal (green: right)", file)


@command
def main(argv: list[str]) -> None:
    config = load_config(EvaluateConfig, argv, __doc__)
    folder = config.outputs / "fashion_retrieval" / config.name
    run = Run(folder, config.model_dump(mode="json"))
    for task, cell in cells(config):
        if cell.method == "universal":
            universal = cell.represent
        key = digest("fashion retrieval", task.digest, cell.digest, config.seed)
        figure = folder / f"top-5-{cell.method}-{slug(cell.about['label'])}-{key[:6]}.png"
        if not run.finished(key):
            start = time.perf_counter()
            scores = measure(task, cell, config.seed)
            run.add(
                key,
                **task.about,
                **cell.about,
                criterion="all",
                queries=len(task.query),
                candidates=len(task.candidate),
                without_relevant=without_relevant(task.query, task.candidate),
                scores=scores,
                seconds=time.perf_counter() - start,
            )
        drawn = not config.figures or task.files is None or cell.method == "universal"
        if not drawn and not figure.exists():
            draw(task, universal, cell, config.seed, figure)
    print(map_table(run.cells, "Fashion retrieval, mAP in percent"))
    for note in notes(run.cells):
        print(f"note: {note}")
    print(f"results and figures: {folder}")


if __name__ == "__main__":
    main()
