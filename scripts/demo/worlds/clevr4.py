"""The Clevr4 world: one to ten identical objects with a texture, a shape and a color.

The four taxonomies and class names are those of Clevr4-10k (Vaze et al., 2023); the pictures are
our own drawings, not renderings. Files are written as Clevr4 publishes them:
`clevr_4_10k_v1/images/<name>.png` and `clevr_4_10k_v1/clevr_4_annots.json`.
"""

import functools
import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from worlds import draw_many, sample_facts

SIZE = 128  # pixels, width and height of a picture
SPRITE = 72  # pixels, the object is drawn once at this size and pasted smaller
DOMINANT = ("shape",)
DATASET = "clevr_4_10k_v1"

PHRASES = {
    "texture": {
        "rubber": ("rubber", "matte", "rubbery", "smooth matte", "plain", "dull", "soft rubber"),
        "metal": ("metal", "metallic", "shiny", "polished", "chrome", "glossy", "steel"),
        "checkered": ("checkered", "gingham", "plaid", "checked", "tartan", "picnic cloth"),
        "emojis": ("emojis", "smiley faces", "emoji", "smileys", "happy faces", "emoticons"),
        "wave": ("wave", "wavy", "waves", "wavy lines", "rippled", "undulating", "ripples"),
        "brick": ("brick", "bricks", "brick wall", "brickwork", "masonry", "brick pattern"),
        "star": ("star", "stars", "starry", "star pattern", "star spangled", "tiny stars"),
        "circles": ("circles", "rings", "circle pattern", "dotted", "polka dots", "spotted"),
        "zigzag": ("zigzag", "chevron", "zigzags", "zigzag lines", "jagged lines", "herringbone"),
        "chessboard": ("chessboard", "checkerboard", "chess board", "black squares", "chess"),
    },
    "shape": {
        "cube": ("cube", "box", "block", "dice", "cubic block", "square box"),
        "sphere": ("sphere", "ball", "globe", "orb", "round ball", "spherical"),
        "monkey": ("monkey", "monkey head", "ape", "monkey face", "chimp", "animal head"),
        "cone": ("cone", "conical", "traffic cone", "pointed cone", "party hat", "funnel"),
        "torus": ("torus", "donut", "ring", "doughnut", "hoop", "tire"),
        "star": ("star", "five pointed star", "star shaped", "starfish", "pentagram", "stars"),
        "teapot": ("teapot", "kettle", "tea pot", "pot", "jug with a spout", "tea kettle"),
        "diamond": ("diamond", "gem", "jewel", "gemstone", "crystal", "brilliant cut gem"),
        "gear": ("gear", "cog", "cogwheel", "gear wheel", "toothed wheel", "sprocket"),
        "cylinder": ("cylinder", "can", "tube", "drum", "barrel", "cylindrical"),
    },
    "color": {
        "gray": ("gray", "grey", "silver", "slate", "ash", "charcoal", "stone gray"),
        "red": ("red", "crimson", "scarlet", "ruby", "cherry red", "bright red", "vermilion"),
        "blue": ("blue", "navy", "royal blue", "cobalt", "azure", "sapphire", "deep blue"),
        "green": ("green", "emerald", "forest green", "lime", "grass green", "jade", "olive"),
        "brown": ("brown", "chocolate", "chestnut", "coffee", "tan", "mahogany", "dark brown"),
        "purple": ("purple", "violet", "lavender", "plum", "indigo", "grape", "amethyst"),
        "cyan": ("cyan", "turquoise", "teal", "aqua", "sky blue", "aquamarine", "light blue"),
        "yellow": ("yellow", "golden", "lemon", "gold", "mustard", "canary yellow", "sunny"),
        "pink": ("pink", "rose", "magenta", "hot pink", "fuchsia", "blush", "salmon pink"),
        "orange": ("orange", "tangerine", "pumpkin", "apricot", "amber", "bright orange"),
    },
    "count": {
        "1": ("one", "1", "a single", "a lone", "just one", "only one", "single"),
        "2": ("two", "2", "a pair of", "a couple of", "twin", "a duo of", "double"),
        "3": ("three", "3", "a trio of", "exactly three", "triple", "a triplet of"),
        "4": ("four", "4", "a quartet of", "exactly four", "two pairs of", "quadruple"),
        "5": ("five", "5", "exactly five", "a handful of", "half of ten", "a quintet of"),
        "6": ("six", "6", "half a dozen", "exactly six", "a sextet of", "three pairs of"),
        "7": ("seven", "7", "exactly seven", "a group of seven", "a septet of"),
        "8": ("eight", "8", "exactly eight", "a group of eight", "an octet of", "four pairs of"),
        "9": ("nine", "9", "exactly nine", "a group of nine", "nearly ten"),
        "10": ("ten", "10", "exactly ten", "a group of ten", "ten of", "five pairs of"),
    },
}

