"""Energy: counters read as they count, added up over stops and resumes, and absent where a device does not tell."""

import itertools
import json
import shutil

import pytest
import torch

from elrkit import energy, train
from elrkit.config import RunConfig
from elrkit.train import Stopped, comparable, fit

CPU = torch.device("cpu")
TINY = RunConfig(train_size=190, width=8, epochs=2, noise_rate=0.4, lr=0.05)


def reading(values, end=float("inf")):
    values = iter(values)
    return lambda: next(values), end


def package(folder, number, joules, name="package-0", largest=1000):
    path = folder / f"intel-rapl:{number}"
    path.mkdir(parents=True)
    for file, text in {
        "name": name,
        "energy_uj": joules * 1_000_000,
        "max_energy_range_uj": largest * 1_000_000,
    }.items():
        (path / file).write_text(f"{text}\n")
    return path / "energy_uj"


def test_counters_add_up_and_start_again_from_zero():
    counters = [reading([10, 14, 20]), reading([90, 95, 5], end=100)]
    meter = energy.Meter(CPU, lambda device: counters)
    assert meter.spent() == 4 + 5
    assert meter.spent() == 6 + 10  # the second went from 95 to 100 and on to 5


def test_packages_are_counted_once_and_their_parts_not_at_all(tmp_path, monkeypatch):
    first, second = package(tmp_path, "0", 5), package(tmp_path, "1", 7, "package-1")
    package(tmp_path, "0:1", 100, "dram")
    package(tmp_path, "2", 100, "psys")  # the whole platform, packages included
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    meter = energy.Meter(CPU)
    first.write_text("6500000\n")
    second.write_text("9000000\n")
    assert meter.spent() == pytest.approx(1.5 + 2)
    second.unlink()
    assert meter.spent() is None
    assert meter.spent() is None


@pytest.mark.parametrize("broken", ["nothing", "no range", "not a number"])
def test_what_cannot_be_read_is_no_counter(tmp_path, monkeypatch, broken):
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    if broken != "nothing":
        file = package(tmp_path, "0", 5)
        if broken == "no range":
            (file.parent / "max_energy_range_uj").unlink()
        else:
            file.write_text("?")
    assert energy.Meter(CPU).spent() is None


class Nvml:
    """The three functions of the library that are used, on one GPU that counts 1500 mJ at each reading."""

    known, total = b"GPU-12", 0

    def nvmlInit_v2(self):
        return 0

    def nvmlDeviceGetHandleByUUID(self, name, handle):
        return 0 if name == self.known else 6

    def nvmlDeviceGetTotalEnergyConsumption(self, handle, millijoules):
        self.total += 1500
        millijoules._obj.value = self.total
        return 0


@pytest.mark.parametrize(("uuid", "joules"), [("12", 1.5), ("13", None)])
def test_gpu_is_asked_by_its_own_name(monkeypatch, uuid, joules):
    properties = type("Properties", (), {"uuid": uuid})
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(energy.ctypes, "CDLL", lambda name: Nvml())
    assert energy.Meter(torch.device("cuda")).spent() == joules


def test_gpu_without_the_library_tells_nothing(monkeypatch):
    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(energy.ctypes, "CDLL", missing)
    assert energy.find_counters(torch.device("cuda")) == []


@pytest.fixture
def joule_a_reading(monkeypatch):
    """Each reading finds one joule more than the last, whichever run reads."""
    count = itertools.count()
    monkeypatch.setattr(energy, "find_counters", lambda device: [(lambda: next(count), float("inf"))])


def test_record_of_a_resumed_run_adds_up(digits, tmp_path, joule_a_reading, monkeypatch):
    monkeypatch.setattr(train, "METER_SECONDS", -1.0)  # a reading before each step
    whole = fit(TINY, dataset=digits)
    steps = TINY.epochs * 3
    assert whole["timing"]["joules"] == steps + 1  # and one at the end
    calls = iter(range(100))
    with pytest.raises(Stopped):
        fit(TINY, dataset=digits, state_dir=tmp_path, should_stop=lambda: next(calls) >= 4)
    resumed = fit(TINY, dataset=digits, state_dir=tmp_path, jobs=2)
    assert resumed["timing"]["joules"] == (4 + 1) + (steps - 4 + 1)  # 4 steps and the stop; the rest and the end
    assert resumed["timing"]["jobs"] == 2
    assert comparable(resumed) == comparable(whole)
    json.dumps(resumed, allow_nan=False)


def test_energy_is_unknown_when_a_part_of_the_run_was_not_counted(digits, tmp_path, joule_a_reading, monkeypatch):
    calls = iter(range(100))
    with pytest.raises(Stopped):
        fit(TINY, dataset=digits, state_dir=tmp_path / "counted", should_stop=lambda: next(calls) >= 4)
    shutil.copytree(tmp_path / "counted", tmp_path / "older")
    older = train._read(tmp_path / "older" / "checkpoint.pt")
    del older["timing"]["joules"]  # as checkpoints were before energy was noted
    train._write(tmp_path / "older" / "checkpoint.pt", older)
    assert fit(TINY, dataset=digits, state_dir=tmp_path / "older")["timing"]["joules"] is None
    monkeypatch.setattr(energy, "find_counters", lambda device: [])
    assert fit(TINY, dataset=digits, state_dir=tmp_path / "counted")["timing"]["joules"] is None
    assert not list(tmp_path.rglob("*.damaged"))
