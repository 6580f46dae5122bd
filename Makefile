# Everything runs in a virtual environment of the checkout's own, with the versions that constraints.txt pins.

PYTHON ?= python3
ENV_ID ?= HalfCheetah-v4
N_SAMPLERS ?= 10
# As many as suit the environment, unless there is a number here.
TIMESTEPS ?=
TRAIN_OPTIONS ?=
BENCH_OPTIONS ?=
FIGURES_OPTIONS ?= --quick
RETURNS_OPTIONS ?= --normalize
# Versions of Python, as in "3.11 3.13", and the requirement for PyTorch of `make test-versions`.
TEST_PYTHONS ?= $(shell $(PYTHON) -c 'import sys; print("{}.{}".format(*sys.version_info))' 2> /dev/null)
TEST_TORCH ?= torch==2.13.0
SOAK_MINUTES ?= 5
PYTEST_OPTIONS ?=
SB3_SOURCE ?=
# Tests of one file share what takes long to make, and all that need a Ray cluster share that one: tests/conftest.py makes
# these groups. Many tests wait, so that there is work for more than two cores.
PARALLEL_TESTS := --numprocesses 4 --dist loadgroup

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
TESTS_INSTALLED := $(VENV)/.installed-for-tests
# Tools that are no part of the package's environment.
TOOLS := .venv-tools
TOOLS_INSTALLED := $(TOOLS)/.installed
CLEAN_VENV := build/clean-venv
INSTALL := -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this list
	@echo "usage: make TARGET [VARIABLE=value ...]"
	@echo
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo "variables (and their values now):"
	@echo "  PYTHON=$(PYTHON)  ENV_ID=$(ENV_ID)  N_SAMPLERS=$(N_SAMPLERS)  TIMESTEPS=$(TIMESTEPS)  SOAK_MINUTES=$(SOAK_MINUTES)"
	@echo "  TRAIN_OPTIONS, BENCH_OPTIONS, RETURNS_OPTIONS, FIGURES_OPTIONS, PYTEST_OPTIONS: further options of sb3-walle train,"
	@echo "  of python -m benchmarks.speed, benchmarks.returns and benchmarks.figures, and of pytest"

.PHONY: setup
setup: $(INSTALLED) ## Create the virtual environment and install the package and what it needs

