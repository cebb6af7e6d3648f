"""Representations beyond the paper, one file each, identified by the name of the file.

A file `<name>.py` here defines `class Representation`, a scikit-learn transformer:

    Representation(text_embeddings, option=default, ...)    T (K, D), and options by name
    .fit(I, y)    .transform(I), .fit_transform(I, y) -> (N, F), unit rows
    .supervision    what it uses beside T and I: "none", "other criteria", "class names", "labels"

Labels y (N,) are class numbers, -1 where one is not known. What else it needs, it names as options:
others (T of other criteria), class_text (C, D). A linear one has `weights_` (F, D).
Then `representation=<name>` works in every task; nothing else has to be edited.
"""

import inspect
import pkgutil
from importlib import import_module
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, ValidationInfo

from crl.run.config import Distinct, EvaluationConfig, OneOrMore
from crl.run.errors import UserError, nearest

NONE = ("axes", "null_space", "weighted")  # files here that are no representations


def names() -> list[str]:
    """The representations that a criterion's texts make: `paper`, and the files of this folder."""
    files = [module.name for module in pkgutil.iter_modules(__path__)]
    return ["paper", *(name for name in files if name not in NONE)]


def kind_of(name: str) -> Any:
    """The class of one representation. A ValueError for an unknown name, a UserError for a file
    that lacks what is needed."""
    if name == "paper":
        from crl.projection import ConditionalProjection  # scikit-learn takes a second to import

        return ConditionalProjection
    if name not in names():
        raise ValueError(f"unknown representation {name!r}; {nearest(name, names())}")
    module = import_module(f"crl.representations.{name}")
    if not hasattr(module, "Representation"):
        raise UserError(f"{module.__file__} defines no class Representation")
    for member in ("fit", "transform", "fit_transform", "supervision"):
        if not hasattr(module.Representation, member):
            raise UserError(f"{module.__file__}: its class Representation has no {member!r}")
    return module.Representation


def supervisions(name: str) -> set[str]:
    """What the parts of a name, e.g. `paper+lda`, use beside T and I, see above."""
    return {kind_of(part).supervision for part in name.split("+")} - {"none"}


def make_representation(name: str, text: np.ndarray, **options: Any):
    """The transformer `name` under the texts T (K, D), to be fitted. Of the `options`, e.g.
    sharpness, those that it does not name are ignored."""
    kind = kind_of(name)
    accepted = inspect.signature(kind).parameters
    options = {key: value for key, value in options.items() if key in accepted}
    return kind(text, **options)


def represent(
    name: str, image: np.ndarray, text: np.ndarray, y: np.ndarray | None = None, **options: Any
) -> np.ndarray:
    """Images I (N, D) or (N, Q, D), unit rows, in a representation under the texts T (K, D), unit
    rows: (N, F), unit rows. `name` is `universal` (I itself), `paper` (R = I Tᵀ), a file of this
    folder, or several of these side by side, `paper+posterior`. `y` (N,) are labels for those that
    learn from them, -1 where one is not known. A ValueError for other names."""
    from crl.projection import l2, single_vector

    if name == "universal":
        return single_vector(image)
    parts = name.split("+")
    rows = [make_representation(part, text, **options).fit_transform(image, y) for part in parts]
    return rows[0] if len(rows) == 1 else l2(np.concatenate(rows, axis=1))


def label(config: EvaluationConfig, name: str) -> str:
    """A representation as tables show it: `posterior (1.4)`, `paper, null space of 2`, `lda
    (labels)`: it has learned from labels, in clustering from those of all images: a ceiling."""
    sharpness = f" ({config.sharpness:g})" if "posterior" in name and config.sharpness != 1 else ""
    others = f", null space of {len(config.null_space)}" if config.null_space else ""
    learns = any(kind_of(part).supervision == "labels" for part in name.split("+"))
    return name + sharpness + (" (labels)" if learns else "") + others


def _known(name: str) -> str:
    supervisions(name)  # a ValueError, if one of its parts is unknown
    return name


def _possible(names: list[str], info: ValidationInfo) -> list[str]:
    for name in names:
        needed = supervisions(name)
        if "other criteria" in needed and not (info.data or {}).get("null_space"):
            raise ValueError(f"{name} needs other criteria: null_space=[basis, ...]")
    return names


def _without_labels(names: list[str]) -> list[str]:
    for name in names:
        if "labels" in supervisions(name):
            raise ValueError(f"{name} learns from labels, and this task has none to learn from")
    return names


# The configuration's key `representation`: one or more names.
Representations = Annotated[
    list[Annotated[str, AfterValidator(_known)]], OneOrMore, Distinct, AfterValidator(_possible)
]
WithoutLabels = Annotated[Representations, AfterValidator(_without_labels)]
