"""Datasets as uint8 arrays: the built-in ones, an .npz, a folder of class folders, an imported catalogue."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from elrkit.config import BUILT_IN_TRAIN_SIZES
from elrkit.records import data_root as data_root

# Per-channel mean and deviation of the training images scaled to [0, 1], as used by Liu et al.'s code.
CIFAR = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
}
OF_EACH = ("ids", "titles", "filed")  # texts that a dataset may hold of each image
REQUIRED = ("train_images", "train_labels", "test_images", "test_labels", "class_names")

FOLDER_IMAGE_SIDE = 32
BLOCK = 1024  # pictures that are summed at once
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}


class DataError(ValueError):
    """Data that are missing or cannot be used; one line that says what, where and how to mend it."""


class UnreadableImage(DataError):
    """An image of a class folder that cannot be read."""


@dataclass(frozen=True)
class Pictures:
    """What n products show: `images` (m, H, W, C) uint8, perhaps mapped from a file; `of` (n,), which one is whose."""

    images: NDArray[np.uint8]
    of: NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self.of), *self.images.shape[1:]

    def __getitem__(self, number: Any) -> NDArray[np.uint8]:
        return self.images[self.of[number]]


def one_each(images: Tensor | NDArray[np.uint8]) -> Pictures:
    """Images (n, H, W, C), or (n, H, W) in grey, of which each product has its own."""
    pixels = np.asarray(images)
    return Pictures(pixels if pixels.ndim == 4 else pixels[..., None], np.arange(len(pixels)))


@dataclass(frozen=True)
class Dataset:
    """Pictures and labels (n,) int64, all on the CPU.

    `train_images` and `test_images` are the pictures as (n, H, W, C) uint8, read when they are first asked for.
    `train_truth` and `test_truth` are the true labels; where nobody knows better they are the labels themselves.
    `mean` and `std` are per channel, of images scaled to [0, 1]. Ids (a feed's product ids, a folder's file names) name
    the images where they have names, each one image; titles say what is on them. Where a person's decisions have
    changed labels, `filed` are the categories that the images were filed under before.
    """

    name: str
    train_pictures: Pictures
    train_labels: Tensor
    test_pictures: Pictures
    test_labels: Tensor
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    train_truth: Tensor
    test_truth: Tensor
    train_ids: tuple[str, ...] | None = None
    test_ids: tuple[str, ...] | None = None
    train_titles: tuple[str, ...] | None = None
    test_titles: tuple[str, ...] | None = None
    train_filed: tuple[str, ...] | None = None
    test_filed: tuple[str, ...] | None = None

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @cached_property
    def train_images(self) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(self.train_pictures[:]))

    @cached_property
    def test_images(self) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(self.test_pictures[:]))

    def of_all(self, what: str) -> list[str]:
        """The ids, titles or filed of training images, then test images; of a part that has none, none."""
        return [each for part in ("train", "test") for each in getattr(self, f"{part}_{what}") or ()]

    def picture(self, number: int) -> NDArray[np.uint8]:
        """The picture (H, W, C) at a place, training images first, then test images."""
        train = len(self.train_labels)
        return self.train_pictures[number] if number < train else self.test_pictures[number - train]

    @cached_property  # asked for each run of a plan
    def fingerprint(self) -> str:
        """16 hex digits of SHA-256 over all images and labels, to tell files of the same name apart."""
        digest = hashlib.sha256()
        for part in (self.train_images, self.train_labels, self.test_images, self.test_labels, self.train_truth):
            digest.update(np.ascontiguousarray(part.numpy()).reshape(-1).view(np.uint8).data)
        return digest.hexdigest()[:16]

    def truth_fingerprint(self) -> str | None:
        """As `fingerprint`, of the true test labels, which accuracy is counted against; None where they are the test
        labels."""
        if torch.equal(self.test_truth, self.test_labels):
            return None
        return hashlib.sha256(self.test_truth.numpy().tobytes()).hexdigest()[:16]


def load(name: str) -> Dataset:
    """Load `digits` (no download), `cifar10`, `cifar100`, an .npz file, or a folder of class folders.

    CIFAR is read through torchvision, checksums included, from `data_root`, and downloaded into it when it
    is not there; `cifar100` may also be a file cifar100.npz there. A relative path is looked up in the current folder,
    then below `data_root`. An .npz holds train_images, train_labels, test_images, test_labels and class_names, and may
    hold train_truth, test_truth, and ids, titles and what was filed of either part. A folder holds one folder per
    class, or `train` and `test` with one folder per class each; images are scaled to 32 pixels on the short side and
    centre-cropped. Raises DataError.
    """
    root = data_root()
    if name == "digits":
        return _digits()
    if name in CIFAR:
        archive = root / "cifar100.npz"
        if name == "cifar10" or not archive.exists() or (root / "cifar-100-python").exists():
            return _cifar(name, root)
        dataset = _sound(archive, name, _npz(archive))
        if (dataset.train_images.shape, dataset.num_classes) != ((50_000, 32, 32, 3), 100):
            raise DataError(
                f"{archive}: {len(dataset.train_images):,} training images in {dataset.num_classes} classes; CIFAR-100 "
                "has 50,000 of 32 by 32 pixels in 100. Give data of your own another name"
            )
        return dataset
    path = own_path(name)
    if is_class_folders(path):
        return _folders(path, name)
    return _sound(path, name, _imported(path) if is_import(path) else _npz(path))


def state_on_disk(name: str) -> tuple[int, ...]:
    """Number, sizes and newest time of the files behind a dataset, which change when one of them is replaced; of the
    built-in datasets nothing, as theirs have checksums. Raises DataError."""
    if name in BUILT_IN_TRAIN_SIZES:
        return ()
    path = own_path(name)
    found = [entry.stat() for entry in (path, *(path.rglob("*") if path.is_dir() else ()))]
    return len(found), sum(entry.st_size for entry in found), max(entry.st_mtime_ns for entry in found)


def own_path(name: str) -> Path:
    """Where a dataset that is none of the built-in ones lies: its file or folder. Raises DataError."""
    path = Path(name).expanduser()
    if not path.exists() and not path.is_absolute():
        path = data_root() / path
    if not path.exists():
        raise DataError(f"dataset {name!r}: no such file or folder here or below {data_root()}; check the path")
    return path


def _make(name: str, arrays: Mapping[str, Any]) -> Dataset:
    """The dataset of arrays under the names that an .npz gives them, without further checks."""
    fields: dict[str, Any] = {"class_names": tuple(map(str, arrays["class_names"]))}
    for part in ("train", "test"):
        pictures = arrays[f"{part}_images"]
        fields[f"{part}_pictures"] = pictures if isinstance(pictures, Pictures) else one_each(pictures)
        for what in ("labels", "truth"):
            labels = arrays.get(f"{part}_{what}", arrays[f"{part}_labels"])
            fields[f"{part}_{what}"] = torch.from_numpy(np.asarray(labels).astype(np.int64))
        for key in {f"{part}_{what}" for what in OF_EACH} & arrays.keys():
            fields[key] = tuple(map(str, arrays[key].tolist()))
    mean, std = CIFAR.get(name) or _mean_and_deviation(fields["train_pictures"])
    return Dataset(name, mean=mean, std=std, **fields)


def _mean_and_deviation(pictures: Pictures) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Per channel, of images scaled to [0, 1]; each picture counts as often as it is used."""
    images, used = pictures.images, np.bincount(pictures.of, minlength=len(pictures.images))
    sums = np.zeros((2, images.shape[-1]), np.int64)  # exact, so that no order of summation changes the constants
    for start in range(0, len(images), BLOCK):
        values = images[start : start + BLOCK].astype(np.int64).reshape(-1, images[0, ..., 0].size, images.shape[-1])
        sums += [used[start : start + BLOCK] @ power.sum(1) for power in (values, values**2)]
    mean, square = sums / np.prod(pictures.shape[:3])
    return tuple((mean / 255).tolist()), tuple((np.sqrt(np.maximum(square - mean**2, 1e-6)) / 255).tolist())


