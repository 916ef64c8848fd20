# Every target sets up what it needs: a fresh clone, Python 3.11 or newer and make are enough.
SHELL := bash
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup demo test check fmt bench coverage docs clean distclean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
say = @printf '\033[1m==> %s\033[0m\n'

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

setup: $(READY) ## Make .venv with everything to run, test and document raflow
	@echo "$(VENV) is ready"

# uv is six times as fast as pip. It does not read pip's settings, so where only pip can reach the
# packages (a mirror, a proxy) pip installs the same.
$(READY): pyproject.toml
	@test -x $(BIN)/python || { \
	  $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo "raflow needs Python 3.11 or newer; say which: make PYTHON=python3.12 ..."; exit 1; }; \
	  printf '\033[1m==> %s\033[0m\n' "Making $(VENV)"; \
	  $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }; }
	$(say) "Installing raflow and its tools (once; about a minute at most)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.9,<1" 2>/dev/null || true
	@$(BIN)/python -m uv pip install --quiet --python $(BIN)/python --editable ".[dev]" \
	  || { echo "uv could not install it; trying with pip"; \
	       $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"; }
	@touch $(READY)

demo: $(READY) ## Run a real pipeline on a local Ray and show what it left
	$(say) "Running examples/01_flights on a local Ray"
	@$(BIN)/raflow run examples/01_flights/flow.py
	@echo "raflow is $(BIN)/raflow; to type less: source $(BIN)/activate"

check: $(READY) ## Format, lint, types, layers and unit tests: the quick half of `test`
	$(say) "Format and lint"
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/ruff check --quiet .
	$(say) "Types"
	@$(BIN)/mypy
	$(say) "Layers"
	@$(BIN)/lint-imports --no-logo
	$(say) "Unit tests"
	@$(BIN)/pytest -q -n 2 tests/unit tests/package

# Many of these tests wait; more at a time than there are cores makes Ray itself miss its own times.
WORKERS ?= 2

test: check ## Everything: what CI runs
	$(say) "All other tests: store, both backends, end to end, docs"
	@$(BIN)/pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder tests --ignore=tests/unit --ignore=tests/package

fmt: $(READY) ## Format and fix what can be fixed by machine
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

coverage: $(READY) ## Branch coverage of the engine and the store by their own tests
	@$(BIN)/coverage run -m pytest -q tests/unit tests/store
	@$(BIN)/coverage report --include='raflow/engine/*,raflow/store/*' --fail-under=95

# `make bench BENCHMARKS="chain metg"` runs some of them.
BENCHMARKS ?= import_time first_task fan_out big_map chain metg granularity mixed big_values \
  windmill detection resume peers

bench: $(READY) ## Run the benchmarks; figures go to benchmarks/results
	@set -e; for name in $(BENCHMARKS); do \
	  printf '\033[1m==> %s\033[0m\n' "benchmarks/$$name.py"; $(BIN)/python -m benchmarks.$$name; done
	@$(BIN)/python -m benchmarks.report

docs: $(READY) ## Build the documentation into site/
	@$(BIN)/zensical build --strict --clean

clean: ## Remove caches and builds
	@rm -rf build dist site htmlcov .cache .coverage .coverage.* .hypothesis .import_linter_cache \
	  .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean ## Remove .venv too
	@rm -rf $(VENV)
