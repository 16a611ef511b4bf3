# Two commands: `make run` shows DataVisor, `make test` proves it. Both make .venv when it is missing or out of date.

PYTHON ?= python3
PORT ?= 8000
BIOME := 2.6.8
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help setup run test test-fast test-servers browser lint lint-script reference lock screenshots clean

help:
	@echo "make run                      set up, import the bundled photographs, tag them, serve"
	@echo "make run DATA=/path/to/images MODEL=vikhyatk/moondream2"
	@echo "                              the same with your images and the real model (3.9 GB, fetched once)"
	@echo "make setup                    only the set-up"
	@echo "make test                     everything that needs no other servers, the browser included"
	@echo "make test-servers             with PostgreSQL, Redis, nginx, an S3 server and clusters of Ray, those that are installed"
	@echo "make test-fast                the quick ones, without a browser or other processes, for daily work"
	@echo "make lint                     linters and types"
	@echo "make reference                write docs/reference.md from the code"

setup: $(VENV)/run.done

run: $(VENV)/run.done
	@$(BIN)/python manage.py quickstart --port $(PORT) $(if $(DATA),--data "$(DATA)") $(if $(MODEL),--model "$(MODEL)")

# The tests start some hundred processes, each of which would compile what it imports if the shell forbids keeping that.
export PYTHONDONTWRITEBYTECODE :=

# Three processes of pytest, since much of a test with a browser is waiting, each with its own data and database. A file's
# tests stay together, so a browser's server does, and tests/conftest.py says which files come first.
SPREAD := -n 3 --dist loadfile --no-loadscope-reorder

test: browser $(VENV)/dev.done
	$(BIN)/python -m pytest $(SPREAD) -m "not servers" $(PYTEST)

test-servers: $(VENV)/dev.done
	$(BIN)/python -m pytest $(SPREAD) -m servers $(PYTEST)

test-fast: $(VENV)/dev.done
	$(BIN)/python -m pytest $(SPREAD) -m "not browser and not processes and not servers and not slow" $(PYTEST)

# In front of the set-up, which takes minutes; it needs nothing but Python.
browser: | $(BIN)/python
	@$(BIN)/python tools/check_browser.py

lint: $(VENV)/dev.done lint-script
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The one tool that is no Python; `.ci/run` installs Node.js, daily work goes on without.
lint-script:
	@if command -v npx >/dev/null; then npx --yes @biomejs/biome@$(BIOME) lint --error-on-warnings vlm/static/vlm; \
		else echo "The script of the page is not linted: there is no Node.js here."; fi

reference: $(VENV)/dev.done
	$(BIN)/python -m tools.reference

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "DataVisor needs Python 3.11 or newer; $(PYTHON) is older or missing. Name another one: make setup PYTHON=python3.12"; exit 1; }
	@rm -f $(VENV)/*.done
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "Python cannot make a virtual environment here. On Debian and Ubuntu: apt-get install python3-venv"; exit 1; }

$(VENV)/run.done: requirements.txt requirements-hashed.txt | $(BIN)/python
	@echo "Installing the requirements into $(VENV): some minutes, and some GB where pip takes PyTorch with CUDA."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-hashed.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/dev.done: requirements-dev.txt $(VENV)/run.done | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -r requirements-dev.txt
	@touch $@

# Resolves both .in files afresh, in an environment of its own, and writes down what came out.
lock: | $(BIN)/python
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet -r requirements.in
	build/lock/bin/python -m pip freeze | sed 's/+cpu$$//' > requirements.txt
	build/lock/bin/python -m pip install --quiet -r requirements.in -r requirements-dev.in -c requirements.txt
	build/lock/bin/python -m pip freeze | sed 's/+cpu$$//' | grep -vxFf requirements.txt > requirements-dev.txt
	build/lock/bin/python -m pip install --quiet uv
	build/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
		--constraint requirements.txt requirements.in --output-file build/lock/hashed.txt
	build/lock/bin/python tools/lock_hashes.py build/lock/hashed.txt
	rm -rf build/lock

screenshots: $(VENV)/dev.done
	$(BIN)/python tools/screenshots.py

clean:
	rm -rf $(VENV) build dist
