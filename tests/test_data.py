"""Datasets from every source, damaged ones included, and batches against torchvision image by image."""

import os
import socket
import struct
import urllib.request
import zlib
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from refusals import refused
from torchvision.transforms import functional as tv

from elrkit import data
from elrkit.batches import DeviceImages, draw_epoch
from elrkit.data import DataError


def arrays(n=20, side=6, channels=3, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "train_images": rng.integers(0, 256, (n, side, side, channels), dtype=np.uint8),
        "train_labels": np.arange(n) % classes,
        "test_images": rng.integers(0, 256, (7, side, side, channels), dtype=np.uint8),
        "test_labels": np.arange(7) % classes,
        "class_names": np.array(["hat", "shoe", "sock"][:classes]),
    }


def load(path, **content):
    """The dataset of this content, written there first."""
    np.savez(path, **content)
    return data.load(str(path))


# Sources


def test_digits_are_scikit_learn_s():
    from sklearn.datasets import load_digits

    ours, theirs = data.load("digits"), load_digits()
    assert (ours.train_images.shape, ours.test_images.shape) == ((1347, 8, 8, 1), (450, 8, 8, 1))
    assert (ours.train_images.dtype, ours.train_labels.dtype) == (torch.uint8, torch.int64)
    assert ours.num_classes == 10
    assert ours.train_truth.equal(ours.train_labels)
    # The two parts are the whole, each image once, each with its own label.
    parts = [(ours.train_images, ours.train_labels), (ours.test_images, ours.test_labels)]
    found = sorted((i.numpy().tobytes(), int(y)) for images, labels in parts for i, y in zip(images, labels))  # noqa: B905
    images = (15 * theirs.images).astype(np.uint8)
    assert found == sorted((i.tobytes(), int(y)) for i, y in zip(images, theirs.target, strict=True))
    assert set(torch.bincount(ours.test_labels).tolist()) <= {43, 44, 45, 46}
    assert data.load("digits").fingerprint == ours.fingerprint


def test_npz(tmp_path):
    given = arrays()
    dataset = load(tmp_path / "shop.npz", **given)
    for key in ("train_images", "train_labels", "test_images", "test_labels"):
        assert getattr(dataset, key).numpy().tolist() == given[key].tolist()
    assert dataset.class_names == ("hat", "shoe", "sock")
    scaled = given["train_images"].astype(np.float64) / 255  # of the training images, per channel
    np.testing.assert_allclose(dataset.mean, scaled.mean(axis=(0, 1, 2)), rtol=1e-9)
    np.testing.assert_allclose(dataset.std, scaled.std(axis=(0, 1, 2)), rtol=1e-9)
    assert dataset.test_truth.equal(dataset.test_labels)


def test_npz_may_name_its_images(tmp_path):
    names = {f"{part}_{what}": np.array([f"{part} {what} {k}" for k in range(n)])
             for part, n in (("train", 20), ("test", 7)) for what in ("ids", "titles")}  # fmt: skip
    dataset = load(tmp_path / "shop.npz", **arrays(), **names)
    for key, expected in names.items():
        assert getattr(dataset, key) == tuple(expected.tolist())
    plain = load(tmp_path / "plain.npz", **arrays(), train_ids=names["train_ids"])
    assert plain.train_ids == dataset.train_ids
    assert plain.test_ids is plain.train_titles is plain.test_titles is None
    assert plain.fingerprint == dataset.fingerprint


def test_npz_may_hold_the_truth_and_grey_images(tmp_path):
    given = arrays(channels=1)
    truth = (given["train_labels"] + 1) % 3
    grey = {key: given[key][..., 0] for key in ("train_images", "test_images")}
    np.savez_compressed(tmp_path / "grey.npz", **given | grey, train_truth=truth)
    dataset = data.load(str(tmp_path / "grey.npz"))
    assert dataset.train_images.shape == (20, 6, 6, 1)
    assert dataset.train_truth.tolist() == truth.tolist()
    assert dataset.train_labels.tolist() == given["train_labels"].tolist()


