"""Similarity retrieval under a condition (paper, Table 3): the GeneCIS benchmark.

    python similarity_retrieval/evaluate.py --config configs/genecis.yaml

For each task Recall@1, 2, 3 in percent of the image alone, the text alone, image + text, the
Combiner and CRL, beside chance. Saves the rank of every template's target, and draws the templates
that CRL answers best and worst.
"""

import time
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal
from zipfile import BadZipFile

import numpy as np
from pydantic import BeforeValidator, Field, model_validator

from crl.basis import TextBasis
from crl.run.config import Config, load_config
from crl.images import Crop
from crl.embed import embed_images, embed_texts
from crl.run.errors import UserError, command, nearest
from crl.run.figures import retrieval_sheet, slug
from crl.run.files import atomic_path
from crl.projection import l2, project
from crl.run.results import Run, array_digest, digest
from crl.run.tables import aligned
from crl.vlm import check_made_for
from crl.vlm import VLM, find_vlm, load_vlm
from similarity_retrieval.combiner import Combiner, load_combiner
from similarity_retrieval.datasets import TASKS, GeneCIS, Templates, images, load
from similarity_retrieval.scoring import (
    Features,
    baseline_scores,
    chance,
    crl_scores,
    recall,
    target_ranks,
)

PLACES = ("left", "right", "top", "lower", "mid")
ON_PLACES = [f"a photo with a {{condition}} on the {place}" for place in PLACES]  # the paper's five
CUTOFFS = (1, 2, 3)  # of Recall@k
Ranks = tuple[np.ndarray, np.ndarray]  # (B,) candidates above the target, (B,) tied with it
IDLE = {"vlm", "finetuned", "finetuned_combiner", "bases", "prompts", "coco", "visual_genome"}
IDLE |= {"precision", "device", "batch_size", "workers", "cache"}  # beside `features`
METHODS = ("image", "text", "image+text", "combiner", "crl")
ATTRIBUTE_BASES = {  # what a focus on an attribute is about -> the basis that describes it
    "color": "clevr4_color",
    "material": "genecis_material",
    "other": "genecis_attribute",
}


class EvaluateConfig(Config):
    """Keys of evaluate.py."""

    name: str = Field("run", description="results go to <outputs>/similarity_retrieval/<name>")
    tasks: Annotated[
        list[Literal[TASKS]],
        BeforeValidator(lambda x: list(dict.fromkeys(x)) if isinstance(x, list) else [x]),
    ] = Field(list(TASKS[:2]), description=f"of {', '.join(TASKS)}")
    root: Path = Field(Path("data/genecis"), description="folder of the templates, <task>.json")
    coco: Path | None = Field(None, description="folder with val2017/; none: <root>/coco")
    visual_genome: Path | None = Field(
        None, description="folder with VG_100K/ and VG_100K_2/; none: <root>/visual_genome"
    )
    vlm: str = Field("clip-b16", description="the VLM, by name")
    combiner: Path | None = Field(None, description="Combiner trained on that VLM")
    finetuned: str | None = Field(None, description="that VLM as GeneCIS trained it: * rows")
    finetuned_combiner: Path | None = Field(None, description="Combiner of the * rows")
    bases: dict[str, str | dict[str, str]] = Field(
        {
            "focus_object": "genecis_scene",
            "change_object": "genecis_scene",
            "focus_attribute": ATTRIBUTE_BASES,
            "change_attribute": "genecis_object",
        },
        description="task: text basis, or {condition: text basis, other: text basis}",
    )
    prompts: dict[str, list[str]] = Field(
        {
            "focus_object": ON_PLACES,
            "change_object": ON_PLACES,
            "focus_attribute": [],  # 'color' is what to compare, not what to look for
            "change_attribute": ["a photo with a {condition} object"],
        },
        description="task: prompts of CRL for {condition}; their embeddings are averaged",
    )
    weight: float = Field(
        10, ge=0, allow_inf_nan=False, description="of the basis's part of CRL's score (paper: 10)"
    )
    tie_policy: Literal["fair", "paper"] = Field(
        "fair", description="fair: a tie counts as a random order; paper: the target comes first"
    )
    features: Path | None = Field(None, description="NPZ with embeddings made elsewhere; no vlm")
    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="of the VLM")
    device: str | None = Field(None, description="e.g. cpu, cuda; none takes the best")
    batch_size: int = Field(64, gt=0, description="images a batch")
    workers: int | None = Field(None, gt=0, description="threads that decode images")
    figures: bool = Field(True, description="draw the best and the worst templates")
    cache: Path = Field(Path("cache/embeddings"), description="where embeddings are kept")
    outputs: Path = Field(Path("outputs"), description="where results go")

    @model_validator(mode="after")
    def _fits(self) -> "EvaluateConfig":
        if not self.tasks:
            raise ValueError(f"tasks is empty; choose of {', '.join(TASKS)}")
        if self.finetuned_combiner and not self.finetuned:
            raise ValueError("finetuned_combiner needs finetuned, the VLM that it belongs to")
        for key in ("bases", "prompts"):
            named = getattr(self, key)
            if unknown := sorted(named.keys() - set(TASKS)):
                raise ValueError(
                    f"{key} names the task {unknown[0]!r}; {nearest(unknown[0], TASKS)}"
                )
            if missing := sorted(set(self.tasks) - named.keys()):
                raise ValueError(f"{key} says nothing about {', '.join(missing)}")
        for prompt in (prompt for prompts in self.prompts.values() for prompt in prompts):
            if "{condition}" not in prompt:
                raise ValueError(f"the prompt {prompt!r} has no {{condition}}")
        return self


