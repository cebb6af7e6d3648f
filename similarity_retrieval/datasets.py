"""GeneCIS's four tasks: templates, and the image or crop of each of their ids.

    python similarity_retrieval/datasets.py --root data/genecis

counts the files that are there, and names those that are missing.

A template is a reference image, a condition, and a gallery of candidates, one of which, the target,
is like the reference under that condition. Images of the object tasks are COCO's (val2017), those
of the attribute tasks are regions of Visual Genome's (1.2).
"""

from crl.run.command import command

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar, get_args

import numpy as np
from pydantic import BaseModel, BeforeValidator, Field, ValidationError, field_validator

from crl.images import Crop, UnreadableImage, readable
from crl.run.errors import ArgumentParser, Missing, UserError, explain, nearest
from crl.run.progress import progress

Task = Literal["focus_object", "change_object", "focus_attribute", "change_attribute"]
TASKS = get_args(Task)
GENECIS_PAGE = "https://github.com/facebookresearch/genecis (DOWNLOAD.md)"
COCO_PAGE = "https://cocodataset.org/#download (2017 Val images)"
VISUAL_GENOME_PAGE = (
    "https://homes.cs.washington.edu/~ranjay/visualgenome/api.html (parts 1 and 2 of the images)"
)
TREE = (
    "{focus,change}_{object,attribute}.json, coco/val2017/<12 digits>.jpg, "
    "visual_genome/{VG_100K,VG_100K_2}/<image_id>.jpg"
)
# For comparison by the check command: GeneCIS's published files and its DOWNLOAD.md.
OFFICIAL_TEMPLATES = {"focus_object": 1960, "change_object": 1960}
COCO_FILES, VISUAL_GENOME_FILES = 5000, 108249
WEIGHTS = ("vitb16_backbone.pt", "vitb16_combiner_head.pt")  # GeneCIS's own, optional
VISUAL_GENOME_FOLDERS = ("VG_100K", "VG_100K_2", "VG_All", ".")
DILATION = 0.7  # GeneCIS shows an object with some of its surroundings


@dataclass(frozen=True)
class Templates:
    """The B templates of one task that are evaluated.

    Attributes:
        task: one of `TASKS`.
        reference: (B,) int64, index into `GeneCIS.ids`.
        gallery: (B, G) int64, index into `GeneCIS.ids`; column 0 is the target.
        condition: (B,) int64, index into `GeneCIS.conditions`.
        left_out: how many templates were left out because of an unusual gallery length, as in
            GeneCIS's evaluation.
        repeated: how many templates have their target in the gallery twice. They are kept, as in
            GeneCIS (the official change_object has one).
    """

    task: str
    reference: np.ndarray
    gallery: np.ndarray
    condition: np.ndarray
    left_out: int
    repeated: int


@dataclass(frozen=True)
class GeneCIS:
    """Templates that share their images and conditions.

    Attributes:
        ids: the M distinct images of all tasks, in order of first appearance: `139` for a COCO
            image, `2345:10,20,30,40` for the region x, y, w, h of a Visual Genome image.
        conditions: the C distinct conditions, in order of first appearance.
        tasks: the templates of each task.
    """

    ids: list[str]
    conditions: list[str]
    tasks: dict[str, Templates]


# --- templates ------------------------------------------------------------------------------------


def _whole_number(value: Any) -> int:
    if type(value) is int or (isinstance(value, str) and value.isascii() and value.isdecimal()):
        return int(value)
    raise ValueError(f"{value!r} is not a whole number")


def _finite(value: Any) -> float:
    if type(value) in (int, float) and abs(value) <= sys.float_info.max:  # NaN is not
        return float(value)
    raise ValueError(f"{value!r} is not a finite number")


_Id = Annotated[int, Field(ge=0), BeforeValidator(_whole_number)]
_Place = Annotated[float, BeforeValidator(_finite)]
_Length = Annotated[float, Field(gt=0), BeforeValidator(_finite)]


class _CocoImage(BaseModel):
    val_image_id: _Id

    @property
    def id(self) -> str:
        return str(self.val_image_id)


class _Region(BaseModel):
    image_id: _Id
    instance_bbox: tuple[_Place, _Place, _Length, _Length]  # x, y, w, h

    @property
    def id(self) -> str:
        box = (str(int(n)) if n.is_integer() else repr(n) for n in self.instance_bbox)
        return f"{self.image_id}:{','.join(box)}"


_Image = TypeVar("_Image", _CocoImage, _Region)


class _Template(BaseModel, Generic[_Image]):
    reference: _Image
    target: _Image
    gallery: list[_Image] = Field(min_length=1)
    condition: str

    @field_validator("condition")
    @classmethod
    def _said(cls, condition: str) -> str:
        if not condition.strip():
            raise ValueError("is empty")
        return condition


