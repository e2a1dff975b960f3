"""From photos to judged products: a shop of coloured pictures, audited by features and its new products checked."""

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from torch import nn

from elrkit import data
from elrkit.catalogue import audit, head, images, importer
from elrkit.catalogue import commands as catalogue
from elrkit.catalogue import features as f
from elrkit.config import ConfigError

COLOURS = {"Red > Shirts": (200, 40, 40), "Green > Shirts": (40, 180, 60), "Blue > Shirts": (40, 60, 200)}


class Means(nn.Module):
    """Each channel's mean over a 4 x 4 grid: what a backbone for colours sees."""

    def forward(self, x):
        return nn.functional.adaptive_avg_pool2d(x, 4).flatten(1)


@pytest.fixture(scope="module")
def eye():
    return f.Backbone("means", Means(), (127.0,) * 3, (64.0,) * 3, 64)


def draw_feed(folder: Path, n: int, seed: int, wrong: float, extra=()) -> dict[str, tuple[str, str]]:
    """A CSV with photos; returns id -> (filed under, truth)."""
    draw, names = np.random.default_rng(seed), list(COLOURS)
    (folder / "photos").mkdir(parents=True)
    truth, rows = {}, []
    for number in range(n):
        name = names[number % 3]
        pixels = np.clip(np.array(COLOURS[name]) + draw.normal(0, 45, (80, 60, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"{number}.png")
        filed = names[(number + 1) % 3] if draw.random() < wrong else name
        truth[f"p{number}"] = filed, name
        rows.append((f"p{number}", filed, f"photos/{number}.png", f"Shirt {number}"))
    with (folder / "feed.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "category", "image", "title"), *rows, *extra])
    return truth


def check(folder: Path, shop, eye) -> pd.DataFrame:
    """The verdicts on this folder's feed by the model of the shop."""
    return audit.check_feed([folder / "feed.csv"], shop[4].model, folder, eye, folder / "store", RULES, 0.95)


RULES = importer.FeedRules(
    columns={"id": "id", "label": "category", "image": "image", "title": "title"}, min_images=5, size=16
)


@pytest.fixture(scope="module")
def shop(tmp_path_factory, eye):
    folder = tmp_path_factory.mktemp("shop")
    truth = draw_feed(folder, 240, 0, wrong=0.15)
    importer.import_feed([folder / "feed.csv"], folder / "imported", images=folder, rules=RULES, workers=1)
    dataset = data.load(str(folder / "imported"))
    rows = audit.photo_rows(dataset, folder, eye, folder / "store")
    found = head.audit(rows, audit.labels_of(dataset), dataset.class_names, eye.name)
    return folder, truth, dataset, rows, found


def test_misfiled_products_head_the_list_with_their_true_category(shop):
    _, truth, dataset, _, found = shop
    table = audit.ranked(found, dataset)
    wrong = {id_ for id_, (filed, real) in truth.items() if filed != real}
    assert set(table["id"][: len(wrong)]) == wrong
    assert all(truth[row.id][1] == row.suggested_label for row in table[: len(wrong)].itertuples())
    confidence = table["confidence"].to_numpy()
    assert confidence[: len(wrong)].min() > 0.5 > confidence[len(wrong) :].max()
    assert len(table) == 240
    assert set(table.columns) >= {"title", "alternative_2", "chance_1", "chance_2"}
    assert abs(len(wrong) - 240 * found.wrong.mean) < 15
    for name, ids in audit.typical(found, dataset).items():
        assert [truth[id_] for id_ in ids] == [(name, name)] * 3
    shown = dataset.train_pictures.of.copy()
    shown[dataset.train_labels.numpy() == 0] = 0
    train, test = (dataclasses.replace(part, of=of) for part, of in (
        (dataset.train_pictures, shown), (dataset.test_pictures, np.zeros_like(dataset.test_pictures.of))))  # fmt: skip
    alike = audit.typical(found, dataclasses.replace(dataset, train_pictures=train, test_pictures=test))
    assert [len(ids) for ids in alike.values()] == [1, 3, 3]  # of equal photos one is shown


def test_photos_are_read_as_the_shop_has_them_and_small_ones_serve_without(shop, eye, tmp_path):
    folder, _, dataset, rows, _ = shop
    [place] = importer.places(dataset.name, dataset.train_ids[:1], folder)[0].values()
    pixels = importer.picture(place, RULES, 64).astype(np.float32)
    seen = ((pixels - 127) / 64).reshape(4, 16, 4, 16, 3).mean(axis=(1, 3)).transpose(2, 0, 1).reshape(-1)
    np.testing.assert_allclose(rows[0], seen, atol=0.02)
    small = audit.photo_rows(dataset, None, eye, tmp_path)
    assert small.shape == rows.shape
    assert not np.allclose(small, rows, atol=0.05)


def test_a_photo_that_comes_back_is_looked_at_again(shop, eye, tmp_path):
    """While it is away its small picture serves, and is not kept as the photo's own."""
    folder, _, dataset, rows, _ = shop
    [place] = importer.places(dataset.name, dataset.train_ids[:1], folder)[0].values()
    photo = folder / place.name
    away = photo.rename(folder / "away")
    images.forget_folders()
    gone = audit.photo_rows(dataset, folder, eye, tmp_path)
    away.rename(photo)
    images.forget_folders()
    assert (gone[1:] == rows[1:]).all()
    assert not np.allclose(gone[0], rows[0], atol=0.02)
    assert (audit.photo_rows(dataset, folder, eye, tmp_path) == rows).all()


@pytest.mark.parametrize("named", ["none", "train"])
def test_products_without_ids_are_judged_and_those_of_the_training_listed(named, shop):
    _, _, dataset, _, found = shop
    part = dataclasses.replace(dataset, test_ids=None, test_titles=None)
    if named == "none":
        part = dataclasses.replace(part, train_ids=None)
    table = audit.ranked(found, part)
    trained = len(dataset.train_labels)
    assert set(table["id"]) == set(part.train_ids or map(str, range(trained)))
    assert table.index.max() < trained
    assert {id_ for ids in audit.typical(found, part).values() for id_ in ids} <= set(table["id"])


@pytest.fixture(scope="module")
def checked(shop, eye, tmp_path_factory):
    folder = tmp_path_factory.mktemp("new")
    extra = [("q1", "Hats", "photos/0.png", "A hat"), ("q2", "Red > Shirts", "photos/none.png", ""), ("", "", "", "")]
    return draw_feed(folder, 60, 1, wrong=0.3, extra=extra), check(folder, shop, eye).set_index("id")


def test_new_products_are_let_through_or_shown_with_what_fits_better(checked):
    truth, table = checked
    wrong = table.loc[[id_ for id_, (filed, real) in truth.items() if filed != real]]
    assert wrong["verdict"].isin(["look", "unlike"]).all()
    assert wrong["suggested_label"].tolist() == [truth[id_][1] for id_ in wrong.index]
    assert (wrong["chance_1"] > 0.5).all()
    right = table.loc[[id_ for id_, (filed, real) in truth.items() if filed == real]]
    assert (right["verdict"] == "fits").mean() > 0.8


def test_categories_of_one_name_are_told_apart_as_the_model_does(shop, eye, tmp_path):
    draw_feed(tmp_path, 8, 1, wrong=0)
    *rest, found = shop
    first = found.model.classes[0]
    named = found._replace(model=found.model._replace(classes=(f"{first} ({first})", *found.model.classes[1:])))
    for model in (
        named,
        found._replace(model=found.model._replace(classes=tuple(map(str.upper, found.model.classes)))),
    ):
        table = check(tmp_path, (*rest, model), eye)
        assert not (table["why"] == "a category that the model does not know").any()
        assert set(table["label"]) <= set(model.model.classes)


def test_what_cannot_be_judged_says_why(checked):
    table = checked[1]
    assert len(table) == 63
    assert table.loc["q1", ["verdict", "why"]].tolist() == ["look", "a category that the model does not know"]
    assert table.loc[["q2", ""], "verdict"].tolist() == ["unread"] * 2
    assert "missing" in table.loc["q2", "why"]


def test_a_feed_of_which_nothing_can_be_checked_says_why_and_how_to_mend_it(shop, eye, tmp_path):
    draw_feed(tmp_path, 3, 0, wrong=0)
    for photo in (tmp_path / "photos").iterdir():
        photo.unlink()
    why = r"none of 3 products can be checked; product: 3 dropped, image file missing \(--images names .*photos/"
    with pytest.raises(ConfigError, match=why):
        check(tmp_path, shop, eye)
    (tmp_path / "feed.csv").write_text("sku,label,image\n1,Hats,1.png\n")
    with pytest.raises(
        ConfigError, match=r"none of 0 .* file refused: feed.csv: no column category, id, .*mend with --rules.columns"
    ):
        check(tmp_path, shop, eye)


def test_another_backbone_is_refused(shop, eye):
    with pytest.raises(ConfigError, match="the model was made with means"):
        check(shop[0], shop, eye._replace(name="x"))
    *rest, found = shop
    own = found._replace(model=found.model._replace(backbone="own.npy"))
    with pytest.raises(ConfigError, match=r"made with features of your own, own\.npy; .*catalogue\.checking\.check"):
        check(shop[0], (*rest, own), eye)


def test_as_many_are_shown_as_are_probably_wrong(shop):
    _, _, dataset, _, found = shop
    surer = found._replace(wrong=found.wrong._replace(mean=0.5), judged=found.judged._replace(own=np.ones(240)))
    assert audit.to_look_at(surer, dataset)["id"].tolist() == audit.ranked(surer, dataset)["id"][:120].tolist()
    suspects = audit.to_look_at(found._replace(wrong=found.wrong._replace(mean=0.0)), dataset)
    assert 0 < len(suspects) < 60


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (None, "no such file"),
        (b"text", "not an .npy"),
        (np.zeros((3, 2), np.float32), r"shape \(3, 2\); expected finite numbers, a row for each of the"),
        (np.zeros(240, np.float32), "expected finite"),
        (np.full((240, 2), np.nan, np.float32), "expected finite"),
        (np.zeros((240, 2), np.int64), "int64"),
    ],
)
def test_features_of_ones_own_have_to_fit(array, message, shop, tmp_path):
    path = tmp_path / "own.npy"
    if isinstance(array, bytes):
        path.write_bytes(array)
    elif array is not None:
        np.save(path, array)
    with pytest.raises(ConfigError, match=message):
        audit.given_rows(path, shop[2])


def test_the_commands_go_from_a_feed_to_a_list_and_a_check(shop, tmp_path, monkeypatch, capsys):
    folder, truth, dataset, rows, _ = shop
    monkeypatch.chdir(tmp_path)
    np.save("own.npy", rows)
    assert catalogue.audit(dataset.name, tmp_path / "audit", top=50, features="own.npy") == 0
    said = capsys.readouterr().out
    assert "of 240 labels are wrong" in said
    first = pd.read_csv(tmp_path / "audit" / "labels.csv").iloc[0]
    assert truth[first["id"]] == (first["label"], first["suggested_label"])
    assert (tmp_path / "audit" / "review.html").exists()
    monkeypatch.setattr(f, "backbone", lambda name: f.Backbone("means", Means(), (127.0,) * 3, (64.0,) * 3, 64))
    assert catalogue.audit(dataset.name, tmp_path / "audit", images=str(folder), top=50) == 0
    out = tmp_path / "checked.csv"
    model = tmp_path / "audit" / "model.safetensors"
    assert catalogue.check(model, (folder / "feed.csv",), folder, out, rules=RULES) == 0
    verdicts = pd.read_csv(out).set_index("id")["verdict"]
    assert sum(verdicts[id_] == "look" for id_, (filed, real) in truth.items() if filed != real) > 25
    assert "fits" in capsys.readouterr().out
