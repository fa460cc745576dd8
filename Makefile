# Needs git, make and Python ≥ 3.11 with venv; everything else is installed into .venv, at the versions of requirements.lock.

PYTHON ?= python3
UV     := uv==0.13.8
BIN    := .venv/bin

# Four runtimes in one process with everything else were seen to end it: their tests have a process of their own.
APART := tests/infer tests/export
# These fork, which torch allows no process where a gradient was once worked out in threads.
FORKED := $(addprefix tests/lab/test_study_,locks.py own.py run.py)

# Files of tests beside each other, with a core each: what a test makes for its file is made once.
JOBS   ?= 2
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses $(JOBS) --dist loadfile

# An environment that the caller has activated must not leak into ours; without bytecode each process would compile torch anew.
unexport VIRTUAL_ENV CONDA_PREFIX PYTHONHOME PYTHONPATH PYTHONDONTWRITEBYTECODE

.PHONY: help demo test slow lint lock docs bench bench-gpu clean environment

help:  ## print this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

demo: environment  ## train a small CAFormer on real digits, evaluate it, classify images with it
	@$(BIN)/metaformer demo

test: lint  ## lint, types, architecture, and every test that is not slow; JOBS=8 on a larger machine
	@$(PYTEST) -m "not slow" $(addprefix --ignore=,$(APART) $(FORKED))
	@$(PYTEST) -m "not slow" $(APART)
	@$(PYTEST) -m "not slow" $(FORKED)

slow: environment  ## the tests that need minutes
	@$(PYTEST) -m slow $(addprefix --ignore=,$(APART) $(FORKED))
	@$(PYTEST) -m slow $(APART)
	@$(PYTEST) -m slow $(FORKED)

lint: environment  ## ruff, pyrefly, import-linter
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyrefly check
	@$(BIN)/lint-imports --no-logo

docs: environment  ## the site, in build/site; open build/site/index.html
	@$(BIN)/python docs/site/build.py

lock: environment  ## resolve requirements.lock again; UPGRADE=--upgrade for the newest versions
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest \
		--extra dev --extra docs --extra fast --extra ray --extra serve $(UPGRADE) --no-annotate --no-emit-index-url --custom-compile-command "make lock" \
		--python $(BIN)/python pyproject.toml --output-file requirements.lock

# What the Predictor would choose of ours, with timm's in every engine; who is left out so that two cores need 15 minutes is told.
bench: environment  ## measure ours and timm's s models: bench/bench.md, .json, .csv, .png
	@$(BIN)/metaformer bench --minutes 14 --leave-out 'ours torch*,ours compiled*,ours onnxruntime*,timm torch bf16'

bench-gpu:  ## measure with the torch of PYTHON, without installing anything
	@PYTHONPATH=src $(PYTHON) -m metaformer.lab.bench

clean:  ## remove the environment, builds and caches; runs/ stays
	@rm -rf .venv build dist .hypothesis .import_linter_cache .pytest_cache .ruff_cache
	@find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# .venv/ready holds what the environment was made from: Python, uv and place, then a checksum of what was installed.
# Another base, or no such file because making it was cut short: made anew. Another checksum: brought up to date.
environment:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "metaformer needs Python 3.11 or newer, which $(PYTHON) is not. Name another one: make demo PYTHON=python3.12" >&2; \
		exit 1; }
	@base="$$($(PYTHON) -V) $(UV) $(CURDIR)"; all="$$base $$(cat pyproject.toml requirements.lock | cksum)"; \
	have="$$(cat .venv/ready 2>/dev/null || :)"; \
	if [ "$$have" = "$$all" ]; then exit 0; fi; set -e; \
	case "$$have" in "$$base "*) echo "Bringing .venv up to date ...";; \
		*) echo "Making .venv with $$($(PYTHON) -V) ..."; \
		$(PYTHON) -m venv --clear .venv || { echo "Making .venv failed: does this Python have venv and pip?" \
			"(On Debian and Ubuntu: apt install python3-venv)" >&2; exit 1; }; \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(UV)";; esac; \
	rm -f .venv/ready; \
	echo "--editable ." | $(BIN)/uv pip sync --python $(BIN)/python requirements.lock -; \
	printf '%s\n' "$$all" > .venv/ready
