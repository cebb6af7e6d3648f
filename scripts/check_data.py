"""Which data sets are there and complete, the paper's and others; where to get what is missing.

    python scripts/check_data.py
    python scripts/check_data.py --data elsewhere/data

Files are counted, and texts (labels, templates, splits) are read; no image is opened. A data set
that is not there is no mistake. Exit code 2: one that is there is incomplete or broken.
"""

from crl.run.command import command

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

import classification_clustering.datasets as labelled
import fashion_retrieval.datasets as fashion
import similarity_retrieval.datasets as genecis
from crl.images import is_hidden
from crl.run.errors import ArgumentParser, UserError
from crl.run.tables import Table


@dataclass(frozen=True)
class Download:
    """A file that download.py fetches."""

    url: str
    unpacked: tuple[str, ...] = ()  # of a zip archive: files or folders side by side in it
    size: int | None = None  # in bytes, if known
    checksum: str = ""  # e.g. "md5:442b...", if known

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]


@dataclass(frozen=True)
class DataSet:
    title: str
    folder: str  # its place in the data folder
    page: str  # where people get it by hand
    licence: str
    files: Callable[[Path], Iterable[Path]]  # its folder -> its files, or those that are there
    check: Callable[[Path], Any] = lambda folder: None  # reads its texts; raises UserError
    count: int | None = None  # how many files it must have; None: all that `files` names
    downloads: tuple[Download, ...] = ()  # none if they are not allowed without a form


def state(name: str, data: Path) -> tuple[str, list[Path]]:
    """`missing`, `complete` or `incomplete: <reason>`, and the files that are there."""
    data_set = DATA_SETS[name]
    folder = data / data_set.folder
    files = [file for file in data_set.files(folder) if not is_hidden(file.name)]
    there, count = [file for file in files if file.is_file()], data_set.count or len(files)
    if not there:
        return "missing", there
    if len(there) < count:
        return f"incomplete: {len(there):,} of {count:,} files", there
    try:
        data_set.check(folder)
    except UserError as error:
        reason = str(error).partition(";")[0].replace(f"{data}/", "").replace(f" in {data}", "")
        return f"incomplete: {reason[:90]}", there
    return "complete", there


def _cards(folder: Path) -> Iterable[Path]:
    """Each image is there twice: in a folder of its number, and in one of its suit."""
    return [file for name in labelled.CARDS_CLASSES for file in folder.glob(f"{name}/*/*")]


def _labels(data: str) -> Callable[[Path], Any]:
    criteria = labelled.CRITERIA[data]
    return lambda folder: [labelled.load(data, folder.parent, name) for name in criteria]


def _templates(folder: Path) -> None:
    for task, templates in genecis.load(genecis.TASKS, folder).tasks.items():
        number, official = len(templates.reference), genecis.OFFICIAL_TEMPLATES.get(task)
        if official and number != official:
            raise UserError(f"{task}.json has {number:,} templates, not {official:,}")


def _visual_genome(folder: Path) -> Iterable[Path]:
    images = [f for part in genecis.VISUAL_GENOME_FOLDERS for f in folder.glob(f"{part}/*.jpg")]
    return {file.name: file for file in images}.values()  # one may lie in two folders


def _garments(folder: Path) -> Iterable[Path]:
    """The images that the split files name; without these, all that are there."""
    try:
        data = fashion.load(folder)
    except UserError:
        return folder.rglob("*.jpg")
    return {file for part in (data.train, data.valid, data.test) for file in part.files}


VISUAL_GENOME = "https://cs.stanford.edu/people/rak248/VG_100K_2"
TEMPLATES = "https://raw.githubusercontent.com/facebookresearch/genecis/main/genecis"
WEIGHTS = "https://dl.fbaipublicfiles.com/genecis"
# Of multiple clustering; each image is there once for each of two criteria. The numbers are quoted.
OF_THE_SUITE = [
    ("fruit", "Fruit", 105),
    ("fruit360", "Fruit360", 4856),
    ("stanfordcars", "Stanford Cars", 1200),
    ("flowers", "Flowers", 1600),
]