# A virtual environment that was cut short, or whose Python is gone, cannot run pip: it is made anew.
$(INSTALLED): pyproject.toml constraints.txt
	@command -v $(PYTHON) > /dev/null || { echo "error: '$(PYTHON)' not found: pass PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 10) else "error: sb3_walle needs Python 3.10 or newer, \
	but $(PYTHON) is Python " + sys.version.split()[0] + ": pass PYTHON=/path/to/a/newer/python3")'
	@$(BIN)/python -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@echo "Installing sb3_walle and the packages that constraints.txt pins into $(VENV) (once, takes minutes)"
	@$(BIN)/python $(INSTALL) --constraint constraints.txt --editable '.[extra]'
	@touch $@

$(TESTS_INSTALLED): $(INSTALLED)
	@echo "Installing what the tests need into $(VENV)"
	@$(BIN)/python $(INSTALL) --constraint constraints.txt --editable '.[test,extra,contrib,ray]'
	@touch $@

$(TOOLS_INSTALLED):
	@$(PYTHON) -m venv --clear $(TOOLS)
	@$(TOOLS)/bin/python $(INSTALL) build nox twine
	@touch $@

.PHONY: train
train: $(INSTALLED) ## Train AsyncPPO on ENV_ID with N_SAMPLERS samplers for TIMESTEPS timesteps
	$(BIN)/sb3-walle train $(ENV_ID) --n-samplers $(N_SAMPLERS) $(if $(TIMESTEPS),--timesteps $(TIMESTEPS)) $(TRAIN_OPTIONS)

.PHONY: bench
bench: $(INSTALLED) ## Measure AsyncPPO against SB3's PPO on this machine, which takes half an hour
	$(BIN)/python -m benchmarks.speed $(ENV_ID) --n-samplers $(N_SAMPLERS) $(BENCH_OPTIONS)

.PHONY: returns
returns: $(INSTALLED) ## Compare the returns of AsyncPPO and SB3's PPO at equal steps
	$(BIN)/python -m benchmarks.returns $(ENV_ID) --n-samplers $(N_SAMPLERS) $(RETURNS_OPTIONS)

.PHONY: figures
figures: $(INSTALLED) ## Make the figures of the WALL-E report (FIGURES_OPTIONS= for all of them, which takes hours)
	$(BIN)/python -m benchmarks.figures $(ENV_ID) $(FIGURES_OPTIONS)

.PHONY: test
test: $(TESTS_INSTALLED) ## Run the tests
	$(BIN)/python tests/own_network.py $(BIN)/python -m pytest $(PARALLEL_TESTS) $(PYTEST_OPTIONS)

.PHONY: sb3-source
sb3-source:
	@test -f "$(SB3_SOURCE)/tests/test_save_load.py" || { echo "error: SB3_SOURCE='$(SB3_SOURCE)' holds no tests of SB3:\
	 clone its repository, check out the release that constraints.txt names, and pass SB3_SOURCE=path of the clone" >&2; exit 1; }

.PHONY: sb3-tests
sb3-tests: sb3-source $(TESTS_INSTALLED) ## Run SB3's own tests with these algorithms (SB3_SOURCE=path of a clone of SB3's repository)
	PYTHONPATH=tests $(BIN)/python -m pytest -p sb3_suite.plugin --import-mode=append --continue-on-collection-errors $(SB3_SOURCE)/tests $(PYTEST_OPTIONS)

.PHONY: soak
soak: $(TESTS_INSTALLED) ## Kill samplers for some minutes while training, and count what is lost
	$(BIN)/python tests/faults/soak.py --minutes $(SOAK_MINUTES)

.PHONY: docs
docs: $(VENV)/.installed-docs ## Build the documentation as a site in docs/_build
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet --builder html docs docs/_build
	@echo "Open docs/_build/index.html"

$(VENV)/.installed-docs: $(INSTALLED)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	@touch $@

.PHONY: test-versions
test-versions: $(TOOLS_INSTALLED) ## Run the core of the tests with the lowest and the newest versions of what the package needs
	TEST_PYTHONS="$(TEST_PYTHONS)" TEST_TORCH="$(TEST_TORCH)" $(TOOLS)/bin/nox

.PHONY: dist
dist: $(TOOLS_INSTALLED) ## Build wheel and sdist, check them, and train with the wheel in a clean virtual environment
	rm -rf dist $(CLEAN_VENV)
	$(TOOLS)/bin/python -m build
	$(TOOLS)/bin/twine check --strict dist/*
	$(PYTHON) -m venv $(CLEAN_VENV)
	$(CLEAN_VENV)/bin/python $(INSTALL) --constraint constraints.txt dist/*.whl
	cd $(CLEAN_VENV) && bin/python -c 'from sb3_walle import AsyncPPO; AsyncPPO("MlpPolicy", "CartPole-v1").learn(1)'
	$(CLEAN_VENV)/bin/python $(INSTALL) --constraint constraints.txt "$$(echo dist/*.whl)[extra]"
	cd $(CLEAN_VENV) && bin/sb3-walle train HalfCheetah-v4 --timesteps 20000 --n-steps 1024

.PHONY: lint
lint: $(TESTS_INSTALLED) ## Check style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.PHONY: format
format: $(TESTS_INSTALLED) ## Format the code and fix what can be fixed automatically
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: clean
clean: ## Remove the virtual environment, caches and build products (runs/ is kept)
	rm -rf $(VENV) $(TOOLS) .nox build dist docs/_build .mypy_cache .pytest_cache .ruff_cache .hypothesis MUJOCO_LOG.TXT *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
