"""GeneCIS's four tasks: templates, and the image or crop of each of their ids.

A template is a reference image, a condition, and a gallery of candidates, one of which, the target,
is like the reference under that condition. Images of the object tasks are COCO's (val2017), those
of the attribute tasks are regions of Visual Genome's (1.2).
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Generic, Literal, NamedTuple, TypeVar, get_args

import numpy as np
from pydantic import BaseModel, Field, FiniteFloat, NonNegativeInt, ValidationError

from crl.images import Crop, UnreadableImage, readable
from crl.run.errors import Missing, UserError, explain
from crl.run.progress import progress

Task = Literal["focus_object", "change_object", "focus_attribute", "change_attribute"]
TASKS = get_args(Task)
GENECIS_PAGE = "https://github.com/facebookresearch/genecis (DOWNLOAD.md)"
COCO_PAGE = "https://cocodataset.org/#download (2017 Val images)"
VISUAL_GENOME_PAGE = "https://homes.cs.washington.edu/~ranjay/visualgenome/api.html (parts 1, 2)"
# For scripts/check_data.py: GeneCIS's published files and its DOWNLOAD.md.
OFFICIAL_TEMPLATES = {"focus_object": 1960, "change_object": 1960}
COCO_FILES, VISUAL_GENOME_FILES = 5000, 108249
WEIGHTS = ("vitb16_backbone.pt", "vitb16_combiner_head.pt")  # GeneCIS's own, optional
VISUAL_GENOME_FOLDERS = ("VG_100K", "VG_100K_2", "VG_All", ".")


class Templates(NamedTuple):
    """The B templates of one task that are evaluated: those whose gallery has the most common
    length, as in GeneCIS's evaluation."""

    reference: np.ndarray  # (B,) int64, index into GeneCIS.ids
    gallery: np.ndarray  # (B, G) int64, index into GeneCIS.ids; column 0 is the target
    condition: np.ndarray  # (B,) int64, index into GeneCIS.conditions
    left_out: int  # templates with a gallery of another length

    def some(self, rows: np.ndarray) -> "Templates":
        """The templates at `rows` (B',)."""
        reference, gallery, condition = (x[rows] for x in self[:3])
        return Templates(reference, gallery, condition, self.left_out)

    @property
    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """The distinct pairs of a reference and a condition (P, 2), and the row of each template's
        (B,)."""
        pairs = np.stack([self.reference, self.condition], axis=1)  # (B, 2)
        distinct, row = np.unique(pairs, axis=0, return_inverse=True)
        return distinct, row.reshape(-1)

    @property
    def counts(self) -> dict[str, int]:
        """For tables. A target that is in its gallery twice stays there, as in GeneCIS."""
        gallery = self.gallery
        repeated = int((gallery[:, 1:] == gallery[:, :1]).any(axis=1).sum())
        images = len(np.unique(np.append(gallery, self.reference)))
        counts = {"templates": len(gallery), "candidates": gallery.shape[1], "images": images}
        counts |= {"left_out": self.left_out, "target_also_in_gallery": repeated}
        return {**counts, "conditions": len(np.unique(self.condition))}


class GeneCIS(NamedTuple):
    """Templates that share their images and conditions, each in order of first appearance."""

    ids: list[str]  # M images: `139` (COCO), `2345:10,20,30,40` (a region: image, x, y, w, h)
    conditions: list[str]  # C conditions
    tasks: dict[Task, Templates]


class _CocoImage(BaseModel):
    val_image_id: NonNegativeInt

    @property
    def id(self) -> str:
        return str(self.val_image_id)


_Length = Annotated[FiniteFloat, Field(gt=0)]


class _Region(BaseModel):
    image_id: NonNegativeInt
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


class _File(BaseModel, Generic[_Image]):
    templates: list[_Template[_Image]] = Field(min_length=1)


