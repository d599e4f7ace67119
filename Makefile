# What there is to do here; each target sets up what it needs. `make` lists them.

PYTHON ?= python3
PYTHON_FOR_MXNET ?= python3.11
PYTHON_OLDEST ?= python3.10
PYTHON_OLDEST_JAX ?= python3.11
BIN := .venv/bin
# Modules are compiled as they are imported: most of what the frameworks bring never is, and pip would take minutes for all.
# What is compiled must be kept, then: the tests start hundreds of processes.
export PYTHONDONTWRITEBYTECODE :=
INSTALL := pip install --quiet --disable-pip-version-check --no-compile

# The data sets lie here on some machines; elsewhere they are downloaded on first use.
ifneq ($(wildcard ../shared/data),)
export STEPRULE_DATA ?= $(abspath ../shared/data)
endif

# MXNet's tests are left out where there is no Python that MXNet has wheels for.
ifneq ($(shell command -v $(PYTHON_FOR_MXNET)),)
MXNET := .venv-mxnet/tests
TEST_MXNET := test-mxnet
endif

# Tests that import no framework, or only those that are installed.
WITHOUT_FRAMEWORKS := tests/test_notation.py tests/test_specification.py tests/test_around.py tests/test_program.py \
	tests/test_reference.py tests/test_sparsity.py tests/kernels/test_cpu.py tests/conformance/test_engines.py \
	tests/conformance/test_many_steps.py

# What PyTorch, its trainers, the laboratory and the cluster have part in.
OLDEST_TORCH := tests/torch tests/kernels tests/curvature tests/rules tests/lab tests/report tests/cluster tests/distributed \
	tests/trainers tests/test_*.py

.PHONY: help compare test test-mxnet test-keras test-oldest test-oldest-torch test-oldest-jax conformance reproduce-d2l \
	docs-d2l reproduce-zeiler2012 docs-zeiler2012 docs-staleness docs-speech lint format bench bench-gpu bench-jax bench-simulate docs wheel browser clean

help:
	@echo "make compare   compare the update rules on real data; writes compare/index.html"
	@echo "make test      all tests"
	@echo "make test-keras the Keras optimizers, on each backend in a process of its own; part of make test"
	@echo "make test-mxnet the core's tests, and the rules on MXNet, in an environment of its own; part of make test"
	@echo "make test-oldest tests in the oldest versions that pyproject.toml allows; downloads some 3 GB of CUDA with PyTorch"
	@echo "make conformance run every engine beside the oracle; writes docs/conformance.md"
	@echo "make lint      style, types, floors"
	@echo "make format    put the style right where a tool can"
	@echo "make reproduce-d2l the airfoil experiment in every framework; writes d2l/index.html"
	@echo "make docs-d2l  the same, and what docs/d2l.md shows of it"
	@echo "make reproduce-zeiler2012 the ADADELTA paper on MNIST; writes zeiler2012/index.html"
	@echo "make docs-zeiler2012 what docs/zeiler2012.md shows of it, of the parts and seeds that are finished"
	@echo "make bench     measure against PyTorch; writes benchmarks/latest.json"
	@echo "make bench-gpu the same on a GPU; writes benchmarks/gpu.json"
	@echo "make bench-jax in JAX, against optax; writes benchmarks/jax.json"
	@echo "make bench-simulate the simulated cluster, against plain training; writes benchmarks/simulate.json"
	@echo "make docs-staleness the study of staleness, and what docs/staleness.md shows of it"
	@echo "make docs-speech the paper's speech experiments, and what docs/speech.md shows of them"
	@echo "make docs      the documentation, in docs/_build/index.html"
	@echo "make wheel     the package, in dist/"
	@echo "make browser   install Chromium, which the page's tests need (Debian, as root)"
	@echo "make clean     remove what the above made"

# Versions are pinned for development; users get the ranges of pyproject.toml.
.venv/lab: pyproject.toml constraints.txt
	@echo "setting up .venv (once, some minutes)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/$(INSTALL) --constraint constraints.txt --editable '.[lab]'
	@touch $@

.venv/dev: .venv/lab
	@$(BIN)/$(INSTALL) --constraint constraints.txt --editable '.[lab,dev]'
	@touch $@

# Training frameworks, which the tests alone need.
.venv/trainers: .venv/dev
	@$(BIN)/$(INSTALL) --constraint constraints.txt --editable '.[lab,dev,trainers]'
	@touch $@

# MXNet needs a NumPy that no longer goes with the others, and a Python that has wheels of it: 3.10 or 3.11.
.venv-mxnet/tests: pyproject.toml constraints-mxnet.txt
	@echo "setting up .venv-mxnet (once)"
	@$(PYTHON_FOR_MXNET) -m venv .venv-mxnet
	@.venv-mxnet/bin/$(INSTALL) --constraint constraints-mxnet.txt --editable '.[mxnet]' \
		hypothesis pytest scikit-learn
	@touch $@

compare: .venv/lab
	$(BIN)/steprule compare

# Every environment's tests. Tests side by side have more threads than there are cores: those that wait must sleep, lest they keep the others from work.
test: export OMP_WAIT_POLICY = passive
test:
	$(MAKE) -j 2 .venv/trainers $(MXNET)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not serial"
	$(BIN)/python -m pytest -m serial
	$(MAKE) -j 2 --output-sync test-keras $(TEST_MXNET)

# Keras has one backend in a process.
test-keras: $(addprefix test-keras-,tensorflow jax torch)

test-keras-%: export OMP_WAIT_POLICY = passive
test-keras-%: .venv/dev
	KERAS_BACKEND=$* TF_CPP_MIN_LOG_LEVEL=3 $(BIN)/python -m pytest tests/keras tests/conformance/test_engines.py -k keras

