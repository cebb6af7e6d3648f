"""Which of the paper's data sets are there and complete, and where to get the others.

    python scripts/check_data.py
    python scripts/check_data.py --data elsewhere/data

Files are counted, and texts (labels, templates, splits) are read; no image is opened. A data set
that is not there is no mistake. Exit code 2: one that is there is incomplete or broken. Exact
checks of a single data set: similarity_retrieval/datasets.py, fashion_retrieval/datasets.py.
"""

from crl.run.command import command

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import classification_clustering.datasets as labelled
import fashion_retrieval.datasets as fashion
import similarity_retrieval.datasets as genecis
from crl.images import list_images
from crl.run.errors import ArgumentParser, Missing, UserError
from crl.run.tables import Table

LONGEST = 90  # of what is said about a wrong data set, in characters


@dataclass(frozen=True)
class File:
    """A file to download.

    Attributes:
        url: its address.
        holds: what is taken out of it, if it is a zip archive: files or folders that are side by
            side somewhere in it. They come to the data set's place.
        size: in bytes, if known.
        checksum: e.g. `md5:442b...`, if known.
    """

    url: str
    holds: tuple[str, ...] = ()
    size: int | None = None
    checksum: str = ""

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]


@dataclass(frozen=True)
class Found:
    """What is there of a data set.

    Attributes:
        files: its files.
        wrong: what is wrong with them, in a few words.
        images: how many images there are, and how many there should be; None if it has no images,
            or if nobody knows.
    """

    files: list[Path]
    wrong: str = ""
    images: tuple[int, int] | None = None

    @property
    def state(self) -> str:
        if not self.files:
            return "missing"
        return "incomplete" if self.wrong else "complete"

    def cells(self) -> list[str]:
        """State, images and size, as the table shows them."""
        state = f"{self.state}: {self.wrong}" if self.state == "incomplete" else self.state
        images = "{:,} / {:,}".format(*self.images) if self.images else "-"
        size = in_bytes(sum(file.stat().st_size for file in self.files)) if self.files else "-"
        return [state, images, size]


@dataclass(frozen=True)
class DataSet:
    """A data set, or a part of one that is got separately.

    Attributes:
        place: its folder in the data folder.
        page: where people get it by hand.
        look: (its folder, `images`) -> what is there.
        images: how many it has.
        files: what `download.py` fetches; empty if that is not allowed without a form.
    """

    title: str
    place: str
    page: str
    licence: str
    look: Callable[[Path, Any], Found]
    images: int | None = None
    files: tuple[File, ...] = ()


def look(name: str, data: Path) -> Found:
    """What is there of the data set `name`, one of `SETS`, in the data folder."""
    of = SETS[name]
    return of.look(data / of.place, of.images)


def in_bytes(number: int) -> str:
    """
    >>> in_bytes(815585330)
    '815.6 MB'
    """
    amount, units = float(number), ["bytes", "kB", "MB", "GB"]
    while amount >= 1000 and len(units) > 1:
        amount /= 1000
        units.pop(0)
    return f"{amount:,.0f} {units[0]}" if units[0] == "bytes" else f"{amount:,.1f} {units[0]}"


# --- looking --------------------------------------------------------------------------------------


def _clevr4(folder: Path, expected: int) -> Found:
    def load() -> None:
        for criterion in labelled.CLEVR4_CLASSES:
            labelled.load("clevr4", folder.parent, criterion, expected)

    images = _there((folder / "images").glob("*.png"))
    files = images + _there([folder / "clevr_4_annots.json"])
    wrong = _wrong(load, folder.parent, labelled.CLEVR4_TREE)
    return Found(files, wrong, (len(images), expected))


def _cards(folder: Path, expected: int) -> Found:
    """Each image is there twice: in a folder of its number, and in one of its suit."""

    def load() -> None:
        for criterion in labelled.CARDS_CLASSES:
            labelled.load("cards", folder.parent, criterion, expected)

    trees = [_images(folder / criterion) for criterion in labelled.CARDS_CLASSES]
    wrong = _wrong(load, folder.parent, labelled.CARDS_TREE)
    return Found([file for tree in trees for file in tree], wrong, (min(map(len, trees)), expected))


def _templates(folder: Path, _: None) -> Found:
    wrong = ""
    for task in genecis.TASKS:
        wrong = wrong or _wrong(partial(_template, task, folder), folder)
    return Found(_there(folder / f"{task}.json" for task in genecis.TASKS), wrong)


def _template(task: genecis.Task, folder: Path) -> None:
    templates = genecis.load([task], folder).tasks[task]
    number, official = len(templates.reference), genecis.OFFICIAL_TEMPLATES.get(task)
    if official and number != official:
        raise UserError(f"{task}.json has {number:,} templates, not {official:,}")


def _coco(folder: Path, expected: int) -> Found:
    return _counted((folder / "val2017").glob("*.jpg"), expected)


def _visual_genome(folder: Path, expected: int) -> Found:
    folders = [folder / part for part in genecis.VISUAL_GENOME_FOLDERS]
    # An image that lies in two of the folders is one image.
    files = {file.name: file for each in folders for file in each.glob("*.jpg")}
    return _counted(files.values(), expected)


def _counted(files: Iterable[Path], expected: int) -> Found:
    there = _there(files)
    short = f"{len(there):,} of {expected:,} images" if len(there) < expected else ""
    return Found(there, short, (len(there), expected))


def _weights(folder: Path, _: None) -> Found:
    there = _there(folder / name for name in genecis.WEIGHTS)
    missing = sorted(set(genecis.WEIGHTS) - {file.name for file in there})
    return Found(there, f"without {', '.join(missing)}" if missing else "")


