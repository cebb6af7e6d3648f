"""A folder of images, looked at under criteria of one's own:

    photos = Collection.embed("~/pictures", vlm="clip")  # the files and I
    mood = photos.under("my_bases/mood.yaml")            # R = I Tᵀ, and its words
    mood.clusters(5)
    mood.nearest("a.jpg", 10)
    mood.classify({"a.jpg": "calm", "b.jpg": "tense"})
    mood.report("report.html")

A thin layer: each step is a function of another module.
"""

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from crl.basis import TextBasis, basis_label
from crl.clusters import Clusters, Name, find_clusters, name_clusters, principal
from crl.criteria import rank_criteria
from crl.embed import embed_basis, embed_images, embed_texts
from crl.images import EXTENSIONS, Listing, Thumbnail, list_images, shown
from crl.labels import Guesses, guess_labels
from crl.projection import ConditionalProjection, l2, project
from crl.run.cache import memory_map
from crl.run.errors import UserError, nearest
from crl.run.maps import map_points
from crl.run.parquet import read_digests, read_manifest, read_rows, read_sizes
from crl.run.thumbnails import gray, thumbnails
from crl.search import Criterion, search
from crl.vlm import VLM, load_vlm
from crl.words import most, probabilities, standing

Representation = Literal["posterior", "paper"]
WORDS = 5  # per image
SHOWN = 5  # names of files in a message


