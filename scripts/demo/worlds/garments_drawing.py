"""The pictures of the Garments world: silhouettes, prints, fabrics, details and backdrops.

A garment is painted on a square of BOX pixels. Everything that does not depend on the colors is
drawn once for each process, in a few variants, and kept; a picture then is a handful of products.
Coordinates (x, y) of silhouettes and details run from -1 (left, top) to 1 (right, bottom).
"""

import functools
import itertools
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

SIZE = 128  # pixels, width and height of a picture
BOX = 116  # pixels, the square in which a garment is painted
FINE = 4  # silhouettes and details are drawn this much larger, then reduced
TILE = 160  # pixels, prints and fabrics are cut from a tile of this size
VARIANTS = 5  # of each print, fabric and detail

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Cut:
    """A silhouette: the right half of its outline, and where details go."""

    half: Points  # from the middle of the top to the middle of the bottom
    hem: list[Points]  # the lower edges, each from left to right
    waist: tuple[float, float, float]  # y, and the two ends
    spine: tuple[float, float, float]  # x, top and bottom of the longest upright strip of cloth
    chest: tuple[float, float]  # where a single large detail goes
    hips: tuple[float, float]  # (x, y) of the right one of two pockets
    lines: list[Points] = ()  # seams
    dark: list[Points] = ()  # openings in which one sees the inside (right halves)
    shirt: Points = ()  # what one sees of a pale shirt below (right half)
    extra: list[Points] = ()  # more cloth


def _mirrored(line: Points) -> Points:
    return [(-x, y) for x, y in reversed(line)]


# fmt: off  (one point a line would be long)
CUTS = {
    "dress": Cut(
        half=[
            (0, -0.6),
            (0.15, -0.66),
            (0.17, -0.95),
            (0.29, -0.95),
            (0.28, -0.68),
            (0.38, -0.5),
            (0.25, -0.12),
            (0.66, 0.68),
            (0.36, 0.75),
            (0, 0.78),
        ],
        hem=[[(-0.66, 0.68), (-0.36, 0.75), (0, 0.78), (0.36, 0.75), (0.66, 0.68)]],
        waist=(-0.12, -0.26, 0.26),
        spine=(0, -0.55, 0.72),
        chest=(0, -0.38),
        hips=(0.24, 0.26),
        lines=[[(-0.26, -0.12), (0.26, -0.12)]],
    ),
    "ball gown": Cut(
        half=[
            (0, -0.7),
            (0.14, -0.8),
            (0.3, -0.74),
            (0.2, -0.2),
            (0.5, 0),
            (0.86, 0.45),
            (0.97, 0.84),
            (0.5, 0.9),
            (0, 0.92),
        ],
        hem=[[(-0.97, 0.84), (-0.5, 0.9), (0, 0.92), (0.5, 0.9), (0.97, 0.84)]],
        waist=(-0.2, -0.22, 0.22),
        spine=(0, -0.66, 0.86),
        chest=(0, -0.48),
        hips=(0.38, 0.3),
        lines=[
            [(-0.1, -0.1), (-0.3, 0.88)],
            [(0.1, -0.1), (0.3, 0.88)],
            [(-0.18, -0.14), (-0.66, 0.86)],
            [(0.18, -0.14), (0.66, 0.86)],
        ],
        extra=[[(0.24, -0.78), (0.4, -0.9), (0.58, -0.78), (0.56, -0.58), (0.36, -0.5)]],
    ),
    "full skirt": Cut(
        half=[
            (0, -0.62),
            (0.3, -0.64),
            (0.32, -0.46),
            (0.6, 0),
            (0.9, 0.56),
            (0.45, 0.68),
            (0, 0.7),
        ],
        hem=[[(-0.9, 0.56), (-0.45, 0.68), (0, 0.7), (0.45, 0.68), (0.9, 0.56)]],
        waist=(-0.54, -0.31, 0.31),
        spine=(0, -0.42, 0.64),
        chest=(0, -0.22),
        hips=(0.36, 0.12),
        lines=[
            [(-0.32, -0.45), (0.32, -0.45)],
            [(-0.1, -0.44), (-0.26, 0.66)],
            [(0.1, -0.44), (0.26, 0.66)],
            [(-0.2, -0.44), (-0.58, 0.6)],
            [(0.2, -0.44), (0.58, 0.6)],
        ],
    ),
    "T-shirt": Cut(
        half=[
            (0, -0.6),
            (0.14, -0.66),
            (0.22, -0.8),
            (0.44, -0.74),
            (0.96, -0.3),
            (0.7, 0),
            (0.48, -0.22),
            (0.48, 0.74),
            (0, 0.76),
        ],
        hem=[[(-0.48, 0.74), (0, 0.76), (0.48, 0.74)]],
        waist=(0.36, -0.48, 0.48),
        spine=(0, -0.54, 0.7),
        chest=(0, -0.25),
        hips=(0.24, 0.3),
        lines=[[(0.5, -0.64), (0.48, -0.2)], [(-0.5, -0.64), (-0.48, -0.2)]],
    ),
    "tank": Cut(
        half=[
            (0, -0.34),
            (0.16, -0.44),
            (0.22, -0.9),
            (0.36, -0.9),
            (0.36, -0.45),
            (0.54, -0.2),
            (0.48, 0.2),
            (0.54, 0.78),
            (0, 0.8),
        ],
        hem=[[(-0.54, 0.78), (0, 0.8), (0.54, 0.78)]],
        waist=(0.3, -0.49, 0.49),
        spine=(0, -0.28, 0.74),
        chest=(0, -0.05),
        hips=(0.25, 0.42),
    ),
    "hoodie": Cut(
        half=[
            (0, -0.95),
            (0.22, -0.92),
            (0.36, -0.68),
            (0.3, -0.48),
            (0.54, -0.44),
            (0.68, -0.2),
            (0.92, 0.56),
            (0.68, 0.66),
            (0.52, 0.1),
            (0.52, 0.76),
            (0, 0.76),
        ],
        hem=[[(-0.52, 0.76), (0, 0.76), (0.52, 0.76)]],
        waist=(0.45, -0.52, 0.52),
        spine=(0, -0.38, 0.72),
        chest=(0, -0.14),
        hips=(0.26, 0.34),
        lines=[
            [(-0.52, 0.64), (0.52, 0.64)],
            [(0.54, -0.42), (0.52, 0.12)],
            [(-0.54, -0.42), (-0.52, 0.12)],
            [(-0.3, -0.48), (0, -0.4), (0.3, -0.48)],
        ],
        dark=[[(0, -0.84), (0.14, -0.78), (0.2, -0.64), (0.12, -0.5), (0, -0.44)]],
    ),
    "cardigan": Cut(
        half=[
            (0.08, 0.02),
            (0.14, -0.8),
            (0.28, -0.84),
            (0.5, -0.72),
            (0.68, -0.45),
            (0.92, 0.44),
            (0.72, 0.52),
            (0.54, 0),
            (0.56, 0.82),
            (0.13, 0.82),
        ],
        hem=[[(-0.56, 0.82), (-0.13, 0.82)], [(0.13, 0.82), (0.56, 0.82)]],
        waist=(0.32, -0.55, 0.55),
        spine=(0.32, -0.6, 0.75),
        chest=(0.36, -0.25),
        hips=(0.36, 0.45),
        lines=[
            [(0.52, -0.62), (0.54, 0)],
            [(-0.52, -0.62), (-0.54, 0)],
            [(0.24, -0.8), (0.16, 0.02), (0.22, 0.82)],
            [(-0.24, -0.8), (-0.16, 0.02), (-0.22, 0.82)],
        ],
        shirt=[(0, -0.6), (0.14, -0.8), (0.2, -0.8), (0.08, 0.02), (0.13, 0.74), (0, 0.74)],
    ),
    "trench": Cut(
        half=[
            (0, -0.72),
            (0.1, -0.94),
            (0.24, -0.92),
            (0.46, -0.76),
            (0.6, -0.5),
            (0.76, 0.2),
            (0.56, 0.26),
            (0.42, -0.22),
            (0.38, -0.05),
            (0.62, 0.94),
            (0, 0.96),
        ],
        hem=[[(-0.62, 0.94), (0, 0.96), (0.62, 0.94)]],
        waist=(-0.05, -0.38, 0.38),
        spine=(0, -0.4, 0.9),
        chest=(0.24, -0.36),
        hips=(0.28, 0.36),
        lines=[
            [(0, -0.36), (0, 0.96)],
            [(0.08, -0.92), (0.32, -0.56), (0.18, -0.5), (0, -0.3)],
            [(-0.08, -0.92), (-0.32, -0.56), (-0.18, -0.5), (0, -0.3)],
            [(0.44, -0.7), (0.42, -0.2)],
            [(-0.44, -0.7), (-0.42, -0.2)],
        ],
    ),
    "vest": Cut(
        half=[
            (0, 0),
            (0.16, -0.8),
            (0.34, -0.84),
            (0.34, -0.45),
            (0.54, -0.2),
            (0.46, 0.2),
            (0.52, 0.56),
            (0.2, 0.8),
            (0, 0.56),
        ],
        hem=[[(-0.52, 0.56), (-0.2, 0.8), (0, 0.56), (0.2, 0.8), (0.52, 0.56)]],
        waist=(0.28, -0.47, 0.47),
        spine=(0, 0.02, 0.54),
        chest=(0.28, -0.2),
        hips=(0.26, 0.36),
        lines=[[(0, 0), (0, 0.56)], [(0.24, -0.8), (0.05, 0.06)], [(-0.24, -0.8), (-0.05, 0.06)]],
    ),
    "pants": Cut(
        half=[
            (0, -0.88),
            (0.38, -0.88),
            (0.44, -0.4),
            (0.46, 0.92),
            (0.12, 0.92),
            (0.03, -0.2),
            (0, -0.22),
        ],
        hem=[[(-0.46, 0.92), (-0.12, 0.92)], [(0.12, 0.92), (0.46, 0.92)]],
        waist=(-0.8, -0.39, 0.39),
        spine=(0.27, -0.7, 0.88),
        chest=(-0.24, -0.3),
        hips=(0.22, -0.42),
        lines=[[(-0.39, -0.72), (0.39, -0.72)], [(0, -0.72), (0, -0.22)]],
    ),
    "bell bottom": Cut(
        half=[
            (0, -0.88),
            (0.36, -0.88),
            (0.42, -0.5),
            (0.32, 0.15),
            (0.78, 0.9),
            (0.14, 0.92),
            (0.1, 0.15),
            (0.03, -0.24),
            (0, -0.26),
        ],
        hem=[[(-0.78, 0.9), (-0.14, 0.92)], [(0.14, 0.92), (0.78, 0.9)]],
        waist=(-0.8, -0.37, 0.37),
        spine=(0.24, -0.7, 0.88),
        chest=(-0.22, -0.36),
        hips=(0.21, -0.46),
        lines=[[(-0.38, -0.72), (0.38, -0.72)], [(0, -0.72), (0, -0.26)]],
    ),
    "shorts": Cut(
        half=[(0, -0.58), (0.5, -0.6), (0.72, 0.46), (0.14, 0.56), (0.03, 0.16), (0, 0.14)],
        hem=[[(-0.72, 0.46), (-0.14, 0.56)], [(0.14, 0.56), (0.72, 0.46)]],
        waist=(-0.5, -0.51, 0.51),
        spine=(0.34, -0.4, 0.48),
        chest=(-0.34, 0),
        hips=(0.32, -0.08),
        lines=[[(-0.52, -0.41), (0.52, -0.41)], [(0, -0.41), (0, 0.14)]],
    ),
    "jumpsuit": Cut(
        half=[
            (0, -0.76),
            (0.13, -0.94),
            (0.26, -0.92),
            (0.46, -0.8),
            (0.74, -0.08),
            (0.56, 0),
            (0.38, -0.42),
            (0.31, -0.1),
            (0.42, 0.2),
            (0.42, 0.96),
            (0.1, 0.96),
            (0.03, 0.26),
            (0, 0.24),
        ],
        hem=[[(-0.42, 0.96), (-0.1, 0.96)], [(0.1, 0.96), (0.42, 0.96)]],
        waist=(-0.1, -0.31, 0.31),
        spine=(0, -0.7, 0.22),
        chest=(0.18, -0.5),
        hips=(0.22, 0.2),
        lines=[
            [(-0.31, -0.1), (0.31, -0.1)],
            [(0, -0.7), (0, 0.24)],
            [(0.4, -0.78), (0.36, -0.4)],
            [(-0.4, -0.78), (-0.36, -0.4)],
        ],
    ),
    "overalls": Cut(
        half=[
            (0, -0.58),
            (0.16, -0.58),
            (0.16, -0.95),
            (0.28, -0.95),
            (0.28, -0.5),
            (0.3, -0.22),
            (0.46, -0.16),
            (0.5, 0.92),
            (0.12, 0.92),
            (0.03, 0.26),
            (0, 0.24),
        ],
        hem=[[(-0.5, 0.92), (-0.12, 0.92)], [(0.12, 0.92), (0.5, 0.92)]],
        waist=(-0.12, -0.45, 0.45),
        spine=(0.28, -0.5, 0.88),
        chest=(0, -0.34),
        hips=(0.25, 0.16),
        lines=[
            [(-0.46, -0.18), (0.46, -0.18)],
            [(-0.46, -0.05), (0.46, -0.05)],
            [(0, -0.05), (0, 0.24)],
            [(-0.3, -0.54), (0.3, -0.54)],
        ],
    ),
    "cape": Cut(
        half=[
            (0, -0.5),
            (0.12, -0.92),
            (0.24, -0.9),
            (0.28, -0.72),
            (0.6, -0.5),
            (0.78, 0),
            (0.92, 0.66),
            (0.55, 0.78),
            (0.2, 0.8),
        ],
        hem=[[(-0.92, 0.66), (-0.55, 0.78), (-0.2, 0.8)], [(0.2, 0.8), (0.55, 0.78), (0.92, 0.66)]],
        waist=(0.12, -0.79, 0.79),
        spine=(0.3, -0.6, 0.75),
        chest=(0, -0.5),
        hips=(0.46, 0.4),
        lines=[
            [(-0.28, -0.7), (0, -0.48), (0.28, -0.7)],
            [(0.4, -0.5), (0.55, 0.76)],
            [(-0.4, -0.5), (-0.55, 0.76)],
        ],
    ),
    "kimono": Cut(
        half=[
            (0, -0.3),
            (0.13, -0.88),
            (0.28, -0.92),
            (0.98, -0.86),
            (0.98, 0.22),
            (0.64, 0.24),
            (0.58, -0.28),
            (0.42, -0.24),
            (0.44, 0.94),
            (0, 0.95),
        ],
        hem=[[(-0.44, 0.94), (0, 0.95), (0.44, 0.94)]],
        waist=(-0.02, -0.42, 0.42),
        spine=(0, -0.22, 0.9),
        chest=(0.26, -0.5),
        hips=(0.22, 0.42),
        lines=[
            [(0.26, -0.9), (0.06, -0.28), (-0.2, 0.94)],
            [(-0.26, -0.9), (-0.08, -0.34), (0, -0.16)],
            [(0.46, -0.88), (0.43, -0.26)],
            [(-0.46, -0.88), (-0.43, -0.26)],
        ],
    ),
}
# fmt: on


