"""GeneCIS's templates and images, against plain recomputations and under every kind of damage."""

import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from commands import SHARED
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from toy_vlm import ToyVLM

from crl.embed import embed_images
from crl.images import Crop, open_image
from crl.run.errors import Missing, UserError
from similarity_retrieval import datasets
from similarity_retrieval.datasets import TASKS, dilated, images, load

REAL = SHARED / "genecis"
real_files = pytest.mark.skipif(not REAL.is_dir(), reason="GeneCIS's own files are not here")


def coco(image, **more):
    return {"val_image_id": image, **more}


def region(image, box, **more):
    return {"image_id": image, "instance_bbox": box, **more}


def template(reference, target, gallery, condition="car"):
    return {
        "reference": reference,
        "target": target,
        "gallery": gallery,
        "condition": condition,
    }


def write(root: Path, task: str, templates) -> Path:
    file = root / f"{task}.json"
    file.write_text(templates if isinstance(templates, str) else json.dumps(templates))
    return file


def draw(file: Path, size=(40, 30), seed=0) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(file, "PNG")  # exact pixels; Pillow goes by the content
    return file


def folders(root: Path) -> tuple[Path, Path]:
    return root / "coco", root / "visual_genome"


@pytest.fixture
def root(tmp_path) -> Path:
    """An official tree of three tasks that share images and conditions."""
    object_tasks = {
        "focus_object": [
            template(coco(1), coco(2), [coco(3), coco(4)]),
            template(coco("000000000002"), coco(5), [coco(1), coco(3)], "a dog"),
        ],
        "change_object": [
            template(coco(5), coco(2), [coco(6), coco(2)]),
            template(coco(4), coco(1), [coco(2)], "left out"),
            template(coco(3), coco(1), [coco(4), coco(2)], "a dog"),
        ],
    }
    attribute_task = [
        template(
            region("7", [5, 6, 10, 8], object_name="cup"),
            region(7, [5.0, 6.0, 10.0, 8.5]),
            [region(8, [0, 0, 40, 30]), region(9, [30, 20, 10, 10])],
            "a dog",
        ),
        template(
            region(8, [-3, 2, 9, 50]), region(7, [5, 6, 10, 8]), [region(9, [1, 2, 3, 4])] * 2
        ),
    ]
    for task, templates in {**object_tasks, "change_attribute": attribute_task}.items():
        write(tmp_path, task, templates)
    for image in range(1, 7):
        draw(tmp_path / "coco" / "val2017" / f"{image:012d}.jpg", seed=image)
    for image, part in ((7, "VG_100K"), (8, "VG_100K_2"), (9, "VG_All")):
        draw(tmp_path / "visual_genome" / part / f"{image}.jpg", seed=image)
    return tmp_path


DRAWN = ("focus_object", "change_object", "change_attribute")

# --- templates ------------------------------------------------------------------------------------


def naive(file: Path) -> list[tuple[int, list[int], str]]:
    """(reference, candidates with the target first, condition) of each template of a COCO task."""
    return [
        (
            int(t["reference"]["val_image_id"]),
            [int(i["val_image_id"]) for i in [t["target"], *t["gallery"]]],
            t["condition"],
        )
        for t in json.loads(file.read_text())
    ]


@real_files
def test_the_official_object_tasks():
    tasks = TASKS[:2]
    data = load(tasks, REAL)
    plain = {task: naive(REAL / f"{task}.json") for task in tasks}
    mentions = [
        str(i) for task in tasks for ref, gallery, _ in plain[task] for i in [ref, *gallery]
    ]
    assert len(mentions) == 62_720 and len(set(mentions)) == 3_033
    assert data.ids == list(dict.fromkeys(mentions))
    assert data.conditions == list(dict.fromkeys(c for task in tasks for *_, c in plain[task]))
    for task in tasks:
        t = data.tasks[task]
        assert t.left_out == 0 and t.repeated == (task == "change_object")
        assert t.reference.shape == t.condition.shape == (1960,) and t.gallery.shape == (1960, 15)
        assert {t.reference.dtype, t.gallery.dtype, t.condition.dtype} == {np.dtype(np.int64)}
        for b, (reference, gallery, condition) in enumerate(plain[task]):
            assert data.ids[t.reference[b]] == str(reference)
            assert [data.ids[i] for i in t.gallery[b]] == list(map(str, gallery))
            assert data.conditions[t.condition[b]] == condition


