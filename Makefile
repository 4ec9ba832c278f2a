# Everything a developer runs. Needs make and Python 3.11 or later, nothing else: each target makes the environment that
# it needs in .venv, and makes it again when pyproject.toml has changed.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check -qq

BASE := $(VENV)/.base-installed
DEV  := $(VENV)/.dev-installed
SERVE := $(VENV)/.serve-installed

export NO_MKDOCS_2_WARNING = 1  # an advertisement, not a warning

.DEFAULT_GOAL := help
.PHONY: help demo serve-demo federation-demo test test-services faults check bench docs clean

help:  ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(BASE)  ## Train across synthetic shops and show what each gains by joining.
	$(BIN)/coterie demo

serve-demo: $(SERVE)  ## Train on embedded data, and serve it: an API, a dashboard and the page of a shop.
	$(BIN)/python scripts/serve_demo.py

federation-demo: $(DEV)  ## Three organisations train over TLS on this machine, and one is killed on the way.
	$(BIN)/python scripts/federation_demo.py

test: $(DEV)  ## Run all tests, the examples in docstrings included.
	$(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist worksteal

test-services: $(DEV)  ## Run the tests that need PostgreSQL or a browser; installs both where it may. Nothing is skipped.
	scripts/install-services
	COTERIE_REQUIRE_SERVICES=1 COTERIE_BROWSER=1 $(BIN)/python -m pytest -q tests/browser tests/data/test_sql.py \
	  tests/cli/test_database_logs.py tests/test_storage.py tests/privacy/test_ledger.py tests/serving/store

SCENARIOS ?= 10

faults: $(DEV)  ## Kill processes around every write, and hurt a federation of real processes SCENARIOS times.
	COTERIE_FAULTS=200 COTERIE_SCENARIOS=$(SCENARIOS) $(BIN)/python -m pytest -q tests/faults

check: $(DEV)  ## Lint, formatting, types, import directions, documentation.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/mkdocs build --strict

bench: $(DEV)  ## Run every benchmark that has its data; COTERIE_DATA names the folder.
	$(PIP) install -e '.[bench]'
	@set -e; for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python "$$script"; done

docs: $(DEV)  ## Build the documentation into site/.
	$(BIN)/mkdocs build --strict
	@echo "open site/index.html"

clean:  ## Remove the environment and everything that is built.
	rm -rf $(VENV) build dist site .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find coterie tests benchmarks docs -type d -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "Coterie needs Python 3.11 or later, '$(PYTHON)' is not; name another, as in: make PYTHON=python3.13"; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(BASE): pyproject.toml | $(VENV)/bin/python
	$(PIP) install -e .
	@touch $@

$(SERVE): pyproject.toml | $(VENV)/bin/python
	$(PIP) install -e '.[serve]'
	@touch $(BASE) $@

# The development environment holds the others too: a later `make demo` need not install anything.
$(DEV): pyproject.toml | $(VENV)/bin/python
	$(PIP) install -e '.[dev]'
	@touch $(BASE) $(SERVE) $@
