"""The built book in a real browser: every page loads, alone on the machine, in light and dark."""

import json
import re
import threading
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from axe_playwright_python.sync_playwright import Axe

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


WIDE = ["book/index", *(f"notebooks/{name}" for name in ("audit", "hyperparameters", "made", "sam", "shop"))]


@pytest.mark.parametrize("name", pages())
def test_a_page_is_whole_and_its_links_lead_somewhere(visit, name):
    page = visit(name)
    assert page.locator("article h1").count() == 1
    for image in page.locator("article img").all():
        assert (image.get_attribute("alt") or "").strip(), image.get_attribute("src")
        assert image.evaluate("i => i.complete && i.naturalWidth > 0"), image.get_attribute("src")
    # A reference that did not resolve is left in the page as written.
    assert not re.search(r"\{(glue|doc|cite|numref)[:}]|Traceback", page.locator("article").inner_text())
    links = page.locator("article a[href], nav a[href]").evaluate_all("all => [...new Set(all.map(a => a.href))]")
    inside = [link.removeprefix(HTML.as_uri() + "/") for link in links if link.startswith("file:")]
    assert [link for link in inside if not leads_somewhere(link)] == []
    assert name not in WIDE or page.locator(".full-width, .tag_full-width").count() > 0
    for width in (390, 1000, 1190, 1210, 1400):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def leads_somewhere(link):
    path, _, anchor = link.partition("#")
    file = HTML / path.partition("?")[0]
    return file.exists() and (not anchor or file.suffix != ".html" or f'id="{anchor}"' in file.read_text())


def test_equations_are_typeset_without_another_host(visit):
    page = visit("book/elr")
    page.wait_for_selector("mjx-container")
    assert page.locator("mjx-container").count() >= 4


def test_the_answer_comes_first(visit):
    page = visit("book/index")
    for width, height, end in ((1440, 1000, 1000), (390, 844, 800)):
        page.set_viewport_size({"width": width, "height": height})
        assert page.locator("article p").first.bounding_box()["y"] < end - 100
    page.set_viewport_size({"width": 1440, "height": 1000})
    figure = page.locator("article .cell_output img, article img, article svg").first.bounding_box()
    assert figure["y"] + figure["height"] < 1000
    assert page.locator("article li").first.bounding_box()["y"] < 1000
    words = len(page.locator("article").inner_text().split())
    assert words <= 900


def test_claims_open_to_their_runs_and_these_to_their_records(visit):
    page = visit("book/index")
    table = page.locator("table.claims")
    assert table.locator("tbody tr").count() >= 15
    first = table.locator("tr#claim-sam-elr details").first
    first.locator("summary").click()
    link = first.locator("a").first
    link.click()
    page.wait_for_url("**/made.html#run-*")
    row = page.locator("tr:has(span:target)")
    assert row.count() == 1
    assert row.evaluate("r => getComputedStyle(r).backgroundColor") != page.locator(
        "tr:has(span[id^=run-])"
    ).last.evaluate("r => getComputedStyle(r).backgroundColor")
    record = row.locator("span:target a").get_attribute("href")
    assert (HTML / "notebooks" / record).exists()


def test_claims_are_cards_on_a_phone(visit):
    page = visit("book/index")
    page.set_viewport_size({"width": 390, "height": 844})
    box = page.locator("table.claims tbody tr").first.bounding_box()
    assert box["width"] <= 390
    assert not page.locator("table.claims thead").is_visible()


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


@pytest.mark.parametrize(
    ("words", "found"),
    [("memorization", "early_learning"), ("14.6", "sam"), ("93.4", "people"), ("hyperparameter", "hyperparameters")],
)
def test_search_finds_words_and_numbers(browser, site, words, found):
    page = browser.new_page()
    requested = []
    page.on("request", lambda request: requested.append(request.url))
    page.goto(f"{site}/search.html?q={words}")
    page.wait_for_selector(f"#search-results li a[href*='{found}.html']")
    assert all(url.startswith((site, "data:")) for url in requested)
    page.close()


# axe's rules that the theme's own parts break: rule -> how the part's HTML begins.
ROWS = 20  # of a table, whose rows are alike: axe would take a minute and a half for 260
OF_THE_THEME = {"aria-required-children": '<div role="list" class="citation-list"'}


CONTRAST = "color-contrast"  # what alone knows a scheme, and takes most of axe's time


