"""Shops of known faults: what was put in comes out, runs are measured on both kinds of test products, work resumes."""

import csv
import json
import logging
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from elrkit import data, records, runner, train
from elrkit.__main__ import main
from elrkit.config import ConfigError, RunConfig
from elrkit.report import cleaning
from elrkit.report import made_shops as shop
from elrkit.report.made_shops import Shop

LEAKY = Shop("digits", "product", 60, 0)
APART = Shop("digits", "group", 60, 0)
SAMPLE = Path(__file__).parent.parent / "notebooks" / "clothing"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two shops of digits, made, trained for two epochs and measured, in folders of their own."""
    folder = tmp_path_factory.mktemp("shops")
    with pytest.MonkeyPatch.context() as patch:
        _enter(folder, patch)
        assert shop.run([LEAKY, APART], epochs=2) == []
    return folder


@pytest.fixture
def store(made, monkeypatch):
    _enter(made, monkeypatch)
    return made


def _enter(folder, patch):
    patch.setenv("ELRKIT_DATA", str(folder / "data"))
    patch.setenv("ELRKIT_RESULTS", str(folder / "results" / "runs"))
    patch.setenv("ELRKIT_STATE", str(folder / "state"))


@pytest.mark.parametrize("leak", [0.0, 0.2, 0.6])
def test_share_of_variants_gives_the_leak_asked_for(leak):
    rng = np.random.default_rng(0)
    n = 200_000
    variants = round(shop.variants_for(leak) * n)
    article = np.concatenate([np.arange(n - variants), rng.integers(n - variants, size=variants)])
    test = rng.random(n) < 0.1
    leaked = np.isin(article[test], article[~test]).mean()
    assert leaked == pytest.approx(leak, abs=0.01)


@pytest.mark.parametrize("leak", [-0.1, 1.0])
def test_an_impossible_leak_is_refused(leak):
    with pytest.raises(ConfigError, match="allowed is a share from 0 to below 1"):
        shop.variants_for(leak)


def test_the_truth_of_a_shop_is_what_its_photos_show(store):
    dataset = data.load(LEAKY.dataset)
    original = data.load("digits")
    photos = torch.cat([original.train_images, original.test_images]).reshape(1797, -1).float()
    shown = torch.cat([original.train_labels, original.test_labels])
    # The green channel of a tinted variant is a scaled photo, so directions are compared.
    imported = dataset.train_images[..., 1].reshape(len(dataset.train_images), -1).float()
    cosine = torch.nn.functional.normalize(imported) @ torch.nn.functional.normalize(photos).T
    nearest = shown[cosine.argmax(dim=1)]
    assert (nearest == dataset.train_truth).double().mean() > 0.97
    assert (nearest == dataset.train_labels).double().mean() < 0.9


def test_a_summary_says_what_the_dataset_holds(store):
    for each in (LEAKY, APART):
        summary, dataset = shop.read(shop.summary_path(each)), data.load(each.dataset)
        assert summary["fingerprint"] == dataset.fingerprint()
        assert summary["put_in"]["misfiled"] == 0.15
        wrong = [(dataset.train_labels != dataset.train_truth).sum(), (dataset.test_labels != dataset.test_truth).sum()]
        assert sum(wrong) == 0.15 * 1700
        assert summary["test"]["wrong"] == pytest.approx(wrong[1].item() / len(dataset.test_labels), abs=1e-6)


def test_near_duplicates_straddle_the_split_by_product_alone(store):
    by_product, by_group = (shop.read(shop.summary_path(each))["test"] for each in (LEAKY, APART))
    assert by_product["near_duplicate_in_train"] == pytest.approx(0.6, abs=0.1)
    # Of digits the import goes by titles, which tell the articles exactly: an independent count.
    assert by_product["near_duplicate_in_train_by_import"] == pytest.approx(by_product["near_duplicate_in_train"], 1e-5)
    assert by_group["near_duplicate_in_train"] == by_group["near_duplicate_in_train_by_import"] == 0


def test_the_two_parts_of_the_test_set_add_up_to_the_record(store):
    table = shop.table([LEAKY, APART], epochs=2).set_index(["split", "arm"])
    assert list(table.loc["product"].index) == list(shop.ARMS)
    for _, row in table.loc["product"].iterrows():
        share = row["near_duplicates"]
        for what in ("agreement", "accuracy"):
            whole = share * row[f"{what}_leaked"] + (1 - share) * row[f"{what}_apart"]
            assert whole == pytest.approx(row[what], abs=1e-5)
    apart = table.loc["group"]
    assert apart["agreement_leaked"].isna().all()
    assert np.allclose(apart["agreement_apart"], apart["agreement"], atol=1e-5)


def test_a_run_that_diverged_keeps_no_other_from_being_measured(tmp_path, monkeypatch):
    _enter(tmp_path, monkeypatch)
    real = shop.configs

    def configs(one, epochs=None):
        found = real(one, epochs)
        return found | {"ELR": found["ELR"].with_(lr=1e30)}

    monkeypatch.setattr(shop, "configs", configs)
    assert shop.run([APART], epochs=1) == []
    measured = shop.read(shop.summary_path(APART))["runs"]
    assert set(measured) == {config.run_id for arm, config in real(APART, 1).items() if arm != "ELR"}


def test_the_list_is_measured_on_the_training_products(store):
    """The first 10 % of the list, counted by hand from the run's targets and the shop's truth."""
    config = shop.configs(APART, 2)["ELR"]
    dataset = data.load(APART.dataset)
    targets = train.load_outcome(records.state_dir(config))["targets"]
    given, wrong = dataset.train_labels, (dataset.train_labels != dataset.train_truth).numpy()
    shares = targets / targets.sum(dim=1, keepdim=True)
    balanced = shares / torch.stack([shares[given == k, k].mean() for k in range(10)])
    own = (balanced / balanced.sum(dim=1, keepdim=True)).gather(1, given[:, None])[:, 0]
    first = torch.argsort(own)[: round(0.1 * len(given))].numpy()
    found = shop.read(shop.summary_path(APART))["runs"][config.run_id]["list"]
    assert found["precision_at_10"] == pytest.approx(wrong[first].mean(), abs=0.01)
    assert found["wrong_share"] == pytest.approx(wrong.mean(), abs=1e-6)
    table = shop.lists([LEAKY, APART], 2)
    assert list(zip(table["split by"], table["run"], strict=True)) == [
        (split, arm) for split in ("product", "group") for arm in ("ELR", "ELR + SAM")
    ]
    assert table["first 10 %"].iloc[2] == f"{100 * found['precision_at_10']:.1f}"
    assert shop.lists([Shop("digits", "group", 60, 9)], 2).empty


def test_a_gallery_row_holds_what_it_is_called(store):
    found = shop.load_gallery(APART)
    label, prediction, truth = (found[name] for name in ("label", "prediction", "truth"))
    wants = (
        (label != truth) & (prediction == truth),
        (label != truth) & (prediction == label),
        (label == truth) & (prediction != truth),
        (label == truth) & (prediction == truth),
    )
    assert len(found["images"]) == len(label) > 0
    for name, right in zip(shop.GALLERY, wants, strict=True):
        assert right[found["row"] == name].all()
    assert shop.gallery_path(APART).stat().st_size < 60_000
    assert "CC BY" in str(found["licence"])


def test_nothing_is_made_or_trained_twice(store, monkeypatch):
    monkeypatch.setattr(shop, "make", lambda *_: pytest.fail("made again"))
    monkeypatch.setattr(runner, "train_missing", lambda *_, **__: pytest.fail("trained again"))
    before = shop.summary_path(LEAKY).read_bytes()
    assert shop.run([LEAKY, APART], epochs=2) == []
    assert shop.summary_path(LEAKY).read_bytes() == before


def test_a_shop_made_otherwise_is_not_taken_for_the_one_described(store, tmp_path, monkeypatch):
    summary = shop.read(shop.summary_path(LEAKY))
    monkeypatch.setenv("ELRKIT_RESULTS", str(tmp_path / "results" / "runs"))
    shop.folder().mkdir(parents=True)
    shop.summary_path(LEAKY).write_text(json.dumps(summary | {"fingerprint": "0" * 16}))
    before = (data.data_root() / LEAKY.dataset).read_bytes()
    with pytest.raises(data.DataError, match=r"made here with .* is not what .* describes") as caught:
        shop.make(LEAKY)
    assert "\n" not in str(caught.value)
    assert (data.data_root() / LEAKY.dataset).read_bytes() == before


def test_a_shop_without_its_photos_is_passed_over(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("ELRKIT_DATA", str(tmp_path))
    with caplog.at_level(logging.WARNING):
        left = shop.run([Shop("clothing", "group", 0, 9)])
    assert len(left) == len(shop.ARMS)
    assert "passed over (clothing: no folder" in caplog.text


def test_every_subcategory_of_the_clothing_feed_has_siblings_or_is_left_out():
    counts = Counter(shop.CLOTHING_MAIN.values())
    assert min(counts.values()) > 1
    # What the feed's sample holds beside these has fewer photos than the rules ask for, in the whole feed too.
    names = set()
    for path in (SAMPLE / "feeds").iterdir():
        with path.open(encoding="utf-8") as file:
            names |= {row["subcategory"] for row in csv.DictReader(file)}
    assert names - shop.CLOTHING_MAIN.keys() - set(shop.CLOTHING_RULES.drop_labels) <= {"Blouse", "Top"}


def test_the_names_that_run_ids_hash_know_no_machine():
    chosen = shop.shops("cpu", [0])
    assert [each.dataset for each in chosen] == [
        *(f"shop/cpu-product-{leak}-0.npz" for leak in (0, 20, 40, 60)),
        "shop/cpu-group-60-0.npz",
        "shop/clothing-group-0-0.npz",
    ]
    assert shop.shops("cpu", [0, 0]) == chosen
    configs = shop.configs(chosen[0])
    assert [(c.loss, c.sam_rho) for c in configs.values()] == [("ce", 0), ("elr", 0), ("elr", 0.05)]
    assert (configs["ELR"].beta, configs["ELR"].lam, configs["ELR"].schedule) == (0.9, 7, "cosine")
    assert {c.augmentation for c in configs.values()} == {"none"}
    assert all(c.epochs == 150 and c.model == "resnet34" for c in shop.configs(shop.shops("paper")[0]).values())


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((["huge"]), "scale='huge': allowed are cpu, paper, digits"),
        ((["cpu", [0], [120]]), r"leaks=\[120\]: allowed are whole percents"),
    ],
)
def test_shops_that_cannot_be_are_named(arguments, line):
    with pytest.raises(ConfigError, match=line):
        shop.shops(*arguments)


def test_commands_report_what_is_missing(store, capsys):
    assert main(["shop", "--scale", "digits", "--seeds", "0", "--leaks", "60", "--budget", "0s"]) == 0
    assert "of 6 runs 6 still missing" in capsys.readouterr().out
    assert main(["clean", "--scale", "digits", "--seeds", "0", "--budget", "0s"]) == 0
    assert "0 of 7 fine-tunings" in capsys.readouterr().out


# ---------------------------------------------------------------------------------------------- clean and go on

SHORT = dict(loss="elr", noise_rate=0.4, train_size=300, batch_size=50, lr=0.02)


def test_clean_says_that_the_weights_are_elsewhere(store, digits, monkeypatch, capsys):
    """A record may come from another machine, and the network that it is about stays there."""
    base = RunConfig(**SHORT, epochs=1)
    monkeypatch.setattr(cleaning, "base_run", lambda scale, seed: base)
    records.save(train.fit(base, dataset=digits))
    assert main(["clean", "--scale", "digits", "--seeds", "0"]) == 0
    said = capsys.readouterr().out
    assert "0 of 7 fine-tunings; its record is from another machine" in said
    assert str(records.state_dir(base)) in said


def test_going_on_from_weights_is_what_training_on_would_have_been(tmp_path, digits, monkeypatch):
    # Without momentum an epoch depends on weights, targets and draws alone, so one epoch and one more must be two.
    config = RunConfig(**SHORT, epochs=1, momentum=0.0)
    whole = train.fit(config.with_(epochs=2), dataset=digits)
    train.fit(config, dataset=digits, state_dir=tmp_path)
    draw = data.draw_epoch
    monkeypatch.setattr(data, "draw_epoch", lambda n, seed, epoch, *rest: draw(n, seed, epoch + 1, *rest))
    problem = train.set_up(config, digits)
    curves = train.fine_tune(config, digits, problem, train.load_outcome(tmp_path))
    expected = {name: column[1] for name, column in whole["curves"].items() if name != "epoch"}
    assert {name: column[0] for name, column in curves.items() if name != "epoch"} == expected


def test_going_on_with_other_images_is_refused(tmp_path, digits):
    config = RunConfig(**SHORT, epochs=1)
    train.fit(config, dataset=digits, state_dir=tmp_path)
    other = train.set_up(config.with_(noise_seed=1), digits)
    with pytest.raises(ValueError, match="was trained on other images"):
        train.fine_tune(config, digits, other, train.load_outcome(tmp_path))


def test_predictions_on_the_test_set_are_the_records(tmp_path, digits):
    config = RunConfig(**SHORT, epochs=1)
    record = train.fit(config, dataset=digits, state_dir=tmp_path)
    predicted = train.predict_test(config, digits, train.load_outcome(tmp_path)).argmax(dim=1)
    assert (predicted == digits.test_truth).double().mean().item() == record["curves"]["test_top1"][-1]


# ---------------------------------------------------------------------------------------------- the sample feed


def test_the_sample_is_small_and_free():
    files = [path for path in SAMPLE.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 2_000_000
    assert sum(len(path.read_text().splitlines()) - 1 for path in SAMPLE.glob("feeds/*.csv")) <= 300
    assert "CC0 1.0 Universal" in (SAMPLE / "LICENSE").read_text()
    assert "CC0" in (SAMPLE / "README.md").read_text()
