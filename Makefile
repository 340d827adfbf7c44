# make demo and make test need python3 (3.11 or newer), make and git; they set up .venv themselves.
PYTHON ?= $(firstword $(foreach name,python3 python3.13 python3.12 python3.11,\
	$(shell $(name) -c 'import sys; print("$(name)" * (sys.version_info >= (3, 11)))' 2>/dev/null)))
VENV := .venv
RUN := $(VENV)/bin/python -m
PIP := $(RUN) pip --disable-pip-version-check --quiet --quiet
CHECKED := cvt pipeline jobs tests
PYTHON_VERSION := 3.12
AZURITE := 3.35.0

# Files run in their order: the long ones of tests/e2e come early, and many short ones last, so that both
# processes end at about the same time. xdist would take the files with the fewest tests last, which are those.
# A worker that crashes ends the tests: xdist may wait for ever for those that it had before it.
TWO_AT_A_TIME := --numprocesses 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0

# What npm fetches comes while pip installs, and types are checked while tests run.
MAKEFLAGS += --jobs=2

# Modules are compiled on first use, not by pip; kept from that, every process of Ray would do it anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo demo-finetune check test test-slow docs offline-bundle lint style types pytest \
	format clean

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 24

demo: $(VENV)/demo ## install, then classify the bundled images into a Parquet table
	@$(RUN) jobs.demo

demo-finetune: $(VENV)/demo ## install, then teach a model of eight classes two more
	@$(RUN) jobs.demo.finetune

check: lint ## check style and types, run the tests that need neither Ray nor a server
	@$(RUN) pytest $(TWO_AT_A_TIME) -m 'not (slow or ray or server)'

test: types pytest ## install, then check style and types and run the tests

test-slow: $(VENV)/test ## the campaigns that take minutes: many kills, outages, millions of rows
	@$(RUN) pytest -m slow

docs: $(VENV)/test ## make a site of README and docs/ in build/docs
	@$(RUN) sphinx -q -W --keep-going -c docs . build/docs
	@echo "build/docs/index.html"

offline-bundle: $(VENV)/demo ## pack what a machine without a network lacks (PYTHON_VERSION=3.12, PRESENT=FILE)
	@$(RUN) jobs.deploy.offline_bundle --python-version $(PYTHON_VERSION) --constraint constraints.txt \
		$(if $(PRESENT),--present $(PRESENT)) --output build/offline-bundle-$(PYTHON_VERSION).tar.xz

lint: style types ## check style and types

style: $(VENV)/test
	@$(RUN) ruff check $(CHECKED)
	@$(RUN) ruff format --check $(CHECKED)

# Takes one core for a minute, while the tests begin.
types: style
	@$(RUN) mypy

pytest: style $(VENV)/azurite
	@$(RUN) pytest $(TWO_AT_A_TIME)

format: $(VENV)/test ## rewrite the code in the project's style
	@$(RUN) ruff check --fix $(CHECKED)
	@$(RUN) ruff format $(CHECKED)

clean: ## remove what the other targets made
	rm -rf $(VENV) demo-output demo-finetune build *.egg-info .mypy_cache .pytest_cache .ruff_cache

# Stamps: the second call finds them newer than the files that name the dependencies.
$(VENV)/demo: EXTRAS :=
$(VENV)/test: EXTRAS := [test,lint]
$(VENV)/demo $(VENV)/test: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing into $(VENV) (once; torch is large, so this takes a minute or more) ..."
	@$(PIP) install --no-compile --constraint constraints.txt --editable '.$(EXTRAS)'
	@touch $@

# A server of Azure's blobs; without it, the tests that need one are skipped.
$(VENV)/azurite: | $(VENV)/bin/python
	@command -v npm >/dev/null || { echo "npm is not installed: no tests of az://"; exit 0; }; \
	npm install --prefix $@ --no-audit --no-fund --no-package-lock --ignore-scripts --loglevel error \
		--fetch-retries 1 azurite@$(AZURITE) || { rm -rf $@; echo "no Azurite: no tests of az://"; }

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { \
		echo "No Python 3.11 or newer found: install one, or name it with make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "$(PYTHON) cannot make a virtual environment: install its venv package (python3-venv)" >&2; exit 1; }
