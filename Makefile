# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
# The CPU build that the project is tested with; for another: make demo TORCH=torch==2.11.0
TORCH ?= torch==2.13.0
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test check clean

$(VENV)/installed: pyproject.toml commlens.pth
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: $(VENV)/installed
	$(BIN)/commlens demo

# Tests of real jobs and of pages run one by one, for they are of time; the others share the cores.
ALONE := job or browser
test: $(VENV)/installed-dev
	@failed=0; \
	$(BIN)/python -m pytest -m "not ($(ALONE))" -n 2 --dist loadscope || failed=1; \
	$(BIN)/python -m pytest -m "$(ALONE)" || failed=1; \
	exit $$failed

check: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) commlens-runs .mypy_cache .ruff_cache .pytest_cache
