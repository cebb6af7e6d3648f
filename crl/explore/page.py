"""One HTML page to look at a collection. `make_page` fills web/report.html; report.js makes the
page answer; the maps are Bokeh's. What a page needs that is served lies in web/serve.js."""

import base64
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from bokeh.embed import components
from bokeh.models import ColumnDataSource, HoverTool, LassoSelectTool, Model, Range1d
from bokeh.palettes import Category20_20
from bokeh.plotting import figure
from bokeh.resources import Resources
from markupsafe import Markup
from matplotlib.colors import CSS4_COLORS, XKCD_COLORS

from crl.explore.render import WEB, render
from crl.explore.thumbnails import Thumbnail

PALETTE = [*Category20_20[::2], *Category20_20[1::2]]  # the strong ones first
COLORS = {**{name.removeprefix("xkcd:"): c for name, c in XKCD_COLORS.items()}, **CSS4_COLORS}
MOST_STANDING = 12_000_000  # bytes in all; above, only the most frequent texts get a slider
PER_DEVIATION = 25  # standing is kept in steps of 1/25 standard deviation, up to 5


def make_page(
    title: str, facts: dict[str, str], names: list[str], places: list[str],
    thumbnails: list[Thumbnail], panels: list[dict[str, Any]], banner: str = "", sample: str = "",
    copies: Sequence[int] = (), previews: Mapping[int, bytes] | None = None,
    served: Mapping[str, Any] | None = None,
) -> str:  # fmt: skip
    """The page. All texts are escaped. `facts` are what a reader must know,
    `places` N links to the files (the page works without them), `panels` those of `View.panel`, the
    universal embedding first; `banner` is a warning above all, and `sample` says that these are not
    all images; images with the same number in `copies` (N) have the same content; `previews` are
    larger WebP pictures of those whose files browsers cannot show; `served` is what web/serve.js
    needs of its server, see `crl.explore.serve`; None: the page works without one."""
    about = [picture.metadata for picture in thumbnails]  # GPS is not among what the page holds
    script, maps = components(_maps(panels), wrap_script=False)
    data = {
        "names": names,
        "places": places,
        "sizes": [[picture.width, picture.height] for picture in thumbnails],
        "thumbnails": [base64.b64encode(picture.webp).decode() for picture in thumbnails],
        "dates": [picture.date or "" for picture in about],
        "cameras": [picture.camera or "" for picture in about],
        "keywords": [list(filter(None, picture.keywords.split("; "))) for picture in about],
        "copies": list(copies) or list(range(len(names))),
        "previews": {i: base64.b64encode(webp).decode() for i, webp in (previews or {}).items()},
        "panels": [plain(panel, MOST_STANDING // len(panels)) for panel in panels],
        "served": served,
    }
    bokeh = Resources("inline", components=["bokeh"]).js_raw
    ours = ["report.js"] if served is None else ["report.js", "serve.js"]
    return render(
        WEB / "report.html", [*bokeh, script, *((WEB / name).read_text("utf-8") for name in ours)],
        title=title, facts=facts, banner=banner, sample=sample, count=len(names), panels=panels,
        maps=[Markup(plot) for plot in maps.values()], data=data, served=served,
    )  # fmt: skip


# The page's style does not reach into Bokeh's tooltips.
TOOLTIP = """<div style="display: flex; gap: .6rem; width: 340px; color: #23262b">
<img src="@picture" alt="" style="max-width: 96px; max-height: 96px; align-self: flex-start">
<div style="white-space: pre-line; overflow-wrap: anywhere; font: 12px/1.45 system-ui">@about</div>
</div>"""


def _maps(panels: list[dict[str, Any]]) -> dict[str, Model]:
    """One Bokeh figure per panel. They share one source: what is selected in one is so in all."""
    count = len(panels[0]["points"])
    empty = [""] * count  # filled by report.js, which has the words and pictures already
    columns: dict[str, Any] = {"picture": empty, "about": empty, "color": ["gray"] * count}
    source = ColumnDataSource(columns, name="images")
    plots: dict[str, Model] = {}
    for number, panel in enumerate(panels):
        x, y = panel["points"].T.astype(np.float32)
        source.add(x, f"x{number}")
        source.add(y, f"y{number}")
        left, bottom, right, top = limits(panel["points"])
        lasso = LassoSelectTool(continuous=False)
        plot = figure(
            height=340, sizing_mode="stretch_width", x_axis_type=None, y_axis_type=None,
            x_range=Range1d(left, right), y_range=Range1d(bottom, top),  # they stay
            toolbar_location="above", tools=[lasso, "box_select,pan,wheel_zoom,reset,tap"],
            active_drag=lasso, active_scroll=None,
            background_fill_alpha=0, border_fill_alpha=0, outline_line_alpha=0,
        )  # fmt: skip
        points = plot.scatter(
            f"x{number}", f"y{number}", source=source, size=7 if count < 2000 else 5,
            fill_color="color", line_color="gray", line_width=0.4, fill_alpha=0.9, line_alpha=0.9,
            nonselection_fill_alpha=0.07, nonselection_line_alpha=0.05,
        )  # fmt: skip
        plot.add_tools(HoverTool(tooltips=TOOLTIP, renderers=[points], limit=1,
                                 point_policy="snap_to_data"))  # fmt: skip
        plot.toolbar.logo = None
        plots[f"map{number}"] = plot
    return plots


def limits(points: np.ndarray) -> list[Any]:
    """Left, bottom, right and top of a map of points (n, 2)."""
    low, high = points.min(axis=0), points.max(axis=0)
    margin = np.where(high > low, 0.05 * (high - low), 1.0)
    return np.concatenate([low - margin, high + margin]).tolist()


def plain(panel: dict[str, Any], room: int) -> dict[str, Any]:
    """A panel as JSON, with at most `room` bytes of standing."""
    words, standing, clusters = panel["words"], panel["standing"], panel["clusters"]
    often = np.bincount(panel["best"].ravel(), minlength=len(words))
    texts = np.sort(np.argsort(-often, kind="stable")[: max(1, room // len(standing))])
    steps = (standing[:, texts] * PER_DEVIATION).round().clip(-125, 125)
    colors = [PALETTE[i % len(PALETTE)] for i in range(len(clusters))]
    named = [color_in(cluster["name"]) for cluster in clusters]
    if words and sum(color is not None for color in named) > len(named) / 2:
        colors = [color or "gray" for color in named]
    clusters = [{**c, "color": color} for c, color in zip(clusters, colors, strict=True)]
    more = {"clusters": clusters, "slider_texts": texts, "points": None}  # Bokeh has the points
    more["standing"] = steps.T.astype(np.int8)  # text after text
    return {key: encoded(value) for key, value in {**panel, **more}.items()}


def encoded(value: Any) -> Any:
    """Arrays as base64: bytes, numbers of images and texts (uint16), or float32; None as ""."""
    if not isinstance(value, np.ndarray):
        return "" if value is None else value
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
            if color := COLORS.get(" ".join(span), COLORS.get("".join(span))):
                return color
    return None
