# Each target sets itself up: Python 3.11 and make are all that has to be there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# On a machine without a GPU the CPU build of torch serves; pip finds it where one is offered.
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test smoke check bench docs nightly dist wheel-smoke clean

$(READY): pyproject.toml studies/pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "sparsernn needs Python 3.11 or newer; set PYTHON=... to one")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]' --editable ./studies
	touch $(READY)

demo: $(READY)
	$(BIN)/python -m sparsernn run shakespeare --scale cpu

# Processes that tests start need not compile the sources again, whatever the environment says of byte code.
test: $(READY)
	OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -m 'not nightly' -n auto --dist loadscope

smoke: $(READY)
	$(BIN)/python -m pytest -m smoke

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

bench: $(READY)
	$(BIN)/python -m benchmarks

nightly: $(READY)
	$(BIN)/python -m pytest -m 'nightly or counts' --timeout=36000 --record results/checks

docs: $(READY)
	$(PIP) install --quiet --constraint constraints.txt --editable '.[docs]'
	$(BIN)/python docs/generate.py
	$(BIN)/sphinx-build -W -b html docs docs/_build/html

dist: $(READY)
	$(PIP) install --quiet --constraint constraints.txt build hatchling
	$(BIN)/python tools/dist.py

wheel-smoke: $(READY)
	test -d dist || $(MAKE) dist
	$(BIN)/python tools/wheel_smoke.py

clean:
	rm -rf $(VENV) docs/_build dist .make
