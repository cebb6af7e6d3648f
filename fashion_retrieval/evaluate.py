"""Fashion retrieval by attribute (paper, Table 4): mean average precision (mAP).

    python fashion_retrieval/evaluate.py --config configs/deepfashion.yaml

For each attribute, each query ranks all candidates of that attribute; relevant are those of the
query's value. Rows: random ranking, the universal representation I, CRL without training, and CRL
with trained heads and with a trained backbone if these are given.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal
from zipfile import BadZipFile

import numpy as np
import torch
from pydantic import Field, field_validator, model_validator

from crl.basis import TextBasis
from crl.config import Config, load_config
from crl.embed import embed_images, embed_texts
from crl.errors import UserError, command, nearest
from crl.figures import retrieval_sheet, slug
from crl.projection import align, l2, project
from crl.results import Run, aligned, array_digest, digest
from crl.vlm import VLM, find_vlm, load_vlm
from fashion_retrieval.datasets import check_images, load
from fashion_retrieval.heads import Heads, load_heads
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
    features: Path | None = Field(None, description="NPZ with embeddings made elsewhere; no vlm")
    seed: int = Field(0, ge=0, description="of the random draw and of the queries in the figure")
    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="of the VLM")
    device: str | None = Field(None, description="e.g. cpu, cuda; none takes the best")
    batch_size: int = Field(64, gt=0, description="images a batch")
    workers: int | None = Field(None, gt=0, description="threads that decode images")
    figures: bool = Field(True, description="draw a query of each attribute with its top 5")
    cache: Path = Field(Path("cache/embeddings"), description="where embeddings are kept")
    outputs: Path = Field(Path("outputs"), description="where results go")

    @model_validator(mode="after")
    def _fits(self) -> "EvaluateConfig":
        replaced = {"root", "dataset", "images", "split", "bases", "vlm", "backbone", "precision"}
        replaced |= {"device", "batch_size", "workers", "cache", "backbone_heads"}
        idle = sorted(replaced & self.model_fields_set) if self.features else []
        if idle:
            raise ValueError(f"features replaces {', '.join(idle)}; remove them")
        if self.backbone and not (self.heads or self.backbone_heads):
            raise ValueError("backbone needs heads, those that it was trained with")
        if self.backbone_heads and not self.backbone:
            raise ValueError("backbone_heads needs backbone")
        return self

    @field_validator("*")
    @classmethod
    def _home(cls, value):
        return value.expanduser() if isinstance(value, Path) else value


@dataclass(frozen=True)
class Cell:
    """One VLM on one split: everything that the methods need.

    Attributes:
        image: I, (N, D) unit rows.
        text: T_a, (A, K, D), the aligned basis of each attribute.
        query, candidate: (Q, 3) and (C, 3); rows: index into `image`, attribute, value.
        heads: trained heads, or None.
        trained: the VLM is a trained backbone: only CRL is measured.
        files: N image files; None where embeddings were made elsewhere.
        about: what the cell is, for the results file.
    """

    attributes: list[str]
    image: np.ndarray
    text: np.ndarray
    query: np.ndarray
    candidate: np.ndarray
    heads: Heads | None
    trained: bool
    files: list[Path] | None
    about: dict

    @cached_property
    def digest(self) -> str:
        """Changes whenever an input of the scores does."""
        arrays = [self.image, self.text, self.query, self.candidate]
        if self.heads is not None:
            arrays += [tensor.numpy() for tensor in self.heads.state_dict().values()]
        return digest(*map(array_digest, arrays))

    def methods(self) -> dict[str, Represent]:
        """The representation behind each row of the table."""
        head = {} if self.heads is None else {"crl" if self.trained else "crl-mlp": self.headed}
        if self.trained:
            return head
        return {"universal": lambda n, _: self.image[n], "crl-free": self.conditional, **head}

    def conditional(self, images: np.ndarray, attribute: int) -> np.ndarray:
        """R = I T_aᵀ with unit rows: (n,) -> (n, K)."""
        return l2(project(self.image[images], self.text[attribute]))

    def headed(self, images: np.ndarray, attribute: int) -> np.ndarray:
        """R through the head of its attribute: (n,) -> (n, out)."""
        parts = []
        with torch.inference_mode():
            for part in np.array_split(images, len(images) // 4096 + 1):
                r = torch.from_numpy(self.conditional(part, attribute))
                parts.append(self.heads(r, torch.full((len(r),), attribute)).numpy())
        return np.concatenate(parts)


def measure(cell: Cell, seed: int) -> dict[str, dict[str, float]]:
    """{method: {attribute: mAP in percent, ..., "overall": ..., "mean": ...}}."""
    query, candidate = cell.query, cell.candidate
    precision = {"random": random_expectation(query, candidate)}
    precision["random draw"] = random_draw(query, candidate, seed)
    for method, represent in cell.methods().items():
        precision[method] = retrieval_precision(represent, query, candidate)
    return {m: mean_scores(p, query, cell.attributes) for m, p in precision.items()}


# --- inputs ---------------------------------------------------------------------------------------


def text_bases(dataset: str, attributes: list[str], given: dict[str, str]) -> list[TextBasis]:
    """The basis of each attribute: `given`, or that named <dataset>_<attribute>.

    Raises:
        UserError: no such basis, or one given for an attribute that there is not.
    """
    for name in given:
        if name not in attributes:
            raise UserError(f"bases: unknown attribute {name!r}; {nearest(name, attributes)}")
    return [TextBasis.load(given.get(a, f"{dataset.lower()}_{a}")) for a in attributes]


def aligned_texts(vlm: VLM, bases: list[TextBasis], cache: Path | None) -> np.ndarray:
    """T_a of all attributes, (A, K, D), K being the number of texts of the smallest basis."""
    return _aligned([l2(embed_texts(vlm, basis.prompts, cache)) for basis in bases])


def _aligned(texts: list[np.ndarray]) -> np.ndarray:
    return np.stack([align(text, min(map(len, texts))) for text in texts])


def cells(config: EvaluateConfig) -> Iterator[Cell]:
    """The VLM, and the trained backbone if there is one.

    Raises:
        UserError: wrong or missing files, images, bases or VLM names, before the first VLM is
            loaded; heads that do not fit, before any image is encoded.
    """
    if config.features:
        yield _from_file(config)
        return
    fashion = load(config.root, config.dataset, config.images, [config.split])
    part = getattr(fashion, config.split)
    bases = text_bases(config.dataset, fashion.attributes, config.bases)
    models = [(config.vlm, config.heads, False)]
    if config.backbone:
        models.append((config.backbone, config.backbone_heads or config.heads, True))
    for name, heads, _ in models:
        find_vlm(name)
        if heads:
            load_heads(heads, len(bases), min(len(basis.texts) for basis in bases))
    tables = [part.query, part.candidate]
    used, place = np.unique(np.concatenate([t[:, 0] for t in tables]), return_inverse=True)
    files = [part.files[n] for n in used]
    check_images(files)
    place = np.split(place, [len(part.query)])
    query, candidate = (np.column_stack([p, t[:, 1:]]) for p, t in zip(place, tables, strict=True))
    for name, heads, trained in models:
        vlm = load_vlm(name, config.device, config.precision)
        text = aligned_texts(vlm, bases, config.cache)
        embedded = embed_images(vlm, files, config.cache, config.batch_size, config.workers)
        image = np.asarray(embedded.image)  # (N, D)
        if image.ndim != 2:
            raise UserError(f"{name} gives {image.shape[1]} vectors an image; this task needs one")
        about = {
            "data": config.dataset + ("" if config.split == "test" else f" ({config.split})"),
            "vlm": name,
            "label": config.vlm,
            "texts": text.shape[1],
            "basis_hash": digest(*(basis.hash for basis in bases)),
            "vlm_fingerprint": vlm.fingerprint,
            "precision": config.precision,
            "device": str(vlm.device),
        }
        head = load_heads(heads, *text.shape[:2]) if heads else None
        names = fashion.attributes
        yield Cell(names, l2(image), text, query, candidate, head, trained, files, about)


def _from_file(config: EvaluateConfig) -> Cell:
    file = config.features
    try:
        with np.load(file, allow_pickle=False) as stored:
            arrays = {key: stored[key] for key in stored.files}
        image, query, candidate = (arrays[key] for key in ("image", "query", "candidate"))
        count = sum(key.startswith("text") for key in arrays)
        texts = [arrays[f"text{a}"] for a in range(max(count, 1))]
    except KeyError as error:
        raise UserError(
            f"{file} must hold image, query, candidate and text0, text1, ...: {error}"
        ) from error
    except (OSError, ValueError, TypeError, EOFError, BadZipFile) as error:
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
    image = l2(image.astype(np.float32))
    text = _aligned([l2(t.astype(np.float32)) for t in texts])
    heads = load_heads(config.heads, *text.shape[:2]) if config.heads else None
    about = {"data": file.name, "vlm": "features", "label": file.name, "texts": text.shape[1]}
    about |= {"basis_hash": array_digest(text), "vlm_fingerprint": array_digest(image)}
    query, candidate = query.astype(np.int64), candidate.astype(np.int64)
    return Cell(attributes, image, text, query, candidate, heads, False, None, about)


def _check_embeddings(file: Path, name: str, x: np.ndarray, width: int) -> None:
    if x.ndim != 2 or not len(x) or x.shape[1] != width:
        raise UserError(f"{file} must hold image (N, D), text0 (K, D), ...; {name} is {x.shape}")
    if x.dtype.kind not in "fiu" or not np.isfinite(x).all():
        raise UserError(f"{file}: {name} holds things that are not finite numbers")
    if not x.any(axis=1).all():
        raise UserError(f"{file}: {name} has a row of zeros")


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
    Table 4; `mean` counts every attribute alike, `overall` every query)."""
    if not cells:
        raise UserError("there are no results to show")
    columns = list(dict.fromkeys(c for cell in cells for s in cell["scores"].values() for c in s))
    columns = [c for c in columns if c not in ("mean", "overall")] + ["mean", "overall"]
    methods = list(dict.fromkeys([*METHODS, *(m for cell in cells for m in cell["scores"])]))
    rows = []
    for method in methods:
        for cell in cells:
            scores = cell["scores"].get(method)
            if scores is None:
                continue
            shown = [f"{scores[c]:.2f}" if c in scores else "-" for c in columns]
            vlm = "-" if method.startswith("random") else cell["label"]
            row = [cell["data"], vlm, METHODS.get(method, method), *shown]
            if row not in rows:  # a random ranking is the same for all VLMs
                rows.append(row)
    return aligned(title, ["data", "VLM", "method", *columns], rows, left=3)


