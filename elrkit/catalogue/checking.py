"""What an audit leaves of a catalogue: a model by which products that come later are checked, kept as one file.

judged = check(load_model(Path("audit/model.safetensors")), new_rows, new_labels)
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from elrkit.catalogue.features import PIECE
from elrkit.catalogue.scores import ALTERNATIVES, judged, most_probable
from elrkit.config import ConfigError

Rows = NDArray[np.floating]
Labels = NDArray[np.int64]


class Model(NamedTuple):
    """What `check` needs of an audit; `save_model` and `load_model` keep it as one safetensors file.

    weight (rounds, C, d) and bias (rounds, C) of the layers; mean and scale (d,) of the features; centres (C, d) of the
    categories; own and made (m,) quantiles of the score of products that no layer was trained on, with their own
    labels and with labels made wrong; wrong_share; least_like, the likeness that products are known from; classes, and
    the backbone that the features are of.
    """

    weight: Tensor
    bias: Tensor
    mean: Tensor
    scale: Tensor
    centres: Tensor
    own: Tensor
    made: Tensor
    wrong_share: float
    least_like: float
    classes: tuple[str, ...]
    backbone: str


def on_scale(rows: Rows, mean: Rows, scale: Rows) -> Tensor:
    """Rows (m, d) less the mean (d,), over the scale (d,)."""
    return torch.from_numpy((np.asarray(rows, np.float32) - mean) / scale)


def pieces(index: NDArray[np.int64]) -> Iterator[Tensor]:
    """So few of them at a time that a row of all classes for each fits into memory."""
    return iter(torch.from_numpy(index).split(PIECE))


def likeness(x: Tensor, centres: Tensor) -> NDArray[np.float64]:
    """The cosine of each row (n, d) with the nearest category's centre, (n,)."""
    return (
        torch.nn.functional.normalize(x).matmul(torch.nn.functional.normalize(centres).T).amax(dim=1).double().numpy()
    )


class Checked(NamedTuple):
    """What the check says of m products: verdict (m,) of "fits", "look" and "unlike"; suspicion (m,); alternatives
    (m, 3), places in `Model.classes` of the most probable other categories, and chance (m, 3), what each has."""

    verdict: NDArray[np.str_]
    suspicion: NDArray[np.float64]
    alternatives: NDArray[np.int64]
    chance: NDArray[np.float64]


class Passing(NamedTuple):
    """Up to which suspicion a product passes, and the share of wrong ones that lie above."""

    threshold: float
    caught: float


def passing(model: Model, let_through: float = 0.95) -> Passing:
    """The threshold that lets this share of the rightly filed products through, by those of the audit that no layer
    was trained on. Raises ConfigError when it is no share."""
    if not 0 < let_through < 1:
        raise ConfigError(f"let_through={let_through}: allowed is a number above 0 and below 1")
    at = torch.cat([model.own, model.made]).unique()

    def below(scores: Tensor) -> Tensor:
        return torch.searchsorted(scores.sort().values, at, right=True) / len(scores)

    right = (below(model.own) - model.wrong_share * below(model.made)) / max(1 - model.wrong_share, 1e-9)
    enough = torch.nonzero(right >= let_through)
    place = int(enough[0]) if len(enough) else len(at) - 1
    return Passing(float(at[place]), float(1 - below(model.made)[place]))


def check(model: Model, rows: Rows, labels: Labels, let_through: float = 0.95) -> Checked:
    """Judge products that the model was not made of: rows (m, d) of their features, labels (m,) places in its classes,
    -1 for a category that it does not know; NaN rows count as unlike anything known."""
    threshold = passing(model, let_through).threshold
    if not len(labels):
        none = np.empty((0, min(ALTERNATIVES, len(model.classes) - 1)))
        return Checked(np.empty(0, "<U6"), np.empty(0), none.astype(np.int64), none)
    parts = [_checked(model, rows[piece], labels[piece], threshold) for piece in pieces(np.arange(len(labels)))]
    return Checked(*map(np.concatenate, zip(*parts, strict=True)))


def _checked(model: Model, rows: Rows, labels: Labels, threshold: float) -> Checked:
    x = on_scale(rows, model.mean.numpy(), model.scale.numpy())
    known = x.isfinite().all(dim=1)
    with torch.inference_mode():
        logits = torch.einsum("md,rcd->rmc", x.nan_to_num(), model.weight) + model.bias[:, None]
        chance = logits.softmax(dim=2).mean(dim=0).double().numpy()
    found = judged(chance, np.maximum(labels, 0))
    suspicion = np.where(labels < 0, 1.0, 1 - found.own)
    if (strangers := labels < 0).any():  # of a category that the model does not know, any may be the right one
        found.others[strangers], found.chance[strangers] = most_probable(chance[strangers], found.others.shape[1])
    verdict = np.where(suspicion > threshold, "look", "fits")
    strange = ~known.numpy() | (likeness(x.nan_to_num(), model.centres) < model.least_like)
    return Checked(np.where(strange, "unlike", verdict), suspicion, found.others, found.chance)


TENSORS = ("weight", "bias", "mean", "scale", "centres", "own", "made")


def save_model(model: Model, path: Path) -> None:
    """Write a model as one safetensors file, whole or not at all."""
    rest = {name: getattr(model, name) for name in Model._fields if name not in TENSORS}
    tensors = {name: getattr(model, name).float().contiguous() for name in TENSORS}
    partial = path.with_name(f"{path.name}.part")
    partial.write_bytes(save_tensors(tensors, metadata={"elrkit": json.dumps(rest)}))
    partial.replace(path)


def load_model(path: Path) -> Model:
    """The model of a file that `save_model` wrote. Raises ConfigError when it is none."""
    try:
        content = path.read_bytes()
        head = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        rest: dict[str, Any] = json.loads(head["__metadata__"]["elrkit"])
        return Model(**load_tensors(content), **rest | {"classes": tuple(rest["classes"])})
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}); audit leaves it as model.safetensors, but with --features none"
        ) from None
    except (SafetensorError, ValueError, LookupError, TypeError):
        raise ConfigError(f"{path}: no model of an audit; audit leaves it as model.safetensors") from None
