"""An image file of any origin to pixels, safely: bounded before anything is decoded, by the decoders of a web shop.

    pixels, hash, notes = read_thumbnail(Path("7.jpg").read_bytes(), FeedRules())

Files are read below one folder alone, whatever a path says; a path is understood as shops write it.
"""

import contextlib
import functools
import hashlib
import io
import os
import re
import resource
import stat
import threading
import unicodedata
import warnings
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote, urlsplit

import imagehash
import numpy as np
import PIL
from PIL import Image, ImageOps

from elrkit.catalogue.rules import NOT_ALLOWED, FeedRules, Rejected
from elrkit.data import as_rgb

if TYPE_CHECKING:
    from upath import UPath

with contextlib.suppress(ImportError):  # a reader of HEIC, where somebody has installed one
    import pillow_heif

    pillow_heif.register_heif_opener()
with contextlib.suppress(ImportError):  # Pillow before 11.3
    from PIL import AvifImagePlugin

    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # more take memory of their own, see `_frame_of_the_size_told`

# The decoders a web shop needs; every other one stays shut.
Image.init()
FORMATS = [name for name in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "HEIF") if name in Image.OPEN]
_BRANDS = {b"avif": "AVIF", b"avis": "AVIF"} | dict.fromkeys((b"heic", b"heix", b"hevc", b"mif1", b"msf1"), "HEIF")
_NEEDED = {
    "AVIF": "AVIF image, which Pillow reads from 11.3 on; upgrade it, or save the image as JPEG or PNG",
    "HEIF": "HEIC image, which Pillow reads with pillow-heif; install that, or save the image as JPEG or PNG",
}


class Thumbnail(NamedTuple):
    """A decoded image: ``pixels`` (size, size, 3) uint8 RGB, ``hash`` (18,) uint8, ``notes`` on what was converted."""

    pixels: np.ndarray
    hash: np.ndarray
    notes: tuple[str, ...]


def read_thumbnail(data: bytes, rules: FeedRules = FeedRules()) -> Thumbnail:  # noqa: B008  (frozen)
    """Decode one image file of any origin to (size, size, 3) RGB pixels.

    Sizes are read from the header before anything is decoded. Rotated by EXIF orientation; CMYK, palette and 16-bit
    images become 8-bit RGB, transparency becomes white, and of an animation the first frame counts.

    Raises:
        Rejected: with the reason, for everything that is not a usable image.
    """
    if len(data) > rules.max_bytes:
        raise Rejected("file too large")
    if b"<svg" in data[:1024].lower():
        raise Rejected("vector image (SVG)")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        width, height = image.size
        if width * height > rules.max_pixels:
            raise Rejected("too many pixels (decompression bomb)")
        if min(width, height) < rules.min_side:
            raise Rejected("too small")
        if max(width, height) > rules.max_aspect * min(width, height):
            raise Rejected("absurd shape")
        notes = []
        if image.format != "MPO" and getattr(image, "is_animated", False):
            notes.append("animated, first frame taken")
        if image.mode == "CMYK":
            notes.append("CMYK converted")
        if image.mode == "P":
            notes.append("palette converted")
        if image.mode.startswith("I") or (image.format == "PNG" and any("16" in str(tile[3]) for tile in image.tile)):
            notes.append("16-bit reduced to 8")
        with _frame_of_the_size_told(image):
            image.load()
        if image.getexif().get(0x0112, 1) != 1:
            notes.append("rotated by EXIF orientation")
        if image.has_transparency_data:
            notes.append("transparency made white")
        image = as_rgb(image)
        square = (rules.size, rules.size)
        resample = Image.Resampling.BILINEAR
        # Signs of the lowest 12 x 12 DCT coefficients of the 36 x 36 grey image about their median. The usual 8 x 8
        # takes strangers for near-duplicates; 16 x 16 needs twice the distance, whose pairs take far longer to find.
        bits = np.packbits(imagehash.phash(image, hash_size=12, highfreq_factor=3).hash)
        fitted = (
            ImageOps.fit(image, square, resample)
            if rules.fit == "crop"
            else ImageOps.pad(image, square, resample, "white")
        )
        pixels = np.asarray(fitted)
    except Rejected:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise Rejected("too many pixels (decompression bomb)") from None
    except PIL.UnidentifiedImageError:
        raise Rejected(_why_unidentified(data)) from None
    except Exception as error:  # a decoder fed garbage may raise anything; the product is what is wrong, not the import
        raise Rejected("truncated image" if "truncated" in str(error).lower() else "unreadable image") from None
    if (pixels == pixels[0, 0]).all():
        raise Rejected("blank image (one colour)")
    return Thumbnail(pixels, bits, tuple(notes))


MEMORY_WALL = threading.Lock()  # the limit is the process's: whatever else allocates much meanwhile has to hold it


