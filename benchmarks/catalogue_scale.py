"""Time and memory of each step from a feed to its list, by the number of products; every step in a process of its own.

    python benchmarks/catalogue_scale.py 10000 100000 1000000
    python benchmarks/catalogue_scale.py 1000000 feed import list    these steps alone, beside what was measured before

The feed has 63 subcategories and 6,300 pictures that its products share. The groups are of as many different pictures
as there are products; features are of pictures of 8 pixels by a network that costs nothing, so that what is measured is
reading, storing and gathering; the head's rows (1,280 numbers, from class centres and noise) lie in a file, and it is
trained for one epoch a round, where a list takes 40. The figures go to results/audit/catalogue-scale.json, which the
chapter on the list shows.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES, PICTURES, WIDTH = 63, 6_300, 1280
FIELDS = "id", "label", "image", "title"


def feed(n: int, folder: Path) -> None:
    """n products: a CSV, and the pictures that they share."""
    draw = np.random.default_rng(0)
    for k in range(PICTURES):
        (folder / "photos" / f"{k % 100}").mkdir(parents=True, exist_ok=True)
        small = Image.fromarray(draw.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        small.resize((80, 80), Image.Resampling.BICUBIC).save(folder / "photos" / f"{k % 100}" / f"{k}.jpg")
    with (folder / "feed.csv").open("w") as file:
        print(*FIELDS, sep=",", file=file)
        for number, picture in enumerate(draw.integers(0, PICTURES, n)):
            # Of a picture all products are of one subcategory, but for one in ten.
            kind = picture % CLASSES if draw.random() < 0.9 else draw.integers(CLASSES)
            print(number, f"kind {kind}", f"{picture % 100}/{picture}.jpg", f"Thing {number}", sep=",", file=file)


def imported(n: int, folder: Path) -> None:
    from elrkit.catalogue.importer import FeedRules, import_feed

    import_feed([folder / "feed.csv"], folder / "shop", images=folder / "photos", rules=FeedRules(), workers=1)


def groups(n: int, folder: Path) -> None:
    """A tenth of the pictures is some bits from another one, the others have nothing in common."""
    from elrkit.catalogue.groups import near_groups
    from elrkit.catalogue.rules import FeedRules

    draw = np.random.default_rng(0)
    hashes = draw.integers(0, 256, (n, 18), dtype=np.uint8)
    hashes[: n // 10] = hashes[n // 10 : n // 10 * 2] ^ np.packbits(draw.random((n // 10, 144)) < 0.05, axis=1)
    near_groups(hashes, FeedRules().near_distance)


def features(n: int, folder: Path) -> None:
    from torch import nn

    from elrkit.catalogue.features import Backbone, features

    eye = Backbone("free", nn.Sequential(nn.Flatten(), nn.Linear(192, WIDTH)), (127.0,) * 3, (128.0,) * 3, side=8)
    picture = np.zeros((8, 8, 3), np.uint8)
    for _ in range(2):  # as they are computed, and as they are found again
        features([f"{k:064x}" for k in range(n)], lambda k: picture, eye, folder / "store")


def listed(n: int, folder: Path) -> None:
    """Head, list and page of the imported feed."""
    from elrkit import data
    from elrkit.catalogue import audit, head, review

    dataset = data.load(str(folder / "shop"))
    labels, draw = audit.labels_of(dataset), np.random.default_rng(0)
    centres = draw.normal(size=(CLASSES, WIDTH)).astype(np.float32)
    rows = np.memmap(folder / "rows", np.float16, "w+", shape=(len(labels), WIDTH))
    for start in range(0, len(labels), 4096):
        of = slice(start, start + 4096)
        rows[of] = centres[labels[of]] + 5 * draw.standard_normal((len(labels[of]), WIDTH), np.float32)
    started = time.perf_counter()
    found = head.audit(rows, labels, dataset.class_names, epochs=1)
    clock("head", n, started)
    started = time.perf_counter()
    table = audit.to_look_at(found, dataset)
    review.write_table(table, dataset, folder / "list", 10_000, typical=audit.typical(found, dataset))
    clock("list and page", n, started)


STEPS = {"feed": feed, "import": imported, "groups": groups, "features": features, "list": listed}


def clock(step: str, n: int, started: float) -> None:
    print(json.dumps({
        "step": step, "products": n, "seconds": round(time.perf_counter() - started, 1),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }), flush=True)  # fmt: skip


def main(sizes: list[int], steps: list[str]) -> None:
    import torch

    from elrkit import precision, records
    from elrkit.report import studies

    path = records.results_root().parent / "audit" / "catalogue-scale.json"
    found = (
        {(each["products"], each["step"]): each for each in json.loads(path.read_text())["steps"]}
        if path.exists()
        else {}
    )
    for n in sizes:
        with tempfile.TemporaryDirectory() as folder:
            for step in steps or STEPS:
                command = [sys.executable, __file__, step, str(n), folder]
                child = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                for each in map(json.loads, child.stdout.splitlines()):
                    found[each["products"], each["step"]] = each
                    print("{products:>9,} {step}: {seconds:.1f} s, at most {peak_mb:,} MB".format(**each), flush=True)
    record = {"steps": list(found.values()), "versions": precision.versions(), "threads": torch.get_num_threads(),
              "device": precision.describe_device(torch.device("cpu"))}  # fmt: skip
    print(studies.save("audit", "catalogue-scale", record))


if __name__ == "__main__":
    if len(sys.argv) == 4 and Path(sys.argv[3]).is_dir():
        number, place, begun = int(sys.argv[2]), Path(sys.argv[3]), time.perf_counter()
        STEPS[sys.argv[1]](number, place)
        if sys.argv[1] in ("import", "groups", "features"):
            clock(sys.argv[1], number, begun)
    else:
        main([int(each) for each in sys.argv[1:] if each.isdigit()], [each for each in sys.argv[1:] if each in STEPS])
