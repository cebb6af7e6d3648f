"""The Scenes world: 18 places, and one to three of 30 things in each.

The things are drawn independently of the place, so that a picture's things say nothing of its
scene: a cow in a kitchen is intended. Files are written as GeneCIS expects them below `genecis/`:
COCO 2017 and Visual Genome pictures, and GeneCIS's four template files.
"""

import json
import re
from pathlib import Path

import numpy as np
from PIL import Image

from worlds import draw_many
from worlds.clevr4 import RGB
from worlds.scenes_drawing import painted, picture

DATASET = "genecis"
TEMPLATES = 1960  # in each of GeneCIS's object tasks
WORDS = 13  # the longest caption; the demo VLM reads 16 tokens
VAL, TRAIN, GENOME, REST = 1, 2, 3, 4  # second word of the seeds: no two sets share a drawing

SCENES = {
    "kitchen": ("kitchen", "restaurant kitchen", "kitchen counter", "pantry", "cooking area"),
    "bedroom": ("bedroom", "hotel room", "guest room", "sleeping room"),
    "bathroom": ("bathroom", "bathroom sink", "bathtub and shower", "washroom", "restroom"),
    "classroom": ("classroom", "school", "chalkboard", "schoolroom", "lecture room"),
    "library": ("library", "bookstore", "reading room", "bookshelves"),
    "supermarket aisle": ("supermarket aisle", "grocery store", "store", "supermarket"),
    "city street": ("city street", "downtown", "sidewalk", "intersection", "crosswalk", "road"),
    "street at night": ("street at night", "city skyline", "starry night", "city at night"),
    "beach": ("beach", "rocky coast", "island", "sandy beach", "seashore"),
    "forest": ("forest", "woods", "autumn forest", "hiking trail", "jungle"),
    "desert": ("desert", "sand dunes", "canyon", "sandy desert", "dry desert"),
    "snowy mountain": (
        "snowy mountain",
        "ski slope",
        "mountain",
        "snow-covered field",
        "snowy peak",
    ),
    "farm": ("farm", "cattle ranch", "wheat field", "pasture", "farmyard", "barn"),
    "harbor": ("harbor", "marina", "fishing pier", "lighthouse", "port"),
    "playground": ("playground", "park", "play area", "swings and slide"),
    "tennis court": ("tennis court", "tennis match", "court", "tennis"),
    "railroad tracks": (
        "railroad tracks",
        "train station",
        "train yard",
        "train tracks",
        "railway",
    ),
    "swimming pool": ("swimming pool", "pool", "lap pool", "poolside"),
}
OBJECTS = {
    "dog": ("dog", "puppy", "hound", "doggy"),
    "cat": ("cat", "kitten", "kitty", "house cat"),
    "bird": ("bird", "songbird", "sparrow", "little bird"),
    "horse": ("horse", "pony", "stallion", "mare"),
    "cow": ("cow", "bull", "ox", "dairy cow"),
    "sheep": ("sheep", "lamb", "ewe", "woolly sheep"),
    "elephant": ("elephant", "tusker", "gray elephant"),
    "giraffe": ("giraffe", "tall giraffe", "spotted giraffe"),
    "person": ("person", "human", "pedestrian", "human being"),
    "car": ("car", "automobile", "sedan", "auto"),
    "bus": ("bus", "coach", "passenger bus", "minibus"),
    "bicycle": ("bicycle", "bike", "cycle", "push bike"),
    "boat": ("boat", "sailboat", "sailing boat", "ship", "yacht"),
    "chair": ("chair", "seat", "side chair", "dining chair"),
    "table": ("table", "desk", "coffee table", "dining table"),
    "umbrella": ("umbrella", "parasol", "open umbrella"),
    "ball": ("ball", "toy ball", "bouncy ball", "striped ball"),
    "clock": ("clock", "alarm clock", "timepiece"),
    "laptop": ("laptop", "laptop computer", "computer", "notebook"),
    "bottle": ("bottle", "wine bottle", "flask", "glass bottle"),
    "cup": ("cup", "mug", "coffee cup", "tea cup"),
    "lamp": ("lamp", "bedside lamp", "lampshade", "electric lamp"),
    "kite": ("kite", "flying kite", "toy kite"),
    "teddy bear": ("teddy bear", "teddy", "stuffed bear", "plush bear"),
    "flower": ("flower", "blossom", "potted flower", "daisy"),
    "backpack": ("backpack", "rucksack", "knapsack", "bookbag"),
    "suitcase": ("suitcase", "luggage", "travel bag", "rolling suitcase"),
    "guitar": ("guitar", "acoustic guitar", "wooden guitar"),
    "banana": ("banana", "ripe banana", "plantain"),
    "cake": ("cake", "birthday cake", "layer cake"),
}
PHRASES = {"scene": SCENES} | {name: {"yes": said, "no": ()} for name, said in OBJECTS.items()}
DOMINANT = tuple(OBJECTS)

