"""How fast the feed importer and the list of labels are, how much memory an import needs, and how good its
near-duplicates are.

    python benchmarks/feed_import.py thumbnails                  images/s of decoding alone and of a whole import
    python benchmarks/feed_import.py products --million          time per product at 10,000 to 1,000,000 products
    python benchmarks/feed_import.py search                      seconds to find near-duplicates among 1,000,000
    python benchmarks/feed_import.py list                        seconds from stored probabilities to list and page
    python benchmarks/feed_import.py hashes --folder THUMBNAILS  which perceptual hash tells copies from strangers

Every feed is generated; ``hashes`` can also take a folder of real JPEG thumbnails. Run it on an idle machine. The first
four keep their figures in benchmarks/records/feed-import-<device>.json, which the report shows.
"""

import argparse
import datetime
import io
import json
import logging
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import imagehash
import numpy as np
from PIL import Image

from elrkit.catalogue.groups import near_groups
from elrkit.catalogue.images import read_thumbnail
from elrkit.catalogue.importer import import_feed
from elrkit.catalogue.made_feed import make_feed
from elrkit.catalogue.rules import FeedRules

RECORDS = Path(__file__).resolve().parent / "records"


def keep(what: str, figures: object) -> None:
    """Put the figures of one part into this device's record, beside those of the other parts."""
    import torch  # not before: it takes memory, which the import of products measures

    from elrkit import train

    device = train.describe_device(torch.device("cpu"))
    slug = re.sub(r"[^a-z0-9]+", "-", f"{device['name']} {os.cpu_count()} cores".lower()).strip("-")
    path = RECORDS / f"feed-import-{slug}.json"
    record = json.loads(path.read_text()) if path.exists() else {}
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    record |= {"device": device, "versions": train.versions(), what: {"date": now, "figures": figures}}
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(f"kept in {path}")


def pictures(n: int, seed: int = 0) -> np.ndarray:
    """(n, 32, 32, 3) uint8 random images with the spectrum of photos."""
    rng = np.random.default_rng(seed)
    out = np.empty((n, 32, 32, 3), np.uint8)
    for k in range(n):
        layers = (
            np.asarray(Image.fromarray(rng.integers(0, 256, (s, s, 3), dtype=np.uint8)).resize((32, 32)), np.float32)
            / s
            for s in (4, 8, 16, 32)
        )
        total = sum(layers)
        out[k] = total * (255 / total.max())
    return out


class LastDecoded(logging.Handler):
    """When the importer last said that images were decoded: the rest of an import is the search for near-duplicates
    among so many different pictures, and the writing."""

    def __init__(self) -> None:
        super().__init__()
        self.at = 0.0
        logger = logging.getLogger("elrkit.catalogue.draw")
        logger.setLevel(logging.INFO)
        logger.handlers = [self]

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().endswith("images decoded"):
            self.at = time.perf_counter()


