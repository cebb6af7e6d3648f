"""Search under a criterion among millions of images, without embedding again.

    build_index, Index      I (N, D) on disk: one index serves every criterion
    search                  the k most similar rows, exactly
    build_faiss, Faiss      nearly the same rows, faster, for one criterion (optional: FAISS)
    stream_clusters         k-means

R = I Tᵀ, so a similarity under a criterion follows from I and T; R is never stored. All functions
take any array or memory map I, and read it by parts: memory does not grow with N.
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from pyarrow import parquet
from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError
from sklearn.cluster import KMeans, MiniBatchKMeans

from crl.projection import ConditionalProjection, l2, weighted_similarity
from crl.run.errors import UserError, explain
from crl.run.files import alone_in, atomic_path, write_text

ROWS_AT_ONCE = 2**12  # as float32 they fit into the processor's cache: twice as fast as 2**15
SAMPLE = 2**16  # rows that sigma is learned from
KEPT = 0.8  # of the squared singular values of T: the columns that the first pass computes
RECALL_QUERIES, RECALL_AT = 100, 10
BATCH = 2**14  # rows of k-means
PROBES = 32  # lists of FAISS that a query reads

# ---- the index ----------------------------------------------------------------------------------


class Manifest(BaseModel):
    """index.json."""

    model_config = ConfigDict(extra="forbid")
    format: Literal["crl-index-1"] = "crl-index-1"
    fingerprint: str  # of the VLM
    rows: PositiveInt  # N
    width: PositiveInt  # D
    dtype: Literal["float16", "float32"]
    checksum: str  # of the rows, see `Index.check`
    names: str  # checksum of names.parquet

    @property
    def rows_file(self) -> str:
        return f"rows.f{np.dtype(self.dtype).itemsize * 8}"


@dataclass(frozen=True, eq=False)
class Index:
    """I on disk: a folder with rows.f16, names.parquet and index.json.

    Attributes:
        folder: where it is.
        image: I, (N, D) float16 or float32, unit rows (up to rounding), a memory map.
        manifest: what index.json holds.
    """

    folder: Path
    image: np.ndarray = field(repr=False)
    manifest: Manifest

    @classmethod
    def open(cls, folder: Path | str, fingerprint: str | None = None) -> "Index":
        """Open an index; the rows are not read yet.

        Args:
            fingerprint: of the VLM that the index must be of; None: any.

        Raises:
            UserError: no complete index, a damaged one, or one of another VLM.
        """
        folder = Path(folder)
        try:
            manifest = Manifest.model_validate_json((folder / "index.json").read_bytes())
            size = (folder / manifest.rows_file).stat().st_size
            names = _file_digest(folder / "names.parquet")
        except FileNotFoundError:
            raise UserError(f"there is no complete index in {folder}; build it") from None
        except ValidationError as error:
            raise _damaged(folder, f"index.json: {explain(error)}") from None
        if fingerprint not in (None, manifest.fingerprint):
            raise UserError(f"the index {folder} is of another VLM; build one of this VLM")
        shape, dtype = (manifest.rows, manifest.width), np.dtype(manifest.dtype)
        if size != (expected := math.prod(shape) * dtype.itemsize):
            raise _damaged(folder, f"{manifest.rows_file} has {size} bytes, not {expected}")
        if names != manifest.names:
            raise _damaged(folder, "names.parquet has another checksum")
        # "c": nothing is ever written to the file; torch warns of arrays that are read-only
        image = np.memmap(folder / manifest.rows_file, dtype, "c", shape=shape)
        return cls(folder, image, manifest)

    def __len__(self) -> int:
        return len(self.image)

    def names(self, rows: Iterable[int]) -> list[str]:
        """The file names of some rows; only the parts of the file that hold them are read."""
        rows, found = np.fromiter(rows, int), {}
        with parquet.ParquetFile(self.folder / "names.parquet") as file:
            for group in np.unique(rows // SAMPLE):
                names = file.read_row_group(int(group))["name"]
                mine = rows[rows // SAMPLE == group]
                found |= {row: names[row % SAMPLE].as_py() for row in mine.tolist()}
        return [found[row] for row in rows.tolist()]

    def check(self) -> None:
        """Read all rows (a second or two per gigabyte) and compare their checksum.

        Raises:
            UserError: they have changed since they were written.
        """
        hasher = hashlib.blake2b(digest_size=16)
        for start in range(0, len(self), ROWS_AT_ONCE):
            hasher.update(self.image[start : start + ROWS_AT_ONCE])
        if hasher.hexdigest() != self.manifest.checksum:
            raise _damaged(self.folder, f"{self.manifest.rows_file} has another checksum")


def _damaged(folder: Path, why: str) -> UserError:
    return UserError(f"the index {folder} is damaged ({' '.join(why.split())}); build it again")


def build_index(
    folder: Path | str,
    parts: Iterable[tuple[Sequence[str], np.ndarray]],
    fingerprint: str,
    dtype: Literal["float16", "float32"] = "float16",
) -> Index:
    """Write an index part by part. An older index in `folder` stays until the new one is complete.

    Args:
        parts: (file names, image embeddings (n, D) of any length), e.g. 1,000 at once.
        fingerprint: of the VLM that made the embeddings.
        dtype: of the stored rows; float16 changes a cosine by less than 0.001.

    Raises:
        UserError: no images; parts that do not fit each other; (n, Q, D) embeddings (BLIP-2);
            embeddings that are not finite or zero; a name that is not Unicode; or another command
            is at work in `folder`.
    """
    folder, count, width, names = Path(folder), 0, 0, []
    hasher = hashlib.blake2b(digest_size=16)
    schema = pa.schema([("name", pa.string())])
    rows_file = f"rows.f{np.dtype(dtype).itemsize * 8}"
    with alone_in(folder):
        with ExitStack() as stack:
            rows = stack.enter_context(atomic_path(folder / rows_file)).open("wb")
            table = stack.enter_context(atomic_path(folder / "names.parquet"))
            stack.enter_context(rows)
            writer = stack.enter_context(parquet.ParquetWriter(table, schema))
            for part, image in parts:
                x = _checked(part, np.asarray(image), width).astype(dtype)
                rows.write(np.ascontiguousarray(x))
                hasher.update(np.ascontiguousarray(x))
                count, width = count + len(x), x.shape[1]
                names += part
                while len(names) >= SAMPLE:
                    _write_names(writer, names[:SAMPLE])
                    names = names[SAMPLE:]
            if not count:
                raise UserError("an index needs one image or more")
            _write_names(writer, names)
            writer.close()
            names_checksum = _file_digest(table)
            for old in (
                "index.json",
                "rows.f16",
                "rows.f32",
            ):  # never new rows with an old manifest
                (folder / old).unlink(missing_ok=True)
        manifest = Manifest(
            fingerprint=fingerprint,
            rows=count,
            width=width,
            dtype=dtype,
            checksum=hasher.hexdigest(),
            names=names_checksum,
        )
        write_text(folder / "index.json", manifest.model_dump_json(indent=2))
    return Index.open(folder)


def _checked(names: Sequence[str], image: np.ndarray, width: int) -> np.ndarray:
    """Unit rows of a part, float32; see `build_index` for what is refused."""
    if image.ndim == 3:
        raise UserError(
            "an index holds one vector per image, and this VLM gives several; choose another VLM"
        )
    if image.ndim != 2 or len(image) != len(names) or image.shape[1] != (width or image.shape[1]):
        raise UserError(
            f"{len(names)} names and embeddings {image.shape} do not fit an index of width "
            f"{width or 'D'}"
        )
    image = image.astype(np.float32)
    if not (np.isfinite(image).all() and image.any(axis=1).all()):
        raise UserError("an embedding is not finite, or all zeros; check the VLM")
    return l2(image)


def _write_names(writer: parquet.ParquetWriter, names: list[str]) -> None:
    try:
        writer.write_table(pa.table({"name": pa.array(names, pa.string())}))
    except UnicodeEncodeError as error:
        raise UserError(f"the file name {error.object!r} is not valid Unicode; rename it") from None


# ---- exact search -------------------------------------------------------------------------------


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
    _check(image, criteria, k, len(image) if places is None else len(places))
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
            score = _scores(image[here], criteria)
            best = [_merged(b, Found(here, s), k) for b, s in zip(best, score, strict=True)]
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


def _check(image: np.ndarray, criteria: Sequence[Criterion], k: int, rows: int) -> None:
    if image.ndim not in (2, 3) or not len(image):
        raise UserError(f"a search needs embeddings (N, D) of one image or more, not {image.shape}")
    if not 1 <= k <= rows:
        raise UserError(f"k must be 1 to {rows}, the number of rows, not {k}")
    for c in criteria:
        _check_projection(image, c.projection)
        if np.shape(c.query) != (len(criteria[0].query), len(c.projection.text_)):
            raise UserError(
                f"a query must be (Q, {len(c.projection.text_)}), a row of the representation, "
                f"not {np.shape(c.query)}"
            )
    total = sum(abs(c.weight) for c in criteria)
    if not 0 < total < np.inf:
        raise UserError("weights must be finite, and one of them not 0")


def _check_projection(image: np.ndarray, projection: ConditionalProjection) -> None:
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


def _scores(rows: np.ndarray, criteria: Sequence[Criterion]) -> np.ndarray:
    """(Q, C) float32 scores of rows (C, D). Rounded from float64: equal rows, equal scores."""
    x = np.asarray(rows, np.float64)
    names = [str(number) for number in range(len(criteria))]
    score = weighted_similarity(
        {n: np.asarray(c.query, float) for n, c in zip(names, criteria, strict=True)},
        {n: c.projection.transform(x) for n, c in zip(names, criteria, strict=True)},
        {n: c.weight for n, c in zip(names, criteria, strict=True)},
    )
    return score.astype(np.float32)


def _merged(one: Found, other: Found, k: int) -> Found:
    rows, score = (np.concatenate(pair) for pair in zip(one, other, strict=True))
    order = np.lexsort((rows, -score))[:k]
    return Found(rows[order], score[order])


# ---- approximate search -------------------------------------------------------------------------


def points(image: np.ndarray, projection: ConditionalProjection) -> Iterator[np.ndarray]:
    """The representation of I by parts of `ROWS_AT_ONCE` rows: (n, min(K, D)) or (n, K), float32.

    Unit rows. For the paper's representation with K > D these are not R, but min(K, D) coordinates
    with the same dot products, see `factors`.
    """
    _check_projection(image, projection)
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


class FaissManifest(BaseModel):
    """faiss.json."""

    model_config = ConfigDict(extra="forbid")
    format: Literal["crl-faiss-1"] = "crl-faiss-1"
    settings: str  # as in faiss.index_factory
    criterion: str  # digest of the projection
    rows: int
    recall: float  # at 10, on 100 evenly spaced rows
    checksum: str


@dataclass(frozen=True, eq=False)
class Faiss:
    """An approximate index of one criterion; see `build_faiss`.

    Attributes:
        index: of the library.
        projection: the criterion.
        settings: as in `faiss.index_factory`.
        recall: which fraction of the 10 nearest rows it finds, measured on 100 evenly spaced rows.
    """

    index: Any = field(repr=False)
    projection: ConditionalProjection = field(repr=False)
    settings: str
    recall: float

    @cached_property
    def _axes(self) -> np.ndarray:
        """(K, min(K, D)): rows of R -> the coordinates of `points`."""
        return factors(self.projection)[0].astype(np.float32)

    def search(self, image: np.ndarray, query: np.ndarray, k: int) -> Found:
        """Like `search`: FAISS makes a shortlist, which is ordered by exact scores.

        Args:
            image: I, (N, D), the array that it was built from.
            query: (Q, K) unit rows, `projection.transform` of the queries' embeddings.

        Raises:
            UserError: another number of images, or a k that the shortlist does not reach.
        """
        criterion = Criterion(self.projection, query)
        _check(image, [criterion], k, len(image))
        if len(image) != self.index.ntotal:
            raise UserError(f"the FAISS index has {self.index.ntotal} rows, not {len(image)}")
        query = np.asarray(query, np.float32)
        reduced = query
        if self.index.d < query.shape[1]:
            reduced = l2(query @ self._axes)
        _, shortlist = self.index.search(reduced, min(max(200, 20 * k), len(image)))
        found = []
        for row, near in zip(query, shortlist, strict=True):
            near = np.unique(near[near >= 0])  # -1: the lists that were read hold no more
            if len(near) < k:
                raise UserError(f"FAISS finds only {len(near)} rows; for k = {k} use exact search")
            score = _scores(image[near], [Criterion(self.projection, row[None])])[0]
            none = Found(np.zeros(0, int), np.zeros(0, np.float32))
            found.append(_merged(none, Found(near, score), k))
        return Found(np.stack([f.rows for f in found]), np.stack([f.score for f in found]))

    def save(self, folder: Path | str) -> None:
        """Write rows.faiss and faiss.json to `folder`."""
        folder = Path(folder)
        with atomic_path(folder / "rows.faiss") as temporary:
            _faiss().write_index(self.index, str(temporary))
            checksum = _file_digest(temporary)
            (folder / "faiss.json").unlink(missing_ok=True)
        manifest = FaissManifest(
            settings=self.settings,
            criterion=_digest(self.projection),
            rows=self.index.ntotal,
            recall=self.recall,
            checksum=checksum,
        )
        write_text(folder / "faiss.json", manifest.model_dump_json(indent=2))

    @classmethod
    def open(cls, folder: Path | str, projection: ConditionalProjection) -> "Faiss":
        """Open what `save` wrote.

        Raises:
            UserError: no complete index, a damaged one, one of another criterion, or no FAISS.
        """
        faiss, folder = _faiss(), Path(folder)
        try:
            manifest = FaissManifest.model_validate_json((folder / "faiss.json").read_bytes())
            checksum = _file_digest(folder / "rows.faiss")
        except FileNotFoundError:
            raise UserError(f"there is no complete FAISS index in {folder}; build it") from None
        except ValidationError as error:
            raise _damaged(folder, f"faiss.json: {explain(error)}") from None
        if checksum != manifest.checksum:  # so FAISS only ever parses what it wrote
            raise _damaged(folder, "rows.faiss has another checksum")
        if manifest.criterion != _digest(projection):
            raise UserError(f"the FAISS index {folder} is of another criterion; build it again")
        index = faiss.read_index(str(folder / "rows.faiss"))
        return cls(index, projection, manifest.settings, manifest.recall)


def build_faiss(image: np.ndarray, projection: ConditionalProjection) -> Faiss:
    """An approximate index of the representation of I under one criterion, for many queries.

    Its settings follow from the size and are printed, with the recall. Beyond a million rows of
    more than 64 coordinates, each row is reduced to 32 bytes.

    Raises:
        UserError: FAISS is not installed; no images; texts of another width.
    """
    faiss = _faiss()
    _check_projection(image, projection)
    if not len(image):
        raise UserError("a FAISS index needs one image or more")
    width = min(projection.text_.shape) if projection.normalise == "l2" else len(projection.text_)
    settings, lists = faiss_settings(len(image), width)
    # Of unit rows the nearest are the most similar; a distance does not change by centring (PCA).
    index = faiss.index_factory(width, settings, faiss.METRIC_L2)
    if lists:
        index.train(np.concatenate([*points(sample(image, 64 * lists), projection)]))
        faiss.extract_index_ivf(index).nprobe = PROBES
    for part in points(image, projection):
        index.add(part)
    built = Faiss(index, projection, settings, _recall(image, Faiss(index, projection, "", 0.0)))
    print(f"FAISS {settings}: {len(image):,} rows, recall@{RECALL_AT} {built.recall:.3f}")
    return built


def faiss_settings(rows: int, width: int) -> tuple[str, int]:
    """The settings for `faiss.index_factory`, and the number of lists (0: none)."""
    lists = min(int(4 * math.sqrt(rows)), 4096)
    if rows < 100_000:
        return "Flat", 0
    if rows < 1_000_000 or width <= 64:
        return f"IVF{lists},SQfp16", lists
    return f"PCAR64,IVF{lists},PQ32", lists


def _recall(image: np.ndarray, approximate: Faiss) -> float:
    """The mean fraction of the nearest other rows that it finds."""
    own = np.linspace(0, len(image) - 1, min(len(image), RECALL_QUERIES)).round().astype(int)
    query = approximate.projection.transform(np.asarray(image[own], np.float64))
    k = min(RECALL_AT + 1, len(image))
    exact = search(image, [Criterion(approximate.projection, query)], k).rows
    found = approximate.search(image, query, k).rows
    each = [
        len((set(a) & set(b)) - {me}) / max(len(set(a) - {me}), 1)
        for me, a, b in zip(own.tolist(), exact.tolist(), found.tolist(), strict=True)
    ]
    return float(np.mean(each)) if len(image) > 1 else 1.0


def _digest(projection: ConditionalProjection) -> str:
    settings = f"{projection.normalise} {projection.sharpness} {projection.sigma_}"
    text = np.ascontiguousarray(projection.text_)
    return hashlib.blake2b(text.tobytes() + settings.encode(), digest_size=16).hexdigest()


def _file_digest(file: Path) -> str:
    hasher = hashlib.blake2b(digest_size=16)
    with open(file, "rb") as opened:
        while block := opened.read(2**20):
            hasher.update(block)
    return hasher.hexdigest()


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise UserError("approximate search needs: pip install -r requirements-faiss.txt") from None
    return faiss


# ---- clusters -----------------------------------------------------------------------------------


def stream_clusters(
    image: np.ndarray, projection: ConditionalProjection, clusters: int, seed: int = 0
) -> np.ndarray:
    """k-means of the representation of I in mini-batches; memory does not grow with N.

    Every batch has evenly spaced rows, so that it does not matter how the images are sorted. The
    centres start from k-means on the first batch.

    Returns:
        (N,) the cluster of each image, 0 to k - 1, the largest first.

    Raises:
        UserError: a number of clusters below 1 or above N; texts of another width.
    """
    if not 1 <= clusters <= len(image):
        raise UserError(f"the number of clusters must be 1 to {len(image)}, not {clusters}")
    batches = math.ceil(len(image) / max(BATCH, 10 * clusters))
    model = None
    for batch in np.random.default_rng(seed).permutation(batches):
        x = np.concatenate([*points(image[batch::batches], projection)])
        if model is None:
            start = KMeans(clusters, n_init=5, random_state=seed).fit(x).cluster_centers_
            model = MiniBatchKMeans(
                clusters, init=start, n_init=1, reassignment_ratio=0, random_state=seed
            )
        model.partial_fit(x)
    label = np.concatenate([model.predict(part) for part in points(image, projection)])
    by_size = np.argsort(-np.bincount(label, minlength=clusters), kind="stable")
    return np.argsort(by_size)[label]