def test_tasks_share_images_and_conditions(root):
    data = load(DRAWN, root)
    assert data.ids == [
        *("1", "2", "3", "4", "5", "6"),
        *("7:5,6,10,8", "7:5,6,10,8.5", "8:0,0,40,30", "9:30,20,10,10", "8:-3,2,9,50", "9:1,2,3,4"),
    ]
    assert data.conditions == ["car", "a dog"]
    focus, change, attribute = (data.tasks[task] for task in DRAWN)
    assert focus.reference.tolist() == [0, 1] and focus.condition.tolist() == [0, 1]
    assert focus.gallery.tolist() == [[1, 2, 3], [4, 0, 2]]
    assert change.gallery.tolist() == [[1, 5, 1], [0, 3, 1]]
    assert (change.left_out, change.repeated) == (1, 1)
    assert attribute.reference.tolist() == [6, 10] and attribute.condition.tolist() == [1, 0]
    assert attribute.gallery.tolist() == [[7, 8, 9], [6, 11, 11]]
    assert (attribute.left_out, attribute.repeated) == (0, 0)
    alone = load(["change_attribute"], root)
    assert alone.ids == data.ids[6:] and alone.conditions == ["a dog", "car"]


def test_galleries_of_the_most_common_length_are_kept(tmp_path):
    lengths = [2, 3, 1, 3, 2]  # a tie: the shortest
    write(
        tmp_path,
        "focus_object",
        [template(coco(900 + i), coco(99), [coco(1)] * n) for i, n in enumerate(lengths)],
    )
    data = load(["focus_object"], tmp_path)
    t = data.tasks["focus_object"]
    assert [data.ids[i] for i in t.reference] == ["900", "904"]
    assert (t.gallery.shape, t.left_out) == ((2, 3), 3)


GOOD_COCO = template(coco(1), coco(2), [coco(3), coco("4")])
GOOD_REGION = template(*[region(i, [1, 2, 3, 4]) for i in (1, 2)], [region("3", [0.5, -1, 2, 9.5])])
BAD_COCO = [
    (7, "must hold `key: value` lines, not 7"),
    ({**GOOD_COCO, "reference": ...}, "reference: is missing"),
    ({**GOOD_COCO, "gallery": []}, "gallery: must have at least 1"),
    ({**GOOD_COCO, "gallery": [coco(3), 4]}, r"gallery\.1: must hold"),
    ({**GOOD_COCO, "condition": " "}, "condition: "),
    ({**GOOD_COCO, "condition": 3}, "condition: must be a text, not 3"),
    ({**GOOD_COCO, "target": coco("3a")}, r"target\.val_image_id: must be a whole number, not"),
    ({**GOOD_COCO, "target": coco(2.5)}, "must be a whole number, not 2.5"),
    ({**GOOD_COCO, "target": coco(-1)}, "at least 0"),
    (GOOD_REGION, "val_image_id: is missing"),
]


def box(*values):
    return {**GOOD_REGION, "reference": region(1, list(values))}


BAD_REGION = [
    ({**GOOD_REGION, "target": {"instance_bbox": [1, 2, 3, 4]}}, "image_id: is missing"),
    ({**GOOD_REGION, "target": region(1, 5)}, r"target\.instance_bbox: must be a list"),
    (box(1, 2, 3, 4, 5), "instance_bbox: .*at most 4"),
    (box(1, float("nan"), 3, 4), r"instance_bbox\.1: must be a finite number, not nan"),
    (box(10**400, 2, 3, 4), r"instance_bbox\.0: must be a"),
    (box("a", 2, 3, 4), r"instance_bbox\.0: must be a number, not 'a'"),
    (box(1, 2, 0, 4), r"instance_bbox\.2: .*above 0"),
    (GOOD_COCO, "image_id: is missing"),
]
CASES = [("focus_object", GOOD_COCO, *case) for case in BAD_COCO]
CASES += [("change_attribute", GOOD_REGION, *case) for case in BAD_REGION]


