# What the README names. Every target installs what it needs into .venv first.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv

# uv follows the machine's own certificate store, and warns less when the cache sits on another disk.
export UV_LINK_MODE ?= copy
export UV_NATIVE_TLS ?= true
export UV_SYSTEM_CERTS ?= true

.PHONY: help install demo test lint format bench build validate deploy requirements clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(UV): requirements/uv.txt
	@command -v $(PYTHON) >/dev/null || { echo "media-captions needs Python 3.11 or later: '$(PYTHON)' was not found (set PYTHON=...)" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "media-captions needs Python 3.11 or later: '$(PYTHON)' is $$($(PYTHON) -V 2>&1)" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "media-captions needs Python's venv module (on Debian or Ubuntu: apt-get install python3-venv)" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@touch $@

$(VENV)/.installed: $(UV) requirements/dev.txt pyproject.toml
	@echo "installing dependencies into $(VENV)" >&2
	@$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r requirements/dev.txt
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

# SAM CLI pins a lot of what the project uses in other versions: it has a venv of its own.
$(VENV)/sam/.installed: $(UV) requirements/sam.txt
	@echo "installing SAM CLI into $(VENV)/sam" >&2
	@$(UV) venv --quiet --allow-existing --python $(BIN)/python $(VENV)/sam
	@$(UV) pip install --quiet --python $(VENV)/sam/bin/python --require-hashes -r requirements/sam.txt
	@touch $@

install: $(VENV)/.installed ## everything the other targets need, into .venv

demo: install ## upload real media to the whole stack on this machine and watch it being captioned
	@$(BIN)/captions demo

test: install ## unit, integration, template and end-to-end tests
	@$(BIN)/pytest

lint: install ## ruff, mypy --strict and cfn-lint
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/cfn-lint template.yaml

format: install ## let ruff rewrite what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

requirements: $(UV) ## compile the pinned requirements anew
	@$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header requirements/uv.in -o requirements/uv.txt
	@$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header requirements/sam.in -o requirements/sam.txt
	@$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --all-extras pyproject.toml -o requirements/dev.txt
