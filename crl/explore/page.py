"""One HTML page to look at a collection: no network, no server. The maps are Bokeh's.

`write_page` fills web/report.html, which extends page.html; report.js makes the page answer.
"""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from bokeh.embed import components
from bokeh.models import ColumnDataSource, HoverTool, LassoSelectTool, Model, Range1d
from bokeh.palettes import Category20_20
from bokeh.plotting import figure
from bokeh.resources import Resources
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from matplotlib.colors import CSS4_COLORS, XKCD_COLORS

from crl.run.files import write_text

WEB = Path(__file__).resolve().parent / "web"
PALETTE = [*Category20_20[::2], *Category20_20[1::2]]  # the strong ones first
COLORS = {**{name.removeprefix("xkcd:"): c for name, c in XKCD_COLORS.items()}, **CSS4_COLORS}
# Bytes of all standing together: above it, only the texts that are most often among an image's best
# get a slider.
MOST_STANDING = 12_000_000
PER_DEVIATION = 25  # standing is kept in steps of 1/25 standard deviation, up to 5


@dataclass(frozen=True)
class Cluster:
    """A cluster, as its card shows it.

    Attributes:
        words: text, and how much the cluster stands out by it, 0 to 1.
        weak: another cluster has so much of the name that it should not be trusted.
        typical, uncertain: numbers of images.
    """

    name: str
    words: list[tuple[str, float]]
    weak: bool
    typical: list[int]
    uncertain: list[int]


@dataclass(frozen=True)
class Panel:
    """N images under one criterion, or under none: then there are no words.

    Attributes:
        points: (N, 2) coordinates of the map.
        cluster: (N,) number of the cluster of each image.
        neighbours: (N, M) the nearest images, the nearest first.
        note: a sentence about the clusters.
        words: K texts.
        standing: (N, K) how much more than usual each text fits, in standard deviations.
        best, probability: (N, 5) the texts by which an image stands out, 0 to 1.
        shared: (N, M, 3) the texts by which an image and its neighbour both stand out.
        origin: who wrote the texts.
        label, confidence: (N,) guessed labels, 0 to 1; None without labels.
    """

    name: str
    points: np.ndarray
    cluster: np.ndarray
    clusters: list[Cluster]
    neighbours: np.ndarray
    note: str = ""
    words: list[str] = field(default_factory=list)
    standing: np.ndarray | None = None
    best: np.ndarray | None = None
    probability: np.ndarray | None = None
    shared: np.ndarray | None = None
    origin: str = ""
    label: list[str] | None = None
    confidence: np.ndarray | None = None