@pytest.mark.parametrize(("task", "good", "bad", "message"), CASES)
def test_a_wrong_template_is_named(tmp_path, task, good, bad, message):
    if isinstance(bad, dict):
        bad = {key: value for key, value in bad.items() if value is not ...}
    write(tmp_path, task, [good, good])
    assert len(load([task], tmp_path).tasks[task].reference) == 2
    write(tmp_path, task, [good] * 12 + [bad, good])
    with pytest.raises(UserError, match=rf"{task}\.json: templates\.12.*{message}") as caught:
        load([task], tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not valid JSON"),
        (b'[{"reference"', "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[\xff]", "not valid JSON"),
        (b"{}", "templates: must be a list"),
        (b"[]", "templates: must have at least 1"),
    ],
)
def test_a_file_of_another_form_is_named(tmp_path, content, message):
    (tmp_path / "focus_object.json").write_bytes(content)
    with pytest.raises(UserError, match=rf"focus_object\.json.* {message}"):
        load(["focus_object"], tmp_path)


def test_a_missing_file_says_where_to_get_it_and_where_to_put_it(root):
    with pytest.raises(Missing) as caught:
        load([*DRAWN, "focus_attribute"], root)
    assert str(caught.value).startswith("focus_attribute.json, GeneCIS's templates, is not in ")
    for part in (str(root), datasets.GENECIS_PAGE, datasets.TREE):
        assert part in str(caught.value)


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
    if part.width >= part.height:
        square.paste(part, (0, (part.width - part.height) // 2))
    else:
        square.paste(part, ((part.height - part.width) // 2, 0))
    return square


WIDTH, HEIGHT = 40, 30
near = st.one_of(
    st.sampled_from([-5, -0.5, 0, 0.25, 0.5, 1, 1.5, 10, 25, 29, 29.5, 30, 39, 39.5]),
    st.floats(-8, 39, allow_nan=False).map(lambda value: round(value, 2)),
)
far = st.one_of(st.sampled_from([1, 2, 2.5, 5, 10, 40, 60]), st.floats(1, 60))


@given(x=near, y=near, w=far, h=far)
@settings(max_examples=150)
def test_crops_are_those_of_the_protocol(tmp_path_factory, x, y, w, h):
    assume(y < HEIGHT and x + w > 0 and y + h > 0)
    folder = tmp_path_factory.mktemp("crops")
    file = draw(folder / "7.jpg", (WIDTH, HEIGHT))
    write(
        folder,
        "focus_attribute",
        [template(*[region(7, [x, y, w, h])] * 2, [region(7, [0, 0, 1, 1])])],
    )
    data = load(["focus_attribute"], folder)
    crop = images(data, folder, folder)[0]
    assert isinstance(crop, Crop) and crop.path == file
    expected = literal(file, [x, y, w, h])
    assert open_image(crop).size == expected.size
    assert open_image(crop).tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    "bbox",
    [[40, 0, 5, 5], [0, 30, 5, 5], [-5, 0, 5, 5], [0, -9, 5, 5], [9e300, 0, 9, 9], [9, 9, 0.1, 9]],
)
def test_a_box_outside_its_picture_is_named(root, bbox):
    good = region(7, [1, 2, 3, 4])
    wrong = template(good, good, [region(7, bbox)])
    write(root, "focus_attribute", [template(good, good, [good])] * 3 + [wrong])
    message = r"the box \[.*\] has no pixel in Visual Genome's image 7, which is 40 x 30"
    with pytest.raises(UserError, match=message):
        images(load([*DRAWN, "focus_attribute"], root), *folders(root))


# --- images ---------------------------------------------------------------------------------------


def test_images_in_the_order_of_their_ids(root):
    data = load(DRAWN, root)
    files_of = images(data, *folders(root))
    assert files_of[:6] == [root / "coco" / "val2017" / f"{i:012d}.jpg" for i in range(1, 7)]
    genome = root / "visual_genome"
    files = {7: genome / "VG_100K/7.jpg", 8: genome / "VG_100K_2/8.jpg", 9: genome / "VG_All/9.jpg"}
    for name, crop in zip(data.ids[6:], files_of[6:], strict=True):
        image, numbers = name.split(":")
        assert crop.path == files[int(image)]
        assert crop.box == dilated(list(map(float, numbers.split(","))), (40, 30))

    (genome / "VG_All" / "9.jpg").rename(genome / "9.jpg")
    assert images(data, *folders(root))[9].path == genome / "9.jpg"


def test_missing_images_are_counted_first_over_all_tasks(root, monkeypatch):
    data = load(DRAWN, root)
    for image in (1, 2, 3, 5):
        (root / "coco" / "val2017" / f"{image:012d}.jpg").unlink()
    (root / "visual_genome" / "VG_All" / "9.jpg").unlink()
    opened = []
    monkeypatch.setattr(Image, "open", lambda *a, **k: opened.append(a))
    with pytest.raises(UserError) as caught:
        images(data, *folders(root))
    names = ", ".join(f"{i:012d}.jpg" for i in (1, 2, 3))
    assert str(caught.value) == (
        f"4 of 6 images of COCO val2017 are not in {root}/coco/val2017 ({names}, ...); get them "
        f"from {datasets.COCO_PAGE}; 1 of 3 images of Visual Genome are not in "
        f"{root}/visual_genome (9.jpg); get them from {datasets.VISUAL_GENOME_PAGE}"
    )
    assert not opened

    with pytest.raises(UserError, match=r"^1 of 3 images of Visual Genome"):
        images(load(["change_attribute"], root), *folders(root))


def test_sizes_come_from_headers_opened_once(root, monkeypatch):
    file = root / "visual_genome" / "VG_100K" / "7.jpg"
    jpeg = io.BytesIO()
    Image.open(file).save(jpeg, "JPEG")
    file.write_bytes(jpeg.getvalue()[:700])  # the header and no pixels
    opened, really = [], Image.open

    def counting(file, **keywords):
        opened.append(Path(file).name)
        return really(file, **keywords)

    with monkeypatch.context() as patched:
        patched.setattr(Image, "open", counting)
        files = images(load(DRAWN, root), *folders(root))
    assert Counter(opened) == {"7.jpg": 1, "8.jpg": 1, "9.jpg": 1}
    with pytest.raises(UserError, match=r"cannot read the image .*7\.jpg: .*unreadable=skip"):
        embed_images(ToyVLM(), files, None)
    file.write_text("no image")
    with pytest.raises(UserError, match=r"cannot read the image .*VG_100K/7\.jpg"):
        images(load(DRAWN, root), *folders(root))


# --- the check command ----------------------------------------------------------------------------


def test_the_check_command(root, run, refusal):
    (root / "vitb16_backbone.pt").touch()
    code, out, errors = run(datasets.main, "--root", root, "--tasks", *DRAWN)
    assert (code, errors) == (0, "")
    lines = out.splitlines()
    assert lines[:2] == [
        "vitb16_backbone.pt: there", "vitb16_combiner_head.pt: not there (optional)"
    ]  # fmt: skip
    assert lines[2].startswith("focus_object: 2 templates (official: 1960), 3 candidates each; 0")
    assert "1 left out for" in lines[3] and "1 with the target twice" in lines[3]
    assert lines[4].startswith("change_attribute: 2 templates, 3 candidates each")
    assert lines[5] == "2 conditions, 12 images: all are there"

    def check(*tasks):
        return refusal(datasets.main, "--root", root, "--tasks", *tasks)

    (root / "coco/val2017/000000000005.jpg").unlink()
    assert "1 of 5 images of COCO val2017 are not in" in check("focus_object")
    assert "focus_attribute.json, GeneCIS's templates, is not in" in check("focus_attribute")
    assert "unknown task 'colour'" in check("colour")
