"""The notebooks: text and .ipynb are one, stored outputs are clean, other parameters work, wrong ones stop at once."""

import json
import re
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
import papermill
import pytest
from small_dataset import write_dataset

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
NAMES = sorted(path.stem for path in NOTEBOOKS.glob("*.py"))

TINY = dict(noise_rates=[0.3], seeds=[0, 1], epochs=2, train_size=200, batch_size=50, jobs=1)
OTHER_PARAMETERS = {
    "api": {"modules": ["sam"]},
    "audit": {"train": True, "seeds": [0]},  # and a dataset
    "claims": {"claim": "sam-elr"},
    "crops": {"seeds": [0]},
    "explore": {"dataset": "cifar100"},
    "hyperparameters": {"size": 10},
    "made": {"dataset": "cifar100"},
    "people": {"levels": ["worst"]},
    "sam": {"seeds": [0]},
    "shop": {"leaks": "[0, 40]"},
    "table1": {"noise_rates": "[0.2]", "seeds": [0]},
    "theory": {"beta": 0.9},
}


def run(name, tmp_path, parameters):
    """Execute a notebook by papermill, as the README tells a rerunner to."""
    out = tmp_path / "out.ipynb"
    papermill.execute_notebook(
        NOTEBOOKS / f"{name}.ipynb", out, parameters, cwd=NOTEBOOKS, kernel_name="python3", progress_bar=False
    )
    return nbformat.read(out, as_version=4)


def plain(source):
    """Python without the magics."""
    return "\n".join(line for line in source.splitlines() if not line.startswith("%"))


def text_of(notebook):
    return "\n".join(o.get("text", "") for cell in notebook.cells for o in cell.get("outputs", []))


@pytest.mark.parametrize("name", NAMES)
def test_text_and_notebook_are_the_same(name):
    text, stored = jupytext.read(NOTEBOOKS / f"{name}.py"), nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    assert [(c.cell_type, c.source) for c in text.cells] == [(c.cell_type, c.source) for c in stored.cells], (
        "run `make notebooks`"
    )


@pytest.mark.parametrize("name", NAMES)
def test_stored_notebook_has_parameters_and_no_error(name):
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in notebook.cells) == 1
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert outputs
    assert all(output.output_type != "error" and output.get("name") != "stderr" for output in outputs)
    assert not {"papermill", "widgets"} & notebook.metadata.keys()


@pytest.mark.parametrize("name", OTHER_PARAMETERS)
def test_runs_with_other_parameters(name, tmp_path):
    dataset = {"dataset": write_dataset(tmp_path / "s.npz")} if name == "audit" else {}
    assert "nan %" not in nbformat.writes(run(name, tmp_path, OTHER_PARAMETERS[name] | dataset))


def test_readmes_papermill_command_takes_lists(tmp_path):
    command = [Path(sys.executable).with_name("papermill"), "early_learning.ipynb", tmp_path / "out.ipynb"]
    flags = {"noise_rates": "[0.3, 0.6]", "losses": "[elr]", "seeds": "[3]", "epochs": 2, "train_size": 200, "jobs": 1,
             "measured_on": "batches"}  # fmt: skip
    for name, value in flags.items():
        command += ["-p", name, str(value)]
    subprocess.run(command, cwd=NOTEBOOKS, check=True, capture_output=True)
    configs = [json.loads(path.read_text())["config"] for path in (tmp_path / "results" / "digits").glob("*.json")]
    assert sorted((c["noise_rate"], c["loss"], c["seed"]) for c in configs) == [(0.3, "elr", 3), (0.6, "elr", 3)]
    assert "2 runs, noise rates [0.3, 0.6]" in text_of(nbformat.read(tmp_path / "out.ipynb", as_version=4))


