"""The losses, and the one table that names them: a new loss is a function here and a row of `LOSSES`.

The configs' fields, the training, and the figures' names and colours come from the table. All losses return a float32
scalar whatever the type of the logits. Torch is imported when a loss is called, so that reading records needs none.

Use ELR (`ELRLoss`, defined in `elrkit.elr`) in a loop of your own, where `index` says which training images the batch
holds::

    loss_fn = ELRLoss(num_samples=50_000, num_classes=10, beta=0.7, lam=3.0).to(device)
    for images, labels, index in batches:
        logits = model(images)
        loss_fn.update(index, logits)          # first move the targets, then use them
        loss = loss_fn(logits, labels, index)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from elrkit.elr import ELRLoss as ELRLoss

PROBABILITY_FLOOR = 1e-4  # ELR clamps softmax outputs to [1e-4, 1 - 1e-4], as Liu et al.'s code


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy in nats. logits (batch, classes), labels (batch,) int64."""
    from torch.nn.functional import cross_entropy

    return cross_entropy(logits.float(), labels)


def symmetric_cross_entropy(logits: Tensor, labels: Tensor, alpha: float, beta: float) -> Tensor:
    """alpha CE + beta RCE (Wang et al., ICCV 2019, equation 7), with their log 0 := A = -4."""
    return alpha * cross_entropy(logits, labels) + beta * _reverse_cross_entropy(logits, labels)


def nce_rce(logits: Tensor, labels: Tensor, alpha: float, beta: float) -> Tensor:
    """alpha NCE + beta RCE, an active and a passive loss (Ma et al., ICML 2020, Section 4)."""
    log_p = logits.float().log_softmax(dim=1)
    chosen = log_p.gather(1, labels[:, None]).squeeze(1)
    normalized = (chosen / log_p.sum(dim=1)).mean()
    return alpha * normalized + beta * _reverse_cross_entropy(logits, labels)


def generalized_cross_entropy(logits: Tensor, labels: Tensor, q: float) -> Tensor:
    """(1 - p_label^q) / q, 0 < q <= 1 (Zhang and Sabuncu, NeurIPS 2018, equation 6): CE for q -> 0, at q = 1 half the
    absolute error between p and the one-hot label."""
    from torch.nn.functional import cross_entropy

    log_p = -cross_entropy(logits.float(), labels, reduction="none")
    return -((q * log_p).expm1() / q).mean()  # p^q - 1 without the loss of digits where q or log p is small


def _reverse_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """- sum_k p_k log q_k for one-hot q with log 0 := -4, which is 4 (1 - p_label)."""
    p = logits.float().softmax(dim=1).gather(1, labels[:, None])
    return (4 * (1 - p)).mean()


def _elr(num_samples: int, num_classes: int, beta: float, lam: float) -> ELRLoss:
    from elrkit.elr import ELRLoss

    return ELRLoss(num_samples, num_classes, beta, lam)


@dataclass(frozen=True)
class Loss:
    """A row of the table: a `function` of (logits, labels, *parameters), or a `module` that is made of (training
    images, classes, *parameters), keeps `targets` and has ELRLoss's `update` and `forward`.

    The parameters are fields of RunConfig with their defaults, and the datasets for which its authors take others.
    """

    label: str
    colour: str
    parameters: Mapping[str, float]
    function: Callable[..., Tensor] | None = None
    module: Callable[..., ELRLoss] | None = None
    of_dataset: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.function is None) == (self.module is None):
            raise ValueError(f"loss {self.label}: needs a function or a module, and not both")


# ELR's parameters: Liu et al., NeurIPS 2020, Section 5. Those of SCE and NCE + RCE: as their authors train CIFAR-10,
# Wang et al. 2019 (train_models.py), Ma et al. 2020 (configs/cifar10/sym). GCE's: Zhang and Sabuncu 2018, Section 4.
LOSSES: dict[str, Loss] = {
    "ce": Loss("Cross-entropy", "#D55E00", {}, cross_entropy),
    "elr": Loss(
        "ELR", "#0072B2", {"beta": 0.7, "lam": 3.0}, module=_elr, of_dataset={"cifar100": {"beta": 0.9, "lam": 7.0}}
    ),
    "sce": Loss("Symmetric CE", "#009E73", {"loss_alpha": 0.1, "loss_beta": 1.0}, symmetric_cross_entropy),
    "nce_rce": Loss("NCE + RCE", "#E69F00", {"loss_alpha": 1.0, "loss_beta": 1.0}, nce_rce),
    "gce": Loss("Generalized CE", "#CC79A7", {"loss_q": 0.7}, generalized_cross_entropy),
}


def defaults(loss: str, dataset: str) -> dict[str, float]:
    """The parameters of a loss, by the names of RunConfig's fields, with their defaults for a dataset."""
    return {**LOSSES[loss].parameters, **LOSSES[loss].of_dataset.get(dataset, {})}


def __getattr__(name: str) -> Any:
    if name == "ELRLoss":  # a torch module, so torch is imported with it
        from elrkit.elr import ELRLoss

        return ELRLoss
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