# fmt: off
DATA_SETS = {
    "clevr4": DataSet(
        "Clevr4-10k", "clevr_4_10k_v1", labelled.CLEVR4_PAGE, "CC BY 4.0",
        lambda folder: [folder / "clevr_4_annots.json", *folder.glob("images/*.png")],
        check=_labels("clevr4"), count=1 + 10531,
        downloads=(Download(
            "https://thor.robots.ox.ac.uk/clevr4/clevr_4_10k_v1.zip",
            ("images", "clevr_4_annots.json"), 3_797_490_816,
            "sha512:769465d90b6550a242f6d5940b52f2e0944c65af09e17e6f3f2cb65701af6605"
            "7ab06485b2194fa9d8932e03a03e87b3fadece43049e1af1ddd9f8e4990ed19a",
        ),),
    ),
    "cards": DataSet(
        "Cards", "cards", labelled.CARDS_PAGE, "see its page", _cards,
        check=_labels("cards"), count=2 * 8029,
        downloads=(Download(labelled.CARDS_PAGE, tuple(labelled.CARDS_CLASSES)),),
    ),
    "stanford40": DataSet(
        "Stanford 40 Actions", "Stanford40", labelled.STANFORD40_PAGE, "see its page",
        lambda folder: [*(folder / f"{name}.txt" for name in labelled.STANFORD40_CLASSES),
                        *folder.glob("JPEGImages/*.jpg")],
        check=_labels("stanford40"), count=3 + 9532,
    ),
    "cmuface": DataSet(
        "CMU Face Images", "faces", labelled.CMUFACE_PAGE, "for education, with attribution",
        lambda folder: folder.glob("*/*_*_*_*[a-z].pgm"), check=_labels("cmuface"), count=624,
    ),
    **{name: DataSet(
        title, name, labelled.TREES[name][1], "see its page",
        lambda folder: folder.glob("*/*/*"), check=_labels(name), count=2 * images,
    ) for name, title, images in OF_THE_SUITE},
    "genecis": DataSet(
        "GeneCIS templates", "genecis", genecis.GENECIS_PAGE, "CC BY-NC 4.0",
        lambda folder: [folder / f"{task}.json" for task in genecis.TASKS], check=_templates,
        downloads=tuple(Download(f"{TEMPLATES}/{task}.json") for task in genecis.TASKS),
    ),
    "coco": DataSet(
        "COCO val2017", "genecis/coco", genecis.COCO_PAGE, "images: Flickr's terms",
        lambda folder: folder.glob("val2017/*.jpg"), count=genecis.COCO_FILES,
        downloads=(Download(
            "http://images.cocodataset.org/zips/val2017.zip", ("val2017",), 815_585_330,
            "md5:442b8da7639aecaf257c1dceb8ba8c80",
        ),),
    ),
    "visual-genome": DataSet(
        "Visual Genome", "genecis/visual_genome", genecis.VISUAL_GENOME_PAGE, "CC BY 4.0",
        _visual_genome, count=genecis.VISUAL_GENOME_FILES,
        downloads=(
            Download(f"{VISUAL_GENOME}/images.zip", ("VG_100K",), 9_731_705_982),
            Download(f"{VISUAL_GENOME}/images2.zip", ("VG_100K_2",), 5_471_658_058),
        ),
    ),
    "genecis-weights": DataSet(
        "GeneCIS weights (optional)", "genecis", genecis.GENECIS_PAGE, "CC BY-NC 4.0",
        lambda folder: [folder / name for name in genecis.WEIGHTS],
        downloads=tuple(Download(f"{WEIGHTS}/{name}") for name in genecis.WEIGHTS),
    ),
    "deepfashion": DataSet(
        "DeepFashion split files", "deepfashion", fashion.SPLIT_PAGE, "see its page",
        lambda folder: folder.glob("*_*.txt"), check=fashion.load,
    ),
    "deepfashion-images": DataSet(
        "DeepFashion images", "deepfashion", fashion.IMAGE_PAGE,
        "non-commercial research, by agreement", _garments, check=fashion.load,
    ),
}
# fmt: on


@command
def main(argv: list[str]) -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data"), help="the data folder: data")
    data = parser.parse_args(argv).data
    header = ["data set", "state", "files", "on disk", "licence", "get it from"]
    rows = []
    for name, data_set in DATA_SETS.items():
        now, files = state(name, data)
        size = tqdm.format_sizeof(sum(file.stat().st_size for file in files), "B")
        source = f"scripts/download.py {name}" if data_set.downloads else data_set.page
        counted = [f"{len(files):,}", size] if files else ["-", "-"]
        rows.append([data_set.title, now, *counted, data_set.licence, source])
    print(Table(f"Data sets in {data}", header, rows, left=len(header)).text())
    if bad := [title for title, now, *_ in rows if now.startswith("incomplete")]:
        raise UserError(f"incomplete or broken in {data}: {', '.join(bad)}; see the table above")


if __name__ == "__main__":
    main()