@pytest.mark.parametrize(
    ("name", "parameters", "line"),
    [
        ("early_learning", {"noise_rates": [1.5]}, "noise_rate=1.5: should be less than or equal to 1"),
        ("early_learning", {"losses": ["elrr"]}, "loss='elrr': should be 'ce', 'elr', 'sce', 'nce_rce'"),
        ("early_learning", {"seeds": []}, "seeds=[]: allowed is a list with at least one value"),
        ("early_learning", {"dataset": "mnist"}, "dataset='mnist': allowed are digits, cifar10, cifar100"),
        ("early_learning", {"dataset": "./gone.npz"}, "dataset './gone.npz': no such file or folder"),
        ("early_learning", {"batch_size": 5000}, "batch_size=5000: larger than the 1347 training images"),
        ("early_learning", {"measured_on": "test"}, "measured_on='test': allowed are eval, batches"),
        ("table1", {"scale": "small"}, "scale='small': allowed are cpu, paper, digits"),
        ("table1", {"jobs": 0}, "jobs=0: allowed are whole numbers from 1"),
        ("sam", {"train": "false"}, "train='false': allowed are True and False"),
        ("audit", {"train": 1}, "train=1: allowed are True and False"),
        ("early_learning", {"jobs": -1}, "jobs=-1: allowed are whole numbers from 1"),
        ("table1", {"noise_rates": [1.5]}, "noise_rate=1.5: should be"),
        ("sam", {"seeds": []}, "seeds=[]: allowed is a list with at least one value"),
        ("people", {"levels": ["awful"]}, "levels=['awful']: allowed are aggregate"),
        ("audit", {"seeds": [-1]}, "seeds=-1: allowed are whole numbers from 0"),
        ("audit", {"rate": 1.5}, "rate=1.5: allowed is a share"),
        ("shop", {"leaks": [120]}, "leaks=120: allowed are whole numbers from 0 to 90"),
        ("shop", {"photos": "cats"}, "photos='cats': allowed are digits, clothing"),
        ("shop", {"seeds": [7]}, "no such shop is there; train=True makes them"),
        ("made", {"dataset": "nope"}, "dataset='nope': no record is of it"),
        ("explore", {"dataset": "nope"}, "dataset='nope': no record is of it"),
        ("claims", {"claim": "nothing"}, "claim='nothing': allowed are elr-cifar10"),
        ("theory", {"lam": -1}, "lam=-1: allowed are numbers from 0.001"),
        ("theory", {"n": 50.5}, "n=50.5: allowed are whole numbers from 20"),
        ("theory", {"seeds": "[0, -1]"}, "seeds=-1: allowed are whole numbers from 0"),
    ],
)
def test_parameters_that_cannot_be_honoured_are_named_in_the_first_cell(name, parameters, line, monkeypatch):
    monkeypatch.chdir(NOTEBOOKS)
    code = [cell for cell in jupytext.read(NOTEBOOKS / f"{name}.py").cells if cell.cell_type == "code"]
    first = next(i for i, cell in enumerate(code) if "parameters" in cell.metadata.get("tags", [])) + 1
    namespace = {"In": []}
    for cell in code[:first]:
        exec(plain(cell.source), namespace)
    if name == "early_learning":
        namespace |= TINY | {"train_size": None}
    namespace |= parameters
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text follows
        exec(plain(code[first].source), namespace)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def test_a_misspelt_parameter_stops_papermill(tmp_path):
    with pytest.raises(
        papermill.PapermillExecutionError, match="noise_rate: no parameter of this notebook; allowed are"
    ):
        run("early_learning", tmp_path, TINY | {"noise_rate": [0.3]})


@pytest.mark.parametrize("name", NAMES)
def test_stored_outputs_hold_nothing_of_chance(name):
    """pandas names tables at random, an object tells its place in memory, matplotlib the time: all else would drown in
    their changes."""
    text = (NOTEBOOKS / f"{name}.ipynb").read_text()
    tables = list(dict.fromkeys(re.findall(r"\bT_[0-9a-f]{5}(?=_|\b)", text)))
    assert tables == [f"T_{number:05x}" for number in range(len(tables))]
    assert " at 0x" not in text
    assert "<dc:date>" not in text
