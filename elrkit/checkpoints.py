"""What a run leaves on the disk beside its record: checkpoints to go on from, and at the end its outcome.

Each file is tensors and plain containers behind the SHA-256 of its bytes, written atomically and read without
unpickling code.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from elrkit.config import RunConfig
from elrkit.data import DataError
from elrkit.precision import is_out_of_memory
from elrkit.records import state_dir

if TYPE_CHECKING:
    from elrkit.trainer import Trainer

log = logging.getLogger(__name__)


NAMES = ("checkpoint.pt", "checkpoint-previous.pt", "checkpoint-new.pt")


class DamagedFile(ValueError):
    """A file whose bytes do not match their digest, or that holds more than tensors and plain containers."""


class Checkpoints:
    """The last two checkpoints of a run.

    A damaged one is renamed to `*.damaged` and the one before it is used. A failed write (a full disk) leaves the
    older ones in place and training goes on.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.current, self.previous, self.new = (folder / name for name in NAMES)

    def save(self, state: dict[str, Any]) -> None:
        try:
            write(self.new, state)
            if self.current.exists():
                self.current.replace(self.previous)
            self.new.replace(self.current)
        except OSError as error:
            log.warning("%s: checkpoint not written (%s); training goes on", self.folder, error)

    def resume(self, build: Callable[[], Trainer]) -> Trainer:
        """What `build` makes, at the newest usable checkpoint, or at the beginning when there is none."""
        for path in (self.current, self.previous):
            if not path.exists():
                continue
            built = build()  # each time anew: a checkpoint that fails halfway leaves a mixture
            try:
                built.restore(read(path))
                return built
            except DataError as error:
                raise DataError(
                    f"{path}: {error}; give each run a folder of its own, such as records.state_dir(config)"
                ) from None
            except (DamagedFile, KeyError, ValueError, RuntimeError) as error:
                if is_out_of_memory(error):
                    raise
                aside = path.with_suffix(".damaged")
                path.replace(aside)
                log.warning("%s: not usable (%s); set aside as %s", path, str(error).splitlines()[0], aside.name)
        return build()

    def finish(self, outcome: dict[str, Any]) -> None:
        """Keep what a finished run leaves; the checkpoints stay until the record is safe (see `discard`)."""
        try:
            write(self.folder / "outcome-new.pt", outcome).replace(self.folder / "outcome.pt")
        except OSError as error:
            log.warning("%s: outcome.pt not written (%s)", self.folder, error)


def discard(folder: Path) -> None:
    """Remove the checkpoints of a run whose record is safe."""
    for name in NAMES:
        (folder / name).unlink(missing_ok=True)


def load_outcome(state_dir: str | Path) -> dict[str, Any]:
    """outcome.pt of a finished run: `model` (state_dict) and ELR's `targets` (n, classes), n as in `problem.set_up`, or
    None. Raises FileNotFoundError, DamagedFile."""
    return read(Path(state_dir) / "outcome.pt")


def outcome(record: dict[str, Any]) -> dict[str, Any] | None:
    """`load_outcome` of the run that this record describes, or None where it is not on this machine.

    Records lie where one works, outcomes in one place of the machine by run id, and that hashes a dataset's name: the
    weights tell whether the outcome there is this record's.
    """
    folder = state_dir(RunConfig(**record["config"]))
    try:
        found = load_outcome(folder)
    except FileNotFoundError:
        return None
    except DamagedFile as error:
        log.warning("%s: not usable (%s)", folder / "outcome.pt", error)
        return None
    return found if digest(found["model"]) == record["weights_sha256"] else None


def digest(weights: dict[str, Tensor]) -> str:
    """SHA-256 of a state_dict, which tells a network from another one."""
    hashed = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        hashed.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return hashed.hexdigest()


def write(path: Path, state: dict[str, Any]) -> Path:
    """Write `state` and flush it to the disk; on failure remove what was written."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getbuffer()
    try:
        with open(path, "wb") as file:
            file.write(hashlib.sha256(content).digest())
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        path.unlink(missing_ok=True)
        raise
    return path


def read(path: Path) -> dict[str, Any]:
    """What `write` wrote; raises DamagedFile, FileNotFoundError."""
    content = path.read_bytes()
    if hashlib.sha256(content[32:]).digest() != content[:32]:
        raise DamagedFile(f"{len(content)} bytes do not match their SHA-256")
    try:
        return torch.load(io.BytesIO(content[32:]), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for what it refuses or cannot parse
        if is_out_of_memory(error):
            raise
        raise DamagedFile(f"not loadable: {str(error).splitlines()[0]}") from None
