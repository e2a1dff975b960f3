"""Which files are a shop's feed, and their text, packed or not."""

import gzip
import io
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TextIO

from elrkit.data import is_hidden

BLOCK = 1 << 16  # characters that are read at once

# What this package writes about a feed, by columns that tell it: dropped products, a list, the truth, decisions,
# corrections, what was checked.
DROPPED_COLUMNS = ["file", "product", "id", "image", "step", "reason"]
DECISION_COLUMNS = ["id", "decision", "label", "suggested_label"]
_OURS = (
    {"suggested_label", "confidence", "reason"}, {"true_label", "article", "kind"}, {*DECISION_COLUMNS},
    {"id", "old_category", "new_category"}, {"verdict", "suspicion"},
)  # fmt: skip

Products = Iterator[tuple[int, dict[str, str] | str]]  # line it begins in, product or why it cannot be made out


class FileRefused(ValueError):
    """A feed file that cannot be read any further; the rest of the feed can."""


def as_path(given: str | Path) -> Path:
    """A path of this machine, or what an address such as s3://shop/photos names, with pathlib's methods (a UPath), read
    by fsspec and the package that it takes for that kind. Raises ValueError when one of them is not there."""
    if not isinstance(given, str) or "://" not in given:
        return Path(given)
    try:
        from upath import UPath

        path = UPath(given)
        path.fs  # noqa: B018 - looks for the package
    except (ImportError, ValueError) as error:
        raise ValueError(f"{given}: cannot be read ({error}); an address needs elrkit[scale] besides") from None
    return path


def feed_files(feeds: str | Path | Sequence[str | Path], suffixes: Collection[str]) -> list[tuple[str, Path]]:
    """(name for the manifest, path) of every feed file once, those in folders by their suffix; names carry no folder of
    this machine."""
    files = []
    feeds = [feeds] if isinstance(feeds, str | Path) else feeds
    for feed in feeds:
        path = as_path(feed)
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if suffix(p) in suffixes and p.is_file())
            named = [(p.relative_to(path).as_posix(), p) for p in inside]
            files += [(name, p) for name, p in named if not is_hidden(name) and not _is_ours(p)]
        elif path.is_file():
            files.append((path.name, path))
        else:
            raise FileNotFoundError(f"import_feed: feed {path} does not exist")
    if not files:
        where, known = ", ".join(map(str, feeds)) or "an empty list", ", ".join(suffixes)
        raise ValueError(
            f"import_feed: no feed file ({known}, each also .gz) in {where}; give the feed first, then the options"
        )
    once: dict[Path, tuple[str, Path]] = {}
    for name, path in files:  # one may be given beside its folder, whose names say more
        where = Path(os.path.abspath(str(path)))
        once[where] = max(once.get(where, ("", path)), (name, path), key=lambda each: len(each[0]))
    whole, files = [*once], [*once.values()]
    if len({name for name, _ in files}) < len(files):  # two of one name, from folders that were given one by one
        common = os.path.commonpath([path.parent for path in whole])
        names = [path.relative_to(common).as_posix() for path in whole]
        files = [(name, path) for name, (_, path) in zip(names, files, strict=True)]
    return files


def _is_ours(path: Path) -> bool:
    with path.open("rb") as file:
        columns = file.readline(500).decode("utf-8-sig", "replace").strip().split(",")
    return columns == DROPPED_COLUMNS or any(known <= {*columns} for known in _OURS)


def suffix(path: Path) -> str:
    """What says a feed file's format, in small letters."""
    return (path.with_suffix("") if path.suffix.lower() == ".gz" else path).suffix.lower()


def open_text(path: Path, encoding: str, errors: str) -> TextIO:
    """A text file, be it packed by gzip, as a stream with its line ends as they are."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    if not packed:
        return io.TextIOWrapper(path.open("rb"), encoding, errors, newline="")
    source = path if isinstance(path, Path) else path.open("rb")
    return io.TextIOWrapper(gzip.open(source), encoding, errors, newline="")


def start_of(path: Path) -> bytes:
    with open_text(path, "latin-1", "strict") as file:
        return file.read(BLOCK).encode("latin-1")
