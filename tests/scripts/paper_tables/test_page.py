"""outputs/index.html, in a browser."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import chromium, intrude, open_page
from paper_tables import formats
from paper_tables.numbers import Number
from PIL import Image
from playwright.sync_api import Browser

from crl.run.results import summary


def row(criterion: str, vlm: str, nmi: float) -> dict:
    about = {"data": "clevr4", "criterion": criterion, "vlm": vlm, "method": "paper"}
    about |= {"basis": "b", "texts": 9}
    return {"about": about, "scores": {"nmi": summary([nmi])}, "images": 60}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> Path:
    """Results, figures, two tables and an explorer's report; and the page of them."""
    outputs = tmp_path_factory.mktemp("outputs")
    folder = outputs / "clustering/demo"
    folder.mkdir(parents=True)
    rows = [row("color", "demo", 90), row("shape", "demo", 10.5), row("count", "mine", 100)]
    content = {"format": "crl-results-2", "rows": rows}
    (folder / "results.json").write_text(json.dumps(content))
    Image.new("RGB", (900, 400), "gray").save(folder / "tsne-color.png")
    (outputs / "explore/mine").mkdir(parents=True)
    (outputs / "explore/mine/report.html").write_text("a report")
    (outputs / "tables").mkdir()
    differs = Number("paper", 80.0, 79.0, None, 1, -1.0, 0.3, "differs")
    numbers = {"a": differs, "</script>|b": Number("ours", ours=3.0, verdict="measured")}
    parts = {"g": {name: {"color/nmi": number} for name, number in numbers.items()}}
    for number, varied in ((10, "texts"), (2, "")):
        content = number, f"title {number}", varied, parts, None, ["commit c0ffee"], ["python x.py"]
        formats.write(formats.Document(*content), outputs / "tables")
    formats.write_page(outputs)
    return outputs


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


def test_what_it_shows(outputs, browser):
    opened = open_page(browser, outputs / "index.html")
    text = opened.page.inner_text("body").replace("\xa0", " ")
    assert not opened.errors
    assert all(address.startswith("file:") for address in opened.requests)  # its figures
    assert "no result on the paper's data" in text
    assert "R = I Tᵀ" in text and "Clustering" in text and "Table 10. title 10" in text
    assert text.index("Table 2.") < text.index("Table 10.")
    assert opened.page.locator("#clustering figure img").count() == 1
    cells = opened.page.locator("#table2 tbody td").all_text_contents()
    assert cells == ["a", "79.00 (-1.00) ≠paper 80.00", "</script>|b (ours)", "3.00"]
    links = opened.page.eval_on_selector_all("a", "all => all.map(a => a.getAttribute('href'))")
    for link in links:
        assert link.startswith("#") or (outputs / link).is_file(), link
    assert "explore/mine/report.html" in links and "tables/table2.csv" in links


def test_the_first_column_hides_no_focus(outputs, browser):
    page = open_page(browser, outputs / "index.html", 390).page
    hidden = """() => {
      const table = document.querySelector("#clustering table");
      const heads = [...table.tHead.rows[0].cells];
      table.parentElement.scrollLeft = 1e6;
      return heads.slice(1).reverse().filter(head => {
        head.firstElementChild.focus();
        return head.getBoundingClientRect().left < heads[0].getBoundingClientRect().right - 1;
      }).map(head => head.textContent);
    }"""
    assert page.evaluate("document.querySelector('#clustering .scroll').scrollWidth") > 390
    assert page.evaluate(hidden) == []


def test_nothing_from_outside(outputs, browser):
    assert not intrude(browser, outputs / "index.html")


def test_tables_are_sorted_by_numbers_and_names(outputs, browser):
    opened = open_page(browser, outputs / "index.html")
    heads = opened.page.locator("#clustering th button")

    def column(place: int) -> list[str]:
        cells = opened.page.locator(f"#clustering tbody tr td:nth-child({place})")
        return cells.all_text_contents()

    assert column(6) == ["90.0", "10.5", "100.0"]
    heads.nth(5).click()
    assert column(6) == ["100.0", "90.0", "10.5"]
    heads.nth(1).press("Enter")
    assert column(2) == ["clevr4 color", "clevr4 count", "clevr4 shape"]
