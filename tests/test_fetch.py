"""Images from a shop's hosts, by a web server on this machine: which are asked, how often, and for how long."""

import gzip
import http.server
import threading
import time
from collections import Counter

import pytest
from shops import PAGE, dropped, encode, open_shop, originals, picture, product, xml

from elrkit.catalogue import fetch
from elrkit.catalogue.rules import FeedRules

shop = pytest.fixture(open_shop)

BODY = encode(picture(1), "JPEG")
MOVED = {  # where an address sends its asker on to
    "/moved.jpg": "/here.jpg",
    "/away.jpg": "http://elsewhere.example/x.jpg",
    "/to-broken.jpg": "http://[oops",
    "/to-mail.jpg": "mailto:somebody@shop.example",
    "/inside.jpg": "file:///etc/passwd",
    "/round.jpg": "/round.jpg",
}
STATUS = {"/gone.jpg": 404, "/down.jpg": 500}
CONTENT = {"/text.jpg": b"<html>back soon</html>", "/huge.jpg": b"\xff" * 300_000}


class Host(http.server.BaseHTTPRequestHandler):
    """Hangs up after each answer, as HTTP 1.0 does; `Lasting` goes on."""

    def do_GET(self):
        path = self.path.partition("?")[0]
        self.server.asked[path] += 1
        status, headers, content = STATUS.get(path, 200), {}, CONTENT.get(path, BODY)
        if path == "/busy.jpg" and self.server.asked[path] < 3:
            status = 503
        elif path in MOVED:
            status, headers = 302, {"Location": MOVED[path]}
        elif path == "/packed.jpg" or "gzip" in self.headers.get("Accept-Encoding", ""):
            headers, content = {"Content-Encoding": "gzip"}, gzip.compress(BODY)
        if path == "/headers.jpg":
            self.drip(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 10_000)
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if path == "/slow.jpg":
            self.drip(content)
        self.wfile.write(content[:100] if path == "/cut.jpg" else content)
        self.close_connection |= path == "/cut.jpg"

    def drip(self, content: bytes) -> None:
        for k in range(len(content)):
            self.wfile.write(content[k : k + 1])
            time.sleep(0.02)

    def log_message(self, *_):
        pass


class Lasting(Host):
    protocol_version = "HTTP/1.1"


class Handshake(Host):
    """Answers whatever is said to it, such as a TLS greeting, a byte at a time."""

    def handle(self):
        self.drip(b"\x16\x03\x03\x3f\xff" + b"\x02" * 10_000)


@pytest.fixture
def serve(monkeypatch):
    """Starts web servers: (name of the host, requests counted by path)."""
    monkeypatch.setenv("NO_PROXY", "*")
    started = []

    def start(handler: type = Host) -> tuple[str, Counter]:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.asked = Counter()
        server.handle_error = lambda *_: None  # the importer hangs up on what is too large or slow
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        started.append((server, thread))
        return f"127.0.0.1:{server.server_port}", server.asked

    yield start
    for server, thread in started:
        server.shutdown()
        thread.join()
        server.server_close()


POLITE = FeedRules(retries=2, backoff_s=0.01, timeout_s=5, max_bytes=200_000)


def from_host(host: str, *names: str) -> str:
    """A feed whose products 0, 1, ... have these images of the host."""
    return xml(*(product(k, thumbnail=f"http://{host}/{name}.jpg") for k, name in enumerate(names)))


def test_addresses_are_fetched_only_from_hosts_that_were_named_and_once(shop, serve):
    host, asked = serve()
    feed = xml(product(0, thumbnail=f"http://{host}/a.jpg"), product(1, thumbnail=f"http://u@{host}/b.jpg"), product(2))
    for times, hosts, seed, lost in ((0, [], 0, 2), (1, [host], 0, 1), (1, [f"http://{host}/x"], 1, 1)):
        manifest = shop.run(feed, download_from=hosts, rules=FeedRules(seed=seed))
        assert dropped(manifest) == {"image: image on a host not allowed for download": lost}
        assert asked["/a.jpg"] == asked.total() == times  # what was fetched once is not fetched again
    assert originals(shop.out, [f"{PAGE}0"], shop.folder).keys() == {f"{PAGE}0"}


def test_what_was_fetched_and_is_no_image_is_asked_for_again(shop, serve):
    host, asked = serve()
    for times in (1, 2):
        manifest = shop.run(from_host(host, "text", "a"), download_from=[host])
        assert dropped(manifest) == {"image: not an image": 1}
        assert asked == {"/text.jpg": times, "/a.jpg": 1}  # what is an image is there for another import, too