def _splits(folder: Path, _: None) -> Found:
    names = [
        "meta.json",
        "label_train.txt",
        *(f"filenames_{split}.txt" for split in fashion.SPLITS),
    ]
    names += [
        f"{kind}_{split}.txt" for kind in ("query", "candidate") for split in ("valid", "test")
    ]
    files = _there(folder / name for name in names)
    return Found(files, _wrong(partial(fashion.load, folder), folder) if files else "")


def _garments(folder: Path, _: None) -> Found:
    try:
        data = fashion.load(folder)
    except UserError:
        unknown = "the split files, which name the images, are missing or broken"
        return Found(_images(folder), unknown)
    named = {file for part in (data.train, data.valid, data.test) for file in part.files}
    return _counted(named, len(named))


def _images(folder: Path) -> list[Path]:
    return _there(list_images(folder).files) if folder.is_dir() else []


def _there(files: Iterable[Path]) -> list[Path]:
    return [file for file in files if file.is_file()]


def _wrong(load: Callable[[], Any], root: Path, tree: str = "") -> str:
    """What the task's own `load` has against the files below `root`, in a few words."""
    try:
        load()
    except Missing as error:
        return f"not all of {tree}" if tree else _brief(error, root)
    except UserError as error:
        return _brief(error, root)
    return ""


def _brief(error: UserError, root: Path) -> str:
    text = str(error).partition(";")[0]
    text = text.replace(f"{root}/", "").replace(f"{root}, ", "").replace(f" in {root} ", " ")
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."


# --- the data sets --------------------------------------------------------------------------------

VISUAL_GENOME = "https://cs.stanford.edu/people/rak248/VG_100K_2"
TEMPLATES = "https://raw.githubusercontent.com/facebookresearch/genecis/main/genecis"
WEIGHTS = "https://dl.fbaipublicfiles.com/genecis"

SETS = {
    "clevr4": DataSet(
        title="Clevr4-10k",
        place="clevr_4_10k_v1",
        page=labelled.CLEVR4_PAGE,
        licence="CC BY 4.0",
        look=_clevr4,
        images=10531,
        files=(
            File(
                "https://thor.robots.ox.ac.uk/clevr4/clevr_4_10k_v1.zip",
                holds=("images", "clevr_4_annots.json"),
                size=3_797_490_816,
                checksum="sha512:769465d90b6550a242f6d5940b52f2e0944c65af09e17e6f3f2cb65701af6605"
                "7ab06485b2194fa9d8932e03a03e87b3fadece43049e1af1ddd9f8e4990ed19a",
            ),
        ),
    ),
    "cards": DataSet(
        title="Cards",
        place="cards",
        page=labelled.CARDS_PAGE,
        licence="see its page",
        look=_cards,
        images=8029,
        files=(File(labelled.CARDS_PAGE, holds=tuple(labelled.CARDS_CLASSES)),),
    ),
    "genecis": DataSet(
        title="GeneCIS templates",
        place="genecis",
        page=genecis.GENECIS_PAGE,
        licence="CC BY-NC 4.0",
        look=_templates,
        files=tuple(File(f"{TEMPLATES}/{task}.json") for task in genecis.TASKS),
    ),
    "coco": DataSet(
        title="COCO val2017",
        place="genecis/coco",
        page=genecis.COCO_PAGE,
        licence="images: Flickr's terms",
        look=_coco,
        images=genecis.COCO_FILES,
        files=(
            File(
                "http://images.cocodataset.org/zips/val2017.zip",
                holds=("val2017",),
                size=815_585_330,
                checksum="md5:442b8da7639aecaf257c1dceb8ba8c80",
            ),
        ),
    ),
    "visual-genome": DataSet(
        title="Visual Genome",
        place="genecis/visual_genome",
        page=genecis.VISUAL_GENOME_PAGE,
        licence="CC BY 4.0",
        look=_visual_genome,
        images=genecis.VISUAL_GENOME_FILES,
        files=(
            File(f"{VISUAL_GENOME}/images.zip", holds=("VG_100K",), size=9_731_705_982),
            File(f"{VISUAL_GENOME}/images2.zip", holds=("VG_100K_2",), size=5_471_658_058),
        ),
    ),
    "genecis-weights": DataSet(
        title="GeneCIS weights (optional)",
        place="genecis",
        page=genecis.GENECIS_PAGE,
        licence="CC BY-NC 4.0",
        look=_weights,
        files=tuple(File(f"{WEIGHTS}/{name}") for name in genecis.WEIGHTS),
    ),
    "deepfashion": DataSet(
        title="DeepFashion split files",
        place="deepfashion",
        page=fashion.SPLIT_PAGE,
        licence="see its page",
        look=_splits,
    ),
    "deepfashion-images": DataSet(
        title="DeepFashion images",
        place="deepfashion",
        page=fashion.IMAGE_PAGE,
        licence="non-commercial research, by agreement",
        look=_garments,
    ),
}


@command
def main(argv: list[str]) -> None:
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, default=Path("data"), help="the data folder (default: %(default)s)"
    )
    data = parser.parse_args(argv).data
    found = {name: look(name, data) for name in SETS}
    header = ["data set", "state", "images", "on disk", "licence", "get it from"]
    rows = [_row(name, found[name]) for name in SETS]
    print(Table(f"Data sets in {data}", header, rows, left=len(header)).text())
    bad = [SETS[name].title for name in SETS if found[name].state == "incomplete"]
    if bad:
        raise UserError(f"incomplete or broken in {data}: {', '.join(bad)}; see the table above")


def _row(name: str, found: Found) -> list[str]:
    of = SETS[name]
    source = f"scripts/download.py {name}" if of.files else of.page
    return [of.title, *found.cells(), of.licence, source]


if __name__ == "__main__":
    main()
