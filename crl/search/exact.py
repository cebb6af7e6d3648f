"""Exact search: the k rows of I that are most similar under one criterion or several."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from crl.projection import ConditionalProjection, l2, weighted_similarity
from crl.run.errors import UserError

ROWS_AT_ONCE = 2**12  # as float32 they fit into the processor's cache: twice as fast as 2**15
SAMPLE = 2**16  # rows that sigma is learned from
KEPT = 0.8  # of the squared singular values of T: the columns that the first pass computes


@dataclass(frozen=True, eq=False)
class Criterion:
    """What a search compares by.

    Attributes:
        projection: fitted, with normalise `l2` (the paper's) or `posterior`. For an index, fit it
            on `sample(index.image)`.
        query: (Q, K) unit rows, `projection.transform` of the queries' embeddings.
        weight: beside other criteria; a negative one means "unlike".
    """

    projection: ConditionalProjection
    query: np.ndarray
    weight: float = 1.0


class Found(NamedTuple):
    """The best rows of each query, the best first: (Q, k) row numbers, (Q, k) float32 scores."""

    rows: np.ndarray
    score: np.ndarray


def sample(image: np.ndarray, count: int = SAMPLE) -> np.ndarray:
    """Evenly spaced rows of I, at most `count`, float32: (min(N, count), D).

    `ConditionalProjection(text, normalise="posterior").fit(sample(image))` learns sigma from all
    rows of up to 65,536, and from 65,536 evenly spaced ones of more.
    """
    rows = np.linspace(0, len(image) - 1, min(len(image), count)).round().astype(int)
    return np.asarray(image[rows], np.float32)


def search(
    image: np.ndarray,
    criteria: Sequence[Criterion],
    k: int,
    rows: np.ndarray | None = None,
    device: str | torch.device = "cpu",
) -> Found:
    """The k rows of I that are most similar to each query, exactly.

    The scores are those of `crl.projection.weighted_similarity`, computed in float64 and rounded to
    float32; equal scores are ordered by row number. torch first computes bounds of all scores in
    float32; only rows whose upper bound reaches the k-th best score are computed exactly. So
    neither the device nor the number of threads changes the result.

    Args:
        image: I, (N, D), rows of any length; or (N, Q, D), of which all is computed exactly.
        rows: search only these: (N,) booleans, or row numbers. Others are not read.
        device: where the bounds are computed.

    Raises:
        UserError: no image; fewer rows than k; row numbers, texts or queries that do not fit; all
            weights 0 or one not finite.
    """
    places = _places(rows, len(image))
    check(image, criteria, k, len(image) if places is None else len(places))
    bounds = [_bounds(c, torch.device(device)) for c in criteria if image.ndim == 2]
    passes = [[b[0] for b in bounds], [b[-1] for b in bounds]][: max(map(len, bounds), default=0)]
    weights = [c.weight / sum(abs(c.weight) for c in criteria) for c in criteria]
    best = [Found(np.zeros(0, int), np.zeros(0, np.float32)) for _ in criteria[0].query]
    for here, part in _parts(image, places):
        x = _tensor(part, device)
        for each in passes:
            low, high = _weighted([bound(x) for bound in each], weights)
            kept = _may_be_best(low, high, k, best)
            x, here = x[kept], here[kept.cpu().numpy()]
        if len(here):
            score = scores(image[here], criteria)
            best = [merged(b, Found(here, s), k) for b, s in zip(best, score, strict=True)]
    return Found(np.stack([b.rows for b in best]), np.stack([b.score for b in best]))


def _places(rows: np.ndarray | None, count: int) -> np.ndarray | None:
    """Row numbers in ascending order, each once; None: all."""
    if rows is None:
        return None
    rows = np.asarray(rows)
    if rows.dtype == bool:
        if rows.shape != (count,):
            raise UserError(f"a mask of rows must have {count} booleans, not {rows.shape}")
        return np.flatnonzero(rows)
    if rows.ndim != 1 or (len(rows) and not (rows.dtype.kind in "iu" and rows.min() >= 0)):
        raise UserError("rows must be row numbers, 0 or above, or a mask")
    if len(rows) and rows.max() >= count:
        raise UserError(f"there is no row {rows.max()}; there are {count}")
    return np.unique(rows).astype(int)


def check(image: np.ndarray, criteria: Sequence[Criterion], k: int, rows: int) -> None:
    if image.ndim not in (2, 3) or not len(image):
        raise UserError(f"a search needs embeddings (N, D) of one image or more, not {image.shape}")
    if not 1 <= k <= rows:
        raise UserError(f"k must be 1 to {rows}, the number of rows, not {k}")
    for c in criteria:
        check_projection(image, c.projection)
        if np.shape(c.query) != (len(criteria[0].query), len(c.projection.text_)):
            raise UserError(
                f"a query must be (Q, {len(c.projection.text_)}), a row of the representation, "
                f"not {np.shape(c.query)}"
            )
    total = sum(abs(c.weight) for c in criteria)
    if not 0 < total < np.inf:
        raise UserError("weights must be finite, and one of them not 0")


def check_projection(image: np.ndarray, projection: ConditionalProjection) -> None:
    if projection.normalise not in ("l2", "posterior") or projection.removed is not None:
        raise UserError("a search needs normalise 'l2' or 'posterior', and no null space")
    if projection.text_.shape[1] != image.shape[-1]:
        raise UserError(
            f"the images have width {image.shape[-1]} and the texts {projection.text_.shape[1]}; "
            "both must be of one VLM"
        )


def _parts(
    image: np.ndarray, places: np.ndarray | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(row numbers, their rows) of `ROWS_AT_ONCE` rows each; a slice where all are wanted."""
    for start in range(0, len(image) if places is None else len(places), ROWS_AT_ONCE):
        if places is None:
            part = image[start : start + ROWS_AT_ONCE]
            yield np.arange(start, start + len(part)), part
        else:
            here = places[start : start + ROWS_AT_ONCE]
            yield here, image[here]


def _tensor(part: np.ndarray, device: str | torch.device) -> torch.Tensor:
    part = np.ascontiguousarray(part)
    return torch.from_numpy(part if part.flags.writeable else part.copy()).to(device).float()


# Unit rows of I (C, D) -> the least and the greatest score that each can have, (C, Q) each.
Bounds = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def _bounds(criterion: Criterion, device: torch.device) -> list[Bounds]:
    """Bounds for a first pass over all rows and, if these are loose, for a second over what is
    left."""
    projection, query = criterion.projection, np.asarray(criterion.query, np.float64)
    # more than float32 can change in a dot product of unit rows, and in what follows
    rounding = (projection.text_.shape[1] + 16) * float(np.finfo(np.float32).eps)
    tensor = partial(torch.tensor, dtype=torch.float32, device=device)
    if projection.normalise == "posterior":
        factor = min(projection.sharpness / (2 * projection.sigma_), 1e30)  # finite in float32
        text = tensor(projection.text_.T)
        return [partial(_posterior_bounds, text, tensor(query.T), factor, rounding)]
    u, s, directions = factors(projection)
    share = np.cumsum(s**2) / np.sum(s**2)
    few = int(np.searchsorted(share, KEPT)) + 1
    both = [few, len(s)] if 4 * few <= len(s) else [len(s)]
    found: list[Bounds] = []
    for columns in both:
        wanted = query @ u  # (Q, columns of L): R_x · query = (Lᵀ x) · wanted
        rest = np.linalg.norm(wanted[:, columns:], axis=1, keepdims=True)
        towards = wanted[:, columns:] / rest.clip(1e-30)  # one more column for each query
        head = directions[:columns].T * s[:columns]
        tail = (directions[columns:].T * s[columns:]) @ towards.T
        found.append(
            partial(
                _cosine_bounds,
                tensor(np.concatenate([head, tail], axis=1)),  # (D, columns + Q)
                tensor(wanted[:, :columns].T),
                tensor(rest[:, 0]),
                float(s[columns]) if columns < len(s) else 0.0,
                rounding * float(np.linalg.norm(s)),
            )
        )
    return found


def factors(projection: ConditionalProjection) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """U (K, m), s (m,), V (m, D) of T = U diag(s) V, m = min(K, D), the largest s first, float64.

    With L = Vᵀ diag(s), the rows R_x = U Lᵀ x have the dot products and lengths of Lᵀ x, (m,).
    """
    return np.linalg.svd(projection.text_.astype(np.float64), full_matrices=False)


def _cosine_bounds(
    columns: torch.Tensor,
    wanted: torch.Tensor,
    rest: torch.Tensor,
    next_s: float,
    error: float,
    x: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Bounds of the cosine a·w / |a| with a = Lᵀ x, from a few coordinates of a.

    The coordinates are the first ones of a, and a's part along what the query wants of the others.
    They give a·w exactly; their length is the least that |a| can be, and what is missing in it is
    at most `next_s`, the next singular value. A negative a·w is nearer to 0 the longer a is.
    """
    count = len(wanted)
    coordinates = _unit_product(x, columns)
    head, tail = coordinates[:, :count], coordinates[:, count:]
    product = head @ wanted + tail * rest
    square = (head**2).sum(dim=1, keepdim=True) + tail**2
    shortest = (square.sqrt() - error).clamp_min(1e-30)
    longest = (square + next_s**2).sqrt() + error
    size = (wanted.square().sum(dim=0) + rest**2).sqrt()  # |w|, the greatest score
    least, most = product - error * size, product + error * size
    low = least / torch.where(least > 0, longest, shortest)
    high = most / torch.where(most > 0, shortest, longest)
    limit = size * (1 + 1e-5)
    return torch.maximum(low, -limit), torch.minimum(high, limit)


def _posterior_bounds(
    text: torch.Tensor, query: torch.Tensor, factor: float, rounding: float, x: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """R' · query, give or take what float32 may have changed.

    An error e of R changes each entry of exp(factor R) by a factor of at most exp(2 factor e), and
    a row of R' by at most twice that.
    """
    r = _unit_product(x, text)
    r_new = torch.exp((r - r.amax(dim=1, keepdim=True)) * factor)
    score = (r_new @ query) / torch.linalg.vector_norm(r_new, dim=1, keepdim=True)
    error = math.expm1(min(4 * factor * rounding, 1.1)) + rounding  # no two differ by more than 2
    error *= float(torch.linalg.vector_norm(query, dim=0).max())
    return score - error, score + error


def _unit_product(x: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """l2(x) @ columns."""
    return (x @ columns) / torch.linalg.vector_norm(x, dim=1, keepdim=True).clamp_min(1e-30)


def _weighted(
    bounds: list[tuple[torch.Tensor, torch.Tensor]], weights: list[float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Bounds of the weighted sum: a negative weight makes the greatest score the least."""
    low = sum(w * (b[0] if w > 0 else b[1]) for b, w in zip(bounds, weights, strict=True))
    high = sum(w * (b[1] if w > 0 else b[0]) for b, w in zip(bounds, weights, strict=True))
    return low, high


def _may_be_best(low: torch.Tensor, high: torch.Tensor, k: int, best: list[Found]) -> torch.Tensor:
    """(C,) booleans: can the row be among the k best of any query?

    It cannot if k rows are better: rows computed before, or rows of this part by their lower bound.
    """
    reached = [float(b.score[-1]) if len(b.score) == k else -np.inf for b in best]
    threshold = torch.tensor(reached, dtype=low.dtype, device=low.device)
    if len(low) >= k:
        threshold = torch.maximum(threshold, low.T.topk(k).values[:, -1])
    return (high >= threshold).any(dim=1)


def scores(rows: np.ndarray, criteria: Sequence[Criterion]) -> np.ndarray:
    """(Q, C) float32 scores of rows (C, D). Rounded from float64: equal rows, equal scores."""
    x = np.asarray(rows, np.float64)
    names = [str(number) for number in range(len(criteria))]
    score = weighted_similarity(
        {n: np.asarray(c.query, float) for n, c in zip(names, criteria, strict=True)},
        {n: c.projection.transform(x) for n, c in zip(names, criteria, strict=True)},
        {n: c.weight for n, c in zip(names, criteria, strict=True)},
    )
    return score.astype(np.float32)


def merged(one: Found, other: Found, k: int) -> Found:
    rows, score = (np.concatenate(pair) for pair in zip(one, other, strict=True))
    order = np.lexsort((rows, -score))[:k]
    return Found(rows[order], score[order])


def points(image: np.ndarray, projection: ConditionalProjection) -> Iterator[np.ndarray]:
    """The representation of I by parts of `ROWS_AT_ONCE` rows: (n, min(K, D)) or (n, K), float32.

    Unit rows. For the paper's representation with K > D these are not R, but min(K, D) coordinates
    with the same dot products, see `factors`.
    """
    check_projection(image, projection)
    if image.ndim != 2:
        raise UserError(f"this needs one vector per image, (N, D), not {image.shape}")
    if projection.normalise == "l2" and len(projection.text_) > image.shape[1]:
        _, s, directions = factors(projection)
        columns = (directions.T * s).astype(np.float32)
        for _, part in _parts(image):
            yield l2(np.asarray(part, np.float32) @ columns)
    else:
        for _, part in _parts(image):
            yield projection.transform(np.asarray(part, np.float32))
