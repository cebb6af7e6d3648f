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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from pydantic import ValidationError

from crl.basis import TextBasis, basis_label
from crl.embed import checked_basis, embed_basis, embed_images
from crl.explore import listing
from crl.explore.criteria import rank_criteria
from crl.explore.labels import Guesses
from crl.explore.thumbnails import Thumbnail, gray, thumbnails
from crl.explore.view import View
from crl.images import list_images, shown
from crl.projection import l2, parts, single_vector
from crl.representations import fit_representation
from crl.representations import names as representations
from crl.run.errors import UserError, explain, nearest
from crl.run.given import checked, read_given
from crl.run.store import content_digest, digest_array, open_store
from crl.vlm import VLM, load_vlm

LISTED = 5  # names of files in a message
MOST_ON_PAGE = 5_000  # images; a page with more is slow to open
DRAWN = ".drawn.json"  # in the folders of the demo's data
BANNER = (
    "Made with the demo VLM, which has seen nothing but its own drawings. On these pictures its "
    "words mean nothing; use another one (--vlm, see the README)."
)


@dataclass(frozen=True, eq=False)
class Collection:
    """Image files and their embeddings.

    Attributes:
        folder: the images are in it, at any depth.
        files: N image files.
        image: I, (N, D), or (N, Q, D) for a VLM with Q vectors per image; unit rows.
        digests: (N,) digests of the files' contents, 16 bytes each.
        vlm: what embedded them, and embeds the texts; None: unknown.
        left_out: what in the folder is no image, or cannot be read; one text each.
        sizes: (N, 2) widths and heights in pixels, for images that need not be here; 0: unknown.
        texts: a basis that came with the images, and its T (K, D).
    """

    folder: Path
    files: list[Path] = field(repr=False)
    image: np.ndarray = field(repr=False)
    digests: np.ndarray = field(repr=False)
    vlm: VLM | None
    left_out: list[str] = field(default_factory=list, repr=False)
    sizes: np.ndarray | None = field(default=None, repr=False)
    texts: tuple[TextBasis, np.ndarray] | None = field(default=None, repr=False)

    @classmethod
    def embed(cls, folder: Path | str, vlm: str | VLM = "clip", **settings: Any) -> "Collection":
        """Embed the images below `folder`; files that cannot be read are left out.

        A second call embeds only what is new.

        Args:
            vlm: a name, as in `load_vlm`, or a VLM.
            settings: of `embed_images`, e.g. batch_size, workers, cache.

        Raises:
            UserError: no such folder, no image that can be read, unknown VLM.
        """
        images = list_images(folder)
        left_out = images.remarks()
        if not images.files:
            raise UserError("; ".join([f"there are no images in {folder}", *left_out]))
        vlm = load_vlm(vlm) if isinstance(vlm, str) else vlm
        embedded = embed_images(vlm, images.files, unreadable="skip", **settings)
        if embedded.unreadable:
            some = [
                f"{shown(file.relative_to(images.folder))} ({reason})"
                for file, reason in embedded.unreadable.items()
                if isinstance(file, Path)
            ]
            more = " ..." if len(some) > LISTED else ""
            left_out.append(f"{len(some)} could not be read: {', '.join(some[:LISTED])}{more}")
        files = [images.files[i] for i in embedded.kept]
        return cls(images.folder, files, embedded.image, embedded.digests, vlm, left_out)

    @classmethod
    def load(cls, folder: Path | str, vlm: str | VLM | None = None) -> "Collection":
        """The images that scripts/embed_ray.py has embedded into `folder`; no image is read.

        Args:
            vlm: the one that made them, which embeds the texts: a name, as in `load_vlm`, or a VLM;
                None: as `crl.explore.listing` says.

        Raises:
            UserError: no such files, damaged ones, or ones of another VLM.
        """
        folder = Path(folder).expanduser()
        paths, digests, about = listing.read_listing(folder / listing.NAME)
        if vlm is None or isinstance(vlm, str):
            vlm = load_vlm(vlm or about.vlm, None, about.precision, from_file=vlm is None)
        if vlm.fingerprint != about.fingerprint:
            raise UserError(
                f"the embeddings in {folder} are of {about.vlm} in {about.precision}, fingerprint "
                f"{about.fingerprint}; the VLM in use has {vlm.fingerprint}: use the same VLM"
            )
        with open_store(vlm, "image", folder) as store:
            image = store.gather(digests)
        if image is None:
            raise UserError(
                f"{folder} lacks some of its embeddings; run scripts/embed_ray.py again"
            )
        for rows in parts(len(image)):
            image[rows] = l2(image[rows])
        files = [Path(p) if "://" in p else Path(about.root, p).absolute() for p in paths]
        sizes = np.zeros((len(files), 2), int)
        return cls(_above(files), files, image, digests, vlm, sizes=sizes)

    @classmethod
    def given(
        cls, features: Path | str, vlm: str | VLM | None = None, folder: Path | str = "."
    ) -> "Collection":
        """Images whose embeddings were made elsewhere, in a file of `crl.run.given`: `ids` (N,),
        the names of their files, and `image`, (N, D) or (N, Q, D); `text` (K, D) and `texts` (K,)
        if it holds a criterion too. The images need not be here.

        Args:
            vlm: what made the embeddings, to embed texts: a name, as in `load_vlm`, or a VLM.
            folder: where relative names start.

        Raises:
            UserError: no such file, a damaged one, or arrays that do not fit.
        """
        file = Path(features)
        arrays = read_given([file])
        shapes = {"image": "N D|N Q D", "ids": "N"}
        if "text" in arrays:
            shapes |= {"text": "K D", "texts": "K"}
        arrays = checked([file], arrays, **shapes)
        ids, image = [str(name) for name in arrays["ids"].tolist()], l2(arrays["image"])
        digests = digest_array(
            content_digest(name.encode() + row.tobytes())
            for name, row in zip(ids, image, strict=True)
        )
        texts = None
        if "text" in arrays:
            texts = _basis(file, arrays["texts"]), checked_basis(str(file), l2(arrays["text"]))
        vlm = load_vlm(vlm) if isinstance(vlm, str) else vlm
        if vlm is not None and vlm.dim != image.shape[-1]:
            raise UserError(f"{vlm.name} gives {vlm.dim} numbers and {file} holds "
                            f"{image.shape[-1]}: another VLM made them")  # fmt: skip
        start = Path(folder).expanduser().absolute()
        files = [start / name for name in ids]
        if not all(file.is_relative_to(start) for file in files):
            start = _above(files)
        sizes = np.zeros((len(files), 2), int)
        return cls(start, files, image, digests, vlm, sizes=sizes, texts=texts)

    @property
    def embedder(self) -> VLM:
        """The VLM that embeds texts and other images.

        Raises:
            UserError: it is not known.
        """
        if self.vlm is None:
            raise UserError("to embed more texts or images, name the VLM that made the embeddings "
                            "(--vlm)")  # fmt: skip
        return self.vlm

    def under(
        self,
        basis: TextBasis | Path | str | None = None,
        representation: str = "posterior",
        name: str | None = None,
    ) -> View:
        """The collection under one criterion.

        Args:
            basis: a text basis, its file, or the name of one in configs/bases; None: the one that
                came with the images, see `given`.
            representation: a name of `crl.representations`, e.g. `paper` (unit rows of R) or
                `posterior` (R').
            name: of the criterion in tables; None: the name of the basis.

        Raises:
            UserError: no such basis or representation, or texts that all look the same to the VLM.
        """
        if representation not in representations():
            hint = nearest(representation, representations())
            raise UserError(f"unknown representation {representation!r}; {hint}")
        if basis is None and self.texts is not None:
            basis, text = self.texts
        elif basis is None:
            raise UserError("name a basis; no texts came with the images")
        else:
            if not isinstance(basis, TextBasis):
                name = name or basis_label(basis).rpartition("/")[2]
                basis = TextBasis.load(basis)
            text = embed_basis(self.embedder, basis)  # T (K, D)
        transformer = fit_representation(representation, self.image, text)
        x = transformer.transform(self.image)  # R = I Tᵀ
        return View(self, name or basis.criterion, x, basis, text, transformer, representation)

    @cached_property
    def universal(self) -> View:
        """The collection under no criterion: I itself, (N, D)."""
        return View(self, "universal", single_vector(self.image))

    def rank(self, bases: Mapping[str, TextBasis]) -> dict[str, float]:
        """Which criterion do these images vary in? See `crl.explore.criteria`."""
        text = {name: embed_basis(self.embedder, basis) for name, basis in bases.items()}
        return rank_criteria(self.image, text)

    # ---- files ----

    def remarks(self) -> list[str]:
        """What was left out of the folder and why, and how many copies there are; one text each."""
        copies = len(self.files) - len(np.unique(self.digests.view("S16")))
        return [*self.left_out, *([f"copies of other images: {copies}"] if copies else [])]

    @cached_property
    def thumbnails(self) -> list[Thumbnail]:
        """N small pictures, with the sizes of the images; see `crl.explore.thumbnails`. An image
        that is not here is a gray one."""
        present = [i for i, file in enumerate(self.files) if self.sizes is None or file.is_file()]
        files, digests = [self.files[i] for i in present], self.digests.view("V16")[present]
        small = dict(zip(present, thumbnails(files, digests.tolist(), self.folder), strict=True))
        return [small.get(i) or gray(*self.sizes[i].tolist()) for i in range(len(self.files))]

    @cached_property
    def names(self) -> list[str]:
        """N file names below `folder`, as text."""
        return [shown(file.relative_to(self.folder)) for file in self.files]

    @cached_property
    def _places(self) -> dict[str | Path, int]:
        """Name, or path -> number of an image."""
        paths: dict[str | Path, int] = {file.absolute(): i for i, file in enumerate(self.files)}
        return paths | {name: place for place, name in enumerate(self.names)}

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

    # ---- the page ----

    def report(
        self,
        file: Path | str,
        views: Sequence[View] = (),
        number: int | None = None,
        guesses: Mapping[str, Guesses] | None = None,
        command: str = "",
    ) -> None:
        """Write one HTML page that works without a network: maps, clusters, neighbours, labels.

        It shows at most `MOST_ON_PAGE` images, a random sample if there are more; it says so.

        Args:
            number: of clusters; None: chosen by silhouette.
            guesses: name of a view -> labels. command: what made the page.
        """
        from crl.explore.page import write_page  # takes seconds to import

        file, count = Path(file), len(self.files)
        some = np.sort(np.random.default_rng(0).permutation(count)[:MOST_ON_PAGE])
        sample = f"{len(some):,} of {count:,} pictures, a random sample"
        small = [self.thumbnails[i] for i in some]
        folders = [self.folder.resolve(), *self.folder.resolve().parents]
        drawn = any((folder / DRAWN).is_file() for folder in folders)
        demo = self.vlm is not None and self.vlm.name == "demo"
        write_page(
            file,
            title=shown(self.folder),
            facts=self.facts(views, command),
            names=[self.names[i] for i in some],
            places=[_link(self.files[i], file) for i in some],
            sizes=np.array([[picture.width, picture.height] for picture in small]),
            thumbnails=[picture.webp for picture in small],
            panels=[
                view.panel(some, number, (guesses or {}).get(view.name))
                for view in [self.universal, *views]
            ],
            banner=BANNER if demo and not drawn else "",
            sample=sample if len(some) < count else "",
        )

    def facts(self, views: Sequence[View], command: str = "") -> dict[str, str]:
        """What a reader of the page must know to trust it, or to make it again."""
        facts = {
            "Folder": shown(self.folder.resolve()),
            "Pictures": f"{len(self.files):,}",
            "Remarks": "; ".join(self.remarks()),
            "VLM": f"{self.vlm.name} ({self.vlm.fingerprint})" if self.vlm else "not known",
            "Made": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
            "Command": command,
            **{f"Texts: {view.name}": view.origin for view in views},
        }
        return {name: value for name, value in facts.items() if value}


def _basis(file: Path, texts: np.ndarray) -> TextBasis:
    """The basis of texts (K,) that came with embeddings."""
    source = {"source": str(file)}
    try:
        return TextBasis(criterion=file.stem, vlm_prompt="{text}", allow_repeats=True,
                         texts=tuple(map(str, texts.tolist())), provenance=source)  # fmt: skip
    except ValidationError as error:
        raise UserError(f"{file}: {explain(error)}") from error


def _above(files: Iterable[Path]) -> Path:
    """The folder that all files are in: what the first and the last name in order begin with, all
    do."""
    return Path(os.path.commonpath([f.parent for f in (min(files, key=str), max(files, key=str))]))


def _link(image: Path, page: Path) -> str:
    """A link from the page to an image file."""
    relative = os.path.relpath(image.absolute(), page.absolute().parent)
    return quote(os.fsencode(relative))
