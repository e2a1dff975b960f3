"""Batches made on the training device: crop, flip and normalize a whole batch at once.

Images are stored as (n, H, W, C) uint8; networks receive (batch, C, H, W) float32 in channels-last memory layout.
Randomness is a pure function of (seed, epoch), so that a run can be resumed at any step without a generator's state.
"""

import hashlib
from typing import Literal, NamedTuple

import torch
from torch import Tensor


class EpochDraws(NamedTuple):
    """What one epoch draws: the order of the images, and per image the crop's corner and whether it is mirrored."""

    order: Tensor  # (n,) int64
    corner: Tensor | None  # (n, 2) int64 row, column in the padded image; None: no crop
    flip: Tensor | None  # (n,) bool; None: no flip


def draw_epoch(
    n: int, seed: int, epoch: int, augmentation: Literal["fresh", "frozen", "flip", "none"], padding: int
) -> EpochDraws:
    """The draws of epoch `epoch` (from 0) for n images: a pure function, the same on every device.

    `fresh` draws crop and flip anew each epoch; `frozen` draws them once, as the paper's code did; `flip` mirrors only.
    """
    order = torch.randperm(n, generator=_generator(seed, epoch, 0))
    images = _generator(seed, -1 if augmentation == "frozen" else epoch, 1)
    corner = flip = None
    if augmentation in ("fresh", "frozen"):
        corner = torch.randint(0, 2 * padding + 1, (n, 2), generator=images)
    if augmentation != "none":
        flip = torch.rand(n, generator=images) < 0.5
    return EpochDraws(order, corner, flip)


def _generator(seed: int, epoch: int, stream: int) -> torch.Generator:
    digest = hashlib.sha256(f"{seed}/{epoch}/{stream}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


class DeviceImages:
    """Images kept as one uint8 tensor on a device, zero-padded once; batches come out cropped, mirrored, normalized."""

    def __init__(
        self,
        images: Tensor,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        device: str | torch.device,
        padding: int = 0,
    ) -> None:
        n, height, width, channels = images.shape
        padded = torch.zeros(n, height + 2 * padding, width + 2 * padding, channels, dtype=torch.uint8, device=device)
        padded[:, padding : padding + height, padding : padding + width] = images.to(device)
        self._padded = padded
        self._padding = padding
        self._rows = torch.arange(height, device=device)
        self._columns = torch.arange(width, device=device)
        centre, width_of = (torch.tensor(v, dtype=torch.float32, device=device) for v in (mean, std))
        self._scale, self._shift = 1 / (255 * width_of), -centre / width_of

    def __len__(self) -> int:
        return len(self._padded)

    def batch(self, index: Tensor, corner: Tensor | None = None, flip: Tensor | None = None) -> Tensor:
        """Images `index` (b,), cropped at `corner` (b, 2) and mirrored where `flip` (b,): (b, C, H, W) float32.

        Zero padding and the order crop, flip, normalize are torchvision's RandomCrop and RandomHorizontalFlip.
        """
        if corner is None and flip is None:
            p = self._padding
            pixels = self._padded[index, p : p + len(self._rows), p : p + len(self._columns)]
        else:
            columns = self._columns.expand(len(index), -1)
            if flip is not None:
                columns = torch.where(flip[:, None], columns.flip(1), columns)
            top: Tensor | int = self._padding if corner is None else corner[:, :1]
            left: Tensor | int = self._padding if corner is None else corner[:, 1:]
            rows = (self._rows + top).expand(len(index), -1)
            pixels = self._padded[index[:, None, None], rows[:, :, None], (columns + left)[:, None, :]]
        return (pixels.float() * self._scale + self._shift).permute(0, 3, 1, 2)