@dataclass(frozen=True)
class Cell:
    """One VLM on one task: everything that the methods need.

    Attributes:
        texts: which templates (B',) use which basis T (K, D), unit rows; together all templates.
        files: M images or crops, for the figure; None where embeddings were made elsewhere.
        about: what the cell is, for the results file.
    """

    data: GeneCIS
    templates: Templates
    features: Features
    texts: list[tuple[np.ndarray, np.ndarray]]
    combiner: Combiner | None
    files: list[Path | Crop] | None
    about: dict

    @cached_property
    def digest(self) -> str:
        """Changes whenever an input of the scores does."""
        arrays = [self.templates.reference, self.templates.gallery, self.templates.condition]
        arrays += [self.features.image, self.features.plain, self.features.prompted]
        arrays += [array for text in self.texts for array in text]
        rest = [self.about[key] for key in ("data", "vlm", "label", "variant")]
        return digest(*map(array_digest, arrays), rest)

    @property
    def file_name(self) -> str:
        return f"{slug(self.about['data'])}-{slug(self.about['vlm'])}-{self.digest[:6]}"


def scores(cell: Cell, weight: float) -> dict[str, np.ndarray]:
    """Scores (B, G) of each method's candidates; the target is in column 0."""
    t = cell.templates
    crl = np.empty(t.gallery.shape, cell.features.image.dtype)
    for rows, text in cell.texts:
        r = l2(project(cell.features.unit_image, text))  # R = I Tᵀ, (M, K), unit rows
        part = replace(
            t, reference=t.reference[rows], gallery=t.gallery[rows], condition=t.condition[rows]
        )
        crl[rows] = crl_scores(cell.features, part, r, weight)
    return {**baseline_scores(cell.features, t, cell.combiner), "crl": crl}


def measure(ranks: dict[str, Ranks], cell: Cell, tie_policy: str) -> dict[str, dict[str, float]]:
    """Recall in percent, {method: {"R@k": ...}}, from the ranks of the targets; chance is exact."""
    table = {"chance": {f"R@{k}": chance(cell.about["candidates"], k) for k in CUTOFFS}}
    for method, (better, tied) in ranks.items():
        table[method] = {f"R@{k}": recall(better, tied, k, tie_policy) for k in CUTOFFS}
    return table


def cells(config: EvaluateConfig) -> Iterator[Cell]:
    """Each VLM (the plain one, then GeneCIS's) on each task.

    Raises:
        UserError: wrong or missing templates, images, bases or VLM names, before the first VLM is
            loaded; weights that do not fit, Combiners that do not or that were trained on another
            VLM, before anything is encoded.
    """
    data = load(config.tasks, config.root)
    if config.features:
        yield from _from_file(config, data)
        return
    bases = {task: _bases(config, data, task) for task in config.tasks}
    models = [(config.vlm, config.combiner, "")]
    if config.finetuned:
        models.append((config.finetuned, config.finetuned_combiner, "*"))
    for name, _, _ in models:
        find_vlm(name)
    coco = config.coco or config.root / "coco"
    files = images(data, coco, config.visual_genome or config.root / "visual_genome")
    loaded = []
    for name, head, star in models:
        vlm = load_vlm(name, config.device, config.precision)
        loaded.append((vlm, _combiner(head, vlm, config.precision) if head else None, star))
    for vlm, combiner, star in loaded:
        embedded = embed_images(
            vlm, files, config.cache, config.batch_size, config.workers, single=True
        )
        image = np.asarray(embedded.image)  # (M, D), each distinct image once
        plain = embed_texts(vlm, data.conditions, config.cache)  # (C, D)
        for task in config.tasks:
            prompted = _prompted(vlm, data, task, config)
            texts = [
                (rows, l2(embed_texts(vlm, basis.prompts, config.cache)))  # T, (K, D)
                for rows, basis in bases[task]
            ]
            about = {
                "data": task,
                "criterion": " ".join(dict.fromkeys(basis.criterion for _, basis in bases[task])),
                "vlm": vlm.name,
                "label": config.vlm + star,
                "texts": sum(len(basis.texts) for _, basis in bases[task]),
                "basis_hash": digest(*(basis.hash for _, basis in bases[task])),
                "prompts": config.prompts[task],
                "vlm_fingerprint": vlm.fingerprint,
                "precision": config.precision,
                "device": str(vlm.device),
            }
            features = Features(image, plain, prompted)
            yield _cell(config, data, task, features, texts, combiner, files, about)


