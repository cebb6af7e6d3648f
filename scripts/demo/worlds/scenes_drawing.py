"""The drawings of the Scenes world: places and things, in polygons and ovals.

Places are drawn in a square of 128 x 128 units. Things are drawn in a box of about 100 x 100
units: x from -50 (left) to 50, y from 0 (top) to 100 (the ground they stand on).
"""

import colorsys

import numpy as np
from PIL import Image, ImageDraw

from worlds.clevr4 import RGB

SIZE = 128  # units, width and height of a picture
FINE = 2  # pictures are drawn so many times larger and averaged down: smooth edges
BLACK, WHITE = (28, 28, 32), (244, 244, 240)

Color = tuple[int, int, int]


class Pen:
    """Draws in its own coordinates: (x, y) lands on (left + zoom x, top + zoom y)."""

    def __init__(self, image: Image.Image, left=0.0, top=0.0, zoom=1.0, mirror=False, stretch=1.0):
        self.draw = ImageDraw.Draw(image)
        self.left, self.top, self.zoom = left, top, zoom
        self.across = zoom * stretch * (-1 if mirror else 1)
        self.bounds = [np.inf, np.inf, -np.inf, -np.inf]  # left, top, right, bottom of all drawn

    def at(self, xy) -> list[float]:
        """Flat x, y, x, y, ... on the image; the bounding box grows with them."""
        xs = [self.left + self.across * x for x in xy[::2]]
        ys = [self.top + self.zoom * y for y in xy[1::2]]
        low, high = self.bounds[:2], self.bounds[2:]
        self.bounds = [min(low[0], *xs), min(low[1], *ys), max(high[0], *xs), max(high[1], *ys)]
        return [value for pair in zip(xs, ys, strict=True) for value in pair]

    def corners(self, x0, y0, x1, y1) -> list[float]:
        a, b, c, d = self.at((x0, y0, x1, y1))
        return [min(a, c), min(b, d), max(a, c), max(b, d)]

    def poly(self, fill: Color, *xy) -> None:
        self.draw.polygon(self.at(xy), fill)

    def box(self, fill: Color, x0, y0, x1, y1, round=0.0) -> None:
        if round:
            self.draw.rounded_rectangle(self.corners(x0, y0, x1, y1), round * self.zoom, fill)
        else:
            self.draw.rectangle(self.corners(x0, y0, x1, y1), fill)

    def oval(self, fill: Color, x, y, rx, ry=None) -> None:
        ry = rx if ry is None else ry
        self.draw.ellipse(self.corners(x - rx, y - ry, x + rx, y + ry), fill)

    def ring(self, fill: Color, x, y, rx, ry, width) -> None:
        box = self.corners(x - rx, y - ry, x + rx, y + ry)
        self.draw.ellipse(box, None, fill, max(1, round(width * self.zoom)))

    def pie(self, fill: Color, x, y, rx, ry, start, end) -> None:
        """A slice between two angles, in degrees clockwise from the right."""
        if self.across < 0:
            start, end = 180 - end, 180 - start
        self.draw.pieslice(self.corners(x - rx, y - ry, x + rx, y + ry), start, end, fill)

    def line(self, fill: Color, width, *xy) -> None:
        self.draw.line(self.at(xy), fill, max(1, round(width * self.zoom)), "curve")


def picture(scene: str, things: list[tuple[str, Color | None]], rng, zoom: float = 1.0):
    """A scene with things from left to right, (128 zoom) pixels wide and high.

    `things` are (name, paint); a paint of None is drawn by chance. Returns the picture and one
    box (left, top, right, bottom) in pixels for each thing.
    """
    scale = FINE * zoom
    image = Image.new("RGB", (round(SIZE * scale),) * 2)
    mirror = rng.random() < 0.5
    PLACES[scene](Pen(image, SIZE * scale * mirror, 0, scale, mirror), rng)
    count = len(things)
    boxes: list = [None] * count
    slot = SIZE / max(count, 1)
    feet = 111 + rng.uniform(-7, 11, count)
    for i in np.argsort(feet):  # far to near
        name, paint = things[i]
        reach = rng.uniform(0.42, 0.56) * min(1, slot / 50) ** 0.5
        center = slot * (i + 0.5) + rng.uniform(-1, 1) * min(max(slot / 2 - 21, 2), 32)
        paint = paint or painted(rng)
        stretch = rng.uniform(0.92, 1.08)
        left, top = center * scale, (feet[i] - 100 * reach) * scale
        _shadow(image, left, feet[i] * scale, 40 * reach * scale)
        pen = Pen(image, left, top, reach * scale, bool(rng.random() < 0.5), stretch)
        THINGS[name](pen, paint, rng)
        boxes[i] = [value / FINE for value in pen.bounds]
    return _light(image.reduce(FINE), rng), boxes


def painted(rng, color: str | None = None) -> Color:
    """One of Clevr4's ten colors (or the named one), a little lighter, darker or off."""
    base = RGB[color] if color else list(RGB.values())[rng.integers(len(RGB))]
    return tint(rng, base, 9, 0.9, 1.08)


def tint(rng, color, spread=10.0, low=0.85, high=1.15) -> Color:
    """A color near `color`: brighter or darker by a factor, each channel off by up to `spread`."""
    factor = rng.uniform(low, high)
    off = rng.uniform(-spread, spread, 3).tolist()
    return tuple(min(max(int(c * factor + o), 0), 255) for c, o in zip(color, off, strict=True))


def shade(color: Color, factor: float) -> Color:
    return tuple(min(max(int(c * factor), 0), 255) for c in color)


def _mix(one, other, share: float) -> Color:
    return tuple(int(a + share * (b - a)) for a, b in zip(one, other, strict=True))


def _pick(rng, *options):
    return options[rng.integers(len(options))]


def _hue(rng, saturation=(0.05, 0.45), value=(0.45, 0.95)) -> Color:
    """Any hue: walls, curtains, houses."""
    rgb = colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value))
    return tuple(int(255 * c) for c in rgb)


def _shadow(image: Image.Image, x: float, y: float, reach: float) -> None:
    """A dark veil on the ground."""
    box = [round(x - reach), round(y - reach / 5), round(x + reach), round(y + reach / 5)]
    veil = Image.new("L", (box[2] - box[0], box[3] - box[1]))
    ImageDraw.Draw(veil).ellipse((0, 0, veil.width - 1, veil.height - 1), 90)
    image.paste((15, 15, 20), box[:2], veil)


def _light(image: Image.Image, rng) -> Image.Image:
    """Light that changes over the picture, and a fine grain."""
    pixels = np.asarray(image, np.float32)
    across = np.linspace(*rng.uniform(0.75, 1.1, 2), image.width, dtype=np.float32)
    grain = rng.standard_normal(image.size[::-1], np.float32) * np.float32(rng.uniform(0.5, 4))
    pixels = pixels * across[None, :, None] + grain[..., None]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


# ---- places

# One coordinate a line would hide the shapes.
# fmt: off


def _sky(p: Pen, rng, horizon: float) -> None:
    top = _pick(
        rng, (90, 150, 225), (120, 175, 235), (150, 165, 180), (200, 205, 210), (70, 100, 160)
    )
    low = _pick(rng, (205, 225, 240), (225, 225, 220), (245, 200, 150), (170, 195, 225))
    top, low = tint(rng, top, 12), tint(rng, low, 12)
    for i in range(8):
        y = horizon * i / 8
        p.box(_mix(top, low, i / 7), 0, y, 128, y + horizon / 8 + 1)
    if rng.random() < 0.35:
        p.oval(
            tint(rng, (250, 235, 170)), rng.uniform(10, 118), rng.uniform(8, 20), rng.uniform(4, 8)
        )
    for _ in range(rng.integers(0, 4)):
        x, y, r = rng.uniform(0, 128), rng.uniform(4, horizon * 0.5), rng.uniform(3, 6)
        white = tint(rng, (240, 240, 242), 6, 0.85, 1.05)
        for dx, dy in ((0, 0), (r, -r * 0.5), (2 * r, 0)):
            p.oval(white, x + dx, y + dy, r * 1.3, r * 0.8)


def _specks(p: Pen, rng, color: Color, top: float, count: int, size: float = 1.2) -> None:
    """Tufts, pebbles or leaves on the ground below `top`."""
    for x, y, f in rng.uniform((0, top, 0.75), (128, 128, 1.25), (count, 3)).tolist():
        p.box(shade(color, f), x, y, x + 2.2 * size, y + size)


def _room(p: Pen, rng, horizon: float) -> tuple[Color, Color]:
    """A wall and a floor, tiled, boarded or plain."""
    wall = _hue(rng)
    floor = _pick(
        rng, tint(rng, (165, 120, 75), 15, 0.6, 1.3), _hue(rng, (0.03, 0.25), (0.35, 0.85))
    )
    p.box(wall, 0, 0, 128, horizon)
    p.box(floor, 0, horizon, 128, 128)
    kind, line = rng.integers(3), shade(floor, 0.86)
    if kind:
        vanish = rng.uniform(40, 88)
        for x in range(-120, 260, 24):
            p.line(line, 0.8, vanish + (x - vanish) * 0.45, horizon, x, 128)
    if kind == 2:
        for y in (0.15, 0.4, 0.75):
            p.line(line, 0.8, 0, horizon + y * (128 - horizon), 128, horizon + y * (128 - horizon))
    p.box(shade(wall, _pick(rng, 0.7, 1.2)), 0, horizon - 2, 128, horizon)
    return wall, floor


def _window(p: Pen, rng, x: float, y: float, w: float, h: float) -> None:
    frame = tint(rng, _pick(rng, (240, 240, 235), (130, 85, 50)))
    p.box(frame, x - 2, y - 2, x + w + 2, y + h + 2)
    p.box(tint(rng, _pick(rng, (165, 205, 240), (215, 230, 240), (35, 45, 80)), 12), x, y, x + w,
        y + h)
    p.box(frame, x + w / 2 - 0.8, y, x + w / 2 + 0.8, y + h)
    p.box(frame, x, y + h / 2 - 0.8, x + w, y + h / 2 + 0.8)