def load(tasks: Sequence[str], folder: Path) -> GeneCIS:
    """Read and validate the templates of `tasks`, `<folder>/<task>.json` in GeneCIS's format.

    Raises:
        UserError: an unknown task; a missing file (the message has the download page and the
            expected tree); a malformed file or template (the message names the template, from 0).
    """
    ids: dict[str, int] = {}
    conditions: dict[str, int] = {}
    loaded = {task: _load(task, Path(folder), ids, conditions) for task in tasks}
    return GeneCIS(list(ids), list(conditions), loaded)


def _load(task: str, folder: Path, ids: dict[str, int], conditions: dict[str, int]) -> Templates:
    """The templates of one task; images and conditions not seen before are added to the dicts."""
    templates = _read(task, folder)
    lengths = Counter(len(template.gallery) for template in templates)
    usual = min(lengths, key=lambda length: (-lengths[length], length))  # a tie: the shortest
    kept = [template for template in templates if len(template.gallery) == usual]
    reference, gallery, condition = [], [], []
    for template in kept:
        images = [template.reference, template.target, *template.gallery]
        first, *others = (ids.setdefault(image.id, len(ids)) for image in images)
        reference.append(first)
        gallery.append(others)
        condition.append(conditions.setdefault(template.condition, len(conditions)))
    candidates = np.array(gallery, np.int64)  # (B, G)
    return Templates(
        task=task,
        reference=np.array(reference, np.int64),
        gallery=candidates,
        condition=np.array(condition, np.int64),
        left_out=len(templates) - len(kept),
        repeated=int((candidates[:, 1:] == candidates[:, :1]).any(axis=1).sum()),
    )


def _read(task: str, folder: Path) -> list[_Template]:
    if task not in TASKS:
        raise UserError(f"unknown task {task!r}; {nearest(task, TASKS)}")
    file = folder / f"{task}.json"
    if not file.is_file():
        raise Missing(
            f"{file.name}, GeneCIS's templates, is not in {folder.resolve()}; get it from "
            f"{GENECIS_PAGE}; expected there: {TREE}"
        )
    try:
        items = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is not valid JSON: {error}; get it again") from error
    if not isinstance(items, list) or not items:
        raise UserError(f"{file} must hold a list of templates, and at least one; get it again")
    attribute = task.endswith("attribute")
    kind = _Template[_Region] if attribute else _Template[_CocoImage]
    templates = []
    for number, item in enumerate(items):
        try:
            templates.append(kind.model_validate(item))
        except ValidationError as error:
            raise UserError(f"{file.name}: template {number}: {explain(error)}") from error
    return templates


# --- images ---------------------------------------------------------------------------------------


def images(data: GeneCIS, coco: Path, visual_genome: Path) -> list[Path | Crop]:
    """The image file or crop of each of `data.ids` (M,).

    Args:
        coco: folder that holds `val2017`.
        visual_genome: folder that holds `VG_100K` and `VG_100K_2`, or `VG_All`, or the images.

    Raises:
        UserError: missing images (all are counted before any image is opened); a Visual Genome
            image that cannot be read; a box outside its picture.
    """
    files = _files(data.ids, Path(coco), Path(visual_genome))
    sources = _sources(files, Path(coco), Path(visual_genome))
    gaps = [
        f"{len(missing)} of {len(source.files)} images of {source.name} are not in "
        f"{source.folder} ({_few(missing)}); get them from {source.page}"
        for source in sources
        if (missing := source.missing())
    ]
    if gaps:
        begun = any(source.folder.is_dir() for source in sources)
        raise (UserError if begun else Missing)("; ".join(gaps))
    regions = [name for name in data.ids if ":" in name]
    distinct = dict.fromkeys(files[name] for name in regions)
    bar = progress(distinct, label="picture sizes", unit="images")
    sizes = {file: _size(file) for file in bar}
    crops = {name: Crop(files[name], _crop_box(data, name, sizes[files[name]])) for name in regions}
    return [crops.get(name, files[name]) for name in data.ids]


