# Each target sets up what it needs; the second time that is already there and it starts at once.
# Written for GNU Make 3.81 and newer (macOS ships 3.81).

PYTHON ?= python3
VENV := .venv
READY := $(VENV)/ready
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif

DATA := generated
# As the command itself would choose; named so that the folder below has its name.
PRESET := $(if $(filter generated,$(DATA)),laptop,photos)
OUT = runs/$(PRESET)
ARGS :=
# Property and training tests run fastest as one single-threaded worker per core; more than four
# would mostly cost memory. The threads per worker are set in tests/conftest.py.
WORKERS := logical
XDIST := -n $(WORKERS) --maxprocesses 4 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help setup run doctor test test-all lab notebooks site bundle handout clean \
  with-tests

help:  ## list the targets
	@echo "Pruning ResNets"
	@sed -n $(if $(wildcard tests/.),,-e '/: with-tests /d') \
	  -e 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | \
	  awk -F '|' '{ printf "%-18s %s\n", $$1, $$2 }'
	@echo "Another Python: make run PYTHON=python3.12"

setup: $(READY)  ## make the environment in .venv with the exact versions

# A folder that holds a run goes on with it; a finished run is reported again at once.
run: $(READY)  ## train, prune and report on generated data (PRESET, DATA, OUT, ARGS)
	$(BIN)/python -m course_lib run --preset $(PRESET) --data "$(DATA)" --out $(OUT) \
	  $(if $(wildcard $(OUT)/config.json),--resume) $(ARGS)

doctor: $(READY)  ## check that this machine has what the course needs
	@$(BIN)/python -m course_lib doctor

test: with-tests $(READY)  ## every test but the slow ones (ARGS go to pytest)
	$(BIN)/python -m pytest $(XDIST) $(ARGS)

test-all: with-tests $(READY)  ## the slow tests and thousands of property cases too
	$(BIN)/python -m pytest $(XDIST) -m "" --hypothesis-profile=thousands $(ARGS)

lab: $(READY)  ## JupyterLab with the notebooks (ARGS go to it: --allow-root in a container)
	$(BIN)/python -m jupyter lab $(firstword $(wildcard notebooks/00_start_here.ipynb) .) $(ARGS)

notebooks: with-tests $(READY)  ## run every notebook again and keep what changed (ARGS: --all, or some of them)
	$(BIN)/python tests/rerun.py $(ARGS)

site: $(READY)  ## the course as pages for a browser, in build/site (no script, no network)
	rm -rf build/site
	$(BIN)/python docs/site/build.py

# Without CUDA: PIP_EXTRA_INDEX_URL=… with the address that PyTorch's site gives for the CPU build.
PLATFORM :=
PYTHON_VERSION :=
bundle: $(READY)  ## what a room without internet needs (PLATFORM: linux macos windows; PYTHON_VERSION)
	$(BIN)/python docs/bundle/build.py $(if $(PLATFORM),--platform $(PLATFORM)) \
	  $(if $(PYTHON_VERSION),--python-version $(PYTHON_VERSION)) $(ARGS)

handout: with-tests $(READY)  ## the copies to hand out, without solutions and with them, in build/handout
	$(BIN)/python tests/handout.py $(ARGS)

clean:  ## remove the environment, build/ and the tools' caches; runs/ and data/ stay
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find course_lib tests -name __pycache__ -type d -prune -exec rm -rf {} +

# Copies that are handed out have no tests; this is said before anything is installed.
with-tests:
	@test -d tests || { echo "This copy has no tests." >&2; exit 2; }

# The stamp: as long as it is newer than the pins, nothing is installed again.
CHECK := import sys; sys.exit(sys.version_info < (3, 11))

$(READY): requirements.txt pyproject.toml
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
	  $(PYTHON) -c '$(CHECK)' 2>/dev/null || { \
	    echo "The course needs Python 3.11, 3.12 or 3.13, and $(PYTHON) is $$($(PYTHON) --version 2>&1 || echo missing):" \
	      "install one and name it, as in: make $(firstword $(MAKECMDGOALS) run) PYTHON=python3.12" >&2; exit 1; }; \
	  echo "Making $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@$(BIN)/python -c '$(CHECK)' || { \
	  echo "$(VENV) holds $$($(BIN)/python --version) and the course needs 3.11 or newer: make clean, then again." >&2; exit 1; }
	@echo "Installing the versions in requirements.txt; the first time takes some minutes"
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements.txt -e .
	@touch $@