def _kitchen(p: Pen, rng) -> None:
    horizon = rng.uniform(84, 94)
    wall, _ = _room(p, rng, horizon)
    door, top = _hue(rng, (0.05, 0.6), (0.35, 0.95)), _hue(rng, (0, 0.2), (0.2, 0.9))
    if rng.random() < 0.8:  # wall tiles
        for x in range(0, 128, 8):
            p.line(shade(wall, 0.85), 0.6, x, 34, x, horizon - 28)
        for y in range(34, int(horizon) - 28, 6):
            p.line(shade(wall, 0.85), 0.6, 0, y, 128, y)
    fridge, stove = 26, rng.uniform(62, 78)
    bottom = rng.uniform(28, 36)
    for x in np.arange(fridge + 2, 128, 17):  # cupboards above
        if abs(x + 8 - stove - 10) > 13:
            p.box(shade(door, 0.7), x, 0, x + 16.4, bottom)
            p.box(door, x + 0.8, 0, x + 15.6, bottom - 1)
            p.box(shade(door, 1.12), x + 3, 2, x + 13, bottom - 5)
            p.oval(BLACK, x + 13.4, bottom - 4, 1)
    counter = horizon - 27
    for x in np.arange(fridge + 2, 128, 17):  # and below
        p.box(shade(door, 0.7), x, counter, x + 17, horizon + 2)
        p.box(door, x + 0.8, counter + 5, x + 15.8, horizon)
        p.box(BLACK, x + 4, counter + 8, x + 12, counter + 9.4)
    p.box(top, fridge, counter - 1, 128, counter + 4)
    steel = tint(rng, (185, 188, 192), 6, 0.6, 1.2)
    p.box(steel, stove, counter - 2, stove + 20, horizon + 2)  # the stove and its hood
    p.box(BLACK, stove + 3, counter + 9, stove + 17, horizon - 4, 1.5)
    for i in range(4):
        p.oval(BLACK, stove + 4 + 4 * i, counter + 4, 1.2)
    p.oval(tint(rng, (60, 60, 64), 5), stove + 7, counter - 4, 4.5, 1.5)
    p.box(_hue(rng, (0.1, 0.8)), stove + 2.5, counter - 10, stove + 11.5, counter - 3)  # a pot
    p.poly(steel, stove + 6, 0, stove + 14, 0, stove + 14, 18, stove + 22, 28, stove - 2, 28,
        stove + 6, 18)
    cold = tint(rng, (225, 228, 230), 8, 0.65, 1.1)
    p.box(shade(cold, 0.75), 2, 14, fridge, horizon + 3)
    p.box(cold, 3, 15, fridge - 1, 40)
    p.box(cold, 3, 42, fridge - 1, horizon + 2)
    p.box(shade(cold, 0.5), fridge - 5, 28, fridge - 3.4, 38)
    p.box(shade(cold, 0.5), fridge - 5, 45, fridge - 3.4, 60)


def _bedroom(p: Pen, rng) -> None:
    horizon = rng.uniform(72, 82)
    _room(p, rng, horizon)
    x, w, h = rng.uniform(8, 20), rng.uniform(26, 34), rng.uniform(28, 36)
    _window(p, rng, x, 12, w, h)
    curtain = _hue(rng, (0.1, 0.7))
    for side in (x - 6, x + w - 3):
        p.box(curtain, side, 8, side + 9, 16 + h)
        p.line(shade(curtain, 0.8), 1, side + 3, 8, side + 3, 16 + h)
        p.line(shade(curtain, 0.8), 1, side + 6, 8, side + 6, 16 + h)
    p.box(shade(curtain, 0.6), x - 8, 6, x + w + 8, 8)
    wood = tint(rng, (120, 75, 45), 15, 0.5, 1.7)
    sheet, cover = _hue(rng, (0, 0.12), (0.85, 1)), _hue(rng, (0.1, 0.8))
    left, right = rng.uniform(48, 56), rng.uniform(112, 124)
    head = horizon - rng.uniform(34, 42)
    p.box(wood, left - 2, head, right + 2, horizon + 6, 5)  # headboard
    p.box(shade(wood, 1.2), left + 2, head + 4, right - 2, horizon - 4, 3)
    p.poly(sheet, left, horizon - 12, right, horizon - 12, right + 8, 108, left - 10, 108)
    middle = (left + right) / 2
    for center in (left + (middle - left) / 2, right - (right - middle) / 2):  # pillows
        p.box(shade(sheet, 0.8), center - 14, horizon - 19, center + 14, horizon - 5, 5)
        p.box(sheet, center - 13, horizon - 20, center + 13, horizon - 7, 5)
    p.poly(cover, left - 1, horizon, right + 1, horizon, right + 8, 106, left - 10, 106)
    p.poly(shade(cover, 1.25), left - 1, horizon, right + 1, horizon, right + 2, horizon + 6,
        left - 2, horizon + 6)
    if rng.random() < 0.6:
        for i in range(1, 5):
            u = i / 5
            p.line(shade(cover, 0.8), 1, left + u * (right - left), horizon + 6,
                left - 10 + u * (right - left + 18), 106)
    p.box(shade(cover, 0.7), left - 10, 105, right + 8, 114)
    p.box(wood, left - 10, 112, right + 8, 116)
    if rng.random() < 0.6:
        p.box(wood, 78, 6, 102, 24)
        p.box(_hue(rng), 80, 8, 100, 22)


def _bathroom(p: Pen, rng) -> None:
    horizon = rng.uniform(84, 94)
    _room(p, rng, horizon)
    tile, line = _hue(rng, (0.03, 0.4), (0.6, 0.95)), 0.8
    edge = rng.uniform(0, 20)
    p.box(tile, 0, edge, 128, horizon)
    step = rng.uniform(8, 11)
    for x in np.arange(0, 128, step):
        p.line(shade(tile, 1.2 if sum(tile) < 450 else 0.85), line, x, edge, x, horizon)
    for y in np.arange(edge, horizon, step):
        p.line(shade(tile, 1.2 if sum(tile) < 450 else 0.85), line, 0, y, 128, y)
    white, chrome = tint(rng, (243, 244, 245), 4, 0.85, 1.03), tint(rng, (165, 170, 178), 5)
    x = rng.uniform(70, 78)  # tub, curtain and shower
    p.line(chrome, 1.6, x - 8, 14, 128, 14)
    p.line(chrome, 1.8, 122, 62, 122, 22, 112, 22)
    p.poly(chrome, 107, 27, 117, 27, 113, 22, 111, 22)
    for i in range(6):
        p.line((205, 222, 238), 0.7, 108 + 1.6 * i, 28, 106 + 2.4 * i, 54)
    curtain = _hue(rng, (0.15, 0.7))
    p.poly(curtain, x - 6, 14, x + 14, 14, x + 10, 78, x - 8, 78)
    for i in range(1, 4):
        p.line(shade(curtain, 0.8), 1, x - 6 + 5 * i, 14, x - 8 + 4.5 * i, 78)
    p.box(white, x - 10, 66, 128, horizon + 8, 6)
    p.box(shade(white, 0.8), x - 10, 66, 128, 70, 2)
    p.box(shade(white, 0.9), x - 4, horizon + 4, 124, horizon + 8)
    mirror = _pick(rng, "round", "square")
    glass = tint(rng, (195, 215, 225), 8)
    if mirror == "round":
        p.oval(chrome, 44, 32, 15, 19)
        p.oval(glass, 44, 32, 13, 17)
    else:
        p.box(chrome, 29, 13, 59, 51)
        p.box(glass, 31, 15, 57, 49)
    p.line(WHITE, 1.6, 37, 38, 49, 24)
    p.line(WHITE, 1.2, 42, 40, 52, 28)
    p.box(white, 27, 62, 61, 67, 2)  # sink
    p.pie(white, 44, 64, 15, 14, 0, 180)
    p.box(shade(white, 0.85), 41, 76, 47, horizon + 4)
    p.line(chrome, 2, 44, 62, 44, 56, 49, 56)
    p.box(white, 4, 52, 18, 72, 2)  # toilet
    p.pie(shade(white, 0.95), 13, 73, 11, 16, 0, 180)
    p.oval(shade(white, 0.8), 13, 73, 11, 3)
    p.box(shade(white, 0.9), 7, 84, 17, horizon + 5)


def _classroom(p: Pen, rng) -> None:
    horizon = rng.uniform(78, 88)
    _room(p, rng, horizon)
    x, y = rng.uniform(28, 36), rng.uniform(8, 16)
    right, low = x + rng.uniform(66, 76), y + rng.uniform(38, 44)
    board = tint(rng, _pick(rng, (35, 80, 60), (45, 50, 55), (40, 75, 85)), 8)
    wood = tint(rng, (150, 100, 60), 12, 0.6, 1.3)
    p.box(wood, x - 3, y - 3, right + 3, low + 3)
    p.box(board, x, y, right, low)
    p.box(shade(wood, 1.2), x, low + 2, right, low + 5)
    chalk = tint(rng, (230, 232, 225), 6)
    for i in range(rng.integers(2, 5)):  # writing
        line, end = y + 6 + 7 * i, x + rng.uniform(20, 36)
        along = np.arange(x + 4, end, 2.0)
        wiggle = line + rng.uniform(-2, 2, len(along))
        p.line(chalk, 0.9, *np.stack([along, wiggle], 1).ravel().tolist())
    for shape in rng.permutation(3)[:2]:
        u, v = right - 24 + 8 * (shape == 1), y + 11 + 11 * (shape > 0)
        if shape == 0:
            p.poly(chalk, u - 8, v + 6, u + 8, v + 6, u, v - 7)
            p.poly(board, u - 5, v + 4.6, u + 5, v + 4.6, u, v - 4)
        elif shape == 1:
            p.ring(chalk, u, v + 4, 7, 7, 1.2)
        else:
            p.line(chalk, 1.2, u - 12, v + 10, u - 12, v - 4)
            p.line(chalk, 1.2, u - 12, v + 10, u + 4, v + 10)
            p.line(chalk, 1.2, u - 12, v + 8, u - 4, v + 2, u + 3, v - 3)
    p.box(WHITE, x + 8, low + 1, x + 13, low + 2.6)
    _window(p, rng, 3, 12, 17, 36)
    for i in range(int(rng.integers(4, 8))):  # children's pictures
        p.box(_hue(rng, (0.5, 0.9), (0.6, 0.95)), x + 10 * i, low + 10, x + 8 + 10 * i, low + 18)
        p.poly(WHITE, x + 2 + 10 * i, low + 17, x + 4 + 10 * i, low + 11, x + 6 + 10 * i, low + 17)


