# Two commands for a fresh machine with Python 3.11+: `make demo` and `make test`. Everything lands in .venv.

PYTHON ?= python3
VENV := .venv
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif
READY := $(VENV)/.ready

.PHONY: demo test bench bench-growth bench-results soak lint fmt clean

demo: $(READY)  ## run the six patterns on SQLite, kill the host twice on the way, check that everything finishes
	$(BIN)/python -m examples.demo

# Tests start hundreds of processes, and each would compile all of it if Python may not write down what it compiled.
# Many wait for such a process, or for a clock: so there is one worker more than processors.
test: $(READY)  ## all tests but the long ones
	$(BIN)/python -m compileall -q src examples benchmarks tests
	$(BIN)/python -m pytest -n $$($(BIN)/python -c "import os; print(os.cpu_count() + 1)") --dist worksteal

soak: $(READY)  ## the long tests
	$(BIN)/python -m pytest -m soak

bench: $(READY)  ## measure; prints a table, writes benchmarks/results/latest.json and charts
	$(BIN)/python -m benchmarks $(ARGS)

bench-growth: $(READY)  ## measure how costs grow, with up to a million instances; writes growth.json and charts there
	$(BIN)/python -m benchmarks --growth $(ARGS)

bench-results: $(READY)  ## write benchmarks/RESULTS.md from what the last two have left
	$(BIN)/python -m benchmarks.results_page

lint: $(READY)  ## format, style, types, layers, and our own linter on the examples
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports
	$(BIN)/holdfast lint examples

fmt: $(READY)  ## put everything into shape
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e . --group dev
	touch $(READY)

clean:
	rm -rf $(VENV) .ruff_cache .mypy_cache .import_linter_cache .hypothesis
