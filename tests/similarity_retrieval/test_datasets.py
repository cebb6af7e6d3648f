"""GeneCIS's templates and images, against plain recomputations."""

import json
from collections import Counter
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from commands import SHARED
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from crl.images import Crop, open_image
from crl.run.errors import UserError
from similarity_retrieval.datasets import TASKS, dilated, images, load

REAL = SHARED / "genecis"


def coco(image):
    return {"val_image_id": image}


def region(image, box, **more):
    return {"image_id": image, "instance_bbox": box, **more}


def template(reference, target, gallery, condition="car"):
    return {"reference": reference, "target": target, "gallery": gallery, "condition": condition}


def write(root: Path, task: str, templates) -> None:
    (root / f"{task}.json").write_text(json.dumps(templates))


def draw(file: Path, seed=0) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (30, 40, 3), np.uint8)
    Image.fromarray(pixels).save(file, "PNG")  # exact pixels; Pillow goes by the content
    return file


CUP = region("7", [5, 6, 10, 8], object_name="cup")
WHOLE, CORNER = region(8, [0, 0, 40, 30]), region(9, [30, 20, 10, 10])
OUTSIDE = region(8, [-3, 2, 9, 50])
DRAWN = {
    "focus_object": [
        template(coco(1), coco(2), [coco(3), coco(4)]),
        template(coco("000000000002"), coco(5), [coco(1), coco(3)], "a dog"),
    ],
    "change_object": [
        template(coco(5), coco(2), [coco(6), coco(2)]),
        template(coco(4), coco(1), [coco(2)], "left out"),
        template(coco(3), coco(1), [coco(4), coco(2)], "a dog"),
    ],
    "change_attribute": [
        template(CUP, region(7, [5.0, 6.0, 10.0, 8.5]), [WHOLE, CORNER], "a dog"),
        template(OUTSIDE, region(7, [5, 6, 10, 8]), [region(9, [1, 2, 3, 4])] * 2),
    ],
}


@pytest.fixture
def root(tmp_path) -> Path:
    """An official tree of three tasks that share images and conditions."""
    for task, templates in DRAWN.items():
        write(tmp_path, task, templates)
    for image in range(1, 7):
        draw(tmp_path / "coco" / "val2017" / f"{image:012d}.jpg", seed=image)
    for image, part in ((7, "VG_100K"), (8, "VG_100K_2"), (9, "VG_All")):
        draw(tmp_path / "visual_genome" / part / f"{image}.jpg", seed=image)
    return tmp_path


def images_in(root, tasks=DRAWN):
    return images(load(tasks, root), root)


@pytest.mark.skipif(not REAL.is_dir(), reason="GeneCIS's own files are not here")
def test_the_official_object_tasks():
    tasks = TASKS[:2]
    data = load(tasks, REAL)
    mentions, conditions = [], []
    for task in tasks:
        t = data.tasks[task]
        assert t.left_out == 0 and t.counts["target_also_in_gallery"] == (task == "change_object")
        assert t.reference.shape == t.condition.shape == (1960,) and t.gallery.shape == (1960, 15)
        for b, plain in enumerate(json.loads((REAL / f"{task}.json").read_text())):
            gallery = [str(int(i["val_image_id"])) for i in [plain["target"], *plain["gallery"]]]
            reference = str(int(plain["reference"]["val_image_id"]))
            assert data.ids[t.reference[b]] == reference
            assert [data.ids[i] for i in t.gallery[b]] == gallery
            assert data.conditions[t.condition[b]] == plain["condition"]
            mentions += [reference, *gallery]
            conditions.append(plain["condition"])
    assert len(mentions) == 62_720 and len(set(mentions)) == 3_033
    assert data.ids == list(dict.fromkeys(mentions))
    assert data.conditions == list(dict.fromkeys(conditions))


def test_tasks_share_images_and_conditions(root):
    data = load(DRAWN, root)
    regions = "7:5,6,10,8 7:5,6,10,8.5 8:0,0,40,30 9:30,20,10,10 8:-3,2,9,50 9:1,2,3,4"
    assert data.ids == [*"123456", *regions.split()]
    assert data.conditions == ["car", "a dog"]
    focus, change, attribute = (data.tasks[task] for task in DRAWN)
    assert focus.reference.tolist() == [0, 1] and focus.condition.tolist() == [0, 1]
    assert focus.gallery.tolist() == [[1, 2, 3], [4, 0, 2]]
    assert change.gallery.tolist() == [[1, 5, 1], [0, 3, 1]]
    assert (change.left_out, change.counts["target_also_in_gallery"]) == (1, 1)
    assert attribute.reference.tolist() == [6, 10] and attribute.condition.tolist() == [1, 0]
    assert attribute.gallery.tolist() == [[7, 8, 9], [6, 11, 11]]