def _library(p: Pen, rng) -> None:
    horizon = rng.uniform(86, 96)
    _room(p, rng, horizon)
    wood = tint(rng, _pick(rng, (110, 70, 40), (160, 115, 70), (205, 200, 190), (70, 60, 55)), 12)
    p.box(shade(wood, 0.55), 4, 2, 124, horizon + 1)
    rows = 4
    height = (horizon - 4) / rows
    for row in range(rows):
        y = 4 + height * (row + 1)
        x = 6.0
        while x < 118:
            w, h = rng.uniform(2.6, 5), rng.uniform(0.6, 0.92) * height
            if rng.random() < 0.06:
                x += 5
                continue
            spine = _hue(rng, (0.3, 0.9), (0.3, 0.9))
            p.box(spine, x, y - h, x + w - 0.5, y - 1)
            p.box(shade(spine, 1.5), x, y - h + 3, x + w - 0.5, y - h + 4)
            x += w
        p.box(wood, 3, y - 1, 125, y + 1.6)
    for x in (2, 42, 83, 123):
        p.box(wood, x, 0, x + 3, horizon + 2)
    p.box(shade(wood, 1.1), 0, 0, 128, 4)
    if rng.random() < 0.6:  # a ladder
        x = rng.uniform(20, 90)
        light = tint(rng, (190, 145, 90), 10, 0.6, 1.2)
        for u in (0, 11):
            p.line(light, 1.8, x + u, 3, x + u - 8, horizon + 6)
        for v in np.linspace(0.08, 0.92, 8):
            p.line(
                light, 1.4, x - 8 * v, 3 + v * (horizon + 3), x + 11 - 8 * v, 3 + v * (horizon + 3)
            )


