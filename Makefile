# The two commands of a fresh machine: `make demo`, then `make test`.

PYTHON ?= python3
BIN := .venv/bin
# Compiling every installed module takes longer than installing them; Python compiles what is imported.
INSTALL := $(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable

.PHONY: demo test test-stack test-cluster check stack bench lock clean

demo: .venv/installed
	$(BIN)/unetflow demo

test: .venv/installed-test
	$(BIN)/python -m pytest

test-stack: .venv/installed-test
	$(BIN)/python -m pytest tests/stack

test-cluster: .venv/installed-test
	$(BIN)/python -m pytest tests/cluster

check: .venv/installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

stack: .venv/installed-servers
	$(BIN)/python infra/stack.py

bench: .venv/installed-test
	$(BIN)/python -m tests.benchmarks

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(INSTALL) .
	touch $@

.venv/installed-test: .venv/installed
	$(INSTALL) '.[test]'
	touch $@

.venv/installed-servers: .venv/installed
	$(INSTALL) '.[servers]'
	touch $@

lock: .venv/installed-test
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' > constraints.txt

clean:
	rm -rf .venv build *.egg-info
