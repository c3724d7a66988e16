# Every target sets up what it needs. `make` alone explains them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
CONTEXTS ?=

.DEFAULT_GOAL := help
.PHONY: help install demo-kubernetes images demo test test-cluster check bench lock clean

help: ## explain the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 24

$(VENV)/.installed: requirements.lock setup.cfg pyproject.toml examples/runtime/edgeferry-onnx-runtime
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

install: $(VENV)/.installed ## make .venv from the lock file

demo: install ## watch models travel from a git push to three sites (ARGS=--once: unattended, checks every answer)
	$(BIN)/edgeferry demo $(ARGS)

demo-kubernetes: install ## the same on three real clusters made here (root, Debian), or on yours: CONTEXTS=a,b,c
	$(if $(CONTEXTS),,$(BIN)/python -m tests.cluster packages && $(BIN)/python -m tests.cluster build)
	$(BIN)/python -m tests.scenarios.demo $(if $(CONTEXTS),--contexts $(CONTEXTS)) $(ARGS)

test: install ## run the tests that need no Kubernetes, on two cores
	$(BIN)/pytest -n 2 --dist worksteal -m "not cluster and not nodes" $(ARGS)

test-cluster: install ## run the tests on real clusters, installing and building what those need (root, Debian)
	$(BIN)/python -m tests.cluster packages
	$(BIN)/python -m tests.cluster build
	$(BIN)/pytest -n 2 --dist worksteal -m "cluster or nodes" $(ARGS)

check: install ## what CI runs: format, lint, types, layers, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	PYTHONPATH=. $(BIN)/lint-imports
	$(MAKE) test

bench: install ## print every figure beside its target, one JSON line each
	for subject in bench/*.py; do name=$$(basename $$subject .py); \
		case $$name in __init__|figure) ;; *) $(BIN)/python -m bench.$$name $(ARGS) || exit 1 ;; esac; done

images: install ## build the images of agent, hub and example runtime into build/images (ARGS='--arch arm64')
	$(BIN)/python -m images build --out build/images $(ARGS)

lock: install ## write requirements.lock again from setup.cfg
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile --quiet --all-extras --generate-hashes --no-header setup.cfg -o requirements.lock

clean: ## remove what make made here
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .demo