# What the other frameworks need is skipped here, whatever CI asks for.
test-mxnet: export STEPRULE_REQUIRE_ALL = 0
test-mxnet: .venv-mxnet/tests
	.venv-mxnet/bin/python -m pytest $(WITHOUT_FRAMEWORKS)

# Not part of `make test`: PyTorch's older builds come with CUDA. What an old version cannot do itself, a test says and skips.
test-oldest: test-oldest-torch test-oldest-jax

test-oldest-%: export OMP_WAIT_POLICY = passive
test-oldest-%: export STEPRULE_REQUIRE_ALL = 0

test-oldest-torch: .venv-oldest/tests
	.venv-oldest/bin/python -m pytest -n 2 --dist worksteal -m "not serial" $(OLDEST_TORCH)

test-oldest-jax: .venv-oldest-jax/tests
	.venv-oldest-jax/bin/python -m pytest -n 2 --dist worksteal tests/jax
	KERAS_BACKEND=jax .venv-oldest-jax/bin/python -m pytest tests/keras

.venv-oldest/tests: pyproject.toml constraints-oldest.txt
	@echo "setting up .venv-oldest (once, some minutes)"
	@$(PYTHON_OLDEST) -m venv .venv-oldest
	@.venv-oldest/bin/$(INSTALL) --constraint constraints-oldest.txt \
		--editable '.[lab,cluster,trainers]' hypothesis pytest pytest-xdist
	@touch $@

.venv-oldest-jax/tests: pyproject.toml constraints-oldest-jax.txt
	@echo "setting up .venv-oldest-jax (once)"
	@$(PYTHON_OLDEST_JAX) -m venv .venv-oldest-jax
	@.venv-oldest-jax/bin/$(INSTALL) --constraint constraints-oldest-jax.txt \
		--editable '.[jax,keras]' array-api-strict equinox flax hypothesis pytest pytest-xdist scikit-learn
	@touch $@

# Engines that cannot be in one process are measured in several; a part more is a line more.
CONFORMANCE := build/conformance
conformance: .venv/dev .venv-mxnet/tests
	$(BIN)/python -W ignore -m tests.conformance.table measure $(CONFORMANCE)/main.json
	.venv-mxnet/bin/python -W ignore -m tests.conformance.table measure $(CONFORMANCE)/mxnet.json MXNet
	for backend in tensorflow jax torch; do KERAS_BACKEND=$$backend TF_CPP_MIN_LOG_LEVEL=3 \
		$(BIN)/python -W ignore -m tests.conformance.table measure $(CONFORMANCE)/keras-$$backend.json Keras || exit; done
	$(BIN)/python -W ignore -m tests.conformance.table page docs/conformance.md $(CONFORMANCE)/main.json \
		$(CONFORMANCE)/mxnet.json $(CONFORMANCE)/keras-*.json

lint: .venv/dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# MXNet's environment is looked for in this folder; without it, the rest runs and tells what installs it.
reproduce-d2l: .venv/dev .venv-mxnet/tests
	$(BIN)/steprule reproduce d2l --exercises --seeds 10

# The table and the figures that docs/d2l.md shows, measured here.
docs-d2l: reproduce-d2l
	mkdir -p docs/images/d2l
	cp d2l/table.txt d2l/figures/*.svg docs/images/d2l/

# Hours; interrupted, it goes on from where it was. FROM is the folder of the results.
FROM ?= zeiler2012
reproduce-zeiler2012: .venv/dev
	$(BIN)/steprule reproduce zeiler2012 --out $(FROM)

# The parts that are finished there become the committed results of those parts, from which the docs' tables and figures are
# made.
docs-zeiler2012: .venv/dev
	$(BIN)/steprule reproduce zeiler2012 --no-train --out $(FROM)
	$(BIN)/python -m steprule.lab.zeiler2012.published $(FROM)/results.json
	$(BIN)/steprule reproduce zeiler2012 --published --out build/zeiler2012
	mkdir -p docs/images/zeiler2012
	cp build/zeiler2012/table.txt build/zeiler2012/figures/*.svg docs/images/zeiler2012/

bench: .venv/lab
	$(BIN)/steprule bench --json benchmarks/latest.json

bench-gpu: .venv/lab
	$(BIN)/steprule bench --device cuda --json benchmarks/gpu.json

bench-jax: .venv/dev
	$(BIN)/steprule bench --framework jax --rules sgd,adagrad,rmsprop,adadelta,adam --json benchmarks/jax.json

bench-simulate: .venv/lab
	$(BIN)/python benchmarks/simulate.py

# In about forty minutes on two cores; what is finished is kept.
docs-staleness: .venv/lab
	$(BIN)/steprule cluster study
	mkdir -p docs/images/staleness
	cp staleness/table.txt staleness/figures/*.svg docs/images/staleness/

# In a quarter of an hour on two cores; what is finished is kept.
docs-speech: .venv/lab
	$(BIN)/steprule reproduce zeiler2012 fig3 fig4
	for figure in fig3 fig4; do cp zeiler2012/$$figure/figures/$$figure-updates.svg docs/images/speech/ && \
		cp zeiler2012/$$figure/table.txt docs/images/speech/$$figure.txt || exit; done

docs: .venv/dev
	$(BIN)/sphinx-build --quiet --fail-on-warning --builder html docs docs/_build

wheel: .venv/dev
	$(BIN)/python -m build --outdir dist

browser:
	command -v chromium || (apt-get update -qq && apt-get install -y -qq chromium fonts-dejavu-core)

clean:
	rm -rf .venv .venv-mxnet .venv-oldest .venv-oldest-jax build dist docs/_build docs/rules.md benchmarks/latest.json compare d2l zeiler2012 staleness .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
