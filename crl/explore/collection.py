"""A folder of images, looked at under criteria of one's own:

    photos = Collection.embed("~/pictures", vlm="clip")  # the files and I
    mood = photos.under("my_bases/mood.yaml")            # R = I Tᵀ, and its words

A thin layer: each step is a function of another module. What a view can do is in `view`.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import cached_property, partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd
from pydantic import ValidationError

from crl.basis import TextBasis, basis_label
from crl.embed import checked_basis, embed_basis, embed_images, embed_texts
from crl.explore import listing
from crl.explore.copies import near_copies
from crl.explore.criteria import most_alike, rank_criteria, told_apart
from crl.explore.edits import Edits
from crl.explore.labels import Guesses
from crl.explore.sources import picture_folder
from crl.explore.thumbnails import SIDE, Thumbnail, gray, made_meanwhile, thumbnails
from crl.explore.view import View
from crl.images import list_images, shown
from crl.projection import l2, parts, single_vector
from crl.representations import make_representation
from crl.run.errors import UserError, explain, nearest
from crl.run.files import CACHE, portable, write_text
from crl.run.given import checked, read_given
from crl.run.results import digest
from crl.run.stamps import read_record, settled_stamps, write_record
from crl.run.store import content_digest, digest_array, open_store
from crl.vlm import VLM, load_vlm

MOST_ON_PAGE = 5_000  # images; a page with more is slow to open
DRAWN = ".drawn.json"  # in the folders of the demo's data
BANNER = ("Made with the demo VLM, which has seen nothing but its own drawings. On these pictures "
          "its words mean nothing; use another one (--vlm, see the README).")  # fmt: skip


@dataclass(frozen=True, eq=False)
class Collection:
    """N image files and their embeddings. Images that were embedded before need not be here."""

    folder: Path  # the images are in it, at any depth
    files: list[Path] = field(repr=False)
    image: np.ndarray = field(repr=False)  # I, (N, D), or (N, Q, D); unit rows
    digests: np.ndarray = field(repr=False)  # (N,) of the files' contents, 16 bytes each
    vlm: VLM | None  # what embedded them, and embeds the texts; None: unknown
    left_out: list[str] = field(default_factory=list, repr=False)  # what, and why
    texts: tuple[TextBasis, np.ndarray] | None = field(default=None, repr=False)  # given, with T
    title: str = ""  # the folder, archive or data set as it was named; "": `folder`

    @classmethod
    def embed(
        cls, folder: Path | str, vlm: str | VLM = "clip", device: str | None = None,
        precision: str = "auto", decode: str = "fast", **settings: Any,
    ) -> "Collection":  # fmt: skip
        """Embed the images below `folder`, or in what stands for one (`crl.explore.sources`): a zip
        or tar archive, or `hf:OWNER/NAME[:split[:column]]`, a data set of the Hugging Face Hub.
        Files that cannot be read are left out. A second call embeds only what is new. `vlm` is a
        VLM, or its name: then `device`, `precision` and `decode` are as in `load_vlm`; `settings`
        are those of `embed_images`, e.g. batch_size, workers, cache. Thumbnails come from the same
        decoding."""
        images = list_images(picture_folder(folder))
        left_out = images.remarks()
        if isinstance(vlm, str):
            vlm = load_vlm(vlm, device, precision, decode=decode)
        record = CACHE / "digests" / f"{digest(str(images.folder.resolve()))}.json"
        former, stamps = read_record(record), settled_stamps(images.files)  # before they are read
        known = {name: bytes.fromhex(hexes) for name, (stamp, hexes) in former.items()
                 if stamp == stamps.get(name)}  # fmt: skip
        with made_meanwhile(images.folder) as seen:
            how = {"unreadable": "skip", "known": known, "seen": seen, **settings}
            embedded = embed_images(vlm, images.files, **how)
        bad = [f"{shown(str(f))} ({reason})" for f, reason in embedded.unreadable.items()]
        left_out += [f"{len(bad)} could not be read, the first: {bad[0]}"] if bad else []
        files = [images.files[i] for i in embedded.kept]
        pairs = zip(map(str, files), embedded.digests.tolist(), strict=True)
        latter = {name: [stamps[name], key.hex()] for name, key in pairs if name in stamps}
        write_record(record, latter)
        image, digests, title = embedded.image, embedded.digests, shown(Path(folder).expanduser())
        return cls(images.folder, files, image, digests, vlm, left_out, title=title)

    @classmethod
    def load(
        cls, folder: Path | str, vlm: str | VLM | None = None, device: str | None = None
    ) -> "Collection":
        """The images that `crl embed` has embedded into `folder`; no image is read. `vlm`
        is the one that made them, which embeds the texts; None: the one that `folder` names."""
        folder = Path(folder).expanduser()
        paths, digests, about = listing.read_listing(folder / listing.NAME)
        if vlm is None or isinstance(vlm, str):
            how = about.precision, vlm is None, about.decode
            vlm = load_vlm(vlm or about.vlm, device, *how)
        if vlm.fingerprint != about.fingerprint:
            made = f"{about.vlm} in {about.precision}, decode={about.decode}, {about.fingerprint}"
            advice = "use that, or run `crl embed` again"
            raise UserError(f"{folder} holds embeddings by {made}, not {vlm.fingerprint}: {advice}")
        with open_store(vlm, "image", folder) as store:
            image = store.gather(digests)
        if image is None:
            raise UserError(f"{folder} lacks some embeddings; run `crl embed` again")
        for rows in parts(len(image)):
            image[rows] = l2(image[rows])
        files = [Path(p) if "://" in p else Path(about.root, p).absolute() for p in paths]
        return cls(_above(files), files, image, digests, vlm)

    @classmethod
    def given(
        cls, features: Path | str, vlm: str | VLM | None = None, folder: Path | str = ".",
        device: str | None = None,
    ) -> "Collection":  # fmt: skip
        """Images whose embeddings were made elsewhere, in a file of `crl.run.given`: `ids` (N,),
        the names of their files, and `image`, (N, D) or (N, Q, D); `text` (K, D) and `texts` (K,)
        if it holds a criterion too. `vlm` is what made them, to embed texts; `folder` is where
        relative names start."""
        file, texts = Path(features), None
        arrays = read_given([file])
        more = {"text": "K D", "texts": "K"} if "text" in arrays else {}
        arrays = checked([file], arrays, image="N D|N Q D", ids="N", **more)
        ids, image = [str(name) for name in arrays["ids"].tolist()], l2(arrays["image"])
        if more:
            try:
                basis = TextBasis(
                    criterion=file.stem, vlm_prompt="{text}", allow_repeats=True,
                    texts=arrays["texts"].tolist(), provenance={"source": str(file)},
                )  # fmt: skip
            except ValidationError as error:
                raise UserError(f"{file}: {explain(error)}") from error
            texts = basis, checked_basis(str(file), l2(arrays["text"]))
        vlm = load_vlm(vlm, device) if isinstance(vlm, str) else vlm
        if vlm is not None and vlm.dim != image.shape[-1]:
            raise UserError(f"{vlm.name} gives {vlm.dim} numbers and {file} holds "
                            f"{image.shape[-1]}: another VLM made them")  # fmt: skip
        digests = digest_array(content_digest(row.tobytes()) for row in image)
        start = Path(folder).expanduser().absolute()
        files = [start / name for name in ids]
        inside = all(file.is_relative_to(start) for file in files)
        return cls(start if inside else _above(files), files, image, digests, vlm, texts=texts)

    @property
    def embedder(self) -> VLM:
        """The VLM that embeds texts and other images; a UserError if it is not known."""
        if self.vlm is None:
            raise UserError("to embed more, name the VLM that made the embeddings (--vlm)")
        return self.vlm

    def under(
        self, basis: TextBasis | Path | str | Sequence[str] | None = None,
        representation: str = "posterior", name: str | None = None,
        labels: Mapping[str, str] | None = None, others: Sequence[TextBasis] = (),
        edits: Edits | None = None,
    ) -> View:  # fmt: skip
        """The collection under one criterion: a text basis, its file, the name of one in
        configs/bases, or texts, `under(["calm", "tense"], name="mood")`; None: the one that came
        with the images, see `given`. `representation` is a name of `crl.representations`; `name`
        stands in tables, None: the name of the basis. Some representations need `labels` of a few
        images, file name -> label, or the bases of `others`, other criteria. `edits` are those of
        its clusters by hand (`crl.explore.edits`)."""
        if basis is None:
            if self.texts is None:
                raise UserError("name a basis; no texts came with the images")
            basis, text = self.texts
        else:
            if isinstance(basis, Sequence) and not isinstance(basis, str):
                basis = TextBasis.of(basis, name or "look")
            elif not isinstance(basis, TextBasis):
                name = name or basis_label(basis).rpartition("/")[2]
                basis = TextBasis.load(basis)
            text = embed_basis(self.embedder, basis)  # T (K, D)
        y = None if labels is None else self.classes(labels)
        given = [embed_basis(self.embedder, basis) for basis in others]
        make = partial(make_representation, representation, others=given)
        transformer = make(text=text)
        x = transformer.fit_transform(self.image, y)  # R = I Tᵀ
        return View(
            self, name or basis.criterion, x, basis, text, transformer, representation,
            lambda **options: make(**options).fit(self.image, y), edits or Edits(),
        )  # fmt: skip

    def classes(self, labels: Mapping[str, str]) -> np.ndarray:
        """(N,) the class number of each image, of `labels`: file name -> label; -1: it has none."""
        y = np.full(len(self.files), -1)
        kinds = np.unique(list(labels.values()), return_inverse=True)[1]
        y[[self.place(name) for name in labels]] = kinds
        return y

    @cached_property
    def universal(self) -> View:
        """The collection under no criterion: I itself, (N, D)."""
        return View(self, "universal", single_vector(self.image))

    def rank(self, bases: Mapping[str, TextBasis], top: int = 15) -> pd.DataFrame:
        """Which criterion do these images vary in? The best first: columns criterion, nats (see
        `rank_criteria`), and of the `top` ones like, ami: the one above that groups the images most
        alike, and how much (see `most_alike`). Texts that the VLM cannot tell from another of the
        same criterion do not count; a criterion without two others has no place."""
        prompts = {name: list(dict.fromkeys(basis.prompts)) for name, basis in bases.items()}
        all_rows = embed_texts(self.embedder, [p for some in prompts.values() for p in some])
        ends = np.cumsum([len(some) for some in prompts.values()])
        apart = zip(prompts, map(told_apart, np.split(all_rows, ends[:-1])), strict=True)
        text = {name: rows for name, rows in apart if len(rows) > 1}
        if not text:
            raise UserError(f"{self.embedder.name} can tell the texts of no criterion apart")
        nats = rank_criteria(self.image, text)
        alike = most_alike(self.image, {name: text[name] for name in list(nats)[:top]})
        rows = [(name, score, *(alike.get(name) or ("", np.nan))) for name, score in nats.items()]
        return pd.DataFrame(rows, columns=["criterion", "nats", "like", "ami"])

    def remarks(self) -> list[str]:
        """What was left out of the folder and why, and which images are copies."""
        copies = np.flatnonzero(self.first != np.arange(len(self.files)))
        pairs = [f"{self.names[i]} (of {self.names[self.first[i]]})" for i in copies[:3]]
        named = ", ".join(pairs) + ", ..." * (len(copies) > 3)
        remark = [f"copies of other images: {len(copies)}, {named}"] if len(copies) else []
        return [*self.left_out, *remark]

    @cached_property
    def first(self) -> np.ndarray:
        """(N,) the number of the first image with the same content: itself, if it is no copy."""
        _, first, place = np.unique(self.digests.view("S16"), True, True)
        return first[place]

    @cached_property
    def near(self) -> np.ndarray:
        """(N,) the number of the first image that each is nearly the same as: itself, if it is no
        copy or not here. See `crl.explore.copies`."""
        near, present = np.arange(len(self.files)), np.array([t.width > 0 for t in self.thumbnails])
        if present.any():
            rows = np.flatnonzero(present)
            near[rows] = rows[near_copies([self.thumbnails[i].webp for i in rows])]
        return near

    def once(self) -> "Collection":
        """The collection without near copies of other images."""
        rows = np.flatnonzero(self.near == np.arange(len(self.files)))
        files, count = [self.files[i] for i in rows], len(self.files) - len(rows)
        left_out = [*self.left_out, *([f"near copies of other images: {count}"] if count else [])]
        image, digests = self.image[rows], self.digests[rows]
        return replace(self, files=files, image=image, digests=digests, left_out=left_out)

    @cached_property
    def thumbnails(self) -> list[Thumbnail]:
        """N small pictures, with the sizes of the images; gray for an image that is not here."""
        pictures = self._small([i for i, file in enumerate(self.files) if file.is_file()])
        blank = gray()
        return [pictures.get(i, blank) for i in range(len(self.files))]

    def _small(self, images: list[int], side: int = SIDE) -> dict[int, Thumbnail]:
        files, digests = [self.files[i] for i in images], self.digests.view("V16")[images].tolist()
        pictures = thumbnails(files, digests, self.folder, side=side)
        return dict(zip(images, pictures, strict=True))

    def _previews(self, some: np.ndarray) -> dict[int, bytes]:
        """Larger pictures of those of `some` images (n,) that browsers cannot show, by their place
        in `some`. They have 130 million pixels in all, about 13 MB."""
        places = [k for k, i in enumerate(some) if not self.thumbnails[i].in_browsers]
        side = min(512, 32 * int(360 / max(1, len(places)) ** 0.5))
        pictures = self._small(some[places].tolist(), side)
        return {k: pictures[some[k]].webp for k in places}

    @cached_property
    def names(self) -> list[str]:
        return [shown(file.relative_to(self.folder)) for file in self.files]

    @cached_property
    def _places(self) -> dict[str, int]:
        paths = {str(file.absolute()): i for i, file in enumerate(self.files)}
        exact = paths | {name: place for place, name in enumerate(self.names)}
        return {portable(name): place for name, place in exact.items()} | exact

    def find(self, name: str | Path) -> int | None:
        """The number of an image, given by its name below `folder` or by its path, as any system
        writes it; None: none."""
        exact = [str(name), str(Path(name).expanduser().absolute())]
        forms = [*exact, *map(portable, exact)]
        return next((self._places[form] for form in forms if form in self._places), None)

    def place(self, name: str | Path) -> int:
        """The number of an image; a UserError if there is none."""
        if (place := self.find(name)) is None:
            hint = nearest(shown(name), self.names[:10_000])
            hint = hint if hint.startswith("did") else "images.csv has their names"
            raise UserError(
                f"{shown(name)} is no image of {self.title or shown(self.folder)}; {hint}"
            )
        return place

    def report(
        self, file: Path | str, views: Sequence[View] = (), number: int | None = None,
        guesses: Mapping[str, Guesses] | None = None, command: str = "",
    ) -> None:  # fmt: skip
        """Write one HTML page that works without a network: maps, clusters, neighbours, labels. It
        shows at most `MOST_ON_PAGE` images, a random sample if there are more. `number` of
        clusters, None: chosen by silhouette; `guesses` by name of the view; `command` made it."""
        file, all_views, guesses = Path(file), [self.universal, *views], guesses or {}
        some = self.on_page()
        panels = [view.panel(some, number, guesses.get(view.name)) for view in all_views]
        places = [_link(self.files[i], file) for i in some]
        write_text(file, self.page(some, places, views, panels, command))

    def on_page(self) -> np.ndarray:
        """(n,) The numbers of the images on a page, in order: at most `MOST_ON_PAGE`."""
        return np.sort(np.random.default_rng(0).permutation(len(self.files))[:MOST_ON_PAGE])

    def page(
        self, some: np.ndarray, places: list[str], views: Sequence[View], panels: list[dict],
        command: str, served: dict[str, Any] | None = None,
    ) -> str:  # fmt: skip
        """The page that shows `some` images (n,), whose files are at `places`; `panels` are those
        of the universal view and `views`. `served` is what the page of a server needs."""
        from crl.explore.page import make_page  # takes seconds to import

        count, folder = len(self.files), self.folder.resolve()
        sample = f"{len(some):,} of {count:,} pictures, a random sample"
        drawn = any((above / DRAWN).is_file() for above in [folder, *folder.parents])
        demo = self.vlm is not None and self.vlm.name == "demo"
        return make_page(
            title=self.title or shown(self.folder), facts=self._facts(views, command),
            names=[self.names[i] for i in some], places=places,
            thumbnails=[self.thumbnails[i] for i in some], panels=panels,
            banner=BANNER if demo and not drawn else "", sample=sample if len(some) < count else "",
            copies=self.first[some].tolist(), previews=self._previews(some), served=served,
        )  # fmt: skip

    def _facts(self, views: Sequence[View], command: str) -> dict[str, str]:
        facts = {
            "Folder": shown(self.folder.resolve()),
            "Pictures": f"{len(self.files):,}",
            "Remarks": "; ".join(self.remarks()),
            "VLM": f"{self.vlm.name} ({self.vlm.fingerprint})" if self.vlm else "not known",
            "Made": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
            "Command": command,
        }
        for basis, name in [(view.basis, view.name) for view in views if view.basis]:
            writer = basis.provenance.get("llm") or basis.provenance.get("source") or "a file"
            more = f"texts from {writer}; the VLM reads {basis.prompts[0]!r}"
            facts[f"Texts: {name}"] = f"{len(basis.texts):,} {more}"
        return {name: value for name, value in facts.items() if value}


def _above(files: list[Path]) -> Path:
    """The folder of all files: what the first and the last in order begin with, all do."""
    return Path(os.path.commonpath([f.parent for f in (min(files, key=str), max(files, key=str))]))


def _link(image: Path, page: Path) -> str:
    return quote(os.fsencode(os.path.relpath(image.absolute(), page.absolute().parent)))
