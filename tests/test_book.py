"""The built book in a real browser: every page loads, alone on the machine, in light and dark."""

import re
import threading
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
HTML = ROOT / "_build" / "html"


def pages():
    toc = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text())
    return [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]


@pytest.fixture
def visit(browser):
    """Opens a page of the book; a script error, a missing file or a request to another host fails the test."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    context.set_default_timeout(120_000)  # a slow or busy machine is no fault of the book
    troubles = []

    def open_(name, scheme="light"):
        page = context.new_page()
        page.emulate_media(color_scheme=scheme)
        page.on("pageerror", lambda error: troubles.append(f"script: {error}"))
        page.on("console", lambda m: m.type in ("error", "warning") and troubles.append(f"console: {m.text}"))
        page.on("requestfailed", lambda r: troubles.append(f"failed: {r.url}"))
        page.on("request", lambda r: r.url.startswith(("file:", "data:", "blob:")) or troubles.append(f"host: {r.url}"))
        page.goto((HTML / f"{name}.html").as_uri())
        # Loaded, and its equations typeset; Chromium does not always tell when the network falls idle.
        page.evaluate("() => window.MathJax?.startup.promise.then(() => null)")
        return page

    yield open_
    context.close()
    assert troubles == []


def test_the_book_is_built():
    assert (HTML / "index.html").exists(), "no built book; run `make report`"


@pytest.mark.parametrize("name", pages())
def test_page_loads_with_a_heading_and_text_for_every_image(visit, name):
    page = visit(name)
    assert page.locator("article h1").count() == 1
    for image in page.locator("article img").all():
        assert (image.get_attribute("alt") or "").strip(), image.get_attribute("src")
        assert image.evaluate("i => i.complete && i.naturalWidth > 0"), image.get_attribute("src")
    # A reference that did not resolve is left in the page as written.
    text = page.locator("article").inner_text()
    assert not re.search(r"\{(glue|doc|cite|numref)[:}]|Traceback", text)


@pytest.mark.parametrize("name", ["book/index", "notebooks/theory", "notebooks/sam"])
def test_wide_figures_and_tables_stay_within_the_window(visit, name):
    page = visit(name)
    assert page.locator(".full-width, .tag_full-width").count() > 0
    for width in (390, 1000, 1190, 1210, 1400):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_equations_are_typeset_without_another_host(visit):
    page = visit("book/elr")
    page.wait_for_selector("mjx-container")
    assert page.locator("mjx-container").count() >= 4


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_light_and_dark(visit, scheme):
    page = visit("book/index", scheme)
    assert page.evaluate("document.documentElement.dataset.theme") == scheme
    channels = "(c) => getComputedStyle(document.body)[c].match(/[0-9.]+/g).slice(0, 3).map(Number)"
    ink, ground = (page.evaluate(channels, name) for name in ("color", "backgroundColor"))

    def luminance(rgb):  # WCAG 2.1, relative luminance
        linear = [c / 255 / 12.92 if c <= 10.31 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in rgb]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(ink), luminance(ground)))
    assert (high + 0.05) / (low + 0.05) >= 7


def test_ledger_filters_and_sorts_in_the_page(visit):
    page = visit("book/index")
    table = page.locator("table.ledger")
    visible = table.locator("tbody tr:visible")
    everything = visible.count()
    assert everything > 20
    tools = page.locator(".ledger-tools")
    tools.locator("select").select_option("untestable")
    assert 0 < visible.count() < everything
    assert set(visible.locator(".verdict").all_inner_texts()) == {"untestable"}
    tools.locator("select").select_option("")
    tools.locator("input").fill("SAM")
    assert all("sam" in row.lower() for row in visible.all_inner_texts())
    tools.locator("input").fill("")
    heading = table.locator("th button").nth(1)
    heading.click()
    claims = [row.locator("td").nth(1).inner_text() for row in visible.all()]
    heading.click()
    assert [row.locator("td").nth(1).inner_text() for row in visible.all()] == claims[::-1]
    for name in ("book/index", "notebooks/ledger"):  # signs, thousands, and what is empty first
        table = visit(name).locator("table.ledger")
        table.locator("th button").nth(2).click()
        cells = [cell.inner_text() for cell in table.locator("tbody td:nth-child(3)").all()]
        numbers = [float(re.match(r"-?[\d,.]+", text)[0].replace(",", "")) for text in cells if text]
        assert len(numbers) > 5
        assert numbers == sorted(numbers)
        assert not any(cells[: len(cells) - len(numbers)])


def test_ledger_leads_to_chapters_and_runs(visit):
    page = visit("book/index")
    links = {a.get_attribute("href") for a in page.locator("table.ledger td a").all()}
    assert {link.partition("#")[0] for link in links} >= {"../notebooks/made.html", "../notebooks/table1.html"}
    targets = {link.partition("#")[2] for link in links if "#" in link}
    assert targets
    assert all((HTML / "book" / link.partition("#")[0]).exists() for link in links)
    made = visit("notebooks/made")
    assert targets <= set(made.locator("[id^=run-]").evaluate_all("spans => spans.map(span => span.id)"))


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

    def handle(self):
        with suppress(ConnectionError):  # the browser closes before the last answer is out
            super().handle()


@pytest.fixture
def site():
    """The book as a web server shows it; browsers let no script of a file:// page read other files."""
    handler = partial(Quiet, directory=HTML)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_search_finds_a_page(browser, site):
    page = browser.new_page()
    requested = []
    page.on("request", lambda request: requested.append(request.url))
    page.goto(f"{site}/search.html?q=memorization")
    page.wait_for_selector("#search-results li a")
    assert all(url.startswith((site, "data:")) for url in requested)
    page.close()
