# Two commands do everything: `make run` and `make test`.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed

.PHONY: run test test-all check clean

run: $(INSTALLED)
	$(BIN)/factory run

test: $(INSTALLED) check
	$(BIN)/pytest -m "not slow and not drill"

test-all: $(INSTALLED) check
	$(BIN)/pytest

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(INSTALLED): pyproject.toml infra/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint infra/constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) .factory build *.egg-info