def _digits() -> Dataset:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    pixels = (images.reshape(-1, 8, 8, 1) * 15).astype(np.uint8)  # 0..16 -> 0..240
    train, test = train_test_split(np.arange(len(labels)), test_size=450, stratify=labels, random_state=0)
    parts = pixels[train], labels[train], pixels[test], labels[test], range(10)
    return _make("digits", dict(zip(REQUIRED, parts, strict=True)))


def _cifar(name: str, root: Path) -> Dataset:
    from torchvision import datasets

    source = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]

    def parts(download: bool) -> list[Any]:
        return [source(root, train=train, download=download) for train in (True, False)]

    try:
        train, test = parts(download=False)
    except RuntimeError:  # torchvision: not found or corrupted
        try:
            root.mkdir(parents=True, exist_ok=True)
            train, test = parts(download=True)
        except (OSError, RuntimeError) as error:  # URLError and timeouts are OSErrors
            reason = str(error).splitlines()[0]
            raise DataError(
                f"{name}: not found (or damaged) in {root} and not downloaded ({reason}); put {source.filename} "
                f"(MD5 {source.tgz_md5}) or its folder {source.base_folder} there, or set ELRKIT_DATA"
            ) from None
    loaded = train.data, train.targets, test.data, test.targets, train.classes
    return _make(name, dict(zip(REQUIRED, loaded, strict=True)))