def write_page(
    file: Path,
    title: str,
    facts: dict[str, str],
    names: list[str],
    places: list[str],
    sizes: np.ndarray,
    thumbnails: list[bytes],
    panels: list[Panel],
    banner: str = "",
    sample: str = "",
) -> None:
    """Write the page, atomically.

    Args:
        facts: what a reader must know: name -> value.
        names: N file names. places: N links to the files; the page works without them too.
        sizes: (N, 2) width and height in pixels.
        thumbnails: N small WebP pictures.
        panels: the universal embedding first, then the criteria.
        banner: a warning above all. sample: says that these are not all images.
    """
    script, maps = components(_maps(panels))
    data = {
        "names": names,
        "places": places,
        "sizes": np.asarray(sizes).tolist(),
        "thumbnails": [base64.b64encode(picture).decode() for picture in thumbnails],
        "panels": [_plain(panel, MOST_STANDING // len(panels)) for panel in panels],
    }
    page = render(
        "report.html",
        title=title,
        facts=facts,
        banner=banner,
        sample=sample,
        count=len(names),
        panels=panels,
        maps=[Markup(plot) for plot in maps.values()],
        data=data,
        bokeh=Markup(Resources("inline", components=["bokeh"]).render()),
        maps_script=Markup(script),
    )
    write_text(file, page)


def render(template: str, **values: Any) -> str:
    """A page from a template of `crl/explore/web`; all values are escaped."""
    pages = Environment(loader=FileSystemLoader(WEB), autoescape=True, trim_blocks=True)
    pages.policies["json.dumps_kwargs"] = {"sort_keys": False}
    pages.globals["asset"] = lambda name: Markup((WEB / name).read_text(encoding="utf-8"))
    return pages.get_template(template).render(**values)


# The page's style does not reach into Bokeh's tooltips.
TOOLTIP = """<div style="display: flex; gap: .6rem; width: 340px; color: #23262b">
<img src="@picture" alt="" style="max-width: 96px; max-height: 96px; align-self: flex-start">
<div style="white-space: pre-line; overflow-wrap: anywhere; font: 12px/1.45 system-ui">@about</div>
</div>"""


def _maps(panels: Sequence[Panel]) -> dict[str, Model]:
    """One Bokeh figure per panel. They share one source: what is selected in one is so in all."""
    count = len(panels[0].points)
    empty = [""] * count  # filled by report.js, which has the words and pictures already
    columns: dict[str, Any] = {"picture": empty, "about": empty, "color": ["gray"] * count}
    for number, panel in enumerate(panels):
        columns[f"x{number}"], columns[f"y{number}"] = panel.points.T.astype(np.float32)
    source = ColumnDataSource(columns, name="images")
    plots: dict[str, Model] = {}
    for number, panel in enumerate(panels):
        lasso = LassoSelectTool(continuous=False)
        plot = figure(
            height=340,
            sizing_mode="stretch_width",
            x_range=_range(panel.points[:, 0]),
            y_range=_range(panel.points[:, 1]),
            x_axis_type=None,
            y_axis_type=None,
            toolbar_location="above",
            tools=[lasso, "box_select,pan,wheel_zoom,reset,tap"],
            active_drag=lasso,
            active_scroll=None,
            background_fill_alpha=0,
            border_fill_alpha=0,
            outline_line_alpha=0,
        )
        points = plot.scatter(
            f"x{number}",
            f"y{number}",
            source=source,
            size=7 if count < 2000 else 5,
            fill_color="color",
            line_color="gray",
            line_width=0.4,
            fill_alpha=0.9,
            line_alpha=0.9,
            nonselection_fill_alpha=0.07,
            nonselection_line_alpha=0.05,
        )
        hover = HoverTool(
            tooltips=TOOLTIP, renderers=[points], limit=1, point_policy="snap_to_data"
        )
        plot.add_tools(hover)
        plot.toolbar.logo = None
        plots[f"map{number}"] = plot
    return plots


def _range(values: np.ndarray) -> Range1d:
    """Fixed, so that a selection does not move the map."""
    low, high = float(values.min()), float(values.max())
    margin = 0.05 * (high - low) or 1.0
    return Range1d(start=low - margin, end=high + margin)


def _plain(panel: Panel, room: int) -> dict[str, Any]:
    """A panel as JSON.

    Args:
        room: for standing, in bytes.
    """
    texts, steps = np.arange(len(panel.words)), None
    if panel.standing is not None and len(texts):
        room = max(1, room // len(panel.standing))
        often = np.bincount(np.ravel(panel.best).astype(int), minlength=len(texts))
        texts = np.sort(np.argsort(-often, kind="stable")[:room])
        steps = (panel.standing[:, texts] * PER_DEVIATION).round().clip(-125, 125)
        steps = steps.T.astype(np.int8)  # text after text
    colors = [PALETTE[i % len(PALETTE)] for i in range(len(panel.clusters))]
    named = [color_in(cluster.name) for cluster in panel.clusters]
    if panel.words and sum(color is not None for color in named) > len(named) / 2:
        colors = [color or "gray" for color in named]
    pairs = zip(panel.clusters, colors, strict=True)
    clusters = [{**vars(cluster), "color": color} for cluster, color in pairs]
    encoded = {"clusters": clusters, "slider_texts": texts, "standing": steps, "points": None}
    return {key: _encoded(value) for key, value in {**vars(panel), **encoded}.items()}


def _encoded(value: Any) -> Any:
    """Arrays as base64: bytes, numbers of images and texts (uint16), or float32; None as ""."""
    if value is None:
        return ""
    if not isinstance(value, np.ndarray):
        return value
    kind = {"f": "<f4"}.get(value.dtype.kind, "i1" if value.dtype.itemsize == 1 else "<u2")
    return base64.b64encode(value.astype(kind).tobytes()).decode()


def color_in(text: str) -> str | None:
    """The color that a text names, as #rrggbb; None if it names none.

    >>> color_in("orange as a pumpkin"), color_in("a calm morning")
    ('#FFA500', None)
    """
    words = re.findall(r"[a-z]+", text.lower())
    for length in range(len(words), 0, -1):  # "sky blue" before "blue"
        for start in range(len(words) - length + 1):
            span = words[start : start + length]
            for name in (" ".join(span), "".join(span)):
                if name in COLORS:
                    return COLORS[name]
    return None
