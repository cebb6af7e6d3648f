"""The served page in a browser: search, words, clusters, a new criterion."""

import json
from collections.abc import Iterator

import numpy as np
import pytest
from browser import chromium
from playwright.sync_api import Browser, Page, expect
from served import served

from crl.basis import TextBasis
from crl.explore import view
from crl.explore.edits import Edits
from crl.explore.ends import End
from crl.explore.session import Session

COLORS = ["red", "green", "blue", "yellow"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def session(photos, bases, tmp_path):
    views = [photos.under(bases / "color.yaml"), photos.under(bases / "side.yaml")]
    for one in [photos.universal, *views]:
        assert one.map.shape == (24, 2)  # so that no map comes later
    return Session(photos, views, tmp_path, 4)


@pytest.fixture
def page(session, browser) -> Iterator[Page]:
    """The served page. At the end: no error but those that a test has asked for, and nothing has
    come from elsewhere."""
    errors: list[str] = []
    with served(session) as server:
        page = browser.new_page(viewport={"width": 1300, "height": 900})
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
        page.on("request", lambda request: requests.append(request.url))
        requests: list[str] = []
        page.goto(server.address)
        page.wait_for_selector("body[data-ready]", state="attached")
        yield page
        page.close()
    assert [error for error in errors if "Failed to load resource" not in error] == []
    outside = (server.address, "data:", "blob:")
    assert [url for url in requests if not url.startswith(outside)] == []


def pictures(page) -> list[str]:
    return [one.get_attribute("title") for one in page.locator("#gallery .picture").all()]


def test_a_text_and_pictures_are_searched(page, color, photos):
    page.locator("#ask-text").fill("blue")
    page.keyboard.press("Enter")
    few = "how many match cannot be told: the criterion has fewer than 10 texts to compare with"
    expect(page.locator("#ask-note")).to_have_text(f"the 24 best, with their scores; {few}")
    table = color.nearest("blue", 6)
    assert pictures(page)[:6] == table["file"].tolist()
    expect(page.locator("#gallery .labelled").first).to_have_text(f"{table['similarity'][0]:.3f}")
    page.locator("#clear").click()
    assert len(pictures(page)) == 24 and page.locator("#gallery .labelled").count() == 0
    page.locator("#gallery .picture").nth(photos.place("green-left-1.png")).click()
    expect(page.locator("#detail .near .picture")).to_have_count(24)  # 8 under each
    page.get_by_role("button", name="More like this").click()
    expect(page.locator("#ask-note")).to_have_text("the 23 best, with their scores")
    assert all(name.startswith("green") for name in pictures(page)[:5])
    page.locator("#gallery .picture").nth(4).click()  # of the other side
    page.get_by_role("button", name="Less like this").click()
    expect(page.locator("#less-pictures .picture")).to_have_count(1)
    page.locator("#examples summary").click()
    page.locator("#weights input").nth(2).fill("1")  # by side
    page.locator("#weights input").nth(1).fill("0.1")
    page.locator("#ask-examples").click()
    first = "#gallery .labelled:nth-child(-n+11) [title*='-left-']"
    expect(page.locator(first)).to_have_count(11)
    page.evaluate("$('filters').open = true")
    expect(page.locator("#taken:visible, #camera:visible, #keyword:visible")).to_have_count(0)


def test_only_those_that_match_are_shown(page, monkeypatch):
    monkeypatch.setattr(view, "count_matches", lambda *_: End(6, "about 6 pictures match"))
    page.locator("#ask-text").fill("blue")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Show only these").click()
    expect(page.locator("#gallery .labelled [title^='blue']")).to_have_count(6)
    expect(page.locator("#chosen")).to_have_text("6 of 24 pictures chosen")


def test_words_change_and_the_panel_follows_in_place(page, session, photos):
    page.evaluate("window.stays = true")
    page.locator("#cards-1 summary").click()
    page.get_by_title("strike out: red").click()
    titles = page.locator("#cards-1 .title")
    expect(page.locator("#cards-1 .word")).to_have_count(3)
    assert set(titles.all_inner_texts()) == {"green", "blue", "yellow", "group 1"}
    assert page.locator("#cluster-1 option").count() == 5
    points = session.views[1].points[:, :2]
    assert np.allclose(page.evaluate("[...source.data.x1]"), points[:, 0], atol=1e-5)
    for word in ("green", "blue"):
        page.locator(f"#cards-1 .word-mark[value={word}]").check()
    page.get_by_role("button", name="Merge the marked words").click()
    expect(page.locator("#cards-1 .word")).to_have_count(2)
    assert titles.count() == 4
    page.get_by_label("another word about color").fill("red, <b>dark</b>")
    page.keyboard.press("Enter")
    expect(page.locator("#cards-1 .word").nth(3)).to_contain_text("<b>dark</b>")
    assert page.evaluate("document.activeElement.dataset.stays") == "add-1"
    basis = TextBasis.load(session.out / "texts/color.yaml")
    assert basis.texts == ("yellow", "green or blue", "red", "<b>dark</b>")
    label = photos.under(basis).groups(4).clusters.label
    assert page.evaluate("[...data.panels[1].cluster]") == label.tolist()
    assert page.evaluate("window.stays")  # the page has not been loaded again
    page.get_by_label("another word about color").fill("red")
    page.keyboard.press("Enter")
    expect(page.locator("#message")).to_contain_text("'red' stands twice")
    assert page.get_by_label("another word about color").input_value() == "red"


def test_groups_are_named_merged_split_and_kept(page, session, photos, bases):
    titles = page.locator("#cards-1 .title")
    first = titles.first.inner_text()
    page.locator("#cards-1 .card").first.get_by_role("button", name="Rename").click()
    page.get_by_label("name of the group").fill("<i>mine</i>")
    page.keyboard.press("Enter")
    expect(titles.first).to_have_text("<i>mine</i>")
    for place in (2, 3):
        page.locator("#cards-1 .group-mark").nth(place).check()
    page.locator("#cards-1 summary").click()
    page.get_by_role("button", name="Merge the marked groups").first.click()
    expect(titles).to_have_count(3)
    page.locator("#cards-1 .card").first.get_by_role("button", name="Split").click()
    expect(titles).to_have_count(4)
    page.get_by_role("button", name="Undo the last edit of groups").first.click()
    expect(titles).to_have_count(3)
    assert "<i>mine</i>" in titles.all_inner_texts()
    edits = Edits.load(session.out, "color")
    table = photos.under(bases / "color.yaml", edits=edits).clusters()
    assert set(table["name"][table["file"].str.startswith(first)]) == {"<i>mine</i>"}
    page.get_by_label("number of groups, color").fill("5")
    page.keyboard.press("Enter")
    expect(page.locator("#cards-1 .hint").first).to_contain_text("5 groups; edited")
    with page.expect_response("**/ask/grouping"):
        page.get_by_label("pictures that no word fits").first.check()
    assert json.loads((session.out / "clusters/color.json").read_text())["none"]


def test_a_new_criterion_and_a_failure_that_loses_nothing(page, session):
    page.locator("#new-criterion summary").click()
    page.locator("#new-name").fill("Side")
    page.locator("#new-texts").fill("red\nblue, green")
    page.get_by_role("button", name="Add", exact=True).first.click()
    expect(page.locator("#message")).to_contain_text("already; choose another name")
    assert page.locator("#new-texts").input_value() == "red\nblue, green"
    page.locator("#new-name").fill("my colors")
    page.route("**/ask/*", lambda route: route.abort())
    page.get_by_role("button", name="Add", exact=True).first.click()
    expect(page.locator("#message")).to_contain_text("The server does not answer")
    page.unroute("**/ask/*")
    page.get_by_role("button", name="Add", exact=True).first.click()
    expect(page.locator("figcaption").nth(3)).to_contain_text("my colors")
    assert TextBasis.load(session.out / "texts/my-colors.yaml").texts == ("red", "blue", "green")
    page.locator("#cards-3 summary").click()
    expect(page.locator("#cards-3 .word")).to_have_count(3)
