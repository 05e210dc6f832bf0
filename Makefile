# The words of this repository. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

export DPO_PIPELINE_HOME ?= $(CURDIR)/home
export PYTHONUNBUFFERED := 1

.DEFAULT_GOAL := help
.PHONY: help setup check test test-slow bench demo ui review docs

help: ## list these words
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1|/' | awk -F'|' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(VENV)/.done ## create .venv and install what requirements.lock pins

# torch first and by its exact version: anything looser pulls gigabytes of CUDA onto machines without a card.
$(VENV)/.done: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $$(grep '^torch==' requirements.lock)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

check: setup ## format, lint, types, import contracts, generated docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/pyright
	$(BIN)/python docs/generate.py --check

test: setup ## the tests, a few minutes
	$(BIN)/pytest -m "not slow" -q

test-slow: setup ## the long tests too: parity with TRL, crash injection, the whole demo
	$(BIN)/pytest -q

bench: setup ## benchmarks, both sides in one run, ratios
	$(BIN)/python -m tests.benchmarks

demo: setup ## the whole chain on the bundled scenario, CPU only, then a summary
	$(BIN)/dpo-pipeline sample
	$(BIN)/python -m assets.materialize everything
	$(BIN)/dpo-pipeline summary

ui: setup ## Dagster, MLflow and the reports on loopback; one Ctrl-C stops all
	$(BIN)/python -m resources.servers

review: setup ## the same to look at only: nothing can be started or changed
	$(BIN)/python -m resources.servers --read-only

docs: setup ## rewrite the generated parts of the documentation
	$(BIN)/python docs/generate.py
