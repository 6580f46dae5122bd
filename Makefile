# Everything runs in a virtual environment of the checkout's own, with the versions that constraints.txt pins.

PYTHON ?= python3
ENV_ID ?= HalfCheetah-v4
N_SAMPLERS ?= 10
# As many as suit the environment, unless there is a number here.
TIMESTEPS ?=
TRAIN_OPTIONS ?=
BENCH_OPTIONS ?=
SOAK_MINUTES ?= 5
PYTEST_OPTIONS ?=
SB3_SOURCE ?=
# Tests of one file share what takes long to make. Many of them wait, so that there is work for more than two cores.
PARALLEL_TESTS := --numprocesses 4 --dist loadfile

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this list
	@echo "usage: make TARGET [VARIABLE=value ...]"
	@echo
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-9s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo "variables (and their values now):"
	@echo "  PYTHON=$(PYTHON)  ENV_ID=$(ENV_ID)  N_SAMPLERS=$(N_SAMPLERS)  TIMESTEPS=$(TIMESTEPS)  SOAK_MINUTES=$(SOAK_MINUTES)"
	@echo "  TRAIN_OPTIONS, BENCH_OPTIONS, PYTEST_OPTIONS: further options of sb3-walle train, sb3-walle bench and pytest"

.PHONY: setup
setup: $(INSTALLED) ## Create the virtual environment and install the package and what it needs

# A virtual environment that was cut short, or whose Python is gone, cannot run pip: it is made anew.
$(INSTALLED): pyproject.toml constraints.txt
	@command -v $(PYTHON) > /dev/null || { echo "error: '$(PYTHON)' not found: pass PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 10) else "error: sb3_walle needs Python 3.10 or newer, \
	but $(PYTHON) is Python " + sys.version.split()[0] + ": pass PYTHON=/path/to/a/newer/python3")'
	@$(BIN)/python -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@echo "Installing sb3_walle and the packages that constraints.txt pins into $(VENV) (once, takes minutes)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	@touch $@

.PHONY: train
train: $(INSTALLED) ## Train AsyncPPO on ENV_ID with N_SAMPLERS samplers for TIMESTEPS timesteps
	$(BIN)/sb3-walle train $(ENV_ID) --n-samplers $(N_SAMPLERS) $(if $(TIMESTEPS),--timesteps $(TIMESTEPS)) $(TRAIN_OPTIONS)

.PHONY: bench
bench: $(INSTALLED) ## Measure AsyncPPO against SB3's PPO on this machine
	$(BIN)/sb3-walle bench $(ENV_ID) --n-samplers $(N_SAMPLERS) $(BENCH_OPTIONS)

.PHONY: test
test: $(INSTALLED) ## Run the tests
	$(BIN)/python -m pytest $(PARALLEL_TESTS) $(PYTEST_OPTIONS)

.PHONY: sb3-source
sb3-source:
	@test -f "$(SB3_SOURCE)/tests/test_save_load.py" || { echo "error: SB3_SOURCE='$(SB3_SOURCE)' holds no tests of SB3:\
	 clone its repository, check out the release that constraints.txt names, and pass SB3_SOURCE=path of the clone" >&2; exit 1; }

.PHONY: sb3-tests
sb3-tests: sb3-source $(INSTALLED) ## Run SB3's own tests with these algorithms (SB3_SOURCE=path of a clone of SB3's repository)
	PYTHONPATH=tests $(BIN)/python -m pytest -p sb3_suite.plugin --import-mode=append --continue-on-collection-errors $(SB3_SOURCE)/tests $(PYTEST_OPTIONS)

.PHONY: soak
soak: $(INSTALLED) ## Kill samplers for some minutes while training, and count what is lost
	$(BIN)/python tests/faults/soak.py --minutes $(SOAK_MINUTES)

.PHONY: docs
docs: $(VENV)/.installed-docs ## Build the documentation as a site in docs/_build
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet --builder html docs docs/_build
	@echo "Open docs/_build/index.html"

$(VENV)/.installed-docs: $(INSTALLED)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	@touch $@

.PHONY: lint
lint: $(INSTALLED) ## Check style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.PHONY: format
format: $(INSTALLED) ## Format the code and fix what can be fixed automatically
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: clean
clean: ## Remove the virtual environment, caches and build products (runs/ is kept)
	rm -rf $(VENV) build dist docs/_build .mypy_cache .pytest_cache .ruff_cache .hypothesis MUJOCO_LOG.TXT *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
