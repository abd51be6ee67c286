# Two commands do everything: `make run` and `make test`.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
# A process for each of two processors, a file in one of them, and no threads that wait for the other's.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile

.PHONY: run test test-all check clean

run: $(INSTALLED)
	$(BIN)/factory run

test: $(INSTALLED) check
	$(PYTEST) -m "not slow and not drill"

test-all: $(INSTALLED) check
	$(PYTEST) -m "not drill"
	$(BIN)/pytest -m drill

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(INSTALLED): pyproject.toml infra/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint infra/constraints.txt --editable '.[dev,suites]'
	touch $@

clean:
	rm -rf $(VENV) .factory build *.egg-info
