# Everything runs in .venv, which is made anew when pyproject.toml or constraints.txt changes.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.set-up

.PHONY: setup demo test test-long fuzz check bench bench-compose crashes faults clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --constraint constraints.txt --editable ".[models,dev]"
	touch $@

demo: setup
	$(BIN)/adapterhub demo

test: setup
	$(BIN)/pytest -n 2 --dist worksteal -m "not long"

test-long: setup
	$(BIN)/pytest -n 2 --dist worksteal

# A million inputs, other ones each day: make fuzz, or make fuzz INPUTS=50000 SEED=7
INPUTS ?= 1000000
SEED ?= $(shell date +%Y%m%d)

fuzz: setup
	$(BIN)/python -m tests.fuzz.run --inputs $(INPUTS) --seed $(SEED)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup
	$(BIN)/python -m tests.bench.startup
	$(BIN)/python -m tests.bench.stacking

# With a GPU as well: make bench-compose DEVICE=cuda
DEVICE ?= cpu

bench-compose: setup
	$(BIN)/python -m tests.bench.composing --device $(DEVICE)

crashes: setup
	$(BIN)/python -m tests.bench.crashes
	$(BIN)/python -m tests.bench.changed_bytes

faults: setup
	$(BIN)/python -W ignore -m tests.faults.table

clean:
	rm -rf .venv .demo build dist *.egg-info .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
