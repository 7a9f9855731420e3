# Verbs of the project; each does the set-up it needs. `make` alone lists them.
PYTHON ?= python3
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := true
WORKERS ?= 2
PORT ?= 5000

# for users without a name or a home, as in a container, and for shells that hide the project from Python
export LOGNAME ?= $(shell id -un 2>/dev/null || id -u)
export HOME ?= $(CURDIR)/.dvc/tmp
unexport PYTHONSAFEPATH
# every stage and every worker of the tests is a process: none should compile the project again
unexport PYTHONDONTWRITEBYTECODE

# An environment knows its folder and its Python: after a move or an upgrade it is made again.
PLACE := cd $(VENV) && pwd -P && bin/python -c 'import sys; print(*sys.version_info[:2])'
WAS := $(shell cat $(VENV)/.complete 2>/dev/null)
ifneq ($(WAS),)
ifneq ($(WAS),$(shell ($(PLACE)) 2>/dev/null))
CLEAR := --clear
.PHONY: $(VENV)/.complete
endif
endif

.DEFAULT_GOAL := help
.PHONY: help setup repro sync ui quick test thorough check bench clean

help: ## list the verbs
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

setup: $(VENV)/.complete ## create .venv with the exact versions of requirements.lock

$(VENV)/.complete: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 15) else f"error: Python 3.11 to 3.14 is needed, {sys.executable} is {v[0]}.{v[1]}; name another one: make setup PYTHON=python3.12")'
	@echo "setting up $(VENV): some 2 GB of packages, a few minutes" >&2
	@if command -v uv >/dev/null; then \
	  uv venv --quiet $(or $(CLEAR),--allow-existing) --python $(PYTHON) $(VENV) && \
	  uv pip install --quiet --python $(VENV)/bin/python -r requirements.lock && \
	  { test -L $(VENV) || uv pip install --quiet --python $(VENV)/bin/python --no-deps --no-build-isolation -e .; }; \
	else \
	  $(PYTHON) -m venv $(CLEAR) $(VENV) && $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile -r requirements.lock && \
	  { test -L $(VENV) || $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .; }; \
	fi
	@$(VENV)/bin/python -m compileall -q -j 0 $(VENV)/lib >/dev/null 2>&1 || true  # every stage is a process: it should not compile again
	@test -e .git || $(VENV)/bin/dvc config --local core.no_scm true
	@($(PLACE)) >$@.tmp && mv $@.tmp $@

repro: setup ## what has changed of the whole pipeline: data, training, tuning, evaluation, MLflow
	@python -m pipeline run

sync: setup ## bring MLflow up to what the files say
	@python -m pipeline sync

ui: setup ## browse the runs at http://127.0.0.1:5000 (another port: make ui PORT=5001)
	@exec python -m pipeline ui --port $(PORT)

quick: setup ## unit tests only, in a minute or two
	@python -m pytest -q -n $(WORKERS) -m "not (slow or kill or thorough or full)" --hypothesis-profile=quick

test: setup ## unit tests and whole stages, in some minutes
	@python -m pytest -n $(WORKERS) -m "not (thorough or full)"

thorough: setup ## what takes longest: whole pipelines, servers, browsers, kills; CI runs it after `make test`
	@python -m pytest -n $(WORKERS) -m "thorough and not full"

check: setup ## lint, format, types, structure
	@ruff check .
	@ruff format --check .
	@mypy
	@python -m pytest -q tests/test_structure.py

bench: setup ## speed of training beside deepctr-torch, against table and log sizes, memory of a step
	@python -m benchmarks.training models
	@python -m benchmarks.training tables
	@python -m benchmarks.training rows
	@python -m benchmarks.memory

clean: ## remove what can be made again (data, runs, caches); downloads and .venv stay
	@rm -rf data/raw data/interim data/processed data/runs data/predictions data/checkpoints data/trainings studies mlruns mlflow.db* .dvc/cache .dvc/tmp .pytest_cache .ruff_cache .mypy_cache
	@find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
