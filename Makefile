# The same targets are the only commands in CI. `make` prints this list.
PYTHON ?= python3
BIN := .venv/bin
# Tests wait for disks and sockets, so one worker more than there are cores.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print((os.cpu_count() or 1) + 1)')
# What Hypothesis draws follows from this number, so that a run can be had again; another number hunts elsewhere.
SEED ?= 1
# Tests in another order: `make test ORDER=7`. The same number gives the same order again.
ORDER ?=
PYTEST := $(BIN)/pytest -n $(WORKERS) --dist worksteal --hypothesis-seed=$(SEED) $(if $(ORDER),--order-seed=$(ORDER))
# Modules are compiled once, and not by every process that a test starts.
unexport PYTHONDONTWRITEBYTECODE
.DEFAULT_GOAL := help
.PHONY: help demo run test test-more test-all check bench bench-soak bench-poll bench-pages e2e migrate fmt lock wheel clean

help: ## print this help
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv.stamp: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Receipted needs Python 3.11 or newer")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch .venv.stamp

demo: .venv.stamp ## 400 payments at four providers, every fault on, ends in proof (under a minute)
	$(BIN)/receipted demo

run: .venv.stamp ## sandbox, Receipted and a shop until Ctrl-C, with URLs to click
	$(BIN)/receipted demo --keep-running

test: .venv.stamp ## unit, property, contract, integration and repository tests that are quick
	$(PYTEST) -m "not more and not slow and not e2e and not chaos and not benchmark"

test-more: .venv.stamp ## the rest of them: real processes, proxies, collectors, long properties (CI runs both)
	$(PYTEST) -m "more and not slow and not e2e and not chaos and not benchmark"

test-all: .venv.stamp ## everything: the long property profile, kill -9, e2e
	$(PYTEST) -m "not benchmark" --timeout 1800

check: .venv.stamp ## lint, format, types, import rules, spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/codespell

bench: .venv.stamp ## every bar of speed beside bounds and peers (under ten minutes); writes docs/performance.md
	$(BIN)/python -m tests.benchmarks $(if $(BENCH_ONLY),--only $(BENCH_ONLY)) $(if $(BENCH_ROUNDS),--rounds $(BENCH_ROUNDS)) $(if $(BENCH_PEERS),--peers $(BENCH_PEERS))

bench-soak: .venv.stamp ## memory after five million deliveries beside that after half a million; writes docs/performance.md
	$(BIN)/python -m tests.benchmarks.soak

bench-poll: .venv.stamp ## simulate the poller beside other schedules; holds its bars and writes docs/polling.md
	$(BIN)/python -m tests.benchmarks.polling
	$(BIN)/pytest tests/benchmarks/test_asking.py -m benchmark -s -q --timeout 900

bench-pages: .venv.stamp ## every page of the console and list of the API with a million payments; writes docs/performance-pages.md
	$(BIN)/python -m tests.benchmarks.pages $(if $(BENCH_PAYMENTS),--payments $(BENCH_PAYMENTS))

e2e: .venv.stamp ## start the Procfile's processes and drive them, the console in Chromium
	$(BIN)/pytest tests/e2e -m e2e --timeout 600

migrate: .venv.stamp ## bring the database of receipted.toml to the newest schema
	$(BIN)/receipted migrate

fmt: .venv.stamp ## format and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

LOCK := $(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-header
lock: ## refresh constraints.txt, and what runs and what builds as parts of it (hashed, without host names)
	$(LOCK) --extra dev --output-file constraints.txt pyproject.toml
	$(LOCK) --extra postgres --no-annotate --constraint constraints.txt --output-file constraints-runtime.txt pyproject.toml
	$(LOCK) --only-build-deps --build-deps-for wheel --no-annotate --constraint constraints.txt --output-file constraints-build.txt pyproject.toml

wheel: .venv.stamp ## build the wheel into dist/
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

clean: ## remove the environment, caches and var/
	rm -rf .venv .venv.stamp var .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