def _combiner(path: Path, vlm: VLM, precision: str) -> Combiner:
    """The Combiner in `path`, refused if its header names another VLM than `vlm` at `precision`."""
    combiner = load_combiner(path, vlm.dim)
    check_made_for(path, "a Combiner", vlm, precision)
    return combiner


def _cell(config, data, task, features, texts, combiner, files, about) -> Cell:
    templates = data.tasks[task]
    weights = combiner.state_dict().values() if combiner else ()
    about["combiner_hash"] = (
        digest(*(array_digest(w.numpy()) for w in weights)) if combiner else None
    )
    # What tells this row of a table from another one of the same VLM, over all tasks
    fingerprint = (about["vlm_fingerprint"], about["combiner_hash"], config.weight)
    about["variant"] = digest(fingerprint, config.bases, config.prompts, config.tie_policy)[:4]
    counts = {
        "templates": len(templates.reference),
        "candidates": templates.gallery.shape[1],
        "left_out": templates.left_out,
        "target_also_in_gallery": templates.repeated,
        "images": len(np.unique(np.append(templates.gallery.ravel(), templates.reference))),
        "conditions": len(np.unique(templates.condition)),
        "weight": config.weight,
        "tie_policy": config.tie_policy,
    }
    return Cell(data, templates, features, texts, combiner, files, {**about, **counts})


def _prompted(vlm: VLM, data: GeneCIS, task: str, config: EvaluateConfig) -> np.ndarray:
    """(C, P, D): the P prompts of the task with each condition; zeros for conditions of others."""
    used, prompts = np.unique(data.tasks[task].condition), config.prompts[task]
    prompted = np.zeros((len(data.conditions), len(prompts), vlm.dim), np.float32)
    if prompts:
        texts = [p.replace("{condition}", data.conditions[c]) for c in used for p in prompts]
        embedded = embed_texts(vlm, texts, config.cache)
        prompted[used] = embedded.reshape(len(used), len(prompts), vlm.dim)
    return prompted


def _bases(config: EvaluateConfig, data: GeneCIS, task: str) -> list[tuple[np.ndarray, TextBasis]]:
    """Which templates (B',) of a task use which basis."""
    names, condition = config.bases[task], data.tasks[task].condition
    if isinstance(names, str):
        return [(np.arange(len(condition)), TextBasis.load(names))]
    unknown = sorted({data.conditions[c] for c in condition} - names.keys())
    if unknown and "other" not in names:
        raise UserError(f"bases of {task} name no basis for {unknown[0]!r}, nor one for `other`")
    chosen = np.array([names.get(data.conditions[c], names.get("other")) for c in condition])
    return [(np.flatnonzero(chosen == n), TextBasis.load(str(n))) for n in np.unique(chosen)]


def _from_file(config: EvaluateConfig, data: GeneCIS) -> Iterator[Cell]:
    file = config.features
    keys = ("ids", "image", "scene_text", "conditions", "caption_plain", "captions5")
    try:
        with np.load(file, allow_pickle=False) as stored:
            ids, image, text, conditions, plain, prompted = (stored[key] for key in keys)
    except KeyError as error:
        raise UserError(f"{file} must hold {', '.join(keys)}: {error}") from error
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
    arrays = dict(zip(keys, (ids, image, text, conditions, plain, prompted), strict=True))
    _check_features(file, arrays)
    image = image[_rows(file, "images", data.ids, ids)].astype(np.float32)
    chosen = _rows(file, "conditions", data.conditions, conditions)
    features = Features(
        image, plain[chosen].astype(np.float32), prompted[chosen].astype(np.float32)
    )
    text = l2(text.astype(np.float32))
    combiner = load_combiner(config.combiner, text.shape[1]) if config.combiner else None
    about = {"criterion": "scene", "vlm": "features", "label": file.name}
    about |= {"texts": len(text), "basis_hash": array_digest(text)}
    about |= {"vlm_fingerprint": array_digest(image)}
    for task in config.tasks:
        everything = [(np.arange(len(data.tasks[task].reference)), text)]
        about = {**about, "data": task}
        yield _cell(config, data, task, features, everything, combiner, None, about)


