# Every target does its own set-up: a fresh clone needs nothing but Python >= 3.11 and make.
#   make quickstart      train and judge a small model on this machine, in minutes
#   make test            what the continuous integration runs

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
PIP    := $(BIN)/python -m pip --disable-pip-version-check
TORCH  := $(shell sed -n 's/^\(torch==.*\)$$/\1/p' constraints.txt)

.DEFAULT_GOAL := help
.PHONY: help setup quickstart test lint bench clean

help: ## what there is to make
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-20s %s\n", $$1, $$2}'

setup: $(READY) ## the virtual environment only

# torch first and by its exact version: a pin alone decides which build (CPU or CUDA) an index gives.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "error: Python 3.11 or later is needed; $(PYTHON) is $$($(PYTHON) -V 2>&1). Try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "setting up $(VENV) (once; a few minutes)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install -qq -c constraints.txt "$(TORCH)"
	@$(PIP) install -qq -c constraints.txt -e ".[dev]"
	@touch $@

quickstart: $(READY) ## SFT, DPO, judgement and report on real pairs, in minutes
	@$(BIN)/pluralign quickstart $(ARGS)

lint: $(READY) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint ## lint, then every test
	@cache=$$(mktemp -d) && trap 'rm -rf "$$cache"' EXIT && \
	  HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 PLURALIGN_CACHE="$$cache" $(BIN)/python -m pytest -n auto --maxprocesses=4 --dist worksteal $(ARGS)

# the rival of the benchmark is an extra of its own
$(VENV)/.bench: $(READY)
	@$(PIP) install -qq -c constraints.txt -e ".[parity]"
	@touch $@

bench: $(VENV)/.bench ## speed and memory beside a peer (bench/README.md)
	$(BIN)/python bench/run.py $(ARGS)

clean: ## remove what was built, but not runs/
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
