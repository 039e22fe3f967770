# What the layers' Makefiles share. SAM CLI copies a layer's folder elsewhere and runs its Makefile there, naming it by its
# original path: from that path this file, the requirements and the project's own uv are found.
#
# ARCH (arm64 or x86_64) comes from the environment: SAM CLI does not tell a Makefile for which architecture it builds.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

ARCH ?= arm64
PLATFORM_arm64 := aarch64-manylinux_2_28
PLATFORM_x86_64 := x86_64-manylinux_2_28
PLATFORM := $(or $(PLATFORM_$(ARCH)),$(error ARCH is '$(ARCH)'; it must be arm64 or x86_64))

LAYER := $(patsubst %/,%,$(dir $(abspath $(firstword $(MAKEFILE_LIST)))))
VENV := $(abspath $(LAYER)/../../.venv)
UV ?= $(or $(wildcard $(VENV)/bin/uv),uv)
PYTHON := $(or $(wildcard $(VENV)/bin/python),python3)

# Wheels for Lambda's runtime, whatever this machine is. Left out is only what is never imported in Lambda: tests and the
# extension modules made for them, type stubs, C sources, headers and static libraries, f2py, command-line entry points.
define install
	@mkdir -p "$(ARTIFACTS_DIR)/python"
	@"$(UV)" pip install --quiet --python "$(PYTHON)" --python-version 3.13 --python-platform $(PLATFORM) --only-binary :all: \
		--no-deps --require-hashes --no-compile --target "$(ARTIFACTS_DIR)/python" -r "$(LAYER)/requirements.txt"
	@cd "$(ARTIFACTS_DIR)/python" && rm -rf bin .lock \
		&& rm -rf numpy/f2py numpy/_core/include numpy/_core/_simd.* \
		&& find . -depth -type d \( -name __pycache__ -o -name tests -o -name sboms \) -exec rm -rf {} + \
		&& find . -type f \( -name '*.pyi' -o -name '*.a' -o -name '*.c' -o -name '*.h' -o -name '*_tests.*.so' \) -delete
endef
