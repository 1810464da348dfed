# Every target builds what it needs in .venv, so that python3, make and a package index are enough.
#
#   make demo    install hftlab and replay the sample in data/
#   make test    install everything and run every test, fuzzing with a small budget
#   make test-long   the whole fuzzing: ten million commands through kernels and slow twins
#   make lint    style and types
#   make bench   time every stage (the table in the README), then the targets
#   make bench-compare BASE=main   this commit against another: asv, with digests beside the speeds
#   make bench-site   what asv has measured so far, as a site in .asv/html
#   make bench-peers   time feeds and order books from PyPI beside it, results compared first
#   make clean   remove what was built

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help demo test test-long test-plain test-checked test-notebooks lint bench bench-compare bench-site bench-peers clean

# The first of these that is Python 3.11 to 3.13; `make PYTHON=... test` chooses another.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null \
	&& { echo $$python; break; }; done)

VENV := .venv
BIN := $(VENV)/bin
RUNTIME := $(VENV)/runtime.stamp
DEV := $(VENV)/dev.stamp
PIP := $(BIN)/python -m pip --disable-pip-version-check
PYTEST := $(BIN)/python -m pytest -q
PROCESSES ?= 2
SIDE_BY_SIDE := -n $(PROCESSES) --dist worksteal
FEW_COMMANDS := HFTLAB_FUZZ_COMMANDS=500000
OF_THE_CORE := tests/engine/test_matching.py tests/engine/test_differential.py tests/feeds/test_itch.py tests/feeds/test_lobster.py
OF_THE_REST := tests/fidelity/test_closed_loop.py tests/risk_gate/test_gate.py tests/risk_gate/test_stories.py tests/risk_gate/test_gate_events.py \
	tests/risk_gate/test_bad_input.py tests/results/test_positions.py tests/kernels/primitives/test_int128.py tests/latency/test_clock.py \
	tests/latency/test_profiler.py tests/engine/test_parts.py tests/kernels/primitives/test_python_int.py
SMALL := -m 'not data' -k 'not large_file'
DEMO := build/demo

help:
	@sed -n '3,/^$$/s/^# *//p' Makefile

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "make: hftlab needs Python 3.11, 3.12 or 3.13 and found none;" \
		"install one or name it: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "make: $(PYTHON) can't make a virtual" \
		"environment; install its venv module (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }
	@echo "creating $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)

$(RUNTIME): pyproject.toml | $(BIN)/python
	@echo "installing hftlab into $(VENV) (about 200 MB to download the first time)"
	@$(PIP) install --quiet --editable .
	@touch $@

$(DEV): pyproject.toml | $(RUNTIME)
	@echo "installing the tools for tests, notebooks and benchmarks"
	@$(PIP) install --quiet --editable '.[dev]'
	@touch $@

demo: $(RUNTIME)
	@rm -rf $(DEMO) $(DEMO).png && mkdir -p build
	$(BIN)/hftlab inspect data/sample.parquet
	$(BIN)/hftlab replay data/sample.parquet --record fills,rejects,outcomes,l1,book --out $(DEMO)
	$(BIN)/hftlab plot $(DEMO) -o $(DEMO).png

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# As shipped first, with a twentieth of the fuzzing; then, two at a time, the slices that need the kernels built
# otherwise, on smaller flows: as plain Python (the only way to see their coverage), and with every array access
# checked; notebooks.
test: lint
	@$(BIN)/python -m tests.warm
	@echo "running every test, in $(PROCESSES) processes"
	$(FEW_COMMANDS) $(PYTEST) $(SIDE_BY_SIDE)
	@echo "running slices again, each shown when it is done: kernels as plain Python, with bounds checks; notebooks"
	@$(MAKE) --no-print-directory -j2 -Otarget test-checked test-plain test-notebooks

test-plain test-checked test-notebooks: $(DEV)

test-plain:
	NUMBA_DISABLE_JIT=1 $(PYTEST) $(OF_THE_CORE) $(OF_THE_REST) $(SMALL) --cov=hftlab.kernels --cov-report=term

# The other kernels take minutes to build with checks; as plain Python every access of theirs is checked, too.
test-checked:
	NUMBA_BOUNDSCHECK=1 $(PYTEST) $(OF_THE_CORE) $(SMALL)

test-long: $(DEV)
	@$(BIN)/python -m tests.warm
	@echo "fuzzing with ten million commands, and as many messages: about ten minutes"
	$(PYTEST) $(SIDE_BY_SIDE) -m fuzz

test-notebooks:
	$(PYTEST) --nbmake notebooks

bench: $(RUNTIME)
	$(BIN)/python -m benchmarks.stages
	$(BIN)/hftlab bench --targets

# Each commit in an environment of its own, rounds taking turns, so that a busy minute hits both. What is not 15 %
# apart is noise on a shared machine; SUITE=Stages measures less than everything.
BASE ?= main
SUITE ?= .
ASV := PATH=$(abspath $(BIN)):$$PATH $(BIN)/asv

bench-compare: $(DEV)
	@$(ASV) machine --yes > /dev/null
	$(ASV) continuous --factor 1.15 --interleave-rounds --split --show-stderr --bench '$(SUITE)' $(BASE) HEAD; \
		status=$$?; $(BIN)/python -m benchmarks.digests $(BASE) HEAD || status=1; exit $$status

bench-site: $(DEV)
	$(ASV) publish

# The peers get an environment of their own, build/peers-venv.
bench-peers: $(RUNTIME)
	$(BIN)/python -m benchmarks.peers

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .coverage .asv
