"""What a served page asks for: search, and edits of words, clusters and criteria. Each method takes
the values of a request, checks them, and returns what becomes its answer in JSON; what does not fit
is a UserError or a ValidationError. The way there is `crl.explore.serve`.

An edit is written before it is answered: the words of a criterion to texts/<criterion>.yaml in the
folder of outputs, what was done to its clusters to clusters/<criterion>.json (`crl.explore.edits`).
"""

from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, FiniteFloat, validate_call

from crl.basis import TextBasis
from crl.explore.clusters import find_clusters
from crl.explore.collection import Collection
from crl.explore.edits import EDITED, Edit, sketch
from crl.explore.page import MOST_STANDING, encoded, limits, plain
from crl.explore.search import Criterion, search
from crl.explore.view import FITS_NONE, NEIGHBOURS, View
from crl.explore.words import checked_texts, most, shared_words
from crl.projection import l2
from crl.run.errors import UserError
from crl.run.files import slug

RESULTS = 300  # pictures that a search gives

Number = Annotated[int, Field(ge=0)]  # of a panel, a cluster, or an image as the page counts them
Images = tuple[Number, ...]


class Session:
    """A collection and the views of one page. `out` is the folder of outputs, `number` that of
    clusters (None: by silhouette), `writer` makes the texts of a criterion of this name."""

    def __init__(
        self, photos: Collection, views: Sequence[View], out: Path, number: int | None = None,
        writer: Callable[[str], TextBasis] | None = None, representation: str = "posterior",
        command: str = "",
    ) -> None:  # fmt: skip
        self.photos, self.out, self.number, self.writer = photos, out, number, writer
        self.representation, self.command = representation, command
        self.some = photos.on_page()  # (n,) numbers of the page's images
        self.image = photos.image[self.some]  # (n, D) or (n, Q, D)
        self.views = [photos.universal, *map(self._with_number, views)]
        self.versions = [0] * len(self.views)  # of each view; another after each edit

    def page(self) -> str:
        """The page as things are now."""
        panels = [self._panel(k) for k in range(len(self.views))]
        places = [f"pictures/{i}" for i in self.some]
        served = {"writer": self.writer is not None}
        return self.photos.page(self.some, places, self.views[1:], panels, self.command, served)

    def _with_number(self, view: View) -> View:
        """The number of clusters is known, and stays while words change."""
        number = self.number or view.edits.number or find_clusters(view.points).label.max() + 1
        return view.with_edits(number=int(number))

    def _panel(self, k: int) -> dict[str, Any]:
        view = self.views[k]
        panel = view.quick_panel(self.some, self.number if k == 0 else None)
        if "map" in vars(view):  # it has been computed meanwhile
            panel["points"] = view.map[self.some]
        edits = {"number": view.edits.number, "none": view.edits.none, "undo": len(view.edits.done)}
        more = {"version": self.versions[k], "mapped": "map" in vars(view)}
        return {**panel, "served": edits | more}

    def _patch(self, k: int) -> dict[str, Any]:
        """What replaces panel `k` of the page."""
        panel = self._panel(k)
        return {**plain(panel, MOST_STANDING // len(self.views)), **_placed(panel["points"])}

    def _criterion(self, k: int, version: int) -> View:
        if k == 0:
            raise UserError("without a criterion there is nothing to edit")
        return self.view(k, version)

    def _replace(self, k: int, view: View) -> dict[str, Any]:
        """Compute all that the page shows of the view, then write it, then answer."""
        _ = view.groups(), view.best
        basis, file = view.basis, self.out / "texts" / f"{slug(view.name)}.yaml"
        if basis != self.views[k].basis:
            basis.save(file)
        view.edits.save(self.out, view.name)
        self.views[k], self.versions[k] = view, self.versions[k] + 1
        return self._patch(k)

    @validate_call
    def search(
        self, panel: Number, text: str = "", more: Images = (), less: Images = (),
        weights: dict[Number, FiniteFloat] | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """The images that have most of a text under a criterion (panel 0: none); or that are like
        the mean of `more` and unlike that of `less`, under other criteria too, with weights (below
        0: unlike): number of a panel -> weight."""
        if bool(text.strip()) == bool(more or less):
            raise UserError("type a text, or choose pictures; not both")
        if text.strip():
            criteria = [self.views[panel].of_text(checked_texts([text])[0])]
        else:
            weights = {k: w for k, w in ({panel: 1.0} | (weights or {})).items() if w}
            if not weights:
                raise UserError("all weights are 0; give one criterion another weight")
            rows, others = self.some[list(more)], self.some[list(less)]
            views = [(self.views[k], weight) for k, weight in weights.items()]
            criteria = [Criterion(v.transform, example(v.x, rows, others), w) for v, w in views]
        matches = search(self.image, criteria, RESULTS + len(more))
        rows, scores = matches.rows[0], matches.scores[0]
        others = ~np.isin(rows, more)
        return {"images": rows[others].tolist(), "scores": scores[others].tolist()}

    @validate_call
    def ends(self, panel: Number, text: str) -> dict[str, Any]:
        """How many images match a text, see `crl.explore.ends`; null if it cannot be told, or if
        the page shows a sample. And a line that says so."""
        number, note = self.views[panel].matching(text)
        return {
            "number": number if len(self.some) == len(self.photos.files) else None,
            "note": note,
        }

    @validate_call
    def near(self, image: Number) -> dict[str, Any]:
        """The images nearest to one under each criterion, and the words that both stand out by."""
        answer = []
        for view in self.views:
            similarity = view.x[self.some] @ view.x[self.some[image]]  # (n,)
            similarity[image] = -np.inf
            near = most(similarity[None], min(NEIGHBOURS, len(similarity) - 1))[0]
            both = view.standing[self.some[[image, *near]]]
            words = shared_words(both, np.arange(1, len(both))[None])[0]  # (8, 3)
            answer.append({"images": near.tolist(), "words": [list(view.words[w]) for w in words]})
        return {"panels": answer}

    @validate_call
    def words(
        self, panel: Number, version: int, strike: Sequence[str] = (), add: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Strike texts out of a criterion, and add others. To merge two is to strike both and to
        add one text, "a or b": a text like any other, so that the YAML file says it all."""
        view, photos = self._criterion(panel, version), self.photos
        _ = photos.embedder  # a UserError, if no VLM is known
        if not (strike or add):
            raise UserError("type a word first")
        texts = [text for text in view.basis.texts if text not in strike] + checked_texts(add)
        if len(texts) < 2:
            raise UserError("a criterion needs 2 texts or more")
        provenance = {**view.basis.provenance, EDITED: date.today().isoformat()}
        changes = {"texts": texts, "provenance": provenance}
        basis = TextBasis.model_validate({**dict(view.basis), **changes})
        kind = view.representation
        return self._replace(panel, photos.under(basis, kind, view.name, edits=view.edits))

    @validate_call
    def clusters(
        self, panel: Number, version: int, do: Literal["name", "merge", "split"],
        groups: list[Number], name: str = "",
    ) -> dict[str, Any]:  # fmt: skip
        """Name, merge or split clusters, by their numbers."""
        view = self._criterion(panel, version)
        now = view.groups()
        if any(now.titles[c] == FITS_NONE for c in groups):
            raise UserError(f"{FITS_NONE} is no cluster of pictures that are alike; it stays")
        if do == "merge" and len(set(groups)) < 2:
            raise UserError("choose two groups or more to merge")
        digests, label = self.photos.digests, now.clusters.label
        sketches = tuple(sketch(digests[label == c]) for c in groups)
        edit = Edit(do=do, groups=sketches, name=" ".join(name.split()))
        other = view.with_edits(done=(*view.edits.done, edit))
        if do == "split" and len(other.groups().titles) == len(now.titles):
            raise UserError("the pictures of this group are too few or too much alike to split")
        return self._replace(panel, other)

    @validate_call
    def grouping(
        self, panel: Number, version: int, number: int | None = None, anew: bool = False,
        none: bool | None = None, undo: bool = False,
    ) -> dict[str, Any]:  # fmt: skip
        """Another number of clusters, or one chosen anew; whether pictures that no word fits are a
        group of their own; or without the last edit."""
        view = self._criterion(panel, version)
        changes: dict[str, Any] = {"none": view.edits.none if none is None else none}
        if number or anew:
            changes["number"] = number or int(find_clusters(view.points).label.max()) + 1
        if undo:
            changes["done"] = view.edits.done[:-1]
        return self._replace(panel, view.with_edits(**changes))

    @validate_call
    def check_name(self, name: str) -> dict[str, Any]:
        """A UserError if a new criterion cannot have this name."""
        if not slug(name) or len(name) > 60:
            raise UserError("name the criterion: 1 to 60 letters or digits")
        if slug(name) in {slug(view.name) for view in self.views}:
            raise UserError(f"there is a criterion {name!r} already; choose another name")
        if (file := self.out / "texts" / f"{slug(name)}.yaml").exists():
            raise UserError(f"{file} is there already: start with --add, or choose another name")
        return {}

    def write(self, name: str) -> TextBasis:
        """The texts of a criterion, by the language model: takes minutes."""
        if self.writer is None:
            raise UserError("no language model was given; type the words, or start with --llm")
        return self.writer(name)

    @validate_call
    def criterion(self, name: str, texts: list[str]) -> dict[str, Any]:
        """A new criterion with these texts."""
        self.check_name(name)
        if len(texts) < 2:
            raise UserError("type two words or more that describe it")
        return self.add(TextBasis.of(checked_texts(texts), " ".join(name.split())))

    def add(self, basis: TextBasis) -> dict[str, Any]:
        self.check_name(basis.criterion)
        view = self._with_number(self.photos.under(basis, self.representation))
        basis.save(self.out / "texts" / f"{slug(view.name)}.yaml")
        view.edits.save(self.out, view.name)
        self.views.append(view)
        self.versions.append(0)
        return {"panels": len(self.views)}

    @validate_call
    def view(self, panel: Number, version: int) -> View:
        if version != self.versions[panel]:
            raise UserError("this was changed meanwhile, in another window; reload the page")
        return self.views[panel]

    def map(self, panel: int, version: int) -> dict[str, Any]:
        """The t-SNE map of a panel; takes long, unless `serve.map_in_advance` has computed it."""
        return _placed(self.view(panel, version).map[self.some])


def example(x: np.ndarray, more: np.ndarray, less: np.ndarray) -> np.ndarray:
    """(1, F): the mean of some rows of x (N, F), minus that of others, of unit length."""
    liked, unliked = (x[rows].sum(axis=0) / max(1, len(rows)) for rows in (more, less))
    return l2((liked - unliked)[None])


def _placed(points: np.ndarray) -> dict[str, Any]:
    x, y = points.T
    return {"x": encoded(x), "y": encoded(y), "limits": limits(points)}