def picture(facts: dict[str, str], rng: np.random.Generator) -> Image.Image:
    """The garment of `facts` before its backdrop; colors, place, size, angle and light vary."""
    scene = _backdrop(facts["style"], int(rng.integers(2 * VARIANTS)))
    scene = scene.crop(_corner(rng)).point(_tone(rng))
    garment = _garment(facts["shape"], facts["texture"], facts["fabric"], rng)
    garment.alpha_composite(_detail(facts["part"], facts["shape"], int(rng.integers(VARIANTS))))
    side = BOX * rng.uniform(0.93, 1.04)
    angle = np.radians(rng.uniform(-5, 5))
    place = SIZE / 2 + rng.uniform(-3, 3, 2)
    # output pixel -> pixel of the garment, rotated around the garment's middle
    a, b = np.cos(angle) * BOX / side, np.sin(angle) * BOX / side
    x, y = BOX / 2 - a * place[0] - b * place[1], BOX / 2 + b * place[0] - a * place[1]
    garment = garment.transform(
        (SIZE, SIZE), Image.Transform.AFFINE, (a, b, x, -b, a, y), Image.Resampling.BILINEAR
    )
    shadow = garment.getchannel("A").reduce(4).filter(ImageFilter.BoxBlur(1))
    shadow = shadow.resize((SIZE, SIZE)).point([a // 2 for a in range(256)])
    scene.paste((8, 8, 14), (3, 4), shadow)
    scene.paste(garment, (0, 0), garment)
    return scene


def _garment(shape: str, texture: str, fabric: str, rng: np.random.Generator) -> Image.Image:
    """The cloth alone, RGBA: the print's colors under the fabric's light and shade."""
    cloth = _cloth(shape)
    edge = {"lace": "scalloped", "faux fur": "fuzzy"}.get(fabric, "plain")
    alpha, outline = cloth[edge]
    color = _colors(_window(_print(texture, int(rng.integers(VARIANTS))), rng), texture, rng)
    fibers = _window(_fabric(fabric, int(rng.integers(VARIANTS))), rng)  # shade, shine, cover
    shade, shine, cover = np.moveaxis(fibers, 2, 0)
    depth = cloth["depth"]  # 0 at the edge, 1 well inside
    if fabric == "velvet":  # dark where one looks straight at it, bright toward the rim
        shade = shade * (0.42 + 1.15 * (1 - depth) ** 1.5)
    elif fabric == "leather":
        shine = shine + 90 * np.exp(-(((depth - 0.5) / 0.1) ** 2)) * (cloth["lit"] > 0)
        shade = shade * (0.72 + 0.28 * depth)
    else:
        shade = shade * (0.74 + 0.26 * depth) * (1 + 0.05 * cloth["lit"])
    if fabric in {"lace", "mesh"}:
        cover = np.maximum(cover, depth < 0.42)  # a firm border
    if fabric == "lace":
        color = 0.62 * color + 0.38 * 255
    if fabric == "denim":
        color = color + (0.5 * (np.array([70, 100, 150]) - color))
    pixels = color * shade[..., None] + shine[..., None]
    if fabric == "denim":
        pixels[cloth["stitches"]] = (255, 176, 60)
    under = cloth["shirt"][..., None]
    pixels += under * (np.array([238, 234, 226]) - pixels)
    cover = np.maximum(cover, cloth["shirt"])
    pixels *= cloth["seams"][..., None] * outline[..., None]
    pixels = np.concatenate([pixels, (alpha * cover)[..., None]], 2)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8), "RGBA")


