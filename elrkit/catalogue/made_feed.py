"""A shop's feed made from any image dataset, with faults that are known: the opposite of `elrkit.catalogue.importer`.

    make_feed(images, labels, class_names, "shop", main_categories=main, misfiled=0.15, near_duplicates=0.3, seed=0)

Writes the feed in the format of the paper's shop (one XML file per main category, thumbnails of about 80 x 80 pixels)
or as CSV (one file per subcategory) into the folder ``feed``, and ``truth.csv`` beside it, which says of every product
what it shows, whether it is misfiled, and which products are variants of one article. So everything the importer and
the training claim about a feed can be checked.
"""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from xml.sax.saxutils import escape

import numpy as np
import pandas as pd
from PIL import Image

from elrkit import data
from elrkit.catalogue.feed_xml import XML_COLUMNS
from elrkit.config import require

# The 20 superclasses of CIFAR-100 (A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009).
CIFAR100_SUPERCLASSES = {
    "aquatic mammals": "beaver dolphin otter seal whale",
    "fish": "aquarium_fish flatfish ray shark trout",
    "flowers": "orchid poppy rose sunflower tulip",
    "food containers": "bottle bowl can cup plate",
    "fruit and vegetables": "apple mushroom orange pear sweet_pepper",
    "household electrical devices": "clock keyboard lamp telephone television",
    "household furniture": "bed chair couch table wardrobe",
    "insects": "bee beetle butterfly caterpillar cockroach",
    "large carnivores": "bear leopard lion tiger wolf",
    "large man-made outdoor things": "bridge castle house road skyscraper",
    "large natural outdoor scenes": "cloud forest mountain plain sea",
    "large omnivores and herbivores": "camel cattle chimpanzee elephant kangaroo",
    "medium-sized mammals": "fox porcupine possum raccoon skunk",
    "non-insect invertebrates": "crab lobster snail spider worm",
    "people": "baby boy girl man woman",
    "reptiles": "crocodile dinosaur lizard snake turtle",
    "small mammals": "hamster mouse rabbit shrew squirrel",
    "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
    "vehicles 1": "bicycle bus motorcycle pickup_truck train",
    "vehicles 2": "lawn_mower rocket streetcar tank tractor",
}
SIZES = ("S", "M", "L", "XL")
COLOURS = ("black", "white", "red", "blue", "green", "yellow", "brown", "grey")
UNUSABLE = ("front page", "old", "no image", "missing file")  # what ``unusable`` products suffer from, in turn
SHOP = "https://shop.example/"
TAIL = 1.2  # of Zipf's law: six million products in 4,000 subcategories, 90 % of which have fewer than 1,000
SHARED = 0.5  # of the variants, those that have the very thumbnail of their article
SIDE = 80  # pixels of a thumbnail; one in five varies by up to 4, as in the paper's shop