def test_addresses_that_nothing_can_fetch_are_counted_each(shop, serve):
    """Neither stops the import, though there are more of them than failures are allowed in a row."""
    host, _ = serve()
    bad = [f"http://{host}/to-{where}.jpg?{k}" for where in ("broken", "mail") for k in range(3)]
    products = [product(k, thumbnail=address) for k, address in enumerate([*bad, f"http://{host}\t/x.jpg"])]
    rules = POLITE.model_copy(update={"max_failures": 2})
    manifest = shop.run(xml(*products, product(99, thumbnail="1.jpg")), rules=rules, download_from=[host])
    assert dropped(manifest) == {
        "product: image address not understood": 1,
        "image: image address not understood": 3,
        "image: image address neither http nor https": 3,
    }
    assert manifest["counts"]["kept"] == 1


def test_of_several_addresses_in_a_cell_the_first_is_fetched(shop, serve):
    host, asked = serve()
    cells = [f"http://{host}/a.jpg{between}http://{host}/b.jpg" for between in (",", " | ", "; ", " ")]
    cells[0] = f"http://{host}/a.jpg," + ",".join(f"http://{host}/{k}-{'x' * 100}.jpg" for k in range(30))
    manifest = shop.run(xml(*(product(k, thumbnail=cell) for k, cell in enumerate(cells))), download_from=[host])
    assert manifest["counts"]["kept"] == 4
    assert asked == {"/a.jpg": 1}


@pytest.mark.parametrize("handler", [Host, Lasting])
def test_a_download_that_fails_is_counted_and_never_repeated_without_end(handler, shop, serve):
    host, asked = serve(handler)
    names = ("ok", "gone", "busy", "down", "moved", "away", "inside", "round", "huge", "packed")
    manifest = shop.run(from_host(host, *names), rules=POLITE, download_from=[host])
    assert set(shop.labels()) == {str(names.index(name)) for name in ("ok", "busy", "moved")}
    assert manifest["counts"]["dropped"]["image"] == {
        "download failed": 1,
        "download in a Content-Encoding that was not asked for": 1,
        "download refused (status 404)": 1,
        "file too large": 1,
        "image address neither http nor https": 1,
        "image on a host not allowed for download": 1,
        "too many redirects": 1,
    }
    times = {"busy": 3, "down": 3, "round": 4, "here": 1}
    assert asked == {f"/{name}.jpg": times.get(name, 1) for name in (*names, "here")}


@pytest.mark.parametrize("handler", [Host, Lasting])
def test_a_download_may_neither_drip_nor_end_early(handler, shop, serve):
    host, asked = serve(handler)
    rules = POLITE.model_copy(update={"timeout_s": 0.2, "connections": 1})
    start = time.monotonic()
    names = ("ok", "slow", "headers", "cut", "fine")  # where the host goes on, on one connection as long as it holds
    manifest = shop.run(from_host(host, *names), rules=rules, download_from=[host])
    assert time.monotonic() - start < 10  # each alone would take a minute and more
    assert dropped(manifest) == {"image: download failed": 1, "image: download too slow": 2}
    assert asked == {f"/{name}.jpg": 1 for name in names}


def test_a_handshake_may_not_drip(shop, serve):
    host, _ = serve(Handshake)
    fetcher = fetch.Fetcher(shop.folder, [host], POLITE.model_copy(update={"timeout_s": 0.2}))
    start = time.monotonic()
    assert fetcher.fetch_all(shop.folder, [f"https://{host}/a.jpg"]) == [(None, "download failed")]
    assert time.monotonic() - start < 10


def test_a_host_that_is_down_stops_the_import_which_resumes(shop, serve):
    host, asked = serve()
    products = [product(k, thumbnail=f"http://{host}/down.jpg#{k}") for k in range(30)]
    feed = xml(product(99, thumbnail=f"http://{host}/ok.jpg"), *products)
    rules = POLITE.model_copy(update={"retries": 0, "max_failures": 4, "connections": 1})
    for tries in (1, 2):
        with pytest.raises(ConnectionError, match="4 downloads in a row failed"):
            shop.run(feed, rules=rules, download_from=[host])
        assert asked == {"/ok.jpg": 1, "/down.jpg": 4 * tries}  # what is there already is not asked for again


def test_a_refused_host_and_one_that_is_not_there_are_told_apart(shop):
    feed = from_host("cdn.shop.invalid", "a", "b")
    with pytest.raises(ValueError, match=r"not allowed for download \(--download-from names its host"):
        shop.run(feed)
    with pytest.raises(ValueError, match="none of 2 products is left; image: 2 dropped, download failed"):
        shop.run(feed, rules=FeedRules(retries=0), download_from=["http://cdn.shop.invalid/x"])
