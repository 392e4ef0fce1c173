# palinode needs python3 (3.11 or newer, with venv), make and git; everything else goes into .venv.
# Written for GNU make 3.81 and newer. PYTHON=... picks another interpreter, ARGS=... reaches
# palinode.run, pytest or a script.

PYTHON ?= python3
ARGS ?=
SHELL := /bin/sh

STAMP := .venv/installed
# Commands find the environment's python, dvc and pytest first, and so does every DVC stage command they start.
RUN := PATH="$(CURDIR)/.venv/bin:$$PATH"
PYTEST := python -m pytest -n auto --dist loadfile --no-loadscope-reorder
CODE := src stages tools tests examples benchmarks data

.DEFAULT_GOAL := help
.PHONY: help install repro exp test test-full test-cluster check lint format coverage bench tune norms strengths readme clean distclean

help: ## this list
	@sed -n 's/^\([a-z][a-z-]*\):[^#]*## */  make \1 |/p' Makefile | awk -F '|' '{ printf "%-18s%s\n", $$1, $$2 }'

install: $(STAMP) ## create .venv with the locked packages (the targets below do so by themselves)

repro: $(STAMP) ## run the whole pipeline, stages side by side: JOBS=2, GPUS=0,1, ARGS=--dry-run
	$(RUN) python -m palinode.run $(ARGS)

exp: $(STAMP) ## run one point of a sweep and record it as an experiment: ARGS="-S rows.siss-05.lr=1e-4"
	$(RUN) python -m palinode.run --experiment $(ARGS)

test: $(STAMP) ## run the tests, a file to a core at a time: pytest
	$(RUN) $(PYTEST) -m "not full and not cluster" $(ARGS)

test-full: $(STAMP) ## run all tests that need no cluster
	$(RUN) $(PYTEST) -m "not cluster" $(ARGS)

test-cluster: $(STAMP) ## run stages on a Slurm of two nodes, started on this machine as root
	$(RUN) python -m pytest -m cluster tests/cluster $(ARGS)

check: lint ## lint, then the fast tests: what to run while one works
	$(RUN) $(PYTEST) -m "not slow and not full and not cluster" $(ARGS)

lint: $(STAMP) ## check format, code and types: ruff, mypy
	$(RUN) ruff format --check $(CODE)
	$(RUN) ruff check .
	$(RUN) mypy src stages

format: $(STAMP) ## write the code as `make lint` wants it, as far as ruff can
	$(RUN) ruff check --fix .
	$(RUN) ruff format $(CODE)

coverage: $(STAMP) ## run the tests and print which share of the package's lines they reach
	$(RUN) $(PYTEST) -m "not full and not cluster" --cov --cov-report term-missing $(ARGS)

bench: $(STAMP) ## measure steps, sampling and one full cell on the large architecture
	$(RUN) python benchmarks/run.py $(ARGS)

tune: $(STAMP) ## search for learning rates on validation tasks: ARGS='TASK ROW', ARGS=tshirt for all its rows
	$(RUN) python tools/tune.py $(ARGS)

norms: $(STAMP) ## measure the constant norm of SISS's rows on a task's validation task: ARGS=TASK
	$(RUN) python tools/norms.py $(ARGS)

strengths: $(STAMP) ## compare rows at equal forgetting, and at equal quality: ARGS='TASK REVISION ...', see tools/strengths.py
	$(RUN) python tools/strengths.py $(ARGS)

readme: $(STAMP) ## write METHODS.md and the numbers of the published results into the documents
	$(RUN) python tools/readme.py $(ARGS)
	$(RUN) python tools/method_pages.py

clean: ## remove derived outputs and tool caches; DVC's cache brings the outputs back without computing
	rm -rf out report build results/environment.json .coverage .mypy_cache .pytest_cache .ruff_cache src/*.egg-info
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

distclean: clean ## also remove .venv and DVC's cache, so that the next run starts from nothing
	rm -rf .venv .dvc/cache .dvc/tmp

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || \
	{ echo "error: $(PYTHON) is not a Python 3.11 or newer with the venv module; install one or run: make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "installing the packages of requirements.lock into .venv (a few minutes the first time)"
	@test -x .venv/bin/pip || $(PYTHON) -m venv .venv
	@.venv/bin/python -m pip install -qq --disable-pip-version-check --requirement requirements.lock
	@.venv/bin/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