def _colors(weights: np.ndarray, texture: str, rng: np.random.Generator) -> np.ndarray:
    """(BOX, BOX, 3) from the weights (BOX, BOX, 3) of ground, first and second color."""
    hue = rng.uniform()
    ground = _hsv(hue, rng.uniform(0.35, 0.85), rng.uniform(0.55, 0.95))
    one, two = _hsv(hue + rng.uniform(0.25, 0.75), rng.uniform(0.4, 0.9), 0.9), np.full(3, 245.0)
    if texture in {"striped", "chevron", "polka dot", "star print", "plaid", "argyle"}:
        ground = _hsv(hue, rng.uniform(0.5, 0.9), rng.uniform(0.35, 0.8))
        one, two = np.full(3, 245.0), _hsv(hue + rng.uniform(0.3, 0.7), 0.8, 0.4)
        if rng.random() < 0.35:
            ground, one = one, ground
    elif texture == "leopard print":
        hue = rng.normal(0.09, 0.02) if rng.random() < 0.75 else hue
        ground, one, two = _hsv(hue, 0.5, 0.92), np.full(3, 25.0), _hsv(hue, 0.75, 0.6)
    elif texture == "zebra print":
        ground, one = _hsv(hue, rng.uniform(0, 0.35), 0.97), np.full(3, rng.uniform(10, 40))
    elif texture == "camouflage":
        hue = rng.normal(0.24, 0.04) if rng.random() < 0.7 else hue
        ground, one = _hsv(hue, 0.45, 0.62), _hsv(hue, 0.6, 0.3)
        two = _hsv(hue - 0.14, 0.45, 0.72)
    elif texture == "floral print":
        ground = _hsv(hue, rng.uniform(0.1, 0.9), rng.choice([0.3, 0.95]))
        two = _hsv(0.33 + rng.uniform(-0.04, 0.04), 0.7, 0.55)
    elif texture == "tie-dye":
        ground, one, two = (_hsv(hue + k / 3, 0.75, 0.95) for k in range(3))
    elif texture == "ombre":
        one = _hsv(hue + rng.uniform(-0.15, 0.15), 0.7, 0.22)
        ground = _hsv(hue, rng.uniform(0.1, 0.5), 1)
    return weights @ np.stack([ground, one, two]).astype(np.float32)


def _hsv(hue: float, saturation: float, value: float) -> np.ndarray:
    """RGB from 0 to 255 of a hue (a fraction of the circle), saturation and value in [0, 1]."""
    ramp = np.abs((hue + np.array([0, 2 / 3, 1 / 3])) % 1 * 6 - 3) - 1
    return 255 * value * (1 - saturation + saturation * ramp.clip(0, 1))


def _window(tile: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A part of the tile, BOX pixels wide and high, at times mirrored."""
    y, x = rng.integers(0, TILE - BOX, 2)
    return tile[y : y + BOX, x : x + BOX][:, :: (-1 if rng.random() < 0.5 else 1)]


def _rng(*names) -> np.random.Generator:
    """Random numbers that depend on the names alone."""
    return np.random.default_rng(zlib.crc32(repr(names).encode()))


# --- silhouettes ---------------------------------------------------------------------------------


def _fine(points: Points) -> Points:
    return [((1 + x) / 2 * BOX * FINE, (1 + y) / 2 * BOX * FINE) for x, y in points]


def _walk(line: Points, step: float) -> Points:
    """Points along the line, about `step` apart."""
    found = []
    for (x0, y0), (x1, y1) in itertools.pairwise(line):
        count = max(1, round(np.hypot(x1 - x0, y1 - y0) / step))
        found += [(x0 + (x1 - x0) * k / count, y0 + (y1 - y0) * k / count) for k in range(count)]
    return [*found, line[-1]]


@functools.cache
def _cloth(shape: str) -> dict:
    """Edges (opacity and outline), depth, side light, seams and stitches of a silhouette."""
    cut, size = CUTS[shape], BOX * FINE
    outline = [*cut.half, *_mirrored(cut.half)]
    pieces = [outline]
    if cut.half[-1][0] > 0:  # open in front: the two halves meet at the neck only
        pieces = [cut.half, _mirrored(cut.half)]
    shirt = [*cut.shirt, *_mirrored(cut.shirt)]
    if shirt:
        pieces.append(shirt)
    pieces += [*cut.extra, *map(_mirrored, cut.extra)]
    mask, seams = Image.new("L", (size, size)), Image.new("L", (size, size), 255)
    pen = ImageDraw.Draw(mask)
    for piece in pieces:
        pen.polygon(_fine(piece), fill=255)
    mask = mask.filter(ImageFilter.GaussianBlur(5)).point(lambda v: 255 * (v > 127))  # rounder
    pen = ImageDraw.Draw(seams)
    for line in cut.lines:
        pen.line(_fine(line), fill=110, width=5)
    for hole in cut.dark:
        pen.polygon(_fine([*hole, *_mirrored(hole)]), fill=45)
    inside = Image.new("L", (size, size))
    if shirt:
        ImageDraw.Draw(inside).polygon(_fine(shirt), fill=255)
    scalloped, fuzzy, rng = mask.copy(), mask.copy(), _rng("fuzzy", shape)
    for piece in pieces:
        for x, y in _fine(_walk([*piece, piece[0]], 0.085)):
            ImageDraw.Draw(scalloped).ellipse((x - 12, y - 12, x + 12, y + 12), fill=255)
        for x, y in _fine(_walk([*piece, piece[0]], 0.012)):
            dx, dy = rng.normal(0, 13, 2)
            ImageDraw.Draw(fuzzy).line((x - dx, y - dy, x + dx, y + dy), fill=255, width=4)
    soft = _float(mask.filter(ImageFilter.GaussianBlur(4 * FINE)))
    depth = ((soft - 0.5) * 2).clip(0, 1)
    x, y = np.meshgrid(np.arange(BOX), np.arange(BOX))
    ring = (np.abs(depth - 0.42) < 0.1) & ((x + y) % 4 < 3) & (_float(mask) > 0.9)
    return {
        "plain": _edge(mask),
        "scalloped": _edge(scalloped),
        "fuzzy": _edge(fuzzy),
        "depth": depth,
        "lit": np.sign(np.roll(soft, -3, 1) - np.roll(soft, 3, 1)),
        "seams": _float(seams.filter(ImageFilter.GaussianBlur(2))),
        "stitches": ring,
        "shirt": _float(inside),
    }


def _float(image: Image.Image) -> np.ndarray:
    """(BOX, BOX) in [0, 1] from a fine image."""
    return np.asarray(image.reduce(FINE), np.float32) / 255


def _edge(mask: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """Opacity in [0, 255], and a factor that darkens a thin line along the edge."""
    inner = mask.filter(ImageFilter.MinFilter(2 * FINE - 1))
    outline = ImageChops.subtract(mask, inner)
    return 255 * _float(mask), 1 - 0.55 * _float(outline)


# --- prints --------------------------------------------------------------------------------------


def _grid(rng: np.random.Generator, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Pixel coordinates of a tile, rotated by up to `angle` either way and shifted."""
    y, x = np.meshgrid(np.arange(TILE * 2) / 2, np.arange(TILE * 2) / 2, indexing="ij")
    turn = rng.uniform(-angle, angle)
    x, y = x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)
    return x + rng.uniform(300, 400), y + rng.uniform(300, 400)