@pytest.mark.parametrize("name", [*pages(), "search", "genindex"])
def test_axe_finds_nothing_serious(visit, name):
    page = visit(name)
    troubles = {}
    for width, scheme, asked in (
        (1280, "light", {}),
        (1280, "dark", {"runOnly": [CONTRAST]}),
        (390, "light", {} if name == "book/index" else {"rules": {CONTRAST: {"enabled": False}}}),
    ):
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 900})
        page.reload()  # as a reader's own window: the theme looks at scheme and width on loading
        assert page.evaluate("document.documentElement.dataset.theme") == scheme
        page.add_style_tag(content="* { transition: none !important; }")  # a colour on its way is no colour
        page.evaluate(f"document.querySelectorAll('tr:nth-child(n + {ROWS})').forEach(row => row.remove())")
        options = {"resultTypes": ["violations"], "preload": False} | asked  # no style sheet is asked for once more
        for found in Axe().run(page, options=options).response["violations"]:
            nodes = [node["html"][:160] for node in found["nodes"] if not of_the_theme(found["id"], node["html"])]
            if found["impact"] in ("critical", "serious") and nodes:
                troubles[f"{found['id']} ({scheme}, {width})"] = nodes
    assert troubles == {}


def of_the_theme(rule, node):
    return rule in OF_THE_THEME and node.startswith(OF_THE_THEME[rule])


def test_the_front_page_is_light(visit):
    page = visit("book/index")
    beside = page.evaluate("[...document.images].filter(i => i.closest('article')).map(i => i.currentSrc)")
    files = {HTML / source.removeprefix(HTML.as_uri() + "/") for source in beside if source.startswith("file:")}
    own = [HTML / "book" / "index.html", HTML / "_static" / "report.css", *files]
    assert sum(file.stat().st_size for file in own) < 600_000


def test_the_explorer_filters_and_shows_a_run(visit):
    page = visit("notebooks/explore")
    page.wait_for_selector("#explore-figure canvas")
    count = page.locator("#explore-count")
    of_setting = int(count.inner_text().split()[0])
    page.locator("#explore-figure select").nth(1).select_option("any")
    assert int(count.inner_text().split()[0]) > of_setting > 0
    # The values under the pointer, and the run that a click chooses: at the first mark of the first panel.
    spot = page.evaluate("""() => {
        const marks = [];
        const walk = item => { if (item.marktype === "symbol") marks.push(item); (item.items || []).forEach(walk); };
        walk(window.explorer.scenegraph().root);
        const mark = marks.flatMap(m => m.items).find(i => i.datum && i.datum.run);
        let x = mark.x, y = mark.y;
        for (let g = mark.mark.group; g; g = g.mark && g.mark.group) { x += g.x || 0; y += g.y || 0; }
        const [left, top] = window.explorer.origin(), around = window.explorer.padding();
        return {x: x + left + around.left, y: y + top + around.top};
    }""")
    box = page.locator("#explore-figure canvas").bounding_box()
    page.mouse.move(box["x"] + spot["x"], box["y"] + spot["y"])
    tip = page.locator("#vg-tooltip-element")
    tip.wait_for()
    run_id = re.search(r"\b[0-9a-f]{12}\b", tip.inner_text())[0]
    assert "test accuracy" in tip.inner_text()
    page.mouse.click(box["x"] + spot["x"], box["y"] + spot["y"])
    link = page.locator("#explore-run a[download]")
    link.wait_for()
    assert run_id in page.locator("#explore-run").inner_text()
    assert json.loads((HTML / "notebooks" / link.get_attribute("href")).read_text())["run_id"] == run_id


def test_a_chapters_link_opens_its_selection_in_the_explorer(visit):
    page = visit("notebooks/sam")
    page.locator("p.explore a").first.click()
    page.wait_for_selector("#explore-figure canvas")
    chosen = page.locator("#explore-figure select").evaluate_all("all => all.map(each => each.selectedOptions[0].text)")
    assert {"0.2", "multistep"} <= set(chosen)
    assert "cifar10" not in chosen  # what the address does not name is free
    assert page.locator("#explore-list li").count() >= 3


def test_the_explorer_is_a_picture_without_scripts(browser):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((HTML / "notebooks" / "explore.html").as_uri())
    assert page.locator("#explore-figure img").bounding_box()["height"] > 100
    context.close()