def _check_features(file: Path, arrays: dict[str, np.ndarray]) -> None:
    m, c = arrays["ids"].size, arrays["conditions"].size
    k, d, p = *(*arrays["scene_text"].shape, 0, 0)[:2], (*arrays["captions5"].shape, 0, 0)[1]
    shapes = {"scene_text": (max(k, 1), d), "ids": (m,), "image": (m, d), "conditions": (c,)}
    shapes |= {"caption_plain": (c, d), "captions5": (c, p, d)}
    for key, shape in shapes.items():
        array = arrays[key]
        if array.shape != shape:
            raise UserError(
                f"{file} must hold ids (M,), image (M, D), scene_text (K, D), conditions (C,), "
                f"caption_plain (C, D), captions5 (C, 5, D); {key} is {array.shape}"
            )
        if len(shape) > 1 and not (array.dtype.kind in "fiu" and np.isfinite(array).all()):
            raise UserError(f"{file}: {key} holds things that are not finite numbers")
        if len(shape) > 1 and not array.any(axis=-1).all():
            raise UserError(f"{file}: {key} has a row of zeros")


def _rows(file: Path, what: str, wanted: list[str], given: np.ndarray) -> np.ndarray:
    """Where each wanted name stands in the file."""
    if given.dtype.kind not in "iuU":
        raise UserError(f"{file}: the names of its {what} must be whole numbers or texts")
    place = {str(name): row for row, name in enumerate(given.tolist())}
    if len(place) < len(given):
        raise UserError(f"{file} names some of its {what} twice; keep one row of each")
    missing = [name for name in wanted if name not in place]
    if missing:
        raise UserError(
            f"{file} lacks {len(missing)} of {len(wanted)} {what} of the templates, the first: "
            f"{', '.join(missing[:3])}"
        )
    return np.array([place[name] for name in wanted])


def recall_table(cells: list[dict], title: str) -> str:
    """Methods as rows, Recall@k of each task as columns, and the mean of the object tasks (as in
    Table 3). Results of one VLM under other settings are rows of their own, marked [variant]."""
    if not cells:
        raise UserError("there are no results to show")
    tasks = [task for task in TASKS if any(cell["data"] == task for cell in cells)]
    averaged = [task for task in tasks if task.endswith("object")] or tasks
    rows = []
    for name, found in [("-", cells), *_variants(cells).items()]:
        scores = {
            cell["data"]: cell["scores"] for cell in reversed(found)
        }  # the newest comes first
        for method in METHODS if name != "-" else ("chance",):
            mine = {task: scores.get(task, {}).get(method) for task in tasks}
            if not any(mine.values()):
                continue
            numbers = [[mine[t] and mine[t][f"R@{k}"] for k in CUTOFFS] for t in tasks]
            shown = ["-" if n is None else f"{n:.1f}" for three in numbers for n in three]
            whole = all(mine[task] for task in averaged)
            mean = np.mean([list(mine[task].values()) for task in averaged]) if whole else None
            rows.append([name, method, *shown, "-" if mean is None else f"{mean:.1f}"])
    header = [
        f"{t.replace('_', ' ')} R@{k}" if k == 1 else f"R@{k}" for t in tasks for k in CUTOFFS
    ]
    mean = "mean" if averaged == tasks else "mean of object tasks"
    return aligned(title, ["VLM", "method", *header, mean], rows, left=2)


def _variants(cells: list[dict]) -> dict[str, list[dict]]:
    """Cells by their VLM, and by their settings where there are several."""
    several = Counter(label for label, _ in {(c["label"], c["variant"]) for c in cells})
    grouped: dict[str, list[dict]] = {}
    for cell in cells:
        name = cell["label"]
        if several[name] > 1:
            name += f" [{cell['variant']}]"
        grouped.setdefault(name, []).append(cell)
    return grouped