def load(tasks: Sequence[Task], folder: Path) -> GeneCIS:
    """The templates of `tasks`, `<folder>/<task>.json`; a UserError names a malformed one."""
    ids: dict[str, int] = {}
    conditions: dict[str, int] = {}
    loaded: dict[Task, Templates] = {}
    for task in tasks:
        file = folder / f"{task}.json"
        if not file.is_file():
            raise Missing(f"{file.name}, GeneCIS's templates, is not in {folder.resolve()}; get it "
                          f"from {GENECIS_PAGE}")  # fmt: skip
        kind = _File[_Region] if task.endswith("attribute") else _File[_CocoImage]
        try:
            templates = kind.model_validate_json(b'{"templates": %b}' % file.read_bytes()).templates
        except ValidationError as error:
            raise UserError(f"{file} {explain(error)}; get it again") from error
        lengths = Counter(len(template.gallery) for template in templates)
        usual = min(lengths, key=lambda length: (-lengths[length], length))  # a tie: the shortest
        rows = []
        for template in templates:
            if len(template.gallery) == usual:
                images = [template.reference, template.target, *template.gallery]
                numbers = [ids.setdefault(image.id, len(ids)) for image in images]
                rows.append([conditions.setdefault(template.condition, len(conditions)), *numbers])
        condition, reference, *_ = columns = np.array(rows, np.int64).T
        gallery = np.ascontiguousarray(columns[2:].T)  # (B, G)
        loaded[task] = Templates(reference, gallery, condition, len(templates) - len(rows))
    return GeneCIS(list(ids), list(conditions), loaded)


def images(data: GeneCIS, coco: Path, visual_genome: Path) -> list[Path | Crop]:
    """The image file or crop of each of `data.ids` (M,), from the folders that hold `val2017`, and
    `VG_100K` and `VG_100K_2`. A UserError names missing and unreadable images, and a box outside
    its picture."""
    files = {name: _file(name, Path(coco), Path(visual_genome)) for name in data.ids}
    regions = dict.fromkeys(file for name, file in files.items() if ":" in name)
    for title, page, folder, wanted in (
        ("COCO val2017", COCO_PAGE, Path(coco, "val2017"), set(files.values()) - regions.keys()),
        ("Visual Genome", VISUAL_GENOME_PAGE, visual_genome, regions.keys()),
    ):
        if missing := sorted(file.name for file in wanted if not file.is_file()):
            raise (UserError if len(missing) < len(wanted) else Missing)(
                f"{len(missing)} of {len(wanted)} images of {title} are not in {folder} "
                f"({', '.join(missing[:3])}); get them from {page}"
            )
    sizes = {}
    for file in progress(regions, label="picture sizes", unit="images"):
        try:
            with readable(file) as image:  # reads the header
                sizes[file] = image.size
        except UnreadableImage as error:
            raise UserError(f"cannot read the image {file}: {error}; get it again") from error
    return [_crop(name, file, sizes[file]) if ":" in name else file for name, file in files.items()]


def _file(name: str, coco: Path, visual_genome: Path) -> Path:
    """The image file of an id; if it does not exist, where it should be."""
    image, _, box = name.partition(":")
    if not box:
        return coco / "val2017" / f"{int(image):012d}.jpg"
    places = [visual_genome / part / f"{image}.jpg" for part in VISUAL_GENOME_FOLDERS]
    return next((place for place in places if place.is_file()), places[0])


def _crop(name: str, file: Path, size: tuple[int, int]) -> Crop:
    """The region `name` of the picture `file`, dilated."""
    x, y, w, h = box = [float(number) for number in name.partition(":")[2].split(",")]
    left, top, right, bottom = dilated(box, size)
    inside = x < size[0] and y < size[1] and x + w > 0 and y + h > 0
    if not inside or left >= right or top >= bottom:
        raise UserError(f"the region {name} has no pixel in {file}, which is {size[0]} x {size[1]}")
    return Crop(file, (left, top, right, bottom))


def dilated(box: Sequence[float], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The region that GeneCIS shows for the object in `box` (x, y, width, height) of a picture of
    `size` (width, height): left, top, right, bottom in pixels.

    As in its evaluation, it is not symmetrical: left and top move out by 0.7 of the box's size, but
    not below 0; right and bottom are 1.7 box sizes from there, but not beyond the picture.

    >>> dilated((100, 0, 10, 10), size=(640, 480))
    (93, 0, 110, 17)
    """
    x, y, w, h = box
    left, top = max(0, x - 0.7 * w), max(0, y - 0.7 * h)
    right, bottom = min(size[0], left + 1.7 * w), min(size[1], top + 1.7 * h)
    return round(left), round(top), round(right), round(bottom)  # as PIL's crop rounds