def draw(cell: Cell, seed: int, file: Path) -> None:
    """A random query an attribute with its top 5: universal, and CRL as far as it is trained."""
    rng = np.random.default_rng(seed)
    methods = {"universal": lambda n, _: cell.image[n], **cell.methods()}
    best = list(methods)[-1]
    rows = []
    for mine, others in by_attribute(cell.query, cell.candidate):
        found = np.isin(cell.query[mine, 2], cell.candidate[others, 2])
        image, attribute, value = cell.query[rng.choice(mine[found] if found.any() else mine)]
        candidates = cell.candidate[others]
        for method in ("universal", best):
            represent = methods[method]
            near = represent(np.array([image]), attribute)  # (1, W)
            similarity = (near @ represent(candidates[:, 0], attribute).T)[0]
            top = candidates[np.argsort(-similarity, kind="stable")[:5]]
            text = f"{cell.attributes[attribute]}\n{METHODS[method].partition(',')[0]}"
            shown = [cell.files[n] for n in top[:, 0]]
            rows.append((cell.files[image], text, shown, (top[:, 2] == value).tolist()))
    about = f"{cell.about['vlm']}, {cell.about['data']}"
    retrieval_sheet(rows, f"{about}: {METHODS[best]} beside universal (green: right)", file)


@command
def main(argv: list[str]) -> None:
    config = load_config(EvaluateConfig, argv, __doc__)
    folder = config.outputs / "fashion_retrieval" / config.name
    run = Run(folder, config.model_dump(mode="json"))
    for cell in cells(config):
        key = digest("fashion retrieval", cell.digest, cell.trained, config.seed)
        figure = folder / f"top-5-{slug(cell.about['vlm'])}-{key[:6]}.png"
        if not run.finished(key):
            start = time.perf_counter()
            scores = measure(cell, config.seed)
            run.add(
                key,
                **cell.about,
                criterion="all",
                queries=len(cell.query),
                candidates=len(cell.candidate),
                images=len(cell.image),
                without_relevant=without_relevant(cell.query, cell.candidate),
                scores=scores,
                seconds=time.perf_counter() - start,
            )
        if config.figures and cell.files is not None and not figure.exists():
            draw(cell, config.seed, figure)
    print(map_table(run.cells, "Fashion retrieval, mAP in percent"))
    for cell in run.cells:
        if cell["without_relevant"]:
            print(
                f"note: {cell['label']}, {cell['data']}: {cell['without_relevant']} of "
                f"{cell['queries']} queries have no relevant candidate; they score 0"
            )
    print(f"results and figures: {folder}")


if __name__ == "__main__":
    main()