def test_fingerprints_tell_files_and_what_accuracy_is_counted_against_apart(tmp_path):
    given, turned = arrays(), arrays()
    turned["test_labels"] = turned["test_labels"][::-1].copy()
    others = ((given["test_labels"] + 1) % 3, given["test_labels"])
    contents = [given, turned, *(given | {"test_truth": truth} for truth in others)]
    plain, other, elsewhere, same = (load(tmp_path / f"{k}.npz", **each) for k, each in enumerate(contents))
    assert plain.fingerprint == elsewhere.fingerprint == same.fingerprint != other.fingerprint
    assert plain.truth_fingerprint() is same.truth_fingerprint() is None
    assert len(elsewhere.truth_fingerprint()) == 16


def test_another_file_is_not_taken_for_cifar100(tmp_path, monkeypatch):
    monkeypatch.setenv("ELRKIT_DATA", str(tmp_path))
    np.savez(tmp_path / "cifar100.npz", **arrays())
    with refused(DataError, "cifar100.npz: 20 training images in 3 classes; CIFAR-100 has 50,000"):
        data.load("cifar100")


def test_relative_paths_are_found_here_then_below_the_root(tmp_path, monkeypatch):
    np.savez(tmp_path / "shop.npz", **arrays())
    monkeypatch.setenv("ELRKIT_DATA", str(tmp_path))
    assert len(data.load("shop.npz").train_labels) == 20
    here = tmp_path / "here"
    here.mkdir()
    np.savez(here / "shop.npz", **arrays(n=5))
    monkeypatch.chdir(here)
    assert len(data.load("shop.npz").train_labels) == 5


NO_DATASETS = {
    "train_images is float64 (20, 6, 6, 3); allowed is uint8": dict(train_images=np.zeros((20, 6, 6, 3))),
    "train_images is (20, 3, 9, 8), 8 channels; allowed is (n, H, W, C)": dict(
        train_images=np.zeros((20, 3, 9, 8), "u1")
    ),
    "class_names holds bytes, or one name twice": dict(class_names=np.array([b"a", b"b", b"c"])),
    "class_names holds bytes, or one name twice; allowed is text": dict(class_names=np.array(["a", "a", "c"])),
    "test_images is uint8 (7, 9); allowed is uint8 (n, H, W": dict(test_images=np.zeros((7, 9), np.uint8)),
    "train_labels is float64 (20,); allowed are 20 whole numbers": dict(train_labels=np.zeros(20)),
    "train_labels is int64 (19,); allowed are 20 whole numbers": dict(train_labels=np.zeros(19, int)),
    "test_labels runs from 3 to 3; allowed is 0 to 2": dict(test_labels=np.full(7, 3)),
    "train_labels runs from -1 to -1; allowed is 0 to 2": dict(train_labels=np.full(20, -1)),
    "train_truth runs from 9 to 9; allowed is 0 to 2": dict(train_truth=np.full(20, 9)),
    "training and test images differ in shape": dict(test_images=np.zeros((7, 5, 5, 3), np.uint8)),
    "test_ids has shape (2,); allowed is one for each image": dict(test_ids=np.array(["a", "b"])),
    "holds no training images": dict(train_images=np.zeros((0, 6, 6, 3), np.uint8)),
    "holds no test images": dict(test_images=np.zeros((0, 6, 6, 3), np.uint8)),
    "class_names has shape (); allowed are 2 or more names": dict(class_names=np.array("hat")),
    "class_names has shape (1,); allowed are 2 or more names": dict(class_names=np.array(["hat"])),
    "not a readable .npz of plain arrays": dict(class_names=np.array(["hat", None, 3], dtype=object)),
    "lacks test_labels; an .npz dataset holds train_images, train_labels, test_images": dict(test_labels=None),
}


@pytest.mark.parametrize("message", NO_DATASETS)
def test_npz_that_is_no_dataset(tmp_path, message):
    given = {name: array for name, array in (arrays() | NO_DATASETS[message]).items() if array is not None}
    with refused(DataError, str(tmp_path / "shop.npz"), message):
        load(tmp_path / "shop.npz", **given)


def test_damaged_and_foreign_npz(tmp_path, monkeypatch):
    monkeypatch.setenv("ELRKIT_DATA", str(tmp_path))
    path = tmp_path / "shop.npz"
    np.savez(path, **arrays())
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"hello", bytes(len(whole))):
        path.write_bytes(content)
        with refused(DataError, str(path), "not a readable .npz"):
            data.load(str(path))
    with refused(DataError, "'no/such.npz'", str(tmp_path), "check the path"):
        data.load("no/such.npz")


