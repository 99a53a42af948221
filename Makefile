# Two commands do everything on a fresh machine: `make run` (the main job, live dashboard) and `make test`.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
RUN ?=

.PHONY: run test setup check soak bench clean

setup: .venv/.ready

.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	touch $@

run: .venv/.ready
	$(BIN)/headrace run $(RUN)

test: .venv/.ready
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

check: .venv/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

soak: .venv/.ready
	$(BIN)/pytest -m soak --timeout 1800

bench: .venv/.ready
	$(BIN)/python -m bench

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
