# make report   set up, run every notebook, build the book into _build/html
# make test     lint, unit tests, notebooks, the book in a browser; ends with pytest's summary

PYTHON ?= python3.11
BIN := .venv/bin
READY := .venv/.ready

NAMES := $(basename $(notdir $(wildcard notebooks/*.py)))
EXECUTED := $(NAMES:%=_build/notebooks/%.ipynb)
PACKAGE := $(wildcard elrkit/*.py elrkit/*/*.py elrkit/*/*.html elrkit/*/*.csv elrkit/*/*.js)
RECORDS := $(wildcard results/*.json results/audit/* results/shop/* results/runs/*/*.json)
PAGES := _config.yml $(filter-out book/__pycache__,$(wildcard book/*)) $(wildcard book/_static/*)

# Two notebooks at a time: most of a chapter's seconds are one core's. (`make clean report` stays in order.)
ifeq ($(filter clean,$(MAKECMDGOALS)),)
MAKEFLAGS += --jobs=2
endif

# Some eighty processes import torch here: without bytecode kept from the first, each compiles 1,000 modules again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: report test lint format notebooks lock clean help
.DELETE_ON_ERROR:

report: _build/html/index.html ## set up, run every notebook, build the book into _build/html
	@echo "the report is at _build/html/index.html"

# nbval finds the runs that the chapters trained for the report.
test: export ELRKIT_RESULTS = $(CURDIR)/_build/runs
test: lint _build/html/index.html ## lint, pytest, nbval, the book in a browser
	$(BIN)/python -m pytest -n 2 --dist loadfile --nbval --nbval-current-env --nbval-cell-timeout=600 tests notebooks

help: ## list what can be made
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST)

lint: $(READY) ## ruff, the walls between the wings, the core's types, the schema of the workflow
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy --cache-dir _build/mypy
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/report.yml

format: $(READY) ## rewrite the code as ruff would
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

notebooks: $(EXECUTED) ## store the executed notebooks beside their sources, for readers and nbval
	$(BIN)/python book/build.py store

lock: ## resolve the newest versions again
	uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-annotate --no-header --upgrade -q -o requirements.lock

clean: ## remove what was built, not the environment nor any record
	rm -rf _build

_build/html/index.html: $(EXECUTED) $(PAGES)
	$(BIN)/python book/build.py html

_build/notebooks/%.ipynb: notebooks/%.py $(PACKAGE) $(RECORDS) | $(READY)
	$(BIN)/python book/build.py execute $*

# uv installs the lock in a tenth of pip's time; where there is none, pip brings the locked one into the environment first.
UV := $(shell command -v uv || echo $(BIN)/uv)
$(READY): requirements.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@command -v $(UV) >/dev/null || { \
		awk '/^uv==/ {on = 1} on {print} on && !/\\$$/ {exit}' requirements.lock > .venv/uv.lock && \
		$(BIN)/python -m pip install -q --require-hashes -r .venv/uv.lock; }
	@$(UV) pip sync -q --python $(BIN)/python --require-hashes requirements.lock
	@$(UV) pip install -q --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@