def save_images(folder, count, colour, size=(40, 36)):
    folder.mkdir(parents=True)
    for i in range(count):
        Image.new("RGB", size, (*colour, i)).save(folder / f"{i:03}.png")


def test_folders_of_classes_are_split_nine_to_one(tmp_path):
    save_images(tmp_path / "red", 20, (255, 0))
    save_images(tmp_path / "green", 10, (0, 255))
    (tmp_path / "green" / "notes.txt").write_text("no image")
    (tmp_path / ".hidden").mkdir()
    dataset = data.load(str(tmp_path))
    assert dataset.class_names == ("green", "red")
    assert torch.bincount(dataset.train_labels).tolist() == [9, 18]
    assert torch.bincount(dataset.test_labels).tolist() == [1, 2]
    images = torch.cat([dataset.train_images, dataset.test_images])
    labels = torch.cat([dataset.train_labels, dataset.test_labels])
    assert images.shape[1:] == (32, 32, 3)
    for image, label, id_ in zip(images, labels, dataset.train_ids + dataset.test_ids, strict=True):
        assert image[0, 0, :2].tolist() == ([0, 255] if label == 0 else [255, 0])
        assert id_ == f"{dataset.class_names[label]}/{image[0, 0, 2]:03}.png"  # the blue is the file's number
    assert sorted(images[:, 0, 0, 2].tolist()) == sorted([*range(20), *range(10)])  # every image once
    assert data.load(str(tmp_path)).fingerprint == dataset.fingerprint


def test_folders_train_and_test_are_taken_as_they_are(tmp_path):
    for part, count in (("train", 3), ("test", 2)):
        save_images(tmp_path / part / "a", count, (255, 0))
        save_images(tmp_path / part / "b", count, (0, 255))
    dataset = data.load(f"{tmp_path}/")
    assert (len(dataset.train_labels), len(dataset.test_labels)) == (6, 4)
    assert dataset.train_ids == tuple(f"train/{name}/{k:03}.png" for name in "ab" for k in range(3))
    assert dataset.test_ids == tuple(f"test/{name}/{k:03}.png" for name in "ab" for k in range(2))


@pytest.mark.parametrize("size", [(64, 32), (32, 64), (33, 200), (1, 1), (500, 3)])
def test_images_are_scaled_on_the_short_side_and_centre_cropped(tmp_path, size):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    ours = data._read_image(tmp_path / "x.png")
    assert ours.shape == (32, 32, 3)
    if min(size) == 32:  # no scaling: the middle of the image
        left, top = (size[0] - 32) // 2, (size[1] - 32) // 2
        assert (ours == pixels[top : top + 32, left : left + 32]).all()


def torn_png():
    """One for which Pillow raises a SyntaxError."""
    chunk = struct.pack(">I", 13) + b"IHDR" + struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    checksum = struct.pack(">I", zlib.crc32(chunk[4:]))
    return b"\x89PNG\r\n\x1a\n" + chunk + checksum + b"\0\0\0\x09\x80\x81\x82\x83"


UNREADABLE = "not a readable image"
FOLDERS = {  # pictures in each folder, or the bytes of a file; what is said
    "none": ({}, ("0 class folders with images (", ".png", "); put the images")),
    "one class": ({"a": 2, "b": 0}, ("1 class folders with images",)),
    "too few": ({"a": 2, "c": 2}, ("fewer than 10 images in every class",)),
    "a torn photo": ({"a": 2, "b/torn.jpg": b"\xff\xd8\xff\xe0 torn"}, (f"torn.jpg: {UNREADABLE}", "mend or remove")),
    "a torn picture": ({"a": 2, "b/torn.png": torn_png()}, (f"torn.png: {UNREADABLE}",)),
    "an empty test": ({"train/a": 2, "train/b": 2, "test": 0}, ("no images (", ".png", ") in its class folders")),
    "other names in the test": (
        {"train/a": 2, "train/b": 2, "test/A": 2, "test/b": 2},
        ("/test: A: no such class in ", "/train; name both alike"),
    ),
}