RGB = {
    "gray": (128, 130, 133),
    "red": (205, 30, 35),
    "blue": (35, 65, 205),
    "green": (35, 150, 50),
    "brown": (125, 75, 35),
    "purple": (125, 45, 175),
    "cyan": (40, 190, 205),
    "yellow": (238, 212, 40),
    "pink": (245, 130, 185),
    "orange": (245, 130, 20),
}

# (u, v): sprite coordinates from -1 (left, top) to 1 (right, bottom)
GRID = np.meshgrid(np.linspace(-1, 1, SPRITE), np.linspace(-1, 1, SPRITE), indexing="ij")
V, U = GRID[0], GRID[1]


def sample(rng: np.random.Generator) -> dict[str, str]:
    """One class for every attribute, independent of each other."""
    return sample_facts(PHRASES, rng)


def draw(facts: dict[str, str], rng: np.random.Generator) -> Image.Image:
    """`count` copies of one object on a plain ground; place, size, angle and light vary."""
    sprite = _sprite(facts, rng)
    picture = _ground(rng)
    shadow = _shadow()
    cells = rng.permutation(12)[: int(facts["count"])]
    diameter = rng.uniform(26, 37)  # of the whole picture: it says nothing of the count
    centers = np.stack([16 + 32 * (cells % 4), 24 + 40 * (cells // 4)], 1)  # a 4 x 3 grid
    centers = centers + rng.uniform(-1, 1, centers.shape) * (4, 7)
    tilt = rng.uniform(-12, 12)
    for x, y in centers[np.argsort(centers[:, 1])]:  # far to near
        side = round(diameter * rng.uniform(0.92, 1.08))
        spot = shadow.resize((round(side * 1.25), round(side * 0.5)))
        picture.paste((15, 15, 20), (round(x - side * 0.55), round(y + side * 0.22)), spot)
        one = sprite.resize((side, side), Image.Resampling.BICUBIC)
        one = one.rotate(tilt + rng.uniform(-14, 14), Image.Resampling.BICUBIC, expand=True)
        picture.paste(one, (round(x - one.width / 2), round(y - one.height / 2)), one)
    return picture


def caption(facts: dict[str, str], rng: np.random.Generator) -> str:
    """A sentence that names exactly the attributes in `facts`, each by one of its phrases."""
    said = {a: str(rng.choice(PHRASES[a][c])) for a, c in facts.items()}
    if len(said) == 1 and rng.random() < 0.6:
        ((attribute, phrase),) = said.items()
        return str(
            rng.choice(
                [
                    f"objects with the {attribute} of {phrase}",
                    f"a photo with the {attribute} of {phrase}",
                    f"the {attribute} is {phrase}",
                    phrase,
                ]
            )
        )
    noun = said.get("shape") or str(rng.choice(["objects", "things", "items", "shapes"]))
    words = [said.get("count", ""), said.get("color", ""), said.get("texture", ""), noun]
    if "texture" in said and rng.random() < 0.4:
        words = [words[0], words[1], noun, f"with a {said['texture']} texture"]
    lead = str(rng.choice(["", "a photo of", "a picture of", "an image of", "there are"]))
    return " ".join(word for word in [lead, *words] if word)


def write(root: Path, images: int, seed: int, workers: int) -> None:
    """Draw `images` pictures into `root/clevr_4_10k_v1`, in Clevr4's official layout."""
    folder = Path(root) / DATASET
    (folder / "images").mkdir(parents=True, exist_ok=True)
    tasks = [(folder / "images" / f"CLEVR_4_{i:06d}.png", seed, i) for i in range(images)]
    annotations = {}
    for name, facts in draw_many(_draw_file, tasks, workers, "clevr4"):
        annotations[name] = {**facts, "count": int(facts["count"])}
    (folder / "clevr_4_annots.json").write_text(json.dumps(annotations, indent=0))


def _draw_file(task: tuple[Path, int, int]) -> tuple[str, dict[str, str]]:
    path, seed, index = task
    rng = np.random.default_rng([seed, index])
    facts = sample(rng)
    draw(facts, rng).save(path)
    return path.stem, facts


def _ground(rng: np.random.Generator) -> Image.Image:
    """Wall above, floor below, in faint colors, from dark to bright."""
    wall, floor = rng.uniform(70, 225, 2)[:, None] + rng.uniform(-12, 12, (2, 3))
    horizon, softness = rng.uniform(0.1, 0.5), rng.uniform(0.05, 0.3)
    y = np.linspace(0, 1, SIZE)
    blend = 1 / (1 + np.exp(-(y - horizon) / softness * 4))
    rows = wall + blend[:, None] * (floor - wall)
    slope = np.linspace(-1, 1, SIZE)[None, :, None] * rng.uniform(-15, 15)
    pixels = rows[:, None, :] + slope + rng.normal(0, 2, (SIZE, SIZE, 1))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@functools.cache
def _shadow() -> Image.Image:
    image = Image.new("L", (64, 32))
    ImageDraw.Draw(image).ellipse((12, 6, 52, 26), fill=120)
    return image.filter(ImageFilter.GaussianBlur(4))


def _sprite(facts: dict[str, str], rng: np.random.Generator) -> Image.Image:
    """One object, lit and textured: (SPRITE, SPRITE) RGBA."""
    mask, normals = _shape(facts["shape"])
    color = np.array(RGB[facts["color"]]) * rng.uniform(0.88, 1.08) + rng.uniform(-10, 10, 3)
    alpha, accent = _texture(facts["texture"], color, rng)
    surface = color + alpha[..., None] * (accent - color)  # (S, S, 3)

    light = np.array([rng.uniform(-0.7, 0.7), rng.uniform(-0.9, -0.3), 0.8])
    light = light / np.linalg.norm(light)
    lambert = (normals @ light).clip(0, 1)
    pixels = surface * (0.5 + 0.62 * lambert[..., None])
    if facts["texture"] == "metal":
        # A mirror shows sky, horizon and ground: bright, dark, bright bands, and a sharp glint.
        bands = 0.5 + 0.5 * np.sin(5.5 * normals[..., 1] + 2.5 * normals[..., 0] + 0.8)
        glint = (normals @ light).clip(0, 1) ** 14
        pixels = pixels * (0.45 + 0.85 * bands[..., None]) + 190 * glint[..., None]
    pixels = np.concatenate([pixels, mask[..., None]], 2).clip(0, 255)
    return Image.fromarray(pixels.astype(np.uint8), "RGBA")


def _texture(name: str, color: np.ndarray, rng: np.random.Generator):
    """How much of the accent shows (S, S) in [0, 1], and the accent's color (S, S, 3) or (3,)."""
    angle = rng.uniform(-0.3, 0.3)
    zoom = rng.uniform(0.9, 1.15)
    x = (U * np.cos(angle) - V * np.sin(angle)) * zoom + rng.uniform(0, 2)
    y = (U * np.sin(angle) + V * np.cos(angle)) * zoom + rng.uniform(0, 2)
    white, black = np.array([248, 248, 245]), np.array([22, 22, 26])
    if name in {"rubber", "metal"}:
        return np.zeros_like(U), color
    if name == "checkered":  # gingham: two crossing half-transparent bands
        stripes = (np.floor(x * 2.2) % 2 + np.floor(y * 2.2) % 2) / 2
        return stripes * 0.92, white
    if name == "chessboard":
        return (np.floor(x * 2.2) + np.floor(y * 2.2)) % 2, black
    if name == "brick":
        row = np.floor(y * 2.6)
        column = x * 1.5 + 0.5 * (row % 2)
        mortar = ((y * 2.6) % 1 < 0.24) | (column % 1 < 0.14)
        return mortar.astype(float), np.array([205, 203, 198])
    if name == "wave":
        return ((y * 2.1 + 0.28 * np.sin(x * 9)) % 1 < 0.42).astype(float), white
    if name == "zigzag":
        tooth = np.abs((x * 2.0) % 1 - 0.5) * 1.1
        return ((y * 2.1 + tooth) % 1 < 0.42).astype(float), black

    cell = 1.75  # tiles a unit
    row = np.floor(y * cell)
    tx, ty = (x * cell + 0.5 * (row % 2)) % 1 * 2 - 1, (y * cell) % 1 * 2 - 1
    radius, theta = np.hypot(tx, ty), np.arctan2(tx, -ty)
    if name == "circles":
        return ((radius < 0.85) & (radius > 0.42)).astype(float), white
    if name == "star":
        fold = np.abs((theta / (2 * np.pi / 5) + 0.5) % 1 - 0.5) * 2  # 0 at a tip, 1 between
        return (radius < 0.98 - 0.6 * fold).astype(float), white
    face = radius < 0.88  # emojis
    eyes = (np.hypot(np.abs(tx) - 0.32, ty + 0.25) < 0.17) & face
    mouth = (np.abs(radius - 0.55) < 0.12) & (ty > 0.18)
    accent = np.where((eyes | mouth)[..., None], black, np.array([255, 222, 60]))
    rim = face & (radius > 0.76)
    return face.astype(float), np.where(rim[..., None], np.array([120, 90, 10]), accent)


@functools.cache
def _shape(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Silhouette (S, S) in [0, 255] and unit normals (S, S, 3), x right, y down, z to the eye."""
    big = Image.new("L", (SPRITE * 4, SPRITE * 4))
    pen = ImageDraw.Draw(big)

    def points(pairs):
        return [((1 + u) / 2 * big.width, (1 + v) / 2 * big.height) for u, v in pairs]

    def polygon(*pairs, fill=255):
        pen.polygon(points(pairs), fill=fill)

    def ellipse(u, v, a, b, fill=255):
        pen.ellipse(points([(u - a, v - b), (u + a, v + b)]), fill=fill)

    normals = None
    if name == "sphere":
        ellipse(0, 0, 0.92, 0.92)
        z = np.sqrt((1 - (U**2 + V**2) / 0.92**2).clip(0.02))
        normals = np.stack([U / 0.92, V / 0.92, z], 2)
    elif name == "cube":
        top, right, left = (0, -0.95), (0.84, -0.5), (-0.84, -0.5)
        polygon(top, right, (0.84, 0.5), (0, 0.97), (-0.84, 0.5), left)
        lid = (-0.45 * np.abs(U) / 0.84 - V) > 0.02  # above the two front edges
        side = np.where((U < 0)[..., None], [-0.75, 0.25, 0.5], [0.85, 0.45, 0.1])
        normals = np.where(lid[..., None], [0.0, -0.9, 0.45], side)
    elif name == "cylinder":
        pen.rectangle(points([(-0.68, -0.62), (0.68, 0.62)]), fill=255)
        ellipse(0, 0.62, 0.68, 0.3)
        ellipse(0, -0.62, 0.68, 0.3)
        lid = (U / 0.68) ** 2 + ((V + 0.62) / 0.3) ** 2 < 1
        z = np.sqrt((1 - (U / 0.68) ** 2).clip(0.02))
        side = np.stack([U / 0.68, 0 * U + 0.1, z], 2)
        normals = np.where(lid[..., None], [0.0, -1.0, 0.3], side)
    elif name == "cone":
        polygon((0, -0.98), (0.82, 0.66), (-0.82, 0.66))
        ellipse(0, 0.66, 0.82, 0.28)
        across = U / (0.82 * ((V + 0.98) / 1.64)).clip(0.05)
        z = np.sqrt((1 - across**2).clip(0.02))
        normals = np.stack([across.clip(-1, 1), 0 * U - 0.35, z], 2)
    elif name == "torus":
        ellipse(0, 0, 0.96, 0.8)
        ellipse(0, 0, 0.42, 0.3, fill=0)
    elif name == "star":
        turn = np.arange(10) * np.pi / 5
        length = np.where(np.arange(10) % 2, 0.48, 1.0)
        polygon(*zip(length * np.sin(turn), 0.06 - length * np.cos(turn), strict=True))
    elif name == "gear":
        turn = np.arange(32) * 2 * np.pi / 32
        length = np.where(np.arange(32) % 4 < 2, 0.96, 0.68)
        polygon(*zip(length * np.sin(turn), length * np.cos(turn), strict=True))
        ellipse(0, 0, 0.26, 0.26, fill=0)
    elif name == "diamond":
        polygon((-0.55, -0.72), (0.55, -0.72), (0.96, -0.2), (0, 0.96), (-0.96, -0.2))
        crown = V < -0.2
        facets = np.stack([np.sign(U) * (0.2 + 0.6 * (np.abs(U) > 0.35)), 0 * U + 0.45], 2)
        facets = np.concatenate([facets, np.full_like(U, 0.5)[..., None]], 2)
        lid = np.where((np.abs(U) < 0.4)[..., None], [0.0, -0.6, 0.8], facets * [1, -1.2, 1])
        normals = np.where(crown[..., None], lid, facets)
    elif name == "teapot":
        ellipse(0, 0.2, 0.6, 0.56)  # body
        ellipse(0, -0.36, 0.34, 0.14)  # lid
        ellipse(0, -0.56, 0.12, 0.12)  # knob
        polygon((0.45, 0.4), (0.98, -0.38), (0.78, -0.42), (0.4, 0.0))  # spout
        ellipse(-0.64, 0.14, 0.34, 0.36)  # handle
        ellipse(-0.66, 0.14, 0.18, 0.2, fill=0)
        ellipse(0.06, 0.2, 0.6, 0.56)
    else:  # monkey: two ears, a broad head with brows, a muzzle; eyes and nostrils are holes
        ellipse(-0.74, -0.1, 0.25, 0.32)
        ellipse(0.74, -0.1, 0.25, 0.32)
        ellipse(0, -0.2, 0.62, 0.66)
        ellipse(0, 0.5, 0.46, 0.42)
        for side in (-1, 1):
            ellipse(side * 0.25, -0.22, 0.15, 0.19, fill=0)
            ellipse(side * 0.25, -0.18, 0.06, 0.08)
            ellipse(side * 0.12, 0.38, 0.05, 0.05, fill=0)
        pen.chord(points([(-0.26, 0.4), (0.26, 0.76)]), 10, 170, fill=0)
    mask = big.resize((SPRITE, SPRITE), Image.Resampling.LANCZOS)
    if normals is None:  # a pillow: the blurred silhouette is the height
        height = np.asarray(mask.filter(ImageFilter.GaussianBlur(5)), float) / 255 * 1.6
        dy, dx = np.gradient(height, 2 / SPRITE)
        normals = np.stack([-dx, -dy, np.ones_like(dx)], 2)
    normals = normals / np.linalg.norm(normals, axis=2, keepdims=True)
    return np.asarray(mask, float), normals
