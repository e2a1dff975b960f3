"""Run the notebooks and build the book: the steps behind `make report`.

python book/build.py execute NAME...   notebooks/NAME.py -> _build/notebooks/NAME.ipynb, executed by papermill
python book/build.py html              the executed notebooks and book/ -> _build/html, warnings as errors
python book/build.py store             the executed notebooks -> notebooks/NAME.ipynb, without times and paths
python book/build.py readme            the README's figure, from the committed records
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import jupytext
import nbformat
import papermill

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "_build"
# What the chapters train goes to the build, whatever the caller's own store; evidence is what is committed.
os.environ |= {"ELRKIT_RESULTS": str(BUILD / "runs"), "ELRKIT_STATE": str(BUILD / "state")}
EXECUTED = BUILD / "notebooks"
SHOWN_AS_TAGGED = {"remove-cell", "remove-input", "hide-cell", "hide-input", "show-input"}
STAGE = BUILD / "source"

# Cell and notebook metadata that readers and tests use; all else (times, paths, versions) changes at every run.
KEPT_CELL_METADATA = ("tags", "mystnb")
KEPT_METADATA = ("jupytext", "kernelspec")


def execute(name: str) -> None:
    """Run one notebook from its text source, its output shown as it comes; papermill stops at the first error."""
    EXECUTED.mkdir(parents=True, exist_ok=True)
    source, target = BUILD / "unexecuted" / f"{name}.ipynb", EXECUTED / f"{name}.ipynb"
    source.parent.mkdir(parents=True, exist_ok=True)
    jupytext.write(jupytext.read(ROOT / "notebooks" / f"{name}.py"), source)
    running = target.with_suffix(".running.ipynb")
    print(f"notebook {name}", flush=True)
    for last_try in (False, True):
        try:
            papermill.execute_notebook(
                source, running, cwd=ROOT / "notebooks", kernel_name="python3", progress_bar=False,
                stdout_file=sys.stdout, stderr_file=sys.stderr,
            )  # fmt: skip
            break
        except RuntimeError as error:
            # Of two kernels that start at the same time the later one may have been given the other's port.
            if last_try or "Kernel died before replying" not in str(error):
                raise
            print(f"notebook {name}: its kernel did not start, once more", flush=True)
    running.replace(target)


def clean(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Drop what papermill, the kernel and matplotlib add: times, paths, versions, progress on standard error; number
    the tables, which pandas names by chance; join what was printed in several pieces."""
    tables: dict[str, str] = {}

    def numbered(match: re.Match[str]) -> str:
        return tables.setdefault(match[0], f"T_{len(tables):05x}")

    notebook.metadata = {key: notebook.metadata[key] for key in KEPT_METADATA if key in notebook.metadata}
    executed = 0
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        cell.metadata = {key: cell.metadata[key] for key in KEPT_CELL_METADATA if cell.metadata.get(key)}
        if cell.cell_type == "code":
            cell.execution_count = executed = executed + 1
            cell.outputs = joined(o for o in cell.outputs if o.get("name") != "stderr")
            for output in cell.outputs:
                if "execution_count" in output:
                    output.execution_count = executed
                for kind, text in output.get("data", {}).items():  # what is glued has a prefix to its kind
                    if kind.endswith("text/plain"):
                        output.data[kind] = re.sub(r" at 0x[0-9a-f]+", "", text)  # an object's place in memory
                    if kind.endswith("image/svg+xml"):
                        output.data[kind] = re.sub(r"\s*<dc:date>[^<]*</dc:date>", "", text)
                    if kind.endswith("text/html"):
                        output.data[kind] = re.sub(r"\bT_[0-9a-f]{5}(?=_|\b)", numbered, text)
    return notebook


def joined(outputs: Iterable[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    found: list[nbformat.NotebookNode] = []
    for output in outputs:
        if found and output.output_type == found[-1].output_type == "stream":
            found[-1].text += output.text
        else:
            found.append(output)
    return found


def store() -> None:
    for path in sorted(EXECUTED.glob("[!.]*.ipynb")):
        notebook = clean(nbformat.read(path, as_version=4))
        nbformat.write(notebook, ROOT / "notebooks" / path.name)


def html() -> None:
    """Stage the pages and build; a page that holds an error output, or any warning, fails."""
    shutil.rmtree(STAGE, ignore_errors=True)
    shutil.rmtree(BUILD / "html", ignore_errors=True)  # pages that left the table of contents would survive
    shutil.copytree(ROOT / "book", STAGE / "book", ignore=shutil.ignore_patterns("build.py", "__pycache__"))
    shutil.copy(ROOT / "_config.yml", STAGE)
    (STAGE / "notebooks").mkdir()
    for path in sorted(EXECUTED.glob("*.ipynb")):
        if not (ROOT / "notebooks" / path.name).with_suffix(".py").exists():
            continue
        notebook = clean(nbformat.read(path, as_version=4))
        for cell in notebook.cells:
            for output in cell.get("outputs", []):
                if output.output_type == "error":
                    sys.exit(f"{path.name}: a cell ended with {output.ename}: {output.evalue}")
            tags = cell.metadata.setdefault("tags", [])
            if cell.cell_type == "code" and not SHOWN_AS_TAGGED & set(tags):
                tags.append("hide-input")  # readers look for results; the code is a click away
                if "parameters" in tags:
                    cell.metadata.setdefault("mystnb", {})["code_prompt_show"] = "parameters"
        nbformat.write(notebook, STAGE / "notebooks" / path.name)
    command = [
        Path(sys.executable).with_name("jupyter-book"), "build", str(STAGE), "--toc", str(STAGE / "book" / "_toc.yml"),
        "--path-output", str(ROOT), "-W", "-n", "--keep-going", "--all", "--quiet",
    ]  # fmt: skip
    if subprocess.run(command, check=False).returncode:
        sys.exit("the book was not built: see the warnings above")
    shutil.copytree(
        ROOT / "results" / "runs", BUILD / "html" / "_static" / "records", ignore=shutil.ignore_patterns("digits")
    )
    from elrkit.report import explore

    (BUILD / "html" / "_static" / "explore.js").write_text(explore.script(), encoding="utf-8")


def readme() -> None:
    from elrkit.report import effects, figures

    figure = figures.answer(effects.evidence())
    figure.savefig(ROOT / "book" / "_static" / "answer.png", dpi=144, metadata={"Software": None})


def main() -> None:
    match sys.argv[1:]:
        case ["execute", *names] if names:
            for name in names:
                execute(name)
        case ["html"]:
            html()
        case ["store"]:
            store()
        case ["readme"]:
            readme()
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
