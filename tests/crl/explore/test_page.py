import base64
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import Opened, chromium, intrude, open_page
from PIL import Image
from playwright.sync_api import Browser, expect

from crl.explore import page as module
from crl.explore.page import color_in, make_page
from crl.explore.thumbnails import Thumbnail
from crl.run.exif import Metadata

COUNT = 60
COLORS = ["red", "white", "blue", "black"]
NUMBERS = ["one thing", "two things", "three things"]
NASTY = [
    '<img src=x onerror="document.title=1">.png',
    "</script><script>document.title=1</script>.png",
    'a "quoted", name.png',
    "line\nbreak.png",
    "@picture{safe} $index.png",
    "grün 🌵 \u2028.png",
]
NAMES = [*NASTY, *(f"folder/{i:03}.png" for i in range(len(NASTY), COUNT))]
COLOR = np.arange(COUNT) % 4
NUMBER = np.arange(COUNT) % 3
ABOUT = [Metadata(), Metadata("2024-05-01T23:59:59", "X-T5"), Metadata("2024-05-03T00:00:00"),
         Metadata(camera="<b>", latitude=48.137, keywords="sea; red sky")]  # fmt: skip
TITLE = "Folder <b>&</b> 'more'"


def drawing(image: int, kind: str, scale: int = 1) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (64 * scale, 48 * scale), COLORS[COLOR[image]]).save(stream, kind)
    return stream.getvalue()


