"""Loads what the methods need for a configuration: embeddings, templates, bases T and Combiners."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from crl.run.npz import checked, read_npz
from pydantic import BaseModel, BeforeValidator, Field, ValidationError, model_validator

from crl.backends.weights import weights_digest
from crl.basis import TextBasis, basis_label
from crl.criteria import directions_of_others
from crl.embed import checked_basis, embed_basis, embed_images, embed_texts
from crl.images import Crop
from crl.run.config import Distinct, EvaluationConfig, OneOrMore, Representations
from crl.run.errors import UserError, explain, nearest
from crl.run.files import slug
from crl.run.results import array_digest, digest
from crl.vlm import VLM, find_vlm, load_vlm
from similarity_retrieval.combiner import Combiner, load_combiner
from similarity_retrieval.datasets import TASKS, GeneCIS, Task, Templates, images, load
from similarity_retrieval.method import Balance, Features, TiePolicy

PLACES = ("left", "right", "top", "lower", "mid")
ON_PLACES = [f"a photo with a {{condition}} on the {place}" for place in PLACES]  # the paper's five
ATTRIBUTE_BASES = {  # condition of focus_attribute -> the basis that describes it
    "color": "clevr4_color",
    "material": "genecis_material",
    "other": "genecis_attribute",
}


class EvaluateConfig(EvaluationConfig):
    """Keys of evaluate.py."""

    replaced_by_features = EvaluationConfig.replaced_by_features | {
        "finetuned", "finetuned_combiner", "trained", "prompts", "coco", "visual_genome"
    }  # fmt: skip

    tasks: Annotated[
        list[Task],
        BeforeValidator(lambda x: list(dict.fromkeys(x)) if isinstance(x, list) else [x]),
    ] = Field(list(TASKS[:2]), description=f"of {', '.join(TASKS)}")
    root: Path = Field(Path("data/genecis"), description="folder of the templates, <task>.json")
    coco: Path | None = Field(None, description="folder with val2017/; none: <root>/coco")
    visual_genome: Path | None = Field(
        None, description="folder with VG_100K/ and VG_100K_2/; none: <root>/visual_genome"
    )
    vlm: str = Field("clip-b16", description="the VLM, by name")
    trained: list[Path] = Field([], description="folders of train_combiner.py")
    combiner: Path | None = Field(None, description="a Combiner file of GeneCIS for that VLM")
    finetuned: str | None = Field(None, description="that VLM as GeneCIS trained it: * rows")
    finetuned_combiner: Path | None = Field(None, description="GeneCIS's Combiner of the * rows")
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
            "focus_attribute": [],  # the condition 'color' says what to compare, not what to find
            "change_attribute": ["a photo with a {condition} object"],
        },
        description="task: prompts of CRL for {condition}; their embeddings are averaged",
    )
    weight: float = Field(
        10, ge=0, allow_inf_nan=False, description="of the basis's part of CRL's score (paper: 10)"
    )
    representation: Representations = Field(
        ["paper"], min_length=1, description="paper, posterior or a list of them"
    )
    balance: Annotated[list[Balance], OneOrMore, Distinct] = Field(
        ["paper"], min_length=1, description="of CRL's two parts: paper, standard or a list of them"
    )
    tie_policy: TiePolicy = Field(
        "fair", description="fair: a tie counts as a random order; paper: the target comes first"
    )

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
class Basis:
    """The basis of some templates.

    Attributes:
        rows: (B',) templates.
        text: T, (K, D), not normalised.
        removed: (d, D), directions of other criteria that are removed from I; None: none.
    """

    rows: np.ndarray
    text: np.ndarray
    removed: np.ndarray | None = None


@dataclass(frozen=True)
class Inputs:
    """One VLM on one task: everything that the methods need.

    Attributes:
        bases: the basis of each template; together they name all templates.
        files: M images or crops, for the figure; None if the embeddings were made elsewhere.
        about: VLM, task, basis and so on, for the results file.
    """

    data: GeneCIS
    templates: Templates
    features: Features
    bases: list["Basis"]
    combiner: Combiner | None
    files: list[Path | Crop] | None
    about: dict[str, Any]

    @cached_property
    def digest(self) -> str:
        """Changes whenever an input of the scores does."""
        arrays = [self.templates.reference, self.templates.gallery, self.templates.condition]
        arrays += [self.features.image, self.features.plain, self.features.prompted]
        arrays += [x for b in self.bases for x in (b.rows, b.text, b.removed) if x is not None]
        rest = [self.about[key] for key in ("data", "vlm", "label", "variant")]
        return digest(*map(array_digest, arrays), rest)

    @property
    def file_name(self) -> str:
        return f"{slug(self.about['data'])}-{slug(self.about['vlm'])}-{self.digest[:6]}"


def load_inputs(config: EvaluateConfig) -> Iterator[Inputs]:
    """Yield each VLM on each task: first `vlm`, then `finetuned`, then the folders of `trained`.

    Raises:
        UserError: wrong or missing templates, images, bases, trainings or VLM names (checked before
            the first VLM is loaded); weights or Combiners that do not fit (checked before anything
            is encoded).
    """
    data = load(config.tasks, config.root)
    if config.features:
        yield from _from_features(config, data)
        return
    bases = {task: _bases(config, data, task) for task in config.tasks}
    others = [TextBasis.load(name) for name in config.null_space]
    models = _models(config)
    for model in models:
        find_vlm(model.vlm, model.from_file)
    coco = config.coco or config.root / "coco"
    files = images(data, coco, config.visual_genome or config.root / "visual_genome")
    loaded = [(model.label, *_loaded(model, config)) for model in models]
    if "posterior" in config.representation and "paper" in config.balance:
        warnings.warn(
            "balance=paper was made for the paper's R, whose similarities differ little; with the "
            "posterior the scene may drown the condition; balance=standard suits both",
            stacklevel=2,
        )
    for label, vlm, combiner in loaded:
        texts = {
            task: [
                Basis(
                    rows,
                    embed_basis(vlm, basis, config.cache),  # T, (K, D)
                    directions_of_others(vlm, basis, others, config.rank, config.cache),
                )
                for rows, _, basis in bases[task]
            ]
            for task in config.tasks
        }
        embedded = embed_images(
            vlm,
            files,
            config.cache,
            config.embed_batch,
            config.workers,
            single=True,
            embeddings=config.embeddings,
        )
        image = np.asarray(embedded.image)  # (M, D), each distinct image once
        plain = embed_texts(vlm, data.conditions, config.cache)  # (C, D)
        for task in config.tasks:
            features = Features(image, plain, _prompted(vlm, data, task, config))
            wanted = [data.conditions[c] for c in np.unique(data.tasks[task].condition)]
            about = {
                "criterion": " ".join(dict.fromkeys(b.criterion for _, _, b in bases[task])),
                "vlm": vlm.name,
                "label": label,
                "basis": " + ".join(basis_label(name) for _, name, _ in bases[task]),
                "texts": sum(len(basis.texts) for _, _, basis in bases[task]),
                "names": " + ".join(f"{b.names(wanted)}/{len(wanted)}" for _, _, b in bases[task]),
                "basis_hash": digest(*(basis.hash for _, _, basis in bases[task])),
                "prompts": config.prompts[task],
                "vlm_fingerprint": vlm.fingerprint,
                "precision": config.precision,
                "device": str(vlm.device),
            }
            yield _inputs(config, data, task, features, texts[task], combiner, files, about)


def _inputs(config, data, task, features, texts, combiner, files, about) -> Inputs:
    """The `Inputs`; adds to `about` what comes from the templates and the settings."""
    templates = data.tasks[task]
    combiner_hash = weights_digest(combiner) if combiner else None
    # Distinguishes this row of the table from other rows of the same VLM, over all tasks
    fingerprint = (about["vlm_fingerprint"], combiner_hash, config.weight, config.texts)
    keys = "bases prompts tie_policy null_space rank representation sharpness balance".split()
    settings = [getattr(config, key) for key in keys]
    about = {
        **about,
        "data": task,
        "combiner_hash": combiner_hash,
        "variant": digest(fingerprint, *settings)[:4],
        "templates": len(templates.reference),
        "candidates": templates.gallery.shape[1],
        "left_out": templates.left_out,
        "target_also_in_gallery": templates.repeated,
        "images": len(np.unique(np.append(templates.gallery.ravel(), templates.reference))),
        "conditions": len(np.unique(templates.condition)),
        "weight": config.weight,
        "null_space": config.null_space,
        "rank": config.rank,
        "tie_policy": config.tie_policy,
    }
    return Inputs(data, templates, features, texts, combiner, files, about)


# --- texts ----------------------------------------------------------------------------------------


def _bases(
    config: EvaluateConfig, data: GeneCIS, task: str
) -> list[tuple[np.ndarray, str, TextBasis]]:
    """Triples for a task: templates (B',), the name of their basis, the basis."""
    names, condition = config.bases[task], data.tasks[task].condition
    if isinstance(names, str):
        return [(np.arange(len(condition)), names, TextBasis.load(names, config.texts))]
    unknown = sorted({data.conditions[c] for c in condition} - names.keys())
    if unknown and "other" not in names:
        raise UserError(f"bases of {task} name no basis for {unknown[0]!r}, nor one for `other`")
    chosen = np.array([names.get(data.conditions[c], names.get("other")) for c in condition])
    return [
        (np.flatnonzero(chosen == name), str(name), TextBasis.load(str(name), config.texts))
        for name in np.unique(chosen)
    ]


def _prompted(vlm: VLM, data: GeneCIS, task: str, config: EvaluateConfig) -> np.ndarray:
    """(C, P, D): the task's P prompts with each condition; zeros for conditions of other tasks."""
    used, prompts = np.unique(data.tasks[task].condition), config.prompts[task]
    prompted = np.zeros((len(data.conditions), len(prompts), vlm.dim), np.float32)
    if prompts:
        texts = [p.replace("{condition}", data.conditions[c]) for c in used for p in prompts]
        embedded = embed_texts(vlm, texts, config.cache)
        prompted[used] = embedded.reshape(len(used), len(prompts), vlm.dim)
    return prompted


# --- VLMs and Combiners ---------------------------------------------------------------------------


@dataclass(frozen=True)
class _Model:
    """A VLM by its name, its label in tables, and its Combiner.

    Attributes:
        training: the results.json of train_combiner.py that the Combiner comes from.
        from_file: its name comes from there, and the person did not give it too.
    """

    vlm: str
    label: str
    combiner: Path | None
    training: dict[str, Any] | None = None
    from_file: bool = False


def _models(config: EvaluateConfig) -> list[_Model]:
    plain = _Model(config.vlm, config.vlm, _published(config.combiner))
    others = []
    if config.finetuned:
        combiner = _published(config.finetuned_combiner)
        others.append(_Model(config.finetuned, config.vlm + "*", combiner))
    for folder in config.trained:
        training, combiner = _read_training(folder), folder / "combiner.safetensors"
        if training["vlm_trained"]:
            others.append(_Model(str(folder / "vlm"), training["vlm"] + "*", combiner, training))
            continue
        name = training["vlm"]
        model = _Model(name, name, combiner, training, from_file=name != config.vlm)
        if model.vlm == plain.vlm and plain.combiner is None:
            plain = model
        else:
            others.append(model)
    return [plain, *others]


def _published(combiner: Path | None) -> Path | None:
    """The file `combiner`; refused if it comes from train_combiner.py."""
    if combiner and (combiner.parent / "results.json").exists():
        raise UserError(
            f"{combiner} belongs to a training; give its folder: trained=[{combiner.parent}]"
        )
    return combiner


class _Training(BaseModel):
    """What is needed of the results.json of train_combiner.py."""

    vlm: str
    vlm_trained: bool
    vlm_fingerprint: str
    precision: Literal["fp32", "bf16", "fp16"]


def _read_training(folder: Path) -> dict[str, Any]:
    """The results.json in a folder of train_combiner.py."""
    file = folder / "results.json"
    try:
        return _Training.model_validate_json(file.read_bytes()).model_dump()
    except OSError as error:
        raise UserError(
            f"{folder} holds no training of train_combiner.py ({file.name}: {error.strerror})"
        ) from error
    except ValidationError as error:
        raise UserError(f"{file} is not of train_combiner.py: {explain(error)}") from error


def _loaded(model: _Model, config: EvaluateConfig) -> tuple[VLM, Combiner | None]:
    vlm = load_vlm(model.vlm, config.device, config.precision, model.from_file)
    if model.training:
        _check_fingerprint(model, vlm, config)
    return vlm, load_combiner(model.combiner, vlm.dim) if model.combiner else None


def _check_fingerprint(model: _Model, vlm: VLM, config: EvaluateConfig) -> None:
    """Check that a Combiner's VLM is the one of its training; the precision may differ."""
    then = model.training["precision"]  # the fingerprint depends on it
    if then != config.precision:
        vlm = load_vlm(model.vlm, config.device, then, model.from_file)
    if vlm.fingerprint != model.training["vlm_fingerprint"]:
        raise UserError(
            f"{model.combiner.parent} was trained with another VLM than {model.vlm!r} is now (its "
            "weights, preprocessing or tokenizer have changed); run that training again"
        )


# --- embeddings made elsewhere --------------------------------------------------------------------


def _from_features(config: EvaluateConfig, data: GeneCIS) -> Iterator[Inputs]:
    file = config.features
    arrays = checked(
        file,
        read_npz(file),
        ids="M",
        image="M D",
        scene_text="K D",
        conditions="C",
        caption_plain="C D",
        captions5="C P D",
    )
    image = arrays["image"][_rows(file, "images", data.ids, arrays["ids"])]
    chosen = _rows(file, "conditions", data.conditions, arrays["conditions"])
    features = Features(image, arrays["caption_plain"][chosen], arrays["captions5"][chosen])
    text = checked_basis(f"{file}: scene_text", arrays["scene_text"])
    combiner = None
    if config.combiner:
        combiner = load_combiner(_published(config.combiner), text.shape[1])
    about = {
        "criterion": "scene",
        "vlm": "features",
        "label": file.name,
        "basis": "scene_text",
        "texts": len(text),
        "basis_hash": array_digest(text),
        "vlm_fingerprint": array_digest(image),
    }
    for task in config.tasks:
        everything = [Basis(np.arange(len(data.tasks[task].reference)), text)]
        yield _inputs(config, data, task, features, everything, combiner, None, about)


def _rows(file: Path, what: str, wanted: list[str], given: np.ndarray) -> np.ndarray:
    """The row of each wanted name in the file."""
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
