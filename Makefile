# Everything runs in .venv, which the first target that needs it creates.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-unit lint bench docs clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.demo  ## Show rules and receivers on every write path, and a listener that is killed
	$(BIN)/python -m examples.shop.demo $(ARGS)

test: $(VENV)/.dev  ## Run the tests (ARGS="-k name -x" goes to pytest)
	$(BIN)/python -m pytest -n 4 $(ARGS)

test-unit: $(VENV)/.dev  ## Run the tests that need no PostgreSQL, in seconds
	$(BIN)/python -m pytest -n 2 tests/unit $(ARGS)

lint: $(VENV)/.dev  ## Check style, types and the import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.bench  ## Measure rules, the listener, and receivers (ARGS="--quick", ARGS=--help)
	$(BIN)/python -m benchmarks.together $(ARGS)

docs: $(VENV)/.docs  ## Build the documentation into docs/_build/html
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

clean:  ## Remove everything that the other targets made
	rm -rf $(VENV) .venv-matrix .postgres build dist docs/_build
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# pip shows what it installs, since this takes a while the first time.
$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --editable ".[demo]"
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --editable ".[dev]"
	@touch $@

# The libraries that the listener is held against. Where they do not install, it says so and goes on.
$(VENV)/.bench: pyproject.toml $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --editable ".[bench]" || \
	    echo "Not all libraries of the extra 'bench' could be installed: those are skipped." >&2
	@touch $@

$(VENV)/.docs: pyproject.toml $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --editable ".[docs]"
	@touch $@

$(VENV)/bin/python:
	@command -v $(PYTHON) >/dev/null || { \
	    echo "No '$(PYTHON)' found. bulksafe needs Python 3.11 or later: make PYTHON=/path/to/python" >&2; \
	    exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	    "bulksafe needs Python 3.11 or later, and $(PYTHON) is %d.%d. Try: make PYTHON=python3.12" \
	    % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
