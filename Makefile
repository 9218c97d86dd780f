# capsign: `make help` says what there is.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory

# The distribution's interpreter where it can make environments: it is the one that the images run,
# and it is built to be fast.
SYSTEM_PYTHON := import ensurepip, sys, venv; print(sys.executable * (sys.version_info >= (3, 11)))
PYTHON ?= $(or $(shell /usr/bin/python3 -c '$(SYSTEM_PYTHON)' 2>/dev/null),python3)
VENV := .venv
PYTHONS ?= python3.12 python3.13 python3.14
VENV_PROTO := .venv-proto
BIN := $(VENV)/bin
PIP := python -m pip --quiet --disable-pip-version-check
DEMO ?= .demo
# Processes for tests that may run side by side: three for two cores, since tests wait for a third of
# their time. WORKERS=1: one after the other.
CORES := $(shell nproc 2>/dev/null || echo 1)
WORKERS ?= $(shell expr \( $(CORES) \* 3 + 1 \) / 2)
parallel = $(if $(filter-out 1,$(WORKERS)),-n $(WORKERS) --maxprocesses 8 $(1))
DISTRIBUTIONS := ./proto/python ./evidence ./clients/python ./agent ./adapter ./k8s/injector ./witness ./clients/cli

# An environment is good as long as the locks it was made from are the same; its stamp carries their
# digest.
digest = $(shell cat $(1) | sha256sum | cut -c1-16)
PROJECTS := $(DISTRIBUTIONS:%=%/pyproject.toml)
MADE_FROM := requirements/dev.lock $(PROJECTS) hatch_build.py proto/python/capsign_wire/__init__.py
STAMP := $(VENV)/made-from-$(call digest,$(MADE_FROM))
STAMP_PROTO := $(VENV_PROTO)/made-from-$(call digest,requirements/proto.lock)

