"""report.html in a real browser, as wide as a desktop and as narrow as a phone."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Spear, command, quick_on, write_nasa

api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.figures,
    pytest.mark.one_python,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH (Debian: apt-get install chromium)"),
]

REAL = Path(os.environ.get("SPEAR_DATA_DIR", "/nowhere")) / "nasa"


@pytest.fixture(scope="module")
def report(spear: Spear, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a NASA run: real channels of thousands of steps where they are at hand."""
    folder = tmp_path_factory.mktemp("browser")
    if REAL.is_dir():
        fields = {"data.dir": REAL, "data.split": "time", "data.limit_series": "4", "train.epochs": "2"}
        arguments = command("nasa:debug", fields, workdir=folder / "run")
    else:
        ranges = [(10, 20), (40, 49), (100, 110), (140, 150)]
        made = write_nasa(folder / "nasa", {f"A-{i}": ranges for i in range(6)})
        arguments = quick_on(made, folder / "run", {"train.epochs": "2"})
    outcome = spear(*arguments)
    assert outcome.code == 0, outcome
    return folder / "run" / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with api.sync_playwright() as playwright:
        # The sandbox needs rights that root in a container has not; the page is our own.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_can_be_read(browser: Any, report: Path, width: int, scheme: str) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page, said, asked = context.new_page(), [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(report.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")

    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [report.as_uri()]
    pictures = page.evaluate("[...document.images].map(one => [one.naturalWidth, one.getBoundingClientRect().right])")
    assert len(pictures) == len(list((report.parent / "figures").iterdir())) > 0
    assert all(natural > 0 and right <= width for natural, right in pictures)
    root = "document.documentElement"
    assert page.evaluate(f"{root}.scrollWidth") <= page.evaluate(f"{root}.clientWidth")
    # A desktop shows every table whole. A table of metrics is wider than a phone: it can be scrolled, and the methods'
    # names stay in sight.
    box = page.locator(".table").first
    if width == 1280:
        assert page.locator(".table").evaluate_all("all => all.every(one => one.scrollWidth <= one.clientWidth)")
    else:
        assert box.evaluate("one => one.scrollWidth > one.clientWidth")
        box.evaluate("one => one.scrollLeft = 400")
        assert box.locator("tr.own th").evaluate("one => one.getBoundingClientRect().left") >= 0
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") == (scheme == "light")
    context.close()
