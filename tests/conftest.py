"""What every test stands on: records and checkpoints in its own folder, one thread, one browser, one set of digits."""

import shutil

import pytest
import torch

from elrkit import data

pytest.register_assert_rewrite("refusals", "shops")  # so that what they hold explains itself too
torch.set_num_threads(1)  # the bits of a result depend on the number of threads


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """A file's tests share a worker, and what they set up; those of the notebooks share nothing and take long."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.partition("::")[0]
            return nodeid if file.endswith("test_notebooks.py") else file

    return ByFile(config, log)


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    """No test reads or writes the store or the checkpoints of the person who runs it."""
    monkeypatch.setenv("ELRKIT_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("ELRKIT_STATE", str(tmp_path / "state"))


@pytest.fixture
def no_evidence(tmp_path, monkeypatch):
    """Out of the checkout, whose records are evidence."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def browser():
    """The system's Chromium, headless."""
    api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright: pip install 'elrkit[test]'")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("needs the package chromium of the operating system: apt install chromium")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path,
            # A page without a window would run at the lowest priority, and wait for the tests beside it.
            args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-renderer-backgrounding"],
        )
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def digits():
    return data.load("digits")