.PHONY: help
help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  \033[1m%-16s\033[0m %s\n", $$1, $$2}' \
		$(MAKEFILE_LIST)

.PHONY: demo
demo: venv system-packages ## Token, CA, adapter and agent; an application signs; it stays up
	@$(BIN)/python docs/examples/demo.py --dir $(DEMO)

.PHONY: demo-down
demo-down: venv ## End what `make demo` started
	@$(BIN)/capsign dev down --dir $(DEMO)

.PHONY: test
test: system-packages test-unit test-system ## All tests: unit, then real processes

.PHONY: test-unit
test-unit: venv ## The fast tests only (WORKERS=1: one after the other)
	$(BIN)/python -m pytest -q $(call parallel,--dist worksteal) -m "not system" tests

# A file's tests share what it started, so a file is a worker's.
.PHONY: test-system
test-system: venv system-packages ## Real processes, sockets, tokens, databases and faults
	$(BIN)/python -m pytest -q \
		$(call parallel,--dist loadfile --no-loadscope-reorder) \
		-m "system and not kube" tests
	$(MAKE) test-native

.PHONY: test-native
test-native: venv ## The system tests of an agent's socket, with the other engine (decision 77)
	CAPSIGN_DEV_ENGINE=native $(BIN)/python -m pytest -q \
		$(call parallel,--dist loadfile --no-loadscope-reorder) \
		tests/system/test_hostile_agent_socket.py tests/system/test_many_calls_at_once.py

.PHONY: test-long
test-long: venv system-packages ## What is repeated, as often as a night allows
	CAPSIGN_I6_ROUNDS=1000 $(BIN)/python -m pytest -q --timeout=3600 tests/contract/test_i6_versions.py
	CAPSIGN_OVERLOAD_SIGNATURES=100000 $(BIN)/python -m pytest -q --timeout=3600 tests/system/test_overload.py

.PHONY: test-kube
test-kube: venv kube-packages images cluster ## A real Kubernetes: node, images, chart, pods
	$(BIN)/python -m pytest -q -m kube tests/system/cluster

.PHONY: cluster
cluster: venv kube-packages ## Build the node for `make test-kube` (the first time: 6 to 14 minutes)
	PYTHONPATH=tests $(BIN)/python -m system.cluster.kit.build

.PHONY: test-pythons
test-pythons: ## The fast tests on every other Python of this machine (PYTHONS="python3.12")
	@for python in $(PYTHONS); do \
		command -v $$python >/dev/null || { echo "$$python is not here"; continue; }; \
		echo "== $$python"; \
		$(MAKE) PYTHON=$$python VENV=.venv-$$(basename $$python) test-unit || exit 1; \
	done

.PHONY: collector
collector: ## Build an OpenTelemetry collector for the tests (the first time: two minutes of CPU)
	@mkdir -p build
	cd tests/support/otel_collector && go build -mod=readonly -trimpath -o ../../../build/collector .

.PHONY: images
# BASE=<image> ADAPTER_BASE=<image> IMAGES="agent adapter injector"
images: venv kube-packages ## Build the container images (all, or IMAGES="agent injector")
	@PYTHONPATH=k8s/images $(BIN)/python -m capsign_images $(if $(BASE),--base $(BASE)) \
		$(if $(ADAPTER_BASE),--adapter-base $(ADAPTER_BASE)) $(IMAGES)

.PHONY: check
check: check-python check-proto ## Lint, types, import contracts, protos and generated code

.PHONY: check-python
check-python: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python docs/make_pictures.py --check

.PHONY: check-proto
check-proto: $(STAMP_PROTO)
	PATH=$(VENV_PROTO)/bin:$$PATH buf lint
	PATH=$(VENV_PROTO)/bin:$$PATH buf format --diff --exit-code
	PATH=$(VENV_PROTO)/bin:$$PATH buf breaking --against proto/baseline.binpb
	PATH=$(VENV_PROTO)/bin:$$PATH $(VENV_PROTO)/bin/python proto/generate.py --check

.PHONY: bench
bench: venv system-packages ## Benchmarks, as ratios to the raw primitive
	$(BIN)/python -m bench $(BENCH)

.PHONY: proto
proto: $(STAMP_PROTO) ## Generate capsign_wire from the .proto files
	PATH=$(VENV_PROTO)/bin:$$PATH $(VENV_PROTO)/bin/python proto/generate.py

.PHONY: docs
docs: venv ## Write the configuration reference, the chart's values and the pictures
	$(BIN)/python docs/operations/make_configuration.py
	$(BIN)/python k8s/chart_docs.py
	$(BIN)/python docs/make_pictures.py

.PHONY: golden
golden: venv ## Write what injection makes of every pod in tests/injector/pods
	$(BIN)/python tests/injector/make_golden.py

.PHONY: proto-baseline
proto-baseline: $(STAMP_PROTO) ## Accept the protos as the contract that `make check` compares with
	PATH=$(VENV_PROTO)/bin:$$PATH buf build --exclude-source-info -o proto/baseline.binpb

COMPILE := $(VENV_PROTO)/bin/uv pip compile --quiet --python-version 3.11 --generate-hashes \
	--no-header --no-annotate

.PHONY: lock
lock: $(STAMP_PROTO) ## Resolve requirements/*.lock anew
	$(COMPILE) --universal --group dev $(PROJECTS) -o requirements/dev.lock
	$(COMPILE) --universal requirements/proto.in -o requirements/proto.lock
	$(COMPILE) --universal requirements/images.in -o requirements/images.lock
	@$(call lock-image,agent,./proto/python ./evidence ./agent)
	@$(call lock-image,adapter,./proto/python ./evidence ./adapter ./clients/python ./clients/cli)
	@$(call lock-image,injector,./k8s/injector)
	@$(call lock-extra,agent,native,./proto/python ./evidence ./agent)

# What is in an image: for Linux alone, in the versions that are tested. The injector speaks no
# gRPC, hence no ./proto/python.
lock-image = $(COMPILE) --python-platform linux --constraints requirements/dev.lock \
	$(addsuffix /pyproject.toml,$(2)) -o requirements/$(1).lock

# What an extra adds to that.
lock-extra = $(COMPILE) --python-platform linux --constraints requirements/dev.lock --extra $(2) \
	$$(sed -n 's/^\([A-Za-z0-9._-]*\)==.*/--no-emit-package \1/p' requirements/$(1).lock) \
	$(addsuffix /pyproject.toml,$(3)) -o requirements/$(1)-$(2).lock

.PHONY: wheels
wheels: venv ## Build the distributions' wheels into dist/
	$(BIN)/$(PIP) wheel --no-deps --no-build-isolation \
		--wheel-dir dist $(DISTRIBUTIONS)

.PHONY: system-packages
system-packages: ## Install SoftHSM2, NSS, OpenSC, PostgreSQL and openssl, or say how
	@.ci/system-packages

.PHONY: kube-packages
kube-packages: ## Install what images and clusters need (buildah, mmdebstrap, containerd, runc, ...)
	@.ci/kube-packages

.PHONY: venv
venv: $(STAMP) ## Make or refresh .venv from the lock

.PHONY: stamp
stamp:
	@echo $(STAMP)

$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "capsign needs Python 3.11 or newer; run make PYTHON=python3.12" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/$(PIP) install --require-hashes -r requirements/dev.lock
	$(BIN)/$(PIP) uninstall --yes capsign # in older environments all commands were its
	$(BIN)/$(PIP) install --no-deps --no-build-isolation $(DISTRIBUTIONS:%=-e %)
	$(BIN)/python -m compileall -q $(DISTRIBUTIONS)
	@rm -f $(VENV)/made-from-*
	@touch $@

$(STAMP_PROTO):
	test -x $(VENV_PROTO)/bin/python || $(PYTHON) -m venv $(VENV_PROTO)
	$(VENV_PROTO)/bin/$(PIP) install --require-hashes -r requirements/proto.lock
	@rm -f $(VENV_PROTO)/made-from-*
	@touch $@

.PHONY: clean
clean: ## Remove environments and caches
	rm -rf build $(VENV) $(VENV_PROTO) .mypy_cache .ruff_cache .pytest_cache .hypothesis \
		.import_linter_cache