@dataclass(frozen=True, eq=False)
class Collection:
    """Image files and their embeddings.

    Attributes:
        folder: where they were found.
        files: N image files that can be read.
        image: I, (N, D), or (N, Q, D) for a VLM with Q vectors per image; not normalised.
        digests: (N,) digests of the files' contents, dtype V16.
        vlm: what embedded them, and embeds the texts.
        listing: what else is in the folder.
        unreadable: image file -> why it cannot be read.
        sizes: (N, 2) widths and heights in pixels, if they are known without the files.
    """

    folder: Path
    files: list[Path] = field(repr=False)
    image: np.ndarray = field(repr=False)
    digests: np.ndarray = field(repr=False)
    vlm: VLM
    listing: Listing = field(repr=False)
    unreadable: dict[Path, str] = field(repr=False)
    sizes: np.ndarray | None = field(default=None, repr=False)

    @classmethod
    def embed(cls, folder: Path | str, vlm: str | VLM = "clip", **settings) -> "Collection":
        """Embed the images below `folder`; files that cannot be read are left out.

        A second call embeds only what is new.

        Args:
            vlm: a name, as in `load_vlm`, or a VLM.
            settings: of `embed_images`, e.g. batch_size, workers, cache, embeddings.

        Raises:
            UserError: no such folder, no image that can be read, unknown VLM.
        """
        listing = list_images(folder)
        if not listing.files:
            raise UserError("; ".join([f"there are no images in {folder}", *listing.remarks()]))
        vlm = load_vlm(vlm) if isinstance(vlm, str) else vlm
        found = embed_images(vlm, listing.files, unreadable="skip", **settings)
        files = [listing.files[i] for i in found.kept]
        unreadable = {file: why for file, why in found.unreadable.items() if isinstance(file, Path)}
        return cls(listing.folder, files, found.image, found.digests, vlm, listing, unreadable)

    @classmethod
    def load(cls, folder: Path | str, vlm: str | VLM | None = None) -> "Collection":
        """The images whose embeddings are in Parquet files, see `crl.run.parquet`; no image is
        read.

        Args:
            vlm: the one that made them, which embeds the texts: a name, as in `load_vlm`, or a VLM;
                None: as the manifest says.

        Raises:
            UserError: no such files, damaged ones, or ones of another VLM.
        """
        folder = Path(folder).expanduser()
        manifest = read_manifest(folder)
        if vlm is None or isinstance(vlm, str):
            vlm = load_vlm(vlm or manifest.vlm, None, manifest.precision, from_file=not vlm)
        manifest.must_be_of(vlm.fingerprint, folder)
        digests = np.concatenate([read_digests(file) for file in manifest.files])
        if not len(digests):
            raise UserError(f"{folder} holds no embeddings of images")
        image = memory_map((len(digests), *manifest.shape), folder)
        files: list[Path] = []
        for paths, rows in (group for file in manifest.files for group in read_rows(file)):
            image[len(files) : len(files) + len(rows)] = rows.reshape(-1, *manifest.shape)
            files += [_place(path, manifest.root) for path in paths.to_pylist()]
        # What the first and the last name in order begin with, all do.
        ends = min(files, key=str), max(files, key=str)
        above = Path(os.path.commonpath([file.parent for file in ends]))
        listing = Listing(above, files, Counter(), Counter(), 0, [])
        sizes = np.concatenate([read_sizes(file) for file in manifest.files])
        return cls(above, files, image, digests, vlm, listing, {}, sizes)

    def under(
        self,
        basis: TextBasis | Path | str,
        representation: Representation = "posterior",
        name: str | None = None,
    ) -> "View":
        """The collection under one criterion.

        Args:
            basis: a text basis, its file, or the name of one in configs/bases.
            representation: `posterior` (R', see `crl.projection.posterior`) or `paper` (unit rows
                of R).
            name: of the criterion in tables; None: the name of the basis.

        Raises:
            UserError: no such basis, or texts that all look the same to the VLM.
        """
        if not isinstance(basis, TextBasis):
            name = name or basis_label(basis).rpartition("/")[2]
            basis = TextBasis.load(basis)
        text = embed_basis(self.vlm, basis)  # T (K, D)
        normalise = {"posterior": "posterior", "paper": "l2"}[representation]
        projection = ConditionalProjection(text, basis.texts, normalise=normalise)
        x = projection.fit_transform(self.image)  # R = I Tᵀ
        return View(self, name or basis.criterion, x, basis, projection, representation)

    @cached_property
    def universal(self) -> "View":
        """The collection under no criterion: unit rows of I, (N, D)."""
        return View(self, "universal", _universal(self.image))

    def rank(self, bases: Mapping[str, TextBasis]) -> dict[str, float]:
        """Which criterion do these images vary in? See `crl.criteria.rank_criteria`."""
        text = {name: embed_basis(self.vlm, basis) for name, basis in bases.items()}
        return rank_criteria(self.image, text)

    def remarks(self) -> list[str]:
        """What was left out of the folder and why, and how many copies there are; one text each."""
        found = self.listing.remarks()
        if self.unreadable:
            first = [
                f"{shown(f.relative_to(self.folder))} ({why})" for f, why in self.unreadable.items()
            ]
            more = " ..." if len(first) > SHOWN else ""
            found.append(f"{len(first)} could not be read: {', '.join(first[:SHOWN])}{more}")
        copies = len(self.files) - len(np.unique(self.digests))
        if copies:
            found.append(f"copies of other images: {copies}")
        return found

    @cached_property
    def thumbnails(self) -> list[Thumbnail]:
        """N small pictures, with the sizes of the images; see `crl.run.thumbnails`. An image
        whose embedding was loaded and whose file is not here is a gray one."""
        loaded = self.sizes is not None
        here = [i for i, file in enumerate(self.files) if not loaded or file.is_file()]
        files, digests = [self.files[i] for i in here], self.digests[here].tolist()
        found = dict(zip(here, thumbnails(files, digests, self.folder), strict=True))
        return [found.get(i) or gray(*self.sizes[i].tolist()) for i in range(len(self.files))]

    @cached_property
    def names(self) -> list[str]:
        """N file names below `folder`, as text."""
        return [shown(file.relative_to(self.folder)) for file in self.files]

    @cached_property
    def _places(self) -> dict[str | Path, int]:
        """Name, or path -> number of an image."""
        found: dict[str | Path, int] = {f.absolute(): i for i, f in enumerate(self.files)}
        return found | {name: place for place, name in enumerate(self.names)}

    def find(self, name: str | Path) -> int | None:
        """The number of an image, given by its name below `folder` or by its path; None: none."""
        place = self._places.get(str(name))
        return self._places.get(Path(name).expanduser().absolute()) if place is None else place

    def place(self, name: str | Path) -> int:
        """The number of an image.

        Raises:
            UserError: it is none of these images.
        """
        if (place := self.find(name)) is None:
            hint = nearest(shown(Path(name)), self.names[:10_000])
            hint = hint if hint.startswith("did") else "images.csv has their names"
            raise UserError(f"{shown(Path(name))} is no image of {shown(self.folder)}; {hint}")
        return place


def _place(path: str, root: str) -> Path:
    """Where an image of a manifest is; one of an object store keeps its name."""
    return Path(path) if "://" in path else Path(root, path).absolute()


def _universal(image: np.ndarray) -> np.ndarray:
    """Unit rows of I; several vectors per image are averaged."""
    image = l2(np.asarray(image))
    return image if image.ndim == 2 else l2(image.mean(axis=1))