def _noise(rng: np.random.Generator, width: float, height: float, size: int = 2 * TILE):
    """Smooth noise (size, size) with mean 0 and deviation 1; blobs of about the given pixels."""
    scale = size / TILE
    small = rng.normal(0, 1, (round(TILE / height) + 2, round(TILE / width) + 2))
    image = Image.fromarray(small.astype(np.float32)).resize(
        (round(small.shape[1] * width * scale), round(small.shape[0] * height * scale)),
        Image.Resampling.BICUBIC,
    )
    values = np.asarray(image)[:size, :size]
    values = np.pad(values, [(0, size - n) for n in values.shape], "edge")
    return (values - values.mean()) / values.std()


def _scatter(rng: np.random.Generator, gap: float) -> list[tuple[float, float]]:
    """Places about `gap` pixels apart, on a loose grid over the tile."""
    rows = np.arange(0, TILE + gap, gap)
    return [
        (x + gap / 2 * (k % 2) + rng.normal(0, gap / 10), y + rng.normal(0, gap / 10))
        for k, y in enumerate(rows)
        for x in rows
    ]


@functools.cache
def _print(name: str, variant: int) -> np.ndarray:
    """Weights (TILE, TILE, 3) of the ground, the first and the second color."""
    rng = _rng("print", name, variant)
    one, two = np.zeros((2 * TILE, 2 * TILE)), np.zeros((2 * TILE, 2 * TILE))
    if name == "striped":
        x, y = _grid(rng, 0.1)
        one = ((y, x, x + y)[variant % 3] / rng.uniform(11, 16)) % 1 < 0.5
    elif name == "plaid":
        x, y = _grid(rng, 0.08)
        gap = rng.uniform(20, 26)
        wide = ((x / gap) % 1 < 0.45) * 0.5 + ((y / gap) % 1 < 0.45) * 0.5
        two = np.maximum((x / gap + 0.28) % 1 < 0.1, (y / gap + 0.28) % 1 < 0.1)
        one = wide * (1 - two)
    elif name == "chevron":
        x, y = _grid(rng, 0.08)
        tooth = np.abs((x / 20) % 1 - 0.5) * 18
        one = ((y + tooth) / rng.uniform(12, 15)) % 1 < 0.5
    elif name == "argyle":
        x, y = _grid(rng, 0.04)
        u, v = x / 20 + y / 30, x / 20 - y / 30
        one = (np.floor(u) + np.floor(v)) % 2
        line = np.minimum(np.abs((u + 0.5) % 1 - 0.5), np.abs((v + 0.5) % 1 - 0.5)) < 0.05
        two = np.abs(((u + 0.5) % 1) - 0.5) * 0 + line
        one = one * (1 - two)
    elif name == "ombre":
        _, y = _grid(rng, 0.02)
        y = y - y.min()
        one = 1 / (1 + np.exp(-(y - TILE / 2) / 14))
        one = one[::-1] if variant % 2 else one
    elif name == "camouflage":
        field, other = _noise(rng, 15, 11), _noise(rng, 15, 11)
        one = field > 0.35
        two = (other > 0.6) & ~one
    elif name == "zebra print":
        x, y = _grid(rng, 0.3)
        one = np.sin((y + 5 * _noise(rng, 22, 22)) / 2.3 + 1.2 * _noise(rng, 10, 10)) > 0.05
    elif name == "tie-dye":
        x, y = _grid(rng, 0)
        x, y = x - x.mean(), y - y.mean()
        phase = np.arctan2(y, x) * 2 + np.hypot(x, y) / 7 + 0.5 * _noise(rng, 14, 14)
        waves = np.stack([np.cos(phase - k * 2 * np.pi / 3) for k in range(3)]) * 2.5
        waves = np.exp(waves) / np.exp(waves).sum(0)
        one, two = waves[1], waves[2]
    elif name in {"polka dot", "leopard print", "floral print", "star print"}:
        one, two = _motifs(name, rng)
    one, two = np.asarray(one, np.float32), np.asarray(two, np.float32)
    weights = np.stack([1 - (one + two).clip(0, 1), one, two], 2)
    return weights.reshape(TILE, 2, TILE, 2, 3).mean((1, 3))


