"""A collection under one criterion: words, clusters, search, labels, and its part of the page."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from crl.basis import TextBasis
from crl.embed import embed_images, embed_texts
from crl.explore.clusters import Clusters, Name, find_clusters, name_clusters, principal
from crl.explore.labels import Guesses, guess_labels
from crl.explore.maps import map_points
from crl.explore.search import Criterion, neighbours, search
from crl.explore.words import most, probabilities, shared_words, standing
from crl.images import EXTENSIONS
from crl.projection import l2, project, single_vector
from crl.representations import fit_representation
from crl.run.errors import UserError

if TYPE_CHECKING:
    from crl.explore.collection import Collection
    from crl.explore.page import Panel

WORDS = 5  # per image
NEIGHBOURS, TYPICAL, UNCERTAIN = 8, 12, 6  # per image and per cluster on the page


class Groups(NamedTuple):
    """Clusters, what they are called, and their titles: the first word, or `group 1` without."""

    clusters: Clusters
    names: list[Name]
    titles: list[str]


@dataclass(frozen=True, eq=False)
class View:
    """A collection under one criterion; or under none, then it has no basis and no words.

    Attributes:
        x: (N, F) representation, unit rows: R, R' or I.
        text: T (K, D), unit rows.
        transformer: fitted, I -> rows like those of x.
    """

    collection: "Collection"
    name: str
    x: np.ndarray = field(repr=False)
    basis: TextBasis | None = field(default=None, repr=False)
    text: np.ndarray | None = field(default=None, repr=False)
    transformer: Any = field(default=None, repr=False)
    representation: str = "universal"
    _groups: dict[int | None, Groups] = field(default_factory=dict, repr=False)

    def transform(self, image: np.ndarray) -> np.ndarray:
        """Rows like those of x for image embeddings of any length, (n, D) or (n, Q, D)."""
        if self.transformer is None:
            return single_vector(l2(image))
        return self.transformer.transform(image)

    # ---- words ----

    @cached_property
    def words(self) -> np.ndarray:
        """K texts; none for the universal embedding."""
        return np.array(self.basis.texts if self.basis else [], object)

    @cached_property
    def standing(self) -> np.ndarray:
        """(N, K): how much more than usual each text fits each image, see `crl.explore.words`."""
        if self.text is None:
            return np.zeros((len(self.x), 0), np.float32)
        return standing(project(self.collection.image, self.text))

    @cached_property
    def best(self) -> tuple[np.ndarray, np.ndarray]:
        """The texts by which each image stands out, as numbers of texts, and their probabilities:
        twice (N, `WORDS`)."""
        if self.basis is None:
            return np.zeros((len(self.x), 0), int), np.zeros((len(self.x), 0))
        probability = probabilities(self.standing)
        best = most(probability, WORDS)
        return best, np.take_along_axis(probability, best, axis=1)

    @property
    def origin(self) -> str:
        """How many texts there are, who wrote them, and how the VLM reads them."""
        if self.basis is None:
            return ""
        made = self.basis.provenance
        writer = str(made.get("llm") or made.get("source") or "a file")
        return f"{len(self.words):,} texts from {writer}; the VLM reads {self.basis.prompts[0]!r}"

    # ---- clusters ----

    def groups(self, number: int | None = None) -> Groups:
        """The clusters of x and their names; computed once. See `crl.explore.clusters`."""
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
        """(N, 2) coordinates, see `crl.explore.maps`."""
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
        like, unlike = like or {}, unlike or {}
        if image is None and (like or unlike):
            raise UserError("like and unlike compare images, and the query is a text")
        if not all(0 < weight < np.inf for weight in [*like.values(), *unlike.values()]):
            raise UserError("the weights of like and unlike must be above 0 and finite")
        others = {**like, **{name: -weight for name, weight in unlike.items()}}
        if image is None:
            criteria = [self._of_text(str(query))]
        else:
            kind = self.representation if self.basis else "posterior"
            views = [self, *(self.collection.under(name, kind) for name in others)]
            criteria = [
                Criterion(view.transform, view.transform(image), weight)
                for view, weight in zip(views, [1.0, *others.values()], strict=True)
            ]
        matches = search(self.collection.image, criteria, top + 1)  # one more: itself
        chosen = [i for i, row in enumerate(matches.rows[0]) if row != place][:top]
        order, similarity = matches.rows[0][chosen], matches.scores[0][chosen]
        if image is None or self.basis is None:
            words = self.best[0][order]
        else:
            usual = project(self.collection.image, self.text).mean(axis=0)
            query_standing = standing(project(image, self.text), usual)
            both = np.concatenate([query_standing, self.standing[order]])
            words = shared_words(both, np.arange(1, len(both))[None])[0]
        return pd.DataFrame(
            {
                "file": [self.collection.names[i] for i in order],
                "similarity": similarity,
                "words": ["; ".join(self.words[row]) for row in words],
            }
        )

    def _find(self, query: str) -> tuple[int | None, np.ndarray | None]:
        """The number of an image of the collection, and the embedding (1, ...) of any image."""
        if (place := self.collection.find(query)) is not None:
            return place, self.collection.image[place : place + 1]
        if os.path.isfile(query):
            return None, embed_images(self.collection.embedder, [query]).image
        if Path(query).suffix.lower() in EXTENSIONS:
            self.collection.place(query)
        return None, None

    def _of_text(self, query: str) -> Criterion:
        """What each image has of a text, in [0, 1] for R'."""
        vlm = self.collection.embedder
        if self.basis is None:
            return Criterion(self.transform, embed_texts(vlm, [query]))
        prompt = self.basis.vlm_prompt.replace("{text}", query)
        extended = np.concatenate([embed_texts(vlm, [prompt]), self.text])
        transformer = fit_representation(self.representation, self.collection.image, extended)
        width = transformer.transform(self.collection.image[:1]).shape[1]
        if width != len(extended):
            raise UserError(f"{self.representation!r} has no column for each text; search by a "
                            "text with paper or posterior")  # fmt: skip
        return Criterion(transformer.transform, np.eye(1, len(extended)))

    # ---- labels ----

    def guesses(self, labels: Mapping[str, str]) -> Guesses:
        """Labels for all images from those of a few: file name -> label."""
        given = {self.collection.place(name): label for name, label in labels.items()}
        return guess_labels(self.x, given)

    def classify(self, labels: Mapping[str, str]) -> pd.DataFrame:
        """The same as a table: columns file, label, confidence (0 to 1)."""
        guesses = self.guesses(labels)
        names = self.collection.names
        return pd.DataFrame(
            {"file": names, "label": guesses.label, "confidence": guesses.confidence}
        )

    # ---- the page ----

    def report(self, file: Path | str, number: int | None = None) -> None:
        """Write a page to look at the collection under this criterion; see `Collection.report`."""
        self.collection.report(file, [self] if self.basis else [], number)

    def panel(self, some: np.ndarray, number: int | None, guesses: Guesses | None) -> "Panel":
        """What the page shows of this view: all of `some` images, which it numbers from 0."""
        from crl.explore.page import Cluster, Panel

        clusters, names, titles = self.groups(number)
        places = np.full(len(self.x), -1)
        places[some] = np.arange(len(some))

        def on_page(images: np.ndarray, count: int) -> list[int]:
            return [place for place in places[images].tolist() if place >= 0][:count]

        cards = [
            Cluster(
                name=title,
                words=list(zip(self.words[name.words], name.strength, strict=True)),
                weak=name.weak and self.basis is not None,
                typical=on_page(clusters.typical(cluster), TYPICAL),
                uncertain=on_page(clusters.uncertain(cluster), UNCERTAIN),
            )
            for cluster, (title, name) in enumerate(zip(titles, names, strict=True))
        ]
        near, level = neighbours(self.x[some], NEIGHBOURS), self.standing[some]
        return Panel(
            name=self.name,
            points=self.map[some],
            cluster=clusters.label[some],
            clusters=cards,
            neighbours=near,
            note=clusters.note,
            words=list(self.words),
            standing=(level / self.standing.std(axis=0).clip(1e-6)).astype(np.float32),
            best=self.best[0][some],
            probability=self.best[1][some],
            shared=shared_words(level, near),
            origin=self.origin,
            label=list(guesses.label[some]) if guesses else None,
            confidence=guesses.confidence[some] if guesses else None,
        )
