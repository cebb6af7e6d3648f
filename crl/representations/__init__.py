"""Representations beyond the paper, one file each, identified by the name of the file.

A file `<name>.py` here defines `class Representation`, a scikit-learn transformer:

    Representation(text_embeddings, option=default, ...)    T (K, D), and options by name
    .fit(I)    .transform(I), .fit_transform(I) -> (N, F), unit rows

Then `representation=<name>` works in every task; nothing else has to be edited.
"""

import inspect
import pkgutil
from importlib import import_module
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator

from crl.run.config import Distinct, EvaluationConfig, OneOrMore
from crl.run.errors import nearest

STEPS = ("null_space", "weighted")  # files here that change or combine representations


def names() -> list[str]:
    """The representations that a criterion's texts make: `paper`, and the files of this folder."""
    files = [module.name for module in pkgutil.iter_modules(__path__)]
    return ["paper", *(name for name in files if name not in STEPS)]


def fit_representation(name: str, image: np.ndarray, text: np.ndarray, **options: Any):
    """The transformer of `make_representation`, fitted on the images I (N, D) or (N, Q, D)."""
    return make_representation(name, text, **options).fit(image)


def make_representation(name: str, text: np.ndarray, **options: Any):
    """The transformer `name` under the texts T (K, D). Of the `options`, e.g. sharpness, those that
    it does not name are ignored."""
    from crl.projection import ConditionalProjection  # scikit-learn takes a second to import

    kind: Any = ConditionalProjection
    if name != "paper":
        module = import_module(f"crl.representations.{_known(name)}")
        if not hasattr(module, "Representation"):
            raise ImportError(f"{module.__file__} defines no class Representation")
        kind = module.Representation
    accepted = inspect.signature(kind).parameters
    options = {key: value for key, value in options.items() if key in accepted}
    return kind(text, **options)


def represent(name: str, image: np.ndarray, text: np.ndarray, **options: Any) -> np.ndarray:
    """Images I (N, D) or (N, Q, D), unit rows, in a representation under the texts T (K, D), unit
    rows: (N, F), unit rows. `name` is `universal` (I itself), `paper` (R = I Tᵀ), a file of this
    folder, or several of these side by side, `paper+posterior`. A ValueError for other names."""
    from crl.projection import l2, single_vector

    if name == "universal":
        return single_vector(image)
    parts = name.split("+")
    rows = [make_representation(part, text, **options).fit_transform(image) for part in parts]
    return rows[0] if len(rows) == 1 else l2(np.concatenate(rows, axis=1))


def label(config: EvaluationConfig, name: str) -> str:
    """A representation as tables show it: `posterior (1.4)`, `paper, null space of 2`."""
    sharpness = f" ({config.sharpness:g})" if "posterior" in name and config.sharpness != 1 else ""
    others = f", null space of {len(config.null_space)}" if config.null_space else ""
    return name + sharpness + others


def _known(name: str) -> str:
    for part in name.split("+"):
        if part not in names():
            raise ValueError(f"unknown representation {part!r}; {nearest(part, names())}")
    return name


# The configuration's key `representation`: one or more names.
Representations = Annotated[list[Annotated[str, AfterValidator(_known)]], OneOrMore, Distinct]