# "in" a place unless named here
PREPOSITION = {"city street": "on", "street at night": "on", "beach": "on", "snowy mountain": "on"}
PREPOSITION |= {"farm": "on", "tennis court": "on", "railroad tracks": "on", "swimming pool": "at"}
PREPOSITION |= {"playground": "at", "harbor": "at"}
NO_ARTICLE = {"downtown", "woods", "tennis", "luggage", "bookshelves", "sand dunes"}
NO_ARTICLE |= {"railroad tracks", "train tracks", "swings and slide"}

PAINTED = ("car", "bus", "bicycle", "boat", "chair", "table", "umbrella", "ball", "clock")
PAINTED += ("bottle", "cup", "lamp", "kite", "flower", "backpack", "suitcase")


def sample(rng: np.random.Generator) -> dict[str, str]:
    """A scene, and "yes" for one to three things, which do not depend on the scene."""
    return _sample(rng, len(SCENES), len(OBJECTS))


def _sample(rng: np.random.Generator, scenes: int, objects: int) -> dict[str, str]:
    """`sample` from the first so many scenes and things only."""
    scene = list(SCENES)[rng.integers(scenes)]
    there = {list(OBJECTS)[i] for i in rng.permutation(objects)[: rng.integers(1, 4)]}
    return {"scene": scene} | {name: "yes" if name in there else "no" for name in OBJECTS}


def draw(facts: dict[str, str], rng: np.random.Generator) -> Image.Image:
    """The scene with its things side by side; colors, places, sizes and light vary."""
    return _draw(facts, rng)[0]


def _draw(facts: dict[str, str], rng: np.random.Generator) -> tuple[Image.Image, list[str]]:
    """The picture, and its things from left to right."""
    order = [str(name) for name in rng.permutation(_present(facts))]
    return picture(facts["scene"], [(name, None) for name in order], rng)[0], order


def _present(facts: dict[str, str]) -> list[str]:
    return [name for name, value in facts.items() if value == "yes"]


def caption(facts: dict[str, str], rng: np.random.Generator) -> str:
    """A sentence that names the scene, if in `facts`, and each thing that is "yes"; no more."""

    def choose(options) -> str:
        return options[rng.integers(len(options))]

    things = [choose(OBJECTS[name]) for name in _present(facts)]
    things = [things[i] for i in rng.permutation(len(things))]
    listed, bare = _listed([_a(thing) for thing in things]), ", ".join(things)
    if "scene" not in facts and not things:
        forms = ["a photo", "a picture of a place", "a photo of a place", "an image"]
    elif "scene" not in facts:
        forms = [listed, bare, f"a photo with {listed}", f"a photo of {listed}"]
        forms += [f"a picture of {listed}"]
        if len(things) == 2:
            forms += [f"{_a(things[0])} next to {_a(things[1])}"] * 2
    else:
        scene = choose(SCENES[facts["scene"]])
        place, into = _a(scene), PREPOSITION.get(facts["scene"], "in")
        if not things:
            forms = [f"a photo with a scene of {scene}"] * 4
            forms += [scene, place, f"a photo of {place}", f"a picture of {place}"]
        else:
            forms = [f"{listed} {into} {place}", f"{place} with {listed}"] * 2
            forms += [f"{scene}, {bare}", f"a photo of {listed} {into} {place}"]
            if len(things) == 2:
                forms += [f"{place} with {_a(things[0])} next to {_a(things[1])}"]
    short = [form for form in forms if len(re.findall(r"\w+", form)) <= WORDS]
    return choose(short or [min(forms, key=lambda form: len(form.split()))])


def _a(noun: str) -> str:
    """The noun with its article."""
    if noun in NO_ARTICLE:
        return noun
    vowel = noun.startswith(("a", "e", "i", "o", "umb")) and noun != "ewe"  # heard, not written
    return f"an {noun}" if vowel else f"a {noun}"