@contextlib.contextmanager
def _frame_of_the_size_told(image: Image.Image) -> Iterator[None]:
    """Decode a frame in the memory that one of the header's size needs, so that a larger one fails.

    In some formats a frame, or a tile of it, has a size of its own: an AVIF of 3 kB whose header says 100 x 100 may
    hold 16,000 x 16,000 pixels, which the decoder would make small once it has them all.
    """
    memory = Path("/proc/self/statm")
    if image.format not in ("AVIF", "HEIF", "TIFF") or not memory.exists():
        yield
        return
    with MEMORY_WALL:
        told, before = image.size, resource.getrlimit(resource.RLIMIT_AS)
        taken = int(memory.read_text().split()[0]) * resource.getpagesize()
        most = taken + 24 * image.width * image.height + (32 << 20)  # bytes; half of it is enough
        resource.setrlimit(resource.RLIMIT_AS, (most if before[0] < 0 else min(most, before[0]), before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)
    if sorted(image.size) != sorted(told):  # a TIFF may be turned by now
        raise Rejected("unreadable image")


def _why_unidentified(data: bytes) -> str:
    kind = _BRANDS.get(data[8:12]) if data[4:8] == b"ftyp" else None
    if kind is None:
        return "not an image"
    return "unreadable image" if kind in FORMATS else _NEEDED[kind]


@functools.lru_cache(maxsize=10_000)  # resolving a path takes as long as reading a thumbnail; folders hold many
def _real_folder(root: Path, folder: str) -> str:
    return os.path.realpath(os.path.join(root, folder), strict=True)


def read_file(root: Path, path: str, max_bytes: int) -> tuple[bytes, tuple[str, ...]]:
    """Bytes of a regular file below ``root`` (already resolved), and a note if the path is not written as the file's.

    Links that lead out of the root are refused. Below an address (`feed_files.as_path`) capitals and accents have to be
    the file's: a store lists its millions of names too slowly to look for one that is alike.
    """
    if not isinstance(root, Path):
        return _read_address(root, path, max_bytes)
    try:
        real, notes = _located(root, path)
        status = os.stat(real)
        if not stat.S_ISREG(status.st_mode):  # a pipe or a device would block or never end
            raise Rejected("image is not a file")
        if status.st_size > max_bytes:
            raise Rejected("file too large")
        with open(real, "rb") as file:
            return file.read(max_bytes + 1), notes
    except OSError:
        raise Rejected(NOT_ALLOWED if "://" in path else "image file missing") from None


def _read_address(root: "UPath", path: str, max_bytes: int) -> tuple[bytes, tuple[str, ...]]:
    here, exact = str(root).rstrip("/"), {} if "://" in path else {path: ()}
    for written, notes in (dict(_spellings(path)) | exact).items():  # each is asked for once
        file = (root / written.lstrip("/")).resolve()
        if not str(file).startswith(f"{here}/"):
            raise Rejected("image path leaves the images folder")
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):
            data = file.fs.cat_file(file.path, end=max_bytes + 1)
            if len(data) > max_bytes:
                raise Rejected("file too large")
            return data, notes
    raise Rejected(NOT_ALLOWED if "://" in path else "image file missing")


_SEVERAL = re.compile(r"\s*[,;|]\s*")


def _spellings(path: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Further paths that may be meant, each with its note."""
    if "://" in path:  # that may not be fetched: the photos may be here, named as their addresses end
        yield unquote(PurePosixPath(urlsplit(path).path).name), ("found by the end of their address",)
        return
    first = _SEVERAL.split(path, maxsplit=1)[0]  # where the path itself is no file: the first of several
    for written in dict.fromkeys((path, unquote(path), first, unquote(first))):
        several = written in (first, unquote(first)) and first != path
        yield written, ("first of several in one cell" if several else "found under another spelling of the path",)


def _located(root: Path, path: str) -> tuple[str, tuple[str, ...]]:
    """Where an image lies, and a note unless it is exactly there; OSError when it is nowhere."""
    if "://" not in path:
        with contextlib.suppress(OSError):
            return _real_file(root, path), ()
    for written, notes in _spellings(path):
        if found := _alike(root, written):
            return _real_file(root, found), notes
    raise FileNotFoundError(path)


def _real_file(root: Path, path: str) -> str:
    """The path of an existing file without links; Rejected where it lies outside the root, OSError where it is not."""
    folder, name = os.path.split(path)
    real = os.path.join(_real_folder(root, folder), name)
    if os.path.islink(real):
        real = os.path.realpath(real, strict=True)
    if not real.startswith(os.path.join(root, "")):
        raise Rejected("image path leaves the images folder")
    os.stat(real)
    return real


def _alike(root: Path, path: str) -> str | None:
    """The path below the root that differs from this one in capitals or in how accents are composed alone, if it is the
    only one: Windows and macOS tell neither apart."""
    folder = ""
    for part in PurePosixPath(path.lstrip("/")).parts:
        name = _names(root, folder).get(_spelled_alike(part))
        if name is None:
            return None
        folder = os.path.join(folder, name)
    return folder or None


def _spelled_alike(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


@functools.lru_cache(maxsize=10_000)
def _names(root: Path, folder: str) -> dict[str, str | None]:
    """What is in a folder, by spelling; None for a spelling that several share."""
    names: dict[str, str | None] = {}
    with contextlib.suppress(OSError):
        for name in os.listdir(os.path.join(root, folder)):
            key = _spelled_alike(name)
            names[key] = None if key in names else name
    return names


def forget_folders() -> None:
    """Folders may have changed since an import before."""
    _real_folder.cache_clear()
    _names.cache_clear()


def decode(part: tuple[FeedRules, list[tuple[Path | None, str]]]) -> list[tuple]:
    """(reason, sha256, hash, notes, pixels) of images given as (folder, path), or as (None, why it is not there); the
    reason is empty where an image can be used, the pixels are empty where it cannot. FileNotFoundError: this machine
    has no such folder, and would take every image for missing."""
    rules, images = part
    for folder in {folder for folder, _ in images if folder and not folder.is_dir()}:
        raise FileNotFoundError(f"images folder {folder} is not there on {os.uname().nodename}")
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for folder, path in images:
            sha256 = None
            try:
                if folder is None:
                    raise Rejected(path)
                data, notes = read_file(folder, path, rules.max_bytes)
                sha256 = hashlib.sha256(data).digest()
                pixels, bits, converted = read_thumbnail(data, rules)
                found.append(("", sha256, bits.tobytes(), notes + converted, pixels.tobytes()))
            except Rejected as error:
                found.append((str(error), sha256, None, (), b""))
    return found