def dilated(box: Sequence[float], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The region that GeneCIS shows for the object in `box`: left, top, right, bottom in pixels.

    As in its evaluation, it is not symmetrical: left and top move out by 0.7 of the box's size, but
    not below 0; right and bottom are 1.7 box sizes from there, but not beyond the picture.

    >>> dilated((100, 0, 10, 10), size=(640, 480))
    (93, 0, 110, 17)

    Args:
        box: x, y, width, height.
        size: width and height of the picture.
    """
    x, y, w, h = box
    left, top = max(0, x - DILATION * w), max(0, y - DILATION * h)
    right = min(size[0], left + (1 + DILATION) * w)
    bottom = min(size[1], top + (1 + DILATION) * h)
    return round(left), round(top), round(right), round(bottom)  # as PIL's crop rounds


def _crop_box(data: GeneCIS, name: str, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The dilated box of one region; a UserError if the box is outside its picture."""
    image, _, box = name.partition(":")
    x, y, w, h = map(float, box.split(","))
    left, top, right, bottom = dilated((x, y, w, h), size)
    inside = x < size[0] and y < size[1] and x + w > 0 and y + h > 0
    if not inside or left >= right or top >= bottom:
        raise UserError(
            f"{_first_template(data, name)}: the box [{box}] has no pixel in image {image}, which "
            f"is {size[0]} x {size[1]}; is it the right image?"
        )
    return left, top, right, bottom


def _first_template(data: GeneCIS, name: str) -> str:
    index = data.ids.index(name)
    task, row = next(
        (task, row)
        for task, t in data.tasks.items()
        for row in np.flatnonzero((t.reference == index) | (t.gallery == index).any(axis=1))
    )
    return f"{task}.json: template {row}{' of those kept' if data.tasks[task].left_out else ''}"


def _size(file: Path) -> tuple[int, int]:
    """Width and height of a picture, from the file's header."""
    try:
        with readable(file) as image:
            return image.size
    except UnreadableImage as error:
        raise UserError(f"cannot read the image {file}: {error}; get it again") from error


def _files(ids: list[str], coco: Path, visual_genome: Path) -> dict[str, Path]:
    """The image file of each id; if it does not exist, the path where it should be."""

    def file(name: str) -> Path:
        image, _, box = name.partition(":")
        if not box:
            return coco / "val2017" / f"{int(image):012d}.jpg"
        places = [visual_genome / part / f"{image}.jpg" for part in VISUAL_GENOME_FOLDERS]
        return next((place for place in places if place.is_file()), places[0])

    return {name: file(name) for name in ids}


@dataclass(frozen=True)
class _Source:
    """A collection of images.

    Attributes:
        official: how many files the complete collection has.
        files: the files that templates name, each once.
    """

    name: str
    page: str
    official: int
    folder: Path
    files: list[Path]

    def missing(self) -> list[Path]:
        return [file for file in self.files if not file.is_file()]


def _sources(files: dict[str, Path], coco: Path, visual_genome: Path) -> list[_Source]:
    """The collections whose images templates name."""
    whole = dict.fromkeys(file for name, file in files.items() if ":" not in name)
    parts = dict.fromkeys(file for name, file in files.items() if ":" in name)
    sources = [
        _Source("COCO val2017", COCO_PAGE, COCO_FILES, coco / "val2017", list(whole)),
        _Source(
            "Visual Genome", VISUAL_GENOME_PAGE, VISUAL_GENOME_FILES, visual_genome, list(parts)
        ),
    ]
    return [source for source in sources if source.files]


def _few(files: list[Path]) -> str:
    return ", ".join(file.name for file in files[:3]) + (", ..." if len(files) > 3 else "")


# --- the check command ----------------------------------------------------------------------------


def _checked_task(task: str, root: Path) -> bool:
    """Print what is in one task's file; return whether it exists and is valid."""
    try:
        data = load([task], root)
    except UserError as error:
        print(f"{task}: {error}")
        return False
    t = data.tasks[task]
    official = f" (official: {OFFICIAL_TEMPLATES[task]})" if task in OFFICIAL_TEMPLATES else ""
    print(
        f"{task}: {len(t.reference)} templates{official}, {t.gallery.shape[1]} candidates each, "
        f"{len(data.conditions)} conditions, {len(data.ids)} images; {t.left_out} left out for "
        f"another number of candidates, {t.repeated} with the target twice"
    )
    return True


def _checked_images(data: GeneCIS, root: Path) -> bool:
    """Print how many images are there and missing; return whether all are there."""
    folders = root / "coco", root / "visual_genome"
    complete = True
    for source in _sources(_files(data.ids, *folders), *folders):
        missing = source.missing()
        there = len({file.name for file in source.folder.rglob("*.jpg")})
        print(
            f"{source.name}: {len(source.files)} images named, "
            f"{len(source.files) - len(missing)} there, {len(missing)} missing"
            + (f" ({_few(missing)}); get them from {source.page}" if missing else "")
            + f"; {source.folder} holds {there} (official: {source.official})"
        )
        complete = complete and not missing
    return complete


@command
def main(argv: list[str]) -> None:
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, default=Path("data/genecis"), help=f"holds {TREE}")
    parser.add_argument(
        "--tasks", nargs="+", default=TASKS, metavar="TASK", help=f"of {', '.join(TASKS)} (all)"
    )
    arguments = parser.parse_args(argv)
    root = arguments.root
    good = [task for task in arguments.tasks if _checked_task(task, root)]
    data = load(good, root)
    complete = _checked_images(data, root)
    for name in WEIGHTS:
        print(f"{name}: {'there' if (root / name).is_file() else 'not there (optional)'}")
    if not complete or len(good) < len(arguments.tasks):
        raise UserError(f"GeneCIS is not complete in {root}; see above")
    images(data, root / "coco", root / "visual_genome")  # do boxes and pictures fit?


if __name__ == "__main__":
    main()
