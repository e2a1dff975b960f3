"""Early-learning regularization as a module that keeps a target for each training image; see `elrkit.losses`."""

import math
from collections.abc import Callable
from typing import Self

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
    * top_k: None or num_classes keeps ``targets``; a smaller K keeps of each row only its K largest entries
      (``values``, float16 rounded down, and ``kept``, their classes) and the sum of all others (``rest``, float32):
      4 K + 4 bytes per image for up to 32,768 classes, 6 K + 4 above. `target_rows` gives dense rows of either

    It moves to another device with the model that it is part of, but keeps its own precision. An image that is twice in
    a batch moves its target once, by one of its rows.

    With top_k the rest m counts as spread evenly over the classes that are not kept, so that a row keeps its sum and
    the floor that p gives every class stays. How far off a row is after s updates, and with it loss and gradient:

    * What update j leaves out changes the row by c_j, whose sum is 0. It moves at most m_j, and no entry by more than
      v_j + 0.001: v_j <= 1 / K is the largest entry left out, and float16 rounds by less than 0.001. Let d_j be the
      smaller of the two. Later updates multiply c_j by beta, so the error of t is sum_j beta^(s-j) c_j, and what holds
      of c_j with d_j holds of it with D = sum_j beta^(s-j) d_j, at most max d_j / (1 - beta).
    * <p, t> is off by at most D, for p less its floor is nowhere negative and sums to at most 1. The loss is off by at
      most lam * mean_i D w, where w = 1 / (1 - <p, t>), with the larger <p, t>, bounds the slope of the logarithm.
    * The gradient in logit c is -lam / b * w p_c (t_c - <p, t>), with b images in a batch. A mean deviation is at most
      half of the range, which is 1/2 for t and D for its error, so over the logits of an image the gradient is off in
      sum by at most lam / b * D w (1 + w / 2).
    """

    targets: Tensor
    values: Tensor
    kept: Tensor
    rest: Tensor

    def __init__(
        self, num_samples: int, num_classes: int, beta: float = 0.7, lam: float = 3.0, top_k: int | None = None
    ) -> None:
        super().__init__()
        if num_samples < 1 or num_classes < 2:
            raise ValueError(
                f"ELRLoss: num_samples={num_samples}, num_classes={num_classes}: allowed are >= 1 and >= 2"
            )
        if not 0 <= beta < 1:
            raise ValueError(f"ELRLoss: beta={beta}: allowed is 0 <= beta < 1")
        if not 0 <= lam < math.inf:
            raise ValueError(f"ELRLoss: lam={lam}: allowed is 0 <= lam, and finite")
        if top_k is not None and not 1 <= top_k <= num_classes:
            raise ValueError(f"ELRLoss: top_k={top_k}: allowed is 1 <= top_k <= {num_classes}, or None")
        self.beta = beta
        self.lam = lam
        self.shape = (num_samples, num_classes)
        self.top_k = None if top_k == num_classes else top_k
        if self.top_k is None:
            self.register_buffer("targets", torch.zeros(self.shape))
        else:
            number = torch.int16 if num_classes <= 2**15 else torch.int32
            self.register_buffer("values", torch.zeros(num_samples, self.top_k, dtype=torch.float16))
            self.register_buffer("kept", torch.zeros(num_samples, self.top_k, dtype=number))
            self.register_buffer("rest", torch.zeros(num_samples, 1))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        device = fn(torch.zeros((), device=next(self.buffers()).device)).device
        return super()._apply(lambda buffer: buffer.to(device), recurse)  # type: ignore[no-untyped-call]

    def target_rows(self, index: Tensor) -> Tensor:
        """The targets of the images `index` (batch,) int64: (batch, num_classes) float32."""
        if self.top_k is None:
            return self.targets[index]
        num_classes = self.shape[1]
        rows = (self.rest[index] / (num_classes - self.top_k)).repeat(1, num_classes)
        return rows.scatter_(1, self.kept[index].long(), self.values[index].float())

    @torch.no_grad()
    def update(self, index: Tensor, logits: Tensor, labels: Tensor | None = None) -> None:
        """Move the targets of the images `index` (batch,) int64 towards softmax(logits), logits (batch, classes).

        Given labels (batch,) int64, top_k keeps their entries however small, in the first column of ``values``: a list
        of labels is ordered by them. Without top_k they change nothing.

        Rows that are not finite, as float16 may give, leave their targets alone: a NaN would never leave them again.
        Raises IndexError when an index is outside the table (on a GPU: a device-side assertion, without a wait).
        """
        self._check(index, logits)
        if labels is not None and labels.shape != index.shape:
            raise ValueError(f"ELRLoss: {len(labels)} labels for {len(index)} images; give one for each")
        p = _clamped_softmax(logits)
        p = p / p.sum(dim=1, keepdim=True)
        before = self.target_rows(index)
        moved = self.beta * before + (1 - self.beta) * p
        finite = p.isfinite().all(dim=1, keepdim=True)
        if self.top_k is None:
            self.targets[index] = torch.where(finite, moved, before)
            return
        order = moved if labels is None else moved.scatter(1, labels[:, None], 2.0)  # 2 is above all of them
        kept = order.topk(self.top_k).indices
        exact = moved.gather(1, kept)
        values = exact.half()
        # Down, by one in the last bit: rounded up, a row could exceed 1, and 1 - <p, t> fall below 0.
        values = (values.view(torch.int16) - (values > exact).short()).view(torch.float16)
        rest = (moved.sum(dim=1, keepdim=True) - values.float().sum(dim=1, keepdim=True)).clamp(min=0)
        for stored, new in ((self.values, values), (self.kept, kept.to(self.kept.dtype)), (self.rest, rest)):
            stored[index] = torch.where(finite, new, stored[index])

    def forward(self, logits: Tensor, labels: Tensor, index: Tensor) -> Tensor:
        """CE + lam * mean log(1 - <p, t>), a float32 scalar; changes nothing. labels (batch,) int64."""
        self._check(index, logits)
        agreement = (_clamped_softmax(logits) * self.target_rows(index)).sum(dim=1)
        # <p, t> is at most 1 - 1e-4 for rows of t that sum to at most 1, so the logarithm stays finite.
        return cross_entropy(logits, labels) + self.lam * torch.log1p(-agreement).mean()

    def _check(self, index: Tensor, logits: Tensor) -> None:
        num_samples, num_classes = self.shape
        if not isinstance(index, Tensor) or index.dtype not in (torch.int64, torch.int32) or index.ndim != 1:
            kind = f"{index.dtype} {tuple(index.shape)}" if isinstance(index, Tensor) else type(index).__name__
            raise ValueError(f"ELRLoss: index is {kind}: allowed is a tensor (batch,) of int64")
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


def _clamped_softmax(logits: Tensor) -> Tensor:
    return logits.float().softmax(dim=1).clamp(PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR)