def _sound(path: Path, name: str, arrays: Mapping[str, Any]) -> Dataset:
    if fault := next(_faults(arrays), None):
        raise DataError(f"{path}: {fault}")
    return _make(name, arrays)


def _npz(path: Path) -> Mapping[str, Any]:
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except OSError as error:
        raise DataError(f"{path}: not readable ({error.strerror or error})") from None
    except MemoryError as error:
        raise DataError(f"{path}: does not fit into memory ({error}), or is damaged") from None
    except Exception:  # numpy raises many kinds for damaged archives, and advises to execute what it could not read
        raise DataError(f"{path}: not a readable .npz of plain arrays") from None


def is_import(path: Path) -> bool:
    """Whether a folder is what an import of a feed wrote."""
    return (path / "manifest.json").is_file() and (path / "pictures.npy").is_file()


def is_class_folders(path: Path) -> bool:
    """Whether a path is a folder of a person's own images, one folder for each class."""
    return path.is_dir() and not is_import(path)


def _imported(path: Path) -> Mapping[str, Any]:
    """The folder of an import: an .npy for each array, mapped, and a picture that products share once."""
    try:
        arrays: dict[str, Any] = {file.stem: np.load(file, "r", allow_pickle=False) for file in path.glob("*.npy")}
        for part in ("train", "test"):
            of = arrays[f"{part}_picture"]
            if of.ndim != 1 or not (0 <= of.min(initial=0) <= of.max(initial=0) < len(arrays["pictures"])):
                raise ValueError
            arrays[f"{part}_images"] = Pictures(arrays["pictures"], of)
        return arrays
    except OSError as error:
        raise DataError(f"{path}: not readable ({error.strerror or error}); import the feed again") from None
    except Exception:  # numpy raises many kinds for damaged files
        raise DataError(f"{path}: what an import wrote there is damaged or incomplete; import the feed again") from None


def _faults(arrays: Mapping[str, Any]) -> Iterator[str]:
    """What keeps these arrays from being a dataset; what follows a fault may assume that it is none."""
    if missing := [key for key in REQUIRED if key not in arrays]:
        yield f"lacks {', '.join(missing)}; an .npz dataset holds {', '.join(REQUIRED)}"
    names = arrays["class_names"]
    if names.ndim != 1 or len(names) < 2:
        yield f"class_names has shape {names.shape}; allowed are 2 or more names"
    if names.dtype.kind == "S" or len(set(names.tolist())) < len(names):
        yield "class_names holds bytes, or one name twice; allowed is text, a name for each class"
    for part, described in (("train", "training"), ("test", "test")):
        images, n = arrays[f"{part}_images"], arrays[f"{part}_images"].shape[:1]
        kind = images.images.dtype if isinstance(images, Pictures) else images.dtype
        if kind != np.uint8 or len(images.shape) not in (3, 4):
            yield f"{part}_images is {kind} {images.shape}; allowed is uint8 (n, H, W, C)"
        if len(images.shape) == 4 and not 1 <= images.shape[3] <= 4:
            yield f"{part}_images is {images.shape}, {images.shape[3]} channels; allowed is (n, H, W, C), 1 to 4"
        if n == (0,):
            yield f"holds no {described} images"
        for key in (f"{part}_labels", f"{part}_truth"):
            y = arrays.get(key, arrays[f"{part}_labels"])
            if y.shape != n or not np.issubdtype(y.dtype, np.integer):
                yield f"{key} is {y.dtype} {y.shape}; allowed are {n[0]} whole numbers"
            if not (y.min() >= 0 and y.max() < len(names)):
                yield f"{key} runs from {y.min()} to {y.max()}; allowed is 0 to {len(names) - 1}"
        for key in {f"{part}_{what}" for what in OF_EACH} & arrays.keys():
            if arrays[key].shape != n:
                yield f"{key} has shape {arrays[key].shape}; allowed is one for each image"
    if arrays["train_images"].shape[1:] != arrays["test_images"].shape[1:]:
        yield "training and test images differ in shape"


