.DEFAULT_GOAL := help

PYTHON ?= python3
BIN := .venv/bin
# Compiling every installed module takes longer than installing them; Python compiles what is imported.
INSTALL := $(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable
# Else (container images often set it) every process, and each of Ray's is one, compiles thousands of modules again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test test-stack test-cluster test-peers test-gpu soak check stack bench goodput pictures lock clean

help:  ## Print this list.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1	/' | expand -t 16

demo: .venv/installed  ## Install into .venv, then run all pipelines on generated data.
	$(BIN)/unetflow demo

test: .venv/installed-test  ## Run the unit and integration tests, and print the ten slowest.
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile tests/unit tests/docs
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile tests/integration

test-stack: .venv/installed-test  ## Test against PostgreSQL, MLflow, Prefect and Ray as servers, and their pages in a browser.
	$(BIN)/python -m pytest tests/stack

test-cluster: .venv/installed-test  ## Run both pipelines over two hosts made of network namespaces, and break them.
	$(BIN)/python -m pytest tests/cluster -m "not long"

# Without their dependencies: one of them, torchvision, must be of the build of torch that is installed.
PEERS := dynamic-network-architectures==0.4.4 nnunetv2==2.8.1 batchgenerators==0.25.5 imagecodecs==2026.3.6 \
	batchgeneratorsv2==0.3.6 fft-conv-pytorch==1.2.0 connected-components-3d==4.1.1 seaborn==0.13.2 \
	acvl-utils==0.2.6 blosc2==4.14.1 msgpack==1.2.4 ndindex==1.10.1 numexpr==2.14.2 einops==0.8.2

.venv/installed-peers: .venv/installed-test
	$(BIN)/python -m pip install --quiet --no-deps $(PEERS)
	touch $@

test-peers: .venv/installed-peers  ## Compare networks, plans and imported models with nnU-Net's own.
	$(BIN)/python -m pytest tests/peers

test-gpu: .venv/installed-test  ## Test networks, the training loop and every pipeline on this machine's GPU.
	$(BIN)/python -m pytest tests/gpu

soak: .venv/installed-test  ## Run the long rows of the fault table, then strike with 200 random faults in 40 minutes.
	$(BIN)/python -m pytest tests/cluster -m long
	$(BIN)/python -m tests.soak $(SOAK)

check: .venv/installed-test  ## Lint, types, layers and circles of imports, documentation.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m pytest --quiet tests/docs

stack: .venv/installed-servers  ## Start PostgreSQL, MLflow, Prefect with a worker and Ray on loopback.
	$(BIN)/python -m infra.stack

bench: .venv/installed-peers  ## Time this project beside the best peer, in one run.
	$(BIN)/python -m tests.benchmarks

goodput: .venv/installed-test  ## Split the time of a training, and of one whose workers are killed every minute.
	$(BIN)/python -m tests.goodput --set train.checkpoint_every_steps=10

pictures: .venv/installed-test  ## Make the pictures of the README from the demo's runs.
	$(BIN)/python -m tests.pictures

lock: .venv/installed-test  ## Write the installed versions into constraints.txt.
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' > constraints.txt

clean:  ## Remove the virtual environment and build files.
	rm -rf .venv build *.egg-info

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
