"""Sharpness-aware minimization (Foret et al., 2021) as a perturbation around any optimizer; it has no state of its own.

optimizer.zero_grad()                            # the second gradient of the step before is still there
loss(model(x)).backward()                        # gradient at w
with perturbed(parameters, rho=0.05):            # w + e(w), |e(w)| = rho; gradients cleared
    with frozen_batch_norm(model):
        loss(model(x)).backward()                # gradient at w + e(w)
optimizer.step()                                 # weights are back at w, moved by that gradient
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def perturbed(parameters: Iterable[Tensor], rho: float) -> Iterator[Tensor]:
    """Climb to the worst point of the rho-ball around the weights, clear the gradients; restore the weights exactly.

    The step is e = rho g / |g| (Foret et al., equation 2), g the gradient of all parameters as one vector. Yields the
    gradient's norm, a 0-d tensor on the device. Where that norm is 0 the weights stay put. No wait for the device.
    The optimizer steps behind the block: what is done to the weights inside it is undone at its end.
    """
    parameters = list(parameters)
    if not all(isinstance(p, Tensor) for p in parameters):
        raise TypeError(f"perturbed: parameters hold {type(parameters[0]).__name__}; give model.parameters()")
    if not 0 < rho < math.inf:
        raise ValueError(f"perturbed: rho={rho}: allowed is 0 < rho, and finite")
    moved = [(p, p.grad) for p in parameters if p.grad is not None]
    if not moved:
        raise ValueError("perturbed: no parameter has a gradient; call backward() first")
    weights = [p.detach() for p, _ in moved]
    with torch.no_grad():
        # In float32 at least: the norm of float16 gradients soon exceeds what float16 can hold.
        gradients = [gradient.float() if gradient.dtype.itemsize < 4 else gradient for _, gradient in moved]
        norm = torch.linalg.vector_norm(torch.stack(list(torch._foreach_norm(gradients))))
        step = list(torch._foreach_mul(gradients, torch.where(norm > 0, rho / norm, torch.zeros_like(norm))))
        saved = [w.clone() for w in weights]
        torch._foreach_add_(weights, [part.to(w.dtype) for part, w in zip(step, weights, strict=True)])
    for p, _ in moved:
        p.grad = None
    try:
        yield norm
    finally:
        with torch.no_grad():
            torch._foreach_copy_(weights, saved)


@contextmanager
def frozen_batch_norm(model: nn.Module) -> Iterator[None]:
    """Normalize by the batch as in training, but leave the running statistics as they are."""
    layers = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True