def _folders(path: Path, name: str) -> Dataset:
    suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
    split = (path / "train").is_dir() and (path / "test").is_dir()
    parts = {part: path / part if split else path for part in ("train", "test")}
    class_names, tested = (
        sorted(p.name for p in base.iterdir() if p.is_dir() and not is_hidden(p.name) and next(_images_in(p), None))
        for base in parts.values()
    )
    if unknown := sorted(set(tested) - set(class_names)):
        raise DataError(
            f"{path / 'test'}: {', '.join(unknown[:5])}: no such class in {path / 'train'}; name both alike"
        )
    if len(class_names) < 2:
        raise DataError(
            f"{path}: {len(class_names)} class folders with images ({suffixes}); put the images of each class into a "
            "folder of its own"
        )

    def read(base: Path) -> list[tuple[np.ndarray, int, str]]:
        files = [(file, k) for k, each in enumerate(class_names) for file in sorted(_images_in(base / each))]
        return [(_read_image(file), label, file.relative_to(path).as_posix()) for file, label in files]

    train = read(parts["train"])
    if split:
        if not (test := read(parts["test"])):
            raise DataError(f"{parts['test']}: no images ({suffixes}) in its class folders")
    else:
        # Nine to one within each class, as the paper splits its products; the same images every time.
        rng, labels = np.random.default_rng(0), np.array([label for _, label, _ in train])
        held_out = np.zeros(len(labels), dtype=bool)
        for label in range(len(class_names)):
            members = rng.permutation(np.flatnonzero(labels == label))
            held_out[members[: len(members) // 10]] = True
        if not held_out.any():
            raise DataError(f"{path}: fewer than 10 images in every class; a tenth is held out to test, so add images")
        train, test = ([train[k] for k in np.flatnonzero(part)] for part in (~held_out, held_out))
    arrays: dict[str, Any] = {"class_names": class_names}
    for part, found in (("train", train), ("test", test)):
        images, labels, ids = zip(*found, strict=True)
        arrays |= {f"{part}_images": np.stack(images), f"{part}_labels": labels, f"{part}_ids": np.array(ids)}
    return _make(name, arrays)


def _images_in(folder: Path) -> Iterator[Path]:
    """The image files of a class: in its folder and, as torchvision's ImageFolder has it, in those below."""
    found = (file for file in folder.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
    return (file for file in found if not is_hidden(file.relative_to(folder).as_posix()))


def is_hidden(path: str) -> bool:
    """Whether a path is, or lies in, what systems put beside a person's files: names that begin with a dot (macOS,
    Jupyter), the folders of macOS's archives and of Synology's thumbnails."""
    return any(part.startswith(".") or part in ("__MACOSX", "@eaDir") for part in path.split("/"))


def _read_image(file: Path) -> np.ndarray:
    side = FOLDER_IMAGE_SIDE
    try:
        with Image.open(file) as opened:
            image = as_rgb(opened)
            scale = side / min(image.size)
            width, height = (max(side, round(s * scale)) for s in image.size)
            image = image.resize((width, height), Image.Resampling.BICUBIC)
    except Exception as error:  # a decoder fed garbage may raise anything
        raise UnreadableImage(f"{file}: not a readable image ({error}); mend or remove it") from None
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return np.asarray(image.crop((left, top, left + side, top + side)))


def as_rgb(image: Image.Image) -> Image.Image:
    """The image as a person sees it: rotated by EXIF orientation, 16 bits scaled to 8, transparency white."""
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16-bit grey: Pillow's own conversion would clip, not scale
        image = Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")