def make_feed(
    images: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    out: str | Path,
    *,
    main_categories: Sequence[str] | None = None,
    products_per_class: int | None = None,
    misfiled: float = 0.15,
    siblings: float = 1.0,
    near_duplicates: float = 0.0,
    unusable: float = 0.0,
    format: Literal["xml", "csv"] = "xml",
    long_tail: bool = False,
    seed: int = 0,
) -> dict:
    """Write a feed whose faults are known: images (n, h, w, 3) uint8, labels (n,) int64 their classes, the other
    arguments as `make_feed_from`; the folder is read by ``import_feed([out / "feed"], ..., images=out)``.

    A product is an article or a variant of one. Variants (another size: the same thumbnail; another colour: the same
    photo with other channel gains, cropped by a pixel or two and compressed again) share their article's label, right
    or wrong: a seller files all sizes together. Half of them are sizes.

    Returns what was put in: counts, realized rates, and the settings; also written to ``truth.json``. ``truth.csv`` has
    the columns id, label, true_label, article, kind (article, size, colour, or an entry of ``UNUSABLE``), image (index
    into ``images``), thumbnail. Raises ValueError for shares or numbers out of range, or too few images for the
    articles asked, FileExistsError when ``out`` holds a feed already.
    """
    out = Path(out)
    shares = {"misfiled": misfiled, "siblings": siblings, "near_duplicates": near_duplicates, "unusable": unusable}
    for name, share in shares.items():
        require(f"make_feed: {name}", share, 0, 1)
    require("make_feed: products_per_class", products_per_class, 1, whole=True, optional=True)
    require("make_feed: seed", seed, 0, whole=True)
    (out / "feed").mkdir(parents=True, exist_ok=True)
    if (out / "truth.csv").exists():
        raise FileExistsError(f"make_feed: {out} holds a feed already; choose another folder or remove it")
    main = np.array(main_categories if main_categories is not None else main_categories_of(class_names))
    rng = np.random.default_rng(seed)
    sizes = _sizes(np.bincount(labels, minlength=len(class_names)), products_per_class, long_tail, rng)
    article, image, truth = _articles(labels, sizes, near_duplicates, rng)
    filed = _misfile(truth, article, main, misfiled, siblings, sizes if long_tail else None, rng)
    n = len(article)
    is_variant = article != np.arange(n)
    kind = np.where(is_variant, np.where(rng.random(n) < SHARED, "size", "colour"), "article").astype("<U16")

    bad = round(unusable * n)
    copied = rng.integers(n, size=bad)
    filed, truth, image = (np.concatenate([a, a[copied]]) for a in (filed, truth, image))
    article = np.concatenate([article, np.arange(n, n + bad)])
    kind = np.concatenate([kind, np.resize(np.array(UNUSABLE), bad)])
    # Sellers upload in no order: an article and its variants do not stand together.
    position = rng.permutation(n + bad)

    thumbnail = [_thumbnail_name(article[i] if kind[i] in ("article", "size") else i) for i in range(n + bad)]
    for i in np.nonzero((kind == "article") | (kind == "colour"))[0]:
        path = out / thumbnail[i]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_photo(images[image[i]], kind[i] == "colour", rng))

    style = rng.integers(len(SIZES) * len(COLOURS), size=n + bad)
    year, month = rng.integers(2011, 2021, size=n + bad), rng.integers(1, 13, size=n + bad)
    year = np.where(kind == "old", 2005 + np.arange(n + bad) % 6, year)
    names, link = np.array(class_names, object), [f"{SHOP}p/{i:07d}" for i in range(n + bad)]
    told = (
        f"{names[truth[i]].replace('_', ' ').capitalize()} no. {article[i]}, {COLOURS[style[i] // len(SIZES)]}, size "
        f"{SIZES[style[i] % len(SIZES)]}" for i in range(n + bad)
    )  # fmt: skip
    products = pd.DataFrame({
        "title": list(told),
        "thumbnail": np.where(kind == "no image", "", thumbnail),
        "release_date": [f"{y}-{m:02d}-01" for y, m in zip(year, month, strict=True)],
        "big_image": "",
        "catid": (1000 + filed).astype(str),
        "category": names[filed],
        "link": np.where(kind == "front page", SHOP, link),
    }).iloc[position]  # fmt: skip
    categories, category = np.unique(main, return_inverse=True)
    file, files = (category[filed[position]], categories) if format == "xml" else (filed[position], class_names)
    for k, name in enumerate(files):
        bare = "".join(c if c.isalnum() else "-" for c in name)
        text = FORMATS[format](products[file == k])
        (out / "feed" / f"{k:03d}-{bare}.{format}").write_text(text, encoding="utf-8", newline="")
    columns = {"label": names[filed], "true_label": names[truth], "article": article, "kind": kind, "image": image}
    table = pd.DataFrame({"id": link, **columns, "thumbnail": thumbnail}).iloc[position]
    partial = out / "truth.csv.partial"  # the name that says that a feed is there comes last
    table.to_csv(partial, index=False, lineterminator="\r\n")
    partial.replace(out / "truth.csv")
    wrong = np.nonzero(filed[:n] != truth[:n])[0]
    report = {
        "products": n,
        "unusable": bad,
        "articles": int((~is_variant).sum()),
        "near_duplicates": float(is_variant.mean()),
        "misfiled": len(wrong) / n,
        "misfiled_among_siblings": float((main[filed] == main[truth])[wrong].mean()) if len(wrong) else None,
        "subcategories": len(np.unique(truth)),
        "products_of_one": dict(
            zip(("smallest", "median", "largest"), np.quantile(sizes[sizes > 0], (0, 0.5, 1)).tolist(), strict=True)
        ),
        "settings": {"products_per_class": products_per_class, "long_tail": long_tail, **shares, "format": format,
                     "side": SIDE, "seed": seed},
        "images_sha256": hashlib.sha256(np.ascontiguousarray(images)).hexdigest(),
    }  # fmt: skip
    (out / "truth.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return report


def make_feed_from(
    dataset: str | Path,
    out: str | Path,
    *,
    classes: int | None = None,
    main_categories: Mapping[str, str] | None = None,
    **settings: Any,
) -> dict:
    """`make_feed` of the images of a dataset, training and test images together, returns and raises as that; DataError
    where there is no such dataset.

    Args:
        dataset: what ``elrkit.data.load`` takes.
        out: folder to write; it must not hold a feed yet.
        classes: subcategories to use, whole main categories first (63 of CIFAR-100: twelve superclasses and three
            classes of a thirteenth); by default all.
        main_categories: main category of every class, by name; by default CIFAR-100's superclasses where the names are
            its classes, else blocks of five classes.
        settings: products_per_class: of each class; by default as many as it has images. misfiled: share of the
            products whose label is wrong; siblings: share of those that stay in their main category, as sellers err
            (the rest go to another one; each where there is such a class). near_duplicates: share of the products that
            are variants. unusable: products added to spoil the feed, as a share of the good ones: link to the front
            page, released in 2010 or before, no thumbnail, thumbnail missing. format: ``xml`` (one file per main
            category) or ``csv`` (one per subcategory). long_tail: the subcategories have products in proportion to
            1 / rank ** 1.2 (`TAIL`), ranked in an order that is drawn: at least one, and at most as many as there are
            images of it, so the whole may be less than ``products_per_class`` times C; misfiled products then go to
            large subcategories more often than to small. seed: of everything that is drawn.
    """
    require("make_feed: classes", classes, 2, whole=True, optional=True)
    loaded = data.load(str(dataset))
    images = np.concatenate([loaded.train_images, loaded.test_images])
    images = np.repeat(images, 3, axis=3) if images.shape[3] == 1 else images
    labels = np.concatenate([loaded.train_labels, loaded.test_labels])
    names = list(loaded.class_names)
    main = main_categories_of(names) if main_categories is None else [main_categories.get(name) for name in names]
    if without := [name for name, of in zip(names, main, strict=True) if of is None]:
        raise ValueError(f"make_feed: main_categories has none for {', '.join(without)}")
    chosen = sorted(range(len(names)), key=lambda k: (main[k], names[k]))[:classes]
    position = np.full(len(names), -1)
    position[chosen] = np.arange(len(chosen))
    used = position[labels] >= 0
    return make_feed(
        images[used], position[labels[used]], [names[k] for k in chosen], out,
        main_categories=[main[k] for k in chosen], **settings,
    )  # fmt: skip


def main_categories_of(class_names: Sequence[str]) -> list[str]:
    """Main category of each class: CIFAR-100's superclass where all names are its classes, else blocks of five."""
    superclass = {name: main for main, names in CIFAR100_SUPERCLASSES.items() for name in names.split()}
    if all(name in superclass for name in class_names):
        return [superclass[name] for name in class_names]
    return [f"main category {k // 5 + 1}" for k in range(len(class_names))]


def _sizes(photos, products_per_class, long_tail, rng) -> np.ndarray:
    """Products of each class; none of a class without photos."""
    there = np.nonzero(photos)[0]
    sizes = np.zeros_like(photos)
    sizes[there] = products_per_class or photos[there]
    if long_tail:
        share = rng.permutation(np.arange(1, len(there) + 1.0) ** -TAIL)
        sizes[there] = np.clip(np.round(sizes.sum() * share / share.sum()), 1, photos[there])
    return sizes


def _articles(labels, sizes, near_duplicates, rng) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(article, image, true label) of each product; a product that is its own article is no variant."""
    article, image, truth = [], [], []
    start = 0
    for c in np.unique(labels):
        photos = np.nonzero(labels == c)[0]
        n = sizes[c]
        variants = min(round(near_duplicates * n), n - 1)
        if n - variants > len(photos):
            raise ValueError(
                f"make_feed: class {c} has {len(photos)} images for {n - variants} articles; ask for fewer"
            )
        own = np.arange(start, start + n - variants)
        article += [own, rng.choice(own, variants)]
        photo = rng.choice(photos, n - variants, replace=False)
        image += [photo, photo[article[-1] - start]]
        truth.append(np.full(n, c))
        start += n
    return np.concatenate(article), np.concatenate(image), np.concatenate(truth)


def _misfile(truth, article, main, misfiled, siblings, pull, rng) -> np.ndarray:
    """Labels with ``round(misfiled * n)`` products wrong, an article and its variants together.

    pull: of each class, how often a wrong label is it; None, equally often.
    """
    classes = np.unique(truth)
    filed = truth.copy()
    if len(classes) < 2:
        if misfiled:
            raise ValueError("make_feed: one class alone cannot be misfiled; set misfiled to 0")
        return filed
    left = round(misfiled * len(truth))
    size = np.bincount(article, minlength=len(article))
    for own in rng.permutation(np.nonzero(size)[0]):
        if size[own] > left:  # too many variants for what is left; a smaller article fits
            continue
        left -= size[own]
        others = classes[classes != truth[own]]
        sibling = main[others] == main[truth[own]]
        stays = rng.random() < siblings
        there = others[sibling == stays] if (sibling == stays).any() else others
        filed[own] = rng.choice(there, p=None if pull is None else pull[there] / pull[there].sum())
        if not left:
            break
    return filed[article]


def _thumbnail_name(i: int) -> str:
    return f"thumbnails/{i // 1000:04d}/{i:07d}.jpg"


def _photo(pixels: np.ndarray, variant: bool, rng: np.random.Generator) -> bytes:
    """JPEG file of one thumbnail; of a variant, the same photo in another colour, cropped and compressed anew."""
    size = [SIDE, SIDE]
    if rng.random() < 0.2:
        size[rng.integers(2)] += int(rng.integers(-4, 5))
    image = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    if variant:
        left, top, right, bottom = rng.integers(0, 2, size=4).tolist()
        image = image.crop((left, top, size[0] - right, size[1] - bottom))
        tinted = np.asarray(image, np.float32) * rng.uniform(0.6, 1.2, size=3).astype(np.float32)
        image = Image.fromarray(np.clip(tinted, 0, 255).astype(np.uint8))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=75 if variant else 90)
    return file.getvalue()


def _as_xml(products: pd.DataFrame) -> str:
    fields = products.apply(lambda column: f"<{column.name}>" + column.map(escape) + f"</{column.name}>")
    items = "".join(f"<product>{''.join(row)}</product>\n" for row in fields.itertuples(index=False))
    return f'<?xml version="1.0" encoding="utf-8"?>\n<products>\n{items}</products>\n'


def _as_csv(products: pd.DataFrame) -> str:
    columns = products[list(XML_COLUMNS.values())]
    return columns.to_csv(index=False, header=list(XML_COLUMNS), lineterminator="\r\n")


FORMATS = {"xml": _as_xml, "csv": _as_csv}
