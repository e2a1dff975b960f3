"""The repository as a whole: one list of dependencies, a lock that fits it, no word of the machine it was made on."""

import copy
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from packaging.requirements import Requirement

import elrkit

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "requirements.lock").read_text()


def locked():
    pins = re.findall(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", LOCK, flags=re.MULTILINE)
    return {name.lower().replace("_", "-"): version for name, version in pins}


def declared():
    extras = PROJECT["optional-dependencies"].values()
    texts = (*PROJECT["dependencies"], *(text for extra in extras for text in extra))
    return [Requirement(text) for text in texts if not text.startswith("elrkit[")]  # an extra that stands on another


@pytest.mark.parametrize("requirement", declared(), ids=lambda r: r.name)
def test_lock_satisfies_every_declared_dependency(requirement):
    version = locked()[requirement.name.lower().replace("_", "-")]
    assert requirement.specifier.contains(version, prereleases=True)


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


@pytest.mark.parametrize("page", ["README.md", "book/elr.md"])
def test_the_loops_that_are_shown_train(page):
    """The Python blocks of the page, one after the other, with a data set, a model and an optimizer of one's own."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    images = torch.randn(300, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 10))
    names = {"train_set": [(image, number % 10) for number, image in enumerate(images)], "model": model}
    names |= {"device": "cpu", "optimizer": torch.optim.SGD(model.parameters(), lr=0.1)}
    before = copy.deepcopy(model.state_dict())
    for code in blocks:
        exec(code, names)
    assert names["loss"].isfinite()
    if any(".step()" in code for code in blocks):
        assert not model[1].weight.equal(before["1.weight"])
    sums = names["loss_fn"].targets.sum(dim=1)  # moved from zero by 1 - beta, once in each loop
    loops = sum(".update(" in code for code in blocks)
    assert torch.allclose(sums, torch.full((300,), 1 - 0.7**loops))


def test_a_wheel_trains_and_lists_without_the_checkout(tmp_path):
    """Built, unpacked somewhere, and run from a folder that knows nothing of the repository."""
    source, site, home = (tmp_path / name for name in ("source", "site", "home"))
    shutil.copytree(ROOT / "elrkit", source / "elrkit", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    home.mkdir()

    def run(*command, **options):
        variables = {"PYTHONPATH": str(site), "HOME": str(home), "ELRKIT_RESULTS": "", "ELRKIT_STATE": ""}
        ended = subprocess.run(
            [sys.executable, *map(str, command)], cwd=home, env=os.environ | variables, capture_output=True, text=True,
            timeout=600, **options,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    build = "from setuptools.build_meta import build_wheel; build_wheel('../wheel')"
    built = subprocess.run([sys.executable, "-c", build], cwd=source, capture_output=True, text=True, timeout=600)
    assert built.returncode == 0, built.stderr
    (wheel,) = (tmp_path / "wheel").glob("elrkit-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    assert (site / "elrkit" / "py.typed").exists()
    assert "elrkit = elrkit.__main__:main" in next(site.glob("*.dist-info/entry_points.txt")).read_text()
    said = run("-m", "elrkit", "train", "--epochs", "2", "--width", "8", "--train-size", "190")
    record = json.loads(Path(said.splitlines()[-1]).read_text())
    assert record["status"] == "finished"
    assert Path(said.splitlines()[-1]).is_relative_to(home / ".cache" / "elrkit" / "runs")
    asked = """
import elrkit
from elrkit.__main__ import main
from elrkit.report import effects, tables
print(elrkit.__file__, elrkit.__version__)
claims = effects.load_claims()
found = effects.table(effects.evidence(), claims)
print(len(found), tables.claims_html(found, claims).count("<table"))
main(["runs", "--csv", "--columns", "run_id", "test_top1"])
"""
    assert run("-c", asked).splitlines() == [
        f"{site / 'elrkit' / '__init__.py'} {PROJECT['version']}", "0 1",
        "run_id,test_top1", f"{record['run_id']},{record['curves']['test_top1'][-1]}",
    ]  # fmt: skip
