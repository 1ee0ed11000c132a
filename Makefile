# The two commands of the README are `make demo` and `make test`; `make scan MODEL=org/name` scans the real Hub.
VENV ?= .venv
BIN := $(VENV)/bin
PYTHON ?= python3
STAMP := $(VENV)/.installed
MODEL ?=
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help install demo scan test coverage lint types schema bench clean

help: ## List the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet -c constraints.txt -e . --group dev
	touch $@

install: $(STAMP) ## Create .venv with everything (pip, constraints.txt)

demo: $(STAMP) ## Scan a small family of real models on a local Hub, and open one audit pull request there
	PYTHONPATH=tests/support $(BIN)/python -m demo --output hubaudit-out

scan: $(STAMP) ## Scan a model on the real Hub: make scan MODEL=org/name
	@test -n "$(MODEL)" || { echo "usage: make scan MODEL=org/name [ARGS='--format html --output report.html']"; exit 2; }
	$(BIN)/hubaudit scan "$(MODEL)" $(ARGS)

test: $(STAMP) ## Run the whole test suite
	$(BIN)/python -m pytest -n auto --dist loadfile $(ARGS)

coverage: $(STAMP) ## The suite with branch coverage
	$(BIN)/python -m pytest --cov --cov-branch --cov-report=term-missing:skip-covered $(ARGS)

lint: $(STAMP) ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP) ## mypy, strict
	$(BIN)/mypy

schema: $(STAMP) ## Regenerate the JSON Schema of the report
	$(BIN)/python -m reports.schema

bench: $(STAMP) ## Run the diff benchmark (minutes); see benchmarks/ for the others
	PYTHONPATH=tests/support $(BIN)/python benchmarks/diff.py

clean: ## Remove the environment and everything generated
	rm -rf $(VENV) build hubaudit-out .pytest_cache .mypy_cache .ruff_cache .hypothesis
