"""How a training computes: 16-bit arithmetic, also on CPUs that have none; and what it computed on, for its record."""

import contextlib
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

import elrkit


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """The context in which the network computes; losses are float32 in all of them."""
    if precision == "float32":
        return contextlib.nullcontext()
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float16
    return RoundedValues(dtype) if rounds(precision, device) else torch.autocast(device.type, dtype=dtype)


def rounds(precision: str, device: torch.device) -> bool:
    """Whether the network computes in float32 on this device and rounds, as `RoundedValues`.

    So it does on a CPU that is slower in 16 bits: in bfloat16 torch takes some ten times as long without AVX-512, as on
    most laptops, and 2.4 times with AVX-512 that has no bfloat16 instructions; in float16 25 times even with those.
    """
    if device.type != "cpu" or precision == "float32":
        return False
    # torch uses AVX512_BF16, which every CPU with AMX has too; its public name is not in torch 2.11.
    has_avx512 = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return precision != "bfloat16" or not (has_avx512 and torch.cpu._is_avx512_bf16_supported())


RELU = (torch.relu, torch.relu_, torch.nn.functional.relu)


class RoundedValues(TorchFunctionMode):
    """What autocast to a 16-bit type computes, for CPUs that have no such arithmetic, at nearly float32's speed.

    As in a GPU's tensor cores, products and sums are float32 and their results 16 bits wide: the weights of
    convolutions and dense layers and the result of every operation are rounded, and so is, as each goes back through
    its rounding, its gradient. What exceeds float16's 65,504 becomes infinite, which is what a loss scaler looks for.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.conv2d, torch.nn.functional.linear):
            args = [self._there_and_back(value) for value in args]
        result = func(*args, **(kwargs or {}))
        # A ReLU of rounded numbers is rounded, and so is its gradient.
        return result if func in RELU else self._there_and_back(result)

    def _there_and_back(self, value: Any) -> Any:
        rounds = isinstance(value, Tensor) and value.dtype == torch.float32
        return value.to(self.dtype).float() if rounds else value


def is_out_of_memory(error: Exception) -> bool:
    # On a CPU torch raises a plain RuntimeError.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def describe_device(device: torch.device) -> dict[str, Any]:
    """Type and name of the device, and on a GPU its memory, CUDA version and cuDNN version."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return {
            "type": "cuda",
            "name": properties.name,
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    return {"type": "cpu", "name": name, "cores": os.cpu_count(), "capability": torch.backends.cpu.get_cpu_capability()}


def versions() -> dict[str, str]:
    """Versions that can change a result."""
    import torchvision  # not before: it takes seconds

    return {
        "elrkit": elrkit.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "numpy": np.__version__,
    }
