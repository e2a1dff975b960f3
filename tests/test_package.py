"""The repository as a whole: one list of dependencies, a lock that fits it, no word of the machine it was made on."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import torch
import yaml
from packaging.requirements import Requirement

import elrkit
from elrkit.report import findings

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "requirements.lock").read_text()


def locked():
    pins = re.findall(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", LOCK, flags=re.MULTILINE)
    return {name.lower().replace("_", "-"): version for name, version in pins}


def declared():
    extras = PROJECT["optional-dependencies"].values()
    return [Requirement(text) for text in (*PROJECT["dependencies"], *(t for extra in extras for t in extra))]


@pytest.mark.parametrize("requirement", declared(), ids=lambda r: r.name)
def test_lock_satisfies_every_declared_dependency(requirement):
    version = locked()[requirement.name.lower().replace("_", "-")]
    assert requirement.specifier.contains(version, prereleases=True)


def test_lock_pins_every_package_with_hashes_and_names_no_host():
    # A package may stand twice, for different versions of Python.
    blocks = re.split(r"\n(?=[a-z])", LOCK.strip())
    assert all(re.match(r"[a-z0-9._-]+==[^ ]+ ", block) for block in blocks)
    assert len(locked()) > 100
    assert all("--hash=sha256:" in block for block in blocks)
    assert "://" not in LOCK


def test_no_dependency_is_declared_twice():
    names = [requirement.name.lower() for requirement in declared()]
    assert len(names) == len(set(names))


def test_conda_environment_takes_everything_from_the_package():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    assert [re.split("[=<>]", name)[0] for name in conda] == ["python", "pip"]
    (install,) = pip["pip"]
    name, extras = re.fullmatch(r"-e (\.)\[([a-z,]+)\]", install).groups()
    assert name == "."
    assert set(extras.split(",")) <= PROJECT["optional-dependencies"].keys()
    assert {"book", "test"} <= set(extras.split(","))
    python = next(name for name in conda if name.startswith("python"))
    assert python.split("=")[1] in PROJECT["requires-python"]


def test_versions_agree():
    assert PROJECT["version"] == elrkit.__version__
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == elrkit.__version__
    assert citation["license"] == PROJECT["license"] == "MIT"


def test_nothing_names_a_machine_or_a_package_index():
    try:
        files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout, so there is no list of the project's files")
    pattern = re.compile(rb"py[p]i\.org|pythonhoste[d]\.org|/roo[t]/|/hom[e]/[a-z]|/wor[k]/")
    named = [
        name for name in files.decode().split("\0") if name and (ROOT / name).is_file()
        and pattern.search((ROOT / name).read_bytes())
    ]  # fmt: skip
    assert named == []


def test_readme_shows_what_the_committed_records_say(monkeypatch):
    monkeypatch.setenv("ELRKIT_RESULTS", str(ROOT / "results" / "runs"))
    decided = findings.ledger()
    assert f"\n{findings.readme(decided)}\n" in (ROOT / "README.md").read_text(), "python book/build.py readme"


@pytest.mark.parametrize("page", ["README.md", "book/elr.md"])
def test_the_loop_that_is_shown_trains(page):
    """The Python block of the page, with a data set, a model and an optimizer of one's own."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    images = torch.randn(300, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 10))
    names = {"train_set": [(image, number % 10) for number, image in enumerate(images)], "model": model}
    names |= {"device": "cpu", "optimizer": torch.optim.SGD(model.parameters(), lr=0.1)}
    exec(code, names)
    assert names["loss"].isfinite()
    sums = names["loss_fn"].targets.sum(dim=1)  # each moved once from zero, by 1 - beta
    assert torch.allclose(sums, torch.full((300,), 0.3))