class Groups(NamedTuple):
    """Clusters, what they are called, and their titles: the first word, or `group 1` without."""

    clusters: Clusters
    names: list[Name]
    titles: list[str]


@dataclass(frozen=True, eq=False)
class View:
    """A collection under one criterion; or under none, then it has no basis and no words.

    Attributes:
        x: (N, K) representation, unit rows: R, R' or I.
        projection: image embeddings -> rows like those of x.
    """

    collection: Collection
    name: str
    x: np.ndarray = field(repr=False)
    basis: TextBasis | None = field(default=None, repr=False)
    projection: ConditionalProjection | None = field(default=None, repr=False)
    representation: Representation = "posterior"
    _groups: dict[int | None, Groups] = field(default_factory=dict, repr=False)

    # ---- words ----

    @cached_property
    def words(self) -> np.ndarray:
        """K texts; none for the universal embedding."""
        return np.array(self.basis.texts if self.basis else [], object)

    @cached_property
    def standing(self) -> np.ndarray:
        """(N, K): how much more than usual each text fits each image, see `crl.words`."""
        return standing(self._cosines(self.collection.image))

    def _cosines(self, image: np.ndarray) -> np.ndarray:
        if self.projection is None:
            return np.zeros((len(image), 0), np.float32)
        return project(l2(np.asarray(image)), self.projection.text_)

    @cached_property
    def best(self) -> tuple[np.ndarray, np.ndarray]:
        """The texts by which each image stands out, as numbers of texts, and their probabilities:
        twice (N, `WORDS`)."""
        if self.basis is None:
            return np.zeros((len(self.x), 0), int), np.zeros((len(self.x), 0))
        probability = probabilities(self.standing)
        best = most(probability, WORDS)
        return best, np.take_along_axis(probability, best, axis=1)

    # ---- clusters ----

    def groups(self, number: int | None = None) -> Groups:
        """The clusters of x and their names; computed once. See `crl.clusters`."""
        if number not in self._groups:
            clusters = find_clusters(self.points, number)
            names = [Name([], [], 0.0)] * clusters.number
            if self.basis is not None:
                names = name_clusters(self.standing, clusters.label)
            titles = [
                str(self.words[name.words[0]]) if name.words else f"group {place}"
                for place, name in enumerate(names, start=1)
            ]
            self._groups[number] = Groups(clusters, names, titles)
        return self._groups[number]

    def clusters(self, number: int | None = None) -> pd.DataFrame:
        """The cluster of each image: columns file, cluster, name, words (by which it stands out).

        Args:
            number: of clusters; None: chosen by silhouette.
        """
        clusters, _, titles = self.groups(number)
        return pd.DataFrame(
            {
                "file": self.collection.names,
                "cluster": clusters.label,
                "name": np.array(titles, object)[clusters.label],
                "words": ["; ".join(self.words[row]) for row in self.best[0]],
            }
        )

    @cached_property
    def points(self) -> np.ndarray:
        """The principal components of x, for clusters and maps."""
        return principal(self.x)

    @cached_property
    def map(self) -> np.ndarray:
        """(N, 2) coordinates, see `crl.run.maps`."""
        return map_points(self.points, f"map, {self.name}")

    # ---- search ----

    def nearest(
        self,
        query: str | Path,
        top: int = 10,
        like: Mapping[str, float] | None = None,
        unlike: Mapping[str, float] | None = None,
    ) -> pd.DataFrame:
        """The images most like an image, or that a text fits best: columns file, similarity, words.

        Args:
            query: an image file (one of these, or another), or a text. A text is added to the texts
                of the criterion, and the images are ordered by what they have of it.
            like, unlike: other criteria that count too: name of a basis -> weight, above 0; the
                weight of this criterion is 1. Only for an image.

        Raises:
            UserError: no such image; a text with `like` or `unlike`; a weight that is not above 0.
        """
        place, image = self._find(str(query))
        others = {**(like or {}), **{name: -weight for name, weight in (unlike or {}).items()}}
        if image is None and others:
            raise UserError("like and unlike compare images, and the query is a text")
        if min([*(like or {}).values(), *(unlike or {}).values(), 1]) <= 0:
            raise UserError("the weights of like and unlike must be above 0")
        # Under no criterion, several vectors per image are averaged, as in x.
        images = self.collection.image if self.basis else self.x
        if image is None:
            criteria = [self._fits(str(query))]
        else:
            views = [self, *(self.collection.under(name, self.representation) for name in others)]
            rows = image if self.basis else _universal(image)
            criteria = [
                Criterion(view._transformer, view._transformer.transform(rows), weight)
                for view, weight in zip(views, [1.0, *others.values()], strict=True)
            ]
        found = search(images, criteria, min(top + 1, len(images)))  # one more: itself
        chosen = [i for i, row in enumerate(found.rows[0]) if row != place][:top]
        order, similarity = found.rows[0][chosen], found.score[0][chosen]
        if image is None or self.basis is None:
            words = self.best[0][order]
        else:
            usual = self._cosines(self.collection.image).mean(axis=0)
            both = np.concatenate([standing(self._cosines(image), usual), self.standing[order]])
            words = shared_words(both, np.arange(1, len(both))[None])[0]
        return pd.DataFrame(
            {
                "file": [self.collection.names[i] for i in order],
                "similarity": similarity,
                "words": ["; ".join(self.words[row]) for row in words],
            }
        )

    @cached_property
    def _transformer(self) -> ConditionalProjection:
        """What makes x of I. The universal embedding is R if the texts are the axes."""
        axes = np.eye(self.collection.image.shape[-1], dtype=np.float32)
        return self.projection or ConditionalProjection(axes).fit(axes)

    def _find(self, query: str) -> tuple[int | None, np.ndarray | None]:
        """The number of an image of the collection, and the embedding (1, ...) of any image."""
        if (place := self.collection.find(query)) is not None:
            return place, self.collection.image[place : place + 1]
        if os.path.isfile(query):
            return None, embed_images(self.collection.vlm, [query]).image
        if Path(query).suffix.lower() in EXTENSIONS:
            self.collection.place(query)
        return None, None

    def _fits(self, text: str) -> Criterion:
        """What each image has of a text, in [0, 1] for R'."""
        vlm = self.collection.vlm
        if self.basis is None:
            return Criterion(self._transformer, l2(embed_texts(vlm, [text])))
        prompt = self.basis.vlm_prompt.replace("{text}", text)
        extended = np.concatenate([embed_texts(vlm, [prompt]), self.projection.text_embeddings])
        more = ConditionalProjection(extended, normalise=self.projection.normalise)
        return Criterion(more.fit(self.collection.image), np.eye(1, len(extended)))

    # ---- labels ----

    def guesses(self, labels: Mapping[str, str]) -> Guesses:
        """Labels for all images from those of a few: file name -> label; see `crl.labels`."""
        given = {self.collection.place(name): label for name, label in labels.items()}
        return guess_labels(self.x, given)

    def classify(self, labels: Mapping[str, str]) -> pd.DataFrame:
        """The same as a table: columns file, label, confidence (0 to 1)."""
        found = self.guesses(labels)
        names = self.collection.names
        return pd.DataFrame({"file": names, "label": found.label, "confidence": found.confidence})

    # ---- what is left for others ----

    def report(self, file: Path | str, number: int | None = None) -> None:
        """Write a page to look at the collection under this criterion; see `crl.export`.

        Args:
            number: of clusters; None: chosen by silhouette.
        """
        from crl.export import write_page  # takes seconds to import

        write_page(Path(file), self.collection, [self] if self.basis else [], number)


def neighbours(x: np.ndarray, count: int) -> np.ndarray:
    """The most similar other rows of each row of x (N, K): (N, count), the most similar first."""
    count = min(count, len(x) - 1)
    found = np.empty((len(x), count), int)
    for start in range(0, len(x) if count else 0, 1_000):
        similarity = x[start : start + 1_000] @ x.T
        rows = np.arange(len(similarity))
        similarity[rows, start + rows] = -np.inf
        found[start : start + 1_000] = most(similarity, count)
    return found


def shared_words(standing: np.ndarray, others: np.ndarray, count: int = 3) -> np.ndarray:
    """The texts by which an image and others both stand out: (N, M, count) numbers of texts.

    Args:
        standing: (N, K), see `crl.words`; others: (N, M) numbers of other images.
    """
    count = min(count, standing.shape[1])
    found = np.empty((*others.shape, count), int)
    for start in range(0, len(others) if count else 0, 100):
        near = others[start : start + 100]
        both = np.minimum(standing[start : start + len(near), None], standing[near])  # (100, M, K)
        best = most(both.reshape(-1, both.shape[-1]), count)
        found[start : start + 100] = best.reshape((*near.shape, count))
    return found