@pytest.mark.parametrize(("content", "said"), FOLDERS.values(), ids=FOLDERS)
def test_a_folder_that_is_no_dataset_is_told_by_name(content, said, tmp_path):
    for name, what in content.items():
        if isinstance(what, int):
            save_images(tmp_path / name, what, (255, 0))
        else:
            (tmp_path / name).parent.mkdir()
            (tmp_path / name).write_bytes(what)
    with refused(DataError, *said):
        data.load(f"{tmp_path}/")


def test_pictures_of_a_folder_are_read_as_a_feed_s_are(tmp_path):
    """By one function, so that of what it converts one kind tells: transparency is white."""
    clear = np.zeros((40, 40, 4), np.uint8)
    clear[10:30, 10:30] = 255, 0, 0, 255
    Image.fromarray(clear).save(tmp_path / "clear.png")
    assert data._read_image(tmp_path / "clear.png")[[0, 16], [0, 16]].tolist() == [[255] * 3, [255, 0, 0]]


def test_folders_in_a_class_are_the_class_s_and_one_without_images_is_none(tmp_path):
    for name in ("a", "b/x", "b/y"):
        save_images(tmp_path / name, 10, (255, 0))
    (tmp_path / "audit").mkdir()
    dataset = data.load(str(tmp_path))
    assert dataset.class_names == ("a", "b")
    assert torch.cat([dataset.train_labels, dataset.test_labels]).bincount().tolist() == [10, 20]


@pytest.mark.parametrize(
    ("name", "folder", "damaged"),
    [
        ("cifar10", "cifar-10-batches-py", False),
        ("cifar10", "cifar-10-batches-py", True),
        ("cifar100", "cifar-100-python", False),
    ],
)
def test_without_network_and_data_it_says_which_file_to_put_where(tmp_path, monkeypatch, name, folder, damaged):
    def no_network(*args, **kwargs):
        raise URLError(socket.gaierror(-3, "Temporary failure in name resolution"))

    archive = name.replace("cifar", "cifar-") + "-python.tar.gz"
    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    root = tmp_path / "data"
    monkeypatch.setenv("ELRKIT_DATA", str(root))
    if damaged:
        (root / folder).mkdir(parents=True)
        (root / folder / "data_batch_1").write_bytes(b"not the published bytes")
    said = (f"{name}: not found (or damaged) in {root}", archive, "MD5", folder, "ELRKIT_DATA", "name resolution")
    with refused(DataError, *said):
        data.load(name)


def test_data_root(monkeypatch):  # where ELRKIT_DATA names it, see above
    monkeypatch.setenv("ELRKIT_DATA", "~/elsewhere")
    assert data.data_root() == Path.home() / "elsewhere"
    monkeypatch.delenv("ELRKIT_DATA", raising=False)
    assert data.data_root() == Path.home() / ".cache" / "elrkit"


def real(*names):
    root = os.environ.get("ELRKIT_DATA")
    if not root or not any((Path(root) / name).exists() for name in names):
        pytest.skip(f"ELRKIT_DATA holds no {' or '.join(names)}")


def test_real_cifar10_matches_its_published_normalization():
    real("cifar-10-batches-py")
    dataset = data.load("cifar10")
    assert (dataset.train_images.shape, dataset.test_images.shape) == ((50_000, 32, 32, 3), (10_000, 32, 32, 3))
    assert torch.bincount(dataset.train_labels).tolist() == [5_000] * 10
    assert dataset.class_names[:4] == ("airplane", "automobile", "bird", "cat")
    np.testing.assert_allclose(data._mean_and_deviation(dataset.train_images)[0], dataset.mean, atol=2e-4)


def test_real_cifar100_has_500_images_a_class():
    real("cifar100.npz", "cifar-100-python")
    dataset = data.load("cifar100")
    assert torch.bincount(dataset.train_labels).tolist() == [500] * 100
    assert torch.bincount(dataset.test_labels).tolist() == [100] * 100


# Batches