def _motifs(name: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Weights of the two colors for a print of scattered figures, (2 TILE, 2 TILE) each."""
    one, two = (Image.new("L", (2 * TILE, 2 * TILE)) for _ in range(2))
    first, second = ImageDraw.Draw(one), ImageDraw.Draw(two)
    gap = {"polka dot": 13, "leopard print": 12, "floral print": 19, "star print": 17}[name]
    gap *= rng.uniform(0.95, 1.15)
    for x, y in _scatter(rng, gap) if name != "polka dot" else _scatter(_Still(), gap):
        x, y, turn, r = 2 * x, 2 * y, rng.uniform(0, 2 * np.pi), 2 * gap

        def spot(pen, u, v, radius, x=x, y=y, fill=255):
            pen.ellipse((x + u - radius, y + v - radius, x + u + radius, y + v + radius), fill=fill)

        if name == "polka dot":
            spot(first, 0, 0, r * 0.29)
        elif name == "leopard print":
            w, h = r * rng.uniform(0.3, 0.4), r * rng.uniform(0.26, 0.36)
            start = np.degrees(turn)
            second.ellipse((x - w, y - h, x + w, y + h), fill=255)
            for k in range(2):
                begin = start + 180 * k
                box = (x - w, y - h, x + w, y + h)
                first.arc(box, begin, begin + rng.uniform(110, 150), fill=255, width=6)
        elif name == "star print":
            tips = [r * (0.42 if k % 2 == 0 else 0.17) for k in range(10)]
            first.polygon(
                [
                    (x + q * np.sin(turn + k * np.pi / 5), y - q * np.cos(turn + k * np.pi / 5))
                    for k, q in enumerate(tips)
                ],
                fill=255,
            )
        else:
            for side in (0.6, 2.2):
                leaf = (r * 0.4 * np.cos(turn + side), r * 0.4 * np.sin(turn + side))
                spot(second, *leaf, r * 0.13)
                second.line((x, y, x + 1.3 * leaf[0], y + 1.3 * leaf[1]), fill=255, width=6)
            for k in range(5):
                angle = turn + k * 2 * np.pi / 5
                u, v = r * 0.21 * np.cos(angle), r * 0.21 * np.sin(angle)
                spot(first, u, v, r * 0.155)
                spot(second, u, v, r * 0.155, fill=0)
            spot(first, 0, 0, r * 0.1, fill=0)
    one, two = (np.asarray(image, np.float32) / 255 for image in (one, two))
    return one, two * (1 - one)


class _Still:
    """A generator without any spread, for figures in strict rows."""

    @staticmethod
    def normal(mean: float, _deviation: float) -> float:
        return mean


# --- fabrics -------------------------------------------------------------------------------------


@functools.cache
def _fabric(name: str, variant: int) -> np.ndarray:
    """(TILE, TILE, 3): a factor of the color, light to add (0 to 255), and opacity [0, 1]."""
    rng = _rng("fabric", name, variant)
    y, x = np.meshgrid(np.arange(TILE), np.arange(TILE), indexing="ij")
    shade, shine, cover = np.ones((TILE, TILE)), np.zeros((TILE, TILE)), np.ones((TILE, TILE))
    soft = _noise(rng, 18, 30, TILE)
    if name == "cotton":
        shade = 1 + 0.04 * soft
    elif name == "denim":
        shade = 0.94 + 0.2 * ((x + y) % 4 < 2) - 0.1 + 0.05 * rng.normal(0, 1, x.shape)
        shine = 40 * (_noise(rng, 20, 34, TILE) - 0.3).clip(0, 1.2)
    elif name == "leather":
        folds = _noise(rng, 9, 26, TILE) + 0.4 * _noise(rng, 5, 7, TILE)
        shade = 0.6 + 0.12 * folds.clip(-1.5, 1)
        shine = 200 * ((folds - 1.45) / 0.35).clip(0, 1)
    elif name == "satin":
        wave = np.sin((x * 0.75 + y * 0.4) / 7 + 1.3 * _noise(rng, 34, 40, TILE))
        shade = 0.82 + 0.34 * wave
        shine = 95 * (wave.clip(0, 1)) ** 5
    elif name == "velvet":
        nap = _noise(rng, 7, 11, TILE)
        shade = 0.95 + 0.16 * nap + 0.05 * rng.normal(0, 1, x.shape)
    elif name == "corduroy":
        shade = 0.86 + 0.34 * np.sin(2 * np.pi * x / 5.0) + 0.03 * soft
    elif name == "knit":  # cables: ropes of slanted strands between purl gaps
        column = (x % 15) / 15
        rope = np.abs(column - 0.5) * 2  # 0 in the middle of a rope, 1 in the gap
        slant = (y + 9 * np.abs(column - 0.5) * 2) % 8 / 8
        shade = 1.08 - 0.5 * np.exp(-(((slant - 0.5) / 0.17) ** 2)) - 0.5 * (rope > 0.8)
    elif name == "faux fur":
        hair = _noise(rng, 2, 7, TILE) + 0.8 * _noise(rng, 3, 4, TILE)
        shade = 0.92 + 0.2 * hair
        shine = 14 * hair.clip(0, 2)
    elif name == "tweed":
        coarse = rng.choice([0.45, 0.8, 1.0, 1.0, 1.25], (TILE // 2, TILE // 2))
        shade = coarse.repeat(2, 0).repeat(2, 1)
        flecks = rng.random((TILE // 2, TILE // 2)) < 0.1
        shine = 110.0 * flecks.repeat(2, 0).repeat(2, 1)
    elif name == "quilted fabric":
        u, v = ((x + y) / 17) % 1 - 0.5, ((x - y) / 17) % 1 - 0.5
        rim = 0.5 - np.maximum(np.abs(u), np.abs(v))
        puff = np.sqrt((rim * 2).clip(0, 1))
        shade = 0.4 + 0.62 * puff - 0.35 * u * (rim > 0.05)
        shine = 75 * np.exp(-(((u + 0.16) ** 2 + v**2) / 0.02))
    elif name == "sequins":
        size = 6
        row = y // size
        shift = (row % 2) * size // 2
        column = (x + shift) // size
        r = np.hypot((x + shift) % size - (size - 1) / 2, y % size - (size - 1) / 2)
        glitter = rng.gamma(1.1, 0.5, (TILE, TILE))[row, column].clip(0, 2.2)
        shade = np.where(r < 2.9, 0.68 + 0.4 * glitter, 0.3)
        shine = np.where(r < 1.9, 150 * (glitter - 1).clip(0, 1), 0)
    elif name == "lace":
        size = 15
        shift = (y // size % 2) * (size // 2)
        u, v = (x + shift) % size - size / 2 + 0.5, y % size - size / 2 + 0.5
        r, angle = np.hypot(u, v), np.arctan2(v, u)
        petals = np.abs(r - 4.0) < 1.6 + 0.9 * np.cos(6 * angle)
        holes = petals & (np.cos(6 * angle) > -0.2) | (r < 1.2)
        net = (r > 6.6) & ((x % 3 == 1) & (y % 3 == 1))
        cover = 1 - 0.92 * holes - 0.8 * net
        shade = 1.02 - 0.1 * (np.abs(r - 6) < 0.8)
    elif name == "mesh":
        u, v = (x + y) % 9, (x - y) % 9
        thread = (u < 3) | (v < 3)
        cover = np.where(thread, 1, 0.28)
        shade = np.where((u < 1) | (v < 1), 0.62, 1)
    return np.stack([shade, shine, cover.clip(0, 1)], 2).astype(np.float32)


# --- details -------------------------------------------------------------------------------------

CONTRAST = ((245, 240, 225), (200, 30, 45), (30, 40, 90), (245, 190, 40), (25, 120, 110))
METAL = ((230, 190, 70), (205, 210, 220))
INK = (20, 18, 22)


@functools.cache
def _detail(name: str, shape: str, variant: int) -> Image.Image:
    """The detail on its place on the silhouette, (BOX, BOX) RGBA."""
    cut, rng = CUTS[shape], _rng("detail", name, shape, variant)
    size = BOX * FINE
    image = Image.new("RGBA", (size, size))
    pen = ImageDraw.Draw(image)
    color, metal = CONTRAST[variant % len(CONTRAST)], METAL[variant % 2]

    def disc(x: float, y: float, radius: float, fill, width: int = 4) -> None:
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill, INK, width)

    spine_x, top, bottom = cut.spine
    spine = _fine([(spine_x, top), (spine_x, bottom)])
    (x, y0), (_, y1) = spine
    hems = [_fine(_walk(line, 0.01)) for line in cut.hem]
    if name == "button front":
        count = max(3, round((y1 - y0) / 58))
        for y in np.linspace(y0 + 16, y1 - 18, count):
            disc(x, y, 17, metal if variant % 2 else color)
            for u in (-5, 5):
                pen.ellipse((x + u - 3, y - 3, x + u + 3, y + 3), INK)
    elif name == "zipper":
        pen.rectangle((x - 16, y0, x + 16, y1), (40, 40, 46), INK)
        for k, y in enumerate(np.arange(y0, y1, 9)):
            side = -11 if k % 2 else 1
            pen.rectangle((x + side, y, x + side + 10, y + 5), (225, 228, 235))
        pen.rounded_rectangle((x - 11, y0 - 4, x + 11, y0 + 22), 5, metal, INK, 3)
        pen.rounded_rectangle((x - 8, y0 + 18, x + 8, y0 + 62), 6, metal, INK, 4)
    elif name == "patch pocket":
        for side in (-1, 1):
            ((x, y),) = _fine([(side * cut.hips[0], cut.hips[1])])
            pen.rounded_rectangle((x - 37, y - 36, x + 37, y + 42), 12, color, INK, 5)
            flap = [(x - 40, y - 40), (x + 40, y - 40), (x + 40, y - 16), (x, y + 2)]
            pen.polygon([*flap, (x - 40, y - 16)], color, INK, 5)
            disc(x, y - 12, 7, INK)
    elif name == "belt":
        (x0, y), (x1, _) = _fine([(cut.waist[1], cut.waist[0]), (cut.waist[2], cut.waist[0])])
        dark = ((55, 32, 20), (20, 20, 24))[variant % 2]
        pen.rounded_rectangle((x0 - 8, y - 19, x1 + 8, y + 19), 6, dark, (235, 225, 205), 3)
        x = (x0 + x1) / 2
        pen.rounded_rectangle((x - 30, y - 28, x + 30, y + 28), 8, metal, INK, 4)
        pen.rectangle((x - 16, y - 14, x + 16, y + 14), dark, INK, 2)
        pen.line((x - 20, y, x + 14, y), metal, 7)
    elif name == "bow":
        ((x, y),) = _fine([cut.chest])
        for side in (-1, 1):
            tail = [(x, y), (x + side * 16, y + 82), (x + side * 46, y + 70)]
            pen.polygon(tail, color, INK, 5)
            loop = [(x, y), (x + side * 38, y - 40), (x + side * 74, y - 34)]
            loop += [(x + side * 78, y + 26), (x + side * 38, y + 30)]
            pen.polygon(loop, color, INK, 5)
            pen.line((x + side * 14, y, x + side * 50, y - 6), INK, 5)
        pen.rounded_rectangle((x - 15, y - 17, x + 15, y + 17), 8, color, INK, 5)
    elif name == "rosette":
        ((x, y),) = _fine([cut.chest])
        for side in (-1, 1):
            pen.ellipse(
                (x + side * 48 - 26, y + 12, x + side * 48 + 26, y + 40), (40, 125, 55), INK
            )
        for ring, count, radius in ((38, 8, 22), (20, 6, 17), (0, 1, 13)):
            for k in range(count):
                angle = k * 2 * np.pi / count + ring
                shade = tuple(int(c * (0.72 + 0.28 * ring / 38)) for c in color)
                disc(x + ring * np.cos(angle), y + ring * np.sin(angle), radius, shade, 3)
    elif name == "ruffle":
        for line in hems:
            for level in (26, 0):
                wave = [
                    (u, v + level + 10 * np.sin(u / 9) + (6 if k % 2 else 0))
                    for k, (u, v) in enumerate(line)
                ]
                upper = [(u, v + level - 40) for u, v in reversed(line)]
                pen.polygon([*wave, *upper], color)
                pen.line(wave, INK, 5)
                pen.line(upper, INK, 4)
                for u, v in line[::7]:
                    pen.line((u, v + level - 32, u + 2, v + level), INK, 3)
    elif name == "fringe":
        for line in hems:
            for u, v in line:
                end = (u + rng.normal(0, 3), v + rng.uniform(34, 44))
                pen.line((u, v - 34, *end), tuple(int(c * rng.uniform(0.55, 1)) for c in color), 4)
            pen.line([(u, v - 34) for u, v in line], INK, 10)
    elif name == "pom-pom trim":
        for line in hems:
            for k, (u, v) in enumerate(line[::10]):
                disc(u, v + 4, 19, CONTRAST[(k + variant) % len(CONTRAST)], 3)
                disc(u - 5, v - 2, 5, (255, 255, 255), 0)
    elif name == "drawstring":
        (x0, y), (x1, _) = _fine([(cut.waist[1], cut.waist[0]), (cut.waist[2], cut.waist[0])])
        for u in np.arange(x0 + 6, x1 - 6, 26):  # gathers
            pen.line((u, y - 20, u + 4, y + 22), INK, 4)
        pen.line((x0, y, x1, y), INK, 13)
        pen.line((x0, y, x1, y), (245, 240, 225), 7)
        x = (x0 + x1) / 2
        for side in (-1, 1):
            cord = [(x, y), (x + side * 26, y + 44), (x + side * 20, y + 104)]
            pen.line(cord, INK, 15, "curve")
            pen.line(cord, (245, 240, 225), 8, "curve")
            disc(x + side * 20, y + 108, 11, color)
            pen.ellipse((x + side * 20 - 18, y - 16, x + side * 20 + 18, y + 16), None, INK, 5)
    elif name == "badge":
        spots = [cut.chest, (-cut.hips[0], cut.hips[1]), cut.hips]
        for k, (x, y) in enumerate(_fine(spots)):
            fill, rim = CONTRAST[(k + variant) % 5], CONTRAST[(k + variant + 2) % 5]
            if k == 0:
                shield = [(x - 34, y - 34), (x + 34, y - 34), (x + 34, y + 6), (x, y + 42)]
                pen.polygon([*shield, (x - 34, y + 6)], fill, INK, 5)
                pen.line((x - 22, y - 10, x + 22, y - 10), rim, 10)
                pen.line((x, y - 26, x, y + 26), rim, 10)
            else:
                disc(x, y, 31, rim, 5)
                disc(x, y, 19, fill, 4)
    elif name == "chain trim":
        (x0, y), (x1, _) = _fine([(cut.waist[1], cut.waist[0]), (cut.waist[2], cut.waist[0])])
        for sag in (34, 74):
            for k, s in enumerate(np.linspace(0, 1, max(7, round((x1 - x0) / 23)))):
                u, v = x0 + s * (x1 - x0), y + sag * 4 * s * (1 - s)
                w, h = (18, 12) if k % 2 else (12, 15)
                pen.ellipse((u - w, v - h, u + w, v + h), None, INK, 9)
                pen.ellipse((u - w + 2, v - h + 2, u + w - 2, v + h - 2), None, metal, 6)
    elif name == "studs":
        lines = [[(u, v - 22) for u, v in line] for line in hems]
        lines += [[(u, v - 52) for u, v in line] for line in hems]
        lines += [_fine(_walk([(cut.waist[1], cut.waist[0]), (cut.waist[2], cut.waist[0])], 0.01))]
        for line in lines:
            for u, v in line[5:-3:11]:
                r = 14
                pen.polygon([(u - r, v), (u, v - r), (u + r, v), (u, v + r)], metal, INK, 3)
                pen.polygon([(u - 5, v), (u, v - 7), (u, v)], (255, 255, 255))
    elif name == "corset lacing":
        rows = np.linspace(y0 + 8, y1 - 14, max(4, round((y1 - y0) / 44)))
        pen.rectangle((x - 30, y0, x + 30, y1 - 6), (35, 28, 32), INK)
        for y, below in itertools.pairwise(rows):
            for side in (-1, 1):
                pen.line((x - side * 27, y, x + side * 27, below), (245, 240, 225), 9)
        for y in rows:
            for side in (-1, 1):
                disc(x + side * 29, y, 8, metal, 3)
    return image.reduce(FINE)


# --- backdrops -----------------------------------------------------------------------------------

SCENE = 136  # pixels, a backdrop before it is cut to SIZE


def _corner(rng: np.random.Generator) -> tuple[int, int, int, int]:
    x, y = (int(v) for v in rng.integers(0, SCENE - SIZE + 1, 2))
    return x, y, x + SIZE, y + SIZE


def _tone(rng: np.random.Generator) -> list[int]:
    """A table of brighter or darker values, a little different for each channel."""
    gains = rng.uniform(0.85, 1.1) * rng.uniform(0.95, 1.05, 3)
    return [min(255, round(gain * v)) for gain in gains for v in range(256)]


@functools.cache
def _backdrop(style: str, variant: int) -> Image.Image:
    """The surroundings that tell a style, (SCENE, SCENE) RGB; props keep to the rim."""
    rng = _rng("backdrop", style, variant)
    pen = _Pen()
    BACKDROPS[style](pen, rng)
    image = pen.image.reduce(2)
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if variant % 2 else image


class _Pen:
    """Draws on a picture of twice the size, in coordinates from 0 to 100."""

    def __init__(self) -> None:
        self.image = Image.new("RGB", (2 * SCENE, 2 * SCENE))
        self.pen = ImageDraw.Draw(self.image)

    def scaled(self, points: Points) -> Points:
        scale = 2 * SCENE / 100
        return [(x * scale, y * scale) for x, y in points]

    def polygon(self, points: Points, fill, outline=None, width: int = 2) -> None:
        self.pen.polygon(self.scaled(points), fill, outline, width)

    def line(self, points: Points, fill, width: float = 1) -> None:
        self.pen.line(self.scaled(points), fill, round(width * 2 * SCENE / 100), "curve")

    def disc(self, x: float, y: float, r: float, fill, outline=None, width: int = 2, h=None):
        h = h or r
        box = self.scaled([(x - r, y - h), (x + r, y + h)])
        self.pen.ellipse([*box[0], *box[1]], fill, outline, width)

    def box(self, x0: float, y0: float, x1: float, y1: float, fill, outline=None) -> None:
        box = self.scaled([(x0, y0), (x1, y1)])
        self.pen.rectangle([*box[0], *box[1]], fill, outline, 2)

    def shade(self, top, bottom, y0: float = 0, y1: float = 100) -> None:
        """A vertical blend of two colors."""
        for y in np.arange(y0, y1, 1):
            s = (y - y0) / (y1 - y0)
            color = [round(a + s * (b - a)) for a, b in zip(top, bottom, strict=True)]
            self.box(0, y, 100, y + 1, tuple(color))


def _sporty(pen: _Pen, rng: np.random.Generator) -> None:
    pen.box(0, 0, 100, 40, (120, 195, 240))
    pen.box(0, 32, 100, 50, (70, 165, 70))
    pen.polygon([(0, 48), (100, 48), (100, 100), (0, 100)], (200, 75, 50))
    for x in np.arange(-120, 221, 26):  # lanes
        pen.line([(50 + (x - 50) * 0.3, 48), (x, 100)], (250, 245, 240), 1.4)
    for x, y in ((12, 84), (88, 18)):  # balls
        pen.disc(x, y, 11, (235, 130, 40), (40, 25, 15))
        pen.line([(x - 11, y), (x + 11, y)], (40, 25, 15))
        pen.line([(x, y - 11), (x, y + 11)], (40, 25, 15))
        pen.disc(x - 12, y, 7, None, (40, 25, 15)) if x > 50 else None
    pen.disc(14, 18, 9, (250, 250, 250), (30, 30, 30), 5)  # stopwatch
    pen.box(12, 5, 16, 9, (30, 30, 30))
    pen.line([(14, 18), (18, 13)], (210, 30, 30), 1.2)


def _beach(pen: _Pen, rng: np.random.Generator) -> None:
    pen.shade((90, 190, 245), (190, 235, 250), 0, 55)
    pen.box(0, 52, 100, 72, (25, 140, 190))
    for y in (58, 64):
        pen.line([(x, y + 1.2 * (x // 6 % 2)) for x in range(0, 101, 6)], (200, 240, 250))
    pen.polygon([(0, 72), (30, 69), (70, 73), (100, 69), (100, 100), (0, 100)], (240, 212, 145))
    pen.disc(86, 14, 9, (255, 225, 60))
    pen.line([(10, 96), (8, 60), (13, 22)], (130, 85, 45), 4)  # palm
    for angle in np.linspace(-0.3, 3.5, 7):
        u, v = np.cos(angle), -np.sin(angle)
        tip = (13 + 21 * u, 24 + 16 * v + 7)
        pen.polygon([(13, 20), (13 + 10 * u, 16 + 12 * v), tip, (13 + 8 * u, 24 + 9 * v)]
                    , (30, 130, 55))  # fmt: skip
    x, y = 88, rng.uniform(84, 90)  # starfish
    tips = [(8 if k % 2 == 0 else 3.2) for k in range(10)]
    star = [
        (x + r * np.sin(k * np.pi / 5), y - r * np.cos(k * np.pi / 5)) for k, r in enumerate(tips)
    ]
    pen.polygon(star, (230, 95, 60), (150, 50, 30))


def _western(pen: _Pen, rng: np.random.Generator) -> None:
    pen.shade((240, 130, 60), (255, 215, 140), 0, 62)
    pen.polygon([(0, 62), (0, 40), (16, 38), (22, 62)], (165, 70, 45))
    pen.polygon([(66, 62), (72, 36), (96, 36), (100, 62)], (165, 70, 45))
    pen.box(0, 62, 100, 100, (205, 145, 85))
    for x, y in ((10, 88), (90, 84)):  # cacti
        for width, color in ((8, (20, 70, 35)), (6, (55, 140, 65))):
            pen.line([(x, y), (x, y - 42)], color, width)
            pen.line([(x, y - 14), (x + 8, y - 14), (x + 8, y - 28)], color, width * 0.7)
            pen.line([(x, y - 20), (x - 8, y - 20), (x - 8, y - 34)], color, width * 0.7)
    pen.disc(50, 5, 9, (255, 240, 190))
    pen.line([(20, 80), (20, 94)], (110, 70, 40), 2)
    for x in (24, 76):  # horseshoes
        box = pen.scaled([(x - 6, 86), (x + 6, 99)])
        pen.pen.arc([*box[0], *box[1]], 120, 60, (70, 65, 70), 9)


def _winter(pen: _Pen, rng: np.random.Generator) -> None:
    pen.shade((120, 150, 200), (215, 228, 245), 0, 80)
    for x, base in ((10, 82), (91, 80), (26, 76), (76, 77)):  # snowy firs
        for k in range(3):
            y = base - 30 + 9 * k
            pen.polygon([(x, y), (x - 6 - 3 * k, y + 14), (x + 6 + 3 * k, y + 14)], (45, 95, 85))
            pen.polygon([(x, y), (x - 3 - k, y + 6), (x + 3 + k, y + 6)], (245, 250, 255))
    pen.polygon([(0, 80), (30, 74), (65, 80), (100, 75), (100, 100), (0, 100)], (245, 249, 255))
    for x, y in ((13, 16), (86, 20), (50, 4), (30, 34), (93, 46), (6, 44), (70, 36), (20, 92)):
        r = rng.uniform(4.5, 7)
        for k in range(3):
            u, v = r * np.cos(k * np.pi / 3 + 0.3), r * np.sin(k * np.pi / 3 + 0.3)
            pen.line([(x - u, y - v), (x + u, y + v)], (255, 255, 255), 1.3)
    for x, y in rng.uniform(0, 100, (45, 2)):
        pen.disc(x, y, rng.uniform(0.6, 1.3), (255, 255, 255))


def _romantic(pen: _Pen, rng: np.random.Generator) -> None:
    pen.shade((255, 205, 220), (245, 150, 180))
    for x, y in (*_places(rng, 22), (13, 16), (87, 20), (12, 82), (88, 84)):
        r = rng.uniform(5, 9)
        color = [(220, 30, 70), (255, 240, 245), (190, 20, 90)][rng.integers(3)]
        for side in (-1, 1):
            pen.disc(x + side * r * 0.48, y - r * 0.3, r * 0.55, color)
        pen.polygon([(x - r * 0.98, y - r * 0.08), (x + r * 0.98, y - r * 0.08), (x, y + r)], color)


def _places(rng: np.random.Generator, gap: float) -> Points:
    """Places on a loose grid, none near another."""
    rows = np.arange(gap / 2, 100, gap)
    return [(x + rng.normal(0, gap / 6), y + rng.normal(0, gap / 6)) for x in rows for y in rows]


def _party(pen: _Pen, rng: np.random.Generator) -> None:
    pen.shade((90, 40, 150), (150, 60, 170))
    bright = [(255, 220, 50), (60, 220, 120), (255, 90, 120), (80, 200, 255), (255, 150, 40)]
    for k, (x, y) in enumerate(_places(rng, 9)):  # confetti
        turn, r = rng.uniform(0, 3.1), 1.9
        corners = [turn + q for q in (0.5, 2.6, 3.6, 5.8)]
        pen.polygon([(x + r * np.cos(c), y + r * np.sin(c)) for c in corners], bright[k % 5])
    for k, (x, y) in enumerate([(12, 26), (88, 22), (9, 52), (91, 56)]):  # balloons
        pen.line([(x, y), (x + 2, y + 18), (x - 1, y + 34)], (240, 240, 240), 0.8)
        pen.disc(x, y, 9, bright[k], (60, 30, 80), 2, 11)
        pen.disc(x - 3, y - 4, 2, (255, 255, 255))
    for k in range(9):  # bunting
        x = k * 12.5
        pen.polygon([(x - 5, 0), (x + 5, 0), (x, 10)], bright[(k + 1) % 5])


def _punk(pen: _Pen, rng: np.random.Generator) -> None:
    pen.box(0, 0, 100, 100, (70, 62, 62))
    for row in range(15):  # bricks
        for column in range(-1, 8):
            x, y = column * 15 + 7.5 * (row % 2), row * 7
            color = tuple(int(c * rng.uniform(0.8, 1.15)) for c in (125, 55, 45))
            pen.box(x + 0.7, y + 0.7, x + 14.3, y + 6.3, color)
    neon = [(60, 255, 90), (255, 50, 170), (255, 240, 40), (60, 220, 255)]
    for k, (x, y) in enumerate([(12, 20), (88, 78), (12, 80), (88, 20)]):  # graffiti
        ink = neon[(k + rng.integers(2)) % 4]
        if k % 2 == 0:
            bolt = [(3, -15), (-9, 3), (-1, 2), (-4, 15), (9, -4), (1, -3)]
            pen.polygon([(x + u, y + v) for u, v in bolt], ink, (10, 10, 10), 4)
        else:
            pen.disc(x, y, 10, None, ink, 6)
            pen.line([(x - 8, y + 11), (x, y - 13), (x + 8, y + 11)], ink, 2.2)
            pen.line([(x - 12, y + 3), (x + 12, y + 1)], ink, 2.2)
    for x in range(2, 100, 8):  # spikes
        pen.polygon([(x - 3.5, 100), (x + 3.5, 100), (x, 90)], (215, 215, 225), (20, 20, 20))


def _vintage(pen: _Pen, rng: np.random.Generator) -> None:
    pen.box(0, 0, 100, 100, (120, 85, 50))
    for x in range(0, 100, 10):  # wallpaper
        for y in range(0, 100, 10):
            pen.disc(x + 5 * (y // 10 % 2), y, 2.6, (145, 108, 66))
            pen.line(
                [(x + 5 * (y // 10 % 2), y + 2), (x + 5 * (y // 10 % 2), y + 6)], (145, 108, 66)
            )
    pen.disc(50, 50, 46, (225, 200, 155), (85, 50, 22), 12, 49)
    pen.disc(50, 50, 42, None, (200, 160, 80), 4, 45)
    for x, y in ((8, 8), (92, 8), (8, 92), (92, 92)):  # brass corners
        pen.disc(x, y, 7, (200, 155, 65), (85, 50, 22), 3)
        pen.disc(x, y, 3, (85, 50, 22))
    for x, y in rng.uniform(5, 95, (25, 2)):
        pen.disc(x, y, 0.5, (165, 130, 85))


def _office(pen: _Pen, rng: np.random.Generator) -> None:
    pen.box(0, 0, 100, 100, (205, 212, 218))
    for y in range(2, 70, 6):  # blinds
        pen.box(2, y, 98, y + 3.6, (245, 248, 250), (150, 160, 170))
    for x in (20, 80):
        pen.line([(x, 0), (x, 70)], (130, 140, 150), 0.8)
    pen.box(0, 78, 100, 100, (140, 95, 60), (80, 50, 30))
    pen.line([(6, 78), (18, 58), (8, 42)], (40, 45, 55), 2)  # lamp
    pen.polygon([(2, 46), (10, 32), (22, 40), (14, 50)], (40, 60, 120), (15, 20, 40))
    pen.box(2, 76, 16, 79, (40, 45, 55))
    pen.box(76, 52, 99, 72, (35, 40, 48), (10, 10, 15))  # screen with a chart
    pen.box(78, 54, 97, 70, (225, 240, 250))
    for k, h in enumerate((5, 9, 7, 13)):
        pen.box(80 + 4 * k, 69 - h, 83 + 4 * k, 69, (40, 110, 190))
    pen.box(85, 72, 90, 79, (35, 40, 48))
    pen.polygon([(80, 86), (98, 84), (100, 94), (82, 97)], (252, 252, 252), (120, 120, 120))


def _gothic(pen: _Pen, rng: np.random.Generator) -> None:
    pen.shade((30, 15, 50), (85, 50, 110))
    pen.disc(82, 18, 13, (240, 235, 200))
    pen.disc(78, 15, 2.5, (205, 200, 165))
    for x, y in ((14, 16), (88, 46), (10, 42), (50, 5)):  # bats
        wing = [(-10, -3), (-6, -1.5), (-2, -3), (0, 0), (2, -3), (6, -1.5), (10, -3), (8, 3)]
        wing += [(4, 2), (0, 5), (-4, 2), (-8, 3)]
        pen.polygon([(x + u * 1.1, y + v * 1.3) for u, v in wing], (5, 3, 10), (130, 110, 150), 1)
    for x in (6, 20, 80, 94):  # pointed fence
        pen.polygon([(x - 3, 100), (x - 3, 72), (x, 62), (x + 3, 72), (x + 3, 100)], (8, 5, 14))
    for y in (78, 92):
        pen.line([(0, y), (100, y)], (8, 5, 14), 1.6)
    pen.line([(0, 68), (10, 56), (22, 60)], (8, 5, 14), 1.5)
    for x in (13, 87):  # graves
        pen.disc(x, 86, 8, (120, 115, 130), (40, 35, 50))
        pen.box(x - 8, 86, x + 8, 100, (120, 115, 130))
        pen.line([(x, 82), (x, 96)], (40, 35, 50), 1.6)
        pen.line([(x - 4, 87), (x + 4, 87)], (40, 35, 50), 1.6)


def _formal(pen: _Pen, rng: np.random.Generator) -> None:
    pen.box(0, 0, 100, 100, (40, 12, 16))
    pen.polygon([(44, 0), (56, 0), (92, 92), (8, 92)], (125, 85, 60))  # spotlight
    pen.polygon([(47, 0), (53, 0), (80, 90), (20, 90)], (205, 170, 115))
    for side in (0, 1):  # curtains
        for k in range(5):
            x, width = k * 5.5, 5.5
            color = (150 - 25 * (k % 2), 12, 25)
            x0, x1 = (x, x + width) if side == 0 else (100 - x - width, 100 - x)
            lean = (-k if side == 0 else k) * 1.5
            pen.polygon([(x0, 0), (x1, 0), (x1 + lean, 100), (x0 + lean, 100)], color)
        pen.box(0 if side == 0 else 84, 60, 16 if side == 0 else 100, 64, (225, 180, 60))
    for k in range(6):
        pen.disc(8.5 + 16.5 * k, 0, 9, (175, 15, 30), (225, 180, 60), 4)
    pen.polygon([(0, 92), (100, 92), (100, 100), (0, 100)], (170, 20, 35))
    for x in (6, 94):  # posts
        pen.box(x - 1.5, 74, x + 1.5, 96, (230, 190, 70))
        pen.disc(x, 74, 3.5, (250, 215, 100))


def _futuristic(pen: _Pen, rng: np.random.Generator) -> None:
    pen.shade((5, 8, 30), (20, 20, 70))
    for x, y in rng.uniform(0, 100, (60, 2)):
        pen.disc(x, y, rng.uniform(0.3, 0.8), (255, 255, 255))
    for k in range(-6, 13):  # a glowing grid
        pen.line([(50 + (k * 10 - 25) * 0.35, 68), (k * 22 - 16, 100)], (30, 230, 240), 0.8)
    for y in (68, 72, 78, 87, 98):
        pen.line([(0, y), (100, y)], (30, 230, 240), 0.8)
    pen.disc(15, 20, 11, (230, 140, 70))  # a planet with a ring
    pen.line([(0, 26), (15, 21), (31, 13)], (250, 225, 170), 2)
    x, y = 88, 24  # rocket
    pen.polygon([(x - 5, y + 8), (x - 5, y - 6), (x, y - 16), (x + 5, y - 6), (x + 5, y + 8)]
                , (225, 230, 240))  # fmt: skip
    pen.polygon([(x - 5, y + 2), (x - 10, y + 11), (x - 5, y + 8)], (230, 50, 60))
    pen.polygon([(x + 5, y + 2), (x + 10, y + 11), (x + 5, y + 8)], (230, 50, 60))
    pen.polygon([(x - 3, y + 8), (x + 3, y + 8), (x, y + 18)], (255, 190, 40))
    pen.disc(x, y - 4, 2.5, (40, 140, 220))


def _bohemian(pen: _Pen, rng: np.random.Generator) -> None:
    pen.box(0, 0, 100, 100, (245, 225, 185))
    rainbow = [(200, 60, 50), (235, 140, 50), (240, 200, 80), (90, 160, 110), (70, 120, 170)]
    for k, color in enumerate(rainbow):
        pen.disc(50, 100, 68 - 7 * k, color, None, 2, 80 - 7 * k)
    pen.disc(50, 100, 33, (245, 225, 185), None, 2, 45)
    for x, y in ((13, 15), (87, 15)):  # peace signs
        pen.disc(x, y, 10, (255, 250, 235), (110, 60, 130), 6)
        pen.line([(x, y - 10), (x, y + 10)], (110, 60, 130), 1.8)
        for side in (-1, 1):
            pen.line([(x, y), (x + side * 7, y + 7)], (110, 60, 130), 1.8)
    for x, y in ((9, 90), (91, 90)):  # sunflowers
        for angle in np.linspace(0, 2 * np.pi, 12, endpoint=False):
            pen.disc(x + 6.5 * np.cos(angle), y + 6.5 * np.sin(angle), 2.8, (250, 190, 30))
        pen.disc(x, y, 5, (100, 55, 25))


def _preppy(pen: _Pen, rng: np.random.Generator) -> None:
    pen.box(0, 0, 100, 100, (150, 105, 60))
    pen.box(3, 3, 97, 78, (35, 85, 65), (205, 165, 110))  # blackboard
    chalk = (235, 245, 235)
    for x in (8, 74):
        pen.line([(x, 22), (x + 5, 8), (x + 10, 22)], chalk, 1.4)  # A
        pen.line([(x + 2, 17), (x + 8, 17)], chalk, 1.2)
        pen.line([(x + 15, 11), (x + 15, 19)], chalk, 1.2)  # plus
        pen.line([(x + 11, 15), (x + 19, 15)], chalk, 1.2)
    for x in (7, 80):
        for y in (32, 40, 48):
            pen.line([(x + u, y + 1.5 * (u // 2 % 2)) for u in range(0, 14, 2)], chalk, 0.8)
    pen.box(0, 88, 100, 100, (115, 70, 35))
    books = [(190, 40, 45), (40, 70, 150), (235, 190, 60), (50, 120, 70)]
    for k, color in enumerate(books):
        for x in (1, 77):
            y = 84 - 7 * k
            pen.box(x + k % 2, y, x + 21 + k % 2, y + 6.5, color, (30, 20, 15))
            pen.box(x + 3, y + 2, x + 8, y + 4.5, (245, 240, 225))
    pen.disc(89, 57, 5, (215, 35, 40), (90, 10, 15))  # apple
    pen.line([(89, 53), (91, 49)], (60, 110, 40), 1.2)


def _nautical(pen: _Pen, rng: np.random.Generator) -> None:
    pen.shade((25, 45, 100), (35, 65, 135))
    for k in range(4):  # scalloped waves
        y = 80 + 6 * k
        for x in range(-4, 108, 10):
            color = [(60, 130, 200), (235, 245, 250)][k % 2]
            pen.disc(x + 5 * (k % 2), y + 3, 6, color, (20, 40, 90))
    for x, y in ((13, 24), (87, 60)):  # anchors
        pen.disc(x, y - 13, 3.2, None, (245, 245, 240), 5)
        pen.line([(x, y - 10), (x, y + 12)], (245, 245, 240), 2.6)
        pen.line([(x - 6, y - 6), (x + 6, y - 6)], (245, 245, 240), 2.4)
        pen.line([(x - 11, y + 3), (x - 7, y + 10), (x, y + 13), (x + 7, y + 10), (x + 11, y + 3)]
                 , (245, 245, 240), 2.6)  # fmt: skip
    for x, y in ((87, 20), (13, 62)):  # lifebuoys
        pen.disc(x, y, 12, (235, 240, 240), (20, 25, 50))
        box = pen.scaled([(x - 11.5, y - 11.5), (x + 11.5, y + 11.5)])
        for k in range(4):
            pen.pen.pieslice([*box[0], *box[1]], 90 * k, 90 * k + 45, (220, 40, 45))
        pen.disc(x, y, 5.5, (30, 52, 110), (20, 25, 50))


BACKDROPS = {
    "sporty": _sporty,
    "beach": _beach,
    "western": _western,
    "winter": _winter,
    "romantic": _romantic,
    "party": _party,
    "punk": _punk,
    "vintage": _vintage,
    "office": _office,
    "gothic": _gothic,
    "formal": _formal,
    "futuristic": _futuristic,
    "bohemian": _bohemian,
    "preppy": _preppy,
    "nautical": _nautical,
}
