# Everything a developer runs. `make` alone lists the targets. Needs Python >= 3.11 and make, nothing else: a target that
# runs Python first builds its own environment, and does nothing more when that is up to date.

# --- settings: `make test WORKERS=8`, `make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu`, ...

# The interpreter the environments are built with: the first of these that is new enough (a shim that fails is passed over).
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)
# Where torch itself is taken from; empty means pip's own configuration, which for Linux is PyPI and its CUDA build.
TORCH_INDEX ?=
WORKERS ?= 2
# More arguments for pytest: `make test ARGS="-k audio -x"`.
ARGS ?=
VENV ?= .venv
VENV_MIN ?= .venv-min

# --- derived

BIN := $(VENV)/bin
MIN := $(VENV_MIN)/bin
PIP := -m pip --disable-pip-version-check
INSTALLED := $(VENV)/.installed
INSTALLED_MIN := $(VENV_MIN)/.installed
# One thread for each worker: the models of the tests are too small to share out.
PYTEST := -m pytest -n $(WORKERS) --dist loadfile --durations=15
ONE_THREAD := OMP_NUM_THREADS=1

torch_version := from importlib.metadata import version; print('torch==' + version('torch'))

define check_python
@test -n "$(PYTHON)" || { echo "No Python >= 3.11 was found. Install one, or say where it is: make PYTHON=/path/to/python3.11"; exit 1; }
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo "$(PYTHON) does not run or is older than 3.11. Say which to use: make PYTHON=/path/to/python3.11"; exit 1; }
endef

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-slow test-min mixins wheel-test check format bench parity embedded clean

help:  ## list the targets
	@echo "usage: make TARGET [PYTHON=python3.13] [TORCH_INDEX=https://download.pytorch.org/whl/cpu] [WORKERS=8] [ARGS=...]"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' Makefile

demo: $(INSTALLED)  ## sounds to pictures, on one page: demo.png
	@$(BIN)/unibrivl demo

# VARIANT=open or research; DATA holds the packs sounds_and_pictures and spoken_digits
VARIANT ?= open
DATA ?= ../shared/data
embedded: $(INSTALLED)  ## make the embedded model from nothing, in stages that go on: VARIANT=open|research DATA=FOLDER
	@$(BIN)/unibrivl embedded --variant $(VARIANT) --data $(DATA) $(ARGS)

test: $(INSTALLED)  ## the quick tests
	@$(ONE_THREAD) $(BIN)/python $(PYTEST) -m "not slow" $(ARGS)

test-slow: $(INSTALLED)  ## the tests that take minutes, or gigabytes
	@$(BIN)/python -m pytest --durations=15 -m slow $(ARGS)

test-min: $(INSTALLED_MIN)  ## the quick tests on the lowest versions that setup.cfg admits
	@$(ONE_THREAD) $(MIN)/python $(PYTEST) -m "not slow" $(ARGS)

mixins: $(INSTALLED)  ## transformers' own common tests on our classes, diffusers' with ARGS="--diffusers CHECKOUT"
	@$(ONE_THREAD) $(BIN)/python .ci/peer_tests.py -n $(WORKERS) $(ARGS)

wheel-test: $(INSTALLED)  ## build the wheel, install it without extras in an empty environment and use it there
	@$(BIN)/python .ci/wheel_test.py $(if $(TORCH_INDEX),--torch-index $(TORCH_INDEX))

check: $(INSTALLED)  ## lint, formatting, types and spelling
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/codespell

format: $(INSTALLED)  ## sort the imports, mend what ruff can mend, and format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(INSTALLED)  ## run every benchmark and rewrite benchmarks/results
	@for bench in benchmarks/bench_*.py; do echo "== $$bench"; $(BIN)/python $$bench || exit 1; done

parity: $(INSTALLED)  ## compare SpeechLM, BriVL, CAV-MAE and AudioToken with the original codes' outputs, layer by layer
	@$(BIN)/python tests/parity_speechlm.py
	@$(BIN)/python tests/parity_brivl.py
	@$(BIN)/python tests/parity_cavmae.py
	@$(BIN)/python tests/parity_audio_token.py

clean:  ## remove the environments, builds, caches and outputs that make and the tools leave
	@rm -rf .venv .venv-min .peers build dist out .pytest_cache .ruff_cache .mypy_cache .hypothesis
	@rm -rf *.egg-info src/*.egg-info
	@find $(wildcard src modeling pipelines training tests benchmarks examples .ci) -name __pycache__ -prune -exec rm -rf {} +

# torch comes first, from TORCH_INDEX when that is given; an environment that has torch keeps the one it has.
$(INSTALLED): setup.cfg pyproject.toml constraints.txt
	$(check_python)
	@echo "setting up $(VENV) with $(PYTHON) (only when setup.cfg, pyproject.toml or constraints.txt change)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c "$(torch_version)" >/dev/null 2>&1 || \
		$(BIN)/python $(PIP) install -c constraints.txt torch $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	@grep -v '^torch==' constraints.txt > $(VENV)/constraints.txt
	@$(BIN)/python -c "$(torch_version)" >> $(VENV)/constraints.txt
	@$(BIN)/python $(PIP) install -q -c $(VENV)/constraints.txt -e ".[app,dev,diffusion]"
	@touch $@

$(INSTALLED_MIN): setup.cfg pyproject.toml constraints.txt .ci/minimum_versions.py
	$(check_python)
	@echo "setting up $(VENV_MIN) with $(PYTHON) and the lowest versions (numpy 1.26 has wheels up to Python 3.12)"
	@test -x $(MIN)/python || $(PYTHON) -m venv $(VENV_MIN)
	@$(MIN)/python .ci/minimum_versions.py > $(VENV_MIN)/minimum.txt
	@$(MIN)/python $(PIP) install -q -c $(VENV_MIN)/minimum.txt torch numpy $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
	@$(MIN)/python $(PIP) install -q -c $(VENV_MIN)/minimum.txt -e ".[dev]"
	@touch $@
