"""GeneCIS's four tasks: templates, and the image or crop of each of their ids.

    python similarity_retrieval/datasets.py --root data/genecis

counts the templates, and names what is missing.

A template is a reference image, a condition, and a gallery of candidates, one of which, the target,
is like the reference under that condition. Images of the object tasks are COCO's (val2017), those
of the attribute tasks are regions of Visual Genome's (1.2).
"""

from crl.run.command import command

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Generic, Literal, TypeVar, get_args

import numpy as np
from pydantic import BaseModel, Field, FiniteFloat, ValidationError

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
        reference: (B,) int64, index into `GeneCIS.ids`.
        gallery: (B, G) int64, index into `GeneCIS.ids`; column 0 is the target.
        condition: (B,) int64, index into `GeneCIS.conditions`.
        left_out: how many templates were left out because of an unusual gallery length, as in
            GeneCIS's evaluation.
        repeated: how many templates have their target in the gallery twice. They are kept, as in
            GeneCIS (the official change_object has one).
    """

    reference: np.ndarray
    gallery: np.ndarray
    condition: np.ndarray
    left_out: int
    repeated: int

    def some(self, rows: np.ndarray) -> "Templates":
        """The templates at `rows` (B',)."""
        reference, condition = self.reference[rows], self.condition[rows]
        return replace(self, reference=reference, gallery=self.gallery[rows], condition=condition)


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


class _CocoImage(BaseModel):
    val_image_id: Annotated[int, Field(ge=0)]

    @property
    def id(self) -> str:
        return str(self.val_image_id)


_Length = Annotated[FiniteFloat, Field(gt=0)]


class _Region(BaseModel):
    image_id: Annotated[int, Field(ge=0)]
    instance_bbox: tuple[FiniteFloat, FiniteFloat, _Length, _Length]  # x, y, w, h

    @property
    def id(self) -> str:
        box = (str(int(n)) if n.is_integer() else repr(n) for n in self.instance_bbox)
        return f"{self.image_id}:{','.join(box)}"


_Image = TypeVar("_Image", _CocoImage, _Region)


class _Template(BaseModel, Generic[_Image]):
    reference: _Image
    target: _Image
    gallery: list[_Image] = Field(min_length=1)
    condition: str = Field(pattern=r"\S")


class _Content(BaseModel, Generic[_Image]):
    templates: list[_Template[_Image]] = Field(min_length=1)


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
    rows = []
    for template in kept:
        images = [template.reference, template.target, *template.gallery]
        numbers = [ids.setdefault(image.id, len(ids)) for image in images]
        rows.append([conditions.setdefault(template.condition, len(conditions)), *numbers])
    condition, reference, *_ = columns = np.array(rows, np.int64).T
    gallery = np.ascontiguousarray(columns[2:].T)  # (B, G)
    return Templates(
        reference=reference,
        gallery=gallery,
        condition=condition,
        left_out=len(templates) - len(kept),
        repeated=int((gallery[:, 1:] == gallery[:, :1]).any(axis=1).sum()),
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
    kind = _Content[_Region] if task.endswith("attribute") else _Content[_CocoImage]
    try:
        items = json.loads(file.read_text(encoding="utf-8"))
        return kind.model_validate({"templates": items}).templates
    except ValidationError as error:
        raise UserError(f"{file}: {explain(error)}; get it again") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is not valid JSON: {error}; get it again") from error


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
    files = {name: _file(name, Path(coco), Path(visual_genome)) for name in data.ids}
    regions = {name: file for name, file in files.items() if ":" in name}
    whole = [file for name, file in files.items() if name not in regions]
    gaps, begun = [], False
    for title, folder, page, wanted in (
        ("COCO val2017", Path(coco, "val2017"), COCO_PAGE, dict.fromkeys(whole)),
        ("Visual Genome", visual_genome, VISUAL_GENOME_PAGE, dict.fromkeys(regions.values())),
    ):
        begun |= bool(wanted) and Path(folder).is_dir()
        if missing := [file.name for file in wanted if not file.is_file()]:
            first = ", ".join(missing[:3]) + (", ..." if missing[3:] else "")
            gaps.append(f"{len(missing)} of {len(wanted)} images of {title} are not in {folder} "
                        f"({first}); get them from {page}")  # fmt: skip
    if gaps:
        raise (UserError if begun else Missing)("; ".join(gaps))
    distinct = progress(dict.fromkeys(regions.values()), label="picture sizes", unit="images")
    sizes = {file: _size(file) for file in distinct}
    crops = {name: Crop(file, _crop_box(name, sizes[file])) for name, file in regions.items()}
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


def _crop_box(name: str, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The dilated box of one region; a UserError if the box is outside its picture."""
    image, _, box = name.partition(":")
    x, y, w, h = map(float, box.split(","))
    left, top, right, bottom = dilated((x, y, w, h), size)
    inside = x < size[0] and y < size[1] and x + w > 0 and y + h > 0
    if not inside or left >= right or top >= bottom:
        raise UserError(
            f"the box [{box}] has no pixel in Visual Genome's image {image}, which is {size[0]} x "
            f"{size[1]}; is it the right image?"
        )
    return left, top, right, bottom


def _size(file: Path) -> tuple[int, int]:
    """Width and height of a picture, from the file's header."""
    try:
        with readable(file) as image:
            return image.size
    except UnreadableImage as error:
        raise UserError(f"cannot read the image {file}: {error}; get it again") from error


def _file(name: str, coco: Path, visual_genome: Path) -> Path:
    """The image file of an id; if it does not exist, where it should be."""
    image, _, box = name.partition(":")
    if not box:
        return coco / "val2017" / f"{int(image):012d}.jpg"
    places = [visual_genome / part / f"{image}.jpg" for part in VISUAL_GENOME_FOLDERS]
    return next((place for place in places if place.is_file()), places[0])


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
    for name in WEIGHTS:
        print(f"{name}: {'there' if (root / name).is_file() else 'not there (optional)'}")
    data = load(arguments.tasks, root)
    for task, t in data.tasks.items():
        official = f" (official: {OFFICIAL_TEMPLATES[task]})" if task in OFFICIAL_TEMPLATES else ""
        print(f"{task}: {len(t.reference)} templates{official}, {t.gallery.shape[1]} candidates "
              f"each; {t.left_out} left out for another number of candidates, {t.repeated} with "
              "the target twice")  # fmt: skip
    count = len(images(data, root / "coco", root / "visual_genome"))
    print(f"{len(data.conditions)} conditions, {count} images: all are there")


if __name__ == "__main__":
    main()
