"""What a run drew: joules that its device counted, where it counts any; nothing is estimated.

A GPU is asked through NVIDIA's management library (the driver brings it), an Intel or AMD processor through Linux's
powercap files, which by default only root may read. Both count the whole device, other work on it included.

    >>> meter = Meter(torch.device("cpu"), counters=lambda device: [])
    >>> meter.spent() is None
    True
"""

import ctypes
from collections.abc import Callable
from pathlib import Path

import torch

POWERCAP = Path("/sys/class/powercap")

Counter = tuple[Callable[[], float], float]  # reads joules; at how many joules it starts again from zero (inf: never)


class Meter:
    """The energy counters of a device; `spent` tells the joules since the last call, or None if it cannot be known."""

    def __init__(self, device: torch.device, counters: Callable[[torch.device], list[Counter]] | None = None) -> None:
        self._counters = (counters or find_counters)(device)
        self._last = self._read()

    def spent(self) -> float | None:
        """Joules since the last call or the meter's making; call it more often than a counter starts again."""
        before, self._last = self._last, self._read()
        if not before or not self._last:
            return None
        ends = [end for _, end in self._counters]
        return sum(
            new - old + (end if new < old else 0.0) for old, new, end in zip(before, self._last, ends, strict=True)
        )

    def _read(self) -> list[float]:
        try:
            return [read() for read, _ in self._counters]
        except (OSError, ValueError):
            return []


def find_counters(device: torch.device) -> list[Counter]:
    """The device's counters; empty where it has none, or none that this process may read."""
    try:
        return [_nvml(device)] if device.type == "cuda" else _powercap(POWERCAP)
    except (OSError, ValueError, AttributeError):  # no library, no permission, not a number, an old driver or torch
        return []


def _powercap(folder: Path) -> list[Counter]:
    """One counter per processor package: intel-rapl:0 and so on; intel-rapl:0:1 is a part of it, counted in it."""
    counters = []
    for package in sorted(folder.glob("intel-rapl:*")):
        if package.name.count(":") == 1 and (package / "name").read_text().startswith("package"):
            file = package / "energy_uj"
            file.read_text()  # where it may not be read the package cannot be left out: all or nothing
            counters.append((lambda file=file: int(file.read_text()) / 1e6, _wraps_at(package)))
    return counters


def _wraps_at(package: Path) -> float:
    return int((package / "max_energy_range_uj").read_text()) / 1e6


def _nvml(device: torch.device) -> Counter:
    """The GPU's own count since the driver was loaded (NVML, in millijoules; GPUs from Volta on)."""
    nvml = ctypes.CDLL("libnvidia-ml.so.1")
    handle, name = ctypes.c_void_p(), f"GPU-{torch.cuda.get_device_properties(device).uuid}"

    def ask(function: str, *arguments: object) -> None:
        if code := getattr(nvml, function)(*arguments):
            raise OSError(f"{function}: NVML error {code}")

    ask("nvmlInit_v2")
    ask("nvmlDeviceGetHandleByUUID", name.encode(), ctypes.byref(handle))

    def read() -> float:
        millijoules = ctypes.c_ulonglong()
        ask("nvmlDeviceGetTotalEnergyConsumption", handle, ctypes.byref(millijoules))
        return millijoules.value / 1e3

    read()
    return read, float("inf")