def panel(name: str, cluster: np.ndarray, words: list[str], **more) -> dict:
    """Images of a cluster lie in a column; the text of its name stands out by 2 deviations."""
    number = int(cluster.max()) + 1
    texts = [*words, "</script>", "<i>odd</i>"] if words else []
    best = (np.arange(5) + cluster[:, None])[:, : len(texts)] % max(1, len(texts))
    level = np.arange(COUNT)[:, None] / COUNT + 2.0 * (np.arange(len(texts)) == cluster[:, None])
    clusters = []
    for i in range(number):
        members = np.flatnonzero(cluster == i).tolist()
        card = {"name": f"group {i + 1}", "words": [], "weak": False}
        if words:
            bars = [(words[i], 0.9), ("</script>", 0.3)]
            card = {"name": words[i], "words": bars, "weak": i == 1}
        clusters.append({**card, "typical": members[:12], "uncertain": members[-6:]})
    return {
        "name": name, "note": "so many clusters", "cluster": cluster, "clusters": clusters,
        "points": np.stack([cluster, np.arange(COUNT) // number], axis=1).astype(float),
        "neighbours": (np.arange(COUNT)[:, None] + np.arange(1, 9)) % COUNT,
        "words": texts, "standing": level.astype(np.float32), "best": best,
        "probability": np.tile([0.5, 0.2, 0.1, 0.05, 0.01], (COUNT, 1))[:, : best.shape[1]],
        "shared": np.repeat(best[:, None, :3], 8, axis=1),
        **{"label": None, "confidence": None, **more},
    }  # fmt: skip


LABELS = {"label": ["few <b>" if i % 2 else "many" for i in range(COUNT)],
          "confidence": np.linspace(1, 0.4, COUNT)}  # fmt: skip
PANELS = [
    panel("universal", np.arange(COUNT) // 30, []),
    panel("color", COLOR, COLORS),
    panel("count", NUMBER, NUMBERS, **LABELS),
]
PANELS[1]["points"][59] = PANELS[1]["points"][55]  # two images at one place


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    for image in range(COUNT):
        kind = "TIFF" if image == 2 else "PNG"  # browsers do not show the first
        (folder / f"{image}.png").write_bytes(drawing(image, kind))
    page = make_page(
        TITLE,
        {"Folder": "a <b>", "Command": "explore.py 'x'"},
        NAMES,
        [f"{image}.png" for image in range(COUNT - 1)] + ["moved/away.png"],
        [Thumbnail(drawing(i, "WEBP"), 64, 48, metadata=ABOUT[i % 4]) for i in range(COUNT)],
        PANELS,
        banner="<b>careful",
        sample="60 of 90 pictures",
        copies=[0, *range(1, COUNT - 2), 0, 0],
        previews={2: drawing(3, "WEBP", 4)},
    )
    (folder / "report.html").write_text(page, "utf-8")
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def wide(browser, file) -> Opened:
    return open_page(browser, file)


@pytest.fixture
def page(wide):
    """The page as it was opened. At the end: no error, and nothing asked for but the images."""
    wide.page.evaluate("document.getElementById('detail').close()")
    wide.page.evaluate("document.getElementById('doubtful').checked = false")
    wide.page.evaluate("document.getElementById('above').value = 1.5")
    if wide.page.locator("#clear").is_enabled():
        wide.page.locator("#clear").click()
    yield wide.page
    assert [error for error in wide.errors if "ERR_FILE_NOT_FOUND" not in error] == []
    assert [url for url in wide.requests if not url.endswith(".png")] == []


def chosen(page) -> list[str]:
    return [picture.get_attribute("title") for picture in page.locator("#gallery .picture").all()]


def lit(page) -> list[int]:
    """The images that the maps show as selected."""
    return sorted(page.evaluate("source.selected.indices"))


def place(page, map: int, image: int) -> tuple[float, float]:
    """Where the window shows an image in a map."""
    figure = page.locator(".maps figure").nth(map)
    figure.scroll_into_view_if_needed()
    point = """([map, image]) => {
      const id = document.querySelectorAll(".maps [data-root-id]")[map].dataset.rootId;
      const view = Bokeh.index.get_by_id(id);
      const box = view.canvas_view.el.getBoundingClientRect();
      return [box.x + view.frame.x_scale.compute(source.data["x" + map][image]),
              box.y + view.frame.y_scale.compute(source.data["y" + map][image])];
    }"""
    return tuple(page.evaluate(point, [map, image]))


def lasso(page, map: int, first: int, last: int, hold: int = 0) -> None:
    """Draw a box around two images and all between them; `hold` ms before the button is moved."""
    (left, bottom), (right, top) = place(page, map, first), place(page, map, last)
    left, right, bottom, top = left - 9, right + 9, bottom + 7, top - 7
    page.mouse.move(left, bottom)
    page.mouse.down()
    page.wait_for_timeout(hold)
    for corner in ((right, bottom), (right, top), (left, top), (left, bottom)):
        page.mouse.move(*corner, steps=4)
    page.mouse.up()


def test_the_start_shows_all_pictures_and_every_text_as_text(page):
    expect(page.locator("#chosen")).to_have_text("all 60 pictures")
    assert chosen(page) == NAMES
    assert page.title() == page.locator("h1").inner_text() == TITLE
    expect(page.locator(".banner")).to_have_text("<b>careful")
    expect(page.locator("dd").first).to_have_text("a <b>")
    # Small pictures that are far below the window are loaded later.
    assert page.locator("#gallery img").first.evaluate("image => image.naturalWidth") == 64


def test_a_point_of_a_map_shows_one_picture_and_its_words(page):
    page.mouse.move(*place(page, 1, 4))
    tooltip = page.locator(".bk-Tooltip:visible")
    expect(tooltip).to_contain_text(NAMES[4])
    expect(tooltip).to_contain_text(f"color: {COLORS[COLOR[4]]} 50\u00a0%")
    source = tooltip.locator("img").evaluate("image => image.src")
    assert base64.b64decode(source.partition(",")[2]) == drawing(4, "WEBP")
    page.mouse.move(*place(page, 1, 55))  # where two pictures lie
    expect(page.locator(".bk-Tooltip:visible img")).to_have_count(1)
    page.mouse.move(0, 0)


@pytest.mark.parametrize("hold", [0, 700])
def test_a_lasso_selects_the_same_pictures_in_all_maps(page, hold):
    lasso(page, 1, 0, 56, hold)  # the column of red
    expect(page.locator("#chosen")).to_have_text("15 of 60 pictures chosen")
    assert lit(page) == np.flatnonzero(COLOR == 0).tolist()
    assert chosen(page) == [NAMES[i] for i in np.flatnonzero(COLOR == 0)]
    page.locator("#filters summary").click()
    page.locator("#cluster-2").select_option(label="two things")  # lasso and filter
    assert lit(page) == np.flatnonzero((COLOR == 0) & (NUMBER == 1)).tolist()
    page.locator("#filters summary").click()
    page.locator("#clear").click()
    expect(page.locator("#chosen")).to_have_text("all 60 pictures")
    assert lit(page) == []


def test_cards_legend_and_cross_table_choose(page):
    cards = page.locator(".card")
    assert cards.count() == 4 + 3 + 2
    expect(cards.nth(1).locator(".weak")).to_have_count(1)
    expect(cards.nth(2).locator(".bars")).to_contain_text("</script>")
    cards.nth(2).locator(".title").click()
    assert lit(page) == np.flatnonzero(COLOR == 2).tolist()
    legend = page.locator("#legend button")
    assert legend.all_inner_texts() == COLORS
    assert page.evaluate("source.data.color[1]") == "#FFFFFF"  # white is white
    page.locator("#color-by").select_option(label="count")
    assert legend.all_inner_texts() == NUMBERS
    legend.nth(1).click()
    assert lit(page) == np.flatnonzero(NUMBER == 1).tolist()
    page.locator("#color-by").select_option(label="color")
    cells = page.locator("#cross-table button")
    assert [int(text) for text in cells.all_inner_texts()] == [5] * 12
    cells.nth(2 * 3 + 1).click()  # blue, two things
    assert lit(page) == np.flatnonzero((COLOR == 2) & (NUMBER == 1)).tolist()


def test_the_dialog_shows_words_labels_and_neighbours(page):
    page.locator("#gallery .picture").nth(1).click()
    detail = page.locator("#detail")
    expect(detail).to_contain_text("color: white")
    expect(detail).to_contain_text("64 × 48 pixels")
    expect(detail).to_contain_text("label: few <b> (99\u00a0% sure)")
    expect(detail.locator(".bars").first).to_contain_text("50\u00a0%")
    expect(detail.locator(".near .picture")).to_have_count(24)
    expect(detail.locator(".near").nth(1)).to_contain_text("white, blue, black")
    large = detail.locator("img.large")
    page.wait_for_function("document.querySelector('.large').src.endsWith('/1.png')")
    detail.locator(".near .picture").nth(8).click()  # the first under color
    expect(detail.locator("h3").first).to_have_text(NAMES[2])
    assert large.evaluate("image => image.naturalWidth") == 256  # the preview of a TIFF
    page.keyboard.press("ArrowRight")  # through the neighbours
    assert detail.locator("h3").first.evaluate("element => element.textContent") == NAMES[3]
    assert large.evaluate("image => image.naturalWidth") == 64
    page.keyboard.press("ArrowLeft")
    expect(detail.locator("h3").first).to_have_text(NAMES[2])
    page.keyboard.press("Escape")
    expect(detail).to_be_hidden()
    page.locator("#gallery .picture").last.click()  # its file was moved: it stays small
    page.wait_for_timeout(200)
    assert large.get_attribute("src").startswith("data:image/webp")
    expect(detail.locator(".copies")).to_have_text(f"the same picture: {NAMES[0]}, {NAMES[-2]}")
    page.keyboard.press("Escape")
    page.locator("#doubtful").check()
    assert chosen(page) == NAMES[::-1]
    expect(page.locator(".labelled").first).to_contain_text("few <b> 40\u00a0%")


@pytest.mark.parametrize(
    ("typed", "note", "count"),
    [
        ("two things", "", 20),
        (" TWO things ", "", 20),
        ("Tw", "two things", 20),
        ("t", "one thing, two things, three things", 60),  # beginnings of all words
        ("hing", "no text about count has a word like this", 60),
        ("", "", 60),
    ],
)
def test_a_text_by_its_beginning(page, typed, note, count):
    page.evaluate("document.getElementById('filters').open = true")
    page.locator("#text-view").select_option(label="count")
    page.locator("#text").fill(typed)
    expect(page.locator("#text-note")).to_have_text(note)
    assert page.locator("#gallery .picture").count() == count
    assert page.locator("#clear").is_enabled() == bool(typed)


def test_filters_by_what_cameras_wrote(browser, file):
    page = open_page(browser, file).page
    page.locator("#filters summary").click()

    def kinds():
        return {NAMES.index(name) % 4 for name in chosen(page)}

    assert page.locator("#camera option").all_inner_texts() == ["any camera", "<b>", "X-T5"]
    page.locator("#from").fill("2024-05-01")
    assert kinds() == {1, 2}
    page.locator("#to").fill("2024-05-02")
    assert kinds() == {1}
    page.wait_for_timeout(400)
    page.reload()
    page.wait_for_selector("body[data-ready]", state="attached")
    assert kinds() == {1} and "from=2024-05-01" in page.url
    page.locator("#clear").click()
    page.evaluate("$('filters').open = true")
    page.locator("#keyword").select_option("red sky")
    assert kinds() == {3}
    page.locator("#camera").select_option("X-T5")
    assert kinds() == set()
    assert "48.137" not in file.read_text("utf-8")


def test_reload_and_back_keep_what_is_chosen(browser, file):
    page, kept = open_page(browser, file).page, []

    def look(page):
        fields = "['name', 'text', 'above', 'cluster-2', 'color-by', 'cross-rows']"
        values = page.evaluate(f"{fields}.map(id => $(id).value).concat($('doubtful').checked)")
        return values, chosen(page), lit(page), page.locator("#legend").inner_text()

    def step(do):
        do()
        page.wait_for_timeout(400)
        kept.append(look(page))

    step(lambda: None)
    page.locator("#filters summary").click()
    step(lambda: page.locator("#cluster-2").select_option("1"))
    step(lambda: page.locator("#name").fill("é & #=+ ü"))
    kept.pop()  # the same field again is no step of its own
    step(lambda: page.locator("#name").fill(" FOLDER/"))
    step(lambda: page.locator("#text").fill("red"))
    step(lambda: page.locator("#color-by").select_option("2"))
    step(lambda: page.locator("#cross-rows").select_option("0"))
    step(lambda: page.locator("#doubtful").check())
    step(lambda: lasso(page, 1, 28, 56))
    assert len(kept[-1][1]) == 3 and len({str(state) for state in kept}) == len(kept) == 8
    page.reload()
    page.wait_for_selector("body[data-ready]", state="attached")
    assert look(page) == kept[-1]
    for state in kept[-2::-1]:
        page.go_back()
        page.wait_for_timeout(100)
        assert look(page) == state
    page.go_forward()
    page.wait_for_timeout(100)
    assert look(page) == kept[1]
    page.goto(file.as_uri() + "#cluster-2=99&color-by=x&drawn=7.x.999&text-view=&other=1")
    page.wait_for_timeout(100)
    assert chosen(page) == [NAMES[7]]


@pytest.mark.parametrize(("width", "filters"), [(1300, False), (1300, True), (390, False)])
def test_the_bar_hides_nothing(browser, file, width, filters):
    page = open_page(browser, file, width).page
    page.evaluate("open => { $('filters').open = open }", filters)
    page.wait_for_timeout(100)
    hidden = """() => [...document.querySelectorAll("main button, main input, main select")]
        .filter(one => one.checkVisibility() && !one.disabled).reverse().filter(one => {
      one.focus();
      return one.getBoundingClientRect().top < $("toolbar").getBoundingClientRect().bottom;
    }).length"""
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    assert page.evaluate(hidden) == 0
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    page.locator(".skip").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "gallery-title"
    assert page.evaluate("$('gallery-title').getBoundingClientRect().top") > page.evaluate(
        "$('toolbar').getBoundingClientRect().bottom"
    )


def test_a_list_for_spreadsheets_has_no_formulas(page):
    page.evaluate("data.names[7] = '=1+1.png'; choose()")
    with page.expect_download() as download:
        page.locator("#download").click()
    lines = download.value.path().read_text("utf-8").split("\n")
    page.evaluate("name => { data.names[7] = name; choose() }", NAMES[7])
    assert "'=1+1.png" in lines and "'@picture{safe} $index.png" in lines


def test_nothing_from_outside(browser, file):
    assert not intrude(browser, file)


def test_colors_are_used_only_if_most_names_are_colors():
    texts = ["orange as a pumpkin", "Sky Blue, mostly", "lemon chiffon cake", "a calm morning", ""]
    assert list(map(color_in, texts)) == ["#FFA500", "#75bbfd", "#FFFACD", None, None]
    colors = [cluster["color"] for cluster in module.plain(PANELS[1], 10**6)["clusters"]]
    assert colors == ["#FF0000", "#FFFFFF", "#0000FF", "#000000"]
    palette = [cluster["color"] for cluster in module.plain(PANELS[2], 10**6)["clusters"]]
    assert palette == module.PALETTE[:3]