def draws(b, padding, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randint(0, 2 * padding + 1, (b, 2), generator=g), torch.rand(b, generator=g) < 0.5


@settings(max_examples=25, deadline=None)
@given(
    size=st.tuples(st.integers(2, 9), st.integers(2, 9), st.sampled_from([1, 3])), padding=st.integers(1, 4),
    crop=st.booleans(), mirror=st.booleans(), seed=st.integers(0, 2**31),
)  # fmt: skip
def test_batches_are_torchvision_s_crop_flip_normalize(size, padding, crop, mirror, seed):
    height, width, channels = size
    g = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (11, height, width, channels), generator=g, dtype=torch.uint8)
    mean, std = (0.5, 0.4, 0.3)[:channels], (0.2, 0.25, 0.3)[:channels]
    index = torch.randperm(11, generator=g)[:7]
    corner, flip = draws(7, padding, seed)
    drawn = corner if crop else None, flip if mirror else None
    batch = DeviceImages(images, mean, std, "cpu", padding).batch(index, *drawn)
    assert (batch.shape, batch.dtype) == ((7, channels, height, width), torch.float32)
    for b, i in enumerate(index.tolist()):
        image = images[i].permute(2, 0, 1)
        if crop:
            image = tv.crop(tv.pad(image, [padding]), *corner[b].tolist(), height, width)
        if mirror and flip[b]:
            image = tv.hflip(image)
        expected = tv.normalize(image.float() / 255, mean, std)
        torch.testing.assert_close(batch[b], expected, atol=1e-5, rtol=1e-5)


def test_batches_are_channels_last_and_do_not_alias_the_images():
    images = torch.randint(0, 256, (4, 8, 8, 3), dtype=torch.uint8)
    store = DeviceImages(images, (0.5,) * 3, (0.2,) * 3, "cpu", 1)
    assert len(store) == 4
    for corner, flip in ((None, None), draws(4, 1)):
        batch = store.batch(torch.arange(4), corner, flip)
        assert batch.is_contiguous(memory_format=torch.channels_last)
        kept = batch.clone()
        batch.zero_()
        assert store.batch(torch.arange(4), corner, flip).equal(kept)


@pytest.mark.parametrize("augmentation", ["fresh", "frozen", "flip", "none"])
def test_an_epoch_s_draws_are_a_pure_function(augmentation):
    drawn = []
    for seed in (0, 1):
        state = torch.manual_seed(seed).get_state()
        drawn.append(draw_epoch(500, 3, 7, augmentation, 4))
        assert torch.get_rng_state().equal(state)
    first, again = drawn
    for a, b in zip(first, again, strict=True):
        assert (a is None and b is None) or a.equal(b)
    assert first.order.sort().values.equal(torch.arange(500))
    other_epoch, other_seed = draw_epoch(500, 3, 8, augmentation, 4), draw_epoch(500, 4, 7, augmentation, 4)
    assert not first.order.equal(other_epoch.order)
    assert not first.order.equal(other_seed.order)
    assert (first.corner is None) == (augmentation in ("flip", "none"))
    assert (first.flip is None) == (augmentation == "none")
    if augmentation == "frozen":
        assert first.corner.equal(other_epoch.corner)
        assert first.flip.equal(other_epoch.flip)
        assert not first.corner.equal(other_seed.corner)
    elif augmentation != "none":
        assert not first.flip.equal(other_epoch.flip)


def test_crops_and_flips_are_uniform():
    drawn = draw_epoch(81_000, 0, 0, "fresh", 4)
    cells = torch.bincount(drawn.corner[:, 0] * 9 + drawn.corner[:, 1], minlength=81)
    assert len(cells) == 81
    assert (cells - 1000).abs().max() < 5.5 * 1000**0.5
    assert abs(drawn.flip.double().mean().item() - 0.5) < 5.5 * 0.5 / 81_000**0.5


def test_a_replaced_file_is_another_state_on_disk(tmp_path):
    assert data.state_on_disk("cifar10") == ()
    with pytest.raises(data.DataError, match="no such file or folder"):
        data.state_on_disk(str(tmp_path / "gone.npz"))
    shown = tmp_path / "shop" / "cups" / "small"
    shown.mkdir(parents=True)
    states = []

    for content in ("", b"1", b"12", None):  # of nothing, a picture, another one, and none again
        if content:
            (shown / "1.png").write_bytes(content)
        elif content is None:
            (shown / "1.png").unlink()
        states.append(data.state_on_disk(str(tmp_path / "shop")))
        assert states[-1] == data.state_on_disk(str(tmp_path / "shop"))
    assert len(set(states)) == 4
