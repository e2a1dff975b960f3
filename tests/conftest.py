"""What every test stands on: records and checkpoints in its own folder, one thread, the digits loaded once."""

import pytest
import torch

from elrkit import data


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    """No test reads or writes the store or the checkpoints of the person who runs it."""
    monkeypatch.setenv("ELRKIT_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("ELRKIT_STATE", str(tmp_path / "state"))
    torch.set_num_threads(1)  # the bits of a result depend on the number of threads


@pytest.fixture(scope="session")
def digits():
    return data.load("digits")
