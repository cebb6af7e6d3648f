"""A collection under one criterion: words, clusters, search, labels, and its part of the page."""

import os
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from crl.basis import TextBasis
from crl.embed import embed_images, embed_texts
from crl.explore.clusters import Clusters, Name, find_clusters, name_clusters, principal, regroup
from crl.explore.edits import Edits, apply
from crl.explore.ends import End, count_matches, unknown
from crl.explore.labels import Guesses, guess_labels
from crl.explore.maps import first_two, map_points
from crl.explore.search import Criterion, neighbours, search
from crl.explore.words import checked_texts, most, probabilities, shared_words, standing
from crl.images import EXTENSIONS
from crl.projection import l2, project, single_vector
from crl.representations import supervisions
from crl.run.errors import UserError

if TYPE_CHECKING:
    from crl.explore.collection import Collection

WORDS = 5  # per image
FITS_NONE = "fits none"  # the group of images that no word fits better than the collection's mean
NEIGHBOURS, TYPICAL, UNCERTAIN = 8, 12, 6  # per image and per cluster on the page


class Groups(NamedTuple):
    """Clusters, what they are called, and their titles: the name given by hand, else the first
    word, or `group 1` without."""

    clusters: Clusters
    names: list[Name]
    titles: list[str]


@dataclass(frozen=True, eq=False)
class View:
    """A collection of N images under one criterion of K texts; or under none, then K is 0."""

    collection: "Collection"
    name: str
    x: np.ndarray = field(repr=False)  # (N, F) unit rows: R, R' or I
    basis: TextBasis | None = field(default=None, repr=False)
    text: np.ndarray | None = field(default=None, repr=False)  # T (K, D), unit rows
    transformer: Any = field(default=None, repr=False)  # fitted, I -> rows like those of x
    representation: str = "universal"
    fit: Any = field(default=None, repr=False)  # text=T, options -> a transformer like this one
    edits: Edits = field(default=Edits(), repr=False)  # of its clusters, by hand
    _groups: dict[int | None, Groups] = field(default_factory=dict, repr=False)

    def transform(self, image: np.ndarray) -> np.ndarray:
        """Rows like those of x for image embeddings of any length, (n, D) or (n, Q, D)."""
        return self.transformer.transform(image) if self.basis else single_vector(l2(image))

    @cached_property
    def words(self) -> np.ndarray:
        return np.array(self.basis.texts if self.basis else [], object)  # K

    @cached_property
    def standing(self) -> np.ndarray:
        """(N, K): how much more than usual each text fits each image, see `crl.explore.words`."""
        if self.text is None:
            return np.zeros((len(self.x), 0), np.float32)
        return standing(project(self.collection.image, self.text))

    @cached_property
    def best(self) -> tuple[np.ndarray, np.ndarray]:
        """The texts by which each image stands out, and their probabilities, (N, `WORDS`) each."""
        if self.basis is None:
            return np.zeros((len(self.x), 0), int), np.zeros((len(self.x), 0))
        probability = probabilities(self.standing)
        best = most(probability, WORDS)
        return best, np.take_along_axis(probability, best, axis=1)

    @cached_property
    def points(self) -> np.ndarray:
        return principal(self.x)  # for clusters and maps

    @cached_property
    def map(self) -> np.ndarray:
        return map_points(self.points, f"map, {self.name}")  # (N, 2)

    def groups(self, number: int | None = None) -> Groups:
        """The clusters of x, edited by hand, and their names; computed once. `number` of clusters
        before the edits, None: that of the edits, or by silhouette. See `crl.explore.clusters`."""
        if number not in self._groups:
            clusters = find_clusters(self.points, number or self.edits.number)
            rest, by_hand = np.full(len(self.x), True), dict[int, str]()
            if self.edits.done or self.edits.none:
                clusters, rest, by_hand = self._by_hand(clusters)
            named, unnamed = [], Name([], [], np.inf)
            if self.basis is not None:
                named = name_clusters(self.standing[rest], clusters.label[rest])
            names = [*named, *[unnamed] * (clusters.label.max() + 1 - len(named))]
            titles = [
                str(self.words[name.words[0]]) if name.words else f"group {place}"
                for place, name in enumerate(names, start=1)
            ]
            for place, title in by_hand.items():
                titles[place], names[place] = title, names[place]._replace(margin=np.inf)
            self._groups[number] = Groups(clusters, names, titles)
        return self._groups[number]

    def _by_hand(self, clusters: Clusters) -> tuple[Clusters, np.ndarray, dict[int, str]]:
        """The clusters after the edits; which images (N,) are in them, and not in the group of
        those that fit no word; and what clusters are called by hand."""
        rest = np.full(len(self.x), True)
        if self.edits.none and (fits := self.standing.max(axis=1, initial=-np.inf) > 0).any():
            rest = fits
        points = self.points[rest]
        label, titles, lost = apply(
            self.edits.done, clusters.label[rest], self.collection.digests[rest],
            lambda members: find_clusters(points[members], 2).label,
        )  # fmt: skip
        everywhere = np.full(len(rest), label.max() + 1)
        everywhere[rest] = label
        if not rest.all():
            titles[int(label.max()) + 1] = FITS_NONE
        note = clusters.note + "; edited by hand" * (len(self.edits.done) > lost)
        left = f"{lost} of {len(self.edits.done)} edits by hand fit no group any more"
        note += f"; {left} and were left out" * (lost > 0)
        note += "; each picture fits a word" * bool(self.edits.none and rest.all())
        return regroup(self.points, everywhere, note), rest, titles

    def with_edits(self, **changes: Any) -> "View":
        """The same view with other edits of its clusters; what else was computed is shared."""
        other, edits = copy(self), Edits.model_validate({**dict(self.edits), **changes})
        vars(other).update(edits=edits, _groups={})
        return other

    def clusters(self, number: int | None = None) -> pd.DataFrame:
        """The cluster of each image: columns file, cluster, name, words that it stands out by."""
        clusters, _, titles = self.groups(number)
        table = pd.DataFrame({"file": self.collection.names, "cluster": clusters.label})
        name = np.array(titles, object)[clusters.label]
        return table.assign(name=name, words=self._texts(self.best[0]))

    def _texts(self, rows: np.ndarray) -> list[str]:
        return ["; ".join(self.words[row]) for row in rows]

    def nearest(
        self, query: str | Path, top: int | Literal["auto"] = 10,
        like: Mapping[str, float] | None = None, unlike: Mapping[str, float] | None = None,
    ) -> pd.DataFrame:  # fmt: skip
        """The images most like an image, or that a text fits best: columns file, similarity, words.

        `query` is an image file (one of these, or another), or a text: added to the texts of the
        criterion, it orders the images by what they have of it. `like`, `unlike`: for an image,
        other criteria that count too: name of a basis -> weight above 0 (of this criterion: 1).
        `top="auto"`: as many as `matching` counts; a UserError if it cannot tell."""
        if top == "auto":
            end = self.matching(query)
            if end.number is None:
                raise UserError(f"{end.note}; give a number instead of auto")
            top = end.number
        place, image = self._find(str(query))
        like, unlike = like or {}, unlike or {}
        if not all(0 < weight < np.inf for weight in [*like.values(), *unlike.values()]):
            raise UserError("the weights of like and unlike must be above 0 and finite")
        others = {**like, **{name: -weight for name, weight in unlike.items()}}
        if image is not None:
            alone = self.basis and not supervisions(self.representation)  # is the basis enough?
            kind = self.representation if alone else "posterior"
            criteria = [Criterion(self.transform, self.transform(image))]
            for name, weight in others.items():
                view = self.collection.under(name, kind)
                criteria.append(Criterion(view.transform, view.transform(image), weight))
        elif others:
            raise UserError("like and unlike compare images, and the query is a text")
        else:
            criteria = [self.of_text(str(query))]
        matches = search(self.collection.image, criteria, top + 1)  # one more: itself
        chosen = [i for i, row in enumerate(matches.rows[0]) if row != place][:top]
        order, similarity = matches.rows[0][chosen], matches.scores[0][chosen]
        words = self.best[0][order]
        if image is not None and self.text is not None:  # those that it shares with the query
            usual = project(self.collection.image, self.text).mean(axis=0)
            level = standing(project(image, self.text), usual)
            both = np.concatenate([level, self.standing[order]])
            words = shared_words(both, np.arange(1, len(both))[None])[0]
        files = [self.collection.names[i] for i in order]
        return pd.DataFrame({"file": files, "similarity": similarity, "words": self._texts(words)})

    def matching(self, query: str | Path, error: float = 0.1) -> End:
        """How many images match a text, `error` the fraction of them that may be wrong; see
        `crl.explore.ends`."""
        if self._find(str(query))[1] is not None:
            return unknown("the query is a picture; a text that says what it shows can be counted")
        if self.basis is None:
            return unknown("there are no texts of a criterion to compare with")
        image = self.collection.image
        scores = project(image, self._embed(str(query)))[:, 0]
        return count_matches(scores, project(image, self.text), error)

    def _embed(self, text: str) -> np.ndarray:
        """(1, D), in the prompt of the criterion."""
        prompt = self.basis.vlm_prompt.replace("{text}", text)
        return embed_texts(self.collection.embedder, [prompt])

    def _find(self, query: str) -> tuple[int | None, np.ndarray | None]:
        """The number of an image of the collection, and the embedding (1, ...) of any image."""
        if (place := self.collection.find(query)) is not None:
            return place, self.collection.image[place : place + 1]
        if os.path.isfile(query):
            return None, embed_images(self.collection.embedder, [query]).image
        if Path(query).suffix.lower() in EXTENSIONS:
            self.collection.place(query)  # says that there is none
        checked_texts([query])
        return None, None

    def of_text(self, query: str) -> Criterion:
        """What each image has of a text, in [0, 1] for R'."""
        if self.basis is None:
            return Criterion(self.transform, embed_texts(self.collection.embedder, [query]))
        extended = np.concatenate([self._embed(query), self.text])
        transformer = self.fit(text=extended, texts=[query, *self.words])
        columns = getattr(transformer, "get_feature_names_out", list)()
        if list(columns[:1]) != [query]:
            name = self.representation
            raise UserError(f"{name!r} has no column for a text; use paper or posterior")
        return Criterion(transformer.transform, np.eye(1, len(extended)))

    def guesses(self, labels: Mapping[str, str]) -> Guesses:
        """Labels for all images from those of a few: file name -> label."""
        places = {self.collection.place(name): label for name, label in labels.items()}
        return guess_labels(self.x, places)

    def classify(self, labels: Mapping[str, str]) -> pd.DataFrame:
        """The same as a table: columns file, label, confidence (0 to 1)."""
        label, confidence, *_ = self.guesses(labels)
        files = self.collection.names
        return pd.DataFrame({"file": files, "label": label, "confidence": confidence})

    def report(self, file: Path | str, number: int | None = None) -> None:
        """See `Collection.report`."""
        self.collection.report(file, [self] if self.basis else [], number)

    def panel(self, some: np.ndarray, number: int | None, guesses: Guesses | None) -> dict:
        """What the page shows of this view: of `some` images (n,), which it numbers from 0."""
        near, level = neighbours(self.x[some], NEIGHBOURS), self.standing[some]
        return {
            **self.quick_panel(some, number),
            "points": self.map[some],  # (n, 2)
            "neighbours": near,  # (n, 8), the nearest first
            "shared": shared_words(level, near),  # (n, 8, 3)
            "label": list(guesses.label[some]) if guesses else None,  # n
            "confidence": guesses.confidence[some] if guesses else None,  # (n,)
        }

    def quick_panel(self, some: np.ndarray, number: int | None) -> dict:
        """The same without what takes long, and with principal components as the map."""
        clusters, names, titles = self.groups(number)
        label = clusters.label[some]

        cards = []
        for cluster, (title, name) in enumerate(zip(titles, names, strict=True)):
            members = np.flatnonzero(label == cluster)
            typical = members[np.argsort(clusters.distance[some][members], kind="stable")]
            uncertain = members[np.argsort(clusters.certainty[some][members], kind="stable")]
            words = list(zip(self.words[name.words], name.strength, strict=True))
            card = {"name": title, "words": words, "weak": name.weak}
            card["typical"] = typical[:TYPICAL].tolist()
            cards.append(card | {"uncertain": uncertain[:UNCERTAIN].tolist()})
        none = np.zeros((len(some), 0), int)
        return {
            "name": self.name,
            "note": clusters.note,
            "points": first_two(self.points[some]),  # (n, 2)
            "cluster": label,  # (n,)
            "clusters": cards,
            "neighbours": none,
            "words": list(self.words),  # K
            "standing": self.standing[some] / self.standing.std(axis=0).clip(1e-6),  # deviations
            "best": self.best[0][some],  # (n, 5)
            "probability": self.best[1][some],  # (n, 5)
            "shared": none,
            "label": None,
            "confidence": None,
        }