GOOD = template(*[region(i, [1, 2, 3, 4]) for i in (1, 2)], [region("3", [0.5, -1, 2, 9.5])])


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({**GOOD, "condition": " "}, "condition: "),
        ({**GOOD, "target": region("3a", [1, 2, 3, 4])}, r"target\.image_id: must be a whole numb"),
        ({**GOOD, "target": region(1, 5)}, r"target\.instance_bbox: must be a list"),
        ({**GOOD, "target": region(1, [1, float("nan"), 3, 4])}, r"bbox\.1: must be a finite"),
        ({**GOOD, "target": region(1, [1, 2, 0, 4])}, r"instance_bbox\.2: .*above 0"),
        (template(coco(1), coco(2), [coco(3)]), "image_id and instance_bbox: is missing"),
    ],
)
def test_a_wrong_template_is_named(tmp_path, bad, message):
    write(tmp_path, "change_attribute", [GOOD] * 12 + [bad, GOOD])
    with pytest.raises(UserError, match=rf"change_attribute\.json templates\.12.*{message}"):
        load(["change_attribute"], tmp_path)


# --- boxes ----------------------------------------------------------------------------------------


def literal(file: Path, bbox: list[float]) -> Image.Image:
    """The protocol's region, step by step with PIL: dilate, crop by floats, pad to a square."""
    image = Image.open(file).convert("RGB")
    x, y, w, h = bbox
    left = max(0, x - 0.7 * w)
    top = max(0, y - 0.7 * h)
    right = min(image.width, left + 1.7 * w)
    bottom = min(image.height, top + 1.7 * h)
    part = image.crop((left, top, right, bottom))
    side = max(part.width, part.height)
    square = Image.new("RGB", (side, side), (0, 0, 0))
    square.paste(part, ((side - part.width) // 2, (side - part.height) // 2))
    return square


near = st.one_of(
    st.sampled_from([-5, -0.5, 0, 0.25, 0.5, 1, 1.5, 10, 25, 29, 29.5, 30, 39, 39.5]),
    st.floats(-8, 39, allow_nan=False).map(lambda value: round(value, 2)),
)
far = st.one_of(st.sampled_from([1, 2, 2.5, 5, 10, 40, 60]), st.floats(1, 60))


@given(x=near, y=near, w=far, h=far)
@settings(max_examples=150)
def test_crops_are_those_of_the_protocol(tmp_path_factory, x, y, w, h):
    assume(y < 30 and x + w > 0 and y + h > 0)
    folder = tmp_path_factory.mktemp("crops")
    file = draw(folder / "7.jpg")
    templates = [template(*[region(7, [x, y, w, h])] * 2, [region(7, [0, 0, 1, 1])])]
    write(folder, "focus_attribute", templates)
    crop = images(load(["focus_attribute"], folder), folder, folder, folder)[0]
    assert isinstance(crop, Crop) and crop.path == file
    expected = literal(file, [x, y, w, h])
    assert open_image(crop).size == expected.size
    assert open_image(crop).tobytes() == expected.tobytes()


@pytest.mark.parametrize("bbox", [[40, 0, 5, 5], [0, -9, 5, 5], [9e300, 0, 9, 9], [9, 9, 0.1, 9]])
def test_a_box_outside_its_picture_is_named(root, bbox):
    good = region(7, [1, 2, 3, 4])
    write(root, "focus_attribute", [template(good, good, [region(7, bbox)])])
    with pytest.raises(UserError, match=r"the region 7:.* has no pixel in .*7.jpg, which is 40 x"):
        images_in(root, ["focus_attribute"])


# --- images ---------------------------------------------------------------------------------------


def test_images_in_the_order_of_their_ids(root):
    with mock.patch.object(Image, "open", side_effect=Image.open) as opened:
        files = images_in(root)
    assert files[:6] == [root / "coco" / "val2017" / f"{i:012d}.jpg" for i in range(1, 7)]
    folders = {7: "VG_100K", 8: "VG_100K_2", 9: "VG_All"}
    for name, crop in zip(load(DRAWN, root).ids[6:], files[6:], strict=True):
        image, numbers = name.split(":")
        assert crop.path == root / "visual_genome" / folders[int(image)] / f"{image}.jpg"
        assert crop.box == dilated(list(map(float, numbers.split(","))), (40, 30))
    names = Counter(Path(call.args[0]).name for call in opened.call_args_list)
    assert names == {"7.jpg": 1, "8.jpg": 1, "9.jpg": 1}


def test_missing_images_are_named(root):
    (root / "visual_genome/VG_All/9.jpg").unlink()
    with pytest.raises(UserError, match=r"^1 of 3 images of Visual Genome are not in .* \(9.jpg\)"):
        images_in(root)
    for image in (1, 2, 3, 5):
        (root / f"coco/val2017/{image:012d}.jpg").unlink()
    with pytest.raises(UserError, match=r"^4 of 6 images of COCO val2017 are not in .*000001.jpg"):
        images_in(root)