def thumbnails(n: int, workers: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        shop = Path(folder) / "shop"
        make_feed(pictures(n), np.arange(n) % 20, [f"kind {k}" for k in range(20)], shop)
        files = [path.read_bytes() for path in sorted(shop.rglob("*.jpg"))]
        rules = FeedRules()
        for data in files[:100]:
            read_thumbnail(data, rules)
        wall, cpu = time.perf_counter(), time.process_time()
        for data in files:
            read_thumbnail(data, rules)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(f"decode, resize, hash: {n / wall:,.0f} images/s on one core ({n / cpu:,.0f} per second of CPU)")
        found = {"images": n, "decoded_per_second": round(n / wall), "read_per_second": {}, "imported_per_second": {}}
        for count in sorted({1, workers}):
            read = LastDecoded()
            wall = time.perf_counter()
            import_feed([shop / "feed"], Path(folder) / f"{count}.npz", images=shop, workers=count)
            wall, decoded = time.perf_counter() - wall, read.at - wall
            print(
                f"import of {n:,} products, {count} process(es): until all are read {n / decoded:,.0f} images/s "
                f"({decoded:.1f} s), in all {n / wall:,.0f} ({wall:.1f} s)"
            )
            found["read_per_second"][count] = round(n / decoded)
            found["imported_per_second"][count] = round(n / wall)
    keep("thumbnails", found)


def products(sizes: list[int]) -> None:
    """Each size in a process of its own, so that the peak of memory is that import's."""
    rows = []
    for n in sizes:
        with tempfile.TemporaryDirectory() as folder:
            child = subprocess.run(
                [sys.executable, __file__, "one", str(n), folder], check=True, stdout=subprocess.PIPE, text=True
            )
        rows.append(json.loads(child.stdout.splitlines()[-1]))
        print("{products:>9,} products: {microseconds:5.0f} us each, peak {peak_mb:,.0f} MB".format(**rows[-1]))
    keep("products", rows)


def one(n: int, folder: str) -> None:
    """Import n products of 63 subcategories that share 6,300 thumbnails."""
    shop = Path(folder) / "shop"
    make_feed(
        pictures(6300),
        np.arange(6300) % 63,
        [f"kind {k}" for k in range(63)],
        shop,
        products_per_class=n // 63,
        near_duplicates=max(1 - 6300 / n, 0.0),
        shared=1.0,
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    size = sum(path.stat().st_size for path in (shop / "feed").iterdir())
    wall, cpu = time.perf_counter(), time.process_time()
    manifest = import_feed([shop / "feed"], Path(folder) / "out.npz", images=shop, workers=1)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = {
        "products": manifest["counts"]["read"], "xml_mb": round(size / 1e6, 1), "seconds": round(wall, 1),
        "microseconds": round(wall / n * 1e6, 1), "cpu_microseconds": round(cpu / n * 1e6, 1),
        "peak_mb": round(peak / 1024), "before_mb": round(before / 1024), "groups": manifest["split"]["groups"],
    }  # fmt: skip
    print(json.dumps(found), flush=True)


def search(sizes: list[int]) -> None:
    """Pictures without anything in common, but for a tenth of them, which are each some bits from another one."""
    rows = []
    for n in sizes:
        rng = np.random.default_rng(0)
        made = rng.integers(0, 256, (n, 18), dtype=np.uint8)
        made[: n // 10] = made[n // 10 : n // 10 * 2] ^ np.packbits(rng.random((n // 10, 144)) < 0.05, axis=1)
        wall = time.perf_counter()
        groups = near_groups(made, FeedRules().near_distance)
        wall = time.perf_counter() - wall
        rows.append({"pictures": n, "groups": len(np.unique(groups)), "seconds": round(wall, 2)})
        print("{pictures:>9,} pictures: {groups:,} groups in {seconds:.1f} s".format(**rows[-1]), flush=True)
    keep("search", rows)


def labels(n: int = 50_000, classes: int = 10, top: int = 1_000) -> None:
    """From stored probabilities of n images to labels.csv and a page of `top` pictures."""
    import torch

    from elrkit.catalogue import review
    from elrkit.data import Dataset

    rng = np.random.default_rng(0)
    images = torch.from_numpy(np.resize(pictures(2_000), (n, 32, 32, 3)))
    given = torch.from_numpy(rng.integers(0, classes, n))
    dataset = Dataset(
        name="made", train_images=images, train_labels=given, train_truth=given, test_images=images[:1],
        test_labels=given[:1], test_truth=given[:1], class_names=tuple(f"kind {k}" for k in range(classes)),
        mean=(0.5,) * 3, std=(0.5,) * 3, train_ids=tuple(f"p{k}" for k in range(n)),
    )  # fmt: skip
    probabilities = rng.dirichlet(np.full(classes, 0.3), n)
    with tempfile.TemporaryDirectory() as folder:
        wall = time.perf_counter()
        written = review.audit_probabilities(probabilities, dataset, folder, top)
        wall = time.perf_counter() - wall
        size = written.page.stat().st_size / 1e6
    print(f"{n:,} labels: {len(written.listed):,} listed, a page of {top:,} pictures ({size:.1f} MB) in {wall:.1f} s")
    figures = {"labels": n, "listed": len(written.listed), "pictures": top, "page_mb": round(size, 1)}
    keep("list", figures | {"seconds": round(wall, 2)})


def hashes(folder: Path | None, n: int) -> None:
    """Share of copies recognized, and strangers grouped, for several sizes of pHash and distances."""
    if folder:
        images = [Image.open(path).convert("RGB") for path in sorted(folder.glob("*.jpg"))]
    else:
        images = [Image.fromarray(pixels).resize((80, 80)) for pixels in pictures(n)]
    rng = np.random.default_rng(0)

    def copy(image: Image.Image) -> Image.Image:
        """Cropped by up to a pixel a side, other colours, compressed again."""
        left, top, right, bottom = rng.integers(0, 2, size=4).tolist()
        image = image.crop((left, top, image.width - right, image.height - bottom))
        tinted = np.clip(np.asarray(image, np.float32) * rng.uniform(0.6, 1.2, 3), 0, 255).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(tinted).save(file, "JPEG", quality=75)
        return Image.open(file).convert("RGB")

    copies = [copy(image) for image in images[:1000]]
    print(f"{len(images)} images\nhash   bits  distance  copies recognized  strangers grouped  largest group")
    for side, factor, distances in ((8, 4, (4, 6, 8)), (12, 3, (18, 20, 22, 24)), (16, 2, (24, 32, 40, 48))):
        of = [np.packbits(imagehash.phash(image, side, factor).hash) for image in images]
        differing = np.array(
            [
                np.bitwise_count(a ^ np.packbits(imagehash.phash(b, side, factor).hash)).sum()
                for a, b in zip(of, copies, strict=False)
            ]
        )
        for distance in distances:
            size = np.bincount(near_groups(np.stack(of), distance))
            recognized, grouped = (differing <= distance).mean(), size[size > 1].sum()
            print(
                f"{side:2}x{side:<2}  {side * side:4}  {distance:8}  {recognized:17.1%}  {grouped:17}  {size.max():13}"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["thumbnails", "products", "search", "list", "hashes", "one"])
    parser.add_argument("rest", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--n", type=int, default=40_000, help="thumbnails to make")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--million", action="store_true", help="go up to 1,000,000 products")
    parser.add_argument("--folder", type=Path, help="folder of JPEG thumbnails")
    options = parser.parse_args()
    if options.what == "thumbnails":
        thumbnails(options.n, options.workers)
    elif options.what == "products":
        products([10_000, 100_000, *([1_000_000] if options.million else [])])
    elif options.what == "search":
        search([10_000, 100_000, 1_000_000])
    elif options.what == "list":
        labels()
    elif options.what == "hashes":
        hashes(options.folder, options.n)
    else:
        one(int(options.rest[0]), options.rest[1])