def notes(cells: list[dict]) -> list[str]:
    """What a reader of the table should know."""
    found = []
    for name, variant in _variants(cells).items():
        if "[" in name:
            cell = variant[0]
            combiner = (cell["combiner_hash"] or "none")[:6]
            found.append(
                f"{name}: {cell['texts']} texts, weight {cell['weight']:g}, ties "
                f"{cell['tie_policy']}, Combiner {combiner}, VLM {cell['vlm_fingerprint'][:6]}"
            )
        for cell in variant:
            about = f"{name}, {cell['data']}"
            other = "fair" if cell["tie_policy"] == "paper" else "paper"
            for method, scores in cell["other_tie_policy"].items():
                numbers = ", ".join(f"{k} {v:.1f}" for k, v in scores.items())
                found.append(f"{about}, {method}: ties; tie_policy={other} gives {numbers}")
            if cell["left_out"]:
                found.append(
                    f"{about}: {cell['left_out']} templates of another gallery size left out"
                )
            if cell["target_also_in_gallery"]:
                found.append(
                    f"{about}: {cell['target_also_in_gallery']} templates hold their target twice; "
                    "they are kept"
                )
            if cell["data"].endswith("attribute"):
                found.append(f"{about}: CRL is our extension; the paper has no attribute tasks")
    return found


def save_ranks(ranks: dict[str, Ranks], file: Path) -> None:
    """An NPZ with `<method>/better` and `<method>/tied`, (B,) each, in the templates' order."""
    with atomic_path(file) as temporary, open(temporary, "wb") as stream:
        np.savez_compressed(
            stream,
            **{f"{m}/better": better for m, (better, _) in ranks.items()},
            **{f"{m}/tied": tied for m, (_, tied) in ranks.items()},
        )


def draw(cell: Cell, ranks: Ranks, found: np.ndarray, file: Path) -> None:
    """The three templates that CRL answers best, and the three that it answers worst."""
    t, (better, tied) = cell.templates, ranks
    margin = found[:, 0] - found[:, 1:].max(1)  # of the target over the best other candidate
    order = np.lexsort((-margin, better + tied))
    few = min(3, len(order) // 2) or 1
    rows = []
    for b in [*order[:few], *order[-few:]]:
        ranked = np.argsort(-found[b], kind="stable")[:3]
        title = f"{cell.data.conditions[t.condition[b]]}\ntarget is no. {better[b] + 1}"
        shown = [cell.files[t.gallery[b, g]] for g in ranked]
        right = [bool(t.gallery[b, g] == t.gallery[b, 0]) for g in ranked]
        if not any(right):  # the target after the three that were preferred to it
            shown, right = [*shown, cell.files[t.gallery[b, 0]]], [*right, True]
        rows.append((cell.files[t.reference[b]], title, shown, right))
    about = f"{cell.about['label']}, {cell.about['data'].replace('_', ' ')}"
    retrieval_sheet(rows, f"{about}: best and worst of CRL (green: the target)", file)


@command
def main(argv: list[str]) -> None:
    idle = IDLE if any(argument.startswith("features=") for argument in argv) else ()
    config = load_config(EvaluateConfig, argv, __doc__, unused=idle)
    folder = config.outputs / "similarity_retrieval" / config.name
    run = Run(folder, config.model_dump(mode="json"))
    for cell in cells(config):
        key = digest("similarity retrieval", cell.digest)
        ranks_file = folder / f"ranks-{cell.file_name}.npz"
        figure = folder / f"best-and-worst-{cell.file_name}.png"
        drawn = figure.exists() or not config.figures or cell.files is None
        done = run.finished(key)
        if done and ranks_file.exists() and drawn:
            continue
        start = time.perf_counter()
        found = scores(cell, config.weight)
        ranks = {method: target_ranks(s) for method, s in found.items()}
        save_ranks(ranks, ranks_file)
        if not drawn:
            draw(cell, ranks["crl"], found["crl"], figure)
        if not done:
            tables = {policy: measure(ranks, cell, policy) for policy in ("fair", "paper")}
            other = tables["paper" if config.tie_policy == "fair" else "fair"]
            mine = tables[config.tie_policy]
            run.add(
                key,
                **cell.about,
                scores=mine,
                ranks=ranks_file.name,
                other_tie_policy={m: other[m] for m in mine if other[m] != mine[m]},
                seconds=time.perf_counter() - start,
            )
    print(recall_table(run.cells, "Similarity retrieval, Recall@k in percent"))
    for note in notes(run.cells):
        print(f"note: {note}")
    print(f"results, ranks and figures: {folder}")


if __name__ == "__main__":
    main()