def _houses(p: Pen, rng, ground: float, night: bool) -> None:
    x = -rng.uniform(0, 10)
    while x < 128:
        w, h = rng.uniform(20, 32), rng.uniform(42, 72)
        front = (
            _hue(rng, (0.05, 0.5), (0.12, 0.25)) if night else _hue(rng, (0.05, 0.5), (0.4, 0.9))
        )
        p.box(front, x, ground - h, x + w - 1, ground)
        p.box(shade(front, 0.75), x, ground - h, x + w - 1, ground - h + 2)
        lit, dark = tint(rng, (250, 215, 110), 15), shade(front, 0.6)
        cols = max(2, int(w // 8))
        for u in range(cols):
            for v in range(int((h - 16) // 9)):
                left, top = x + 2 + u * (w - 3) / cols, ground - h + 6 + 9 * v
                glass = (
                    (lit if rng.random() < 0.55 else dark) if night else tint(rng, (110, 140, 165))
                )
                p.box(glass, left, top, left + 4.4, top + 5.4)
        sign = _hue(rng, (0.6, 1), (0.8, 1)) if night else _hue(rng, (0.4, 0.8), (0.5, 0.9))
        p.box(sign, x + 1, ground - 14, x + w - 2, ground - 11)  # shop
        p.box(
            (235, 205, 130) if night else (75, 95, 110), x + 3, ground - 10, x + w - 9, ground - 2
        )
        p.box(shade(front, 0.5), x + w - 7, ground - 10, x + w - 3, ground)
        x += w


def _road(p: Pen, rng, top: float, asphalt: Color, night: bool) -> None:
    walk = shade(asphalt, 1.5 if night else 1.35)
    p.box(walk, 0, top, 128, top + 8)
    p.box(shade(walk, 0.8), 0, top + 8, 128, top + 9.5)
    p.box(asphalt, 0, top + 9, 128, 128)
    middle, start = top + rng.uniform(20, 28), rng.uniform(-12, 0)
    if rng.random() < 0.6:
        for x in np.arange(start, 128, 22):
            p.poly(
                (225, 220, 200), x, middle, x + 13, middle, x + 12, middle + 3, x - 1, middle + 3
            )
    else:  # crosswalk
        left = rng.uniform(10, 80)
        for i in range(4):
            y = top + 11 + 9 * i
            p.poly((225, 225, 220), left - 2 * i, y, left + 26, y, left + 26, y + 5,
                left - 2 * i - 1, y + 5)


def _city_street(p: Pen, rng) -> None:
    ground = rng.uniform(70, 82)
    _sky(p, rng, ground)
    _houses(p, rng, ground, night=False)
    _road(p, rng, ground, tint(rng, (105, 106, 110), 6, 0.65, 1.2), night=False)


def _night(p: Pen, rng) -> None:
    ground = rng.uniform(70, 82)
    sky = tint(rng, _pick(rng, (14, 18, 42), (8, 9, 18), (32, 22, 50)), 5)
    p.box(sky, 0, 0, 128, ground)
    for x, y in rng.uniform((0, 0), (128, 40), (22, 2)).tolist():
        p.box((225, 225, 210), x, y, x + 0.8, y + 0.8)
    if rng.random() < 0.8:
        x, y, r = rng.uniform(12, 116), rng.uniform(9, 16), rng.uniform(5, 8)
        p.oval((240, 236, 205), x, y, r)
        if rng.random() < 0.6:
            p.oval(sky, x + r * 0.5, y - r * 0.2, r * 0.9)
    _houses(p, rng, ground, night=True)
    _road(p, rng, ground, tint(rng, (38, 38, 46), 4), night=True)


def _beach(p: Pen, rng) -> None:
    horizon = rng.uniform(34, 52)
    _sky(p, rng, horizon)
    sea = tint(rng, _pick(rng, (30, 105, 170), (40, 150, 175), (70, 115, 135)), 12)
    sand = tint(rng, _pick(rng, (225, 200, 150), (205, 175, 125), (235, 222, 195)), 10)
    shore = horizon + rng.uniform(22, 34)
    p.box(sea, 0, horizon, 128, 128)
    for _ in range(12):
        x, y = rng.uniform(0, 128), rng.uniform(horizon + 1, shore - 4)
        p.line(shade(sea, 1.35), 0.8, x, y, x + rng.uniform(6, 16), y)
    along = np.linspace(0, 128, 17)
    edge = (shore + rng.uniform(2, 4) * np.sin(along / rng.uniform(8, 14) + rng.uniform(0, 6))
        + along * rng.uniform(-0.06, 0.06))
    for lift, fill in ((-4, shade(sea, 1.3)), (-1.5, WHITE), (1.5, shade(sand, 0.82)), (6, sand)):
        p.poly(fill, *np.stack([along, edge + lift], 1).ravel().tolist(), 128, 128, 0, 128)
    _specks(p, rng, shade(sand, 0.9), shore + 10, 24)
    if rng.random() < 0.65:  # a palm
        x, y, bend = rng.uniform(8, 24), rng.uniform(14, 24), rng.uniform(-4, 10)
        p.line(tint(rng, (125, 90, 55)), 3.4, x, shore + 14, x + bend * 0.3, (y + shore) / 2,
            x + bend, y)
        leaf = tint(rng, (50, 125, 55), 12)
        for dx, dy in ((-19, 3), (-13, -9), (2, -12), (15, -8), (19, 5)):
            p.poly(leaf, x + bend, y - 1.5, x + bend + dx * 0.6, y + dy * 0.6 - 4, x + bend + dx,
                y + dy + 5, x + bend + dx * 0.5, y + dy * 0.4 + 1)
    if rng.random() < 0.5:
        x, y = rng.uniform(40, 120), rng.uniform(shore + 12, 124)  # a starfish
        turn = np.arange(10) * np.pi / 5
        length = np.where(np.arange(10) % 2, 1.6, 4.5)
        p.poly(tint(rng, (225, 110, 60)),
            *np.stack([x + length * np.sin(turn), y - 0.6 * length * np.cos(turn)], 1) .ravel()
            .tolist())


def _forest(p: Pen, rng) -> None:
    horizon = rng.uniform(70, 84)
    _sky(p, rng, horizon)
    leaf = tint(rng, _pick(rng, (45, 105, 50), (70, 120, 45), (30, 80, 60), (185, 110, 40)), 12)
    floor = tint(rng, _pick(rng, (90, 115, 55), (120, 95, 60), (70, 90, 50)), 10)
    p.box(shade(leaf, 0.5), 0, rng.uniform(18, 34), 128, horizon)
    p.box(floor, 0, horizon, 128, 128)
    _specks(p, rng, shade(floor, 0.85), horizon, 45, 1.6)
    bark = tint(rng, (95, 68, 45), 10, 0.6, 1.4)
    pines = rng.random() < 0.5
    for depth in range(3):
        y0, f = horizon + (-4, 4, 14)[depth], (0.6, 0.8, 1.0)[depth]
        step = (13, 22, 40)[depth]
        for x in np.arange(rng.uniform(-5, 10), 134, step) + rng.uniform(-3, 3):
            w, top = (3, 4.5, 7)[depth], (18, 8, -6)[depth] + rng.uniform(-6, 8)
            green = tint(rng, shade(leaf, f), 8, 0.9, 1.15)
            p.box(shade(bark, f), x - w / 2, top + 10, x + w / 2, y0)
            if pines:
                for k in range(3):
                    reach = w * (1.5 + 0.55 * k)
                    base = top + (y0 - top) * (0.3 + 0.22 * k)
                    p.poly(green, x, top + (base - top) * 0.45 * (k > 0), x - reach, base,
                        x + reach, base)
            else:
                for dx, dy, r in ((-1, 12, 2.2), (1, 11, 2.2), (0, 4, 2.4)):
                    p.oval(green, x + dx * w * 1.3, top + dy, w * r, w * r * 0.9)


def _desert(p: Pen, rng) -> None:
    horizon = rng.uniform(50, 66)
    _sky(p, rng, horizon)
    sand = tint(
        rng, _pick(rng, (225, 175, 105), (205, 140, 85), (230, 200, 140), (190, 120, 80)), 10
    )
    p.box(sand, 0, horizon, 128, 128)
    for k in range(4):  # dunes, each with a dark side
        x, y = rng.uniform(0, 128), horizon + 13 * k + rng.uniform(-2, 3)
        w, h = rng.uniform(40, 75), rng.uniform(9, 17)
        p.poly(shade(sand, 1.06), x - w, y + 5, x - w * 0.4, y - h * 0.55, x, y - h, x + 3, y + 5)
        p.poly(shade(sand, 0.78), x, y - h, x + w * 0.5, y - h * 0.4, x + w, y + 5, x - 10, y + 5,
            x + 4, y - h * 0.4)
        p.box(sand, 0, y + 4, 128, y + 14)
    for _ in range(10):
        x, y = rng.uniform(0, 120), rng.uniform(horizon + 20, 126)
        p.line(shade(sand, 0.88), 0.9, x, y, x + 6, y - 1.5, x + 13, y)
    green = tint(rng, (70, 125, 65), 12, 0.7, 1.2)
    for x in (rng.uniform(10, 30), rng.uniform(88, 120))[: int(rng.integers(1, 3))]:  # cactus
        y, h, w = horizon + rng.uniform(10, 22), rng.uniform(34, 52), 3.4
        p.box(green, x - w, y - h, x + w, y, w)
        for side, low in ((-1, rng.uniform(12, 20)), (1, rng.uniform(16, 26))):
            p.line(green, 4, x, y - low, x + 10 * side, y - low, x + 10 * side, y - low - 13)
            p.oval(green, x + 10 * side, y - low - 13, 2)
        p.line(shade(green, 0.7), 0.8, x, y - h + 2, x, y)


def _snowy_mountain(p: Pen, rng) -> None:
    horizon = rng.uniform(66, 80)
    _sky(p, rng, horizon)
    rock = tint(rng, _pick(rng, (95, 105, 125), (110, 95, 85), (70, 85, 110)), 8)
    snow = tint(rng, (238, 242, 248), 5, 0.85, 1.04)
    for x in rng.permutation([18, 64, 108]) + rng.uniform(-12, 12, 3):
        top, w = rng.uniform(6, 26), rng.uniform(36, 54)
        p.poly(rock, x, top, x - w, horizon, x + w, horizon)
        p.poly(shade(rock, 0.75), x, top, x + w, horizon, x + w * 0.2, horizon, x + 4, top + 24)
        cap = rng.uniform(0.42, 0.62)
        y, reach = top + cap * (horizon - top), cap * w
        p.poly(snow, x, top, x - reach, y, x - reach * 0.55, y - 6, x - reach * 0.2, y + 4,
            x + reach * 0.2, y - 5, x + reach * 0.6, y + 3, x + reach, y)
        p.poly(shade(snow, 0.83), x, top, x + reach * 0.1, y - 8, x + reach * 0.2, y - 5,
            x + reach * 0.6, y + 3, x + reach, y)
    p.box(snow, 0, horizon - 2, 128, 128)
    for _ in range(5):
        p.oval(shade(snow, rng.uniform(0.9, 1.03)), rng.uniform(0, 128),
            rng.uniform(horizon, 128), 30, 5)
    green = tint(rng, (40, 80, 60), 10)
    for x in rng.uniform(0, 128, rng.integers(3, 8)):
        y, h = horizon + rng.uniform(-2, 6), rng.uniform(14, 24)
        p.poly(green, x, y - h, x - h * 0.3, y, x + h * 0.3, y)
        p.poly(snow, x, y - h, x - h * 0.13, y - h * 0.55, x + h * 0.13, y - h * 0.55)
    if rng.random() < 0.4:  # falling snow
        for x, y in rng.uniform(0, 128, (40, 2)).tolist():
            p.oval(WHITE, x, y, 0.9)


def _farm(p: Pen, rng) -> None:
    horizon = rng.uniform(54, 66)
    _sky(p, rng, horizon)
    field = tint(rng, _pick(rng, (110, 155, 70), (200, 175, 90), (130, 105, 65)), 12)
    p.box(tint(rng, (90, 130, 75), 12), 0, horizon - 4, 128, horizon)
    p.box(field, 0, horizon, 128, 128)
    vanish = rng.uniform(50, 110)
    for x in range(-160, 300, 26):  # furrows
        p.poly(shade(field, 0.83), vanish + (x - vanish) * 0.12, horizon, x, 128, x + 11, 128)
    barn = tint(rng, _pick(rng, (165, 45, 40), (165, 45, 40), (150, 100, 65), (200, 195, 185)), 12)
    trim = WHITE if sum(barn) < 500 else (130, 60, 50)
    x, y = rng.uniform(28, 42), horizon + 10
    p.poly(barn, x, y, x, y - 26, x + 6, y - 40, x + 20, y - 50, x + 34, y - 40, x + 40, y - 26,
        x + 40, y)
    roof = tint(rng, (85, 80, 85), 10)
    p.line(
        roof, 3.5, x - 2, y - 24, x + 6, y - 40, x + 20, y - 50.5, x + 34, y - 40, x + 42, y - 24
    )
    p.poly(shade(roof, 0.85), x + 20, y - 51, x + 34, y - 40, x + 42, y - 24, x + 66, y - 24,
        x + 58, y - 40, x + 42, y - 51)
    p.box(shade(barn, 0.8), x + 40, y - 24, x + 64, y)
    p.box(trim, x + 11, y - 21, x + 29, y)
    p.box(barn, x + 12.5, y - 19.5, x + 27.5, y)
    p.line(trim, 1.5, x + 12, y - 20, x + 28, y, x + 28, y - 20, x + 12, y)
    p.box(trim, x + 16, y - 36, x + 24, y - 28)
    if rng.random() < 0.8:  # silo
        left = x - rng.uniform(18, 24)
        metal = tint(rng, (175, 180, 185), 8, 0.7, 1.2)
        p.oval(shade(metal, 0.8), left + 7, y - 48, 7, 7)
        p.box(metal, left, y - 48, left + 14, y)
        p.box(shade(metal, 0.8), left + 10, y - 48, left + 14, y)
    wood = tint(rng, (165, 130, 90), 10, 0.6, 1.4)
    base = y + rng.uniform(8, 16)
    for u in range(-4, 130, 15):  # fence
        p.box(wood, u, base - 13, u + 2.4, base + 3)
    p.box(wood, 0, base - 11, 128, base - 9)
    p.box(wood, 0, base - 5, 128, base - 3)


def _harbor(p: Pen, rng) -> None:
    horizon = rng.uniform(40, 52)
    _sky(p, rng, horizon)
    sea = tint(rng, _pick(rng, (35, 85, 130), (60, 120, 140), (80, 100, 110)), 10)
    quay = rng.uniform(84, 94)
    p.box(sea, 0, horizon, 128, quay)
    for _ in range(18):
        x, y = rng.uniform(0, 128), rng.uniform(horizon + 2, quay - 3)
        p.line(shade(sea, 1.3), 0.8, x, y, x + rng.uniform(4, 12), y)
    tower, foot = rng.uniform(12, 26), horizon + 5  # lighthouse on a rock
    p.poly((95, 90, 88), tower - 18, foot + 5, tower - 9, foot - 4, tower + 10, foot - 4,
        tower + 20, foot + 5)
    stripe = _hue(rng, (0.7, 0.95), (0.5, 0.85))
    for k in range(5):
        a, b = k / 5, (k + 1) / 5
        y0, y1 = foot - 4 - 32 * a, foot - 4 - 32 * b
        w0, w1 = 6 - 2 * a, 6 - 2 * b
        p.poly(stripe if k % 2 else WHITE, tower - w0, y0, tower + w0, y0, tower + w1, y1,
            tower - w1, y1)
    p.box((250, 225, 120), tower - 3, foot - 42, tower + 3, foot - 36)
    p.poly(stripe, tower - 5, foot - 42, tower + 5, foot - 42, tower, foot - 48)
    steel = _hue(rng, (0.3, 0.9), (0.4, 0.8))
    for x in (rng.uniform(58, 68), rng.uniform(96, 106)):  # cranes over stacked containers
        p.line(steel, 2, x, horizon + 12, x + 3, 14, x + 12, 14, x + 15, horizon + 12)
        p.line(steel, 1.3, x + 1, 40, x + 13, 28, x + 2, 28, x + 14, 40)
        p.line(steel, 2.2, x - 16, 17, x + 24, 17)
        p.line(steel, 1, x - 14, 17, x + 7, 8, x + 23, 17)
        p.line(BLACK, 0.8, x - 12, 17, x - 12, 30)
        p.box(_hue(rng, (0.5, 0.9), (0.4, 0.8)), x - 17, 30, x - 7, 35)
    for row in range(3):
        for u in range(6 - row):
            left, top = 50 + 13 * u + 3 * row, horizon + 9 - 6 * row
            p.box(_hue(rng, (0.4, 0.9), (0.35, 0.8)), left, top, left + 12, top + 5.4)
    stone = tint(rng, (140, 135, 130), 8, 0.7, 1.2)
    p.box(shade(stone, 0.6), 46, horizon + 14, 128, horizon + 19)
    planks = tint(rng, _pick(rng, (150, 115, 80), (165, 160, 150)), 8, 0.7, 1.2)
    p.box(planks, 0, quay, 128, 128)
    p.box(shade(planks, 0.6), 0, quay, 128, quay + 3)
    for x in range(-60, 200, 13):
        p.line(shade(planks, 0.8), 0.9, 64 + (x - 64) * 0.7, quay + 3, x, 128)
    for x in (rng.uniform(6, 20), rng.uniform(56, 70), rng.uniform(106, 120)):  # bollards
        p.box(BLACK, x - 3, quay - 8, x + 3, quay + 2, 1)
        p.oval(shade(stone, 0.4), x, quay - 8, 4.4, 2.4)


def _playground(p: Pen, rng) -> None:
    horizon = rng.uniform(62, 76)
    _sky(p, rng, horizon)
    hedge = tint(rng, (75, 120, 60), 15)
    for x in range(-4, 136, 11):
        p.oval(shade(hedge, rng.uniform(0.85, 1.1)), x, horizon - 4, 9, rng.uniform(6, 12))
    ground = tint(
        rng, _pick(rng, (205, 180, 130), (120, 160, 80), (170, 110, 85), (130, 140, 150)), 12
    )
    p.box(ground, 0, horizon, 128, 128)
    _specks(p, rng, shade(ground, 0.9), horizon, 20)
    frame, slide = _hue(rng, (0.6, 0.95), (0.5, 0.9)), _hue(rng, (0.6, 0.95), (0.6, 0.95))
    base = horizon + rng.uniform(8, 14)  # swings
    for x in (8, 58):
        p.line(frame, 2.6, x - 7, base, x, 20, x + 7, base)
    p.line(frame, 2.8, 7, 20, 59, 20)
    for x in (21, 39):
        sway, low = rng.uniform(-7, 7), base - rng.uniform(12, 18)
        p.line((70, 70, 75), 0.9, x, 20, x + sway, low)
        p.line((70, 70, 75), 0.9, x + 8, 20, x + 8 + sway, low)
        p.box(BLACK, x - 1 + sway, low, x + 9 + sway, low + 2.6)
    x = rng.uniform(68, 76)  # ladder, tower and slide
    for u in (0, 12):
        p.line(frame, 2.2, x + u, base + 4, x + u, 26)
    for v in np.arange(base, 40, -6):
        p.line(frame, 1.4, x, v, x + 12, v)
    p.poly(_hue(rng, (0.6, 0.95), (0.6, 0.95)), x - 4, 26, x + 6, 13, x + 17, 26)
    p.box(frame, x - 2, 40, x + 14, 43)
    p.line(shade(slide, 0.75), 8, x + 13, 42, x + 22, 48, x + 38, base - 1, x + 49, base + 4)
    p.line(slide, 5.4, x + 13, 41, x + 22, 46.5, x + 38, base - 3, x + 49, base + 2)


def _tennis_court(p: Pen, rng) -> None:
    horizon = rng.uniform(38, 50)
    _sky(p, rng, horizon)
    fence = tint(rng, _pick(rng, (40, 90, 65), (50, 60, 90), (75, 80, 80)), 8)
    p.box(fence, 0, horizon - 18, 128, horizon)
    for x in range(0, 132, 16):
        p.line(shade(fence, 1.5), 1, x, horizon - 19, x, horizon)
    outer = tint(rng, _pick(rng, (60, 120, 75), (175, 95, 60), (70, 100, 150), (150, 75, 70)), 10)
    inner = tint(rng, _pick(rng, (50, 95, 160), (185, 95, 55), (65, 135, 75), (110, 85, 150)), 10)
    p.box(outer, 0, horizon, 128, 128)
    top, low = horizon + 6, rng.uniform(116, 124)
    p.poly(inner, 30, top, 98, top, 124, low, 4, low)

    def across(v, share=1.0):  # the court's left and right at height v
        half = share * (34 + 26 * (v - top) / (low - top))
        return 64 - half, 64 + half

    for share in (1.0, 0.76):
        (a, b), (c, d) = across(top, share), across(low, share)
        p.line(WHITE, 1.5, a, top, c, low)
        p.line(WHITE, 1.5, b, top, d, low)
    service = top + 0.6 * (low - top)
    for v, share in ((top, 1.0), (low, 1.0), (service + 8, 0.76), (top + 5, 0.76)):
        a, b = across(v, share)
        p.line(WHITE, 1.6, a, v, b, v)
    p.line(WHITE, 1.4, 64, top + 5, 64, service + 8)
    net = top + 0.3 * (low - top)
    a, b = across(net, 1.12)
    for x in np.arange(a, b, 3.2):
        p.line((60, 65, 70), 0.6, x, net - 13, x, net)
    for y in np.arange(net - 12, net + 0.5, 3):
        p.line((60, 65, 70), 0.6, a, y, b, y)
    p.box(WHITE, a, net - 15, b, net - 12)
    for x in (a, b, 64):
        p.box(WHITE if x == 64 else BLACK, x - 1, net - 15, x + 1, net + 1)


def _railroad(p: Pen, rng) -> None:
    horizon = rng.uniform(42, 56)
    _sky(p, rng, horizon)
    for x in range(-10, 140, 18):
        p.oval(tint(rng, (85, 115, 75), 12), x, horizon, 14, rng.uniform(5, 14))
    ground = tint(rng, _pick(rng, (110, 140, 70), (160, 140, 95), (130, 125, 115)), 10)
    gravel = tint(rng, (145, 135, 125), 8, 0.7, 1.25)
    p.box(ground, 0, horizon, 128, 128)
    vanish = rng.uniform(50, 78)
    wood, steel = tint(rng, (90, 65, 48), 8), tint(rng, (185, 188, 195), 8)
    tracks = [64.0] if rng.random() < 0.5 else [28.0, 106.0]
    half = 34 if len(tracks) == 1 else 22
    for center in tracks:
        p.poly(gravel, vanish - 1, horizon, vanish + 1, horizon, center + 1.5 * half, 128,
            center - 1.5 * half, 128)
        for v in 0.94 ** np.arange(1, 44) if half > 30 else 0.92 ** np.arange(1, 34):
            y, x = horizon + v * (128 - horizon), vanish + v * (center - vanish)
            p.box(wood, x - 1.3 * half * v, y - 2.2 * v, x + 1.3 * half * v, y + 1.4 * v)
        for side in (-1, 1):
            x = center + side * half
            p.poly(steel, vanish, horizon, x - 2.6, 128, x + 2.6, 128)
            p.poly(shade(steel, 0.5), vanish, horizon, x + 2.6, 128, x + 3.8, 128)
    pole = tint(rng, (85, 85, 92), 8)
    for v in (1.0, 0.45, 0.2):  # masts and the wire
        x, y = vanish + v * (124 - vanish), horizon + 40 * v
        p.line(pole, 3 * v, x, y, x, y - 90 * v)
        p.line(pole, 2 * v, x, y - 80 * v, x - 34 * v, y - 80 * v)
    p.line(pole, 0.8, 124 - 30, horizon + 40 - 80, vanish, horizon)


def _swimming_pool(p: Pen, rng) -> None:
    horizon = rng.uniform(36, 48)
    if rng.random() < 0.5:
        _room(p, rng, horizon)
        for x in range(6, 128, 31):
            _window(p, rng, x, 8, 22, horizon - 18)
    else:
        _sky(p, rng, horizon)
        p.box(_hue(rng, (0.05, 0.4)), 0, horizon - rng.uniform(8, 16), 128, horizon)
    deck = tint(rng, _pick(rng, (215, 205, 190), (180, 185, 190), (205, 170, 140)), 8)
    water = tint(rng, _pick(rng, (60, 170, 210), (80, 195, 205), (45, 130, 195)), 10)
    p.box(deck, 0, horizon, 128, 128)
    top, low = horizon + 7, rng.uniform(96, 106)
    p.poly(shade(deck, 1.2), 20, top - 3, 110, top - 3, 131, low + 4, -3, low + 4)
    p.poly(water, 23, top, 107, top, 125, low, 3, low)
    p.poly(shade(water, 0.7), 23, top, 107, top, 108, top + 4, 22, top + 4)
    for _ in range(24):
        v = rng.uniform(0.08, 0.95)
        x, y = rng.uniform(22 - 18 * v, 100 + 14 * v), top + v * (low - top)
        p.line(shade(water, 1.25), 0.9, x, y, x + 3, y - 1, x + 6, y)
    float_ = _hue(rng, (0.7, 0.95), (0.7, 0.95))
    for u in (0.25, 0.5, 0.75):  # lane ropes
        for k in range(14):
            v0, v1 = k / 14, (k + 1) / 14
            xs = [23 - 20 * v + u * (84 + 38 * v) for v in (v0, v1)]
            p.line(WHITE if k % 2 else float_, 1.6, xs[0], top + v0 * (low - top), xs[1],
                top + v1 * (low - top))
    steel = tint(rng, (200, 205, 210), 6)
    for x in (96, 104):  # ladder
        p.line(steel, 1.6, x, top + 4, x, top - 8, x + 2, top - 10, x + 4, top - 8, x + 4, top)
    for u in (0.125, 0.375, 0.625):  # starting blocks
        x = 23 + 84 * u
        p.box(float_, x - 5, top - 10, x + 5, top - 6)
        p.box(WHITE, x - 4, top - 6, x + 4, top - 1)
    for x in range(-60, 200, 16):
        p.line(shade(deck, 0.85), 0.8, 64 + (x - 64) * 0.8, low + 5, x, 128)


def _supermarket(p: Pen, rng) -> None:
    """An aisle towards the back, shelves on both sides."""
    x0, x1, y0, y1 = (
        rng.uniform(48, 56), rng.uniform(72, 80), rng.uniform(30, 38), rng.uniform(62, 70)
    )
    ceiling, floor = _hue(rng, (0, 0.12), (0.6, 0.95)), _hue(rng, (0.02, 0.2), (0.55, 0.95))
    p.box(ceiling, 0, 0, 128, y0)
    p.box(_hue(rng, (0.05, 0.5)), x0, y0, x1, y1)
    p.poly(floor, x0, y1, x1, y1, 136, 128, -8, 128)
    for u in (0.2, 0.4, 0.6, 0.8):
        p.line(shade(floor, 0.85), 0.8, x0 + u * (x1 - x0), y1, -8 + u * 144, 128)
    for v in (0.1, 0.3, 0.6):
        p.line(shade(floor, 0.85), 0.8, x0 - v * (x0 + 8), y1 + v * 60, x1 + v * (136 - x1),
            y1 + v * 60)
    for u in (0.3, 0.7):  # neon tubes
        p.poly(WHITE, x0 + u * (x1 - x0), y0, x0 + u * (x1 - x0) + 2, y0, u * 128 + 5, 0,
            u * 128 - 5, 0)
    rack = _hue(rng, (0, 0.3), (0.25, 0.9))
    for side in (0, 1):
        near, far = (0, x0) if side == 0 else (128, x1)
        p.poly(shade(rack, 0.55), near, -8, far, y0, far, y1, near, 122)
        for row in range(5):
            s = 0.0
            while s < 1:
                e = s + rng.uniform(0.05, 0.11) * (1.3 - s * 0.6)
                pack = _hue(rng, (0.5, 0.95), (0.5, 0.95))
                xs = [near + t * (far - near) for t in (s, min(e, 1) - 0.012)]
                tops = [-8 + t * (y0 + 8) for t in (s, e)]
                lows = [122 + t * (y1 - 122) for t in (s, e)]
                h = rng.uniform(0.02, 0.07)
                a, b = row / 5 + h, row / 5 + 0.17
                edge = [
                    top + f * (low - top)
                    for f in (a, b)
                    for top, low in zip(tops, lows, strict=True)
                ]
                p.poly(pack, xs[0], edge[0], xs[1], edge[1], xs[1], edge[3], xs[0], edge[2])
                middle = [(edge[0] + edge[2]) / 2, (edge[1] + edge[3]) / 2]
                p.line(shade(pack, 1.6), 1.4, xs[0], middle[0], xs[1], middle[1])
                s = e
            v = row / 5 + 0.185
            p.line(rack, 2, near, -8 + v * 130, far, y0 + v * (y1 - y0))


PLACES = {
    "kitchen": _kitchen,
    "bedroom": _bedroom,
    "bathroom": _bathroom,
    "classroom": _classroom,
    "library": _library,
    "supermarket aisle": _supermarket,
    "city street": _city_street,
    "street at night": _night,
    "beach": _beach,
    "forest": _forest,
    "desert": _desert,
    "snowy mountain": _snowy_mountain,
    "farm": _farm,
    "harbor": _harbor,
    "playground": _playground,
    "tennis court": _tennis_court,
    "railroad tracks": _railroad,
    "swimming pool": _swimming_pool,
}


# ---- things: the pen, a paint (used by painted things only) and the generator


def _legs(p: Pen, fill: Color, xs, top: float, width: float, hoof: Color | None = None) -> None:
    for i, x in enumerate(xs):
        p.box(shade(fill, 0.75) if i % 2 else fill, x - width / 2, top, x + width / 2, 100)
        if hoof:
            p.box(hoof, x - width / 2, 95, x + width / 2, 100)


def _dog(p: Pen, paint: Color, rng) -> None:
    coat = tint(rng, _pick(rng, (150, 100, 55), (205, 165, 105), (75, 55, 45), (225, 215, 200)))
    dark = shade(coat, 0.6)
    p.line(coat, 7, -36, 54, -48, 40, -50, 26)  # tail up
    _legs(p, coat, (-30, -20, 14, 24), 64, 9)
    p.box(coat, -40, 46, 32, 76, 14)
    p.poly(coat, 12, 62, 20, 30, 38, 36, 32, 66)
    p.oval(coat, 30, 27, 17, 16)
    p.box(coat, 30, 26, 57, 42, 7)  # muzzle
    p.oval(BLACK, 55, 29, 4.6, 4)
    p.poly((220, 100, 110), 44, 41, 51, 41, 48, 52)
    p.oval(dark, 18, 31, 7, 15)  # hanging ear
    p.oval(BLACK, 36, 23, 2.8)
    p.line(_hue(rng, (0.7, 1), (0.6, 0.9)), 5, 13, 50, 33, 55)


def _cat(p: Pen, paint: Color, rng) -> None:
    coat = tint(rng, _pick(rng, (225, 140, 60), (120, 120, 125), (50, 48, 52), (235, 230, 220)))
    dark = shade(coat, 0.68)
    p.line(coat, 9, 16, 94, 40, 92, 46, 76, 38, 62)  # tail
    p.oval(coat, 0, 76, 25, 26)
    p.oval(coat, 0, 60, 18, 22)
    p.oval(shade(coat, 1.2), 0, 72, 10, 18)
    for x in (-10, 10):
        p.oval(coat, x, 96, 9, 5)
    for side in (-1, 1):
        p.poly(coat, side * 27, 2, side * 24, 34, side * 4, 17)
        p.poly((225, 150, 150), side * 23, 10, side * 21, 26, side * 10, 18)
    p.oval(coat, 0, 32, 27, 22)
    for u in (-8, 0, 8):
        p.line(dark, 2.6, u, 12, u * 0.8, 21)
    eye = _pick(rng, (150, 200, 60), (235, 200, 60), (110, 180, 220))
    for side in (-1, 1):
        p.oval(eye, side * 11, 31, 6, 6)
        p.oval(BLACK, side * 11, 31, 2, 5.4)
        for dy in (-3, 3):
            p.line(
                WHITE if sum(coat) < 400 else (90, 90, 90), 1.4, side * 10, 42, side * 36, 41 + dy
            )
    p.poly((215, 110, 120), -4, 39, 4, 39, 0, 44)


def _bird(p: Pen, paint: Color, rng) -> None:
    coat = tint(
        rng, _pick(rng, (70, 120, 195), (190, 60, 50), (130, 95, 65), (235, 200, 70), (90, 95, 105))
    )
    belly = _mix(coat, (250, 235, 210), 0.65)
    foot = tint(rng, (225, 140, 40))
    for x in (-4, 8):
        p.line(foot, 3.4, x, 76, x, 98)
        p.line(foot, 3.2, x - 6, 99, x + 9, 99)
    p.poly(shade(coat, 0.65), -24, 56, -60, 66, -58, 80, -20, 74)  # tail
    p.oval(coat, 0, 58, 33, 25)
    p.oval(belly, 8, 66, 22, 16)
    p.oval(coat, 25, 32, 18, 18)
    p.poly(tint(rng, (240, 165, 40)), 39, 25, 62, 34, 39, 40)  # beak
    p.oval(WHITE, 30, 28, 5)
    p.oval(BLACK, 31, 28, 3.2)
    p.poly(shade(coat, 0.6), 12, 46, -8, 42, -38, 66, -10, 70, 8, 62)  # wing


def _horse(p: Pen, paint: Color, rng) -> None:
    coat = tint(rng, _pick(rng, (125, 75, 40), (165, 110, 65), (60, 48, 42), (215, 210, 205)))
    mane = shade(coat, 0.45) if sum(coat) < 500 else (120, 115, 110)
    p.poly(mane, -40, 42, -50, 50, -54, 84, -44, 80, -36, 54)
    _legs(p, coat, (-32, -23, 14, 23), 56, 7.5, BLACK)
    p.box(coat, -42, 38, 30, 66, 13)
    p.poly(coat, 6, 44, 24, 2, 38, 8, 32, 56)  # neck
    p.poly(coat, 22, 2, 36, 0, 60, 26, 54, 34, 46, 33, 30, 20)  # long head
    p.poly(coat, 24, 4, 27, -9, 33, 2)
    p.poly(mane, 25, -3, 10, 16, 0, 42, 10, 44, 20, 22)
    p.oval(BLACK, 37, 11, 2.6)
    p.oval(BLACK, 54, 28, 2)


def _cow(p: Pen, paint: Color, rng) -> None:
    coat = tint(rng, _pick(rng, (240, 238, 232), (240, 238, 232), (175, 110, 65)), 6)
    patch = tint(rng, _pick(rng, (35, 33, 36), (120, 70, 40)), 6) if sum(coat) > 600 else WHITE
    p.line(shade(coat, 0.7), 3, -42, 42, -50, 52, -49, 72)
    p.oval(patch, -49, 74, 4, 6)
    _legs(p, coat, (-34, -24, 14, 24), 66, 9, BLACK)
    p.oval((235, 165, 165), -16, 73, 9, 7)  # udder
    p.box(coat, -44, 34, 34, 74, 9)
    p.oval(patch, -26, 47, 13, 11)
    p.oval(patch, 6, 58, 14, 12)
    p.oval(patch, -6, 38, 9, 6)
    p.poly(patch, 20, 34, 34, 34, 34, 56, 26, 50)
    horn = (225, 210, 170)
    p.line(horn, 4, 32, 22, 27, 12, 31, 6)
    p.line(horn, 4, 50, 22, 55, 12, 51, 6)
    p.poly(patch, 32, 25, 18, 24, 22, 33, 33, 33)
    p.poly(patch, 50, 25, 63, 24, 60, 33, 50, 33)
    p.box(coat, 29, 20, 53, 50, 8)
    p.poly(patch, 29, 24, 37, 20, 38, 42, 30, 42)
    p.box((235, 170, 165), 28, 43, 54, 58, 7)
    for x in (35, 47):
        p.oval(BLACK, x, 50, 2.2)
        p.oval(BLACK, x, 32, 2.6)


def _sheep(p: Pen, paint: Color, rng) -> None:
    wool = tint(rng, (238, 234, 224), 6, 0.82, 1.04)
    face = tint(rng, _pick(rng, (45, 42, 45), (60, 48, 42)), 6)
    _legs(p, face, (-26, -14, 12, 24), 74, 7)
    for turn in np.arange(0, 6.28, 0.7):
        p.oval(shade(wool, 0.86), -2 + 32 * np.cos(turn), 56 + 17 * np.sin(turn), 14, 13)
    p.oval(wool, -2, 54, 36, 21)
    for x, y in ((-24, 46), (-8, 40), (8, 42), (-16, 58), (2, 58), (18, 52)):
        p.oval(shade(wool, 1.06), x, y, 11, 9)
        p.pie(shade(wool, 0.88), x, y, 11, 9, 30, 150)
        p.oval(wool, x, y - 2, 10, 7)
    p.poly(face, 26, 34, 14, 40, 26, 44)
    p.poly(face, 48, 34, 60, 40, 48, 44)
    p.oval(face, 37, 44, 13, 18)
    p.oval(wool, 37, 29, 13, 8)
    for x in (32, 42):
        p.oval(WHITE, x, 40, 3.2)
        p.oval(BLACK, x, 41, 1.6)


def _elephant(p: Pen, paint: Color, rng) -> None:
    skin = tint(rng, _pick(rng, (135, 138, 145), (120, 115, 112), (150, 150, 165)), 6)
    dark = shade(skin, 0.75)
    p.line(dark, 3, -48, 42, -56, 66)
    _legs(p, skin, (-34, -18, 8, 22), 60, 15)
    p.oval(skin, -12, 44, 40, 32)
    p.box(skin, -46, 40, 26, 74, 12)
    p.line(skin, 13, 46, 34, 55, 56, 55, 80, 62, 88)  # trunk
    p.oval(skin, 34, 28, 24, 23)
    p.poly(WHITE, 42, 48, 49, 46, 66, 62)  # tusk
    p.oval(dark, 16, 32, 18, 25)  # ear
    p.oval(shade(skin, 0.9), 17, 33, 13, 19)
    p.oval(BLACK, 43, 24, 3)


def _giraffe(p: Pen, paint: Color, rng) -> None:
    coat = tint(rng, (232, 190, 105), 10)
    spot = tint(rng, (140, 80, 35), 10)
    p.line(spot, 2.6, -30, 56, -37, 74)
    _legs(p, coat, (-24, -16, 4, 12), 66, 6, BLACK)
    p.box(coat, -31, 50, 17, 71, 9)
    p.poly(coat, -2, 56, 20, -12, 30, -10, 17, 64)
    p.poly(coat, 18, -14, 28, -19, 50, -6, 48, 2, 28, -2)
    for x in (21, 27):
        p.line(spot, 2.4, x, -15, x - 1, -25)
        p.oval(spot, x - 1, -25, 2.6)
    p.poly(coat, 20, -13, 9, -17, 18, -8)
    p.oval(BLACK, 32, -11, 2.2)
    body = ((-23, 57, 5), (-11, 56, 5), (-17, 66, 4), (-4, 65, 5), (5, 57, 5), (8, 67, 4))
    for x, y, r in (*body, (12, 45, 4.4), (15, 33, 4), (19, 21, 3.8), (21, 9, 3.5), (24, -2, 3)):
        p.oval(spot, x, y, r, r * 0.85)


def _person(p: Pen, paint: Color, rng) -> None:
    skin = tint(rng, _pick(rng, (240, 200, 165), (200, 145, 105), (120, 80, 55)), 8)
    hair = tint(rng, _pick(rng, (45, 35, 30), (120, 75, 40), (215, 175, 90), (150, 150, 150)), 8)
    shirt, trousers = _hue(rng, (0.3, 0.95), (0.35, 0.95)), _hue(rng, (0.1, 0.7), (0.2, 0.6))
    wave = rng.random() < 0.4
    if long := rng.random() < 0.5:
        p.box(hair, -13, 0, 13, 30, 8)
    for side in (-1, 1):
        if wave and side == 1:
            p.line(skin, 6.5, side * 15, 31, side * 27, 22, side * 29, 6)
        else:
            p.line(skin, 6.5, side * 15, 31, side * 21, 46, side * 19, 59)
        p.line(shirt, 8.5, side * 13, 30, side * 19, 40 if not (wave and side == 1) else 27)
    if long and rng.random() < 0.5:  # a dress
        for x in (-6, 6):
            p.box(skin, x - 3.5, 70, x + 3.5, 97)
        p.poly(shirt, -11, 50, 11, 50, 21, 78, -21, 78)
    else:
        for x in (-7.5, 7.5):
            p.box(trousers, x - 6, 54, x + 6, 97)
    for x in (-9, 9):
        p.oval(BLACK, x, 97, 7.5, 3.6)
    p.box(shirt, -15, 26, 15, 58, 5)
    p.box(skin, -4, 20, 4, 29)
    p.oval(skin, 0, 13, 10.5, 12.5)
    p.pie(hair, 0, 11, 11.5, 12, 180, 360)
    for x in (-4, 4):
        p.oval(BLACK, x, 14, 1.6)
    p.line((170, 70, 70), 1.6, -3, 20, 3, 20)


def _wheel(p: Pen, x: float, y: float, r: float) -> None:
    p.oval(BLACK, x, y, r)
    p.oval((185, 188, 192), x, y, r * 0.5)


def _car(p: Pen, paint: Color, rng) -> None:
    glass = tint(rng, (170, 205, 225), 8, 0.8, 1.1)
    p.poly(paint, -38, 62, -24, 38, 18, 38, 38, 62)
    p.poly(glass, -30, 61, -20, 43, -4, 43, -4, 61)
    p.poly(glass, 1, 61, 1, 43, 15, 43, 29, 61)
    p.box(paint, -58, 59, 60, 88, 8)
    p.box(shade(paint, 0.7), -58, 80, 60, 88, 3)
    p.line(shade(paint, 0.6), 1.6, -2, 62, -2, 82)
    p.box(shade(paint, 0.6), 4, 66, 12, 69)
    p.oval((250, 235, 150), 55, 68, 5, 4)
    p.box((190, 30, 30), -59, 64, -54, 71)
    for x in (-33, 34):
        _wheel(p, x, 87, 13)


def _bus(p: Pen, paint: Color, rng) -> None:
    glass = tint(rng, (165, 200, 222), 8, 0.7, 1.1)
    p.box(paint, -60, 22, 62, 90, 7)
    p.box(_pick(rng, WHITE, shade(paint, 0.6)), -60, 62, 62, 68)
    for x in range(-55, 34, 18):
        p.box(glass, x, 31, x + 14, 53, 2)
    p.box(glass, 38, 31, 48, 86, 2)  # door
    p.line(shade(paint, 0.6), 1.6, 43, 31, 43, 86)
    p.box(glass, 53, 30, 62, 58, 2)
    p.oval((250, 235, 150), 59, 77, 4)
    p.box(shade(paint, 0.6), -60, 84, 62, 90, 2)
    for x in (-34, 22):
        _wheel(p, x, 89, 11)


def _bicycle(p: Pen, paint: Color, rng) -> None:
    for x in (-32, 34):
        p.ring(BLACK, x, 74, 25, 25, 4.5)
        for turn in np.arange(0, 3.1, 0.8):
            dx, dy = 21 * np.cos(turn), 21 * np.sin(turn)
            p.line((150, 150, 155), 1, x - dx, 74 - dy, x + dx, 74 + dy)
    p.line(paint, 5.5, -32, 74, -2, 74, 24, 42, -14, 42, -32, 74)
    p.line(paint, 5.5, -2, 74, -18, 32)
    p.line(paint, 5.5, 34, 74, 22, 30)
    p.line(BLACK, 4.5, 14, 26, 24, 28, 34, 22)
    p.box(BLACK, -28, 27, -8, 34, 3)
    p.oval((90, 90, 95), -2, 74, 7)


def _boat(p: Pen, paint: Color, rng) -> None:
    sail = tint(rng, (245, 243, 235), 5, 0.9, 1.04)
    p.line((120, 85, 55), 4, -2, 0, -2, 76)
    p.poly(sail, 2, 2, 2, 66, 46, 66)
    p.poly(shade(sail, 0.88), -6, 10, -6, 66, -38, 66)
    p.poly(_hue(rng, (0.6, 0.95), (0.6, 0.95)), -2, -4, -2, 5, -18, 0)
    p.poly(paint, -56, 72, 60, 72, 42, 98, -42, 98)
    p.poly(shade(paint, 0.65), -49, 84, 52, 84, 42, 98, -42, 98)
    p.box(WHITE, -56, 70, 60, 75)


def _chair(p: Pen, paint: Color, rng) -> None:
    dark = shade(paint, 0.65)
    p.box(dark, 16, 62, 22, 94)
    p.box(dark, -14, 62, -8, 92)
    p.box(paint, -30, 2, -23, 100)  # back posts
    p.box(paint, 5, 0, 12, 60)
    for y in (5, 20, 35):
        p.poly(paint, -28, y, 10, y - 2, 10, y + 7, -28, y + 9)
    p.poly(shade(paint, 1.18), -30, 58, 8, 52, 30, 60, -8, 68)
    p.poly(dark, -30, 58, -8, 68, -8, 74, -30, 65)
    p.poly(paint, -8, 68, 30, 60, 30, 66, -8, 74)
    p.box(paint, -10, 70, -4, 100)
    p.box(paint, 24, 64, 30, 98)


def _table(p: Pen, paint: Color, rng) -> None:
    dark = shade(paint, 0.62)
    for x in (-34, 38):
        p.box(dark, x - 3, 52, x + 3, 90)
    for x in (-49, 49):
        p.box(shade(paint, 0.85), x - 4, 56, x + 4, 100)
    p.poly(shade(paint, 1.15), -42, 38, 42, 38, 58, 53, -58, 53)
    p.box(shade(paint, 0.8), -58, 53, 58, 61)


def _umbrella(p: Pen, paint: Color, rng) -> None:
    p.line((90, 65, 45), 4, 0, 2, 0, 90)
    p.line((90, 65, 45), 4.6, 0, 88, 2, 97, 9, 99, 14, 95, 14, 88)
    p.pie(paint, 0, 52, 54, 46, 180, 360)
    p.pie(shade(paint, 0.75), 0, 52, 18, 46, 180, 360)
    p.pie(shade(paint, 1.15), 0, 52, 54, 46, 180, 222)
    for x in (-45, -27, -9, 9, 27, 45):  # the scalloped edge is cut by lighter bows
        p.oval(shade(paint, 0.55), x, 52, 9, 4)
    p.line((60, 60, 60), 3, 0, 8, 0, 0)


def _ball(p: Pen, paint: Color, rng) -> None:
    turn = int(rng.integers(0, 60))
    p.oval(shade(paint, 0.7), 0, 66, 34)
    for k in range(3):
        p.pie(paint, 0, 66, 34, 34, turn + 120 * k, turn + 60 + 120 * k)
        p.pie(WHITE, 0, 66, 34, 34, turn + 60 + 120 * k, turn + 120 + 120 * k)
    p.oval(paint, 0, 66, 8)
    p.ring(shade(paint, 0.6), 0, 66, 34, 34, 2.5)


def _clock(p: Pen, paint: Color, rng) -> None:
    for side in (-1, 1):
        p.oval(shade(paint, 0.8), side * 22, 19, 14, 11)  # bells
        p.line(shade(paint, 0.6), 6, side * 18, 84, side * 28, 99)
    p.oval(paint, 0, 56, 41)
    p.oval(WHITE, 0, 56, 33)
    for k in range(12):
        turn = k * np.pi / 6
        c, s = np.cos(turn), np.sin(turn)
        p.line(BLACK, 3 if k % 3 == 0 else 1.6, 25 * c, 56 + 25 * s, 30 * c, 56 + 30 * s)
    for reach, width in ((15, 4.6), (24, 3.2)):
        turn = rng.uniform(0, 2 * np.pi)
        p.line(BLACK, width, 0, 56, reach * np.cos(turn), 56 + reach * np.sin(turn))
    p.oval(BLACK, 0, 56, 3)


def _laptop(p: Pen, paint: Color, rng) -> None:
    case = tint(rng, _pick(rng, (190, 193, 198), (70, 72, 78), (225, 225, 228)), 5)
    p.box(shade(case, 0.85), -44, 26, 44, 80, 4)
    screen = _hue(rng, (0.3, 0.8), (0.5, 0.95))
    p.box(screen, -39, 31, 39, 75)
    p.box(WHITE, -32, 37, 8, 69)
    for y in (42, 49, 56, 63):
        p.box((120, 130, 140), -28, y, rng.uniform(-10, 4), y + 2.5)
    p.poly(case, -46, 80, 46, 80, 60, 98, -60, 98)
    p.poly(shade(case, 0.45), -41, 82, 41, 82, 48, 91, -48, 91)
    for u in range(-36, 45, 9):
        p.line(case, 1, u, 82, u * 1.15, 91)
    p.line(case, 1, -44, 86.5, 44, 86.5)
    p.poly(shade(case, 0.7), -12, 93, 12, 93, 13, 97, -13, 97)


def _bottle(p: Pen, paint: Color, rng) -> None:
    p.box(shade(paint, 0.9), -8, 8, 8, 40)
    p.poly(paint, -8, 30, 8, 30, 20, 50, -20, 50)
    p.box(paint, -20, 46, 20, 100, 5)
    p.box(tint(rng, _pick(rng, (200, 160, 70), (60, 60, 64), (225, 225, 225))), -9.5, 0, 9.5, 12, 2)
    p.box(tint(rng, (245, 240, 225), 6), -20, 59, 20, 84)
    p.box(_hue(rng, (0.5, 0.9)), -13, 67, 13, 75)
    p.box(_mix(paint, WHITE, 0.6), -15, 49, -11, 57)
    p.box(_mix(paint, WHITE, 0.6), -4.5, 16, -1.5, 36)


def _cup(p: Pen, paint: Color, rng) -> None:
    for x in (-12, 6):
        p.line((228, 228, 232), 2.6, x, 30, x + 5, 23, x - 2, 15, x + 4, 8)  # steam
    p.ring(paint, 32, 66, 18, 18, 7.5)
    p.box(paint, -34, 42, 30, 99, 9)
    p.box(shade(paint, 0.8), 20, 46, 30, 95, 5)
    p.oval(shade(paint, 1.25), -2, 43, 32, 8)
    p.oval((90, 55, 35), -2, 44, 26, 5.5)


def _lamp(p: Pen, paint: Color, rng) -> None:
    metal = tint(rng, _pick(rng, (190, 155, 80), (80, 80, 85), (190, 190, 195)))
    p.box(metal, -3, 40, 3, 94)
    p.oval(metal, 0, 66, 8, 12)
    p.box(metal, -22, 92, 22, 100, 4)
    p.oval((255, 240, 170), 0, 46, 15, 7)
    p.poly(paint, -20, 0, 20, 0, 40, 44, -40, 44)
    p.poly(_mix(paint, WHITE, 0.35), -8, 0, 8, 0, 16, 44, -16, 44)
    p.box(shade(paint, 0.75), -40, 42, 40, 46)


def _kite(p: Pen, paint: Color, rng) -> None:
    lift = rng.uniform(0, 30)  # it flies
    p.line(
        (235, 235, 235), 1.6, 0, 55 - lift, 12, 64 - lift, 4, 76 - lift, 14, 88 - lift, 8, 98 - lift
    )
    for x, y in ((11, 66), (6, 78), (13, 90)):
        p.poly(_hue(rng, (0.6, 0.95), (0.6, 0.95)), x - 8, y - 5 - lift, x - 8, y + 5 - lift,
            x + 8, y - 5 - lift, x + 8, y + 5 - lift)
    top, low, side = -8 - lift, 60 - lift, 20 - lift
    p.poly(paint, 0, top, 32, side, 0, low, -32, side)
    p.poly(shade(paint, 0.68), 0, top, 32, side, 0, side)
    p.poly(shade(paint, 0.68), 0, low, -32, side, 0, side)
    p.line(WHITE, 2, 0, top, 0, low)
    p.line(WHITE, 2, -32, side, 32, side)


def _teddy(p: Pen, paint: Color, rng) -> None:
    fur = tint(rng, _pick(rng, (165, 110, 60), (205, 160, 105), (120, 75, 45), (215, 195, 175)))
    pale = _mix(fur, (250, 230, 200), 0.55)
    for side in (-1, 1):
        p.oval(fur, side * 21, 8, 10)
        p.oval(pale, side * 21, 8, 5.5)
        p.oval(shade(fur, 0.88), side * 29, 62, 10, 17)
        p.oval(shade(fur, 0.9), side * 22, 88, 15, 13)
        p.oval(pale, side * 24, 90, 9, 8)
    p.oval(fur, 0, 68, 26, 28)
    p.oval(pale, 0, 70, 16, 19)
    p.oval(fur, 0, 25, 29, 25)
    p.oval(pale, 0, 34, 14, 11)
    p.oval(BLACK, 0, 29, 5, 3.6)
    p.line(BLACK, 1.8, 0, 32, 0, 38)
    for side in (-1, 1):
        p.oval(BLACK, side * 12, 19, 3.6)
    bow = _hue(rng, (0.6, 0.95), (0.6, 0.95))
    p.poly(bow, -12, 45, -12, 57, 12, 45, 12, 57)


def _flower(p: Pen, paint: Color, rng) -> None:
    pot, green = (tint(rng, _pick(rng, (185, 95, 55), (225, 225, 220), (95, 110, 140))),
        tint(rng, (55, 140, 60)))
    p.line(green, 4.5, 0, 34, 2, 78)
    p.poly(green, 1, 68, 12, 52, 28, 48, 20, 62)
    p.poly(green, 1, 72, -12, 56, -28, 54, -18, 68)
    for k in range(7):
        turn = 2 * np.pi * k / 7
        p.oval(
            paint if k % 2 else shade(paint, 0.85), 19 * np.cos(turn), 24 + 19 * np.sin(turn), 11
        )
    p.oval(tint(rng, _pick(rng, (245, 205, 60), (110, 70, 35))), 0, 24, 11)
    p.poly(pot, -20, 78, 20, 78, 14, 100, -14, 100)
    p.box(shade(pot, 0.85), -23, 74, 23, 81)


def _backpack(p: Pen, paint: Color, rng) -> None:
    dark = shade(paint, 0.62)
    p.ring(dark, 0, 8, 11, 11, 5)
    for side in (-1, 1):
        p.box(dark, side * 31 - 9, 50, side * 31 + 9, 92, 6)  # side pockets and straps
        p.line(dark, 6, side * 24, 18, side * 38, 40, side * 34, 60)
    p.box(paint, -31, 6, 31, 100, 20)
    p.box(shade(paint, 0.8), -23, 56, 23, 93, 7)
    p.line(dark, 3, -20, 64, 20, 64)
    p.line(dark, 3, -25, 40, -12, 30, 12, 30, 25, 40)
    p.box((230, 215, 120), -3, 62, 3, 70)
    p.box(_mix(paint, WHITE, 0.4), -11, 40, 11, 48, 2)


def _suitcase(p: Pen, paint: Color, rng) -> None:
    dark = shade(paint, 0.62)
    for x in (-13, 13):
        p.box((95, 95, 100), x - 2, 0, x + 2, 28)
    p.box(BLACK, -17, 0, 17, 6, 3)
    p.box(paint, -32, 24, 32, 94, 8)
    for x in (-20, -7, 7, 20):
        p.box(dark, x - 2, 30, x + 2, 88)
    p.box(shade(paint, 0.8), -32, 56, 32, 61)
    for side in (-1, 1):
        p.oval(BLACK, side * 23, 95, 6, 5)
    p.box((215, 200, 130), -5, 54, 5, 63)


def _guitar(p: Pen, paint: Color, rng) -> None:
    wood = tint(rng, _pick(rng, (205, 140, 70), (165, 75, 40), (225, 180, 115)))
    neck = tint(rng, (85, 55, 38), 6)
    p.oval(shade(wood, 0.55), 0, 81, 25, 20)
    p.oval(shade(wood, 0.55), 0, 56, 19, 16)
    p.oval(wood, 0, 81, 22.5, 17.5)
    p.oval(wood, 0, 56, 16.5, 13.5)
    p.box(wood, -13, 58, 13, 76)
    p.box(neck, -4, 6, 4, 62)
    p.box(shade(neck, 0.8), -7, -4, 7, 12, 2)
    for y in (-1, 5):
        p.box(WHITE, -10, y, -7, y + 3)
        p.box(WHITE, 7, y, 10, y + 3)
    p.oval(BLACK, 0, 67, 8)
    p.box(neck, -10, 86, 10, 90)
    for x in (-2, 2):
        p.line((225, 225, 220), 1, x, 8, x, 88)


def _banana(p: Pen, paint: Color, rng) -> None:
    skin = tint(rng, (245, 215, 65), 8, 0.88, 1.05)
    along = np.linspace(0.15, np.pi - 0.25, 14)
    out = np.stack([-50 * np.cos(along), 46 + 50 * np.sin(along)], 1)
    inner = np.stack([-44 * np.cos(along), 42 + 26 * np.sin(along)], 1)[::-1]
    middle = np.stack([-47 * np.cos(along), 44 + 37 * np.sin(along)], 1)
    p.poly(skin, *out.ravel().tolist(), *inner.ravel().tolist())
    p.poly(shade(skin, 0.82), *out.ravel().tolist(), *middle[::-1].ravel().tolist())
    p.line((110, 80, 40), 7, 44, 52, 53, 34)
    p.oval((80, 60, 35), -48, 52, 4)


def _cake(p: Pen, paint: Color, rng) -> None:
    cream = tint(rng, _pick(rng, (250, 245, 235), (245, 175, 195), (120, 75, 50)), 6)
    sponge = tint(rng, _pick(rng, (225, 180, 110), (110, 65, 40)), 8)
    p.oval((225, 228, 232), 0, 95, 55, 6)
    p.box(sponge, -42, 52, 42, 95)
    p.box(cream, -42, 70, 42, 77)
    p.box(cream, -42, 46, 42, 58)
    for k, x in enumerate(range(-38, 42, 13)):
        p.oval(cream, x, 59, 6.5, 9 if k % 2 else 6)
    p.oval(shade(cream, 1.1), 0, 46, 42, 8)
    for x in (-24, -8, 8, 24):
        p.box(_hue(rng, (0.5, 0.9), (0.7, 0.95)), x - 2.5, 22, x + 2.5, 46)
        p.poly((250, 170, 40), x, 6, x + 5, 18, x, 23, x - 5, 18)


THINGS = {
    "dog": _dog,
    "cat": _cat,
    "bird": _bird,
    "horse": _horse,
    "cow": _cow,
    "sheep": _sheep,
    "elephant": _elephant,
    "giraffe": _giraffe,
    "person": _person,
    "car": _car,
    "bus": _bus,
    "bicycle": _bicycle,
    "boat": _boat,
    "chair": _chair,
    "table": _table,
    "umbrella": _umbrella,
    "ball": _ball,
    "clock": _clock,
    "laptop": _laptop,
    "bottle": _bottle,
    "cup": _cup,
    "lamp": _lamp,
    "kite": _kite,
    "teddy bear": _teddy,
    "flower": _flower,
    "backpack": _backpack,
    "suitcase": _suitcase,
    "guitar": _guitar,
    "banana": _banana,
    "cake": _cake,
}
