# Every target sets up what it needs by itself; nothing asks questions.

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup demo quick test check fix soak bench

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Minutes that `make soak` searches for.
MINUTES ?= 60
# Further arguments of the command behind a target: make demo ARGS=--kill, make test ARGS="-k codec".
ARGS ?=

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## make .venv and install PyDSM and its tools (the other targets do this by themselves)

$(READY): pyproject.toml tools/setup.sh
	@VENV=$(VENV) PYTHON="$(PYTHON)" tools/setup.sh
	@touch $@

demo: $(READY) ## run five replicas under load on this machine and watch them
	@$(BIN)/pydsm demo $(ARGS)

test: $(READY) ## run all tests, on four processes since many of them wait for replicas
	@tools/test-programs.sh
	$(BIN)/python -m pytest -n 4 $(ARGS)

quick: $(READY) ## unit and protocol tests, lint and types: about a minute
	$(BIN)/ruff check -q .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -n 2 tests/unit tests/protocol $(ARGS)

check: $(READY) ## formatting, lint, types, and which module may import which
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

fix: $(READY) ## repair formatting and what lint can repair
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

soak: $(READY) ## search fresh simulator seeds on all cores (MINUTES=60), then real processes under faults (a quarter of that)
	$(BIN)/python -m pydsm.sim.tools.soak --minutes $(MINUTES) $(ARGS)
	$(BIN)/python -m tests.integration.faults.soak --minutes $$(( ($(MINUTES) + 3) / 4 ))
	$(BIN)/python -m tests.integration.twice --minutes $$(( ($(MINUTES) + 7) / 8 ))

bench: $(READY) ## measure throughput, latency, and the cost of execution as history grows (some minutes; more in docs/howto/measure.md)
	$(BIN)/python -m benchmarks.throughput
	$(BIN)/python -m benchmarks.unloaded_latency
	$(BIN)/python -m benchmarks.execution_growth $(ARGS)
