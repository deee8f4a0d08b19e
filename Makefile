# Two commands: `make demo` and `make test`. Both set up .venv first, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help setup demo test lint bench clean

help:
	@echo "make setup   set up .venv, nothing more"
	@echo "make demo    set up .venv, run the pipeline on the generated scenes, print the results"
	@echo "make test    set up .venv, run lint, types, layers and tests"
	@echo "make bench   measure speed and memory (docs/performance.md)"
	@echo "make clean   remove .venv and caches; data and results stay"

setup: $(VENV)/.installed

# Anew only when the list of packages changed.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; sys.exit(None if sys.version_info >= (3, 11) else f"Python 3.11 or newer is needed, this is {v}; say make PYTHON=/path/to/python3")'
	@echo "== Setting up $(VENV) (once; about 3 minutes and 6 GB, most of it PyTorch)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: setup
	@echo "== Running the pipeline, two stages at a time (what did not change is skipped)"
	@vadpipe repro -j 2
	@python benchmarks/demo.py

lint: setup
	@echo "== ruff"
	@ruff check .
	@ruff format --check .
	@echo "== mypy --strict"
	@mypy
	@echo "== import-linter"
	@lint-imports

test: lint
	@echo "== pytest"
	@pytest

bench: setup
	@python benchmarks/run.py
	@python benchmarks/shared_cores.py

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
