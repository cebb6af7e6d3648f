"""outputs/index.html, in a browser."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import chromium, open_page
from paper_tables import formats, page
from paper_tables.documents import Document
from paper_tables.grids import Grid, Number, Row
from PIL import Image
from playwright.sync_api import Browser

from crl.run.results import summary


def cell(criterion: str, i: float, r: float) -> dict:
    scores = {"universal": {"nmi": summary([i])}, "conditional": {"nmi": summary([r])}}
    about = {
        "data": "clevr4",
        "criterion": criterion,
        "vlm": "demo",
        "images": 60,
        "scores": scores,
    }
    config = {"seeds": 3, "vlm": ["demo"], "root": "<b>data</b>"}
    return about | {"representation": "paper", "basis": "b", "texts": 9, "config": config}


def make(outputs: Path) -> Path:
    """Results, figures, two tables and an explorer's report; the page of them."""
    folder = outputs / "clustering/demo"
    folder.mkdir(parents=True)
    cells = [cell("color", 5, 90), cell("shape", 94, 10.5), cell("count", 9, 100)]
    cells[2]["vlm"] = "outputs/trained"  # of the demo VLM, so the page warns
    (folder / "results.json").write_text(json.dumps({"cells": cells}))
    Image.new("RGB", (900, 400), "gray").save(folder / "tsne-color.png")
    ablation = outputs / "clustering/demo-ablations"
    ablation.mkdir()
    (ablation / "results.json").write_text("not read")
    (outputs / "explore/mine").mkdir(parents=True)
    (outputs / "explore/mine/report.html").write_text("a report")
    (outputs / "tables").mkdir()
    numbers = [
        Number(paper=80, ours=79, difference=-1, verdict="differs"),
        Number(ours=3, verdict="measured"),
    ]
    rows = [Row(name=f"</script>{i}", kind="paper", numbers=[n]) for i, n in enumerate(numbers)]
    grid = Grid(name="g", columns=["color/nmi"], rows=rows)
    for number in (10, 2):
        document = Document(
            number=number,
            title=f"title {number}",
            demo=True,
            grids=[grid],
            varied="texts" if number == 10 else "",
            about=["Commit: c0ffee"],
            commands=["python x.py"],
            not_run=["why (run)"],
        )
        formats.write(document, outputs / "tables")
    return page.write(outputs)[0]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("outputs")
    make(folder)
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


def test_what_it_shows(outputs, browser):
    opened = open_page(browser, outputs / "index.html")
    text = opened.page.inner_text("body").replace("\xa0", " ")
    assert not opened.errors and not opened.requests
    assert "no result on the paper's data" in text
    assert "R = I Tᵀ" in text and "Clustering" in text and "Table 10. title 10" in text
    assert text.index("Table 2.") < text.index("Table 10.")
    assert opened.page.locator("#clustering figure img").count() == 1
    assert opened.page.locator("#table10 figure img").count() == 1
    command = opened.page.locator("#clustering pre").text_content()
    assert command.startswith("python classification_clustering/clustering.py seeds=3 ")
    assert "'root=<b>data</b>'" in command
    links = opened.page.eval_on_selector_all("a", "all => all.map(a => a.getAttribute('href'))")
    for link in links:
        assert link.startswith("#") or (outputs / link).is_file(), link
    assert "explore/mine/report.html" in links and "tables/table2.csv" in links


def column(opened, place: int) -> list[str]:
    rows = f"#clustering tbody tr td:nth-child({place})"
    return opened.page.eval_on_selector_all(rows, "all => all.map(td => td.textContent)")


def test_tables_are_sorted_by_numbers_and_names(outputs, browser):
    opened = open_page(browser, outputs / "index.html")
    heads = opened.page.locator("#clustering th button")
    assert column(opened, 7) == ["90.0", "10.5", "100.0"]
    heads.nth(6).click()
    assert column(opened, 7) == ["100.0", "90.0", "10.5"]
    assert opened.page.get_attribute("#clustering th:nth-child(7)", "aria-sort") == "descending"
    heads.nth(6).click()
    assert column(opened, 7) == ["10.5", "90.0", "100.0"]
    heads.nth(1).press("Enter")
    assert column(opened, 2) == ["clevr4 color", "clevr4 count", "clevr4 shape"]


@pytest.mark.parametrize("name", ["index.html", "tables/table2.html"])
def test_a_narrow_screen_scrolls_only_tables(outputs, browser, name):
    opened = open_page(browser, outputs / name, width=390)
    width = "document.documentElement.scrollWidth"
    assert opened.page.evaluate(width) == 390
    assert not opened.errors and not opened.requests


def test_dark_and_light(outputs, browser):
    colors = set()
    for scheme in ("light", "dark"):
        opened = open_page(browser, outputs / "index.html", scheme=scheme)
        style = "getComputedStyle(document.{}).{}"
        colors.add(opened.page.evaluate(style.format("body", "backgroundColor")))
        cell = "document.querySelector('.results td')"
        ink = opened.page.evaluate(f"getComputedStyle({cell}).color")
        assert ink != opened.page.evaluate(
            f"getComputedStyle({cell}.closest('table')).backgroundColor"
        )
    assert len(colors) == 2


def test_damaged_results_are_named_and_left_out(tmp_path):
    make(tmp_path)
    (tmp_path / "few_shot/a").mkdir(parents=True)
    (tmp_path / "few_shot/a/results.json").write_text("{")
    (tmp_path / "fashion_retrieval/a").mkdir(parents=True)
    lacking = {"cells": [{"scores": {}, "vlm": "clip"}]}
    (tmp_path / "fashion_retrieval/a/results.json").write_text(json.dumps(lacking))
    (tmp_path / "tables/table2.json").write_text('{"number": 2}')
    file, problems = page.write(tmp_path)
    said = " | ".join(problems)
    assert len(problems) == 3
    assert "few_shot/a/results.json is not a results file, or is damaged" in said
    assert "table2.json is damaged" in said and "a results.json of fashion_retrieval lacks" in said
    text = file.read_text()
    assert "Table 10." in text and "Table 2." not in text and 'id="clustering"' in text
