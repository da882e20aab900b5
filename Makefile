# Everything a checkout needs: `make` lists the targets.

PYTHON ?= python3
PORT ?= 8501
ARGS ?=
# How many tests run at a time; some of them alone are sooner done without a worker's start.
WORKERS ?= $(if $(ARGS),0,3)

.DEFAULT_GOAL := help
.PHONY: help setup browser demo test test-fast test-long lint reference

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: .venv/.installed  ## install everything into .venv, once

demo: setup  ## start the demo in the browser (PORT=8501)
	@exec .venv/bin/rapidin-explorer demo --port $(PORT)

test: browser  ## run the tests (ARGS="-k name" for some of them)
	@exec .venv/bin/python -m pytest -n $(WORKERS) $(ARGS)

test-fast: setup  ## run the tests that need no model, browser or cluster, in less than a minute
	@exec .venv/bin/python -m pytest -m fast --ignore tests/app --ignore tests/browser -n $(if $(ARGS),0,2) $(ARGS)

test-long: browser  ## run the tests marked long
	@exec .venv/bin/python -m pytest -m long $(ARGS)

lint: setup  ## check style, format, types and who imports whom
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

reference: setup  ## write docs/commands.md anew from the commands' help
	.venv/bin/python -m explorer.commands.reference > docs/.commands.md && mv docs/.commands.md docs/commands.md

browser: setup
	@scripts/browser

# Written last, so that an interrupted installation is taken up again.
.venv/.installed: pyproject.toml constraints.txt
	@scripts/setup $(PYTHON)
	@touch $@
