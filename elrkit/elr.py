"""Early-learning regularization as a module that keeps a target for each training image; see `elrkit.losses`."""

import torch
from torch import Tensor, nn

from elrkit.losses import PROBABILITY_FLOOR, cross_entropy


class ELRLoss(nn.Module):
    """Early-learning regularization (Liu et al., NeurIPS 2020, equations 6 and 9).

    L = CE + lam * mean_i log(1 - <p_i, t_i>), where the target t_i of training image i is a moving average of the
    network's own outputs: t_i <- beta t_i + (1 - beta) p_i. Nothing depends on the labels in t, so what the network saw
    early is held against what it is told later.

    * num_samples: training images, each with one row of ``targets``, (num_samples, num_classes) float32, zero at first
    * beta: momentum of the targets, in [0, 1)
    * lam: weight of the regularizer (lambda), at least 0
    """

    targets: Tensor

    def __init__(self, num_samples: int, num_classes: int, beta: float = 0.7, lam: float = 3.0) -> None:
        super().__init__()
        if num_samples < 1 or num_classes < 2:
            raise ValueError(
                f"ELRLoss: num_samples={num_samples}, num_classes={num_classes}: allowed are >= 1 and >= 2"
            )
        if not 0 <= beta < 1:
            raise ValueError(f"ELRLoss: beta={beta}: allowed is 0 <= beta < 1")
        if not lam >= 0:
            raise ValueError(f"ELRLoss: lam={lam}: allowed is 0 <= lam")
        self.beta = beta
        self.lam = lam
        self.register_buffer("targets", torch.zeros(num_samples, num_classes))

    @torch.no_grad()
    def update(self, index: Tensor, logits: Tensor) -> None:
        """Move the targets of the images `index` (batch,) int64 towards softmax(logits), logits (batch, classes).

        Rows that are not finite, as float16 may give, leave their targets alone: a NaN would never leave them again.
        Raises IndexError when an index is outside the table (on a GPU: a device-side assertion, without a wait).
        """
        self._check(index, logits)
        p = _clamped_softmax(logits)
        p = p / p.sum(dim=1, keepdim=True)
        before = self.targets[index]
        moved = self.beta * before + (1 - self.beta) * p
        self.targets[index] = torch.where(p.isfinite().all(dim=1, keepdim=True), moved, before)

    def forward(self, logits: Tensor, labels: Tensor, index: Tensor) -> Tensor:
        """CE + lam * mean log(1 - <p, t>), a float32 scalar; changes nothing. labels (batch,) int64."""
        self._check(index, logits)
        agreement = (_clamped_softmax(logits) * self.targets[index]).sum(dim=1)
        # <p, t> is at most 1 - 1e-4 for rows of t that sum to at most 1, so the logarithm stays finite.
        return cross_entropy(logits, labels) + self.lam * torch.log1p(-agreement).mean()

    def _check(self, index: Tensor, logits: Tensor) -> None:
        num_samples, num_classes = self.targets.shape
        if logits.ndim != 2 or logits.shape != (len(index), num_classes):
            raise ValueError(
                f"ELRLoss: logits {tuple(logits.shape)} for {len(index)} indices: "
                f"allowed is ({len(index)}, {num_classes})"
            )
        inside = ((index >= 0) & (index < num_samples)).all()
        if index.device.type == "cpu":
            if not inside:
                raise IndexError(f"ELRLoss: index outside the table: allowed are 0 to {num_samples - 1}")
        else:
            torch._assert_async(inside, f"ELRLoss: index outside the table of {num_samples} samples")

    def extra_repr(self) -> str:
        return f"{tuple(self.targets.shape)}, beta={self.beta}, lam={self.lam}"


def _clamped_softmax(logits: Tensor) -> Tensor:
    return logits.float().softmax(dim=1).clamp(PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR)
