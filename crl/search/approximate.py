"""Approximate search with FAISS, over the representation of one criterion (optional)."""

import hashlib
import math
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from crl.projection import ConditionalProjection, l2
from crl.run.errors import UserError, explain
from crl.run.files import atomic_path, write_text
from crl.search.exact import (
    Criterion,
    Found,
    check,
    check_projection,
    factors,
    merged,
    points,
    sample,
    scores,
    search,
)
from crl.search.index import damaged, file_digest

RECALL_QUERIES, RECALL_AT = 100, 10
PROBES = 32  # lists of FAISS that a query reads


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
        check(image, [criterion], k, len(image))
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
            score = scores(image[near], [Criterion(self.projection, row[None])])[0]
            none = Found(np.zeros(0, int), np.zeros(0, np.float32))
            found.append(merged(none, Found(near, score), k))
        return Found(np.stack([f.rows for f in found]), np.stack([f.score for f in found]))

    def save(self, folder: Path | str) -> None:
        """Write rows.faiss and faiss.json to `folder`."""
        folder = Path(folder)
        with atomic_path(folder / "rows.faiss") as temporary:
            _faiss().write_index(self.index, str(temporary))
            checksum = file_digest(temporary)
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
            checksum = file_digest(folder / "rows.faiss")
        except FileNotFoundError:
            raise UserError(f"there is no complete FAISS index in {folder}; build it") from None
        except ValidationError as error:
            raise damaged(folder, f"faiss.json: {explain(error)}") from None
        if checksum != manifest.checksum:  # so FAISS only ever parses what it wrote
            raise damaged(folder, "rows.faiss has another checksum")
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
    check_projection(image, projection)
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


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise UserError("approximate search needs: pip install faiss-cpu") from None
    return faiss
