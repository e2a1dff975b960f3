# make report: set up, run every notebook, build the book into _build/html
# make test:   lint, unit tests, notebooks, the book in a browser; ends with pytest's summary

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

NOTEBOOK_SOURCES := $(wildcard notebooks/*.py)
NOTEBOOKS := $(NOTEBOOK_SOURCES:.py=.ipynb)
EXECUTED := $(NOTEBOOKS:notebooks/%=_build/notebooks/%)
PACKAGE := $(wildcard elrkit/*.py) $(wildcard elrkit/*.html)
RECORDS := $(filter-out results/runs/digits/%,$(wildcard results/runs/*/*.json results/*/*.json))
BOOK := _config.yml $(wildcard book/*) $(wildcard book/*/*) $(wildcard paper/*.csv) README.md

.PHONY: report test lint format notebooks lock clean help

help:  ## list what can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

report: _build/html/index.html  ## set up, run every notebook, build the book
	@echo "the report is at _build/html/index.html"

test: $(READY) _build/html/index.html lint  ## ruff, pytest, nbval, the built book in a browser
	$(BIN)/python -m pytest tests --nbval-sanitize-with tests/nbval_sanitize.cfg -p no:cacheprovider

lint: $(READY)  ## ruff and the workflow file's schema
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/report.yml

format: $(READY)  ## rewrite the code as ruff would
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

notebooks: $(EXECUTED)  ## store freshly executed notebooks beside their sources, for readers and nbval
	$(BIN)/python -m elrkit.book store

lock: $(VENV)  ## resolve the newest versions again
	uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-annotate --no-header --upgrade -q -o requirements.lock

clean:  ## remove what was built, not the environment nor any record
	rm -rf _build

# uv installs the same locked wheels in a tenth of pip's time; pip serves where there is no uv.
$(READY): requirements.lock pyproject.toml
	@if command -v uv >/dev/null; then \
		test -x $(BIN)/python || uv venv -q --python 3.11 $(VENV); \
		uv pip sync -q --python $(BIN)/python --require-hashes requirements.lock && \
		uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation -e .; \
	else \
		test -x $(BIN)/python || $(PYTHON) -m venv $(VENV); \
		$(BIN)/python -m pip install -q --require-hashes -r requirements.lock && \
		$(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .; \
	fi
	@touch $@
