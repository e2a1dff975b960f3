"""Small shops for the importer's tests: pictures, products, feeds, and what an import makes of them.

`open_shop` and `make_shop` become fixtures in the modules that use them.
"""

import csv
import io
import json
import re
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
from PIL import Image

from elrkit.catalogue import importer, written
from elrkit.catalogue.importer import import_feed
from elrkit.catalogue.made_feed import make_feed

PAGE = "https://shop.example/p/"
LOADABLE = written._check_loadable


def picture(seed: int, size=(80, 80)) -> Image.Image:
    """A random colour image with the spectrum of a photo (less of the high frequencies), another for each seed."""
    rng = np.random.default_rng(seed)
    octaves = sum(
        np.asarray(Image.fromarray(rng.integers(0, 256, (n, n, 3), dtype=np.uint8)).resize(size), np.float32) * 2 / n
        for n in (4, 8, 16, 32)
    )
    return Image.fromarray((octaves * 255 / octaves.max()).astype(np.uint8))


def pictures(n: int) -> np.ndarray:
    return np.stack([np.asarray(picture(k, (32, 32))) for k in range(n)])


def encode(image: Image.Image, format: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def product(number: int, **changes) -> dict:
    """One good product of the shop's XML, with changes."""
    kind = number % 2
    fields = {"title": f"Thing no. {number}", "thumbnail": f"{number}.jpg", "release_date": "2015-03-01"}
    return fields | {"catid": f"{10 + kind}", "category": f"kind {kind}", "link": f"{PAGE}{number}"} | changes


def xml(*products: dict) -> str:
    rows = ("".join(f"<{tag}>{escape(text)}</{tag}>" for tag, text in p.items()) for p in products)
    return f"<products>{''.join(f'<product>{row}</product>' for row in rows)}</products>"


def good(n: int) -> str:
    return xml(*map(product, range(n)))


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def data_of(page: Path) -> dict:
    """What the page of a list shows."""
    return json.loads(re.search(r'<script type="application/json"[^>]*>(.*?)</script>', page.read_text(), re.S)[1])


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    """What an import wrote."""
    return {file.stem: np.load(file, allow_pickle=False) for file in path.glob("*.npy")}


def originals(dataset, ids, images=".", side=160) -> dict[str, np.ndarray]:
    """The pictures of these products of a dataset."""
    where, rules = importer.places(dataset, ids, images)
    return importer.shown(where, rules, ids, side)


def labels_by_id(path: Path) -> dict[str, str]:
    """The label of each product of a dataset, by its id without the shop's address."""
    z = arrays_of(path)
    return {
        id_.removeprefix(PAGE): str(z["class_names"][label])
        for part in ("train", "test")
        for id_, label in zip(z[f"{part}_ids"].tolist(), z[f"{part}_labels"], strict=True)
    }


def checked(manifest: dict) -> dict:
    """The manifest, whose counts add up."""
    counts = manifest["counts"]
    assert counts["read"] == counts["kept"] + sum(sum(reasons.values()) for reasons in counts["dropped"].values())
    assert counts["kept"] == manifest["split"]["train"] + manifest["split"]["test"]
    return manifest


def dropped(manifest: dict) -> dict[str, int]:
    """{"step: reason": products}."""
    steps = manifest["counts"]["dropped"].items()
    return {f"{step}: {reason}": count for step, reasons in steps for reason, count in reasons.items()}


class Shop:
    """A folder with ten good pictures, 0.jpg to 9.jpg, whose feed is imported into out."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.out = folder, folder / "out"
        for k in range(10):
            self.put(f"{k}.jpg", encode(picture(k), "JPEG"))

    def put(self, name: str, content: str | bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def run(self, feed: str | bytes | list[Path], **options) -> dict:
        """Import one feed, given as its text, or several files."""
        if not isinstance(feed, list):
            feed = [self.put("feed.xml" if feed[:1] in ("<", b"<") else "feed.csv", feed)]
        return checked(import_feed(feed, self.out, **{"images": self.folder, "workers": 1} | options))

    def labels(self) -> dict[str, str]:
        return labels_by_id(self.out)

    def listed(self, name: str = "out/dropped.csv") -> list[tuple[str, ...]]:
        return [tuple(row.values()) for row in rows_of(self.folder / name)]


def open_shop(tmp_path, monkeypatch):
    """Most tests import a handful of products, of which no dataset could be made: they do without the check."""
    monkeypatch.setattr(written, "_check_loadable", lambda *_: None)
    return Shop(tmp_path)


def make_shop(tmp_path_factory):
    """(folder, what was put in, truth by id): 6 subcategories in 2 main categories with 40 products each, a third of
    them variants, 20 % misfiled."""
    out = tmp_path_factory.mktemp("made")
    names, main = [f"kind_{k}" for k in range(6)], ["left"] * 3 + ["right"] * 3
    shares = {"misfiled": 0.2, "near_duplicates": 1 / 3, "unusable": 0.1}
    report = make_feed(pictures(240), np.arange(240) % 6, names, out, main_categories=main, seed=3, **shares)
    return out, report, {row["id"]: row for row in rows_of(out / "truth.csv")}
