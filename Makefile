# Sluice. `make` lists what there is to make. Everything works on a fresh Debian with Python 3.11, as root too.

VENV := .venv
BIN := $(VENV)/bin
BENCH_VENV := .venv-bench
GATEWAY_VENV := .venv-gateway
UV_VERSION := 0.13.8
ARGS ?=

# SECONDS, SEED and SEEDS count only when given on the command line: bash has a variable SECONDS of its own, which an
# environment may carry here by accident.
ifeq ($(origin SECONDS),command line)
DEMO_FLAGS += --seconds $(SECONDS)
endif
ifeq ($(origin SEED),command line)
DEMO_FLAGS += --seed $(SEED)
CRASH_FLAGS += --seed $(SEED)
endif
ifeq ($(origin SEEDS),command line)
CRASH_FLAGS += --seeds $(SEEDS)
endif
unexport SECONDS SEED

.DEFAULT_GOAL := help
.PHONY: help setup demo up test test-unit crash bench bench-latency bench-scale bench-restart bench-window bench-gate bench-fold soak lint format lock schemas clean e2e-gateway bench-forecast bench-detect eval storm bench-page

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Make the environment in .venv from the locked dependencies (does nothing when they have not changed)
	@VENV=$(VENV) sh .ci/setup

demo: setup ## Play a lively day on embedded parts; SECONDS=60 runs without a terminal and ends, SEED=7 varies it
	@$(BIN)/sluice demo $(DEMO_FLAGS) $(ARGS)

up: setup ## Run the service, with embedded parts where settings name none
	@$(BIN)/sluice up $(ARGS)

test: setup ## Run every test, on real Kafka and PostgreSQL; ARGS='-k budget' chooses
	@VENV=$(VENV) .ci/tests $(ARGS)

test-unit: setup ## Run the tests that need neither broker nor database
	@$(BIN)/python -m pytest -m "not integration" $(ARGS)

crash: setup ## Break the service in seeded ways and compare it with an oracle, a minute a seed; SEEDS=25, or SEED=7 for one
	@$(BIN)/python -m loadtest.crash $(CRASH_FLAGS) $(ARGS)

lint: setup ## Check style, formatting, types and import rules
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: setup ## Format the code and mend what ruff can mend
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

lock: setup ## Resolve the dependencies of pyproject.toml anew into the two lock files
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@$(BIN)/uv pip compile pyproject.toml $(LOCK_FLAGS) --group build --output-file requirements.lock
	@$(BIN)/uv pip compile pyproject.toml $(LOCK_FLAGS) --extra embedded --group dev \
		--constraint requirements.lock --output-file requirements-dev.lock
	@$(BIN)/uv pip compile pyproject.toml $(filter-out --universal,$(LOCK_FLAGS)) --group bench \
		--output-file requirements-bench.lock
	@$(BIN)/uv pip compile loadtest/gateways/requirements.in $(filter-out --universal,$(LOCK_FLAGS)) \
		--output-file loadtest/gateways/requirements.lock

LOCK_FLAGS := --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header

schemas: setup ## Generate the JSON Schemas and the AsyncAPI document
	@$(BIN)/python -m schemas.generate

bench: setup $(BENCH_VENV)/.stamp ## Measure Sluice beside plain Faust, quixstreams and bytewax; EVENTS=1000000, ARGS='--only sluice,bytewax'
	@$(BIN)/python -m loadtest.bench.run $(if $(EVENTS),--events $(EVENTS)) $(ARGS)

storm: setup ## Deliver 10 000 alerts of 200 groups to receivers that fail, stall, answer 429 and restart; some 6 minutes
	@$(BIN)/python -m loadtest.storm.run $(ARGS)

bench-page: setup ## Measure the time from the call that crosses a budget to its page
	@$(BIN)/python -m loadtest.page $(ARGS)

bench-latency: setup ## Measure the time from an event to ledger, alert and gateway; RATES=1000,5000
	@$(BIN)/python -m loadtest.latency.run $(if $(RATES),--rates $(RATES)) $(ARGS)

bench-scale: setup ## Measure how cost grows with workers, partitions, cells and budgets
	@$(BIN)/python -m loadtest.scale.run $(ARGS)

bench-restart: setup ## Measure a worker's restart after SIGKILL, phase by phase; ARGS='--ids 18000000'
	@$(BIN)/python -m loadtest.restart $(ARGS)

bench-window: setup ## Measure memory and time of the de-duplication window: one hour at RATE=5000
	@$(BIN)/python -m loadtest.window $(if $(RATE),--rate $(RATE)) $(ARGS)

bench-gate: setup ## Measure what a throttle gate costs each call
	@$(BIN)/python -m loadtest.gate $(ARGS)

bench-fold: setup ## Measure METER's own work step by step, without a broker
	@$(BIN)/python -m loadtest.fold $(ARGS)

bench-detect: setup ## Measure what detection costs beside METER at 10 000 live scopes, without a broker
	@$(BIN)/python -m loadtest.detect_cost $(ARGS)

bench-forecast: setup ## Judge the forecasts on recorded traces, and measure what they cost; ARGS='--data …'
	@$(BIN)/python -m loadtest.forecast $(ARGS)

eval: setup ## Judge the detectors and what they must beat on recorded traces; a minute with ARGS='--quick'
	@$(BIN)/python -m loadtest.evaluation $(ARGS)

soak: setup ## Watch a worker's memory under constant load, then its restart; MINUTES=60
	@$(BIN)/python -m loadtest.soak.run $(if $(MINUTES),--minutes $(MINUTES)) $(ARGS)

e2e-gateway: setup $(GATEWAY_VENV)/.stamp ## One 5-dollar budget over real gateways (LiteLLM, HAProxy), 200 clients; some 5 minutes
	@$(BIN)/python -m loadtest.gateways.run $(ARGS)

# The LiteLLM proxy's own environment, for the same reason as the peers'.
$(GATEWAY_VENV)/.stamp: loadtest/gateways/requirements.lock
	@$(BIN)/python -m venv --clear --without-pip $(GATEWAY_VENV)
	@$(BIN)/python -m pip --python $(GATEWAY_VENV)/bin/python install --quiet --disable-pip-version-check --no-input \
		--require-hashes -r loadtest/gateways/requirements.lock
	@touch $@

# The peers' own environment: what they depend on must not decide what Sluice runs on.
$(BENCH_VENV)/.stamp: requirements-bench.lock
	@$(BIN)/python -m venv --clear --without-pip $(BENCH_VENV)
	@$(BIN)/python -m pip --python $(BENCH_VENV)/bin/python install --quiet --disable-pip-version-check --no-input \
		--require-hashes -r requirements-bench.lock
	@touch $@

clean: ## Remove what can be made again: environment, caches, builds (data in .sluice stays)
	@rm -rf $(VENV) $(BENCH_VENV) $(GATEWAY_VENV) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
