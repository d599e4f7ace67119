# What there is to do here; each target sets up what it needs. `make` lists them.

PYTHON ?= python3
BIN := .venv/bin

# The data sets lie here on some machines; elsewhere they are downloaded on first use.
ifneq ($(wildcard ../shared/data),)
export STEPRULE_DATA ?= $(abspath ../shared/data)
endif

.PHONY: help compare test test-keras lint format bench bench-gpu docs wheel browser clean

help:
	@echo "make compare   compare the update rules on real data; writes compare/index.html"
	@echo "make test      all tests"
	@echo "make test-keras  the Keras optimizers, on each backend in a process of its own; part of make test"
	@echo "make lint      style, types, floors"
	@echo "make format    put the style right where a tool can"
	@echo "make bench     measure against PyTorch; writes benchmarks/latest.json"
	@echo "make bench-gpu the same on a GPU; writes benchmarks/gpu.json"
	@echo "make docs      the documentation, in docs/_build/index.html"
	@echo "make wheel     the package, in dist/"
	@echo "make browser   install Chromium, which the page's tests need (Debian, as root)"
	@echo "make clean     remove what the above made"

# Versions are pinned for development; users get the ranges of pyproject.toml.
.venv/lab: pyproject.toml constraints.txt
	@echo "setting up .venv (once, some minutes)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[lab]'
	@touch $@

.venv/dev: .venv/lab
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[lab,dev]'
	@touch $@

# Training frameworks, which the tests alone need.
.venv/trainers: .venv/dev
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[lab,dev,trainers]'
	@touch $@

compare: .venv/lab
	$(BIN)/steprule compare

# Tests side by side have more threads than there are cores: those that wait must sleep, lest they keep the others from work.
test: export OMP_WAIT_POLICY = passive
test: .venv/trainers
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not serial"
	$(BIN)/python -m pytest -m serial
	$(MAKE) -j 3 --output-sync test-keras

# Keras has one backend in a process.
test-keras: $(addprefix test-keras-,tensorflow jax torch)

test-keras-%: export OMP_WAIT_POLICY = passive
test-keras-%: .venv/dev
	KERAS_BACKEND=$* TF_CPP_MIN_LOG_LEVEL=3 $(BIN)/python -m pytest tests/keras
	KERAS_BACKEND=$* TF_CPP_MIN_LOG_LEVEL=3 $(BIN)/python -m pytest tests/conformance/test_engines.py -k Keras

lint: .venv/dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: .venv/lab
	$(BIN)/steprule bench --json benchmarks/latest.json

bench-gpu: .venv/lab
	$(BIN)/steprule bench --device cuda --json benchmarks/gpu.json

docs: .venv/dev
	$(BIN)/sphinx-build --quiet --fail-on-warning --builder html docs docs/_build

wheel: .venv/dev
	$(BIN)/python -m build --outdir dist

browser:
	command -v chromium || (apt-get update -qq && apt-get install -y -qq chromium fonts-dejavu-core)

clean:
	rm -rf .venv dist docs/_build compare .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