def _listed(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def kinds(images: int) -> tuple[int, int]:
    """How many kinds of scenes and of things so many pictures show."""
    return min(len(SCENES), max(2, images // 16)), min(len(OBJECTS), max(4, images // 8))


def write(root: Path, images: int, seed: int, workers: int) -> None:
    """Draw `root/genecis`: COCO pictures, `images` val and as many train, and Visual Genome ones.

    A small set has fewer kinds of scenes and things, so that galleries can still be filled.
    """
    folder = Path(root) / DATASET
    coco = folder / "coco"
    (coco / "annotations").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, REST])
    ids = rng.integers(1, 60, 2 * images).cumsum()  # COCO's ids have gaps, train between val
    shuffled = rng.permutation(ids)
    for split, name, chosen in (
        (VAL, "val2017", sorted(shuffled[:images].tolist())),
        (TRAIN, "train2017", sorted(shuffled[images:].tolist())),
    ):
        (coco / name).mkdir(exist_ok=True)
        tasks = [(coco / name, [seed, split, i], n, kinds(images)) for i, n in enumerate(chosen)]
        drawn = list(draw_many(_draw_coco, tasks, workers, name))
        captions = [
            {"id": 10 * n + 1, "image_id": n, "caption": row["caption"]}
            for n, (_, row) in zip(chosen, drawn, strict=True)
        ]
        files = [
            {"id": n, "file_name": f"{n:012d}.jpg", "width": 128, "height": 128} for n in chosen
        ]
        info = {"description": "drawn pictures in the format of COCO 2017"}
        official = {"info": info, "licenses": [], "images": files, "annotations": captions}
        (coco / "annotations" / f"captions_{name}.json").write_text(json.dumps(official))
        if split == TRAIN:
            lines = "".join(json.dumps(row) + "\n" for _, row in drawn)
            (coco / "annotations" / "relations_train2017.jsonl").write_text(lines)
        else:
            all_facts = [facts for facts, _ in drawn]
            for task in ("focus", "change"):
                templates = _object_templates(task, all_facts, chosen, rng)
                (folder / f"{task}_object.json").write_text(json.dumps(templates, indent=1))
    boxes = _write_genome(folder / "visual_genome", max(4, images // 15), seed, workers, rng)
    for task in ("focus", "change"):
        templates = _attribute_templates(task, boxes, max(4, images // 15), rng)
        (folder / f"{task}_attribute.json").write_text(json.dumps(templates, indent=1))


def _draw_coco(task: tuple[Path, list[int], int, tuple[int, int]]):
    """Draw one picture; its facts and its row of the graph file."""
    folder, seed, number, kinds = task
    rng = np.random.default_rng(seed)
    facts = _sample(rng, *kinds)
    image, order = _draw(facts, rng)
    image.save(folder / f"{number:012d}.jpg", quality=92)
    row = {"image": f"{folder.name}/{number:012d}.jpg"}
    if seed[1] == TRAIN:
        said, relations = _relations(facts["scene"], order, rng)
        return facts, row | {"caption": said, "relations": relations}
    return facts, row | {"caption": caption(facts, rng)}


def _relations(scene: str, order: list[str], rng: np.random.Generator):
    """A sentence about scene and things (left to right), and exactly the relations it says."""
    place, into, found = _a(scene), PREPOSITION.get(scene, "in"), []

    def relate(subject: str, relation: str, thing: str) -> None:
        found.append({"subject": subject, "relation": relation, "object": thing})

    at = int(rng.integers(max(len(order) - 1, 1)))
    pair, rest = order[at : at + 2], order[:at] + order[at + 2 :]
    if rng.random() < 0.5:
        pair.reverse()
    one = _a(pair[0])
    if len(pair) == 2:
        one += f" next to {_a(pair[1])}"
    listed = _listed([*map(_a, rest), one])
    inside = rng.random() < 0.35
    for thing in [*rest, pair[0]]:
        relate(*((thing, into, scene) if inside else (scene, "with", thing)))
    if len(pair) == 2:
        relate(pair[0], "next to", pair[1])
    return f"{listed} {into} {place}" if inside else f"{place} with {listed}", found


def _object_templates(task: str, facts: list[dict], ids: list[int], rng) -> list[dict]:
    """GeneCIS's object templates, as many as asked for or as can be built.

    The target has the reference's scene and the condition, a thing. The gallery has 7 pictures of
    the scene without the thing and 7 with the thing in other scenes. The reference has the thing
    too (focus) or not (change).
    """
    scene = np.array([row["scene"] for row in facts])  # (N,)
    has = {name: np.array([row[name] == "yes" for row in facts]) for name in OBJECTS}  # each (N,)
    templates, asked = {}, min(TEMPLATES, len(ids))
    for _ in range(20 * asked):
        if len(templates) == asked:
            break
        target = int(rng.integers(len(ids)))
        name = str(rng.choice(_present(facts[target])))
        here = scene == scene[target]
        candidates = np.flatnonzero(here & (has[name] == (task == "focus")))
        candidates = candidates[candidates != target]
        if not len(candidates):
            continue
        reference = int(rng.choice(candidates))
        without = np.flatnonzero(here & ~has[name])
        without = without[without != reference]
        elsewhere = np.flatnonzero(~here & has[name])
        if min(len(without), len(elsewhere)) < 7:
            continue
        gallery = [*rng.permutation(without)[:7], *rng.permutation(elsewhere)[:7]]
        templates[reference, target, name] = {
            "reference": {"val_image_id": ids[reference]},
            "target": {"val_image_id": ids[target]},
            "gallery": [{"val_image_id": ids[i]} for i in rng.permutation(gallery)],
            "condition": name,
        }
    return list(templates.values())


def _write_genome(folder: Path, images: int, seed: int, workers: int, rng) -> list[dict]:
    """Draw the Visual Genome pictures in their two folders; one row for each painted thing."""
    parts = [folder / "VG_100K", folder / "VG_100K_2"]
    for part in parts:
        part.mkdir(parents=True, exist_ok=True)
    ids = rng.integers(1, 30, images).cumsum().tolist()
    kinds = (min(len(PAINTED), max(3, images // 4)), min(len(RGB), max(3, images // 4)))
    tasks = [(parts[i % 2], [seed, GENOME, i], n, kinds) for i, n in enumerate(ids)]
    return [
        row for rows in draw_many(_draw_genome, tasks, workers, "visual genome") for row in rows
    ]


def _draw_genome(task: tuple[Path, list[int], int, tuple[int, int]]) -> list[dict]:
    folder, seed, number, (kinds, colors) = task
    rng = np.random.default_rng(seed)
    scene = list(SCENES)[rng.integers(len(SCENES))]
    names = [PAINTED[i] for i in rng.permutation(kinds)[: rng.integers(2, 4)]]
    paints = [list(RGB)[rng.integers(colors)] for _ in names]
    things = [(name, painted(rng, paint)) for name, paint in zip(names, paints, strict=True)]
    image, boxes = picture(scene, things, rng, zoom=2)
    image.crop((0, 64, 256, 256)).save(folder / f"{number}.jpg", quality=92)
    rows = []
    for name, paint, (left, top, right, bottom) in zip(names, paints, boxes, strict=True):
        x, y = max(int(left), 0), max(int(top) - 64, 0)
        w, h = min(int(right) + 1, 256) - x, min(int(bottom) - 63, 192) - y
        place = {"image_id": number, "instance_bbox": [x, y, w, h]}
        rows.append({"kind": name, "color": paint, "place": place})
    return rows


def _attribute_templates(task: str, things: list[dict], asked: int, rng) -> list[dict]:
    """GeneCIS's attribute templates about color, as many as asked for or as can be built.

    Focus: the target has the reference's color and another kind; the gallery has other colors, 5
    of the reference's kind and 4 of other kinds. Change: the target has the reference's kind and
    the color of the condition; the gallery has 5 of that kind in other colors and 4 other kinds
    in that color.
    """
    kind = np.array([thing["kind"] for thing in things])
    color = np.array([thing["color"] for thing in things])
    templates = {}
    for _ in range(20 * asked):
        if len(templates) == asked:
            break
        reference, target = rng.permutation(len(things))[:2].tolist()
        same_kind = kind == kind[reference]
        same_color = color == color[target]
        if task == "focus":
            fits = same_color[reference] and not same_kind[target]
            others = ~same_kind & ~same_color
        else:
            fits = same_kind[target] and not same_color[reference]
            others = ~same_kind & same_color
        kin = np.flatnonzero(same_kind & ~same_color)
        kin, others = kin[kin != reference], np.flatnonzero(others)
        if not fits or len(kin) < 5 or len(others) < 4:
            continue
        gallery = rng.permutation([*rng.permutation(kin)[:5], *rng.permutation(others)[:4]])
        templates[reference, target] = {
            "reference": things[reference]["place"],
            "target": things[target]["place"],
            "gallery": [things[i]["place"] for i in gallery],
            "condition": "color" if task == "focus" else things[target]["color"],
        }
    return list(templates.values())
