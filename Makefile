# `make train` and `make test` need nothing but Python 3.11+ and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help train checkpoint test test-long check bench clean

help:
	@echo "make train      train the smoke configuration (about two minutes on a laptop)"
	@echo "make checkpoint train that run again and put it in place of checkpoints/phase1_smoke"
	@echo "make test       run the test suite"
	@echo "make test-long  run the longer proofs as well"
	@echo "make check      lint and type-check"
	@echo "make bench      measure speed on this machine"

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"jules_jax needs Python 3.11 or newer, and {sys.executable} is {v.major}.{v.minor}; name another one: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@

train: $(STAMP)
	$(BIN)/python -m jules_jax.train --config configs/phase1_smoke.yaml

checkpoint: $(STAMP)
	$(BIN)/python -m jules_jax.train --config configs/phase1_smoke.yaml --name shipped
	rm -rf checkpoints/.phase1_smoke
	$(BIN)/python -m jules_jax.runs share shipped --to checkpoints/.phase1_smoke
	rm -rf checkpoints/phase1_smoke
	mv checkpoints/.phase1_smoke checkpoints/phase1_smoke

# in two processes, a file of tests at a time: a worker needs up to 4 GiB
test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-long: $(STAMP)
	$(BIN)/python -m pytest -m ''

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP)
	$(BIN)/python -m benchmarks.speed --json benchmarks/results/speed.json

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
